"""The tree's digest as a transaction carries it: its last 12 bytes, behind the record.

Whether they are there is known only by walking over the record, because nothing separates them.
Sources: spec/txn-and-storage-formats.md 1; `SerializeUtils.java`, `TxnDigest` of Apache ZooKeeper.
"""

from __future__ import annotations

from zkd.jute.codec import Malformed, Reader

HEADER_BYTES = 32
DIGEST_BYTES = 12
DIGEST_VERSION = 2

_ERROR = -1
_CLOSE_SESSION = -11
_FIXED = {_ERROR: 4, -10: 4}
_CREATES = {1: 5, 15: 5, 19: 4, 21: 12}
"""Bytes behind the ACL: ephemeral flag, parentCVersion, ttl."""
_DATA = (5, 16)


def _acl(reader: Reader) -> None:
    for _ in range(reader.int_()):
        reader.raw(4)
        reader.buffer()
        reader.buffer()


def _skip(reader: Reader, kind: int) -> None:
    """Walk over the record of a transaction type."""
    if kind in _FIXED:
        reader.raw(_FIXED[kind])
    elif kind in _CREATES:
        reader.buffer()
        reader.buffer()
        _acl(reader)
        reader.raw(_CREATES[kind])
    elif kind in (2, 20):
        reader.buffer()
    elif kind in _DATA:
        reader.buffer()
        reader.buffer()
        reader.raw(4)
    elif kind == 7:
        reader.buffer()
        _acl(reader)
        reader.raw(4)
    elif kind == 13:
        reader.buffer()
        reader.raw(4)
    elif kind == 14:
        for _ in range(reader.int_()):
            reader.int_()
            reader.buffer()
    elif kind == _CLOSE_SESSION:
        for _ in range(reader.int_()):
            reader.buffer()
    else:
        raise Malformed(f"transaction type {kind}")


def digest_after(body: bytes) -> int | None:
    """The digest (unsigned) that a transaction of log or wire carries, None if it has none."""
    kind = int.from_bytes(body[28:32], "big", signed=True)
    if len(body) < HEADER_BYTES + DIGEST_BYTES or kind == _ERROR:
        return None
    reader = Reader(body, HEADER_BYTES, len(body))
    if kind == _CLOSE_SESSION and reader.remaining() == DIGEST_BYTES:
        reader.pos = reader.end - DIGEST_BYTES  # a header alone, then the digest
    else:
        try:
            _skip(reader, kind)
        except Malformed:
            return None
    if reader.remaining() != DIGEST_BYTES or reader.int_() != DIGEST_VERSION:
        return None
    return reader.long() & 0xFFFFFFFFFFFFFFFF
