"""Apache's own shell, from Debian's package, against zkd: what it prints must be the same.

One script with every command runs against a fresh server of either kind. Watch events are printed
by a thread of their own, so they are compared apart from the rest.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass

import pytest

import tests.apache as debian
from tests.clients.conftest import KINDS
from tests.conformance import servers
from tests.conformance.servers import Server

COMMANDS = """\
create /cli data
create /cli/a one
create -s /cli/s- seq
create -e /cli/e eph
create -s -e /cli/se- both
create -c /cli/cont c
create -t 1000000 /cli/ttl t
create /missing/parent x
create /cli again
create /cli//bad x
create /cli/unicode-字é 字
get /cli/unicode-字é
ls /cli
ls -s /cli
ls -R /cli
ls -w /cli
create /cli/new x
get -s /cli/a
get -w /cli/a
set /cli/a two
set -v 5 /cli/a three
set -s -v 1 /cli/a three
stat /cli
stat /cli/ttl
stat -w /cli/none
create /cli/none x
getAcl /cli
getAcl -s /cli
addauth digest ann:one
whoami
create /cli/mine secret auth::rwcda
getAcl /cli/mine
setAcl /cli/a world:anyone:r
setAcl -s /cli/a auth::cdrwa
setAcl -R /cli/cont world:anyone:cdrwa
sync /
setquota -n 5 /cli
setquota -b 1000 /cli
listquota /cli
get /zookeeper/quota/cli/zookeeper_stats
delquota -n /cli
delquota /cli
listquota /cli
getEphemerals
getEphemerals /cli/se
getAllChildrenNumber /
addWatch /cli
addWatch -m PERSISTENT /cli/a
set /cli watched
create /cli/deep x
removewatches /cli
delete /cli
delete -v 7 /cli/a
delete /cli/a
delete /zookeeper
deleteall /cli
ls /
config
reconfig -add server.2=localhost:1:2
close
ls /
quit
"""
_TIMES = re.compile(r"^([cm]time = ).*$")


@dataclass(frozen=True, slots=True)
class Printed:
    lines: list[str]
    events: list[str]
    errors: list[str]
    status: int


def shell(server: Server, *command: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run zkCli; without a command it reads lines from stdin."""
    java = ["java", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-Dfile.encoding=UTF-8"]
    java += ["-Dorg.slf4j.simpleLogger.defaultLogLevel=off", "-cp", debian.classpath()]
    return subprocess.run(
        [*java, debian.SHELL_CLASS, "-server", server.hosts, *command],
        input=stdin,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )


def printed(kind: str) -> Printed:
    """What the script prints at a fresh server, without what is another each time."""
    with servers.running(kind) as server:
        done = shell(server, stdin=COMMANDS)
        lines = done.stdout.replace(str(server.port), "PORT").splitlines()
    events = [line for line in lines if line.startswith("WatchedEvent")]
    kept = []
    for line in lines:
        if line and not line.startswith(("WatchedEvent", "WATCHER::")):
            line = _TIMES.sub(r"\1T", line)
            kept.append(_sorted(line) if line.startswith("[") else line)
    return Printed(_identities_sorted(kept), events, done.stderr.splitlines(), done.returncode)


def _sorted(line: str) -> str:
    return ", ".join(sorted(line.strip("[]").split(", ")))


def _identities_sorted(lines: list[str]) -> list[str]:
    """whoami lists identities in the order of a hash set."""
    at = lines.index("Auth scheme: User") + 1
    end = at
    while lines[end].startswith(("digest: ", "ip: ")):
        end += 1
    return [*lines[:at], *sorted(lines[at:end]), *lines[end:]]


@pytest.mark.apache
def test_every_command_prints_the_same() -> None:
    for kind in ("apache", "zkd"):
        if reason := servers.missing(kind):
            pytest.skip(reason)
    expected, got = printed("apache"), printed("zkd")
    assert got.lines == expected.lines
    assert got.events == expected.events
    assert got.errors == expected.errors
    assert got.status == expected.status
    assert "Created /cli/se-0000000003" in got.errors, "the script did not run"


@pytest.mark.apache
@pytest.mark.parametrize("kind", KINDS)
def test_one_shot(kind: str) -> None:
    """A command on the command line: its output, and a status that a script can use."""
    if reason := servers.missing(kind) or debian.missing():
        pytest.skip(reason)
    with servers.running(kind) as server:
        assert shell(server, "create", "/one", "shot").returncode == 0
        found = shell(server, "get", "/one")
        assert (found.returncode, found.stdout.splitlines()[-1]) == (0, "shot")
        assert shell(server, "get", "/missing").returncode == 1
