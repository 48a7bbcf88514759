"""Raw stats: 68 bytes as the server keeps them, and what a client sees of them.

A raw stat differs from the client's in two fields: `cversion` counts creates only, and
`ephemeralOwner` holds the marks of containers and TTL nodes.
Source: `DataNode.copyStat` of Apache ZooKeeper.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from zkd.jute.codec import wrap_int
from zkd.tree.ephemeral import NORMAL, kind
from zkd.tree.settings import TreeSettings

STAT: Final = Struct(">qqqqiiiqiiq")
"""czxid mzxid ctime mtime version cversion aversion ephemeralOwner dataLength numChildren pzxid"""

STAT_BYTES: Final = 68
ZERO_STAT: Final = bytes(STAT_BYTES)

_OWNER: Final = Struct(">q")
_INT: Final = Struct(">i")


def owner(stat: bytes) -> int:
    """The raw ephemeralOwner."""
    value: int = _OWNER.unpack_from(stat, 44)[0]
    return value


def num_children(stat: bytes) -> int:
    """The number of children."""
    value: int = _INT.unpack_from(stat, 56)[0]
    return value


def data_length(stat: bytes) -> int:
    """The length of the data, 0 for none."""
    value: int = _INT.unpack_from(stat, 52)[0]
    return value


def client_stat(stat: bytes, settings: TreeSettings) -> bytes:
    """The `Stat` that a client gets for the raw `stat`."""
    if stat[36:40] == b"\0\0\0\0" and stat[44:52] == b"\0" * 8 and stat[56:60] == b"\0\0\0\0":
        return stat
    creates = _INT.unpack_from(stat, 36)[0]
    children = _INT.unpack_from(stat, 56)[0]
    shown = stat[44:52]
    if kind(_OWNER.unpack(shown)[0], settings) != NORMAL:
        shown = b"\0" * 8
    cversion = _INT.pack(wrap_int(2 * creates - children))
    return stat[:36] + cversion + stat[40:44] + shown + stat[52:]
