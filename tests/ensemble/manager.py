"""Ensembles of real servers, each member Apache ZooKeeper or zkd, and what is done to them.

A member keeps its id, ports and address for the life of the ensemble, whatever kind of server is
in its place; each kind has a folder of its own per member, so that a kind which comes back may find
its old data again or an empty folder. Methods that wait let the event loop run: the load goes on.

Ports come from below the kernel's range of ephemeral ports: no client's own end can take the port
of a member that is down.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
import shutil
import signal
import socket
import time
from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.chaos import nemesis
from tests.chaos.servers import Apache, Server, ServerFailed, Zkd, folder_for
from tests.ensemble.hosts import Hosts, Loopback

APACHE, ZKD = "A", "Z"
SERVES_WITHIN_S = 60.0
SETTINGS = {
    "tickTime": "500",
    "initLimit": "20",
    "syncLimit": "8",
    "extendedTypesEnabled": "true",
    "reconfigEnabled": "false",
}
# What says how a learner is synchronised is logged by these two.
_TELLING = ("Learner", "LearnerHandler", "QuorumPeer")
FLAGS = (
    "-Dzookeeper.extendedTypesEnabled=true",
    *(f"-Dorg.slf4j.simpleLogger.log.org.apache.zookeeper.server.quorum.{name}=info"
      for name in _TELLING),
)  # fmt: skip
SERVING = frozenset({"leader", "follower", "observer", "standalone"})


@dataclass(frozen=True, slots=True)
class Place:
    """A member's line: where its servers listen for the others, and its role."""

    sid: int
    host: str
    client_port: int
    quorum_port: int
    election_port: int
    role: str

    @property
    def line(self) -> str:
        return f"{self.host}:{self.quorum_port}:{self.election_port}:{self.role}"


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def stable_ports(count: int) -> list[int]:
    """Free ports that no outgoing connection of this machine will be given."""
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    candidates = random.SystemRandom().sample(range(10_000, lowest), 50 * count)
    free = [port for port in candidates if _is_free(port)]
    return free[:count]


async def four_letters(address: tuple[str, int], word: str, within_s: float = 2.0) -> str:
    """What a server answers to a four-letter word; "" if it does not."""
    try:
        async with asyncio.timeout(within_s):
            reader, writer = await asyncio.open_connection(*address)
            try:
                writer.write(word.encode())
                return (await reader.read()).decode("utf-8", "replace")
            finally:
                writer.transport.abort()
    except (OSError, TimeoutError):
        return ""


