"""A follower that serves observers, stepped by hand (spec section 10)."""

from __future__ import annotations

import pytest

from tests.zab.group import membership
from tests.zab.hand import Hand, ack_epoch, bare, leader_info, new_leader, of, proposals, sent
from tests.zab.rows import rows, z
from zkd.jute.protocol import Op
from zkd.jute.quorum import Kind, LearnerInfo, request, revalidate, revalidated, touches
from zkd.zab import inputs as i
from zkd.zab import outputs as o
from zkd.zab.settings import Settings

SETTINGS = Settings(tick_ms=1000, observer_master=True)


def following() -> Hand:
    """Server 1 follows in epoch 2; 2:1 is under way."""
    log, members = rows("1:1-2"), membership(3, 1)
    hand = Hand(1, log, accepted=1, current=1, members=members, settings=SETTINGS)
    hand.learn(3)
    hand.packets(1, leader_info(2))
    hand.disk()
    hand.packets(1, bare(Kind.DIFF, z("1:2")), *proposals([z("2:1")]), new_leader(2))
    hand.disk()
    hand.packets(1, bare(Kind.UP_TO_DATE))
    return hand


def observed(hand: Hand, last: str = "1:2", conn: int = 2) -> list[o.Output]:
    """Observer 4 joins on a connection, up to UPTODATE."""
    hand.feed(i.Accepted(conn))
    outputs = hand.packets(conn, (Kind.OBSERVER_INFO, z("2:0"), LearnerInfo(4).encode(), None))
    outputs += hand.packets(conn, ack_epoch(z(last), -1))
    return outputs + hand.packets(conn, bare(Kind.ACK, z("2:0")))


def test_an_observer_joins_without_a_quorum_and_without_the_leader() -> None:
    hand = following()
    outputs = observed(hand, "1:1")
    assert sent(outputs, 2, hand.log) == [
        (Kind.LEADER_INFO, z("2:0")),
        (Kind.DIFF, z("1:2")),
        (Kind.PROPOSAL, z("1:2")),
        (Kind.COMMIT, z("1:2")),
        (Kind.NEW_LEADER, z("2:0")),
        (Kind.UP_TO_DATE, -1),
    ]
    assert sent(outputs, 1) == []


def test_followers_are_refused() -> None:
    hand = following()
    hand.feed(i.Accepted(2))
    outputs = hand.packets(2, (Kind.FOLLOWER_INFO, 0, LearnerInfo(2).encode(), None))
    assert [out.conn for out in of(outputs, o.Close)] == [2]
    assert hand.peer.serving


def test_what_is_delivered_here_is_informed() -> None:
    """Also what was under way before this server served."""
    hand = following()
    observed(hand)
    assert sent(hand.packets(1, *proposals([z("2:2"), z("2:3")])), 2) == []
    outputs = hand.packets(1, bare(Kind.COMMIT, z("2:1")), bare(Kind.COMMIT, z("2:2")))
    assert sent(outputs, 2) == [(Kind.INFORM, z("2:1"))]
    assert sent(hand.disk(), 2) == [(Kind.INFORM, z("2:2"))]


def test_a_reconfiguration_comes_with_the_leader_that_it_names() -> None:
    hand = following()
    observed(hand)
    hand.packets(1, bare(Kind.COMMIT, z("2:1")), *proposals([z("2:2")]))
    hand.disk()
    outputs = hand.packets(1, (Kind.COMMIT_AND_ACTIVATE, z("2:2"), (3).to_bytes(8, "big"), None))
    informed = [out for out in of(outputs, o.SendPackets) if out.conn == 2]
    data = (3).to_bytes(8, "big") + b"200000002"
    assert informed == [o.SendPackets(2, ((Kind.INFORM_AND_ACTIVATE, z("2:2"), data, None),))]


