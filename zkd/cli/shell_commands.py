"""The shell's commands that ask a server: one function each, and the table of them.

A command gets the shell it runs in (where to print, whether as JSON, the client) and its arguments.
It prints what zkCli prints, to the same stream as zkCli, and raises ShellError or ZkError if it
failed. With JSON a reading command prints one object on one line instead.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from zkd.cli import zkrequests as rq
from zkd.cli.shell_text import (
    OPEN_ACL,
    Arguments,
    ShellError,
    check_path,
    code_message,
    data_object,
    hex_dump,
    java_list,
    parse_acl,
    permissions,
    stat_lines,
    stat_object,
)
from zkd.cli.zkclient import Client, ZkError, walk

CONFIG_NODE = "/zookeeper/config"
DELETE_BATCH = 1000
TTL_MAX_MS = (1 << 40) - 1
WATCH_MODES = ("PERSISTENT", "PERSISTENT_RECURSIVE")
_REMOVABLE = {"c": 1, "d": 2, "p": 4, "r": 5, "a": 3}


class Surroundings(Protocol):
    """The shell, as a command sees it."""

    as_json: bool

    @property
    def client(self) -> Client: ...

    def out(self, text: str) -> None: ...

    def err(self, text: str) -> None: ...

    def emit(self, value: Mapping[str, Any]) -> None:
        """Print a JSON object on one line."""


Run = Callable[[Surroundings, Arguments], None]


@dataclass(frozen=True, slots=True)
class Command:
    """A command: how it is written, its options (name -> takes a value), what it does.

    `arguments`: the least number of words beside options. `reads`: it can answer in JSON.
    """

    name: str
    usage: str
    run: Run
    options: Mapping[str, bool] = field(default_factory=dict)
    arguments: int = 0
    reads: bool = False

    @property
    def usage_line(self) -> str:
        return f"{self.name} {self.usage}"


COMMANDS: dict[str, Command] = {}


def command(
    name: str, usage: str, flags: str = "", valued: Iterable[str] = (), **more: Any
) -> Callable[[Run], Run]:
    """Put a function into the table; `flags` are one-letter options without a value."""
    options = dict.fromkeys(flags, False) | dict.fromkeys(valued, True)

    def add(run: Run) -> Run:
        COMMANDS[name] = Command(name, usage, run, options, **more)
        return run

    return add


def _deprecated_watch(shell: Surroundings, a: Arguments, old: str, new: str) -> bool:
    """Whether a watch is asked for, by -w or as zkCli once did by a second word."""
    if len(a.words) > 1:
        shell.err(f"'{old}' has been deprecated. Please use '{new}' instead.")
        return True
    return a.has("w")


# -- reading -------------------------------------------------------------------------------------


@command("ls", "[-s] [-w] [-R] path", "swR", arguments=1, reads=True)
def ls(shell: Surroundings, a: Arguments) -> None:
    """The children of a node, or with -R its whole subtree."""
    path = check_path(a.words[0])
    watch = _deprecated_watch(shell, a, "ls path [watch]", "ls [-w] path")
    if a.has("R"):
        paths = walk(shell.client, path, watch)
        if shell.as_json:
            shell.emit({"path": path, "paths": list(paths)})
        else:
            for found in paths:
                shell.out(found)
        return
    names, stat = shell.client.children(path, watch)
    names.sort()
    with_stat = a.has("s")
    if shell.as_json:
        extra = {"stat": stat_object(stat)} if with_stat else {}
        shell.emit({"path": path, "children": names} | extra)
        return
    shell.out(java_list(names))
    if with_stat:
        shell.out("\n".join(stat_lines(stat)))


@command("ls2", "path [watch]", "w", arguments=1, reads=True)
def ls2(shell: Surroundings, a: Arguments) -> None:
    """zkCli's command before 3.5: ls -s."""
    shell.err("'ls2' has been deprecated. Please use 'ls [-s] path' instead.")
    a.options["s"] = ""
    ls(shell, a)


