"""What the ports between servers have in common: addresses, socket options, dialling, listening.

Names are resolved at every attempt, never kept: a server may come back under another address.
A name that cannot be resolved, or that takes too long, costs one attempt of one address.
Nothing here reads the configuration, and no event loop is found by itself: it comes as an argument.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import uvloop

from zkd.server import logs

Address = tuple[str, int]
"""Host (a name or a number) and port, as a server line has them."""

BACKLOG = 128
ACCEPT_PAUSE_S = 0.5
"""Wait so long when no connection can be accepted (no file descriptors left)."""
BIND_PAUSE_S = 1.0

log = logs.get("peer")


@dataclass(frozen=True)
class SocketOptions:
    """How connections between servers are set up."""

    nodelay: bool = True
    keep_alive: bool = False
    """`zookeeper.tcpKeepAlive`: the system's own, slow, keep-alive."""
    dead_after_s: float | None = None
    """A peer that acknowledges nothing for so long is taken for dead (Linux: TCP_USER_TIMEOUT,
    with keep-alive probes so that it is noticed on an idle connection too). None: never."""

    def apply(self, sock: socket.socket) -> None:
        """Set up a connected, or connecting, socket."""
        if self.nodelay:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.keep_alive or self.dead_after_s is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if self.dead_after_s is not None:
            probe_s = max(1, round(self.dead_after_s / 3))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, probe_s)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, probe_s)
            limit_ms = max(1, round(self.dead_after_s * 1000))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, limit_ms)


class Exchange(Protocol):
    """Bytes that two servers exchange before their protocol begins: SASL. Pure: bytes in, bytes
    out. `feed` raises `Malformed` if the other side is refused."""

    done: bool
    """True as soon as the protocol may begin."""
    rest: bytes
    """What was fed and belongs to the protocol; complete when `done`."""

    def begin(self) -> bytes:
        """What this side says first, if it does."""
        ...

    def feed(self, data: bytes) -> bytes:
        """Take what has come; what to answer."""
        ...


@dataclass(frozen=True)
class Security:
    """How connections are protected. None: not at all."""

    server_tls: ssl.SSLContext | None = None
    client_tls: ssl.SSLContext | None = None
    server_exchange: Callable[[], Exchange] | None = None
    """A new exchange for an accepted connection."""
    client_exchange: Callable[[str], Exchange] | None = None
    """A new exchange for a connection to a host."""
    tls_timeout_s: float = 5.0


PLAIN = Security()


def show(address: object) -> str:
    """A socket's address for logs."""
    if isinstance(address, tuple) and len(address) >= 2:
        host, port = address[0], address[1]
        return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"
    return str(address or "unknown")


# -- connecting --------------------------------------------------------------------------------


async def resolve(
    loop: asyncio.AbstractEventLoop, address: Address, *, passive: bool = False
) -> list[tuple[socket.AddressFamily, tuple[object, ...]]]:
    """The socket addresses of a host and port at this moment; OSError if there are none."""
    host, port = address
    flags = socket.AI_PASSIVE if passive else 0
    try:  # a number needs no other thread
        found = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=flags | socket.AI_NUMERICHOST
        )
    except (socket.gaierror, UnicodeError):
        try:
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
        except UnicodeError as e:
            raise OSError(f"{host!r} is no host name") from e
    return [(family, where) for family, _, _, _, where in found]


async def dial(
    loop: asyncio.AbstractEventLoop,
    addresses: Sequence[Address],
    timeout_s: float,
    options: SocketOptions,
) -> tuple[socket.socket, Address]:
    """Connect to all addresses at once; the first socket that is connected, and by which address.
    OSError (TimeoutError too) if none is within the time."""
    tasks = {loop.create_task(_dial_one(loop, address, options)): address for address in addresses}
    failures: list[str] = []
    end = loop.time() + timeout_s
    waiting: set[asyncio.Task[socket.socket]] = set(tasks)
    try:
        while waiting:
            done, waiting = await asyncio.wait(
                waiting,
                timeout=max(0.0, end - loop.time()),
                return_when=asyncio.FIRST_COMPLETED,
            )
            for task in done:
                error = task.exception()
                if error is None:
                    return _only(task, done), tasks[task]
                failures.append(f"{show(tasks[task])}: {error}")
            if not done:
                where = ", ".join(show(tasks[task]) for task in waiting)
                raise TimeoutError(f"no connection to {where} within {timeout_s:g} s")
    finally:
        await _drop(waiting)
    raise OSError("; ".join(failures) or "no address is known")


