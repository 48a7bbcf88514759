"""`zkd shell` against a server: every command, one-shot and from a pipe, beside Apache's zkCli."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document

from tests import apache
from tests.apache import ApacheServer
from tests.apache import apache_zookeeper as apache_zookeeper
from zkd import cli
from zkd.cli.shell_prompt import ShellCompleter, open_history
from zkd.cli.shell_session import Shell
from zkd.cli.shell_text import OPEN_ACL
from zkd.cli.zkclient import NO_WATCHER, Client, Event, ZkError, walk
from zkd.testing import server as zkd_server

WITHIN_S = 20.0


@dataclass
class Target:
    """A server that the shell is tested against."""

    hosts: str
    is_zkd: bool


@pytest.fixture(scope="module", params=["apache", "zkd"])
def target(request: pytest.FixtureRequest) -> Iterator[Target]:
    if request.param == "apache":
        server = request.getfixturevalue("apache_zookeeper")
        yield Target(server.hosts, is_zkd=False)
    else:
        with zkd_server({"extendedTypesEnabled": True}) as running:
            yield Target(running.hosts, is_zkd=True)


@pytest.fixture
def run(target: Target, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """One-shot use: the exit status, standard output and standard error of a command."""

    def one_shot(*words: str, options: tuple[str, ...] = ()) -> tuple[int, str, str]:
        status = cli.main(["shell", "-s", target.hosts, *options, *words])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return one_shot


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def root(run: Run, request: pytest.FixtureRequest) -> Iterator[str]:
    """A node of this test's own."""
    path = "/" + re.sub(r"\W", "-", request.node.name)
    assert run("create", path, "root")[0] == 0
    yield path
    assert run("deleteall", path)[0] == 0


@contextmanager
def connected(hosts: str, **options: object) -> Iterator[tuple[Client, list[Event]]]:
    events: list[Event] = []
    client = Client(hosts, listener=events.append, **options)  # type: ignore[arg-type]
    client.start()
    try:
        assert client.wait_connected(WITHIN_S)
        yield client, events
    finally:
        client.close()


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + WITHIN_S
    waiter = threading.Event()
    while not condition():
        assert time.monotonic() < end, "nothing of the kind happened in time"
        waiter.wait(0.01)


# -- one-shot ------------------------------------------------------------------------------------


def test_create_get_set_delete(run: Run, root: str) -> None:
    node = f"{root}/a"
    assert run("create", node, "one") == (0, "", f"Created {node}\n")
    assert run("get", node)[:2] == (0, "one\n")
    assert run("set", node, "two", "-v", "0")[0] == 0
    assert run("set", node, "three", "-v", "0") == (1, "", f"version No is not valid : {node}\n")
    assert run("get", "-b", node)[1] == "dHdv\n"
    assert "|00000000| 74 77 6f " in run("get", "-x", node)[1]
    assert run("set", "-b", node, "AP8=")[0] == 0
    assert run("delete", "-v", "9", node)[0] == 1
    assert run("delete", node) == (0, "", "")
    assert run("get", node) == (1, "", f"Node does not exist: {node}\n")


def test_a_node_without_data_reads_null(run: Run, root: str) -> None:
    run("create", f"{root}/empty")
    assert run("get", f"{root}/empty")[1] == "null\n"


def test_listing(run: Run, root: str) -> None:
    for name in ("b", "a", "a/x"):
        run("create", f"{root}/{name}")
    assert run("ls", root)[1] == "[a, b]\n"
    out = run("ls", "-s", root)[1].splitlines()
    assert out[0] == "[a, b]"
    assert out[1].startswith("cZxid = 0x")
    assert out[-1] == "numChildren = 2"
    assert run("ls", "-R", root)[1].splitlines() == [
        root,
        f"{root}/a",
        f"{root}/b",
        f"{root}/a/x",
    ]
    status, _, err = run("ls2", root)
    assert status == 0
    assert err == "'ls2' has been deprecated. Please use 'ls [-s] path' instead.\n"


