"""tree-N.db: its reader and its writer, under one name for the other rooms."""

from __future__ import annotations

from zkd.storage.reader import Node, TreeReader, open_tree, tree_path
from zkd.storage.treewriter import TreeWriter

__all__ = ["Node", "TreeReader", "TreeWriter", "open_tree", "tree_path"]
