"""A group of servers, each a `Peer` with a driver in memory: one seed decides everything.

Messages keep their order on each link and take a random time; so does the disk, which does one
thing after the other and forgets at a crash what it has not done. A tree lags behind what is
delivered, and rows below it are purged now and then. Time is a number.

Checked whenever it happens: one history everywhere, one established leader an epoch, nothing that
was acknowledged is missing from what an established leader has.
"""

from __future__ import annotations

import bisect
import heapq
import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from zkd.config.servers import OBSERVER, PARTICIPANT, Membership, PeerAddress, ServerLine
from zkd.jute.quorum import Kind, Packet
from zkd.zab import inputs as i
from zkd.zab import outputs as o
from zkd.zab.election import ElectionSettings
from zkd.zab.inputs import Txn
from zkd.zab.peer import Peer
from zkd.zab.settings import Settings, Standing
from zkd.zab.votes import ServerState

TICK = 200
SETTINGS = Settings(
    tick_ms=TICK,
    init_limit=10,
    sync_limit=5,
    election=ElectionSettings(min_interval_ms=50, max_interval_ms=400, finalize_ms=50),
)


def membership(voters: int, observers: int = 0) -> Membership:
    servers = {}
    for sid in range(1, voters + observers + 1):
        address = PeerAddress(f"s{sid}", 2888, 3888)
        servers[sid] = ServerLine(sid, (address,), PARTICIPANT if sid <= voters else OBSERVER)
    return Membership(servers)


class Disk:
    """What survives a crash, and the history that the core reads."""

    def __init__(self) -> None:
        self.accepted = self.current = 0
        self.rows: list[Txn] = []
        self.tree: list[Txn] = []
        """Everything that the tree holds, since the beginning of time."""
        self.tree_zxid = 0

    def end(self) -> int:
        return max(self.rows[-1][0] if self.rows else 0, self.tree_zxid)

    def _at(self, zxid: int) -> int:
        return bisect.bisect_right(self.rows, zxid, key=lambda row: row[0])

    def above(self, after: int, upto: int) -> list[Txn]:
        return self.rows[self._at(after) : self._at(upto)]

    def first(self) -> int | None:
        return self.rows[0][0] if self.rows else None

    def last(self) -> int | None:
        return self.rows[-1][0] if self.rows else None

    def floor(self, zxid: int) -> int | None:
        at = self._at(zxid)
        return self.rows[at - 1][0] if at else None

    def has(self, zxid: int) -> bool:
        return self.floor(zxid) == zxid

    def flush(self, upto: int) -> None:
        self.tree = self.tree + self.above(self.tree_zxid, upto)
        self.tree_zxid = max(upto, self.tree_zxid)

    def purge(self) -> None:
        del self.rows[: self._at(self.tree_zxid)]

    def truncate(self, zxid: int) -> None:
        assert zxid >= self.tree_zxid, "TRUNC below the tree"
        del self.rows[self._at(zxid) :]


@dataclass
class Stream:
    """The snapshot behind a SNAP."""

    zxid: int
    tree: list[Txn]


@dataclass
class Conn:
    """A quorum connection: two queues. `ends`: learner, leader."""

    id: int
    ends: tuple[int, int]
    lives: tuple[int, int]
    open: bool = True
    arrival: dict[int, int] = field(default_factory=dict)
    paused: bool = False
    held: list[Sequence[Packet] | Stream] = field(default_factory=list)
    snap: Stream | None = None

    def other(self, sid: int) -> int:
        return self.ends[1] if sid == self.ends[0] else self.ends[0]