def test_deep_and_wide_trees_are_walked_in_few_round_trips(target: Target, root: str) -> None:
    with connected(target.hosts) as (client, _):
        wide = [f"{root}/{i:04d}" for i in range(450)]
        results = [client.send(_create(client, path)) for path in wide]
        for result in results:
            client.receive(result, None)
        client.create(f"{wide[0]}/deep", None, OPEN_ACL, 0)
        assert list(walk(client, root)) == [root, *wide, f"{wide[0]}/deep"]
        assert client.descendants_count(root) == 451


def _create(client: Client, path: str):  # type: ignore[no-untyped-def]
    from zkd.cli import zkrequests

    return zkrequests.create(client.full(path), None, OPEN_ACL, 0, 0)


def test_kinds_of_nodes(run: Run, root: str) -> None:
    assert run("create", "-s", f"{root}/s-")[2] == f"Created {root}/s-0000000000\n"
    assert run("create", "-c", f"{root}/container")[0] == 0
    assert run("create", "-t", "600000", f"{root}/ttl", "x")[0] == 0
    assert run("create", "-s", "-t", "600000", f"{root}/t-")[2].endswith("/t-0000000003\n")
    assert "ephemeralOwner = 0x0\n" in run("stat", f"{root}/ttl")[1]
    assert run("create", "-e", f"{root}/e") == (0, "", f"Created {root}/e\n")
    assert run("stat", f"{root}/e")[0] == 1  # it went with its session


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-c", "-e"], "-c cannot be combined with -s or -e. Containers cannot be ephemeral or"),
        (["-t", "5", "-e"], "TTLs cannot be used with Ephemeral znodes"),
        (["-t", "5", "-c"], "TTLs cannot be used with Container znodes"),
        (["-t", "x"], "-t argument must be a long value"),
        (["-t", "0"], "ttl must be positive and cannot be larger than: 1099511627775"),
    ],
)
def test_kinds_that_exclude_each_other(
    options: list[str], message: str, run: Run, target: Target
) -> None:
    status, _, err = run("create", *options, "/x")
    assert status == 1
    assert err.startswith(message)


def test_acls(run: Run, root: str) -> None:
    assert run("getAcl", root)[1] == "'world,'anyone\n: cdrwa\n"
    assert run("setAcl", root, "world:anyone:cdrwa,ip:10.0.0.0/8:r")[0] == 0
    assert run("getAcl", root)[1] == "'world,'anyone\n: cdrwa\n'ip,'10.0.0.0/8\n: r\n"
    run("create", f"{root}/a")
    assert run("setAcl", "-R", root, "world:anyone:cdrwa")[0] == 0
    assert run("getAcl", "-s", f"{root}/a")[1].splitlines()[2].startswith("cZxid = ")
    assert run("setAcl", root, "auth::r") == (1, "", f"Acl is not valid : {root}\n")


def test_authentication(run: Run, root: str) -> None:
    node = f"{root}/secret"
    auth = ("-a", "digest:bob:pw")
    assert run("create", node, "x", "auth::cdrwa", options=auth)[0] == 0
    assert run("get", node) == (1, "", f"Insufficient permission : {node}\n")
    assert run("get", node, options=auth)[1] == "x\n"
    who = run("whoami", options=auth)[1].splitlines()
    assert who[0] == "Auth scheme: User"
    assert "digest: bob" in who
    assert run("delete", node)[0] == 0  # that is the parent's matter


def test_whole_trees_are_deleted_in_batches(run: Run, root: str) -> None:
    for name in ("t", "t/a", "t/a/b", "t/c"):
        run("create", f"{root}/{name}")
    assert run("deleteall", "-b", "2", f"{root}/t") == (0, "", "")
    assert run("ls", root)[1] == "[]\n"
    run("create", f"{root}/old")
    assert run("rmr", f"{root}/old")[0] == 0
    assert run("deleteall", f"{root}/t")[0] == 1


def test_what_cannot_be_deleted_is_an_error(run: Run) -> None:
    status, _, err = run("deleteall", "/zookeeper/quota")
    assert (status, err) == (1, "Failed to delete some node(s) in the subtree!\n")


def test_counts_sync_config_version(run: Run, root: str) -> None:
    assert run("getAllChildrenNumber", root)[1] == "0\n"
    assert run("sync", root)[1] == "Sync is OK\n"
    assert run("config")[0] == 0
    assert run("version")[1].startswith("ZooKeeper CLI version: 3.9")
    assert run("getEphemerals")[1] == "[]\n"


