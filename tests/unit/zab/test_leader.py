"""One leader stepped by hand, phase by phase (spec sections 5, 6, 8 and 17)."""

from __future__ import annotations

import pytest

from tests.zab.group import membership
from tests.zab.hand import Hand, ack_epoch, bare, of, sent
from tests.zab.rows import rows, z
from zkd.jute.protocol import Op
from zkd.jute.quorum import Kind, request, revalidate, revalidated, touches
from zkd.zab import inputs as i
from zkd.zab import outputs as o
from zkd.zab.faults import DriverFault
from zkd.zab.leader import Leader
from zkd.zab.settings import Settings
from zkd.zab.votes import ServerState
from zkd.zab.zxid import COUNTER_MAX


def leading(runs: str = "1:1-2") -> Hand:
    """Server 3 in epoch 2, follower 1 on connection 1."""
    hand = Hand(3, rows(runs), accepted=1, current=1)
    hand.serve()
    return hand


def joined(hand: Hand, conn: int, sid: int, last: int, kind: int = Kind.FOLLOWER_INFO) -> list:
    """A learner that comes to a leader that serves, up to UPTODATE."""
    epoch = hand.peer.state.current
    outputs = hand.join(conn, sid, accepted=epoch, kind=kind)
    outputs += hand.packets(conn, ack_epoch(last, -1))
    outputs += hand.packets(conn, bare(Kind.ACK, epoch << 32))
    return outputs


def ack(hand: Hand, conn: int, *zxids: str) -> list[o.Output]:
    return hand.packets(conn, *[bare(Kind.ACK, z(zxid)) for zxid in zxids])


# ---- the epoch


def test_it_promises_the_epoch_before_leaderinfo() -> None:
    hand = Hand(3, accepted=1, current=1)
    hand.lead()
    outputs = hand.join(1, 1, accepted=4)
    assert of(outputs, o.SaveEpochs) == [o.SaveEpochs(5, 1)]
    assert sent(outputs, 1) == []
    assert sent(hand.disk(), 1) == [(Kind.LEADER_INFO, z("5:0"))]


def test_observers_raise_the_epoch_and_count_for_nothing() -> None:
    hand = Hand(3, accepted=1, current=1, members=membership(3, 1))
    hand.lead()
    assert of(hand.join(1, 4, accepted=6, kind=Kind.OBSERVER_INFO), o.SaveEpochs) == []
    assert of(hand.join(2, 9, accepted=1), o.SaveEpochs) == [], "a stranger is no voter"
    assert of(hand.join(3, 1, accepted=1), o.SaveEpochs) == [o.SaveEpochs(7, 1)]


def test_an_accepted_epoch_that_leaves_none_ends_its_connection_alone() -> None:
    hand = Hand(3)
    hand.lead()
    outputs = hand.join(1, 1, accepted=0x7FFFFFFF)
    assert [out.conn for out in of(outputs, o.Close)] == [1]
    assert of(hand.join(2, 2), o.SaveEpochs) == [o.SaveEpochs(1, 0)]


def test_a_learner_after_the_decision_hears_the_decided_epoch() -> None:
    hand = leading()
    assert sent(hand.join(2, 2, accepted=9), 2) == [(Kind.LEADER_INFO, z("2:0"))]


def test_the_current_epoch_is_durable_before_anyone_is_synchronised() -> None:
    hand = Hand(3, rows("1:1"), accepted=1, current=1)
    hand.lead()
    hand.join(1, 1, accepted=1)
    hand.disk()
    outputs = hand.packets(1, ack_epoch(z("1:1"), 1))
    assert of(outputs, o.SaveEpochs) == [o.SaveEpochs(2, 2)]
    assert sent(outputs, 1) == []
    assert sent(hand.disk(), 1) == [(Kind.DIFF, z("1:1")), (Kind.NEW_LEADER, z("2:0"))]


