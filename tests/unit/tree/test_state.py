"""TreeState: look-ups, cache, pinning, rebasing, replay of odd histories."""

from __future__ import annotations

import pytest
from tree_support import EMPTY, OPEN, OTHER, SESSION, MemoryBase, Server, entry, raw_stat, stat_of

from zkd.jute import records as rec
from zkd.jute import txn
from zkd.jute.codec import Malformed, int_, long, string
from zkd.jute.protocol import Err, Op
from zkd.tree import effects as fx
from zkd.tree.settings import TreeSettings
from zkd.tree.state import NODE_COST, TreeState

EXTENDED = TreeSettings(extended_types_enabled=True)


def grown(server: Server) -> MemoryBase:
    """The base with everything that the server has prepared."""
    base = server.base.copy()
    for number, one in enumerate(server.log):
        base.install(one[2], server.base.zxid + number + 1)
    return base


def test_base_is_asked_once_for_a_node_and_for_its_absence() -> None:
    base = MemoryBase()
    state = TreeState(base, cache_bytes=1 << 20, settings=TreeSettings())
    for _ in range(3):
        assert state.get("/zookeeper") is not None
        assert state.get("/none") is None
    assert base.looked_up == ["/zookeeper", "/none"]


@pytest.mark.parametrize("path", ["", "x", "a/b", "/a/", "//"])
def test_paths_that_no_node_has_are_absent_without_asking(path: str) -> None:
    base = MemoryBase()
    state = TreeState(base, cache_bytes=1 << 20, settings=TreeSettings())
    assert state.get(path) is None
    assert base.looked_up == []


def test_children_of_a_new_or_empty_parent_are_not_looked_up() -> None:
    server = Server()
    server.create("/p")
    server.create("/p/a")
    server.create("/p/b")
    assert server.base.looked_up == ["/", "/p"]


def test_a_name_above_all_that_a_directory_ever_had_is_not_looked_up() -> None:
    base = MemoryBase(dict(EMPTY) | {"/d": (b"", raw_stat(children=2), None)})
    base.nodes |= {"/d/b": (b"", raw_stat(), None), "/d/f": (b"", raw_stat(), None)}
    server = Server(base=base)
    server.create("/d/g")
    server.create("/d/i")
    server.create("/d/h")
    assert base.looked_up == ["/d", "/d/h"]
    for there in ("/d/b", "/d/f", "/d/g", "/d/h", "/d/i"):
        assert server.create(there)[0] == Err.NODE_EXISTS


def test_what_was_created_before_the_last_name_was_known_counts() -> None:
    server = Server(base=MemoryBase(dict(EMPTY) | {"/d": (b"", raw_stat(), None)}))
    server.set_data("/d", b"now it is pinned")
    server.create("/d/x")
    server.state.rebase(grown(server))
    while server.state.release():
        pass
    server.create("/d/y")
    assert server.create("/d/x")[0] == Err.NODE_EXISTS


def test_the_cache_stays_within_its_budget_and_keeps_what_is_used() -> None:
    nodes = dict(EMPTY) | {f"/n{i:03d}": (b"", raw_stat(), None) for i in range(500)}
    base = MemoryBase(nodes)
    state = TreeState(base, cache_bytes=100 * NODE_COST, settings=TreeSettings())
    for i in range(500):
        assert state.get(f"/n{i:03d}") is not None
        assert state.get("/n000") is not None
        assert state.cached_nodes <= 102
    assert base.looked_up.count("/n000") < 15


def test_own_changes_are_never_evicted() -> None:
    server = Server(cache_bytes=0)
    for number in range(300):
        server.create(f"/n{number}")
    server.delete("/n7")
    server.base.looked_up.clear()
    assert [server.state.get(f"/n{number}") is None for number in range(9)] == [
        number == 7 for number in range(9)
    ]
    assert server.base.looked_up == []
    assert server.state.pinned_bytes == 301 * NODE_COST + sum(
        len(path) for path in ("/", *(f"/n{number}" for number in range(300)))
    )


