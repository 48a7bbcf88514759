"""Audit in a front-end: each finished write of its clients becomes events for the audit sinks.

Without `audit.enable` there is no `Auditing`, and pending writes do not keep their bodies. With it
the events are made on the loop, in the order in which the transactions are applied, and handed to
the sinks' queues; nothing here waits for a sink.

Each write is told once: by the front-end that has sent it, also if its client has gone meanwhile.
Of a session that a client closes, the ephemerals are told by that client's front-end, of one that
the server ends (or whose front-end is gone) by the first. What was in flight when the peer died and
is read from the log afterwards is not told.
(`AuditHelper.java`, `DataTree.deleteNodes`, `ZKAuditProvider.addZKStartStopAuditLog`)
"""

from __future__ import annotations

import os
import pwd
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from zkd.admin.audit import AuditDispatcher
from zkd.admin.audit_events import OPERATIONS, Who, request_events, session_end_events
from zkd.plugins.api import AuditEvent, AuditResult

if TYPE_CHECKING:
    from zkd.plugins.api import Identity
    from zkd.plugins.loader import PluginSet
    from zkd.server.connection import Connection
    from zkd.server.frontend import FrontEnd

STOP_LIMIT_S: Final = 0.5
LEFT_BYTES_MAX: Final = 16 << 20
"""Of requests whose clients have gone before the answer."""
REQUEST_COST: Final = 200
USERS_MAX: Final = 1000

Left = tuple[Who, deque[tuple[int, int, bytes]]]
"""A client that has gone, and (xid, op, body) of what it still had at the peer."""


def begin(fe: FrontEnd, plugins: PluginSet) -> Auditing | None:
    """Audit, if the configuration asks for it and a sink is there."""
    if not fe.config.audit_enable:
        return None
    if not plugins.sinks:
        fe.log.error(
            "audit.off",
            reason="audit.enable=true, but no audit plugin can be used",
            refused=[f"{one.source}: {one.reason}" for one in plugins.refused],
        )
        return None
    return Auditing(fe, plugins)


class Auditing:
    """See the module's text. For the front-end's loop."""

    def __init__(self, fe: FrontEnd, plugins: PluginSet) -> None:
        self._fe = fe
        dropped = fe.metrics.registry.counter_set("zkd_audit_dropped_total")
        self._dispatcher = AuditDispatcher(
            plugins.sinks, faults=plugins.faults, on_drop=dropped.add
        )
        self._emit = self._dispatcher.emit
        self._server_user = _user_name()
        self._users: dict[tuple[Identity, ...], str | None] = {}
        self._left: dict[int, Left] = {}
        """By connection number, the oldest first."""
        self._left_bytes = 0

    # -- writes --------------------------------------------------------------------------------

    def completed(self, conn: Connection, op: int, body: bytes, txn: tuple[Any, ...]) -> None:
        """The transaction of a client's write has been applied; `body`: without RequestHeader."""
        if op in OPERATIONS:
            self._tell(self._who(conn), op, body, txn)

    def gone(self, conn: Connection) -> None:
        """A connection has ended: what it still has at the peer may yet be done."""
        waiting = deque(
            (entry[1], entry[2], entry[4])
            for entry in conn.pending
            if len(entry) > 5 and entry[2] in OPERATIONS
        )
        if waiting:
            self._left[conn.number] = (self._who(conn), waiting)
            self._left_bytes += sum(REQUEST_COST + len(body) for _, _, body in waiting)
            while self._left_bytes > LEFT_BYTES_MAX:
                self._forget(next(iter(self._left)))

    def completed_later(self, txn: tuple[Any, ...]) -> None:
        """The transaction of a client that has gone has been applied."""
        who, waiting = self._left.get(txn[2], (None, None))
        if who is None or waiting is None:
            return
        while waiting:
            xid, op, body = waiting.popleft()
            self._left_bytes -= REQUEST_COST + len(body)
            if xid == txn[3]:
                self._tell(who, op, body, txn)
                break
        if not waiting:
            self._forget(txn[2])

    def _forget(self, number: int) -> None:
        _, waiting = self._left.pop(number)
        self._left_bytes -= sum(REQUEST_COST + len(body) for _, _, body in waiting)

    def _tell(self, who: Who, op: int, body: bytes, txn: tuple[Any, ...]) -> None:
        for event in request_events(
            op,
            body,
            who,
            err=txn[4],
            effects=txn[6],
            results=txn[7],
            time_ms=_now_ms(),
            zxid=txn[0],
            redact=self._fe.registry.redact,
        ):
            self._emit(event)

    def _who(self, conn: Connection) -> Who:
        identities = conn.identities
        users = self._users
        if identities not in users:
            if len(users) >= USERS_MAX:
                users.clear()
            users[identities] = self._fe.registry.users(identities)
        return Who(users[identities], conn.session, conn.address[0])

    # -- sessions and the server ---------------------------------------------------------------

    def session_ended(self, session: int, txn: tuple[Any, ...]) -> None:
        """A closeSession has been applied, whoever asked for it."""
        child = self._fe.child
        teller = txn[1]
        if teller not in child.lives.values():
            teller = child.lives.get("frontend 1", child.life)
        if teller != child.life:
            return
        for event in session_end_events(
            session, txn[6], user=self._server_user, time_ms=_now_ms(), zxid=txn[0]
        ):
            self._emit(event)

    def started(self) -> None:
        """Clients are let in: the server has started, if all lives are the first ones."""
        child = self._fe.child
        if child.index == 0 and child.life == min(child.lives.values()):
            self._server_event("serverStart", "success")

    def stop(self) -> None:
        """The server stops: tell it, write out what is queued."""
        child = self._fe.child
        if child.index == 0 and child.stopping:
            self._server_event("serverStop", "invoked")
        self._dispatcher.stop(STOP_LIMIT_S)

    def _server_event(self, operation: str, result: AuditResult) -> None:
        self._emit(AuditEvent(operation, result, _now_ms(), self._server_user))


def _now_ms() -> int:
    return int(time.time() * 1000)


def _user_name() -> str:
    """Who runs the server."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())