def test_a_snapshot_is_followed_by_what_was_delivered_meanwhile() -> None:
    hand = following()
    hand.feed(i.Accepted(2))
    hand.packets(2, (Kind.OBSERVER_INFO, 0, LearnerInfo(4).encode(), None))
    assert of(hand.packets(2, ack_epoch(0, 0)), o.SendSnapshot) == [o.SendSnapshot(2)]
    assert sent(hand.packets(1, bare(Kind.COMMIT, z("2:1"))), 2) == []
    outputs = hand.feed(i.SnapshotStarted(2, z("1:2")))
    pair = [(Kind.PROPOSAL, z("2:1")), (Kind.COMMIT, z("2:1"))]
    assert sent(outputs, 2, hand.log) == [*pair, (Kind.NEW_LEADER, z("2:0"))]


def test_requests_and_answers_pass_through_in_order() -> None:
    hand = following()
    observed(hand)
    ask = (Kind.REQUEST, -1, request(9, 1, Op.CREATE, b"x"), (("ip", "::1"),))
    sync = (Kind.REQUEST, -1, request(9, 2, Op.SYNC, b"/"), None)
    session = (Kind.REVALIDATE, -1, revalidate(9, 4000), None)
    outputs = hand.packets(2, ask, sync, session)
    assert outputs == [o.SendPackets(1, (packet,)) for packet in (ask, sync, session)]
    hand.feed(i.Sync(7))
    outputs = hand.packets(1, bare(Kind.SYNC, 0), bare(Kind.SYNC, 0))
    assert outputs == [o.SendPackets(2, (bare(Kind.SYNC, 0),)), o.Synced(7, z("1:2"))]
    answer = (Kind.REVALIDATE, -1, revalidated(9, True), None)
    assert hand.packets(1, answer) == [o.SendPackets(2, (answer,))]
    assert hand.packets(1, answer) == [o.Revalidated(9, True)], "asked by nobody else"


def test_touches_of_observers_are_this_servers() -> None:
    hand = following()
    observed(hand)
    outputs = hand.packets(2, (Kind.PING, z("2:0"), touches({9: 4000}), None))
    assert outputs == [o.Touched(2, [(9, 4000)])]


def test_pings_go_out_and_a_silent_observer_is_closed() -> None:
    hand = following()
    observed(hand)
    assert (Kind.PING, z("1:2")) in sent(hand.tick(500), 2)
    hand.tick(4500)
    hand.packets(1, bare(Kind.PING, z("2:1")))
    assert [out.conn for out in of(hand.tick(1), o.Close)] == [2]
    assert hand.peer.serving


@pytest.mark.parametrize("packet", [bare(Kind.ACK, z("2:1")), (Kind.REQUEST, -1, b"", None)])
def test_a_wrong_observer_loses_its_own_connection(packet: tuple) -> None:
    hand = following()
    observed(hand)
    assert [out.conn for out in of(hand.packets(2, packet), o.Close)] == [2]
    assert hand.peer.serving


def test_the_observers_are_left_with_the_role() -> None:
    hand = following()
    observed(hand)
    assert [out.conn for out in of(hand.feed(i.Disconnected(1)), o.Close)] == [2]


def test_an_observer_ahead_of_this_follower_waits_for_it() -> None:
    """It comes from a faster follower. Found by seeds 529, 909, 1082: it was told to truncate."""
    hand = following()
    hand.feed(i.Accepted(2))
    hand.packets(2, (Kind.OBSERVER_INFO, z("2:0"), LearnerInfo(4).encode(), None))
    assert sent(hand.packets(2, ack_epoch(z("2:1"), -1)), 2) == []
    outputs = hand.packets(1, bare(Kind.COMMIT, z("2:1")))
    assert sent(outputs, 2) == [(Kind.DIFF, z("2:1")), (Kind.NEW_LEADER, z("2:0"))]


def test_what_an_observer_has_of_an_epoch_that_is_over_is_cut_off() -> None:
    """Not ahead: this follower has everything that was committed in it."""
    hand = following()
    assert (Kind.TRUNC, z("1:2")) in sent(observed(hand, "1:7"), 2)
