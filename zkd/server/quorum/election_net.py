"""The election port: one connection for each pair of servers, notifications in both directions.

    of two servers, only the connection that the one with the larger sid opened stays
    slot: what is to be sent to a peer, at most one message, the newest
    last: what was sent to it last; sent again when a connection comes up and the slot is empty

A server with the smaller sid connects only to say that it is there: it sends its first message and
closes, and the other one connects back. Messages are handed over as they come, there is no queue
behind the socket's. A connection that says nothing, or nonsense, is closed after a line in the
log; it takes nothing from the others.
Attempts to connect to one peer are at least a back-off apart, and go on as long as a message waits.
Source: `quorum/QuorumCnxManager.java` of Apache ZooKeeper; spec zab-quorum-protocol section 11.
"""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from zkd.errors import OperatorError
from zkd.jute import election
from zkd.server.quorum import net
from zkd.server.quorum.election_connection import Connection, Peer
from zkd.server.quorum.net import Address, log

HANDSHAKES_MAX = 128
"""Connections that have not said yet who they are."""
STRANGERS_MAX = 64
"""Servers that are in no configuration, connected or being connected to."""


@dataclass(frozen=True)
class ElectionSettings:
    """What an election port is told. Times are seconds."""

    my_id: int
    addresses: Sequence[Address]
    """This server's own: listened on, and told to others."""
    multi_address: bool = False
    listen_on_all: bool = False
    bind_retry: int = 3
    """electionPortBindRetry; 0: without end."""
    connect_timeout_s: float = 5.0
    handshake_timeout_s: float = 10.0
    """For the first message: syncLimit ticks, or quorumCnxnTimeoutMs."""
    back_off_s: tuple[float, float] = (0.05, 2.0)
    """First and longest pause between two attempts to connect to one peer."""
    options: net.SocketOptions = field(default_factory=net.SocketOptions)
    security: net.Security = net.PLAIN


class ElectionEvents(Protocol):
    """What an election port tells. Called from the loop, never from within `send`."""

    def on_message(self, sid: int, message: bytes) -> None:
        """A notification, also one to oneself."""

    def on_unreachable(self, sid: int, reason: str) -> None:
        """An attempt to connect has failed; it will be tried again while a message waits."""


