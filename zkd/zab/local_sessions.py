"""Sessions that one server of an ensemble keeps for itself: no transaction knows them.

    a session is local, upgrading or neither        local -> upgrading -> (committed) -> neither

A local session costs the ensemble nothing, moves to no other server, and owns no ephemerals: before
its first one it is upgraded, where that is allowed. Then the server asks the leader for a
createSession of the same id, and from its commit on the session is one like all others. A server
that is cut off has no other sessions to give. Times are milliseconds of a clock that never goes
back, given by the caller.

Source: `LocalSessionTracker.java`, `UpgradeableSessionTracker.java`, `LearnerSessionTracker.java`,
`QuorumZooKeeperServer.checkUpgradeSession` of Apache ZooKeeper.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final

from zkd.jute.codec import Malformed
from zkd.jute.protocol import Op
from zkd.jute.records import CreateRequest
from zkd.tree import multi
from zkd.zab.sessions import SessionTracker

_CREATES: Final = (Op.CREATE, Op.CREATE2)
_EPHEMERAL: Final = (1, 3)
"""Flags of EPHEMERAL and EPHEMERAL_SEQUENTIAL."""


class Verdict(Enum):
    """What a request of a session needs before it goes on."""

    PASS = auto()
    """Nothing."""
    UPGRADE = auto()
    """`upgrade`, and a createSession in front of it."""
    REFUSE = auto()
    """It cannot be had: EPHEMERALONLOCALSESSION."""


class LocalSessions:
    """The local sessions of this server, and those that are being upgraded."""

    def __init__(self, tick_ms: int, *, upgrading: bool, now_ms: int = 0) -> None:
        """`upgrading`: localSessionsUpgradingEnabled."""
        self.tracker = SessionTracker(tick_ms, now_ms=now_ms)
        self.may_upgrade = upgrading
        self._upgrading: dict[int, int] = {}
        """session -> timeout in ms, from `upgrade` to its commit."""

    def __contains__(self, session: int) -> bool:
        return session in self.tracker

    def __len__(self) -> int:
        return len(self.tracker)

    def create(self, session: int, timeout_ms: int, now_ms: int) -> None:
        """It begins, or its client is back with another timeout."""
        self.tracker.create(session, timeout_ms, now_ms)

    def touch(self, session: int, now_ms: int) -> bool:
        """Its client was heard of; False if it is none of these."""
        return self.tracker.touch(session, now_ms)

    def close(self, session: int) -> None:
        """It is over."""
        self.tracker.close(session)
        self._upgrading.pop(session, None)

    def expired(self, now_ms: int) -> list[int]:
        """Those whose time is over; they are forgotten."""
        expired = self.tracker.expire(now_ms)
        for session in expired:
            self.tracker.close(session)
        return expired

    # ---- upgrading

    def judge(self, session: int, op: int, body: bytes) -> Verdict:
        """May this request (what follows its RequestHeader) of the session go on?"""
        if session not in self.tracker or not makes_ephemeral(op, body):
            return Verdict.PASS
        return Verdict.UPGRADE if self.may_upgrade else Verdict.REFUSE

    def upgrade(self, session: int) -> int:
        """It is local no more; its timeout in ms, for the createSession. KeyError if it was not."""
        timeout_ms = self.tracker.timeout_of(session)
        self.tracker.close(session)
        self._upgrading[session] = timeout_ms
        return timeout_ms

    def is_upgrading(self, session: int) -> bool:
        """Whether its createSession is on the way: it is in no tree yet, and exists."""
        return session in self._upgrading

    def committed(self, session: int) -> None:
        """A createSession was committed: the session is the ensemble's, wherever it came from."""
        self.close(session)


def makes_ephemeral(op: int, body: bytes) -> bool:
    """Does the request create an ephemeral? What cannot be read does not: that is said later."""
    try:
        if op == Op.MULTI:
            return any(makes_ephemeral(part, request) for part, request in multi.split(body))
        return op in _CREATES and CreateRequest.from_bytes(body).flags in _EPHEMERAL
    except Malformed:
        return False
