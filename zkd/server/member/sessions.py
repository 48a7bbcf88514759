"""Sessions of a member: all of them while it leads, those of its own clients while it learns.

A leader tracks every session of the ensemble; an owner is a connection here, or a learner. A
learner tracks nothing: it tells the leader, with its answer to each PING, whom it has heard of.
Source: `LeaderSessionTracker.java`, `LearnerSessionTracker.java`, `LearnerHandler.java` of Apache
ZooKeeper; spec zab-quorum-protocol section 9.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from zkd.jute.protocol import Err
from zkd.server import secrets
from zkd.server.peer_sessions import Conn, FrontEndLink, LearnerOwner, Sessions
from zkd.zab.sessions import password_of

if TYPE_CHECKING:
    from zkd.config import Config


class MemberSessions(Sessions):
    """See the module's text."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.rest()

    def __len__(self) -> int:
        return len(self.owners) if self.leading else len(self.timeouts)

    def lead(self, sessions: dict[int, int], now_s: float) -> None:
        """All sessions of the ensemble, each with its full time; nobody has one yet."""
        self.rest()
        self.leading = True
        self.restart(sessions, now_s)

    def rest(self) -> None:
        """Of no role, or beginning one: nobody is served."""
        self.leading = False
        self.owners = {}
        self.timeouts: dict[int, int] = {}
        """Of a learner's own clients."""
        self.table: dict[int, int] = {}
        """Heard of since the last PING: session -> timeout."""
        self._waiting.clear()

    # -- the leader's, for learners ------------------------------------------------------------

    def check(self, session: int, learner: int) -> int:
        """0 if the session's requests may come from this learner, else an error code."""
        if session not in self.owners:
            return Err.SESSION_EXPIRED
        owner = self.owners[session]
        mine = LearnerOwner(learner)
        if owner is None:
            self.owners[session] = mine
        elif owner != mine:
            return Err.SESSION_MOVED
        return 0

    def create_at(self, session: int, timeout_ms: int, learner: int, now_s: float) -> None:
        """A learner's client has a new session."""
        self.owners[session] = LearnerOwner(learner)
        self.tracker.create(session, timeout_ms, int(now_s * 1000))

    def revalidate(
        self, session: int, timeout_ms: int, learner: int, now_s: float
    ) -> tuple[bool, Conn | None]:
        """A session's client has come to this learner: is it valid; what connection it had here."""
        if session not in self.owners:
            return False, None
        old = self.owners[session]
        self.owners[session] = LearnerOwner(learner)
        self.tracker.touch(session, int(now_s * 1000), timeout_ms)
        return True, old if isinstance(old, Conn) else None

    def heard_by_learner(self, sessions: Sequence[tuple[int, int]], now_s: float) -> None:
        """A learner's touch table."""
        now_ms = int(now_s * 1000)
        touch = self.tracker.touch
        for session, timeout_ms in sessions:
            touch(session, now_ms, timeout_ms)

    # -- a learner's ---------------------------------------------------------------------------

    def touched(self, link: FrontEndLink, sent_ms: int, touches: list[tuple[int, int]]) -> None:
        if self.leading:
            super().touched(link, sent_ms, touches)
            return
        link.heard_ms = sent_ms
        timeouts, table = self.timeouts, self.table
        for session, _ in touches:
            if session in timeouts:
                table[session] = timeouts[session]

    def own(self, session: int, timeout_ms: int, conn: Conn) -> None:
        """A client here has the session."""
        self.owners[session] = conn
        self.timeouts[session] = self.table[session] = timeout_ms

    def gone(self, conn: Conn) -> None:
        super().gone(conn)
        if not self.leading and self.owners.get(conn.session, conn) is None:
            self._forget(conn.session)

    def frontend_died(self, link: FrontEndLink, now_s: float) -> None:
        if self.leading:
            super().frontend_died(link, now_s)
            return
        for conn in link.conns.values():
            self.gone(conn)

    def ended(self, session: int) -> None:
        """A learner's: its closeSession is in the log."""
        self._forget(session)

    def _forget(self, session: int) -> None:
        self.owners.pop(session, None)
        self.timeouts.pop(session, None)

    def password(self, session: int) -> bytes:
        return password_of(session, self.key)

    def password_fits(self, session: int, password: bytes) -> bool:
        return secrets.equal(self.password(session), password)

    def take_table(self) -> Mapping[int, int]:
        """Whom this learner has heard of since the last time."""
        table, self.table = self.table, {}
        return table
