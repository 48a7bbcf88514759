"""Ports that stay free for a server while it is down.

The kernel gives outgoing connections ports of its ephemeral range; one might be that of a server
which is stopped and to be started again. So these come from below that range.
"""

from __future__ import annotations

import random
import socket
from pathlib import Path

HOST = "127.0.0.1"
LOWEST = 10_000
_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_TRIED_PER_PORT = 50


def stable_ports(count: int) -> list[int]:
    """Loopback ports that nobody listens on now. Raises OSError if there are not so many."""
    highest = int(_RANGE.read_text().split()[0])
    candidates = random.SystemRandom().sample(range(LOWEST, highest), _TRIED_PER_PORT * count)
    free = []
    for port in candidates:
        if is_free(port):
            free.append(port)
        if len(free) == count:
            return free
    raise OSError(f"no {count} free ports between {LOWEST} and {highest}")


def is_free(port: int) -> bool:
    """Whether a server could listen on this loopback port now."""
    with socket.socket() as probe:
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True
