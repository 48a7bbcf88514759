"""One event, one line: how an event of the log becomes text or JSON.

Text: `time level process event key=value ...`. A value is bare if it cannot be mistaken, otherwise
in double quotes with everything that does not print escaped: no value can begin a new line or fake
a field. Nothing here reads a clock or writes.
"""

from __future__ import annotations

import json
import re
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

LEVELS: Mapping[str, int] = MappingProxyType(
    {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
)
NAMES: Mapping[int, str] = MappingProxyType({number: name for name, number in LEVELS.items()})
PRIORITIES: Mapping[int, int] = MappingProxyType({10: 7, 20: 6, 30: 4, 40: 3, 50: 2})
"""Syslog's severity of each level."""

VALUE_MAX = 2000
"""Longest value in characters; the rest is cut off and counted."""

_BARE = re.compile(r"[A-Za-z0-9_./:@%+,\-\[\]*~^$&!?|;<>()#]+")
_HEXADECIMAL = ("zxid", "session")
_SECRET = re.compile(r"passw|secret|credential|token$|private_key", re.IGNORECASE)
_RESERVED = frozenset(("time", "level", "server", "process", "pid", "event"))
_HIDDEN = "***"


@dataclass(frozen=True, slots=True)
class Event:
    """`time` in seconds since 1970; `name` is the stable dotted id; `fields` in order."""

    time: float
    level: int
    server: str
    process: str
    pid: int
    name: str
    fields: Mapping[str, Any]


def stamp(seconds: float) -> str:
    """UTC with milliseconds: 2026-01-31T12:00:00.250Z."""
    moment = datetime.fromtimestamp(seconds, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"


def as_text(event: Event, *, with_time: bool = True) -> str:
    """The line without its end. The blanks of a process's name become hyphens."""
    parts = [stamp(event.time)] if with_time else []
    parts.append(f"{NAMES[event.level].upper():<8}")
    parts.append(event.process.replace(" ", "-"))
    parts.append(event.name)
    parts += [f"{key}={_quoted(_text(key, value))}" for key, value in event.fields.items()]
    return " ".join(parts)


def as_json(event: Event) -> str:
    """One JSON object in one line; numbers and booleans stay what they are."""
    record: dict[str, Any] = {
        "time": stamp(event.time),
        "level": NAMES[event.level],
        "server": event.server,
        "process": event.process,
        "pid": event.pid,
        "event": event.name,
    }
    for key, value in event.fields.items():
        record[f"{key}_" if key in _RESERVED else key] = _plain(key, value)
    return json.dumps(record, ensure_ascii=True, separators=(",", ":"))


def _plain(key: str, value: Any) -> Any:
    plain = value is None or (isinstance(value, bool | int) and not _is_hexadecimal(key))
    return value if plain and not _SECRET.search(key) else _text(key, value)


def _is_hexadecimal(key: str) -> bool:
    return key.endswith(_HEXADECIMAL)


def _text(key: str, value: Any) -> str:
    """A value as text; secrets are hidden, session ids and zxids are hexadecimal."""
    if _SECRET.search(key):
        return _HIDDEN
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return f"0x{value & 0xFFFFFFFFFFFFFFFF:x}" if _is_hexadecimal(key) else str(value)
    if isinstance(value, float):
        return f"{value:.6g}"
    if value is None:
        return "-"
    return _cut(_composed(value))


def _composed(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value[: VALUE_MAX + 1]).decode("utf-8", "backslashreplace")
    if isinstance(value, BaseException):
        return f"{type(value).__name__}: {value}"
    if isinstance(value, tuple | list | set | frozenset):
        return ",".join(_composed(item) for item in value)
    return str(value)


def _cut(text: str) -> str:
    if len(text) <= VALUE_MAX:
        return text
    return f"{text[:VALUE_MAX]}...({len(text) - VALUE_MAX} more)"


def _quoted(text: str) -> str:
    if _BARE.fullmatch(text):
        return text
    if text.isprintable():
        escaped = text.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    return json.dumps(text, ensure_ascii=True)


def trace(error: BaseException) -> str:
    """The error's traceback as one value."""
    return "".join(traceback.format_exception(error)).rstrip()
