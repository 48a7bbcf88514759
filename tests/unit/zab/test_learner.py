"""One learner stepped by hand: follower and observer, phase by phase (spec section 7 and 17)."""

from __future__ import annotations

import pytest

from tests.zab.group import membership
from tests.zab.hand import (
    Hand,
    ack_epoch,
    bare,
    leader_info,
    new_leader,
    of,
    pairs,
    proposals,
    sent,
)
from tests.zab.rows import Rows, rows, z
from zkd.jute.quorum import Kind, revalidate, revalidated
from zkd.zab import inputs as i
from zkd.zab import outputs as o
from zkd.zab.faults import DriverFault
from zkd.zab.votes import ServerState


def discovered(hand: Hand, epoch: int) -> Hand:
    """Connected, promised, and waiting for DIFF, TRUNC or SNAP."""
    hand.learn(3)
    hand.packets(1, leader_info(epoch))
    hand.disk()
    return hand


def following(log: Rows | None = None, *, observer: bool = False) -> Hand:
    """In epoch 2, with a history up to 1:2, without a transaction of the epoch."""
    hand = Hand(
        4 if observer else 1,
        log or rows("1:1-2"),
        accepted=1,
        current=1,
        members=membership(3, int(observer)),
    )
    discovered(hand, 2)
    hand.packets(1, bare(Kind.DIFF, z("1:2")), new_leader(2))
    hand.disk()
    hand.packets(1, bare(Kind.UP_TO_DATE))
    assert hand.peer.serving
    return hand


def closed(outputs: list[o.Output]) -> str:
    """Why the connection ended; the server looks for a leader again."""
    assert ServerState.LOOKING in [out.role for out in of(outputs, o.RoleChanged)]
    return of(outputs, o.Close)[0].reason


# ---- discovery


def test_it_promises_the_epoch_to_the_disk_before_ackepoch() -> None:
    hand = Hand(1, rows("1:1-2"), accepted=1, current=1)
    hand.learn(3)
    outputs = hand.packets(1, leader_info(2))
    assert of(outputs, o.SaveEpochs) == [o.SaveEpochs(2, 1)]
    assert sent(outputs, 1) == []
    outputs = hand.disk()
    assert of(outputs, o.SendPackets) == [o.SendPackets(1, (ack_epoch(z("1:2"), 1),))]


def test_an_epoch_accepted_before_is_no_acknowledgement() -> None:
    hand = Hand(1, rows("1:1-2"), accepted=2, current=1)
    hand.learn(3)
    outputs = hand.packets(1, leader_info(2))
    assert of(outputs, o.SaveEpochs) == []
    assert of(outputs, o.SendPackets)[0].packets == (ack_epoch(z("1:2"), -1),)


def test_an_epoch_below_the_promise_ends_the_connection() -> None:
    hand = Hand(1, accepted=3, current=1)
    hand.learn(3)
    assert "below the accepted" in closed(hand.packets(1, leader_info(2)))


@pytest.mark.parametrize("packet", [new_leader(2), bare(Kind.DIFF), bare(Kind.PING)])
def test_anything_but_leaderinfo_ends_the_connection(packet: tuple[int, int, None, None]) -> None:
    hand = Hand(1)
    hand.learn(3)
    assert "in place of LEADERINFO" in closed(hand.packets(1, packet))


def test_a_log_with_rows_above_the_tree_counts_them() -> None:
    hand = Hand(1, rows("1:1-5"), accepted=1, current=1, tree=z("1:2"))
    hand.learn(3)
    hand.packets(1, leader_info(2))
    assert sent(hand.disk(), 1) == [(Kind.ACK_EPOCH, z("1:5"))]


def test_a_log_that_cannot_be_trusted_says_so_and_takes_no_diff() -> None:
    hand = Hand(1, rows("1:1-5"), accepted=1, current=1, trusted=False)
    hand.learn(3)
    hand.packets(1, leader_info(2))
    assert sent(hand.disk(), 1) == [(Kind.ACK_EPOCH, -1)]
    assert "only a snapshot" in closed(hand.packets(1, bare(Kind.DIFF, z("1:5"))))


