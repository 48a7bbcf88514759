"""Quotas: text, limits, and usage that is kept up to date.

Source: `StatsTrack.java`, `DataTree.java`, `ZooKeeperServer.checkQuota`; spec
txn-and-storage-formats section 11.
"""

from __future__ import annotations

import random

import pytest
from tree_support import OPEN, MemoryBase, Server, stat_of

from zkd.jute import records as rec
from zkd.jute.messages import encode_multi
from zkd.jute.protocol import Err, Op
from zkd.tree import effects as fx
from zkd.tree import quota
from zkd.tree.settings import TreeSettings

STATS = "/zookeeper/quota/a/zookeeper_stats"
LIMITS = "/zookeeper/quota/a/zookeeper_limits"


def with_quota(limits: bytes, *, enforce: bool = True) -> Server:
    """A server with /a, /a/b (3 bytes) and a quota on /a."""
    server = Server(TreeSettings(enforce_quota=enforce))
    server.create("/a")
    server.create("/a/b", b"123")
    server.create("/zookeeper/quota/a")
    server.create(LIMITS, limits)
    server.create(STATS, b"count=-1,bytes=-1")
    return server


def usage(server: Server) -> bytes:
    """The data of the usage node, from the effects."""
    found = b""
    for _, _, effects, _ in server.log:
        for effect in effects:
            if effect[0] in (fx.CREATED, fx.CHANGED, fx.QUOTA) and effect[1] == STATS:
                found = effect[3]
    return found


@pytest.mark.parametrize(
    ("text", "values"),
    [
        (b"count=4,bytes=6", {"count": 4, "bytes": 6}),
        (
            b"count=1,bytes=-1=;byteHardLimit=9;countHardLimit=3",
            {"count": 1, "bytes": -1, "byteHardLimit": 9, "countHardLimit": 3},
        ),
        (b"count=,bytes==5", {"count": -1, "bytes": -1}),
        (b"count=1,;bytes=2", {"count": 1, "bytes": 2}),
        (b"nonsense", {}),
        (b"count=x", {}),
        (b"", {}),
        (None, {}),
    ],
)
def test_texts_are_parsed_as_apaches_are(text: bytes | None, values: dict[str, int]) -> None:
    assert quota.parse(text) == values


def test_texts_are_written_so_that_old_parsers_read_them() -> None:
    values = {"countHardLimit": 3, "bytes": 2, "count": 1, "byteHardLimit": 9}
    assert quota.render(values) == b"count=1,bytes=2=;byteHardLimit=9;countHardLimit=3"
    assert quota.render({}) == b"count=-1,bytes=-1"


def test_creating_the_usage_node_counts_the_subtree() -> None:
    server = with_quota(b"count=10,bytes=100")
    effects = server.log[-1][2]
    assert [effect[0] for effect in effects] == [fx.CREATED, fx.STAT, fx.QUOTA]
    assert effects[2][3] == b"count=2,bytes=3"
    assert stat_of(effects[2][2]) == stat_of(effects[0][2]) | {"data_length": 15}


def test_writes_below_bring_the_usage_up_to_date() -> None:
    server = with_quota(b"count=10,bytes=100")
    assert server.create("/a/c", b"12345")[2][-1][3] == b"count=3,bytes=8"
    assert server.set_data("/a/c", b"1")[2][-1][3] == b"count=3,bytes=4"
    assert server.set_data("/a", b"22")[2][-1][3] == b"count=3,bytes=6"
    assert server.delete("/a/b")[2][-1][3] == b"count=2,bytes=3"
    assert [effect[0] for effect in server.create("/ab")[2]] == [fx.CREATED, fx.STAT]
    server.delete(LIMITS)
    assert [effect[0] for effect in server.create("/a/d")[2]] == [fx.CREATED, fx.STAT]


def test_closing_a_session_tells_the_usage_once() -> None:
    server = with_quota(b"count=10,bytes=100")
    server.create("/a/e", b"1", flags=1)
    server.create("/a/f", b"1", flags=1)
    effects = server.ask(Op.CLOSE_SESSION, b"")[2]
    assert [effect[0] for effect in effects[-2:]] == [fx.CLOSED, fx.QUOTA]
    assert sum(effect[0] == fx.QUOTA for effect in effects) == 1
    assert usage(server) == b"count=2,bytes=3"


def test_the_deepest_quota_alone_is_charged() -> None:
    server = with_quota(b"count=10,bytes=100")
    server.create("/zookeeper/quota/a/b")
    server.create("/zookeeper/quota/a/b/zookeeper_limits", b"count=5,bytes=-1")
    server.create("/zookeeper/quota/a/b/zookeeper_stats", b"")
    effects = server.create("/a/b/c", b"1")[2]
    assert [(one[1], one[3]) for one in effects if one[0] == fx.QUOTA] == [
        ("/zookeeper/quota/a/b/zookeeper_stats", b"count=2,bytes=4")
    ]
    assert usage(server) == b"count=2,bytes=3"


