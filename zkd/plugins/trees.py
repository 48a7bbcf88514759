"""A tree file (tree-N.db, or a snapshot of the same form) as snapshot formats read it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from zkd.plugins.api import SnapshotNode, SnapshotSource
from zkd.storage.check import scan_all
from zkd.storage.reader import TreeReader


class TreeSource(SnapshotSource):
    """One consistent tree: that of the read transaction which `reader` holds meanwhile.

    The digest is None where the file does not know it. Raises apsw errors for a damaged file.
    """

    def __init__(self, reader: TreeReader) -> None:
        self._reader = reader
        self.zxid = reader.zxid
        self.digest = reader.digest or None

    @property
    def path(self) -> Path:
        """The file."""
        return self._reader.path

    def sessions(self) -> Mapping[int, int]:
        return self._reader.sessions()

    def nodes(self) -> Iterator[SnapshotNode]:
        for path, data, stat, acl in scan_all(self._reader):
            yield SnapshotNode(path, data, stat, acl)

    def close(self) -> None:
        """End the read transaction."""
        self._reader.close()
