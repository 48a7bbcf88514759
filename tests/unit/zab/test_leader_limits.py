"""What a leader puts up with, stepped by hand: syncs at a time, waiting for its epoch, an oracle.

Source: `LearnerSyncThrottler.java`, `Leader.java` (reportLookingSid), `QuorumOracleMaj.java`.
"""

from __future__ import annotations

import dataclasses

import pytest

from tests.zab.group import membership
from tests.zab.hand import SETTINGS, Hand, ack_epoch, bare, of, sent
from tests.zab.rows import rows, z
from zkd.jute.quorum import Kind
from zkd.zab import inputs as i
from zkd.zab import outputs as o
from zkd.zab.votes import Notification, ServerState

# ---- syncs at a time


def joins(hand: Hand, conn: int, last: int, kind: int = Kind.OBSERVER_INFO) -> list[o.Output]:
    """Up to DIFF, TRUNC or SNAP, or the door."""
    hand.join(conn, conn, accepted=hand.peer.state.current, kind=kind)
    return hand.packets(conn, ack_epoch(last, 0))


def test_observers_that_wait_for_the_epoch_are_sent_away_beyond_the_limit() -> None:
    """Found by seed 47: the fault of one of them left the core."""
    settings = dataclasses.replace(SETTINGS, snap_syncs_max=1)
    hand = Hand(3, rows("1:5-6"), accepted=1, current=1, settings=settings)
    hand.lead()
    for conn in (11, 12):
        hand.join(conn, conn, accepted=1, kind=Kind.OBSERVER_INFO)
    hand.join(1, 1, accepted=1)
    hand.disk()
    for conn in (11, 12):
        hand.packets(conn, ack_epoch(0, 0))
    hand.packets(1, ack_epoch(z("1:6"), 1))
    outputs = hand.disk()
    assert [out.conn for out in of(outputs, o.SendSnapshot)] == [11]
    assert [out.conn for out in of(outputs, o.Close)] == [12]


def test_observers_beyond_the_limit_of_diffs_are_sent_away() -> None:
    """DIFF and TRUNC count alike, and followers count without being sent away."""
    settings = dataclasses.replace(SETTINGS, diff_syncs_max=2)
    hand = Hand(3, rows("1:1-6"), accepted=1, current=1, settings=settings)
    hand.serve()
    assert not of(joins(hand, 11, z("1:4")), o.Close)
    assert not of(joins(hand, 2, z("1:9"), Kind.FOLLOWER_INFO), o.Close)
    assert of(joins(hand, 12, z("1:6")), o.Close)[0].conn == 12
    hand.packets(11, bare(Kind.ACK, z("2:0")))
    assert not of(joins(hand, 13, z("1:4")), o.Close), "a sync is over when NEWLEADER is acked"


def test_a_snapshot_takes_no_place_of_a_diff() -> None:
    settings = dataclasses.replace(SETTINGS, snap_syncs_max=1, diff_syncs_max=1)
    hand = Hand(3, rows("1:5-6"), accepted=1, current=1, settings=settings)
    hand.serve()
    assert of(joins(hand, 11, 0), o.SendSnapshot)
    assert not of(joins(hand, 12, z("1:6")), o.Close)
    assert of(joins(hand, 13, 0), o.Close)


# ---- waiting for the epoch


@pytest.mark.parametrize(
    ("limit_ms", "waited_ms", "leads"),
    [(None, 9000, True), (2000, 1500, True), (2000, 2500, False)],
)
def test_a_leader_without_its_epoch_gives_up_for_a_voter_that_looks(
    limit_ms: int | None, waited_ms: int, leads: bool
) -> None:
    settings = dataclasses.replace(SETTINGS, epoch_wait_ms=limit_ms)
    hand = Hand(3, settings=settings)
    hand.lead()
    hand.tick(waited_ms)
    looking = Notification(ServerState.LOOKING, 2, 0, 5, 0)
    outputs = hand.feed(i.Notified(2, looking))
    assert bool(of(outputs, o.RoleChanged)) is not leads
    assert (hand.peer.server_state is ServerState.LEADING) is leads


def test_an_observer_that_looks_moves_no_leader() -> None:
    settings = dataclasses.replace(SETTINGS, epoch_wait_ms=0)
    hand = Hand(3, settings=settings, members=membership(3, 1))
    hand.lead()
    hand.tick(100)
    outputs = hand.feed(i.Notified(4, Notification(ServerState.LOOKING, 4, 0, 5, 0)))
    assert not of(outputs, o.RoleChanged)


def test_a_leader_that_has_its_epoch_stays() -> None:
    settings = dataclasses.replace(SETTINGS, epoch_wait_ms=0)
    hand = Hand(3, settings=settings)
    hand.lead()
    hand.join(1, 1)
    hand.tick(100)
    outputs = hand.feed(i.Notified(2, Notification(ServerState.LOOKING, 2, 0, 5, 0)))
    assert not of(outputs, o.RoleChanged)


# ---- a pair with an oracle


def alone(said: str) -> Hand:
    """Server 2 of two, whose election the oracle has decided."""
    hand = Hand(2, rows("1:1-2"), accepted=1, current=1, members=membership(2))
    hand.feed(i.Oracle(said))
    for _ in range(3):
        hand.tick(400)
    return hand


def test_an_oracle_that_grants_lets_one_of_two_lead_and_commit() -> None:
    hand = alone("1")
    assert [type(out) for out in hand.disk()].count(o.Serving) == 1
    hand.propose(b"a")
    assert of(hand.disk(), o.Committed) == [o.Committed(z("2:1"))]
    hand.tick(1000)
    assert hand.peer.serving


def test_an_oracle_that_refuses_lets_nobody_lead_alone() -> None:
    hand = alone("0")
    assert hand.disk() == []
    assert hand.peer.role is None


def test_a_leader_alone_ends_when_the_oracle_takes_its_word_back() -> None:
    hand = alone("1")
    hand.disk()
    hand.feed(i.Oracle("0"))
    assert hand.peer.serving
    assert o.RoleChanged(ServerState.LOOKING) in hand.tick(1001)


def test_with_a_follower_the_oracle_is_not_heard() -> None:
    """What it grants would let this server commit what its follower does not have."""
    hand = alone("1")
    hand.disk()
    outputs = hand.join(1, 1, accepted=1)
    outputs += hand.packets(1, ack_epoch(z("1:2"), 1))
    assert (Kind.NEW_LEADER, z("2:0")) in sent(outputs, 1, hand.log)
    hand.packets(1, bare(Kind.ACK, z("2:0")))
    hand.propose(b"a")
    assert of(hand.disk(), o.Committed) == []
    assert of(hand.packets(1, bare(Kind.ACK, z("2:1"))), o.Committed) == [o.Committed(z("2:1"))]


def test_what_waits_for_a_follower_that_is_gone_is_committed_by_the_oracle() -> None:
    hand = alone("1")
    hand.disk()
    hand.join(1, 1, accepted=1)
    hand.packets(1, ack_epoch(z("1:2"), 1))
    hand.propose(b"a")
    assert of(hand.disk(), o.Committed) == []
    hand.feed(i.Disconnected(1))
    assert of(hand.tick(1001), o.Committed) == [o.Committed(z("2:1"))]
