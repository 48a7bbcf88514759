"""The request throttle: requests that wait at a front-end while too many are in flight.

    request_throttle_max_requests    so many of the whole server's are at the peer; 0: no throttle
    request_throttle_stall_time      how long nothing is answered before it is looked at again
    request_throttle_drop_stale      whether a waiting request for which nobody waits is dropped

What waits stands in one line in the order in which it came, with everything else that goes to the
peer behind it (a changed identity, the end of a connection), so nothing is overtaken. A stale
request costs its connection: what it still sends must not be done without it. Reading from clients
stops by globalOutstandingLimit, which counts what waits here too.
Source: server/RequestThrottler.java; the judgement is `limits.RequestThrottle`.
"""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Any

from zkd.bus.messages import CLIENT_SESSION, NEW_SESSION
from zkd.jute.protocol import Op
from zkd.server import connection
from zkd.server.limits import RequestThrottle, Verdict

if TYPE_CHECKING:
    from zkd.config import Config
    from zkd.server.connection import Connection
    from zkd.server.frontend import FrontEnd

COUNTED = (NEW_SESSION, CLIENT_SESSION, Op.CLOSE_SESSION)
"""Requests below 0; the other codes below 0 are word of a connection."""
Item = tuple["Connection", int, int, Any, float]
"""connection, xid, opcode, payload, when it came"""


class Throttle:
    """The line of one front-end, which divides the server's limit with the others."""

    def __init__(self, fe: FrontEnd) -> None:
        self.fe = fe
        self.rule = RequestThrottle(fe.config)
        self.line: deque[Item] = deque()
        self.limit = 0
        """0: no throttle; nothing is ever in line."""
        self._timer = False
        self.configure(fe.config)

    def configure(self, config: Config) -> None:
        """Take (new) settings."""
        self.rule.configure(config)
        total = self.rule.max_requests
        self.limit = max(total // config.frontends, 1) if total > 0 else 0
        self.rule.max_requests = self.limit
        if not self.limit:
            self.release()

    def holds(self, conn: Connection, xid: int, op: int, payload: Any) -> bool:
        """Take a request into the line, if it must wait."""
        if not self.line and (self.fe.in_flight < self.limit or not _counts(op)):
            return False
        self.line.append((conn, xid, op, payload, time.monotonic()))
        if _counts(op):
            self.fe.metrics.throttle_waits.value += 1
        if not self._timer:
            self._timer = True
            self._later()
        return True

    def _later(self) -> None:
        self.fe.loop.call_later(self.rule.stall_time / 1000, self._again)

    def _again(self) -> None:
        self.release()
        if self.line:
            self._later()
        else:
            self._timer = False

    def release(self) -> None:
        """Send on what need not wait any longer, drop what is stale."""
        line, fe = self.line, self.fe
        now = time.monotonic()
        while line:
            conn, xid, op, payload, came = line[0]
            if not _counts(op):
                line.popleft()
                fe.pass_on(conn, xid, op, payload)
                continue
            age_ms = int((now - came) * 1000)
            stale = self.rule.stale(
                closed=conn.state == connection.CLOSED,
                closes_session=op == Op.CLOSE_SESSION,
                age_ms=age_ms,
                session_timeout_ms=conn.timeout_ms,
            )
            # Whether it has waited too long for an answer but THROTTLEDOP is the peer's to say.
            verdict = self.rule.verdict(fe.in_flight, 0, stale=stale, throttlable=False)
            if verdict == Verdict.STALL:
                return
            line.popleft()
            fe.metrics.throttled(age_ms, stale=stale)
            if verdict == Verdict.DROP:
                self._drop(conn, op)
            else:
                fe.in_flight += 1
                fe.pass_on(conn, xid, op, payload, came)

    def _drop(self, conn: Connection, op: int) -> None:
        """Nobody waits for its answer: that is the end of the connection."""
        self.fe.metrics.stale_dropped.value += 1
        kept = [item for item in self.line if item[0] is not conn or not _counts(item[2])]
        self.fe.metrics.stale_dropped.value += len(self.line) - len(kept)
        self.line.clear()
        self.line.extend(kept)
        if conn.state != connection.CLOSED:
            conn.refuse("request.stale", opcode=op)

    def clear(self) -> None:
        """Nothing of this will be answered."""
        self.line.clear()


def _counts(op: int) -> bool:
    """Is it a request, and not only word of a connection?"""
    return op >= 0 or op in COUNTED
