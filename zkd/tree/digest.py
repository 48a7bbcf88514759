"""Digests of nodes and of the tree.

A node's digest is CRC32 over path, data and nine fields of the raw stat; the tree's is the sum of
its nodes' modulo 2**64. Nodes below /zookeeper/ are left out; the root's path counts as empty.
Source: `DigestCalculator.java`, `AdHash.java`; spec txn-and-storage-formats section 2.
"""

from __future__ import annotations

import zlib
from struct import Struct
from typing import Final

from zkd.tree.paths import SYSTEM_PREFIX

DIGEST_VERSION: Final = 2
MASK: Final = 0xFFFFFFFFFFFFFFFF

crc32: Final = zlib.crc32
digest_order: Final = Struct(">16s8s36s").pack
"""A raw stat's bytes as the digest wants them, from (stat, stat[60:], stat[16:52]): czxid mzxid
pzxid ctime mtime version cversion aversion ephemeralOwner."""


def path_data_crc(path: str, data: bytes | None) -> int:
    """The part of a node's digest that its stat does not touch."""
    crc = 0 if path == "/" else crc32(path.encode())
    return crc32(data, crc) if data else crc


def stat_digest(stat: bytes, pcrc: int) -> int:
    """A node's digest from its raw stat and `path_data_crc`."""
    return crc32(digest_order(stat, stat[60:], stat[16:52]), pcrc)


def node_digest(path: str, data: bytes | None, stat: bytes) -> int:
    """What a node adds to the tree's digest: 0 below /zookeeper/."""
    if path.startswith(SYSTEM_PREFIX):
        return 0
    return stat_digest(stat, path_data_crc(path, data))
