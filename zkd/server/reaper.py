"""Which containers and TTL nodes are due for deletion (server/ContainerManager.java)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zkd.config import Config
    from zkd.tree.state import TreeState


class Reaper:
    """Asks the tree at intervals; the deletions are ordinary requests of session 0."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def due(self, tree: TreeState, now_s: float, wall_s: float) -> list[bytes]:
        """Encoded paths to delete now."""
        return []
