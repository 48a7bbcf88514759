"""log.db: the transaction log, one row a transaction, each with a CRC chained to the row before.

    row(z).crc = crc32(row(z).body, row(before z).crc)        chain_base: crc before the first row
    purged_to <= every zxid in the log                        end = last row, or purged_to if none

Rows are consecutive: z + 1 follows z, or any row of a later epoch. A batch is one SQLite
transaction, so it is there as a whole or not at all. A meta value changes in the same transaction
as the rows that it belongs to.

`cut` grows with every transaction that makes the log end earlier (see files.py).
"""

from __future__ import annotations

import secrets
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw

from zkd import failpoints
from zkd.errors import OperatorError
from zkd.storage import database
from zkd.storage.errors import LogCorrupt
from zkd.storage.schema import FORMAT, LOG_SCHEMA, PUT_META, put_meta, read_meta, require

LOG_NAME = "log.db"
READ_SLICE = 256
INSERT = "INSERT INTO txn VALUES(?, ?, ?)"
SELECT = "SELECT zxid, body, crc FROM txn WHERE zxid > ? AND zxid <= ? ORDER BY zxid LIMIT ?"
FIRST = "SELECT zxid FROM txn ORDER BY zxid LIMIT 1"
LAST = "SELECT zxid, crc FROM txn ORDER BY zxid DESC LIMIT 1"
CRC_UP_TO = "SELECT zxid, crc FROM txn WHERE zxid <= ? ORDER BY zxid DESC LIMIT 1"
UNCHECKED = "SELECT zxid, body FROM txn WHERE zxid > ? ORDER BY zxid LIMIT ?"
MAX_ZXID = 0x7FFF_FFFF_FFFF_FFFF
ALL_ZXIDS = -(1 << 63)


@dataclass
class LogMeta:
    """The row values of log.db's `meta`."""

    format: int
    id: bytes
    generation: int = 0
    """The tree that belongs to this log; 0 until the first one is made."""
    incarnation: int = 0
    accepted_epoch: int = 0
    current_epoch: int = 0
    cut: int = 0
    purged_to: int = 0
    chain_base: int = 0
    losses: int = 0
    """How often the operator let the log go on below what was durable: since then the same zxid
    may be another transaction."""

    @classmethod
    def read(cls, db: apsw.Connection, path: Path) -> LogMeta:
        """From an open log.db; OperatorError if it is none of ours."""
        found = read_meta(db)
        known = {k: v for k, v in found.items() if k in cls.__dataclass_fields__}
        if found.get("format") != FORMAT or not isinstance(found.get("id"), bytes):
            raise OperatorError(
                f"not a log of this version of zkd (format {found.get('format')!r})",
                str(path),
                "use the version of zkd that wrote it",
            )
        require(db, LOG_SCHEMA, path)
        if not all(isinstance(v, int) for k, v in known.items() if k != "id"):
            raise OperatorError(
                "the table meta is damaged",
                str(path),
                "`zkd restore SNAPSHOT --replace` (docs/recovery.md)",
            )
        return cls(**known)  # type: ignore[arg-type]


def follows(zxid: int, before: int) -> bool:
    """Whether `zxid` may be the row after `before`."""
    return zxid == before + 1 or zxid >> 32 > before >> 32


