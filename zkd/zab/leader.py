"""The leader that serves: broadcasts, counts acks, answers its learners, watches its quorum.

    committed <= proposed; a zxid is committed when a quorum of every configuration has it durable
    this server's own ack of a proposal is that it is durable here
    bodies are kept from the proposal until they are delivered here: what the log cannot be asked
    an ack counts while its connection stands: a learner that comes back may be told to truncate
    what it had acknowledged, and until it acknowledges anew a quorum must do without it

Acks come in runs and count up to their last; what a run costs is one look for the quorum's point,
and one COMMIT output for all its zxids. Nothing a learner sends touches the others.
Source: `Leader.java`, `LearnerHandler.java`; spec zab-quorum-protocol sections 5, 6 and 8.
"""

from __future__ import annotations

from collections.abc import Sequence

from zkd.jute.codec import Malformed
from zkd.jute.protocol import Op
from zkd.jute.quorum import (
    PROTOCOL_VERSION,
    Kind,
    Packet,
    name,
    read_request,
    read_revalidate,
    read_touches,
    revalidated,
)
from zkd.zab.establish import WAITING, Establishing, Phase
from zkd.zab.faults import DriverFault, PeerFault
from zkd.zab.inputs import Txn
from zkd.zab.learner_link import FORWARDING, LearnerLink, LinkPhase
from zkd.zab.outputs import (
    ConfigurationActivated,
    LearnerRequest,
    RevalidateAsked,
    SendCommits,
    SendInforms,
    SendPackets,
    SendProposals,
    Serving,
    Synced,
    Touched,
)
from zkd.zab.quorum import joint_point
from zkd.zab.votes import ServerState
from zkd.zab.zxid import COUNTER_MAX, counter_of, text

_VERSION_DATA = PROTOCOL_VERSION.to_bytes(4, "big")
_EPOCH_MAX = 0x7FFFFFFF