class Node:
    def __init__(self, group: Group, sid: int) -> None:
        self.group = group
        self.sid = sid
        self.disk = Disk()
        self.life = 0
        self.peer: Peer | None = None
        self.conns: dict[int, Conn] = {}
        self.delivered = 0
        self.applied: list[Txn] = []
        self.role = ServerState.LOOKING
        self.serving = False
        self.outputs: list[o.Output] = []
        """All of this life, for tests that look."""
        self._disk_free_ms = 0
        self._events: list[i.Input] = []
        self._stepping = False

    # ---- life

    def start(self, *, trusted: bool = True) -> None:
        disk = self.disk
        self.life += 1
        standing = Standing(
            self.sid, disk.accepted, disk.current, disk.end(), disk.tree_zxid, trusted
        )
        self.peer = Peer(standing, self.group.settings, disk, self.group.membership)
        self.delivered, self.applied = disk.tree_zxid, list(disk.tree)
        self.outputs = []
        self._disk_free_ms = self.group.now
        self._tick(self.life)

    def crash(self) -> None:
        self.life += 1
        self.peer = None
        self.serving = False
        self.role = ServerState.LOOKING
        self._events.clear()
        for conn in list(self.conns.values()):
            self.group.cut(conn)

    def _tick(self, life: int) -> None:
        if life == self.life and self.peer is not None:
            self.feed(i.Tick())
            self.group.after(TICK // 4, lambda: self._tick(life))

    def feed(self, *events: i.Input) -> None:
        self._events.extend(events)
        if self._stepping:
            return
        self._stepping = True
        while self._events and self.peer is not None:
            outputs = self.peer.step(self._events.pop(0), self.group.now)
            self.outputs += outputs
            for output in outputs:
                self._carry(output)
        if self.peer is not None and self.peer.deadline_ms is not None:
            deadline, life = self.peer.deadline_ms, self.life
            self.group.at(max(deadline, self.group.now + 1), lambda: self._deadline(life, deadline))
        self._stepping = False

    def _deadline(self, life: int, deadline: int) -> None:
        if life == self.life and self.peer is not None and self.peer.deadline_ms == deadline:
            self.feed(i.Tick())

    # ---- outputs

    def _carry(self, output: o.Output) -> None:
        group = self.group
        if isinstance(output, o.Append):
            self._write(lambda: self.disk.rows.extend(output.txns), i.Appended(output.txns[-1][0]))
        elif isinstance(output, o.SaveEpochs):
            self._write(
                lambda: self._save(output.accepted, output.current),
                i.EpochsSaved(output.accepted, output.current),
            )
        elif isinstance(output, o.Truncate):
            self._write(lambda: self.disk.truncate(output.zxid), i.Truncated(output.zxid))
        elif isinstance(output, o.InstallSnapshot):
            self._install(output)
        elif isinstance(output, o.Notify):
            group.notify(self.sid, output)
        elif isinstance(output, o.Connect):
            self._connect(output.sid, self.life, tries=10)
        elif isinstance(output, o.Close):
            group.cut(self.conns.get(output.conn))
        elif isinstance(output, o.RoleChanged):
            self.role, self.serving = output.role, False
            if output.role is ServerState.LOOKING:
                for conn in list(self.conns.values()):
                    group.cut(conn)
        elif isinstance(output, o.Serving):
            self.serving = True
            group.served(self, output)
        elif isinstance(output, o.Committed):
            self._deliver(output.zxid)
        elif isinstance(output, o.Halt):
            self.group.halted(self, output)
        else:
            self._send(output)

    def _send(self, output: o.Output) -> None:
        group = self.group
        if isinstance(output, o.SendPackets):
            group.send(self.sid, output.conn, output.packets)
        elif isinstance(output, o.SendProposals | o.SendInforms):
            kind = Kind.PROPOSAL if isinstance(output, o.SendProposals) else Kind.INFORM
            for conn in output.conns:
                group.send(self.sid, conn, [(kind, z, body, None) for z, body in output.txns])
        elif isinstance(output, o.SendCommits):
            run = range(output.first, output.last + 1)
            for conn in output.conns:
                group.send(self.sid, conn, [(Kind.COMMIT, zxid, None, None) for zxid in run])
        elif isinstance(output, o.SendAcks):
            run = range(output.first, output.last + 1)
            group.send(self.sid, output.conn, [(Kind.ACK, zxid, None, None) for zxid in run])
        elif isinstance(output, o.SendPing):
            group.send(self.sid, output.conn, [(Kind.PING, output.zxid, b"", None)])
        elif isinstance(output, o.SendHistory):
            pairs: list[Packet] = []
            rows = self.disk.above(output.after, output.upto)
            assert rows, "a history that is not in the log"
            assert rows[-1][0] == output.upto, "a history that is not in the log"
            for zxid, body in rows:
                pairs += [(Kind.PROPOSAL, zxid, body, None), (Kind.COMMIT, zxid, None, None)]
            group.send(self.sid, output.conn, pairs)
            self.feed(i.Sent(output.conn))
        elif isinstance(output, o.SendSnapshot):
            zxid = self.disk.tree_zxid
            group.send(self.sid, output.conn, [(Kind.SNAP, zxid, None, None)])
            group.send(self.sid, output.conn, Stream(zxid, list(self.disk.tree)))
            self.feed(i.SnapshotStarted(output.conn, zxid), i.Sent(output.conn))

    def _connect(self, sid: int, life: int, tries: int) -> None:
        if life != self.life or self.peer is None:
            return
        group, other = self.group, self.group.nodes[sid]
        if other.role is ServerState.LEADING and group.reachable(self.sid, sid):
            conn = Conn(next(group.conn_ids), (self.sid, sid), (self.life, other.life))
            self.conns[conn.id] = other.conns[conn.id] = conn
            other.feed(i.Accepted(conn.id))
            self.feed(i.Connected(conn.id))
        elif tries > 1:
            group.after(20, lambda: self._connect(sid, life, tries - 1))
        else:
            self.feed(i.ConnectFailed("nobody listens"))

    def _deliver(self, zxid: int) -> None:
        for txn in self.disk.above(self.delivered, zxid):
            self.applied.append(txn)
        self.delivered = zxid
        self.group.delivered(self)
        chance = self.group.random.random()
        if chance < self.group.flush_chance:
            self.disk.flush(zxid)
            if chance < self.group.purge_chance:
                self.disk.purge()

    # ---- the disk

    def _write(self, act: Callable[[], None], answer: i.Input) -> None:
        group, life = self.group, self.life
        self._disk_free_ms = max(self._disk_free_ms, group.now) + group.random.randint(
            0, group.disk_ms[self.sid]
        )

        def done() -> None:
            if life == self.life and self.peer is not None:
                act()
                if group.random.random() < group.crash_chance:
                    group.crash_at_persist(self)
                else:
                    self.feed(answer)

        group.at(self._disk_free_ms, done)

    def _save(self, accepted: int, current: int) -> None:
        assert (accepted, current) >= (self.disk.accepted, self.disk.current)
        self.disk.accepted, self.disk.current = accepted, current

    def _install(self, output: o.InstallSnapshot) -> None:
        conn = self.conns.get(output.conn)
        if conn is None:
            self.feed(i.SnapshotFailed("the connection has ended"))
        elif conn.snap is None:
            return  # when the stream has come
        else:
            self._install_stream(conn, conn.snap)

    def _install_stream(self, conn: Conn, stream: Stream) -> None:
        def act() -> None:
            self.disk.rows.clear()
            self.disk.tree, self.disk.tree_zxid = list(stream.tree), stream.zxid
            self.applied, self.delivered = list(stream.tree), stream.zxid
            self.group.delivered(self)
            self.group.after(0, resume)

        def resume() -> None:
            conn.paused = False
            held, conn.held = conn.held, []
            for item in held:
                self.arrived(conn, item)

        self._write(act, i.SnapshotInstalled(stream.zxid))

    def arrived(self, conn: Conn, item: Sequence[Packet] | Stream) -> None:
        if conn.paused and not isinstance(item, Stream):
            conn.held.append(item)
        elif isinstance(item, Stream):
            conn.snap = item
            self._install_stream(conn, item)
        else:
            conn.paused = item[-1][0] == Kind.SNAP
            self.feed(i.Received(conn.id, item))

    def ended(self, conn: Conn) -> None:
        if self.conns.pop(conn.id, None) is None or self.peer is None:
            return
        if conn.paused and conn.snap is None and self.sid == conn.ends[0]:
            self.feed(i.SnapshotFailed("the stream broke off"))
        self.feed(i.Disconnected(conn.id))


class Group:
    """Servers, the network between them, and what is checked from outside."""

    def __init__(
        self,
        voters: int = 3,
        observers: int = 0,
        seed: int = 0,
        settings: Settings = SETTINGS,
    ) -> None:
        self.random = random.Random(seed)
        self.settings = settings
        self.membership = membership(voters, observers)
        self.now = 0
        self.conn_ids = itertools.count(1)
        self.cut_links: set[tuple[int, int]] = set()
        self.crash_chance = 0.0
        self.flush_chance, self.purge_chance = 0.3, 0.0
        self.disk_ms = dict.fromkeys(self.membership.servers, 15)
        """The longest that one thing takes at each server's disk."""
        self.history: list[Txn] = []
        """The longest that any server has delivered."""
        self.acknowledged = 0
        """How many transactions of `history` a client was told."""
        self.leaders: dict[int, int] = {}
        self.trace: list[str] = []
        self._queue: list[tuple[int, int, Callable[[], None]]] = []
        self._sequence = itertools.count()
        self._last: dict[tuple[int, int], int] = {}
        self.nodes = {sid: Node(self, sid) for sid in self.membership.servers}

    # ---- time

    def at(self, when: int, act: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (max(when, self.now), next(self._sequence), act))

    def after(self, delay: int, act: Callable[[], None]) -> None:
        self.at(self.now + delay, act)

    def run(self, ms: int, until: Callable[[], bool] | None = None) -> bool:
        """Let time pass. True as soon as `until` holds."""
        end = self.now + ms
        while self._queue and self._queue[0][0] <= end:
            if until is not None and until():
                return True
            self.now, _, act = heapq.heappop(self._queue)
            act()
        self.now = end
        return until is not None and until()

    # ---- servers

    def start(self, *sids: int) -> None:
        for sid in sids or self.nodes:
            self.nodes[sid].start()

    def crash_at_persist(self, node: Node) -> None:
        self.trace.append(f"{self.now} crash {node.sid}")
        node.crash()
        self.after(self.random.randint(100, 3000), lambda: self.restart(node))

    @staticmethod
    def restart(node: Node) -> None:
        if node.peer is None:
            node.start()

    def leader(self) -> Node | None:
        """Who leads and serves, in the highest epoch if there are several."""
        leading = [n for n in self.nodes.values() if n.serving and n.role is ServerState.LEADING]
        return max(leading, key=lambda node: node.disk.current, default=None)

    def all_serve(self, *sids: int) -> bool:
        return all(self.nodes[sid].serving for sid in sids or self.nodes)

    def write(self, *bodies: bytes) -> bool:
        """Transactions of clients of the leader."""
        node = self.leader()
        if node is None or node.peer is None or node.peer.next_zxid is None:
            return False
        first = node.peer.next_zxid
        node.feed(i.Propose([(first + n, body) for n, body in enumerate(bodies)]))
        return True

    # ---- network

    def reachable(self, one: int, other: int) -> bool:
        both = {(one, other), (other, one)}
        return not both & self.cut_links and self.nodes[other].peer is not None

    def partition(self, *side: int) -> None:
        """These servers and the others hear nothing of each other; connections stay open."""
        rest = set(self.nodes) - set(side)
        self.cut_links = {(a, b) for a in side for b in rest} | {(b, a) for a in side for b in rest}

    def heal(self) -> None:
        """Connections over a cut are dead: what was sent meanwhile is lost."""
        self.cut_links = set()

    def cut(self, conn: Conn | None) -> None:
        if conn is None or not conn.open:
            return
        conn.open = False
        for sid, life in zip(conn.ends, conn.lives, strict=True):
            node = self.nodes[sid]
            if node.life != life:
                node.conns.pop(conn.id, None)
                continue
            self.after(self.random.randint(1, 20), lambda node=node: node.ended(conn))

    def notify(self, from_sid: int, output: o.Notify) -> None:
        to = self.nodes[output.to_sid]
        if not self.reachable(from_sid, to.sid):
            return
        link = (from_sid, to.sid)
        when = max(self._last.get(link, 0), self.now + self.random.randint(1, 20))
        self._last[link] = when
        life = to.life

        def arrive() -> None:
            if to.life == life and link not in self.cut_links:
                to.feed(i.Notified(from_sid, output.notification))

        self.at(when, arrive)

    def send(self, from_sid: int, conn_id: int, item: Sequence[Packet] | Stream) -> None:
        conn = self.nodes[from_sid].conns.get(conn_id)
        if conn is None or not conn.open:
            return
        to = conn.other(from_sid)
        when = max(conn.arrival.get(to, 0), self.now + self.random.randint(1, 20))
        conn.arrival[to] = when

        def arrive() -> None:
            if not conn.open:
                return
            if (from_sid, to) in self.cut_links:
                self.at(self.now + 10 * TICK, lambda: self.cut(conn))
                conn.held.clear()
                conn.arrival[to] = 1 << 62
                return
            if when <= conn.arrival[to] < 1 << 62:
                self.nodes[to].arrived(conn, item)

        self.at(when, arrive)

    # ---- what must hold

    def served(self, node: Node, output: o.Serving) -> None:
        self.trace.append(f"{self.now} {output.role.name} {node.sid} epoch {output.epoch}")
        if output.role is ServerState.LEADING:
            other = self.leaders.setdefault(output.epoch, node.sid)
            assert other == node.sid, f"two leaders in epoch {output.epoch}"
            told = self.history[: self.acknowledged]
            assert node.applied[: len(told)] == told, "an acknowledged transaction is lost"

    @staticmethod
    def halted(node: Node, output: o.Halt) -> None:
        raise AssertionError(f"server {node.sid} halts: {output.reason}")

    def delivered(self, node: Node) -> None:
        mine, common = node.applied, min(len(node.applied), len(self.history))
        assert mine[:common] == self.history[:common], f"another history on server {node.sid}"
        if len(mine) > len(self.history):
            self.history = list(mine)
        if node.role is ServerState.LEADING and node.serving:
            self.acknowledged = max(self.acknowledged, len(mine))
