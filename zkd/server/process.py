"""What every child of the supervisor has: its name and life, the control channel, the board.

The control channel is a SOCK_SEQPACKET pair, one JSON object a packet, the supervisor at the other
end. It says which lives the processes have at present (that is how they find each other's inboxes)
and when to stop; the child says that it is ready and, once a second, that it is alive. An end of
file on it means that the supervisor is gone, and then so is the child.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import gc
import json
import mmap
import os
import pickle
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zkd.errors import OperatorError
from zkd.server import logs

if TYPE_CHECKING:
    import zmq

    from zkd.bus.sockets import Inbox
    from zkd.config import Config

ALIVE_INTERVAL_S = 1.0
PR_SET_PDEATHSIG = 1


class SupervisorGone(Exception):
    """The control channel has ended: this process must end too."""


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent dies, however it dies (prctl(2))."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        raise SupervisorGone


def quiet_collector() -> None:
    """Leave the garbage to reference counts: the server's own objects make no cycles on the way of
    a request, and a collection would go over every cached znode each time."""
    gc.collect()
    gc.freeze()
    gc.disable()


def collect_cycles() -> None:
    """Now and then: look for cycles among what has come since the last time, and only there."""
    gc.collect()
    gc.freeze()


class Board:
    """Shared memory with one slot a front-end: the zxid that it has applied and told of.

    Written by its front-end alone before any reply or event that reflects the zxid leaves, read by
    all. A slot is 8 aligned bytes written by one store, so it is never seen half written.
    """

    def __init__(self, slots: int) -> None:
        self.memory = mmap.mmap(-1, max(8 * slots, mmap.PAGESIZE))
        self.view = memoryview(self.memory).cast("Q")[:slots]


@dataclass
class Child:
    """The surroundings of one child process."""

    name: str
    life: int
    config: Config
    control: socket.socket
    runtime_dir: Path
    board: Board
    listener: socket.socket | None = None
    direct: socket.socket | None = None
    """The listener of its direct inbox (bus/sockets.py)."""
    index: int = 0
    """Which front-end this is, from 0."""
    lives: dict[str, int] = field(default_factory=dict)
    """The present life of every process, by name."""
    on_lives: Callable[[dict[str, int]], None] | None = None
    on_reload: Callable[[], None] | None = None
    """Called when values of `config` have changed."""
    stopping: bool = False
    _last_alive: float = 0.0

    def inbox(self, context: zmq.Context[Any]) -> Inbox:
        """This life's inbox."""
        from zkd.bus.sockets import Inbox

        return Inbox(context, self.runtime_dir, self.name, self.life, self.direct)

    def say(self, **message: Any) -> None:
        """Tell the supervisor something."""
        try:
            self.control.send(json.dumps(message).encode())
        except (BrokenPipeError, ConnectionResetError):
            raise SupervisorGone from None
        except BlockingIOError:
            pass  # it is stopped, or we are told to end already; the next one will do

    def ready(self, **more: Any) -> None:
        """Say that this process does its work from now on."""
        self.say(ready=True, **more)

    def alive(self, now: float | None = None) -> None:
        """Say that the main loop goes round, at most once a second."""
        now = time.monotonic() if now is None else now
        if now - self._last_alive >= ALIVE_INTERVAL_S:
            self._last_alive = now
            self.say(alive=True)

    def read_control(self) -> None:
        """Handle what the supervisor has said; call it when the channel is readable."""
        while True:
            try:
                packet = self.control.recv(65536)
            except BlockingIOError:
                return
            except ConnectionResetError:
                raise SupervisorGone from None
            if not packet:
                raise SupervisorGone
            message = json.loads(packet)
            if "lives" in message:
                self.lives = message["lives"]
                if self.on_lives is not None:
                    self.on_lives(self.lives)
            if message.get("stop"):
                self.stopping = True
            if "reload" in message:
                self._reload(message["reload"])

    def _reload(self, changed: str) -> None:
        """The supervisor has read the configuration again, and found no fault in it."""
        self.config.take(pickle.loads(base64.b64decode(changed)))
        with contextlib.suppress(OperatorError):  # the supervisor has said why
            logs.setup(self.config.log_config, self.name, server=self.config.name)
        if self.on_reload is not None:
            self.on_reload()
