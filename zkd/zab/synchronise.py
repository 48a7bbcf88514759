"""How a learner is brought to the leader's history: nothing, DIFF, TRUNC or SNAP.

A pure decision of the learner's last zxid and the leader's log. The rows of zkd's log stay on disk
until they are purged, so the committed log of Apache ZooKeeper is here the whole log from `first`
up to `end`; its second way, over old log files, is the same way here, and its limit by size is a
limit of rows. TRUNC within the log never crosses an epoch; TRUNC to its end may.

Source: `LearnerHandler.java` (`syncFollower`, `queueCommittedProposals`); spec
zab-quorum-protocol section 6.3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from zkd.jute.quorum import Kind
from zkd.zab.history import History
from zkd.zab.zxid import COUNTER_MAX, counter_of, epoch_of, is_new_epoch


@dataclass(frozen=True, slots=True)
class Decision:
    kind: int
    """`Kind.DIFF`, `Kind.TRUNC` or `Kind.SNAP`."""
    zxid: int
    """Of the packet; without a meaning for SNAP, whose zxid is that of the tree when it begins."""
    after: int
    """Rows above this one up to the end follow."""


class WithBodies:
    """The log and, above it, proposals of this epoch that the disk may not have written yet."""

    def __init__(self, log: History, bodies: Mapping[int, bytes]) -> None:
        self._log = log
        self._first = next(iter(bodies))
        self._last = self._first + len(bodies) - 1  # an epoch has no gap

    def first(self) -> int | None:
        first = self._log.first()
        return self._first if first is None else first

    def last(self) -> int | None:
        return self._last

    def floor(self, zxid: int) -> int | None:
        return min(zxid, self._last) if zxid >= self._first else self._log.floor(zxid)

    def has(self, zxid: int) -> bool:
        return self.floor(zxid) == zxid


_SNAP = Decision(Kind.SNAP, 0, 0)


def decide(
    peer: int,
    history: History,
    end: int,
    processed: int,
    *,
    rows_max: int,
    force_snapshot: bool = False,
) -> Decision:
    """What a learner gets whose last zxid is `peer`.

    `end`: the last zxid of the log that may go out as committed. `processed`: what Apache's calls
    lastProcessedZxid, `end` or the beginning of the leader's epoch if that is above.
    """
    if force_snapshot:
        return _SNAP
    if processed == peer:
        return Decision(Kind.DIFF, peer, peer)
    first = history.first()
    if first is None or first > end:
        # Nothing is known but where the leader stands, and there the learner is not.
        above = peer > processed and not is_new_epoch(peer)
        return Decision(Kind.TRUNC, processed, processed) if above else _SNAP
    if peer > end and not is_new_epoch(peer):
        return Decision(Kind.TRUNC, end, end)
    if not first <= peer <= end:
        return _SNAP
    common = history.floor(peer)
    assert common is not None, "the log begins at or below the learner's zxid"
    if count_rows(history, common, end, rows_max) > rows_max:
        return _SNAP
    if common == peer or is_new_epoch(peer):
        return Decision(Kind.DIFF, end, common)
    if history.floor(epoch_of(peer) << 32 | COUNTER_MAX) == common:
        return _SNAP  # the row above the learner's is of another epoch
    return Decision(Kind.TRUNC, common, common)


def count_rows(history: History, after: int, upto: int, limit: int) -> int:
    """How many rows are above `after` up to the row `upto`; any number above `limit` if more.

    Epoch by epoch: within one the counters have no gap and begin at 1.
    """
    rows = 0
    while epoch_of(upto) > epoch_of(after) and rows <= limit:
        rows += counter_of(upto)
        before = history.floor((epoch_of(upto) << 32) - 1)
        if before is None or before <= after:
            return rows
        upto = before
    return rows + max(upto - after, 0) if rows <= limit else rows
