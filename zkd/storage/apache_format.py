"""Apache ZooKeeper's files: snapshots (read and write) and transaction logs (read).

Both are streams: neither the nodes nor the records are held in memory. Snapshot: header, sessions,
ACLs, nodes (parents first, the root as ""), then up to three sections, each closed by a seal, the
Adler-32 of all bytes before it. Older servers write fewer sections: a file may end after a seal.
Sessions, ACLs and nodes by themselves (`read_sessions` and so on, `write_tree`) are what a leader
sends too: see snap_stream.py.
Sources: spec/txn-and-storage-formats.md 3 and 4; `FileSnap.java`, `FileTxnLog.java`,
`DataTree.java`, `SnapStream.java` of Apache ZooKeeper.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from struct import Struct
from typing import BinaryIO, Protocol, cast
from zlib import adler32

from zkd.errors import OperatorError
from zkd.storage.check import scan_all
from zkd.storage.generation import NodeRow
from zkd.storage.reader import TreeReader
from zkd.storage.snappy import SnappyError, SnappyReader
from zkd.tree import acl as acls
from zkd.tree.digest import DIGEST_VERSION

SNAPSHOT_MAGIC = b"ZKSN"
LOG_MAGIC = b"ZKLG"
FILE_VERSION = 2
NO_ACL = -1
"""The id of world:anyone:31, which is in no list."""
FIELD_MAX = 1 << 30
ACLS_MAX = 256 << 20
"""Bytes of all lists of ACLs: they are held in memory while the nodes are read."""
CHUNK = 1 << 18
END_OF_RECORD = b"B"

_INT = Struct(">i")
_LONG = Struct(">q")
_SESSION = Struct(">qi")
_DIGEST = Struct(">qiQ")
_HEADER = Struct(">4siq")
_RECORD = Struct(">qi")
_END_OF_NODES = b"\0\0\0\1/"


class Readable(Protocol):
    """What is read from."""

    def read(self, size: int, /) -> bytes: ...


class Writable(Protocol):
    """What is written to."""

    def write(self, data: bytes, /) -> object: ...


class FormatError(OperatorError):
    """A file is not what its format says."""

    def __init__(self, what: str, where: str) -> None:
        super().__init__(what, where, "use another snapshot or log of the same server")


class Source:
    """Reads from a file, keeping the Adler-32 of all that was taken.

    Only `read` of the file is used; it may give less than was asked for, and nothing at its end.
    """

    def __init__(self, file: Readable, name: str, field_max: int = FIELD_MAX) -> None:
        """`field_max`: the longest string or buffer that is taken."""
        self._file = file
        self.name = name
        self._field_max = field_max
        self._buffer = b""
        self._at = 0
        self._summed = 0
        self._sum = 1
        self._before = 0

    @property
    def offset(self) -> int:
        return self._before + self._at

    def adler(self) -> int:
        """Of everything taken so far."""
        self._sum = adler32(memoryview(self._buffer)[self._summed : self._at], self._sum)
        self._summed = self._at
        return self._sum

    def has(self, size: int) -> bool:
        """Whether `size` more bytes are there; they are in the buffer then."""
        if len(self._buffer) - self._at >= size:
            return True
        self.adler()
        parts = [self._buffer[self._at :]]
        there = len(parts[0])
        self._before += self._at
        while there < size:
            part = self._read(max(CHUNK, size - there))
            if not part:
                break
            parts.append(part)
            there += len(part)
        self._buffer = b"".join(parts)
        self._at = self._summed = 0
        return there >= size

    def _read(self, size: int) -> bytes:
        try:
            return self._file.read(size)
        except (OSError, EOFError, SnappyError, zlib.error) as e:
            raise self.error(f"cannot be unpacked: {e}") from e

    def take(self, size: int) -> bytes:
        if len(self._buffer) - self._at < size and not self.has(size):
            raise self.error("ends too early")
        start = self._at
        self._at = start + size
        return self._buffer[start : self._at]

    def int_(self) -> int:
        return int(_INT.unpack(self.take(4))[0])

    def long(self) -> int:
        return int(_LONG.unpack(self.take(8))[0])

    def field(self) -> bytes | None:
        size = self.int_()
        if size == -1:
            return None
        if not 0 <= size <= self._field_max:
            raise self.error(f"an impossible length ({size})")
        return self.take(size)

    def text(self) -> str:
        found = self.field()
        if found is None:
            raise self.error("a string is missing")
        return found.decode("utf-8", "replace")

    def rest(self) -> bytes:
        """What was read from the file and not taken."""
        return self._buffer[self._at :]

    def error(self, what: str) -> FormatError:
        return FormatError(what, f"{self.name}, byte {self.offset}")


def read_sessions(source: Source) -> Iterator[tuple[int, int]]:
    """(session, timeout in ms)."""
    for _ in range(source.int_()):
        session, timeout = _SESSION.unpack(source.take(_SESSION.size))
        yield session, timeout


def read_acls(source: Source) -> dict[int, bytes | None]:
    """The lists by their number."""
    found: dict[int, bytes | None] = {NO_ACL: None}
    start = source.offset
    for _ in range(source.int_()):
        number = source.long()
        entries: list[acls.AclEntry] = []
        for _ in range(source.int_()):
            entries.append((source.int_(), source.text(), source.text()))
        found[number] = acls.compact(acls.encode(entries))
        if source.offset - start > ACLS_MAX:
            raise source.error(f"more than {ACLS_MAX} bytes of ACLs")
    return found


def read_nodes(source: Source, lists: Mapping[int, bytes | None]) -> Iterator[NodeRow]:
    """(path, data, raw stat, acl), parents first; numChildren is 0 in every stat."""
    while True:
        path = source.text()
        if path == "/":
            return
        if path and (path[0] != "/" or path[-1] == "/"):
            raise source.error(f"{path!r} is no path")
        data = source.field()
        number = source.long()
        stat = source.take(60)
        if number not in lists:
            raise source.error(f"{path or '/'} has the ACL {number}, which is not there")
        length = len(data) if data else 0
        raw = stat[:52] + _INT.pack(length) + bytes(4) + stat[52:]
        yield path or "/", data, raw, lists[number]


@dataclass(frozen=True)
class ZxidDigest:
    """A tree's digest at a zxid, as a snapshot carries it (version 2; unsigned)."""

    zxid: int
    digest: int