class LogWriter:
    """The only writer of log.db. Errors of SQLite go through as they are: the engine judges them.

    `wal_frames` is the length of the WAL that is in use; the file itself is kept at its size.
    """

    def __init__(
        self, path: Path, *, cache_bytes: int, vfs: str = "", force_sync: bool = True
    ) -> None:
        self.path = path
        self._synchronous = "FULL" if force_sync else "OFF"
        database.settle_wal(path)
        self.db = database.open_writer(
            path, synchronous=self._synchronous, cache_bytes=cache_bytes, vfs=vfs, page_size=4096
        )
        self.wal_frames = 0
        self.db.set_wal_hook(self._wal_hook)
        self._execute = self.db.execute
        if not self.db.table_exists(None, "meta"):
            self._create()
        self.meta = LogMeta.read(self.db, path)
        self.end = self._crc = 0
        self._find_end()

    def _find_end(self) -> None:
        row: Any = self._execute(LAST).fetchone()
        self.end, self._crc = row or (self.meta.purged_to, self.meta.chain_base)

    def _create(self) -> None:
        with self.db:
            self.db.execute(LOG_SCHEMA)
            put_meta(self.db, {"format": FORMAT, "id": secrets.token_bytes(16)})

    def _wal_hook(self, db: apsw.Connection, name: str, frames: int) -> int:
        self.wal_frames = frames
        return apsw.SQLITE_OK

    # -- appending -----------------------------------------------------------------------------

    def append(self, rows: list[tuple[int, bytes]]) -> None:
        """Commit rows of (zxid, body), durably; `end` is the last of them. Nothing, or all."""
        values = _chained(rows, self.end, self._crc)
        failpoints.hit("log.before-insert")
        if len(values) == 1 and not failpoints.armed():
            self._execute(INSERT, values[0])
        else:
            self._insert(values)
        self.end, _, self._crc = values[-1]

    def _insert(self, values: list[tuple[int, bytes, int]]) -> None:
        self._execute("BEGIN IMMEDIATE")
        try:
            self.db.executemany(INSERT, values)
            failpoints.hit("log.before-commit")
            self._execute("COMMIT")
        finally:
            self._roll_back()

    def _roll_back(self) -> None:
        if self.db.in_transaction:
            self._execute("ROLLBACK")

    # -- meta ----------------------------------------------------------------------------------

    def _update(self, statements: Iterable[tuple[str, tuple[Any, ...]]], point: str) -> None:
        """Some statements in one transaction."""
        self._execute("BEGIN IMMEDIATE")
        try:
            for sql, values in statements:
                self._execute(sql, values)
            failpoints.hit(point)
            self._execute("COMMIT")
        finally:
            self._roll_back()

    def open_incarnation(self) -> int:
        """The next incarnation, committed durably."""
        number = self.meta.incarnation + 1
        self._update([(PUT_META, ("incarnation", number))], "log.incarnation")
        self.meta.incarnation = number
        return number

    def set_epochs(self, accepted: int, current: int) -> None:
        """Both epochs in one durable transaction."""
        puts = [(PUT_META, ("accepted_epoch", accepted)), (PUT_META, ("current_epoch", current))]
        self._update(puts, "log.epoch")
        self.meta.accepted_epoch = accepted
        self.meta.current_epoch = current

    # -- making it shorter ---------------------------------------------------------------------

    def crc_at(self, zxid: int) -> int:
        """The chain's value after the last row up to `zxid`."""
        row: Any = self._execute(CRC_UP_TO, (zxid,)).fetchone()
        return int(row[1]) if row else self.meta.chain_base

    def has(self, zxid: int) -> bool:
        """Whether the log may end at `zxid`: it is one of its rows, or where it begins."""
        found = self._execute("SELECT 1 FROM txn WHERE zxid = ?", (zxid,)).fetchone()
        return found is not None or zxid == self.meta.purged_to

    def truncate(self, zxid: int) -> None:
        """Remove every row above `zxid`, which stays; one durable transaction."""
        self._update(
            [
                ("DELETE FROM txn WHERE zxid > ?", (zxid,)),
                (PUT_META, ("cut", self.meta.cut + 1)),
            ],
            "log.truncate",
        )
        self.meta.cut += 1
        self._find_end()

    def give_up(self, zxid: int, tree_zxid: int, cut: int) -> None:
        """The operator's word: the log ends at `zxid`, though it had promised more (`cut`: the
        mark's, which counts less from now on). Rows below a tree that is beyond the log go too."""
        beyond = tree_zxid > self.end
        values = {"cut": max(self.meta.cut, cut) + 1, "losses": self.meta.losses + 1}
        if beyond:
            values |= {"purged_to": tree_zxid, "chain_base": 0}
        puts: list[tuple[str, tuple[Any, ...]]] = [(PUT_META, i) for i in values.items()]
        after = ALL_ZXIDS if beyond else zxid
        self._update([("DELETE FROM txn WHERE zxid > ?", (after,)), *puts], "log.truncate")
        for key, value in values.items():
            setattr(self.meta, key, value)
        self._find_end()

    def unchecked(self, after: int, limit: int) -> list[tuple[int, bytes]]:
        """(zxid, body) of rows above `after` as they are there, good or not."""
        rows: list[Any] = self._execute(UNCHECKED, (after, limit)).fetchall()
        return [(zxid, body) for zxid, body in rows if isinstance(body, bytes)]

    def name_tree(self, generation: int) -> None:
        """Name another tree, whose zxid is one of this log's; one durable transaction."""
        self._update([(PUT_META, ("generation", generation))], "log.truncate")
        self.meta.generation = generation

    def replace(
        self,
        generation: int,
        zxid: int,
        epochs: tuple[int, int] | None,
        rows: Sequence[tuple[int, bytes]] = (),
    ) -> None:
        """Name another tree that holds everything up to `zxid`: no row stays, the log begins above
        it with `rows`, in one durable transaction that sets (accepted, current) epochs too."""
        inserts = _chained(rows, zxid, 0)
        values: dict[str, int] = {
            "generation": generation,
            "purged_to": zxid,
            "chain_base": 0,
            "cut": self.meta.cut + 1,
        }
        if epochs is not None:
            values["accepted_epoch"], values["current_epoch"] = epochs
        puts: list[tuple[str, tuple[Any, ...]]] = [(PUT_META, i) for i in values.items()]
        put_rows = [(INSERT, row) for row in inserts]
        self._update([("DELETE FROM txn", ()), *puts, *put_rows], "log.truncate")
        for key, value in values.items():
            setattr(self.meta, key, value)
        self.end, _, self._crc = inserts[-1] if inserts else (zxid, b"", 0)

    def purge(self, upto: int, limit: int) -> int:
        """Remove at most `limit` of the oldest rows, none above `upto`; how many went.

        Without an fsync of its own: it may be undone by a power loss, the next append's makes it
        last."""
        rows: list[Any] = self._execute(
            "SELECT zxid, crc FROM txn WHERE zxid <= ? ORDER BY zxid LIMIT ?", (upto, limit)
        ).fetchall()
        if not rows:
            return 0
        zxid, crc = rows[-1]
        if self._synchronous == "FULL":
            self._execute("PRAGMA synchronous = NORMAL")
        try:
            self._update(
                [
                    ("DELETE FROM txn WHERE zxid <= ?", (zxid,)),
                    (PUT_META, ("purged_to", zxid)),
                    (PUT_META, ("chain_base", crc)),
                ],
                "log.purge",
            )
        finally:
            self._execute(f"PRAGMA synchronous = {self._synchronous}")
        self.meta.purged_to, self.meta.chain_base = zxid, crc
        return len(rows)

    def first(self) -> int | None:
        """The oldest zxid that is there."""
        row: Any = self._execute(FIRST).fetchone()
        return None if row is None else int(row[0])

    def count(self, after: int) -> int:
        """How many rows there are above a zxid. They are consecutive in each epoch, so only the
        ends of the epochs are looked up."""
        total = 0
        while True:
            row: Any = self._execute(
                "SELECT zxid FROM txn WHERE zxid > ? ORDER BY zxid LIMIT 1", (after,)
            ).fetchone()
            if row is None:
                return total
            first = row[0]
            next_epoch = min(((first >> 32) + 1) << 32, MAX_ZXID)
            row = self._execute(
                "SELECT zxid FROM txn WHERE zxid < ? ORDER BY zxid DESC LIMIT 1", (next_epoch,)
            ).fetchone()
            after = row[0]
            total += after - first + 1

    def used_bytes(self) -> int:
        """Bytes of log.db that hold something."""
        return 4096 * int(self.db.pragma("page_count") - self.db.pragma("freelist_count"))

    def verify(self, after: int) -> Iterator[tuple[int, bytes]]:
        """The rows above `after`, each checked; LogCorrupt at the first that does not fit."""
        return _checked(self.db, self.path, after, MAX_ZXID, self.crc_at(after))

    def close(self) -> None:
        """Close the file."""
        self.db.close()


