"""Sending and receiving a whole tree over a link: the parent's side of snapshot_child.py.

The tree is never in this process, and its bytes are only under TLS: otherwise the child reads or
writes the link's own socket, while the link neither reads nor writes. A child never outlives the
link that it works for.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import sys
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from zkd.errors import OperatorError
from zkd.jute.codec import DEFAULT_LIMIT
from zkd.jute.quorum import Kind, encode
from zkd.server.quorum.link import Link, Sink
from zkd.server.quorum.net import log
from zkd.server.quorum.snapshot_child import Job
from zkd.storage.generation import remove_tree
from zkd.storage.log import LOG_NAME, LogReader
from zkd.storage.reader import tree_path
from zkd.tree.settings import TreeSettings

MODULE = "zkd.server.quorum.snapshot_child"
PIECE = 256 << 10
STALL_S = 30.0


@dataclass(frozen=True)
class Received:
    """The next generation of the tree; `Engine.switch_generation(zxid, epochs)` makes it valid."""

    zxid: int
    generation: int
    digest: int
    """Over all nodes, unsigned; compare it with the digest of the next transactions."""
    nodes: int
    size: int
    """Bytes of the stream."""
    peak: int
    """Bytes of memory that the child has needed."""


async def send_snapshot(
    link: Link, data_dir: Path, log_dir: Path, *, stall_s: float = STALL_S
) -> int:
    """Queue SNAP and the tree as it is on disk now; its zxid T. What is sent to the link from then
    on follows the stream. OperatorError or OSError if the tree cannot be read; an error that
    comes later, while the stream is written, ends the link with its text."""
    child = await _Child.start(link.loop, True, data_dir, log_dir, stall_s)
    try:
        zxid: int = (await child.hear())["zxid"]
        if link.closed:
            raise ConnectionError(link.reason)
    except BaseException:
        await child.stop()
        raise
    stream = _Stream(child, link.where, zxid)
    link.ended.add_done_callback(stream.link_ended)
    link.send(encode(Kind.SNAP, zxid))
    link.produce(stream)
    return zxid


class _Stream:
    """The producer of a snapshot's bytes."""

    def __init__(self, child: _Child, where: str, zxid: int) -> None:
        self.child, self.where, self.zxid = child, where, zxid
        self._begun = False
        self._stopping: asyncio.Task[None] | None = None

    def link_ended(self, _: asyncio.Future[None]) -> None:
        """Once begun, it is cancelled by the link; before that there is only the child."""
        self.child.kill()
        if not self._begun:
            self._stopping = self.child.loop.create_task(self.child.stop())

    async def __call__(self, sink: Sink) -> None:
        self._begun = True
        child, began = self.child, self.child.loop.time()
        try:
            await sink.drained()
            fd = sink.fileno()
            if fd is None:
                await self._pump(sink)
            else:
                child.hand_over(fd, go=True)
            told = await child.hear()
        finally:
            await child.stop()
        sizes = {"nodes": told["nodes"], "size": told["bytes"], "peak": told["peak"]}
        seconds = round(child.loop.time() - began, 3)
        log.info("snapshot.sent", peer=self.where, zxid=hex(self.zxid), seconds=seconds, **sizes)

    async def _pump(self, sink: Sink) -> None:
        """Under TLS: what the child writes goes through here."""
        loop = self.child.loop
        with _pair() as (mine, its):
            self.child.hand_over(its.fileno(), go=True)
            its.close()
            while data := await loop.sock_recv(mine, PIECE):
                await sink.write(data)


async def receive_snapshot(
    link: Link,
    zxid: int,
    data_dir: Path,
    log_dir: Path,
    settings: TreeSettings,
    *,
    limit: int = DEFAULT_LIMIT,
    stall_s: float = STALL_S,
) -> Received:
    """After a SNAP of `zxid`: read the stream into the next generation beside the present tree,
    durably, then let the link go on with packets. OperatorError (with the place in the stream, if
    that makes no sense) or OSError: the link is ended, there is no new file, nothing is changed."""
    drain, began = link.under_tls, link.loop.time()
    more = {"zxid": zxid, "limit": limit, "drain": drain, "settings": asdict(settings)}
    generation = _generation(log_dir) + 1
    child: _Child | None = None
    try:
        child = await _Child.start(link.loop, False, data_dir, log_dir, stall_s, **more)
        if link.closed:
            raise ConnectionError(link.reason)
        made = child
        link.ended.add_done_callback(lambda _: made.kill())
        result, rest = await (_from_tls(link, child) if drain else _from_socket(link, child))
    except BaseException as e:
        reason = link.reason if link.closed else ""
        link.abort(f"the snapshot was not received: {e}")
        if child is not None:
            await child.stop()
        remove_tree(tree_path(data_dir, generation))
        if reason and isinstance(e, OperatorError):
            raise ConnectionError(reason) from e
        raise
    await child.stop()
    link.end_stream(rest)
    sizes = {"nodes": result["nodes"], "size": result["bytes"], "peak": result["peak"]}
    seconds = round(link.loop.time() - began, 3)
    log.info("snapshot.received", peer=link.where, zxid=hex(zxid), seconds=seconds, **sizes)
    return Received(zxid, generation, result["digest"], **sizes)


