"""Ensembles of real servers, each member Apache ZooKeeper or zkd, and what is done to them.

A member keeps its id, ports and address for the life of the ensemble, whatever kind of server is
in its place; each kind has a folder of its own per member, so that a kind which comes back may find
its old data again or an empty folder. Methods that wait let the event loop run: the load goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import time
from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.chaos import nemesis
from tests.chaos.servers import Apache, Server, ServerFailed, Zkd, folder_for
from tests.ensembles.hosts import Hosts, Loopback
from zkd.testing.ports import stable_ports

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
SPOILED = 'NullPointerException: Cannot read field "hdr" because "pif" is null'
"""What an Apache learner logs that fails over a COMMIT between NEWLEADER and UPTODATE (3.8.0;
ZOOKEEPER-4394). It joins again and serves rightly, but its log on disk then has transactions out
of order, and a start from that log loses some."""
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
        self._data_since: dict[Path, int] = {}
        """Where the log in a member's folder was when the data beside it began."""

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

    def membership(self) -> dict[str, str]:
        """The lines of zoo.cfg that make them an ensemble."""
        return {f"server.{place.sid}": place.line for place in self.places.values()}

    def _server(self, sid: int) -> Server:
        folder, place = self.member_folder(sid), self.places[sid]
        (folder / "data").mkdir(parents=True, exist_ok=True)
        (folder / "data" / "myid").write_text(f"{sid}\n")
        lines = self.settings | self.membership()
        if place.role == "observer":
            lines["peerType"] = "observer"
        where = self.hosts.listen_host(sid), place.client_port
        prefix = self.hosts.prefix(sid)
        server: Server
        if self.kinds[sid] == APACHE:
            server = Apache(folder, lines, address=where, prefix=prefix)
            server.flags = FLAGS
        else:
            lines["runtime.dir"] = str(folder / "run")  # nothing is left of it after a kill
            server = Zkd(folder, lines, frontends=1, address=where, prefix=prefix)
        server.address = self.address(sid)
        return server

    def spawn(self, *sids: int) -> None:
        """Start members, without waiting for anything."""
        for sid in sids or self.places:
            self.servers[sid] = self._server(sid)
            self.servers[sid].spawn()

    async def start(self, *sids: int) -> None:
        """Start members (all of them by default) and wait until they serve.

        An Apache member with data of its own making that cannot be relied on (`SPOILED`) begins
        without any, as its operator would have it, if there is a leader to give it all.
        """
        for sid in sids:
            if SPOILED in self.log_from(sid, self._data_since.get(self.member_folder(sid), 0)):
                others = [other for other in self.voters if other != sid]
                if "leader" in await asyncio.gather(*map(self.mode, others)):
                    self._drop_data(sid)
        self.spawn(*sids)
        await self.serving(*sids)

    async def start_led_by(self, leader: int) -> None:
        """Start all members of a new ensemble so that this one leads.

        With equal histories the greatest id is elected: it begins with as many members of smaller
        ids as make a quorum of it, and the others find it leading.
        """
        quorum = len(self.voters) // 2 + 1
        first = [sid for sid in self.voters if sid <= leader][-quorum:]
        if len(first) < quorum:
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

        It begins without any data; with `keep` on what that kind had there before.
        """
        if sid in self.servers and self.servers[sid].alive:
            await self.stop(sid)
        self.kinds[sid] = kind
        if not keep:
            self._drop_data(sid)
        await self.start(sid)

    def _drop_data(self, sid: int) -> None:
        folder = self.member_folder(sid)
        shutil.rmtree(folder / "data", ignore_errors=True)
        self._data_since[folder] = self.log_end(sid)

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

    async def leader(self, *sids: int, within_s: float = SERVES_WITHIN_S) -> int:
        """The member (of these, by default of all) that leads; waits until there is one."""
        end = time.monotonic() + within_s
        while time.monotonic() < end:
            for sid in sids or self.voters:
                if await self.mode(sid) == "leader":
                    return sid
            await asyncio.sleep(0.02)  # between two looks, not instead of one
        raise ServerFailed(f"no leader within {within_s:g} s\n{self.tails()}")

    async def mode_is(self, sid: int, mode: str, within_s: float = SERVES_WITHIN_S) -> None:
        """Wait until a member is what `mode` says; "" is one that serves nobody."""
        end = time.monotonic() + within_s
        while (now := await self.mode(sid)) != mode:
            if time.monotonic() > end:
                tail = self.servers[sid].tail()
                raise ServerFailed(f"member {sid} is {now!r}, not {mode!r}\n{tail}")
            await asyncio.sleep(0.02)  # between two looks, not instead of one

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

    async def caught_up(self, *sids: int, within_s: float = SERVES_WITHIN_S) -> None:
        """Wait until members have applied all that the leader had applied when this was called."""
        wanted = await self.zxid(await self.leader())
        end = time.monotonic() + within_s
        for sid in sids or self.places:
            while await self.zxid(sid) < wanted:
                if time.monotonic() > end:
                    raise ServerFailed(f"member {sid} is behind\n{self.servers[sid].tail()}")
                await asyncio.sleep(0.02)  # between two looks, not instead of one

    def log_from(self, sid: int, position: int = 0) -> str:
        """What the member has logged since a position (`log_end`)."""
        log = self.member_folder(sid) / "log"
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
