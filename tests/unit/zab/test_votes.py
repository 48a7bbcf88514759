"""Votes: order, equality, tally.

Source: `Vote.java`, `FastLeaderElection.java`; spec zab-quorum-protocol section 12.
"""

from __future__ import annotations

import pytest

from zkd.zab.quorum import Hierarchical, Majority
from zkd.zab.votes import NOBODY, Notification, ServerState, Vote, is_better, same, tally
from zkd.zab.zxid import LOWEST

THREE = Majority(frozenset({1, 2, 3}))
LOOKING, FOLLOWING, LEADING, OBSERVING = ServerState


def vote(leader: int, zxid: int = 0, round_: int = 1, epoch: int = 0) -> Vote:
    return Vote(leader, zxid, round_, epoch)


@pytest.mark.parametrize(
    ("one", "other", "better"),
    [
        (vote(1, 0, epoch=2), vote(3, 9, epoch=1), True),
        (vote(3, 9, epoch=1), vote(1, 0, epoch=2), False),
        (vote(1, 8, epoch=1), vote(3, 7, epoch=1), True),
        (vote(2, 7, epoch=1), vote(1, 7, epoch=1), True),
        (vote(1, 7, epoch=1), vote(1, 7, epoch=1), False),
        (vote(1, 7, round_=1), vote(1, 7, round_=9), False),
        (vote(1), vote(NOBODY, LOWEST, epoch=LOWEST), True),
        (vote(NOBODY, LOWEST, epoch=LOWEST), vote(1), False),
    ],
)
def test_votes_are_ordered_by_epoch_zxid_and_sid(one: Vote, other: Vote, better: bool) -> None:
    assert is_better(one, other, THREE) is better


def test_a_candidate_of_weight_zero_never_wins() -> None:
    weights = {1: 1, 2: 1, 3: 0}
    verifier = Hierarchical(
        frozenset({1, 2, 3}), frozenset(), 0, dict.fromkeys(weights, 1), weights, {1: 2}
    )
    assert not is_better(vote(3, 9, epoch=9), vote(1), verifier)
    assert is_better(vote(1), vote(3), verifier) is False
    assert is_better(vote(1, 1), vote(3), verifier)


BASE = Vote(3, 7, 2, 5, FOLLOWING, 2)


@pytest.mark.parametrize(
    ("other", "equal"),
    [
        (Vote(3, 7, 2, 5, LOOKING, 0), True),
        (Vote(3, 8, 2, 5, LOOKING, 2), False),
        (Vote(3, 7, 3, 5, LOOKING, 2), False),
        (Vote(3, 7, 2, 6, LOOKING, 2), False),
        (Vote(2, 7, 2, 5, LOOKING, 2), False),
        (Vote(3, 1, 9, 5, LEADING, 2), True),
        (Vote(3, 1, 9, 5, LEADING, 1), True),
        (Vote(3, 7, 2, 6, LEADING, 2), False),
        (Vote(2, 7, 2, 5, LEADING, 2), False),
        (Vote(3, 1, 9, 8, LEADING, 0), True),
        (Vote(2, 7, 2, 5, LEADING, 0), False),
    ],
)
def test_what_counts_as_the_same_vote_depends_on_states_and_versions(
    other: Vote, equal: bool
) -> None:
    assert same(BASE, other) is equal
    assert same(other, BASE) is equal


def test_two_votes_without_version_are_compared_by_leader_and_epoch() -> None:
    assert same(Vote(3, 7, 2, 5, FOLLOWING), Vote(3, 1, 1, 5, LEADING))
    assert not same(Vote(3, 7, 2, 5, FOLLOWING), Vote(3, 7, 2, 6, LEADING))


def test_a_tally_counts_the_voters_that_agree() -> None:
    votes = {1: vote(3), 2: vote(2), 3: vote(3), 4: vote(3)}
    tracker = tally(votes, vote(3), (THREE,))
    assert tracker.acked == {1, 3}
    assert tracker.has_all_quorums()
    assert not tally(votes, vote(2), (THREE,)).has_all_quorums()


def test_a_notification_brings_a_vote_with_state_and_version() -> None:
    theirs = Notification(LEADING, 3, 7, 2, 5, "version=0", 1)
    assert theirs.vote() == Vote(3, 7, 2, 5, LEADING, 1)
