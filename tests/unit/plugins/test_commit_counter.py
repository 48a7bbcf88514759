"""The commit counter, and the commits that observers see."""

from __future__ import annotations

import zkd_commit_counter as counter
from zkd.admin.commits import decode
from zkd.jute import records as rec
from zkd.jute.protocol import Op
from zkd.jute.txn import TxnHeader, encode
from zkd.plugins.api import Change, Commit

ACL = (rec.ACL(31, rec.Id("world", "anyone")),)


def commit(kind: int, record: rec.Record | None, zxid: int = 5) -> Commit:
    body = encode(TxnHeader(0x77, 3, zxid, 1_700_000_000_000, kind), record, digest=9)
    return decode(zxid, body)


def part(kind: int, record: rec.Record) -> rec.Txn:
    return rec.Txn(kind, record.encode())


def test_a_create_as_observers_see_it() -> None:
    seen = commit(Op.CREATE, rec.CreateTxn("/a/b", b"x", ACL, True, 1))
    assert (seen.zxid, seen.session, seen.cxid, seen.type) == (5, 0x77, 3, Op.CREATE)
    assert seen.time_ms == 1_700_000_000_000
    assert seen.changes == (Change("create", "/a/b", b"x", owner=0x77),)


def test_the_other_transactions_as_observers_see_them() -> None:
    for kind, record, change in (
        (Op.CREATE_TTL, rec.CreateTTLTxn("/t", None, ACL, 1, 9), Change("create", "/t")),
        (Op.CREATE_CONTAINER, rec.CreateContainerTxn("/c", b"", ACL, 1),
         Change("create", "/c", b"")),
        (Op.DELETE, rec.DeleteTxn("/a"), Change("delete", "/a")),
        (Op.SET_DATA, rec.SetDataTxn("/a", b"y", 4), Change("set_data", "/a", b"y", 4)),
        (Op.SET_ACL, rec.SetACLTxn("/a", ACL, 2), Change("set_acl", "/a", version=2)),
        (Op.CREATE_SESSION, rec.CreateSessionTxn(4000), Change("create_session", owner=0x77)),
        (Op.ERROR, rec.ErrorTxn(-101), Change("error", error=-101)),
    ):  # fmt: skip
        assert commit(kind, record).changes == (change,)


def test_a_multi_has_all_its_changes_in_order() -> None:
    seen = commit(
        Op.MULTI,
        rec.MultiTxn(
            (
                part(Op.CHECK, rec.CheckVersionTxn("/a", 1)),
                part(Op.CREATE, rec.CreateTxn("/b", b"", ACL, False, 1)),
                part(Op.DELETE, rec.DeleteTxn("/c")),
            )
        ),
    )
    assert [(change.kind, change.path) for change in seen.changes] == [
        ("check", "/a"),
        ("create", "/b"),
        ("delete", "/c"),
    ]


def test_a_closed_session_takes_its_ephemerals_with_it() -> None:
    seen = commit(Op.CLOSE_SESSION, rec.CloseSessionTxn(("/e1", "/e2")))
    assert [(change.kind, change.path) for change in seen.changes] == [
        ("delete", "/e1"),
        ("delete", "/e2"),
        ("close_session", None),
    ]
    assert commit(Op.CLOSE_SESSION, None).changes == (Change("close_session", owner=0x77),)


def test_changes_are_counted_by_their_top_level_path() -> None:
    (observer,) = counter.zkd_commit_observers({"metrics.exporters": "prometheus"})
    observer.on_commit(
        [
            commit(Op.CREATE, rec.CreateTxn("/a/b", b"", ACL, False, 1)),
            commit(Op.SET_DATA, rec.SetDataTxn("/a", b"", 1)),
            commit(Op.SET_ACL, rec.SetACLTxn("/", ACL, 1)),
            commit(Op.CREATE_SESSION, rec.CreateSessionTxn(4000)),
            commit(Op.MULTI, rec.MultiTxn((part(Op.CHECK, rec.CheckVersionTxn("/z", 1)),))),
        ]
    )
    changes, commits = observer.metrics()
    assert changes.name == "zkd_namespace_changes_total"
    assert changes.samples == {"a": 2, "/": 1}
    assert commits.samples == {"": 5}


def test_the_number_of_names_is_bounded() -> None:
    (observer,) = counter.zkd_commit_observers({"metrics.exporters": "prometheus"})
    for n in range(counter.NAMESPACES_MAX + 5):
        observer.on_commit([commit(Op.DELETE, rec.DeleteTxn(f"/n{n}"))])
    samples = observer.metrics()[0].samples
    assert len(samples) == counter.NAMESPACES_MAX + 1
    assert samples["_other"] == 5
