"""The members of an ensemble: `server.N`, `group.G` and `weight.N` lines.

Forms as in Apache ZooKeeper (quorum/QuorumPeer.java, class QuorumServer; util/ConfigUtils.java;
quorum/flexible/QuorumHierarchical.java):

    host:quorum:election[:role][|host:quorum:election[:role]...][;[host:]port][;[host:]tlsPort]

IPv6 addresses stand in brackets. Everything here is pure and raises ValueError with a sentence.
The text of a whole configuration, as servers send it to each other and as /zookeeper/config holds
it, is written by `Membership.text` and read by `parse_membership`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from string import hexdigits
from types import MappingProxyType

from zkd.config import properties

PARTICIPANT = "participant"
OBSERVER = "observer"
_FORM = "host:port:port[:role][|...][;[host:]clientPort][;[host:]secureClientPort]"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address of the client port; host `0.0.0.0` if the line names a port alone."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{_bracketed(self.host)}:{self.port}"


@dataclass(frozen=True, slots=True)
class PeerAddress:
    """One address of a server with its quorum and its election port."""

    host: str
    quorum_port: int
    election_port: int

    def __str__(self) -> str:
        return f"{_bracketed(self.host)}:{self.quorum_port}:{self.election_port}"


@dataclass(frozen=True, slots=True)
class ServerLine:
    """One `server.N` line. `str()` gives the value in Apache ZooKeeper's canonical form."""

    id: int
    addresses: tuple[PeerAddress, ...]
    role: str = PARTICIPANT
    client: Endpoint | None = None
    secure_client: Endpoint | None = None

    def __str__(self) -> str:
        hosts = sorted(self.addresses, key=lambda address: address.host)
        text = "|".join(map(str, hosts)) + ":" + self.role
        if self.client or self.secure_client:
            text += f";{self.client or ''}"
        if self.secure_client:
            text += f";{self.secure_client}"
        return text


@dataclass(frozen=True)
class Membership:
    """All lines of a configuration. `version` is 0 unless a dynamic file or line names it.

    `groups` maps a group to its servers' ids, `weights` a server's id to its weight; both are
    empty for a plain majority.
    """

    servers: Mapping[int, ServerLine] = field(default_factory=lambda: MappingProxyType({}))
    groups: Mapping[int, tuple[int, ...]] = field(default_factory=lambda: MappingProxyType({}))
    weights: Mapping[int, int] = field(default_factory=lambda: MappingProxyType({}))
    version: int = 0

    def voters(self) -> list[ServerLine]:
        return [line for line in self.servers.values() if line.role == PARTICIPANT]

    def observers(self) -> list[ServerLine]:
        return [line for line in self.servers.values() if line.role == OBSERVER]

    def text(self) -> str:
        """The text of /zookeeper/config: sorted lines as Apache ZooKeeper writes them."""
        lines = [f"server.{sid}={line}" for sid, line in sorted(self.servers.items())]
        lines += [f"group.{gid}={':'.join(map(str, ids))}" for gid, ids in self.groups.items()]
        lines += [f"weight.{sid}={weight}" for sid, weight in self.weights.items()]
        return "\n".join([*lines, f"version={self.version:x}"])


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def split_host(text: str) -> list[str]:
    """`a:1:2` -> [a, 1, 2]; `[::1]:1` -> [::1, 1]; a host without port -> [host]."""
    if not text.startswith("["):
        return text.split(":")
    end = text.find("]")
    if end < 0:
        raise ValueError(f"'{text}' starts with [ but has no ]")
    rest = text[end + 1 :]
    if rest and not rest.startswith(":"):
        raise ValueError(f"'{text}' goes on after ] without a colon")
    if rest == ":":
        raise ValueError(f"'{text}' has no port after the colon")
    return [text[1:end], *(rest[1:].split(":") if rest else [])]


def parse_server(sid: int, text: str, *, multi_address: bool = False) -> ServerLine:
    """Read the value of `server.<sid>`; several addresses only with `multi_address`."""
    parts = text.split(";")
    if len(parts) > 3 or not parts[0].strip():
        raise ValueError(f"'{text}' does not have the form {_FORM}")
    addresses: list[PeerAddress] = []
    roles: set[str] = set()
    for part in parts[0].split("|"):
        address, role = _peer_address(part.strip())
        addresses.append(address)
        if role:
            roles.add(role)
    if len(addresses) > 1 and not multi_address:
        raise ValueError("several addresses need multiAddress.enabled=true")
    if len(roles) > 1:
        raise ValueError("the addresses of one server have different roles")
    return ServerLine(
        sid,
        tuple(addresses),
        roles.pop() if roles else PARTICIPANT,
        _endpoint(parts[1]) if len(parts) > 1 else None,
        _endpoint(parts[2]) if len(parts) > 2 else None,
    )


