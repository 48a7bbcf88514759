"""The tables of log.db and tree-N.db, and what a fresh tree holds.

In `node` a path is split at its last slash: `/a/b` is ('/a', 'b'), `/a` is ('', 'a') and the root
is ('', ''). So the children of P are the rows with parent = P ('' for the root), and everything
below P is a range of parents: P itself, and from P + '/' to before P + '0'.

`node_count` counts the root twice and `data_bytes` is the sum over all nodes of the length of path
and data, because the metrics of Apache ZooKeeper do so (`DataTree.approximateDataSize`, and its
second name "/" for the root): a fresh tree has 5 nodes and 44 bytes.

What the columns and the key with `sum` in their names hold: sums.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw

from zkd.storage import sums
from zkd.storage.errors import TreeDamaged

FORMAT = 1

LOG_SCHEMA = """
CREATE TABLE txn(zxid INTEGER PRIMARY KEY, body BLOB NOT NULL, crc INTEGER NOT NULL);
CREATE TABLE meta(key TEXT PRIMARY KEY, value) WITHOUT ROWID;
"""

TREE_SCHEMA = """
CREATE TABLE node(parent TEXT NOT NULL, name TEXT NOT NULL, data BLOB, stat BLOB NOT NULL,
                  acl BLOB, data_sum INTEGER, stat_sum INTEGER NOT NULL, acl_sum INTEGER,
                  PRIMARY KEY(parent, name)) WITHOUT ROWID;
CREATE TABLE ephemeral(owner INTEGER NOT NULL, path TEXT NOT NULL,
                       PRIMARY KEY(owner, path)) WITHOUT ROWID;
