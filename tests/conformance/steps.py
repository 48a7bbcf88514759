"""A conversation with a server as data, so that it can be repeated, shortened and printed.

A script is a list of steps, each one JSON object: what is sent on which connection (a small
number, its slot). Nothing in it depends on the server: a session is named by the number of the
`Open` that made it, and the player puts the id and the password in.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

PASSWORDS = ("right", "wrong", "short", "null", "zeros")


@dataclass(frozen=True, slots=True)
class Open:
    """Connect. `resume` names the session to attach to; `number` is for one that is new."""

    slot: int
    number: int
    timeout_ms: int
    resume: int | None = None
    password: str = "right"
    ahead: int = 0  # lastZxidSeen
    read_only: bytes = b"\0"  # b"" for the old request without that byte
    protocol: int = 0


@dataclass(frozen=True, slots=True)
class Send:
    """Requests, sent together. `alone`: one that may end the connection, so nothing follows it."""

    slot: int
    requests: tuple[bytes, ...]
    alone: bool = False


@dataclass(frozen=True, slots=True)
class Drop:
    """Close the TCP connection and leave the session."""

    slot: int


@dataclass(frozen=True, slots=True)
class Raw:
    """Bytes on a connection of their own, which the server closes (perhaps after an answer)."""

    data: bytes


Step = Open | Send | Drop | Raw
_KINDS: dict[str, type[Open | Send | Drop | Raw]] = {
    "open": Open,
    "send": Send,
    "drop": Drop,
    "raw": Raw,
}


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"hex": value.hex()}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _rich(value: Any) -> Any:
    if isinstance(value, dict):
        return bytes.fromhex(value["hex"])
    return tuple(_rich(item) for item in value) if isinstance(value, list) else value


def dumps(script: Iterable[Step]) -> str:
    """One line a step."""
    lines = []
    for step in script:
        fields = {name: _plain(getattr(step, name)) for name in step.__slots__}
        lines.append(json.dumps({"do": type(step).__name__.lower()} | fields))
    return "\n".join(lines) + "\n"


def loads(text: str) -> list[Step]:
    """The inverse of dumps."""
    script: list[Step] = []
    for line in filter(str.strip, text.splitlines()):
        fields = json.loads(line)
        kind = _KINDS[fields.pop("do")]
        script.append(kind(**{name: _rich(value) for name, value in fields.items()}))
    return script


def count_requests(script: Iterable[Step]) -> int:
    """How many messages a script sends: requests, handshakes and raw openings."""
    return sum(
        len(step.requests) if isinstance(step, Send) else not isinstance(step, Drop)
        for step in script
    )
