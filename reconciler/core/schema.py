"""A value against a bundled JSON Schema: all findings at once, in words for the person who wrote the value.

The schemas come in as values and are the only ones: the registry is empty, so no `$ref` is ever fetched or read,
and no pattern comes from a user. Keywords beyond JSON Schema 2020-12, ignored by editors: `minDuration`,
`maxDuration`, `minSize`, `minCpus`. `errorMessage` and `patternErrorMessage` are shown by editors, too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from operator import gt, lt
from typing import Any

from jsonschema import Draft202012Validator, ValidationError
from jsonschema.validators import extend
from referencing import Registry

from reconciler.core import quantity
from reconciler.core.words import nearest, shown
from reconciler.core.yaml_reader import Path, Value

Schema = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing wrong with a value: its path, whether the key is meant rather than the value, and what it is."""

    path: Path
    message: str
    at_key: bool = False


def _pattern(_validator: object, pattern: str, instance: Value, _schema: Schema) -> Iterator[ValidationError]:
    """`pattern` with a true end: Python's `$` alone would let a trailing line feed pass."""
    if isinstance(instance, str) and re.fullmatch(pattern, instance) is None:
        yield ValidationError("pattern")


def _required(_validator: object, names: Iterable[str], instance: Value, _schema: Schema) -> Iterator[ValidationError]:
    """`required` with the missing name as the message, which the library puts into a sentence."""
    if isinstance(instance, dict):
        yield from (ValidationError(name) for name in names if name not in instance)


def _bound(read: Callable[[str], Any], wrong: Callable[[Any, Any], bool]) -> Callable[..., Iterator[ValidationError]]:
    def check(_validator: object, bound: str, instance: Value, _schema: Schema) -> Iterator[ValidationError]:
        try:
            outside = isinstance(instance, str) and wrong(read(instance), read(bound))
        except ValueError:  # `pattern` says so already
            return
        if outside:
            yield ValidationError("bound")

    return check


def _is_whole(_checker: object, instance: Value) -> bool:
    """JSON Schema counts 1.0 as an integer; a person who writes it means something else."""
    return isinstance(instance, int) and not isinstance(instance, bool)


_extend: Any = extend
_Validator: Any = _extend(
    Draft202012Validator,
    {
        "pattern": _pattern,
        "required": _required,
        "minDuration": _bound(quantity.duration, lt),
        "maxDuration": _bound(quantity.duration, gt),
        "minSize": _bound(quantity.size, lt),
        "minCpus": _bound(quantity.nano_cpus, lt),
    },
    type_checker=Draft202012Validator.TYPE_CHECKER.redefine("integer", _is_whole),
)


class Checker:
    """One bundled schema, ready for use. Holds no state beyond it and may be shared between threads."""

    def __init__(self, schema: Schema) -> None:
        self._validator = _Validator(schema, registry=Registry())

    def findings(self, value: Value, plain: Callable[[Path], str | None]) -> tuple[Finding, ...]:
        """Everything wrong with `value`. `plain(path)` is the unquoted text that a scalar was written as, if it was."""
        found: list[Finding] = []
        for error in self._validator.iter_errors(value):
            found.extend(_explain(error, plain))
        return tuple(found)


_NAMES = {
    "object": "a mapping",
    "array": "a list",
    "string": "text",
    "integer": "a whole number",
    "boolean": "true or false",
    "number": "a number",
}


def _explain(error: ValidationError, plain: Callable[[Path], str | None]) -> Iterable[Finding]:
    """The findings that stand for one error of the library."""
    path: Path = tuple(error.absolute_path)
    schema: Any = error.schema
    value: Value = error.instance
    match error.validator:
        case "additionalProperties":
            known = schema.get("properties", {})
            return [
                Finding((*path, key), f"unknown field {shown(key)}{nearest(key, known)}", at_key=True)
                for key in value
                if key not in known
            ]
        case "required":
            where = f" in {path[-1]}" if path and isinstance(path[-1], str) else ""
            return [Finding(path, f"missing field {shown(error.message)}{where}; add it", at_key=True)]
        case "type":
            return [Finding(path, _wrong_type(error, plain(path)))]
    if "propertyNames" in error.absolute_schema_path:
        return [Finding((*path, str(error.instance)), _wrong_value(error), at_key=True)]
    return [Finding(path, _wrong_value(error))]


def _wrong_type(error: ValidationError, plain: str | None) -> str:
    names: Any = error.validator_value
    allowed = [names] if isinstance(names, str) else names
    wanted = " or ".join(_NAMES.get(name, name) for name in allowed)
    value: Value = error.instance
    if value is None:
        return f"no value here, but {wanted} is needed; write one or remove the key"
    if "string" in allowed and plain is not None:
        kind = "true or false" if isinstance(value, bool) else "a number"
        schema: Any = error.schema
        fits = re.fullmatch(schema.get("pattern", ".*"), plain) is not None
        advice = f"quote it: {shown(plain)}" if fits else schema.get("patternErrorMessage", "write text")
        return f"value {shown(plain, quote=False)} is {kind} here; {advice}"
    if "integer" in allowed and isinstance(value, str) and re.fullmatch("[0-9]{1,15}", value):
        return f"{shown(value)} is text here; write the number without quotes: {value}"
    return f"{_shape(value)} cannot stand here; write {wanted}"


def _shape(value: Value) -> str:
    if isinstance(value, dict):
        return "a mapping"
    return "a list" if isinstance(value, list) else shown(value)


def _wrong_value(error: ValidationError) -> str:
    """What is wrong with a value of the right type."""
    schema: Any = error.schema
    value: Value = error.instance
    bound: Any = error.validator_value
    match error.validator:
        case "pattern":
            advice = schema.get("patternErrorMessage", f"it must match {bound}")
            return f"{shown(value)} is not valid here: {advice}"
        case "enum":
            return f"{shown(value)} is not allowed here{nearest(str(value), bound)}"
        case "minimum" | "minDuration" | "minSize" | "minCpus":
            return f"{shown(value)} is too small; at least {bound}"
        case "maximum" | "maxDuration":
            return f"{shown(value)} is too large; at most {bound}"
        case "minLength" | "minItems" | "minProperties":
            return "this is empty; add something or remove it"
        case "maxLength" | "maxItems" | "maxProperties":
            return f"this is too long: {len(value)}, at most {bound}"
    return str(schema.get("errorMessage", f"{shown(value)} is not valid here ({error.validator})"))
