"""What a learner gets: the table of Apache ZooKeeper's `syncFollower`, row by row.

The probes are those that a real 3.9.5 leader answered (tests/vectors/sequences.json): its log held
1:1 to 1:51, 2:1 to 2:4 and 3:1 to 3:6, of which the first part was no longer in memory.
"""

from __future__ import annotations

import pytest

from tests.zab.rows import Rows, rows, z
from zkd.jute.quorum import Kind
from zkd.zab.synchronise import Decision, count_rows, decide

SNAP = Decision(Kind.SNAP, 0, 0)


def of(peer: str, log: Rows, end: str, processed: str = "", rows_max: int = 1000) -> Decision:
    return decide(z(peer), log, z(end), z(processed or end), rows_max=rows_max)


def diff(zxid: str, after: str) -> Decision:
    return Decision(Kind.DIFF, z(zxid), z(after))


def trunc(zxid: str) -> Decision:
    return Decision(Kind.TRUNC, z(zxid), z(zxid))


LOG = rows("2:1-4", "3:1-6")


def test_forced_snapshot_comes_before_everything() -> None:
    found = decide(z("3:6"), LOG, z("3:6"), z("3:6"), rows_max=1000, force_snapshot=True)
    assert found == SNAP


def test_a_learner_at_the_leaders_zxid_gets_an_empty_diff() -> None:
    assert of("3:6", LOG, "3:6") == diff("3:6", "3:6")


def test_a_fresh_learner_of_a_fresh_leader_gets_an_empty_diff() -> None:
    assert of("0:0", Rows(), "0:0") == diff("0:0", "0:0")


def test_a_fresh_learner_of_a_leader_that_serves_gets_a_snapshot() -> None:
    assert of("0:0", Rows(), "0:0", processed="1:0") == SNAP


def test_a_learner_at_the_beginning_of_the_leaders_epoch_gets_an_empty_diff() -> None:
    assert of("3:0", rows("2:1-4"), "2:4", processed="3:0") == diff("3:0", "3:0")


def test_a_learner_at_the_end_of_the_log_gets_an_empty_diff_in_a_new_epoch() -> None:
    assert of("2:4", rows("2:1-4"), "2:4", processed="3:0") == diff("2:4", "2:4")


@pytest.mark.parametrize("peer", ["3:7", "3:153", "4:1"])
def test_a_learner_beyond_the_end_is_truncated_to_the_end(peer: str) -> None:
    assert of(peer, LOG, "3:6") == trunc("3:6")


def test_a_learner_beyond_the_end_of_an_earlier_epoch_is_truncated_across_epochs() -> None:
    assert of("3:2", rows("2:1-4"), "2:4") == trunc("2:4")


def test_a_new_epoch_beyond_the_end_gets_a_snapshot() -> None:
    assert of("4:0", LOG, "3:6") == SNAP


@pytest.mark.parametrize("peer", ["3:2", "2:4", "2:1", "3:1"])
def test_a_learner_within_the_log_gets_what_is_above(peer: str) -> None:
    assert of(peer, LOG, "3:6") == diff("3:6", peer)


def test_a_new_epoch_within_the_log_gets_what_is_above() -> None:
    assert of("3:0", LOG, "3:6") == diff("3:6", "2:4")


def test_a_zxid_unknown_in_an_older_epoch_gets_a_snapshot() -> None:
    """TRUNC would cross an epoch."""
    assert of("2:153", LOG, "3:6") == SNAP


def test_a_gap_in_the_learners_own_epoch_is_truncated_to_the_row_before() -> None:
    log = Rows([z("2:1"), z("2:2"), z("2:5"), z("2:6")])
    assert of("2:4", log, "2:6") == trunc("2:2")


@pytest.mark.parametrize("peer", ["1:153", "0:0", "1:51", "2:0"])
def test_a_learner_below_the_log_gets_a_snapshot(peer: str) -> None:
    assert of(peer, LOG, "3:6") == SNAP


def test_a_server_that_has_lost_its_log_gets_a_snapshot() -> None:
    assert decide(-1, LOG, z("3:6"), z("3:6"), rows_max=1000) == SNAP
    assert decide(-1, Rows(), 0, 0, rows_max=1000) == SNAP


def test_rows_above_the_committed_end_do_not_count() -> None:
    assert of("3:5", LOG, "3:4") == trunc("3:4")
    assert of("3:3", LOG, "3:4") == diff("3:4", "3:3")


def test_an_orphan_is_truncated_when_the_leaders_log_is_purged() -> None:
    assert of("2:5", Rows(), "2:4") == trunc("2:4")


def test_more_rows_than_the_limit_go_as_a_snapshot() -> None:
    assert of("2:1", LOG, "3:6", rows_max=9) == diff("3:6", "2:1")
    assert of("2:1", LOG, "3:6", rows_max=8) == SNAP


@pytest.mark.parametrize(
    ("after", "upto", "count"),
    [
        ("3:6", "3:6", 0),
        ("3:2", "3:6", 4),
        ("2:4", "3:6", 6),
        ("2:2", "3:6", 8),
        ("1:1", "3:6", 10),
    ],
)
def test_rows_are_counted_by_epoch(after: str, upto: str, count: int) -> None:
    assert count_rows(LOG, z(after), z(upto), 1000) == count