def test_rebase_forgets_what_base_holds_and_no_more() -> None:
    server = Server(EXTENDED)
    server.create("/early", flags=1)
    server.create_ttl("/t", 5000)
    base = grown(server)
    for number in range(600):
        server.create(f"/later{number}", flags=1 if number < 2 else 0)
    server.state.rebase(base)
    assert "/later0" in server.state.own
    assert server.state.ephemerals(SESSION) == {"/early", "/later0", "/later1"}
    assert server.state.specials() == [("/t", stat_of(base.nodes["/t"][1])["owner"])]
    server.delete("/early")
    assert server.state.ephemerals(SESSION) == {"/later0", "/later1"}
    final = grown(server)
    server.state.rebase(final)
    while server.state.release():
        pass
    assert server.state.own == {}
    assert server.state.pinned_bytes == 0
    assert server.state.get("/early") is None
    assert server.state.ephemerals(SESSION) == {"/later0", "/later1"}


def test_a_huge_backlog_is_forgotten_in_turns() -> None:
    server = Server()
    for number in range(6000):
        server.create(f"/n{number}")
    base = grown(server)
    own = len(server.state.own)
    server.state.rebase(base)
    assert 0 < own - len(server.state.own) < 1500  # a little at once: writes wait meanwhile
    assert server.state.get("/n5999") is not None
    while server.state.release():
        pass
    assert server.state.own == {}


def test_an_ephemeral_replaced_by_anothers_is_no_longer_its_first_owners() -> None:
    server = Server()
    server.create("/e", flags=1)
    server.state.rebase(grown(server))
    server.delete("/e")
    server.create("/e", flags=1, session=OTHER)
    assert server.state.ephemerals(SESSION) == set()
    assert server.state.ephemerals(OTHER) == {"/e"}


# ---- replay


def header(kind: int, zxid: int, session: int = SESSION) -> txn.TxnHeader:
    return txn.TxnHeader(session, 1, zxid, 1000, kind)


def test_an_old_create_without_parentcversion_counts_by_itself() -> None:
    state = Server().state
    old = rec.CreateTxnV0("/a", b"x", OPEN, False)
    for number, path in enumerate(("/a", "/b")):
        body = txn.encode(header(Op.CREATE, number + 1), rec.CreateTxnV0(path, *_rest(old)))
        state.apply(body)
        assert txn.decode(body).record == rec.CreateTxn(path, b"x", OPEN, False, -1)
    root = state.get("/")
    assert root is not None
    assert stat_of(root.stat)["cversion"] == 2


def _rest(old: rec.CreateTxnV0) -> tuple[bytes | None, tuple[rec.ACL, ...] | None, bool]:
    return old.data, old.acl, old.ephemeral


def test_the_parents_counter_and_pzxid_move_together_and_only_forward() -> None:
    nodes = dict(EMPTY) | {"/p": (b"", raw_stat(cversion=7, pzxid=50, czxid=1), None)}
    state = TreeState(MemoryBase(nodes, 40), cache_bytes=1 << 20, settings=TreeSettings())
    state.apply(txn.encode(header(Op.CREATE, 41), rec.CreateTxn("/p/a", b"", OPEN, False, 6)))
    node = state.get("/p")
    assert node is not None
    assert stat_of(node.stat) == {
        **stat_of(raw_stat(cversion=7, pzxid=50, czxid=1)),
        "children": 1,
    }
    state.apply(txn.encode(header(Op.CREATE, 42), rec.CreateTxn("/p/b", b"", OPEN, False, 8)))
    assert stat_of(node.stat)["cversion"] == 8
    assert stat_of(node.stat)["pzxid"] == 42


def test_a_create_that_the_snapshot_already_holds_gives_its_acl_alone() -> None:
    nodes = dict(EMPTY) | {"/a": (b"now", raw_stat(czxid=9, data_length=3), None)}
    state = TreeState(MemoryBase(nodes), cache_bytes=1 << 20, settings=TreeSettings())
    acl = (entry(1, "world", "anyone"),)
    effects = state.apply(
        txn.encode(header(Op.CREATE, 5), rec.CreateTxn("/a", b"then", acl, False, 1))
    )
    assert [effect[:2] for effect in effects] == [(fx.ACL, "/a"), (fx.STAT, "/")]
    effects = state.apply(
        txn.encode(header(Op.CREATE2, 6), rec.CreateTxn("/a", b"then", acl, False, 2))
    )
    assert [effect[:2] for effect in effects] == [(fx.ACL, "/a")]
    node = state.get("/a")
    assert node is not None
    assert stat_of(node.stat) == stat_of(nodes["/a"][1])


