"""Preparing a request and replaying its transaction do the same to the tree.

Random requests, seeded. One state prepares, another over an equal base replays the bytes; effects
are installed into a plain dict, from which digest and counts are computed afresh. Both states are
rebased at random, and their caches are too small to hold the tree.
"""

from __future__ import annotations

import random

import pytest
from tree_support import ALICE, ANYONE, OPEN, OTHER, SESSION, MemoryBase, Server, entry, stat_of

from zkd.jute import records as rec
from zkd.jute.messages import encode_multi
from zkd.jute.protocol import Op
from zkd.tree.prepare import Prepared
from zkd.tree.settings import TreeSettings
from zkd.tree.state import TreeState

SESSIONS = (SESSION, OTHER, 0x100000000000003)
ACLS = (
    OPEN,
    OPEN,
    OPEN,
    (entry(31, "digest", "alice:hash"),),
    (entry(31, "auth", ""),),
    (entry(1, "world", "anyone"), entry(31, "digest", "alice:hash")),
    (),
)
LIMITS = "/zookeeper/quota/a/zookeeper_limits"
STATS = "/zookeeper/quota/a/zookeeper_stats"

QUOTA_SET_UP = tuple(
    (Op.CREATE, rec.CreateRequest(path, data, OPEN, 0).encode())
    for path, data in (
        ("/zookeeper/quota/a", b""),
        (LIMITS, b"count=5,bytes=700=;byteHardLimit=900;countHardLimit=9"),
        (STATS, b"count=0,bytes=0"),
        ("/zookeeper/quota/a/b", b""),
        ("/zookeeper/quota/a/b/zookeeper_stats", b"nonsense"),
        ("/zookeeper/quota/a/b/zookeeper_limits", b"count=-1,bytes=2"),
    )
)


