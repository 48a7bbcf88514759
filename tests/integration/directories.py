"""Filling, reading and emptying one very large directory, and what that does to others.

Requests are raw frames (tests/chaos/wire.py), many in one multi and several multis outstanding.
The witness is a process of its own, so that what the test computes does not delay it: it gets and
sets a small znode in turn and prints when and how long each took. Run as a module it is the
witness: `python -m tests.integration.directories HOST PORT PATH`, until its standard input ends.
"""

from __future__ import annotations

import json
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.chaos import wire

GET_PAGE = 0x7A6B0001
COUNT = 104
MULTI = 14
IN_FLIGHT = 4
BATCH = 500
TIMEOUT_MS = 30_000
SAMPLE_S = 0.1
PAUSE_S = 0.002
"""Between two requests of the witness."""


class Wire:
    """A session over one socket."""

    def __init__(self, host: str, port: int) -> None:
        self.socket = socket.create_connection((host, port), 60)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.xid = 0
        self.socket.sendall(wire.connect_request(0, TIMEOUT_MS, 0, bytes(16)))
        wire.connect_response(self._frame())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.socket.close()

    def _exactly(self, size: int) -> bytes:
        parts = bytearray()
        while len(parts) < size:
            part = self.socket.recv(min(1 << 20, size - len(parts)))
            assert part, "the server has closed the connection"
            parts += part
        return bytes(parts)

    def _frame(self) -> bytes:
        return self._exactly(struct.unpack(">i", self._exactly(4))[0])

    def send(self, op: int, body: bytes) -> None:
        self.xid += 1
        self.socket.sendall(wire.request(self.xid, op, body))

    def receive(self) -> wire.Reply:
        """The next reply; events and pings are passed over."""
        while True:
            reply = wire.reply(self._frame())
            if reply.xid >= 0:
                return reply

    def ask(self, op: int, body: bytes) -> wire.Body:
        """One request; its reply must be no error."""
        self.send(op, body)
        reply = self.receive()
        assert (reply.xid, reply.err) == (self.xid, 0)
        return wire.Body(reply.body)

    def ask_all(self, bodies: Iterable[bytes]) -> None:
        """Multis, IN_FLIGHT at a time; none may fail."""
        waiting: deque[int] = deque()
        for body in bodies:
            self.send(MULTI, body)
            waiting.append(self.xid)
            if len(waiting) >= IN_FLIGHT:
                self._expect(waiting.popleft())
        while waiting:
            self._expect(waiting.popleft())

    def _expect(self, xid: int) -> None:
        reply = self.receive()
        assert (reply.xid, reply.err) == (xid, 0)


def names(count: int) -> list[str]:
    """Names in an order that is not that of their bytes."""
    return [f"{(i * 7919) % count:07d}-child" for i in range(count)]


def _multis(op: int, requests: Iterable[bytes]) -> Iterator[bytes]:
    head, end = struct.pack(">ibi", op, 0, -1), struct.pack(">ibi", -1, 1, -1)
    batch: list[bytes] = []
    for request in requests:
        batch.append(head + request)
        if len(batch) == BATCH:
            yield b"".join(batch) + end
            batch = []
    if batch:
        yield b"".join(batch) + end


def create_all(client: Wire, parent: str, children: Iterable[str]) -> None:
    paths = (wire.create(f"{parent}/{name}", "", wire.PERSISTENT) for name in children)
    client.ask_all(_multis(wire.CREATE, paths))


def delete_all(client: Wire, parent: str, children: Iterable[str]) -> None:
    paths = (wire.delete(f"{parent}/{name}") for name in children)
    client.ask_all(_multis(wire.DELETE, paths))


def page(client: Wire, path: str, after: str, limit: int) -> tuple[list[str], bool]:
    body = client.ask(GET_PAGE, wire.string(path) + wire.string(after) + struct.pack(">i", limit))
    found = body.strings()
    more = body.data[body.at] != 0
    return found, more


# -- the witness -------------------------------------------------------------------------------


def _witness(host: str, port: int, path: str) -> None:
    with Wire(host, port) as client:
        client.ask(wire.CREATE, wire.create(path, "x" * 100, wire.PERSISTENT))
        read, write = wire.get(path, False), wire.set_(path, "y" * 100)
        poller = select.poll()
        poller.register(sys.stdin, select.POLLIN | select.POLLHUP)
        print("ready", flush=True)
        found = []
        while not poller.poll(0):
            for op, body in ((wire.GET, read), (wire.SET, write)):
                began = time.monotonic()
                client.ask(op, body)
                found.append((began, time.monotonic() - began))
            time.sleep(PAUSE_S)
        print(json.dumps(found))


class Witness:
    """What the witness process has seen, once `stop` has been called."""

    def __init__(self, host: str, port: int, path: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.directories", host, str(port), path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).resolve().parents[2],
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"
        self.found: list[tuple[float, float]] = []

    def stop(self) -> None:
        out, _ = self._process.communicate("stop\n", timeout=60)
        assert self._process.returncode == 0
        self.found = [(began, took) for began, took in json.loads(out)]

    def close(self) -> None:
        """End the process, however it is."""
        self._process.kill()
        self._process.communicate()

    def worst(self, span: tuple[float, float], share: float) -> float:
        """The latency, in seconds, that this share of the requests which were under way in the span
        stay below; 0 if the span lies between two of them."""
        took = sorted(t for began, t in self.found if began <= span[1] and began + t >= span[0])
        return took[min(len(took) - 1, int(len(took) * share))] if took else 0.0


# -- memory ------------------------------------------------------------------------------------


def pss_bytes(pids: Iterable[int]) -> int:
    """Proportional set size of processes together."""
    total = 0
    for pid in pids:
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue
        total += next(int(line.split()[1]) for line in text.splitlines() if line[:4] == "Pss:")
    return total * 1024


class Memory:
    """The peak of the PSS of some processes while the context lasts."""

    def __init__(self, pids: dict[str, int]) -> None:
        self.pids = pids
        self.peaks: dict[str, int] = {}
        self.peak = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def _watch(self) -> None:
        while not self._over.wait(SAMPLE_S):
            self.sample()

    def sample(self) -> int:
        """The sum at this moment."""
        now = {name: pss_bytes([pid]) for name, pid in self.pids.items()}
        for name, size in now.items():
            self.peaks[name] = max(size, self.peaks.get(name, 0))
        total = sum(now.values())
        self.peak = max(self.peak, total)
        return total

    @contextmanager
    def watched(self) -> Iterator[Self]:
        self._thread.start()
        try:
            yield self
        finally:
            self._over.set()
            self._thread.join()


if __name__ == "__main__":
    _witness(sys.argv[1], int(sys.argv[2]), sys.argv[3])
