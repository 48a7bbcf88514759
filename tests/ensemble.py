"""An ensemble of real zkd servers on loopback, for tests: who leads, who serves, who is killed.

`Ensemble(voters, observers)` gives each server its own folder and ports; `servers[sid]` is a
`zkd.testing` server. Each can be stopped, killed and started again with its data.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from kazoo.client import KazooClient

from tests.apache import four_letters, free_port
from zkd.testing.throwaway import Server

WITHIN_S = 30.0
LOOK_AGAIN_S = 0.02


def lines(sids: Sequence[int], observers: Sequence[int] = ()) -> dict[int, str]:
    """server.N lines on free ports of loopback."""
    return {
        sid: f"127.0.0.1:{free_port()}:{free_port()}:"
        + ("observer" if sid in observers else "participant")
        for sid in [*sids, *observers]
    }


def until(condition: Callable[[], Any], within_s: float = WITHIN_S) -> Any:
    """Wait for it; its value."""
    end = time.monotonic() + within_s
    while True:
        with contextlib.suppress(OSError):
            if found := condition():
                return found
        assert time.monotonic() < end, "not in time"
        time.sleep(LOOK_AGAIN_S)  # between two looks, not instead of one


def member(sid: int, told: Mapping[int, str], settings: Mapping[str, object]) -> Server:
    """One server of the ensemble that `told` describes; not started."""
    server = Server(
        {
            "tickTime": 200,
            "initLimit": 25,
            "syncLimit": 10,
            **{f"server.{other}": line for other, line in told.items()},
            **settings,
        }
    )
    server.data_dir.mkdir(parents=True, exist_ok=True)
    (server.data_dir / "myid").write_text(f"{sid}\n")
    return server


def mode(server: Server) -> str:
    """What `srvr` says it does; "" if it serves nobody."""
    answer = four_letters(server.port, "srvr", 2.0)
    found = [line for line in answer.splitlines() if line.startswith("Mode: ")]
    return found[0].removeprefix("Mode: ") if found else ""


class Ensemble:
    """See the module's text. A context manager; all servers serve when it is entered."""

    def __init__(self, voters: int = 3, observers: int = 0, **settings: object) -> None:
        sids = range(1, voters + 1)
        self.lines = lines(sids, range(voters + 1, voters + observers + 1))
        self.servers = {sid: member(sid, self.lines, settings) for sid in self.lines}
        self.clients: list[KazooClient] = []

    def __enter__(self) -> Self:
        try:
            for server in self.servers.values():
                server.start()
            self.all_serve()
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for client in self.clients:
            client.stop()
            client.close()
        for sid, server in self.servers.items():
            if error is not None and server.log.exists():
                print(f"--- server {sid}\n{server.log.read_text(errors='replace')[-6000:]}")
            server.close()

    # -- what they do --------------------------------------------------------------------------

    def modes(self) -> dict[int, str]:
        """What each running server does."""
        found = {}
        for sid, server in self.servers.items():
            if server.running:
                with contextlib.suppress(OSError):
                    found[sid] = mode(server)
        return found

    def leader(self) -> int:
        """Who leads; waits for it."""

        def look() -> list[int]:
            return [sid for sid, what in self.modes().items() if what == "leader"]

        found: list[int] = until(look)
        return found[0]

    def all_serve(self) -> None:
        """Wait until every running server serves."""
        until(
            lambda: all(
                mode(server) in ("leader", "follower", "observer")
                for server in self.servers.values()
                if server.running
            )
        )

    def kill(self, sid: int) -> None:
        """SIGKILL of the whole server."""
        self.servers[sid].kill("supervisor")

    def stop(self, sid: int, number: int = signal.SIGSTOP) -> None:
        """A signal to every process of a server."""
        for pid in self.servers[sid].pids().values():
            os.kill(pid, number)

    def client(self, *sids: int, timeout_s: float = 10.0, **options: Any) -> KazooClient:
        """A started client of these servers, or of all; stopped at the end."""
        hosts = ",".join(self.servers[sid].hosts for sid in sids or self.servers)
        client = KazooClient(hosts, timeout=timeout_s, **options)
        self.clients.append(client)
        client.start(timeout=WITHIN_S)
        return client
