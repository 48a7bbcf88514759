"""What operators see of a member, in each role and on the way there."""

from __future__ import annotations

from typing import Any

from tests.zab.group import membership
from tests.zab.hand import Hand, ack_epoch, bare, leader_info, new_leader
from tests.zab.rows import rows, z
from zkd.jute.quorum import Kind
from zkd.server.metrics import Metrics
from zkd.server.quorum import seen
from zkd.zab.settings import Settings

MEMBERS = membership(3, 1)


def gauges(hand: Hand) -> dict[str, Any]:
    """The gauges of an ensemble that have a value."""
    metrics = Metrics("peer")
    others = set(metrics.dump())
    seen.register(metrics, lambda: hand.peer, lambda: None)
    return {name: value for name, value in metrics.dump().items() if name not in others}


def test_a_server_without_a_leader_serves_nobody() -> None:
    hand = Hand(2, rows("1:1-2"), accepted=1, current=1, members=MEMBERS)
    assert seen.statistics(hand.peer) == {
        "mode": "looking", "serving": False, "read_only": False, "server_id": 2,
        "state": "looking",
    }  # fmt: skip
    assert gauges(hand) == {"quorum_size": 3}
    cut_off = seen.statistics(hand.peer, read_only=True)
    assert (cut_off["mode"], cut_off["serving"], cut_off["read_only"]) == ("read-only", True, True)


def test_a_leader_counts_its_learners_by_kind() -> None:
    hand = Hand(3, rows("1:1-2"), accepted=1, current=1, members=MEMBERS)
    hand.lead()
    assert seen.detailed_state(hand.peer) == "leading - discovery"
    hand = Hand(3, rows("1:1-2"), accepted=1, current=1, members=MEMBERS)
    hand.serve(conn=1, sid=1)
    assert seen.statistics(hand.peer) == {
        "mode": "leader", "serving": True, "read_only": False, "server_id": 3,
        "state": "leading - broadcast", "leader_id": 3, "leader_address": "s3",
    }  # fmt: skip
    hand.join(2, 4, kind=Kind.OBSERVER_INFO, accepted=2)
    hand.packets(2, ack_epoch(z("1:2"), -1))
    hand.join(3, 9, accepted=2)  # a follower that no configuration names
    hand.packets(3, ack_epoch(z("1:2"), 1))
    hand.join(4, 2, accepted=2)  # not synchronised yet
    assert gauges(hand) == {
        "quorum_size": 3, "learners": 4, "synced_followers": 2, "synced_non_voting_followers": 1,
        "synced_observers": 1, "pending_syncs": 0,
    }  # fmt: skip


def test_a_follower_says_how_far_it_is_and_how_it_came_there() -> None:
    hand = Hand(1, rows("1:1-2"), accepted=1, current=1, members=MEMBERS)
    hand.learn(3)
    assert seen.detailed_state(hand.peer) == "following - discovery"
    hand.packets(1, leader_info(2))
    hand.disk()
    hand.packets(1, bare(Kind.DIFF, z("1:2")), new_leader(2))
    assert seen.detailed_state(hand.peer) == "following - synchronization - diff"
    hand.disk()
    hand.packets(1, bare(Kind.UP_TO_DATE))
    found = seen.statistics(hand.peer)
    assert (found["mode"], found["state"]) == ("follower", "following - broadcast - diff")
    assert (found["leader_id"], found["leader_address"]) == (3, "s3")
    assert gauges(hand) == {"quorum_size": 3}


def test_a_follower_that_serves_observers_counts_them() -> None:
    settings = Settings(tick_ms=1000, observer_master=True)
    hand = Hand(1, rows("1:1-2"), accepted=1, current=1, members=MEMBERS, settings=settings)
    hand.learn(3)
    hand.packets(1, leader_info(2))
    hand.disk()
    hand.packets(1, bare(Kind.DIFF, z("1:2")), new_leader(2))
    hand.disk()
    hand.packets(1, bare(Kind.UP_TO_DATE))
    assert gauges(hand) == {"quorum_size": 3, "synced_observers": 0}
