"""Groups of servers, by scenario; by seed: tests/simulation."""

from __future__ import annotations

import pytest

from tests.zab.group import Group
from zkd.jute.quorum import Kind
from zkd.zab import outputs as o
from zkd.zab.votes import ServerState


def settled(group: Group, *sids: int) -> bool:
    """Everyone serves and has delivered everything."""
    nodes = [group.nodes[sid] for sid in sids or group.nodes]
    return group.all_serve(*sids) and all(node.applied == group.history for node in nodes)


def sent(group: Group, sid: int) -> list[int]:
    """The kinds of packets that a server has sent in this life."""
    return [
        packet[0]
        for output in group.nodes[sid].outputs
        if isinstance(output, o.SendPackets)
        for packet in output.packets
    ]


@pytest.fixture
def three() -> Group:
    """Three servers that serve, in epoch 1, without a transaction."""
    group = Group()
    group.start()
    assert group.run(10_000, group.all_serve)
    return group


def test_three_fresh_servers_elect_the_greatest_sid_and_serve(three: Group) -> None:
    assert three.leaders == {1: 3}
    assert [(node.disk.accepted, node.disk.current) for node in three.nodes.values()] == [
        (1, 1)
    ] * 3


def test_a_write_is_delivered_everywhere(three: Group) -> None:
    assert three.write(b"a", b"b")
    assert three.run(2000, lambda: settled(three) and len(three.history) == 2)
    assert three.history == [(0x100000001, b"a"), (0x100000002, b"b")]


def test_an_orphan_of_a_crashed_leader_vanishes_by_trunc(three: Group) -> None:
    """It logged 1:2 alone; the others went on without it."""
    three.write(b"a")
    assert three.run(2000, lambda: settled(three) and len(three.history) == 1)
    three.partition(3)
    three.write(b"orphan")
    assert three.run(1000, lambda: three.nodes[3].disk.end() == 0x100000002)
    three.nodes[3].crash()
    three.heal()
    assert three.run(10_000, lambda: 2 in three.leaders and three.all_serve(1, 2))
    three.write(b"b")
    three.run(1000)
    three.nodes[3].start()
    assert three.run(10_000, lambda: settled(three))
    assert three.history == [(0x100000001, b"a"), (0x200000001, b"b")]
    assert three.nodes[3].disk.rows == three.history


def test_an_orphan_above_everything_committed_is_cut_off(three: Group) -> None:
    """Nothing was written in the new epoch: the orphan is beyond the leader's log."""
    three.partition(3)
    three.write(b"orphan")
    assert three.run(1000, lambda: three.nodes[3].disk.end() == 0x100000001)
    three.nodes[3].crash()
    three.heal()
    assert three.run(10_000, lambda: 2 in three.leaders and three.all_serve(1, 2))
    three.nodes[3].start()
    assert three.run(10_000, lambda: settled(three))
    assert three.nodes[3].disk.rows == []


def test_a_promise_survives_a_crash(three: Group) -> None:
    """A follower that crashed after its promise takes part in no election below it."""
    before = three.nodes[1].disk.accepted
    three.nodes[3].crash()
    assert three.run(10_000, lambda: three.nodes[1].disk.accepted > before)
    promised = three.nodes[1].disk.accepted
    three.nodes[1].crash()
    three.nodes[1].start()
    assert three.nodes[1].disk.accepted == promised
    assert three.run(10_000, lambda: len(three.leaders) > 1 and three.all_serve(1, 2))
    assert max(three.leaders) >= promised


def test_a_server_comes_back_by_diff(three: Group) -> None:
    three.write(b"a")
    three.run(1000)
    three.nodes[1].crash()
    three.write(b"b", b"c")
    three.run(1000)
    three.nodes[1].start()
    assert three.run(10_000, lambda: settled(three))
    assert Kind.DIFF in sent(three, 3)
    assert len(three.history) == 3


def test_a_server_comes_back_by_snap_when_the_rows_are_gone(three: Group) -> None:
    three.nodes[1].crash()
    three.write(b"a", b"b", b"c")
    three.run(1000)
    leader = three.nodes[3].disk
    leader.flush(leader.end())
    leader.purge()
    three.write(b"d")
    three.run(1000)
    three.nodes[1].start()
    assert three.run(10_000, lambda: settled(three))
    assert any(isinstance(out, o.SendSnapshot) for out in three.nodes[3].outputs)
    assert len(three.history) == 4


def test_an_observer_joins_and_is_informed() -> None:
    group = Group(voters=3, observers=1)
    group.start()
    assert group.run(10_000, group.all_serve)
    assert group.nodes[4].role is ServerState.OBSERVING
    group.write(b"a")
    assert group.run(2000, lambda: settled(group) and len(group.history) == 1)
    informs = [out for out in group.nodes[3].outputs if isinstance(out, o.SendInforms)]
    assert [out.txns for out in informs] == [[(0x100000001, b"a")]]
    assert not any(isinstance(out, o.SendAcks) for out in group.nodes[4].outputs)


def test_observers_are_no_quorum() -> None:
    group = Group(voters=3, observers=2)
    group.start(1, 4, 5)
    assert not group.run(20_000, lambda: group.leader() is not None)


def test_a_leader_that_is_cut_off_stops_serving(three: Group) -> None:
    three.partition(3)
    assert three.run(5000, lambda: not three.nodes[3].serving)
    assert three.run(10_000, lambda: 2 in three.leaders and three.all_serve(1, 2))
    assert three.leaders[2] == 2


def test_one_voter_serves_alone() -> None:
    group = Group(voters=1)
    group.start()
    assert group.run(5000, group.all_serve)
    group.write(b"a")
    assert group.run(1000, lambda: len(group.history) == 1)


def test_a_follower_keeps_what_it_delivered_ahead_of_the_leaders_disk() -> None:
    """The followers commit alone; one comes back before the leader's own disk has the rows."""
    group = Group(seed=3)
    group.start()
    assert group.run(10_000, group.all_serve)
    group.nodes[3].slow_ms = 3000
    group.write(b"a", b"b")
    assert group.run(500, lambda: group.nodes[1].delivered == 0x100000002)
    assert group.nodes[3].delivered == 0
    group.cut(next(iter(group.nodes[1].conns.values())))
    group.run(500)
    assert group.nodes[1].serving
    assert settled(group, 1, 2)
