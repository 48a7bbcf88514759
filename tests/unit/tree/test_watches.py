"""Watches: which connection hears of what, once, in which order, and at what cost.

Source: `WatchManager.java`, `DataTree.java`; spec client-protocol section 12, features M53 to M67.
"""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Iterable

import pytest
from tree_support import raw_stat

from zkd.jute.protocol import Err, WatcherType
from zkd.tree import effects as fx
from zkd.tree import watches
from zkd.tree.effects import Effect
from zkd.tree.errors import ClientRefusal
from zkd.tree.watches import (
    CHILD,
    DATA,
    NODE_CHILDREN_CHANGED,
    NODE_CREATED,
    NODE_DATA_CHANGED,
    NODE_DELETED,
    PERSISTENT,
    RECURSIVE,
    WatchManager,
)

STAT = raw_stat()


def created(path: str) -> Effect:
    return (fx.CREATED, path, STAT, b"", None)


def deleted(path: str) -> Effect:
    return (fx.DELETED, path, 0)


def changed(path: str) -> Effect:
    return (fx.CHANGED, path, STAT, b"")


Told = list[tuple[int, str, list[str]]]


def fire(manager: WatchManager[str], effect: Effect) -> Told:
    events = manager.triggered(effect)
    assert all(path == node for _, path, node, _ in events)
    return [(kind, path, sorted(conns)) for kind, path, _, conns in events]


def manager_with(*watched: tuple[str, str, int]) -> WatchManager[str]:
    manager: WatchManager[str] = WatchManager()
    for conn, path, kind in watched:
        manager.add(conn, path, kind)
    return manager


@pytest.mark.parametrize(
    ("effect", "told"),
    [
        (created("/p/c"), [(NODE_CREATED, "/p/c", ["d"]), (NODE_CHILDREN_CHANGED, "/p", ["pc"])]),
        (
            deleted("/p/c"),
            [
                (NODE_DELETED, "/p/c", ["d"]),
                (NODE_DELETED, "/p/c", ["c"]),
                (NODE_CHILDREN_CHANGED, "/p", ["pc"]),
            ],
        ),
        (changed("/p/c"), [(NODE_DATA_CHANGED, "/p/c", ["d"])]),
        ((fx.ACL, "/p/c", STAT, None), []),
        ((fx.STAT, "/p/c", STAT), []),
        ((fx.QUOTA, "/p/c", STAT, b""), []),
        ((fx.SESSION, 5, 1000), []),
        ((fx.CLOSED, 5), []),
    ],
)
def test_standard_watches_hear_once(effect: Effect, told: Told) -> None:
    manager = manager_with(("d", "/p/c", DATA), ("c", "/p/c", CHILD), ("pc", "/p", CHILD))
    assert fire(manager, effect) == told
    assert fire(manager, effect) == []
    assert manager.count == 3 - len(told)


@pytest.mark.parametrize(
    ("effect", "told"),
    [
        (created("/p"), [(NODE_CREATED, "/p", ["x"])]),
        (created("/p/c"), [(NODE_CHILDREN_CHANGED, "/p", ["x"])]),
        (created("/p/c/d"), []),
        (deleted("/p"), [(NODE_DELETED, "/p", ["x"])]),
        (changed("/p"), [(NODE_DATA_CHANGED, "/p", ["x"])]),
        (changed("/p/c"), []),
    ],
)
def test_persistent_watches_stay(effect: Effect, told: Told) -> None:
    manager = manager_with(("x", "/p", PERSISTENT))
    assert fire(manager, effect) == told
    assert fire(manager, effect) == told
    assert manager.count == 2


@pytest.mark.parametrize("path", ["/p", "/p/c", "/p/c/d"])
def test_recursive_watches_hear_of_everything_below_but_of_no_children(path: str) -> None:
    manager = manager_with(("x", "/p", RECURSIVE))
    for effect, kind in (
        (created(path), NODE_CREATED),
        (changed(path), NODE_DATA_CHANGED),
        (deleted(path), NODE_DELETED),
    ):
        assert fire(manager, effect) == [(kind, path, ["x"])]
    assert fire(manager, changed("/px")) == []
    assert fire(manager, changed("/")) == []