def test_an_installed_snapshot_can_be_trusted_before_uptodate() -> None:
    """Found by seeds 86, 305: two of three servers that had lost their logs, one of them with all
    of them again, elected nobody."""
    hand = discovered(Hand(1, rows("1:1-5"), accepted=1, current=1, trusted=False), 2)
    hand.packets(1, bare(Kind.SNAP, z("1:5")))
    hand.feed(i.SnapshotReceived(z("1:5")))
    hand.packets(1, new_leader(2))
    hand.disk()
    votes = of(hand.feed(i.Disconnected(1)), o.Notify)
    assert {vote.notification.zxid for vote in votes} == {z("1:5")}


def test_an_observer_leaves_a_master_that_is_behind_it() -> None:
    """It goes on with its own state: another server, or this one later, has as much."""
    members = membership(3, 1)
    hand = Hand(4, rows("2:1-5"), accepted=2, current=2, members=members)
    discovered(hand, 2)
    assert "behind" in closed(hand.packets(1, bare(Kind.TRUNC, z("2:3"))))
    assert hand.peer.halted is None


def test_an_observer_leaves_a_master_whose_snapshot_is_behind_it() -> None:
    hand = Hand(4, rows("2:1-5"), accepted=2, current=2, members=membership(3, 1))
    discovered(hand, 2)
    hand.packets(1, bare(Kind.SNAP, z("2:3")))
    hand.feed(i.SnapshotReceived(z("2:3")))
    assert "behind" in closed(hand.packets(1, new_leader(2)))
    assert hand.peer.halted is None


# ---- synchronisation


def test_newleader_is_acknowledged_after_history_and_epoch_are_durable() -> None:
    hand = discovered(Hand(1, rows("1:1-2"), accepted=1, current=1), 2)
    history = pairs([z("1:3"), z("1:4")])
    outputs = hand.packets(1, bare(Kind.DIFF, z("1:4")), *history, new_leader(2))
    assert [type(out) for out in outputs] == [o.Append, o.SaveEpochs]
    assert sent(outputs, 1) == []
    assert hand.feed(i.Appended(z("1:4"))) == []
    assert sent(hand.feed(i.EpochsSaved(2, 2)), 1) == [(Kind.ACK, z("2:0"))]


def test_an_epoch_saved_again_is_waited_for_before_the_next_role() -> None:
    """Found by seed 490 of an older plan: the answer, of a save that changed nothing, came in the
    next role and stood for rows that were not durable."""
    hand = Hand(1, rows("2:1-2"), accepted=2, current=2)
    hand.learn(3)
    hand.packets(1, leader_info(2))
    hand.packets(1, bare(Kind.DIFF, z("2:3")), *pairs([z("2:3")]), new_leader(2))
    hand.feed(i.Appended(z("2:3")))
    assert of(hand.feed(i.Disconnected(1)), o.Notify) == []
    assert of(hand.feed(i.EpochsSaved(2, 2)), o.Notify), "now it looks for a leader"


def test_epochs_saved_before_the_history_are_the_drivers_fault() -> None:
    hand = discovered(Hand(1, rows("1:1-2"), accepted=1, current=1), 2)
    hand.packets(1, bare(Kind.DIFF, z("1:3")), *pairs([z("1:3")]), new_leader(2))
    with pytest.raises(DriverFault):
        hand.feed(i.EpochsSaved(2, 2))


def test_nothing_is_committed_before_uptodate() -> None:
    hand = discovered(Hand(1, rows("1:1-2"), accepted=1, current=1, tree=z("1:1")), 2)
    outputs = hand.packets(1, bare(Kind.DIFF, z("1:4")), *pairs([z("1:3"), z("1:4")]))
    outputs += hand.packets(1, new_leader(2)) + hand.disk()
    assert of(outputs, o.Committed) == []
    outputs = hand.packets(1, bare(Kind.UP_TO_DATE))
    assert of(outputs, o.Committed) == [o.Committed(z("1:4"))]
    assert of(outputs, o.Serving) == [o.Serving(ServerState.FOLLOWING, 2)]
    assert sent(outputs, 1) == [(Kind.ACK, z("2:0"))]


def test_proposals_under_way_before_newleader_wait_for_their_commit() -> None:
    """They are logged, acknowledged after UPTODATE, and not confirmed by it."""
    hand = discovered(Hand(1, rows("1:1"), accepted=1, current=1), 2)
    hand.packets(1, bare(Kind.DIFF, z("2:1")), *pairs([z("2:1")]), *proposals([z("2:2")]))
    hand.packets(1, new_leader(2), *proposals([z("2:3")]))
    assert sent(hand.disk(), 1) == [(Kind.ACK, z("2:0"))]
    outputs = hand.packets(1, bare(Kind.COMMIT, z("2:2")), bare(Kind.UP_TO_DATE))
    assert of(outputs, o.Committed) == [o.Committed(z("2:2"))]
    acks = [(Kind.ACK, z("2:0")), (Kind.ACK, z("2:2")), (Kind.ACK, z("2:3"))]
    assert sent(outputs, 1) == acks


