"""Quotas: limits and usage of subtrees.

The limits of subtree P are the data of `/zookeeper/quota` + P + `/zookeeper_limits`, its usage that
of `zookeeper_stats` beside it. Creating the first registers P, deleting it ends that. The usage is
kept by every server for itself, outside transactions.
Source: `Quotas.java`, `StatsTrack.java`, `DataTree.java`, `ZooKeeperServer.checkQuota` of Apache
ZooKeeper; spec txn-and-storage-formats section 11. Text that Apache ZooKeeper cannot parse (it
would stop) counts as empty here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from zkd.tree.paths import QUOTA

LIMITS_NODE: Final = "zookeeper_limits"
STATS_NODE: Final = "zookeeper_stats"

_PREFIX: Final = QUOTA + "/"
_PAIRS: Final = re.compile("[,;]+").split
_NUMBER: Final = re.compile(r"[+-]?[0-9]{1,19}").fullmatch


def limits_path(prefix: str) -> str:
    """The limits node of a subtree."""
    return f"{QUOTA}{prefix}/{LIMITS_NODE}"


def stats_path(prefix: str) -> str:
    """The usage node of a subtree; "" is the whole tree."""
    return f"{QUOTA}{prefix}/{STATS_NODE}"


def subtree_of(parent: str) -> str | None:
    """The subtree whose limits and usage are children of `parent`; None if it is no quota node.

    "" for `/zookeeper/quota` itself: the whole tree.
    """
    if parent == QUOTA:
        return ""
    return parent[len(QUOTA) :] if parent.startswith(_PREFIX) else None


def parse(data: bytes | None) -> dict[str, int]:
    """Keys and values of a limits or stats text; an empty value is -1."""
    if not data:
        return {}
    values: dict[str, int] = {}
    for pair in _PAIRS(data.decode("utf-8", "replace")):
        parts = pair.split("=")
        if len(parts) < 2 or (parts[1] and not _NUMBER(parts[1])):
            return {}
        values[parts[0]] = int(parts[1] or "-1")
    return values


def render(values: dict[str, int]) -> bytes:
    """The text; a lone `=` hides all but count and bytes from old parsers."""
    text = f"count={values.get('count', -1)},bytes={values.get('bytes', -1)}"
    others = sorted(values.keys() - {"count", "bytes"})
    if others:
        text += "=" + "".join(f";{key}={values[key]}" for key in others)
    return text.encode()


def added(values: dict[str, int], count: int, size: int) -> dict[str, int]:
    """The usage after `count` more nodes and `size` more bytes."""
    return {
        **values,
        "count": values.get("count", -1) + count,
        "bytes": values.get("bytes", -1) + size,
    }


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one subtree; -1 is none."""

    count: int = -1
    count_hard: int = -1
    size: int = -1
    size_hard: int = -1

    @classmethod
    def parse(cls, data: bytes | None) -> Limits:
        """From the data of a limits node."""
        values = parse(data)
        return cls(
            values.get("count", -1),
            values.get("countHardLimit", -1),
            values.get("bytes", -1),
            values.get("byteHardLimit", -1),
        )

    def exceeded(self, usage: dict[str, int], count: int, size: int) -> str | None:
        """Which limit `count` more nodes and `size` more bytes break: "hard", "soft" or None.

        A hard limit hides the soft one. The count is looked at first; a soft limit of it does not
        keep a hard one of the bytes from being found.
        """
        soft = False
        for diff, limit, hard, used in (
            (count, self.count, self.count_hard, usage.get("count", -1)),
            (size, self.size, self.size_hard, usage.get("bytes", -1)),
        ):
            if diff == 0 or (limit <= -1 and hard <= -1):
                continue
            if hard > -1 and used + diff > hard:
                return "hard"
            soft = soft or (hard <= -1 and used + diff > limit)
        return "soft" if soft else None
