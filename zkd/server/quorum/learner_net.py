"""Learners and their leader: who listens, who connects.

The quorum port exists only while this server leads (and the observer master port only while it
follows): a `LearnerListener` is started and closed with the role. A learner connects by `connect`,
in several attempts, since the leader may not listen yet.
Source: `quorum/Leader.java` (`LearnerCnxAcceptor`), `quorum/Learner.java` (`connectToLeader`) of
Apache ZooKeeper; spec zab-quorum-protocol sections 2 and 16.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from zkd.errors import OperatorError
from zkd.jute.codec import DEFAULT_LIMIT
from zkd.jute.quorum import Packet
from zkd.server.quorum import net
from zkd.server.quorum.link import QUEUE_BYTES_MAX, Link, LinkEvents
from zkd.server.quorum.net import Address, log

LINKS_MAX = 1024
UNKNOWN_MAX = 128
"""Connections that have not sent their first packet."""


@dataclass(frozen=True)
class LinkSettings:
    """What links are told. Times are seconds."""

    limit: int = DEFAULT_LIMIT
    """Longest data of a packet: jute.maxbuffer and its extra size."""
    queue_bytes_max: int = QUEUE_BYTES_MAX
    """A peer for which more waits is too slow."""
    read_timeout_s: float = 20.0
    """Until another is set: initLimit ticks."""
    options: net.SocketOptions = field(default_factory=net.SocketOptions)
    security: net.Security = net.PLAIN


class LearnerEvents(LinkEvents, Protocol):
    """What a listener tells beyond what its links do."""

    def on_learner(self, link: Link) -> None:
        """A learner has sent its first packet, which `on_packets` brings next. Of connections that
        do not come to that nothing is told but a line in the log."""


class LearnerListener:
    """A port for learners. Its links end with it."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, settings: LinkSettings, events: LearnerEvents
    ) -> None:
        self.loop = loop
        self.settings = settings
        self.events = events
        self.links: set[Link] = set()
        """The learners, from their first packet on."""
        self._entering: set[Link] = set()
        self._acceptor: net.Acceptor | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, addresses: Sequence[Address], *, everywhere: bool = False) -> None:
        """Listen on the addresses, or (quorumListenOnAllIPs) on their ports everywhere.
        OperatorError if a port cannot be had."""
        try:
            socks = await net.bind(self.loop, addresses, everywhere=everywhere)
        except OSError as e:
            raise OperatorError(
                f"the port for learners cannot be bound: {e}",
                ", ".join(map(net.show, addresses)),
                "is the address this machine's, and is the port free?",
            ) from e
        self._acceptor = net.Acceptor(self.loop, socks, self.settings.options, self._accepted)

    @property
    def listening(self) -> list[Address]:
        """Where it listens."""
        return self._acceptor.addresses if self._acceptor else []

    def _accepted(self, sock: socket.socket, where: str) -> None:
        if len(self._entering) >= UNKNOWN_MAX or len(self.links) >= LINKS_MAX:
            log.warning("learner.too-many-connections", peer=where)
            sock.close()
            return
        task = self.loop.create_task(self._admit(sock, where))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _admit(self, sock: socket.socket, where: str) -> None:
        settings = self.settings
        make = settings.security.server_exchange
        link = Link(
            self.loop,
            _Entrance(self),
            where=where,
            limit=settings.limit,
            queue_bytes_max=settings.queue_bytes_max,
            exchange=make() if make else None,
            learner_first=True,
            read_timeout_s=settings.read_timeout_s,
        )
        self._entering.add(link)
        try:
            await net.adopt(self.loop, link, sock, settings.security, None)
        except OSError as e:
            self._entering.discard(link)
            log.warning("learner.refused", peer=where, reason=str(e))

    async def close(self, reason: str) -> None:
        """Free the port and end all links."""
        if self._acceptor is not None:
            await self._acceptor.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for link in [*self.links, *self._entering]:
            link.close(reason)
        while self.links or self._entering:
            await asyncio.sleep(0.001)


class _Entrance:
    """The events of an accepted link: known to the listener's own events from its first packet."""

    def __init__(self, listener: LearnerListener) -> None:
        self.listener = listener

    def on_packets(self, link: Link, packets: list[Packet]) -> None:
        listener = self.listener
        if link in listener._entering:
            listener._entering.discard(link)
            listener.links.add(link)
            log.info("learner.connected", peer=link.where)
            listener.events.on_learner(link)
        if not link.closed:
            listener.events.on_packets(link, packets)

    def on_closed(self, link: Link, reason: str) -> None:
        listener = self.listener
        if link in listener._entering:
            listener._entering.discard(link)
            log.warning("learner.refused", peer=link.where, reason=reason)
            return
        listener.links.discard(link)
        log.info("learner.disconnected", peer=link.where, reason=reason)
        listener.events.on_closed(link, reason)


async def connect(
    loop: asyncio.AbstractEventLoop,
    addresses: Sequence[Address],
    settings: LinkSettings,
    events: LinkEvents,
    *,
    within_s: float,
    tries: int = 5,
    pause_s: float = 0.1,
) -> Link:
    """Connect to a leader (or observer master) at one of its addresses, all at once, the first
    one that stands wins. A link that is ready for the first packet; OSError if there is none
    after `tries` attempts, `pause_s` apart, or `within_s`."""
    end = loop.time() + within_s
    for attempt in range(1, tries + 1):
        try:
            async with asyncio.timeout_at(end):
                return await _connect_once(loop, addresses, settings, events, end - loop.time())
        except OSError as e:
            log.info("learner.connect-failed", attempt=attempt, reason=str(e) or "out of time")
            if attempt == tries or loop.time() + pause_s >= end:
                raise
        await asyncio.sleep(pause_s)
    raise AssertionError("unreachable")


async def _connect_once(
    loop: asyncio.AbstractEventLoop,
    addresses: Sequence[Address],
    settings: LinkSettings,
    events: LinkEvents,
    timeout_s: float,
) -> Link:
    sock, (host, _) = await net.dial(loop, addresses, timeout_s, settings.options)
    make = settings.security.client_exchange
    inner = _Connecting(events)
    link = Link(
        loop,
        inner,
        where=net.show(sock.getpeername()),
        limit=settings.limit,
        queue_bytes_max=settings.queue_bytes_max,
        exchange=make(host) if make else None,
        read_timeout_s=settings.read_timeout_s,
    )
    await net.adopt(loop, link, sock, settings.security, host)
    try:
        await asyncio.shield(link.ready)
    except BaseException:
        link.abort("not wanted any more")
        raise
    inner.given = True
    if link.closed:
        raise ConnectionError(link.reason)
    return link


class _Connecting:
    """The events of a link that is being made: of one that fails nothing is told."""

    def __init__(self, events: LinkEvents) -> None:
        self.events = events
        self.given = False

    def on_packets(self, link: Link, packets: list[Packet]) -> None:
        self.events.on_packets(link, packets)

    def on_closed(self, link: Link, reason: str) -> None:
        if self.given:
            self.events.on_closed(link, reason)
