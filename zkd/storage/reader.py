"""Reading tree-N.db: the tree at one zxid T, while its writer goes on.

A `TreeReader` holds a read transaction all the time: whatever it answers belongs to the same T,
`zxid`, until `refresh`. A held transaction keeps the writer's WAL from being reused, so its owner
refreshes whenever storage says so, also when T is the same (see treewriter.py).
What does not agree with its checksum (sums.py) is never handed out: RowDamaged.
Every answer is bounded: what may be large comes in slices, with a place to go on from.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw

from zkd.storage import database
from zkd.storage.errors import RowDamaged, TreeDamaged
from zkd.storage.schema import TreeMeta, join
from zkd.storage.sums import intact, session_sum

Node = tuple[bytes | None, bytes, bytes | None]
"""data, raw stat, acl."""

QUOTA_ROOT = "/zookeeper/quota"
LIMITS_NAME = "zookeeper_limits"

COLUMNS = "data, stat, acl, data_sum, stat_sum, acl_sum"
NODE = f"SELECT {COLUMNS} FROM node WHERE parent = ? AND name = ?"
CHILDREN = "SELECT name FROM node WHERE parent = ? AND name > ? ORDER BY name LIMIT ?"
LAST_CHILD = "SELECT name FROM node WHERE parent = ? ORDER BY name DESC LIMIT 1"
SKIP = (
    "SELECT parent, name FROM node WHERE (parent, name) > (?, ?) AND parent < ?"
    " ORDER BY parent, name LIMIT 1 OFFSET ?"
)
COUNT = "SELECT count(*) FROM node WHERE (parent, name) > (?, ?) AND parent < ?"
USAGE = (
    "SELECT count(*), total(length(data)) FROM node WHERE (parent, name) > (?, ?) AND parent < ?"
)
SCAN = (
    f"SELECT parent, name, {COLUMNS} FROM node WHERE (parent, name) > (?, ?)"
    " ORDER BY parent, name LIMIT ?"
)


def tree_path(folder: Path, generation: int) -> Path:
    """The file of one generation of the tree."""
    return folder / f"tree-{generation}.db"


class TreeReader:
    """A consistent snapshot of the tree on disk (`zkd.tree`'s Base)."""

    zxid: int
    digest: int
    node_count: int
    data_bytes: int

    def __init__(
        self,
        path: Path,
        *,
        cache_bytes: int = 8 << 20,
        vfs: str = "",
        tree_id: bytes | None = None,
        told: Callable[[RowDamaged], None] | None = None,
    ) -> None:
        """Open one generation; `tree_id`, if given, must be the file's (TreeDamaged). `told`: is
        called with every RowDamaged before it is raised."""
        self.path = path
        self._told = told
        self.db = database.open_reader(path, cache_bytes, vfs)
        self._cursor = self.db.cursor()
        self._execute = self._cursor.execute
        self.db.execute("BEGIN")
        self._read_meta()
        if tree_id is not None and self.id != tree_id:
            raise TreeDamaged(
                "this tree belongs to another log",
                str(path),
                "put the files of one server back together, or restore a snapshot",
            )

    def _read_meta(self) -> None:
        meta = TreeMeta.read(self.db, self.path)
        self.id = meta.id
        self.generation = meta.generation
        self.zxid = meta.zxid
        self.digest = meta.digest
        self.node_count = meta.node_count
        self.data_bytes = meta.data_bytes

    def refresh(self) -> int:
        """Move to the newest snapshot; its zxid. What was handed out before stays as it was."""
        self._cursor.close()
        self.db.execute("COMMIT")
        self._cursor = self.db.cursor()
        self._execute = self._cursor.execute
        self.db.execute("BEGIN")
        self._read_meta()
        return self.zxid

    # -- single nodes --------------------------------------------------------------------------

    def node(self, path: str) -> Node | None:
        """data, raw stat and acl; None if there is no such node. "" is the root too."""
        parent, _, name = path.rpartition("/")
        try:
            row: Any = self._execute(NODE, (parent, name)).fetchone()
        except (apsw.CorruptError, UnicodeDecodeError) as e:
            raise self._damaged(path or "/", e) from e
        if row is None:
            return None
        if intact(path or "/", row):
            return row[:3]  # type: ignore[no-any-return]
        raise self._damaged(path or "/")

    def unchecked(self, path: str) -> tuple[Any, Any, Any, bool] | None:
        """As `node`, but whatever is there (of any type), and whether it is intact."""
        parent, _, name = path.rpartition("/")
        row: Any = self._execute(NODE, (parent, name)).fetchone()
        return None if row is None else (*row[:3], intact(path or "/", row))

    def _damaged(self, path: str, error: Exception | None = None) -> RowDamaged:
        """To be raised."""
        why = f"cannot be read ({error})" if error else "does not agree with its checksum"
        damaged = RowDamaged(f"what is stored of {path} {why}", str(self.path))
        if self._told is not None:
            self._told(damaged)
        return damaged

    # -- slices --------------------------------------------------------------------------------

    def children(self, path: str, after: str = "", limit: int = 1000) -> tuple[list[str], bool]:
        """The names of at most `limit` children above `after`, in the order of their UTF-8 bytes,
        and whether there are more."""
        parent = "" if path == "/" else path
        try:
            names = [name for (name,) in self._execute(CHILDREN, (parent, after, limit + 1))]
        except (apsw.CorruptError, UnicodeDecodeError) as e:
            raise self._damaged(f"the children of {path}", e) from e
        more = len(names) > limit
        if more:
            names.pop()
        return names, more

    def last_child(self, path: str) -> str:
        """The name of the last child in the order of UTF-8 bytes; "" if there is none."""
        try:
            row: Any = self._execute(LAST_CHILD, ("" if path == "/" else path,)).fetchone()
        except (apsw.CorruptError, UnicodeDecodeError) as e:
            raise self._damaged(f"the children of {path}", e) from e
        return "" if row is None else str(row[0])

    def count_below(
        self, path: str, after: tuple[str, str] | None = None, limit: int = 10_000
    ) -> tuple[int, tuple[str, str] | None]:
        """How many nodes of the subtree below `path` (itself left out) come after the place
        `after`, at most `limit`; and the place to go on from, None at the end.

        The direct children are one row range, everything deeper another: begin with None.
        """
        top = "" if path == "/" else path
        if after is None:
            after = (top, "")
        if after[0] == top:
            count, place = self._count(after, top + "\0", limit)
            if place is not None:
                return count, place
            return count, (top + "/", "")
        return self._count(after, top + "0", limit)

    def usage(self, path: str) -> tuple[int, int]:
        """Nodes and bytes of data of the subtree at `path`, itself included; (0, 0) if there is no
        such node. Reads the whole subtree: only for the moment a quota is made."""
        own = self.node(path)
        if own is None:
            return 0, 0
        top = "" if path == "/" else path
        count, size = 1, len(own[0] or b"")
        for start, end in ((top, top + "\0"), (top + "/", top + "0")):
            row: Any = self._execute(USAGE, (start, "", end)).fetchone()
            count += row[0]
            size += int(row[1])
        return count, size

    def _count(
        self, after: tuple[str, str], end: str, limit: int
    ) -> tuple[int, tuple[str, str] | None]:
        row: Any = self._execute(SKIP, (*after, end, limit - 1)).fetchone()
        if row is not None:
            return limit, row
        row = self._execute(COUNT, (*after, end)).fetchone()
        return int(row[0]), None

    def scan(
        self, after: tuple[str, str] = ("", "\0"), limit: int = 1000
    ) -> list[tuple[str, str, bytes | None, bytes, bytes | None]]:
        """(parent, name, data, stat, acl) of at most `limit` rows above a place in key order
        (parents before children within a level, not depth first). The root alone is
        `node("/")`: begin with ("", "") to leave it out."""
        rows: list[Any] = self._execute(SCAN, (*after, limit)).fetchall()
        for parent, name, *values in rows:
            if not intact(join(parent, name), tuple(values)):
                raise self._damaged(join(parent, name))
        return [row[:5] for row in rows]

    def scan_unchecked(self, after: tuple[str, str], limit: int) -> list[tuple[Any, ...]]:
        """As `scan`, but (parent, name, data, stat, acl, whether it is intact), whatever is there
        (the values may be of any type)."""
        rows: list[Any] = self._execute(SCAN, (*after, limit)).fetchall()
        return [(*row[:5], intact(join(row[0], row[1]), row[2:])) for row in rows]

    # -- small tables --------------------------------------------------------------------------

    def ephemerals(self, owner: int) -> list[str]:
        """The paths of a session's ephemerals."""
        sql = "SELECT path FROM ephemeral WHERE owner = ? ORDER BY path"
        rows: Any = self._execute(sql, (owner,))
        return [path for (path,) in rows]

    def ephemeral_owners(self) -> list[tuple[int, int]]:
        """(session, number of ephemerals) of every session that has any."""
        sql = "SELECT owner, count(*) FROM ephemeral GROUP BY owner"
        rows: list[Any] = self._execute(sql).fetchall()
        return rows

    def sessions(self) -> dict[int, int]:
        """session -> timeout_ms."""
        rows: list[Any] = self._execute("SELECT id, timeout, sum FROM session").fetchall()
        for session, timeout, stored in rows:
            if stored != session_sum(session, timeout):
                raise self._damaged(f"session 0x{session & (1 << 64) - 1:x}")
        return {session: timeout for session, timeout, _ in rows}

    def specials(self) -> list[tuple[str, int]]:
        """(path, raw owner) of containers and TTL nodes."""
        sql = "SELECT path, owner FROM special ORDER BY path"
        rows: list[Any] = self._execute(sql).fetchall()
        return rows

    def acl_lists(self) -> list[bytes]:
        """Every ACL that occurs, but world:anyone:31. Reads all nodes."""
        rows: Any = self._execute("SELECT DISTINCT acl FROM node WHERE acl IS NOT NULL")
        return [acl for (acl,) in rows]

    def quotas(self) -> list[tuple[str, bytes | None]]:
        """(path, data) of every zookeeper_limits node."""
        rows: Any = self._execute(
            f"SELECT parent, name, {COLUMNS} FROM node WHERE parent > ? AND parent < ?"
            " AND name = ?",
            (QUOTA_ROOT + "/", QUOTA_ROOT + "0", LIMITS_NAME),
        ).fetchall()
        found = []
        for parent, name, *values in rows:
            path = join(parent, name)
            if not intact(path, tuple(values)):
                raise self._damaged(path)
            found.append((path, values[0]))
        own = self.node(join(QUOTA_ROOT, LIMITS_NAME))
        if own is not None:
            found.append((join(QUOTA_ROOT, LIMITS_NAME), own[0]))
        return found

    def close(self) -> None:
        """Give the snapshot up."""
        self.db.close()


def open_tree(
    data_dir: Path,
    log_dir: Path,
    *,
    cache_bytes: int,
    vfs: str = "",
    told: Callable[[RowDamaged], None] | None = None,
) -> TreeReader:
    """A reader of the generation that log.db names at this moment."""
    from zkd.storage.log import LOG_NAME, LogReader

    log = LogReader(log_dir / LOG_NAME, vfs=vfs)
    try:
        meta = log.meta()
        while True:
            try:
                return TreeReader(
                    tree_path(data_dir, meta.generation),
                    cache_bytes=cache_bytes,
                    vfs=vfs,
                    tree_id=meta.id,
                    told=told,
                )
            except apsw.CantOpenError:
                named, meta = meta.generation, log.meta()
                if meta.generation == named:
                    raise
    finally:
        log.close()