def test_a_recursive_watch_of_the_root_hears_of_all() -> None:
    manager = manager_with(("x", "/", RECURSIVE))
    assert fire(manager, created("/a")) == [(NODE_CREATED, "/a", ["x"])]
    assert fire(manager, changed("/")) == [(NODE_DATA_CHANGED, "/", ["x"])]


def test_one_connection_gets_one_event_per_table() -> None:
    manager = manager_with(
        ("x", "/p", DATA),
        ("x", "/p", PERSISTENT),
        ("x", "/p", RECURSIVE),
        ("x", "/", RECURSIVE),
        ("x", "/p", CHILD),
    )
    assert fire(manager, deleted("/p")) == [(NODE_DELETED, "/p", ["x"])]
    manager.add("y", "/p", CHILD)
    assert fire(manager, deleted("/p")) == [
        (NODE_DELETED, "/p", ["x"]),
        (NODE_DELETED, "/p", ["y"]),
    ]


def test_a_deletion_told_from_the_data_table_uses_up_the_child_watch() -> None:
    manager = manager_with(("x", "/p", DATA), ("x", "/p", CHILD))
    assert fire(manager, deleted("/p")) == [(NODE_DELETED, "/p", ["x"])]
    assert manager.count == 0


def test_a_watch_set_twice_is_one() -> None:
    manager = manager_with(("x", "/p", DATA), ("x", "/p", DATA), ("x", "/q", DATA))
    manager.add("y", "/p", DATA)
    manager.add("y", "/p", DATA)
    assert manager.count == 3
    assert fire(manager, changed("/p")) == [(NODE_DATA_CHANGED, "/p", ["x", "y"])]


CODES = (
    WatcherType.CHILDREN,
    WatcherType.DATA,
    WatcherType.ANY,
    WatcherType.PERSISTENT,
    WatcherType.PERSISTENT_RECURSIVE,
)


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        (DATA, {WatcherType.DATA, WatcherType.ANY}),
        (CHILD, {WatcherType.CHILDREN, WatcherType.ANY}),
        (PERSISTENT, {WatcherType.PERSISTENT, WatcherType.ANY}),
        (RECURSIVE, {WatcherType.PERSISTENT_RECURSIVE, WatcherType.ANY}),
    ],
)
def test_check_and_remove_by_type(kind: int, found: set[int]) -> None:
    for code in CODES:
        manager = manager_with(("x", "/p", kind), ("y", "/p", kind))
        assert manager.check("x", "/p", code) == (code in found)
        assert not manager.check("z", "/p", code)
        assert not manager.check("x", "/q", code)
        assert manager.remove("x", "/p", code) == (code in found)
        assert not manager.remove("x", "/p", code)
        assert manager.check("x", "/p", WatcherType.ANY) == (code not in found)
        assert manager.check("y", "/p", WatcherType.ANY)


def test_removing_one_mode_leaves_the_others() -> None:
    manager = manager_with(("x", "/p", DATA), ("x", "/p", PERSISTENT), ("x", "/p", RECURSIVE))
    assert manager.remove("x", "/p", WatcherType.DATA)
    assert fire(manager, changed("/p/c")) == [(NODE_DATA_CHANGED, "/p/c", ["x"])]
    assert manager.remove("x", "/p", WatcherType.PERSISTENT_RECURSIVE)
    assert fire(manager, changed("/p/c")) == []
    assert fire(manager, changed("/p")) == [(NODE_DATA_CHANGED, "/p", ["x"])]
    assert manager.remove("x", "/p", WatcherType.PERSISTENT)
    assert manager.count == 0
    assert manager.by_connection() == {}


