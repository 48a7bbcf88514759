"""Groups of servers, by scenario and by seed: tests/zab/group.py drives them."""

from __future__ import annotations

import dataclasses

import pytest

from tests.zab.group import SETTINGS, Group
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


def chaos(seed: int) -> Group:
    """Crashes at persist points and at random, partitions, cut connections, under writes."""
    settings = dataclasses.replace(SETTINGS, diff_rows_max=seed % 7 + 3)
    group = Group(voters=3 + 2 * (seed % 2), observers=seed % 3, seed=seed, settings=settings)
    dice = group.random
    group.purge_chance = 0.1
    group.disk_ms[dice.choice(sorted(group.nodes))] = dice.choice((15, 100, 400))
    group.start()
    group.run(2000, group.all_serve)
    group.crash_chance = 0.01
    for number in range(60):
        group.run(dice.randint(1, 300))
        group.write(*[b"%d.%d" % (number, n) for n in range(dice.randint(1, 4))])
        what = dice.random()
        if what < 0.06:
            node = dice.choice(list(group.nodes.values()))
            if node.peer is not None:
                group.crash_at_persist(node)
        elif what < 0.10:
            group.partition(*dice.sample(sorted(group.nodes), dice.randint(1, 2)))
        elif what < 0.2:
            group.heal()
        elif what < 0.25:
            conns = [conn for node in group.nodes.values() for conn in node.conns.values()]
            group.cut(dice.choice(conns) if conns else None)
    group.heal()
    group.crash_chance = 0.0
    return group


@pytest.mark.parametrize("block", range(10))
def test_faults_of_30_seeds_lose_nothing_and_heal(block: int) -> None:
    for seed in range(30 * block, 30 * block + 30):
        group = chaos(seed)
        healed = group.run(30_000, lambda group=group: settled(group))
        assert healed, f"seed {seed}: {group.trace[-10:]}"
        assert group.write(b"last"), f"seed {seed}"
        assert group.run(
            5000, lambda group=group: settled(group) and group.history[-1][1] == b"last"
        ), f"seed {seed}"
