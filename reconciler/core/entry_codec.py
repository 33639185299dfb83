"""An entry as a plain JSON object and back. What is at its default is left out, so a new field changes no old record.

Times are RFC 3339 in UTC with six digits, durations whole microseconds. Floats are refused: their text differs
between languages, and an auditor must be able to recompute the bytes with any of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from reconciler.core.record import Entry, VersionRef, What

DEPTH = 16
INTEGER = 2**53 - 1
MICROSECOND = timedelta(microseconds=1)
_TEXTS = ("environment", "service", "revision", "author", "committer", "trigger", "reason")
_VERSIONS = {"from": "from_version", "to": "to_version"}


class UnrecordableError(ValueError):
    """An entry that has no canonical form: a mistake of the caller."""


class UnreadableError(ValueError):
    """Bytes that are not a record."""


def timestamp(at: datetime) -> str:
    """RFC 3339 in UTC with microseconds. Raises UnrecordableError for a time without a zone."""
    if at.utcoffset() is None:
        raise UnrecordableError(f"the time {at.isoformat()} has no zone; give it one")
    return at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def moment(text: object) -> datetime:
    """The time that `timestamp` wrote. Raises UnreadableError."""
    try:
        found = datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError as error:
        raise UnreadableError(f"{text!r} is not a time") from error
    if found is None or found.utcoffset() is None:
        raise UnreadableError(f"{text!r} is not a time with a zone")
    return found.astimezone(UTC)


def object_of(entry: Entry) -> dict[str, Any]:
    """The entry as plain JSON values. Raises UnrecordableError."""
    found: dict[str, Any] = {"at": timestamp(entry.at), "what": entry.what.value}
    found |= {name: clean(text) for name in _TEXTS if (text := getattr(entry, name))}
    for key, name in _VERSIONS.items():
        ref: VersionRef | None = getattr(entry, name)
        if ref is not None:
            found[key] = {
                "version": clean(ref.version),
                "image": clean(ref.image),
                "revision": clean(ref.revision),
            }
    if entry.duration is not None:
        found["durationMicroseconds"] = _whole(entry.duration // MICROSECOND, "duration")
    if entry.details:
        found["details"] = _plain(entry.details, "details", DEPTH)
    return found


def clean(text: str) -> str:
    """The text as UTF-8 can hold it: a lone surrogate, as from undecodable bytes, becomes U+FFFD."""
    if text.isascii():
        return str(text)
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _plain(value: object, where: str, depth: int) -> object:
    if depth == 0:
        raise UnrecordableError(f"{where}: nested deeper than {DEPTH}")
    match value:
        case None | bool():
            return value
        case int():
            return _whole(int(value), where)
        case str():
            return clean(value)
        case Mapping():
            return {_key(key, where): _plain(item, f"{where}.{key}", depth - 1) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item, f"{where}[{place}]", depth - 1) for place, item in enumerate(value)]
        case float():
            raise UnrecordableError(f"{where}: {value!r} is a float; record a whole number of a smaller unit, or text")
        case _:
            raise UnrecordableError(f"{where}: a {type(value).__name__} is not a JSON value")


def _whole(number: int, where: str) -> int:
    if abs(number) > INTEGER:
        raise UnrecordableError(f"{where}: {number} is beyond what every JSON reader can hold; record it as text")
    return number


def _key(key: object, where: str) -> str:
    if not isinstance(key, str):
        raise UnrecordableError(f"{where}: the key {key!r} is not text")
    return clean(key)


def entry_of(found: object) -> Entry:
    """The entry of a JSON object. Fields it does not know are left out. Raises UnreadableError."""
    if not isinstance(found, dict):
        raise UnreadableError("entry is not an object")
    known: dict[str, Any] = {name: _text(found, name) for name in _TEXTS}
    known |= {name: _version(found.get(key)) for key, name in _VERSIONS.items()}
    details = found.get("details", {})
    if not isinstance(details, dict):
        raise UnreadableError("details is not an object")
    return Entry(
        at=moment(found.get("at")),
        what=_what(found.get("what")),
        duration=_duration(found.get("durationMicroseconds")),
        details=details,
        **known,
    )


def _text(found: Mapping[str, Any], name: str) -> str:
    text = found.get(name, "")
    if not isinstance(text, str):
        raise UnreadableError(f"{name} is not text")
    return text


def _what(found: object) -> What:
    if not isinstance(found, str):
        raise UnreadableError("what is not text")
    try:
        return What(found)
    except ValueError:
        return What.UNKNOWN


def _version(found: object) -> VersionRef | None:
    if found is None:
        return None
    if not isinstance(found, dict):
        raise UnreadableError("a version is not an object")
    return VersionRef(_text(found, "version"), _text(found, "image"), _text(found, "revision"))


def _duration(found: object) -> timedelta | None:
    if found is None:
        return None
    if type(found) is not int:
        raise UnreadableError("durationMicroseconds is not a whole number")
    try:
        return timedelta(microseconds=found)
    except OverflowError as error:
        raise UnreadableError("durationMicroseconds is beyond all bounds") from error
