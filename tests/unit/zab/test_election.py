"""One server's election, stepped by hand.

Source: `FastLeaderElection.java`; spec zab-quorum-protocol sections 11 and 12.
"""

from __future__ import annotations

import pytest
from election_support import (
    FIVE,
    FOLLOWING,
    LEADING,
    LOOKING,
    OBSERVING,
    THREE,
    decided,
    elected,
    looking,
    members,
    sent,
    settled,
    started,
)

from zkd.zab.election import (
    ConnectAll,
    Decided,
    Election,
    ElectionSettings,
    SeenLooking,
    SendNotification,
)
from zkd.zab.votes import NOBODY, Notification, ServerState, Vote
from zkd.zab.zxid import LOWEST

# ---- the start of a round


def test_a_voter_proposes_itself_to_all_other_voters() -> None:
    election = Election(2, members((1, 2, 3), (4,)))
    outputs = election.start(0x100000005, 1, 1000)
    assert sent(outputs) == [(1, 2, 1), (3, 2, 1)]
    (first, _) = outputs
    assert isinstance(first, SendNotification)
    assert first.notification == Notification(
        LOOKING, 2, 0x100000005, 1, 1, election.committed.text()
    )
    assert election.deadline_ms == 1200


def test_an_observer_proposes_nobody() -> None:
    election = Election(4, members((1, 2, 3), (4,)))
    (first, *_) = election.start(0x100000005, 1, 0)
    assert isinstance(first, SendNotification)
    theirs = first.notification
    assert (theirs.leader, theirs.zxid, theirs.peer_epoch) == (NOBODY, LOWEST, LOWEST)


def test_a_server_in_no_configuration_proposes_nobody_with_its_own_zxid() -> None:
    election = Election(9, THREE)
    (first, *_) = election.start(5, 0, 0)
    assert isinstance(first, SendNotification)
    theirs = first.notification
    assert (theirs.leader, theirs.zxid, theirs.peer_epoch) == (NOBODY, 5, 0)


def test_each_start_is_a_new_round() -> None:
    election = started(1)
    assert sent(election.start(0, 0, 0)) == [(2, 1, 2), (3, 1, 2)]


def test_voters_of_the_configuration_last_seen_are_asked_too() -> None:
    election = Election(1, THREE, members((1, 2, 3, 4), version=5))
    assert [to for to, _, _ in sent(election.start(0, 0, 0))] == [2, 3, 4]


# ---- empty polls


def test_polls_that_stay_empty_double_up_to_the_longest() -> None:
    election = Election(1, THREE, settings=ElectionSettings(max_interval_ms=1500))
    election.start(0, 0, 0)
    times = []
    for _ in range(5):
        assert election.deadline_ms is not None
        times.append(election.deadline_ms)
        assert election.tick(election.deadline_ms - 1, delivered=True) == []
        election.tick(election.deadline_ms, delivered=True)
    assert times == [200, 600, 1400, 2900, 4400]


def test_an_empty_poll_repeats_the_proposal_if_something_was_delivered() -> None:
    assert sent(started(1).tick(200, delivered=True)) == [(2, 1, 1), (3, 1, 1)]


def test_an_empty_poll_connects_to_all_if_nothing_was_delivered() -> None:
    assert started(1).tick(200, delivered=False) == [ConnectAll()]


def test_a_message_begins_the_poll_anew() -> None:
    election = started(1)
    election.received(2, looking(1, round_=0), 150)
    assert election.deadline_ms == 350


# ---- counting votes of those who look


def test_a_better_vote_is_taken_over_and_told() -> None:
    assert sent(started(1).received(3, looking(3), 10)) == [(2, 3, 1), (3, 3, 1)]


def test_a_worse_vote_is_counted_only() -> None:
    assert started(3, FIVE).received(1, looking(1), 10) == []


@pytest.mark.parametrize(("zxid", "leader"), [(0, 3), (9, 2)])
def test_a_higher_round_is_joined_with_the_better_of_its_vote_and_the_own(
    zxid: int, leader: int
) -> None:
    election = started(2, zxid=zxid)
    assert sent(election.received(1, looking(3, zxid=5, round_=7), 10)) == [
        (1, leader, 7),
        (3, leader, 7),
    ]


def test_a_higher_round_forgets_the_votes_of_the_lower() -> None:
    election = started(3, FIVE)
    election.received(1, looking(3), 0)
    election.received(2, looking(2, round_=2), 0)
    election.received(4, looking(3, round_=2), 0)
    assert election.deadline_ms == 200
    assert decided(election.tick(200, delivered=True)) is None


def test_a_lower_round_gets_the_own_proposal_and_is_not_counted() -> None:
    election = started(2, round_=5)
    assert sent(election.received(3, looking(3, round_=4), 0)) == [(3, 2, 5)]
    assert decided(election.tick(200, delivered=True)) is None


