"""The rows of `node` in one flush: the fewest statements that bring them up to date.

`count` and `size` are what the tree's meta says of its nodes (schema.py), kept up to date. To know
how much data a row had costs a look-up, which nodes made since the last flush are spared: they are
inserted, and only if a path was there before (and was deleted in between) is it looked up.
"""

from __future__ import annotations

import zlib
from typing import Any, Final

import apsw

from zkd.storage.counters import TopCounters
from zkd.storage.schema import PUT_NODE
from zkd.storage.sums import stat_sum, sum_of
from zkd.tree.effects import ACL, CREATED, DELETED, STAT, Effect

adler32: Final = zlib.adler32
OLD: Final = (
    "WITH k(p, n) AS (VALUES {}) SELECT iif(stat IS NULL, -1, ifnull(length(data), 0))"
    " FROM k LEFT JOIN node ON parent = p AND name = n"
)
"""Bytes of data of each of these nodes, in their order; -1: there is no such node."""
PUT: Final = PUT_NODE.replace("INSERT", "INSERT OR REPLACE")
DELETE: Final = "DELETE FROM node WHERE parent = ? AND name = ?"
SET_DATA: Final = (
    "UPDATE node SET data = ?, data_sum = ?, stat = ?, stat_sum = ? WHERE parent = ? AND name = ?"
)
SET_ACL: Final = (
    "UPDATE node SET stat = ?, stat_sum = ?, acl = ?, acl_sum = ? WHERE parent = ? AND name = ?"
)
SET_STAT: Final = "UPDATE node SET stat = ?, stat_sum = ? WHERE parent = ? AND name = ?"

Values = list[tuple[Any, ...]]


class NodeRows:
    """Writes net changes of nodes within the flush's transaction."""

    def __init__(self, db: apsw.Connection, counters: TopCounters) -> None:
        self.db = db
        self.counters = counters
        self.count = 0
        self.size = 0

    def write(self, chunk: list[Effect], since: int) -> None:
        """A few changes; `since`: the zxid of the tree on disk."""
        counters = self.counters
        floor = counters.floor
        newest = since.to_bytes(8, "big")
        stats: Values = []
        acls: Values = []
        fresh: list[Effect] = []
        rest: list[Effect] = []
        for entry in chunk:
            kind, path = entry[0], entry[1]
            if kind == DELETED:
                counters.drop(path)
                rest.append(entry)
                continue
            raw = entry[2]
            if raw[36:40] > floor:
                counters.note(path, raw[36:40])
            if kind == STAT:
                parent, _, name = path.rpartition("/")
                stats.append((raw, stat_sum(path, raw), parent, name))
            elif kind == ACL:
                parent, _, name = path.rpartition("/")
                acl = entry[3]
                acls.append((raw, stat_sum(path, raw), acl, sum_of(acl), parent, name))
            elif kind == CREATED and raw[:8] > newest:
                fresh.append(entry)
            else:
                rest.append(entry)
        many = self.db.executemany
        if stats:
            many(SET_STAT, stats)
        if acls:
            many(SET_ACL, acls)
        if fresh:
            rest += self._insert(fresh)
        if rest:
            self._replace(rest)

    def _insert(self, fresh: list[Effect]) -> list[Effect]:
        """Write new nodes; those whose path has a row already are left, and returned."""
        rows = [_row(entry) for entry in fresh]
        left: list[Effect] = []
        at = 0
        while at < len(rows):
            before = self.db.total_changes()
            try:
                self.db.executemany(PUT_NODE, rows[at:] if at else rows)
                at = len(rows)
            except apsw.ConstraintError:
                at += self.db.total_changes() - before
                left.append(fresh[at])
                at += 1
        for sign, entries in ((1, fresh), (-1, left)):
            self.count += sign * len(entries)
            self.size += sign * sum([len(e[1]) + len(e[3] or b"") for e in entries])
        return left

    def _replace(self, entries: list[Effect]) -> None:
        """Write changes for which it must be known how many bytes of data there were."""
        puts: Values = []
        data_sets: Values = []
        deletes: Values = []
        count, size = self.count, self.size
        keys: list[str] = []
        for entry in entries:
            parent, _, name = entry[1].rpartition("/")
            keys += (parent, name)
        sizes: Any = self.db.execute(OLD.format(", ".join(["(?, ?)"] * len(entries))), keys)
        for entry, parent, name, (old,) in zip(entries, keys[::2], keys[1::2], sizes, strict=True):
            kind, path = entry[0], entry[1]
            if kind == DELETED:
                if old >= 0:
                    deletes.append((parent, name))
                    count -= 1
                    size -= len(path) + old
                continue
            data = entry[3]
            if kind == CREATED:
                puts.append(_row(entry))
                if old < 0:
                    count += 1
                    size += len(path)
            elif old >= 0:
                raw = entry[2]
                summed = adler32(raw, adler32(path.encode()))
                data_sum = None if data is None else adler32(data)
                data_sets.append((data, data_sum, raw, summed, parent, name))
            else:
                continue
            if old > 0:
                size -= old
            if data is not None:
                size += len(data)
        self.count, self.size = count, size
        many = self.db.executemany
        for sql, values in ((PUT, puts), (SET_DATA, data_sets), (DELETE, deletes)):
            if values:
                many(sql, values)


def _row(entry: Effect) -> tuple[Any, ...]:
    """The values of PUT_NODE for a CREATED effect; the sums are written out, for speed."""
    _, path, raw, data, acl = entry
    parent, _, name = path.rpartition("/")
    summed = adler32(raw, adler32(path.encode()))
    data_sum = None if data is None else adler32(data)
    return parent, name, data, raw, acl, data_sum, summed, None if acl is None else adler32(acl)
