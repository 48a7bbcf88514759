"""One seed: a group of servers and clients lives through its plan, is healed, and must go on.

While it lives, `checks.py` looks at everything that is told or delivered. Then every fault ends,
every server is started, and within a bound all of them must serve one history and a write must be
delivered everywhere.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from functools import partial

from tests.simulation.clients import Client
from tests.simulation.oracle import Oracle
from tests.simulation.plan import Plan, plan
from tests.zab.checks import Violation
from tests.zab.group import Group
from tests.zab.node import Node
from zkd.jute.quorum import Kind
from zkd.zab.faults import PeerFault
from zkd.zab.votes import ServerState

_TRAPS = [
    Kind.LEADER_INFO,
    Kind.ACK_EPOCH,
    Kind.ACK_EPOCH,
    Kind.DIFF,
    Kind.TRUNC,
    Kind.SNAP,
    Kind.NEW_LEADER,
    Kind.ACK,
    Kind.UP_TO_DATE,
    Kind.PROPOSAL,
    Kind.COMMIT,
]

HEAL_MS = 30_000
PROGRESS_MS = 5000


@dataclass
class Result:
    plan: Plan
    failure: str | None = None
    rule: str = ""
    """Which property; empty where the core or its driver failed by an assertion of their own."""
    counts: Counter[str] = field(default_factory=Counter)
    trace: list[str] = field(default_factory=list)
    digest: str = ""
    """Of everything that happened, when it was traced."""


def run(seed: int, *, traced: bool = False, without: frozenset[str] = frozenset()) -> Result:
    """`without`: rules that are not checked."""
    the_plan = plan(seed)
    result = Result(the_plan)
    group = the_plan.group()
    group.checks.without = without
    if traced:
        group.events = []
    try:
        Life(group, the_plan).live()
    except Violation as violation:
        result.failure, result.rule = str(violation), violation.rule
    except (AssertionError, PeerFault, LookupError) as fault:
        result.failure = f"{type(fault).__name__}: {fault}"
    result.counts = group.counts
    result.counts["transactions"] = len(group.history)
    result.counts["simulated s"] = group.now // 1000
    if traced:
        result.trace = group.trace
        result.digest = hashlib.sha256("\n".join(result.trace).encode()).hexdigest()
    return result


class Life:
    def __init__(self, group: Group, the_plan: Plan) -> None:
        self.group = group
        self.plan = the_plan
        self.dice = group.random
        self.clients = [Client(group, number) for number in range(1, the_plan.clients + 1)]
        weights = {
            name: getattr(the_plan, name)
            for name in (
                "crash",
                "crash_leader",
                "crash_twice",
                "partition",
                "one_way",
                "heal",
                "cut",
                "stall",
                "jump",
                "forget",
                "orphan",
                "ahead",
                "trap",
                "calm",
            )
        }
        self._deeds = [name for name, weight in weights.items() if weight]
        self._weights = [weights[name] for name in self._deeds]

    def live(self) -> None:
        group, dice, the_plan = self.group, self.dice, self.plan
        if the_plan.oracle:
            Oracle(group)
        for node in group.nodes.values():
            group.at(dice.choice((0, 0, dice.randint(0, 1500))), node.start)
        for client in self.clients:
            client.begin()
        if dice.random() < 0.7:
            group.run(3000, group.all_serve)
        group.crash_chance = the_plan.crash_at_write
        group.output_crash_chance = the_plan.crash_at_output
        for _ in range(the_plan.rounds):
            group.run(dice.randint(1, 400))
            (deed,) = dice.choices(self._deeds, self._weights)
            getattr(self, f"_{deed}")()
        self._end()

    # ---- deeds

    def _calm(self) -> None:
        pass

    def _some(self) -> Node:
        """Any server; rather one that is writing."""
        nodes = list(self.group.nodes.values())
        writing = [node for node in nodes if node.writing]
        return self.dice.choice(writing if writing and self.dice.random() < 0.6 else nodes)

    def _down(self, node: Node, what: str) -> None:
        if node.peer is not None:
            self.group.count(what)
            self.group.crash_at_persist(node)

    def _crash(self) -> None:
        self._down(self._some(), "crashes")

    def _crash_leader(self) -> None:
        """Whoever leads, established or not."""
        leading = [n for n in self.group.nodes.values() if n.role is ServerState.LEADING]
        if leading:
            self._down(self.dice.choice(leading), "leaders crash")

    def _crash_twice(self) -> None:
        """All but a few go down and come back within moments, twice: what they promised, and to
        whom, only their disks know. No more than the log that they had is there afterwards."""
        nodes = list(self.group.nodes.values())
        for node in self.dice.sample(nodes, self.dice.randint(1, max(1, len(nodes) - 1))):
            at_ms = self.group.now
            for _ in range(2):
                at_ms += self.dice.randint(1, 300)
                self.group.at(at_ms, node.crash)
                at_ms += self.dice.randint(1, 20)
                self.group.at(at_ms, partial(self.group.restart, node))
        self.group.count("crashes twice")

    def _partition(self) -> None:
        nodes = sorted(self.group.nodes)
        self.group.count("partitions")
        side = self.dice.sample(nodes, self.dice.randint(1, (len(nodes) + 1) // 2))
        self.group.log(0, "partition", side)
        self.group.network.partition(side)

    def _one_way(self) -> None:
        """One server is not heard, or hears nobody."""
        nodes = sorted(self.group.nodes)
        (mute,) = self.dice.sample(nodes, 1)
        links = [(mute, other) for other in nodes if other != mute]
        if self.dice.random() < 0.5:
            links = [(b, a) for a, b in links]
        self.group.count("one-way partitions")
        self.group.log(0, "one way", links)
        self.group.network.cut_links |= set(links)

    def _heal(self) -> None:
        self.group.log(0, "heals", None)
        self.group.heal()

    def _cut(self) -> None:
        conns = [conn for node in self.group.nodes.values() for conn in node.conns.values()]
        if conns:
            self.group.count("connections cut")
            self.group.cut(self.dice.choice(conns))

    def _stall(self) -> None:
        ms = self.dice.choice((50, 300, 1000, 3000))
        node = self._some()
        self.group.count("stalls")
        self.group.log(node.sid, "stalls", ms)
        node.stall(ms)

    def _jump(self) -> None:
        ms = self.dice.choice((-2000, -300, 200, 1000, 5000))
        node = self._some()
        self.group.count("clock jumps")
        self.group.log(node.sid, "clock jumps", ms)
        node.skew_ms += ms

    def _forget(self) -> None:
        """A server's log is found to be damaged at its start. One at a time: what a quorum has
        forgotten nobody can know."""
        group = self.group
        if any(not node.disk.trusted for node in group.nodes.values()):
            return
        node = self._some()
        node.crash()
        node.disk.forget()
        group.count("logs lost")
        group.log(node.sid, "loses its log", None)
        group.after(self.dice.randint(10, 1000), lambda: group.restart(node))

    def _orphan(self) -> None:
        """A leader that nobody hears goes on proposing, and crashes with what it has logged."""
        group, leader = self.group, self.group.leader()
        if leader is None:
            return
        group.count("orphans")
        group.log(leader.sid, "is not heard any more", None)
        group.network.cut_links |= {(leader.sid, other) for other in group.nodes}
        for number in range(self.dice.randint(1, 3)):
            leader_is = group.leader()
            if leader_is is leader:
                group.write(*[b"orphan %d" % number] * self.dice.randint(1, 3))
            group.run(self.dice.randint(1, 150))
        leader.crash()
        group.network.cut_links = {
            link for link in group.network.cut_links if leader.sid not in link
        }
        group.after(self.dice.choice((10, 3000, 6000)), lambda: group.restart(leader))

    def _ahead(self) -> None:
        """A follower has rows that the leader's disk does not have yet, and comes back with them;
        meanwhile another disk decides what is committed."""
        group, dice, leader = self.group, self.dice, self.group.leader()
        if leader is None:
            return
        links = [conn for conn in leader.conns.values() if conn.ends[1] == leader.sid]
        if not links:
            return
        group.count("ahead of the leader's disk")
        conn = dice.choice(links)
        for node in group.nodes.values():
            if node is not group.nodes[conn.ends[0]]:
                node.slow_ms = 1500 if node is leader else dice.randint(100, 700)
        for number in range(4):
            if group.leader() is leader:
                group.write(b"ahead %d" % number)
            group.run(dice.randint(1, 40))
        group.cut(conn)
        group.run(dice.randint(200, 1500))
        for node in group.nodes.values():
            node.slow_ms = 0

    def _trap(self) -> None:
        """Whoever next sends one of these crashes right after it."""
        self.group.traps = set(self.dice.sample(_TRAPS, 2))

    # ---- the end

    def _end(self) -> None:
        """No more faults: everything must come to rest, and a write go through."""
        group = self.group
        group.log(0, "healed for good", None)
        group.heal()
        group.crash_chance = group.output_crash_chance = 0.0
        group.traps.clear()
        network = group.network
        network.loss = network.repeats = network.late_chance = 0.0
        network.delay_ms = (1, 20)
        for node in group.nodes.values():
            group.restart(node)
            node.slow_ms = 0
        group.disk_ms = dict.fromkeys(group.nodes, 15)
        for client in self.clients:
            client.active = False
        group.checks.demand(self._settles(), "progress", self._standing())
        group.checks.demand(self._goes_on(), "progress", f"no write: {self._standing()}")

    def _settled(self) -> bool:
        group = self.group
        return group.all_serve() and all(
            node.applied == group.history for node in group.nodes.values()
        )

    def _settles(self) -> bool:
        """A server that has promised a later epoch than the one that goes on without it stays out,
        as in Apache ZooKeeper, until there is another election."""
        group = self.group
        if group.run(HEAL_MS // 2, self._settled):
            return True
        leader = group.leader()
        if leader is not None and any(
            node.disk.accepted > leader.epoch for node in group.nodes.values()
        ):
            group.count("left out by a promise")
            leader.crash()
            leader.start()
        return group.run(HEAL_MS, self._settled)

    def _goes_on(self) -> bool:
        """At the latest when every connection that was cut is known to be."""
        group = self.group
        for attempt in range(4):
            body = b"last %d" % attempt
            group.write(body)
            done = lambda body=body: self._settled() and (  # noqa: E731
                bool(group.history) and group.history[-1][1] == body
            )
            if group.run(PROGRESS_MS, done):
                return True
        return False

    def _standing(self) -> str:
        return ", ".join(
            f"{node.sid} {node.role.name} {'serves' if node.serving else ''}"
            f" epochs {node.disk.accepted} {node.disk.current} delivered {node.delivered:x}"
            for node in self.group.nodes.values()
        )
