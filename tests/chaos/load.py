"""The load: clients that write, read what others just wrote, watch, list, come and go.

Every value and name is unique to its operation. All nodes live below one folder. The same seed
gives the same choices; what the server makes of them is up to its timing.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field

from tests.chaos.client import Client
from tests.chaos.history import History

REGISTERS = 8
GROUP = 3
OWN_NODES_MAX = 12
SETUP_CLIENT = 1_000_000
VISITORS = 100_000


@dataclass(frozen=True, slots=True)
class Shape:
    """How much load. `pace_s` is the mean pause of a worker between two of its operations."""

    clients: int = 6
    timeout_ms: int = 10_000
    pace_s: float = 0.004


@dataclass
class Load:
    """Clients and their workers; `start`, then faults, then `finish`, then `audit`."""

    addresses: Sequence[tuple[str, int]]
    history: History
    seed: int
    shape: Shape = field(default_factory=Shape)
    top: str = "/chaos"
    clients: list[Client] = field(default_factory=list)
    stopping: bool = False
    quiet: bool = False
    """While True no new operation begins."""

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.registers = tuple(f"{self.top}/r{i}" for i in range(REGISTERS))
        self.group = tuple(f"{self.top}/m{i}" for i in range(GROUP))
        self.sequential = f"{self.top}/seq"
        self.ephemeral = f"{self.top}/eph"
        self.latest = self.registers[0]
        self._visitor: Client | None = None
        self._workers: list[asyncio.Task[None]] = []
        self._unique = 0
        self._visitors = 0

    def value(self, client: Client) -> str:
        self._unique += 1
        return f"{client.number}.{self._unique}"

    def client(self, number: int) -> Client:
        return Client(number, self.addresses, self.history, self.shape.timeout_ms)

    async def set_up(self) -> None:
        """Make the folders and registers; these operations are in no history."""
        client = Client(SETUP_CLIENT, self.addresses, History(), self.shape.timeout_ms)
        await client.start()
        for path in (self.top, self.sequential, self.ephemeral, *self.registers, *self.group):
            await client.create(path)
        await client.close()

    async def start(self) -> None:
        """Connect all clients and set their workers to work."""
        for i in range(self.shape.clients):
            self.clients.append(self.client(i))
        await asyncio.gather(*(client.start() for client in self.clients))
        self.work()

    def work(self) -> None:
        """Set the clients' workers to work."""
        kinds: list[Callable[[Client], Coroutine[None, None, None]]] = [
            self._setter, self._setter, self._reader, self._reader, self._creator,
            self._multi_setter, self._lister,
        ]  # fmt: skip
        for client in self.clients:
            self._workers += [asyncio.create_task(kind(client)) for kind in kinds]
        self._workers.append(asyncio.create_task(self._visits()))

    async def finish(self, within_s: float) -> None:
        """Let the workers end their present operations; TimeoutError if they cannot."""
        self.stopping = True
        done, pending = await asyncio.wait(self._workers, timeout=within_s)
        for task in done:
            task.result()
        if pending:
            for task in pending:
                task.cancel()
            raise TimeoutError(f"{len(pending)} workers have an operation that does not end")

    async def stop(self) -> None:
        """Whatever the state is: cancel the workers, drop the clients."""
        for task in self._workers:
            task.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)
        visitor = [self._visitor] if self._visitor is not None else []
        await asyncio.gather(*(client.stop() for client in (*self.clients, *visitor)))

    async def audit(self, clients: list[Client] | None = None) -> None:
        """Every client reads every register and lists every folder, and all of it is answered."""
        for client in clients or self.clients:
            for path in (*self.registers, *self.group):
                while (await client.get(path)).returned is None:
                    pass
            for folder in (self.sequential, self.ephemeral):
                while (await client.list(folder)).returned is None:
                    pass

    async def _pause(self, factor: float = 1.0) -> None:
        await asyncio.sleep(self.random.expovariate(1 / (factor * self.shape.pace_s)))
        while self.quiet and not self.stopping:
            await asyncio.sleep(self.shape.pace_s)

    async def _setter(self, client: Client) -> None:
        while not self.stopping:
            path = self.random.choice(self.registers)
            op = await client.set(path, self.value(client))
            if op.answered:
                self.latest = path
            await self._pause()

    async def _multi_setter(self, client: Client) -> None:
        while not self.stopping:
            await client.multi(self.group, self.value(client))
            await self._pause(3)

    async def _reader(self, client: Client) -> None:
        """Reads what was written last, by whomever, at once; or anything, with a watch."""
        while not self.stopping:
            if self.random.random() < 0.5:
                await client.get(self.latest)
            else:
                path = self.random.choice((*self.registers, *self.group))
                await client.get(path, watch=self.random.random() < 0.5)
            await self._pause()

    async def _creator(self, client: Client) -> None:
        """Makes sequential nodes, removes its oldest; one in four is ephemeral and stays."""
        own: deque[str] = deque()
        ephemerals = 0
        while not self.stopping:
            name = f"n{self.value(client)}-"
            if ephemerals < OWN_NODES_MAX and self.random.random() < 0.25:
                ephemerals += 1
                await client.create(f"{self.ephemeral}/{name}", sequential=True, ephemeral=True)
            else:
                op = await client.create(f"{self.sequential}/{name}", sequential=True)
                if op.answered:
                    own.append(op.created)
            if len(own) > OWN_NODES_MAX:
                await client.delete(own.popleft())
            await self._pause(2)

    async def _lister(self, client: Client) -> None:
        while not self.stopping:
            await client.list(self.random.choice((self.sequential, self.ephemeral)))
            await self._pause(10)

    async def _visits(self) -> None:
        """Short sessions, one after the other: an ephemeral node or two, then a proper close."""
        while not self.stopping:
            self._visitors += 1
            number = VISITORS + self._visitors
            visitor = self.client(number)
            self._visitor = visitor
            await visitor.start()
            for _ in range(self.random.randrange(1, 3)):
                name = f"v{self.value(visitor)}-"
                await visitor.create(f"{self.ephemeral}/{name}", sequential=True, ephemeral=True)
            await visitor.close()
            self._visitor = None
            await self._pause(10)
