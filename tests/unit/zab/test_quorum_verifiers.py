"""Quorum verifiers: tables, and the point of a quorum against the plain definition.

Source: `QuorumMaj.java`, `QuorumHierarchical.java`, `QuorumOracleMaj.java`; spec section 13.2.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zkd.config.servers import Membership, parse_membership, parse_server
from zkd.zab import quorum
from zkd.zab.quorum import Hierarchical, Majority, OracleMajority, Tracker, Verifier
from zkd.zab.zxid import LOWEST


def members(
    voters: int,
    observers: int = 0,
    groups: Mapping[int, tuple[int, ...]] | None = None,
    weights: Mapping[int, int] | None = None,
    version: int = 0,
) -> Membership:
    lines = {}
    for sid in range(1, voters + observers + 1):
        role = "participant" if sid <= voters else "observer"
        lines[sid] = parse_server(sid, f"10.0.0.{sid}:2888:3888:{role};2181")
    return Membership(lines, groups or {}, weights or {}, version)


THREE_GROUPS = {1: (1, 2, 3), 2: (4, 5, 6), 3: (7, 8, 9)}


@pytest.mark.parametrize(
    ("voters", "acked", "holds"),
    [
        (1, {1}, True),
        (1, set(), False),
        (2, {1}, False),
        (2, {1, 2}, True),
        (3, {1, 3}, True),
        (3, {3}, False),
        (4, {1, 2}, False),
        (4, {1, 2, 4}, True),
        (5, {1, 2, 3}, True),
        (5, {1, 2}, False),
        (3, {1, 4, 5, 6}, False),
    ],
)
def test_more_than_half_of_the_voters_is_a_majority(
    voters: int, acked: set[int], holds: bool
) -> None:
    verifier = quorum.verifier_of(members(voters, observers=2))
    assert isinstance(verifier, Majority)
    assert verifier.contains_quorum(acked) is holds


@pytest.mark.parametrize(
    ("weights", "acked", "holds"),
    [
        ({}, {1, 2, 4, 5}, True),
        ({}, {1, 2, 3, 4}, False),
        ({}, {1, 4, 7}, False),
        ({}, {1, 2, 3, 4, 5, 6, 7}, True),
        ({1: 3}, {1, 4, 5}, True),
        ({1: 3}, {2, 3, 4, 5}, False),
        ({1: 2}, {1, 4, 5}, False),
        ({7: 0, 8: 0, 9: 0}, {1, 2}, False),
        ({7: 0, 8: 0, 9: 0}, {1, 2, 4, 5}, True),
        ({7: 0, 8: 0, 9: 0}, {1, 2, 7, 8, 9}, False),
        ({3: 0}, {1, 4, 5}, False),
        ({3: 0}, {1, 2, 4, 5}, True),
        (dict.fromkeys(range(1, 10), 0), set(range(1, 10)), False),
    ],
)
def test_more_than_half_of_the_groups_by_more_than_half_of_their_weight(
    weights: dict[int, int], acked: set[int], holds: bool
) -> None:
    verifier = quorum.verifier_of(members(9, groups=THREE_GROUPS, weights=weights))
    assert isinstance(verifier, Hierarchical)
    assert verifier.contains_quorum(acked) is holds


def test_an_observer_with_a_weight_counts_in_its_groups_total_and_never_acknowledges() -> None:
    verifier = quorum.verifier_of(members(2, 1, groups={1: (1, 2, 3)}, weights={3: 2}))
    assert verifier.weight(3) == 2
    assert not verifier.contains_quorum({1, 2, 3})


@pytest.mark.parametrize(
    ("membership", "fault"),
    [
        (members(2, groups={1: (1, 2), 2: (2,)}), "server 2 is in group 1 and in group 2"),
        (members(2, groups={1: (1, 2, 2)}), "server 2 is in group 1 and in group 1"),
        (members(3, groups={1: (1, 2)}), "server 3 is in no group"),
        (members(2, weights={1: 1}), "server 1 is in no group"),
        (members(2, 1, groups={1: (1, 2, 3)}), "server 3 in group 1 is no participant"),
        (members(2, groups={1: (1, 2, 9)}), "server 9 in group 1 is no participant"),
        (members(2, groups={1: (1, 2)}, weights={2: -1}), "negative"),
    ],
)
def test_groups_that_are_no_hierarchy_are_refused(membership: Membership, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        quorum.verifier_of(membership)


VERIFIERS: list[Verifier] = [
    *(quorum.verifier_of(members(voters, 1)) for voters in (1, 2, 3, 4, 5, 7)),
    quorum.verifier_of(members(9, groups=THREE_GROUPS, weights={1: 3, 5: 0})),
    quorum.verifier_of(members(5, groups={1: (1, 2, 3), 2: (4, 5)}, weights={4: 0, 5: 0})),
    quorum.verifier_of(members(4, groups={1: (1, 2), 2: (3, 4)}, weights={2: 5})),
    OracleMajority(Majority(frozenset({1, 2})), "1"),
    OracleMajority(Majority(frozenset({1, 2})), "0"),
]
POINTS = st.dictionaries(st.integers(1, 10), st.integers(-1, 6) | st.just(LOWEST))


@given(st.sampled_from(VERIFIERS), POINTS)
def test_the_point_of_a_quorum_is_the_greatest_zxid_that_a_quorum_acknowledged(
    verifier: Verifier, acked: dict[int, int]
) -> None:
    held = [
        zxid
        for zxid in acked.values()
        if verifier.contains_quorum({sid for sid, last in acked.items() if last >= zxid})
    ]
    assert verifier.quorum_point(acked) == max(held, default=LOWEST)


@pytest.mark.parametrize("verifier", VERIFIERS[:-2], ids=repr)
def test_two_quorums_share_a_voter(verifier: Verifier) -> None:
    sids = sorted(verifier.voters)
    quorums = [
        set(chosen)
        for size in range(len(sids) + 1)
        for chosen in itertools.combinations(sids, size)
        if verifier.contains_quorum(set(chosen))
    ]
    assert quorums
    assert all(one & other for one in quorums for other in quorums)


@pytest.mark.parametrize(
    ("voters", "said", "no_follower", "acked", "holds"),
    [
        (2, "1", True, {1}, True),
        (2, "1\n", True, {2}, True),
        (2, "1", True, set(), False),
        (2, "1", True, {3}, False),
        (2, "1", False, {1}, False),
        (2, "0", True, {1}, False),
        (2, "", True, {1}, False),
        (2, "0", True, {1, 2}, True),
        (3, "1", True, {1}, False),
        (3, "1", True, {1, 2}, True),
    ],
)
def test_an_oracle_lets_one_of_two_go_on_alone(
    voters: int, said: str, no_follower: bool, acked: set[int], holds: bool
) -> None:
    majority = Majority(frozenset(range(1, voters + 1)))
    verifier = OracleMajority(majority).hearing(said, no_follower=no_follower)
    assert verifier.contains_quorum(acked) is holds


@pytest.mark.parametrize(
    ("voters", "said", "no_follower", "refuses"),
    [(2, "0", True, True), (2, "1", True, False), (2, "0", False, False), (3, "0", True, False)],
)
def test_an_oracle_refuses_only_where_it_is_needed(
    voters: int, said: str, no_follower: bool, refuses: bool
) -> None:
    majority = Majority(frozenset(range(1, voters + 1)))
    assert OracleMajority(majority, said, no_follower).refuses is refuses


# ---- two configurations at once

OLD = quorum.verifier_of(members(3, version=1))
NEW = quorum.verifier_of(members(5, version=2))


def test_the_configuration_last_seen_is_tracked_only_if_it_is_newer() -> None:
    assert quorum.tracked(OLD, NEW) == (OLD, NEW)
    assert quorum.tracked(NEW, OLD) == (NEW,)
    assert quorum.tracked(OLD, OLD) == (OLD,)
    assert quorum.tracked(OLD) == (OLD,)


@pytest.mark.parametrize(
    ("acked", "holds"),
    [((1, 2), False), ((1, 2, 3), True), ((1, 4, 5), False), ((1, 2, 5), True), ((2, 3, 9), False)],
)
def test_a_tracker_wants_a_quorum_of_each(acked: tuple[int, ...], holds: bool) -> None:
    tracker = Tracker((OLD, NEW))
    assert [tracker.add(sid) for sid in acked] == [sid <= 5 for sid in acked]
    assert tracker.has_all_quorums() is holds
    assert tracker.acked == {sid for sid in acked if sid <= 5}
    assert Tracker((OLD, NEW), acked).has_all_quorums() is holds


def test_a_tracker_knows_who_votes_in_all_configurations() -> None:
    tracker = Tracker((OLD, NEW))
    assert [tracker.has_sid(sid) for sid in (1, 4, 6)] == [True, False, False]


@given(POINTS)
def test_the_joint_point_is_acknowledged_by_a_quorum_of_each(acked: dict[int, int]) -> None:
    held = [
        zxid
        for zxid in acked.values()
        if Tracker((OLD, NEW), (sid for sid in acked if acked[sid] >= zxid)).has_all_quorums()
    ]
    assert quorum.joint_point((OLD, NEW), acked) == max(held, default=LOWEST)


# ---- the text of a configuration


@pytest.mark.parametrize(
    "membership",
    [
        members(3, 1, version=0x10000002F),
        members(9, groups=THREE_GROUPS, weights={1: 3}),
    ],
)
def test_a_configuration_is_read_back_from_its_text(membership: Membership) -> None:
    assert parse_membership(membership.text()) == membership
