"""Finds a server's processes, and kills, stops or continues them.

A process of zkd is known by its title (`zkd: frontend 1 ...`) and by descending from the one that
was started; no other process is ever touched.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Iterable
from pathlib import Path

_TITLE = re.compile(rb"^zkd: (frontend \d+|peer|storage|admin)\b")


def descendants(pid: int) -> list[int]:
    """The process's children, theirs, and so on; parents first."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += [int(child), *descendants(int(child))]
    return found


def name_of(pid: int) -> str | None:
    """Which process of zkd this is by its title; None for others, and for one just forked."""
    try:
        match = _TITLE.match(Path(f"/proc/{pid}/cmdline").read_bytes())
    except OSError:
        return None
    return match.group(1).decode() if match else None


def processes(root: int) -> dict[str, int]:
    """The running processes of one zkd by name; the one that was started is `supervisor`."""
    named = {"supervisor": root}
    for pid in descendants(root):
        name = name_of(pid)
        if name is not None and _state(pid) != "Z":
            named[name] = pid
    return named


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return "Z"


def signal_all(pids: Iterable[int], number: signal.Signals) -> None:
    """Send a signal to each that still exists."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def freeze_tree(root: int) -> list[int]:
    """SIGSTOP a process and all its descendants, top first so that none is started meanwhile."""
    pids = [root]
    signal_all(pids, signal.SIGSTOP)
    while True:
        new = [pid for pid in descendants(root) if pid not in pids]
        if not new:
            return pids
        signal_all(new, signal.SIGSTOP)
        pids += new


def kill_tree(root: int) -> None:
    """SIGKILL a process and all its descendants; stopped first, so none sees another die."""
    signal_all(freeze_tree(root), signal.SIGKILL)


def holder(client_port: int, server_port: int, pids: Iterable[int]) -> int | None:
    """Which of `pids` holds the server's end of the loopback connection from `client_port`."""
    inode = None
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        local, remote = (int(fields[i].rpartition(":")[2], 16) for i in (1, 2))
        if (local, remote) == (server_port, client_port):
            inode = fields[9]
    for pid in pids if inode not in (None, "0") else ():
        with contextlib.suppress(OSError):
            for fd in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    if str(fd.readlink()) == f"socket:[{inode}]":
                        return pid
    return None
