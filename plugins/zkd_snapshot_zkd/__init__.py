"""zkd's own snapshot: one SQLite file with the tables of tree-N.db, without a WAL.

It can be looked into with any SQLite tool, checked with `zkd check`, and restored by copying. It is
written under another name first; what has the name is complete and on disk. Every snapshot has a
random id of its own, as a tree has: it never passes for the tree of a running server.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Final

import apsw

from zkd.errors import OperatorError
from zkd.plugins.api import (
    Config,
    SnapshotFormat,
    SnapshotNode,
    SnapshotSource,
    flag,
    hookimpl,
)
from zkd.plugins.trees import TreeSource
from zkd.storage import schema
from zkd.storage.check import check_tree_file
from zkd.storage.reader import TreeReader
from zkd.tree import ephemeral, stat
from zkd.tree.settings import TreeSettings

BATCH: Final = 1000
CACHE_BYTES: Final = 8 << 20
TOLD_MAX: Final = 5


class ZkdFormat(SnapshotFormat):
    """`settings`: whether an owner is a session's or a TTL node's depends on them."""

    name = "zkd"
    suffix = ".zkd"

    def __init__(self, settings: TreeSettings | None = None) -> None:
        self._settings = settings if settings is not None else TreeSettings()

    def write(self, source: SnapshotSource, path: Path) -> None:
        if path.exists():
            raise FileExistsError(f"{path} exists")
        part = path.with_name(path.name + ".part")
        part.unlink(missing_ok=True)
        try:
            self._fill(source, part)
            _sync(part)
            part.replace(path)
            _sync(path.parent)
        finally:
            part.unlink(missing_ok=True)

    def verify(self, path: Path) -> int:
        found = check_tree_file(path, None, self._settings)
        if found:
            told = "; ".join(finding.what for finding in found[:TOLD_MAX])
            raise ValueError(f"{path}: {told}")
        source = self.read(path)
        try:
            return source.zxid
        finally:
            source.close()

    def read(self, path: Path) -> TreeSource:
        try:
            return TreeSource(TreeReader(path, cache_bytes=CACHE_BYTES))
        except OperatorError as error:
            raise ValueError(f"{path}: {error.what}") from error
        except apsw.Error as error:
            raise ValueError(f"{path}: cannot be read: {error}") from error

    def _fill(self, source: SnapshotSource, path: Path) -> None:
        db = apsw.Connection(str(path))
        try:
            # Nobody sees the file before it is complete: no journal, no sync but one at the end.
            db.pragma("journal_mode", "off")
            db.pragma("synchronous", "off")
            db.pragma("cache_size", -CACHE_BYTES // 1024)
            schema.create_tree(db, os.urandom(16), 0)
            with db:
                count, size = self._put_nodes(db, source.nodes())
                sessions = [schema.session_row(*item) for item in source.sessions().items()]
                db.executemany(schema.PUT_SESSION, sessions)
                schema.put_tree_meta(
                    db,
                    {
                        "zxid": source.zxid,
                        "digest": schema.signed(source.digest or 0),
                        "node_count": count + 1,
                        "data_bytes": size,
                    },
                )
        finally:
            db.close()

    def _put_nodes(self, db: apsw.Connection, nodes: Iterator[SnapshotNode]) -> tuple[int, int]:
        """How many there are, and the bytes of their paths and data."""
        count = size = 0
        while batch := list(islice(nodes, BATCH)):
            rows = [schema.node_row(node.path, node.data, node.stat, node.acl) for node in batch]
            db.executemany(schema.PUT_NODE, rows)
            self._put_owners(db, batch)
            count += len(batch)
            size += sum(len(node.path) + len(node.data or b"") for node in batch)
        return count, size

    def _put_owners(self, db: apsw.Connection, nodes: Iterable[SnapshotNode]) -> None:
        sessions: list[tuple[Any, ...]] = []
        specials: list[tuple[Any, ...]] = []
        for node in nodes:
            owner = stat.owner(node.stat)
            kind = ephemeral.kind(owner, self._settings)
            if kind == ephemeral.NORMAL:
                sessions.append((owner, node.path))
            elif kind != ephemeral.VOID:
                specials.append((node.path, owner))
        db.executemany("INSERT INTO ephemeral VALUES(?, ?)", sessions)
        db.executemany("INSERT INTO special VALUES(?, ?)", specials)


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@hookimpl
def zkd_snapshot_formats(config: Config) -> list[SnapshotFormat]:
    return [
        ZkdFormat(
            TreeSettings(
                extended_types_enabled=flag(config, "extendedTypesEnabled", False),
                emulate_353=flag(config, "emulate353TTLNodes", False),
            )
        )
    ]
