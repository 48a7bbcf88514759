"""What the reference server holds, as far as a generator and the list of differences must know.

Fed with requests and the reference's replies. It is a sketch, not a server: it knows which nodes
exist, with which ACL and owner, and who each connection is.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.conformance import wire
from tests.conformance.meaning import CREATES, Entry, Meaning, meaning_of
from tests.conformance.normal import Reply, Value

Identity = tuple[bytes, bytes]
READ, WRITE, CREATE, DELETE, ADMIN = 1, 2, 4, 8, 16
SUPER = b"super:test"
_SPECIAL = (b"/", b"/zookeeper", b"/zookeeper/quota", b"/zookeeper/config")
_OPEN_ACL: tuple[Entry, ...] = ((31, b"world", b"anyone"),)


@dataclass(slots=True)
class Node:
    acl: tuple[Entry, ...]
    owner: int | None = None  # session number of an ephemeral
    children: set[bytes] = field(default_factory=set)
    version: int = 0
    read_by: list[tuple[Entry, ...]] = field(default_factory=list)  # ACLs it had in this step


@dataclass(slots=True)
class Peer:
    """One connection: its session's number and the identities that it has shown."""

    session: int
    identities: set[Identity]


def digest_id(credential: bytes) -> bytes:
    """`user:hash` of `user:password`."""
    user = credential.partition(b":")[0]
    return user + b":" + base64.b64encode(hashlib.sha1(credential).digest())


def _identities(meaning: Meaning) -> Iterator[Identity]:
    """What an auth packet that was accepted makes of the connection."""
    if meaning.scheme == b"digest":
        yield b"digest", digest_id(meaning.credential)
        if meaning.credential == SUPER:
            yield b"super", b""


def _permits(acl: Iterable[Entry], wanted: int, identities: set[Identity]) -> bool:
    if any(scheme == b"super" for scheme, _ in identities):
        return True
    for perms, scheme, name in acl:
        if perms & wanted and ((scheme, name) in identities or (scheme, name) == _ANYONE):
            return True
        if perms & wanted and scheme == b"ip" and _covers(name):
            return True
    return False


_ANYONE = (b"world", b"anyone")


def _covers(network: bytes) -> bool:
    """Whether an ip entry matches 127.0.0.1; only the forms that the generator uses."""
    address, _, bits = network.partition(b"/")
    parts = address.split(b".")
    if len(parts) != 4 or not all(part.isdigit() for part in parts):
        return False
    value = int.from_bytes(bytes(int(part) & 0xFF for part in parts), "big")
    shift = 32 - int(bits or 32)
    return value >> shift == 0x7F000001 >> shift


class Shadow:
    """The tree and the connections as the reference server told them."""

    def __init__(self) -> None:
        self.nodes = {path: Node(_OPEN_ACL) for path in _SPECIAL}
        self.nodes[b"/"].children = {b"/zookeeper"}
        self.nodes[b"/zookeeper"].children = {b"/zookeeper/quota", b"/zookeeper/config"}
        self.nodes[b"/zookeeper/config"].acl = ((1, b"world", b"anyone"),)
        self.peers: dict[int, Peer] = {}  # by slot
        self.gone: dict[bytes, list[tuple[Entry, ...]]] = {}  # deleted in this step, with ACLs

    def opened(self, slot: int, answer: Value) -> None:
        """Note the answer to a ConnectRequest; a session has one connection at most."""
        self.peers.pop(slot, None)
        session = answer[3] if answer[0] == "connected" else 0
        if isinstance(session, str) and session.startswith("session "):
            number = int(session.removeprefix("session "))
            for other in [s for s, peer in self.peers.items() if peer.session == number]:
                del self.peers[other]
            self.peers[slot] = Peer(number, {(b"ip", b"127.0.0.1")})

    def closed(self, slot: int) -> None:
        self.peers.pop(slot, None)

    def begin_step(self) -> None:
        """Forget which ACLs nodes had before: events come from this step's transactions."""
        self.gone.clear()
        for node in self.nodes.values():
            if node.read_by:
                node.read_by.clear()

    def answered(self, slot: int, request: bytes, reply: Value) -> None:
        """Take over what a request changed, judged by its reply."""
        meaning = meaning_of(request)
        if meaning is None or not isinstance(reply, Reply) or reply.err != 0:
            return
        peer = self.peers.get(slot)
        if meaning.op == wire.AUTH and peer is not None:
            peer.identities.update(_identities(meaning))
        elif meaning.op == wire.CLOSE_SESSION and peer is not None:
            self._end_session(peer.session)
        elif meaning.op == wire.MULTI:
            results = reply.body[1:-1] if reply.body[:1] == ("multi",) else ()
            if all(result[0] != "error" for result in results):
                for op, result in zip(meaning.ops, results, strict=False):
                    self._changed(peer, op, result[3])
        else:
            self._changed(peer, meaning, reply.body)

    def _changed(self, peer: Peer | None, meaning: Meaning, body: Sequence[Any]) -> None:
        acl = self._fixed_up(peer, meaning.acl or ())
        node = self.nodes.get(meaning.path)
        if meaning.op in CREATES and body and isinstance(body[0], bytes):
            owner = peer.session if meaning.flags in (1, 3) and peer else None
            self._created(body[0], Node(acl, owner))
        elif meaning.op == wire.DELETE:
            self._deleted(meaning.path)
        elif meaning.op == wire.SET_ACL and node is not None:
            node.read_by.append(node.acl)
            node.acl = acl
        elif meaning.op == wire.SET_DATA and node is not None:
            node.version += 1

    def _fixed_up(self, peer: Peer | None, acl: tuple[Entry, ...]) -> tuple[Entry, ...]:
        fixed: list[Entry] = []
        for perms, scheme, name in acl:
            if scheme == b"auth" and peer is not None:
                fixed += [(perms, s, n) for s, n in sorted(peer.identities) if s == b"digest"]
            else:
                fixed.append((perms, scheme, name))
        return tuple(fixed)

    def _created(self, path: bytes, node: Node) -> None:
        self.nodes[path] = node
        parent = self.nodes.get(parent_of(path))
        if parent is not None:
            parent.children.add(path)

    def _deleted(self, path: bytes) -> None:
        node = self.nodes.pop(path, None)
        if node is not None:
            self.gone.setdefault(path, []).extend([node.acl, *node.read_by])
        parent = self.nodes.get(parent_of(path))
        if parent is not None:
            parent.children.discard(path)

    def _end_session(self, session: int) -> None:
        for path in [p for p, node in self.nodes.items() if node.owner == session]:
            self._deleted(path)

    def acls_in_step(self, path: bytes) -> Iterator[tuple[Entry, ...]]:
        """Every ACL that the node of that path had in the present step. "" reads the root."""
        path = path or b"/"
        yield from self.gone.get(path, ())
        node = self.nodes.get(path)
        if node is not None:
            yield node.acl
            yield from node.read_by

    def may(self, slot: int, path: bytes, wanted: int = READ) -> bool:
        """Whether the connection has that permission on the node, under all ACLs of the step."""
        peer = self.peers.get(slot)
        identities = peer.identities if peer else set()
        return all(_permits(acl, wanted, identities) for acl in self.acls_in_step(path))

    def leaves(self) -> list[bytes]:
        return [p for p, node in self.nodes.items() if not node.children and p not in _SPECIAL]


def parent_of(path: bytes) -> bytes:
    return path.rpartition(b"/")[0] or b"/"
