"""A member's front-ends: what they are handed, told to be committed, and ask for.

    begun => a role serves, the tree is loaded, every front-end has been told BEGIN
    announced = the last COMMITTED that storage and front-ends were told

Before a COMMITTED go the answers that stand before it in their clients' order. Whatever a role that
is over was asked is lost: its clients' connections are closed.
"""

from __future__ import annotations

from abc import abstractmethod
from time import monotonic
from typing import TYPE_CHECKING, Any

from zkd import failpoints
from zkd.bus.messages import (
    BEGIN,
    CLOSE_CONN,
    COMMITTED,
    GRANT,
    NO_GRANT,
    REFUSE,
    TXNS,
    encode,
)
from zkd.server.member.leading import Leading
from zkd.server.member.learning import Learning
from zkd.server.member.sessions import MemberSessions
from zkd.server.peer import PeerProcess
from zkd.server.peer_sessions import FrontEndLink
from zkd.zab.inputs import Input, Propose

if TYPE_CHECKING:
    from zkd.server.member.disk import Disk
    from zkd.server.process import Child
    from zkd.tree.apply import Applied
    from zkd.zab.peer import Peer


class Served(PeerProcess):
    """See the module's text."""

    sessions: MemberSessions
    disk: Disk

    def __init__(self, child: Child) -> None:
        super().__init__(child)
        self.core: Peer | None = None
        self.service: Leading | Learning | None = None
        """Of the role that serves."""
        self.begun = False
        self.announced = 0
        self.committed = 0
        """What the core has said last; `announced` follows."""
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
        if isinstance(self.service, Learning) or self.config.leader_serves:
            self.begun = True
            for link in self.frontends.values():
                self._begin(link)
        self.service.go_on()

    def end_service(self) -> None:
        """Serve nobody."""
        self.service = None
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
        if self.committed <= self.announced:
            self._answer()
            return
        if isinstance(self.service, Learning):
            self.service.before_commit(self.committed)
        self._answer()
        zxid = self.announced = self.committed
        held = self.held
        while held and held[0][0] <= zxid:
            held.popleft()
        frame = encode((COMMITTED, self.incarnation, zxid))
        assert self.storage is not None
        if self.begun:
            for link in self.frontends.values():
                link.outbox.send_frame(frame)
        self.storage.send_frame(frame)

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
        frame = encode((TXNS, self.incarnation, self.seq, batch))
        self.seq += 1
        assert self.storage is not None
        failpoints.hit("peer.before-storage")
        self.storage.send_frame(frame)
        failpoints.hit("peer.after-storage")
        if self.begun:
            for link in self.frontends.values():
                link.outbox.send_frame(frame)
                failpoints.hit("peer.between-frontends")

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
        told = (self.child.life, self.announced, self.seq, False, self._deadline())
        begin = (BEGIN, self.incarnation, *told, self._writes(), False, list(self.held))
        link.outbox.send(begin)

    def _deadline(self) -> float:
        """Until when clients may be served, by the core's word."""
        lease_ms = self.core.lease_ms if self.core is not None else None
        return (lease_ms or 0) / 1000

    def _grant(self, now: float) -> None:
        if self.begun and self.tree is not None:
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
        if isinstance(self.service, Learning):
            self.service.handle(link, items)
        else:
            super()._handle(link, items)

    @property
    def accepting(self) -> bool:
        return self.begun

    @property
    def serving(self) -> bool:
        return self.begun

    def seen_zxid(self) -> int:
        return self.zxid if isinstance(self.service, Leading) else self.announced