@command("get", "[-s] [-w] [-b] [-x] path", "swbx", arguments=1, reads=True)
def get(shell: Surroundings, a: Arguments) -> None:
    """The data of a node; -b in base64, -x as a hex dump."""
    path = check_path(a.words[0])
    watch = _deprecated_watch(shell, a, "get path [watch]", "get [-s] [-w] path")
    data, stat = shell.client.get(path, watch)
    if shell.as_json:
        shell.emit({"path": path} | data_object(data) | {"stat": stat_object(stat)})
        return
    shown = b"null" if data is None else data
    if a.has("x"):
        shell.out(hex_dump(shown))
    elif a.has("b"):
        shell.out(base64.b64encode(shown).decode())
    else:
        shell.out(shown.decode("utf-8", "replace"))
    if a.has("s"):
        shell.out("\n".join(stat_lines(stat)))


@command("stat", "[-w] path", "w", arguments=1, reads=True)
def stat(shell: Surroundings, a: Arguments) -> None:
    """The stat of a node."""
    path = check_path(a.words[0])
    watch = _deprecated_watch(shell, a, "stat path [watch]", "stat [-w] path")
    found = shell.client.exists(path, watch)
    if found is None:
        raise ZkError(-101, path)
    if shell.as_json:
        shell.emit({"path": path, "stat": stat_object(found)})
    else:
        shell.out("\n".join(stat_lines(found)))


@command("getAcl", "[-s] path", "s", arguments=1, reads=True)
def get_acl(shell: Surroundings, a: Arguments) -> None:
    """Who may do what with a node."""
    path = check_path(a.words[0])
    acl, found = shell.client.get_acl(path)
    if shell.as_json:
        rows = [
            {"scheme": e.id.scheme, "id": e.id.id, "permissions": permissions(e.perms)} for e in acl
        ]
        shell.emit({"path": path, "acl": rows, "stat": stat_object(found)})
        return
    for entry in acl:
        shell.out(f"'{entry.id.scheme},'{entry.id.id}\n: {permissions(entry.perms)}")
    if a.has("s"):
        shell.out("\n".join(stat_lines(found)))


@command("getEphemerals", "path", reads=True)
def get_ephemerals(shell: Surroundings, a: Arguments) -> None:
    """The ephemeral nodes of this session."""
    prefix = check_path(a.words[0]) if a.words else "/"
    paths = shell.client.ephemerals(prefix)
    if shell.as_json:
        shell.emit({"path": prefix, "ephemerals": paths})
    else:
        shell.out(java_list(paths))


@command("getAllChildrenNumber", "path", arguments=1, reads=True)
def get_all_children_number(shell: Surroundings, a: Arguments) -> None:
    """How many nodes there are below one."""
    path = check_path(a.words[0])
    count = shell.client.descendants_count(path)
    if shell.as_json:
        shell.emit({"path": path, "count": count})
    else:
        shell.out(str(count))


@command("whoami", "", reads=True)
def whoami(shell: Surroundings, a: Arguments) -> None:
    """What this session is authenticated as."""
    identities = shell.client.who_am_i()
    if shell.as_json:
        shell.emit({"identities": [{"scheme": s, "user": u} for s, u in identities]})
        return
    shell.out("Auth scheme: User")
    for scheme, user in identities:
        shell.out(f"{scheme}: {user}")


@command("config", "[-c] [-w] [-s]", "cws", reads=True)
def config(shell: Surroundings, a: Arguments) -> None:
    """The ensemble's configuration; -c as a connect string."""
    data, found = shell.client.get(CONFIG_NODE, a.has("w"))
    text = "null" if data is None else data.decode("utf-8", "replace")
    if shell.as_json:
        shell.emit({"config": text, "stat": stat_object(found)})
        return
    shell.out(client_config(text) if a.has("c") else text)
    if a.has("s"):
        shell.out("\n".join(stat_lines(found)))


def client_config(text: str) -> str:
    """The version of a configuration and its servers' client addresses: "version host:port,..."."""
    version, addresses = "", []
    for line in text.splitlines():
        key, _, value = line.partition("=")
        if key.strip() == "version":
            version = value.strip()
        elif key.strip().startswith("server.") and ";" in value:
            address = value.split(";")[1].strip()
            host = value.partition(":")[0].strip()
            addresses.append(address if ":" in address else f"{host}:{address}")
    return f"{version} {','.join(addresses)}"


@command("version", "", reads=True)
def version(shell: Surroundings, a: Arguments) -> None:
    """The version of this shell."""
    from zkd.server.environment import full_version

    if shell.as_json:
        shell.emit({"version": full_version()})
    else:
        shell.out(f"ZooKeeper CLI version: {full_version()}")


