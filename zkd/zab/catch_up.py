"""A learner until it serves: promises, takes over the leader's history, is confirmed.

    CONNECTING -> DISCOVERY -> PROMISING -> HEAD -> (RECEIVING ->) SYNCING -> PERSISTING -> WAITING
    -> BROADCAST

    ACKEPOCH leaves only after acceptedEpoch is durable (PROMISING is over)
    NEWLEADER is acknowledged only after all that came before it and currentEpoch are durable
    told <= received: the leader's word, up to where its history is committed
    nothing is committed by this connection before UPTODATE

A leader that is not established yet sends all of its log as PROPOSAL and COMMIT: only UPTODATE says
that a quorum has it. It then confirms what this server had at DIFF, TRUNC or SNAP and every COMMIT
since; a proposal under way that came before NEWLEADER still waits for its own COMMIT.

After DIFF or TRUNC rows are handed to the disk as they come, also before NEWLEADER: a server that
crashes between holds a longer log under its old epoch, of a leader whose history held all that was
committed. After SNAP they are held back, and take their place with the snapshot and the epoch in
one step at NEWLEADER: the snapshot may be older than what this server has acknowledged.

Differences from Apache ZooKeeper: a gap between proposals ends the connection in every phase (the
log must have none); what a Java server leaves by exiting, this one leaves by closing.
Source: `Learner.java`, `Follower.java`, `Observer.java`; spec zab-quorum-protocol sections 7, 8.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Sequence

from zkd.config.servers import Membership, parse_membership
from zkd.jute.codec import Malformed
from zkd.jute.quorum import (
    Kind,
    LearnerInfo,
    Packet,
    name,
)
from zkd.zab.faults import DriverFault, PeerFault
from zkd.zab.inputs import Txn
from zkd.zab.observer_master import ObserverMaster
from zkd.zab.outputs import (
    Close,
    ConfigurationActivated,
    ConfigurationSeen,
    Connect,
    SendPackets,
    Serving,
)
from zkd.zab.state import State
from zkd.zab.votes import ServerState
from zkd.zab.zxid import epoch_of, is_new_epoch, text


class Phase(enum.Enum):
    CONNECTING = enum.auto()
    DISCOVERY = enum.auto()  # LEADERINFO is to come
    PROMISING = enum.auto()  # acceptedEpoch goes to the disk
    HEAD = enum.auto()  # DIFF, TRUNC or SNAP is to come
    RECEIVING = enum.auto()  # the snapshot is read
    SYNCING = enum.auto()  # NEWLEADER is to come
    PERSISTING = enum.auto()  # all of that and currentEpoch go to the disk
    WAITING = enum.auto()  # UPTODATE is to come
    BROADCAST = enum.auto()
    OVER = enum.auto()


_HEARING = {Phase.DISCOVERY, Phase.HEAD, Phase.SYNCING, Phase.WAITING, Phase.BROADCAST}
"""The leader may not be silent. In the others this server's own disk, or the driver, is awaited."""
_STREAM = {Phase.SYNCING, Phase.PERSISTING, Phase.WAITING, Phase.BROADCAST}
_SYNC_LIMIT = {Phase.PERSISTING, Phase.WAITING, Phase.BROADCAST}


