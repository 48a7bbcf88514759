"""The meaning of a raw ephemeralOwner (a signed 64-bit number).

    0                      a persistent node
    0x8000000000000000     a container
    0xff 0000 + 40 bits    a TTL node, its life in ms; only with extended types enabled
    else                   the session that an ephemeral belongs to

With the emulation of 3.5.3 every other negative owner is a TTL node. An extended owner of an
unknown feature counts as a session, as it does with extended types disabled.
Source: `EphemeralType.java`, `EphemeralTypeEmulate353.java` of Apache ZooKeeper.
"""

from __future__ import annotations

from typing import Final

from zkd.tree.settings import TreeSettings

VOID: Final = 0
NORMAL: Final = 1
CONTAINER: Final = 2
TTL: Final = 3

CONTAINER_OWNER: Final = -0x8000000000000000
MAX_TTL_MS: Final = 0xFF_FFFF_FFFF
MAX_EXTENDED_SERVER_ID: Final = 0xFE

_TTL_BASE: Final = -0x0100000000000000  # 0xff00000000000000


def kind(owner: int, settings: TreeSettings) -> int:
    """VOID, NORMAL, CONTAINER or TTL."""
    if owner == 0:
        return VOID
    if owner == CONTAINER_OWNER:
        return CONTAINER
    if owner > 0 or not settings.extended_types_enabled:
        return NORMAL
    if settings.emulate_353 or _TTL_BASE <= owner <= _TTL_BASE + MAX_TTL_MS:
        return TTL
    return NORMAL


def ttl_owner(ttl_ms: int) -> int:
    """The owner of a TTL node; `ttl_ms` within 1..MAX_TTL_MS."""
    if not 0 < ttl_ms <= MAX_TTL_MS:
        raise ValueError(f"ttl must be within 1..{MAX_TTL_MS}, not {ttl_ms}")
    return _TTL_BASE | ttl_ms


def ttl_ms(owner: int) -> int:
    """The life of a TTL node in ms, from its owner."""
    return owner & MAX_TTL_MS
