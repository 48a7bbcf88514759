"""A throwaway ensemble: several throwaway servers that are one service.

Members are started together, since none serves before a quorum of them is there. Ports are chosen
once and stay: a member that is stopped and started again is found where it was. If somebody takes
one in the moment before the first start, the ensemble moves to others, as a server alone does.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

from zkd.testing.ports import is_free, stable_ports
from zkd.testing.throwaway import PORT_ATTEMPTS, READY_WITHIN_S, Server, ServerFailed

_LOOK_AGAIN_S = 0.01
_MODE = re.compile(r"^Mode: (leader|follower|observer)$", re.MULTILINE)
DEFAULTS: dict[str, object] = {"tickTime": 500, "initLimit": 20, "syncLimit": 10}


class Member(Server):
    """One server of an ensemble: all that a `Server` has, and its `id` and `role`."""

    def __init__(self, sid: int, role: str, settings: Mapping[str, object]) -> None:
        """`role` is "participant" or "observer"."""
        super().__init__(settings)
        self.id = sid
        self.role = role
        self.data_dir.mkdir()
        (self.data_dir / "myid").write_text(f"{sid}\n")

    def mode(self) -> str:
        """ "leader", "follower" or "observer"; "" while it serves nobody."""
        try:
            with socket.create_connection((self.host, self.port), 1.0) as connection:
                connection.sendall(b"srvr")
                parts = []
                while part := connection.recv(4096):
                    parts.append(part)
        except OSError:
            return ""
        found = _MODE.search(b"".join(parts).decode("utf-8", "replace"))
        return found.group(1) if found else ""


class Ensemble:
    """Voters and observers; a context manager that starts and removes them.

    `members`: by id. `hosts`: the connect string of all of them.
    """

    def __init__(
        self, voters: int, observers: int = 0, settings: Mapping[str, object] | None = None
    ) -> None:
        """`settings` as in zoo.cfg, the same for all members."""
        if voters < 2 or observers < 0:
            raise ValueError(f"{voters} voters and {observers} observers are no ensemble")
        self._roles = dict.fromkeys(range(1, voters + 1), "participant")
        last = voters + observers
        self._roles |= dict.fromkeys(range(voters + 1, last + 1), "observer")
        self._settings = DEFAULTS | dict(settings or {})
        self._clients: list[Any] = []
        self.members: dict[int, Member] = {}

    @property
    def hosts(self) -> str:
        return ",".join(member.hosts for member in self.members.values())

    def __enter__(self) -> Self:
        try:
            self._start_somewhere()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _start_somewhere(self) -> None:
        for attempt in range(1, PORT_ATTEMPTS + 1):
            ports = stable_ports(3 * len(self._roles))
            self.members = self._made(ports)
            try:
                self.start()
            except ServerFailed:
                self._remove()
                if attempt == PORT_ATTEMPTS or all(map(is_free, ports)):
                    raise
            else:
                return

    def _made(self, ports: list[int]) -> dict[int, Member]:
        """The members on these ports, three for each: for clients, quorum and election."""
        lines = {
            f"server.{sid}": f"{Server.host}:{quorum}:{election}:{role}"
            for (sid, role), quorum, election in zip(
                self._roles.items(), ports[1::3], ports[2::3], strict=True
            )
        }
        made = {}
        for (sid, role), port in zip(self._roles.items(), ports[::3], strict=True):
            more = {"peerType": role} if role == "observer" else {}
            settings = {"clientPort": port, **more, **lines}
            made[sid] = Member(sid, role, {**self._settings, **settings})
        return made

    def start(self) -> None:
        """Start all that do not run, and wait until all serve. Raises ServerFailed."""
        with ExitStack() as beginning:
            for member in self.members.values():
                if not member.running:
                    beginning.enter_context(member.beginning())
        end = time.monotonic() + READY_WITHIN_S
        while waiting := [sid for sid, member in self.members.items() if not member.mode()]:
            if time.monotonic() > end:
                raise ServerFailed(f"members {waiting} do not serve")
            time.sleep(_LOOK_AGAIN_S)

    def leader(self) -> Member:
        """The member that leads; waits until there is one. Raises ServerFailed."""
        end = time.monotonic() + READY_WITHIN_S
        while time.monotonic() < end:
            for member in self.members.values():
                if member.running and member.mode() == "leader":
                    return member
            time.sleep(_LOOK_AGAIN_S)
        raise ServerFailed(f"no leader among {sorted(self.members)}")

    def client(self, **options: Any) -> Any:
        """A started kazoo client of all members (KazooClient(hosts, **options))."""
        from kazoo.client import KazooClient

        client = KazooClient(self.hosts, **options)
        self._clients.append(client)
        client.start()
        return client

    def close(self) -> None:
        """Stop the clients and the servers, remove the folders."""
        try:
            for client in self._clients:
                client.stop()
                client.close()
            self._clients.clear()
        finally:
            self._remove()

    def _remove(self) -> None:
        with ExitStack() as stack:
            for member in self.members.values():
                stack.callback(member.close)
        self.members = {}
