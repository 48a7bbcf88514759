"""One directory with very many children: filled, listed, paged, counted and emptied, while a
witness gets and sets a znode of its own, and all processes together stay within the memory that is
set.

50,000 children in the suite; a million by `make large` (marked slow).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

import pytest

from tests.chaos import wire
from tests.integration.directories import (
    COUNT,
    Memory,
    Wire,
    Witness,
    create_all,
    delete_all,
    names,
    page,
)
from zkd import testing
from zkd.testing.throwaway import Server

MIB = 1 << 20
CACHE = 64 * MIB
BESIDES = 48 * MIB
"""Page caches of SQLite, batches on their way, what Python's allocator keeps: for all processes."""
NAME_BYTES = 17
"""Of one name in a listing; a listing is in memory three times: names, reply, the socket's."""
PAGE = 10_000
DIRECTORY = "/directory"
T = TypeVar("T")


@dataclass
class Run:
    """A server with a directory, a client, and the times at which things were done."""

    server: Server
    client: Wire
    memory: Memory
    witness: Witness
    spans: dict[str, tuple[float, float]] = field(default_factory=dict)

    def timed(self, name: str, what: Callable[[], T]) -> T:
        began = time.monotonic()
        found = what()
        self.spans[name] = (began, time.monotonic())
        return found


@pytest.fixture
def run() -> Iterator[Run]:
    settings = {"cache.bytes": str(CACHE), "tickTime": "5000"}
    with testing.server(settings) as server:
        memory = Memory(server.pids())
        with memory.watched(), Wire(server.host, server.port) as client:
            client.ask(wire.CREATE, wire.create(DIRECTORY, "", wire.PERSISTENT))
            witness = Witness(server.host, server.port, "/witness")
            try:
                yield Run(server, client, memory, witness)
            finally:
                witness.close()


def listing(client: Wire) -> list[str]:
    return client.ask(wire.CHILDREN, wire.string(DIRECTORY) + b"\0").strings()


def pages(client: Wire) -> list[str]:
    found: list[str] = []
    more = True
    while more:
        some, more = page(client, DIRECTORY, found[-1] if found else "", PAGE)
        assert len(some) == PAGE or not more
        found += some
    return found


def ask_behind_a_listing(client: Wire, count: int) -> None:
    """Requests sent before the listing's reply is there are answered after it, in order."""
    path = wire.string(DIRECTORY) + b"\0"
    first = client.xid + 1
    client.send(wire.CHILDREN, path)
    client.send(wire.SET, wire.set_(DIRECTORY, "changed"))
    client.send(wire.GET, path)
    client.send(wire.CHILDREN, path)
    client.send(wire.SET, wire.set_(DIRECTORY, "changed again"))
    replies = [client.receive() for _ in range(5)]
    assert [(reply.xid, reply.err) for reply in replies] == [(first + i, 0) for i in range(5)]
    for listed in (replies[0], replies[3]):
        assert wire.Body(listed.body).int_() == count
    assert wire.Body(replies[2].body).string() == "changed"


def fill_read_and_empty(run: Run, count: int) -> None:
    client, memory = run.client, run.memory
    base = memory.sample()
    children = names(count)
    run.timed("create", lambda: create_all(client, DIRECTORY, children))
    one_more = wire.create(f"{DIRECTORY}/one-more", "", wire.PERSISTENT)
    run.timed("one more", lambda: client.ask(wire.CREATE, one_more))
    children.append("one-more")
    wanted = sorted(children)
    run.timed("quiet", lambda: time.sleep(1.0))  # what the witness sees when nothing happens
    for _ in range(3):
        found = run.timed("list", lambda: listing(client))
        assert sorted(found) == wanted
    run.timed("pipelined", lambda: ask_behind_a_listing(client, len(wanted)))
    assert run.timed("page", lambda: pages(client)) == wanted
    counted = run.timed("count", lambda: client.ask(COUNT, wire.string(DIRECTORY)).int_())
    assert counted == len(wanted)
    run.timed("delete", lambda: delete_all(client, DIRECTORY, children))
    assert listing(client) == []
    memory.sample()
    run.witness.stop()
    limit = base + CACHE + BESIDES + 3 * NAME_BYTES * count
    assert memory.peak < limit, {name: size // MIB for name, size in memory.peaks.items()}


def delayed_ms(run: Run, name: str, share: float) -> float:
    """How much slower the witness was than when nothing happened."""
    worst = run.witness.worst(run.spans[name], share)
    return (worst - run.witness.worst(run.spans["quiet"], share)) * 1000


def test_fifty_thousand_children(run: Run) -> None:
    fill_read_and_empty(run, 50_000)
    assert run.spans["one more"][1] - run.spans["one more"][0] < 1.0
    for name in ("list", "pipelined", "page", "count"):
        assert delayed_ms(run, name, 0.9) < 100, name  # each is over too soon for a p99


@pytest.mark.slow
def test_a_million_children(run: Run) -> None:
    fill_read_and_empty(run, 1_000_000)
    took = {name: end - began for name, (began, end) in run.spans.items()}
    assert took["one more"] < 1.0
    assert took["count"] < 5.0
    for name in ("list", "pipelined", "page", "count"):
        assert delayed_ms(run, name, 0.99) < 50, name
    for name, seconds in took.items():
        print(
            f"{name}: {seconds:.2f} s, witness p99 {run.witness.worst(run.spans[name], 0.99):.4f} s"
            if name != "one more"
            else f"one more: {seconds * 1000:.1f} ms"
        )
