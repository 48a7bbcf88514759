"""A front-end process: clients' connections, reads, watches, replies.

    reader.zxid <= applied <= durable <= last zxid received

It serves under a grant of the peer; when that lapses it closes its clients' connections. It keeps
no logic of the tree: transactions come from the peer with their effects, and are applied when
storage (alone) or the peer (in an ensemble) has said that they are committed. See join.py for how
it finds its way into the stream, and the design's "The bus: lives, gaps, grants".
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import uvloop
import zmq

from zkd import failpoints
from zkd.bus.messages import (
    ANSWERS,
    ATTACHED,
    BEGIN,
    CLOSE_CONN,
    CONN_CLOSED,
    COUNTS,
    DURABLE,
    GRANT,
    IDENTITIES,
    JOIN,
    QUERY,
    REFUSED,
    REJOIN,
    REPLY,
    REQUESTS,
    SYNCED,
    TOUCH,
    TXNS,
    decode,
)
from zkd.bus.sockets import Inbox, Outbox
from zkd.jute.protocol import Err, Op
from zkd.plugins import loader
from zkd.plugins.api import AuthFailed, Disconnect, Origin
from zkd.plugins.auth import AuthRegistry
from zkd.server import connection, logs, replies, words
from zkd.server.admission import Admission
from zkd.server.connection import Connection
from zkd.server.metrics import Metrics
from zkd.server.settings import tree_settings
from zkd.server.view import View
from zkd.storage.log import LOG_NAME, LogReader
from zkd.storage.tree import TreeReader, open_tree
from zkd.tree import acl as acls
from zkd.tree import effects as fx
from zkd.tree.errors import ClientRefusal
from zkd.tree.stat import client_stat
from zkd.tree.state import TreeState
from zkd.tree.watches import WatchManager

if TYPE_CHECKING:
    from zkd.server.process import Child

monotonic = time.monotonic
MESSAGES_A_TURN = 64
"""So many messages of the bus are handled before clients get their turn."""
READER_CACHE_BYTES = 4 << 20
"""Page cache of the tree's reader; it is emptied by every flush."""
HOT_SHARE = 4
"""A fourth of the cache is for prepared replies."""


