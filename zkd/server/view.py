"""A front-end's view of the tree: the tree on disk at T plus its own changes in (T, applied].

    reader.zxid (T) <= applied

What changed in (T, applied] is pinned: it is nowhere else. It stays until a reader at a higher T
holds it. Everything else is a cache, bounded by `cache_bytes`, in two generations: what was used
while the younger one filled survives, the rest goes with the older one. Absence is cached too.

A node may be known in part: a change of the stat alone of a node that was not cached leaves data
and ACL UNKNOWN; both are unchanged since T, so they are read from the tree when wanted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from struct import Struct
from typing import Any, Final, Protocol

from zkd.tree.effects import ACL, CHANGED, CREATED, QUOTA, SESSION, STAT

UNKNOWN: Final = b"not known"
NODE_COST: Final = 400
"""Estimated bytes of a cached node beside its path and data."""
PINNED_COST: Final = 600
"""The same of a pinned one with everything, for a rough sum."""
BUCKET_TXNS: Final = 512
BUCKET_PATHS: Final = 1024
"""A bucket with so many paths, because of multis, ends before it has BUCKET_TXNS."""
UNPIN_AT_ONCE: Final = 32
"""Paths let go in one turn of the loop; more if many wait."""
COUNT_AT_ONCE: Final = 10_000

_OWNER: Final = Struct(">q")
ZERO8: Final = bytes(8)


class Reader(Protocol):
    """What the view needs of zkd.storage.tree.TreeReader."""

    zxid: int
    generation: int

    def node(self, path: str) -> tuple[bytes | None, bytes, bytes | None] | None: ...
    def children(self, path: str, after: str = "", limit: int = 0) -> tuple[list[str], bool]: ...
    def ephemerals(self, owner: int) -> list[str]: ...
    def count_below(
        self, path: str, after: tuple[str, str] | None = None, limit: int = 0
    ) -> tuple[int, tuple[str, str] | None]: ...
    def close(self) -> None: ...


class Node:
    """One znode: raw stat, data and encoded ACL (None: open to all)."""

    __slots__ = ("acl", "data", "hot", "stat", "zxid")

    def __init__(self, stat: bytes, data: bytes | None, acl: bytes | None, zxid: int) -> None:
        self.stat = stat
        """Empty: there is no such node."""
        self.data = data
        self.acl = acl
        self.zxid = zxid
        """Of its last change if that is above T (then it is pinned), else not above T."""
        self.hot = False
        """Some key of the front-end's table of prepared replies leads here."""