@pytest.mark.parametrize(("last", "epoch"), [("1:3", 1), ("1:1", 2)])
def test_a_follower_ahead_of_the_leader_is_refused(last: str, epoch: int) -> None:
    hand = Hand(3, rows("1:1-2"), accepted=2, current=1)
    hand.lead()
    hand.join(1, 1, accepted=2)
    hand.disk()
    outputs = hand.packets(1, ack_epoch(z(last), epoch))
    assert "ahead of the leader" in of(outputs, o.Close)[0].reason
    assert of(outputs, o.SaveEpochs) == []
    assert hand.peer.server_state is ServerState.LEADING


@pytest.mark.parametrize(("last", "epoch"), [(z("1:2"), -1), (-1, 1)])
def test_what_is_no_acknowledgement_of_the_epoch_does_not_count(last: int, epoch: int) -> None:
    hand = Hand(3, rows("1:1-2"), accepted=1, current=1)
    hand.lead()
    hand.join(1, 1, accepted=1)
    hand.disk()
    outputs = hand.packets(1, ack_epoch(last, epoch))
    assert outputs == []
    hand.join(2, 2, accepted=1)
    assert of(hand.packets(2, ack_epoch(z("1:1"), 1)), o.SaveEpochs) == [o.SaveEpochs(2, 2)]


def test_newleader_with_another_zxid_does_not_count() -> None:
    hand = Hand(3, accepted=1, current=1)
    hand.lead()
    hand.join(1, 1, accepted=1)
    hand.disk()
    hand.packets(1, ack_epoch(0, 1))
    hand.disk()
    assert of(hand.packets(1, bare(Kind.ACK, z("1:0"))), o.Serving) == []
    assert not hand.peer.serving


def test_what_was_logged_before_is_committed_by_the_quorum_of_newleader() -> None:
    hand = Hand(3, rows("1:1-2"), accepted=1, current=1, tree=z("1:1"))
    outputs = hand.serve()
    assert of(outputs, o.Serving) == [o.Serving(ServerState.LEADING, 2)]
    assert of(outputs, o.Committed) == [o.Committed(z("1:2"))]
    assert hand.peer.next_zxid == z("2:1")
    assert sent(outputs, 1)[-1] == (Kind.UP_TO_DATE, -1)


@pytest.mark.parametrize("joins", [False, True])
def test_without_a_quorum_within_initlimit_it_gives_up(joins: bool) -> None:
    hand = Hand(3)
    hand.lead()
    if joins:
        hand.join(1, 1)
        hand.disk()
    outputs = hand.tick(10_001)
    assert o.RoleChanged(ServerState.LOOKING) in outputs
    assert [out.conn for out in of(outputs, o.Close)] == [1] * joins


# ---- a learner that comes later


def test_a_learner_gets_history_newleader_and_what_is_under_way() -> None:
    """Not before NEWLEADER: see tests/integration/test_apache_learner.py."""
    hand = leading()
    hand.propose(b"a", b"b", b"c")
    hand.disk()
    ack(hand, 1, "2:1")
    outputs = hand.join(2, 2, accepted=2)
    outputs = hand.packets(2, ack_epoch(z("1:1"), -1))
    expected = [(Kind.DIFF, z("2:1"))]
    for zxid in ("1:2", "2:1"):
        expected += [(Kind.PROPOSAL, z(zxid)), (Kind.COMMIT, z(zxid))]
    expected += [(Kind.NEW_LEADER, z("2:0")), (Kind.PROPOSAL, z("2:2")), (Kind.PROPOSAL, z("2:3"))]
    assert sent(outputs, 2, hand.log) == expected
    outputs = ack(hand, 1, "2:2")
    assert sent(outputs, 2) == [(Kind.COMMIT, z("2:2"))], "live, between NEWLEADER and its ack"
    outputs = hand.packets(2, bare(Kind.ACK, z("2:0")))
    assert sent(outputs, 2) == [(Kind.UP_TO_DATE, -1)]
    assert of(ack(hand, 2, "2:3"), o.Committed) == [o.Committed(z("2:3"))]


