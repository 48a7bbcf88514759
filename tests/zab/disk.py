"""A disk in memory: what survives a crash, what may not, and the history that the core reads.

    rows above `tree_zxid` are pending or waiting for a flush; `tree` is everything below
    an order is durable when `carry_out` has done it; orders are done in the order they were given

At a crash the orders under way may have reached the disk or not: any number of the first of them
has, and of the next one, if it appends, any number of its first rows (a torn write). What was
answered is never lost. `forget` is the one exception, a disk that loses its log and says so.
"""

from __future__ import annotations

import bisect
import random
from collections.abc import Callable
from dataclasses import dataclass

from zkd.zab import inputs as i
from zkd.zab import outputs as o
from zkd.zab.inputs import Txn


@dataclass
class Stream:
    """The snapshot behind a SNAP."""

    zxid: int
    tree: list[Txn]


@dataclass
class Order:
    """One thing for the disk, and what the core hears when it is durable."""

    what: o.Append | o.SaveEpochs | o.Truncate | o.InstallSnapshot | Stream
    answer: i.Input
    then: Callable[[], None] | None = None
    stream: Stream | None = None
    """What `InstallSnapshot` installs."""


class Disk:
    def __init__(self) -> None:
        self.accepted = self.current = 0
        self.rows: list[Txn] = []
        self.tree: list[Txn] = []
        """Everything that the tree holds, since the beginning of time."""
        self.tree_zxid = 0
        self.trusted = True
        self.beside: Stream | None = None
        """A snapshot received and not installed; gone after a crash."""
        self.lost: set[Txn] = set()
        """What was durable once, before `forget`."""

    # ---- reading

    def end(self) -> int:
        return max(self.rows[-1][0] if self.rows else 0, self.tree_zxid)

    def _at(self, zxid: int) -> int:
        return bisect.bisect_right(self.rows, zxid, key=lambda row: row[0])

    def above(self, after: int, upto: int) -> list[Txn]:
        return self.rows[self._at(after) : self._at(upto)]

    def first(self) -> int | None:
        return self.rows[0][0] if self.rows else None

    def last(self) -> int | None:
        return self.rows[-1][0] if self.rows else None

    def floor(self, zxid: int) -> int | None:
        at = self._at(zxid)
        return self.rows[at - 1][0] if at else None

    def has(self, zxid: int) -> bool:
        return self.floor(zxid) == zxid

    def holds(self, txn: Txn) -> bool:
        """Is this transaction durable here, or was it?"""
        rows = self.tree if txn[0] <= self.tree_zxid else self.rows
        at = bisect.bisect_left(rows, txn[0], key=lambda row: row[0])
        return (at < len(rows) and rows[at] == txn) or txn in self.lost

    # ---- writing

    def carry_out(self, order: Order) -> None:
        what = order.what
        if isinstance(what, o.Append):
            self.rows.extend(what.txns)
        elif isinstance(what, o.SaveEpochs):
            self._save(what.accepted, what.current)
        elif isinstance(what, o.Truncate):
            assert what.zxid >= self.tree_zxid, "TRUNC below the tree"
            del self.rows[self._at(what.zxid) :]
        elif isinstance(what, Stream):
            self.beside = what
        else:
            stream = order.stream
            assert stream is not None, "a snapshot that was not received"
            assert stream.zxid == what.zxid, "another snapshot"
            self.tree, self.tree_zxid = list(stream.tree), stream.zxid
            self.rows = list(what.txns)
            self._save(what.accepted, what.current)
            self.trusted = True
        if order.then is not None:
            order.then()

    def _save(self, accepted: int, current: int) -> None:
        assert accepted >= self.accepted, "the accepted epoch never goes back"
        assert current >= self.current, "the current epoch never goes back"
        self.accepted, self.current = accepted, current

    def crash(self, orders: list[Order], dice: random.Random) -> str:
        """Which of the orders under way have reached the disk? Says so in a word."""
        done = dice.randint(0, len(orders))
        for order in orders[:done]:
            order.then = None
            self.carry_out(order)
        torn = orders[done].what if done < len(orders) else None
        if isinstance(torn, o.Append) and dice.random() < 0.5:
            rows = torn.txns[: dice.randint(0, len(torn.txns) - 1)]
            self.rows.extend(rows)
            if rows:
                return "torn"
        return "lost" if done < len(orders) else "kept"

    def flush(self, upto: int) -> None:
        """The tree takes over what is committed."""
        self.tree = self.tree + self.above(self.tree_zxid, upto)
        self.tree_zxid = max(upto, self.tree_zxid)

    def purge(self) -> None:
        del self.rows[: self._at(self.tree_zxid)]

    def forget(self) -> None:
        """The log is gone, and with it whatever the tree does not hold."""
        self.lost.update(self.rows)
        self.rows = []
        self.trusted = False