def _peer_address(text: str) -> tuple[PeerAddress, str]:
    parts = split_host(text)
    if len(parts) not in (3, 4) or not parts[0]:
        raise ValueError(f"'{text}' does not have the form {_FORM}")
    quorum, election = _port(parts[1]), _port(parts[2])
    if quorum == election:
        raise ValueError(f"quorum and election port are both {quorum}")
    role = parts[3].strip().lower() if len(parts) == 4 else ""
    if role not in ("", PARTICIPANT, OBSERVER):
        raise ValueError(f"'{parts[3]}' is neither participant nor observer")
    return PeerAddress(parts[0], quorum, election), role


def _endpoint(text: str) -> Endpoint | None:
    if not text.strip():
        return None
    parts = split_host(text.strip())
    if len(parts) > 2:
        raise ValueError(f"'{text}' is neither port nor host:port")
    return Endpoint(parts[0] if len(parts) == 2 else "0.0.0.0", _port(parts[-1]))


def _port(text: str) -> int:
    if not text.isascii() or not text.strip().isdigit() or int(text) > 65535:
        raise ValueError(f"'{text}' is not a port")
    return int(text)


def parse_group(text: str) -> tuple[int, ...]:
    """`1:2:3` -> (1, 2, 3)."""
    try:
        return tuple(int(part) for part in text.split(":"))
    except ValueError:
        raise ValueError(f"'{text}' is not a list of server ids such as 1:2:3") from None


def parse_weight(text: str) -> int:
    """A whole number from 0."""
    if not text.isascii() or not text.isdigit():
        raise ValueError(f"'{text}' is not a weight: a whole number from 0 is")
    return int(text)


def parse_version(text: str) -> int:
    """A version: hexadecimal, without 0x."""
    if not text or any(digit not in hexdigits for digit in text):
        raise ValueError(f"'{text}' is not a hexadecimal version")
    return int(text, 16)


def parse_membership(text: str) -> Membership:
    """Read the text of a configuration: server, group, weight and version lines, nothing else.

    Several addresses of a server are taken whatever this server's own settings say: what the
    ensemble has agreed on counts. Of a key that comes twice the last one counts, as in Java.
    """
    servers: dict[int, ServerLine] = {}
    groups: dict[int, tuple[int, ...]] = {}
    weights: dict[int, int] = {}
    version = 0
    entries, bad = properties.parse(text)
    if bad:
        raise ValueError(f"line {bad[0].line}: {bad[0].what}")
    for entry in entries:
        head, _, number = entry.key.partition(".")
        value = entry.value.strip()
        if entry.key == "version":
            version = parse_version(value)
        elif head not in ("server", "group", "weight") or not _is_number(number):
            raise ValueError(f"'{entry.key}' is no line of a configuration")
        elif head == "server":
            servers[int(number)] = parse_server(int(number), value, multi_address=True)
        elif head == "group":
            groups[int(number)] = parse_group(value)
        else:
            weights[int(number)] = parse_weight(value)
    return Membership(
        dict(sorted(servers.items())),
        dict(sorted(groups.items())),
        dict(sorted(weights.items())),
        version,
    )


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def faults(membership: Membership, *, standalone_enabled: bool) -> Iterable[str]:
    """What makes a set of lines unusable, each as a sentence."""
    voters, observers = membership.voters(), membership.observers()
    if not voters and not standalone_enabled:
        yield "standaloneEnabled=false needs at least one server line of a participant"
    elif not voters and observers:
        yield "there are observers but no participants"
    elif len(voters) == 1 and standalone_enabled and observers:
        yield "there are observers but only one participant, which would run standalone"
    seen: dict[int, int] = {}
    for gid, ids in membership.groups.items():
        for sid in ids:
            if sid in seen:
                yield f"server {sid} is in group {seen[sid]} and in group {gid}"
            seen[sid] = gid
    if membership.groups or membership.weights:
        for line in voters:
            if line.id not in seen:
                yield f"server {line.id} is in no group, but there are group or weight lines"