def _only(
    winner: asyncio.Task[socket.socket], done: Iterable[asyncio.Task[socket.socket]]
) -> socket.socket:
    """The winner's socket; others that came in the same moment are closed."""
    for task in done:
        if task is not winner and task.exception() is None:
            task.result().close()
    return winner.result()


async def _drop(tasks: set[asyncio.Task[socket.socket]]) -> None:
    for task in tasks:
        task.cancel()
    for found in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(found, socket.socket):
            found.close()


async def _dial_one(
    loop: asyncio.AbstractEventLoop, address: Address, options: SocketOptions
) -> socket.socket:
    error: OSError = OSError(f"{address[0]} has no address")
    for family, where in await resolve(loop, address):
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            options.apply(sock)
            await loop.sock_connect(sock, where)
        except OSError as e:
            sock.close()
            error = e
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise error


async def adopt(
    loop: asyncio.AbstractEventLoop,
    protocol: asyncio.Protocol,
    sock: socket.socket,
    security: Security,
    host: str | None,
) -> None:
    """Give a connected socket to a protocol, under TLS if that is wanted. `host`: what the socket
    was connected to, None for an accepted one. OSError (ssl.SSLError too) if it fails."""
    timeout_s = security.tls_timeout_s
    try:
        if host is None:
            server = security.server_tls
            transport, _ = await loop.connect_accepted_socket(
                lambda: protocol,
                sock,
                ssl=server,
                ssl_handshake_timeout=timeout_s if server else None,
            )
        else:
            client = security.client_tls
            transport, _ = await loop.create_connection(
                lambda: protocol,
                sock=sock,
                ssl=client,
                server_hostname=host if client else None,
                ssl_handshake_timeout=timeout_s if client else None,
            )
    except BaseException:
        if isinstance(loop, uvloop.Loop):
            sock.detach()  # uvloop has closed it, and the number may be another one's by now
        else:
            sock.close()
        raise
    if isinstance(loop, uvloop.Loop) and transport.is_closing():
        sock.detach()  # it has come to its end before uvloop took the object: as above


# -- listening ---------------------------------------------------------------------------------


async def bind(
    loop: asyncio.AbstractEventLoop, addresses: Sequence[Address], *, everywhere: bool = False
) -> list[socket.socket]:
    """Listening sockets on the addresses, or (`everywhere`) on their ports on all addresses of the
    machine. All, or OSError."""
    wanted = addresses
    if everywhere:
        host = "::" if _has_ipv6() else "0.0.0.0"
        wanted = [(host, port) for port in dict.fromkeys(port for _, port in addresses)]
    bound: dict[tuple[object, ...], socket.socket] = {}
    try:
        for address in wanted:
            for family, where in await resolve(loop, address, passive=True):
                if where not in bound:
                    bound[where] = _listen(family, where, both=everywhere)
    except BaseException:
        for sock in bound.values():
            sock.close()
        raise
    return list(bound.values())


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as sock:
            sock.bind(("::", 0))
    except OSError:
        return False
    return True


def _listen(
    family: socket.AddressFamily, where: tuple[object, ...], *, both: bool
) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if both else 1)
        sock.bind(where)
        sock.listen(BACKLOG)
    except OSError as e:
        sock.close()
        raise OSError(e.errno, f"{show(where)}: {e.strerror}") from e
    return sock


class Acceptor:
    """Accepts on listening sockets until it is closed; hands each connection to `on_socket`,
    a coroutine function that owns the socket from then on."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        listeners: Sequence[socket.socket],
        options: SocketOptions,
        on_socket: Callable[[socket.socket, str], None],
    ) -> None:
        self._listeners = list(listeners)
        self._options = replace(options)
        self._on_socket = on_socket
        self._tasks = [loop.create_task(self._run(loop, sock)) for sock in self._listeners]

    @property
    def addresses(self) -> list[Address]:
        """Where it listens."""
        return [sock.getsockname()[:2] for sock in self._listeners]

    async def _run(self, loop: asyncio.AbstractEventLoop, listener: socket.socket) -> None:
        while True:
            try:
                sock, where = await loop.sock_accept(listener)
            except OSError as e:
                if e.errno not in (errno.ECONNABORTED, errno.EPROTO):
                    log.error("quorum.accept-failed", error=str(e))
                    await asyncio.sleep(ACCEPT_PAUSE_S)
                continue
            try:
                self._options.apply(sock)
            except OSError:  # it is gone already
                sock.close()
                continue
            self._on_socket(sock, show(where))

    async def close(self) -> None:
        """Free the ports. Connections that were accepted are not touched."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for sock in self._listeners:
            sock.close()