CREATE TABLE special(path TEXT PRIMARY KEY, owner INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE session(id INTEGER PRIMARY KEY, timeout INTEGER NOT NULL, sum INTEGER NOT NULL);
CREATE TABLE meta(key TEXT PRIMARY KEY, value) WITHOUT ROWID;
"""

PUT_NODE = "INSERT INTO node VALUES(?, ?, ?, ?, ?, ?, ?, ?)"
PUT_SESSION = "INSERT INTO session VALUES(?, ?, ?)"
PUT_META = "INSERT INTO meta(key, value) VALUES(?, ?) ON CONFLICT DO UPDATE SET value = ?2"

EMPTY_DIGEST = 0x51C6D660
EMPTY_NODES = 5
EMPTY_BYTES = 44

_READ_ONLY_ACL = b"\0\0\0\1" + b"\0\0\0\1" + b"\0\0\0\5world" + b"\0\0\0\6anyone"  # world:anyone:1


def _stat(children: int, aversion: int = 0) -> bytes:
    version = aversion.to_bytes(4, "big", signed=True)
    return bytes(40) + version + bytes(12) + children.to_bytes(4, "big") + bytes(8)


FRESH_NODES: tuple[tuple[str, bytes, bytes, bytes | None], ...] = (
    ("/", b"", _stat(1), None),
    ("/zookeeper", b"", _stat(2), None),
    ("/zookeeper/config", b"", _stat(0, -1), _READ_ONLY_ACL),
    ("/zookeeper/quota", b"", _stat(0), None),
)
"""(path, data, raw stat, acl) of a new tree: spec/txn-and-storage-formats.md 2, 4, 13."""


def split(path: str) -> tuple[str, str]:
    """(parent, name) as the table has them."""
    parent, _, name = path.rpartition("/")
    return parent, name


def join(parent: str, name: str) -> str:
    """The path of a row."""
    return f"{parent}/{name}"


def signed(digest: int) -> int:
    """An unsigned 64-bit number as SQLite can hold it."""
    return digest - (1 << 64) if digest >> 63 else digest


def unsigned(value: int) -> int:
    """The reverse of `signed`."""
    return value & 0xFFFFFFFFFFFFFFFF


def read_meta(db: apsw.Connection) -> dict[str, int | str | bytes]:
    """All of `meta`; empty if the table is not there."""
    if not db.table_exists(None, "meta"):
        return {}
    rows: list[Any] = db.execute("SELECT key, value FROM meta").fetchall()
    return dict(rows)


def require(db: apsw.Connection, schema: str, path: Path) -> None:
    """The file has just these tables; TreeDamaged otherwise."""
    wanted = {part.strip() for part in schema.split(";") if part.strip()}
    rows: Any = db.execute("SELECT sql FROM sqlite_schema")
    if {sql for (sql,) in rows} != wanted:
        raise TreeDamaged(
            "the tables are not those of this version of zkd",
            str(path),
            "`zkd check` says more; `zkd restore SNAPSHOT` mends it (docs/recovery.md)",
        )


@dataclass(frozen=True)
class TreeMeta:
    """What a tree says about itself, in the transaction of its nodes."""

    id: bytes
    generation: int
    zxid: int
    digest: int
    """Unsigned; 0 is unknown."""
    node_count: int
    data_bytes: int

    @classmethod
    def read(cls, db: apsw.Connection, path: Path) -> TreeMeta:
        """From an open tree; TreeDamaged if it is none of ours."""
        found: dict[str, Any] = dict(read_meta(db))
        if found.get("format") != FORMAT or not isinstance(found.get("id"), bytes):
            raise TreeDamaged(
                f"not a tree of this version of zkd (format {found.get('format')!r})",
                str(path),
                "use the version of zkd that wrote it, or `zkd restore SNAPSHOT --keep-log`"
                " (docs/recovery.md)",
            )
        require(db, TREE_SCHEMA, path)
        names = ("generation", "zxid", "digest", "node_count", "data_bytes")
        numbers: list[Any] = [found.get(name) for name in names]
        whole = found.get("sum") == sums.meta_sum(found)
        if not whole or not all(isinstance(number, int) for number in numbers):
            raise TreeDamaged(
                "the table meta is damaged",
                str(path),
                "`zkd restore SNAPSHOT --keep-log` (docs/recovery.md)",
            )
        generation, zxid, digest, node_count, data_bytes = numbers
        return cls(found["id"], generation, zxid, unsigned(digest), node_count, data_bytes)


def put_meta(db: apsw.Connection, values: dict[str, int | bytes | str]) -> None:
    """Write some of `meta`, within the caller's transaction."""
    db.executemany(PUT_META, list(values.items()))


def put_tree_meta(db: apsw.Connection, values: dict[str, int | bytes | str]) -> None:
    """Write some of a tree's `meta` and the sum over it, within the caller's transaction."""
    put_meta(db, {**values, "sum": sums.meta_sum(read_meta(db) | values)})


def node_row(
    path: str, data: bytes | None, stat: bytes, acl: bytes | None
) -> tuple[str, str, bytes | None, bytes, bytes | None, int | None, int, int | None]:
    """The values of `PUT_NODE`."""
    return (*split(path), data, stat, acl, *sums.row(path, data, stat, acl))


def session_row(session: int, timeout: int) -> tuple[int, int, int]:
    """The values of `PUT_SESSION`."""
    return session, timeout, sums.session_sum(session, timeout)


def create_tree(db: apsw.Connection, tree_id: bytes, generation: int) -> None:
    """Make the tables of an empty file, without any node, in one transaction."""
    with db:
        db.execute(TREE_SCHEMA)
        put_tree_meta(
            db,
            {
                "format": FORMAT,
                "id": tree_id,
                "generation": generation,
                "zxid": 0,
                "digest": 0,
                "node_count": 1,
                "data_bytes": 1,
            },
        )


def fill_fresh(db: apsw.Connection) -> None:
    """Put the nodes of a new tree into an empty one."""
    with db:
        db.executemany(PUT_NODE, [node_row(*node) for node in FRESH_NODES])
        put_tree_meta(
            db,
            {
                "digest": EMPTY_DIGEST,
                "node_count": EMPTY_NODES,
                "data_bytes": EMPTY_BYTES,
                "counters": "[1, []]",  # none above 1: see counters.py
            },
        )
