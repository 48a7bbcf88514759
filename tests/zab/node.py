"""One server of a group: the real `Peer`, and a driver that has everything in memory.

It keeps the driver's duties of docs/zab.md: outputs in their order, one disk, nothing told before
it is durable, time measured by a clock that never goes back. It can crash at any moment: between
two outputs of a step, before, within and after each write, before the core hears of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tests.zab.disk import Disk, Order, Stream
from tests.zab.front import Front
from tests.zab.network import Conn, Item
from zkd.jute.quorum import Kind, Packet
from zkd.zab import inputs as i
from zkd.zab import outputs as o
from zkd.zab.inputs import Txn
from zkd.zab.learner import Learner
from zkd.zab.peer import Peer
from zkd.zab.settings import Standing
from zkd.zab.votes import ServerState

if TYPE_CHECKING:
    from tests.zab.group import Group

_FOR_FRONT = (
    o.LearnerRequest,
    o.RevalidateAsked,
    o.Touched,
    o.Synced,
    o.Revalidated,
)
_BY_LEADER = (i.Propose, i.LearnerSync)


class Node:
    def __init__(self, group: Group, sid: int) -> None:
        self.group = group
        self.sid = sid
        self.disk = Disk()
        self.front = Front(self)
        self.life = 0
        self.peer: Peer | None = None
        self.conns: dict[int, Conn] = {}
        self.delivered = 0
        self.applied: list[Txn] = []
        self.role = ServerState.LOOKING
        self.serving = False
        self.epoch = 0
        self.outputs: list[o.Output] = []
        """All of this life, for tests that look."""
        self.slow_ms = 0
        """At least so long takes one thing at the disk."""
        self.skew_ms = 0
        self._clock_ms = 0
        self._stalled_until_ms = 0
        self._roles = 0
        self._orders: list[Order] = []
        self._writing = False
        self._events: list[i.Input] = []
        self._stepping = False

    # ---- time

    @property
    def clock_ms(self) -> int:
        """The server's own clock. It stands still where the machine's goes back."""
        self._clock_ms = max(self._clock_ms, self.group.now + self.skew_ms)
        return self._clock_ms

    @property
    def stalled(self) -> bool:
        return self.group.now < self._stalled_until_ms

    @property
    def writing(self) -> bool:
        """Something is on its way to the disk."""
        return bool(self._orders)

    def stall(self, ms: int) -> None:
        """The process stands still; what comes meanwhile waits. Its disk goes on."""
        if self.peer is not None:
            life = self.life
            self._stalled_until_ms = self.group.now + ms
            self.group.at(self._stalled_until_ms, lambda: self._goes_on(life))

    def _goes_on(self, life: int) -> None:
        if life == self.life and not self.stalled:
            self.feed()

    # ---- life

    def start(self, *, trusted: bool = True) -> None:
        disk, group = self.disk, self.group
        self.life += 1
        standing = Standing(
            self.sid,
            disk.accepted,
            disk.current,
            disk.end(),
            disk.tree_zxid,
            trusted and disk.trusted,
        )
        self.peer = Peer(standing, group.settings, disk, group.membership)
        self.delivered, self.applied = disk.tree_zxid, list(disk.tree)
        self.front.replaced(self.applied)
        self.outputs = []
        self._clock_ms = self._stalled_until_ms = 0
        self._orders, self._writing = [], False
        group.log(self.sid, "starts", standing)
        if group.oracle_says:
            self.feed(i.Oracle(group.oracle_says[self.sid]))
        self._tick(self.life)

    def crash(self) -> None:
        """Power fails: what was not durable is gone, or it is not."""
        if self.peer is None:
            return
        self.life += 1
        self.peer = None
        fate = self.disk.crash(self._orders, self.group.random) if self._orders else "idle"
        self.disk.beside = None
        self.group.count(f"crash:{fate}")
        self.group.log(self.sid, "crashes, writes", fate)
        self._orders = []
        self._events.clear()
        self._leave_role()
        for conn in list(self.conns.values()):
            self.group.network.cut(conn)
        self.conns.clear()

    def _leave_role(self) -> None:
        self.serving = False
        self.role = ServerState.LOOKING
        self.front.ends()

    def _tick(self, life: int) -> None:
        if life != self.life or self.peer is None:
            return
        group = self.group
        if self.stalled:
            group.at(self._stalled_until_ms, lambda: self._tick(life))
            return
        self.feed(i.Tick())
        self.front.expire()
        group.after(group.settings.tick_ms // 4, lambda: self._tick(life))

    def feed(self, *events: i.Input) -> None:
        self._events.extend(events)
        if self._stepping or self.stalled:
            return
        self._stepping = True
        while self._events and self.peer is not None:
            event = self._events.pop(0)
            if isinstance(event, _BY_LEADER) and self.peer.next_zxid is None:
                continue
            self._step(self.peer, event)
        self._stepping = False
        if self.peer is not None and self.peer.deadline_ms is not None:
            deadline, life = self.peer.deadline_ms, self.life
            when = max(deadline - self.skew_ms, self.group.now + 1)
            self.group.at(when, lambda: self._deadline(life, deadline))

    def _step(self, peer: Peer, event: i.Input) -> None:
        outputs = peer.step(event, self.clock_ms)
        self.outputs += outputs
        group = self.group
        crashes = group.output_crash_chance and outputs
        for output in outputs:
            if crashes and group.random.random() < group.output_crash_chance:
                group.count("crash points:output")
                group.crash_at_persist(self)
            if self.peer is not peer:
                return
            self._carry(output)
        self._events[0:0] = self.front.flush()

    def _deadline(self, life: int, deadline: int) -> None:
        if self.stalled:
            self.group.at(self._stalled_until_ms, lambda: self._deadline(life, deadline))
        elif life == self.life and self.peer is not None and self.peer.deadline_ms == deadline:
            self.feed(i.Tick())

    # ---- outputs

    def _carry(self, output: o.Output) -> None:
        group = self.group
        if isinstance(output, o.Append):
            self._write(Order(output, i.Appended(output.txns[-1][0])))
        elif isinstance(output, o.SaveEpochs):
            self._write(Order(output, i.EpochsSaved(output.accepted, output.current)))
        elif isinstance(output, o.Truncate):
            self._write(Order(output, i.Truncated(output.zxid)))
        elif isinstance(output, o.ReceiveSnapshot):
            self._receive(output)
        elif isinstance(output, o.InstallSnapshot):
            answer = i.SnapshotInstalled(output.zxid)
            self._write(Order(output, answer, self._installed, self.disk.beside))
        elif isinstance(output, o.Notify):
            group.log(self.sid, f"votes (to {output.to_sid})", output.notification)
            group.checks.notifies(self, output.to_sid, output.notification)
            group.network.notify(self.sid, output)
        elif isinstance(output, o.Connect):
            self._connect(output.sid, (self.life, self._roles), tries=10)
        elif isinstance(output, o.Close):
            group.log(self.sid, "closes", output)
            group.network.cut(self.conns.get(output.conn))
        elif isinstance(output, o.RoleChanged):
            self._turn(output)
        elif isinstance(output, o.Serving):
            self.serving, self.epoch = True, output.epoch
            self.front.serves(output)
            group.served(self, output)
        elif isinstance(output, o.Committed):
            self._deliver(output.zxid)
        elif isinstance(output, o.Halt):
            group.halted(self, output)
        elif isinstance(output, _FOR_FRONT):
            self.front.carry(output)
        elif isinstance(output, o.Warned):
            group.log(self.sid, "warns", output.text)
        else:
            self._send(output)

    def _turn(self, output: o.RoleChanged) -> None:
        self.group.log(self.sid, output.role.name, output.leader)
        self.group.count(output.role.name)
        self._leave_role()
        self._roles += 1
        self.role = output.role
        if output.role is ServerState.LOOKING:
            self.disk.beside = None
            for conn in list(self.conns.values()):
                self.group.network.cut(conn)

    def _send(self, output: o.Output) -> None:
        if isinstance(output, o.SendPackets):
            self._packets(output.conn, output.packets)
        elif isinstance(output, o.SendProposals | o.SendInforms):
            kind = Kind.PROPOSAL if isinstance(output, o.SendProposals) else Kind.INFORM
            for conn in output.conns:
                self._packets(conn, [(kind, z, body, None) for z, body in output.txns])
        elif isinstance(output, o.SendCommits):
            run = range(output.first, output.last + 1)
            for conn in output.conns:
                self._packets(conn, [(Kind.COMMIT, zxid, None, None) for zxid in run])
        elif isinstance(output, o.SendAcks):
            self.group.checks.acknowledges(self, output.last)
            run = range(output.first, output.last + 1)
            self._packets(output.conn, [(Kind.ACK, zxid, None, None) for zxid in run])
        elif isinstance(output, o.SendPing):
            self._packets(
                output.conn, [(Kind.PING, output.zxid, self.front.touch_table(), None)]
            )
        elif isinstance(output, o.SendHistory):
            self._send_history(output)
        elif isinstance(output, o.SendSnapshot):
            life = self.life
            self.group.after(
                self.group.random.randint(0, self.group.snapshot_ms),
                lambda: self._send_snapshot(output.conn, life),
            )

    def _packets(self, conn: int, packets: Sequence[Packet]) -> int:
        group = self.group
        if group.traps and packets[-1][0] in group.traps:
            group.spring(self, packets[-1][0])
        return group.network.send(self, conn, packets)

    def _send_history(self, output: o.SendHistory) -> None:
        rows = self.disk.above(output.after, output.upto)
        assert rows, "a history that is not in the log"
        assert rows[-1][0] == output.upto, "a history that is not in the log"
        pairs: list[Packet] = []
        for zxid, body in rows:
            pairs += [(Kind.PROPOSAL, zxid, body, None), (Kind.COMMIT, zxid, None, None)]
        self._sent(output.conn, self._packets(output.conn, pairs))

    def _send_snapshot(self, conn: int, life: int) -> None:
        """The child that writes it has begun; the tree has gone on meanwhile."""
        if life != self.life or self.peer is None or conn not in self.conns:
            return
        if self.stalled:
            self.group.at(self._stalled_until_ms, lambda: self._send_snapshot(conn, life))
            return
        zxid = self.disk.tree_zxid
        self._packets(conn, [(Kind.SNAP, zxid, None, None)])
        when = self.group.network.send(self, conn, Stream(zxid, list(self.disk.tree)))
        self._events.insert(0, i.SnapshotStarted(conn, zxid))
        self.feed()
        self._sent(conn, when)

    def _sent(self, conn: int, when: int) -> None:
        life = self.life

        def tell() -> None:
            if life == self.life:
                self.feed(i.Sent(conn))

        self.group.at(when, tell)

    def _connect(self, sid: int, role: tuple[int, int], tries: int) -> None:
        if role != (self.life, self._roles) or self.peer is None:
            return
        group = self.group
        other = self._whom(sid)
        if other is not None and group.network.reachable(self.sid, other.sid):
            group.network.connect(self, other)
        elif tries > 1:
            group.after(20, lambda: self._connect(sid, role, tries - 1))
        else:
            self.feed(i.ConnectFailed("nobody listens"))

    def _whom(self, leader: int) -> Node | None:
        """Who takes this learner in: the leader, or for some observers any follower."""
        nodes = self.group.nodes
        if self.sid not in self.group.by_master:
            return nodes[leader] if nodes[leader].role is ServerState.LEADING else None
        masters = [
            node
            for node in nodes.values()
            if node.peer is not None
            and isinstance(node.peer.role, Learner)
            and node.peer.role.master is not None
        ]
        return self.group.random.choice(masters) if masters else None

    def _deliver(self, zxid: int) -> None:
        before = len(self.applied)
        rows = self.disk.above(self.delivered, zxid)
        self.applied += rows
        self.delivered = zxid
        group = self.group
        group.checks.delivered(self, before)
        self.front.applied(rows)
        chance = group.random.random()
        if chance < group.flush_chance:
            life = self.life
            group.after(0, lambda: self._flush(life, zxid, purge=chance < group.purge_chance))

    def _flush(self, life: int, zxid: int, *, purge: bool) -> None:
        """The tree on disk goes on to what was delivered."""
        if life == self.life and not self.stalled and self.delivered >= zxid > self.disk.tree_zxid:
            self.disk.flush(zxid)
            if purge:
                self.disk.purge()

    # ---- the disk

    def _write(self, order: Order) -> None:
        self._orders.append(order)
        if not self._writing:
            self._write_next()

    def _write_next(self) -> None:
        """All that waits, or a part of it, becomes durable together."""
        group, life = self.group, self.life
        self._writing = bool(self._orders)
        if not self._orders:
            return
        batch = group.random.randint(1, len(self._orders))
        takes_ms = self.slow_ms + group.random.randint(0, group.disk_ms[self.sid])
        group.after(takes_ms, lambda: self._written(life, batch))

    def _written(self, life: int, batch: int) -> None:
        if life != self.life or self.peer is None:
            return
        group = self.group
        answers: list[i.Input] = []
        for _ in range(batch):
            order = self._orders.pop(0)
            self.disk.carry_out(order)
            together = answers and isinstance(answers[-1], i.Appended)
            if together and isinstance(order.answer, i.Appended):
                answers.pop()
            answers.append(order.answer)
            often = 1 if isinstance(order.what, o.Append) else 6
            if group.crash_chance and group.random.random() < often * group.crash_chance:
                group.count(f"crash points:{type(order.what).__name__}")
                group.crash_at_persist(self)
                return
        self._write_next()
        self.feed(*answers)

    def _installed(self) -> None:
        disk = self.disk
        self.applied, self.delivered = list(disk.tree), disk.tree_zxid
        self.front.replaced(self.applied)
        self.group.checks.delivered(self, 0)

    # ---- what arrives

    def _receive(self, output: o.ReceiveSnapshot) -> None:
        conn = self.conns.get(output.conn)
        if conn is None:
            self.feed(i.SnapshotFailed("the connection has ended"))
        elif conn.snap is not None:
            self._keep_stream(conn, conn.snap)
        else:
            conn.wanted = True  # when the stream has come

    def _keep_stream(self, conn: Conn, stream: Stream) -> None:
        def resume() -> None:
            conn.paused = False
            held, conn.held = conn.held, []
            for item in held:
                self.arrived(conn, item)

        def then() -> None:
            life = self.life
            self.group.after(0, lambda: resume() if life == self.life else None)

        self._write(Order(stream, i.SnapshotReceived(stream.zxid), then))

    def arrived(self, conn: Conn, item: Item) -> None:
        if isinstance(item, Stream):
            conn.snap = item
            if conn.wanted:
                self._keep_stream(conn, item)
        elif conn.paused:
            conn.held.append(item)
        else:
            conn.paused = item[-1][0] == Kind.SNAP
            self.feed(i.Received(conn.id, item))

    def ended(self, conn: Conn) -> None:
        if self.conns.pop(conn.id, None) is None or self.peer is None:
            return
        if conn.wanted and conn.snap is None and self.sid == conn.ends[0]:
            self.feed(i.SnapshotFailed("the stream broke off"))
        self.feed(i.Disconnected(conn.id))

