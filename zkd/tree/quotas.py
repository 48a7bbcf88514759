"""The quotas in force: limits and usage of each registered subtree, kept in memory.

    limits[P]    while /zookeeper/quota/P/zookeeper_limits exists
    usage[P]     what zookeeper_stats of P says, once it was looked at; missing when it is missing

The deepest registered subtree that holds a path is charged for it, no other.
Source: `DataTree.updateQuotaStat`, `updateQuotaForPath`, `getMaxPrefixWithQuota` and
`ZooKeeperServer.checkQuota` of Apache ZooKeeper; spec txn-and-storage-formats section 11.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from zkd.tree import quota
from zkd.tree.effects import Effect
from zkd.tree.errors import ClientRefusal
from zkd.tree.stat import data_length

if TYPE_CHECKING:
    from zkd.tree.state import TreeState

_LIMITS: Final = "/" + quota.LIMITS_NODE
_STATS: Final = "/" + quota.STATS_NODE


class QuotaBook:
    """The quotas of one `TreeState`, which tells it of every change."""

    def __init__(self, state: TreeState) -> None:
        self._state = state
        self.limits: dict[str, quota.Limits] = {}
        self._usage: dict[str, dict[str, int]] = {}
        for path, data in state.base.quotas():
            prefix = quota.subtree_of(path[: -len(_LIMITS)])
            if prefix:
                self.limits[prefix] = quota.Limits.parse(data)

    def prefix_of(self, path: str) -> str | None:
        """The registered subtree that is charged for `path`."""
        limits = self.limits
        while limits and len(path) > 1:
            if path in limits:
                return path
            path = path[: path.rfind("/")]
        return None

    def check(self, path: str, count: int, size: int) -> tuple[str, str] | None:
        """The subtree and its limit ("hard", "soft") that so many more nodes and bytes break."""
        prefix = self.prefix_of(path)
        if prefix is None:
            return None
        usage = self.usage_of(prefix)
        if usage is None:
            return None
        verdict = self.limits[prefix].exceeded(usage, count, size)
        return None if verdict is None else (prefix, verdict)

    def created(self, path: str, data: bytes | None, zxid: int, effects: list[Effect]) -> None:
        """A node came; appends the QUOTA effects."""
        subtree, limits = self._role(path)
        if subtree is not None:
            if not limits:
                self._set_usage(subtree, self._count(subtree))
                self.publish(subtree, zxid, effects)
            elif subtree:
                self._set_limits(subtree, data)
        self._charge(path, 1, len(data or b""), zxid, effects)

    def changed(
        self, path: str, data: bytes | None, grown: int, zxid: int, effects: list[Effect]
    ) -> None:
        """A node's data was replaced; appends the QUOTA effects."""
        subtree, limits = self._role(path)
        if subtree is not None:
            if not limits:
                self._set_usage(subtree, quota.parse(data))
            elif subtree in self.limits:
                self._set_limits(subtree, data)
        self._charge(path, 0, grown, zxid, effects)

    def deleted(self, path: str, size: int) -> str | None:
        """A node went; the subtree to publish."""
        subtree, limits = self._role(path)
        if subtree is not None:
            mapping: dict[str, quota.Limits] | dict[str, dict[str, int]]
            mapping = self.limits if limits else self._usage
            if subtree in mapping:
                self._state.note(mapping, subtree)
                del mapping[subtree]
        prefix = self.prefix_of(path)
        return prefix if prefix is not None and self._add(prefix, -1, -size) else None

    def publish(self, prefix: str, zxid: int, effects: list[Effect]) -> None:
        """Bring the usage node of `prefix` up to date."""
        path = quota.stats_path(prefix)
        try:
            node = self._state.get(path)
        except ClientRefusal:
            return
        if node is not None:
            data = quota.render(self._usage[prefix])
            effects.append(self._state.set_length(path, node, data, zxid))

    def _role(self, path: str) -> tuple[str | None, bool]:
        """The subtree whose limits (True) or usage (False) node this path is."""
        if path.endswith(_LIMITS):
            return quota.subtree_of(path[: -len(_LIMITS)]), True
        if path.endswith(_STATS):
            return quota.subtree_of(path[: -len(_STATS)]), False
        return None, False

    def _set_limits(self, prefix: str, data: bytes | None) -> None:
        self._state.note(self.limits, prefix)
        self.limits[prefix] = quota.Limits.parse(data)

    def _set_usage(self, prefix: str, values: dict[str, int]) -> None:
        self._state.note(self._usage, prefix)
        self._usage[prefix] = values

    def _charge(self, path: str, count: int, size: int, zxid: int, effects: list[Effect]) -> None:
        prefix = self.prefix_of(path)
        if prefix is not None and self._add(prefix, count, size):
            self.publish(prefix, zxid, effects)

    def _add(self, prefix: str, count: int, size: int) -> bool:
        usage = self.usage_of(prefix)
        if usage is None:
            return False
        self._set_usage(prefix, quota.added(usage, count, size))
        return True

    def usage_of(self, prefix: str) -> dict[str, int] | None:
        """The usage of a registered subtree; None while its zookeeper_stats is missing (or what the
        base holds of it is damaged, which the base has told)."""
        usage = self._usage.get(prefix)
        if usage is None:
            path = quota.stats_path(prefix)
            try:
                if self._state.get(path) is None:
                    return None
                found = self._state.base.node(path)
            except ClientRefusal:
                return None
            usage = quota.parse(found[0] if found is not None else None)
            self._usage[prefix] = usage
        return usage

    def _count(self, subtree: str) -> dict[str, int]:
        """The usage of a subtree as it is now: base, corrected by the state's own changes."""
        base = self._state.base
        try:
            count, size = base.usage(subtree or "/")
        except ClientRefusal:
            count = size = 0
        below = subtree + "/"
        for path, node in self._state.own.items():
            if path == subtree or path.startswith(below):
                try:
                    before = base.node(path)
                except ClientRefusal:
                    before = None
                if before is not None:
                    count -= 1
                    size -= data_length(before[1])
                if node.stat:
                    count += 1
                    size += data_length(node.stat)
        return {"count": count, "bytes": size}