def test_reconfig_of_a_standalone_server_is_refused(run: Run, tmp_path: Path) -> None:
    assert run("reconfig", "-remove", "3")[0] == 1
    members = tmp_path / "members"
    members.write_text("# ours\nserver.1=h:2888:3888;2181\nversion=5\n")
    assert run("reconfig", "-file", str(members))[0] == 1
    assert "conflicting" in run("reconfig", "-file", "x", "-members", "y")[2]
    assert "mixing" in run("reconfig", "-file", "x", "-add", "y")[2]
    assert run("reconfig")[2].startswith("reconfig [-s] [-v version]")


def test_quotas(run: Run, root: str) -> None:
    node = f"{root}/q"
    run("create", node, "12345")
    assert run("listquota", node)[2].endswith(f"quota for {node} does not exist.\n")
    assert run("setquota", "-n", "1", node)[0] == 0
    assert run("setquota", "-B", "2", node)[1] == (
        "[Warning]: the bytes quota you create is less than the existing bytes:5\n"
    )
    status, out, _ = run("listquota", node)
    assert status == 0
    assert out == (
        f"Output quota for {node} count=1,bytes=-1=;byteHardLimit=2;countHardLimit=-1\n"
        f"Output stat for {node} count=1,bytes=5\n"
    )
    run("create", f"{node}/below")
    assert "has a parent" in run("setquota", "-n", "9", f"{node}/below")[2]
    assert "has a child" in run("setquota", "-n", "9", root)[2]
    assert run("delquota", "-n", node)[0] == 0
    assert "count=-1," in run("listquota", node)[1]
    assert run("delquota", node)[0] == 0
    assert run("listquota", node)[0] == 1
    assert run("ls", "/zookeeper/quota")[1] == "[]\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-n", "0"], "the num quota must be greater than zero"),
        (["-b", "-1"], "the bytes quota must be greater than or equal to zero"),
        (["-N", "x"], "NumberFormatException happens when parsing the option value"),
        ([], "setquota -n|-b|-N|-B val path"),
    ],
)
def test_quotas_that_are_refused(words: list[str], message: str, run: Run, root: str) -> None:
    assert run("setquota", *words, root) == (1, "", f"{message}\n")


def test_wrong_paths_never_reach_the_server(run: Run) -> None:
    assert run("get", "a") == (1, "", "Path must start with / character\n")
    assert run("delete", "/a/")[2] == "Path must not end with / character\n"


def test_json_of_reading_commands(run: Run, root: str) -> None:
    run("create", f"{root}/a", "text")

    def read(*words: str) -> dict[str, object]:
        status, out, _ = run(*words, options=("--json",))
        assert status == 0
        value = json.loads(out)
        assert isinstance(value, dict)
        return value

    assert read("ls", root) == {"path": root, "children": ["a"]}
    assert read("ls", "-R", root) == {"path": root, "paths": [root, f"{root}/a"]}
    got = read("get", f"{root}/a")
    assert got["data"] == "text"
    stat = got["stat"]
    assert isinstance(stat, dict)
    assert stat["dataLength"] == 4
    assert read("stat", f"{root}/a")["stat"] == stat
    assert read("getAcl", root)["acl"] == [
        {"scheme": "world", "id": "anyone", "permissions": "cdrwa"}
    ]
    assert read("getAllChildrenNumber", root)["count"] == 1
    assert read("getEphemerals")["ephemerals"] == []
    assert {"scheme": "ip", "user": "127.0.0.1"} in read("whoami")["identities"]  # type: ignore[operator]
    assert "config" in read("config")


def test_a_chroot_is_not_seen(target: Target, root: str) -> None:
    with connected(target.hosts + root) as (client, events):
        assert client.create("/in", b"", OPEN_ACL, 1) == "/in"
        assert client.children("/")[0] == ["in"]
        assert client.ephemerals() == ["/in"]
        client.get("/in", watch=True)
        client.set("/in", b"x")
        until(lambda: events[-1].path == "/in")
        assert list(walk(client, "/")) == ["/", "/in"]
        client.delete("/in")


