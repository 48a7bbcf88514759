"""How the engine computes the effects of transactions that it finds in the log."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from zkd.storage.reader import TreeReader
from zkd.storage.recovery import EffectsOf
from zkd.tree.effects import Effect
from zkd.tree.settings import TreeSettings
from zkd.tree.state import TreeState

REPLAY_CACHE_BYTES = 16 << 20
"""Nodes kept while the log is replayed."""


class HasTree(Protocol):
    """A server's configuration, or StorageSettings."""

    @property
    def tree(self) -> TreeSettings:
        """The settings of the tree."""


def replayer(config: HasTree) -> EffectsOf:
    """What `Engine` takes as `effects_of`: the tree's own rules over the tree on disk."""
    settings = config.tree

    def over(reader: TreeReader) -> Callable[[bytes], list[Effect]]:
        return TreeState(reader, cache_bytes=REPLAY_CACHE_BYTES, settings=settings).apply

    return over
