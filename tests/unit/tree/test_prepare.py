"""Validation: codes, their order, transactions, and what a change does to stats.

Source of the expectations: spec client-protocol sections 8 to 11, gotchas, and
`PrepRequestProcessor.java` of Apache ZooKeeper 3.9.5.
"""

from __future__ import annotations

import struct
from typing import Any

import pytest
from tree_support import (
    ALICE,
    ANYONE,
    EMPTY,
    OPEN,
    OTHER,
    SESSION,
    SUPER,
    TTL_OWNER,
    MemoryBase,
    Server,
    entry,
    raw_stat,
    stat_of,
)

from zkd.jute import records as rec
from zkd.jute import txn
from zkd.jute.codec import buffer, int_, long, string
from zkd.jute.messages import encode_multi
from zkd.jute.protocol import Err, Op, Perm
from zkd.tree import acl as acls
from zkd.tree import effects as fx
from zkd.tree.settings import TreeSettings

EXTENDED = TreeSettings(extended_types_enabled=True)
ALICE_ONLY = (entry(31, "digest", "alice:hash"),)


def record_of(body: bytes) -> Any:
    return txn.decode(body).record


# ---- create


def test_create_makes_a_node_and_counts_in_its_parent() -> None:
    server = Server()
    err, body, effects, results = server.create("/a", b"data")
    assert (err, results) == (0, None)
    assert record_of(body) == rec.CreateTxn("/a", b"data", OPEN, False, 1)
    created, parent = effects
    assert created[:2] == (fx.CREATED, "/a")
    assert created[3:] == (b"data", None)
    assert stat_of(created[2]) == {
        **stat_of(raw_stat()),
        "czxid": 1,
        "mzxid": 1,
        "pzxid": 1,
        "ctime": server.time_ms,
        "mtime": server.time_ms,
        "data_length": 4,
    }
    assert parent[:2] == (fx.STAT, "/")
    assert stat_of(parent[2])["cversion"] == 1
    assert stat_of(parent[2])["children"] == 2
    assert stat_of(parent[2])["pzxid"] == 1


def test_null_data_stays_null() -> None:
    server = Server()
    _, body, effects, _ = server.create("/a", None)
    assert record_of(body).data is None
    assert effects[0][3] is None
    assert server.set_data("/a", None)[2][0][3] is None
    assert server.stat("/a")["data_length"] == 0


@pytest.mark.parametrize(
    ("path", "flags", "acl", "code"),
    [
        ("/a", 7, OPEN, Err.BAD_ARGUMENTS),
        ("/a", -1, OPEN, Err.BAD_ARGUMENTS),
        ("/a", 5, OPEN, Err.UNIMPLEMENTED),
        ("noslash", 0, OPEN, Err.BAD_ARGUMENTS),
        ("", 0, OPEN, Err.BAD_ARGUMENTS),
        (None, 0, OPEN, Err.MARSHALLING_ERROR),
        (None, 7, OPEN, Err.BAD_ARGUMENTS),
        ("/a\0b", 0, (), Err.BAD_ARGUMENTS),
        ("/none/a", 0, (), Err.INVALID_ACL),
        ("/none/a", 0, None, Err.INVALID_ACL),
        ("/none/a", 0, OPEN, Err.NO_NODE),
        ("/bad//x", 0, OPEN, Err.NO_NODE),
        ("//x", 0, OPEN, Err.BAD_ARGUMENTS),
        ("x/y", 0, OPEN, Err.NO_NODE),
        ("/a/", 0, OPEN, Err.NO_NODE),
        ("/here/", 0, OPEN, Err.BAD_ARGUMENTS),
        ("/here/.", 0, OPEN, Err.BAD_ARGUMENTS),
        ("/here/..", 0, OPEN, Err.BAD_ARGUMENTS),
        ("/here/\U0001f600", 0, OPEN, Err.BAD_ARGUMENTS),
        ("/here", 0, OPEN, Err.NODE_EXISTS),
        ("/", 0, OPEN, Err.NODE_EXISTS),
        ("/zookeeper", 0, OPEN, Err.NODE_EXISTS),
        ("/ephemeral/x", 0, OPEN, Err.NO_CHILDREN_FOR_EPHEMERALS),
        ("/closed/x", 0, OPEN, Err.NO_AUTH),
        ("/closed/..", 0, OPEN, Err.NO_AUTH),
    ],
)
def test_create_is_refused_by_the_first_check_that_fails(
    path: str | None, flags: int, acl: tuple[rec.ACL, ...] | None, code: int
) -> None:
    server = Server()
    server.create("/here")
    server.create("/ephemeral", flags=1)
    server.create("/closed", acl=(entry(Perm.READ, "world", "anyone"),))
    digest = server.state.digest
    err, body, effects, results = server.create(path, flags=flags, acl=acl)
    assert (err, effects, results) == (code, [], None)
    assert body == struct.pack(
        ">qiqqii", SESSION, server.zxid, server.zxid, server.time_ms, Op.ERROR, code
    )
    assert server.state.zxid == server.zxid
    assert server.state.digest == digest


