"""How the shell reads and writes: command lines, options, ACLs, stats, dates, JSON, errors.

Pure. The forms are zkCli's (org.apache.zookeeper.cli, ZooKeeperMain, ZKUtil, StatPrinter), so that
scripts and people's habits carry over.
"""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kazoo.security import ACL, Id

from zkd.cli.zkclient import ZkError

_WORD = re.compile(r"""\s*([^"']\S*|"[^"]*"|'[^']*')\s*""")
_PERMISSIONS = {"c": 4, "d": 8, "r": 1, "w": 2, "a": 16}

_CODE_NAMES = {
    -1: "SystemError", -2: "RuntimeInconsistency", -3: "DataInconsistency",
    -4: "ConnectionLoss", -5: "MarshallingError", -6: "Unimplemented", -7: "OperationTimeout",
    -8: "BadArguments", -13: "NewConfigNoQuorum", -14: "ReconfigInProgress", -100: "APIError",
    -101: "NoNode", -102: "NoAuth", -103: "BadVersion", -108: "NoChildrenForEphemerals",
    -110: "NodeExists", -111: "Directory not empty", -112: "Session expired",
    -113: "Invalid callback", -114: "InvalidACL", -115: "AuthFailed", -118: "Session moved",
    -119: "Not a read-only call", -120: "Ephemeral node on local session",
    -121: "No such watcher", -123: "Reconfig is disabled",
    -124: "Session closed because client failed to authenticate", -125: "Quota has exceeded",
    -127: "Op throttled due to high load",
}  # fmt: skip
_PHRASES = {
    -101: "Node does not exist: {}",
    -108: "Ephemerals cannot have children: {}",
    -110: "Node already exists: {}",
    -111: "Node not empty: {}",
    -119: "Not a read-only call: {}",
    -114: "Acl is not valid : {}",
    -102: "Insufficient permission : {}",
    -8: "Arguments are not valid : {}",
    -103: "version No is not valid : {}",
    -14: "Another reconfiguration is in progress -- concurrent reconfigs not supported (yet)",
    -13: (
        "No quorum of new config is connected and up-to-date with the leader of last committed"
        " config - try invoking reconfiguration after new servers are connected and synced"
    ),
    -125: "Quota has exceeded : {}",
}


class ShellError(Exception):
    """A command that failed, with what to print and the exit status of a one-shot use."""

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.status = status


def explain(error: ZkError) -> str:
    """The server's refusal as zkCli words it."""
    path = "null" if error.path is None else error.path
    if error.code in _PHRASES:
        return _PHRASES[error.code].format(path)
    return code_message(error)


def code_message(error: ZkError) -> str:
    """As Apache's KeeperException says it."""
    name = _CODE_NAMES.get(error.code, f"Unknown error {error.code}")
    return f"KeeperErrorCode = {name}" + (f" for {error.path}" if error.path else "")


# -- command lines -------------------------------------------------------------------------------


def split(line: str) -> list[str]:
    """The words of a line; a word in single or double quotes keeps its blanks."""
    words = []
    for match in _WORD.finditer(line):
        word = match.group(1)
        if len(word) >= 2 and word[0] in "'\"" and word[-1] == word[0]:
            word = word[1:-1]
        words.append(word)
    return words


class Arguments:
    """The arguments of one command: its options, wherever they stood, and the others in order."""

    def __init__(self, words: Iterable[str], options: Mapping[str, bool]) -> None:
        """`options`: name without dash -> whether it takes a value. Raises ShellError."""
        self.options: dict[str, str] = {}
        self.words: list[str] = []
        rest = list(words)
        while rest:
            word = rest.pop(0)
            if word == "--":
                self.words += rest
                break
            if word.startswith("-") and len(word) > 1 and not _is_number(word):
                self._option(word[1:], rest, options)
            else:
                self.words.append(word)

    def _option(self, name: str, rest: list[str], options: Mapping[str, bool]) -> None:
        name, equals, value = name.partition("=")
        if name in options and (options[name] or not equals):
            if not options[name]:
                self.options[name] = ""
            elif equals:
                self.options[name] = value
            elif rest:
                self.options[name] = rest.pop(0)
            else:
                raise ShellError(f"Missing argument for option: {name}")
        elif name and not equals and all(options.get(c) is False for c in name):
            self.options.update(dict.fromkeys(name, ""))  # -sw is -s -w
        elif options.get(name[:1]):
            self.options[name[0]] = name[1:] + equals + value  # -v3 is -v 3
        else:
            raise ShellError(f"Unrecognized option: -{name}")

    def has(self, option: str) -> bool:
        return option in self.options

    def number(self, option: str, otherwise: int, complaint: str) -> int:
        """An option's value as an int, `otherwise` if it was not given."""
        if option not in self.options:
            return otherwise
        try:
            return int(self.options[option])
        except ValueError:
            raise ShellError(complaint) from None


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


