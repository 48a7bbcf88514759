"""Watches of the connections of one server.

Two tables, as in Apache ZooKeeper: *data* (getData, exists, addWatch) and *child* (getChildren,
addWatch persistent). A connection has at most one watch per table, path and mode; standard ones are
used up when they fire. Watchers are opaque hashable objects, here called connections.

    data[path], child[path]    a connection (one standard watch, by far the most frequent), or Many
    _held[connection]          the paths it watches, per table

A path that one connection watches alone costs no container of its own. Nothing happens for an
effect whose paths nobody watches but one or two look-ups.

Source: `WatchManager.java`, `WatchStats.java`, `PathParentIterator.java`, `DataTree.java` of Apache
ZooKeeper 3.9.5; spec client-protocol section 12.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Final, Generic, TypeVar

from zkd.jute.protocol import Err, WatcherType
from zkd.tree.effects import CHANGED, CREATED, DELETED, Effect
from zkd.tree.errors import ClientRefusal

C = TypeVar("C", bound=Hashable)

DATA: Final = 1
CHILD: Final = 2
PERSISTENT: Final = 3
RECURSIVE: Final = 4
"""Kinds of watches to add."""

NODE_CREATED: Final = 1
NODE_DELETED: Final = 2
NODE_DATA_CHANGED: Final = 3
NODE_CHILDREN_CHANGED: Final = 4

_STANDARD: Final = 1
_PERSISTENT: Final = 2
_RECURSIVE: Final = 4
_ALL: Final = 7

Event = tuple[int, str, str, list[C]]
"""Type, path, path of the node whose ACL must let a watcher read, watchers."""


class _Many(Generic[C]):
    """The watchers of a path, each with its modes; `path` is the one copy that all share."""

    __slots__ = ("modes", "path")

    def __init__(self, path: str) -> None:
        self.path = path
        self.modes: dict[C, int] = {}


class _Held:
    """What one connection watches: paths of the data table, of the child table."""

    __slots__ = ("child", "data")

    def __init__(self) -> None:
        self.data: set[str] = set()
        self.child: set[str] = set()


class WatchManager(Generic[C]):
    """See the module. A limit of 0 is none."""

    def __init__(self, *, connection_limit: int = 0, path_limit: int = 0) -> None:
        self.connection_limit = connection_limit
        """Most watches of one connection, over both tables."""
        self.path_limit = path_limit
        """Most connections on one path, in each table."""
        self.count = 0
        """Watches in both tables; a connection counts once per path and table."""
        self.refused = 0
        self._data: dict[str, C | _Many[C]] = {}
        self._child: dict[str, C | _Many[C]] = {}
        self._held: dict[C, _Held] = {}
        self._recursive = 0
        self._data_count = 0

    # ---- setting and removing

    def add(self, conn: C, path: str, kind: int) -> None:
        """Set a watch of a kind. Raises ClientRefusal(QUOTA_EXCEEDED) beyond a limit."""
        if self.connection_limit or self.path_limit:
            self._check_limits(conn, path, kind)
        held = self._held.get(conn)
        if held is None:
            held = self._held[conn] = _Held()
        if kind == DATA:
            self._add(self._data, held.data, conn, path, _STANDARD)
        elif kind == CHILD:
            self._add(self._child, held.child, conn, path, _STANDARD)
        elif kind == PERSISTENT:
            self._add(self._data, held.data, conn, path, _PERSISTENT)
            self._add(self._child, held.child, conn, path, _PERSISTENT)
        else:
            self._add(self._data, held.data, conn, path, _RECURSIVE)

    def _add(
        self, table: dict[str, C | _Many[C]], held: set[str], conn: C, path: str, mode: int
    ) -> None:
        entry = table.get(path)
        if entry is None and mode == _STANDARD:
            table[path] = conn
        elif entry is None or not isinstance(entry, _Many):
            if entry == conn and mode == _STANDARD:
                return
            many: _Many[C] = _Many(path)
            if entry is not None:
                many.modes[entry] = _STANDARD
            table[path] = many
            self._add_mode(many, conn, mode)
        else:
            path = entry.path
            self._add_mode(entry, conn, mode)
        before = len(held)
        held.add(path)
        if len(held) != before:
            self.count += 1
            if table is self._data:
                self._data_count += 1

    def _add_mode(self, many: _Many[C], conn: C, mode: int) -> None:
        before = many.modes.get(conn, 0)
        many.modes[conn] = before | mode
        if mode == _RECURSIVE and not before & _RECURSIVE:
            self._recursive += 1

    def _check_limits(self, conn: C, path: str, kind: int) -> None:
        held = self._held.get(conn)
        new = 0
        for wanted, table, own in (
            (kind != CHILD, self._data, held.data if held is not None else ()),
            (kind in (CHILD, PERSISTENT), self._child, held.child if held is not None else ()),
        ):
            if wanted and path not in own:
                new += 1
                if self.path_limit and _size(table.get(path)) >= self.path_limit:
                    self._refuse()
        held_now = len(held.data) + len(held.child) if held is not None else 0
        if self.connection_limit and new and held_now + new > self.connection_limit:
            self._refuse()

    def _refuse(self) -> None:
        self.refused += 1
        raise ClientRefusal(Err.QUOTA_EXCEEDED)

    def check(self, conn: C, path: str, type_code: int) -> bool:
        """Has the connection a watch of this `WatcherType` there?

        Raises ClientRefusal(MARSHALLING_ERROR) for an unknown type.
        """
        data = self._modes(self._data, conn, path)
        child = self._modes(self._child, conn, path)
        if type_code == WatcherType.CHILDREN:
            return bool(child & _STANDARD)
        if type_code == WatcherType.DATA:
            return bool(data & _STANDARD)
        if type_code == WatcherType.ANY:
            return bool(data | child)
        if type_code == WatcherType.PERSISTENT:
            return bool(data & _PERSISTENT)
        if type_code == WatcherType.PERSISTENT_RECURSIVE:
            return bool(data & _RECURSIVE)
        raise ClientRefusal(Err.MARSHALLING_ERROR)

    def _modes(self, table: dict[str, C | _Many[C]], conn: C, path: str) -> int:
        entry = table.get(path)
        if entry is None:
            return 0
        if isinstance(entry, _Many):
            return entry.modes.get(conn, 0)
        return _STANDARD if entry == conn else 0

    def remove(self, conn: C, path: str, type_code: int) -> bool:
        """Remove the connection's watch of this `WatcherType`; False if it has none.

        Raises ClientRefusal(MARSHALLING_ERROR) for an unknown type.
        """
        if not self.check(conn, path, type_code):
            return False
        if type_code in (WatcherType.CHILDREN, WatcherType.ANY, WatcherType.PERSISTENT):
            self._remove(self._child, conn, path, _REMOVED_CHILD[type_code])
        if type_code != WatcherType.CHILDREN:
            self._remove(self._data, conn, path, _REMOVED_DATA[type_code])
        return True

    def _remove(self, table: dict[str, C | _Many[C]], conn: C, path: str, modes: int) -> None:
        """Take `modes` from the connection's watch, and the watch away if none is left."""
        before = self._modes(table, conn, path)
        if not before & modes:
            return
        if before & modes & _RECURSIVE:
            self._recursive -= 1
        entry = table[path]
        if isinstance(entry, _Many):
            left = before & ~modes
            if left:
                entry.modes[conn] = left
                return
            del entry.modes[conn]
            if not entry.modes:
                del table[path]
        else:
            del table[path]
        self._drop(table, conn, path)

    def _drop(self, table: dict[str, C | _Many[C]], conn: C, path: str) -> None:
        """The connection watches the path no longer in that table."""
        held = self._held[conn]
        self.count -= 1
        if table is self._data:
            self._data_count -= 1
            held.data.discard(path)
        else:
            held.child.discard(path)
        if not held.data and not held.child:
            del self._held[conn]

    def remove_connection(self, conn: C) -> None:
        """The connection has ended."""
        held = self._held.pop(conn, None)
        if held is None:
            return
        for table, paths in ((self._data, held.data), (self._child, held.child)):
            for path in paths:
                entry = table[path]
                if isinstance(entry, _Many):
                    if entry.modes.pop(conn) & _RECURSIVE:
                        self._recursive -= 1
                    if entry.modes:
                        continue
                del table[path]
        self.count -= len(held.data) + len(held.child)
        self._data_count -= len(held.data)

    # ---- firing

    def triggered(self, effect: Effect) -> Sequence[Event[C]]:
        """The events that an effect fires, in order; standard watches are used up.

        Data table of the node, child table of the node, child table of the parent. A deletion that
        a connection hears of from the data table is not told again from the child table.
        """
        if not self.count:
            return ()
        kind = effect[0]
        if kind > CHANGED:
            return ()
        path: str = effect[1]
        events: list[Event[C]] = []
        watchers = self._fire_data(path) if path in self._data or self._recursive else None
        if watchers:
            events.append((kind, path, path, watchers))
        if kind == CHANGED or not self._child:
            return events
        if kind == DELETED and path in self._child:
            others = self._fire(self._child, path)
            if watchers:
                told = set(watchers)
                others = [conn for conn in others if conn not in told]
            if others:
                events.append((NODE_DELETED, path, path, others))
        parent = path[: path.rfind("/")] or "/"
        if parent in self._child:
            events.append((NODE_CHILDREN_CHANGED, parent, parent, self._fire(self._child, parent)))
        return events

    def _fire_data(self, path: str) -> list[C]:
        """Watchers of the path, and recursive ones of the path and above it; each once."""
        watchers = self._fire(self._data, path) if path in self._data else []
        if not self._recursive:
            return watchers
        found = dict.fromkeys(watchers)
        above = path
        while len(above) > 1:
            above = above[: above.rfind("/")] or "/"
            entry = self._data.get(above)
            if isinstance(entry, _Many):
                for conn, modes in entry.modes.items():
                    if modes & _RECURSIVE:
                        found[conn] = None
        return list(found)

    def _fire(self, table: dict[str, C | _Many[C]], path: str) -> list[C]:
        """All watchers of a path that is in the table; their standard watches go."""
        entry = table[path]
        if not isinstance(entry, _Many):
            del table[path]
            self._drop(table, entry, path)
            return [entry]
        watchers = list(entry.modes)
        for conn in watchers:
            left = entry.modes[conn] & ~_STANDARD
            if left:
                entry.modes[conn] = left
            else:
                del entry.modes[conn]
                self._drop(table, conn, path)
        if not entry.modes:
            del table[path]
        return watchers

    # ---- a client comes back

    def set_watches(
        self,
        conn: C,
        relative_zxid: int,
        data: Iterable[str],
        exist: Iterable[str],
        child: Iterable[str],
        persistent: Iterable[str],
        recursive: Iterable[str],
        lookup: Callable[[str], bytes | None],
    ) -> list[tuple[int, str]]:
        """Set watches again after a reconnect; events (type, path) for what happened meanwhile.

        `lookup` gives a node's raw stat. Changes made while the client was away and watched
        persistently are not told. Raises ClientRefusal(QUOTA_EXCEEDED) beyond a limit.
        """
        events: list[tuple[int, str]] = []
        for path in data:
            stat = lookup(path)
            if stat is None:
                events.append((NODE_DELETED, path))
            elif int.from_bytes(stat[8:16], signed=True) > relative_zxid:
                events.append((NODE_DATA_CHANGED, path))
            else:
                self.add(conn, path, DATA)
        for path in exist:
            if lookup(path) is not None:
                events.append((NODE_CREATED, path))
            else:
                self.add(conn, path, DATA)
        for path in child:
            stat = lookup(path)
            if stat is None:
                events.append((NODE_DELETED, path))
            elif int.from_bytes(stat[60:68], signed=True) > relative_zxid:
                events.append((NODE_CHILDREN_CHANGED, path))
            else:
                self.add(conn, path, CHILD)
        for path in persistent:
            self.add(conn, path, PERSISTENT)
        for path in recursive:
            self.add(conn, path, RECURSIVE)
        return events

    # ---- seen from outside (Apache ZooKeeper's words tell the data table alone)

    def summary(self) -> tuple[int, int, int]:
        """Connections, paths, watches of the data table: the word `wchs`."""
        connections = sum(1 for held in self._held.values() if held.data)
        return connections, len(self._data), self._data_count

    def by_connection(self) -> dict[C, set[str]]:
        """Paths of the data table that each connection watches: the word `wchc`."""
        return {conn: set(held.data) for conn, held in self._held.items() if held.data}

    def by_path(self) -> dict[str, list[C]]:
        """Connections that watch each path of the data table: the word `wchp`."""
        return {
            path: list(entry.modes) if isinstance(entry, _Many) else [entry]
            for path, entry in self._data.items()
        }


def _size(entry: object) -> int:
    if entry is None:
        return 0
    return len(entry.modes) if isinstance(entry, _Many) else 1


_REMOVED_DATA: Final = {
    WatcherType.DATA: _STANDARD,
    WatcherType.ANY: _ALL,
    WatcherType.PERSISTENT: _PERSISTENT,
    WatcherType.PERSISTENT_RECURSIVE: _RECURSIVE,
}
_REMOVED_CHILD: Final = {
    WatcherType.CHILDREN: _STANDARD,
    WatcherType.ANY: _ALL,
    WatcherType.PERSISTENT: _PERSISTENT,
}

assert (NODE_CREATED, NODE_DELETED, NODE_DATA_CHANGED) == (CREATED, DELETED, CHANGED)