def test_undecodable_utf8_in_a_path_is_a_bad_argument() -> None:
    server = Server()
    server.create("/here")
    body = buffer(b"/here/\xff") + buffer(b"") + acls.WORLD_ALL + int_(0)
    assert server.ask(Op.CREATE, body)[0] == Err.BAD_ARGUMENTS
    assert server.ask(Op.SET_DATA, buffer(b"/\xff") + buffer(b"") + int_(-1))[0] == (
        Err.BAD_ARGUMENTS
    )
    assert server.ask(Op.DELETE, buffer(b"/here/\xff") + int_(-1))[0] == Err.NO_NODE


def test_sequential_names_come_from_the_parents_counter_of_creates() -> None:
    server = Server()
    server.create("/p")
    server.create("/p/a")
    _, body, effects, _ = server.create("/p/s-", flags=2)
    assert effects[0][1] == record_of(body).path == "/p/s-0000000001"
    server.delete("/p/s-0000000001")
    assert server.create("/p/s-", flags=2)[2][0][1] == "/p/s-0000000002"
    assert server.create("/p/", flags=2)[2][0][1] == "/p/0000000003"
    assert server.create("/", flags=2)[2][0][1] == "/0000000001"
    assert server.stat("/p")["cversion"] == 4
    assert server.stat("/p")["children"] == 3


def test_the_counter_of_creates_wraps_to_negative_numbers() -> None:
    nodes = dict(EMPTY)
    nodes["/"] = (b"", raw_stat(cversion=0x7FFFFFFF, children=1), None)
    server = Server(base=MemoryBase(nodes))
    first = server.create("/s", flags=2)
    second = server.create("/s", flags=2)
    third = server.create("/s", flags=2)
    assert [one[2][0][1] for one in (first, second, third)] == [
        "/s2147483647",
        "/s-2147483648",
        "/s-2147483647",
    ]
    assert record_of(first[1]).parentCVersion == -0x80000000
    assert server.stat("/") | {"cversion": -0x7FFFFFFE, "pzxid": 3} == server.stat("/")


def test_create2_and_containers_and_ttl_nodes_have_their_own_transactions() -> None:
    server = Server(EXTENDED)
    _, body, _, _ = server.create("/two", op=Op.CREATE2)
    assert txn.decode(body).header.type == Op.CREATE2
    _, body, effects, _ = server.create("/c", op=Op.CREATE_CONTAINER, flags=4)
    assert record_of(body) == rec.CreateContainerTxn("/c", b"", OPEN, 2)
    assert stat_of(effects[0][2])["owner"] == -(1 << 63)
    _, body, effects, _ = server.create_ttl("/t", 5000)
    assert record_of(body) == rec.CreateTTLTxn("/t", b"t", OPEN, 3, 5000)
    assert stat_of(effects[0][2])["owner"] == TTL_OWNER | 5000
    _, _, effects, _ = server.create_ttl("/s", 5000, flags=6)
    assert effects[0][1] == "/s0000000003"
    assert server.create("/t/child")[0] == 0
    assert server.create("/c/child")[0] == 0


