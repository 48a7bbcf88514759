"""Reading everything and comparing it: what `zkd check` does, also beside a running server.

Log, mark and tree: as at a start (agreement.py). The log: every row against the chain. The tree:
SQLite's own structure, every node's parent, child count and data length, the indexes of owners,
the counts, the checksum of every row and of the meta values (sums.py), and the digest over all
nodes (which covers paths, data and stats of what does not lie below /zookeeper/).
Each file is read in short transactions or one snapshot, memory does not grow with the tree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import apsw

from zkd.errors import OperatorError
from zkd.storage.agreement import GO_ON, MEND_LOG, MEND_TREE, missing, tree_fault
from zkd.storage.errors import LogCorrupt, RowDamaged
from zkd.storage.files import MARK_NAME, Claims, read_mark
from zkd.storage.log import LOG_NAME, LogMeta, LogReader, follows
from zkd.storage.reader import TreeReader, tree_path
from zkd.tree import ephemeral, stat
from zkd.tree.digest import MASK, node_digest
from zkd.tree.settings import TreeSettings

SLICE = 1000
PER_KIND = 5
"""So many findings of one kind are told, the rest is counted."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: in which file, what, and what to do."""

    where: str
    what: str
    mend: str = ""


Progress = Callable[[str, int, int], None]
"""(what is being read, done, of how many)"""


def _quiet(what: str, done: int, total: int) -> None:
    return None


def check(
    data_dir: Path,
    log_dir: Path,
    settings: TreeSettings | None = None,
    progress: Progress = _quiet,
) -> list[Finding]:
    """Everything that is wrong with the files of one server; empty if nothing is."""
    log_path = log_dir / LOG_NAME
    claims, _ = read_mark(log_dir / MARK_NAME)
    try:
        log = LogReader(log_path)
    except (apsw.Error, OperatorError, UnicodeDecodeError) as e:
        return [_unreadable(log_path, e, MEND_LOG)]
    findings: list[Finding] = []
    meta: LogMeta | None = None
    try:
        meta = log.meta()
        path = tree_path(data_dir, meta.generation)
        tree_zxid = _tree_zxid(path, meta)
        if tree_zxid is not None:
            findings += _check_agreement(log, meta, path, tree_zxid, claims)
        findings += _check_log_beside(log, meta, tree_zxid, progress)
    except OperatorError as e:
        findings.append(Finding(str(log_path), e.what, MEND_LOG))
    except (apsw.Error, UnicodeDecodeError) as e:
        findings.append(_unreadable(log_path, e, MEND_LOG))
    finally:
        log.close()
    if meta is not None:
        for found in check_tree_file(path, meta.id, settings or TreeSettings(), progress):
            findings.append(replace(found, mend=MEND_TREE))
    return findings


def _unreadable(path: Path, error: Exception, mend: str) -> Finding:
    if isinstance(error, OperatorError):
        return Finding(str(path), error.what, error.mend or mend)
    if isinstance(error, apsw.CantOpenError | apsw.PermissionsError | apsw.ReadOnlyError):
        mend = "is it there, and may this user read it and write to its folder? (WAL needs both)"
    return Finding(str(path), f"cannot be read: {error}", mend)


def _tree_zxid(path: Path, meta: LogMeta) -> int | None:
    """T; None if the tree cannot be opened (`check_tree_file` says why)."""
    if not path.exists():
        return None
    try:
        reader = TreeReader(path, tree_id=meta.id)
    except (apsw.Error, OperatorError, UnicodeDecodeError):
        return None
    zxid = reader.zxid
    reader.close()
    return zxid


def _check_agreement(
    log: LogReader, meta: LogMeta, path: Path, tree_zxid: int, claims: Claims | None
) -> list[Finding]:
    """What a start would refuse. The values were taken in the order that agreement.py wants."""
    fault = tree_fault(meta, tree_zxid, meta.generation, claims)
    if fault:
        return [Finding(str(path), fault, MEND_TREE)]
    reason, _ = missing(meta, log.last(), tree_zxid, claims)
    return [Finding(str(log.path), reason, GO_ON)] if reason else []


