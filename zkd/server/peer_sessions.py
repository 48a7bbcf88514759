"""The peer's side of sessions: who owns each, who is still heard of, who is handed over.

Time given back: a session expires only by silence of its client, never by a stall of the server.
A turn of the peer's loop that came late postpones all expiry by as much; a front-end that has not
been heard of for a while (stopped, starved, restarting) has its sessions kept, with their full time
from the moment that it is heard of again or dies.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from zkd.bus.sockets import Direct
from zkd.server import secrets
from zkd.zab.sessions import (
    SessionTracker,
    clamp_timeout,
    first_session_id,
    next_session_id,
    password_of,
)

if TYPE_CHECKING:
    from zkd.config import Config
    from zkd.plugins.api import Identity

STANDALONE_ID = 1
"""What stands in the first byte of session ids where there is no myid."""
STALL_MS = 100
"""A turn of the loop that is later than this is a stall."""
HAND_OVER_LIMIT_S = 0.5
"""A re-attach waits so long for the old connection's front-end to say that it is closed."""


@dataclass
class FrontEndLink:
    """One life of a front-end, as the peer sees it."""

    name: str
    life: int
    outbox: Direct
    conns: dict[int, Conn] = field(default_factory=dict)
    answers: list[tuple[Any, ...]] = field(default_factory=list)
    living: list[Any] = field(default_factory=list)
    heard_ms: float = 0.0


class Conn:
    """A client's connection on some front-end."""

    __slots__ = ("identities", "link", "number", "session")

    def __init__(
        self, link: FrontEndLink, number: int, session: int, identities: tuple[Identity, ...]
    ) -> None:
        self.link = link
        self.number = number
        self.session = session
        self.identities = identities


@dataclass(frozen=True, slots=True)
class LearnerOwner:
    """Another server of the ensemble, whose client has the session."""

    conn: int
    """The number of its connection to this leader."""


Waiting = tuple[FrontEndLink, Conn, "tuple[int, int, bytes] | None"]


