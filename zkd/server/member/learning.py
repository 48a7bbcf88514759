"""A member that follows or observes and serves: its clients' requests go to the leader.

    forwarded: by session, in order; what comes back is recognised by (session, cxid) alone

A request of which no transaction comes although a later one's has come was not readable for the
leader: Apache ZooKeeper says nothing then, so it is answered here.
Source: `FollowerRequestProcessor.java`, `CommitProcessor.java`, `Learner.java`.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from zkd.bus.messages import (
    CLIENT_SESSION,
    CLOSE_CONN,
    GONE,
    IDENTITIES,
    MOVED,
    NEW_SESSION,
    REATTACH,
    SYNCED,
    UNREADABLE,
)
from zkd.jute import quorum
from zkd.jute.protocol import Op
from zkd.server.peer import monotonic
from zkd.server.peer_sessions import Conn, FrontEndLink
from zkd.tree import effects as fx
from zkd.zab.inputs import Forward, Revalidate, Sync
from zkd.zab.outputs import Revalidated, Synced, Touched

if TYPE_CHECKING:
    from zkd.server.member.process import Member
    from zkd.tree.apply import Applied

Request = tuple[bytes, tuple[tuple[str, str], ...] | None]
_Waiting = tuple[int, int, int, Any]
"""cxid, life of the front-end, connection, what the transaction's results are told to be."""
NOBODY = (0, 0, 0)