@command("sync", "path", arguments=1)
def sync(shell: Surroundings, a: Arguments) -> None:
    """Wait until this server has all that the leader had committed."""
    shell.client.sync(check_path(a.words[0]))
    shell.out("Sync is OK")


# -- changing ------------------------------------------------------------------------------------


@command("create", "[-s] [-e] [-c] [-t ttl] path [data] [acl]", "sec", "t", arguments=1)
def create(shell: Surroundings, a: Arguments) -> None:
    """A new node: -s sequential, -e ephemeral, -c container, -t with a time to live in ms."""
    mode = _create_mode(a)
    ttl_ms = a.number("t", 0, "-t argument must be a long value")
    if a.has("t") and not 0 < ttl_ms <= TTL_MAX_MS:
        raise ShellError(f"ttl must be positive and cannot be larger than: {TTL_MAX_MS}")
    path = a.words[0]
    check_path(path + "0" if a.has("s") else path)
    data = a.words[1].encode() if len(a.words) > 1 else None
    acl = _acl(shell, a.words[2]) if len(a.words) > 2 else OPEN_ACL
    try:
        shell.err(f"Created {shell.client.create(path, data, acl, mode, ttl_ms)}")
    except ZkError as error:
        if error.code == -120:
            shell.err("Unable to create ephemeral node on a local session")
        elif error.code == -114:
            shell.err(code_message(error))
        raise


def _create_mode(a: Arguments) -> int:
    """The CreateMode that the options ask for."""
    ephemeral, sequential, container, ttl = (a.has(option) for option in "esct")
    if container and (ephemeral or sequential):
        raise ShellError(
            "-c cannot be combined with -s or -e. Containers cannot be ephemeral or sequential."
        )
    if ttl and ephemeral:
        raise ShellError("TTLs cannot be used with Ephemeral znodes")
    if ttl and container:
        raise ShellError("TTLs cannot be used with Container znodes")
    if container:
        return rq.CONTAINER
    if ttl:
        return rq.SEQUENTIAL_TTL if sequential else rq.TTL
    return (rq.EPHEMERAL if ephemeral else 0) | (rq.SEQUENTIAL if sequential else 0)


def _acl(shell: Surroundings, text: str) -> list[Any]:
    acl, complaints = parse_acl(text)
    for complaint in complaints:
        shell.err(complaint)
    return acl


@command("set", "path data [-s] [-v version] [-b]", "sb", "v", arguments=2)
def set_data(shell: Surroundings, a: Arguments) -> None:
    """New data for a node; -b: it is given in base64."""
    data = a.words[1].encode()
    if a.has("b"):
        try:
            data = base64.b64decode(data, validate=True)
        except binascii.Error as error:
            raise ShellError(f"the data is not base64: {error}") from None
    stat = shell.client.set(check_path(a.words[0]), data, _version(a))
    if a.has("s"):
        shell.out("\n".join(stat_lines(stat)))


def _version(a: Arguments) -> int:
    return a.number("v", -1, "-v argument must be an int value")


@command("delete", "[-v version] path", "", "v", arguments=1)
def delete(shell: Surroundings, a: Arguments) -> None:
    """Delete a node without children."""
    if len(a.words) > 1:
        shell.err(
            "'delete path [version]' has been deprecated."
            " Please use 'delete [-v version] path' instead."
        )
        a.options.setdefault("v", a.words[1])
    shell.client.delete(check_path(a.words[0]), _version(a))


@command("deleteall", "path [-b batch size]", "", "b", arguments=1)
def delete_all(shell: Surroundings, a: Arguments) -> None:
    """Delete a node and all below it, so many in one transaction."""
    batch = a.number("b", DELETE_BATCH, "-b argument must be an int value")
    paths = list(walk(shell.client, check_path(a.words[0])))
    paths.reverse()
    if not shell.client.delete_many(paths, batch if batch > 0 else 1):
        raise ShellError("Failed to delete some node(s) in the subtree!")


@command("rmr", "path", "", "b", arguments=1)
def rmr(shell: Surroundings, a: Arguments) -> None:
    """zkCli's command before 3.5: deleteall."""
    shell.err("'rmr' has been deprecated. Please use 'deleteall' instead.")
    delete_all(shell, a)


