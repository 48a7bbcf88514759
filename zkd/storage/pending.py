"""Rows of the log whose effects nobody has computed yet: those above T that a member of an ensemble
finds at its start, or gets with a snapshot. They reach the tree when they are committed.

    T <= tree.taken <= upto        nothing else is taken in before `tree.taken` is at `upto`

They are read, and their effects computed over the tree as it was at T, in slices: there may be as
many as a log holds.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from zkd.storage.log import LogWriter
from zkd.storage.reader import TreeReader
from zkd.storage.recovery import EffectsOf
from zkd.storage.treewriter import TreeWriter
from zkd.tree.effects import Effect

SLICE = 64
"""Transactions between two looks at the clock."""


class Pending:
    """The rows of `log` above the zxid of `tree`, up to `upto`."""

    def __init__(self, log: LogWriter, effects_of: EffectsOf, tree: TreeWriter, upto: int) -> None:
        self.upto = upto
        self._log, self._tree = log, tree
        self._effects_of = effects_of
        self._reader: TreeReader | None = None
        self._apply: Callable[[bytes], list[Effect]] | None = None

    @property
    def open(self) -> bool:
        """Whether there is something left, committed or not."""
        return self._tree.taken < self.upto

    def fold(self, committed: int, deadline: float) -> bool:
        """Give to the tree what is committed. True if the time was not enough."""
        upto = min(committed, self.upto)
        more = self._tree.taken < upto
        while more:
            more = self._slice(upto)
            if time.monotonic() >= deadline:
                break
        if not self.open:
            self.close()
        return more

    def _slice(self, upto: int) -> bool:
        """Some rows; True if there may be more."""
        if self._apply is None:
            settings = self._tree.settings
            self._reader = TreeReader(
                self._tree.path, cache_bytes=settings.tree_cache_bytes, vfs=settings.vfs
            )
            self._apply = self._effects_of(self._reader)
        txns = []
        for zxid, body in self._log.verify(self._tree.taken):
            if zxid > upto:
                break
            txns.append((zxid, 0, 0, 0, 0, body, self._apply(body), None))
            if len(txns) == SLICE:
                break
        self._tree.accumulate(txns)
        return len(txns) == SLICE

    def close(self) -> None:
        """Let go of the tree."""
        self._apply = None
        if self._reader is not None:
            self._reader.close()
            self._reader = None
