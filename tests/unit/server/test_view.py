"""The front-end's view against the obvious model: a dict of everything."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest

from zkd.server.view import View
from zkd.tree import effects as fx

OWNER = 0x100000000000007


def stat(version: int, owner: int = 0) -> bytes:
    return version.to_bytes(44, "big") + owner.to_bytes(8, "big") + bytes(16)


Row = tuple[bytes | None, bytes, bytes | None]


@dataclass
class Disk:
    """The tree on disk at one zxid, as storage would have flushed it."""

    zxid: int = 0
    nodes: dict[str, Row] = field(default_factory=dict)

    def reader(self) -> DiskReader:
        return DiskReader(self.zxid, dict(self.nodes))


@dataclass
class DiskReader:
    zxid: int
    nodes: dict[str, Row]
    closed: bool = False
    generation: int = 1

    def node(self, path: str) -> Row | None:
        assert not self.closed
        return self.nodes.get(path)

    def children(self, path: str, after: str = "", limit: int = 1000) -> tuple[list[str], bool]:
        assert not self.closed
        prefix = "/" if path == "/" else path + "/"
        names = sorted(
            p[len(prefix) :]
            for p in self.nodes
            if p != "/" and p.startswith(prefix) and "/" not in p[len(prefix) :]
        )
        names = [n for n in names if n > after]
        return names[:limit], len(names) > limit

    def count_below(
        self, path: str, after: tuple[str, str] | None = None, limit: int = 1000
    ) -> tuple[int, tuple[str, str] | None]:
        assert not self.closed
        prefix = "/" if path == "/" else path + "/"
        below = sorted(p for p in self.nodes if p.startswith(prefix) and p > (after or ("",))[0])
        some = below[:limit]
        return len(some), (some[-1], "") if len(below) > limit else None

    def ephemerals(self, owner: int) -> list[str]:
        raw = owner.to_bytes(8, "big")
        return [p for p, row in self.nodes.items() if row[1][44:52] == raw]

    def close(self) -> None:
        self.closed = True


def change(rng: random.Random, nodes: dict[str, Row], zxid: int) -> list[fx.Effect]:
    """One random transaction on the model; its effects."""
    path = rng.choice(("/a", "/b", "/c")) + rng.choice(("", "/x", "/y", "/z"))
    row = nodes.get(path)
    if row is None:
        owner = OWNER if rng.random() < 0.3 else 0
        made: Row = (b"%d" % zxid, stat(zxid, owner), rng.choice((None, b"acl")))
        nodes[path] = made
        return [(fx.CREATED, path, made[1], made[0], made[2])]
    kind = rng.random()
    if kind < 0.25:
        del nodes[path]
        return [(fx.DELETED, path, int.from_bytes(row[1][44:52], "big"))]
    new = stat(zxid, int.from_bytes(row[1][44:52], "big"))
    if kind < 0.5:
        nodes[path] = (b"data %d" % zxid, new, row[2])
        return [(fx.CHANGED, path, new, b"data %d" % zxid)]
    if kind < 0.75:
        nodes[path] = (row[0], new, row[2])
        return [(fx.STAT, path, new)]
    nodes[path] = (row[0], new, b"other")
    return [(fx.ACL, path, new, b"other")]


def check(view: View, nodes: dict[str, Row], path: str) -> None:
    node = view.get(path)
    found = None if node is None else (node.data, node.stat, node.acl)
    assert found == nodes.get(path)


@pytest.mark.parametrize("seed", range(40))
def test_the_view_is_the_tree_at_t_plus_what_came_since(seed: int) -> None:
    rng = random.Random(seed)
    disk = Disk()
    nodes: dict[str, Row] = {}
    history: list[dict[str, Row]] = [{}]
    forgotten: set[str] = set()
    view = View(disk.reader(), disk.reader, rng.choice((0, 3000, 1 << 20)), forgotten.add)
    for zxid in range(1, 1500):
        hot = [p for p in ("/a", "/b/x") if view.get(p) is not None and rng.random() < 0.5]
        for path in hot:
            node = view.get(path)
            assert node is not None
            node.hot = True
        forgotten.clear()
        effects = change(rng, nodes, zxid)
        for effect in effects:
            view.install(zxid, effect)
            assert effect[1] not in hot or effect[1] in forgotten
        view.applied = zxid
        history.append(dict(nodes))
        if rng.random() < 0.02:  # storage flushes; it may be ahead of nothing, or behind
            disk.zxid = rng.randint(disk.zxid, zxid)
            disk.nodes = history[disk.zxid]
            view.advance()
        if rng.random() < 0.1:
            view.unpin(rng.choice((1, 5, 1000)))
        for _ in range(3):
            path = rng.choice(("/a", "/b", "/c")) + rng.choice(("", "/x", "/y", "/z"))
            check(view, nodes, path)
        if rng.random() < 0.1:
            parent = rng.choice(("/", "/a", "/b"))
            names = [n for part in view.listing(parent, 2) for n in part]
            model = DiskReader(zxid, nodes).children(parent)[0]
            assert sorted(names) == model
            after = rng.choice(("", "b", "x", "y"))
            limit = rng.randint(1, 3)
            later = [n for n in model if n > after]
            assert view.page(parent, after, limit) == (later[:limit], len(later) > limit)
            below = [p for p in nodes if p.startswith(parent.rstrip("/") + "/")]
            assert sum(view.descendants(parent, 2)) == len(below)
        if rng.random() < 0.05:
            assert view.ephemerals(OWNER) == set(DiskReader(zxid, nodes).ephemerals(OWNER))
    disk.zxid, disk.nodes = 1499, history[1499]
    assert view.advance()
    while view.unpin(100):
        pass
    assert view.pinned_bytes == 0


def test_the_view_never_moves_to_a_tree_beyond_what_is_applied() -> None:
    disk = Disk()
    view = View(disk.reader(), disk.reader, 1 << 20, lambda path: None)
    disk.zxid, disk.nodes = 5, {"/a": (b"", stat(5), None)}
    assert not view.advance()
    assert view.get("/a") is None
    view.install(5, (fx.CREATED, "/a", stat(5), b"", None))
    view.applied = 5
    assert view.advance()
    assert view.get("/a") is not None


def test_what_a_large_multi_changed_is_let_go_in_parts() -> None:
    disk = Disk()
    view = View(disk.reader(), disk.reader, 1 << 20, lambda path: None)
    for zxid in (1, 2, 3):
        for i in range(3000):
            path = f"/n{zxid}-{i}"
            view.install(zxid, (fx.CREATED, path, stat(zxid), b"d" * 100, None))
            disk.nodes[path] = (b"d" * 100, stat(zxid), None)
        view.applied = zxid
    assert view.pinned_bytes > 9000 * 700
    disk.zxid = 2
    assert view.advance()
    parts = 1
    while view.unpin(1000):
        parts += 1
        assert view.get("/n1-5") is not None
    assert parts >= 6
    assert view.pinned_bytes < 3001 * 900
    assert sum(view.descendants("/", 100)) == 9000


def test_a_listing_in_slices_is_one_moments() -> None:
    disk = Disk(1, {f"/d/{i}": (b"", stat(1), None) for i in range(10)})
    view = View(disk.reader(), disk.reader, 1 << 20, lambda path: None)
    view.install(2, (fx.CREATED, "/d/early", stat(2), b"", None))
    view.applied = 2
    view.holds += 1
    steps = view.listing("/d", 3)
    names = list(next(steps))
    view.install(3, (fx.CREATED, "/d/late", stat(3), b"", None))
    view.install(4, (fx.DELETED, "/d/9", 0))
    view.applied = 4
    disk.zxid, disk.nodes = 4, {}
    assert not view.advance()
    for part in steps:
        names += part
    view.holds -= 1
    assert sorted(names) == sorted([str(i) for i in range(10)] + ["early"])