# -- watches -------------------------------------------------------------------------------------


def test_events_come_in_order_and_persistent_watches_stay(target: Target, root: str) -> None:
    with connected(target.hosts) as (client, events):
        client.children(root, watch=True)
        client.exists(f"{root}/a", watch=True)
        client.create(f"{root}/a", None, OPEN_ACL, 0)
        client.add_watch(root, recursive=True)
        client.set(f"{root}/a", b"1")
        client.delete(f"{root}/a")
        until(lambda: len(events) == 5)
    told = [(event.type, event.path) for event in events[:5]]
    assert told == [
        ("None", None),
        ("NodeCreated", f"{root}/a"),
        ("NodeChildrenChanged", root),
        ("NodeDataChanged", f"{root}/a"),
        ("NodeDeleted", f"{root}/a"),
    ]
    assert events[-1].state == "Closed"


def test_watches_are_removed_and_told(target: Target, root: str) -> None:
    with connected(target.hosts) as (client, events):
        client.get(root, watch=True)
        client.children(root, watch=True)
        client.remove_watches(root, 3, local=False)
        assert [event.type for event in events[1:]] == ["DataWatchRemoved", "ChildWatchRemoved"]
        with pytest.raises(ZkError) as refused:
            client.remove_watches(root, 3, local=False)
        assert refused.value.code == NO_WATCHER
        client.set(root, b"unseen")
        client.sync(root)
        assert len(events) == 3


def test_watches_are_set_again_after_a_reconnection(target: Target, root: str) -> None:
    with connected(target.hosts, timeout_s=10.0) as (client, events):
        session = client.session_id
        client.get(root, watch=True)
        client.add_watch(root, recursive=True)
        client._kazoo._connection._socket.shutdown(2)
        until(lambda: [e.state for e in events[-2:]] == ["Disconnected", "SyncConnected"])
        assert client.session_id == session
        with connected(target.hosts) as (other, _):
            other.create(f"{root}/new", None, OPEN_ACL, 0)
            other.set(root, b"x")
        until(lambda: len(events) == 5)
    assert [(event.type, event.path) for event in events[3:5]] == [
        ("NodeCreated", f"{root}/new"),
        ("NodeDataChanged", root),
    ]


# -- lines from a pipe, beside zkCli -------------------------------------------------------------

SCRIPT = """\
create {0} data
create {0}/b two
create -e {0}/e
create -s {0}/s-
create {0}/quoted 'two words' world:anyone:cdrwa
get {0}
get -s {0}
get {0}/none
ls {0}
ls -s {0}
ls -R {0}
ls {0}/e
create {0}/e/child
stat {0}
stat {0}/none
getAcl {0}
getAcl -s {0}
setAcl {0}/b world:anyone:cdrw
getAcl {0}/b
set {0} new
set -s {0} newer
set {0} wrong -v 77
delete {0}/b -v 5
delete {0}
delete {0}/b
getEphemerals {0}
getAllChildrenNumber {0}
whoami
sync {0}
setquota -n 100 {0}
listquota {0}
setquota -b 1 {0}
listquota {0}
delquota -n {0}
listquota {0}
delquota {0}
printwatches
printwatches off
printwatches
get relative
get {0}/
create {0}//x
history
redo 5
config
deleteall {0}
ls {0}
"""
_CHANGING = [
    (re.compile(r"0x[0-9a-f]+"), "0xN"),
    (re.compile(r"\w{3} \w{3} \d\d \d\d:\d\d:\d\d \w+ \d{4}"), "DATE"),
    (re.compile(r"/shell-[12]"), "/ROOT"),
]


def lines_of(text: str) -> list[str]:
    """Output without what differs from run to run, and without zkCli's greeting and log."""
    for pattern, name in _CHANGING:
        text = pattern.sub(name, text)
    greeting = ("Connecting to", "Welcome to", "JLine support", "[main]", "WATCHER::", "")
    kept = [line for line in text.splitlines() if not line.startswith("WatchedEvent state:")]
    return [line for line in kept if line not in greeting and not line.startswith(greeting[:4])]