def _check_log_beside(
    log: LogReader, meta: LogMeta, tree_zxid: int | None, progress: Progress
) -> list[Finding]:
    """`check_log`, begun again when the running server has removed the rows being read."""
    while True:
        try:
            return check_log(log, meta, progress)
        except LogCorrupt as e:
            meta = log.meta()
            if meta.purged_to <= e.good:
                mend = GO_ON
                if tree_zxid is not None and e.zxid <= tree_zxid:
                    mend = (
                        "the tree holds it, a start does not need it; `zkd check --accept-log-end`"
                        " removes the log's rows up to it"
                    )
                return [Finding(str(log.path), e.what, mend)]


def check_log(log: LogReader, meta: LogMeta, progress: Progress) -> list[Finding]:
    """The rows. LogCorrupt at the first that does not fit."""
    where = str(log.path)
    found = [Finding(where, text, MEND_LOG) for text in _structure(log.db)]
    before = meta.purged_to
    total = log.last() - before
    for done, (zxid, _) in enumerate(log.read(before)):
        if not follows(zxid, before):
            found.append(Finding(where, f"0x{zxid:x} does not follow 0x{before:x}", MEND_LOG))
        before = zxid
        if done % SLICE == 0:
            progress("log", done, total)
    progress("log", total, total)
    return found


def _structure(db: apsw.Connection) -> list[str]:
    rows: list[Any] = db.execute("PRAGMA integrity_check(10)").fetchall()
    return [str(text) for (text,) in rows if text != "ok"]


def check_tree_readable(data_dir: Path, log_dir: Path) -> list[Finding]:
    """Whether SQLite can read all of the tree that log.db names. Empty also for a log that cannot
    be read, which is another matter."""
    try:
        log = LogReader(log_dir / LOG_NAME)
        try:
            meta = log.meta()
        finally:
            log.close()
    except (apsw.Error, OperatorError, UnicodeDecodeError):
        return []
    path = tree_path(data_dir, meta.generation)
    found = check_tree_file(path, meta.id, TreeSettings(), contents=False)
    return [replace(finding, mend=MEND_TREE) for finding in found]


def check_tree_file(
    path: Path,
    tree_id: bytes | None,
    settings: TreeSettings,
    progress: Progress = _quiet,
    *,
    contents: bool = True,
) -> list[Finding]:
    """One tree-N.db or snapshot, with everything in it, or its structure alone."""
    where = str(path)
    if not path.exists():
        return [Finding(where, "is missing")]
    try:
        reader = TreeReader(path, tree_id=tree_id)
    except OperatorError as e:
        return [Finding(where, e.what)]
    except (apsw.Error, UnicodeDecodeError) as e:
        return [Finding(where, f"cannot be read: {e}")]
    try:
        texts = _structure(reader.db)
        if contents and not texts:
            texts = _TreeCheck(reader, settings, progress).run()
    except (apsw.Error, UnicodeDecodeError) as e:
        texts = [f"cannot be read: {e}"]
    finally:
        reader.close()
    return [Finding(where, text) for text in texts]


def scan_all(reader: TreeReader) -> Iterator[tuple[str, bytes | None, bytes, bytes | None]]:
    """(path, data, raw stat, acl) of every node, a parent before its children, the root first."""
    root = reader.node("/")
    if root is not None:
        yield ("/", *root)
    place = ("", "")
    while rows := reader.scan(place, SLICE):
        for parent, name, *node in rows:
            yield (f"{parent}/{name}", *node)  # type: ignore[misc]
        place = rows[-1][:2]


def _all_rows(reader: TreeReader) -> Iterator[tuple[str, Any, Any, Any, bool]]:
    """As `scan_all`, but whatever there is, and whether it agrees with its checksums."""
    root = reader.unchecked("/")
    if root is not None:
        yield ("/", *root)
    place = ("", "")
    while rows := reader.scan_unchecked(place, SLICE):
        for parent, name, *row in rows:
            yield (f"{parent}/{name}", *row)
        place = rows[-1][:2]


def tree_digest(reader: TreeReader) -> int:
    """The digest over all nodes, computed from nothing."""
    total = 0
    for path, data, raw, _ in scan_all(reader):
        total += node_digest(path, data, raw)
    return total & MASK


