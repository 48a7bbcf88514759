"""The peer process: it gives transactions their order.

Alone it is the one server there is: it validates each request against the tree as it will be after
all transactions handed out so far, and hands the transactions of a drained batch to storage and to
the front-ends in one message. What storage says is durable is committed.

Incarnations: a number kept in log.db that grows with each OPEN. Everything on the bus carries it.
The peer opens one when it starts and when storage has restarted; what it still holds above the
durable zxid it hands on again, under the new number. After a failed append it forgets what is not
durable, tries again every second, and sessions do not expire meanwhile. Nor do they while storage
is away: reads go on, writes wait AWAY_S, then the connections that wait are closed and writes are
refused, until storage is back.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import zmq

from zkd import failpoints
from zkd.bus.messages import (
    ACCEPT,
    ANSWERS,
    ATTACHED,
    BEGIN,
    CLIENT_SESSION,
    CLOSE_CONN,
    CONN_CLOSED,
    DURABLE,
    FAILED,
    GONE,
    GRANT,
    HOLD,
    IDENTITIES,
    JOIN,
    MOVED,
    NEW_SESSION,
    OPEN,
    OPENED,
    QUERY,
    REATTACH,
    REFUSE,
    REFUSED,
    REJOIN,
    REPLY,
    REQUESTS,
    SYNCED,
    THROTTLED,
    TOUCH,
    TXNS,
    UNREADABLE,
    decode,
    encode,
)
from zkd.bus.sockets import Direct, Outbox
from zkd.jute.protocol import Op
from zkd.plugins import loader
from zkd.plugins.auth import AuthRegistry
from zkd.server import logs
from zkd.server.peer_metrics import PeerMetrics
from zkd.server.peer_sessions import Conn, FrontEndLink, Sessions
from zkd.server.settings import tree_settings
from zkd.storage.log import LOG_NAME, LogReader
from zkd.storage.tree import TreeReader, open_tree
from zkd.tree.containers import ContainerManager, ContainerSettings
from zkd.tree.prepare import Preparer
from zkd.tree.state import TreeState

if TYPE_CHECKING:
    from zkd.server.process import Child

monotonic: Final = time.monotonic
LOOK_S: Final = 0.02
"""So often the control channel and the clock are looked at."""
RELEASE_PATHS: Final = 32
"""So much of what is on disk now is forgotten in one turn of the loop."""
PAUSE_S: Final = 0.001
"""Between two such turns if nothing comes."""
HAND_ON_AT: Final = 32
"""So many transactions are handed on at once, also while more requests wait: storage need not."""
OPENING, SERVING, FULL = range(3)
RETRY_S: Final = 1.0
AWAY_S: Final = 2.0
"""So long writes wait for a storage process that has died."""
READER_CACHE_BYTES: Final = 4 << 20
DIGESTS_MAX: Final = 100
DIGEST_EVERY: Final = 128
"""One digest of 128 transactions is kept for the word `hash` (server/DataTree.java)."""


class Peer:
    """See the module's text."""

    def __init__(self, child: Child) -> None:
        config = child.config
        self.child = child
        self.config = config
        self.log = logs.get(child.name)
        plugins = loader.load(config.raw, "peer")
        self.registry = AuthRegistry(plugins, config.raw)
        self.settings = tree_settings(config)
        self.context: zmq.Context[Any] = zmq.Context()
        self.inbox = child.inbox(self.context)
        self.storage: Direct | None = None
        self.frontends: dict[int, FrontEndLink] = {}
        """By life."""
        self.state = OPENING
        self.incarnation = 0
        self.seq = 1
        self.zxid = 0
        self.durable = 0
        self.turn = 0
        self.held: deque[tuple[Any, ...]] = deque()
        """Transactions handed out and not yet durable."""
        self.waiting: list[tuple[FrontEndLink, list[Any]]] = []
        """Requests that came while no incarnation was open."""
        self.away_at = 0.0
        """Since when storage is away (OPENING)."""
        self.refusing = False
        """It is away for too long: writes are refused."""
        self.told = ACCEPT
        """What the last grant said of writes."""
        self.backlog = False
        """The tree's state has more to forget that is on disk now."""
        self.tree: TreeState | None = None
        self.sessions = Sessions(config)
        self.grace_s = config.min_session_timeout / 2000
        self.grant_every_s = min(config.tick_time / 2000, self.grace_s / 4)
        self.next_grant = 0.0
        self.next_tick = 0.0
        self.retry_at = 0.0
        self.began = monotonic()
        self.batch: list[tuple[Any, ...]] = []
        self.digests: deque[tuple[int, int]] = deque(maxlen=DIGESTS_MAX)
        self.metrics = PeerMetrics(self)
        plugins.faults.feed(self.metrics.counter_set("zkd_plugin_faults_total").add)
        self.handlers: dict[int, Callable[[tuple[Any, ...]], None]] = {
            OPENED: self._on_opened,
            FAILED: self._on_failed,
            DURABLE: self._on_durable,
            JOIN: self._on_join,
            TOUCH: self._on_touch,
            CONN_CLOSED: self._on_conn_closed,
            QUERY: self._on_query,
        }
        child.on_lives = self._lives

    # -- the loop ------------------------------------------------------------------------------

    def run(self) -> None:
        """Serve until told to stop."""
        child = self.child
        recv = self.inbox.recv
        child.read_control()
        child.ready()
        woke = look_at = monotonic()
        while not child.stopping:
            now = monotonic()
            self.sessions.stalled(now - woke)
            self.metrics.turned(now - woke)
            frame = recv(PAUSE_S if self.backlog else LOOK_S)
            woke = monotonic()
            self.sessions.stalled(woke - now - LOOK_S)
            if frame:
                self._drain(frame)
            if self.backlog and self.tree is not None:
                self.backlog = self.tree.release(RELEASE_PATHS)
                self._hand_on()
            if woke >= look_at:
                look_at = woke + LOOK_S
                child.read_control()
                self._tick(woke)

    def _drain(self, frame: bytes | memoryview) -> None:
        """Handle this and what else has arrived, then hand on what came of it."""
        recv = self.inbox.recv
        handlers = self.handlers
        while True:
            message = decode(frame)
            if message[0] == REQUESTS:
                self._requests(message[1], message[2], message[3])
                if len(self.batch) >= HAND_ON_AT:
                    self._hand_on()
            else:
                handlers[message[0]](message)
            frame = recv()
            if not frame:
                break
        self._hand_on()

    def _hand_on(self) -> None:
        """One message with the batch's transactions to storage and all front-ends.

        Before it go the answers that need none: whoever has a transaction has every answer that
        stands before it in its client's order.
        """
        for link in self.frontends.values():
            if link.answers:
                link.outbox.send((ANSWERS, self.incarnation, self.seq, link.answers))
                link.answers = []
        if self.batch:
            batch, self.batch = self.batch, []
            last = batch[-1][0]
            if last // DIGEST_EVERY != (batch[0][0] - 1) // DIGEST_EVERY and self.tree is not None:
                self.digests.append((last, self.tree.digest))
            self.held.extend(batch)
            frame = encode((TXNS, self.incarnation, self.seq, batch))
            self.seq += 1
            assert self.storage is not None
            failpoints.hit("peer.before-storage")
            self.storage.send_frame(frame)
            failpoints.hit("peer.after-storage")
            for link in self.frontends.values():
                link.outbox.send_frame(frame)
                failpoints.hit("peer.between-frontends")
            if self.preparer.refusals or self.preparer.quota_exceeded:
                self._log_refusals()
        if self.tree is not None and self._writes() != self.told:
            self._grant(monotonic())

    def _log_refusals(self) -> None:
        """Requests whose transaction would have been too large to be read again."""
        while self.preparer.refusals:
            refusal = self.preparer.refusals.popleft()
            conn = self.sessions.owners.get(refusal.session)
            self.log.warning(
                "request.too_large",
                session=hex(refusal.session & (1 << 64) - 1),
                frontend=conn.link.name if conn is not None else "",
                connection=conn.number if conn is not None else 0,
                opcode=refusal.op,
                path=refusal.path,
                bytes=refusal.size,
            )
        while self.preparer.quota_exceeded:
            over = self.preparer.quota_exceeded.popleft()
            self.log.warning(
                "quota.exceeded",
                per=over.prefix,
                session=hex(over.session & (1 << 64) - 1),
                path=over.path,
                quota=over.prefix,
                hard=over.hard,
            )
            namespace = over.prefix.split("/")[1]
            self.metrics.counter_set("quota_exceeded_error_per_namespace").add(namespace)

    def _tick(self, now: float) -> None:
        """Grants, expiry, containers, retries: whatever the clock says is due."""
        for link, conn, answer in self.sessions.overdue(now):
            self._attach(link, conn, answer)
        if now >= self.next_grant:
            self.next_grant = now + self.grant_every_s
            self.child.alive(now)
            self._grant(now)
        if now < self.next_tick:
            return
        self.next_tick = now + self.grant_every_s
        if self.state == FULL:
            self.sessions.postpone(now)
            if now >= self.retry_at:
                self.retry_at = now + RETRY_S
                self._open()
        elif self.state == OPENING:
            self.sessions.postpone(now)
            if self.tree is not None and not self.refusing and now - self.away_at > AWAY_S:
                self._refuse_writes()
        else:
            for session in self.sessions.expired(now, self.frontends.values()):
                self.metrics.session_expired()
                self.log.info("session.expired", session=hex(session & (1 << 64) - 1))
                self._close_session(session)
            assert self.tree is not None
            for path in self.containers.due(self.tree, int(now * 1000), int(time.time() * 1000)):
                request = self.containers.request(path)
                self._prepare(0, 0, 0, Op.DELETE_CONTAINER, request, 0, ())
            self._hand_on()

    # -- incarnations --------------------------------------------------------------------------

    def _lives(self, lives: dict[str, int]) -> None:
        """Storage has (another) life; front-ends may have ended theirs."""
        life = lives.get("storage", 0)
        new = self.storage is None or self.storage.life < life
        if self.state == SERVING and (new or not life):
            self.state = OPENING
            self.away_at = monotonic()
        if new and life:
            if self.storage is not None:
                self.storage.close()
            self.storage = Direct(self.inbox, self.child.runtime_dir, "storage", life)
            self._open()
        for link in list(self.frontends.values()):
            if lives.get(link.name, 0) > link.life:
                self._forget(link)

    def _refuse_writes(self) -> None:
        """Storage does not come back: nobody shall wait for it. What was handed out is kept, and
        is done first when it is back, as far as anyone can tell who was not answered."""
        self.refusing = True
        self.log.warning("storage.away", seconds=AWAY_S, held=len(self.held))
        self.waiting.clear()
        self.held = deque((zxid, 0, 0, 0, *rest) for zxid, _, _, _, *rest in self.held)
        for link in self.frontends.values():
            self._begin(link, [], forget=True)

    def _open(self) -> None:
        assert self.storage is not None
        self.storage.send((OPEN, self.child.life))

    def _on_opened(self, message: tuple[Any, ...]) -> None:
        """Storage has begun an incarnation: go on from its last durable zxid."""
        _, life, incarnation, durable, _tree_zxid, _generation = message
        if life != self.child.life:
            return
        self.incarnation, self.seq = incarnation, 1
        assert durable >= self.durable, "storage has lost what it said was durable"
        if self.tree is None or (not self.held and durable != self.zxid):
            self._load(durable)  # an append that was said to have failed may be there after all
        pending = list(self.held)
        while self.held and self.held[0][0] <= durable:
            self.held.popleft()
        self.durable = durable
        self.state = SERVING
        self.refusing = False
        if self.held:
            frame = encode((TXNS, incarnation, self.seq, list(self.held)))
            self.seq += 1
            assert self.storage is not None
            self.storage.send_frame(frame)
        failpoints.hit("peer.before-incarnation")
        for link in self.frontends.values():
            self._begin(link, pending, forget=False)
            failpoints.hit("peer.between-begins")
        waiting, self.waiting = self.waiting, []
        for link, items in waiting:
            if link.life in self.frontends:
                self._handle(link, items)
        self._hand_on()
        self.log.info(
            "peer.serving",
            incarnation=incarnation,
            zxid=hex(self.zxid),
            sessions=len(self.sessions),
        )

    def _load(self, durable: int) -> None:
        """The state at `durable`: the tree on disk, then the log above it."""
        began = monotonic()
        config = self.config
        base = self._open_tree()
        self.tree = TreeState(
            base,
            cache_bytes=config.cache_bytes // (config.frontends + 1) // 2,
            settings=self.settings,
        )
        log = LogReader(config.data_log_dir / LOG_NAME)
        try:
            for _zxid, body in log.read(base.zxid, durable):
                self.tree.apply(body)
        finally:
            log.close()
        self.zxid = max(durable, base.zxid)
        self.metrics.loaded(base, self.tree, self.zxid, monotonic() - began)
        self.preparer = Preparer(self.tree, self.settings, self.registry)
        self.prepare = self.preparer.prepare
        self.sessions.restart(self.tree.sessions, monotonic())
        for link in self.frontends.values():
            self._adopt(link)
        self.containers = ContainerManager(
            ContainerSettings(
                config.container_check_interval,
                config.container_max_per_minute,
                config.container_max_never_used_interval,
            ),
            self.settings,
            int(monotonic() * 1000),
        )

    def _on_failed(self, message: tuple[Any, ...]) -> None:
        """Storage cannot append: forget what is not durable, and wait for room."""
        _, life, _incarnation, durable, reason = message
        if life != self.child.life:
            return
        first = self.state != FULL
        self.state = FULL
        self.retry_at = monotonic() + RETRY_S
        if not first:
            return
        self.log.error("log.not_accepting", reason=reason, durable=hex(durable))
        self.batch.clear()
        self.held.clear()
        self.waiting.clear()
        self.refusing = False
        self._load(durable)
        self.durable = durable
        for link in self.frontends.values():
            link.answers = []
            self._begin(link, [], forget=True)

    def _on_durable(self, message: tuple[Any, ...]) -> None:
        _, incarnation, _seq, durable, _tree_zxid, turn = message
        if incarnation != self.incarnation or self.tree is None:
            return
        self.durable = durable
        held = self.held
        while held and held[0][0] <= durable:
            held.popleft()
        if turn != self.turn:
            self.turn = turn
            self._rebase()

    def _rebase(self) -> None:
        """The tree on disk has moved on: read from there, keep only what is above."""
        assert self.tree is not None
        old = self.tree.base
        self.tree.rebase(self._open_tree())
        self.backlog = True
        assert isinstance(old, TreeReader)
        old.close()

    def _open_tree(self) -> TreeReader:
        config = self.config
        return open_tree(
            config.data_dir,
            config.data_log_dir,
            cache_bytes=READER_CACHE_BYTES,
            told=self.metrics.damaged,
        )

    # -- front-ends ----------------------------------------------------------------------------

    def _on_join(self, message: tuple[Any, ...]) -> None:
        _, name, life, living = message
        for link in list(self.frontends.values()):
            if link.name == name and link.life != life:
                if link.life > life:
                    return
                self._forget(link)
        link = self.frontends.get(life) or self._link(name, life)
        link.living = living
        link.heard_ms = monotonic() * 1000
        if self.tree is not None:
            self._adopt(link)
        if self.state == SERVING:
            self._hand_on()
            self._begin(link, list(self.held), forget=False)
        elif self.state == FULL or self.refusing:
            self._begin(link, [], forget=True)

    def _link(self, name: str, life: int) -> FrontEndLink:
        link = FrontEndLink(name, life, Direct(self.inbox, self.child.runtime_dir, name, life))
        self.frontends[life] = link
        return link

    def _adopt(self, link: FrontEndLink) -> None:
        """Take over the connections that a front-end says it has."""
        for number, session, identities in link.living:
            conn = Conn(link, number, session, tuple(map(tuple, identities)))
            link.conns[number] = conn
            if not self.sessions.adopt(conn):
                link.outbox.send((CLOSE_CONN, number, "session is not known"))
        link.living = []

    def _begin(self, link: FrontEndLink, pending: list[Any], *, forget: bool) -> None:
        link.outbox.send(
            (
                BEGIN,
                self.incarnation,
                self.child.life,
                self.durable,
                self.seq,
                True,
                monotonic() + self.grace_s,
                self.state == SERVING,
                forget,
                pending,
            )
        )

    def _forget(self, link: FrontEndLink) -> None:
        """A front-end's life has ended: its sessions live on, with their full time."""
        del self.frontends[link.life]
        link.outbox.close()
        self.sessions.frontend_died(link, monotonic())
        for link_, conn, payload in self.sessions.waited_for(link):
            self._attach(link_, conn, payload)

    def _grant(self, now: float) -> None:
        if self.tree is None:
            return
        self.told = self._writes()
        frame = encode((GRANT, self.incarnation, now + self.grace_s, self.told))
        for link in self.frontends.values():
            link.outbox.send_frame(frame)

    def _writes(self) -> int:
        """What front-ends may do with writes now."""
        if self.state == FULL or self.refusing:
            return REFUSE
        assert self.tree is not None
        return ACCEPT if self.tree.pinned_bytes < self.config.cache_bytes // 4 else HOLD

    def _on_touch(self, message: tuple[Any, ...]) -> None:
        _, life, sent_ms, touches = message
        link = self.frontends.get(life)
        if link is None:
            return
        self.sessions.touched(link, sent_ms, touches)

    def _on_conn_closed(self, message: tuple[Any, ...]) -> None:
        _, life, number = message
        for link, conn, payload in self.sessions.closed(life, number):
            self._attach(link, conn, payload)

    def _on_query(self, message: tuple[Any, ...]) -> None:
        _, ident, what, (name, life) = message
        out = Outbox(self.context, self.child.runtime_dir, name, life)
        out.send((REPLY, ident, self.child.name, self.statistics(what)))
        out.close(linger_ms=500)

    # -- requests ------------------------------------------------------------------------------

    def _requests(self, life: int, sent_ms: int, items: list[Any]) -> None:
        link = self.frontends.get(life)
        limit_ms = self.config.throttled_op_wait_time
        if link is None:
            self._unknown(life)
        elif limit_ms and monotonic() * 1000 - sent_ms > limit_ms:
            self._throttle(link, items)
        elif self.state == SERVING:
            self._handle(link, items)
        elif self.state == OPENING and not self.refusing:
            self.waiting.append((link, items))
        else:
            self._handle_full(link, items)

    def _unknown(self, life: int) -> None:
        for name, present in self.child.lives.items():
            if present == life:
                out = Outbox(self.context, self.child.runtime_dir, name, life)
                out.send((REJOIN, self.incarnation))
                out.close(linger_ms=500)

    def _handle(self, link: FrontEndLink, items: list[Any]) -> None:
        """Requests of one front-end, in its order."""
        now_ms = int(time.time() * 1000)
        conns = link.conns
        owners = self.sessions.owners
        batch = self.batch
        prepare = self.prepare
        life = link.life
        for number, xid, op, payload in items:
            if op < 0 and op != Op.CLOSE_SESSION:
                self._connection_item(link, number, xid, op, payload)
                continue
            conn = conns.get(number)
            if conn is None:
                continue
            session = conn.session
            if owners.get(session) is not conn:
                link.answers.append((number, xid, self.zxid, MOVED, "session moved or expired"))
                continue
            if op == Op.SYNC:
                link.answers.append((number, xid, self.zxid, SYNCED, None))
                continue
            zxid = self.zxid = self.zxid + 1
            err, body, effects, results = prepare(
                op, payload, session, xid, conn.identities, zxid, now_ms
            )
            if not body:
                self.zxid = zxid - 1
                link.answers.append((number, xid, self.zxid, UNREADABLE, None))
                continue
            batch.append((zxid, life, number, xid, err, body, effects, results))
            if op == Op.CLOSE_SESSION:
                self.sessions.close(session)

    def _throttle(self, link: FrontEndLink, items: list[Any]) -> None:
        """Requests that have waited too long: those of sessions are done, the rest is not."""
        for item in items:
            if item[2] > 0:
                link.answers.append((item[0], item[1], self.zxid, THROTTLED, None))
            else:
                self._handle(link, [item])

    def _handle_full(self, link: FrontEndLink, items: list[Any]) -> None:
        """Requests while nothing can be appended: re-attaching works, writes end the connection."""
        for number, xid, op, payload in items:
            if op in (REATTACH, GONE, IDENTITIES):
                self._connection_item(link, number, xid, op, payload)
            else:
                link.answers.append((number, xid, 0, MOVED, "the server cannot write"))

    def _prepare(
        self, life: int, number: int, xid: int, op: int, payload: Any, session: int, identities: Any
    ) -> tuple[Any, ...]:
        """Make one transaction that no client's ordinary request asked for."""
        self.zxid += 1
        err, body, effects, results = self.prepare(
            op, payload, session, xid, identities, self.zxid, int(time.time() * 1000)
        )
        txn = (self.zxid, life, number, xid, err, body, effects, results)
        self.batch.append(txn)
        return txn

    def _close_session(self, session: int) -> None:
        """The server itself ends a session."""
        self._prepare(0, 0, 0, Op.CLOSE_SESSION, b"", session, ())
        self.sessions.close(session)

    def _connection_item(
        self, link: FrontEndLink, number: int, xid: int, op: int, payload: Any
    ) -> None:
        if op == NEW_SESSION:
            self._new_session(link, number, *payload)
        elif op == REATTACH:
            session, password, timeout_ms, identities = payload
            conn = Conn(link, number, session, tuple(map(tuple, identities)))
            link.conns[number] = conn
            self._reattach(link, conn, session, password, timeout_ms)
        elif op == CLIENT_SESSION:
            self._client_session(link, number, xid, payload)
        elif op == IDENTITIES:
            if number in link.conns:
                link.conns[number].identities = tuple(map(tuple, payload))
        elif op == GONE:
            gone = link.conns.pop(number, None)
            if gone is not None:
                self.sessions.gone(gone)
            for link_, conn_, payload_ in self.sessions.closed(link.life, number):
                self._attach(link_, conn_, payload_)

    def _new_session(
        self, link: FrontEndLink, number: int, timeout_ms: int, identities: Any
    ) -> None:
        session, timeout_ms, password = self.sessions.new(timeout_ms)
        conn = Conn(link, number, session, tuple(map(tuple, identities)))
        link.conns[number] = conn
        self.sessions.create(session, timeout_ms, conn, monotonic())
        payload = timeout_ms.to_bytes(4, "big")
        txn = self._prepare(link.life, number, 0, Op.CREATE_SESSION, payload, session, ())
        self.batch[-1] = (*txn[:7], (session, timeout_ms, password))

    def _client_session(self, link: FrontEndLink, number: int, xid: int, body: bytes) -> None:
        """createSession sent by a client: a transaction for the session that it has."""
        conn = link.conns.get(number)
        if conn is None or self.sessions.owners.get(conn.session) is not conn:
            link.answers.append((number, xid, self.zxid, MOVED, "session moved or expired"))
        elif len(body) < 4:
            link.answers.append((number, xid, self.zxid, UNREADABLE, None))
        else:
            timeout = body[:4]
            self._prepare(link.life, number, xid, Op.CREATE_SESSION, timeout, conn.session, ())

    def _reattach(
        self, link: FrontEndLink, conn: Conn, session: int, password: bytes, timeout_ms: int
    ) -> None:
        """The old connection is closed first, even if the password is wrong (gotchas, 1)."""
        old = self.sessions.owners.get(session)
        answer = self.sessions.reattach(conn, session, password, timeout_ms, monotonic())
        if old is None or old is conn:
            self._attach(link, conn, answer)
            return
        old.link.outbox.send((CLOSE_CONN, old.number, "client_reconnect"))
        if old.link is link:
            self._attach(link, conn, answer)
        else:
            self.sessions.wait(old, link, conn, answer, monotonic())

    def _attach(
        self, link: FrontEndLink, conn: Conn, answer: tuple[int, int, bytes] | None
    ) -> None:
        if answer is None:
            link.answers.append((conn.number, 0, 0, REFUSED, None))
        else:
            zxid = self.zxid if self.state == SERVING else self.durable
            link.answers.append((conn.number, 0, zxid, ATTACHED, answer))

    @property
    def accepting(self) -> bool:
        """May a write be accepted now?"""
        return self.state == SERVING

    def statistics(self, what: dict[str, Any]) -> dict[str, Any]:
        """What four-letter words and metrics are made of (see fourletter.py)."""
        from zkd.server import peer_statistics

        return peer_statistics.collect(self, what)


def main(child: Child) -> None:
    """The life of the peer process."""
    Peer(child).run()
