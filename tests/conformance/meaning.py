"""What the bytes of a request ask for, as the server will read them.

Only as much as the shadow and the list of differences need: path, ACL, whether an ephemeral is
made, the operations of a multi. A body that the server cannot decode has no meaning.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.conformance import wire
from tests.conformance.normal import Cursor, Undecodable

Entry = tuple[int, bytes, bytes]  # perms, scheme, id
CREATES = (wire.CREATE, wire.CREATE2, wire.CREATE_CONTAINER, wire.CREATE_TTL)
_MULTI_OPS = (*CREATES, wire.DELETE, wire.SET_DATA, wire.CHECK)


@dataclass(frozen=True, slots=True)
class Meaning:
    """A request that can be decoded. Null strings are b""; `number` is a version, type or mode."""

    op: int
    path: bytes = b""
    acl: tuple[Entry, ...] | None = None
    flags: int = 0
    number: int = 0
    watch: bool = False
    scheme: bytes = b""  # auth
    credential: bytes = b""
    ops: tuple[Meaning, ...] = ()  # multi


def _acl(cursor: Cursor) -> tuple[Entry, ...] | None:
    count = cursor.int_()
    if count == -1:
        return None
    return tuple(
        (cursor.int_(), cursor.buffer() or b"", cursor.buffer() or b"") for _ in range(count)
    )


def _create(op: int, cursor: Cursor) -> Meaning:
    path = cursor.buffer() or b""
    cursor.buffer()
    acl = _acl(cursor)
    flags = cursor.int_()
    if op == wire.CREATE_TTL:
        cursor.take(">q")
    return Meaning(op, path, acl, flags)


def _versioned(op: int, cursor: Cursor) -> Meaning:
    return Meaning(op, cursor.buffer() or b"", number=cursor.int_())


def _set_data(op: int, cursor: Cursor) -> Meaning:
    path = cursor.buffer() or b""
    cursor.buffer()
    return Meaning(op, path, number=cursor.int_())


def _set_acl(op: int, cursor: Cursor) -> Meaning:
    path = cursor.buffer() or b""
    acl = _acl(cursor)
    return Meaning(op, path, acl, number=cursor.int_())


def _watched(op: int, cursor: Cursor) -> Meaning:
    path = cursor.buffer() or b""
    watch: int = cursor.take(">B")
    return Meaning(op, path, watch=watch != 0)


def _auth(op: int, cursor: Cursor) -> Meaning:
    cursor.int_()
    scheme = cursor.buffer() or b""
    return Meaning(op, scheme=scheme, credential=cursor.buffer() or b"")


def _multi(op: int, cursor: Cursor) -> Meaning:
    ops: list[Meaning] = []
    while True:
        kind, done, _err = cursor.take(">iBi")
        if done:
            return Meaning(op, ops=tuple(ops))
        if kind not in _MULTI_OPS:
            raise Undecodable
        ops.append(_READERS[kind](kind, cursor))


def _reconfig(op: int, cursor: Cursor) -> Meaning:
    for _ in range(3):
        cursor.buffer()
    cursor.take(">q")
    return Meaning(op)


_READERS: dict[int, Callable[[int, Cursor], Meaning]] = {
    **dict.fromkeys(CREATES, _create),
    wire.DELETE: _versioned,
    wire.CHECK: _versioned,
    wire.CHECK_WATCHES: _versioned,
    wire.REMOVE_WATCHES: _versioned,
    wire.ADD_WATCH: _versioned,
    wire.SET_DATA: _set_data,
    wire.SET_ACL: _set_acl,
    wire.EXISTS: _watched,
    wire.GET_DATA: _watched,
    wire.GET_CHILDREN: _watched,
    wire.GET_CHILDREN2: _watched,
    wire.AUTH: _auth,
    wire.MULTI: _multi,
    wire.RECONFIG: _reconfig,
}


def op_of(request: bytes) -> int:
    """The opcode in a request's payload."""
    return int.from_bytes(request[4:8], "big", signed=True)


def meaning_of(request: bytes) -> Meaning | None:
    """The meaning of a request's payload; None if its body lacks something.

    Opcodes of which nothing needs to be known have one with nothing but the opcode.
    """
    op = op_of(request)
    reader = _READERS.get(op)
    if reader is None:
        return Meaning(op)
    try:
        return reader(op, Cursor(request, 8))
    except Undecodable:
        return None