def test_a_quorum_and_silence_decide_for_a_follower() -> None:
    election = started(1)
    election.received(3, looking(3), 100)
    assert election.deadline_ms == 300
    assert election.tick(299, delivered=True) == []
    outputs = election.tick(300, delivered=True)
    assert outputs == [Decided(Vote(3, 0, 1, 0), FOLLOWING, frozenset({1, 3}))]
    assert election.deadline_ms is None


def test_a_quorum_and_silence_decide_for_the_leader() -> None:
    election = started(3)
    election.received(1, looking(3), 100)
    assert decided(election.tick(300, delivered=True)) == (3, LEADING)


def test_a_lone_voter_leads_after_the_wait() -> None:
    election = started(1, members((1,)))
    assert decided(election.tick(200, delivered=False)) == (1, LEADING)


def test_a_better_vote_within_the_wait_begins_the_count_again() -> None:
    election = started(1, FIVE)
    election.received(2, looking(3), 0)
    election.received(3, looking(3), 0)
    election.received(5, looking(5), 150)
    assert decided(election.tick(200, delivered=True)) is None
    election.received(4, looking(5), 360)
    assert decided(election.tick(560, delivered=True)) == (5, FOLLOWING)


def test_a_worse_vote_within_the_wait_lengthens_it_only() -> None:
    election = started(1)
    election.received(3, looking(3), 0)
    election.received(2, looking(2), 150)
    assert election.tick(200, delivered=True) == []
    assert decided(election.tick(350, delivered=True)) == (3, FOLLOWING)


def test_a_stale_vote_that_would_win_does_not_end_the_wait() -> None:
    election = started(1, round_=4)
    election.received(2, looking(2, round_=4), 0)
    election.received(3, looking(3, zxid=9, round_=3), 100)
    assert decided(election.tick(300, delivered=True)) == (2, FOLLOWING)


def test_an_observers_vote_is_never_counted() -> None:
    election = started(3, members((1, 2, 3), (4,)))
    outputs = election.received(4, looking(3), 0)
    assert sent(outputs) == [(4, 3, 1)]
    assert decided(election.tick(200, delivered=True)) is None


@pytest.mark.parametrize("leader", [NOBODY, 4, 9])
def test_a_vote_for_who_cannot_vote_is_not_counted(leader: int) -> None:
    election = started(3, members((1, 2, 3), (4,)))
    assert election.received(1, looking(leader, zxid=9, epoch=9), 0) == []


def test_who_has_lost_its_database_counts_no_votes() -> None:
    election = started(1, zxid=-1)
    assert election.received(3, looking(3), 0) == []
    assert election.received(2, looking(3), 0) == []
    assert decided(election.tick(200, delivered=True)) is None


def test_the_vote_of_who_has_lost_its_database_is_not_counted() -> None:
    election = started(1)
    assert election.received(3, looking(3, zxid=-1), 0) == []
    assert decided(election.tick(200, delivered=True)) is None


def test_who_has_lost_its_database_follows_a_leader_that_stands() -> None:
    election = started(1, zxid=-1)
    election.received(2, settled(FOLLOWING, 3), 0)
    assert decided(election.received(3, settled(LEADING, 3), 0)) == (3, FOLLOWING)


def test_both_configurations_must_agree_on_a_leader() -> None:
    election = Election(1, THREE, members((1, 4, 5), version=5))
    election.start(0, 0, 0)
    election.received(3, looking(3), 0)
    assert decided(election.tick(200, delivered=True)) is None
    election.received(4, looking(3), 210)
    assert decided(election.tick(410, delivered=True)) == (3, FOLLOWING)


# ---- joining an ensemble that has a leader


def test_a_quorum_with_its_leader_is_joined_in_its_round_and_epoch() -> None:
    election = started(1, round_=1)
    assert election.received(2, settled(FOLLOWING, 3, round_=8, epoch=4), 0) == []
    outputs = election.received(3, settled(LEADING, 3, round_=8, epoch=4), 0)
    assert outputs == [Decided(Vote(3, 0, 8, 4), FOLLOWING, frozenset({2, 3}))]
    assert election.round == 8


def test_followers_alone_do_not_make_a_leader() -> None:
    election = started(1, FIVE)
    for sid in (2, 4, 5):
        assert election.received(sid, settled(FOLLOWING, 3), 0) == []


def test_rounds_need_not_agree_outside_of_an_election() -> None:
    election = started(1, round_=20)
    election.received(2, settled(FOLLOWING, 3, round_=5), 0)
    assert decided(election.received(3, settled(LEADING, 3, round_=8), 0)) == (3, FOLLOWING)


def test_epochs_must_agree_outside_of_the_round() -> None:
    election = started(1, round_=20)
    election.received(2, settled(FOLLOWING, 3, epoch=4), 0)
    assert decided(election.received(3, settled(LEADING, 3, epoch=5), 0)) is None