def _generation(log_dir: Path) -> int:
    log = LogReader(log_dir / LOG_NAME)
    try:
        return log.meta().generation
    finally:
        log.close()


async def _from_socket(link: Link, child: _Child) -> tuple[dict[str, Any], bytes]:
    """The child reads the link's socket itself."""
    before, fd = link.begin_stream()
    child.hand_over(fd, rest=len(before))
    if before:
        await child.loop.sock_sendall(child.control, before)
    result = await child.hear()
    return result, await child.take(result["rest"])


async def _from_tls(link: Link, child: _Child) -> tuple[dict[str, Any], bytes]:
    """What the link reads is given to the child, at the pace at which it takes it."""
    arrived: deque[bytes] = deque()
    more = asyncio.Event()
    over = False

    def on_bytes(data: bytes) -> None:
        link.hold_stream(True)
        arrived.append(data)
        more.set()

    async def pump(mine: socket.socket) -> None:
        while not over or arrived:
            await more.wait()
            more.clear()
            while arrived:
                await child.loop.sock_sendall(mine, arrived.popleft())
            if not over:
                link.hold_stream(False)
        mine.shutdown(socket.SHUT_WR)

    with _pair() as (mine, its):
        before, _ = link.begin_stream(on_bytes)
        child.hand_over(its.fileno(), rest=0)
        its.close()
        if before:
            on_bytes(before)
        pumping = child.loop.create_task(pump(mine))
        try:
            await child.hear()  # that the stream is over: it takes the rest until the pump ends
            over = True
            link.hold_stream(True)
            more.set()
            result = await child.hear()
            return result, await child.take(result["rest"]) + b"".join(arrived)
        finally:
            pumping.cancel()
            await asyncio.gather(pumping, return_exceptions=True)


@contextlib.contextmanager
def _pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two connected sockets, this process's end non-blocking."""
    mine, its = socket.socketpair()
    mine.setblocking(False)
    try:
        yield mine, its
    finally:
        mine.close()
        its.close()


class _Child:
    """A running child and the socket to it."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        process: asyncio.subprocess.Process,
        control: socket.socket,
    ) -> None:
        self.loop = loop
        self.control = control
        self._process = process
        self._buffer = b""

    @classmethod
    async def start(
        cls,
        loop: asyncio.AbstractEventLoop,
        send: bool,
        data_dir: Path,
        log_dir: Path,
        stall_s: float,
        **more: Any,
    ) -> _Child:
        mine, its = socket.socketpair()
        mine.setblocking(False)
        with its:
            fd = its.fileno()
            job = Job(send, fd, os.getpid(), str(data_dir), str(log_dir), stall_s, **more)
            try:
                process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-m",
                    MODULE,
                    json.dumps(asdict(job)),
                    stdin=asyncio.subprocess.DEVNULL,
                    pass_fds=(fd,),
                )
            except BaseException:
                mine.close()
                raise
        return cls(loop, process, mine)

    def hand_over(self, fd: int, **message: Any) -> None:
        """Send a message with a descriptor."""
        socket.send_fds(self.control, [json.dumps(message).encode() + b"\n"], [fd])

    async def hear(self) -> dict[str, Any]:
        """The next message. OperatorError: the child has failed, or ended without a word."""
        while b"\n" not in self._buffer:
            await self._more()
        line, _, self._buffer = self._buffer.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        if "error" in message:
            raise OperatorError(*message["error"])
        return message

    async def take(self, size: int) -> bytes:
        """Raw bytes behind a message."""
        while len(self._buffer) < size:
            await self._more()
        taken, self._buffer = self._buffer[:size], self._buffer[size:]
        return taken

    async def _more(self) -> None:
        try:
            data = await self.loop.sock_recv(self.control, PIECE)
        except ConnectionResetError:
            data = b""
        if not data:
            status = await self._process.wait()
            raise OperatorError(f"the process for a snapshot has ended (status {status})")
        self._buffer += data

    def kill(self) -> None:
        """End it at once."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def stop(self) -> None:
        """See to it that it is gone; it may have ended by itself."""
        if self.control.fileno() < 0:
            return
        self.control.close()
        self.kill()
        await self._process.wait()
