"""A ZooKeeper client that writes down all it does: one session, kept over lost connections.

It knows one server or several. Each try to connect goes to the next one: it moves to another with
its session when the one it was at is gone.

It behaves as a real client must: it comes back with its session, password and the last zxid it was
told, sets its watches again before anything else, pings, and drops a connection that is silent for
two thirds of the session timeout. It never repeats a request: one whose connection is lost stays
unanswered in the history.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from tests.chaos import wire
from tests.chaos.history import Event, History, Kind, Mark, Note, Op, State

RETRY_S = 0.02
Filler = Callable[[Op, wire.Reply], Op]


class _Connection(asyncio.Protocol):
    """One TCP connection: cuts frames, hands them on in order, notes silence."""

    def __init__(self, on_frame: Callable[[bytes], None], on_broken: Callable[[str], None]) -> None:
        self.buffer = bytearray()
        self.on_broken = on_broken
        self.on_frame = on_frame
        self.transport: asyncio.Transport | None = None
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.heard = time.monotonic()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.heard = time.monotonic()
        self.buffer += data
        at = 0
        while len(self.buffer) - at >= 4:
            length: int = struct.unpack_from(">i", self.buffer, at)[0]
            if len(self.buffer) - at - 4 < length:
                break
            payload = bytes(self.buffer[at + 4 : at + 4 + length])
            at += 4 + length
            try:
                self.on_frame(payload)
            except (wire.Malformed, struct.error, UnicodeDecodeError) as e:
                self.on_broken(f"{e!r} in {payload[:64].hex()}")
                break
        del self.buffer[:at]

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.lost.done():
            self.lost.set_result(None)


class Client:
    """One session. Operations wait for a connection, then return the finished Op."""

    def __init__(
        self,
        number: int,
        addresses: Sequence[tuple[str, int]],
        history: History,
        timeout_ms: int,
    ) -> None:
        self.number = number
        self.addresses = addresses
        self.at = addresses[number % len(addresses)]
        """The server of the present or the last try."""
        self.gate = asyncio.Event()
        """While it is closed, the client does not connect."""
        self.gate.set()
        self._tries = number
        self.history = history
        self.timeout_ms = timeout_ms
        self.session = 0
        self.password = bytes(wire.PASSWORD_LENGTH)
        self.zxid = 0
        self.local_port = 0
        self.attached = asyncio.Event()
        self.answers = 0
        """How many operations were answered, in all."""
        self._xid = 0
        self._open: deque[tuple[int, Op, Filler, asyncio.Future[Op]]] = deque()
        self._watched: set[str] = set()
        self._greeting: asyncio.Future[bytes] | None = None
        self._connection: _Connection | None = None
        self._closing = False
        self._task: asyncio.Task[None] | None = None

    # -- life ----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin to connect, and go on doing so; returns at the first attachment."""
        self._task = asyncio.create_task(self._run())
        await self.attached.wait()

    async def stop(self) -> None:
        """Drop the connection and stay away; the session is left to expire."""
        self._closing = True
        self._mark(Note.CLOSED)
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self._forget()

    async def close(self) -> Op:
        """End the session; what was ephemeral in it is gone once this is answered."""
        while not self.attached.is_set():
            await self.attached.wait()
        self._closing = True
        op = await self._call(Kind.CLOSE, "", wire.CLOSE, b"", lambda op, _: op)
        await self.stop()
        return op

    def drop(self) -> None:
        """Cut the connection, as a network would; the client comes back by itself."""
        if self._connection is not None and self._connection.transport is not None:
            self._connection.transport.abort()

    async def _run(self) -> None:
        while not self._closing:
            await self.gate.wait()
            try:
                await self._live()
            except (OSError, TimeoutError, wire.Malformed):
                pass
            finally:
                self._forget()
            await asyncio.sleep(RETRY_S)

    @property
    def _patience_s(self) -> float:
        return self.timeout_ms * 2 / 3000

    async def _live(self) -> None:
        """One connection, from connect to loss."""
        loop = asyncio.get_running_loop()
        self._greeting = loop.create_future()
        self.at = self.addresses[self._tries % len(self.addresses)]
        self._tries += 1
        async with asyncio.timeout(self._patience_s):
            transport, connection = await loop.create_connection(
                lambda: _Connection(self._frame, self._broken), *self.at
            )
            self._connection = connection
            self.local_port = transport.get_extra_info("sockname")[1]
            transport.write(
                wire.connect_request(self.zxid, self.timeout_ms, self.session, self.password)
            )
            either: list[asyncio.Future[Any]] = [self._greeting, connection.lost]
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not self._greeting.done():
            return
        self._attach(self._greeting.result())
        pinged = time.monotonic()
        while not connection.lost.done():
            now = time.monotonic()
            if now - connection.heard > self._patience_s:
                return
            if now - pinged > self.timeout_ms / 3000:
                pinged = now
                self._write(wire.request(wire.PING_XID, wire.PING))
            await asyncio.wait([connection.lost], timeout=self.timeout_ms / 12000)

    def _attach(self, payload: bytes) -> None:
        timeout_ms, session, password = wire.connect_response(payload)
        if timeout_ms == 0:
            self._mark(Note.EXPIRED)
            self.session, self.password = 0, bytes(wire.PASSWORD_LENGTH)
            self._watched.clear()
            raise ConnectionResetError("the session has expired")
        self.timeout_ms, self.session, self.password = timeout_ms, session, password
        self._mark(Note.ATTACHED)
        if self._watched:
            body = wire.set_watches(self.zxid, sorted(self._watched))
            self._write(wire.request(wire.SET_WATCHES_XID, wire.SET_WATCHES, body))
        self.attached.set()

    def _forget(self) -> None:
        """The connection is gone: what was outstanding stays unanswered."""
        if self.attached.is_set() and not self._closing:
            self._mark(Note.LOST)
        self.attached.clear()
        if self._connection is not None and self._connection.transport is not None:
            self._connection.transport.abort()
        self._connection = None
        while self._open:
            _, op, _, future = self._open.popleft()
            self.history.ops.append(op)
            if not future.done():
                future.set_result(op)

    def _broken(self, text: str) -> None:
        self._mark(Note.BROKEN, text)
        self.drop()

    def _mark(self, note: Note, text: str = "") -> None:
        tick, now = self.history.tick(), time.monotonic()
        self.history.marks.append(Mark(note, tick, now, self.number, self.session, text))

    def _write(self, data: bytes) -> None:
        transport = self._connection.transport if self._connection is not None else None
        if transport is not None and not transport.is_closing():
            transport.write(data)

    # -- what comes in -------------------------------------------------------------------------

    def _frame(self, payload: bytes) -> None:
        if self._greeting is not None and not self._greeting.done():
            self._greeting.set_result(payload)
            return
        if not self.attached.is_set():
            return  # a connection that was given up
        answer = wire.reply(payload)
        if answer.xid == wire.EVENT_XID:
            kind, _, path = wire.event(answer.body)
            self._watched.discard(path)
            self.history.events.append(Event(self.number, path, kind, self.history.tick()))
        elif answer.xid in (wire.PING_XID, wire.SET_WATCHES_XID):
            self.zxid = max(self.zxid, answer.zxid)
        else:
            self._answer(answer)

    def _answer(self, answer: wire.Reply) -> None:
        if not self._open or self._open[0][0] != answer.xid:
            raise wire.Malformed(f"xid {answer.xid} out of turn")
        _, op, fill, future = self._open.popleft()
        tick = self.history.tick()
        op = replace(
            op, returned=tick, err=answer.err, zxid=answer.zxid, returned_s=time.monotonic()
        )
        if not answer.err:
            op = fill(op, answer)
        self.zxid = max(self.zxid, answer.zxid)
        if op.watch and op.answered:
            self._watched.add(op.path)
        self.answers += 1
        self.history.ops.append(op)
        if not future.done():
            future.set_result(op)

    # -- operations ----------------------------------------------------------------------------

    async def _call(
        self, kind: Kind, path: str, code: int, body: bytes, fill: Filler, **more: object
    ) -> Op:
        """Send one request as soon as there is a connection; the Op, answered or not."""
        while not self.attached.is_set():
            await self.attached.wait()
        self._xid += 1
        op = Op(self.number, self.session, kind, path, self.history.tick())
        op = replace(op, called_s=time.monotonic(), **more)  # type: ignore[arg-type]
        future: asyncio.Future[Op] = asyncio.get_running_loop().create_future()
        self._open.append((self._xid, op, fill, future))
        self._write(wire.request(self._xid, code, body))
        return await future

    async def set(self, path: str, value: str) -> Op:
        def fill(op: Op, answer: wire.Reply) -> Op:
            stat = wire.Body(answer.body).stat()
            return replace(op, states=(State(path, value, stat.mzxid, stat.version),))

        states = (State(path, value),)
        body = wire.set_(path, value)
        return await self._call(Kind.SET, path, wire.SET, body, fill, states=states)

    async def multi(self, paths: tuple[str, ...], value: str) -> Op:
        """Set several registers to one value in one transaction."""

        def fill(op: Op, answer: wire.Reply) -> Op:
            stats, err = wire.Body(answer.body).multi_stats()
            if err or len(stats) != len(paths):
                return replace(op, err=err or wire.NO_NODE)
            states = zip(paths, stats, strict=True)
            return replace(op, states=tuple(State(p, value, s.mzxid, s.version) for p, s in states))

        states = tuple(State(path, value) for path in paths)
        body = wire.multi_set(paths, value)
        return await self._call(Kind.MULTI, paths[0], wire.MULTI, body, fill, states=states)

    async def get(self, path: str, *, watch: bool = False) -> Op:
        def fill(op: Op, answer: wire.Reply) -> Op:
            body = wire.Body(answer.body)
            value, stat = body.string(), body.stat()
            return replace(op, states=(State(path, value, stat.mzxid, stat.version),))

        body = wire.get(path, watch)
        return await self._call(Kind.GET, path, wire.GET, body, fill, watch=watch)

    async def create(
        self, path: str, value: str = "", *, sequential: bool = False, ephemeral: bool = False
    ) -> Op:
        def fill(op: Op, answer: wire.Reply) -> Op:
            return replace(op, created=wire.Body(answer.body).string())

        flags = wire.SEQUENTIAL * sequential | wire.EPHEMERAL * ephemeral
        body = wire.create(path, value, flags)
        return await self._call(
            Kind.CREATE, path, wire.CREATE, body, fill, sequential=sequential, ephemeral=ephemeral
        )

    async def delete(self, path: str) -> Op:
        body = wire.delete(path)
        return await self._call(Kind.DELETE, path, wire.DELETE, body, lambda op, _: op)

    async def sync(self, path: str) -> Op:
        """What was acknowledged to anybody before this is seen by what this client reads next."""
        body = wire.string(path)
        return await self._call(Kind.SYNC, path, wire.SYNC, body, lambda op, _: op)

    async def list(self, path: str) -> Op:
        def fill(op: Op, answer: wire.Reply) -> Op:
            return replace(op, names=frozenset(wire.Body(answer.body).strings()))

        body = wire.get(path, False)
        return await self._call(Kind.LIST, path, wire.CHILDREN, body, fill)