def test_within_the_round_epochs_may_be_on_their_way() -> None:
    election = started(1, round_=1)
    election.received(2, settled(FOLLOWING, 3, epoch=4), 0)
    assert decided(election.received(3, settled(LEADING, 3, epoch=5), 0)) == (3, FOLLOWING)


def test_a_server_without_versions_is_compared_by_its_leader() -> None:
    election = started(1, round_=20)
    election.received(2, settled(FOLLOWING, 3, epoch=4, version=0), 0)
    assert decided(election.received(3, settled(LEADING, 3, epoch=5), 0)) == (3, FOLLOWING)


def test_a_vote_of_the_round_and_a_leader_of_the_round_agree() -> None:
    """Some still look; the leader was quicker to decide."""
    election = started(1, FIVE)
    election.received(2, looking(3), 0)
    assert decided(election.received(3, settled(LEADING, 3, epoch=0), 0)) == (3, FOLLOWING)


def test_a_leader_that_still_looks_is_waited_for() -> None:
    election = started(1, FIVE)
    election.received(3, looking(3), 0)
    assert decided(election.received(2, settled(FOLLOWING, 3, epoch=0), 0)) is None
    assert decided(election.tick(200, delivered=True)) == (3, FOLLOWING)


def test_a_server_that_a_quorum_follows_leads_if_they_mean_this_round() -> None:
    election = started(3, FIVE, round_=6)
    followers = [settled(FOLLOWING, 3, round_=6)] * 2
    for sid, theirs in enumerate(followers, 1):
        assert election.received(sid, theirs, 0) == []
    assert decided(election.received(4, settled(FOLLOWING, 3, round_=6), 0)) == (3, LEADING)


def test_a_server_that_restarted_does_not_lead_by_votes_of_another_round() -> None:
    election = started(3, round_=1)
    for sid in (1, 2):
        assert election.received(sid, settled(FOLLOWING, 3, round_=6), 0) == []


def test_an_observer_observes_the_leader_that_stands() -> None:
    election = started(4, members((1, 2, 3), (4,)))
    election.received(2, settled(FOLLOWING, 3), 0)
    assert decided(election.received(3, settled(LEADING, 3), 0)) == (3, OBSERVING)


def test_a_server_in_no_configuration_follows_the_leader_that_stands() -> None:
    election = started(9)
    election.received(2, settled(FOLLOWING, 3), 0)
    assert decided(election.received(3, settled(LEADING, 3), 0)) == (3, FOLLOWING)


def test_what_observers_say_is_ignored() -> None:
    assert started(1).received(3, settled(OBSERVING, 2), 0) == []


# ---- answers


def test_a_follower_answers_who_looks_with_the_vote_of_its_election() -> None:
    election = elected(1)
    election.established(7)
    (answer,) = election.received(2, looking(2, zxid=99, round_=40), 0)
    assert answer == SendNotification(2, Notification(FOLLOWING, 3, 0, 1, 7, THREE.text()))


def test_a_leader_also_says_that_a_voter_looks() -> None:
    election = started(3)
    election.received(1, looking(3), 0)
    election.tick(200, delivered=True)
    outputs = election.received(1, looking(1, round_=2), 300)
    assert outputs[0] == SeenLooking(1)
    assert sent(outputs) == [(1, 3, 1)]


@pytest.mark.parametrize("state", [FOLLOWING, LEADING, OBSERVING])
def test_who_has_a_leader_does_not_answer_who_has_one(state: ServerState) -> None:
    assert elected(1).received(2, settled(state, 3), 0) == []


@pytest.mark.parametrize("state", list(ServerState))
def test_an_unknown_sender_is_answered_in_every_state(state: ServerState) -> None:
    """With the own round, not the one of the vote; nothing else happens."""
    election = elected(1)
    election.round = 0
    (answer,) = election.received(77, settled(state, 77), 0)
    assert answer == SendNotification(77, Notification(FOLLOWING, 3, 0, 0, 1, THREE.text()))


def test_an_unknown_sender_hears_the_last_elections_vote_from_who_looks() -> None:
    election = elected(1)
    election.start(5, 1, 0)
    (answer,) = election.received(77, looking(77), 0)
    assert answer == SendNotification(77, Notification(LOOKING, 3, 0, 2, 1, THREE.text()))


def test_a_server_led_without_an_election_answers_with_that_vote() -> None:
    election = Election(1, THREE)
    election.not_looking(Vote(2, 0x100000009, 0, 1), FOLLOWING)
    (answer,) = election.received(3, looking(3), 0)
    assert answer == SendNotification(
        3, Notification(FOLLOWING, 2, 0x100000009, 0, 1, THREE.text())
    )


def test_nothing_happens_before_the_start() -> None:
    election = Election(1, THREE)
    assert election.received(3, looking(3), 0) == []
    assert election.received(9, looking(9), 0) == []
    assert election.tick(1000, delivered=True) == []
