"""How long a set takes while the server does something else: `make bench BENCH_ARGS=--disturbance`.

A paced load of sets runs from a process of its own: so many a second are due, whatever the answers
do, and each counts from when it was due. It runs alone and while

- the tree is flushed: many changes are made first, then the flush is let go by a reload;
- `zkd snapshot` copies the whole tree;
- another client lists a directory with a million children;
- one of two front-ends is stopped (SIGSTOP): then the sets of the clients on the other one count.

Only what was due within the disturbance counts. Prints a markdown table. As a module with --load it
is the load itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from tests.bench import servers
from tests.bench.compare import markdown
from tests.bench.generator import BenchError
from tests.chaos import nemesis, wire
from tests.integration import directories
from zkd.storage.reader import open_tree

RATE = 1000
CONNS = 16
KEYS = 20_000
"""Znodes that the load writes to, and that are changed before a flush."""
TREE = 200_000
"""Znodes beside those: what a snapshot copies."""
CHILDREN = 1_000_000
REPEATS = 3
ALONE_S = 5.0
STOPPED_S = 10.0
WARM_UP_S = 1.0
CATCH_UP_S = 2.0
"""After many changes at once: so long the load may catch up before the flush is let go."""
WITHIN_S = 60.0
OFF, ON = "1h", "10ms"
GET_CHILDREN = 8
DATA = "x" * 100
KINDS = {
    "alone": "alone",
    "flush": "while the tree is flushed",
    "snapshot": "while a snapshot is taken",
    "listing": "while another client lists {children:,} children",
    "stopped": "on one front-end, the other being stopped for 10 s",
}


@dataclass(frozen=True, slots=True)
class Sample:
    """One set: when it was due (CLOCK_MONOTONIC), how long its answer took from then, by whom."""

    due: float
    took_s: float
    conn: int


# -- the load ------------------------------------------------------------------------------------


async def _frame(reader: asyncio.StreamReader) -> bytes:
    return await reader.readexactly(int.from_bytes(await reader.readexactly(4), "big"))


async def _client(
    port: int, number: int, conns: int, rate: float, end: asyncio.Event, out: list[Sample]
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(wire.connect_request(0, 30_000, 0, bytes(16)))
    await _frame(reader)
    step = conns / rate
    due = time.monotonic() + step * number / conns
    xid = 0
    while not end.is_set():
        wait_s = due - time.monotonic()
        if wait_s > 0:
            await asyncio.sleep(wait_s)
        xid += 1
        key = (xid * conns + number) % KEYS
        writer.write(wire.request(xid, wire.SET, wire.set_(f"/load/{key:05d}", DATA)))
        try:
            reply = wire.reply(await _frame(reader))
        except (ConnectionResetError, asyncio.IncompleteReadError):
            return  # `measure` looks whether this client had to live on
        if (reply.xid, reply.err) != (xid, 0):
            raise BenchError(f"set {xid} was answered with xid {reply.xid}, error {reply.err}")
        out.append(Sample(due, time.monotonic() - due, number))
        due += step
    writer.close()


async def _load(port: int, conns: int, rate: float) -> list[Sample]:
    """Until standard input ends."""
    end = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), end.set)
    out: list[Sample] = []
    await asyncio.gather(*(_client(port, i, conns, rate, end, out) for i in range(conns)))
    return out


class Load:
    """The load in its own process; `finish` gives its samples."""

    def __init__(self, port: int, conns: int, rate: float) -> None:
        command = [sys.executable, "-m", "tests.bench.disturbance", "--load", str(port)]
        command += ["--conns", str(conns), "--rate", str(rate)]
        self._process = subprocess.Popen(
            command, cwd=servers.ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        time.sleep(WARM_UP_S)  # unmeasured

    def finish(self) -> list[Sample]:
        out, _ = self._process.communicate(b"\n", timeout=WITHIN_S)
        if self._process.returncode:
            raise BenchError("the load has failed")
        return [Sample(*one) for one in json.loads(out)]

    def abandon(self) -> None:
        self._process.kill()
        self._process.communicate()


# -- the server and what disturbs it -------------------------------------------------------------


def _until(true: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + WITHIN_S
    while not true():
        if time.monotonic() > end:
            raise BenchError(f"{what}: not within {WITHIN_S:.0f} s")
        time.sleep(0.005)  # between two looks


@dataclass
class Disturbed:
    """A running server and how to disturb it: those methods return when it began and ended."""

    port: int
    pid: int
    folder: Path
    children: int

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def _reload(self, flush_interval: str) -> None:
        """Put another flush.interval in force."""
        path, log = self.folder / "zoo.cfg", self.folder / "log"
        lines = [x for x in path.read_text().splitlines() if not x.startswith("flush.interval")]
        path.write_text("\n".join([*lines, f"flush.interval={flush_interval}"]) + "\n")
        before = log.read_text().count("reload.done")
        os.kill(self.pid, signal.SIGHUP)
        _until(lambda: log.read_text().count("reload.done") > before, "a reload")

    def _flush(self) -> tuple[float, float]:
        """Write all that was changed so far to the tree; then nothing is flushed any more."""
        with directories.Wire("127.0.0.1", self.port) as client:
            client.send(wire.SET, wire.set_("/load", ""))
            zxid = client.receive().zxid
        began = time.monotonic()
        self._reload(ON)
        _until(lambda: self._tree_zxid() >= zxid, "a flush")
        ended = time.monotonic()
        self._reload(OFF)
        return began, ended

    def _tree_zxid(self) -> int:
        reader = open_tree(self.data, self.data, cache_bytes=1 << 20)
        try:
            return reader.zxid
        finally:
            reader.close()

    def fill(self) -> None:
        """The znodes of the load, a tree beside, a directory with very many children."""
        with directories.Wire("127.0.0.1", self.port) as client:
            for parent, count in (("/load", KEYS), ("/tree", TREE), ("/large", self.children)):
                client.ask(wire.CREATE, wire.create(parent, "", wire.PERSISTENT))
                directories.create_all(client, parent, (f"{i:05d}" for i in range(count)))
        self._flush()

    def alone(self) -> tuple[float, float]:
        began = time.monotonic()
        time.sleep(ALONE_S)  # what is measured is the load
        return began, time.monotonic()

    def flush(self) -> tuple[float, float]:
        with directories.Wire("127.0.0.1", self.port) as client:
            client.ask_all(
                wire.multi_set((f"/load/{i:05d}" for i in range(start, start + 500)), DATA)
                for start in range(0, KEYS, 500)
            )
        time.sleep(CATCH_UP_S)  # what is measured is the flush, not what came before
        return self._flush()

    def snapshot(self) -> tuple[float, float]:
        output = self.folder / f"snapshot-{time.monotonic_ns()}.zkd"
        command = [sys.executable, "-m", "zkd", "snapshot", "--data", str(self.data)]
        began = time.monotonic()
        done = subprocess.run(
            [*command, "--output", str(output)], cwd=servers.ROOT, capture_output=True, check=False
        )
        ended = time.monotonic()
        if done.returncode:
            raise BenchError(f"zkd snapshot: {done.stderr.decode()}")
        output.unlink()
        return began, ended

    def listing(self) -> tuple[float, float]:
        with directories.Wire("127.0.0.1", self.port) as client:
            began = time.monotonic()
            body = client.ask(GET_CHILDREN, wire.get("/large", False))
            ended = time.monotonic()
        (count,) = struct.unpack_from(">i", body.data)
        if count != self.children:
            raise BenchError(f"{count} children were listed, not {self.children}")
        return began, ended

    def stopped(self) -> tuple[float, float]:
        pid = nemesis.processes(self.pid)["frontend 2"]
        began = time.monotonic()
        os.kill(pid, signal.SIGSTOP)
        try:
            time.sleep(STOPPED_S)  # what is measured is the load
        finally:
            os.kill(pid, signal.SIGCONT)
        return began, time.monotonic()


@contextlib.contextmanager
def _running(frontends: int, children: int) -> Iterator[Disturbed]:
    settings = {"frontends": str(frontends), "flush.interval": OFF}
    name = f"zkd F={frontends}"
    with servers.running(name, servers.zkd_command(), settings) as contender:
        pid = int(contender.pids)
        folder = Path(f"/proc/{pid}/cwd").resolve()  # where servers.py has put its files
        server = Disturbed(int(contender.servers.rpartition(":")[2]), pid, folder, children)
        server.fill()
        yield server


def measure(server: Disturbed, kind: str, conns: int, rate: float) -> list[Sample]:
    """The samples that were due within this disturbance."""
    load = Load(server.port, conns, rate)
    try:
        times = 1 if kind in ("alone", "stopped") else REPEATS
        windows: list[tuple[float, float]] = []
        # A disturbance that is soon over is repeated until a few sets were due within it.
        while len(windows) < times or sum(end - start for start, end in windows) * rate < 5:
            windows.append(getattr(server, kind)())
        time.sleep(2 * conns / rate)  # each client's next set tells that it is still connected
        samples = load.finish()
    except BaseException:
        load.abandon()
        raise
    found = [s for s in samples if any(began <= s.due <= ended for began, ended in windows)]
    if kind == "stopped":
        # A front-end that was stopped for longer than its grant closes its connections.
        served = {s.conn for s in found if s.took_s < STOPPED_S / 2 and s.due > windows[0][0] + 1}
        if len(served) in (0, conns):
            raise BenchError(f"{len(served)} of {conns} clients were on the other front-end")
        found = [s for s in found if s.conn in served]
    elif len({s.conn for s in samples if s.due > windows[-1][0]}) < conns:
        raise BenchError(f"{kind}: a client has lost its connection")
    if not found:
        raise BenchError(f"{kind}: no set was due during it")
    return found


def row(server: str, what: str, samples: Sequence[Sample]) -> list[str]:
    """One line of the table, times in ms."""
    times = sorted(s.took_s * 1000 for s in samples)
    at = [times[min(len(times) - 1, int(len(times) * q))] for q in (0.5, 0.99, 1.0)]
    return [server, what, f"{len(times):,}", *(f"{value:.2f}" for value in at)]


def report(
    frontends: Sequence[int],
    kinds: Sequence[str] = tuple(KINDS),
    conns: int = CONNS,
    rate: int = RATE,
    children: int = CHILDREN,
) -> str:
    """Measure everything; the table."""
    lines = []
    for count in frontends:
        with _running(count, children) as server:
            for kind in kinds:
                if kind != "stopped" or count > 1:
                    found = measure(server, kind, conns, rate)
                    what = KINDS[kind].format(children=children)
                    lines.append(row(f"zkd F={count}", what, found))
                    click.echo(" ".join(lines[-1]), err=True)
    head = ["server", f"set, {rate:,}/s by {conns} clients", "sets", "p50 ms", "p99 ms", "max ms"]
    return markdown(head, lines)


@click.command(help=__doc__.split("\n\n", 1)[0])
@click.option("--frontends", default="1,2", show_default=True, help="zkd's, by comma.")
@click.option("--kind", "kinds", multiple=True, type=click.Choice(list(KINDS)))
@click.option("--rate", default=RATE, show_default=True, help="Sets a second, of all clients.")
@click.option("--conns", default=CONNS, show_default=True)
@click.option("--children", default=CHILDREN, show_default=True)
@click.option("--load", "port", type=int, help="Be the load on this port.")
def main(
    frontends: str, kinds: tuple[str, ...], rate: int, conns: int, children: int, port: int | None
) -> None:
    if port is not None:
        found = asyncio.run(_load(port, conns, rate))
        click.echo(json.dumps([(s.due, s.took_s, s.conn) for s in found]))
        return
    counts = [int(n) for n in frontends.split(",")]
    try:
        click.echo(report(counts, kinds or list(KINDS), conns, rate, children))
    except BenchError as e:
        click.echo(f"bench: {e}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
