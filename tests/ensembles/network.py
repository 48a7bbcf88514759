"""A network of namespaces: each member in one of its own, the clients and the switch in another.

    member k  peer0 198.18.0.k ---- port k \\
                                            bridge 0 (or 1, 2, ... while the network is parted)
    member j  peer0 198.18.0.j ---- port j /

    member k  client0 198.18.k.2 -- 198.18.k.1 in the namespace of switch and clients

Members talk to each other over the switch, to clients over links of their own: a member that is cut
off from the others still hears its clients. The test itself moves into the clients' namespace
(`inside`) and leaves nothing in the machine's own. A namespace lives as long as the process that
holds it, and that dies with the test.

Needs iproute2, util-linux and the right to make namespaces: root, or `unshare --user --net
--map-root-user` around the test. Delay is made by a process that passes frames on late (relay.py),
since the kernel's own way (netem) is a module that many kernels come without.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Iterator
from pathlib import Path

_CLONE_NEWNET = 0x40000000
_PR_SET_PDEATHSIG = 1
_READY_WITHIN_S = 10.0
_libc = ctypes.CDLL(None, use_errno=True)
ROOT = Path(__file__).resolve().parents[2]


def missing() -> str | None:
    """Why there can be no such network here, or None."""
    for tool in ("ip", "tc", "nsenter", "unshare"):
        if shutil.which(tool) is None:
            return f"no {tool} on this machine"
    done = subprocess.run(["unshare", "--net", "true"], capture_output=True, text=True, check=False)
    return f"no right to make a network namespace: {done.stderr}" if done.returncode else None


def _die_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _namespace_of(pid: int | str) -> str:
    return str(Path(f"/proc/{pid}/ns/net").readlink())


def _enter(path: str) -> None:
    """Move this thread into the network namespace that a file of /proc stands for."""
    with Path(path).open() as file:
        if _libc.setns(file.fileno(), _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"setns to {path}")


class Namespace:
    """A network namespace, held by a process that does nothing else."""

    def __init__(self) -> None:
        self.holder = subprocess.Popen(
            ["unshare", "--net", "--", "sleep", "infinity"],
            stdin=subprocess.DEVNULL,
            preexec_fn=_die_with_parent,
            start_new_session=True,
        )
        end = time.monotonic() + _READY_WITHIN_S
        while _namespace_of(self.holder.pid) == _namespace_of("self"):
            if self.holder.poll() is not None or time.monotonic() > end:
                raise OSError("there is no new namespace")
            time.sleep(0.001)  # between two looks, not instead of one
        self.ip("link set lo up")

    @property
    def prefix(self) -> tuple[str, ...]:
        """What starts a command in it, with the same process id."""
        return "nsenter", "--target", str(self.holder.pid), "--net", "--"

    def ip(self, arguments: str) -> None:
        """Run ip(8) in it; OSError with what it says."""
        self._run(f"ip {arguments}")

    def drop_all(self, interface: str) -> None:
        """From now on nothing is sent on an interface. (The queue that does so is part of every
        kernel, unlike those of tc that lose a share.)"""
        self._run(f"tc qdisc replace dev {interface} root blackhole")

    def drop_nothing(self, interface: str) -> None:
        self._run(f"tc qdisc del dev {interface} root")

    def _run(self, command: str) -> None:
        arguments = [*self.prefix, *command.split()]
        done = subprocess.run(arguments, capture_output=True, text=True, check=False)
        if done.returncode:
            raise OSError(f"{command}: {done.stderr.strip()}")

    def close(self) -> None:
        self.holder.kill()
        self.holder.wait()


class Network:
    """The network of members 1..`count`; a Hosts for `ensemble`. Use it as a context."""

    def __init__(self, count: int) -> None:
        self.sids = range(1, count + 1)
        self.relays: dict[int, subprocess.Popen[bytes]] = {}
        self._dropping: list[tuple[Namespace, str]] = []
        self._spaces: list[Namespace] = []
        try:
            self.switch = self._space()
            self.members = {sid: self._space() for sid in self.sids}
            for number in self.sids:  # as many bridges as there can be sides
                self.switch.ip(f"link add bridge{number} type bridge")
                self.switch.ip(f"link set bridge{number} up")
            for sid in self.sids:
                self._wire(sid)
        except BaseException:
            self.close()
            raise

    def _space(self) -> Namespace:
        self._spaces.append(Namespace())
        return self._spaces[-1]

    def _wire(self, sid: int) -> None:
        member, pid = self.members[sid], self.members[sid].holder.pid
        self.switch.ip(f"link add port{sid} type veth peer name peer0 netns {pid}")
        self.switch.ip(f"link set port{sid} master bridge1 up")
        member.ip(f"addr add 198.18.0.{sid}/24 dev peer0")
        member.ip("link set peer0 up")
        self.switch.ip(f"link add link{sid} type veth peer name client0 netns {pid}")
        self.switch.ip(f"addr add 198.18.{sid}.1/30 dev link{sid}")
        self.switch.ip(f"link set link{sid} up")
        member.ip(f"addr add 198.18.{sid}.2/30 dev client0")
        member.ip("link set client0 up")

    def __enter__(self) -> Network:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for process in self.relays.values():
            process.kill()
            process.wait()
        for space in self._spaces:
            space.close()

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """Be where the clients are: sockets and processes of this thread begin there."""
        with Path("/proc/thread-self/ns/net").open() as back:
            _enter(f"/proc/{self.switch.holder.pid}/ns/net")
            try:
                yield
            finally:
                _enter(f"/proc/self/fd/{back.fileno()}")

    # -- Hosts ---------------------------------------------------------------------------------

    def peer_host(self, sid: int) -> str:
        return f"198.18.0.{sid}"

    def client_host(self, sid: int) -> str:
        return f"198.18.{sid}.2"

    def listen_host(self, sid: int) -> str:
        return f"198.18.{sid}.2"

    def prefix(self, sid: int) -> tuple[str, ...]:
        return self.members[sid].prefix

    # -- faults --------------------------------------------------------------------------------

    def part(self, *sides: Collection[int]) -> None:
        """Cut the network: members hear those of their own side alone. Members that are on no side
        are together."""
        on = {sid: number for number, side in enumerate(sides, 2) for sid in side}
        for sid in self.sids:
            self.switch.ip(f"link set {self._at_the_switch(sid)} master bridge{on.get(sid, 1)}")

    def heal(self) -> None:
        """One network again, all cables in, nothing lost."""
        while self._dropping:
            space, interface = self._dropping.pop()
            space.drop_nothing(interface)
        self.part()
        for sid in self.sids:
            self.plug(sid)

    def unplug(self, sid: int) -> None:
        """Pull the cable between a member and the switch."""
        self.switch.ip(f"link set port{sid} down")

    def plug(self, sid: int) -> None:
        self.switch.ip(f"link set port{sid} up")

    def deafen(self, sid: int) -> None:
        """What the others send to a member is lost; they hear it."""
        self._drop(self.switch, f"port{sid}")

    def mute(self, sid: int) -> None:
        """What a member sends to the others is lost; it hears them."""
        self._drop(self.members[sid], "peer0")

    def _drop(self, space: Namespace, interface: str) -> None:
        space.drop_all(interface)
        self._dropping.append((space, interface))

    def delay(self, sid: int, ms: float) -> None:
        """From now on all frames between a member and the others come this much later, each way."""
        far, near = f"far{sid}", f"near{sid}"
        self.switch.ip(f"link add {far} type veth peer name {near}")
        self.switch.ip(f"link set port{sid} nomaster")
        self.switch.ip(f"link set {far} master bridge1 up")
        self.switch.ip(f"link set {near} up")
        self.relays[sid] = subprocess.Popen(
            [*self.switch.prefix, sys.executable, "-m", "tests.ensembles.relay",
             f"port{sid}", near, str(ms)],
            cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, preexec_fn=_die_with_parent,
            start_new_session=True,
        )  # fmt: skip
        said = self.relays[sid].stdout
        assert said is not None
        with said:
            if said.readline() != b"ready\n":
                raise OSError("the relay did not start")

    def _at_the_switch(self, sid: int) -> str:
        return f"far{sid}" if sid in self.relays else f"port{sid}"