def test_flags_of_a_container_with_create_make_a_persistent_node() -> None:
    server = Server()
    _, body, effects, _ = server.create("/a", flags=4)
    assert record_of(body) == rec.CreateTxn("/a", b"", OPEN, False, 1)
    assert stat_of(effects[0][2])["owner"] == 0


@pytest.mark.parametrize(
    ("ttl", "flags", "code"),
    [
        (0, 5, Err.BAD_ARGUMENTS),
        (-1, 5, Err.BAD_ARGUMENTS),
        (1 << 40, 5, Err.BAD_ARGUMENTS),
        ((1 << 40) - 1, 5, 0),
        (5000, 0, Err.BAD_ARGUMENTS),
        (-5, 0, Err.BAD_ARGUMENTS),
        (5000, 1, Err.BAD_ARGUMENTS),
    ],
)
def test_a_ttl_must_fit_its_mode(ttl: int, flags: int, code: int) -> None:
    assert Server(EXTENDED).create_ttl("/t", ttl, flags)[0] == code


def test_ttl_nodes_need_extended_types() -> None:
    assert Server().create_ttl("/t", 5000)[0] == Err.UNIMPLEMENTED


def test_ephemerals_belong_to_their_session() -> None:
    server = Server()
    _, body, effects, _ = server.create("/e", flags=1)
    assert record_of(body).ephemeral is True
    assert stat_of(effects[0][2])["owner"] == SESSION
    server.create("/s", flags=3, session=OTHER)
    assert server.state.ephemerals(SESSION) == {"/e"}
    assert server.state.ephemerals(OTHER) == {"/s0000000001"}


# ---- sessions


@pytest.mark.parametrize(
    ("error", "flags", "code"),
    [
        (Err.SESSION_EXPIRED, 0, Err.SESSION_EXPIRED),
        (Err.SESSION_MOVED, 0, Err.SESSION_MOVED),
        (Err.UNKNOWN_SESSION, 0, Err.UNKNOWN_SESSION),
        (Err.UNKNOWN_SESSION, 1, Err.SESSION_EXPIRED),
        (Err.EPHEMERAL_ON_LOCAL_SESSION, 0, 0),
        (Err.EPHEMERAL_ON_LOCAL_SESSION, 3, Err.EPHEMERAL_ON_LOCAL_SESSION),
        (Err.SESSION_EXPIRED, 9, Err.BAD_ARGUMENTS),
    ],
)
def test_create_looks_at_the_session_after_the_flags(error: int, flags: int, code: int) -> None:
    assert Server().create("/a", flags=flags, error=error)[0] == code


@pytest.mark.parametrize(
    ("op", "body"),
    [
        (Op.DELETE, string("/none") + int_(-1)),
        (Op.SET_DATA, string("bad") + buffer(b"") + int_(-1)),
        (Op.SET_ACL, rec.SetACLRequest("bad", (), -1).encode()),
    ],
)
def test_other_writes_look_at_the_session_first(op: int, body: bytes) -> None:
    assert Server().ask(op, body, error=Err.SESSION_MOVED)[0] == Err.SESSION_MOVED
    multi = encode_multi([(Op.CHECK, rec.CheckVersionRequest("/", -1))])
    _, _, _, results = Server().ask(Op.MULTI, multi, error=Err.SESSION_MOVED)
    assert results == [(Op.ERROR, Err.SESSION_MOVED)]


def test_createsession_and_closesession() -> None:
    server = Server()
    err, body, effects, _ = server.ask(Op.CREATE_SESSION, int_(30_000))
    assert (err, effects) == (0, [(fx.SESSION, SESSION, 30_000)])
    assert txn.decode(body) == txn.DecodedTxn(
        txn.TxnHeader(SESSION, 1, 1, server.time_ms, Op.CREATE_SESSION),
        rec.CreateSessionTxn(30_000),
        0x51C6D660,
    )
    server.create("/p")
    server.create("/p/b", flags=1)
    server.create("/a", flags=1)
    server.create("/other", flags=1, session=OTHER)
    err, body, effects, _ = server.ask(Op.CLOSE_SESSION, b"")
    assert err == 0
    assert record_of(body) == rec.CloseSessionTxn(("/a", "/p/b"))
    assert [effect[:2] for effect in effects] == [
        (fx.DELETED, "/a"),
        (fx.STAT, "/"),
        (fx.DELETED, "/p/b"),
        (fx.STAT, "/p"),
        (fx.CLOSED, SESSION),
    ]
    assert effects[0] == (fx.DELETED, "/a", SESSION)
    assert server.stat("/p")["children"] == 0
    assert server.stat("/p")["pzxid"] == server.zxid
    assert server.stat("/p")["cversion"] == 1
    assert server.state.sessions == {}
    assert server.state.ephemerals(OTHER) == {"/other"}


