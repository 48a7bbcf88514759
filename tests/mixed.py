"""An ensemble whose members are zkd or Apache ZooKeeper, each for the time being.

`start(sid, kind)` starts a member on its folder, or on an empty one; `replace` is how an operator
moves a server from one to the other: its data does not come along, the leader's snapshot does.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from kazoo.client import KazooClient

from tests import apache
from tests.apache import four_letters, free_port
from tests.ensemble import WITHIN_S, lines, member, until
from zkd.testing.throwaway import Server

APACHE, ZKD = "apache", "zkd"
SETTINGS: dict[str, object] = {"tickTime": 200, "initLimit": 50, "syncLimit": 20}


class Mixed:
    """A context manager; nothing is started when it is entered."""

    def __init__(self, voters: int = 3, observers: int = 0, **settings: object) -> None:
        sids = range(1, voters + 1)
        self.lines = lines(sids, range(voters + 1, voters + observers + 1))
        self.settings = SETTINGS | settings
        self.ports = {sid: free_port() for sid in self.lines}
        self.kinds: dict[int, str] = {}
        self.folder = Path(tempfile.mkdtemp(prefix="zkd-mixed-"))
        self._zkd: dict[int, Server] = {}
        self._apache: dict[int, tuple[ExitStack, int]] = {}
        self._clients: list[KazooClient] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for client in self._clients:
            client.stop()
            client.close()
        for sid, server in self._zkd.items():
            if error is not None and server.log.exists():
                print(f"--- zkd {sid}\n{server.log.read_text(errors='replace')[-5000:]}")
            server.close()
        for stack, _ in list(self._apache.values()):
            stack.close()
        for log in self.folder.glob("*/log") if error is not None else ():
            print(f"--- apache {log.parent.name}\n{log.read_text(errors='replace')[-5000:]}")
        shutil.rmtree(self.folder)

    # -- members -------------------------------------------------------------------------------

    def start(self, sid: int, kind: str) -> None:
        """Start a member, not waiting until it serves."""
        self.kinds[sid] = kind
        if kind == ZKD:
            if sid not in self._zkd:
                settings = self.settings | {"clientPort": self.ports[sid]}
                self._zkd[sid] = member(sid, self.lines, settings)
            self._zkd[sid].start()
            return
        settings = {key: str(value) for key, value in self.settings.items()}
        settings["clientPort"] = str(self.ports[sid])
        stack = ExitStack()
        started = apache.start_members(
            self.folder, self.lines, [sid], settings=settings, ready=False
        )
        self._apache[sid] = (stack, stack.enter_context(started)[sid].pid)

    def kill(self, sid: int, number: int = signal.SIGKILL) -> None:
        """A signal to all of a member; after SIGKILL and SIGTERM it is gone."""
        if self.kinds[sid] == ZKD:
            server = self._zkd[sid]
            if number == signal.SIGKILL:
                server.kill("supervisor")
            elif number == signal.SIGTERM:
                server.stop()
            else:
                for pid in server.pids().values():
                    os.kill(pid, number)
            return
        stack, pid = self._apache[sid]
        os.kill(pid, number)
        if number in (signal.SIGKILL, signal.SIGTERM):
            stack.close()
            del self._apache[sid]

    def replace(self, sid: int, kind: str) -> None:
        """Another server in the place of this member, with nothing but its number."""
        self.kill(sid, signal.SIGTERM)
        self.forget(sid)
        self.start(sid, kind)
        self.serves(sid)

    def forget(self, sid: int) -> None:
        """The data of a member that does not run is gone."""
        if sid in self._zkd:
            self._zkd.pop(sid).close()
        shutil.rmtree(self.folder / str(sid), ignore_errors=True)

    # -- what they do --------------------------------------------------------------------------

    def mode(self, sid: int) -> str:
        """leader, follower, observer, or "" while it serves nobody."""
        with suppress(OSError):
            for line in four_letters(self.ports[sid], "srvr", 2.0).splitlines():
                if line.startswith("Mode: "):
                    return line.removeprefix("Mode: ")
        return ""

    def serves(self, *sids: int) -> None:
        """Wait until these serve."""
        roles = ("leader", "follower", "observer")
        until(lambda: all(self.mode(sid) in roles for sid in sids), 60.0)

    def told(self, sid: int, word: str) -> dict[str, str]:
        """The lines of a four-letter word with tabs (mntr)."""
        answer = four_letters(self.ports[sid], word, 5.0)
        return dict(line.split("\t", 1) for line in answer.splitlines() if "\t" in line)

    def log_of(self, sid: int) -> Callable[[], list[Path]]:
        """The files of a member's transaction log, as they are then."""
        if self.kinds[sid] == ZKD:
            folder, pattern = self._zkd[sid].data_dir, "log.db*"
        else:
            folder, pattern = self.folder / str(sid) / "data" / "version-2", "log.*"
        return lambda: list(folder.glob(pattern))

    def client(self, *sids: int, **options: Any) -> KazooClient:
        """A started client of these members, or of all."""
        hosts = ",".join(f"127.0.0.1:{self.ports[sid]}" for sid in sids or self.lines)
        client = KazooClient(hosts, **{"timeout": 10.0} | options)
        self._clients.append(client)
        client.start(timeout=WITHIN_S)
        return client
