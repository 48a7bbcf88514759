"""What clients did and were told, as plain values, in one order.

All clients of a run live in one process and share one counter, the tick. It is counted when a
request is handed to the kernel and when an answer has been read from it, so if one operation's
`returned` is less than another's `called`, the first was over before the second began, whatever
clocks say. That is all the checker knows of time; seconds are kept beside it for deadlines and
latencies only.

An operation that was sent and never answered (its connection was lost) has `returned` None: it may
have happened or not. It is never sent again; its value or name is its own, so that it can be
recognised if it did happen.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum


class Kind(StrEnum):
    """What an operation is. The names are for reports."""

    SET = "set"
    MULTI = "multi"
    GET = "get"
    CREATE = "create"
    DELETE = "delete"
    LIST = "list"
    SYNC = "sync"
    CLOSE = "close"


@dataclass(frozen=True, slots=True)
class State:
    """A register (a znode with data) as a write made it or a read found it.

    For a write without an answer mzxid is 0 and version -1.
    """

    path: str
    value: str
    mzxid: int = 0
    version: int = -1


@dataclass(frozen=True, slots=True)
class Op:
    """One operation of one client.

    `path` is what was asked for: a register, a folder (LIST), a node to make or delete; for a
    sequential create the name without its suffix, which is unique to this operation. `created` is
    the path that a create was answered. `zxid` is that of the reply's header.
    """

    client: int
    session: int
    kind: Kind
    path: str
    called: int
    returned: int | None = None
    err: int = 0
    zxid: int = 0
    states: tuple[State, ...] = ()
    created: str = ""
    sequential: bool = False
    ephemeral: bool = False
    names: frozenset[str] = frozenset()
    watch: bool = False
    called_s: float = 0.0
    returned_s: float = 0.0

    @property
    def answered(self) -> bool:
        """Whether it took effect and its client knows."""
        return self.returned is not None and self.err == 0

    @property
    def writes(self) -> bool:
        return self.kind not in (Kind.GET, Kind.LIST, Kind.SYNC)


@dataclass(frozen=True, slots=True)
class Event:
    """A watch event that a client read at `tick`. `type` as on the wire (3: data changed)."""

    client: int
    path: str
    type: int
    tick: int


class Note(StrEnum):
    """What happened to a client's session, or what the test did to the server."""

    ATTACHED = "attached"
    LOST = "lost"
    EXPIRED = "expired"
    CLOSED = "closed"
    BROKEN = "broken"
    FAULT = "fault"
    HEALED = "healed"


@dataclass(frozen=True, slots=True)
class Mark:
    """A note at a moment. `client` is -1 for faults; `text` says which, or what was BROKEN: a
    message of the server's that is not as it must be."""

    note: Note
    tick: int
    seconds: float
    client: int = -1
    session: int = 0
    text: str = ""


@dataclass
class History:
    """All that was recorded, each list in the order of recording."""

    ops: list[Op] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    _ticks: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def tick(self) -> int:
        """The next moment."""
        return next(self._ticks)

    def fault_before(self, tick: int) -> str:
        """The last fault before a moment, for reports."""
        last = "no fault yet"
        for mark in self.marks:
            if mark.tick > tick:
                break
            if mark.note is Note.FAULT:
                last = mark.text
        return last