def test_what_is_committed_and_not_durable_here_goes_as_pairs() -> None:
    hand = leading()
    joined(hand, 2, 2, z("1:2"))
    hand.propose(b"a", b"b")
    ack(hand, 1, "2:1", "2:2")
    ack(hand, 2, "2:1")
    assert hand.peer.state.positions.delivered == z("1:2"), "committed by the followers alone"
    hand.join(4, 9, accepted=2)
    outputs = hand.packets(4, ack_epoch(z("1:2"), -1))
    assert sent(outputs, 4, hand.log)[1:] == [
        (Kind.PROPOSAL, z("2:1")),
        (Kind.COMMIT, z("2:1")),
        (Kind.NEW_LEADER, z("2:0")),
        (Kind.PROPOSAL, z("2:2")),
    ]


def test_a_snapshot_is_followed_by_what_is_above_it() -> None:
    hand = leading("1:5-6")
    hand.propose(b"a", b"b")
    hand.disk()
    ack(hand, 1, "2:1")
    hand.join(2, 2, accepted=0)
    outputs = hand.packets(2, ack_epoch(0, 0))
    assert of(outputs, o.SendSnapshot) == [o.SendSnapshot(2)]
    assert ack(hand, 1, "2:2")[:1] == [o.SendCommits([1], z("2:2"), z("2:2"))], "not forwarded yet"
    outputs = hand.feed(i.SnapshotStarted(2, z("1:6")))
    pairs = [(k, z(n)) for n in ("2:1", "2:2") for k in (Kind.PROPOSAL, Kind.COMMIT)]
    assert sent(outputs, 2, hand.log) == [*pairs, (Kind.NEW_LEADER, z("2:0"))]


def test_the_time_for_an_answer_begins_when_the_snapshot_is_sent() -> None:
    hand = leading("1:5-6")
    hand.join(2, 2, accepted=0)
    hand.packets(2, ack_epoch(0, 0))
    hand.feed(i.SnapshotStarted(2, z("1:6")))
    for _ in range(6):
        ack(hand, 1, "2:0")
        assert not of(hand.tick(4000), o.Close)
    hand.feed(i.Sent(2))
    ack(hand, 1, "2:0")
    hand.tick(4000)
    ack(hand, 1, "2:0")
    hand.tick(4000)
    ack(hand, 1, "2:0")
    assert [out.conn for out in of(hand.tick(4000), o.Close)] == [2]


def test_observers_beyond_the_limit_of_snapshots_are_sent_away() -> None:
    hand = leading("1:5-6")
    for number in range(12):
        hand.join(10 + number, 10 + number, accepted=0, kind=Kind.OBSERVER_INFO)
        outputs = hand.packets(10 + number, ack_epoch(0, 0))
        assert bool(of(outputs, o.Close)) is (number >= 10)
    hand.join(2, 2, accepted=0)
    assert of(hand.packets(2, ack_epoch(0, 0)), o.SendSnapshot), "a follower never"


def test_a_newer_configuration_than_the_committed_one_is_refused() -> None:
    hand = leading()
    outputs = hand.join(2, 2, version=1)
    assert "configuration" in of(outputs, o.Close)[0].reason


def test_a_learner_that_connects_again_replaces_its_older_connection() -> None:
    hand = leading()
    outputs = hand.join(2, 1, accepted=2)
    assert [out.conn for out in of(outputs, o.Close)] == [1]


# ---- broadcast


