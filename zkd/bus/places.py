"""Where the inboxes of a server's processes are: paths in its private runtime directory.

Apart from the sockets themselves, so that the supervisor can bind a child's listener before it
forks without having ZeroMQ in its address space.
"""

from __future__ import annotations

import socket
from pathlib import Path


def place(runtime_dir: Path, name: str, life: int) -> str:
    """The path of a process's ZeroMQ inbox in one of its lives."""
    return f"{runtime_dir}/{name.replace(' ', '-')}.{life}"


def direct_place(runtime_dir: Path, name: str, life: int) -> str:
    """The path of its direct inbox."""
    return place(runtime_dir, name, life) + "d"


def listen(runtime_dir: Path, name: str, life: int) -> socket.socket:
    """The listener of a process's direct inbox. Bound before the process is there, so that nobody
    connects too early."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    path = direct_place(runtime_dir, name, life)
    Path(path).unlink(missing_ok=True)
    listener.bind(path)
    listener.listen(64)
    return listener
