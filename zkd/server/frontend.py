"""A front-end process: clients' connections, reads, watches, replies.

    tree on disk <= applied <= committed <= last zxid handed out

It serves under a grant of the peer; when that lapses it closes its clients' connections. It keeps
no logic of the tree: transactions come from the peer with their effects (stream.py), and are
applied (served.py) when storage (alone) or the peer (in an ensemble) has said that they are
committed. See the design's "The bus: lives, gaps, grants".
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import uvloop
import zmq

from zkd import failpoints
from zkd.bus.messages import (
    ANSWERS,
    ATTACHED,
    BEGIN,
    CLOSE_CONN,
    COMMITTED,
    CONN_CLOSED,
    COUNTS,
    DENIED,
    DURABLE,
    GRANT,
    HOLD,
    JOIN,
    MOVED,
    NEW_SESSION,
    NO_GRANT,
    QUERY,
    REFUSE,
    REFUSED,
    REJOIN,
    REPLY,
    REQUESTS,
    SESSION_CLOSED,
    SYNCED,
    THROTTLED,
    TOUCH,
    TXNS,
    UNREADABLE,
    decode,
)
from zkd.bus.sockets import Direct, Outbox
from zkd.jute.protocol import Err, Op
from zkd.plugins import loader
from zkd.plugins.api import Origin
from zkd.plugins.auth import AuthRegistry
from zkd.server import auditing, connection, logs, replies, words
from zkd.server.admission import Admission
from zkd.server.connection import Connection
from zkd.server.frontend_metrics import FrontEndMetrics
from zkd.server.limits import LargeRequestBudget
from zkd.server.process import SupervisorGone, collect_cycles
from zkd.server.served import Served
from zkd.server.stream import Stream
from zkd.server.throttle import Throttle
from zkd.tree import effects as fx

if TYPE_CHECKING:
    from zkd.server.process import Child

monotonic: Final = time.monotonic
SEND_AT: Final = 32
"""So many requests are sent on at once, also while more is being read: the peer need not wait."""
MESSAGES_A_TURN: Final = 64
"""So many messages of the bus are handled before clients get their turn."""
UNPIN_PAUSE_S: Final = 0.001
"""Between two turns of letting go: a process that never sleeps keeps its core for milliseconds."""
COLLECT_EVERY_S: Final = 60.0
"""Connections and their tasks may leave cycles behind."""
STOP_LIMIT_S: Final = 0.3
"""On the way out what is in flight may take so long to be answered."""


class FrontEnd:
    """See the module's text."""

    def __init__(self, child: Child, loop: asyncio.AbstractEventLoop) -> None:
        config = child.config
        self.child = child
        self.config = config
        self.loop = loop
        self.log = logs.get(child.name)
        plugins = loader.load(config.raw, "frontend")
        self.registry = AuthRegistry(plugins, config.raw)
        self.admission = Admission(config)
        self.frame_max = config.jute_maxbuffer
        self.connections: dict[int, Connection] = {}
        self.sessions: dict[int, Connection] = {}
        self.fresh: set[Connection] = set()
        """Connections without a session."""
        self.touched: set[Connection] = set()
        """Heard of since the peer was told."""
        self.dirty: set[Connection] = set()
        """Something is queued for them."""
        self.paused: set[Connection] = set()
        """Not read from while too much is in flight."""
        self._next_number = 0
        self.in_flight = 0
        self.in_flight_max = 1
        self.large = LargeRequestBudget(config)
        self.large_above = 1 << 62
        self.requests: list[tuple[int, int, int, Any]] = []
        """For the next message to the peer."""
        self.serving = False
        self.tasks: set[asyncio.Task[None]] = set()

        self.served = Served(
            config,
            self.registry,
            touched=self.dirty.add,
            ended=self._ended,
            damaged=lambda fault: self.metrics.damaged(fault),
        )
        self.stream = Stream(self)
        self.metrics = FrontEndMetrics(self)
        self.throttle = Throttle(self)
        self.slow_ms = 0.0
        self._configure()
        self.metrics.count_faults(plugins.faults)
        self.auditing = auditing.begin(self, plugins)
        self.keep_requests = self.auditing is not None
        """Pending writes keep their bodies."""
        self.others = config.frontends > 1
        self.board = child.board.view
        self.slot = child.index
        self._events_told = 0
        self._waiting: list[tuple[int, Callable[[], None]]] = []
        self._unpinning = False

        self.context: zmq.Context[Any] = zmq.Context()
        self.inbox = child.inbox(self.context)
        self.peer: Direct | None = None
        self.storage: Direct | None = None
        self.siblings: dict[str, Outbox] = {}
        """The other front-ends."""
        self._tell_counts = False
        self.gathering: dict[int, words.Gathering] = {}
        self._server: asyncio.AbstractServer | None = None
        self._listening = False
        self._begun = False
        """The peer has begun once."""
        self._collect_at = monotonic() + COLLECT_EVERY_S
        self._tick_s = max(0.05, min(0.25, config.tick_time / 8000))
        self._tick_due = monotonic()
        self.handlers: dict[int, Callable[[tuple[Any, ...]], None]] = {
            TXNS: self.stream.take_txns,
            COMMITTED: self.stream.take_committed,
            DURABLE: self.stream.take_durable,
            ANSWERS: self.stream.take_answers,
            BEGIN: self.stream.begin,
            COUNTS: lambda message: self.admission.others(message[1], message[2]),
            GRANT: self._on_grant,
            CLOSE_CONN: self._on_close_conn,
            REJOIN: self._on_rejoin,
            QUERY: self._on_query,
            REPLY: self._on_reply,
        }
        child.on_lives = self._lives
        child.on_reload = self._configure

    def _configure(self) -> None:
        """Take from the configuration what may change while the server runs."""
        config = self.config
        self.in_flight_max = max(config.global_outstanding_limit // config.frontends, 1)
        self.large.configure(config)
        self.large_above = self.large.threshold if self.large.threshold >= 0 else 1 << 62
        self.admission.configure(config)
        self.throttle.configure(config)
        self.served.watches.connection_limit = config.watch_limit_connection
        self.served.watches.path_limit = config.watch_limit_path
        self.slow_ms = config.slow_request if config.slow_request >= 0 else float("inf")

    # -- clients -------------------------------------------------------------------------------

    def connected(self, conn: Connection) -> None:
        """A client has connected: may it stay?"""
        self._next_number += 1
        conn.number = self._next_number
        reason = self.admission.connect(conn.address[0])
        if reason:
            self.metrics.rejected.value += 1
            self.log.warning("client.refused", reason=reason, client=conn.peer)
            conn.state = connection.CLOSED
            conn.transport.abort()
            return
        conn.admitted = True
        self.connections[conn.number] = conn
        self.fresh.add(conn)
        conn.identities = self.registry.on_connect(Origin(conn.address[0], conn.address[1]))

    def admit(self, conn: Connection, session: int) -> bool:
        """May this connect request go on (throttles)? Closes the connection if not."""
        if self.admission.admits(session):
            self.metrics.connect_requests.value += 1
            return True
        self.metrics.dropped.value += 1
        conn.refuse("connection.throttled")
        return False

    def own(self, conn: Connection) -> None:
        """The connection has its session."""
        self.fresh.discard(conn)
        self.sessions[conn.session] = conn
        self.touched.add(conn)

    def disconnected(self, conn: Connection, reason: str) -> None:
        """The connection has ended, for whatever reason."""
        self.connections.pop(conn.number, None)
        for entry in conn.pending:
            if len(entry) > 5:
                self.large.finish(entry[5])
        if self.auditing is not None:
            self.auditing.gone(conn)
        for group in (self.fresh, self.touched, self.dirty, self.paused):
            group.discard(conn)
        if conn.admitted:
            self.admission.gone(conn.address[0])
            self.metrics.sent_before += conn.sent
        if self.sessions.get(conn.session) is conn:
            del self.sessions[conn.session]
        if conn.watching:
            self.served.watches.remove_connection(conn)
        self.log.debug("client.closed", client=conn.peer, session=hex(conn.session), reason=reason)

    def _ended(self, session: int) -> None:
        """The session is over: so is its connection."""
        conn = self.sessions.get(session)
        if conn is not None and conn.state != connection.CLOSED:
            conn.flush()
            conn.close("session ended")

    def shed(self, percent: float) -> int:
        """Close this share of the clients' connections, chosen by chance; how many."""
        having = [conn for conn in self.sessions.values() if conn.state != connection.CLOSED]
        chosen = random.sample(having, round(len(having) * percent / 100))
        for conn in chosen:
            conn.close("shed")
        self.metrics.shed.value += len(chosen)
        self.log.info("clients.shed", percent=percent, closed=len(chosen), left=len(self.sessions))
        return len(chosen)

    def close_watching(self) -> None:
        """End the connections whose watches have missed something."""
        for conn in list(self.sessions.values()):
            if conn.watching:
                conn.close("events were missed")

    def close_unanswered(self, reason: str) -> None:
        """End the connections that wait for the peer: it will not answer."""
        for conn in list(self.connections.values()):
            if any(entry[0] == connection.SENT for entry in conn.pending):
                conn.close(reason)
        self.in_flight = 0
        self.throttle.clear()

    # -- requests to the peer ------------------------------------------------------------------

    def ask(self, conn: Connection, xid: int, op: int, payload: Any) -> None:
        """Put a request of a connection into the next message to the peer, in its turn."""
        if self.throttle.limit and self.throttle.holds(conn, xid, op, payload):
            return
        if op == NEW_SESSION:
            self.in_flight += 1
        self.pass_on(conn, xid, op, payload)

    def pass_on(self, conn: Connection, xid: int, op: int, payload: Any, came: float = 0.0) -> None:
        """Put it there now. `came`: when it did, if it has waited (throttled_op_wait_time)."""
        if came and self.config.throttled_op_wait_time and self.peer is not None:
            self._send_requests()
            request = (conn.number, xid, op, payload)
            self.peer.send((REQUESTS, self.child.life, int(came * 1000), [request]))
            return
        if not self.requests:
            self.loop.call_soon(self._send_requests)
        self.requests.append((conn.number, xid, op, payload))

    def send_write(self, conn: Connection, xid: int, op: int, body: bytes) -> None:
        """A client's write (or sync) goes to the peer; its place in the order is kept."""
        if self.stream.granted == REFUSE:
            conn.refuse("server.not_accepting", opcode=op)
            return
        if op == Op.SYNC or self.keep_requests or len(body) > self.large_above:
            taken = self.large.admit(len(body) + 8)
            if taken < 0:
                conn.refuse("request.large", opcode=op, bytes=len(body))
                return
            conn.pending.append((connection.SENT, xid, op, conn.heard, body, taken))
        else:
            conn.pending.append((connection.SENT, xid, op, conn.heard))
        if op == Op.CLOSE_SESSION:
            conn.state = connection.CLOSING
        if self.throttle.limit and self.throttle.holds(conn, xid, op, body):
            self.hold_back(conn)
            return
        self.in_flight += 1
        if not self.requests:
            self.loop.call_soon(self._send_requests)
        self.requests.append((conn.number, xid, op, body))
        if len(self.requests) >= SEND_AT:
            self._send_requests()
        if self.in_flight > self.in_flight_max or self._crowded():
            self.hold_back(conn)

    def _crowded(self) -> bool:
        """Is there too much, here or at the peer, that the tree on disk does not hold yet?"""
        return self.stream.granted == HOLD or self.served.pinned_bytes > self.served.cache_bytes

    def hold_back(self, conn: Connection) -> None:
        """Stop reading from a connection while too much is in flight, or not on disk."""
        limit = self.in_flight_max
        outstanding = self.in_flight + len(self.throttle.line)
        if outstanding > limit or len(conn.pending) > limit or self._crowded():
            self.paused.add(conn)
            self.metrics.throttle_waits.value += 1
            conn.transport.pause_reading()

    def _let_go(self) -> None:
        """Read again from those that were held back, if there is room."""
        outstanding = self.in_flight + len(self.throttle.line)
        if outstanding < self.in_flight_max * 3 // 4 and not self._crowded():
            for conn in [c for c in self.paused if len(c.pending) < self.in_flight_max]:
                self.paused.discard(conn)
                if not conn.write_paused:
                    conn.transport.resume_reading()

    def _send_requests(self) -> None:
        requests, self.requests = self.requests, []
        if self.peer is not None and requests:
            failpoints.hit("frontend.before-requests")
            self.peer.send((REQUESTS, self.child.life, int(monotonic() * 1000), requests))
            failpoints.hit("frontend.after-requests")

    # -- the board -----------------------------------------------------------------------------

    def behind(self) -> bool:
        """Has another front-end told something that is not applied here?"""
        if max(self.board) <= self.served.applied:
            return False
        self._on_inbox()
        return max(self.board) > self.served.applied

    def board_max(self) -> int:
        """The greatest zxid that any front-end has told of."""
        return max(self.board)

    def wait_for_board(self, conn: Connection, data: bytes) -> None:
        """Serve this data once what others have told is applied here too."""
        conn.hold()
        conn.buffer = [data]
        self.wait_for_zxid(self.board_max(), lambda: self._go_on(conn))

    def _go_on(self, conn: Connection) -> None:
        if conn.state == connection.HELD:
            conn.go_on()
            conn.flush()

    def wait_for_zxid(self, zxid: int, then: Callable[[], None]) -> None:
        """Call `then` as soon as zxid is applied."""
        self._waiting.append((zxid, then))

    def _wake_waiting(self) -> None:
        applied = self.served.applied
        due = [then for zxid, then in self._waiting if zxid <= applied]
        self._waiting = [entry for entry in self._waiting if entry[0] > applied]
        for then in due:
            then()

    # -- applying ------------------------------------------------------------------------------

    def apply_ready(self) -> None:
        """Apply what is committed, tell the board, answer, and hand everything to the sockets."""
        served, stream = self.served, self.stream
        self._now = monotonic()
        stream.each_ready(self._apply, self._answer)
        served.view.applied = self.board[self.slot] = served.applied
        failpoints.hit("frontend.before-replies")
        if self._waiting:
            self._wake_waiting()
        if self.dirty:
            dirty = list(self.dirty)
            self.dirty.clear()
            for conn in dirty:
                conn.flush()
            if served.events != self._events_told:
                self.metrics.watch_events(served.events - self._events_told, self._now)
                self._events_told = served.events
        if self.throttle.line:
            self.throttle.release()
        if self.paused:
            self._let_go()

    def slow(self, conn: Connection, op: int, path: str, took_ms: float) -> None:
        """A request has taken longer than slow.request.ms."""
        self.log.warning(
            "request.slow",
            ms=round(took_ms),
            op=replies.OP_LABELS.get(op, op),
            path=path,
            client=conn.peer,
            session=hex(conn.session & (1 << 64) - 1),
            in_flight=self.in_flight,
        )

    def unpin(self) -> None:
        """Let go of what the tree on disk holds now, between the other work of the loop."""
        if not self._unpinning and self.served.view.unpin():
            self._unpinning = True
            self.loop.call_later(UNPIN_PAUSE_S, self._unpin_more)

    def _unpin_more(self) -> None:
        self._unpinning = False
        self.unpin()

    def _apply(self, txn: tuple[Any, ...]) -> None:
        """One committed transaction: install it, answer its client."""
        effects = txn[6]
        conn = None
        if txn[1] == self.child.life:
            self.in_flight -= 1
            conn = self.connections.get(txn[2])
            if conn is not None and conn.pending and conn.pending[0][0] == connection.BUSY:
                conn.settle()
        self.served.apply(txn[0], effects)
        if conn is not None and conn.pending:
            self.metrics.write((self._now - conn.pending[0][3]) * 1000)
            conn.complete(txn, self._now)
            self.dirty.add(conn)
        elif self.auditing is not None and txn[1] == self.child.life:
            self.auditing.completed_later(txn)
        if effects and effects[-1][0] >= fx.QUOTA:
            self._perhaps_ended(txn)

    def _perhaps_ended(self, txn: tuple[Any, ...]) -> None:
        """Has the transaction ended a session? (QUOTA effects come behind CLOSED.)"""
        for effect in txn[6]:
            if effect[0] == fx.CLOSED:
                if self.auditing is not None:
                    self.auditing.session_ended(effect[1], txn)
                self._ended(effect[1])

    def _answer(self, answer: tuple[Any, ...]) -> None:
        """What the peer answers without a transaction."""
        number, xid, _, kind, payload = answer
        conn = self.connections.get(number)
        if kind in (SYNCED, THROTTLED, UNREADABLE, MOVED, SESSION_CLOSED, DENIED):
            self.in_flight = max(self.in_flight - 1, 0)
        if conn is None or not conn.pending:
            return
        self.dirty.add(conn)
        conn.settle()
        if kind == SYNCED:
            conn.synced(xid)
        elif kind == THROTTLED:
            self.metrics.throttled_ops.value += 1
            conn.not_done(xid, Err.THROTTLED_OP)
        elif kind == UNREADABLE:
            conn.not_done(xid, Err.MARSHALLING_ERROR)
        elif kind == DENIED:
            conn.not_done(xid, payload)
        elif kind == SESSION_CLOSED:
            conn.not_done(xid, 0)
            conn.flush()
            conn.close("closed by the client")
        elif kind == ATTACHED:
            if conn.pending[0][2] == NEW_SESSION:  # a local one, without a transaction
                self.in_flight = max(self.in_flight - 1, 0)
            old = self.sessions.get(payload[0])
            if old is not None and old is not conn:
                old.close("session moved to another connection")
            conn.attached(*payload)
        elif kind == REFUSED:
            conn.refused_session()
        else:
            conn.close(payload)

    # -- the bus -------------------------------------------------------------------------------

    def _on_inbox(self) -> None:
        """Take what has arrived; a bounded number of messages a turn."""
        recv = self.inbox.recv
        handlers = self.handlers
        for _ in range(MESSAGES_A_TURN):
            frame = recv()
            if not frame:
                break
            message = decode(frame)
            handlers[message[0]](message)
        else:
            self.loop.call_soon(self._on_inbox)
        if self.served.started:
            self.apply_ready()

    def begun(self) -> None:
        """The stream has begun (again): clients may be served."""
        self.apply_ready()
        self.serving = True
        if not self._begun and not self.child.stopping:
            self._begun = True
            self._listen()
            if self.auditing is not None:
                self.auditing.started()

    def _on_grant(self, message: tuple[Any, ...]) -> None:
        self.stream.take_grant(message)
        if self.stream.deadline == NO_GRANT:
            self._role_over()
        elif not self.serving and self.served.started:
            self.serving = not self.stream.lapsed()

    def _role_over(self) -> None:
        """This server neither leads nor follows now: its clients go to another one."""
        self.requests.clear()
        self.throttle.clear()
        self.in_flight = 0
        self._stop_serving("role.over")

    def _stop_serving(self, why: str) -> None:
        """Close what clients there are; whoever comes now is refused."""
        self.serving = False
        self.metrics.not_serving.value += len(self.connections)
        if self.connections:
            self.log.warning(why, connections=len(self.connections))
        for conn in list(self.connections.values()):
            if conn.state != connection.WORD:
                conn.close("the server is not serving")

    def _on_close_conn(self, message: tuple[Any, ...]) -> None:
        _, number, reason = message
        conn = self.connections.get(number)
        if conn is not None:
            conn.close(reason)
        if self.peer is not None:
            self.peer.send((CONN_CLOSED, self.child.life, number))

    def _on_rejoin(self, message: tuple[Any, ...]) -> None:
        self.stream.join_again()

    def _on_query(self, message: tuple[Any, ...]) -> None:
        _, ident, what, (name, life) = message
        out = Outbox(self.context, self.child.runtime_dir, name, life)
        out.send((REPLY, ident, self.child.name, words.statistics(self, what)))
        out.close(linger_ms=500)

    def _on_reply(self, message: tuple[Any, ...]) -> None:
        gathering = self.gathering.get(message[1])
        if gathering is not None:
            gathering.answer(message[2], message[3])

    def four_letter_word(self, conn: Connection, word: str, rest: bytes) -> None:
        """Answer a four-letter word and close."""
        words.answer(self, conn, word, rest)

    def _lives(self, lives: dict[str, int]) -> None:
        """Connect to the present lives of the others."""
        self.storage, new = self._newer(self.storage, "storage", lives)
        if new and self.storage is not None:
            self.storage.send((JOIN, self.child.name, self.child.life, []))
        self.peer, new = self._newer(self.peer, "peer", lives)
        if new and self.peer is not None:
            self.stream.join(self.peer)
        for name in lives:
            if name.startswith("frontend") and name != self.child.name:
                self._meet(name, lives[name])

    def _meet(self, name: str, life: int) -> None:
        """Another front-end, in the present one of its lives."""
        sibling = self.siblings.get(name)
        if not life or (sibling is not None and sibling.life >= life):
            return
        if sibling is not None:
            sibling.close()
        self.siblings[name] = Outbox(self.context, self.child.runtime_dir, name, life)
        self.admission.others(name, {})
        self._tell_counts = True

    def _newer(
        self, outbox: Direct | None, name: str, lives: dict[str, int]
    ) -> tuple[Direct | None, bool]:
        """The way to the present life of a process, and whether it is another than before."""
        life = lives.get(name, 0)
        if not life or (outbox is not None and outbox.life >= life):
            return outbox, False
        if outbox is not None:
            outbox.close()
        return Direct(self.inbox, self.child.runtime_dir, name, life), True

    # -- time ----------------------------------------------------------------------------------

    def lapsed(self) -> None:
        """The grant has run out: nothing may be answered any more."""
        self._on_inbox()  # perhaps a new one has only been waiting
        if self.stream.lapsed():
            self._stop_serving("grant.lapsed")

    def tick(self) -> None:
        """Four times a second or more: touches, sign of life, connections without a session."""
        if self.child.stopping:
            return
        now = monotonic()
        self.child.alive(now)
        self.metrics.tick(now - self._tick_due)
        self._tick_due = now + self._tick_s
        if self.serving and self.stream.lapsed():
            self.lapsed()
        if self.stream.turn != self.stream.turned:
            self.stream.move_on()
        for conn in self.paused:  # whoever is not read from is silent by our own doing
            conn.heard = now
        self.touched |= self.paused
        if self.peer is not None:
            touches = [(c.session, int(c.heard * 1000)) for c in self.touched if c.session]
            self.touched.clear()
            self.peer.send((TOUCH, self.child.life, int(now * 1000), touches))
        self._tell_siblings()
        if now >= self._collect_at:
            self._collect_at = now + COLLECT_EVERY_S
            collect_cycles()
        limit = self.config.sessionless_cnxn_timeout / 1000
        for conn in [c for c in self.fresh if now - c.heard > limit]:
            self.metrics.sessionless.value += 1
            conn.close("no session in time")
        self.loop.call_later(self._tick_s, self.tick)

    def _tell_siblings(self) -> None:
        """Limits per address count over all front-ends."""
        if not self.siblings:
            return
        counts = self.admission.news()
        if counts is None and self._tell_counts:
            counts = dict(self.admission.counter.own())
        if counts is not None:
            self._tell_counts = False
            for sibling in self.siblings.values():
                sibling.send((COUNTS, self.child.name, counts))

    # -- beginning and end ---------------------------------------------------------------------

    def start(self) -> None:
        """Take up the bus; clients are let in once the peer has begun. In an ensemble that may take
        long: meanwhile they hear that nobody serves here, and words are answered."""
        if self.config.distributed:
            self._listen()
        self.loop.add_reader(self.inbox.fd, self._on_inbox)
        self.loop.add_reader(self.child.control.fileno(), self._on_control)
        self._on_control()
        self._on_inbox()
        self._tick_due = monotonic()
        self.tick()

    def _on_control(self) -> None:
        self.child.read_control()
        if self.child.stopping:
            self.stop()

    def _listen(self) -> None:
        """Accept connections (once)."""
        if self._listening:
            return
        self._listening = True
        listener = self.child.listener
        assert listener is not None

        async def serve() -> None:
            self._server = await self.loop.create_server(lambda: Connection(self), sock=listener)
            self.child.ready()

        task = self.loop.create_task(serve())
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def stop(self) -> None:
        """Let no one in any more; end once what is in flight has been answered (or soon)."""
        if self._server is not None:
            self._server.close()
            self._server = None
        patience_s = min(self.config.request_throttler_shutdown_timeout / 1000, STOP_LIMIT_S)
        self._stop_soon(monotonic() + patience_s)

    def _stop_soon(self, deadline: float) -> None:
        waiting = self.in_flight > 0 or self.throttle.line
        if waiting and monotonic() < deadline:
            self.loop.call_later(0.01, self._stop_soon, deadline)
            return
        for conn in list(self.connections.values()):
            conn.flush()
            conn.close("the server stops")
        self.loop.call_later(0.02, self.loop.stop)


def main(child: Child) -> None:
    """The life of a front-end process."""
    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    frontend = FrontEnd(child, loop)
    failure: list[BaseException] = []

    def failed(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        conn = context.get("protocol")
        error = context.get("exception") or RuntimeError(context["message"])
        if isinstance(conn, Connection) and not isinstance(error, SupervisorGone):
            frontend.log.error("client.failed", client=conn.peer, error=repr(error))
            conn.close("internal error")  # one client's request: it alone pays
            return
        failure.append(error)
        loop.stop()

    loop.set_exception_handler(failed)
    frontend.start()
    loop.run_forever()
    if frontend.auditing is not None:
        frontend.auditing.stop()
    if failure:
        raise failure[0]
