"""The peer of a server alone: what storage says is durable is committed.

It validates each request against the tree as it will be after all transactions handed out so far,
and hands the transactions of a drained batch to storage and to the front-ends in one message.

The peer opens an incarnation when it starts and when storage has restarted; what it still holds
above the durable zxid it hands on again, under the new number. After a failed append it forgets
what is not durable, tries again every second, and sessions do not expire meanwhile. Nor do they
while storage is away: reads go on, writes wait AWAY_S, then the connections that wait are closed
and writes are refused, until storage is back.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from zkd import failpoints
from zkd.bus.messages import (
    BEGIN,
    CLOSE_CONN,
    CONN_CLOSED,
    DURABLE,
    FAILED,
    GONE,
    IDENTITIES,
    JOIN,
    MOVED,
    OPEN,
    OPENED,
    QUERY,
    REATTACH,
    REFUSE,
    REQUESTS,
    TOUCH,
    TXNS,
    decode,
    encode,
)
from zkd.bus.sockets import Direct
from zkd.server.peer import (
    HAND_ON_AT,
    LOOK_S,
    PAUSE_S,
    RELEASE_PATHS,
    RETRY_S,
    PeerProcess,
)
from zkd.server.peer_sessions import Conn, FrontEndLink
from zkd.storage.log import LOG_NAME, LogReader

if TYPE_CHECKING:
    from zkd.server.process import Child

monotonic: Final = time.monotonic
OPENING: Final = 0
SERVING: Final = 1
FULL: Final = 2
AWAY_S: Final = 2.0
"""So long writes wait for a storage process that has died."""


class Alone(PeerProcess):
    """See the module's text."""

    def __init__(self, child: Child) -> None:
        super().__init__(child)
        self.state = OPENING
        self.waiting: list[tuple[FrontEndLink, list[Any]]] = []
        """Requests that came while no incarnation was open."""
        self.away_at = 0.0
        """Since when storage is away (OPENING)."""
        self.refusing = False
        """It is away for too long: writes are refused."""
        self.retry_at = 0.0
        self.handlers: dict[int, Callable[[tuple[Any, ...]], None]] = {
            OPENED: self._on_opened,
            FAILED: self._on_failed,
            DURABLE: self._on_durable,
            JOIN: self._on_join,
            TOUCH: self._on_touch,
            CONN_CLOSED: self._on_conn_closed,
            QUERY: self._on_query,
        }

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
                self.hand_on()
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
                    self.hand_on()
            else:
                handlers[message[0]](message)
            frame = recv()
            if not frame:
                break
        self.hand_on()

    def hand_on(self) -> None:
        """One message with the batch's transactions to storage and all front-ends."""
        self._answer()
        if self.batch:
            batch, self.batch = self.batch, []
            self._note_digest(batch)
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

    def _tick(self, now: float) -> None:
        """Grants, expiry, containers, retries: whatever the clock says is due."""
        for link, conn, answer in self.sessions.overdue(now):
            self.attach(link, conn, answer)
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
            self._work(now)
            self.hand_on()

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
        _, life, incarnation, durable = message[:4]
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
        self.hand_on()
        self.log.info(
            "peer.serving",
            incarnation=incarnation,
            zxid=hex(self.zxid),
            sessions=len(self.sessions),
        )

    def _load(self, durable: int) -> None:
        """The state at `durable`: the tree on disk, then the log above it."""
        began = monotonic()
        base = self.open_tree()
        self._took(tree := self.state_over(base))
        log = LogReader(self.config.data_log_dir / LOG_NAME)
        try:
            for _zxid, body in log.read(base.zxid, durable):
                tree.apply(body)
        finally:
            log.close()
        self.zxid = max(durable, base.zxid)
        self.metrics.loaded(base, tree, self.zxid, monotonic() - began)
        self.sessions.restart(tree.sessions, monotonic())
        for link in self.frontends.values():
            self._adopt(link)

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
            self.rebase()

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
            self.hand_on()
            self._begin(link, list(self.held), forget=False)
        elif self.state == FULL or self.refusing:
            self._begin(link, [], forget=True)

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

    def _writes(self) -> int:
        if self.state == FULL or self.refusing:
            return REFUSE
        return super()._writes()

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

    def _handle_full(self, link: FrontEndLink, items: list[Any]) -> None:
        """Requests while nothing can be appended: re-attaching works, writes end the connection."""
        for number, xid, op, payload in items:
            if op in (REATTACH, GONE, IDENTITIES):
                self.connection_item(link, number, xid, op, payload)
            else:
                link.answers.append((number, xid, 0, MOVED, "the server cannot write"))

    @property
    def accepting(self) -> bool:
        return self.state == SERVING

    @property
    def serving(self) -> bool:
        return self.tree is not None

    def seen_zxid(self) -> int:
        return self.zxid if self.state == SERVING else self.durable

def run(child: Child) -> None:
    """The life of the process."""
    Alone(child).run()
