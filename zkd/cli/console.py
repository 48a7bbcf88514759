"""Asking a running server's processes over the bus, as its operator on the same machine.

The folder of the server's sockets belongs to its user alone, so whoever may open them may also ask;
no word needs to be on a whitelist. Works with QUERY and REPLY (zkd/bus/messages.py) only.
"""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import Any

import zmq

from zkd.bus.messages import QUERY, REPLY, decode
from zkd.bus.places import place
from zkd.bus.sockets import Inbox, Outbox
from zkd.config import Config
from zkd.errors import OperatorError

_SOCKET = re.compile(r"(frontend-\d+|peer|storage|admin)\.(\d+)")


def living(runtime_dir: Path) -> dict[str, int]:
    """The newest life of every process of which there is a socket."""
    lives: dict[str, int] = {}
    for path in runtime_dir.glob("*") if runtime_dir.is_dir() else ():
        if match := _SOCKET.fullmatch(path.name):
            name = match[1].replace("-", " ")
            lives[name] = max(lives.get(name, 0), int(match[2]))
    return lives


def ask(config: Config, kinds: tuple[str, ...], what: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The answers of the processes of these kinds, by name. OperatorError unless all answer."""
    lives = {
        name: life
        for name, life in living(config.runtime_dir).items()
        if name.split(" ")[0] in kinds
    }
    if {name.split(" ")[0] for name in lives} != set(kinds):
        raise OperatorError(
            "no server is running on this data, or this user may not ask it",
            str(config.runtime_dir),
            "give the CONFIG (or --data) with which it was started, as its own user",
        )
    answers = _ask(config.runtime_dir, lives, what)
    if missing := sorted(set(lives) - set(answers)):
        raise OperatorError(
            f"not answered: {', '.join(missing)}",
            str(config.runtime_dir),
            "see the server's log; try again if a process has just been restarted",
        )
    return answers


def _ask(
    folder: Path, lives: dict[str, int], what: dict[str, Any], within_s: float = 5.0
) -> dict[str, dict[str, Any]]:
    name, life = f"console {os.getpid()}", 1
    context: zmq.Context[Any] = zmq.Context()
    inbox = Inbox(context, folder, name, life)
    outboxes = [Outbox(context, folder, other, at) for other, at in lives.items()]
    answers: dict[str, dict[str, Any]] = {}
    try:
        for outbox in outboxes:
            outbox.send((QUERY, 1, what, (name, life)))
        end = time.monotonic() + within_s
        while len(answers) < len(lives) and (left := end - time.monotonic()) > 0:
            if frame := inbox.recv(left):
                kind, _, other, answer = decode(frame)
                if kind == REPLY:
                    answers[other] = answer
    finally:
        for outbox in outboxes:
            outbox.close()
        inbox.close()
        Path(place(folder, name, life)).unlink(missing_ok=True)
        context.term()
    return answers
