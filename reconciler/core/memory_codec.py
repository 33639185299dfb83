"""The memory of an environment as plain JSON values and back, for the projections. Driven by the types of `memory.py`.

A field at its default is left out. What does not fit the types is refused, never guessed: a projection can always be
made anew from the records.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from datetime import datetime
from functools import cache
from typing import Any, TypeVar, cast, get_args, get_origin, get_type_hints

from reconciler.core.entry_codec import moment, timestamp
from reconciler.core.memory import EnvironmentMemory

T = TypeVar("T")


class MisfitError(ValueError):
    """Values that are not a memory of this release."""


def dump(memory: EnvironmentMemory) -> dict[str, Any]:
    """The memory as plain JSON values."""
    return _dump_fields(memory)


def load(found: object) -> EnvironmentMemory:
    """The memory that `dump` showed. Raises MisfitError or UnreadableError (both are ValueError)."""
    return cast("EnvironmentMemory", _load(EnvironmentMemory, found))


def _dump(value: object) -> object:
    match value:
        case None | str() | int():
            return value
        case datetime():
            return timestamp(value)
        case Mapping():
            return {key: _dump(item) for key, item in value.items()}
        case frozenset():
            return sorted(value)
        case tuple():
            return [_dump(item) for item in value]
        case _:
            return _dump_fields(value)


def _dump_fields(value: Any) -> dict[str, Any]:  # noqa: ANN401 -- any dataclass
    return {f.name: _dump(item) for f in fields(value) if (item := getattr(value, f.name)) != _default(f)}


def _default(field: Field[Any]) -> object:
    return field.default if field.default_factory is MISSING else field.default_factory()


@cache
def _types(kind: type) -> Mapping[str, object]:
    return get_type_hints(kind)


def _load(kind: object, found: object) -> object:
    inner = get_args(kind)
    if get_origin(kind) is types.UnionType:
        return None if found is None else _load(inner[0], found)
    if kind is datetime:
        return moment(found)
    if kind in (str, bool, int):
        return _expect(cast("type", kind), found)
    if is_dataclass(kind):
        return _load_fields(cast("type", kind), _expect(dict, found))
    if get_origin(kind) is Mapping:
        return {key: _load(inner[1], item) for key, item in _expect(dict, found).items()}
    collection: Callable[..., object] = frozenset if get_origin(kind) is frozenset else tuple
    return collection(_load(inner[0], item) for item in _expect(list, found))


def _load_fields(kind: type, found: dict[str, object]) -> object:
    known = _types(kind)
    unknown = sorted(found.keys() - known.keys())
    if unknown:
        raise MisfitError(f"{kind.__name__} has no {', '.join(unknown)}")
    try:
        return kind(**{name: _load(known[name], item) for name, item in found.items()})
    except TypeError as error:
        raise MisfitError(str(error)) from error


def _expect(kind: type[T], found: object) -> T:
    if type(found) is not kind:
        raise MisfitError(f"{found!r} is not a {kind.__name__}")
    return found
