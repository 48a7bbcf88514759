"""The highest creation counters of the tree, with their paths.

A sequential name takes its number from its parent's cversion (raw: the number of creates), which
wraps after 2147483647: whoever watches the highest one is warned in time. Kept: the KEEP highest,
exactly, as long as any of them is left; when all of them have been deleted, or a tree has come
from elsewhere, the tree is scanned again in slices.

    every counter not in `_top` is <= `_floor`
"""

from __future__ import annotations

import json
from typing import Any

import apsw

from zkd.storage.schema import join

KEEP = 16
ROOM = 64
"""So many are held before the lowest are dropped."""
LOWEST = b"\0\0\0\1"
"""Counters up to this are not worth a thought."""
SCAN_ROWS = 400
SCAN = (
    "SELECT parent, name, substr(stat, 37, 4) FROM node WHERE (parent, name) > (?, ?)"
    " ORDER BY parent, name LIMIT ?"
)


class TopCounters:
    """Fed by the tree's writer with every stat that it writes."""

    __slots__ = ("_place", "_top", "floor")

    def __init__(self, stored: object) -> None:
        """`stored`: what `store` made, or None if nobody knows (a scan is needed then)."""
        self.floor = LOWEST
        """Only counters above this are told to `note` (4 bytes, big-endian)."""
        self._top: dict[str, bytes] = {}
        self._place: tuple[str, str] | None = ("", "")
        if isinstance(stored, str):
            self._load(stored)

    def _load(self, stored: str) -> None:
        try:
            floor, top = json.loads(stored)
            self._top = {str(path): int(count).to_bytes(4, "big") for path, count in top}
            self.floor = int(floor).to_bytes(4, "big")
            self._place = None
        except (ValueError, TypeError, OverflowError):
            self._top = {}

    def store(self) -> str | None:
        """What stands in the tree's meta; None while a scan is under way."""
        if self._place is not None:
            return None
        top = [(path, int.from_bytes(count, "big")) for path, count in self._top.items()]
        return json.dumps((int.from_bytes(self.floor, "big"), top))

    def note(self, path: str, counter: bytes) -> None:
        """A node has this counter, above `floor`."""
        top = self._top
        top[path] = counter
        if len(top) > ROOM:
            best = sorted(top.items(), key=lambda item: item[1], reverse=True)
            self._top = dict(best[:KEEP])
            self.floor = best[KEEP][1]

    def drop(self, path: str) -> None:
        """A node is gone."""
        if self._top.pop(path, None) is not None and not self._top and self.floor != LOWEST:
            self.floor = LOWEST
            self._place = ("", "")

    def highest(self) -> tuple[str, int]:
        """(path, counter) of the highest, unsigned: above 2147483647 it has wrapped. ("", 0) if
        nothing is known."""
        if not self._top:
            return "", 0
        path, counter = max(self._top.items(), key=lambda item: item[1])
        return path, int.from_bytes(counter, "big")

    @property
    def scanning(self) -> bool:
        """Whether `scan` has something to do."""
        return self._place is not None

    def scan(self, db: apsw.Connection) -> None:
        """Look at the next rows of the tree; what is written meanwhile comes by `note`."""
        assert self._place is not None
        rows: list[Any] = db.execute(SCAN, (*self._place, SCAN_ROWS)).fetchall()
        if self._place == ("", ""):
            root: Any = db.execute(
                "SELECT parent, name, substr(stat, 37, 4) FROM node WHERE parent = '' AND name = ''"
            ).fetchall()
            rows = root + rows
        for parent, name, counter in rows:
            if counter > self.floor:
                path = join(parent, name)
                if path not in self._top:
                    self.note(path, counter)
        self._place = tuple(rows[-1][:2]) if len(rows) >= SCAN_ROWS else None