def test_a_quorum_commits_and_observers_are_informed() -> None:
    hand = leading()
    joined(hand, 5, 5, z("1:2"), Kind.OBSERVER_INFO)
    outputs = hand.propose(b"a", b"b")
    assert of(outputs, o.Append) == [o.Append([(z("2:1"), b"a"), (z("2:2"), b"b")])]
    assert sent(outputs, 1) == [(Kind.PROPOSAL, z("2:1")), (Kind.PROPOSAL, z("2:2"))]
    assert sent(outputs, 5) == []
    assert of(hand.disk(), o.Committed) == []
    outputs = ack(hand, 1, "2:1", "2:2")
    assert sent(outputs, 1) == [(Kind.COMMIT, z("2:1")), (Kind.COMMIT, z("2:2"))]
    assert of(outputs, o.SendInforms) == [o.SendInforms([5], [(z("2:1"), b"a"), (z("2:2"), b"b")])]
    assert of(outputs, o.Committed) == [o.Committed(z("2:2"))]


def test_the_followers_alone_commit_and_this_server_delivers_when_durable() -> None:
    hand = leading()
    joined(hand, 2, 2, z("1:2"))
    hand.propose(b"a")
    ack(hand, 1, "2:1")
    outputs = ack(hand, 2, "2:1")
    assert of(outputs, o.SendCommits) == [o.SendCommits([1, 2], z("2:1"), z("2:1"))]
    assert of(outputs, o.Committed) == []
    assert of(hand.disk(), o.Committed) == [o.Committed(z("2:1"))]


def test_acks_of_strangers_count_for_nothing() -> None:
    hand = leading()
    joined(hand, 5, 9, z("1:2"))
    hand.propose(b"a")
    hand.disk()
    assert of(ack(hand, 5, "2:1"), o.Committed) == []


def test_an_ack_ends_with_its_connection() -> None:
    """The follower may be told to truncate what it had acknowledged."""
    hand = leading()
    hand.propose(b"a")
    ack(hand, 1, "2:1")
    hand.feed(i.Disconnected(1))
    joined(hand, 6, 1, z("2:1"))
    assert of(hand.disk(), o.Committed) == []
    assert of(ack(hand, 6, "2:1"), o.Committed) == [o.Committed(z("2:1"))]


@pytest.mark.parametrize("zxids", [("2:2",), ("2:3",), ("7:1",)])
def test_an_ack_out_of_order_ends_its_connection(zxids: tuple[str, ...]) -> None:
    hand = leading()
    hand.propose(b"a", b"b")
    assert [out.conn for out in of(ack(hand, 1, *zxids), o.Close)] == [1]


def test_requests_are_handed_over_with_the_clients_identities() -> None:
    hand = leading()
    ids = (("ip", "127.0.0.1"),)
    outputs = hand.packets(1, (Kind.REQUEST, -1, request(9, 3, Op.CREATE, b"body"), ids))
    assert outputs == [o.LearnerRequest(1, 1, 9, 3, Op.CREATE, b"body", ids)]


def test_a_sync_is_answered_after_the_commit_of_what_was_proposed() -> None:
    hand = leading()
    assert sent(hand.feed(i.LearnerSync(1)), 1) == [(Kind.SYNC, 0)], "nothing is under way"
    hand.propose(b"a")
    hand.feed(i.Sync(7))
    assert hand.feed(i.LearnerSync(1)) == []
    outputs = ack(hand, 1, "2:1") + hand.disk()
    assert sent(outputs, 1) == [(Kind.COMMIT, z("2:1")), (Kind.SYNC, 0)]
    assert of(outputs, o.Synced) == [o.Synced(7, z("2:1"))]
    committed = o.Committed(z("2:1"))
    assert outputs.index(committed) < outputs.index(o.Synced(7, z("2:1")))


def test_a_sync_is_answered_before_the_commit_of_what_its_client_asked_later() -> None:
    """A learner answers its client in the client's order, by what comes in ours."""
    hand = leading()
    hand.propose(b"a")
    hand.feed(i.LearnerSync(1))
    hand.propose(b"b")
    outputs = ack(hand, 1, "2:1", "2:2") + hand.disk()
    expected = [(Kind.COMMIT, z("2:1")), (Kind.SYNC, 0), (Kind.COMMIT, z("2:2"))]
    assert sent(outputs, 1) == expected