class View:
    """See the module's text. Not safe for threads; one front-end owns it."""

    def __init__(
        self,
        reader: Reader,
        open_reader: Callable[[], Reader],
        cache_bytes: int,
        forget_hot: Callable[[str], None],
    ) -> None:
        """`forget_hot`: called with the path of a changed node that has prepared replies."""
        self._open_reader = open_reader
        self.reader = reader
        self.applied = self.reader.zxid
        self.holds = 0
        """How many slow readings (listings) need `reader` to stay where it is."""
        self._forget_hot = forget_hot
        self._budget = cache_bytes
        self._young: dict[str, Node] = {}
        """Also everything that is pinned."""
        self._old: dict[str, Node] = {}
        self._young_bytes = 0
        self._bucket: set[str] = set()
        self._bucket_end = 0
        self._bucket_bytes = 0
        self._buckets: deque[tuple[int, set[str], int]] = deque()
        """Paths changed above T, in order of time: (last zxid, paths, about so many bytes)."""
        self.pinned_bytes = 0
        self.hits = 0
        self.misses = 0
        self._names: dict[str, dict[str, int]] = {}
        """parent -> name -> zxid of its creation, or minus that of its deletion, above T."""
        self._name_pins: deque[tuple[int, str, str]] = deque()
        self._owned: dict[int, dict[str, int]] = {}
        self._owned_pins: deque[tuple[int, int, str]] = deque()
        self._lists: dict[str, bytes] = {}
        """parent -> encoded vector of its children's names, while nothing has changed there."""
        self._lists_bytes = 0

    @property
    def cache_bytes(self) -> int:
        """An estimate of what the caches hold."""
        return self._young_bytes + self._lists_bytes + len(self._old) * NODE_COST

    # -- reading -------------------------------------------------------------------------------

    def get(self, path: str) -> Node | None:
        """The node, its data and ACL known; None if there is none."""
        node = self._young.get(path)
        if node is None:
            node = self._old.get(path)
            if node is None:
                self.misses += 1
                row = self.reader.node(path) if path[:1] == "/" else None
                node = Node(b"", None, None, 0) if row is None else Node(row[1], row[0], row[2], 0)
            else:
                self.hits += 1
                if node.data is UNKNOWN or node.acl is UNKNOWN:
                    self._complete(path, node)
            self._remember(path, node)
        else:
            self.hits += 1
            if node.data is UNKNOWN or node.acl is UNKNOWN:
                self._complete(path, node)
        return node if node.stat else None

    def _complete(self, path: str, node: Node) -> None:
        """Read what a pinned node lacks; it has not changed since T."""
        row = self.reader.node(path)
        if row is None:
            raise AssertionError(f"{path} is in use at {self.applied:#x} but not in the tree")
        if node.data is UNKNOWN:
            node.data = row[0]
        if node.acl is UNKNOWN:
            node.acl = row[2]

    def _remember(self, path: str, node: Node) -> None:
        self._young[path] = node
        self._young_bytes += NODE_COST + len(path) + (len(node.data) if node.data else 0)
        if self._young_bytes > self._budget // 2:
            self._turn()

    def _turn(self) -> None:
        """The younger generation becomes the older one; pinned nodes stay in the younger."""
        young = self._young
        floor = self.reader.zxid
        self._old = young
        self._young = {path: node for path, node in young.items() if node.zxid > floor}
        self._young_bytes = 0
        self._lists.clear()
        self._lists_bytes = 0

    def children(self, path: str) -> bytes | None:
        """The encoded vector of names if it is prepared, else None (then: `listing`)."""
        return self._lists.get(path)

    def remember_children(self, path: str, body: bytes) -> None:
        """Keep a listing until a child comes or goes."""
        if len(body) < self._budget // 64:
            self._lists_bytes += len(body)
            if self._lists_bytes > self._budget // 8:
                self._lists.clear()
                self._lists_bytes = len(body)
            self._lists[path] = body

    def listing(self, path: str, slice_names: int) -> Iterator[list[str]]:
        """The names of the children now, in slices; between slices other things may happen.

        What happens meanwhile is not in the listing: it is one moment's, the moment of the first
        step. The caller holds (`holds`) the view until the end.
        """
        changed = dict(self._names.get(path, ()))
        reader = self.reader
        after = ""
        while True:
            names, more = reader.children(path, after, slice_names)
            after = names[-1] if more else ""
            if changed:
                names = [name for name in names if changed.get(name, 1) > 0]
                for name in names:
                    changed.pop(name, None)
            yield names
            if not more:
                break
        # What is left was created since T, except the deleted ones (which the tree has).
        yield [name for name, zxid in changed.items() if zxid > 0]

    def page(self, path: str, after: str, limit: int) -> tuple[list[str], bool]:
        """At most `limit` names of children above `after`, in the order of their UTF-8 bytes, and
        whether there are more."""
        changed = self._names.get(path, {})
        created = sorted(name for name, zxid in changed.items() if zxid > 0 and name > after)
        found: list[str] = []
        more = True
        last = after
        while more and len(found) <= limit:
            names, more = self.reader.children(path, last, limit + 1)
            last = names[-1] if names else last
            found += [name for name in names if name not in changed]
        if more:  # beyond what was read the order is not known yet
            created = [name for name in created if name <= last]
        merged = sorted(found + created)
        return merged[:limit], more or len(merged) > limit

    def descendants(self, path: str, slice_names: int) -> Iterator[int]:
        """Numbers, in slices, whose sum is that of all nodes below path, at the moment of the first
        step. The caller holds (`holds`) the view until the end."""
        reader = self.reader
        below = "/" if path == "/" else path + "/"
        changed = [
            ((parent if parent != "/" else "") + "/" + name, zxid > 0)
            for parent, names in self._names.items()
            if parent == path or parent.startswith(below)
            for name, zxid in names.items()
        ]
        place: tuple[str, str] | None = None
        while True:
            count, place = reader.count_below(path, place, COUNT_AT_ONCE)
            yield count
            if place is None:
                break
        for start in range(0, len(changed), slice_names):
            some = changed[start : start + slice_names]
            yield sum(there - (reader.node(child) is not None) for child, there in some)

    def ephemerals(self, owner: int) -> set[str]:
        """All paths of a session's ephemerals."""
        paths = set(self.reader.ephemerals(owner))
        for path, zxid in self._owned.get(owner, {}).items():
            if zxid > 0:
                paths.add(path)
            else:
                paths.discard(path)
        return paths

    # -- changing ------------------------------------------------------------------------------

    def install(self, zxid: int, effect: tuple[Any, ...]) -> None:
        """Take over one effect of transaction zxid."""
        kind = effect[0]
        if kind >= SESSION:
            return
        path = effect[1]
        young = self._young
        node = young.get(path)
        if node is None:
            node = young[path] = self._node_to_change(path, kind)
        elif node.hot:
            node.hot = False
            self._forget_hot(path)
        node.zxid = zxid
        if kind == CHANGED or kind == QUOTA:  # noqa: SIM109  faster
            node.stat = effect[2]
            node.data = effect[3]
        elif kind == STAT:
            node.stat = effect[2]
        elif kind == CREATED:
            _, _, node.stat, node.data, node.acl = effect
            self._child_changed(zxid, path, zxid)
            if effect[2][44:52] != ZERO8:
                self._owner_changed(zxid, _OWNER.unpack_from(effect[2], 44)[0], path, zxid)
        elif kind == ACL:
            node.stat = effect[2]
            node.acl = effect[3]
        else:
            node.stat, node.data, node.acl = b"", None, None
            self._child_changed(zxid, path, -zxid)
            if effect[2]:
                self._owner_changed(zxid, effect[2], path, -zxid)
        if zxid >= self._bucket_end:
            self._next_bucket(zxid)
        bucket = self._bucket
        if path not in bucket:
            bucket.add(path)
            cost = PINNED_COST + len(path)
            if node.data and node.data is not UNKNOWN:
                cost += len(node.data)
            self._bucket_bytes += cost
            self.pinned_bytes += cost
            if len(bucket) >= BUCKET_PATHS:
                self._bucket_end = zxid + 1

    def _node_to_change(self, path: str, kind: int) -> Node:
        """The object for a node that is about to be changed and not in the younger generation."""
        old = self._old.get(path)
        if old is None:
            if kind != CREATED:  # it may have been let go while it had prepared replies
                self._forget_hot(path)
            return Node(b"", UNKNOWN, UNKNOWN, 0)
        if old.hot:
            old.hot = False
            self._forget_hot(path)
        return old

    def _next_bucket(self, zxid: int) -> None:
        if self._bucket:
            self._buckets.append((zxid - 1, self._bucket, self._bucket_bytes))
            self._bucket = set()
            self._bucket_bytes = 0
        self._bucket_end = zxid + BUCKET_TXNS

    def _child_changed(self, zxid: int, path: str, mark: int) -> None:
        parent, _, name = path.rpartition("/")
        parent = parent or "/"
        names = self._names.get(parent)
        if names is None:
            names = self._names[parent] = {}
        names[name] = mark
        self._name_pins.append((zxid, parent, name))
        if parent in self._lists:
            del self._lists[parent]

    def _owner_changed(self, zxid: int, owner: int, path: str, mark: int) -> None:
        self._owned.setdefault(owner, {})[path] = mark
        self._owned_pins.append((zxid, owner, path))

    def advance(self) -> bool:
        """Move to the newest snapshot of the tree, if it is not beyond what is applied here.

        What it holds stays pinned until `unpin` has let go of it. Another generation is no later
        state of the same tree: that takes a `restart`."""
        if self.holds:
            return False
        reader = self._open_reader()
        if reader.zxid > self.applied or reader.generation != self.reader.generation:
            reader.close()
            return False
        self.reader.close()
        self.reader = reader
        if self._bucket and self.applied <= reader.zxid:
            self._next_bucket(self.applied + 1)
        return True

    def unpin(self, limit: int = UNPIN_AT_ONCE) -> bool:
        """Of what the reader holds now, some is pinned no more: it is cache, or it goes if known in
        part. True if there is more."""
        zxid = self.reader.zxid
        buckets, young = self._buckets, self._young
        limit += limit * len(buckets) // 4
        while buckets and buckets[0][0] <= zxid:
            paths = buckets[0][1]
            while paths:
                if limit == 0:
                    return True
                limit -= 1
                path = paths.pop()
                node = young.get(path)
                if node is None:
                    continue
                cost = NODE_COST + len(path)
                if node.data is UNKNOWN or node.acl is UNKNOWN:
                    if node.zxid <= zxid:
                        del young[path]
                        self._old.pop(path, None)
                elif node.data:
                    cost += len(node.data)
                self._young_bytes += cost
            self.pinned_bytes -= buckets.popleft()[2]
            if self._young_bytes > self._budget // 2:
                self._turn()
                young = self._young
        limit = _drop_marks(self._names, self._name_pins, zxid, limit)
        return _drop_marks(self._owned, self._owned_pins, zxid, limit) == 0

    def restart(self, reader: Reader) -> None:
        """Begin anew from another reader: nothing is pinned, nothing cached."""
        self.reader.close()
        self.reader = reader
        self.holds = 0
        self.applied = reader.zxid
        self._young, self._old = {}, {}
        self._young_bytes = self.pinned_bytes = self._lists_bytes = 0
        self._bucket, self._bucket_end, self._bucket_bytes = set(), 0, 0
        for marks in (self._buckets, self._name_pins, self._owned_pins):
            marks.clear()
        for table in (self._names, self._owned, self._lists):
            table.clear()


def _drop_marks(marks: dict[Any, dict[str, int]], pins: deque[Any], zxid: int, limit: int) -> int:
    """Forget at most `limit` marks made up to zxid, unless a later one has taken their place; how
    many more might have been."""
    while limit and pins and pins[0][0] <= zxid:
        limit -= 1
        at, key, name = pins.popleft()
        inner = marks.get(key)
        if inner is not None and abs(inner.get(name, 0)) == at:
            del inner[name]
            if not inner:
                del marks[key]
    return limit
