"""Many clients, many watches: a server that is killed gets all its clients back at once, and a
million watches have their place in memory.

1,000 clients and 50,000 watches in the suite; 10,000 clients and 1,000,000 watches by `make crowds`
(marked slow). What it took is printed.
"""

from __future__ import annotations

import asyncio
import resource
import struct
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conformance import wire
from zkd.testing.throwaway import Server

TIMEOUT_MS = 30_000
AT_ONCE = 200
"""Sessions made at the same time at the beginning; coming back all do at once."""
RETRY_S = 0.05
EPHEMERAL_EVERY = 10
WATCH_BYTES = 400
"""Of one watch in a front-end, at most: its path (30 bytes) is kept too."""
PER_CLIENT = 2_000


@dataclass
class Member:
    """A client that does nothing but be there."""

    number: int
    session: int = 0
    password: bytes = wire.NO_PASSWORD
    reader: asyncio.StreamReader | None = None
    writer: asyncio.StreamWriter | None = None
    refusals: int = 0

    async def connect(self, port: int) -> None:
        """Until it is let in, again and again without any patience."""
        while True:
            try:
                self.reader, self.writer = await asyncio.open_connection("127.0.0.1", port)
                hello = wire.connect_request(
                    timeout_ms=TIMEOUT_MS, session=self.session, password=self.password
                )
                self.writer.write(wire.frame(hello))
                size = int.from_bytes(await self.reader.readexactly(4), "big")
                answer = wire.connected(await self.reader.readexactly(size))
                break
            except (OSError, asyncio.IncompleteReadError):
                self.leave()
                self.refusals += 1
                await asyncio.sleep(RETRY_S)
        assert answer.session, f"client {self.number} has lost its session"
        assert self.session in (0, answer.session)
        self.session, self.password = answer.session, answer.password

    async def call(self, op: int, body: bytes) -> int:
        assert self.reader is not None
        assert self.writer is not None
        self.writer.write(wire.frame(wire.request(1, op, body)))
        size = int.from_bytes(await self.reader.readexactly(4), "big")
        reply = await self.reader.readexactly(size)
        return int(struct.unpack_from(">i", reply, 12)[0])

    def leave(self) -> None:
        if self.writer is not None:
            self.writer.transport.abort()
            self.writer = None


def enough_files(count: int) -> None:
    """As many descriptors as the test needs, which the server inherits."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = count + 500
    if hard != resource.RLIM_INFINITY and hard < needed:
        pytest.skip(f"{needed} open files are needed, {hard} are allowed")
    if soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


async def come(members: list[Member], port: int) -> None:
    for start in range(0, len(members), AT_ONCE):
        some = members[start : start + AT_ONCE]
        await asyncio.gather(*(member.connect(port) for member in some))
        for member in some:
            if member.number % EPHEMERAL_EVERY == 0:
                body = wire.create(f"/m{member.number}", b"", wire.OPEN, 1)
                assert await member.call(wire.CREATE, body) == 0


async def come_back(members: list[Member], server: Server) -> tuple[float, float]:
    """Seconds until the first and until the last is back, from the moment that the server is."""
    loop = asyncio.get_running_loop()
    back: list[float] = []

    async def return_(member: Member) -> None:
        member.leave()
        await member.connect(server.port)
        back.append(time.monotonic())

    tasks = [asyncio.create_task(return_(member)) for member in members]
    await loop.run_in_executor(None, server.start)
    ready = time.monotonic()
    await asyncio.gather(*tasks)
    return min(back) - ready, max(back) - ready


def storm(count: int) -> None:
    enough_files(count)
    with Server({"frontends": "2", "tickTime": "1000"}) as server:
        members = [Member(i) for i in range(count)]

        async def run() -> None:
            await come(members, server.port)
            server.kill("supervisor")
            first, last = await come_back(members, server)
            for member in members[::EPHEMERAL_EVERY]:
                watched = wire.watched(f"/m{member.number}")
                assert await member.call(wire.EXISTS, watched) == 0, "its ephemeral is there"
            refusals = sum(member.refusals for member in members)
            print(
                f"\n{count} clients are back {last:.2f} s after the server, the first after "
                f"{max(first, 0):.2f} s, {refusals} attempts were in vain"
            )
            for member in members:
                member.leave()

        asyncio.run(run())
        text = server.log.read_text()
        assert "session.expired" not in text
        assert "process.died" not in text


def test_a_thousand_clients_come_back_at_once_and_none_loses_its_session() -> None:
    storm(1_000)


@pytest.mark.slow
def test_ten_thousand_clients_come_back_at_once_and_none_loses_its_session() -> None:
    storm(10_000)


def frontend_bytes(server: Server) -> int:
    """Resident bytes of all front-ends."""
    total = 0
    for name, pid in server.pids().items():
        if name.startswith("frontend"):
            line = next(
                line
                for line in Path(f"/proc/{pid}/status").read_text().splitlines()
                if line.startswith("VmRSS:")
            )
            total += int(line.split()[1]) * 1024
    return total


def watches(count: int) -> None:
    """Each client watches PER_CLIENT paths of its own, and one that all of them watch."""
    clients = count // PER_CLIENT
    enough_files(clients)
    with Server({"frontends": "2"}) as server:
        maker = wire.Client(server.port, timeout_s=60)
        assert maker.call(wire.CREATE, wire.create("/all", b"", wire.OPEN, 0))[0] == 0
        before = frontend_bytes(server)
        members = [wire.Client(server.port, timeout_s=60) for _ in range(clients)]
        began = time.monotonic()
        for number, member in enumerate(members):
            paths = [f"/there/is/no/{number:06d}/{i:06d}" for i in range(PER_CLIENT - 1)]
            err, _ = member.call(wire.SET_WATCHES, wire.set_watches(1 << 40, ((), paths, ())))
            assert err == 0
            assert member.call(wire.EXISTS, wire.watched("/all", 1))[0] == 0
        took_s = time.monotonic() - began
        grown = frontend_bytes(server) - before
        each = grown / (clients * PER_CLIENT)
        began = time.monotonic()
        assert maker.call(wire.SET_DATA, wire.set_data("/all", b"x", -1))[0] == 0
        for member in members:
            member.call(wire.PING)
            assert member.events == [(3, "/all")]
        told_s = time.monotonic() - began
        print(
            f"\n{clients * PER_CLIENT} watches of {clients} clients, set in {took_s:.1f} s: "
            f"{grown >> 20} MiB more in the front-ends, {each:.0f} bytes each; "
            f"an event for all {clients} is with the last one after {told_s * 1000:.0f} ms"
        )
        assert each < WATCH_BYTES
        for member in members:
            member.drop()
        maker.close()


def test_fifty_thousand_watches_have_their_place() -> None:
    watches(50_000)


@pytest.mark.slow
def test_a_million_watches_have_their_place() -> None:
    watches(1_000_000)
