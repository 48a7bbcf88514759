"""The learner that serves: a follower or an observer in the broadcast phase.

    a proposal is acknowledged only when it is durable, every one and in order
    delivered = min(told, logged)
    syncs are answered in their order, each when all that was told before it is delivered

Requests go to the leader as they are. A follower may serve observers (`observer_master.py`): their
questions go out between this server's own, and the answers find their way back by order.
Source: `Follower.java`, `Observer.java`, `SendAckRequestProcessor.java`; spec zab-quorum-protocol
section 8.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from zkd.jute.quorum import (
    Authinfo,
    Kind,
    Packet,
    name,
    read_long,
    read_revalidated,
    revalidate,
)
from zkd.zab.catch_up import CatchUp, Phase
from zkd.zab.faults import DriverFault
from zkd.zab.observer_master import ObserverMaster
from zkd.zab.outputs import (
    ReconfigCommitted,
    Revalidated,
    SendAcks,
    SendPing,
    Synced,
    Warned,
)
from zkd.zab.state import State

_Sync = tuple[int | None, int]
"""The observer's connection, or None and the tag of a client here."""


class Learner(CatchUp):
    """Steps of a server that follows or observes; writes to `state.out`."""

    def __init__(self, state: State, leader: int, *, observer: bool) -> None:
        super().__init__(state, leader, observer=observer)
        self._syncs: deque[_Sync] = deque()  # in the order they were asked
        self._answered: deque[tuple[int, _Sync]] = deque()  # with the zxid to be delivered first

    # ---- broadcast

    def _live(self, packet: Packet) -> None:
        kind, zxid, data, _ = packet
        if kind == Kind.PING:
            assert self.conn is not None
            self.state.out.append(SendPing(self.conn, zxid))
        elif kind == Kind.REVALIDATE:
            session, valid = read_revalidated(data)
            if self.master is None or not self.master.revalidated(session, valid):
                self.state.out.append(Revalidated(session, valid))
        elif kind == Kind.SYNC:
            self._sync_answered()
        else:
            self.state.out.append(Warned(f"leader {self.leader}: {name(kind)} is ignored"))

    def _activate(self, packet: Packet) -> None:
        """A reconfiguration is committed; for an observer its transaction comes along."""
        kind, zxid, data, authinfo = packet
        leader = read_long(data, name(kind))
        if self.master is not None:
            self.master.activated(zxid, leader)
        if kind == Kind.COMMIT_AND_ACTIVATE:
            self._stream([(Kind.COMMIT, zxid, None, authinfo)])
        else:
            assert data is not None
            self._stream([(Kind.INFORM, zxid, data[8:], authinfo)])
        self.state.out.append(ReconfigCommitted(zxid, leader))

    def appended(self) -> None:
        if self.phase is Phase.BROADCAST:
            self._acknowledge()
            self.state.deliver()
            self._delivered()

    def _acknowledge(self) -> None:
        logged = self.state.positions.logged
        if self.observer or logged <= self.acked:
            return
        assert self.conn is not None
        self.state.out.append(SendAcks(self.conn, self.acked + 1, logged))
        self.acked = logged

    def forward(self, requests: Sequence[tuple[bytes, Authinfo]]) -> None:
        self._must_serve()
        self._send(*[(Kind.REQUEST, -1, data, authinfo) for data, authinfo in requests])

    def sync(self, tag: int, data: bytes, authinfo: Authinfo) -> None:
        self._must_serve()
        self._syncs.append((None, tag))
        self._send((Kind.REQUEST, -1, data, authinfo))

    def revalidate(self, session: int, timeout_ms: int) -> None:
        self._must_serve()
        self._send((Kind.REVALIDATE, -1, revalidate(session, timeout_ms), None))

    def _must_serve(self) -> None:
        if self.phase is not Phase.BROADCAST:
            raise DriverFault("a request before this server serves")

    def _sync_answered(self) -> None:
        if not self._syncs:
            self.state.out.append(Warned(f"leader {self.leader}: SYNC that nobody asked for"))
            return
        self._answered.append((self.told, self._syncs.popleft()))
        self._answer_syncs()

    def _answer_syncs(self) -> None:
        delivered = self.state.positions.delivered
        while self._answered and self._answered[0][0] <= delivered:
            told, (conn, tag) = self._answered.popleft()
            if conn is None:
                self.state.out.append(Synced(tag, told))
            elif self.master is not None:
                self.master.synced(conn)

    def _delivered(self) -> None:
        if self.master is not None:
            self.master.delivered()
        self._answer_syncs()

    # ---- observers of this follower

    def _serve_observers(self) -> None:
        """From now on; the proposals under way are not delivered yet, and go to them then."""
        if not self.observer and self.state.settings.observer_master:
            self.master = ObserverMaster(self.state, self.epoch, self._ask)
            delivered = self.state.positions.delivered
            self.master.proposed([txn for txn in self._under_way if txn[0] > delivered])
        self._under_way = []

    def _ask(self, packet: Packet, conn: int, sync: bool) -> None:
        if sync:
            self._syncs.append((conn, 0))
        self._send(packet)

    def lease_ms(self) -> int:
        """Until when the leader counts as heard of."""
        return self.heard_ms + self.state.settings.sync_ms
