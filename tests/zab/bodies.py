"""Transactions of clients as bytes that a test can read: kind, session, base, cxid.

`base` is the cxid with which the client's connection began: of one connection the leader must get
every request, in order, until it gets no more.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Kind(enum.Enum):
    CREATE = b"c"
    WRITE = b"w"
    CLOSE = b"x"
    ERROR = b"e"  # refused: the session is over or has moved


_OF = {kind.value: kind for kind in Kind}


@dataclass(frozen=True, slots=True)
class Body:
    kind: Kind
    session: int
    base: int
    """0: of no client's connection, as an expiry."""
    cxid: int
    timeout_ms: int = 0


def write_body(body: Body) -> bytes:
    return b"%b %x %d %d %d" % (
        body.kind.value,
        body.session,
        body.base,
        body.cxid,
        body.timeout_ms,
    )


def read_body(raw: bytes) -> Body | None:
    """None for what a test has proposed by hand."""
    parts = raw.split()
    if len(parts) != 5 or parts[0] not in _OF:
        return None
    session, base, cxid, timeout_ms = int(parts[1], 16), *map(int, parts[2:])
    return Body(_OF[parts[0]], session, base, cxid, timeout_ms)