def test_output_is_zkclis(apache_zookeeper: ApacheServer) -> None:
    """The same lines to both shells, on one server: the same output, but for times and zxids."""
    _, their_out, their_err = apache.shell(
        apache_zookeeper, stdin=SCRIPT.format("/shell-1") + "quit\n"
    )
    ours = subprocess.run(
        [sys.executable, "-m", "zkd", "shell", "-s", apache_zookeeper.hosts],
        input=SCRIPT.format("/shell-2"), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert lines_of(ours.stdout) == lines_of(their_out)
    assert lines_of(ours.stderr) == lines_of(their_err)


def test_lines_from_a_pipe(target: Target, root: str) -> None:
    lines = f"create {root}/a x\nget -w {root}/a\nset {root}/a y\nget {root}/a\nbogus\nls {root}\n"
    done = subprocess.run(
        [sys.executable, "-m", "zkd", "shell", "-s", target.hosts],
        input=lines, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0
    assert f"type:NodeDataChanged path:{root}/a" in done.stdout
    assert done.stdout.startswith(f"Connecting to {target.hosts}\nWelcome to ZooKeeper!\n")
    assert "[a]\n" in done.stdout
    assert "Command not found bogus" in done.stderr


# -- at a terminal -------------------------------------------------------------------------------


def completions(shell: Shell, text: str) -> list[str]:
    found = ShellCompleter(shell).get_completions(Document(text), CompleteEvent())
    return [completion.text for completion in found]


def test_commands_options_and_paths_are_completed(target: Target, root: str) -> None:
    shell = Shell(target.hosts, lambda hosts, listener: Client(hosts, listener=listener))
    shell.connect(target.hosts)
    try:
        assert shell.client.wait_connected(WITHIN_S)
        for name in ("alpha", "alps", "beta"):
            shell.client.create(f"{root}/{name}", None, OPEN_ACL, 0)
        assert completions(shell, "getA") == ["getAcl", "getAllChildrenNumber"]
        assert completions(shell, f"get {root}/al") == ["alpha", "alps"]
        assert completions(shell, f"ls -s {root}/") == ["alpha", "alps", "beta"]
        assert completions(shell, "get /zook") == ["zookeeper"]
        assert completions(shell, f"get {root}/none/x") == []
        assert "-s" in completions(shell, "ls -")
        assert completions(shell, "help getE") == ["getEphemerals"]
        assert completions(shell, "get ") == []
    finally:
        shell.close()


def test_history_keeps_no_passwords(tmp_path: Path) -> None:
    path = tmp_path / "state" / "history"
    history = open_history(path)
    for line in ("ls /", "addauth digest bob:secret"):
        history.append_string(line)
    assert "ls /" in path.read_text()
    assert "secret" not in path.read_text()
    assert path.stat().st_mode & 0o077 == 0


def test_a_terminal_gets_a_prompt(target: Target, tmp_path: Path) -> None:
    """In a pseudo-terminal: prompt with state, a command, completion of a path, quit."""
    import pty

    main, other = pty.openpty()
    environment = os.environ | {"XDG_STATE_HOME": str(tmp_path), "TERM": "dumb"}
    process = subprocess.Popen(
        [sys.executable, "-m", "zkd", "shell", "-s", target.hosts],
        stdin=other, stdout=other, stderr=other, env=environment, start_new_session=True,
    )  # fmt: skip
    os.close(other)
    seen = bytearray()

    def read_until(text: bytes) -> None:
        end = time.monotonic() + WITHIN_S
        while text not in seen:
            assert time.monotonic() < end, seen.decode(errors="replace")
            seen.extend(os.read(main, 4096))

    try:
        read_until(b"(CONNECT")
        os.write(main, b"ls /zookeeper\r")
        read_until(b"[config, quota]")
        os.write(main, b"quit\r")
        assert process.wait(WITHIN_S) == 0
    finally:
        process.kill()
        process.wait()
        os.close(main)


def test_a_server_that_is_not_there_is_status_1(capsys: pytest.CaptureFixture[str]) -> None:
    hosts = f"127.0.0.1:{apache.free_port()}"
    assert cli.main(["shell", "-s", hosts, "-t", "0.5", "ls", "/"]) == 1
    assert capsys.readouterr().err == f"no connection to {hosts} within 0.5 s\n"