@pytest.mark.parametrize(
    ("limits", "count", "size", "verdict"),
    [
        ({}, 1, 1, None),
        ({"count": 5}, 1, 0, None),
        ({"count": 4}, 1, 0, "soft"),
        ({"countHardLimit": 5}, 1, 0, None),
        ({"countHardLimit": 4}, 1, 0, "hard"),
        ({"countHardLimit": 4}, 0, 9, None),
        ({"count": 1, "countHardLimit": 5}, 1, 0, None),
        ({"bytes": 10}, 0, 1, "soft"),
        ({"byteHardLimit": 10}, 0, 1, "hard"),
        ({"byteHardLimit": 10}, 1, 0, None),
        ({"count": 4, "byteHardLimit": 10}, 1, 1, "hard"),
        ({"countHardLimit": 0}, 1, 0, "hard"),
    ],
)
def test_limits(limits: dict[str, int], count: int, size: int, verdict: str | None) -> None:
    found = quota.Limits.parse(quota.render(limits))
    assert found.exceeded({"count": 4, "bytes": 10}, count, size) == verdict


def test_hard_limits_refuse_and_soft_ones_are_noted() -> None:
    server = with_quota(b"count=2,bytes=-1=;byteHardLimit=10")
    assert server.create("/a/c", b"1234567")[0] == 0
    assert server.create("/a/d", b"1")[0] == Err.QUOTA_EXCEEDED
    assert server.set_data("/a/c", b"12345678", 99)[0] == Err.QUOTA_EXCEEDED
    assert server.set_data("/a/c", b"12", 99)[0] == Err.BAD_VERSION
    noted = [(one.path, one.prefix, one.hard) for one in server.preparer.quota_exceeded]
    assert noted == [("/a/c", "/a", False), ("/a/d", "/a", True), ("/a/c", "/a", True)]
    lax = with_quota(b"count=2,bytes=-1=;byteHardLimit=10", enforce=False)
    assert lax.create("/a/d", b"x" * 99)[0] == 0


def test_changing_the_limits_takes_effect() -> None:
    server = with_quota(b"count=-1,bytes=-1=;countHardLimit=2")
    assert server.create("/a/c")[0] == Err.QUOTA_EXCEEDED
    server.set_data(LIMITS, b"count=-1,bytes=-1=;countHardLimit=3")
    assert server.create("/a/c")[0] == 0
    server.set_data(LIMITS, b"rubbish")
    assert server.create("/a/d")[0] == 0


def test_text_that_nobody_can_parse_counts_as_none() -> None:
    server = with_quota(b"count=10,bytes=100")
    server.set_data(STATS, b"what?")
    assert server.create("/a/c", b"12")[2][-1][3] == b"count=0,bytes=1"
    server.set_data(STATS, None)
    assert server.delete("/a/c")[2][-1][3] == b"count=-2,bytes=-3"


def test_a_missing_usage_node_is_left_alone() -> None:
    server = with_quota(b"count=-1,bytes=-1=;countHardLimit=2")
    server.delete(STATS)
    assert [effect[0] for effect in server.create("/a/c")[2]] == [fx.CREATED, fx.STAT]


def test_quotas_of_a_loaded_tree_go_on() -> None:
    server = with_quota(b"count=-1,bytes=-1=;countHardLimit=3")
    base = MemoryBase()
    for number, one in enumerate(server.log):
        base.install(one[2], number + 1)
    again = Server(server.settings, base)
    assert again.create("/a/c")[2][-1][3] == b"count=3,bytes=3"
    assert again.create("/a/d")[0] == Err.QUOTA_EXCEEDED


def test_a_usage_node_of_the_whole_tree_counts_everything() -> None:
    server = Server()
    effects = server.create("/zookeeper/quota/zookeeper_stats", b"abc")[2]
    assert effects[-1][3] == b"count=5,bytes=3"
    assert server.create("/zookeeper/quota/zookeeper_limits", b"count=1,bytes=1")[0] == 0
    assert [effect[0] for effect in server.create("/x")[2]] == [fx.CREATED, fx.STAT]


@pytest.mark.parametrize("seed", range(3))
def test_usage_is_what_a_count_of_the_subtree_gives(seed: int) -> None:
    pick = random.Random(seed)
    server = with_quota(b"count=-1,bytes=-1=;countHardLimit=30;byteHardLimit=200")
    base = MemoryBase()
    for number, one in enumerate(server.log):
        base.install(one[2], number + 1)
    for _ in range(400):
        path = "/a" + "".join("/" + pick.choice("bcd") for _ in range(pick.randint(0, 3)))
        data = b"x" * pick.randint(0, 20)
        kind = pick.randint(0, 3)
        if kind == 0:
            answer = server.create(path, data)
        elif kind == 1:
            answer = server.delete(path)
        elif kind == 2:
            answer = server.set_data(path, data)
        else:
            ops: list[tuple[int, rec.Record]] = [
                (Op.CREATE, rec.CreateRequest(path, data, OPEN, 2)),
                (Op.SET_DATA, rec.SetDataRequest("/a", data, -1)),
                (Op.DELETE, rec.DeleteRequest("/a/" + pick.choice("bcd"), -1)),
            ]
            answer = server.ask(Op.MULTI, encode_multi(ops))
        base.install(answer[2], server.zxid)
        if pick.random() < 0.05:
            server.state.rebase(base.copy())
        count, size = base.usage("/a")
        assert base.nodes[STATS][0] == f"count={count},bytes={size}".encode()
        assert count <= 30
        assert size <= 200
    assert server.state.digest == base.digest
