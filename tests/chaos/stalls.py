"""Stalls: a server, or one of its processes, that stands still and then goes on.

Each returns the outcome of a run in which SIGSTOP and SIGCONT were the only faults, with what is
special to the case checked on top of the history.
"""

from __future__ import annotations

import asyncio
import signal
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

from tests.chaos import nemesis
from tests.chaos.checker import Violation, check
from tests.chaos.client import Client
from tests.chaos.harness import Outcome
from tests.chaos.history import History, Kind, Mark, Note, Op
from tests.chaos.load import Load, Shape
from tests.chaos.servers import Server


@dataclass(frozen=True)
class Latencies:
    """Seconds of answered writes."""

    p50: float
    p99: float
    count: int

    @classmethod
    def of(cls, ops: Sequence[Op]) -> Latencies:
        taken = sorted(op.returned_s - op.called_s for op in ops)
        if len(taken) < 2:
            return cls(float("inf"), float("inf"), len(taken))
        cuts = statistics.quantiles(taken, n=100, method="inclusive")
        return cls(cuts[49], cuts[98], len(taken))

    def __str__(self) -> str:
        return f"p50 {self.p50 * 1e3:.1f} ms, p99 {self.p99 * 1e3:.1f} ms of {self.count}"


@dataclass(frozen=True)
class FrontEndStall:
    """One front-end stood still: writes over the other before and meanwhile, and the first answers
    of the stopped one afterwards."""

    outcome: Outcome
    before: Latencies
    meanwhile: Latencies
    first_answers: int
    """Reads sent to the stopped front-end while it stood still that it answered when it went on.
    It may also close those connections, if its right to serve has run out; then it is 0."""


async def settled(load: Load, server: Server) -> dict[str, list[Client]]:
    """Which clients each front-end serves: front-end's name -> clients."""
    names = {pid: name for name, pid in server.processes().items() if "frontend" in name}
    found: dict[str, list[Client]] = {name: [] for name in names.values()}
    for client in load.clients:
        pid = nemesis.holder(client.local_port, server.port, names)
        if pid is not None:
            found[names[pid]].append(client)
    return found


async def front_end_stopped(
    server: Server, *, seed: int, seconds: float, timeout_ms: int
) -> FrontEndStall:
    """SIGSTOP one of two front-ends for some seconds under load.

    The session timeout must be more than one and a half times `seconds`, so that clients of the
    stopped front-end wait for it. Just before SIGCONT each of them reads every register, after
    writes over the other front-end were acknowledged: those answers may not be stale.
    """
    history = History()
    outcome = Outcome(seed, history)
    load = Load([server.address], history, seed, Shape(8, timeout_ms), top=f"/stall-{seed}")
    try:
        await load.set_up()
        await load.start()
        by_front_end = await settled(load, server)
        while not all(by_front_end.values()):  # the kernel spreads them by chance
            load.clients[0].drop()
            await load.clients[0].attached.wait()
            await asyncio.sleep(0.05)
            by_front_end = await settled(load, server)
        (name, stopped), (_, going) = sorted(by_front_end.items(), key=lambda item: len(item[1]))
        start = time.monotonic()
        await asyncio.sleep(seconds)
        pid = server.processes()[name]
        fault = Mark(Note.FAULT, history.tick(), time.monotonic(), text=f"stop {name}")
        history.marks.append(fault)
        nemesis.signal_all([pid], signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
            reads = [
                asyncio.create_task(client.get(path))
                for client in stopped
                for path in load.registers
            ]
            await asyncio.sleep(0.1)  # the requests are in the stopped front-end's sockets by now
            end = time.monotonic()
        finally:
            nemesis.signal_all([pid], signal.SIGCONT)
        outcome.faults = 1
        async with asyncio.timeout(10.0):
            answers = await asyncio.gather(*reads)
        await load.finish(10.0)
        async with asyncio.timeout(10.0):
            await load.audit()
    finally:
        await load.stop()
    outcome.violations = check(history)
    outcome.violations += [Violation("log", line, 0) for line in server.complaints()]
    numbers = {client.number for client in going}
    writes = [
        op
        for op in history.ops
        if op.client in numbers and op.kind in (Kind.SET, Kind.MULTI) and op.answered
    ]
    return FrontEndStall(
        outcome,
        Latencies.of([op for op in writes if start < op.called_s < fault.seconds]),
        Latencies.of([op for op in writes if fault.seconds < op.called_s < end]),
        sum(op.answered for op in answers),
    )
