"""Transactions as they go over the quorum wire and into a log: header, record, digest.

    TxnHeader (32 bytes)   record of the header's type   [TxnDigest (12 bytes)]

Two old forms are read: a create without `parentCVersion` (then -1), and a closeSession that is a
header alone. Because a closeSession may lack its record while a digest may follow, 12 bytes that
begin with the digest's version are a digest: two paths do not fit into them.
Source: `SerializeUtils.java`, `zookeeper.jute` of Apache ZooKeeper; spec txn-and-storage-formats
section 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import Final

from zkd.jute import records as rec
from zkd.jute.codec import DEFAULT_LIMIT, Malformed, Reader
from zkd.jute.protocol import Op

HEADER: Final = Struct(">qiqqi")
"""clientId (session), cxid, zxid, time in ms, type."""

HEADER_BYTES: Final = 32
DIGEST: Final = Struct(">iQ")
DIGEST_BYTES: Final = 12
DIGEST_VERSION: Final = 2

RECORDS: Final[dict[int, type[rec.Record]]] = {
    Op.CREATE: rec.CreateTxn,
    Op.CREATE2: rec.CreateTxn,
    Op.CREATE_CONTAINER: rec.CreateContainerTxn,
    Op.CREATE_TTL: rec.CreateTTLTxn,
    Op.DELETE: rec.DeleteTxn,
    Op.DELETE_CONTAINER: rec.DeleteTxn,
    Op.SET_DATA: rec.SetDataTxn,
    Op.RECONFIG: rec.SetDataTxn,
    Op.SET_ACL: rec.SetACLTxn,
    Op.CHECK: rec.CheckVersionTxn,
    Op.MULTI: rec.MultiTxn,
    Op.ERROR: rec.ErrorTxn,
    Op.CREATE_SESSION: rec.CreateSessionTxn,
    Op.CLOSE_SESSION: rec.CloseSessionTxn,
}
"""The record of each type; `check` only inside a multi."""


@dataclass(frozen=True, slots=True)
class TxnHeader:
    """Who asked for a transaction, and which it is."""

    session: int
    cxid: int
    zxid: int
    time_ms: int
    type: int

    def encode(self) -> bytes:
        """32 bytes."""
        return HEADER.pack(self.session, self.cxid, self.zxid, self.time_ms, self.type)

    @classmethod
    def decode(cls, body: bytes) -> TxnHeader:
        """The header in front of `body`. Raises Malformed."""
        if len(body) < HEADER_BYTES:
            raise Malformed(f"a transaction of {len(body)} bytes has no header")
        return cls(*HEADER.unpack_from(body))


@dataclass(frozen=True, slots=True)
class DecodedTxn:
    """A whole transaction. `record` is None for a closeSession without its paths."""

    header: TxnHeader
    record: rec.Record | None
    digest: int | None


def encode(header: TxnHeader, record: rec.Record | None, digest: int | None = None) -> bytes:
    """The transaction's bytes; `digest` is the tree's, unsigned."""
    tail = b"" if digest is None else DIGEST.pack(DIGEST_VERSION, digest)
    return header.encode() + (b"" if record is None else record.encode()) + tail


def decode(body: bytes, limit: int = DEFAULT_LIMIT) -> DecodedTxn:
    """Take a transaction apart. Raises Malformed, also for types that a log does not have."""
    header = TxnHeader.decode(body)
    kind = RECORDS.get(header.type)
    if kind is None or header.type == Op.CHECK:
        raise Malformed(f"no transaction has the type {header.type}")
    reader = Reader(body, HEADER_BYTES, limit)
    record: rec.Record | None
    if header.type == Op.CLOSE_SESSION and not has_paths(body):
        record = None
    else:
        record = decode_record(header.type, reader)
    return DecodedTxn(header, record, read_digest(reader))


def decode_record(kind: int, reader: Reader) -> rec.Record:
    """The record of a transaction, or of a part of a multi. Raises Malformed."""
    start = reader.pos
    try:
        return RECORDS[kind].decode(reader)
    except Malformed:
        if kind != Op.CREATE:
            raise
    reader.pos = start
    old = rec.CreateTxnV0.decode(reader)
    return rec.CreateTxn(old.path, old.data, old.acl, old.ephemeral, -1)


def has_paths(body: bytes) -> bool:
    """Does this closeSession carry its paths?"""
    rest = len(body) - HEADER_BYTES
    if rest == DIGEST_BYTES and body[HEADER_BYTES : HEADER_BYTES + 4] == b"\0\0\0\2":
        return False
    return rest >= 4


def read_digest(reader: Reader) -> int | None:
    """The digest behind a record, None if there is none or one of another version."""
    if reader.remaining() < DIGEST_BYTES:
        return None
    version, digest = DIGEST.unpack(reader.raw(DIGEST_BYTES))
    return int(digest) if version == DIGEST_VERSION else None