def test_closesession_too_large_for_the_wire_is_a_header_alone() -> None:
    server = Server(TreeSettings(txn_max_bytes=400))
    for number in range(30):
        assert server.create(f"/ephemeral-{number:03d}", flags=1)[0] == 0
    _, body, effects, _ = server.ask(Op.CLOSE_SESSION, b"")
    assert len(body) == 32
    assert len(effects) == 61
    replica = Server(server.settings)
    for one in server.log:
        applied = replica.state.process(one[1])
    assert applied.effects == effects
    assert replica.state.digest == server.state.digest == base_of(server).digest


def base_of(server: Server) -> MemoryBase:
    truth = MemoryBase()
    for number, one in enumerate(server.log):
        truth.install(one[2], number + 1)
    return truth


def test_closesession_without_paths_when_so_configured() -> None:
    server = Server(TreeSettings(close_session_txn=False))
    server.create("/e", flags=1)
    _, body, effects, _ = server.ask(Op.CLOSE_SESSION, b"")
    assert len(body) == 32
    assert effects[0] == (fx.DELETED, "/e", SESSION)


# ---- delete


@pytest.mark.parametrize(
    ("path", "version", "code"),
    [
        ("/", -1, Err.BAD_ARGUMENTS),
        ("/zookeeper", -1, Err.BAD_ARGUMENTS),
        ("/zookeeper/quota", -1, Err.BAD_ARGUMENTS),
        ("/zookeeper/config", -1, Err.BAD_ARGUMENTS),
        ("noslash", -1, Err.BAD_ARGUMENTS),
        ("", -1, Err.BAD_ARGUMENTS),
        (None, -1, Err.MARSHALLING_ERROR),
        ("/a\0", -1, Err.BAD_ARGUMENTS),
        ("/none/a", -1, Err.NO_NODE),
        ("/a/none", -1, Err.NO_NODE),
        ("//", -1, Err.NO_NODE),
        ("/a", 3, Err.BAD_VERSION),
        ("/a", 0, Err.NOT_EMPTY),
        ("/a", -1, Err.NOT_EMPTY),
        ("/closed/x", 9, Err.NO_AUTH),
        ("/closed/none", -1, Err.NO_AUTH),
        ("/a/b", 0, 0),
    ],
)
def test_delete(path: str | None, version: int, code: int) -> None:
    server = Server()
    server.create("/a")
    server.create("/a/b")
    server.create("/closed", acl=ALICE_ONLY, identities=ALICE)
    server.create("/closed/x", identities=ALICE)
    assert server.delete(path, version)[0] == code


def test_delete_moves_the_parents_pzxid_and_not_its_counter() -> None:
    server = Server()
    server.create("/a")
    _, body, effects, _ = server.delete("/a")
    assert record_of(body) == rec.DeleteTxn("/a")
    assert effects[0] == (fx.DELETED, "/a", 0)
    assert effects[1][:2] == (fx.STAT, "/")
    assert stat_of(effects[1][2])["pzxid"] == 2
    assert stat_of(effects[1][2])["cversion"] == 1
    assert server.state.digest == base_of(server).digest
    assert server.state.get("/a") is None
    assert server.create("/a")[0] == 0