def test_a_delete_of_what_is_gone_moves_the_parents_pzxid() -> None:
    state = Server().state
    effects = state.apply(txn.encode(header(Op.DELETE, 5), rec.DeleteTxn("/gone")))
    assert [effect[:2] for effect in effects] == [(fx.STAT, "/")]
    assert stat_of(effects[0][2])["pzxid"] == 5
    assert state.apply(txn.encode(header(Op.DELETE, 5), rec.DeleteTxn("/gone"))) == []
    assert state.apply(txn.encode(header(Op.DELETE, 6), rec.DeleteTxn("/no/where"))) == []


def test_closesession_deletes_its_list_and_what_else_the_session_owns() -> None:
    server = Server()
    for path in ("/a", "/b", "/c"):
        server.create(path, flags=1)
    body = txn.encode(header(Op.CLOSE_SESSION, 9), rec.CloseSessionTxn(("/c", "/gone")))
    effects = server.state.apply(body)
    assert [effect[1] for effect in effects if effect[0] == fx.DELETED] == ["/c", "/a", "/b"]
    assert effects[-1] == (fx.CLOSED, SESSION, server.state.digest)


@pytest.mark.parametrize("tail", [b"", txn.DIGEST.pack(2, 0x51C6D660)])
def test_closesession_without_record_is_read_with_and_without_digest(tail: bytes) -> None:
    server = Server()
    applied = server.state.process(header(Op.CLOSE_SESSION, 9).encode() + tail)
    assert applied.effects == [(fx.CLOSED, SESSION, 0x51C6D660)]
    assert applied.digest == (0x51C6D660 if tail else None)
    assert server.state.digest_mismatches == 0


def test_a_digest_that_differs_is_counted_and_remembered() -> None:
    state = Server().state
    state.apply(txn.encode(header(Op.CREATE_SESSION, 1), rec.CreateSessionTxn(5), 0x1234))
    assert state.digest_mismatches == 1
    assert state.last_mismatch == (1, 0x1234, 0x51C6D660)
    other_version = header(Op.CREATE_SESSION, 2).encode() + int_(5) + int_(1) + long(7)
    state.apply(other_version)
    assert state.digest_mismatches == 1


def test_reconfig_changes_the_config_node_outside_the_digest() -> None:
    state = Server().state
    digest = state.digest
    body = txn.encode(header(Op.RECONFIG, 4), rec.SetDataTxn("/zookeeper/config", b"new", -1))
    effects = state.apply(body)
    assert effects[0][:2] == (fx.CHANGED, "/zookeeper/config")
    assert stat_of(effects[0][2])["version"] == -1
    assert state.digest == digest


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\0" * 31,
        header(13, 1).encode() + string("/") + int_(1),
        header(77, 1).encode(),
        header(Op.CREATE, 1).encode() + string("/a"),
        header(Op.CREATE_TTL, 1).encode() + rec.CreateTTLTxn("/a", b"", OPEN, 1, -5).encode(),
        header(Op.DELETE, 1).encode() + string(None),
        header(Op.MULTI, 1).encode()
        + rec.MultiTxn(
            (
                rec.Txn(Op.CREATE, rec.CreateTxn("/a", b"", OPEN, False, 1).encode()),
                rec.Txn(Op.SET_DATA, b"\0"),
            )
        ).encode(),
        header(Op.MULTI, 1).encode() + rec.MultiTxn((rec.Txn(7, b""),)).encode(),
    ],
)
def test_bytes_that_are_no_transaction_change_nothing(body: bytes) -> None:
    state = Server().state
    with pytest.raises(Malformed):
        state.apply(body)
    assert state.get("/a") is None
    assert (state.zxid, state.digest, state.node_count) == (0, 0x51C6D660, 4)


def test_sessions_follow_their_transactions() -> None:
    base = MemoryBase()
    base.live = {7: 1000}
    server = Server(base=base)
    server.ask(Op.CREATE_SESSION, int_(3000))
    assert server.state.sessions == {7: 1000, SESSION: 3000}
    server.ask(Op.CLOSE_SESSION, b"", session=7)
    assert server.state.sessions == {SESSION: 3000}
    assert base.live == {7: 1000}