@pytest.mark.parametrize("code", [0, 6, -1])
def test_unknown_types_are_marshalling_errors(code: int) -> None:
    manager = manager_with(("x", "/p", DATA))
    for call in (manager.check, manager.remove):
        with pytest.raises(ClientRefusal) as refused:
            call("x", "/p", code)
        assert refused.value.code == Err.MARSHALLING_ERROR


def test_a_connection_that_ends_takes_its_watches_along() -> None:
    manager = manager_with(
        ("x", "/p", DATA),
        ("y", "/p", DATA),
        ("x", "/q", CHILD),
        ("x", "/p", PERSISTENT),
        ("x", "/", RECURSIVE),
    )
    manager.remove_connection("x")
    manager.remove_connection("x")
    manager.remove_connection("stranger")
    assert manager.count == 1
    assert fire(manager, changed("/p")) == [(NODE_DATA_CHANGED, "/p", ["y"])]
    assert manager.triggered(changed("/p")) == ()


def test_setwatches_tells_what_happened_meanwhile_and_sets_the_rest() -> None:
    nodes = {
        "/same": raw_stat(mzxid=10, pzxid=10),
        "/data": raw_stat(mzxid=11, pzxid=10),
        "/children": raw_stat(mzxid=10, pzxid=11),
    }
    everything = ["/same", "/data", "/children", "/gone"]
    manager: WatchManager[str] = WatchManager()
    events = manager.set_watches(
        "x", 10, everything, everything, everything, ["/p"], ["/r"], nodes.get
    )
    assert events == [
        (NODE_DATA_CHANGED, "/data"),
        (NODE_DELETED, "/gone"),
        (NODE_CREATED, "/same"),
        (NODE_CREATED, "/data"),
        (NODE_CREATED, "/children"),
        (NODE_CHILDREN_CHANGED, "/children"),
        (NODE_DELETED, "/gone"),
    ]
    has = manager.check
    assert has("x", "/same", WatcherType.DATA)
    assert has("x", "/children", WatcherType.DATA)
    assert not has("x", "/data", WatcherType.DATA)
    assert has("x", "/gone", WatcherType.DATA)
    assert has("x", "/same", WatcherType.CHILDREN)
    assert has("x", "/data", WatcherType.CHILDREN)
    assert not has("x", "/children", WatcherType.CHILDREN)
    assert has("x", "/p", WatcherType.PERSISTENT)
    assert has("x", "/r", WatcherType.PERSISTENT_RECURSIVE)


def test_limits_per_connection_and_per_path() -> None:
    manager: WatchManager[str] = WatchManager(connection_limit=3, path_limit=2)
    manager.add("x", "/a", DATA)
    manager.add("x", "/b", PERSISTENT)
    manager.add("x", "/a", DATA)
    for path, kind in (("/c", DATA), ("/a", CHILD), ("/c", RECURSIVE)):
        with pytest.raises(ClientRefusal) as refused:
            manager.add("x", path, kind)
        assert refused.value.code == Err.QUOTA_EXCEEDED
    manager.add("y", "/a", DATA)
    with pytest.raises(ClientRefusal):
        manager.add("z", "/a", RECURSIVE)
    manager.add("z", "/a", CHILD)
    assert (manager.count, manager.refused) == (5, 4)


def test_dumps_tell_the_data_table() -> None:
    manager = manager_with(("x", "/a", DATA), ("x", "/b", CHILD), ("y", "/a", PERSISTENT))
    manager.add("z", "/c", CHILD)
    assert manager.summary() == (2, 1, 2)
    assert manager.by_connection() == {"x": {"/a"}, "y": {"/a"}}
    assert {path: set(conns) for path, conns in manager.by_path().items()} == {"/a": {"x", "y"}}
    assert manager.count == 5