class Sessions:
    """All sessions of this server. Times are CLOCK_MONOTONIC, in seconds or in ms as named."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.tracker = SessionTracker(config.tick_time)
        self.owners: dict[int, Conn | LearnerOwner | None] = {}
        """Every session that is not closing; None while it has no connection."""
        self.key = secrets.session_key(config)
        self._next = 0
        self._touch_ms = max(50.0, min(250.0, config.tick_time / 8))
        self._waiting: list[tuple[float, Conn, Waiting]] = []
        self.given_back_ms = 0.0

    def __len__(self) -> int:
        return len(self.owners)

    def restart(self, sessions: dict[int, int], now_s: float) -> None:
        """Begin with the sessions of the tree; each has its full time (as after an election)."""
        owners = self.owners
        self.tracker = SessionTracker(self.config.tick_time)
        self.owners = {session: owners.get(session) for session in sessions}
        for session, timeout_ms in sessions.items():
            self.tracker.create(session, timeout_ms, int(now_s * 1000))

    # -- making, attaching, ending -------------------------------------------------------------

    def new(self, timeout_ms: int) -> tuple[int, int, bytes]:
        """Id, negotiated timeout and password of a new session."""
        if not self._next:
            server = self.config.my_id or STANDALONE_ID
            self._next = first_session_id(server, int(time.time() * 1000))
        while self._next in self.owners:
            self._next = next_session_id(self._next)
        session = self._next
        self._next = next_session_id(session)
        return session, self.clamp(timeout_ms), password_of(session, self.key)

    def clamp(self, timeout_ms: int) -> int:
        """The timeout that a client gets."""
        config = self.config
        least, most = config.min_session_timeout, config.max_session_timeout
        return int(clamp_timeout(timeout_ms, least, most))

    def create(self, session: int, timeout_ms: int, conn: Conn, now_s: float) -> None:
        """The session begins, owned by conn."""
        self.owners[session] = conn
        self.tracker.create(session, timeout_ms, int(now_s * 1000))

    def reattach(
        self, conn: Conn, session: int, password: bytes, timeout_ms: int, now_s: float
    ) -> tuple[int, int, bytes] | None:
        """conn wants the session: what it is told, or None if it does not get it."""
        old = self.owners.get(session)
        if old is not None:
            self.owners[session] = None
        expected = password_of(session, self.key)
        if session not in self.owners or not secrets.equal(expected, password):
            conn.session = 0
            return None
        timeout_ms = self.clamp(timeout_ms)
        self.owners[session] = conn
        self.tracker.create(session, timeout_ms, int(now_s * 1000))
        return session, timeout_ms, expected

    def adopt(self, conn: Conn) -> bool:
        """A front-end says that conn has its session; False if that is over."""
        if conn.session not in self.owners:
            return False
        self.owners[conn.session] = conn
        return True

    def gone(self, conn: Conn) -> None:
        """The connection has ended; the session waits for its client."""
        if self.owners.get(conn.session) is conn:
            self.owners[conn.session] = None

    def close(self, session: int) -> None:
        """The session ends: its transaction is on the way."""
        self.owners.pop(session, None)
        self.tracker.close(session)

    # -- time ----------------------------------------------------------------------------------

    def stalled(self, late_s: float) -> None:
        """The peer's own loop was late by so much."""
        late_ms = late_s * 1000
        if late_ms > STALL_MS:
            self.given_back_ms += late_ms
            self.tracker.give_back(int(late_ms))

    def postpone(self, now_s: float) -> None:
        """Nothing may expire now (nothing could be written): everyone has the full time again."""
        now_ms = int(now_s * 1000)
        for session in self.owners:
            self.tracker.touch(session, now_ms)

    def touched(self, link: FrontEndLink, sent_ms: int, touches: list[tuple[int, int]]) -> None:
        """A front-end tells whom it has heard of."""
        silent_ms = sent_ms - link.heard_ms
        link.heard_ms = sent_ms
        tracker = self.tracker
        for session, heard_ms in touches:
            tracker.touch(session, heard_ms)
        if silent_ms > 2 * self._touch_ms + STALL_MS:
            for conn in link.conns.values():
                tracker.touch(conn.session, sent_ms)

    def expired(self, now_s: float, links: Iterable[FrontEndLink]) -> Iterator[int]:
        """Sessions whose time is over, as far as all front-ends have told whom they heard of."""
        now_ms = now_s * 1000
        limit_ms = now_ms
        stalled = set()
        for link in links:
            if now_ms - link.heard_ms > 2 * self._touch_ms + STALL_MS:
                stalled.add(link.life)
            else:
                limit_ms = min(limit_ms, link.heard_ms)
        for session in self.tracker.expire(int(limit_ms)):
            conn = self.owners.get(session)
            if isinstance(conn, Conn) and conn.link.life in stalled:
                self.tracker.create(session, self.tracker.timeout_of(session), int(now_ms))
                continue
            if session in self.owners:
                yield session

    def frontend_died(self, link: FrontEndLink, now_s: float) -> None:
        """Its sessions lose their connections, and get their full time to find another."""
        for conn in link.conns.values():
            if self.owners.get(conn.session) is conn:
                self.owners[conn.session] = None
                self.tracker.touch(conn.session, int(now_s * 1000))

    # -- handing over from one front-end to another --------------------------------------------

    def wait(self, old: Conn, link: FrontEndLink, conn: Conn, answer: Any, now_s: float) -> None:
        """Answer conn when old's front-end has said that old is closed, or has died, or is late."""
        self._waiting.append((now_s + HAND_OVER_LIMIT_S, old, (link, conn, answer)))

    def closed(self, life: int, number: int) -> list[Waiting]:
        """A connection has been closed: whom that lets in."""
        return self._take(lambda _, old: old.link.life == life and old.number == number)

    def waited_for(self, link: FrontEndLink) -> list[Waiting]:
        """A front-end has died: whom that lets in."""
        return self._take(lambda _, old: old.link is link)

    def overdue(self, now_s: float) -> list[Waiting]:
        """Waiting is over: the old connection can do nothing but read for the rest of its grant."""
        return self._take(lambda deadline, _: deadline <= now_s)

    def _take(self, wanted: Any) -> list[Waiting]:
        if not self._waiting:
            return []
        taken = [w for deadline, old, w in self._waiting if wanted(deadline, old)]
        self._waiting = [entry for entry in self._waiting if not wanted(entry[0], entry[1])]
        return taken

    # -- seen from outside ---------------------------------------------------------------------

    def dump(self, now_s: float, wall_s: float) -> list[dict[str, int]]:
        """For the word `dump` and the metrics (fourletter.Session)."""
        return [
            {
                "sid": session,
                "timeout_ms": timeout_ms,
                "expires_ms": int(expires_ms - now_s * 1000 + wall_s * 1000),
            }
            for session, timeout_ms, expires_ms in self.tracker.dump()
        ]
