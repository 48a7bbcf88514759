"""The leader until its epoch stands: promises it, and brings learners to its history.

    DISCOVERY -> PROMISING -> EPOCH_ACK -> ADOPTING -> SYNCHRONIZATION -> BROADCAST

    LEADERINFO leaves only after acceptedEpoch is durable (PROMISING is over)
    a learner is brought up to date only after currentEpoch is durable (ADOPTING is over)
    voters count by FOLLOWERINFO; observers and strangers raise the epoch and count for nothing

What was in the log before the epoch is sent as history and committed by the quorum of NEWLEADER
acks. The handshake of a connection is the same when the leader serves already (`leader.py`).

A packet that means nothing in its phase ends its own connection. Differences from Apache
ZooKeeper: a learner that comes again under the same sid replaces its older connection; learners
from before 3.4 are refused.
Source: `Leader.java`, `LearnerHandler.java`; spec zab-quorum-protocol sections 5 and 6.
"""

from __future__ import annotations

import dataclasses
import enum
from abc import ABC, abstractmethod

from zkd.jute.quorum import (
    PROTOCOL_VERSION,
    Kind,
    LearnerInfo,
    Packet,
    name,
    read_int,
)
from zkd.zab.faults import DriverFault, PeerFault
from zkd.zab.inputs import Txn
from zkd.zab.learner_link import FORWARDING, REPLY_DUE, LearnerLink, LinkPhase
from zkd.zab.outputs import (
    Close,
    SendHistory,
    SendPackets,
    SendProposals,
    SendSnapshot,
    Warned,
)
from zkd.zab.quorum import Majority, OracleMajority, Tracker, Verifier
from zkd.zab.state import State
from zkd.zab.synchronise import WithBodies, decide
from zkd.zab.zxid import epoch_of, is_new_epoch, text

_VERSION_DATA = PROTOCOL_VERSION.to_bytes(4, "big")
_EPOCH_MAX = 0x7FFFFFFF


class Phase(enum.Enum):
    DISCOVERY = enum.auto()
    PROMISING = enum.auto()
    EPOCH_ACK = enum.auto()
    ADOPTING = enum.auto()
    SYNCHRONIZATION = enum.auto()
    BROADCAST = enum.auto()
    OVER = enum.auto()


WAITING = (Phase.DISCOVERY, Phase.EPOCH_ACK, Phase.SYNCHRONIZATION)
"""For a quorum, each for initLimit at most. The others wait for the own disk."""


