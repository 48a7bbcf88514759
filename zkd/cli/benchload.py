"""The load of `zkd bench`: sessions that ask, in a closed loop, and judge every answer.

One thread, non-blocking sockets under uvloop. Each session keeps `depth` requests outstanding and
sends a new one for every reply. A wrong answer is counted by kind, never hidden:

    order   a reply's xid is not that of the oldest request outstanding
    error   an error code that the request cannot have
    zxid    a zxid went back within a session, or a write's was not new to it
    data    a read returned other bytes than were written for that key
    stat    a stat that contradicts its data or its zxid
    path    a create answered another path
    closed  the server closed a connection

Python is slower than most servers it would measure: `Result.generator_share` says how much of one
core the generator used, and near 1 the number is the generator's, not the server's. The benchmark
folder's zkbench (C) has no such limit.
"""

from __future__ import annotations

import asyncio
import random
import struct
import time
from array import array
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import cast

import uvloop

from zkd.errors import OperatorError
from zkd.jute.protocol import Err, Op

WORKLOADS = ("get", "exists", "set", "create", "mixed")
PER_FOLDER = 1000
SETUP_DEPTH = 64
SILENCE_S = 30.0
"""A server that answers nothing for so long has failed."""
_STAT_BYTES = 68
_HEAD = struct.Struct(">iiqi")
"""Length of the frame, then the reply's header."""
_STAT = struct.Struct(">qqqqiiiqiiq")
_OPEN_ACL = struct.pack(">iii5si6s", 1, 31, 5, b"world", 6, b"anyone")


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do. Times in seconds, `size` in bytes, `reads` the share of reads in `mixed`."""

    host: str
    port: int
    workload: str = "get"
    conns: int = 8
    depth: int = 1
    size: int = 100
    keys: int = 1000
    seconds: float = 5.0
    warmup: float = 1.0
    reads: float = 0.9
    root: str = "/zkd-bench"
    timeout_ms: int = 30_000
    keep: bool = False
    """Leave the nodes where they are."""


@dataclass(slots=True)
class Result:
    """What was measured: operations in the window, their latencies (ns), wrong answers by kind."""

    seconds: float = 0.0
    generator_share: float = 0.0
    latencies: array[int] = field(default_factory=lambda: array("Q"))
    bad: Counter[str] = field(default_factory=Counter)
    complaints: list[str] = field(default_factory=list)

    @property
    def ops_per_s(self) -> float:
        return len(self.latencies) / self.seconds if self.seconds else 0.0

    def quantiles_us(self, *quantiles: float) -> list[float]:
        """Latencies in microseconds; 0 where nothing was measured."""
        ordered = sorted(self.latencies)
        last = len(ordered) - 1
        return [
            ordered[min(int(q * (last + 1)), last)] / 1e3 if ordered else 0.0 for q in quantiles
        ]


@dataclass(slots=True)
class _Request:
    op: int
    path: str
    key: int
    body: bytes
    xid: int = 0
    sent: int = 0


Source = Callable[["_Session"], "_Request | None"]


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack(">i", len(data)) + data


class Bench:
    """One run of a plan. All sessions share it."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.result = Result()
        self.random = random.Random(1)
        self.source: Source = lambda session: None
        self.depth = plan.depth
        self.measure_from = self.measure_until = 0
        self.idle: asyncio.Event = asyncio.Event()
        self.answers = 0
        self.created: list[str] = []
        self._sessions: list[_Session] = []
        self._work: deque[_Request] = deque()
        pattern = random.Random(2).randbytes(plan.size + 997)
        self.values = [
            (struct.pack(">q", key) + pattern[key % 997 :])[: plan.size] for key in range(plan.keys)
        ]
        self.paths = [
            f"{plan.root}/{key // PER_FOLDER:05d}/{key % PER_FOLDER:03d}"
            for key in range(plan.keys)
        ]
        self._reads = [_string(path) + b"\0" for path in self.paths]

    # -- requests ------------------------------------------------------------------------------

    def _create(self, path: str, key: int) -> _Request:
        value = self.values[key]
        body = _string(path) + struct.pack(">i", len(value)) + value + _OPEN_ACL + b"\0\0\0\0"
        return _Request(Op.CREATE, path, key, body)

    def _set(self, key: int) -> _Request:
        value = self.values[key]
        path = self.paths[key]
        body = _string(path) + struct.pack(">i", len(value)) + value + b"\xff\xff\xff\xff"
        return _Request(Op.SET_DATA, path, key, body)

    def _delete(self, path: str) -> _Request:
        return _Request(Op.DELETE, path, -1, _string(path) + b"\xff\xff\xff\xff")

    def _read(self, op: int) -> _Request:
        key = int(self.random.random() * self.plan.keys)
        return _Request(op, self.paths[key], key, self._reads[key])

    def _next(self, session: _Session) -> _Request:
        """The next request of the plan's workload."""
        workload = self.plan.workload
        if workload == "mixed":
            workload = "get" if self.random.random() < self.plan.reads else "set"
        if workload == "get":
            return self._read(Op.GET_DATA)
        if workload == "exists":
            return self._read(Op.EXISTS)
        if workload == "set":
            return self._set(int(self.random.random() * self.plan.keys))
        path = f"{self.plan.root}/new/{session.number:05d}-{session.made:09d}"
        session.made += 1
        self.created.append(path)
        return self._create(path, 0)

    def _listed(self, session: _Session) -> _Request | None:
        return self._work.popleft() if self._work else None

    # -- phases --------------------------------------------------------------------------------

    async def run(self, progress: Callable[[str], None] = lambda text: None) -> Result:
        """Make the nodes, measure, remove the nodes. OperatorError if there is no server."""
        plan = self.plan
        progress("making the nodes")
        await self._open(1)
        folders = [plan.root, f"{plan.root}/new"]
        folders += [f"{plan.root}/{i:05d}" for i in range((plan.keys - 1) // PER_FOLDER + 1)]
        await self._do([self._create(path, 0) for path in folders])
        await self._do([self._create(path, key) for key, path in enumerate(self.paths)])
        await self._do([self._set(key) for key in range(plan.keys)])
        await self._close()
        progress(f"measuring for {plan.seconds:g} s after {plan.warmup:g} s of warm-up")
        await self._open(plan.conns)
        await self._measure()
        await self._close()
        if not plan.keep:
            progress("removing the nodes")
            await self._open(1)
            paths = [*self.created, *self.paths, *reversed(folders)]
            await self._do([self._delete(path) for path in paths])
            await self._close()
        return self.result

    async def _open(self, count: int) -> None:
        loop = asyncio.get_running_loop()
        plan = self.plan
        where = f"{plan.host}:{plan.port}"
        self.idle.clear()
        try:
            for number in range(count):
                factory = partial(_Session, self, number)
                _, session = await loop.create_connection(factory, plan.host, plan.port)
                self._sessions.append(session)
            async with asyncio.timeout(SILENCE_S):
                await asyncio.gather(*(session.greeted for session in self._sessions))
        except TimeoutError:
            raise OperatorError("the server gives no session", where, "look at its log") from None
        except OSError as e:
            raise OperatorError(
                f"no connection: {e.strerror or e}", where, "is a server running there?"
            ) from None

    async def _do(self, requests: list[_Request]) -> None:
        """Do a list of requests over the first session, in order."""
        self._work.extend(requests)
        self.source, self.depth = self._listed, SETUP_DEPTH
        await self._settle()
        if self._work:
            where = f"{self.plan.host}:{self.plan.port}"
            raise OperatorError("the connection was lost", where, self.result.complaints[-1])

    async def _settle(self) -> None:
        """Start the sessions and wait until nothing is outstanding."""
        self.idle.clear()
        for session in self._sessions:
            session.fill()
        while any(session.waiting for session in self._sessions):
            before = self.answers
            try:
                async with asyncio.timeout(SILENCE_S):
                    await self.idle.wait()
            except TimeoutError:
                if self.answers == before:
                    raise OperatorError(
                        f"no answer for {SILENCE_S:g} s", f"{self.plan.host}:{self.plan.port}"
                    ) from None
            self.idle.clear()

    async def _measure(self) -> None:
        plan, result = self.plan, self.result
        self.source, self.depth = self._next, plan.depth
        self.measure_from = self.measure_until = 2**63
        for session in self._sessions:
            session.fill()
        await asyncio.sleep(plan.warmup)
        cpu, began = time.process_time(), time.perf_counter_ns()
        self.measure_from = began
        await asyncio.sleep(plan.seconds)
        self.measure_until = time.perf_counter_ns()
        result.seconds = (self.measure_until - began) / 1e9
        result.generator_share = (time.process_time() - cpu) / result.seconds
        self.source = lambda session: None
        await self._settle()

    async def _close(self) -> None:
        for session in self._sessions:
            session.close()
        self._sessions.clear()

    # -- judgement -----------------------------------------------------------------------------

    def wrong(self, kind: str, text: str) -> None:
        self.result.bad[kind] += 1
        if len(self.result.complaints) < 10:
            self.result.complaints.append(f"{kind}: {text}")

    def judge(self, request: _Request, zxid: int, err: int, data: bytes, at: int, end: int) -> None:
        """Check one reply, whose body is data[at:end]."""
        op = request.op
        if err:
            harmless = self.source == self._listed and err in (Err.NODE_EXISTS, Err.NO_NODE)
            if not harmless:
                self.wrong("error", f"{err} for {request.path}")
            return
        if op in (Op.GET_DATA, Op.EXISTS, Op.SET_DATA):
            value = self.values[request.key]
            if op == Op.GET_DATA:
                at += 4 + len(value)
                if data[at - len(value) : at] != value or end - at != _STAT_BYTES:
                    self.wrong("data", f"{request.path} has other bytes than were written")
                    return
            if end - at != _STAT_BYTES:
                self.wrong("stat", f"{request.path}: a reply of {end - at} bytes")
                return
            czxid, mzxid, _, _, version, _, _, _, length, _, _ = _STAT.unpack_from(data, at)
            if not 0 < czxid <= mzxid <= zxid or version < 0 or length != len(value):
                self.wrong("stat", f"{request.path}: mzxid {mzxid:#x}, length {length}")
        elif op == Op.CREATE and data[at + 4 : end] != request.path.encode():
            self.wrong("path", f"created {data[at + 4 : end]!r}, not {request.path}")


class _Session(asyncio.Protocol):
    """One connection: requests in order, replies in order."""

    def __init__(self, bench: Bench, number: int) -> None:
        self.bench = bench
        self.number = number
        self.made = 0
        self.waiting: deque[_Request] = deque()
        self.greeted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._transport: asyncio.Transport | None = None
        self._rest = b""
        self._xid = 0
        self._zxid = 0
        self._closing = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is not registered as one
        body = struct.pack(">iqiqi16sb", 0, 0, self.bench.plan.timeout_ms, 0, 16, bytes(16), 0)
        self._transport.write(struct.pack(">i", len(body)) + body)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.greeted.done():
            self.greeted.set_exception(ConnectionResetError("closed at the handshake"))
        elif not self._closing:
            self.bench.wrong("closed", f"connection {self.number}, {len(self.waiting)} unanswered")
        self._closing = True
        self.waiting.clear()
        self.bench.idle.set()

    def close(self) -> None:
        """End the session."""
        if self._transport is not None and not self._closing:
            self._closing = True
            self._transport.write(struct.pack(">iii", 8, self._xid + 1, Op.CLOSE_SESSION))
            self._transport.close()

    def fill(self) -> None:
        """Send until `depth` requests are outstanding."""
        bench = self.bench
        out = []
        while len(self.waiting) < bench.depth and not self._closing:
            request = bench.source(self)
            if request is None:
                break
            self._xid += 1
            request.xid = self._xid
            out.append(struct.pack(">iii", 8 + len(request.body), self._xid, request.op))
            out.append(request.body)
            self.waiting.append(request)
        if out and self._transport is not None:
            now = time.perf_counter_ns()
            for request in list(self.waiting)[-len(out) // 2 :]:
                request.sent = now
            self._transport.write(b"".join(out))

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter_ns()
        if self._rest:
            data = self._rest + data
        at = 0
        while len(data) - at >= 4:
            end = at + 4 + int.from_bytes(data[at : at + 4], "big")
            if end > len(data):
                break
            if self.greeted.done():
                self._reply(data, at, end, now)
            else:
                self.greeted.set_result(None)
            at = end
        self._rest = data[at:]
        self.fill()
        if not self.waiting:
            self.bench.idle.set()

    def _reply(self, data: bytes, at: int, end: int, now: int) -> None:
        bench = self.bench
        if self._closing:
            return
        _, xid, zxid, err = _HEAD.unpack_from(data, at)
        if not self.waiting or self.waiting[0].xid != xid:
            bench.wrong("order", f"connection {self.number}: xid {xid} out of turn")
            self._closing = True  # nothing that follows could be told apart
            self.waiting.clear()
            assert self._transport is not None
            self._transport.abort()
            return
        request = self.waiting.popleft()
        wrote = request.op in (Op.CREATE, Op.SET_DATA, Op.DELETE)
        if zxid < self._zxid or (wrote and zxid == self._zxid):
            bench.wrong("zxid", f"connection {self.number}: {zxid:#x} after {self._zxid:#x}")
        self._zxid = max(zxid, self._zxid)
        bench.answers += 1
        bench.judge(request, zxid, err, data, at + _HEAD.size, end)
        if bench.measure_from <= now < bench.measure_until:
            bench.result.latencies.append(now - request.sent)


def run(plan: Plan, progress: Callable[[str], None] = lambda text: None) -> Result:
    """Run a plan in an event loop of its own."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(Bench(plan).run(progress))