class Model:
    """Watches as a plain set of (table, connection, path, mode)."""

    def __init__(self) -> None:
        self.all: set[tuple[str, str, str, int]] = set()

    def add(self, conn: str, path: str, kind: int) -> None:
        if kind != CHILD:
            self.all.add(("data", conn, path, kind))
        if kind in (CHILD, PERSISTENT):
            self.all.add(("child", conn, path, kind))

    def _table(self, table: str, path: str) -> set[str]:
        above = {path[:end] or "/" for end, char in enumerate(path) if char == "/"} | {"/", path}
        heard = {
            conn
            for where, conn, at, kind in self.all
            if where == table and (at == path or (kind == RECURSIVE and at in above))
        }
        used_up = {one for one in self.all if one[0] == table and one[2] == path}
        self.all -= {one for one in used_up if one[3] in (DATA, CHILD)}
        return heard

    def fire(self, effect: Effect) -> Told:
        kind, path = effect[0], effect[1]
        told = [(kind, path, self._table("data", path))]
        if kind == fx.DELETED:
            told.append((NODE_DELETED, path, self._table("child", path) - told[0][2]))
        if kind != fx.CHANGED:
            parent = path.rpartition("/")[0] or "/"
            told.append((NODE_CHILDREN_CHANGED, parent, self._table("child", parent)))
        return [(one, at, sorted(conns)) for one, at, conns in told if conns]

    def count(self) -> int:
        return len({one[:3] for one in self.all})


@pytest.mark.parametrize("seed", range(8))
def test_random_histories_agree_with_the_obvious_model(seed: int) -> None:
    pick = random.Random(seed)
    manager: WatchManager[str] = WatchManager()
    model = Model()
    paths = ["/", "/a", "/a/b", "/a/b/c", "/b", "/b/a"]
    for _ in range(800):
        path, conn = pick.choice(paths), pick.choice("wxyz")
        choice = pick.random()
        if choice < 0.5:
            kind = pick.choice([DATA, DATA, CHILD, PERSISTENT, RECURSIVE])
            manager.add(conn, path, kind)
            model.add(conn, path, kind)
        elif choice < 0.85:
            make = pick.choice([created, deleted, changed]) if path != "/" else changed
            assert fire(manager, make(path)) == model.fire(make(path))
        elif choice < 0.95:
            code = pick.choice(CODES)
            gone = {one for one in model.all if one[1:3] == (conn, path) and fits(one, code)}
            assert manager.remove(conn, path, code) == bool(gone)
            model.all -= gone
        else:
            manager.remove_connection(conn)
            model.all = {one for one in model.all if one[1] != conn}
        assert manager.count == model.count()
        assert manager.summary()[2] == len({one[:3] for one in model.all if one[0] == "data"})
    for conn in "wxyz":
        manager.remove_connection(conn)
    assert manager.count == 0
    assert manager.summary() == (0, 0, 0)


def fits(one: tuple[str, str, str, int], code: int) -> bool:
    return (
        code == WatcherType.ANY
        or {
            DATA: WatcherType.DATA,
            CHILD: WatcherType.CHILDREN,
            PERSISTENT: WatcherType.PERSISTENT,
            RECURSIVE: WatcherType.PERSISTENT_RECURSIVE,
        }[one[3]]
        == code
    )


class Connection:
    """As a front-end has them: identity is equality."""

    __slots__ = ()


@pytest.mark.parametrize(("connections", "shared", "most"), [(100, False, 200), (100, True, 140)])
def test_bytes_per_watch(connections: int, shared: bool, most: int) -> None:
    """With paths of 29 characters; the paths count too, each held once."""
    conns = [Connection() for _ in range(connections)]
    tracemalloc.start()
    try:
        manager: WatchManager[Connection] = WatchManager()
        for number, conn in enumerate(conns):
            for path in own_paths(0 if shared else number):
                manager.add(conn, path, DATA)
        used = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert manager.count == connections * 400
    assert used / manager.count < most


def own_paths(number: int) -> Iterable[str]:
    return (f"/app/service/node-{number:04d}-{i:06d}" for i in range(400))


def test_constants_are_those_of_the_effects() -> None:
    assert (watches.NODE_CREATED, watches.NODE_DELETED) == (fx.CREATED, fx.DELETED)
