"""The listening sockets of the client port."""

from __future__ import annotations

import contextlib
import errno
import socket
from pathlib import Path

from zkd.config import Config
from zkd.errors import OperatorError

DEFAULT_BACKLOG = 1024
"""Used for clientPortListenBacklog=-1; Apache ZooKeeper has Java's 50, and clients then meet SYN
retransmissions when a few hundred of them reconnect at once."""


def listen(config: Config) -> list[socket.socket]:
    """One listening socket for each front-end, all on the client port.

    The port is first bound without SO_REUSEPORT: otherwise a second server of the same user would
    silently share it. Raises OperatorError that names the process which has the port.
    """
    host = config.listen_address or "::"
    family, address = _resolve(host, config.listen_port)
    probe = _socket(family)
    try:
        probe.bind(address)
    except OSError as e:
        if family == socket.AF_INET6 and e.errno == errno.EADDRNOTAVAIL and host == "::":
            family, address = _resolve("0.0.0.0", config.listen_port)
            probe.close()
            probe = _socket(family)
            probe.bind(address)
        else:
            raise _taken(e, host, config.listen_port) from None
    finally:
        probe.close()
    backlog = config.client_port_listen_backlog
    sockets = []
    for _ in range(config.frontends):
        s = _socket(family)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        s.bind(address)
        s.listen(backlog if backlog > 0 else DEFAULT_BACKLOG)
        s.setblocking(False)
        sockets.append(s)
    return sockets


def _resolve(host: str, port: int) -> tuple[socket.AddressFamily, tuple[object, ...]]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as e:
        raise OperatorError(
            what=f"cannot resolve clientPortAddress: {e.strerror}",
            where=host,
            mend="give an address of this machine, or leave clientPortAddress out",
        ) from None
    return found[0][0], found[0][4]


def _socket(family: socket.AddressFamily) -> socket.socket:
    s = socket.socket(family, socket.SOCK_STREAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    return s


def _taken(e: OSError, host: str, port: int) -> OperatorError:
    holder = _holder(port) if e.errno == errno.EADDRINUSE else ""
    return OperatorError(
        what=f"cannot listen on the client port: {e.strerror}"
        + (f", held by {holder}" if holder else ""),
        where=f"{host}:{port}",
        mend="stop the other process, or set another clientPort or clientPortAddress",
    )


def _holder(port: int) -> str:
    """The process that listens on a TCP port, as `title (pid N)`; empty if it cannot be seen."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == "0A" and int(fields[1].rsplit(":", 1)[1], 16) == port:
                    inodes.add(f"socket:[{fields[9]}]")
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            for fd in (process / "fd").iterdir():
                if str(fd.readlink()) in inodes:
                    title = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
                    return f"{title} (pid {process.name})"
    return ""