class Learning:
    """See the module's text."""

    def __init__(self, member: Member) -> None:
        self.member = member
        self._forwarded: dict[int, deque[_Waiting]] = {}
        self._requests: list[Request] = []
        self._unread: deque[tuple[int, int, int, int]] = deque()
        """zxid of what was asked behind it, life of the front-end, connection, xid."""
        self._syncs: dict[int, tuple[FrontEndLink, int, int]] = {}
        """By tag: front-end, connection, xid."""
        self._next_tag = 0
        self._revalidating: dict[int, deque[tuple[FrontEndLink, Conn, int, Conn | None]]] = {}

    def begin(self) -> None:
        """The state is loaded."""
        self.member.sessions.rest()

    def go_on(self) -> None:
        """Nothing waits here."""

    # -- requests ------------------------------------------------------------------------------

    def handle(self, link: FrontEndLink, items: list[Any]) -> None:
        """Requests of one front-end, in its order."""
        conns, owners = link.conns, self.member.sessions.owners
        forwarded, life, pack = self._forwarded, link.life, quorum.request
        for number, xid, op, payload in items:
            if op < 0 and op != Op.CLOSE_SESSION:
                self._connection_item(link, number, xid, op, payload)
                continue
            conn = conns.get(number)
            if conn is None:
                continue
            session = conn.session
            if owners.get(session) is not conn:
                self._moved(link, number, xid)
            elif op == Op.SYNC:
                self._sync(link, conn, xid, payload)
            else:
                self._requests.append((pack(session, xid, op, payload), conn.identities))
                line = forwarded.get(session)
                if line is None:
                    line = forwarded[session] = deque()
                line.append((xid, life, number, None))
        self._send()

    def _send(self) -> None:
        if self._requests:
            requests, self._requests = self._requests, []
            self.member.feed(Forward(requests))

    def _moved(self, link: FrontEndLink, number: int, xid: int) -> None:
        seen = self.member.announced
        link.answers.append((number, xid, seen, MOVED, "session moved or expired"))

    def _sync(self, link: FrontEndLink, conn: Conn, xid: int, payload: bytes) -> None:
        self._send()
        self._next_tag += 1
        self._syncs[self._next_tag] = (link, conn.number, xid)
        data = quorum.request(conn.session, xid, Op.SYNC, payload)
        self.member.feed(Sync(self._next_tag, data, conn.identities))

    def synced(self, output: Synced) -> None:
        link, number, xid = self._syncs.pop(output.tag)
        link.answers.append((number, xid, output.zxid, SYNCED, None))

    def _ask(
        self, link: FrontEndLink, number: int, session: int, cxid: int, timeout: bytes, results: Any
    ) -> None:
        """createSession."""
        self._requests.append((quorum.request(session, cxid, Op.CREATE_SESSION, timeout), None))
        line = self._forwarded.setdefault(session, deque())
        line.append((cxid, link.life, number, results))

    # -- connections ---------------------------------------------------------------------------

    def _connection_item(
        self, link: FrontEndLink, number: int, xid: int, op: int, payload: Any
    ) -> None:
        sessions = self.member.sessions
        if op == NEW_SESSION:
            timeout_ms, identities = payload
            session, timeout_ms, password = sessions.new(timeout_ms)
            conn = Conn(link, number, session, tuple(map(tuple, identities)))
            link.conns[number] = conn
            sessions.own(session, timeout_ms, conn)
            told = (session, timeout_ms, password)
            self._ask(link, number, session, 0, timeout_ms.to_bytes(4, "big"), told)
        elif op == REATTACH:
            self._reattach(link, number, *payload)
        elif op == CLIENT_SESSION:
            asking = link.conns.get(number)
            if asking is None or sessions.owners.get(asking.session) is not asking:
                self._moved(link, number, xid)
            elif len(payload) < 4:
                seen = self.member.announced
                link.answers.append((number, xid, seen, UNREADABLE, None))
            else:
                self._ask(link, number, asking.session, xid, payload[:4], None)
        elif op in (IDENTITIES, GONE):
            self.member.connection_item(link, number, xid, op, payload)

    def _reattach(
        self,
        link: FrontEndLink,
        number: int,
        session: int,
        password: bytes,
        timeout_ms: int,
        identities: Any,
    ) -> None:
        """The old connection is closed first, even if the password is wrong (gotchas, 1)."""
        member, sessions = self.member, self.member.sessions
        conn = Conn(link, number, session, tuple(map(tuple, identities)))
        link.conns[number] = conn
        old = sessions.owners.get(session)
        if isinstance(old, Conn):
            old.link.outbox.send((CLOSE_CONN, old.number, "client_reconnect"))
            sessions.gone(old)
        if not sessions.password_fits(session, password):
            conn.session = 0
            member.attach(link, conn, None)
            return
        timeout_ms = sessions.clamp(timeout_ms)
        waiting = (link, conn, timeout_ms, old if isinstance(old, Conn) else None)
        self._revalidating.setdefault(session, deque()).append(waiting)
        member.feed(Revalidate(session, timeout_ms))

    def revalidated(self, output: Revalidated) -> None:
        """The leader's answer to the oldest question about the session."""
        member, session = self.member, output.session
        line = self._revalidating.get(session)
        if not line:
            return
        link, conn, timeout_ms, old = line.popleft()
        if not line:
            del self._revalidating[session]
        if link.conns.get(conn.number) is not conn:
            return
        if not output.valid:
            conn.session = 0
            member.attach(link, conn, None)
            return
        member.sessions.own(session, timeout_ms, conn)
        answer = (session, timeout_ms, member.sessions.password(session))
        if old is not None and old.link is not link and old.number in old.link.conns:
            member.sessions.wait(old, link, conn, answer, monotonic())
        else:
            member.attach(link, conn, answer)

    # -- what the leader has ordered -----------------------------------------------------------

    def answered_by(self, applied: Applied) -> tuple[int, int, int, Any]:
        """Who waits for this transaction: life, connection, xid; and the results it is told."""
        session, results = applied.session, applied.results
        line = self._forwarded.get(session)
        found: tuple[int, int, int] = NOBODY
        if line:
            found, told = self._take(line, session, applied.cxid, applied.zxid)
            results = told or results
        for effect in applied.effects:
            if effect[0] == fx.CLOSED:
                self.member.sessions.ended(effect[1])
        return (*found, results)

    def _take(
        self, line: deque[_Waiting], session: int, cxid: int, zxid: int
    ) -> tuple[tuple[int, int, int], Any]:
        if line[0][0] != cxid and all(waiting[0] != cxid for waiting in line):
            return NOBODY, None  # of another server, before the session came here
        while True:
            asked, life, number, told = line.popleft()
            if asked == cxid:
                break
            self._unread.append((zxid, life, number, asked))
        if not line:
            del self._forwarded[session]
        return (life, number, cxid), told

    def before_commit(self, upto: int) -> None:
        """What could not be read is answered where it stood: before what was asked behind it."""
        while self._unread and self._unread[0][0] <= upto:
            zxid, life, number, xid = self._unread.popleft()
            link = self.member.frontends.get(life)
            if link is not None:
                link.answers.append((number, xid, zxid - 1, UNREADABLE, None))

    def touched(self, output: Touched) -> None:
        """By observers of this follower."""
        self.member.sessions.table.update(output.sessions)
