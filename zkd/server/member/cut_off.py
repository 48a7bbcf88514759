"""A member that finds no leader and serves reads (`readonlymode.enabled`).

To clients that ask for it alone; what would change something is refused by the front-end. A new
client gets a session of this server's own. One that has a session already keeps it here by its
password: nobody can be asked about it.
Source: `ReadOnlyZooKeeperServer.java`, `ReadOnlyRequestProcessor.java` of Apache ZooKeeper.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zkd.bus.messages import DENIED, GONE, IDENTITIES, NEW_SESSION, REATTACH, SESSION_CLOSED
from zkd.jute.protocol import Err, Op
from zkd.server.peer_sessions import FrontEndLink

if TYPE_CHECKING:
    from zkd.server.member.served import Served
    from zkd.tree.apply import Applied


class CutOff:
    """See the module's text."""

    def __init__(self, member: Served) -> None:
        self.member = member

    def begin(self) -> None:
        self.member.sessions.rest()

    def go_on(self) -> None:
        """Nothing waits here."""

    def answered_by(self, applied: Applied) -> tuple[int, int, int, Any]:
        """Nobody waits for a transaction."""
        return 0, 0, 0, applied.results

    def handle(self, link: FrontEndLink, items: list[Any]) -> None:
        """Connections come and go; there are no writes."""
        member, seen = self.member, self.member.announced
        clients = member.local_clients
        for number, xid, op, payload in items:
            if op == NEW_SESSION:
                clients.filter(link, [(number, xid, op, payload)])
            elif op == REATTACH:
                clients.reattach(link, number, *payload)
            elif op in (GONE, IDENTITIES):
                member.connection_item(link, number, xid, op, payload)
            elif op == Op.CLOSE_SESSION:
                conn = link.conns.get(number)
                if conn is not None:
                    member.sessions.local.close(conn.session)
                    member.sessions.owners.pop(conn.session, None)
                link.answers.append((number, xid, seen, SESSION_CLOSED, None))
            else:
                link.answers.append((number, xid, seen, DENIED, Err.NOT_READONLY))
