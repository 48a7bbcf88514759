"""The peer process: it gives transactions their order. What it does in whatever role.

A server alone (`peer_alone.py`) and a member of an ensemble (`member/`) differ in who says what is
committed; they have in common the front-ends, their clients' sessions, and a tree that stands where
the last transaction will leave it: against that the requests of clients are validated, those of a
drained batch together.

    tree on disk <= durable <= zxid        held = handed out, above what is durable or committed

Incarnations: a number kept in log.db that grows with each OPEN. Everything on the bus carries it.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import deque
from typing import TYPE_CHECKING, Any, Final

import zmq

from zkd.bus.messages import (
    ACCEPT,
    ANSWERS,
    ATTACHED,
    CLIENT_SESSION,
    CLOSE_CONN,
    GONE,
    GRANT,
    HOLD,
    IDENTITIES,
    MOVED,
    NEW_SESSION,
    REATTACH,
    REFUSED,
    REJOIN,
    REPLY,
    SYNCED,
    THROTTLED,
    UNREADABLE,
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
RETRY_S: Final = 1.0
READER_CACHE_BYTES: Final = 4 << 20
DIGESTS_MAX: Final = 100
DIGEST_EVERY: Final = 128
"""One digest of 128 transactions is kept for the word `hash` (server/DataTree.java)."""


class PeerProcess(ABC):
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
        self.incarnation = 0
        self.seq = 1
        self.zxid = 0
        self.durable = 0
        self.turn = 0
        self.held: deque[tuple[Any, ...]] = deque()
        """Transactions handed out and not yet durable (alone) or committed (in an ensemble)."""
        self.told = ACCEPT
        """What the last grant said of writes."""
        self.backlog = False
        """The tree's state has more to forget that is on disk now."""
        self.tree: TreeState | None = None
        self.sessions = self._make_sessions()
        self.grace_s = config.min_session_timeout / 2000
        self.grant_every_s = min(config.tick_time / 2000, self.grace_s / 4)
        self.next_grant = 0.0
        self.next_tick = 0.0
        self.began = monotonic()
        self.batch: list[tuple[Any, ...]] = []
        self.digests: deque[tuple[int, int]] = deque(maxlen=DIGESTS_MAX)
        self.metrics = PeerMetrics(self)
        plugins.faults.feed(self.metrics.counter_set("zkd_plugin_faults_total").add)
        child.on_lives = self._lives

    # -- what the roles differ in --------------------------------------------------------------

    def _make_sessions(self) -> Sessions:
        return Sessions(self.config)

    @abstractmethod
    def _lives(self, lives: dict[str, int]) -> None:
        """The supervisor tells of (new) lives."""

    @abstractmethod
    def hand_on(self) -> None:
        """Hand out the answers, and the batch."""

    @property
    @abstractmethod
    def accepting(self) -> bool:
        """May a write be accepted now?"""

    @property
    @abstractmethod
    def serving(self) -> bool:
        """Are clients served?"""

    @abstractmethod
    def seen_zxid(self) -> int:
        """What whoever re-attaches now must see."""

    # -- the tree ------------------------------------------------------------------------------

    def _took(self, tree: TreeState) -> None:
        """Validate against this state from now on."""
        config = self.config
        self.tree = tree
        self.preparer = Preparer(tree, self.settings, self.registry)
        self.prepare = self.preparer.prepare
        self.containers = ContainerManager(
            ContainerSettings(
                config.container_check_interval,
                config.container_max_per_minute,
                config.container_max_never_used_interval,
            ),
            self.settings,
            int(monotonic() * 1000),
        )

    def state_over(self, base: TreeReader) -> TreeState:
        config = self.config
        cache_bytes = config.cache_bytes // (config.frontends + 1) // 2
        return TreeState(base, cache_bytes=cache_bytes, settings=self.settings)

    def rebase(self) -> None:
        """The tree on disk has moved on: read from there, keep only what is above."""
        assert self.tree is not None
        old = self.tree.base
        self.tree.rebase(self.open_tree())
        self.backlog = True
        assert isinstance(old, TreeReader)
        old.close()

    def open_tree(self) -> TreeReader:
        config = self.config
        return open_tree(
            config.data_dir,
            config.data_log_dir,
            cache_bytes=READER_CACHE_BYTES,
            told=self.metrics.damaged,
        )

    def _work(self, now: float) -> None:
        """Sessions and containers whose time has come."""
        assert self.tree is not None
        for session in self.sessions.expired(now, self.frontends.values()):
            self.metrics.session_expired()
            self.log.info("session.expired", session=hex(session & (1 << 64) - 1))
            self._close_session(session)
        for path in self.containers.due(self.tree, int(now * 1000), int(time.time() * 1000)):
            request = self.containers.request(path)
            self._prepare(0, 0, 0, Op.DELETE_CONTAINER, request, 0, ())

    def _note_digest(self, batch: list[tuple[Any, ...]]) -> None:
        """Keep one digest of many, for the word `hash`."""
        last = batch[-1][0]
        if last // DIGEST_EVERY != (batch[0][0] - 1) // DIGEST_EVERY and self.tree is not None:
            self.digests.append((last, self.tree.digest))

    def _log_refusals(self) -> None:
        """Requests whose transaction would have been too large to be read again."""
        while self.preparer.refusals:
            refusal = self.preparer.refusals.popleft()
            conn = self.sessions.owners.get(refusal.session)
            self.log.warning(
                "request.too_large",
                session=hex(refusal.session & (1 << 64) - 1),
                frontend=conn.link.name if isinstance(conn, Conn) else "",
                connection=conn.number if isinstance(conn, Conn) else 0,
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

    # -- front-ends ----------------------------------------------------------------------------

    def _link(self, name: str, life: int) -> FrontEndLink:
        link = FrontEndLink(name, life, Direct(self.inbox, self.child.runtime_dir, name, life))
        self.frontends[life] = link
        return link

    def _forget(self, link: FrontEndLink) -> None:
        """A front-end's life has ended: its sessions live on, with their full time."""
        del self.frontends[link.life]
        link.outbox.close()
        self.sessions.frontend_died(link, monotonic())
        for link_, conn, payload in self.sessions.waited_for(link):
            self.attach(link_, conn, payload)

    def _answer(self) -> None:
        """Hand out the answers that need no transaction: whoever has a transaction has every answer
        that stands before it in its client's order."""
        for link in self.frontends.values():
            if link.answers:
                link.outbox.send((ANSWERS, self.incarnation, self.seq, link.answers))
                link.answers = []

    def _grant(self, now: float) -> None:
        if self.tree is None:
            return
        self.told = self._writes()
        frame = encode((GRANT, self.incarnation, now + self.grace_s, self.told))
        for link in self.frontends.values():
            link.outbox.send_frame(frame)

    def _writes(self) -> int:
        """What front-ends may do with writes now."""
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
            self.attach(link, conn, payload)

    def _on_query(self, message: tuple[Any, ...]) -> None:
        _, ident, what, (name, life) = message
        out = Outbox(self.context, self.child.runtime_dir, name, life)
        out.send((REPLY, ident, self.child.name, self.statistics(what)))
        out.close(linger_ms=500)

    # -- requests ------------------------------------------------------------------------------

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
                self.connection_item(link, number, xid, op, payload)
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

    def connection_item(
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
                self.attach(link_, conn_, payload_)

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
        if not isinstance(old, Conn) or old is conn:
            self.attach(link, conn, answer)
            return
        old.link.outbox.send((CLOSE_CONN, old.number, "client_reconnect"))
        if old.link is link:
            self.attach(link, conn, answer)
        else:
            self.sessions.wait(old, link, conn, answer, monotonic())

    def attach(self, link: FrontEndLink, conn: Conn, answer: tuple[int, int, bytes] | None) -> None:
        if answer is None:
            link.answers.append((conn.number, 0, 0, REFUSED, None))
        else:
            link.answers.append((conn.number, 0, self.seen_zxid(), ATTACHED, answer))

    def statistics(self, what: dict[str, Any]) -> dict[str, Any]:
        """What four-letter words and metrics are made of (see fourletter.py)."""
        from zkd.server import peer_statistics

        return peer_statistics.collect(self, what) | self.role_statistics()

    def role_statistics(self) -> dict[str, Any]:
        """What the role adds to that."""
        return {}


def main(child: Child) -> None:
    """The life of the peer process."""
    if child.config.distributed:
        from zkd.server.member.process import run
    else:
        from zkd.server.peer_alone import run
    run(child)
