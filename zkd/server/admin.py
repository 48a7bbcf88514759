"""The admin process: commit observers, metrics exporters; nothing that a client waits for."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import zmq

from zkd.bus.messages import DURABLE, JOIN, QUERY, REPLY, decode
from zkd.bus.sockets import Inbox, Outbox
from zkd.server import logs
from zkd.server.metrics import Metrics

if TYPE_CHECKING:
    from zkd.server.process import Child


class Admin:
    """Hears from storage what is committed, and asks the others for their statistics."""

    def __init__(self, child: Child) -> None:
        self.child = child
        self.log = logs.get(child.name)
        self.metrics = Metrics(child.name)
        self.context: zmq.Context[Any] = zmq.Context()
        self.inbox = Inbox(self.context, child.runtime_dir, child.name, child.life)
        self.storage: Outbox | None = None
        self.committed = 0
        child.on_lives = self._lives

    def run(self) -> None:
        """Go round until told to stop."""
        child = self.child
        control = child.control.fileno()
        sockets = [(self.inbox.socket, zmq.POLLIN), (control, zmq.POLLIN)]
        child.ready()
        while not child.stopping:
            for source, _ in zmq.zmq_poll(sockets, 500):
                if source == control:
                    child.read_control()
            child.alive()
            self._drain()

    def _drain(self) -> None:
        while True:
            try:
                message = decode(self.inbox.recv(zmq.DONTWAIT))
            except zmq.Again:
                return
            if message[0] == DURABLE:
                self.committed = message[3]
            elif message[0] == QUERY:
                _, ident, _what, (name, life) = message
                out = Outbox(self.context, self.child.runtime_dir, name, life)
                out.send((REPLY, ident, self.child.name, self.statistics()))
                out.close(linger_ms=500)

    def _lives(self, lives: dict[str, int]) -> None:
        life = lives.get("storage", 0)
        if life and (self.storage is None or self.storage.life < life):
            if self.storage is not None:
                self.storage.close()
            self.storage = Outbox(self.context, self.child.runtime_dir, "storage", life)
            self.storage.send((JOIN, self.child.name, self.child.life, []))

    def statistics(self) -> dict[str, Any]:
        """This process's part of the metrics."""
        return {"name": self.child.name, "pid": os.getpid(), "metrics": self.metrics.dump()}


def main(child: Child) -> None:
    """The life of the admin process."""
    Admin(child).run()