class Leader(Establishing):
    """Steps of the server that leads; writes to `state.out`. `over`: why it leads no more."""

    def _serve(self) -> None:
        state = self.state
        self.phase = Phase.BROADCAST
        self._acks[state.sid] = self.proposed
        state.commit(self.history_end)
        if state.last_seen.version > state.committed.version:
            activated = state.last_seen
            state.configure(activated, activated)
            state.out.append(ConfigurationActivated(activated))
        state.out.append(Serving(ServerState.LEADING, self.epoch))
        now, tick = state.now_ms, state.settings.tick_ms
        self._next_ping_ms, self._next_check_ms = now + tick // 2, now + tick
        for link in self._in_phase(LinkPhase.SYNCED):
            self._up_to_date(link)

    def _up_to_date(self, link: LearnerLink) -> None:
        self._expect(link, LinkPhase.LIVE, self.state.settings.sync_ms)
        link.heard_ms = self.state.now_ms
        if link.sid is not None and not link.observer:
            self._acks[link.sid] = link.acked
        packet = (Kind.UP_TO_DATE, -1, None, None)
        self.state.out.append(SendPackets(link.conn, (packet,)))

    # ---- broadcast

    def propose(self, txns: Sequence[Txn]) -> None:
        """Those at the end of the epoch's zxids are not proposed: leadership ends with them."""
        if self.phase is not Phase.BROADCAST:
            raise DriverFault("transactions are proposed by a leader that serves")
        batch = list(txns)
        for following, (zxid, _) in enumerate(batch, self.proposed + 1):
            if zxid != following:
                raise DriverFault(f"{text(zxid)} proposed, {text(following)} is the next")
        end = self.epoch << 32 | COUNTER_MAX
        exhausted = bool(batch) and batch[-1][0] >= end
        if exhausted:
            batch = [txn for txn in batch if txn[0] < end]
        if batch:
            self._bodies.update(batch)
            last = self.proposed = batch[-1][0]
            state = self.state
            state.append(batch)
            followers = self._forwarding(observers=False)
            if followers:
                state.out.append(SendProposals([link.conn for link in followers], batch))
                now = state.now_ms
                for link in followers:
                    link.sent_upto(last, now)
        if exhausted:
            self._end("the epoch has no more zxids")

    def appended(self) -> None:
        """The disk has gone on: that is this server's ack."""
        if self.phase is not Phase.BROADCAST:
            return
        logged = self.state.positions.logged
        if logged > self._acks[self.state.sid]:
            self._acks[self.state.sid] = logged
            self._try_to_commit()
        self._delivered()

    def _try_to_commit(self) -> None:
        verifiers = self._oracled(self.state.verifiers)
        point = min(joint_point(verifiers, self._acks), self.proposed)
        first = self.committed + 1
        if point < first:
            return
        # A learner's client may have asked for more behind its sync, and counts on the order.
        syncs = {zxid for zxid, conn, _ in self._syncs if conn is not None and zxid < point}
        for upto in (*sorted(syncs), point):
            if upto >= first:
                self._commit(first, upto)
                first = upto + 1
        self.state.commit(point)
        self._delivered()

    def _commit(self, first: int, upto: int) -> None:
        """These zxids are committed: tell the learners."""
        self.committed = upto
        out = self.state.out
        followers = self._forwarding(observers=False)
        if followers:
            out.append(SendCommits([link.conn for link in followers], first, upto))
        observers = self._forwarding(observers=True)
        if observers:
            bodies = self._bodies
            txns = [(zxid, bodies[zxid]) for zxid in range(first, upto + 1)]
            out.append(SendInforms([link.conn for link in observers], txns))
        if self._syncs:
            self._answer_syncs()

    def _delivered(self) -> None:
        """Forget the bodies that the log can be asked for, and answer syncs."""
        self.state.deliver()
        delivered, bodies = self.state.positions.delivered, self._bodies
        while bodies:
            zxid = next(iter(bodies))
            if zxid > delivered:
                break
            del bodies[zxid]
        if self._syncs:
            self._answer_syncs()

    def sync(self, tag: int, conn: int | None = None) -> None:
        """Answered when all that is proposed now is committed."""
        if self.phase is not Phase.BROADCAST:
            raise DriverFault("a sync before the leader serves")
        if conn is None or conn in self.links:
            self._syncs.append((self.proposed, conn, tag))
            self._answer_syncs()

    @property
    def pending_syncs(self) -> int:
        """Syncs that wait for their commit."""
        return len(self._syncs)

    def _answer_syncs(self) -> None:
        floor = self.epoch << 32
        here = max(self.state.positions.delivered, floor)
        waiting = []
        for zxid, conn, tag in self._syncs:
            if zxid > (here if conn is None else self.committed):
                waiting.append((zxid, conn, tag))
            elif conn is None:
                self.state.out.append(Synced(tag, zxid))
            elif conn in self.links:
                self.state.out.append(SendPackets(conn, ((Kind.SYNC, 0, None, None),)))
        self._syncs = waiting

    def revalidate_answer(self, conn: int, session: int, valid: bool) -> None:
        if conn in self.links:
            packet = (Kind.REVALIDATE, -1, revalidated(session, valid), None)
            self.state.out.append(SendPackets(conn, (packet,)))

    def received(self, conn: int, packets: Sequence[Packet]) -> None:
        link = self.links.get(conn)
        if link is None:
            return
        settings = self.state.settings
        try:
            for packet in packets:
                if link.phase is LinkPhase.LIVE:
                    self._live(link, packet)
                else:
                    self._handshake(link, packet)
                if self.over is not None or conn not in self.links:
                    return
        except (PeerFault, Malformed) as fault:
            self._drop(link, str(fault))
            return
        now = self.state.now_ms
        link.synced_ms = max(link.synced_ms, now + settings.sync_ms)
        if link.phase is LinkPhase.LIVE:
            link.heard_ms = now
            link.reply_ms = now + settings.sync_ms
            sid = link.sid
            if sid is not None and not link.observer and link.acked > self._acks[sid]:
                self._acks[sid] = link.acked
                self._try_to_commit()

    def _live(self, link: LearnerLink, packet: Packet) -> None:
        kind, zxid, data, authinfo = packet
        if kind == Kind.ACK:
            if not link.observer and counter_of(zxid):
                link.acknowledged(zxid, self.committed)
        elif kind == Kind.REQUEST:
            session, cxid, op, body = read_request(data)
            assert link.sid is not None, "a learner says who it is first"
            ask = LearnerRequest(link.conn, link.sid, session, cxid, op, body, authinfo)
            self.state.out.append(ask)
        elif kind == Kind.PING:
            touches = read_touches(data)
            if touches:
                self.state.out.append(Touched(link.conn, touches))
        elif kind == Kind.REVALIDATE:
            self.state.out.append(RevalidateAsked(link.conn, *read_revalidate(data)))
        else:
            self._warn(link, f"{name(kind)} is ignored")

    def learner_sync(self, conn: int) -> None:
        self.sync(Op.SYNC, conn)

    def disconnected(self, conn: int) -> None:
        link = self.links.get(conn)
        if link is not None:
            self._forget(link)

    # ---- time

    def lease_ms(self) -> int:
        """Until when a quorum counts as heard of."""
        state = self.state
        heard = {
            link.sid: link.heard_ms
            for link in self.links.values()
            if link.sid is not None and link.heard_ms is not None and not link.observer
        }
        heard[state.sid] = state.now_ms
        return joint_point(self._oracled(state.verifiers), heard) + state.settings.sync_ms

    def tick(self) -> None:
        state, now = self.state, self.state.now_ms
        if self.phase in WAITING and now > self._deadline_ms:
            self._end(f"no quorum in {self.phase.name} within initLimit")
            return
        for link in list(self.links.values()):
            if link.overdue(now):
                self._drop(link, f"silent while {link.phase.name} is under way")
        if self.phase is not Phase.BROADCAST:
            return
        if now >= self._next_check_ms:
            self._next_check_ms = now + state.settings.tick_ms
            synced = {state.sid}
            synced.update(
                link.sid
                for link in self.links.values()
                if link.sid is not None and link.synced_ms >= now and not link.observer
            )
            verifiers = self._oracled(state.verifiers)
            if not all(verifier.contains_quorum(synced) for verifier in verifiers):
                self._end("not enough followers are synced")
                return
            if state.oracle is not None:
                self._try_to_commit()  # what the oracle alone is waited for
        if now >= self._next_ping_ms:
            self._next_ping_ms = now + state.settings.tick_ms // 2
            self._ping()

    def _ping(self) -> None:
        packet = (Kind.PING, self.proposed, None, None)
        for link in list(self.links.values()):
            if link.phase not in FORWARDING:
                continue
            if link.slow(self.state.now_ms, self.state.settings.sync_ms):
                self._drop(link, "a proposal has waited for its ack longer than syncLimit")
            else:
                self.state.out.append(SendPackets(link.conn, (packet,)))