class SnapshotReader:
    """A snapshot being read: `sessions` at once, then `nodes()` to the end, then the rest.

    Raises FormatError with the place; the seals are checked on the way, so what `nodes` has
    handed out is proven only when it has ended.
    """

    def __init__(self, file: BinaryIO, name: str = "snapshot") -> None:
        self._source = source = Source(file, name)
        magic, _, self.dbid = _HEADER.unpack(source.take(_HEADER.size))
        if magic != SNAPSHOT_MAGIC:
            raise FormatError("not a snapshot of Apache ZooKeeper", name)
        self.sessions = dict(read_sessions(source))
        self._acls = read_acls(source)
        self.count = 0
        self.digest: ZxidDigest | None = None
        """Known when `nodes` has ended, if the file has it."""
        self.last_zxid: int | None = None
        """The zxid when the snapshot was complete, if the file has it."""

    def nodes(self) -> Iterator[NodeRow]:
        """(path, data, raw stat, acl), parents first, once; numChildren is 0 in every stat."""
        source = self._source
        for node in read_nodes(source, self._acls):
            self.count += 1
            yield node
        self._seal()
        if source.has(_DIGEST.size):
            zxid, version, digest = _DIGEST.unpack(source.take(_DIGEST.size))
            if version == DIGEST_VERSION:
                self.digest = ZxidDigest(zxid, digest)
            self._seal()
        if source.has(_LONG.size):
            self.last_zxid = source.long()
            self._seal()

    def _seal(self) -> None:
        source = self._source
        wanted = source.adler()
        if source.long() != wanted or source.text() != "/":
            raise source.error("the checksum of a snapshot does not fit")


def open_snapshot(path: Path) -> BinaryIO:
    """The uncompressed bytes of a snapshot file; its name's ending says how it is packed."""
    if path.suffix == ".gz":
        return cast(BinaryIO, gzip.open(path, "rb"))
    file = path.open("rb")
    if path.suffix != ".snappy":
        return file
    try:
        return io.BufferedReader(SnappyReader(file), CHUNK)
    except SnappyError as e:
        file.close()
        raise FormatError(str(e), str(path)) from e


class Sink:
    """Writes to a file in large pieces, keeping the Adler-32 of everything."""

    def __init__(self, file: Writable) -> None:
        self._file = file
        self._parts: list[bytes] = []
        self._size = 0
        self._sum = 1

    def put(self, data: bytes) -> None:
        self._parts.append(data)
        self._size += len(data)
        if self._size >= CHUNK:
            self.flush()

    def flush(self) -> None:
        data = b"".join(self._parts)
        self._sum = adler32(data, self._sum)
        self._file.write(data)
        self._parts.clear()
        self._size = 0

    def seal(self) -> None:
        self.flush()
        self.put(_LONG.pack(self._sum) + _END_OF_NODES)


