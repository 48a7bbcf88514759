"""What a seed decides before anything happens: who takes part, and how bad the world is.

Each seed turns on some of the faults and leaves others out, at rates of its own: what only a calm
world with one kind of fault shows, and what only a storm shows, both get their seeds.
"""

from __future__ import annotations

import dataclasses
import random
from dataclasses import dataclass

from tests.zab.group import SETTINGS, Group, membership
from zkd.config.servers import Membership
from zkd.zab.settings import Settings


@dataclass(frozen=True)
class Plan:
    """Chances are per message, write or output; weights are of one thing that is done now and then
    (`run.py`)."""

    seed: int
    voters: int
    observers: int
    by_master: tuple[int, ...]  # observers that ask followers
    groups: bool  # hierarchical quorums
    oracle: bool  # a pair of servers with an oracle
    clients: int
    rounds: int  # so often something is done
    delay_ms: tuple[int, int]
    late: tuple[float, int]  # chance, and how late
    loss: float
    repeats: float  # of the election's messages
    wire: bool
    disk_ms: int
    slow_disk_ms: int
    slow_disks: int  # so many servers have one
    snapshot_ms: int
    flush: float
    purge: float
    diff_rows_max: int
    snap_syncs_max: int
    diff_syncs_max: int
    epoch_wait_ms: int
    crash_at_write: float
    crash_at_output: float
    crash: int
    crash_leader: int
    crash_twice: int  # a server that has just come back, or a candidate's supporters
    partition: int
    one_way: int
    heal: int
    cut: int
    stall: int
    jump: int
    forget: int
    orphan: int
    ahead: int
    trap: int
    calm: int

    def group(self) -> Group:
        members = membership(self.voters, self.observers)
        if self.groups:
            members = grouped(members)
        group = Group(
            seed=self.seed, settings=self.settings(), members=members, by_master=self.by_master
        )
        network = group.network
        network.delay_ms, network.loss, network.repeats = self.delay_ms, self.loss, self.repeats
        network.late_chance, network.late_ms = self.late
        network.wire = self.wire
        group.snapshot_ms = self.snapshot_ms
        group.flush_chance, group.purge_chance = self.flush, self.purge
        group.disk_ms = dict.fromkeys(members.servers, self.disk_ms)
        for sid in group.random.sample(sorted(members.servers), self.slow_disks):
            group.disk_ms[sid] = self.slow_disk_ms
        return group

    def settings(self) -> Settings:
        return dataclasses.replace(
            SETTINGS,
            diff_rows_max=self.diff_rows_max,
            snap_syncs_max=self.snap_syncs_max,
            diff_syncs_max=self.diff_syncs_max,
            epoch_wait_ms=self.epoch_wait_ms or None,
            observer_master=bool(self.by_master),
        )

    def __str__(self) -> str:
        fields = [f"{field.name}={getattr(self, field.name)}" for field in dataclasses.fields(self)]
        return "  ".join(part for part in fields if not part.endswith(("=0", "=0.0", "=False")))


def grouped(members: Membership) -> Membership:
    """Three groups of voters, some of whom weigh twice, and of the last one nothing."""
    voters = sorted(line.id for line in members.voters())
    groups = {g: tuple(voters[g - 1 :: 3]) for g in (1, 2, 3)}
    weights = dict.fromkeys(voters, 1)
    weights[voters[0]] = 2
    if len(voters) > 5:
        weights[voters[-1]] = 0
    return Membership(members.servers, groups, weights)


def plan(seed: int) -> Plan:
    dice = random.Random(f"plan {seed}")

    def some(chance: float, *values: float) -> float:
        return dice.choice(values) if dice.random() < chance else 0

    def often(chance: float, most: int) -> int:
        return dice.randint(1, most) if dice.random() < chance else 0

    oracle = dice.random() < 0.05
    voters = 2 if oracle else dice.choice((3, 3, 3, 4, 5, 5, 6, 7))
    observers = dice.randint(0, min(3, 7 - voters)) if dice.random() < 0.6 else 0
    sids = range(voters + 1, voters + observers + 1)
    by_master = tuple(sid for sid in sids if dice.random() < 0.4)
    return Plan(
        seed=seed,
        voters=voters,
        observers=observers,
        by_master=by_master,
        oracle=oracle,
        groups=voters >= 5 and dice.random() < 0.25,
        clients=dice.randint(1, 6),
        rounds=dice.randint(20, 60),
        delay_ms=dice.choice(((1, 5), (1, 20), (1, 20), (1, 80), (20, 150))),
        late=dice.choice(((0.0, 0), (0.0, 0), (0.02, 500), (0.1, 200), (0.01, 3000))),
        loss=some(0.3, 0.001, 0.005, 0.02),
        repeats=some(0.3, 0.05, 0.2),
        wire=dice.random() < 0.25,
        disk_ms=dice.choice((2, 15, 15, 60)),
        slow_disk_ms=dice.choice((100, 400, 1200)),
        slow_disks=dice.choice((0, 0, 1, 1, 2, voters - 1)),
        snapshot_ms=dice.choice((0, 30, 300)),
        flush=dice.choice((0.0, 0.1, 0.3, 0.8)),
        purge=some(0.6, 0.05, 0.3),
        diff_rows_max=dice.choice((3, 5, 20, 1000)),
        snap_syncs_max=dice.choice((1, 2, 10)),
        diff_syncs_max=dice.choice((1, 2, 100, 100)),
        epoch_wait_ms=dice.choice((0, 0, 100, 500)),
        crash_at_write=some(0.6, 0.003, 0.01, 0.05),
        crash_at_output=some(0.4, 0.0005, 0.002, 0.01),
        crash=often(0.6, 4),
        crash_leader=often(0.5, 3),
        crash_twice=often(0.3, 3),
        partition=often(0.5, 4),
        one_way=often(0.3, 3),
        heal=often(0.9, 8),
        cut=often(0.4, 4),
        stall=often(0.3, 3),
        jump=often(0.2, 2),
        forget=0 if oracle else often(0.15, 2),
        orphan=often(0.4, 3),
        ahead=often(0.4, 3),
        trap=often(0.5, 4),
        calm=dice.randint(1, 20),
    )