@command("setAcl", "[-s] [-v version] [-R] path acl", "sR", "v", arguments=2)
def set_acl(shell: Surroundings, a: Arguments) -> None:
    """Who may do what with a node, or with -R with all below it too."""
    path, acl, expected = check_path(a.words[0]), _acl(shell, a.words[1]), _version(a)
    if not a.has("R"):
        stat = shell.client.set_acl(path, acl, expected)
        if a.has("s"):
            shell.out("\n".join(stat_lines(stat)))
        return
    failed = 0
    for node in walk(shell.client, path):
        try:
            shell.client.set_acl(node, acl, expected)
        except ZkError as error:
            failed += 1
            shell.out(code_message(error))
    if failed:
        raise ShellError(f"the ACL of {failed} node(s) was not changed")


@command("reconfig",
         "[-s] [-v version] [[-file path] | [-members serverID=host:port1:port2;port3[,...]*]] | "
         "[-add serverId=host:port1:port2;port3[,...]]* [-remove serverId[,...]*]",
         "s", ("v", "file", "members", "add", "remove"))  # fmt: skip
def reconfig(shell: Surroundings, a: Arguments) -> None:
    """Change the servers of the ensemble."""
    whole = a.has("file") or a.has("members")
    if not whole and not a.has("add") and not a.has("remove"):
        raise ShellError(COMMANDS["reconfig"].usage_line)
    if whole and (a.has("add") or a.has("remove")):
        raise ShellError(
            "Can't use -file or -members together with -add or -remove (mixing incremental"
            " and non-incremental modes is not allowed)"
        )
    if a.has("file") and a.has("members"):
        raise ShellError(
            "Can't use -file and -members together (conflicting non-incremental modes)"
        )
    try:
        expected = int(a.options.get("v", "-1"), 16)
    except ValueError:
        raise ShellError("-v must be followed by a long (configuration version)") from None
    members = _members(a.options["file"]) if a.has("file") else a.options.get("members")
    joining, leaving = a.options.get("add"), a.options.get("remove")
    lowered = [text.lower() if text else None for text in (joining, leaving, members)]
    data, stat = shell.client.reconfig(lowered[0], lowered[1], lowered[2], expected)
    shell.out(f"Committed new configuration:\n{(data or b'').decode('utf-8', 'replace')}")
    if a.has("s"):
        shell.out("\n".join(stat_lines(stat)))


def _members(file: str) -> str:
    """The membership in a dynamic configuration file, as reconfig sends it."""
    try:
        lines = Path(file).read_text().splitlines()
    except OSError as error:
        raise ShellError(f"Error processing {file}: {error.strerror}") from None
    wanted = [line.strip() for line in lines if line.strip() and line.strip()[0] not in "#!"]
    return ",".join(line for line in wanted if not line.startswith("version"))


@command("addauth", "scheme auth", arguments=1)
def addauth(shell: Surroundings, a: Arguments) -> None:
    """Authenticate this session, also after reconnecting."""
    shell.client.add_auth(a.words[0], a.words[1] if len(a.words) > 1 else "")


# -- watches -------------------------------------------------------------------------------------


@command("addWatch",
         f"[-m mode] path # optional mode is one of [{', '.join(WATCH_MODES)}] - "
         f"default is {WATCH_MODES[1]}", "", "m", arguments=1)  # fmt: skip
def add_watch(shell: Surroundings, a: Arguments) -> None:
    """Watch a node, or it and all below it, until the watch is removed."""
    mode = a.options.get("m", WATCH_MODES[1]).upper()
    if mode not in WATCH_MODES or len(a.words) != 1:
        raise ShellError(COMMANDS["addWatch"].usage_line)
    shell.client.add_watch(check_path(a.words[0]), mode == WATCH_MODES[1])


@command("removewatches", "path [-c|-d|-a] [-l]", "cdpral", arguments=1)
def remove_watches(shell: Surroundings, a: Arguments) -> None:
    """Remove this session's watches on a node; -l: forget them without a server too."""
    kind = next((number for flag, number in _REMOVABLE.items() if a.has(flag)), 3)
    shell.client.remove_watches(check_path(a.words[0]), kind, a.has("l"))
