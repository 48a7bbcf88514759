"""Which containers and TTL nodes are due for deletion, and how fast they go.

A container without children is due once it has had some; one that never had any after
`max_never_used_interval_ms` (0: never, as in 3.9). A TTL node without children is due when its data
has not changed for longer than its life. The deletion is an ordinary deleteContainer request of
session 0, which checks again that there are no children. Times come from the caller: `now_ms` from
a clock that never goes back, `wall_ms` from the one that stamps mtime.
Source: `ContainerManager.java` of Apache ZooKeeper; spec client-protocol section 8.1.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from struct import Struct
from typing import Final

from zkd.jute.codec import string
from zkd.tree.ephemeral import CONTAINER, TTL, kind, ttl_ms
from zkd.tree.errors import ClientRefusal
from zkd.tree.settings import TreeSettings
from zkd.tree.stat import owner
from zkd.tree.state import TreeState

_fields = Struct(">24xq4xi").unpack_from  # mtime, cversion
_LOOKS_AT_ONCE: Final = 500


@dataclass(frozen=True, slots=True)
class ContainerSettings:
    """Apache ZooKeeper's properties `znode.container.*`, with the defaults of 3.9."""

    check_interval_ms: int = 60_000
    max_per_minute: int = 10_000
    max_never_used_interval_ms: int = 0


def is_candidate(
    stat: bytes, wall_ms: int, containers: ContainerSettings, settings: TreeSettings
) -> bool:
    """Is the node with this raw stat due for deletion?"""
    if stat[56:60] != b"\0\0\0\0":
        return False
    raw = owner(stat)
    what = kind(raw, settings)
    mtime, cversion = _fields(stat)
    if what == CONTAINER:
        never_used_ms = containers.max_never_used_interval_ms
        return bool(cversion > 0 or (never_used_ms and wall_ms - mtime > never_used_ms))
    return what == TTL and ttl_ms(raw) != 0 and wall_ms - mtime > ttl_ms(raw)


class ContainerManager:
    """Looks at all containers and TTL nodes at intervals, and hands out those that are due.

    At most `max_per_minute` a minute, evenly; a new round begins when the one before is through.
    A long list is looked at in slices.
    """

    def __init__(self, containers: ContainerSettings, settings: TreeSettings, now_ms: int) -> None:
        self.containers = containers
        self.settings = settings
        self._pause_ms = 60_000 / max(1, containers.max_per_minute)
        self._next_check_ms = now_ms + containers.check_interval_ms
        self._next_ms: float = now_ms
        self._waiting: deque[str] = deque()

    def due(self, tree: TreeState, now_ms: int, wall_ms: int) -> list[str]:
        """Paths to delete now. To be called often: a call does little."""
        if now_ms >= self._next_check_ms and not self._waiting:
            self._next_check_ms = now_ms + self.containers.check_interval_ms
            self._waiting.extend(path for path, _ in tree.specials())
            self._next_ms = max(self._next_ms, now_ms)
        found: list[str] = []
        looks = _LOOKS_AT_ONCE
        while self._waiting and looks and self._next_ms <= now_ms:
            looks -= 1
            path = self._waiting.popleft()
            try:
                node = tree.get(path)
            except ClientRefusal:  # its row on disk is damaged, which the base has told
                continue
            if node is not None and is_candidate(
                node.stat, wall_ms, self.containers, self.settings
            ):
                found.append(path)
                self._next_ms += self._pause_ms
        return found

    @staticmethod
    def request(path: str) -> bytes:
        """The body of the deleteContainer request."""
        return string(path)