# -- paths ---------------------------------------------------------------------------------------


def check_path(path: str) -> str:
    """The path, if ZooKeeper allows it; raises ShellError with PathUtils.validatePath's words."""
    if not path:
        raise ShellError("Path length must be > 0")
    if path[0] != "/":
        raise ShellError("Path must start with / character")
    if path == "/":
        return path
    if path[-1] == "/":
        raise ShellError("Path must not end with / character")
    reason = _fault(path)
    if reason:
        raise ShellError(f'Invalid path string "{path}" caused by {reason}')
    return path


def _fault(path: str) -> str:
    at = 1
    for name in path[1:].split("/"):
        if not name:
            return f"empty node name specified @{at}"
        if name in (".", ".."):
            return f"relative paths not allowed @{at + len(name) - 1}"
        for i, char in enumerate(name):
            if char == "\0":
                return f"null character not allowed @{at + i}"
            if _is_refused(ord(char)):
                return f"invalid character @{at + i}"
        at += len(name) + 1
    return ""


def _is_refused(code: int) -> bool:
    return (
        code <= 0x1F
        or 0x7F <= code <= 0x9F
        or 0xD800 <= code <= 0xF8FF
        or code >= 0xFFF0
    )  # fmt: skip


# -- ACLs ----------------------------------------------------------------------------------------

OPEN_ACL = [ACL(31, Id("world", "anyone"))]


def parse_acl(text: str) -> tuple[list[Any], list[str]]:
    """scheme:id:perms, comma separated; and what could not be read, which is left out."""
    acl, complaints = [], []
    for entry in text.split(","):
        scheme, colon, rest = entry.partition(":")
        ident, last_colon, letters = rest.rpartition(":")
        if not colon or not last_colon:
            complaints.append(f"{entry} does not have the form scheme:id:perm")
            continue
        perms = 0
        for letter in letters:
            if letter in _PERMISSIONS:
                perms |= _PERMISSIONS[letter]
            else:
                complaints.append(f"Unknown perm type: {letter}")
        acl.append(ACL(perms, Id(scheme, ident)))
    return acl, complaints


def permissions(perms: int) -> str:
    """The letters of the permissions, in the order cdrwa."""
    return "".join(letter for letter, bit in _PERMISSIONS.items() if perms & bit)


# -- output --------------------------------------------------------------------------------------


def stat_lines(stat: Any) -> list[str]:
    """A stat as StatPrinter prints it."""
    return [
        f"cZxid = {hexadecimal(stat.czxid)}",
        f"ctime = {java_date(stat.ctime)}",
        f"mZxid = {hexadecimal(stat.mzxid)}",
        f"mtime = {java_date(stat.mtime)}",
        f"pZxid = {hexadecimal(stat.pzxid)}",
        f"cversion = {stat.cversion}",
        f"dataVersion = {stat.version}",
        f"aclVersion = {stat.aversion}",
        f"ephemeralOwner = {hexadecimal(stat.ephemeralOwner)}",
        f"dataLength = {stat.dataLength}",
        f"numChildren = {stat.numChildren}",
    ]


def hexadecimal(value: int) -> str:
    """As Java prints a long: unsigned."""
    return f"0x{value & 0xFFFF_FFFF_FFFF_FFFF:x}"


def java_date(unix_ms: int) -> str:
    """As java.util.Date prints itself, in the local time zone."""
    return time.strftime("%a %b %d %H:%M:%S %Z %Y", time.localtime(unix_ms / 1000))


def java_list(items: Sequence[str]) -> str:
    return f"[{', '.join(items)}]"


def hex_dump(data: bytes) -> str:
    """Offsets, bytes and characters, 16 bytes a row, in the frame that zkCli's -x draws."""
    if not data:
        return ""
    edge = "+" + "-" * 49 + "+"
    columns = "".join(f"  {i:x}" for i in range(16))
    rows = [f"         {edge}", f"         |{columns} |", f"+--------{edge}" + "-" * 16 + "+"]
    for offset in range(0, len(data), 16):
        row = data[offset : offset + 16]
        text = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in row)
        numbers = "".join(f" {byte:02x}" for byte in row)
        rows.append(f"|{offset:08x}|{numbers:<48} |{text:<16}|")
    rows.append(rows[2])
    return "\n".join(rows)


def stat_object(stat: Any) -> dict[str, int]:
    """A stat for JSON, with ZooKeeper's names; times in milliseconds since 1970."""
    return {str(name): int(value) for name, value in stat._asdict().items()}


def data_object(data: bytes | None) -> dict[str, str | None]:
    """Data for JSON: as text where it is UTF-8, else in base64 under another key."""
    if data is None:
        return {"data": None}
    try:
        return {"data": data.decode()}
    except UnicodeDecodeError:
        return {"data_base64": base64.b64encode(data).decode()}
