"""One connection on the quorum port, the same on both of its sides.

Sending never blocks and never waits for the peer: what does not leave at once stays in a queue, in
order. An item of the queue is bytes (packets that are encoded already), or a producer: a coroutine
that writes for a while (history, a snapshot), at the pace at which the peer reads, and before
whatever was queued after it. What one turn of the loop sends leaves in one write. When more than
`queue_bytes_max` waits, the peer is too slow, and the link ends: nothing is dropped silently.

Receiving: packets as they come, whole batches of what one read gave. Behind a SNAP the link stops
to read: `begin_stream` hands the socket, or the bytes, to somebody else until `end_stream`.
A peer that says nothing for the read timeout is taken for dead; the time that this side did not
want to read, was itself writing by a producer, or stood still, does not count.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Protocol, cast

import apsw

from zkd.errors import OperatorError
from zkd.jute import quorum
from zkd.jute.codec import DEFAULT_LIMIT, Malformed
from zkd.jute.quorum import Kind, Packet, PacketDecoder
from zkd.server.quorum.net import Exchange

QUEUE_BYTES_MAX = 256 << 20
WRITE_BYTES = 1 << 20
"""At most so much is handed to the transport at a time."""
HIGH_WATER = 256 << 10
FIRST_MAX = 4096
"""Longest first packet of a learner."""
EXCHANGE_MAX = 64 << 10
CLOSE_WITHIN_S = 2.0
"""A peer that does not read has so long to take what was sent before the end."""


class LinkEvents(Protocol):
    """What a link tells; called from the loop, never from within a method of the link."""

    def on_packets(self, link: Link, packets: list[Packet]) -> None:
        """What has come, in order. A SNAP is always the last: see `begin_stream`."""

    def on_closed(self, link: Link, reason: str) -> None:
        """The end, once, whoever wanted it."""


class Sink(Protocol):
    """Where a producer writes."""

    async def write(self, data: bytes) -> None:
        """Send bytes; returns when there is room for more. OSError: the link has ended."""

    async def drained(self) -> None:
        """Wait until the kernel has everything that was written."""

    def fileno(self) -> int | None:
        """The socket itself, for another process to write to after `drained`; None under TLS."""


Producer = Callable[[Sink], Awaitable[None]]
"""Writes whole packets, or what follows a SNAP, and returns when it has written all. OSError,
OperatorError and apsw.Error end the link, with their text as the reason."""


class Link(asyncio.Protocol):
    """See the module's text. All methods are for the loop's own thread."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        events: LinkEvents,
        *,
        where: str,
        limit: int = DEFAULT_LIMIT,
        queue_bytes_max: int = QUEUE_BYTES_MAX,
        exchange: Exchange | None = None,
        learner_first: bool = False,
        read_timeout_s: float | None = None,
    ) -> None:
        """`limit`: jute.maxbuffer and its extra size. `learner_first`: the first packet must be
        FOLLOWERINFO or OBSERVERINFO, and short."""
        self.loop = loop
        self.events = events
        self.where = where
        self.reason = ""
        self.ready: asyncio.Future[None] = loop.create_future()
        """Done when packets may be exchanged; ConnectionError if it does not come to that."""
        self.ended: asyncio.Future[None] = loop.create_future()
        """Done as soon as `closed` is true."""
        self.closed = False
        self._limit = limit
        self._learner_first = learner_first
        self._decoder = PacketDecoder(FIRST_MAX if learner_first else limit)
        self._exchange = exchange
        self._exchanged = 0
        self._transport: asyncio.Transport | None = None
        self._queue: deque[bytes | Producer] = deque()
        self._queued = 0
        self._queue_max = queue_bytes_max
        self._flushing = False
        self._writable = asyncio.Event()
        self._producing: asyncio.Task[None] | None = None
        self._read_paused = False
        self._stream: Callable[[bytes], None] | None = None
        self._timeout = read_timeout_s
        self._timer: asyncio.TimerHandle | None = None
        self._heard = self._due = 0.0

    # -- sending -------------------------------------------------------------------------------

    @property
    def queued_bytes(self) -> int:
        """Bytes that wait for the peer to read, here and in the transport (not in the kernel)."""
        waiting = self._transport.get_write_buffer_size() if self._transport else 0
        return self._queued + waiting

    def send(self, data: bytes) -> None:
        """Queue encoded packets."""
        if self.closed or not data:
            return
        self._queue.append(data)
        self._queued += len(data)
        if self._queued > self._queue_max:
            self.abort(f"too slow: {self._queued} bytes wait to be read by the peer")
        elif not self._flushing:
            self._flushing = True
            self.loop.call_soon(self.flush)

    def produce(self, producer: Producer) -> None:
        """Queue a producer; what is sent after this call follows what it writes."""
        if self.closed:
            return
        self._queue.append(producer)
        if not self._flushing:
            self._flushing = True
            self.loop.call_soon(self.flush)

    def flush(self) -> None:
        """Write what waits; called by itself once in each turn in which something was sent."""
        self._flushing = False
        transport = self._transport
        if transport is None or self.closed or not self.ready.done():
            return
        queue = self._queue
        while queue and self._producing is None and self._writable.is_set():
            batch: list[bytes] = []
            size = 0
            while queue and size < WRITE_BYTES and isinstance(queue[0], bytes):
                item = queue.popleft()
                assert isinstance(item, bytes)
                batch.append(item)
                size += len(item)
            if batch:
                self._queued -= size
                transport.write(batch[0] if len(batch) == 1 else b"".join(batch))
            else:
                producer = queue.popleft()
                assert not isinstance(producer, bytes)
                self._producing = self.loop.create_task(self._produce(producer))

    async def _produce(self, producer: Producer) -> None:
        reason = ""
        try:
            await producer(_Sink(self))
        except (OSError, OperatorError, apsw.Error) as e:
            reason = str(e) or type(e).__name__
        except BaseException as e:
            self.abort(f"a producer failed: {e!r}")
            raise
        finally:
            self._producing = None
            self._heard = self.loop.time()
        if reason:
            self.abort(reason)
        else:
            self.flush()

    # -- receiving -----------------------------------------------------------------------------

    def pause_reading(self) -> None:
        """Read no more: the peer is held back by TCP."""
        self._read_paused = True
        if self._transport is not None and not self.closed:
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Read again."""
        self._read_paused = False
        self._heard = self.loop.time()
        if self._transport is not None and not self.closed and not self._decoder.stopped:
            self._transport.resume_reading()

    def set_read_timeout(self, seconds: float | None) -> None:
        """How long the peer may say nothing, from now on."""
        self._timeout = seconds
        self._heard = self.loop.time()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if seconds is not None and self._transport is not None and not self.closed:
            self._check_after(seconds)

    def _check_after(self, seconds: float) -> None:
        self._due = self.loop.time() + seconds
        self._timer = self.loop.call_at(self._due, self._check_heard)

    def _check_heard(self) -> None:
        self._timer = None
        if self.closed or self._timeout is None:
            return
        now = self.loop.time()
        if self._read_paused or self._decoder.stopped or self._producing is not None:
            self._heard = now
        late = now - self._due
        if late > self._timeout / 10:
            self._heard += late  # this process has stood still: what has come is not read yet
        left = self._heard + self._timeout - now
        if left <= 0:
            self.abort(f"nothing was heard for {self._timeout:g} s")
        else:
            self._check_after(left)

    def begin_stream(self, on_bytes: Callable[[bytes], None] | None = None) -> tuple[bytes, int]:
        """After a SNAP: the bytes that were read beyond it, and the socket (-1 under TLS). With
        `on_bytes` what comes from now on goes there, else nothing is read here."""
        assert self._decoder.stopped
        assert self._transport is not None
        rest = self._decoder.take_rest()
        self._decoder.stopped = True
        self._stream = on_bytes
        if on_bytes is not None and not self._read_paused:
            self._transport.resume_reading()
        return rest, self._fileno()

    def hold_stream(self, hold: bool) -> None:
        """Stop, or go on, to read for `on_bytes`."""
        assert self._transport is not None
        if not self.closed:
            (self._transport.pause_reading if hold else self._transport.resume_reading)()

    def end_stream(self, extra: bytes) -> None:
        """The stream has ended; `extra` was read beyond it: packets follow."""
        self._stream = None
        self._heard = self.loop.time()
        if self.closed:
            return
        self._decoder.take_rest()
        assert self._transport is not None
        if not self._read_paused:
            self._transport.resume_reading()
        if extra:
            self._received(extra)

    @property
    def under_tls(self) -> bool:
        """Whether the bytes on the socket are not those of the protocol."""
        assert self._transport is not None
        return self._transport.get_extra_info("sslcontext") is not None

    def _fileno(self) -> int:
        assert self._transport is not None
        if self.under_tls:
            return -1
        return int(self._transport.get_extra_info("socket").fileno())

    # -- the end -------------------------------------------------------------------------------

    def close(self, reason: str) -> None:
        """End it after what has been sent; producers are not waited for."""
        if self.closed:
            return
        self.reason = self.reason or reason
        if self._producing is None:
            self.flush()
        self._end()
        if self._transport is not None:
            self._transport.close()
            self.loop.call_later(CLOSE_WITHIN_S, self._transport.abort)

    def abort(self, reason: str) -> None:
        """End it at once."""
        self.reason = self.reason or reason
        self._end()
        if self._transport is not None:
            self._transport.abort()

    def _end(self) -> None:
        self.closed = True
        self._queue.clear()
        self._queued = 0
        self._writable.set()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self.ended.done():
            self.ended.set_result(None)
        if not self.ready.done():
            self.ready.set_exception(ConnectionError(self.reason or "closed"))
            self.ready.exception()  # whoever waits gets it; nobody has to

    # -- called by the transport ---------------------------------------------------------------

    def connection_made(self, made: asyncio.BaseTransport) -> None:
        self._transport = transport = cast(asyncio.Transport, made)
        transport.set_write_buffer_limits(high=HIGH_WATER, low=0)
        self._writable.set()
        if self.closed:
            transport.abort()
            return
        self.set_read_timeout(self._timeout)
        if self._exchange is None:
            self._be_ready()
            return
        first = self._exchange.begin()
        if first:
            transport.write(first)
        if self._exchange.done:
            self._be_ready()

    def _be_ready(self) -> None:
        self.ready.set_result(None)
        self.flush()

    def data_received(self, data: bytes) -> None:
        self._heard = self.loop.time()
        if self._stream is not None:
            self._stream(data)
            return
        try:
            if self._exchange is not None:
                data = self._give_exchange(self._exchange, data)
            if data and not self.closed:
                self._received(data)
        except Malformed as e:
            self.abort(str(e))

    def _give_exchange(self, exchange: Exchange, data: bytes) -> bytes:
        """Bytes before the first packet; what is left when the exchange is over."""
        self._exchanged += len(data)
        if self._exchanged > EXCHANGE_MAX:
            raise Malformed("too many bytes before the first packet")
        answer = exchange.feed(data)
        if answer and self._transport is not None:
            self._transport.write(answer)
        if not exchange.done:
            return b""
        self._exchange = None
        self._be_ready()
        return exchange.rest

    def _received(self, data: bytes) -> None:
        try:
            packets = self._decoder.feed(data)
            if packets and self._learner_first:
                packets += self._first(packets)
        except Malformed as e:
            self.abort(str(e))
            return
        if self._decoder.stopped and self._transport is not None:
            self._transport.pause_reading()
        if packets:
            self.events.on_packets(self, packets)

    def _first(self, packets: list[Packet]) -> list[Packet]:
        """Check the first packet; what the decoder finds under its true limit."""
        kind = packets[0][0]
        if kind not in (Kind.FOLLOWER_INFO, Kind.OBSERVER_INFO):
            raise Malformed(f"its first packet is {quorum.name(kind)}: it is no learner")
        self._learner_first = False
        self._decoder.limit = self._limit
        return self._decoder.feed(self._decoder.take_rest())

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()
        self.flush()

    def eof_received(self) -> None:
        self.reason = self.reason or "the peer has closed the connection"

    def connection_lost(self, exc: Exception | None) -> None:
        self.reason = self.reason or (str(exc) if exc else "closed")
        self._end()
        if self._producing is not None:
            self._producing.cancel()
        self.events.on_closed(self, self.reason)


class _Sink:
    """A link's side of a producer."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def _transport(self) -> asyncio.Transport:
        link = self._link
        if link.closed or link._transport is None:
            raise ConnectionError(link.reason or "closed")
        return link._transport

    async def write(self, data: bytes) -> None:
        self._transport().write(data)
        await self._link._writable.wait()
        self._transport()

    async def drained(self) -> None:
        transport = self._transport()
        transport.set_write_buffer_limits(high=0)
        try:
            while transport.get_write_buffer_size():
                await self._link._writable.wait()
                self._transport()
        finally:
            transport.set_write_buffer_limits(high=HIGH_WATER, low=0)

    def fileno(self) -> int | None:
        self._transport()
        found = self._link._fileno()
        return None if found < 0 else found
