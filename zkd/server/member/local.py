"""Clients whose sessions this member keeps for itself (`localSessionsEnabled`, read-only mode).

What concerns only them is answered here, in front of the role that serves; a request that must
wait for its turn among the client's others goes on as an item of its own: the upgrade of the
session, its end, a refusal. See `zkd/zab/local_sessions.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from zkd.bus.messages import CLOSE_CONN, NEW_SESSION, REATTACH
from zkd.jute.protocol import Op
from zkd.server.peer import monotonic
from zkd.server.peer_sessions import Conn, FrontEndLink
from zkd.zab.local_sessions import Verdict

if TYPE_CHECKING:
    from zkd.server.member.served import Served

UPGRADE: Final = -40
"""payload = timeout in ms: createSession of the connection's session, before what follows."""
END: Final = -41
"""payload = None: closeSession of a local session."""
REFUSE: Final = -42
"""payload = None: EPHEMERALONLOCALSESSION."""
OWN: Final = frozenset({UPGRADE, END, REFUSE})


class LocalClients:
    """See the module's text."""

    def __init__(self, member: Served) -> None:
        self.member = member

    def filter(self, link: FrontEndLink, items: list[Any]) -> list[Any]:
        """What is left for the role to do."""
        sessions = self.member.sessions
        local, owners, conns = sessions.local, sessions.owners, link.conns
        left = []
        for item in items:
            number, xid, op, payload = item
            if op == NEW_SESSION:
                self._new(link, number, *payload)
                continue
            if op == REATTACH and payload[0] in local:
                self.reattach(link, number, *payload)
                continue
            conn = conns.get(number)
            session = conn.session if conn is not None else 0
            if session not in local or owners.get(session) is not conn:
                left.append(item)
            elif op == Op.CLOSE_SESSION:
                left.append((number, xid, END, None))
            else:
                verdict = local.judge(session, op, payload) if op > 0 else Verdict.PASS
                if verdict is Verdict.UPGRADE:
                    left.append((number, 0, UPGRADE, local.upgrade(session)))
                if verdict is Verdict.REFUSE:
                    left.append((number, xid, REFUSE, None))
                else:
                    left.append(item)
        return left

    def _new(self, link: FrontEndLink, number: int, timeout_ms: int, identities: Any) -> None:
        member, sessions = self.member, self.member.sessions
        session, timeout_ms, password = sessions.new(timeout_ms)
        conn = Conn(link, number, session, tuple(map(tuple, identities)))
        link.conns[number] = conn
        self._own(conn, session, timeout_ms)
        member.attach(link, conn, (session, timeout_ms, password))

    def _own(self, conn: Conn, session: int, timeout_ms: int) -> None:
        sessions = self.member.sessions
        sessions.owners[session] = conn
        sessions.local.create(session, timeout_ms, int(monotonic() * 1000))

    def reattach(
        self,
        link: FrontEndLink,
        number: int,
        session: int,
        password: bytes,
        timeout_ms: int,
        identities: Any,
    ) -> None:
        """The session's client is back on this server."""
        member, sessions = self.member, self.member.sessions
        conn = Conn(link, number, session, tuple(map(tuple, identities)))
        link.conns[number] = conn
        old = sessions.owners.get(session)
        if isinstance(old, Conn):
            old.link.outbox.send((CLOSE_CONN, old.number, "client_reconnect"))
            sessions.owners[session] = None
        if not sessions.password_fits(session, password):
            conn.session = 0
            member.attach(link, conn, None)
            return
        timeout_ms = sessions.clamp(timeout_ms)
        self._own(conn, session, timeout_ms)
        answer = (session, timeout_ms, sessions.password(session))
        if isinstance(old, Conn) and old.link is not link:
            sessions.wait(old, link, conn, answer, monotonic())
        else:
            member.attach(link, conn, answer)

    def expire(self, now_s: float) -> None:
        """End those that have been silent for too long."""
        sessions = self.member.sessions
        for session in sessions.local.expired(int(now_s * 1000)):
            conn = sessions.owners.pop(session, None)
            self.member.log.info("session.expired", session=hex(session & (1 << 64) - 1))
            if isinstance(conn, Conn):
                conn.link.outbox.send((CLOSE_CONN, conn.number, "session expired"))
