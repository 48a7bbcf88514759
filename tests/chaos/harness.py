"""Puts load, faults and checks together: a scenario is a server, a load and a list of faults.

After each fault the server must be whole again, and every client must be attached and have had an
answer within a bound; then the next fault follows at a random moment. At the end everything is
read by every client, and the whole history is judged.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import random
import signal
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from tests.chaos import nemesis
from tests.chaos.checker import Violation, check, unhealed
from tests.chaos.history import Event, History, Mark, Note, Op
from tests.chaos.load import Load, Shape
from tests.chaos.servers import Server, ServerFailed

RESTART_BOUND_S = 15.0
"""From a process's death until it runs again."""


@dataclass(frozen=True)
class Bounds:
    """How long things may take, in seconds."""

    reconnect_s: float = 5.0
    """From the moment the server is whole until every client is attached."""
    answer_s: float = 10.0
    """From then until every client has had an answer; also until the load has come to rest."""
    pause_s: tuple[float, float] = (0.05, 1.2)
    """The random time before each fault: at least and at most."""


class Fault(Protocol):
    """Something done to a server. `apply` returns when the server should be getting better."""

    def describe(self) -> str: ...

    async def apply(self, server: Server, rng: random.Random) -> None: ...


async def _until_new(server: Server, name: str, old: int) -> None:
    end = time.monotonic() + RESTART_BOUND_S
    while server.processes().get(name, old) == old:
        if time.monotonic() > end or not server.alive:
            raise ServerFailed(f"{name} was not started again\n{server.tail()}")
        await asyncio.sleep(0.01)  # between two looks, not instead of one


@dataclass(frozen=True)
class Kill:
    """SIGKILL to one process, which its supervisor starts again."""

    name: str

    def describe(self) -> str:
        return f"kill -9 {self.name}"

    async def apply(self, server: Server, rng: random.Random) -> None:
        pid = server.processes()[self.name]
        os.kill(pid, signal.SIGKILL)
        await _until_new(server, self.name, pid)


@dataclass(frozen=True)
class KillAll:
    """SIGKILL to all processes at once, then a new start."""

    def describe(self) -> str:
        return "kill -9 all"

    async def apply(self, server: Server, rng: random.Random) -> None:
        server.kill_all()
        await asyncio.sleep(rng.uniform(0, 0.2))
        server.spawn()


@dataclass(frozen=True)
class KillSupervisor:
    """SIGKILL to the supervisor alone: its children must die with it. Then a new start."""

    def describe(self) -> str:
        return "kill -9 supervisor"

    async def apply(self, server: Server, rng: random.Random) -> None:
        children = nemesis.descendants(server.root)
        os.kill(server.root, signal.SIGKILL)
        assert server.process is not None
        server.process.wait()
        end = time.monotonic() + 5.0
        while left := [pid for pid in children if nemesis.name_of(pid)]:
            if time.monotonic() > end:
                nemesis.signal_all(left, signal.SIGKILL)
                raise ServerFailed(f"orphans after the supervisor's death: {left}")
            await asyncio.sleep(0.01)  # between two looks, not instead of one
        server.spawn()


@dataclass(frozen=True)
class Freeze:
    """SIGSTOP to one process (or, with no name, to all) for some seconds, then SIGCONT."""

    name: str
    seconds: float

    def describe(self) -> str:
        return f"stop {self.name or 'all'} for {self.seconds:g} s"

    async def apply(self, server: Server, rng: random.Random) -> None:
        if self.name:
            pids = [server.processes()[self.name]]
            nemesis.signal_all(pids, signal.SIGSTOP)
        else:
            pids = nemesis.freeze_tree(server.root)
        try:
            await asyncio.sleep(self.seconds)
        finally:
            nemesis.signal_all(reversed(pids), signal.SIGCONT)


@dataclass
class Outcome:
    """What came of a scenario."""

    seed: int
    history: History
    violations: list[Violation] = field(default_factory=list)
    faults: int = 0

    def summary(self) -> str:
        ops = self.history.ops
        lost = sum(op.returned is None for op in ops)
        return (
            f"seed {self.seed}: {self.faults} faults, {len(ops)} operations, {lost} unanswered, "
            f"{len(self.history.events)} events, {len(self.violations)} violations"
        )

    def report(self, at_most: int = 20) -> str:
        lines = [self.summary()]
        for v in self.violations[:at_most]:
            lines.append(f"  [{v.tick}] {v.check}: {v.text}; {self.history.fault_before(v.tick)}")
        return "\n".join(lines)

    def save(self, path: Path) -> None:
        """Write the whole history, one JSON object a line, for a post-mortem."""
        with path.open("w") as f:
            items: list[Violation | Mark | Op | Event] = [*self.violations, *self.history.marks]
            items += [*self.history.ops, *self.history.events]
            for item in items:
                entry = dataclasses.asdict(item) | {"item": type(item).__name__}
                f.write(json.dumps(entry, default=sorted) + "\n")


def _mark(history: History, note: Note, text: str) -> None:
    history.marks.append(Mark(note, history.tick(), time.monotonic(), text=text))


async def _all_served(load: Load, bound_s: float) -> None:
    """Wait until every client is attached and has had an answer from now on."""
    before = [client.answers for client in load.clients]
    end = time.monotonic() + bound_s
    while True:
        waiting = [
            client.number
            for client, answers in zip(load.clients, before, strict=True)
            if client.answers == answers or not client.attached.is_set()
        ]
        if not waiting:
            return
        if time.monotonic() > end:
            raise TimeoutError(f"clients {waiting} had no answer for {bound_s:g} s")
        await asyncio.sleep(0.01)  # between two looks, not instead of one


async def run(
    server: Server,
    faults: Sequence[Fault],
    *,
    seed: int,
    shape: Shape | None = None,
    top: str = "",
    bounds: Bounds | None = None,
    without: Iterable[str] = (),
) -> Outcome:
    """Run a scenario on a server that serves; it serves again when this returns.

    All nodes live below `top`, which must not exist (default: named after the seed).
    `without` names checks to leave out. What goes wrong while it runs (a server that does not come
    back, a client without an answer) is a violation too, of the check `harness`, and ends the
    scenario.
    """
    bounds = bounds or Bounds()
    rng = random.Random(seed)
    history = History()
    outcome = Outcome(seed, history)
    load = Load([server.address], history, seed, shape or Shape(), top=top or f"/chaos-{seed}")
    try:
        await load.set_up()
        await load.start()
        for fault in faults:
            await asyncio.sleep(rng.uniform(*bounds.pause_s))
            _mark(history, Note.FAULT, f"fault {outcome.faults + 1}: {fault.describe()}")
            await fault.apply(server, rng)
            await server.ready()
            _mark(history, Note.HEALED, "")
            await _all_served(load, bounds.answer_s)
            outcome.faults += 1
        await load.finish(bounds.answer_s)
        async with asyncio.timeout(bounds.answer_s):
            await load.audit()
    except (ServerFailed, TimeoutError) as e:
        outcome.violations.append(Violation("harness", str(e) or repr(e), history.tick()))
    finally:
        await load.stop()
    outcome.violations += check(history, without=without)
    outcome.violations += unhealed(history, bounds.reconnect_s)
    outcome.violations += [Violation("log", line, 0) for line in server.complaints()]
    return outcome