class Requests:
    """A source of requests that meet each other often."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def path(self) -> str:
        pick = self.random
        if pick.random() < 0.08:
            return pick.choice(
                ["", "/", "x", "/a/", "//", "/a/../b", "/zookeeper", LIMITS, STATS, "/a\0"]
            )
        return "".join("/" + pick.choice("abcs") for _ in range(pick.randint(1, 4)))

    def data(self) -> bytes | None:
        return self.random.choice([None, b"", b"1", b"count=100,bytes=5000", b"x" * 300])

    def create(self) -> tuple[int, rec.Record]:
        pick = self.random
        path, data, acl = self.path(), self.data(), pick.choice(ACLS)
        op = pick.choice([Op.CREATE] * 4 + [Op.CREATE2, Op.CREATE_CONTAINER, Op.CREATE_TTL])
        flags = pick.choice([0, 0, 0, 1, 2, 3, 4, 5, 6, 7])
        if op == Op.CREATE_TTL:
            ttl = pick.choice([1, 5000, 0, -1, 1 << 40])
            return op, rec.CreateTTLRequest(path, data, acl, pick.choice([5, 6, 0]), ttl)
        return op, rec.CreateRequest(path, data, acl, flags)

    def other(self) -> tuple[int, rec.Record]:
        pick = self.random
        kind = pick.choice([Op.DELETE, Op.DELETE, Op.SET_DATA, Op.SET_DATA, Op.CHECK])
        version = pick.choice([-1, -1, -1, 0, 1])
        if kind == Op.SET_DATA:
            return kind, rec.SetDataRequest(self.path(), self.data(), version)
        return kind, rec.DeleteRequest(self.path(), version)

    def request(self) -> tuple[int, bytes]:
        pick = self.random
        if pick.random() < 0.15:
            ops = [
                self.create() if pick.random() < 0.5 else self.other()
                for _ in range(pick.randint(0, 5))
            ]
            return Op.MULTI, encode_multi(ops)
        if pick.random() < 0.02:
            return Op.CLOSE_SESSION, b""
        if pick.random() < 0.05:
            acl = pick.choice(ACLS)
            return Op.SET_ACL, rec.SetACLRequest(self.path(), acl, pick.choice([-1, 0])).encode()
        op, record = self.create() if pick.random() < 0.5 else self.other()
        body = record.encode()
        if pick.random() < 0.01:
            body = body[: pick.randint(0, len(body))]
        return (op if op != Op.CHECK else Op.DELETE), body


def settings_of(seed: int) -> TreeSettings:
    return TreeSettings(
        extended_types_enabled=seed % 2 == 0,
        enforce_quota=seed % 3 == 0,
        close_session_txn=seed % 5 != 0,
        digest_enabled=seed % 7 != 0,
    )


def same(state: TreeState, base: MemoryBase, digests: bool) -> None:
    """The state says of every node what the dict says."""
    for path, (_, stat, acl) in base.nodes.items():
        node = state.get(path)
        assert node is not None, path
        assert (stat_of(node.stat), node.acl) == (stat_of(stat), acl), path
        assert stat_of(stat)["children"] == sum(
            1 for one in base.nodes if one != "/" and one.rpartition("/")[0] == path.rstrip("/")
        )
    assert (state.node_count, state.data_bytes) == (base.node_count, base.data_bytes)
    assert state.sessions == base.live
    assert not digests or state.digest == base.digest
    for session in SESSIONS:
        assert state.ephemerals(session) == set(base.ephemerals(session))
    assert sorted(state.specials()) == sorted(base.specials())


@pytest.mark.parametrize("seed", range(20))
def test_replay_equals_preparation(seed: int) -> None:
    settings = settings_of(seed)
    leader = Server(settings, cache_bytes=3000)
    truth = MemoryBase()
    follower = TreeState(MemoryBase(), cache_bytes=3000, settings=settings)
    requests = Requests(seed)
    pick = requests.random
    opening = list(QUOTA_SET_UP) if seed % 2 else []
    for number in range(600):
        op, body = opening.pop(0) if opening else requests.request()
        session = pick.choice(SESSIONS)
        who = pick.choice((ANYONE, ALICE))
        prepared: Prepared = leader.ask(op, body, session=session, identities=who)
        err, txn, effects, results = prepared
        if not txn:  # it could not be decoded
            continue
        applied = follower.process(txn)
        assert (applied.err, applied.effects, applied.results) == (err, effects, results)
        assert applied.session == session
        assert applied.zxid == leader.zxid == leader.state.zxid == follower.zxid
        assert applied.digest in (None, leader.state.digest)
        assert follower.digest == leader.state.digest
        truth.install(effects, leader.zxid)
        if pick.random() < 0.01:
            leader.state.rebase(truth.copy())
        if pick.random() < 0.01:
            follower.rebase(truth.copy())
        if number % 100 == 99:
            same(leader.state, truth, settings.digest_enabled)
            same(follower, truth, settings.digest_enabled)
    codes = {prepared[0] for prepared in leader.log}
    assert len(codes) >= 5, codes
    leader.state.rebase(truth)
    while leader.state.release():
        pass
    assert leader.state.own == {}
    assert leader.state.pinned_bytes == 0
    same(leader.state, truth, settings.digest_enabled)


@pytest.mark.parametrize("seed", range(4))
def test_replaying_twice_is_harmless(seed: int) -> None:
    """A snapshot may hold more than its name says: the nodes are the same in the end."""
    settings = settings_of(seed)
    leader = Server(settings)
    requests = Requests(seed)
    for _ in range(150):
        op, body = requests.request()
        leader.ask(op, body)
    truth = MemoryBase()
    for number, (_, _, effects, _) in enumerate(leader.log):
        truth.install(effects, number + 1)
    ahead = truth.copy()
    ahead.zxid = 0
    again = TreeState(ahead, cache_bytes=1 << 20, settings=settings)
    fuzzy = ahead.copy()
    for _, txn, _, _ in leader.log:
        fuzzy.install(again.apply(txn), again.zxid)
    assert {path for path in fuzzy.nodes if "/s" not in path} == {
        path for path in truth.nodes if "/s" not in path
    }
    for path, (data, _, acl) in truth.nodes.items():
        assert fuzzy.nodes[path][0] == data or path.startswith("/zookeeper/"), path
        assert fuzzy.nodes[path][2] == acl
    assert again.node_count == fuzzy.node_count
    assert not settings.digest_enabled or again.digest == fuzzy.digest