class ElectionNet:
    """See the module's text. All methods are for the loop's own thread."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        settings: ElectionSettings,
        members: Mapping[int, Sequence[Address]],
        events: ElectionEvents,
        rng: random.Random,
    ) -> None:
        """`members`: the election addresses of every server of every configuration in force."""
        self.loop = loop
        self.settings = settings
        self.events = events
        self.rng = rng
        self._members = {sid: tuple(found) for sid, found in members.items()}
        self._peers: dict[int, Peer] = {}
        self._entering: set[Connection] = set()
        self._connections: set[Connection] = set()
        self._acceptor: net.Acceptor | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._next_anonymous = -1
        self.closed = False

    async def start(self) -> None:
        """Listen. OperatorError if the port cannot be had."""
        settings = self.settings
        tries = 0
        while True:
            try:
                socks = await net.bind(
                    self.loop, settings.addresses, everywhere=settings.listen_on_all
                )
                break
            except OSError as e:
                tries += 1
                log.error("election.bind-failed", attempt=tries, error=str(e))
                if tries == settings.bind_retry:
                    raise OperatorError(
                        f"the election port cannot be bound: {e}",
                        ", ".join(map(net.show, settings.addresses)),
                        "is the address this machine's, and is the port free?",
                    ) from e
            await asyncio.sleep(net.BIND_PAUSE_S)
        self._acceptor = net.Acceptor(self.loop, socks, settings.options, self._accepted)

    @property
    def listening(self) -> list[Address]:
        """Where this port listens."""
        return self._acceptor.addresses if self._acceptor else []

    # -- what the election asks ----------------------------------------------------------------

    def send(self, sid: int, message: bytes) -> None:
        """Send a notification, instead of one that still waits; connects if need be."""
        if sid == self.settings.my_id:
            self.loop.call_soon(self._to_myself, message)
            return
        peer = self._peer(sid)
        peer.slot = message
        if peer.connection is not None:
            peer.connection.flush()
        else:
            self._connect(peer)

    def delivered(self) -> bool:
        """Whether at least one peer has nothing waiting: then the other side is slow, or there is
        nobody, and the election sends again; otherwise it connects to all."""
        return any(peer.slot is None for peer in self._peers.values())

    def connect_all(self) -> None:
        """Connect to every peer that was ever spoken to and has no connection."""
        for peer in list(self._peers.values()):
            if peer.connection is None:
                self._connect(peer)

    def connected(self) -> frozenset[int]:
        """The peers with a connection."""
        return frozenset(sid for sid, peer in self._peers.items() if peer.connection)

    def set_members(self, members: Mapping[int, Sequence[Address]]) -> None:
        """Another configuration: addresses count from the next attempt. Connections stay."""
        self._members = {sid: tuple(found) for sid, found in members.items()}
        for peer in list(self._peers.values()):
            self._forget_stranger(peer)

    async def close(self) -> None:
        """End everything."""
        self.closed = True
        if self._acceptor is not None:
            await self._acceptor.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for peer in self._peers.values():
            if peer.timer is not None:
                peer.timer.cancel()
        for connection in list(self._connections):
            connection.abort("the server stops")
        while self._connections:  # each is told of its end in one of the next turns
            await asyncio.sleep(0)

    # -- peers ---------------------------------------------------------------------------------

    def _to_myself(self, message: bytes) -> None:
        if not self.closed:
            self.events.on_message(self.settings.my_id, message)

    def _peer(self, sid: int) -> Peer:
        peer = self._peers.get(sid)
        if peer is None:
            peer = self._peers[sid] = Peer(sid)
        return peer

    def _forget_stranger(self, peer: Peer) -> None:
        """A server of no configuration is kept as long as there is a connection, or may be one."""
        if peer.sid in self._members or peer.connection or peer.dialling or peer.told:
            return
        if peer.timer is not None:
            peer.timer.cancel()
        self._peers.pop(peer.sid, None)

    def _connect(self, peer: Peer) -> None:
        """Begin an attempt, or see to it that one comes when the back-off is over."""
        if peer.dialling or self.closed:  # two at a time might end each other
            return
        wait = peer.not_before - self.loop.time()
        if wait > 0:
            if peer.timer is None:
                peer.timer = self.loop.call_later(wait, self._back_off_over, peer)
            return
        told, peer.told, peer.expected = peer.told, (), False
        tries = [addresses for addresses in (told, self._members.get(peer.sid, ())) if addresses]
        if not tries:
            log.warning("election.unknown-server", per=peer.sid, sid=peer.sid)
            peer.slot = None
            self._forget_stranger(peer)
            return
        peer.dialling = True
        self._spawn(peer, tries)

    def _back_off_over(self, peer: Peer) -> None:
        peer.timer = None
        if peer.connection is None and (peer.slot is not None or peer.expected):
            self._connect(peer)

    def _spawn(self, peer: Peer, tries: list[tuple[Address, ...]]) -> None:
        task = self.loop.create_task(self._dial(peer, tries))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _dial(self, peer: Peer, tries: list[tuple[Address, ...]]) -> None:
        settings = self.settings
        reason = ""
        for addresses in tries:
            try:
                sock, (host, _) = await net.dial(
                    self.loop, addresses, settings.connect_timeout_s, settings.options
                )
                connection = Connection(self, net.show(sock.getpeername()), peer, host)
                await net.adopt(self.loop, connection, sock, settings.security, host)
                await connection.entered.wait()
            except OSError as e:
                reason = str(e)
                continue
            larger = peer.sid > settings.my_id  # it connects back
            reason = "" if larger or connection.settled else connection.reason or "closed"
            if not reason:
                break
        peer.dialling = False
        self._pause(peer)
        if reason:
            log.warning("election.unreachable", per=peer.sid, sid=peer.sid, reason=reason)
            self.events.on_unreachable(peer.sid, reason)
        if (peer.slot is not None or peer.expected) and peer.connection is None:
            self._connect(peer)  # when the back-off is over
        self._forget_stranger(peer)

    def _pause(self, peer: Peer) -> None:
        """The next attempt has to wait, each time longer until a connection stands."""
        first, longest = self.settings.back_off_s
        pause = min(longest, first * 2**peer.failures)
        peer.failures = min(peer.failures + 1, 30)
        peer.not_before = self.loop.time() + pause * self.rng.uniform(0.75, 1.25)

    # -- connections ---------------------------------------------------------------------------

    def _accepted(self, sock: socket.socket, where: str) -> None:
        if len(self._entering) >= HANDSHAKES_MAX:
            log.warning("election.too-many-connections", peer=where)
            sock.close()
            return
        task = self.loop.create_task(self._admit(sock, where))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _admit(self, sock: socket.socket, where: str) -> None:
        try:
            connection = Connection(self, where, None, "")
            await net.adopt(self.loop, connection, sock, self.settings.security, None)
        except OSError as e:
            log.warning("election.refused", peer=where, reason=str(e))

    def introduced(self, connection: Connection, initial: election.Initial) -> None:
        """An accepted connection has said who it is, and is authenticated if need be."""
        my_id = self.settings.my_id
        sid = initial.sid
        if sid == election.ANONYMOUS:
            sid, self._next_anonymous = self._next_anonymous, self._next_anonymous - 1
        elif sid == my_id:
            connection.refuse(f"it says that it is this server, {my_id}")
            return
        if sid not in self._members and sid not in self._peers:
            strangers = sum(known not in self._members for known in self._peers)
            if strangers >= STRANGERS_MAX:
                connection.refuse(f"too many servers of no configuration (this one says {sid})")
                return
        peer = self._peer(sid)
        peer.failures, peer.not_before = 0, 0.0
        if sid < my_id and initial.sid != election.ANONYMOUS:
            peer.told, peer.expected = initial.addresses, True
            if peer.connection is not None:
                peer.connection.abort("the peer has begun anew")
            connection.abort("the connection has to come from the larger id")
            self._connect(peer)
            return
        self.settled(peer, connection)

    def settled(self, peer: Peer, connection: Connection) -> None:
        """From now on this is the peer's connection."""
        old, peer.connection = peer.connection, connection
        connection.peer = peer
        peer.told, peer.expected = (), False
        peer.failures, peer.not_before = 0, 0.0
        if old is not None:
            old.abort("another connection has taken its place")
        log.info("election.connected", per=peer.sid, sid=peer.sid, peer=connection.where)
        if peer.slot is None:
            peer.slot = peer.last
        connection.flush()

    def opened(self, connection: Connection) -> None:
        """A connection stands, and is not settled yet."""
        self._entering.add(connection)
        self._connections.add(connection)

    def entered(self, connection: Connection) -> None:
        """It has said all that comes before the first notification."""
        self._entering.discard(connection)

    def lost(self, connection: Connection) -> None:
        """A connection has ended."""
        self._entering.discard(connection)
        self._connections.discard(connection)
        peer = connection.peer
        if peer is None or peer.connection is not connection:
            return
        peer.connection = None
        reason = connection.reason or "closed"
        log.info("election.disconnected", per=peer.sid, sid=peer.sid, reason=reason)
        if peer.slot is not None or peer.expected:
            self._connect(peer)
        self._forget_stranger(peer)