def _chained(rows: Sequence[tuple[int, bytes]], end: int, crc: int) -> list[tuple[int, bytes, int]]:
    """Rows with their checksums, behind a log that ends at `end` with the checksum `crc`."""
    crc32 = zlib.crc32
    values = []
    for zxid, body in rows:
        assert zxid == end + 1 or zxid >> 32 > end >> 32, (hex(end), hex(zxid))
        crc = crc32(body, crc)
        end = zxid
        values.append((zxid, body, crc))
    return values


def _checked(
    db: apsw.Connection, path: Path, after: int, upto: int, crc: int
) -> Iterator[tuple[int, bytes]]:
    """Rows in (after, upto] in slices, the chain going on from `crc`."""
    good = after
    while True:
        rows: list[Any] = db.execute(SELECT, (good, upto, READ_SLICE)).fetchall()
        for zxid, body, stored in rows:
            crc = zlib.crc32(body, crc)
            in_body = int.from_bytes(body[12:20], "big", signed=True)
            if crc != stored or in_body != zxid:
                raise LogCorrupt(
                    f"transaction 0x{zxid:x} does not agree with its checksum",
                    str(path),
                    zxid=zxid,
                    good=good,
                    mend="see `zkd check`; the log is good up to "
                    f"0x{good:x}, `zkd check --accept-log-end` goes on from there",
                )
            good = zxid
            yield zxid, body
        if len(rows) < READ_SLICE:
            return