def test_pings_before_uptodate_get_no_answer() -> None:
    hand = discovered(Hand(1), 1)
    ping = bare(Kind.PING, z("1:0"))
    outputs = hand.packets(1, bare(Kind.DIFF, 0), ping, new_leader(1), ping)
    assert sent(outputs + hand.disk() + hand.packets(1, ping), 1) == [(Kind.ACK, z("1:0"))]
    outputs = hand.packets(1, bare(Kind.UP_TO_DATE), ping)
    assert sent(outputs, 1) == [(Kind.ACK, z("1:0")), (Kind.PING, z("1:0"))]


def test_trunc_drops_the_orphans_and_the_rest_follows() -> None:
    hand = discovered(Hand(1, rows("1:1-4"), accepted=1, current=1, tree=z("1:2")), 2)
    outputs = hand.packets(1, bare(Kind.TRUNC, z("1:3")), new_leader(2))
    assert [type(out) for out in outputs] == [o.Truncate, o.SaveEpochs]
    hand.disk()
    assert of(hand.packets(1, bare(Kind.UP_TO_DATE)), o.Committed) == [o.Committed(z("1:3"))]
    assert hand.log.zxids == [z("1:1"), z("1:2"), z("1:3")]


def test_trunc_below_what_is_committed_halts() -> None:
    hand = discovered(Hand(1, rows("1:1-4"), accepted=1, current=1, tree=z("1:3")), 2)
    outputs = hand.packets(1, bare(Kind.TRUNC, z("1:2")))
    assert of(outputs, o.Truncate) == []
    assert "is committed" in of(outputs, o.Halt)[0].reason
    assert hand.tick(1000) == []


def test_trunc_to_a_zxid_that_is_not_in_the_log_halts() -> None:
    hand = discovered(Hand(1, rows("1:1-2", "2:1-2"), accepted=2, current=2, tree=z("1:1")), 3)
    outputs = hand.packets(1, bare(Kind.TRUNC, z("1:9")))
    assert "not in the log" in of(outputs, o.Halt)[0].reason


def test_a_snapshot_takes_its_place_with_what_follows_and_the_epoch_in_one_step() -> None:
    """The rows that this server had acknowledged above the snapshot must not be missing a while."""
    hand = discovered(Hand(1, rows("1:1-9"), accepted=1, current=1, tree=z("1:2")), 2)
    outputs = hand.packets(1, bare(Kind.SNAP, z("1:5")))
    assert of(outputs, o.ReceiveSnapshot) == [o.ReceiveSnapshot(1, z("1:5"))]
    assert hand.feed(i.SnapshotReceived(z("1:5"))) == []
    assert hand.packets(1, *pairs([z("1:6"), z("1:7")])) == []
    outputs = hand.packets(1, *pairs([z("1:8"), z("1:9")]), new_leader(2), *proposals([z("2:1")]))
    install, append = of(outputs, o.InstallSnapshot)[0], of(outputs, o.Append)[0]
    assert (install.zxid, install.accepted, install.current) == (z("1:5"), 2, 2)
    assert [zxid for zxid, _ in install.txns] == [z("1:6"), z("1:7"), z("1:8"), z("1:9")]
    assert append.txns == [(z("2:1"), b"200000001")]
    assert of(outputs, o.SaveEpochs) == []
    assert sent(outputs, 1) == []
    assert sent(hand.disk(), 1) == [(Kind.ACK, z("2:0"))]
    outputs = hand.packets(1, bare(Kind.UP_TO_DATE))
    assert of(outputs, o.Committed) == [o.Committed(z("1:9"))]
    assert sent(outputs, 1) == [(Kind.ACK, z("2:0")), (Kind.ACK, z("2:1"))]