class CatchUp(ABC):
    """Steps of a learner until it serves; writes to `state.out`.

    `over`: why it follows no more. `halt`: why this server cannot go on with its own state.
    """

    def __init__(self, state: State, leader: int, *, observer: bool) -> None:
        assert state.settled, "a learner knows what its log holds"
        self.state = state
        self.leader = leader
        self.observer = observer
        self.role = ServerState.OBSERVING if observer else ServerState.FOLLOWING
        self.phase = Phase.CONNECTING
        self.over: str | None = None
        self.halt: str | None = None
        self.conn: int | None = None
        self.head: int | None = None
        """How it is brought up to date: Kind.DIFF, TRUNC or SNAP, once the leader has said."""
        self.epoch = 0
        self.told = 0
        """COMMIT has come up to here; before UPTODATE it is not more than a promise."""
        self.acked = 0
        self.heard_ms = state.now_ms
        """When the leader was last heard of."""
        self._skip_upto = 0  # proposals that the snapshot holds already
        self._snapshot: int | None = None  # received, and not installed yet
        self._held: list[Txn] = []  # what follows it
        self._under_way: list[Txn] = []  # for the observers: not delivered at UPTODATE
        self._mark = 0  # what must be durable before NEWLEADER is acknowledged
        self._had_committed = state.positions.committed
        self._config: Membership | None = None
        self.master: ObserverMaster | None = None
        """For the observers of this follower, once it serves."""
        state.out.append(Connect(leader))

    # ---- discovery

    def connected(self, conn: int) -> None:
        if self.phase is not Phase.CONNECTING:
            raise DriverFault("a second connection to the leader")
        state = self.state
        self.conn = conn
        info = LearnerInfo(state.sid, config_version=state.committed.version).encode()
        kind = Kind.OBSERVER_INFO if self.observer else Kind.FOLLOWER_INFO
        self._send((kind, state.accepted << 32, info, None))
        self._enter(Phase.DISCOVERY)

    def _leader_info(self, packet: Packet) -> None:
        kind, zxid, _, _ = packet
        if kind != Kind.LEADER_INFO:
            raise PeerFault(f"{name(kind)} in place of LEADERINFO")
        state = self.state
        self.epoch = epoch_of(zxid)
        if self.epoch < state.accepted:
            raise PeerFault(f"epoch {self.epoch} is below the accepted {state.accepted}")
        if self.epoch == state.accepted:
            self._acknowledge_epoch(-1)
        else:
            self._enter(Phase.PROMISING)
            state.save_epochs(self.epoch, state.current)

    def _acknowledge_epoch(self, current: int) -> None:
        data = current.to_bytes(4, "big", signed=True)
        self._send((Kind.ACK_EPOCH, self.state.last_zxid, data, None))
        self._enter(Phase.HEAD)

    def epochs_saved(self) -> None:
        state = self.state
        if self.phase is Phase.PROMISING and state.accepted == self.epoch:
            self._acknowledge_epoch(state.current)
        elif self.phase is Phase.PERSISTING and state.current == self.epoch:
            if state.positions.logged < self._mark:
                raise DriverFault("epochs were saved before what was appended")
            self._send((Kind.ACK, self.epoch << 32, None, None))
            self._enter(Phase.WAITING)

    # ---- the leader's history

    def _head(self, packet: Packet) -> None:
        kind, zxid, _, _ = packet
        state, positions = self.state, self.state.positions
        self.head = kind
        if kind == Kind.SNAP:
            assert self.conn is not None
            self._enter(Phase.RECEIVING)
            state.receive_snapshot(self.conn, zxid)
            return
        if kind not in (Kind.DIFF, Kind.TRUNC):
            raise PeerFault(f"{name(kind)} in place of DIFF, TRUNC or SNAP")
        if not state.trusted:
            raise PeerFault(f"{name(kind)} where only a snapshot can help")
        if kind == Kind.TRUNC and zxid < positions.received and not self._truncate(zxid):
            return
        self.told = positions.received
        self._enter(Phase.SYNCING)

    def _truncate(self, zxid: int) -> bool:
        """Drop what the leader does not have; False: that cannot be done here."""
        state, committed = self.state, self.state.positions.committed
        if zxid < committed:
            self._behind(f"TRUNC to {text(zxid)}")
            return False
        known = zxid == committed or state.history.has(zxid)
        if is_new_epoch(zxid) and state.history.has(zxid + 1):
            # All of an epoch goes. What is below it came from that epoch's leader.
            zxid = max(state.history.floor(zxid) or 0, committed)
            known = True
        if not known:
            self._stop(f"TRUNC to {text(zxid)}, which is not in the log")
            return False
        state.truncate(zxid)
        return True

    def _behind(self, what: str) -> None:
        """The other side has less than is committed here. An observer may have come from a server
        that is ahead of it, in this very epoch; nothing else explains it."""
        committed = self._had_committed
        if self.observer and epoch_of(committed) == self.epoch:
            raise PeerFault(f"{what}, which is behind {text(committed)} here")
        self._stop(f"{what}, but {text(committed)} is committed here")

    def snapshot_received(self, zxid: int) -> None:
        if self.phase is Phase.RECEIVING:
            self._snapshot = self.told = self._skip_upto = zxid
            self._enter(Phase.SYNCING)

    def snapshot_failed(self, reason: str) -> None:
        if self.phase is Phase.RECEIVING:
            self._lose(f"the snapshot was not received: {reason}")

    @property
    def _received(self) -> int:
        """The last zxid of this server's history with what the leader has sent."""
        if self._snapshot is None:
            return self.state.positions.received
        return self._held[-1][0] if self._held else self._snapshot

    def _stream(self, packets: Sequence[Packet]) -> None:
        """Proposals and commits, in runs; whatever else is between them."""
        txns: list[Txn] = []
        received, told = self._received, self.told
        skip_upto = self._skip_upto
        for packet in packets:
            kind, zxid, data, _ = packet
            if kind == Kind.PROPOSAL and not (self.observer and self.phase is Phase.BROADCAST):
                if zxid <= skip_upto:
                    continue
                if zxid != received + 1:
                    self._check_order(zxid, received, "PROPOSAL")
                txns.append((zxid, data or b""))
                received = zxid
            elif kind == Kind.COMMIT and not (self.observer and self.phase is Phase.BROADCAST):
                if zxid <= skip_upto:
                    continue
                if zxid != told + 1:
                    self._check_order(zxid, told, "COMMIT")
                if zxid > received:
                    raise PeerFault(f"COMMIT of {text(zxid)}, which was not proposed")
                told = zxid
            elif kind == Kind.INFORM and self.observer:
                if zxid <= skip_upto:
                    continue
                if zxid != received + 1:
                    self._check_order(zxid, received, "INFORM")
                if told != received:
                    raise PeerFault(f"INFORM of {text(zxid)} before COMMIT of {text(received)}")
                txns.append((zxid, data or b""))
                received = told = zxid
            else:
                self._take(txns, told)
                txns = []
                self._control(packet)
                if self.over is not None:
                    return
                received, told = self._received, self.told
        self._take(txns, told)

    @staticmethod
    def _check_order(zxid: int, before: int, what: str) -> None:
        """Not the next of its epoch: only the beginning of a later epoch may follow."""
        if epoch_of(zxid) <= epoch_of(before):
            raise PeerFault(f"{what} of {text(zxid)} after {text(before)}")

    def _take(self, txns: list[Txn], told: int) -> None:
        if txns and self._snapshot is not None:
            self._held += txns
        elif txns:
            self.state.append(txns)
            if self.master is not None:
                self.master.proposed(txns)
        if told > self.told:
            self.told = told
            if self.phase is Phase.BROADCAST:
                self.state.commit(told)
                self._delivered()
        if txns and self.phase is not Phase.BROADCAST and self.state.settings.observer_master:
            self._under_way += txns
            if self.phase is Phase.SYNCING:
                self._under_way = [txn for txn in self._under_way if txn[0] > self.told]

    def _control(self, packet: Packet) -> None:
        kind, zxid, data, _ = packet
        if kind == Kind.NEW_LEADER and self.phase is Phase.SYNCING:
            self._new_leader(zxid, data)
        elif kind == Kind.UP_TO_DATE and self.phase is Phase.WAITING:
            self._up_to_date()
        elif kind in (Kind.COMMIT_AND_ACTIVATE, Kind.INFORM_AND_ACTIVATE):
            self._activate(packet)
        elif self.phase is not Phase.BROADCAST:
            if kind in (Kind.NEW_LEADER, Kind.UP_TO_DATE, Kind.DIFF, Kind.TRUNC, Kind.SNAP):
                raise PeerFault(f"{name(kind)} while {self.phase.name} is under way")
            # A PING, above all: the leader wants no answer before NEWLEADER is acknowledged.
        else:
            self._live(packet)

    def _new_leader(self, zxid: int, data: bytes | None) -> None:
        state = self.state
        if zxid != self.epoch << 32:
            raise PeerFault(f"NEWLEADER with {text(zxid)} in epoch {self.epoch}")
        if data:
            try:
                self._config = parse_membership(data.decode())
            except ValueError as fault:
                raise PeerFault(f"NEWLEADER with an unusable configuration: {fault}") from fault
            if state.settings.reconfig_enabled:
                state.out.append(ConfigurationSeen(self._config))
        if self.told < self._had_committed:
            self._behind(f"the leader's history ends at {text(self.told)}")
            return
        self.acked = max(self.told, self.epoch << 32)
        self._mark = self._received
        self._enter(Phase.PERSISTING)
        if self._snapshot is None:
            state.save_epochs(self.epoch, self.epoch)
        else:
            state.install(self._snapshot, self._held, self.epoch)
            self._snapshot, self._held = None, []

    def _up_to_date(self) -> None:
        state = self.state
        config = self._config
        if (
            config is not None
            and state.settings.reconfig_enabled
            and config.version > state.committed.version
        ):
            state.configure(config, config)
            state.out.append(ConfigurationActivated(config))
        state.commit(self.told)
        self._serve_observers()
        self._skip_upto = 0
        self._send((Kind.ACK, self.epoch << 32, None, None))
        self._enter(Phase.BROADCAST)
        state.out.append(Serving(self.role, self.epoch))
        self._acknowledge()

    # ---- the connection

    def received(self, conn: int, packets: Sequence[Packet]) -> None:
        if self.master is not None and conn in self.master.links:
            self.master.received(conn, packets)
            return
        if conn != self.conn or not packets:
            return
        self.heard_ms = self.state.now_ms
        try:
            at = 0
            while at < len(packets) and self.phase not in _STREAM:
                if self.over is not None:
                    return
                self._handshake(packets[at])
                at += 1
            if at < len(packets):
                self._stream(packets[at:] if at else packets)
        except (PeerFault, Malformed) as fault:
            self._lose(str(fault))

    def _handshake(self, packet: Packet) -> None:
        if self.phase is Phase.DISCOVERY:
            self._leader_info(packet)
        elif self.phase is Phase.HEAD:
            self._head(packet)
        elif self.phase is Phase.RECEIVING:
            raise DriverFault("packets before the snapshot is received")
        else:
            raise PeerFault(f"{name(packet[0])} while {self.phase.name} is under way")

    def connect_failed(self, reason: str) -> None:
        if self.phase is Phase.CONNECTING:
            self._lose(reason)

    def disconnected(self, conn: int, reason: str) -> None:
        if self.master is not None:
            self.master.disconnected(conn)
        if conn == self.conn and self.over is None:
            self.conn = None
            self._lose(reason or "the leader has closed the connection")

    def tick(self) -> None:
        if self.master is not None:
            self.master.tick()
        settings = self.state.settings
        silent_ms = self.state.now_ms - self.heard_ms
        limit_ms = settings.sync_ms if self.phase in _SYNC_LIMIT else settings.init_ms
        awaited = self.phase in _HEARING or self.phase is Phase.CONNECTING
        if awaited and silent_ms > limit_ms:
            self._lose(f"the leader is silent while {self.phase.name} is under way")

    def _enter(self, phase: Phase) -> None:
        self.phase = phase
        self.heard_ms = self.state.now_ms

    def _send(self, *packets: Packet) -> None:
        assert self.conn is not None
        self.state.out.append(SendPackets(self.conn, packets))

    def _lose(self, reason: str) -> None:
        self.over = reason
        self.phase = Phase.OVER
        if self.master is not None:
            self.master.close(reason)
        if self.conn is not None:
            self.state.out.append(Close(self.conn, reason))
            self.conn = None

    def _stop(self, reason: str) -> None:
        self.halt = reason
        self._lose(reason)

    # ---- what the learner that serves makes of it

    @abstractmethod
    def _live(self, packet: Packet) -> None: ...

    @abstractmethod
    def _activate(self, packet: Packet) -> None: ...

    @abstractmethod
    def _acknowledge(self) -> None: ...

    @abstractmethod
    def _delivered(self) -> None: ...

    @abstractmethod
    def _serve_observers(self) -> None: ...
