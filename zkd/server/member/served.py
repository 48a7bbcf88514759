"""A member's front-ends: what they are handed, told to be committed, and ask for.

    begun => a role serves, the tree is loaded, every front-end has been told BEGIN
    announced = the last COMMITTED that front-ends were told; storage hears it a little later

A front-end gets transactions together with the word that they are committed: it can do nothing with
them before, and each message costs a wake-up. Before go the answers that stand before them in their
clients' order. Whatever a role that is over was asked is lost: its clients' connections are closed.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from zkd import failpoints
from zkd.bus.messages import (
    BEGIN,
    CLOSE_CONN,
    COMMITTED,
    DENIED,
    GRANT,
    NO_GRANT,
    READ_ONLY,
    REFUSE,
    SESSION_CLOSED,
    TXNS,
    encode,
)
from zkd.jute.protocol import Err, Op
from zkd.server.member import local
from zkd.server.member.cut_off import CutOff
from zkd.server.member.leading import Leading
from zkd.server.member.learning import Learning
from zkd.server.member.local import LocalClients
from zkd.server.member.sessions import MemberSessions
from zkd.server.peer import PeerProcess
from zkd.server.peer_sessions import FrontEndLink
from zkd.zab.inputs import Input, Propose

STORAGE_AFTER_S: Final = 0.01
"""By so much storage may hear later than clients what is committed."""

if TYPE_CHECKING:
    import asyncio

    from zkd.server.member.disk import Disk
    from zkd.server.process import Child
    from zkd.tree.apply import Applied
    from zkd.zab.peer import Peer


class Served(PeerProcess):
    """See the module's text."""

    sessions: MemberSessions
    disk: Disk

    def __init__(self, child: Child, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        super().__init__(child)
        self.core: Peer | None = None
        self.service: Leading | Learning | CutOff | None = None
        """Of the role that serves."""
        self.local_clients = LocalClients(self)
        self.begun = False
        self.announced = 0
        self.committed = 0
        """What the core has said last; `announced` follows."""
        self._queue: deque[tuple[int, int, bytes]] = deque()
        """First and last zxid, and frame, of what front-ends get when it begins to be committed."""
        self._queued_after = 0
        """Front-ends have everything handed out up to here, the queue begins above."""
        self.storage_told = 0
        self._telling: asyncio.TimerHandle | None = None
        self.stepping = False
        """Outputs of a step are being carried out."""

    def _make_sessions(self) -> MemberSessions:
        return MemberSessions(self.config)

    @abstractmethod
    def feed(self, *events: Input) -> None:
        """Step the core; what comes of it is stepped before this returns."""

    # -- beginning and end of service ----------------------------------------------------------

    def begin_service(self) -> None:
        """Serve clients and learners: a role serves, the tree is there."""
        assert self.service is not None
        self.service.begin()
        self.flush()
        if not isinstance(self.service, Leading) or self.config.leader_serves:
            self.begun = True
            self._queued_after = self.held[-1][0] if self.held else self.announced
            for link in self.frontends.values():
                self._begin(link)
        self.service.go_on()

    def end_service(self) -> None:
        """Serve nobody."""
        self.service = None
        self._queue.clear()
        if self.begun:
            self.begun = False
            frame = encode((GRANT, self.incarnation, NO_GRANT, REFUSE))
            for link in self.frontends.values():
                link.outbox.send_frame(frame)
        for link in self.frontends.values():
            link.conns.clear()
            link.answers = []
        self.sessions.rest()
        if self.batch or self.disk.prepared:  # the tree has what will never be in the log
            self.batch.clear()
            self.disk.reload()

    # -- handing out ---------------------------------------------------------------------------

    def flush(self) -> None:
        """Tell what is committed, and before it the answers that come before it in their clients'
        order."""
        if isinstance(self.service, Learning):
            self.service.before_commit(self.committed)
        self._answer()
        if self.committed <= self.announced:
            return
        zxid = self.announced = self.committed
        held = self.held
        while held and held[0][0] <= zxid:
            held.popleft()
        if self.begun:
            self._hand_committed(zxid)
        if self._telling is None:
            self._telling = self.loop.call_later(STORAGE_AFTER_S, self._tell_storage)

    def _hand_committed(self, zxid: int) -> None:
        """The transactions and the word that they are committed, at once."""
        queue, frames = self._queue, []
        while queue and queue[0][0] <= zxid:
            _, self._queued_after, frame = queue.popleft()
            frames.append(frame)
        self.seq += len(frames)
        frames.append(encode((COMMITTED, self.incarnation, zxid)))
        for link in self.frontends.values():
            link.outbox.send_frames(frames)
            failpoints.hit("peer.between-frontends")

    def _tell_storage(self) -> None:
        """It takes what is committed into the tree: no client waits for that."""
        self._telling = None
        if self.announced > self.storage_told and self.storage is not None and self.core:
            self.storage_told = self.announced
            self.storage.send((COMMITTED, self.incarnation, self.announced))

    def _answer(self) -> None:
        """An answer of a leader's first moments waits for no transaction of its epoch."""
        tree = self.tree
        if tree is not None and self.zxid > tree.zxid:
            for link in self.frontends.values():
                link.answers = [(n, x, min(z, tree.zxid), *rest) for n, x, z, *rest in link.answers]
        super()._answer()

    def hand_on(self) -> None:
        """Answers, then the batch to the core, which has it appended and proposed."""
        self._answer()
        if self.batch:
            batch, self.batch = self.batch, []
            self._note_digest(batch)
            self.disk.prepared.extend(batch)
            self.feed(Propose([(txn[0], txn[5]) for txn in batch]))
            if self.preparer.refusals or self.preparer.quota_exceeded:
                self._log_refusals()
        elif not self.stepping:
            self.flush()

    def hand_out(self, batch: list[tuple[Any, ...]]) -> None:
        """Transactions of the log, to storage and to the front-ends that serve."""
        self.held.extend(batch)
        frame = encode((TXNS, self.incarnation, self.seq + len(self._queue), batch))
        assert self.storage is not None
        failpoints.hit("peer.before-storage")
        self.storage.send_frame(frame)
        failpoints.hit("peer.after-storage")
        if self.begun:
            self._queue.append((batch[0][0], batch[-1][0], frame))

    def answered_by(self, applied: Applied) -> tuple[int, int, int, Any]:
        """Whose request this transaction of the leader's is."""
        if self.service is None:
            return 0, 0, 0, applied.results
        return self.service.answered_by(applied)

    # -- front-ends ----------------------------------------------------------------------------

    def _on_join(self, message: tuple[Any, ...]) -> None:
        _, name, life, living = message
        for link in list(self.frontends.values()):
            if link.name == name and link.life != life:
                if link.life > life:
                    return
                self._forget(link)
        link = self.frontends.get(life) or self._link(name, life)
        link.heard_ms = monotonic() * 1000
        for number, _session, _identities in living:
            link.outbox.send((CLOSE_CONN, number, "the server has begun anew"))
        if self.begun:
            self.hand_on()
            self._begin(link)

    def _begin(self, link: FrontEndLink) -> None:
        upto = -1 if isinstance(self.service, CutOff) else self._queued_after
        pending = [txn for txn in self.held if txn[0] <= upto]
        told = (self.child.life, self.announced, self.seq, False, self._deadline())
        begin = (BEGIN, self.incarnation, *told, self._writes(), False, pending)
        link.outbox.send(begin)

    def _deadline(self) -> float:
        """Until when clients may be served, by the core's word; of reads alone, by our own."""
        if isinstance(self.service, CutOff):
            return monotonic() + self.grace_s
        lease_ms = self.core.lease_ms if self.core is not None else None
        return (lease_ms or 0) / 1000

    def _writes(self) -> int:
        return READ_ONLY if isinstance(self.service, CutOff) else super()._writes()

    def _grant(self, now: float) -> None:
        if self.begun:
            self.told = self._writes()
            frame = encode((GRANT, self.incarnation, self._deadline(), self.told))
            for link in self.frontends.values():
                link.outbox.send_frame(frame)

    # -- requests ------------------------------------------------------------------------------

    def _requests(self, life: int, sent_ms: int, items: list[Any]) -> None:
        link = self.frontends.get(life)
        limit_ms = self.config.throttled_op_wait_time
        if link is None:
            self._unknown(life)
        elif not self.begun:
            return  # their connections are being closed
        elif limit_ms and monotonic() * 1000 - sent_ms > limit_ms:
            self._throttle(link, items)
        else:
            self._handle(link, items)

    def _handle(self, link: FrontEndLink, items: list[Any]) -> None:
        service = self.service
        if self.config.local_sessions_enabled and not isinstance(service, CutOff):
            items = self.local_clients.filter(link, items)
        if isinstance(service, Leading):
            super()._handle(link, items)
        elif service is not None:
            service.handle(link, items)

    def connection_item(
        self, link: FrontEndLink, number: int, xid: int, op: int, payload: Any
    ) -> None:
        conn = link.conns.get(number)
        if op not in local.OWN:
            super().connection_item(link, number, xid, op, payload)
        elif conn is None:
            return
        elif op == local.UPGRADE:
            self.sessions.create(conn.session, payload, conn, monotonic())
            timeout = payload.to_bytes(4, "big")
            self._prepare(0, 0, 0, Op.CREATE_SESSION, timeout, conn.session, ())
            self.sessions.local.committed(conn.session)
        elif op == local.END:
            self.sessions.end_local(conn.session)
            link.answers.append((number, xid, self.zxid, SESSION_CLOSED, None))
        else:
            code = Err.EPHEMERAL_ON_LOCAL_SESSION
            link.answers.append((number, xid, self.zxid, DENIED, code))

    @property
    def accepting(self) -> bool:
        return self.begun

    @property
    def serving(self) -> bool:
        return self.begun

    def seen_zxid(self) -> int:
        return self.zxid if isinstance(self.service, Leading) else self.announced
