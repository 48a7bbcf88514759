"""The leader's side of one connection to a learner: its phase, its deadlines, its acks.

    acked <= sent                       zxids of proposals; both rise only
    a follower acknowledges every proposal in order: an ack stands for all below it that were sent

Three clocks run. `reply_ms`: when the learner must have answered what this phase waits for; none
while it waits for us. `synced_ms`: until when it counts as following (Apache's
tickOfNextAckDeadline). The oldest proposal without an ack, looked at before each ping: of the
proposals under way only the oldest known and the newest are timed, as Apache does it.

Source: `LearnerHandler.java` (class SyncLimitCheck), `LearnerSyncThrottler.java`; spec
zab-quorum-protocol sections 6 and 16.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable

from zkd.jute.quorum import Kind, name
from zkd.zab.faults import PeerFault
from zkd.zab.zxid import text


class LinkPhase(enum.Enum):
    INFO = enum.auto()  # FOLLOWERINFO or OBSERVERINFO is to come
    EPOCH = enum.auto()  # waits until the epoch is decided and promised
    ACK_EPOCH = enum.auto()  # LEADERINFO is sent, ACKEPOCH is to come
    READY = enum.auto()  # waits until a quorum has acknowledged the epoch
    SNAPSHOT = enum.auto()  # waits until the driver has begun the snapshot
    SYNC = enum.auto()  # NEWLEADER is queued, its ACK is to come
    SYNCED = enum.auto()  # waits until the leader serves
    LIVE = enum.auto()  # UPTODATE is queued


REPLY_DUE = frozenset({LinkPhase.INFO, LinkPhase.ACK_EPOCH, LinkPhase.SYNC, LinkPhase.LIVE})
FORWARDING = frozenset({LinkPhase.SYNC, LinkPhase.SYNCED, LinkPhase.LIVE})
"""Live proposals and commits are queued, and pings."""


class LearnerLink:
    __slots__ = (
        "acked",
        "conn",
        "heard_ms",
        "last_zxid",
        "newest",
        "observer",
        "oldest",
        "phase",
        "reply_ms",
        "sending",
        "sent",
        "sid",
        "sync",
        "synced_ms",
        "timed",
    )

    def __init__(self, conn: int, reply_ms: int, synced_ms: int) -> None:
        self.conn = conn
        self.sid: int | None = None  # until it has said
        self.observer = False
        self.phase = LinkPhase.INFO
        self.reply_ms: int | None = reply_ms
        self.synced_ms = synced_ms
        self.heard_ms: int | None = None
        """When a packet came last, since UPTODATE is due."""
        self.last_zxid = 0
        """Of ACKEPOCH: what the learner had logged."""
        self.acked = 0
        self.sent = 0
        self.sending = False
        """A history or a snapshot is on its way: the answer has no deadline until it is sent."""
        self.sync: int | None = None
        """Kind.SNAP or Kind.DIFF from then on until NEWLEADER is acknowledged: counted among the
        syncs under way."""
        self.timed = False
        self.oldest: tuple[int, int] | None = None  # zxid, time
        self.newest: tuple[int, int] | None = None

    def sent_upto(self, zxid: int, now_ms: int) -> None:
        """Proposals up to this one are queued."""
        self.sent = zxid
        if not self.timed:
            return
        if self.oldest is None:
            self.oldest = (zxid, now_ms)
        else:
            self.newest = (zxid, now_ms)

    def acknowledged(self, zxid: int, committed: int) -> None:
        """An ACK. What it skips must have been committed before: such proposals a learner may
        have met while it was brought up to date, and owes no ack for them."""
        if zxid <= self.acked:
            return
        if zxid > self.sent:
            raise PeerFault(f"ACK of {text(zxid)}, {text(self.sent)} is the last that was sent")
        if zxid - 1 > max(self.acked, committed):
            raise PeerFault(f"ACK of {text(zxid)} after that of {text(self.acked)}")
        self.acked = zxid
        if self.oldest is not None and zxid >= self.oldest[0]:
            self.oldest, self.newest = self.newest, None
            if self.oldest is not None and zxid >= self.oldest[0]:
                self.oldest = None

    def slow(self, now_ms: int, sync_ms: int) -> bool:
        """Has a proposal waited longer than syncLimit for its ack?"""
        return self.oldest is not None and now_ms - self.oldest[1] > sync_ms

    def begins_sync(self, kind: int, others: Iterable[LearnerLink], limit: int) -> None:
        """It is to get a snapshot, or rows. Followers get them whatever is under way."""
        self.sync = Kind.SNAP if kind == Kind.SNAP else Kind.DIFF
        under_way = sum(other.sync == self.sync for other in others if other is not self)
        if self.observer and under_way >= limit:
            raise PeerFault(f"{under_way} learners are getting a {name(self.sync)} already")

    def overdue(self, now_ms: int) -> bool:
        return self.reply_ms is not None and not self.sending and now_ms > self.reply_ms
