"""Load on an ensemble, and the judgement of it.

    async with clients(members, seed=1) as load:
        members.kill(3)
        await load.served()

The clients are those of tests.chaos: each keeps its session over all that happens, watches, makes
ephemeral nodes, never repeats a request. At the end of the block all that was acknowledged must be
there, for each client on whichever server it is, and nothing else that was promised may be broken.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from tests.chaos.checker import Violation
from tests.chaos.client import Client
from tests.chaos.harness import Outcome
from tests.chaos.history import History, Mark, Note
from tests.chaos.load import Load, Shape
from tests.ensembles.judge import judge
from tests.ensembles.manager import Ensemble

SERVED_WITHIN_S = 40.0
SHAPE = Shape(clients=4, timeout_ms=10_000, pace_s=0.02)


class EnsembleLoad(Load):
    """The load of tests.chaos, of clients that know several servers."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._gate = asyncio.Event()
        self._gate.set()

    def client(self, number: int) -> Client:
        client = super().client(number)
        client.gate = self._gate
        return client

    def stay_away(self) -> None:
        """No client connects until `come_back`; those that are connected stay."""
        self._gate.clear()

    def come_back(self) -> None:
        self._gate.set()

    async def start(self) -> None:
        """Connect, see that the folders are there on each server, then set to work."""
        for number in range(self.shape.clients):
            self.clients.append(self.client(number))
        await asyncio.gather(*(client.start() for client in self.clients))
        await asyncio.gather(*(self.synced(client) for client in self.clients))
        self.work()

    async def synced(self, client: Client) -> None:
        """From now on what the client reads shows all that anybody was told before this call."""
        while (await client.sync(self.top)).returned is None:
            pass

    def note(self, text: str) -> None:
        """Say what is done to the ensemble, for the report."""
        mark = Mark(Note.FAULT, self.history.tick(), time.monotonic(), text=text)
        self.history.marks.append(mark)

    async def served(self, within_s: float = SERVED_WITHIN_S) -> float:
        """Wait until each client has had an answer to a write called from now on; the seconds."""
        begin = time.monotonic()
        try:
            async with asyncio.timeout(within_s):
                await asyncio.gather(*(self._one_write(client) for client in self.clients))
        except TimeoutError:
            late = [c.number for c in self.clients if not c.attached.is_set()]
            raise TimeoutError(f"not served within {within_s:g} s; not attached: {late}") from None
        return time.monotonic() - begin

    async def _one_write(self, client: Client) -> None:
        while (await client.set(self.registers[0], self.value(client))).returned is None:
            pass

    async def come_to_rest(self, within_s: float = SERVED_WITHIN_S) -> None:
        """End all operations under way; each client then sees and reads all there is."""
        await self.finish(within_s)
        async with asyncio.timeout(within_s):
            await asyncio.gather(*(self._audit(client) for client in self.clients))

    async def _audit(self, client: Client) -> None:
        await self.synced(client)
        await self.audit([client])


@contextlib.asynccontextmanager
async def clients(
    members: Ensemble,
    *,
    seed: int = 1,
    shape: Shape = SHAPE,
    at: Sequence[int] = (),
    allow: Sequence[str] = (),
) -> AsyncIterator[EnsembleLoad]:
    """Clients at work on members (`at`, by default all) until the block ends; then they are judged.

    `allow` names checks that what the test does cannot keep, such as `sessions` where it is longer
    than a session lives. AssertionError with the report if anything was broken. The history goes to
    the folder that ZKD_KEEP names, then.
    """
    history = History()
    addresses = members.addresses(*at)
    load = EnsembleLoad(addresses, history, seed, shape, top=f"/load-{seed}")
    outcome = Outcome(seed, history)
    try:
        await load.set_up()
        await load.start()
        yield load
        await load.come_to_rest()
    except TimeoutError as e:
        outcome.violations.append(Violation("harness", str(e) or repr(e), history.tick()))
    finally:
        await load.stop()
    outcome.faults = sum(mark.note is Note.FAULT for mark in history.marks)
    outcome.violations += [v for v in judge(history) if v.check not in allow]
    outcome.violations += [Violation("log", line, 0) for line in members.complaints()]
    if outcome.violations and (keep := os.environ.get("ZKD_KEEP")):
        outcome.save(Path(keep) / f"history-{seed}-{time.time():.0f}")
    assert not outcome.violations, f"{outcome.report()}\n{members.tails()}"
    assert any(op.answered and op.writes for op in history.ops)