class Ensemble:
    """`kinds` has a letter per member, the ids from 1 on: "AAZ" is two Apache servers and zkd as 3.

    Members start with `start`; nothing runs before. `observers` are ids among them. `settings` are
    further lines of zoo.cfg for all, of either kind.
    """

    def __init__(
        self,
        folder: Path,
        kinds: str,
        *,
        observers: Collection[int] = (),
        settings: Mapping[str, str] | None = None,
        hosts: Hosts | None = None,
    ) -> None:
        self.folder = folder
        self.hosts = hosts or Loopback()
        self.settings = SETTINGS | dict(settings or {})
        self.kinds = dict(enumerate(kinds, 1))
        ports = iter(stable_ports(3 * len(kinds)))
        self.places = {
            sid: Place(
                sid, self.hosts.peer_host(sid), next(ports), next(ports), next(ports),
                "observer" if sid in observers else "participant",
            )
            for sid in self.kinds
        }  # fmt: skip
        self.servers: dict[int, Server] = {}
        self.stopped: dict[int, list[int]] = {}
        """Processes under SIGSTOP, by member."""

    @property
    def voters(self) -> list[int]:
        return [sid for sid, place in self.places.items() if place.role == "participant"]

    def address(self, sid: int) -> tuple[str, int]:
        return self.hosts.client_host(sid), self.places[sid].client_port

    def addresses(self, *sids: int) -> list[tuple[str, int]]:
        """Where clients connect to, of all members or of some."""
        return [self.address(sid) for sid in sids or self.places]

    # -- life ----------------------------------------------------------------------------------

    def member_folder(self, sid: int) -> Path:
        """The folder of the member's present kind."""
        return self.folder / f"{sid}-{self.kinds[sid]}"

    def _server(self, sid: int) -> Server:
        folder, place = self.member_folder(sid), self.places[sid]
        (folder / "data").mkdir(parents=True, exist_ok=True)
        (folder / "data" / "myid").write_text(f"{sid}\n")
        lines = self.settings | {f"server.{p.sid}": p.line for p in self.places.values()}
        if place.role == "observer":
            lines["peerType"] = "observer"
        where = self.hosts.listen_host(sid), place.client_port
        prefix = self.hosts.prefix(sid)
        server: Server
        if self.kinds[sid] == APACHE:
            server = Apache(folder, lines, address=where, prefix=prefix)
            server.flags = FLAGS
        else:
            server = Zkd(folder, lines, frontends=1, address=where, prefix=prefix)
        server.address = self.address(sid)
        return server

    def spawn(self, *sids: int) -> None:
        """Start members, without waiting for anything."""
        for sid in sids or self.places:
            self.servers[sid] = self._server(sid)
            self.servers[sid].spawn()

    async def start(self, *sids: int) -> None:
        """Start members (all of them by default) and wait until they serve."""
        self.spawn(*sids)
        await self.serving(*sids)

    async def start_led_by(self, leader: int) -> None:
        """Start all members of a new ensemble so that this one leads: with equal histories the
        greatest id is elected, so it begins with the members of smaller ones."""
        first = [sid for sid in self.voters if sid <= leader]
        if 2 * len(first) <= len(self.voters):
            raise ValueError(f"member {leader} has too few members of smaller ids")
        await self.start(*first)
        rest = [sid for sid in self.places if sid not in first]
        if rest:
            await self.start(*rest)
        if (found := await self.leader()) != leader:
            raise ServerFailed(f"member {found} leads, not {leader}")

    async def stop(self, *sids: int) -> None:
        """SIGTERM, and wait for the end."""
        await asyncio.gather(*(asyncio.to_thread(self.servers[s].stop) for s in sids))

    def kill(self, *sids: int) -> None:
        """SIGKILL to all processes of these members."""
        for sid in sids:
            self.stopped.pop(sid, None)
            self.servers[sid].kill_all()

    def freeze(self, sid: int) -> None:
        """SIGSTOP to all processes of a member."""
        self.stopped[sid] = nemesis.freeze_tree(self.servers[sid].root)

    def thaw(self, sid: int) -> None:
        nemesis.signal_all(reversed(self.stopped.pop(sid)), signal.SIGCONT)

    async def replace(self, sid: int, kind: str, *, keep: bool = False) -> None:
        """Put a server of this kind in the member's place and wait until it serves.

        It begins with an empty folder; with `keep` on what that kind had there before.
        """
        if sid in self.servers and self.servers[sid].alive:
            await self.stop(sid)
        self.kinds[sid] = kind
        if not keep:
            shutil.rmtree(self.member_folder(sid), ignore_errors=True)
        await self.start(sid)

    async def close(self) -> None:
        """End all that still runs; raises ServerFailed for one that does not obey SIGTERM."""
        for sid in list(self.stopped):
            self.thaw(sid)
        running = [sid for sid, server in self.servers.items() if server.process is not None]
        done = await asyncio.gather(
            *(asyncio.to_thread(self.servers[sid].stop) for sid in running), return_exceptions=True
        )
        for error in done:
            if isinstance(error, BaseException):
                raise error

    # -- what it looks like --------------------------------------------------------------------

    async def mode(self, sid: int) -> str:
        """leader, follower, observer; "" while it serves nobody."""
        found = re.search(r"^Mode: ([\w-]+)", await four_letters(self.address(sid), "srvr"), re.M)
        return found.group(1) if found and found.group(1) in SERVING else ""

    async def serving(self, *sids: int, within_s: float = SERVES_WITHIN_S) -> None:
        """Wait until these members serve."""
        waiting = list(sids or self.places)
        end = time.monotonic() + within_s
        while True:
            waiting = [sid for sid in waiting if not await self.mode(sid)]
            if not waiting:
                return
            dead = [sid for sid in waiting if not self.servers[sid].alive]
            if dead or time.monotonic() > end:
                tails = "\n".join(f"member {s}: {self.servers[s].tail()}" for s in dead or waiting)
                raise ServerFailed(f"members {dead or waiting} do not serve\n{tails}")
            await asyncio.sleep(0.02)  # between two looks, not instead of one

    async def leader(self, *, within_s: float = SERVES_WITHIN_S) -> int:
        """The member that leads; waits until there is one."""
        end = time.monotonic() + within_s
        while time.monotonic() < end:
            for sid in self.voters:
                if await self.mode(sid) == "leader":
                    return sid
            await asyncio.sleep(0.02)  # between two looks, not instead of one
        raise ServerFailed(f"no leader within {within_s:g} s\n{self.tails()}")

    async def monitor(self, sid: int) -> dict[str, str]:
        """`mntr` of a member."""
        text = await four_letters(self.address(sid), "mntr")
        pairs = (line.split("\t", 1) for line in text.splitlines() if "\t" in line)
        return {name.strip(): value.strip() for name, value in pairs}

    async def zxid(self, sid: int) -> int:
        """The last zxid that a member has applied, as `srvr` says."""
        text = await four_letters(self.address(sid), "srvr")
        found = re.search(r"^Zxid: 0x([0-9a-f]+)", text, re.M)
        return int(found.group(1), 16) if found else 0

    def log_from(self, sid: int, position: int = 0) -> str:
        """What the member has logged since a position (`log_end`)."""
        log = self.servers[sid].log
        return log.read_bytes()[position:].decode("utf-8", "replace") if log.exists() else ""

    def log_end(self, sid: int) -> int:
        log = self.member_folder(sid) / "log"
        return log.stat().st_size if log.exists() else 0

    def tails(self) -> str:
        return "\n".join(f"member {sid}: {s.tail()}" for sid, s in self.servers.items())

    def complaints(self) -> Iterable[str]:
        """What logs say went wrong beyond what was done to the members."""
        for sid, server in self.servers.items():
            yield from (f"member {sid}: {line}" for line in server.complaints())


@contextlib.asynccontextmanager
async def ensemble(
    kinds: str,
    *,
    observers: Collection[int] = (),
    settings: Mapping[str, str] | None = None,
    hosts: Hosts | None = None,
) -> AsyncIterator[Ensemble]:
    """An ensemble that is stopped at the end, its folder removed; see `Ensemble`.

    If the test fails and ZKD_KEEP names a folder, the members' folders are copied there.
    """
    with folder_for("ensemble") as folder:
        members = Ensemble(folder, kinds, observers=observers, settings=settings, hosts=hosts)
        try:
            yield members
        except BaseException:
            if keep := os.environ.get("ZKD_KEEP"):
                shutil.copytree(folder, Path(keep) / folder.name, ignore_dangling_symlinks=True)
            raise
        finally:
            await members.close()
