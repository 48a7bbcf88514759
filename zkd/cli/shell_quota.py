"""The shell's commands about quotas: setquota, listquota, delquota.

A quota is two nodes below /zookeeper/quota/<path>: zookeeper_limits holds the limits, and the
server keeps zookeeper_stats up to date. Their text is `StatsTrack` of Apache ZooKeeper:
"count=10,bytes=-1", with hard limits after an extra "=" that old readers stop at. -1: no limit.
A path may not have a quota above or below another one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from zkd.cli.shell_commands import COMMANDS, Surroundings, command
from zkd.cli.shell_text import OPEN_ACL, Arguments, ShellError, check_path
from zkd.cli.zkclient import NO_NODE, Client, ZkError, walk

ROOT = "/zookeeper/quota"
LIMITS = "zookeeper_limits"
STATS = "zookeeper_stats"
NODE_EXISTS = -110

COUNT, BYTES, COUNT_HARD, BYTES_HARD = "count", "bytes", "countHardLimit", "byteHardLimit"
_OF_OPTION = {"n": COUNT, "b": BYTES, "N": COUNT_HARD, "B": BYTES_HARD}


def parse_track(text: str) -> dict[str, int]:
    """The values of a quota node's text; raises ValueError for text of another kind."""
    values = {}
    for pair in re.split("[,;]+", text):
        if pair:
            key, _, value = pair.partition("=")
            value = value.partition("=")[0]  # old readers stop at the second "="
            values[key] = int(value) if value else -1
    return values


def format_track(values: Mapping[str, int]) -> str:
    """Count and bytes first, always; then the others in alphabetical order."""
    text = f"{COUNT}={values.get(COUNT, -1)},{BYTES}={values.get(BYTES, -1)}"
    others = sorted(values.keys() - {COUNT, BYTES})
    if others:
        text += "=" + "".join(f";{key}={values[key]}" for key in others)
    return text


def _below(path: str) -> str:
    return ROOT if path == "/" else ROOT + path


def _track(client: Client, path: str) -> dict[str, int]:
    data, _ = client.get(path)
    try:
        return parse_track((data or b"").decode())
    except ValueError:
        raise ShellError(f"the data of {path} is not a quota: {data!r}") from None


@command("listquota", "path", arguments=1, reads=True)
def list_quota(shell: Surroundings, a: Arguments) -> None:
    """The limits of a path and what it uses of them."""
    path = check_path(a.words[0])
    shell.err(f"absolute path is {_below(path)}/{LIMITS}")
    try:
        limits = _track(shell.client, f"{_below(path)}/{LIMITS}")
        stats = _track(shell.client, f"{_below(path)}/{STATS}")
    except ZkError as error:
        if error.code != NO_NODE:
            raise
        raise ShellError(f"quota for {path} does not exist.") from None
    if shell.as_json:
        shell.emit({"path": path, "limits": limits, "usage": stats})
    else:
        shell.out(f"Output quota for {path} {format_track(limits)}")
        shell.out(f"Output stat for {path} {format_track(stats)}")


@command("setquota", "-n|-b|-N|-B val path", "", "nbNB", arguments=1)
def set_quota(shell: Surroundings, a: Arguments) -> None:
    """Limit the nodes or bytes below a path: -n, -b soft (a warning), -N, -B hard (refused)."""
    path = check_path(a.words[0])
    if path.startswith(ROOT):
        raise ShellError(f"cannot set a quota under the path: {ROOT}")
    wanted = _wanted(a)
    client = shell.client
    if client.exists(path) is None:
        raise ShellError(f"{path} does not exist.")
    _refuse_nested(client, path)
    limits_path, stats_path = f"{_below(path)}/{LIMITS}", f"{_below(path)}/{STATS}"
    if client.exists(limits_path) is None:
        _make_parents(client, path)
        limits = dict.fromkeys((COUNT, BYTES, COUNT_HARD, BYTES_HARD), -1) | wanted
        client.create(limits_path, format_track(limits).encode(), OPEN_ACL, 0)
        client.create(stats_path, format_track({COUNT: 0, BYTES: 0}).encode(), OPEN_ACL, 0)
        _warn(shell, limits, _track(client, stats_path))
    else:
        limits = _track(client, limits_path) | wanted
        _warn(shell, limits, _track(client, stats_path))
        client.set(limits_path, format_track(limits).encode())


def _wanted(a: Arguments) -> dict[str, int]:
    """The limit that is asked for; exactly one option is allowed, as in zkCli."""
    if len(a.options) != 1:
        raise ShellError(COMMANDS["setquota"].usage_line)
    option, text = next(iter(a.options.items()))
    try:
        value = int(text)
    except ValueError:
        raise ShellError("NumberFormatException happens when parsing the option value") from None
    if option in "nN" and value <= 0:
        raise ShellError("the num quota must be greater than zero")
    if option in "bB" and value < 0:
        raise ShellError("the bytes quota must be greater than or equal to zero")
    return {_OF_OPTION[option]: value}


def _refuse_nested(client: Client, path: str) -> None:
    own = f"{_below(path)}/{LIMITS}"
    try:
        below = [node for node in walk(client, _below(path)) if node.endswith("/" + LIMITS)]
    except ZkError as error:
        if error.code != NO_NODE:
            raise
        below = []
    for node in below:
        if node != own:
            other = node[len(ROOT) : -len(LIMITS) - 1]
            raise ShellError(f"{path} has a child {other} which has a quota")
    names = path.split("/")[1:]
    for depth in range(len(names)):
        parent = "/" + "/".join(names[:depth])
        if parent != path and client.exists(f"{_below(parent)}/{LIMITS}") is not None:
            raise ShellError(f"{path} has a parent {parent} which has a quota")


def _make_parents(client: Client, path: str) -> None:
    node = ROOT
    for name in path.split("/")[1:] if path != "/" else []:
        node += "/" + name
        try:
            client.create(node, None, OPEN_ACL, 0)
        except ZkError as error:
            if error.code != NODE_EXISTS:
                raise


def _warn(shell: Surroundings, limits: Mapping[str, int], stats: Mapping[str, int]) -> None:
    for what, soft, hard in ((COUNT, COUNT, COUNT_HARD), (BYTES, BYTES, BYTES_HARD)):
        used = stats.get(what, -1)
        if any(-1 < limits.get(limit, -1) < used for limit in (soft, hard)):
            shell.out(
                f"[Warning]: the {what} quota you create is less than the existing {what}:{used}"
            )


@command("delquota", "[-n|-b|-N|-B] path", "nbNB", arguments=1)
def del_quota(shell: Surroundings, a: Arguments) -> None:
    """Take one limit away, or all."""
    path = check_path(a.words[0])
    if len(a.options) > 1:
        raise ShellError(COMMANDS["delquota"].usage_line)
    client = shell.client
    limits_path = f"{_below(path)}/{LIMITS}"
    if client.exists(limits_path) is None:
        raise ShellError(f"Quota does not exist for {path}")
    if a.options:
        limits = _track(client, limits_path) | {_OF_OPTION[next(iter(a.options))]: -1}
        client.set(limits_path, format_track(limits).encode())
        return
    for name in (LIMITS, STATS):
        client.delete(f"{_below(path)}/{name}")
    _trim(client, path)


def _trim(client: Client, path: str) -> None:
    """Delete what was made for the path, up to the first node that others need."""
    node = _below(path)
    while node != ROOT and not client.children(node)[0]:
        client.delete(node)
        node = node.rpartition("/")[0]
