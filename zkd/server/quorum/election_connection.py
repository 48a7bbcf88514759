"""One connection of the election port from its first byte to its last; what is known of a peer.

The bytes before the first notification (who connects, then SASL if that is wanted) are limited in
number and in time. From then on a connection belongs to one peer, or it is closed.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from zkd.jute import election
from zkd.jute.codec import Malformed
from zkd.server.quorum.net import Address, Exchange, log

if TYPE_CHECKING:
    from zkd.server.quorum.election_net import ElectionNet

PREAMBLE_MAX = 64 << 10
"""Bytes before the first notification."""
UNSENT_HIGH = 64 << 10
"""Beyond so many bytes that the peer does not read, messages wait in their slot."""


@dataclass(eq=False)
class Peer:
    """What is known of one other server."""

    sid: int
    slot: bytes | None = None
    last: bytes | None = None
    connection: Connection | None = None
    dialling: bool = False
    told: tuple[Address, ...] = ()
    """Where it said to be reached, good for one attempt."""
    expected: bool = False
    """It has said that it waits to be connected to."""
    failures: int = 0
    not_before: float = 0.0
    timer: asyncio.TimerHandle | None = None


class Connection(asyncio.Protocol):
    """One connection, opened here to a peer, or accepted (`peer` is None until it is known)."""

    def __init__(self, net_: ElectionNet, where: str, peer: Peer | None, host: str) -> None:
        self.net = net_
        self.where = where
        self.peer = peer
        self.host = host
        self.reason = ""
        self.entered = asyncio.Event()
        """All that comes before the first notification has been said, or it has ended."""
        self._outgoing = peer is not None
        self._transport: asyncio.Transport | None = None
        self.settled = False
        """What comes now are notifications."""
        self._paused = False
        self._before = b""
        self._initial: election.Initial | None = None
        self._exchange: Exchange | None = None
        self._messages = election.MessageDecoder()
        self._timer: asyncio.TimerHandle | None = None

    # -- called by the transport ---------------------------------------------------------------

    def connection_made(self, made: asyncio.BaseTransport) -> None:
        self._transport = transport = cast(asyncio.Transport, made)
        transport.set_write_buffer_limits(high=UNSENT_HIGH)
        net_ = self.net
        net_.opened(self)
        if net_.closed:
            self.abort("the server stops")
            return
        settings = net_.settings
        self._timer = net_.loop.call_later(settings.handshake_timeout_s, self._too_slow)
        security = settings.security
        if not self._outgoing:
            if security.server_exchange is not None:
                self._exchange = security.server_exchange()
            return
        first = election.encode_initial(
            settings.my_id, settings.addresses, many=settings.multi_address
        )
        if security.client_exchange is not None:
            self._exchange = security.client_exchange(self.host)
            first += self._exchange.begin()
        transport.write(first)
        self._go_on()

    def data_received(self, data: bytes) -> None:
        try:
            if self.settled:
                self._take(data)
            else:
                self._before += data
                if len(self._before) > PREAMBLE_MAX:
                    raise Malformed("too many bytes before the first notification")
                self._go_on()
        except Malformed as e:
            self.refuse(str(e))

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        self.entered.set()
        if not self.reason and exc is not None:
            self.reason = str(exc)
        if not self.settled and not self._outgoing and not self.reason:
            log.warning("election.refused", peer=self.where, reason="it said nothing")
        self.net.lost(self)

    # -- before the first notification ---------------------------------------------------------

    def _go_on(self) -> None:
        """As far as the bytes go."""
        if not self._outgoing and self._initial is None:
            found = election.read_initial(self._before)
            if found is None:
                return
            self._initial, end = found
            self._before = self._before[end:]
        if self._exchange is None or self._exchanged(self._exchange):
            self._settle()

    def _exchanged(self, exchange: Exchange) -> bool:
        """Give the exchange what has come; whether it is over."""
        data, self._before = self._before, b""
        if data:
            answer = exchange.feed(data)
            if answer and self._transport is not None:
                self._transport.write(answer)
        if exchange.done:
            self._before = exchange.rest
        return exchange.done

    def _settle(self) -> None:
        self._stop_timer()
        net_ = self.net
        net_.entered(self)
        self.entered.set()
        if self._outgoing:
            assert self.peer is not None
            if self.peer.sid > net_.settings.my_id:
                self.reason = "the connection has to come from the larger id"
                assert self._transport is not None
                self._transport.close()
                return
            self.settled = True
            net_.settled(self.peer, self)
        else:
            assert self._initial is not None
            self.settled = True
            net_.introduced(self, self._initial)
        rest, self._before = self._before, b""
        if rest and not self.reason:
            self._take(rest)

    def _too_slow(self) -> None:
        self.refuse("it took too long to say who it is")

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # -- notifications -------------------------------------------------------------------------

    def _take(self, data: bytes) -> None:
        peer = self.peer
        if peer is None or peer.connection is not self:
            return
        for message in self._messages.feed(data):
            self.net.events.on_message(peer.sid, message)

    def flush(self) -> None:
        """Send what waits, if the socket takes it."""
        peer = self.peer
        if peer is None or peer.slot is None or self._paused or self._transport is None:
            return
        message, peer.slot = peer.slot, None
        peer.last = message
        self._transport.write(election.frame(message))

    def refuse(self, reason: str) -> None:
        """Close it, and say why in the log."""
        log.warning("election.refused", peer=self.where, reason=reason)
        self.abort(reason)

    def abort(self, reason: str) -> None:
        """Close it at once."""
        self.reason = self.reason or reason
        if self._transport is not None:
            self._transport.abort()