class Establishing(ABC):
    """Steps of the server that leads; writes to `state.out`. `over`: why it leads no more."""

    def __init__(self, state: State) -> None:
        assert state.settled, "a leader knows what its log holds"
        self.state = state
        self.phase = Phase.DISCOVERY
        self.over: str | None = None
        self.links: dict[int, LearnerLink] = {}
        self.epoch = state.accepted + 1
        self.history_end = state.positions.logged
        """The end of what was logged before this epoch."""
        self.proposed = self.committed = self.history_end
        self._summary = (state.current, self.history_end)
        self._began_ms = state.now_ms
        self._deadline_ms = state.now_ms + state.settings.init_ms
        self._next_ping_ms = self._next_check_ms = 0
        self._invented = 0
        self._bodies: dict[int, bytes] = {}
        """Proposals that are not delivered yet: what the log cannot be asked for."""
        self._acks: dict[int, int] = {}
        """The last zxid acknowledged: of this server and of the followers in LIVE."""
        self._syncs: list[tuple[int, int | None, int]] = []
        """Syncs under way: the zxid to wait for, the learner's connection or None, the tag."""
        self._track = Tracker((state.committed_verifier,), (state.sid,))
        self._promise_if_quorum()

    # ---- the epoch

    def _propose_epoch(self, link: LearnerLink, accepted: int) -> None:
        if self.phase is not Phase.DISCOVERY:
            if self.phase is not Phase.PROMISING:
                self._send_leader_info(link)
            return
        if accepted >= _EPOCH_MAX:
            raise PeerFault(f"accepted epoch {accepted} leaves none for a leader")
        self.epoch = max(self.epoch, accepted + 1)
        self._count(link)
        self._promise_if_quorum()

    def seen_looking(self, sid: int) -> None:
        """A voter looks for a leader while this one waits for its epoch: without that voter it may
        have no quorum, and the others would wait for initLimit before they look again."""
        state, limit_ms = self.state, self.state.settings.epoch_wait_ms
        if self.phase is not Phase.DISCOVERY or limit_ms is None or not self._track.has_sid(sid):
            return
        if state.now_ms - self._began_ms > limit_ms:
            self._end(f"no quorum for the epoch in {limit_ms} ms, and server {sid} looks elsewhere")

    def heard_oracle(self) -> None:
        """What the oracle says now may be the quorum that this phase waits for."""
        if self.phase is Phase.DISCOVERY:
            self._promise_if_quorum()
        elif self.phase is Phase.EPOCH_ACK:
            self._adopt_if_quorum()
        elif self.phase is Phase.SYNCHRONIZATION:
            self._serve_if_quorum()

    def _has_quorum(self) -> bool:
        acked = self._track.acked
        return all(v.contains_quorum(acked) for v in self._oracled(self._track.verifiers))

    def _oracled(self, verifiers: tuple[Verifier, ...]) -> tuple[Verifier, ...]:
        """The same, with the oracle's word where it counts."""
        said = self.state.oracle
        if said is None:
            return verifiers
        no_follower = not self._forwarding(observers=False)
        return tuple(
            OracleMajority(one, said, no_follower) if isinstance(one, Majority) else one
            for one in verifiers
        )

    def _promise_if_quorum(self) -> None:
        if self._has_quorum() and self.state.sid in self._track.acked:
            self.phase = Phase.PROMISING
            self.state.save_epochs(self.epoch, self.state.current)

    def epochs_saved(self) -> None:
        state = self.state
        if self.phase is Phase.PROMISING and state.accepted == self.epoch:
            self.phase = Phase.EPOCH_ACK
            self.proposed = self.committed = max(self.history_end, self.epoch << 32)
            self._deadline_ms = state.now_ms + state.settings.init_ms
            self._track = Tracker((state.committed_verifier,), (state.sid,))
            for link in self._in_phase(LinkPhase.EPOCH):
                self._send_leader_info(link)
            self._adopt_if_quorum()
        elif self.phase is Phase.ADOPTING and state.current == self.epoch:
            self.phase = Phase.SYNCHRONIZATION
            self._deadline_ms = state.now_ms + state.settings.init_ms
            self._version_first_configuration()
            self._track = Tracker(state.verifiers, (state.sid,))
            for link in self._in_phase(LinkPhase.READY):
                self._synchronise(link)
            self._serve_if_quorum()

    def _send_leader_info(self, link: LearnerLink) -> None:
        self._expect(link, LinkPhase.ACK_EPOCH, self.state.settings.init_ms)
        packet = (Kind.LEADER_INFO, self.epoch << 32, _VERSION_DATA, None)
        self.state.out.append(SendPackets(link.conn, (packet,)))

    def _epoch_acknowledged(self, link: LearnerLink, zxid: int, current: int) -> None:
        link.last_zxid = zxid
        if self.phase is Phase.EPOCH_ACK and current != -1:
            if (current, zxid) > self._summary:
                raise PeerFault(
                    f"follower is ahead of the leader: epoch {current}, {text(zxid)} against"
                    f" epoch {self._summary[0]}, {text(self._summary[1])}"
                )
            if zxid != -1:
                self._count(link)
        self._expect(link, LinkPhase.READY)
        if self.phase in (Phase.SYNCHRONIZATION, Phase.BROADCAST):
            self._synchronise(link)
        elif self.phase is Phase.EPOCH_ACK:
            self._adopt_if_quorum()

    def _adopt_if_quorum(self) -> None:
        if self._has_quorum():
            self.phase = Phase.ADOPTING
            self.state.save_epochs(self.epoch, self.epoch)

    def _version_first_configuration(self) -> None:
        """The first configuration has no version yet: the first leader gives it one."""
        state = self.state
        seen = state.last_seen
        if state.settings.reconfig_enabled and state.committed.version == seen.version == 0:
            versioned = dataclasses.replace(seen, version=self.epoch << 32)
            state.configure(state.committed, versioned)

    # ---- bringing a learner up to date

    @property
    def _readable(self) -> int:
        """The end of the rows that a history may be read from: committed, and durable here."""
        if self.phase is not Phase.BROADCAST:
            return self.history_end
        return self.state.positions.delivered

    def _synchronise(self, link: LearnerLink) -> None:
        state, settings = self.state, self.state.settings
        # What is committed counts, also what this server's own disk has not written yet: the
        # learner may have it, and delivered it to its clients.
        end = self.history_end if is_new_epoch(self.committed) else self.committed
        decision = decide(
            link.last_zxid,
            WithBodies(state.history, self._bodies) if self._bodies else state.history,
            end,
            end if self.phase is not Phase.BROADCAST else self.committed,
            rows_max=settings.diff_rows_max,
            force_snapshot=settings.force_snapshot,
        )
        snap = decision.kind == Kind.SNAP
        limit = settings.snap_syncs_max if snap else settings.diff_syncs_max
        try:
            link.begins_sync(decision.kind, self.links.values(), limit)
        except PeerFault as fault:
            self._drop(link, str(fault))
            return
        if snap:
            link.sending = True
            self._expect(link, LinkPhase.SNAPSHOT)
            state.out.append(SendSnapshot(link.conn))
            return
        packet = (decision.kind, decision.zxid, None, None)
        state.out.append(SendPackets(link.conn, (packet,)))
        self._go_on_from(link, decision.after)

    def snapshot_started(self, conn: int, zxid: int) -> None:
        link = self.links.get(conn)
        if link is None:
            return
        if link.phase is not LinkPhase.SNAPSHOT:
            raise DriverFault("a snapshot that nobody asked for")
        if zxid > self._readable:
            raise DriverFault(f"the snapshot is at {text(zxid)}, which is not delivered")
        self._go_on_from(link, zxid)

    def sent(self, conn: int) -> None:
        link = self.links.get(conn)
        if link is not None:
            link.sending = False
            if link.phase is LinkPhase.SYNC:
                self._expect(link, LinkPhase.SYNC, self.state.settings.init_ms)

    def _go_on_from(self, link: LearnerLink, after: int) -> None:
        """History above `after`, NEWLEADER, and what is under way."""
        state, conn = self.state, link.conn
        end = self._readable
        if after < end:
            link.sending = True
            state.out.append(SendHistory(conn, after, end))
        link.acked = link.sent = max(after, end)
        under_way = list(self._bodies.items())
        pairs: list[Packet] = []
        rest: list[Txn] = []
        for zxid, body in under_way:
            if zxid <= after:
                continue
            if zxid <= self.committed:
                pairs.append((Kind.PROPOSAL, zxid, body, None))
                pairs.append((Kind.COMMIT, zxid, None, None))
            else:
                rest.append((zxid, body))
        if pairs:
            link.acked = link.sent = pairs[-1][1]
            state.out.append(SendPackets(conn, pairs))
        config = state.last_seen.text().encode()
        packet = (Kind.NEW_LEADER, self.epoch << 32, config, None)
        state.out.append(SendPackets(conn, (packet,)))
        # Behind NEWLEADER, though Apache's leader sends them before it: a learner of 3.8.0 fails
        # over a COMMIT before UPTODATE of a proposal before NEWLEADER (ZOOKEEPER-4394). They are
        # of this epoch, so no part of the history that the ACK of NEWLEADER stands for.
        if rest and not link.observer:
            state.out.append(SendProposals((conn,), rest))
            link.sent_upto(rest[-1][0], state.now_ms)
        self._expect(link, LinkPhase.SYNC, state.settings.init_ms)

    def _new_leader_acknowledged(self, link: LearnerLink, zxid: int) -> None:
        self._expect(link, LinkPhase.SYNCED)
        link.sync = None
        link.timed = True
        if link.sent > max(link.acked, self.committed):
            link.oldest = (link.sent, self.state.now_ms)
        if self.phase is Phase.BROADCAST:
            self._up_to_date(link)
        elif zxid != self.epoch << 32:
            self._warn(link, f"NEWLEADER is acknowledged with {text(zxid)}: not counted")
        else:
            self._count(link)
            self._serve_if_quorum()

    def _serve_if_quorum(self) -> None:
        if self._has_quorum():
            self._serve()

    # ---- learners' packets

    def accepted(self, conn: int) -> None:
        state = self.state
        init_ms, sync_ms = state.settings.init_ms, state.settings.sync_ms
        self.links[conn] = LearnerLink(
            conn, state.now_ms + init_ms, state.now_ms + init_ms + sync_ms
        )

    def _handshake(self, link: LearnerLink, packet: Packet) -> None:
        kind, zxid, data, _ = packet
        if link.phase is LinkPhase.INFO and kind in (Kind.FOLLOWER_INFO, Kind.OBSERVER_INFO):
            self._introduced(link, kind, zxid, data)
        elif link.phase is LinkPhase.ACK_EPOCH and kind == Kind.ACK_EPOCH:
            self._epoch_acknowledged(link, zxid, read_int(data, "ACKEPOCH"))
        elif link.phase is LinkPhase.SYNC and kind == Kind.ACK:
            self._new_leader_acknowledged(link, zxid)
        else:
            raise PeerFault(f"{name(kind)} while {link.phase.name} is under way")

    def _introduced(self, link: LearnerLink, kind: int, zxid: int, data: bytes | None) -> None:
        info = LearnerInfo.read(data)
        if info.protocol_version < PROTOCOL_VERSION:
            raise PeerFault(f"protocol version {info.protocol_version} of before 3.4")
        if info.config_version > self.state.committed.version:
            raise PeerFault(
                f"the learner's configuration {info.config_version:x} is newer than"
                f" {self.state.committed.version:x} here"
            )
        if info.sid == self.state.sid:
            raise PeerFault(f"the learner has the sid {info.sid} of this server")
        sid = info.sid
        if sid is None:
            self._invented -= 1
            sid = self._invented
        for other in list(self.links.values()):
            if other.sid == sid:
                self._drop(other, f"server {sid} has connected again")
        link.sid = sid
        link.observer = kind == Kind.OBSERVER_INFO
        self._expect(link, LinkPhase.EPOCH)
        self._propose_epoch(link, epoch_of(zxid))

    # ---- links

    def _in_phase(self, phase: LinkPhase) -> list[LearnerLink]:
        return [link for link in self.links.values() if link.phase is phase]

    def _forwarding(self, *, observers: bool) -> list[LearnerLink]:
        return [
            link
            for link in self.links.values()
            if link.observer is observers and link.phase in FORWARDING
        ]

    def _expect(self, link: LearnerLink, phase: LinkPhase, within_ms: int = 0) -> None:
        link.phase = phase
        link.reply_ms = self.state.now_ms + within_ms if phase in REPLY_DUE else None

    def _count(self, link: LearnerLink) -> None:
        """A voter that follows counts in the quorum that this phase waits for."""
        if link.sid is not None and not link.observer:
            self._track.add(link.sid)

    def _warn(self, link: LearnerLink, what: str) -> None:
        self.state.out.append(Warned(f"learner {link.sid}: {what}"))

    def _drop(self, link: LearnerLink, reason: str) -> None:
        self._forget(link)
        self.state.out.append(Close(link.conn, reason))

    def _forget(self, link: LearnerLink) -> None:
        del self.links[link.conn]
        if link.phase is LinkPhase.LIVE and link.sid is not None and not link.observer:
            self._acks.pop(link.sid, None)

    def _end(self, reason: str) -> None:
        self.over = reason
        self.phase = Phase.OVER
        for link in list(self.links.values()):
            self._drop(link, reason)

    # ---- what the leader that serves makes of it

    @abstractmethod
    def _serve(self) -> None: ...

    @abstractmethod
    def _up_to_date(self, link: LearnerLink) -> None: ...