def test_revalidation_and_touches_are_handed_over() -> None:
    hand = leading()
    outputs = hand.packets(1, (Kind.REVALIDATE, -1, revalidate(9, 4000), None))
    assert outputs == [o.RevalidateAsked(1, 9, 4000)]
    outputs = hand.feed(i.RevalidateAnswer(1, 9, True))
    assert outputs == [o.SendPackets(1, ((Kind.REVALIDATE, -1, revalidated(9, True), None),))]
    outputs = hand.packets(1, (Kind.PING, z("2:0"), touches({9: 4000}), None))
    assert outputs == [o.Touched(1, [(9, 4000)])]


@pytest.mark.parametrize(
    "packet",
    [
        (Kind.REQUEST, -1, b"short", None),
        (Kind.PING, 0, b"odd", None),
        (Kind.REVALIDATE, -1, None, None),
    ],
)
def test_a_malformed_packet_ends_its_own_connection(packet: tuple) -> None:
    hand = leading()
    joined(hand, 2, 2, z("1:2"))
    assert [out.conn for out in of(hand.packets(2, packet), o.Close)] == [2]
    assert hand.peer.serving


@pytest.mark.parametrize("kind", [Kind.PROPOSAL, Kind.COMMIT, Kind.PING, Kind.REQUEST, 99])
def test_a_packet_before_the_introduction_ends_its_connection(kind: int) -> None:
    hand = leading()
    hand.feed(i.Accepted(2))
    assert [out.conn for out in of(hand.packets(2, bare(kind)), o.Close)] == [2]


def test_pings_go_out_every_half_tick() -> None:
    hand = leading()
    assert sent(hand.tick(500), 1) == [(Kind.PING, z("2:0"))]
    hand.propose(b"a")
    assert sent(hand.tick(499), 1) == []
    assert sent(hand.tick(1), 1) == [(Kind.PING, z("2:1"))]


def test_a_follower_that_owes_an_ack_for_too_long_is_closed() -> None:
    hand = leading()
    joined(hand, 2, 2, z("1:2"))
    hand.propose(b"a")
    ack(hand, 1, "2:1")
    closes = []
    for _ in range(11):
        hand.packets(1, (Kind.PING, 0, b"", None))
        hand.packets(2, (Kind.PING, 0, b"", None))
        closes += of(hand.tick(500), o.Close)
    assert [(out.conn, "ack" in out.reason) for out in closes] == [(2, True)]
    assert hand.peer.serving


def test_without_a_quorum_that_is_heard_of_it_stops_leading() -> None:
    hand = leading()
    hand.packets(1, (Kind.PING, 0, b"", None))
    assert hand.peer.lease_ms == hand.now + 5000
    outputs: list[o.Output] = []
    for _ in range(40):
        outputs += hand.tick(500)
    assert o.RoleChanged(ServerState.LOOKING) in outputs
    assert hand.peer.lease_ms is None


def test_a_gap_in_what_is_proposed_is_the_drivers_fault() -> None:
    hand = leading()
    with pytest.raises(DriverFault):
        hand.feed(i.Propose([(z("2:2"), b"a")]))


def test_leadership_ends_with_the_zxids_of_its_epoch() -> None:
    hand = leading()
    role = hand.peer.role
    assert isinstance(role, Leader)
    role.proposed = role.committed = 2 << 32 | COUNTER_MAX - 2
    outputs = hand.propose(b"last", b"never")
    assert [out.txns for out in of(outputs, o.Append)] == [[(2 << 32 | COUNTER_MAX - 1, b"last")]]
    assert o.RoleChanged(ServerState.LOOKING) in outputs


def test_the_first_configuration_gets_the_epoch_as_its_version() -> None:
    settings = Settings(tick_ms=1000, reconfig_enabled=True)
    hand = Hand(3, accepted=1, current=1, settings=settings)
    outputs = hand.serve()
    activated = of(outputs, o.ConfigurationActivated)
    assert [out.membership.version for out in activated] == [z("2:0")]
    assert hand.peer.state.committed.version == z("2:0")
