"""Access control lists: encoding, evaluation, completion, redaction.

A list travels and is stored as its encoded jute `vector<ACL>`; the list [world:anyone, all] is
None everywhere but on the wire. `world`, `auth` and `super` are known here, all other schemes to
the registry.
Source: `ZooKeeperServer.checkACL`, `PrepRequestProcessor.fixupACL` and `FinalRequestProcessor`
(getACL) of Apache ZooKeeper; spec client-protocol section 11.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final, Protocol

from zkd.jute.codec import Reader, int_, string
from zkd.jute.protocol import Err, Perm
from zkd.tree.errors import ClientRefusal

Identity = tuple[str, str]
"""Scheme and id of who a connection is."""

AclEntry = tuple[int, str | None, str | None]
"""Permissions, scheme, id."""

SUPER: Final = "super"


class AclRegistry(Protocol):
    """What the authentication providers say about ids. Pure: no I/O, no clock."""

    def is_valid(self, scheme: str, id_: str) -> bool:
        """May this id stand in a list? False for a scheme without provider."""

    def matches(self, identities: tuple[Identity, ...], scheme: str, id_: str) -> bool:
        """Is one of the identities whom the entry means?"""

    def is_authenticated(self, scheme: str) -> bool:
        """Does `auth:` stand for identities of this scheme? False for one without provider."""


def encode(entries: Iterable[AclEntry]) -> bytes:
    """The list on the wire."""
    encoded = [int_(perms) + string(scheme) + string(id_) for perms, scheme, id_ in entries]
    return int_(len(encoded)) + b"".join(encoded)


WORLD_ALL: Final = encode([(Perm.ALL, "world", "anyone")])
"""What None stands for."""

READ_ONLY: Final = encode([(Perm.READ, "world", "anyone")])
"""The list of /zookeeper/config."""

_CACHED_BYTES: Final = 1024


def compact(acl: bytes) -> bytes | None:
    """The stored form of an encoded list."""
    return None if acl == WORLD_ALL else acl


def expand(acl: bytes | None) -> bytes:
    """The encoded list for a stored one."""
    return WORLD_ALL if acl is None else acl


def _entry(reader: Reader) -> AclEntry:
    return reader.int_(), reader.string(), reader.string()


def read(reader: Reader) -> list[AclEntry]:
    """Decode a list; null and negative lengths give an empty one. Raises Malformed."""
    return reader.vector(_entry) or []


@lru_cache(maxsize=1024)
def _parse_cached(acl: bytes) -> tuple[AclEntry, ...]:
    return tuple(read(Reader(acl)))


def parse(acl: bytes | None) -> tuple[AclEntry, ...]:
    """The entries of a stored list. Raises Malformed."""
    if acl is None:
        return ((Perm.ALL, "world", "anyone"),)
    if len(acl) <= _CACHED_BYTES:
        return _parse_cached(acl)
    return tuple(read(Reader(acl)))


def check(
    acl: bytes | None, perm: int, identities: tuple[Identity, ...], registry: AclRegistry
) -> bool:
    """True if the list grants one of the permissions in `perm` to one of the identities."""
    if acl is None:
        return True
    for scheme, _ in identities:
        if scheme == SUPER:
            return True
    entries = parse(acl)
    if not entries:
        return True
    for perms, entry_scheme, id_ in entries:
        if perms & perm and entry_scheme is not None and id_ is not None:
            if entry_scheme == "world" and id_ == "anyone":
                return True
            if registry.matches(identities, entry_scheme, id_):
                return True
    return False


def fix_up(acl: bytes, identities: tuple[Identity, ...], registry: AclRegistry) -> bytes | None:
    """The list as it is stored: without duplicates, `auth` replaced by the identities.

    Raises ClientRefusal(INVALID_ACL) for an empty list, an unknown scheme, an id that its scheme
    does not take, or `auth` without authentication; Malformed for bytes that are no list.
    """
    return fix_up_entries(read(Reader(acl, 0, len(acl))), identities, registry)


def fix_up_entries(
    entries: list[AclEntry], identities: tuple[Identity, ...], registry: AclRegistry
) -> bytes | None:
    """`fix_up` of a decoded list."""
    fixed: list[AclEntry] = []
    for perms, scheme, id_ in dict.fromkeys(entries):
        if scheme is None:
            raise ClientRefusal(Err.INVALID_ACL)
        if scheme == "auth":
            own = [one for one in identities if registry.is_authenticated(one[0])]
            if not own:
                raise ClientRefusal(Err.INVALID_ACL)
            fixed.extend((perms, *one) for one in own)
        elif id_ is None:
            raise ClientRefusal(Err.MARSHALLING_ERROR)
        elif (scheme == "world" and id_ == "anyone") or registry.is_valid(scheme, id_):
            fixed.append((perms, scheme, id_))
        else:
            raise ClientRefusal(Err.INVALID_ACL)
    if not fixed:
        raise ClientRefusal(Err.INVALID_ACL)
    return compact(encode(fixed))


_HASH: Final = re.compile(":[^\n\r\u0085\u2028\u2029]*").sub


def redact(acl: bytes | None) -> bytes:
    """The encoded list for a client without ADMIN: `x` in place of each digest's hash."""
    return encode(
        (perms, scheme, _HASH(":x", id_) if scheme == "digest" and id_ is not None else id_)
        for perms, scheme, id_ in parse(acl)
    )