def test_proposals_that_the_snapshot_holds_are_skipped() -> None:
    hand = discovered(Hand(1, accepted=1, current=1), 2)
    hand.packets(1, bare(Kind.SNAP, z("2:5")))
    hand.feed(i.SnapshotReceived(z("2:5")))
    outputs = hand.packets(1, *pairs([z("2:4"), z("2:5"), z("2:6")]), new_leader(2))
    assert [zxid for zxid, _ in of(outputs, o.InstallSnapshot)[0].txns] == [z("2:6")]


@pytest.mark.parametrize("received", [False, True])
def test_a_connection_that_ends_before_newleader_leaves_everything_as_it_was(
    received: bool,
) -> None:
    hand = discovered(Hand(1, rows("1:1-9"), accepted=1, current=1), 2)
    hand.packets(1, bare(Kind.SNAP, z("1:5")))
    if received:
        hand.feed(i.SnapshotReceived(z("1:5")))
        hand.packets(1, *pairs([z("1:6")]))
    outputs = hand.feed(i.Disconnected(1))
    if not received:
        assert of(outputs, o.Notify) == [], "the driver has not answered yet"
        outputs = hand.feed(i.SnapshotFailed("the stream broke off"))
    assert hand.peer.state.positions.logged == z("1:9")
    assert {vote.notification.zxid for vote in of(outputs, o.Notify)} == {z("1:9")}


def test_a_snapshot_that_ends_before_what_is_committed_here_halts() -> None:
    hand = discovered(Hand(1, rows("1:1-9"), accepted=1, current=1), 2)
    hand.packets(1, bare(Kind.SNAP, z("1:5")))
    hand.feed(i.SnapshotReceived(z("1:5")))
    outputs = hand.packets(1, new_leader(2))
    assert "is committed" in of(outputs, o.Halt)[0].reason
    assert of(outputs, o.InstallSnapshot) == []


def test_trunc_to_the_beginning_of_an_epoch_drops_all_of_it() -> None:
    hand = discovered(Hand(1, rows("1:1-2", "2:1-2"), accepted=2, current=2, tree=z("1:1")), 3)
    outputs = hand.packets(1, bare(Kind.TRUNC, z("2:0")), *pairs([z("2:1")]), new_leader(3))
    assert of(outputs, o.Truncate) == [o.Truncate(z("1:2"))]
    hand.disk()
    assert of(hand.packets(1, bare(Kind.UP_TO_DATE)), o.Committed) == [o.Committed(z("2:1"))]


@pytest.mark.parametrize(
    ("packets", "reason"),
    [
        (proposals([z("1:4")]), "PROPOSAL of"),
        (proposals([z("1:3"), z("1:5")]), "PROPOSAL of"),
        ([bare(Kind.COMMIT, z("1:3"))], "which was not proposed"),
        ([*proposals([z("1:3"), z("1:4")]), bare(Kind.COMMIT, z("1:4"))], "COMMIT of"),
        ([bare(Kind.UP_TO_DATE)], "UPTODATE while"),
        ([new_leader(3)], "NEWLEADER with"),
        ([(Kind.NEW_LEADER, z("2:0"), b"server.1=nonsense", None)], "unusable configuration"),
        ([bare(Kind.DIFF, 0)], "DIFF while"),
    ],
)
def test_what_breaks_the_history_ends_the_connection(packets: list, reason: str) -> None:
    hand = discovered(Hand(1, rows("1:1-2"), accepted=1, current=1), 2)
    hand.packets(1, bare(Kind.DIFF, z("1:2")))
    assert reason in closed(hand.packets(1, *packets))


def test_a_later_epoch_may_follow_in_the_history() -> None:
    hand = discovered(Hand(1, rows("1:1-2"), accepted=1, current=1), 3)
    outputs = hand.packets(1, bare(Kind.DIFF, z("2:1")), *pairs([z("1:3"), z("2:1")]))
    assert not of(outputs, o.Close)


# ---- broadcast


def test_a_proposal_is_acknowledged_only_when_it_is_durable() -> None:
    hand = following()
    outputs = hand.packets(1, *proposals([z("2:1"), z("2:2")]))
    assert sent(outputs, 1) == []
    assert of(outputs, o.Append) == [o.Append([(z("2:1"), b"200000001"), (z("2:2"), b"200000002")])]
    assert hand.feed(i.Appended(z("2:1"))) == [o.SendAcks(1, z("2:1"), z("2:1"))]
    assert hand.feed(i.Appended(z("2:2"))) == [o.SendAcks(1, z("2:2"), z("2:2"))]


