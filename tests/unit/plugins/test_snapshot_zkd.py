"""zkd's own snapshot format: what is written is read again, what is damaged is refused."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

import apsw
import pytest

import zkd_snapshot_zkd as plugin
from zkd.plugins.api import SnapshotFormat, SnapshotNode, SnapshotSource
from zkd.plugins.trees import TreeSource
from zkd.tree.digest import MASK, node_digest

ZXID = 0x1_0000_0007
SESSION = 0x100_0000_0001
CONTAINER = -(1 << 63)
TTL = -0x0100_0000_0000_0000 | 5000
ACL = b"\0\0\0\0"


def stat(owner: int = 0, data: bytes | None = b"", children: int = 0) -> bytes:
    return struct.pack(">qqqqiiiqiiq", 1, 2, 3, 4, 5, 6, 7, owner, len(data or b""), children, 8)


NODES = (
    SnapshotNode("/", b"", stat(children=4), None),
    SnapshotNode("/a", b"data", stat(data=b"data", children=1), ACL),
    SnapshotNode("/c", None, stat(CONTAINER), None),
    SnapshotNode("/e", b"", stat(SESSION), None),
    SnapshotNode("/t\u00fc", b"", stat(TTL), None),
    SnapshotNode("/a/b", bytes(1000), stat(data=bytes(1000)), None),
)


class Source(SnapshotSource):
    def __init__(self, nodes: tuple[SnapshotNode, ...] = NODES) -> None:
        self.zxid = ZXID
        self._nodes = nodes
        total = sum(node_digest(node.path, node.data, node.stat) for node in nodes)
        self.digest = total & MASK

    def sessions(self) -> Mapping[int, int]:
        return {SESSION: 4000}

    def nodes(self) -> Iterator[SnapshotNode]:
        return iter(self._nodes)


@pytest.fixture
def form() -> SnapshotFormat:
    (form,) = plugin.zkd_snapshot_formats({"extendedTypesEnabled": "true"})
    return form


def test_what_is_written_is_read_again(form: SnapshotFormat, tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    form.write(Source(), path)
    assert form.verify(path) == ZXID
    source = form.read(path)
    assert isinstance(source, TreeSource)
    try:
        assert (source.zxid, source.digest) == (ZXID, Source().digest)
        assert source.sessions() == {SESSION: 4000}
        assert sorted(source.nodes(), key=lambda node: node.path) == sorted(
            NODES, key=lambda node: node.path
        )
        seen: set[str] = set()
        for node in source.nodes():
            assert node.path == "/" or (node.path.rpartition("/")[0] or "/") in seen
            seen.add(node.path)
        form.write(source, tmp_path / "again.db")
    finally:
        source.close()
    assert form.verify(tmp_path / "again.db") == ZXID


def test_a_snapshot_is_one_file_that_is_not_overwritten(
    form: SnapshotFormat, tmp_path: Path
) -> None:
    path = tmp_path / "s.db"
    (tmp_path / "s.db.part").write_text("of a snapshot that was interrupted")
    form.write(Source(), path)
    with pytest.raises(FileExistsError):
        form.write(Source(), path)
    assert [file.name for file in tmp_path.iterdir()] == ["s.db"]


def test_a_source_that_fails_leaves_nothing(form: SnapshotFormat, tmp_path: Path) -> None:
    class Broken(Source):
        def nodes(self) -> Iterator[SnapshotNode]:
            yield NODES[0]
            raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        form.write(Broken(), tmp_path / "s.db")
    assert [file.name for file in tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        ("DELETE FROM node WHERE parent = '' AND name = 'a'", "parent"),
        ("UPDATE node SET data = x'00' WHERE name = 'a'", "data length"),
        ("UPDATE node SET acl = x'00' WHERE name = 'a'", "checksum: /a "),
        ("UPDATE meta SET value = 7 WHERE key = 'digest'", "meta is damaged"),
        ("UPDATE session SET timeout = 5", "checksum: what is stored of session"),
        ("DELETE FROM ephemeral", "owner index"),
        ("DELETE FROM meta WHERE key = 'zxid'", "meta is damaged"),
    ],
)
def test_a_damaged_snapshot_is_refused_with_what_is_wrong(
    form: SnapshotFormat, tmp_path: Path, sql: str, told: str
) -> None:
    path = tmp_path / "s.db"
    form.write(Source(), path)
    db = apsw.Connection(str(path))
    db.execute(sql)
    db.close()
    with pytest.raises(ValueError, match=told):
        form.verify(path)


def test_what_is_no_snapshot_is_refused(form: SnapshotFormat, tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    path.write_bytes(b"ZKSN" + bytes(5000))
    for read in (form.read, form.verify):
        with pytest.raises(ValueError, match=r"s\.db: "):
            read(path)
    with pytest.raises(ValueError, match="is missing"):
        form.verify(tmp_path / "none.db")