def write_tree(
    sink: Sink,
    nodes: Iterable[NodeRow],
    *,
    sessions: Mapping[int, int],
    acl_lists: Iterable[bytes | None],
) -> int:
    """Sessions, ACLs and nodes, as `write_snapshot` takes them; how many nodes."""
    sink.put(_INT.pack(len(sessions)))
    for session, timeout in sessions.items():
        sink.put(_SESSION.pack(session, timeout))
    ids: dict[bytes | None, bytes] = {None: _LONG.pack(NO_ACL)}
    lists = [acl for acl in acl_lists if acl is not None]
    sink.put(_INT.pack(len(lists)))
    for number, listed in enumerate(lists, 1):
        ids[listed] = _LONG.pack(number)
        sink.put(ids[listed] + listed)
    count = 0
    for path, data, raw, acl in nodes:
        name = b"" if path == "/" else path.encode()
        size = -1 if data is None else len(data)
        sink.put(
            b"".join(
                (
                    _INT.pack(len(name)),
                    name,
                    _INT.pack(size),
                    data or b"",
                    ids[acl],
                    raw[:52],
                    raw[60:],
                )
            )
        )
        count += 1
    sink.put(_END_OF_NODES)
    return count


def write_snapshot(
    file: BinaryIO,
    nodes: Iterable[NodeRow],
    *,
    sessions: Mapping[int, int],
    acl_lists: Iterable[bytes | None],
    zxid: int,
    digest: int | None,
) -> int:
    """Write a snapshot that Apache ZooKeeper 3.5 to 3.9 loads; how many nodes it has.

    `nodes`: parents before children, the root first. `acl_lists`: every list that occurs (they
    stand before the nodes; KeyError for one that is missing). `digest`: the tree's at `zxid`.
    """
    sink = Sink(file)
    sink.put(_HEADER.pack(SNAPSHOT_MAGIC, FILE_VERSION, -1))
    count = write_tree(sink, nodes, sessions=sessions, acl_lists=acl_lists)
    sink.seal()
    known = (0, DIGEST_VERSION, 0) if digest is None else (zxid, DIGEST_VERSION, digest)
    sink.put(_DIGEST.pack(*known))
    sink.seal()
    sink.put(_LONG.pack(zxid))
    sink.seal()
    sink.flush()
    return count


def export_snapshot(reader: TreeReader, file: BinaryIO) -> int:
    """The tree that `reader` holds, as Apache ZooKeeper's snapshot; the number of nodes. The
    file's name must be `snapshot.<zxid in hex>`: Java takes the zxid from there."""
    return write_snapshot(
        file,
        scan_all(reader),
        sessions=reader.sessions(),
        acl_lists=reader.acl_lists(),
        zxid=reader.zxid,
        digest=reader.digest or None,
    )


@dataclass(frozen=True)
class LogRecord:
    """One transaction of a log file: header, record, digest as on the wire; its place."""

    offset: int
    zxid: int
    body: bytes


def read_txn_log(file: BinaryIO, name: str = "log") -> Iterator[LogRecord]:
    """The records of a transaction log.

    Ends silently where Apache ZooKeeper does: at the end, at padding, or at a partial record (the
    next file goes on). FormatError for a wrong header or checksum.
    """
    source = Source(file, name)
    if not source.has(1):
        return
    magic, _, _ = _HEADER.unpack(source.take(_HEADER.size))
    if magic != LOG_MAGIC:
        raise FormatError("not a transaction log of Apache ZooKeeper", name)
    while source.has(_RECORD.size):
        offset = source.offset
        checksum, size = _RECORD.unpack(source.take(_RECORD.size))
        if size == 0 or not source.has(size + 1 if size > 0 else 0):
            return
        if not 32 <= size <= FIELD_MAX:
            raise source.error(f"an impossible length ({size})")
        body = source.take(size)
        if source.take(1) != END_OF_RECORD:
            return
        if adler32(body) != checksum:
            raise FormatError("the checksum of a transaction does not fit", f"{name}, {offset}")
        yield LogRecord(offset, int(_LONG.unpack_from(body, 12)[0]), body)
