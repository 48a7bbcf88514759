"""A group of servers, each a `Peer` with a driver in memory: one seed decides everything.

    node.py     a server and its driver        disk.py     what survives a crash
    network.py  connections and votes          front.py    sessions and requests of clients
    checks.py   what must hold of all of them

Time is a number. Whoever drives a group lets it pass (`run`), and sets chances of faults, or makes
them one by one. The same seed and the same calls give the same run, to the last message.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable, Collection, Sequence

from tests.zab.checks import Checks, Violation
from tests.zab.network import Conn, Network
from tests.zab.node import Node
from zkd.config.servers import OBSERVER, PARTICIPANT, Membership, PeerAddress, ServerLine
from zkd.jute.quorum import Packet, name
from zkd.zab import inputs as i
from zkd.zab import outputs as o
from zkd.zab.election import ElectionSettings
from zkd.zab.inputs import Txn
from zkd.zab.settings import Settings, Standing
from zkd.zab.votes import Notification, ServerState
from zkd.zab.zxid import counter_of, epoch_of

TICK = 200
SETTINGS = Settings(
    tick_ms=TICK,
    init_limit=10,
    sync_limit=5,
    election=ElectionSettings(min_interval_ms=50, max_interval_ms=400, finalize_ms=50),
)

Event = tuple[int, int, str, object]
"""Time, server (0: the world), what, of what."""


def membership(voters: int, observers: int = 0) -> Membership:
    servers = {}
    for sid in range(1, voters + observers + 1):
        address = PeerAddress(f"s{sid}", 2888, 3888)
        servers[sid] = ServerLine(sid, (address,), PARTICIPANT if sid <= voters else OBSERVER)
    return Membership(servers)


class Group:
    """Servers, the network between them, and what is checked from outside."""

    def __init__(
        self,
        voters: int = 3,
        observers: int = 0,
        seed: int = 0,
        settings: Settings = SETTINGS,
        *,
        members: Membership | None = None,
        by_master: Collection[int] = (),
    ) -> None:
        self.random = random.Random(seed)
        self.settings = settings
        self.membership = members or membership(voters, observers)
        self.by_master = frozenset(by_master)
        """Observers that ask followers to take them in."""
        self.now = 0
        self.crash_chance = self.output_crash_chance = 0.0
        """At each write (six times that where it is no append), at each output."""
        self.flush_chance, self.purge_chance = 0.3, 0.0
        self.disk_ms = dict.fromkeys(self.membership.servers, 15)
        """The longest that one thing takes at each server's disk."""
        self.snapshot_ms = 0
        """The longest until a snapshot begins."""
        self.traps: set[int] = set()
        """Kinds of packets of which the next one is the last that its sender sends."""
        self.alone: set[int] = set()
        """Servers that an oracle lets go on alone."""
        self.oracle_says: dict[int, str] = {}
        self.counts: Counter[str] = Counter()
        self.events: list[Event] | None = None
        """What happened, if anybody wants to read it."""
        self._queue: list[tuple[int, int, Callable[[], None]]] = []
        self._sequence = itertools.count()
        self.network = Network(self)
        self.checks = Checks(self)
        self.nodes = {sid: Node(self, sid) for sid in self.membership.servers}

    @property
    def history(self) -> list[Txn]:
        return self.checks.history

    @property
    def leaders(self) -> dict[int, int]:
        return self.checks.leaders

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
        """It comes back after a while."""
        node.crash()
        self.after(self.random.randint(100, 3000), lambda: self.restart(node))

    def spring(self, node: Node, kind: int) -> None:
        """A trap: the server crashes as soon as it has sent this, and may be back at once."""
        self.traps.discard(kind)
        self.count(f"traps:{name(kind)}")
        life = node.life

        def fall() -> None:
            if node.life == life:
                node.crash()
                self.after(self.random.choice((1, 20, 500)), lambda: self.restart(node))

        self.after(0, fall)

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
        """Transactions at the leader, of nobody's session."""
        node = self.leader()
        if node is None or node.peer is None or node.peer.next_zxid is None or node.stalled:
            return False
        first = node.peer.next_zxid
        txns = [(first + n, body) for n, body in enumerate(bodies)]
        self.checks.proposed(txns)
        node.feed(i.Propose(txns))
        return True

    # ---- network

    def partition(self, *side: int) -> None:
        """These servers and the others hear nothing of each other; connections stay open."""
        self.network.cut_links.clear()
        self.network.partition(side)

    def heal(self) -> None:
        """Connections over a cut are dead: what was sent meanwhile is lost."""
        self.network.cut_links.clear()

    def cut(self, conn: Conn | None) -> None:
        self.network.cut(conn)

    # ---- what happens

    def count(self, what: str) -> None:
        self.counts[what] += 1

    def served(self, node: Node, output: o.Serving) -> None:
        self.log(node.sid, "serves", output)
        self.count("epochs" if output.role is ServerState.LEADING else "serving learners")
        self.checks.served(node, output)

    def halted(self, node: Node, output: o.Halt) -> None:
        raise Violation("history", f"server {node.sid} halts: {output.reason}")

    def log(self, sid: int, what: str, of: object) -> None:
        if self.events is not None:
            self.events.append((self.now, sid, what, of))

    def log_packets(self, sid: int, conn: Conn, packets: Sequence[Packet]) -> None:
        if self.events is not None:
            self.events.append((self.now, sid, f"-> {conn.other(sid)}", tuple(packets)))

    @property
    def trace(self) -> list[str]:
        """The events as lines to be read."""
        return [_line(event) for event in self.events or []]


def zxid_text(zxid: int) -> str:
    """`2:17`: epoch and counter."""
    return str(zxid) if zxid < 0 else f"{epoch_of(zxid)}:{counter_of(zxid)}"


def _told(of: object) -> str:
    if isinstance(of, Notification):
        return (
            f"{of.leader} at {zxid_text(of.zxid)}, epoch {of.peer_epoch}, round {of.round}"
            f", {of.state.name}"
        )
    if isinstance(of, Standing):
        trusted = "" if of.trusted else ", not to be trusted"
        return (
            f"at {zxid_text(of.logged)}, tree at {zxid_text(of.committed)},"
            f" epochs {of.accepted_epoch} {of.current_epoch}{trusted}"
        )
    if isinstance(of, o.Serving):
        return f"{of.role.name} epoch {of.epoch}"
    if isinstance(of, o.Close):
        return f"connection {of.conn}: {of.reason}"
    return "" if of is None else str(of)


def _line(event: Event) -> str:
    when, sid, what, of = event
    if what.startswith("->"):
        assert isinstance(of, tuple)
        told = ", ".join(f"{name(packet[0])} {zxid_text(packet[1])}" for packet in of[:6])
        text = told + (f", ... {len(of)}" if len(of) > 6 else "")
    else:
        text = _told(of)
    return f"{when:7} {f'server {sid}' if sid else 'world':9} {what} {text}"