class FrontEnd:
    """See the module's text."""

    def __init__(self, child: Child, loop: asyncio.AbstractEventLoop) -> None:
        config = child.config
        self.child = child
        self.config = config
        self.loop = loop
        self.log = logs.get(child.name)
        self.metrics = Metrics(child.name)
        self._updatelatency = self.metrics.summary("updatelatency")
        self._latency = self.metrics.summary("latency")
        self.registry = AuthRegistry(loader.load(config.raw, "frontend"), config.raw)
        settings = tree_settings(config)
        self.client_stat = partial(client_stat, settings=settings)
        self.settings = settings
        self.skip_acl = settings.skip_acl
        self.frame_max = config.jute_maxbuffer
        share = config.cache_bytes // (config.frontends + 1)
        self._share = share
        self.view = View(
            self._open_reader, cache_bytes=share // 2, forget_hot=self.forget_hot
        )
        self.watches: WatchManager[Connection] = WatchManager(
            connection_limit=config.watch_limit_connection, path_limit=config.watch_limit_path
        )
        self.admission = Admission(config)

        # What clients are served from.
        self.hot: dict[bytes, bytes] = {}
        self._hot_bytes = 0
        self._hot_limit = share // HOT_SHARE
        self.zx = b""
        self._set_applied(self.view.applied)
        self.serving = False
        self.deadline = 0.0
        self.accepting = False
        self.others = config.frontends > 1
        self.board = child.board.view
        self.slot = child.index

        # Connections.
        self.connections: dict[int, Connection] = {}
        self.sessions: dict[int, Connection] = {}
        self.fresh: set[Connection] = set()
        self.touched: set[Connection] = set()
        self.dirty: set[Connection] = set()
        self.paused: set[Connection] = set()
        self._next_number = 0
        self.in_flight = 0
        self.in_flight_max = max(config.global_outstanding_limit // config.frontends, 50)
        self._waiting: list[tuple[int, Callable[[], None]]] = []

        # The stream from the peer and from storage.
        self.txns: deque[tuple[Any, ...]] = deque()
        self.answers: deque[tuple[int, tuple[Any, ...]]] = deque()
        self.incarnation = 0
        self.peer_life = 0
        self.alone = True
        self.next_seq = 0
        self.durable = 0
        self.turn = 0
        self.words: dict[int, int] = {}
        """incarnation -> durable zxid that storage has announced for it."""
        self._requests: list[tuple[int, int, int, Any]] = []

        # Counters that are too hot for a metric object.
        self.packets_received = 0
        self.fast_reads = 0
        self.slow_reads = 0
        self.rejected = 0
        self.latency_count = 0
        self.latency_total = 0.0
        self.latency_min = -1.0
        self.latency_max = 0.0
        self.trace_mask = 306
        self._sent_before = 0
        self._reads_counted = 0
        metrics = self.metrics
        metrics.gauge("num_alive_connections", lambda: len(self.connections))
        metrics.gauge("outstanding_requests", lambda: self.in_flight)
        metrics.gauge("watch_count", lambda: self.watches.count)
        metrics.gauge("connection_drop_probability", lambda: self.admission.throttle.drop_chance)
        name = child.name
        metrics.gauge_set("zkd_pinned_bytes", lambda: {name: self.view.pinned_bytes})
        metrics.gauge_set("zkd_cache_bytes", lambda: {name: self.view.cache_bytes})

        self.context: zmq.Context[Any] = zmq.Context()
        self.inbox = Inbox(self.context, child.runtime_dir, child.name, child.life)
        self.peer: Outbox | None = None
        self.storage: Outbox | None = None
        self.siblings: dict[str, Outbox] = {}
        """The other front-ends."""
        self.tell_all_counts = False
        self.gathering: dict[int, words.Gathering] = {}
        self._server: asyncio.AbstractServer | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        child.on_lives = self._lives

    def _open_reader(self) -> TreeReader:
        config = self.config
        return open_tree(config.data_dir, config.data_log_dir, cache_bytes=READER_CACHE_BYTES)

    # -- clients -------------------------------------------------------------------------------

    def connected(self, conn: Connection) -> None:
        """A client has connected: may it stay?"""
        self._next_number += 1
        conn.number = self._next_number
        reason = self.admission.connect(conn.address[0])
        if reason:
            self.rejected += 1
            self.metrics.counter("connection_rejected").value += 1
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
            self.metrics.counter("connection_request_count").value += 1
            return True
        self.metrics.counter("connection_drop_count").value += 1
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
        self.fresh.discard(conn)
        self.touched.discard(conn)
        self.dirty.discard(conn)
        self.paused.discard(conn)
        if conn.admitted:
            self.admission.gone(conn.address[0])
            self._sent_before += conn.sent
        if self.sessions.get(conn.session) is conn:
            del self.sessions[conn.session]
        if conn.watching:
            self.watches.remove_connection(conn)
        self.log.debug("client.closed", client=conn.peer, session=hex(conn.session), reason=reason)

    def ask(self, conn: Connection, xid: int, op: int, payload: Any) -> None:
        """Put a request of a connection into the next message to the peer."""
        if not self._requests:
            self.loop.call_soon(self._send_requests)
        self._requests.append((conn.number, xid, op, payload))

    def send_write(self, conn: Connection, xid: int, op: int, body: bytes) -> None:
        """A client's write (or sync) goes to the peer; its place in the order is kept."""
        if not self.accepting:
            conn.refuse("server.not_accepting", opcode=op)
            return
        conn.pending.append((connection.SENT, xid, op, conn.heard))
        if op == Op.SYNC:
            conn.pending[-1] += (body,)
            body = b""
        elif op == Op.CLOSE_SESSION:
            conn.state = connection.CLOSING
        self.in_flight += 1
        if not self._requests:
            self.loop.call_soon(self._send_requests)
        self._requests.append((conn.number, xid, op, body))
        if self.in_flight > self.in_flight_max:
            self.hold_back(conn)

    def hold_back(self, conn: Connection) -> None:
        """Stop reading from a connection while too much is in flight."""
        if self.in_flight > self.in_flight_max or len(conn.pending) > self.in_flight_max:
            self.paused.add(conn)
            conn.transport.pause_reading()

    def _send_requests(self) -> None:
        requests, self._requests = self._requests, []
        if self.peer is not None and requests:
            failpoints.hit("frontend.before-requests")
            self.peer.send((REQUESTS, self.child.life, requests))

    def authenticate(self, conn: Connection, xid: int, scheme: str, data: bytes) -> None:
        """Run a provider off the loop; what the client sends meanwhile waits."""
        conn.hold()
        origin = Origin(conn.address[0], conn.address[1])
        work = self.loop.run_in_executor(None, self.registry.authenticate, scheme, data, origin)
        limit = self.config.auth_timeout / 1000

        async def wait() -> None:
            try:
                found = await asyncio.wait_for(asyncio.shield(work), limit)
            except TimeoutError:
                self.registry.count_late(scheme)
                self._auth_failed(conn, xid, scheme, "late")
            except AuthFailed as e:
                self._auth_failed(conn, xid, scheme, str(e))
            except Disconnect:
                conn.refuse("auth.disconnect", scheme=scheme)
            else:
                self._authenticated(conn, xid, found)

        task = self.loop.create_task(wait())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _authenticated(self, conn: Connection, xid: int, found: tuple[Any, ...]) -> None:
        if conn.state != connection.HELD:
            return
        conn.identities += tuple(i for i in found if i not in conn.identities)
        self.ask(conn, 0, IDENTITIES, conn.identities)
        conn.sent += 1
        conn.out.append(replies.header(0, xid, 0, 0))
        conn.flush()
        conn.go_on()

    def _auth_failed(self, conn: Connection, xid: int, scheme: str, why: str) -> None:
        self.log.warning("auth.failed", client=conn.peer, scheme=scheme, reason=why)
        self.metrics.counter("auth_failed_count").value += 1
        if conn.state == connection.HELD:
            conn.out.append(replies.header(0, xid, 0, Err.AUTH_FAILED))
            conn.flush()
            conn.close("authentication failed")

    # -- prepared replies ----------------------------------------------------------------------

    def remember_hot(self, frame: bytes, body: bytes) -> None:
        """Answer the same request (from the opcode on) with body until the node changes."""
        self._hot_bytes += len(frame) + len(body) + 200
        if self._hot_bytes > self._hot_limit:
            self.hot.clear()
            self._hot_bytes = 0
        self.hot[frame] = body

    def forget_hot(self, path: str) -> None:
        """The node has changed."""
        raw = path.encode()
        tail = len(raw).to_bytes(4, "big") + raw + b"\0"
        pop = self.hot.pop
        pop(b"\0\0\0\4" + tail, None)
        pop(b"\0\0\0\3" + tail, None)
        pop(b"\0\0\0\x0c" + tail, None)
        pop(b"\0\0\0\x08" + tail, None)
        if path == "/":
            for op in (b"\0\0\0\4", b"\0\0\0\3", b"\0\0\0\x0c", b"\0\0\0\x08"):
                pop(op + b"\0\0\0\0\0", None)

    # -- the board -----------------------------------------------------------------------------

    def behind(self) -> bool:
        """Has another front-end told something that is not applied here?"""
        if max(self.board) <= self.applied:
            return False
        self._on_inbox()
        return max(self.board) > self.applied

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

    # -- applying ------------------------------------------------------------------------------

    def _set_applied(self, zxid: int) -> None:
        self.applied = zxid
        self.zx = zxid.to_bytes(8, "big") + b"\0\0\0\0"

    def _apply_ready(self) -> None:
        """Apply what is committed, tell the board, answer, and hand everything to the sockets."""
        txns, durable = self.txns, self.durable
        if txns and txns[0][0] <= durable:
            now = monotonic()
            while txns and txns[0][0] <= durable:
                self._apply(txns.popleft(), now)
            self.view.applied = self.applied
        if self.applied < durable and not txns and self.incarnation:
            pass  # announced before its bytes came: they are on their way
        self.board[self.slot] = self.applied
        answers = self.answers
        while answers and answers[0][0] <= self.applied:
            self._answer(answers.popleft()[1])
        if self._waiting:
            self._wake_waiting()
        for conn in self.dirty:
            conn.flush()
        self.dirty.clear()
        if self.paused and self.in_flight < self.in_flight_max * 3 // 4:
            for conn in [c for c in self.paused if len(c.pending) < self.in_flight_max]:
                self.paused.discard(conn)
                if not conn.write_paused:
                    conn.transport.resume_reading()

    def _wake_waiting(self) -> None:
        due = [then for zxid, then in self._waiting if zxid <= self.applied]
        self._waiting = [(zxid, then) for zxid, then in self._waiting if zxid > self.applied]
        for then in due:
            then()

    def _apply(self, txn: tuple[Any, ...], now: float) -> None:
        """Install one committed transaction, fire its watches, answer its client."""
        zxid = txn[0]
        view = self.view
        watching = self.watches.count
        for effect in txn[6]:
            if watching:
                self._fire(zxid, effect)
            view.install(zxid, effect)
        self._set_applied(zxid)
        if txn[1] == self.child.life:
            conn = self.connections.get(txn[2])
            self.in_flight -= 1
            if conn is not None and conn.pending:
                took = (now - conn.pending[0][3]) * 1000
                self.latency_count += 1
                self.latency_total += took
                if took > self.latency_max:
                    self.latency_max = took
                if took < self.latency_min or self.latency_min < 0:
                    self.latency_min = took
                self._updatelatency.add(int(took))
                self._latency.add(int(took))
                conn.complete(txn, now)
                self.dirty.add(conn)
        for effect in txn[6]:
            if effect[0] == fx.CLOSED:
                ended = self.sessions.get(effect[1])
                if ended is not None and ended.state != connection.CLOSED:
                    ended.flush()
                    ended.close("session ended")

    def _fire(self, zxid: int, effect: tuple[Any, ...]) -> None:
        """Queue the events of one effect; it is not installed yet."""
        for kind, path, node_path, watchers in self.watches.triggered(effect):
            packet = replies.event(kind, path, zxid)
            if effect[0] == fx.CREATED and node_path == effect[1]:
                acl = effect[4]
            else:
                node = self.view.get(node_path)
                acl = node.acl if node is not None else None
            for conn in watchers:
                if acl is None or self.skip_acl or self._may_read(conn, acl):
                    conn.out.append(packet)
                    conn.sent += 1
                    self.dirty.add(conn)

    def _may_read(self, conn: Connection, acl: bytes) -> bool:
        return acls.check(acl, 1, conn.identities, self.registry)

    def add_watch(self, conn: Connection, path: str, kind: int) -> None:
        """Set a watch; raises ClientRefusal beyond the limits."""
        self.watches.add(conn, path, kind)
        conn.watching = True

    def _answer(self, answer: tuple[Any, ...]) -> None:
        """What the peer answers without a transaction."""
        number, xid, _, kind, payload = answer
        conn = self.connections.get(number)
        if kind == SYNCED:
            self.in_flight -= 1
        if conn is None or not conn.pending:
            return
        if kind == SYNCED:
            pending = conn.pending.popleft()
            assert pending[1] == xid
            self.dirty.add(conn)
            conn.reply(xid, 0, _echo(pending[4]))
            conn.turn()
        elif kind == ATTACHED:
            old = self.sessions.get(payload[0])
            if old is not None and old is not conn:
                old.close("session moved to another connection")
            self.dirty.add(conn)
            conn.attached(*payload)
        elif kind == REFUSED:
            conn.refused_session()
        else:
            conn.close(payload)

    # -- the bus -------------------------------------------------------------------------------

    def _on_inbox(self) -> None:
        """Take what has arrived; a bounded number of messages a turn."""
        recv = self.inbox.recv
        for _ in range(MESSAGES_A_TURN):
            try:
                frame = recv(zmq.DONTWAIT)
            except zmq.Again:
                break
            message = decode(frame)
            self.handlers[message[0]](self, message)
        else:
            self.loop.call_soon(self._on_inbox)
        self._apply_ready()

    def _on_txns(self, message: tuple[Any, ...]) -> None:
        _, incarnation, seq, txns = message
        if incarnation != self.incarnation:
            return
        if seq != self.next_seq:
            self._gap("TXNS", seq)
            return
        self.next_seq += 1
        self.txns += txns

    def _on_answers(self, message: tuple[Any, ...]) -> None:
        _, incarnation, seq, answers = message
        if incarnation != self.incarnation:
            return
        if seq != self.next_seq:
            self._gap("ANSWERS", seq)
            return
        for answer in answers:
            self.answers.append((answer[2], answer))

    def _on_durable(self, message: tuple[Any, ...]) -> None:
        _, incarnation, _seq, durable, _tree_zxid, turn = message
        if incarnation == self.incarnation:
            if self.alone:
                self.durable = durable
            if turn != self.turn:
                self._apply_ready()
                if self.view.advance():
                    self.turn = turn
        else:
            self.words = {incarnation: durable}

    def _on_grant(self, message: tuple[Any, ...]) -> None:
        _, incarnation, deadline, accepting = message
        if incarnation == self.incarnation:
            self.deadline = deadline
            self.accepting = accepting and self.view.pinned_bytes < self._share
            if not self.serving:
                self.serving = monotonic() < deadline

    def _gap(self, what: str, seq: int) -> None:
        """Something is missing from the peer's stream: join again, never go on."""
        self.log.error("bus.gap", stream=what, expected=self.next_seq, got=seq)
        self.incarnation = 0
        self._join_peer()

    def _on_begin(self, message: tuple[Any, ...]) -> None:
        """An incarnation begins for this front-end (or the peer has lost what it had handed out)."""
        _, incarnation, life, durable, seq, alone, deadline, accepting, forget, pending = message
        if self.peer is None or life != self.peer.life:
            return
        if life != self.peer_life or forget:
            self._close_unanswered("the request may or may not have been done")
        self.peer_life, self.incarnation, self.alone = life, incarnation, alone
        self.next_seq = seq
        self.txns.clear()
        self.answers.clear()
        first = pending[0][0] if pending else durable + 1
        self._catch_up(min(first - 1, durable))
        self.txns.extend(t for t in pending if t[0] > self.applied)
        self.durable = max(durable, self.words.get(incarnation, 0)) if alone else durable
        self.deadline, self.accepting = deadline, accepting
        self._apply_ready()
        self.serving = True
        self.log.debug("frontend.joined", incarnation=incarnation, applied=hex(self.applied))
        if self._server is None:
            self._start_server()

    def _catch_up(self, zxid: int) -> None:
        """Read from the log what is committed up to zxid and has not been applied."""
        if self.applied >= zxid:
            return
        reader = self._open_reader()
        if reader.zxid > self.applied and self.watches.count:
            # Events of what lies between cannot be told from the tree: clients come back and
            # set their watches again, which tells them.
            for conn in list(self.sessions.values()):
                if conn.watching:
                    conn.close("events were missed")
        applied = self.applied
        state = TreeState(reader, cache_bytes=1 << 20, settings=self.settings)
        self.view.restart(reader)
        self.hot.clear()
        self._set_applied(max(applied, reader.zxid))
        log = LogReader(self.config.data_log_dir / LOG_NAME)
        try:
            for at, body in log.read(reader.zxid, zxid):
                effects = state.apply(body)
                for effect in effects:
                    if at > applied and self.watches.count:
                        self._fire(at, effect)
                    self.view.install(at, effect)
                    if effect[0] == fx.CLOSED and effect[1] in self.sessions:
                        self.sessions[effect[1]].close("session ended")
                self._set_applied(max(at, self.applied))
        finally:
            log.close()
        self.view.applied = self.applied

    def _close_unanswered(self, reason: str) -> None:
        for conn in list(self.connections.values()):
            if any(entry[0] == connection.SENT for entry in conn.pending):
                conn.close(reason)
        self.in_flight = 0

    def _on_close_conn(self, message: tuple[Any, ...]) -> None:
        _, number, reason = message
        conn = self.connections.get(number)
        if conn is not None:
            conn.close(reason)
        if self.peer is not None:
            self.peer.send((CONN_CLOSED, self.child.life, number))

    def _on_rejoin(self, message: tuple[Any, ...]) -> None:
        self._join_peer()

    def _on_counts(self, message: tuple[Any, ...]) -> None:
        self.admission.others(message[1], message[2])

    def _on_query(self, message: tuple[Any, ...]) -> None:
        _, ident, what, (name, life) = message
        out = Outbox(self.context, self.child.runtime_dir, name, life)
        out.send((REPLY, ident, self.child.name, words.statistics(self, what)))
        out.close(linger_ms=500)

    def _on_reply(self, message: tuple[Any, ...]) -> None:
        _, ident, name, payload = message
        gathering = self.gathering.get(ident)
        if gathering is not None:
            gathering.answer(name, payload)

    handlers: dict[int, Callable[[FrontEnd, tuple[Any, ...]], None]] = {
        TXNS: _on_txns,
        DURABLE: _on_durable,
        ANSWERS: _on_answers,
        GRANT: _on_grant,
        BEGIN: _on_begin,
        CLOSE_CONN: _on_close_conn,
        REJOIN: _on_rejoin,
        QUERY: _on_query,
        REPLY: _on_reply,
        COUNTS: _on_counts,
    }

    @property
    def packets_sent(self) -> int:
        """Replies and events since the last srst, of living and past connections."""
        return self._sent_before + sum(c.sent for c in self.connections.values())

    def forget_counts(self) -> None:
        """Begin the server's statistics anew (srst)."""
        self.packets_received = self.fast_reads = self.slow_reads = 0
        self._sent_before = -sum(c.sent for c in self.connections.values())
        self.latency_count, self.latency_total = 0, 0.0
        self.latency_min, self.latency_max = -1.0, 0.0
        self._reads_counted = 0
        self.metrics.reset()

    def count_metrics(self) -> None:
        """Bring the metric objects up to date with what is counted in plain attributes."""
        metrics = self.metrics
        reads = self.fast_reads + self.slow_reads
        metrics.summary("readlatency").add_many(0, reads - self._reads_counted)
        metrics.summary("latency").add_many(0, reads - self._reads_counted)
        self._reads_counted = reads
        metrics.counter("packets_received").value = self.packets_received
        metrics.counter("packets_sent").value = self.packets_sent
        metrics.counter("response_packet_cache_hits").value = self.fast_reads
        metrics.counter("response_packet_cache_misses").value = self.slow_reads
        metrics.counter("zkd_cache_hits_total").value = self.view.hits
        metrics.counter("zkd_cache_misses_total").value = self.view.misses

    def four_letter_word(self, conn: Connection, word: str, rest: bytes) -> None:
        """Answer a four-letter word and close."""
        words.answer(self, conn, word, rest)

    # -- lives, ticks --------------------------------------------------------------------------

    def _lives(self, lives: dict[str, int]) -> None:
        """Connect to the present lives of the peer and of storage."""
        life = lives.get("storage", 0)
        if life and (self.storage is None or self.storage.life < life):
            if self.storage is not None:
                self.storage.close()
            self.storage = Outbox(self.context, self.child.runtime_dir, "storage", life)
            self.storage.send((JOIN, self.child.name, self.child.life, []))
        life = lives.get("peer", 0)
        if life and (self.peer is None or self.peer.life < life):
            if self.peer is not None:
                self.peer.close()
            self.peer = Outbox(self.context, self.child.runtime_dir, "peer", life)
            self._join_peer()
        for name, life in lives.items():
            if name.startswith("frontend") and name != self.child.name:
                old = self.siblings.get(name)
                if old is None or old.life < life:
                    if old is not None:
                        old.close()
                        self.admission.others(name, {})
                    self.siblings[name] = Outbox(
                        self.context, self.child.runtime_dir, name, life
                    )
                    self.tell_all_counts = True

    def _join_peer(self) -> None:
        if self.peer is not None:
            self._requests.clear()
            living = [(c.number, c.session, c.identities) for c in self.sessions.values()]
            self.peer.send((JOIN, self.child.name, self.child.life, living))

    def lapsed(self) -> None:
        """The grant has run out: nothing may be answered any more."""
        self._on_inbox()  # perhaps a new one has only been waiting
        if monotonic() <= self.deadline:
            return
        self.serving = False
        if self.connections:
            self.log.warning("grant.lapsed", connections=len(self.connections))
        for conn in list(self.connections.values()):
            conn.close("the server is not serving")

    def tick(self) -> None:
        """Every quarter of a second at most: touches, sign of life, sessionless connections."""
        now = monotonic()
        self.child.alive(now)
        if self.serving and now > self.deadline:
            self.lapsed()
        if self.peer is not None:
            touches = [(c.session, int(c.heard * 1000)) for c in self.touched if c.session]
            self.touched.clear()
            self.peer.send((TOUCH, self.child.life, int(now * 1000), touches))
        if self.siblings:
            counts = self.admission.news()
            if self.tell_all_counts and counts is None:
                counts = dict(self.admission.counter.own())
            if counts is not None:
                self.tell_all_counts = False
                for sibling in self.siblings.values():
                    sibling.send((COUNTS, self.child.name, counts))
        limit = self.config.sessionless_cnxn_timeout / 1000
        for conn in [c for c in self.fresh if now - c.heard > limit]:
            self.metrics.counter("sessionless_connections_expired").value += 1
            conn.close("no session in time")
        if self.child.stopping:
            self.stop()
            return
        self.loop.call_later(self._tick_s, self.tick)

    # -- beginning and end ---------------------------------------------------------------------

    def start(self) -> None:
        """Take up the bus; clients are let in once the peer has begun."""
        child = self.child
        self._tick_s = max(0.05, min(0.25, self.config.tick_time / 8000))
        self.loop.add_reader(self.inbox.fd, self._on_inbox)
        self.loop.add_reader(child.control.fileno(), self._on_control)
        self._on_control()
        self._on_inbox()
        self.tick()

    def _on_control(self) -> None:
        try:
            self.child.read_control()
        except BaseException:
            self.loop.stop()
            raise
        if self.child.stopping:
            self.stop()

    def _start_server(self) -> None:
        assert self.child.listener is not None

        async def serve() -> None:
            self._server = await self.loop.create_server(
                lambda: Connection(self), sock=self.child.listener
            )
            self.child.ready()

        self._server_task = self.loop.create_task(serve())

    def stop(self) -> None:
        """Let no one in any more; end once what is in flight has been answered (or soon)."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self._stop_by = monotonic() + 0.3
        self._stop_soon()

    def _stop_soon(self) -> None:
        if self.in_flight > 0 and monotonic() < self._stop_by:
            self.loop.call_later(0.01, self._stop_soon)
            return
        for conn in list(self.connections.values()):
            conn.flush()
            conn.close("the server stops")
        self.loop.call_later(0.02, self.loop.stop)


def _echo(body: bytes) -> bytes:
    """SyncResponse: the path as it came; what cannot be read is null."""
    size = int.from_bytes(body[:4], "big", signed=True)
    if len(body) < 4 or size < -1 or 4 + size > len(body):
        raise ClientRefusal(Err.MARSHALLING_ERROR)
    return body[: 4 + max(size, 0)]


def main(child: Child) -> None:
    """The life of a front-end process."""
    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    failure: list[BaseException] = []

    def failed(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        conn = context.get("protocol")
        if isinstance(conn, Connection):  # one client's request: it alone pays
            frontend.log.error("client.failed", client=conn.peer, error=repr(context["exception"]))
            conn.close("internal error")
            return
        failure.append(context.get("exception") or RuntimeError(context["message"]))
        loop.stop()

    loop.set_exception_handler(failed)
    frontend = FrontEnd(child, loop)
    frontend.start()
    loop.run_forever()
    if failure:
        raise failure[0]