class LogReader:
    """Reads log.db beside its writer, in read transactions that last one slice each.

    A reader that is slower than the purge gets LogCorrupt with `good` = where it was.
    """

    def __init__(self, path: Path, *, cache_bytes: int = 1 << 20, vfs: str = "") -> None:
        self.path = path
        self.db = database.open_reader(path, cache_bytes, vfs)

    def meta(self) -> LogMeta:
        """The present meta values."""
        return LogMeta.read(self.db, self.path)

    def last(self) -> int:
        """Where the log ends. (Durable: a row is seen only after its commit's fsync.)"""
        with self.db:
            row: Any = self.db.execute(LAST).fetchone()
            end: int = row[0] if row else self.meta().purged_to
        return end

    def first(self) -> int | None:
        """The oldest zxid that is there."""
        row: Any = self.db.execute(FIRST).fetchone()
        return None if row is None else int(row[0])

    def floor(self, zxid: int) -> int | None:
        """The highest zxid that is there and not above this one."""
        row: Any = self.db.execute(CRC_UP_TO, (zxid,)).fetchone()
        return None if row is None else int(row[0])

    def read(self, after: int, upto: int = MAX_ZXID) -> Iterator[tuple[int, bytes]]:
        """(zxid, body) of every row in (after, upto], checked against the chain. LogCorrupt if
        rows above `after` have been purged, or one is damaged."""
        with self.db:
            meta = self.meta()
            row: Any = self.db.execute(CRC_UP_TO, (after,)).fetchone()
        if after < meta.purged_to:
            raise LogCorrupt(
                f"transactions up to 0x{meta.purged_to:x} have been removed",
                str(self.path),
                zxid=after + 1,
                good=after,
                mend="read the tree, and the log from its zxid",
            )
        return _checked(self.db, self.path, after, upto, row[1] if row else meta.chain_base)

    def close(self) -> None:
        """Close the file."""
        self.db.close()
