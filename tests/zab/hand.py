"""One server stepped by hand: an election decided by notifications, then input by input."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

from tests.zab.group import membership
from tests.zab.rows import Rows
from zkd.config.servers import Membership
from zkd.jute.quorum import Kind, LearnerInfo, Packet
from zkd.zab import inputs as i
from zkd.zab import outputs as o
from zkd.zab.peer import Peer
from zkd.zab.settings import Settings, Standing
from zkd.zab.votes import Notification, ServerState

SETTINGS = Settings(tick_ms=1000, init_limit=10, sync_limit=5)
THREE = membership(3)

T = TypeVar("T")


class Hand:
    """A `Peer`, its clock, its log, and what it has asked of the disk."""

    def __init__(
        self,
        sid: int,
        log: Rows | None = None,
        *,
        accepted: int = 0,
        current: int = 0,
        tree: int | None = None,
        members: Membership = THREE,
        settings: Settings = SETTINGS,
        trusted: bool = True,
    ) -> None:
        self.log = log if log is not None else Rows()
        self.now = 0
        self.waiting: list[o.Output] = []
        end = self.log.last() or tree or 0
        committed = end if tree is None else tree
        standing = Standing(sid, accepted, current, end, committed, trusted)
        self.peer = Peer(standing, settings, self.log, members)
        self.members = members
        self.feed(i.Tick())

    # ---- steps

    def feed(self, event: i.Input) -> list[o.Output]:
        """One step. What it wants of the disk waits until `disk` is called."""
        outputs = self.peer.step(event, self.now)
        wanted = o.Append | o.SaveEpochs | o.Truncate | o.InstallSnapshot
        self.waiting += [output for output in outputs if isinstance(output, wanted)]
        return outputs

    def packets(self, conn: int, *packets: Packet) -> list[o.Output]:
        return self.feed(i.Received(conn, packets))

    def tick(self, ms: int) -> list[o.Output]:
        self.now += ms
        return self.feed(i.Tick())

    def disk(self) -> list[o.Output]:
        """The disk does all that waits."""
        outputs: list[o.Output] = []
        while self.waiting:
            output = self.waiting.pop(0)
            if isinstance(output, o.Append):
                self.log.zxids += [zxid for zxid, _ in output.txns]
                outputs += self.feed(i.Appended(output.txns[-1][0]))
            elif isinstance(output, o.SaveEpochs):
                outputs += self.feed(i.EpochsSaved(output.accepted, output.current))
            elif isinstance(output, o.InstallSnapshot):
                self.log.zxids = [zxid for zxid, _ in output.txns]
                outputs += self.feed(i.SnapshotInstalled(output.zxid))
            elif isinstance(output, o.Truncate):
                zxid = output.zxid
                self.log.zxids = [row for row in self.log.zxids if row <= zxid]
                outputs += self.feed(i.Truncated(zxid))
        return outputs

    # ---- roles

    def elect(self, leader: int) -> list[o.Output]:
        """The others already follow `leader`, or vote for this server."""
        outputs: list[o.Output] = []
        own = self.peer.election
        assert own.current_vote is not None
        others = sorted(own.voters - {own.sid})
        if leader != own.sid and own.voters >= {own.sid} and len(own.voters) == 2:
            best = Notification(ServerState.LOOKING, leader, 1 << 62, own.round, 1 << 30)
            return self.feed(i.Notified(leader, best)) + self.tick(200)
        if leader != own.sid:
            for sid in others:
                says = ServerState.LEADING if sid == leader else ServerState.FOLLOWING
                outputs += self.feed(i.Notified(sid, Notification(says, leader, 0, 9, 0)))
            return outputs
        state = self.peer.state
        for sid in others:
            vote = Notification(
                ServerState.LOOKING, leader, state.last_zxid, own.round, state.current
            )
            outputs += self.feed(i.Notified(sid, vote))
        return outputs + self.tick(200)

    def learn(self, leader: int, conn: int = 1) -> list[o.Output]:
        """Follow or observe, up to the connection."""
        outputs = self.elect(leader)
        assert of(outputs, o.Connect) == [o.Connect(leader)]
        return self.feed(i.Connected(conn))

    def lead(self) -> None:
        outputs = self.elect(self.peer.state.sid)
        assert of(outputs, o.RoleChanged), "elected"

    def join(
        self,
        conn: int,
        sid: int,
        *,
        accepted: int = 0,
        kind: int = Kind.FOLLOWER_INFO,
        version: int = 0,
    ) -> list[o.Output]:
        """A learner connects to this leader and says who it is."""
        self.feed(i.Accepted(conn))
        info = LearnerInfo(sid, config_version=version).encode()
        return self.packets(conn, (kind, accepted << 32, info, None))

    def serve(self, conn: int = 1, sid: int = 1) -> list[o.Output]:
        """Become a leader that serves, with one follower that has the same history."""
        self.lead()
        accepted, current = self.peer.state.accepted, self.peer.state.current
        self.join(conn, sid, accepted=accepted)
        self.disk()
        self.packets(conn, ack_epoch(self.log.last() or 0, current))
        outputs = self.disk()
        epoch = self.peer.state.current
        outputs += self.packets(conn, (Kind.ACK, epoch << 32, None, None))
        assert self.peer.serving
        return outputs

    def propose(self, *bodies: bytes) -> list[o.Output]:
        first = self.peer.next_zxid
        assert first is not None
        return self.feed(i.Propose([(first + n, body) for n, body in enumerate(bodies)]))


# ---- what came of it


def of(outputs: Iterable[o.Output], kind: type[T]) -> list[T]:
    return [output for output in outputs if isinstance(output, kind)]


def sent(outputs: Iterable[o.Output], conn: int, log: Rows | None = None) -> list[tuple[int, int]]:
    """(kind, zxid) of everything for a connection, in order."""
    found: list[tuple[int, int]] = []
    for output in outputs:
        if isinstance(output, o.SendPackets) and output.conn == conn:
            found += [(packet[0], packet[1]) for packet in output.packets]
        elif isinstance(output, o.SendProposals) and conn in output.conns:
            found += [(Kind.PROPOSAL, zxid) for zxid, _ in output.txns]
        elif isinstance(output, o.SendInforms) and conn in output.conns:
            found += [(Kind.INFORM, zxid) for zxid, _ in output.txns]
        elif isinstance(output, o.SendCommits) and conn in output.conns:
            found += [(Kind.COMMIT, zxid) for zxid in range(output.first, output.last + 1)]
        elif isinstance(output, o.SendAcks) and output.conn == conn:
            found += [(Kind.ACK, zxid) for zxid in range(output.first, output.last + 1)]
        elif isinstance(output, o.SendPing) and output.conn == conn:
            found.append((Kind.PING, output.zxid))
        elif isinstance(output, o.SendHistory) and output.conn == conn:
            assert log is not None, "a history needs its log"
            for zxid in log.zxids:
                if output.after < zxid <= output.upto:
                    found += [(Kind.PROPOSAL, zxid), (Kind.COMMIT, zxid)]
    return found


# ---- packets


def ack_epoch(zxid: int, current: int) -> Packet:
    return Kind.ACK_EPOCH, zxid, current.to_bytes(4, "big", signed=True), None


def leader_info(epoch: int) -> Packet:
    return Kind.LEADER_INFO, epoch << 32, (0x10000).to_bytes(4, "big"), None


def new_leader(epoch: int, members: Membership = THREE) -> Packet:
    return Kind.NEW_LEADER, epoch << 32, members.text().encode(), None


def bare(kind: int, zxid: int = -1) -> Packet:
    return kind, zxid, None, None


def proposals(zxids: Iterable[int]) -> Sequence[Packet]:
    return [(Kind.PROPOSAL, zxid, b"%x" % zxid, None) for zxid in zxids]


def pairs(zxids: Iterable[int]) -> Sequence[Packet]:
    found: list[Packet] = []
    for zxid in zxids:
        found += [(Kind.PROPOSAL, zxid, b"%x" % zxid, None), (Kind.COMMIT, zxid, None, None)]
    return found
