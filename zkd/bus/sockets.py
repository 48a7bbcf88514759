"""The ZeroMQ sockets between the processes of one server.

Each process owns one inbox (PULL), bound to a path named after the process and its life, and opens
an outbox (PUSH) to whomever it has something to say to. Neither end has a high-water mark: nothing
downstream ever blocks or is dropped; what is in flight is bounded by the requests that were
admitted (credits of the front-ends).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import zmq

from zkd.bus.messages import encode

RECONNECT_MS = 5
"""How soon a connect to an inbox that is not bound yet is tried again."""


def endpoint(runtime_dir: Path, name: str, life: int) -> str:
    """The ipc address of a process's inbox in one of its lives."""
    return f"ipc://{runtime_dir}/{name.replace(' ', '-')}.{life}"


class Inbox:
    """What others send to this process, in each sender's order."""

    def __init__(self, context: zmq.Context[Any], runtime_dir: Path, name: str, life: int) -> None:
        self.socket = context.socket(zmq.PULL)
        self.socket.set(zmq.RCVHWM, 0)
        self.socket.set(zmq.LINGER, 0)
        self.socket.bind(endpoint(runtime_dir, name, life))
        self.fd: int = self.socket.get(zmq.FD)
        self.recv = self.socket.recv

    def close(self) -> None:
        self.socket.close(0)


class Outbox:
    """One way to one life of another process."""

    def __init__(self, context: zmq.Context[Any], runtime_dir: Path, name: str, life: int) -> None:
        self.name = name
        self.life = life
        self.socket = context.socket(zmq.PUSH)
        self.socket.set(zmq.SNDHWM, 0)
        self.socket.set(zmq.LINGER, 0)
        self.socket.set(zmq.RECONNECT_IVL, RECONNECT_MS)
        self.socket.connect(endpoint(runtime_dir, name, life))
        self.send_frame = self.socket.send

    def send(self, message: tuple[Any, ...]) -> None:
        """Queue a message; never blocks."""
        self.socket.send(encode(message), zmq.DONTWAIT)

    def close(self, linger_ms: int = 0) -> None:
        self.socket.close(linger_ms)
