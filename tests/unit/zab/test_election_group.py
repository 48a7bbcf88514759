"""Groups of servers that elect: whatever happened, in the end one leads and a quorum follows.

A seed decides delays (messages of different servers overtake each other), broken connections,
crashes, returns and partitions. Spec zab-quorum-protocol sections 11 and 12.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from election_group import Group

from zkd.config.servers import Membership, parse_server
from zkd.zab.votes import ServerState
from zkd.zab.zxid import make

HEALED_MS = 150_000  # two of the longest polls, and some


def members(
    voters: int, observers: int = 0, groups: dict[int, tuple[int, ...]] | None = None
) -> Membership:
    lines = {}
    for sid in range(1, voters + observers + 1):
        role = "participant" if sid <= voters else "observer"
        lines[sid] = parse_server(sid, f"10.0.0.{sid}:2888:3888:{role};2181")
    return Membership(lines, groups or {})


def leader_of(group: Group) -> int:
    (leader,) = [s.sid for s in group.servers.values() if s.state is ServerState.LEADING]
    return leader


def check_settled(group: Group) -> None:
    """One leader, a quorum with it; observers observe; all tell the leader's epoch."""
    assert group.settled(), group.trace[-30:]
    leader = group.servers[leader_of(group)]
    running = {sid for sid, server in group.servers.items() if server.election}
    assert leader.sid in group.verifier.voters
    assert group.verifier.contains_quorum(running)
    for sid in running - {leader.sid}:
        expected = ServerState.OBSERVING
        if sid in group.verifier.voters:
            expected = ServerState.FOLLOWING
        assert group.servers[sid].state is expected
        assert group.servers[sid].leader == leader.sid


def trouble(group: Group, until_ms: int) -> None:
    """Crashes, returns and partitions until then; afterwards the network is whole."""
    group.break_rate = 0.1
    while group.now_ms < until_ms:
        group.run(group.now_ms + group.random.choice((30, 150, 400, 1500, 4000)))
        sid = group.random.choice(sorted(group.servers))
        chance = group.random.random()
        if chance < 0.4:
            if group.servers[sid].election:
                group.crash(sid)
            else:
                group.begin(sid)
        elif chance < 0.7:
            side = [s for s in sorted(group.servers) if group.random.random() < 0.5]
            group.divide(frozenset(side))
        elif chance < 0.9:
            group.divide(frozenset())
    group.divide(frozenset())
    group.break_rate = 0.0


def run_with_trouble(membership: Membership, seed: int, stay_down: int = 0) -> Group:
    group = Group(membership, seed)
    for sid in membership.servers:
        group.after(group.random.randrange(500), lambda sid=sid: group.begin(sid))
    group.run(500)
    trouble(group, 20_000)
    voters = sorted(group.verifier.voters)
    down = set(group.random.sample(voters, stay_down))
    for sid, server in group.servers.items():
        if sid in down and server.election:
            group.crash(sid)
        elif sid not in down and not server.election:
            group.begin(sid)
    group.run(group.now_ms + HEALED_MS, group.settled)
    return group


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("voters", [3, 5, 7])
def test_after_trouble_one_leads_and_all_follow(voters: int, seed: int) -> None:
    check_settled(run_with_trouble(members(voters), seed))


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("voters", [3, 5, 7])
def test_a_quorum_is_enough(voters: int, seed: int) -> None:
    check_settled(run_with_trouble(members(voters), seed, stay_down=(voters - 1) // 2))


@pytest.mark.parametrize("seed", range(8))
def test_observers_find_the_leader(seed: int) -> None:
    check_settled(run_with_trouble(members(3, observers=2), seed))


@pytest.mark.parametrize("seed", range(8))
def test_groups_elect_too(seed: int) -> None:
    membership = members(6, groups={1: (1, 2, 3), 2: (4, 5, 6)})
    check_settled(run_with_trouble(membership, seed))


@pytest.mark.parametrize("voters", [3, 5])
def test_without_a_quorum_nobody_leads_for_good(voters: int) -> None:
    group = Group(members(voters), 1)
    for sid in range(1, (voters + 1) // 2):
        group.begin(sid)
    assert not group.run(HEALED_MS, group.settled)
    assert not [event for event in group.trace if event[2] == "LEADING"]


@pytest.mark.parametrize(
    ("zxids", "leader"),
    [
        ((0, 0, 0), 3),
        ((make(1, 5), make(1, 4), make(1, 4)), 1),
        ((make(1, 9), make(2, 1), make(1, 9)), 2),
        ((make(1, 5), make(1, 5), make(1, 4)), 2),
    ],
)
@pytest.mark.parametrize("seed", range(4))
def test_who_has_the_newest_history_leads(zxids: Sequence[int], leader: int, seed: int) -> None:
    group = Group(members(3), seed, zxids)
    for sid in (1, 2, 3):
        group.begin(sid)
    group.run(HEALED_MS, group.settled)
    check_settled(group)
    assert leader_of(group) == leader
    assert group.now_ms < 2000


@pytest.mark.parametrize("seed", range(8))
def test_a_returning_server_joins_the_leader_that_stands(seed: int) -> None:
    """It begins at round 0, hears what was last said to it long ago, and disturbs nobody."""
    group = Group(members(3), seed)
    for sid in (1, 2, 3):
        group.begin(sid)
    group.run(5000)
    leader = leader_of(group)
    for sid in {1, 2, 3} - {leader}:
        group.crash(sid)
        group.begin(sid)
        began = group.now_ms
        group.run(began + 10_000, group.settled)
        check_settled(group)
        assert leader_of(group) == leader
        group.run(began + 10_000)


def test_one_seed_gives_one_run() -> None:
    one, other = (run_with_trouble(members(5), 7) for _ in range(2))
    assert one.trace == other.trace
    assert one.now_ms == other.now_ms
