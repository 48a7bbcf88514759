"""Which audit events a request gives (AuditHelper.java)."""

from __future__ import annotations

from typing import Any

from zkd.admin.audit_events import Who, request_events, session_end_events
from zkd.jute import messages
from zkd.jute import records as rec
from zkd.jute.protocol import Op
from zkd.plugins.api import AuditEvent
from zkd.tree.effects import CLOSED, CREATED, DELETED, STAT

ACL = (rec.ACL(31, rec.Id("digest", "ann:secret")), rec.ACL(1, rec.Id("world", "anyone")))
WHO = Who("ann", 0x77, "10.1.2.3")


def redact(scheme: str, own_id: str) -> str:
    return own_id.partition(":")[0] + ":x" if scheme == "digest" else own_id


def events(
    op: int, record: rec.Record | bytes, *, err: int = 0, effects: Any = (), results: Any = None
) -> list[AuditEvent]:
    request = record if isinstance(record, bytes) else record.encode()
    return request_events(
        op, request, WHO, err=err, effects=effects, results=results, time_ms=5, zxid=9,
        redact=redact,
    )  # fmt: skip


def event(operation: str, **fields: Any) -> AuditEvent:
    result = fields.pop("result", "success")
    return AuditEvent(operation, result, 5, "ann", 0x77, "10.1.2.3", zxid=9, **fields)


def test_a_create_has_the_path_that_was_made_and_its_type() -> None:
    request = rec.CreateRequest("/a/n-", b"", ACL, 3)
    made = [(CREATED, "/a/n-0000000007", b"", b"", None), (STAT, "/a", b"")]
    assert events(Op.CREATE2, request, effects=made) == [
        event("create", znode="/a/n-0000000007", znode_type="ephemeral_sequential")
    ]
    assert events(Op.CREATE, request, err=-101) == [
        event("create", znode="/a/n-", znode_type="ephemeral_sequential", result="failure")
    ]
    ttl = rec.CreateTTLRequest("/t", b"", ACL, 5, 1000)
    assert events(Op.CREATE_TTL, ttl)[0].znode_type == "persistent_with_ttl"
    unknown = rec.CreateRequest("/a", b"", ACL, 77)
    assert events(Op.CREATE, unknown, err=-8)[0].znode_type is None


def test_the_other_single_writes() -> None:
    assert events(Op.DELETE, rec.DeleteRequest("/a", -1)) == [event("delete", znode="/a")]
    assert events(Op.SET_DATA, rec.SetDataRequest("/a", b"x", -1), err=-103) == [
        event("setData", znode="/a", result="failure")
    ]
    assert events(Op.SET_ACL, rec.SetACLRequest("/a", ACL, -1)) == [
        event("setAcl", znode="/a", acl="digest:ann:x:cdrwaworld:anyone:r")
    ]
    assert events(Op.RECONFIG, b"") == [event("reconfig", znode="/zookeeper/config")]


def test_a_multi_gives_its_parts_or_one_failure() -> None:
    request = messages.encode_multi(
        [
            (Op.CREATE, rec.CreateRequest("/a-", b"", ACL, 2)),
            (Op.CHECK, rec.CheckVersionRequest("/b", 1)),
            (Op.SET_DATA, rec.SetDataRequest("/b", b"", 1)),
            (Op.DELETE, rec.DeleteRequest("/c", 1)),
        ]
    )
    results = [(1, "/a-0000000001", None), (13, None, None), (5, None, b""), (2, None, None)]
    assert events(Op.MULTI, request, results=results) == [
        event("create", znode="/a-0000000001", znode_type="persistent_sequential"),
        event("setData", znode="/b"),
        event("delete", znode="/c"),
    ]
    failure = [event("multiOperation", result="failure")]
    assert events(Op.MULTI, request, err=-103, results=None) == failure
    assert events(Op.MULTI, request, results=[(-1, 0), (-1, -103)]) == failure


def test_reads_and_malformed_requests_give_none() -> None:
    assert events(Op.GET_DATA, rec.ReadRequest("/a", False)) == []
    assert events(Op.CREATE, b"\0\0") == []
    assert events(Op.MULTI, b"\0\0", results=[]) == []


def test_a_sessions_end_tells_each_ephemeral() -> None:
    effects = [(DELETED, "/e", 0x77), (STAT, "/", b""), (CLOSED, 0x77)]
    assert session_end_events(0x77, effects, user="zk", time_ms=5, zxid=9) == [
        AuditEvent(
            "ephemeralZNodeDeletionOnSessionCloseOrExpire", "success", 5, "zk", 0x77,
            znode="/e", zxid=9,
        )
    ]  # fmt: skip
