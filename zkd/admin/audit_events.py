"""Which audit events a finished request gives, as Apache ZooKeeper gives them. Pure.

Only writes are audited. A multi that succeeds gives one event for each create, delete and setData
in it; one that fails a single `multiOperation` without a path. Unlike Apache ZooKeeper's, ACLs are
redacted (no digest belongs into a log), and a create inside a multi always has its type. A
malformed request gives no event: it never became a transaction.
(`AuditHelper.java`, `DataTree.killSession`)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from zkd.admin.audit import acl_text
from zkd.jute import messages
from zkd.jute import records as rec
from zkd.jute.codec import Malformed, Reader
from zkd.jute.protocol import Op
from zkd.plugins.api import AuditEvent, AuditResult
from zkd.tree.effects import CREATED, DELETED, Effect

OPERATIONS: Final = {
    Op.CREATE: "create",
    Op.CREATE2: "create",
    Op.CREATE_CONTAINER: "create",
    Op.CREATE_TTL: "create",
    Op.DELETE: "delete",
    Op.DELETE_CONTAINER: "delete",
    Op.SET_DATA: "setData",
    Op.SET_ACL: "setAcl",
    Op.RECONFIG: "reconfig",
    Op.MULTI: "multiOperation",
}

MODES: Final = (
    "persistent",
    "ephemeral",
    "persistent_sequential",
    "ephemeral_sequential",
    "container",
    "persistent_with_ttl",
    "persistent_sequential_with_ttl",
)

CONFIG_PATH: Final = "/zookeeper/config"

Redact = Callable[[str, str], str]
"""(scheme, id) -> id without its secret: `AuthRegistry.redact`."""

Results = Sequence[tuple[Any, ...]]
"""`results` of a Txn: (type, path, stat), for an error (-1, err). See docs/internals.md."""


@dataclass(frozen=True, slots=True)
class Who:
    """The client: `user` from `AuthRegistry.users`, `ip` without port."""

    user: str | None
    session: int
    ip: str


def request_events(
    op: int,
    request: bytes,
    who: Who,
    *,
    err: int,
    effects: Sequence[Effect],
    results: Results | None,
    time_ms: int,
    zxid: int,
    redact: Redact,
) -> list[AuditEvent]:
    """The events of one write. `request`: the frame after the RequestHeader. `err`, `effects`,
    `results`, `zxid`: of its transaction."""
    name = OPERATIONS.get(op)
    if name is None:
        return []
    result: AuditResult = "success" if err == 0 else "failure"
    event = AuditEvent(name, result, time_ms, who.user, who.session, who.ip, zxid=zxid)
    try:
        if op == Op.MULTI:
            return _multi(event, request, results) if err == 0 else [event]
        if op == Op.RECONFIG:
            return [replace(event, znode=None if err else CONFIG_PATH)]
        return [_single(event, op, request, effects, redact)]
    except Malformed:
        return []


def _single(
    event: AuditEvent, op: int, request: bytes, effects: Sequence[Effect], redact: Redact
) -> AuditEvent:
    record = messages.REQUESTS[op].decode(Reader(request))
    if isinstance(record, (rec.CreateRequest, rec.CreateTTLRequest)):
        made = next((effect[1] for effect in effects if effect[0] == CREATED), None)
        return replace(event, znode=made or record.path, znode_type=_mode(record.flags))
    if isinstance(record, rec.SetACLRequest):
        return replace(event, znode=record.path, acl=_acl(record, redact))
    assert isinstance(record, (rec.DeleteRequest, rec.SetDataRequest, rec.PathRequest))
    return replace(event, znode=record.path)


def _multi(event: AuditEvent, request: bytes, results: Results | None) -> list[AuditEvent]:
    found = []
    operations = messages.decode_multi(Reader(request))
    for (op, record), result in zip(operations, results or (), strict=False):
        if result[0] == Op.ERROR:
            return [replace(event, result="failure")]
        name = OPERATIONS.get(op)
        if isinstance(record, (rec.CreateRequest, rec.CreateTTLRequest)):
            mode = _mode(record.flags)
            path = result[1] or record.path
            found.append(replace(event, operation="create", znode=path, znode_type=mode))
        elif name is not None and isinstance(record, (rec.DeleteRequest, rec.SetDataRequest)):
            found.append(replace(event, operation=name, znode=record.path))
    return found


def _acl(record: rec.SetACLRequest, redact: Redact) -> str:
    entries = []
    for entry in record.acl or ():
        scheme, own_id = entry.id.scheme, entry.id.id
        if scheme is not None and own_id is not None:
            own_id = redact(scheme, own_id)
        entries.append((entry.perms, scheme, own_id))
    return acl_text(entries)


def _mode(flags: int) -> str | None:
    return MODES[flags] if 0 <= flags < len(MODES) else None


def session_end_events(
    session: int, effects: Iterable[Effect], *, user: str, time_ms: int, zxid: int
) -> list[AuditEvent]:
    """The ephemerals that a session's end removed; `user`: who runs the server."""
    return [
        AuditEvent(
            "ephemeralZNodeDeletionOnSessionCloseOrExpire",
            "success",
            time_ms,
            user,
            session,
            znode=effect[1],
            zxid=zxid,
        )
        for effect in effects
        if effect[0] == DELETED
    ]
