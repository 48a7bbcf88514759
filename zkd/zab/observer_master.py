"""A follower that serves observers: to them it is the leader.

    informed <= delivered: an observer hears what is committed and durable here, nothing else
    what an observer asks for goes to the leader as this server's own, and the answers come back in
    the order of the questions

It waits for no quorum: its epoch stands. An observer is brought up to date from this server's own
log and tree, then gets an INFORM for each transaction that is delivered here. Bodies are kept from
the proposal until then. What an observer touches, this server has touched.

An observer that comes from a faster follower may be ahead of this one, within the epoch: all that
it has is committed, so it waits until this server has delivered as much. (Apache ZooKeeper's would
tell it to truncate.)

Source: `ObserverMaster.java`; spec zab-quorum-protocol section 10.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from zkd.jute.codec import Malformed
from zkd.jute.protocol import Op
from zkd.jute.quorum import (
    PROTOCOL_VERSION,
    Kind,
    LearnerInfo,
    Packet,
    designate,
    name,
    read_request,
    read_revalidate,
    read_touches,
    revalidated,
)
from zkd.zab.faults import DriverFault, PeerFault
from zkd.zab.inputs import Txn
from zkd.zab.learner_link import FORWARDING, REPLY_DUE, LearnerLink, LinkPhase
from zkd.zab.outputs import Close, SendHistory, SendInforms, SendPackets, SendSnapshot, Touched
from zkd.zab.state import State
from zkd.zab.synchronise import decide
from zkd.zab.zxid import counter_of, epoch_of, text

_VERSION_DATA = PROTOCOL_VERSION.to_bytes(4, "big")

Ask = Callable[[Packet, int, bool], None]
"""Hand a packet of a connection on to the leader; True: it is a sync, to be answered in order."""


class ObserverMaster:
    """Steps for the observers of a follower that serves; writes to `state.out`."""

    def __init__(self, state: State, epoch: int, ask: Ask) -> None:
        self.state = state
        self.epoch = epoch
        self.links: dict[int, LearnerLink] = {}
        self._ask = ask
        self._informed = state.positions.delivered
        self._bodies: dict[int, bytes] = {}
        self._activations: dict[int, int] = {}  # zxid of a reconfiguration: who leads then
        self._asked: list[tuple[int, int]] = []  # (session, connection) of REVALIDATE
        self._next_ping_ms = state.now_ms + state.settings.tick_ms // 2

    # ---- from the leader

    def proposed(self, txns: Sequence[Txn]) -> None:
        self._bodies.update(txns)

    def activated(self, zxid: int, leader: int) -> None:
        self._activations[zxid] = leader

    def delivered(self) -> None:
        """This server has delivered more: the observers hear of it."""
        upto, bodies = self.state.positions.delivered, self._bodies
        txns: list[Txn] = []
        while bodies:
            zxid = next(iter(bodies))
            if zxid > upto:
                break
            txns.append((zxid, bodies.pop(zxid)))
        self._informed = max(self._informed, upto)
        conns = [link.conn for link in self.links.values() if link.phase in FORWARDING]
        run: list[Txn] = []
        for txn in txns:
            leader = self._activations.pop(txn[0], None)
            if leader is None:
                run.append(txn)
                continue
            self._inform(conns, run)
            run = []
            packet = (Kind.INFORM_AND_ACTIVATE, txn[0], designate(leader, txn[1]), None)
            for conn in conns:
                self.state.out.append(SendPackets(conn, (packet,)))
        self._inform(conns, run)
        for link in list(self.links.values()):
            if link.phase is LinkPhase.READY and link.last_zxid <= upto:
                self._try_to_synchronise(link)

    def _inform(self, conns: list[int], txns: list[Txn]) -> None:
        if conns and txns:
            self.state.out.append(SendInforms(conns, txns))

    def revalidated(self, session: int, valid: bool) -> bool:
        """The leader's answer; True if it was for an observer."""
        for asked in self._asked:
            if asked[0] == session:
                self._asked.remove(asked)
                packet = (Kind.REVALIDATE, -1, revalidated(session, valid), None)
                if asked[1] in self.links:
                    self.state.out.append(SendPackets(asked[1], (packet,)))
                return True
        return False

    def synced(self, conn: int) -> None:
        if conn in self.links:
            self.state.out.append(SendPackets(conn, ((Kind.SYNC, 0, None, None),)))

    # ---- observers

    def accepted(self, conn: int) -> None:
        settings, now = self.state.settings, self.state.now_ms
        self.links[conn] = LearnerLink(conn, now + settings.init_ms, now)

    def received(self, conn: int, packets: Sequence[Packet]) -> None:
        link = self.links.get(conn)
        if link is None:
            return
        try:
            for packet in packets:
                if link.phase is LinkPhase.LIVE:
                    self._live(link, packet)
                else:
                    self._handshake(link, packet)
        except (PeerFault, Malformed) as fault:
            self._drop(link, str(fault))

    def _handshake(self, link: LearnerLink, packet: Packet) -> None:
        kind, zxid, data, _ = packet
        if link.phase is LinkPhase.INFO and kind == Kind.OBSERVER_INFO:
            info = LearnerInfo.read(data)
            if info.config_version > self.state.committed.version:
                raise PeerFault("the observer's configuration is newer")
            link.sid, link.observer = info.sid, True
            self._send(link, (Kind.LEADER_INFO, self.epoch << 32, _VERSION_DATA, None))
            self._expect(link, LinkPhase.ACK_EPOCH, self.state.settings.init_ms)
        elif link.phase is LinkPhase.ACK_EPOCH and kind == Kind.ACK_EPOCH:
            link.last_zxid = zxid
            if zxid > self._informed and epoch_of(zxid) == self.epoch:
                self._expect(link, LinkPhase.READY, 0)
            else:
                self._synchronise(link)
        elif link.phase is LinkPhase.SYNC and kind == Kind.ACK:
            self._send(link, (Kind.UP_TO_DATE, -1, None, None))
            link.sync = None
            self._expect(link, LinkPhase.LIVE, self.state.settings.sync_ms)
        else:
            raise PeerFault(f"{name(kind)} while {link.phase.name} is under way")

    def _try_to_synchronise(self, link: LearnerLink) -> None:
        try:
            self._synchronise(link)
        except PeerFault as fault:
            self._drop(link, str(fault))

    def _synchronise(self, link: LearnerLink) -> None:
        state, settings = self.state, self.state.settings
        end = self._informed
        decision = decide(
            link.last_zxid,
            state.history,
            end,
            max(end, self.epoch << 32),
            rows_max=settings.diff_rows_max,
            force_snapshot=settings.force_snapshot,
        )
        snap = decision.kind == Kind.SNAP
        limit = settings.snap_syncs_max if snap else settings.diff_syncs_max
        link.begins_sync(decision.kind, self.links.values(), limit)
        if snap:
            link.sending = True
            self._expect(link, LinkPhase.SNAPSHOT, 0)
            state.out.append(SendSnapshot(link.conn))
            return
        self._send(link, (decision.kind, decision.zxid, None, None))
        self._go_on_from(link, decision.after)

    def snapshot_started(self, conn: int, zxid: int) -> None:
        link = self.links.get(conn)
        if link is not None:
            if zxid > self._informed:
                raise DriverFault(f"the snapshot is at {text(zxid)}, which is not delivered")
            self._go_on_from(link, zxid)

    def sent(self, conn: int) -> None:
        link = self.links.get(conn)
        if link is not None:
            link.sending = False
            if link.phase is LinkPhase.SYNC:
                self._expect(link, LinkPhase.SYNC, self.state.settings.init_ms)

    def _go_on_from(self, link: LearnerLink, after: int) -> None:
        if after < self._informed:
            link.sending = True
            self.state.out.append(SendHistory(link.conn, after, self._informed))
        config = self.state.last_seen.text().encode()
        self._send(link, (Kind.NEW_LEADER, self.epoch << 32, config, None))
        self._expect(link, LinkPhase.SYNC, self.state.settings.init_ms)

    def _live(self, link: LearnerLink, packet: Packet) -> None:
        kind, zxid, data, _ = packet
        link.reply_ms = self.state.now_ms + self.state.settings.sync_ms
        if kind == Kind.REQUEST:
            sync = read_request(data)[2] == Op.SYNC
            self._ask(packet, link.conn, sync)
        elif kind == Kind.REVALIDATE:
            self._asked.append((read_revalidate(data)[0], link.conn))
            self._ask(packet, link.conn, False)
        elif kind == Kind.PING:
            touches = read_touches(data)
            if touches:
                self.state.out.append(Touched(link.conn, touches))
        elif kind == Kind.ACK and counter_of(zxid):
            raise PeerFault("an observer acknowledges no proposal")

    def disconnected(self, conn: int) -> None:
        self.links.pop(conn, None)

    # ---- time

    def tick(self) -> None:
        now = self.state.now_ms
        for link in list(self.links.values()):
            if link.overdue(now):
                self._drop(link, f"silent while {link.phase.name} is under way")
        if now >= self._next_ping_ms:
            self._next_ping_ms = now + self.state.settings.tick_ms // 2
            for link in self.links.values():
                if link.phase in FORWARDING:
                    self._send(link, (Kind.PING, self._informed, None, None))

    def close(self, reason: str) -> None:
        for link in list(self.links.values()):
            self._drop(link, reason)

    def _expect(self, link: LearnerLink, phase: LinkPhase, within_ms: int) -> None:
        link.phase = phase
        link.reply_ms = self.state.now_ms + within_ms if phase in REPLY_DUE else None

    def _send(self, link: LearnerLink, packet: Packet) -> None:
        self.state.out.append(SendPackets(link.conn, (packet,)))

    def _drop(self, link: LearnerLink, reason: str) -> None:
        del self.links[link.conn]
        self.state.out.append(Close(link.conn, reason))