def test_deletecontainer_is_for_the_container_manager_alone() -> None:
    server = Server()
    server.create("/c", op=Op.CREATE_CONTAINER, flags=4)
    server.create("/c/x")
    server.create("/e", flags=1)
    server.create("/plain")
    assert server.ask(Op.DELETE_CONTAINER, string("/c"))[0] == Err.NO_AUTH
    for path, code in [
        ("/c", Err.NOT_EMPTY),
        ("/none", Err.NO_NODE),
        ("/e", Err.BAD_VERSION),
        ("/", Err.BAD_ARGUMENTS),
        (None, Err.MARSHALLING_ERROR),
        ("/plain", 0),
    ]:
        assert server.ask(Op.DELETE_CONTAINER, string(path), session=0)[0] == code, path
    server.delete("/c/x")
    err, body, effects, _ = server.ask(Op.DELETE_CONTAINER, string("/c"), session=0)
    assert err == 0
    assert txn.decode(body).header.type == Op.DELETE_CONTAINER
    assert effects[0] == (fx.DELETED, "/c", -(1 << 63))


# ---- setData, setACL


def test_setdata_moves_version_mtime_and_mzxid() -> None:
    server = Server()
    server.create("/a", b"one")
    before = server.stat("/a")
    _, body, effects, _ = server.set_data("/a", b"second", 0)
    assert record_of(body) == rec.SetDataTxn("/a", b"second", 1)
    assert effects[0][:2] == (fx.CHANGED, "/a")
    assert effects[0][3] == b"second"
    assert stat_of(effects[0][2]) == before | {
        "version": 1,
        "mzxid": 2,
        "mtime": server.time_ms,
        "data_length": 6,
    }
    assert len(effects) == 1


@pytest.mark.parametrize(
    ("path", "version", "code"),
    [
        ("/a", 1, Err.BAD_VERSION),
        ("/a/", -1, Err.BAD_ARGUMENTS),
        ("", -1, Err.BAD_ARGUMENTS),
        (None, -1, Err.BAD_ARGUMENTS),
        ("/none", 5, Err.NO_NODE),
        ("/zookeeper/config", -1, Err.NO_AUTH),
        ("/", -1, 0),
    ],
)
def test_setdata_refusals(path: str | None, version: int, code: int) -> None:
    server = Server()
    server.create("/a")
    assert server.set_data(path, b"", version)[0] == code


@pytest.mark.parametrize(("version", "following"), [(-2, -1), (0x7FFFFFFF, -0x80000000), (-1, 0)])
def test_versions_wrap_as_in_3_9(version: int, following: int) -> None:
    nodes = dict(EMPTY) | {"/v": (b"", raw_stat(version=version, aversion=version), None)}
    server = Server(base=MemoryBase(nodes))
    _, body, _, _ = server.set_data("/v", b"", version)
    assert record_of(body).version == server.stat("/v")["version"] == following
    server.set_acl("/v", OPEN, version)
    assert server.stat("/v")["aversion"] == following


def test_setacl_moves_aversion_alone() -> None:
    server = Server()
    server.create("/a")
    before = server.stat("/a")
    read_only = (entry(Perm.READ | Perm.ADMIN, "world", "anyone"),)
    _, body, effects, _ = server.set_acl("/a", read_only, 0)
    assert record_of(body) == rec.SetACLTxn("/a", read_only, 1)
    encoded = acls.encode([(Perm.READ | Perm.ADMIN, "world", "anyone")])
    assert effects == [(fx.ACL, "/a", effects[0][2], encoded)]
    assert stat_of(effects[0][2]) == before | {"aversion": 1}
    assert server.set_data("/a", b"")[0] == Err.NO_AUTH
    assert server.set_acl("/a", OPEN, 0)[0] == Err.BAD_VERSION
    assert server.set_acl("/a", OPEN, 1)[2][0][3] is None


def test_setacl_checks_path_then_list_then_node() -> None:
    server = Server()
    assert server.set_acl("/bad/", ())[0] == Err.BAD_ARGUMENTS
    assert server.set_acl("/none", ())[0] == Err.INVALID_ACL
    assert server.set_acl("/none", OPEN)[0] == Err.NO_NODE
    assert server.set_acl("/zookeeper/config", OPEN, 77)[0] == Err.NO_AUTH


# ---- ACLs