def _is_node(data: object, raw: object, acl: object) -> bool:
    """Whether a row's values have the types and sizes of a node."""
    return (
        isinstance(data, bytes | None)
        and isinstance(raw, bytes)
        and len(raw) == stat.STAT_BYTES
        and isinstance(acl, bytes | None)
    )


class _TreeCheck:
    """The contents of one tree."""

    def __init__(self, reader: TreeReader, settings: TreeSettings, progress: Progress) -> None:
        self.reader = reader
        self.settings = settings
        self.progress = progress
        self.texts: list[str] = []
        self.kinds: dict[str, int] = {}

    def say(self, kind: str, text: str) -> None:
        count = self.kinds[kind] = self.kinds.get(kind, 0) + 1
        if count <= PER_KIND:
            self.texts.append(f"{kind}: {text}")

    def run(self) -> list[str]:
        self._nodes()
        self._children()
        self._owners()
        try:
            self.reader.sessions()
        except RowDamaged as e:
            self.say("checksum", e.what)
        for kind, count in self.kinds.items():
            if count > PER_KIND:
                self.texts.append(f"{kind}: {count - PER_KIND} more")
        return self.texts

    def _nodes(self) -> None:
        reader = self.reader
        count = size = digest = 0
        for path, data, raw, acl, intact in _all_rows(reader):
            count += 1
            if not _is_node(data, raw, acl):
                self.say("types", f"{path} holds no data, stat and ACL")
                continue
            if not intact:
                self.say("checksum", f"{path} does not agree with its own")
            size += len(path) + len(data or b"")
            digest += node_digest(path, data, raw)
            if stat.data_length(raw) != len(data or b""):
                self.say("data length", f"{path} says {stat.data_length(raw)}")
            self._owner(path, stat.owner(raw))
            if count % SLICE == 0:
                self.progress("tree", count, reader.node_count)
        self.progress("tree", count, count)
        if count + 1 != reader.node_count:
            self.say("count", f"{count} nodes, {reader.node_count - 1} were counted")
        if size != reader.data_bytes:
            self.say("bytes", f"{size}, {reader.data_bytes} were counted")
        if reader.digest and digest & MASK != reader.digest:
            self.say("digest", f"stored {reader.digest:x}, computed {digest & MASK:x}")

    def _owner(self, path: str, owner: int) -> None:
        if owner == 0:
            return
        if ephemeral.kind(owner, self.settings) == ephemeral.NORMAL:
            sql, values = "SELECT 1 FROM ephemeral WHERE owner = ? AND path = ?", (owner, path)
        else:
            sql, values = "SELECT 1 FROM special WHERE owner = ? AND path = ?", (owner, path)
        if self.reader.db.execute(sql, values).fetchone() is None:
            self.say("owner index", f"lacks {path} of 0x{owner & MASK:x}")

    def _children(self) -> None:
        """Every parent exists and knows how many children it has."""
        reader = self.reader
        rows: Any = reader.db.execute(
            "SELECT parent, count(*) FROM node WHERE name <> '' GROUP BY parent"
        )
        told = 0
        for parent, count in rows:
            node = reader.unchecked(parent)
            told += count
            if node is None:
                self.say("parent", f"{parent} is missing")
            elif _is_node(*node[:3]) and stat.num_children(node[1]) != count:
                said = stat.num_children(node[1])
                self.say("children", f"{parent or '/'} has {count}, its stat says {said}")
        total: Any = reader.db.execute(
            "SELECT count(*) FROM node WHERE substr(stat, 57, 4) <> x'00000000'"
        ).fetchone()
        parents: Any = reader.db.execute(
            "SELECT count(DISTINCT parent) FROM node WHERE name <> ''"
        ).fetchone()
        if total[0] != parents[0]:
            self.say("children", f"{total[0]} nodes claim some, {parents[0]} have some")

    def _owners(self) -> None:
        """Nothing stands in an index that is not a node."""
        rows: Any = self.reader.db.execute(
            "SELECT owner, path FROM ephemeral UNION ALL SELECT owner, path FROM special"
        )
        for owner, path in rows:
            node = self.reader.unchecked(path)
            if node is None or not _is_node(*node[:3]) or stat.owner(node[1]) != owner:
                self.say("owner index", f"has {path} of 0x{owner & MASK:x}, which is not there")
