"""The operations of a multi: taking a request apart, and the pieces of its transaction.

Source: `MultiOperationRecord.java`, `Op.java`, `CreateOptions.java` of Apache ZooKeeper 3.9.5; spec
client-protocol section 8.6.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from zkd.jute.codec import NULL, Malformed, Reader
from zkd.jute.protocol import Op
from zkd.tree import acl as acls
from zkd.tree.apply import Result
from zkd.tree.effects import Effect

PREPARED: Final = frozenset(
    {
        Op.CREATE,
        Op.CREATE2,
        Op.CREATE_CONTAINER,
        Op.CREATE_TTL,
        Op.DELETE,
        Op.SET_DATA,
        Op.CHECK,
    }
)
"""What a multi may hold."""

_error: Final = Struct(">iii").pack
_TTL_FLAGS: Final = (5, 6)


def split(body: bytes) -> list[tuple[int, bytes]]:
    """Opcode and request of each operation. Raises Malformed for what Apache cannot read.

    The flags may change the opcode: a container is createContainer under any, a createTTL that is
    no TTL node is a create.
    """
    reader = Reader(body, 0, len(body))
    ops: list[tuple[int, bytes]] = []
    while True:
        op = reader.int_()
        done = reader.boolean()
        reader.int_()
        if done:
            return ops
        start = reader.pos
        if op in (Op.CREATE, Op.CREATE2, Op.CREATE_CONTAINER, Op.CREATE_TTL):
            op, request = _create(op, reader)
        elif op == Op.SET_DATA:
            _path(reader)
            reader.buffer()
            reader.int_()
            request = body[start : reader.pos]
        elif op in (Op.DELETE, Op.CHECK):
            _path(reader)
            reader.int_()
            request = body[start : reader.pos]
        else:
            raise Malformed(f"no multi holds the operation {op}")
        ops.append((op, request))


class Unspent(Malformed):
    """A multi that Apache ZooKeeper cannot read and that uses no zxid."""


def _path(reader: Reader) -> None:
    if reader.buffer() is None:
        raise Malformed("an operation without a path")


def _create(op: int, reader: Reader) -> tuple[int, bytes]:
    start = reader.pos
    _path(reader)
    reader.buffer()
    acl_start = reader.pos
    acls.read(reader)
    null_acl = reader.buf.startswith(NULL, acl_start)
    flags = reader.int_()
    end = reader.pos
    if op == Op.CREATE_TTL:
        reader.long()
        if flags in _TTL_FLAGS:
            return op, reader.buf[start : reader.pos]
        op = Op.CREATE
    elif null_acl:
        raise Unspent("a create with a null ACL within a multi")
    elif not 0 <= flags <= 4:
        raise Malformed("a create within a multi")
    return (Op.CREATE_CONTAINER if flags == 4 else op), reader.buf[start:end]


def error_part(code: int) -> bytes:
    """An operation of a failed multi that was not done."""
    return _error(Op.ERROR, 4, code)


def result(op: int, effects: list[Effect]) -> Result:
    """What the reply says of an operation that had these effects."""
    if op == Op.CREATE:
        return Op.CREATE, effects[0][1], None
    if op == Op.SET_DATA:
        return Op.SET_DATA, None, effects[0][2]
    if op in (Op.DELETE, Op.CHECK):
        return op, None, None
    return Op.CREATE2, effects[0][1], effects[0][2]