def test_super_and_skipacl_pass_every_check() -> None:
    server = Server()
    server.create("/a", acl=ALICE_ONLY, identities=ALICE)
    assert server.create("/a/b")[0] == Err.NO_AUTH
    assert server.create("/a/b", identities=SUPER)[0] == 0
    assert server.create("/a/c", identities=ALICE)[0] == 0
    lax = Server(TreeSettings(skip_acl=True))
    lax.create("/a", acl=ALICE_ONLY)
    assert lax.create("/a/b")[0] == 0


def test_auth_stands_for_the_authenticated_identities() -> None:
    server = Server()
    auth = (entry(31, "auth", ""),)
    assert server.create("/a", acl=auth)[0] == Err.INVALID_ACL
    _, body, effects, _ = server.create("/a", acl=auth, identities=ALICE)
    assert record_of(body).acl == ALICE_ONLY
    assert effects[0][4] == acls.encode([(31, "digest", "alice:hash")])
    assert server.state.digest == base_of(server).digest


def test_duplicates_in_a_list_go_and_world_becomes_none() -> None:
    server = Server()
    _, body, effects, _ = server.create("/a", acl=OPEN + OPEN)
    assert record_of(body).acl == OPEN
    assert effects[0][4] is None


@pytest.mark.parametrize(
    ("scheme", "id_", "code"),
    [
        ("world", "other", Err.INVALID_ACL),
        ("digest", "nocolon", Err.INVALID_ACL),
        ("nosuch", "x", Err.INVALID_ACL),
        ("super", "", Err.INVALID_ACL),
        (None, "x", Err.INVALID_ACL),
        ("world", None, Err.MARSHALLING_ERROR),
    ],
)
def test_ids_that_no_list_may_hold(scheme: str | None, id_: str | None, code: int) -> None:
    assert Server().create("/a", acl=(entry(31, scheme, id_),))[0] == code


def test_a_negative_length_of_an_acl_is_an_empty_list() -> None:
    body = string("/a") + buffer(b"") + int_(-7) + int_(0)
    assert Server().ask(Op.CREATE, body)[0] == Err.INVALID_ACL


# ---- multi


def create_op(path: str, flags: int = 0, op: int = Op.CREATE) -> tuple[int, rec.Record]:
    return op, rec.CreateRequest(path, b"m", OPEN, flags)


def test_multi_does_all_with_one_zxid() -> None:
    server = Server()
    ops = [
        create_op("/a"),
        create_op("/a/s", 2, Op.CREATE2),
        create_op("/a/c", 4),
        (Op.SET_DATA, rec.SetDataRequest("/a", b"new", 0)),
        (Op.CHECK, rec.CheckVersionRequest("/a", 1)),
        create_op("/gone"),
        (Op.DELETE, rec.DeleteRequest("/gone", -1)),
    ]
    err, body, effects, results = server.ask(Op.MULTI, encode_multi(ops))
    assert err == 0
    assert results is not None
    assert [one[:2] for one in results] == [
        (Op.CREATE, "/a"),
        (Op.CREATE2, "/a/s0000000000"),
        (Op.CREATE2, "/a/c"),
        (Op.SET_DATA, None),
        (Op.CHECK, None),
        (Op.CREATE, "/gone"),
        (Op.DELETE, None),
    ]
    assert results[0][2] is None
    assert stat_of(results[1][2])["czxid"] == 1
    assert stat_of(results[3][2])["version"] == 1
    parts = record_of(body).txns
    assert [part.type for part in parts] == [1, 15, 19, 5, 13, 1, 2]
    assert parts[4].data == rec.CheckVersionTxn("/a", 2).encode()
    assert stat_of(effects[-1][2])["cversion"] == 2
    assert server.state.digest == base_of(server).digest


