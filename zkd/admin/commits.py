"""A log entry as commit observers see it. Pure."""

from __future__ import annotations

from typing import Final

from zkd.jute import records as rec
from zkd.jute import txn
from zkd.jute.codec import Reader
from zkd.jute.protocol import Op
from zkd.plugins.api import Change, Commit

CREATES: Final = (rec.CreateTxn, rec.CreateContainerTxn, rec.CreateTTLTxn)


def decode(zxid: int, body: bytes) -> Commit:
    """`body`: TxnHeader, record, optional digest. Raises Malformed."""
    entry = txn.decode(body)
    header = entry.header
    changes = _changes(header.type, header.session, entry.record)
    return Commit(
        zxid, header.time_ms, header.session, header.cxid, header.type, tuple(changes), body
    )


def _changes(kind: int, session: int, record: rec.Record | None) -> list[Change]:
    if kind == Op.CLOSE_SESSION:
        paths = record.paths2Delete or () if isinstance(record, rec.CloseSessionTxn) else ()
        deletes = [Change("delete", path, owner=session) for path in paths]
        return [*deletes, Change("close_session", owner=session)]
    if isinstance(record, rec.MultiTxn):
        found: list[Change] = []
        for part in record.txns or ():
            inner = txn.decode_record(part.type, Reader(part.data or b""))
            found += _changes(part.type, session, inner)
        return found
    return [_change(session, record)]


def _change(session: int, record: rec.Record | None) -> Change:
    if isinstance(record, CREATES):
        ephemeral = isinstance(record, rec.CreateTxn) and record.ephemeral
        return Change("create", record.path, record.data, owner=session if ephemeral else 0)
    if isinstance(record, rec.DeleteTxn):
        return Change("delete", record.path)
    if isinstance(record, rec.SetDataTxn):
        return Change("set_data", record.path, record.data, record.version)
    if isinstance(record, rec.SetACLTxn):
        return Change("set_acl", record.path, version=record.version)
    if isinstance(record, rec.CheckVersionTxn):
        return Change("check", record.path, version=record.version)
    if isinstance(record, rec.CreateSessionTxn):
        return Change("create_session", owner=session)
    assert isinstance(record, rec.ErrorTxn)
    return Change("error", error=record.err)
