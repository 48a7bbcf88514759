"""The ip scheme: an ACL entry means the clients whose address lies in a range.

Ids are `address` or `address/bits`, IPv4 or IPv6. The two never match each other: an IPv4 client
on a dual-stack socket is what the server says it is, no mapped form is unfolded here. A connection
has its identity from the start. `auth:` does not stand for it: an address does not identify a
creator. (`org.apache.zookeeper.server.auth.IPAuthenticationProvider`)

Numbers are read as Java's Integer.parseInt reads them (`+1` and leading zeros are accepted), so
that an ACL which is valid on one server of a mixed ensemble is valid on all.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from zkd.plugins.api import AuthProvider, Config, Identity, Origin, hookimpl

_DECIMAL: Final = re.compile(r"[+-]?[0-9]{1,10}")
_HEX: Final = re.compile(r"[+-]?[0-9a-fA-F]+")

V4_BYTES: Final = 4
V6_BYTES: Final = 16
V6_SEGMENTS: Final = 8


def parse_address(text: str) -> bytes | None:
    """4 or 16 bytes, None for what is no address. No zone, no dotted quad within IPv6."""
    if ":" in text:
        return _parse_v6(text)
    if "." in text:
        return _parse_v4(text)
    return None


def _parse_v4(text: str) -> bytes | None:
    parts = text.split(".")
    if len(parts) != V4_BYTES:
        return None
    numbers = [int(part) if _DECIMAL.fullmatch(part) else -1 for part in parts]
    if not all(0 <= number <= 255 for number in numbers):
        return None
    return bytes(numbers)


def _parse_v6(text: str) -> bytes | None:
    halves = text.split("::")
    if len(halves) > 2:
        return None
    head = halves[0].split(":") if halves[0] or len(halves) == 1 else []
    tail = halves[1].split(":") if len(halves) == 2 and halves[1] else []
    if len(halves) == 1 and len(head) != V6_SEGMENTS:
        return None
    if len(halves) == 2 and len(head) + len(tail) >= V6_SEGMENTS:
        return None
    groups = [*head, *["0"] * (V6_SEGMENTS - len(head) - len(tail)), *tail]
    address = bytearray()
    for group in groups:
        if not group or len(group) > 4 or not _HEX.fullmatch(group):
            return None
        address += (int(group, 16) & 0xFFFF).to_bytes(2, "big")
    return bytes(address)


@lru_cache(maxsize=4096)
def parse_range(acl_id: str) -> tuple[bytes, int] | None:
    """`address[/bits]` -> (address, bits); None if it is not valid."""
    text, slash, bits_text = acl_id.partition("/")
    address = parse_address(text)
    if address is None:
        return None
    bits = len(address) * 8
    if slash:
        if not _DECIMAL.fullmatch(bits_text) or not 0 <= int(bits_text) <= bits:
            return None
        bits = int(bits_text)
    return address, bits


@lru_cache(maxsize=4096)
def _remote(address: str) -> bytes | None:
    return parse_address(address)


class IpProvider(AuthProvider):
    scheme = "ip"
    is_authenticated = False

    def authenticate(self, data: bytes, origin: Origin) -> Sequence[Identity]:
        return self.on_connect(origin)

    def on_connect(self, origin: Origin) -> Sequence[Identity]:
        return ((self.scheme, origin.address),)

    def is_valid(self, acl_id: str) -> bool:
        return parse_range(acl_id) is not None

    def matches(self, identity_id: str, acl_id: str) -> bool:
        wanted = parse_range(acl_id)
        address = _remote(identity_id)
        if wanted is None or address is None or len(address) != len(wanted[0]):
            return False
        shift = len(address) * 8 - wanted[1]
        return int.from_bytes(address, "big") >> shift == int.from_bytes(wanted[0], "big") >> shift


@hookimpl
def zkd_auth_providers(config: Config) -> list[AuthProvider]:
    return [IpProvider()]