def test_failed_multi_undoes_everything_and_says_which_operation_failed() -> None:
    server = Server()
    server.create("/p")
    server.create("/p/old")
    before = base_of(server)
    counts = (server.state.digest, server.state.node_count, server.state.data_bytes)
    ops = [
        create_op("/p/s", 2),
        (Op.SET_DATA, rec.SetDataRequest("/p/old", b"x", -1)),
        (Op.DELETE, rec.DeleteRequest("/p/old", -1)),
        create_op("/none/x"),
        create_op("/p/after"),
    ]
    err, body, effects, results = server.ask(Op.MULTI, encode_multi(ops))
    assert (err, effects) == (0, [])
    assert results == [(-1, 0), (-1, 0), (-1, 0), (-1, Err.NO_NODE), (-1, -2)]
    assert [part.type for part in record_of(body).txns] == [1, 5, 2, -1, -1]
    assert record_of(body).txns[3].data == int_(Err.NO_NODE)
    assert txn.decode(body).digest == server.state.digest == counts[0]
    assert (server.state.digest, server.state.node_count, server.state.data_bytes) == counts
    for path, (_, stat, _) in before.nodes.items():
        assert stat_of(stat) == server.stat(path)
    assert server.create("/p/s", flags=2)[2][0][1] == "/p/s0000000001"


def test_empty_multi_succeeds() -> None:
    err, body, effects, results = Server().ask(Op.MULTI, encode_multi([]))
    assert (err, effects, results) == (0, [], [])
    assert txn.decode(body).header.type == Op.MULTI


@pytest.mark.parametrize(
    "ops",
    [
        [(Op.GET_DATA, rec.ReadRequest("/", False))],
        [(Op.DELETE_CONTAINER, rec.PathRequest("/a"))],
        [(Op.SET_ACL, rec.SetACLRequest("/", OPEN, -1))],
        [create_op("/a", 7)],
        [create_op("/a", 5)],
        [(Op.CREATE, rec.CreateRequest("/a", b"", None, 0))],
        [(Op.DELETE, rec.DeleteRequest(None, -1))],
        [create_op("/a"), (99, rec.PathRequest("/"))],
    ],
)
def test_multi_that_cannot_be_read(ops: list[tuple[int, rec.Record]]) -> None:
    server = Server()
    header = b"".join(
        rec.MultiHeader(op, False, -1).encode() + record.encode() for op, record in ops
    )
    body = header + rec.MultiHeader(-1, True, -1).encode()
    err, _, effects, results = server.ask(Op.MULTI, body)
    assert (err, effects, results) == (Err.MARSHALLING_ERROR, [], None)
    assert server.state.get("/a") is None


def test_createttl_in_a_multi_that_is_no_ttl_node_is_a_create() -> None:
    server = Server(EXTENDED)
    ops: list[tuple[int, rec.Record]] = [
        (Op.CREATE_TTL, rec.CreateTTLRequest("/a", b"", OPEN, 0, 5)),
        (Op.CREATE_TTL, rec.CreateTTLRequest("/b", b"", OPEN, 5, 5)),
    ]
    _, body, _, results = server.ask(Op.MULTI, encode_multi(ops))
    assert [part.type for part in record_of(body).txns] == [Op.CREATE, Op.CREATE_TTL]
    assert results is not None
    assert [one[0] for one in results] == [Op.CREATE, Op.CREATE2]


# ---- bytes that are no request, and requests too large


@pytest.mark.parametrize(
    ("op", "body"),
    [
        (Op.CREATE, b""),
        (Op.CREATE, int_(-5)),
        (Op.CREATE, int_(1 << 30) + b"/a"),
        (Op.CREATE, string("/a") + int_(-2) + acls.WORLD_ALL + int_(0)),
        (Op.CREATE, string("/a") + int_(99) + acls.WORLD_ALL + int_(0)),
        (Op.CREATE, string("/a") + buffer(b"") + acls.WORLD_ALL),
        (Op.CREATE, string("/a") + buffer(b"") + int_(1 << 28) + int_(0)),
        (Op.CREATE_TTL, rec.CreateRequest("/a", b"", OPEN, 5).encode()),
        (Op.SET_DATA, string("/")),
        (Op.SET_DATA, string("/") + int_(-2) + int_(0)),
        (Op.SET_DATA, int_(-2) + int_(0) + int_(0)),
        (Op.DELETE, string("/a")),
        (Op.SET_ACL, string("/a") + acls.WORLD_ALL),
        (Op.MULTI, b""),
        (Op.MULTI, encode_multi([create_op("/a")])[:-9]),
        (Op.CREATE_SESSION, b"\0"),
        (Op.RECONFIG, b"\0"),
    ],
)
def test_truncated_and_nonsensical_bodies_are_marshalling_errors(op: int, body: bytes) -> None:
    server = Server()
    err, txn, effects, _ = server.ask(op, body)
    assert (err, effects) == (Err.MARSHALLING_ERROR, [])
    uses_a_zxid = op == Op.MULTI  # only a multi does, as in Apache ZooKeeper
    assert (server.state.zxid, bool(txn)) == (int(uses_a_zxid), uses_a_zxid)


