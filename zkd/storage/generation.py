"""Writing a whole tree into a new file: what SNAP, restore and import produce.

The file is nobody's until log.db names it: it is written without a journal and without syncs, then
synced as a whole with its folder. A crash leaves a file that the next start removes.
`Engine.switch_generation` is the other half. This half needs no engine and no lock: it may run in
a process of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import apsw

from zkd import failpoints
from zkd.errors import OperatorError
from zkd.storage import schema, sums
from zkd.storage.files import sync_file, sync_folder
from zkd.storage.reader import tree_path
from zkd.storage.schema import (
    PUT_NODE,
    PUT_SESSION,
    node_row,
    put_tree_meta,
    session_row,
    signed,
    split,
)
from zkd.tree import ephemeral, stat
from zkd.tree.digest import MASK, node_digest
from zkd.tree.settings import TreeSettings

NodeRow = tuple[str, bytes | None, bytes, bytes | None]
"""path, data, raw stat (dataLength and numChildren need not be right), acl."""

BATCH = 500
CACHE_BYTES = 64 << 20


def remove_tree(path: Path) -> None:
    """Remove a database with the files beside it."""
    for suffix in ("", "-wal", "-shm", "-journal"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


class GenerationWriter:
    """One new tree-N.db. Either `finish` or `abandon` ends it."""

    def __init__(
        self, folder: Path, generation: int, tree_id: bytes, settings: TreeSettings
    ) -> None:
        """`generation`: one more than the engine's; `tree_id`: `engine.log.meta.id`."""
        self.path = tree_path(folder, generation)
        self.settings = settings
        self.digest = 0
        self.node_count = 1
        self.data_bytes = 0
        remove_tree(self.path)
        self.db = apsw.Connection(str(self.path))
        self.db.pragma("page_size", 4096)
        self.db.pragma("locking_mode", "EXCLUSIVE")
        self.db.pragma("journal_mode", "OFF")
        self.db.pragma("synchronous", "OFF")
        self.db.pragma("cache_size", -CACHE_BYTES // 1024)
        schema.create_tree(self.db, tree_id, generation)
        self.db.execute("BEGIN")

    def nodes(self, nodes: Iterable[NodeRow]) -> int:
        """Write nodes in any order, each once, the root and /zookeeper among them; how many.
        OperatorError if a path comes twice."""
        rest = iter(nodes)
        count = 0
        while batch := list(islice(rest, BATCH)):
            try:
                self._batch(batch)
            except apsw.ConstraintError as e:
                where = f"between {batch[0][0]} and {batch[-1][0]}"
                raise OperatorError("a path occurs twice", where, "the source is damaged") from e
            count += len(batch)
        return count

    def _batch(self, batch: list[NodeRow]) -> None:
        rows: list[tuple[Any, ...]] = []
        plain: list[tuple[int, str]] = []
        special: list[tuple[str, int]] = []
        digest = size = 0
        for path, data, raw, acl in batch:
            if path == "":
                path = "/"
            length = len(data) if data else 0
            raw = raw[:52] + length.to_bytes(4, "big") + bytes(4) + raw[60:]
            digest += node_digest(path, data, raw)
            size += len(path) + length
            owner = stat.owner(raw)
            if owner:
                if ephemeral.kind(owner, self.settings) == ephemeral.NORMAL:
                    plain.append((owner, path))
                else:
                    special.append((path, owner))
            rows.append(node_row(path, data, raw, acl))
        self.db.executemany(PUT_NODE, rows)
        self.db.executemany("INSERT INTO ephemeral VALUES(?, ?)", plain)
        self.db.executemany("INSERT INTO special VALUES(?, ?)", special)
        self.digest = (self.digest + digest) & MASK
        self.node_count += len(rows)
        self.data_bytes += size

    def sessions(self, sessions: Iterable[tuple[int, int]]) -> None:
        """(session, timeout in ms)."""
        self.db.executemany(PUT_SESSION, (session_row(*session) for session in sessions))

    def finish(self, zxid: int) -> int:
        """Complete the tree at `zxid` and make file and folder durable; the tree's digest."""
        self._fresh_system_nodes()
        self._count_children()
        put_tree_meta(
            self.db,
            {
                "zxid": zxid,
                "digest": signed(self.digest) if self.settings.digest_enabled else 0,
                "node_count": self.node_count,
                "data_bytes": self.data_bytes,
            },
        )
        self.db.execute("COMMIT")
        self.db.close()
        failpoints.hit("generation.written")
        sync_file(self.path)
        sync_folder(self.path.parent)
        failpoints.hit("generation.synced")
        return self.digest

    def _fresh_system_nodes(self) -> None:
        """The nodes that every tree has, where the source lacks them (old snapshots have no
        /zookeeper/config)."""
        find = "SELECT 1 FROM node WHERE parent = ? AND name = ?"
        missing = [
            node
            for node in schema.FRESH_NODES
            if self.db.execute(find, split(node[0])).fetchone() is None
        ]
        self.nodes(missing)

    def _count_children(self) -> None:
        """Bring every parent's numChildren up to date. OperatorError for a missing parent."""
        count = "SELECT parent, count(*) FROM node WHERE parent {} ? AND name <> ''"
        count += " GROUP BY parent LIMIT ?"
        find = "SELECT stat FROM node WHERE parent = ? AND name = ?"
        update = "UPDATE node SET stat = ?, stat_sum = ? WHERE parent = ? AND name = ?"
        last, beyond = "", ">="
        while True:
            rows: list[Any] = self.db.execute(count.format(beyond), (last, BATCH)).fetchall()
            for parent, children in rows:
                path = parent or "/"
                found: Any = self.db.execute(find, split(path)).fetchone()
                if found is None:
                    raise OperatorError(
                        f"nodes without a parent: {parent} is missing", "", "the source is damaged"
                    )
                raw = found[0][:56] + children.to_bytes(4, "big") + found[0][60:]
                self.db.execute(update, (raw, sums.stat_sum(path, raw), *split(path)))
            if len(rows) < BATCH:
                return
            last, beyond = rows[-1][0], ">"

    def abandon(self) -> None:
        """Leave nothing behind."""
        self.db.close()
        remove_tree(self.path)
