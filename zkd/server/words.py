"""Four-letter words over all processes: asking them, waiting a limited time, answering.

The front-end that is asked sends a QUERY to every other process and renders what has come back when
all have answered or the time is up (see fourletter.py for the texts).
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from zkd.bus.messages import QUERY
from zkd.bus.sockets import Outbox
from zkd.server import fourletter, replies
from zkd.server.fourletter import Gathered

if TYPE_CHECKING:
    from zkd.server.connection import Connection
    from zkd.server.frontend import FrontEnd

WAIT_S = 1.0
"""A process that has not answered by then gets a line that says so."""
LINES_MAX = 100_000

_idents = itertools.count(1)


class Gathering:
    """The answers of all processes to one question, and what to do when they are there."""

    def __init__(
        self, fe: FrontEnd, what: dict[str, Any], then: Callable[[Gathered], None]
    ) -> None:
        self.fe = fe
        self.then = then
        self.ident = next(_idents)
        self.answers: dict[str, Any] = {fe.child.name: statistics(fe, what)}
        self.wanted = [name for name in fe.child.lives if name not in ("admin", fe.child.name)]
        fe.gathering[self.ident] = self
        for name in self.wanted:
            out = Outbox(fe.context, fe.child.runtime_dir, name, fe.child.lives[name])
            out.send((QUERY, self.ident, what, (fe.child.name, fe.child.life)))
            out.close(linger_ms=500)
        self.timer = fe.loop.call_later(WAIT_S, self.finish)
        self._perhaps_finish()

    def answer(self, name: str, payload: dict[str, Any]) -> None:
        """One process has answered."""
        self.answers[name] = payload
        self._perhaps_finish()

    def _perhaps_finish(self) -> None:
        if all(name in self.answers for name in self.wanted):
            self.finish()

    def finish(self) -> None:
        """Hand over what is there."""
        if self.fe.gathering.pop(self.ident, None) is None:
            return
        self.timer.cancel()
        count = self.fe.config.frontends
        frontends = [self.answers.get(f"frontend {i + 1}") for i in range(count)]
        self.then(
            Gathered(
                frontends,
                self.answers.get("peer"),
                self.answers.get("storage"),
                [
                    name
                    for name in (*(f"frontend {i + 1}" for i in range(count)), "peer", "storage")
                    if name not in self.answers
                ],
            )
        )


def answer(fe: FrontEnd, conn: Connection, word: str, rest: bytes) -> None:
    """Answer one four-letter word on its connection, then close it."""
    if not fourletter.allowed(word, fe.config, conn.address[0]):
        _send(conn, fourletter.refusal(word))
        return
    if word in fourletter.WITHOUT_GATHERING:
        _send(conn, fourletter.render(word, Gathered([], None, None, []), fe.config))
        return
    what: dict[str, Any] = {"parts": sorted(fourletter.parts(word))}
    mask = fe.metrics.trace_mask
    if word == "crst":
        what["reset"] = "connections"
    elif word == "srst":
        what["reset"] = "server"
    elif word == "stmk":
        if len(rest) < 8:
            conn.close("stmk without a mask")
            return
        mask = int.from_bytes(rest[:8], "big", signed=True)
        what["trace_mask"] = mask

    def then(gathered: Gathered) -> None:
        try:
            text = fourletter.render(
                word, gathered, fe.config, trace_mask=mask, lines_max=LINES_MAX
            )
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as e:
            fe.log.exception("word.failed", e, word=word)
            text = f"{word} failed: see the server's log\n".encode()
        _send(conn, text)

    Gathering(fe, what, then)


def _send(conn: Connection, text: bytes) -> None:
    if not conn.transport.is_closing():
        conn.transport.write(text)
        conn.close("four-letter word answered")


def statistics(fe: FrontEnd, what: dict[str, Any]) -> dict[str, Any]:
    """What a front-end answers to a QUERY (fourletter.FrontEnd), and what it is told to reset."""
    wanted = what.get("parts", ())
    reset = what.get("reset")
    if reset == "connections":
        for conn in fe.connections.values():
            conn.reset_statistics()
    elif reset == "server":
        fe.metrics.reset()
    if "trace_mask" in what:
        fe.metrics.trace_mask = what["trace_mask"]
    shed = fe.shed(what["shed"]) if "shed" in what else 0
    watch_counts = fe.served.watches.summary()
    count, total, least, greatest = fe.metrics.latency()
    answer: dict[str, Any] = {
        "name": fe.child.name,
        "pid": os.getpid(),
        "packets_received": fe.metrics.packets_received,
        "packets_sent": fe.metrics.packets_sent,
        "connection_count": len(fe.connections),
        "outstanding": fe.in_flight,
        "latency_count": count,
        "latency_total": total,
        "latency_min": least,
        "latency_max": greatest,
        "watch_connections": watch_counts[0],
        "watch_paths": watch_counts[1],
        "watch_count": watch_counts[2],
        "trace_mask": fe.metrics.trace_mask,
        "applied": fe.served.applied,
        "incarnation": fe.stream.incarnation,
        "serving": fe.serving,
    }
    if "shed" in what:
        answer["shed"] = shed
    if "connections" in wanted:
        answer["connections"] = [_connection(c) for c in fe.connections.values()]
    if "watches" in wanted:
        answer["watches_by_session"] = {
            conn.session: sorted(paths) for conn, paths in fe.served.watches.by_connection().items()
        }
    if "metrics" in wanted:
        answer["metrics"] = fe.metrics.dump()
    return answer


def _connection(conn: Connection) -> dict[str, Any]:
    now_mono, now = time.monotonic(), time.time()
    return {
        "address": conn.address[0],
        "port": conn.address[1],
        "interest": 1 if conn.transport.is_reading() else 0,
        "queued": len(conn.pending),
        "recved": conn.received,
        "sent": conn.sent,
        "sid": conn.session,
        "lop": replies.OP_LABELS.get(conn.last_op, "NA"),
        "established_ms": int(conn.established * 1000),
        "timeout_ms": conn.timeout_ms,
        "lcxid": conn.last_xid,
        "lzxid": conn.last_zxid,
        "lresp_ms": int((now - (now_mono - conn.heard)) * 1000),
        "llat": round(conn.last_latency),
        "minlat": round(max(conn.latency_min, 0)),
        "avglat": round(conn.latency_sum / max(conn.timed, 1)),
        "maxlat": round(conn.latency_max),
        "expires_ms": int((now - (now_mono - conn.heard)) * 1000) + (conn.timeout_ms or 10000),
    }