def test_bytes_behind_a_request_are_ignored() -> None:
    server = Server()
    body = rec.CreateRequest("/a", b"x", OPEN, 0).encode() + b"rubbish"
    _, ours, _, _ = server.ask(Op.CREATE, body)
    assert record_of(ours) == rec.CreateTxn("/a", b"x", OPEN, False, 1)
    _, ours, _, _ = server.ask(Op.SET_DATA, string("/a") + buffer(b"y") + int_(-1) + b"more")
    assert record_of(ours) == rec.SetDataTxn("/a", b"y", 1)
    assert server.ask(Op.DELETE, string("/a") + int_(-1) + b"more")[1][32:37] == string("/a")[:5]


def test_what_nobody_could_read_back_is_refused_and_named() -> None:
    server = Server(TreeSettings(txn_max_bytes=300))
    assert server.create("/fits", b"x" * 200)[0] == 0
    assert server.create("/large", b"x" * 300)[0] == Err.MARSHALLING_ERROR
    assert server.set_data("/fits", b"x" * 300)[0] == Err.MARSHALLING_ERROR
    ops = [create_op(f"/m{number}") for number in range(9)]
    digest = server.state.digest
    err, _, effects, results = server.ask(Op.MULTI, encode_multi(ops))
    assert (err, effects, results) == (Err.MARSHALLING_ERROR, [], None)
    assert server.state.digest == digest
    assert server.state.get("/m0") is None
    many = tuple(entry(1, "ip", f"10.0.0.{n}") for n in range(20))
    assert server.set_acl("/fits", many)[0] == Err.MARSHALLING_ERROR
    named = [(one.session, one.op, one.path, one.size > 300) for one in server.preparer.refusals]
    assert named == [
        (SESSION, Op.CREATE, "/large", True),
        (SESSION, Op.SET_DATA, "/fits", True),
        (SESSION, Op.MULTI, None, True),
        (SESSION, Op.SET_ACL, "/fits", True),
    ]
    assert all(len(one[1]) <= 300 for one in server.log)


def test_operations_that_are_none() -> None:
    server = Server()
    assert server.ask(Op.CHECK, string("/") + int_(-1))[0] == Err.UNIMPLEMENTED
    assert server.ask(Op.GET_DATA, b"")[0] == Err.UNIMPLEMENTED
    reconfig = string(None) * 2 + string("x") + long(-1)
    assert server.ask(Op.RECONFIG, reconfig)[0] == Err.RECONFIG_DISABLED
    enabled = Server(TreeSettings(reconfig_enabled=True))
    assert enabled.ask(Op.RECONFIG, reconfig)[0] == Err.UNIMPLEMENTED


def test_without_digests_transactions_end_with_their_record() -> None:
    server = Server(TreeSettings(digest_enabled=False))
    assert txn.decode(server.create("/a")[1]).digest is None
    assert txn.decode(server.ask(Op.MULTI, encode_multi([create_op("/b")]))[1]).digest is None


def test_an_error_of_the_peers_own_uses_up_a_zxid() -> None:
    server = Server()
    err, body, effects, results = server.preparer.error(9, Err.SESSION_MOVED, OTHER, 3, 77)
    assert (err, effects, results) == (Err.SESSION_MOVED, [], None)
    assert txn.decode(body).header == txn.TxnHeader(OTHER, 3, 9, 77, Op.ERROR)
    assert server.state.zxid == 9


def test_reads_by_identity_need_no_anyone() -> None:
    server = Server()
    server.create("/a", acl=(entry(Perm.WRITE, "ip", "127.0.0.1"),))
    assert server.set_data("/a", b"x")[0] == 0
    assert server.create("/a/b", identities=ANYONE)[0] == Err.NO_AUTH