def test_a_commit_is_delivered_when_it_is_durable_here_too() -> None:
    hand = following()
    hand.packets(1, *proposals([z("2:1"), z("2:2")]))
    assert hand.packets(1, bare(Kind.COMMIT, z("2:1")), bare(Kind.COMMIT, z("2:2"))) == []
    assert of(hand.feed(i.Appended(z("2:1"))), o.Committed) == [o.Committed(z("2:1"))]
    assert of(hand.feed(i.Appended(z("2:2"))), o.Committed) == [o.Committed(z("2:2"))]


def test_syncs_are_answered_in_their_order_and_not_before_what_they_stand_for() -> None:
    hand = following()
    hand.feed(i.Sync(7))
    hand.feed(i.Sync(8))
    hand.packets(1, *proposals([z("2:1")]), bare(Kind.COMMIT, z("2:1")))
    assert hand.packets(1, bare(Kind.SYNC, 0), bare(Kind.SYNC, 0)) == []
    assert of(hand.disk(), o.Synced) == [o.Synced(7, z("2:1")), o.Synced(8, z("2:1"))]


def test_requests_and_revalidations_go_to_the_leader() -> None:
    hand = following()
    ids = (("ip", "127.0.0.1"),)
    outputs = hand.feed(i.Forward([(b"one", ids), (b"two", None)]))
    expected = ((Kind.REQUEST, -1, b"one", ids), (Kind.REQUEST, -1, b"two", None))
    assert outputs == [o.SendPackets(1, expected)]
    outputs = hand.feed(i.Revalidate(5, 4000))
    assert outputs == [o.SendPackets(1, ((Kind.REVALIDATE, -1, revalidate(5, 4000), None),))]
    outputs = hand.packets(1, (Kind.REVALIDATE, -1, revalidated(5, True), None))
    assert outputs == [o.Revalidated(5, True)]


def test_a_request_before_it_serves_is_the_drivers_fault() -> None:
    with pytest.raises(DriverFault):
        discovered(Hand(1), 1).feed(i.Forward([(b"", None)]))
    with pytest.raises(DriverFault):
        Hand(1).feed(i.Sync(1))


def test_a_reconfiguration_says_who_leads() -> None:
    hand = following()
    hand.packets(1, *proposals([z("2:1")]))
    data = (3).to_bytes(8, "big")
    outputs = hand.packets(1, (Kind.COMMIT_AND_ACTIVATE, z("2:1"), data, None))
    assert of(outputs, o.ReconfigCommitted) == [o.ReconfigCommitted(z("2:1"), 3)]
    assert of(hand.disk(), o.Committed) == [o.Committed(z("2:1"))]


def test_an_observer_logs_and_delivers_informs_without_acks() -> None:
    hand = following(observer=True)
    outputs = hand.packets(1, (Kind.INFORM, z("2:1"), b"x", None)) + hand.disk()
    assert of(outputs, o.Committed) == [o.Committed(z("2:1"))]
    data = (3).to_bytes(8, "big") + b"y"
    outputs = hand.packets(1, (Kind.INFORM_AND_ACTIVATE, z("2:2"), data, None)) + hand.disk()
    assert of(outputs, o.Append) == [o.Append([(z("2:2"), b"y")])]
    assert of(outputs, o.Committed) == [o.Committed(z("2:2"))]
    assert sent(outputs, 1) == []


def test_a_silent_leader_is_left_after_synclimit() -> None:
    hand = following()
    assert hand.peer.lease_ms == hand.now + 5000
    assert not of(hand.tick(5000), o.Close)
    assert "silent" in closed(hand.tick(1))
    assert hand.peer.lease_ms is None


def test_a_vote_waits_until_the_disk_has_answered() -> None:
    """What was handed to the disk counts as the last zxid."""
    hand = following()
    hand.packets(1, *proposals([z("2:1")]))
    outputs = hand.feed(i.Disconnected(1))
    assert of(outputs, o.RoleChanged) == [o.RoleChanged(ServerState.LOOKING)]
    assert of(outputs, o.Notify) == []
    votes = of(hand.disk(), o.Notify)
    assert {vote.notification.zxid for vote in votes} == {z("2:1")}


def test_packets_of_a_connection_that_is_over_are_ignored() -> None:
    hand = following()
    hand.feed(i.Disconnected(1))
    assert hand.packets(1, *proposals([z("2:1")])) == []
