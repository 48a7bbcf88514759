"""Checksums in tree-N.db: a flipped bit is never handed out for what was written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from zkd.errors import OperatorError
from zkd.jute.protocol import Err
from zkd.storage.check import check_tree_file
from zkd.storage.errors import RowDamaged
from zkd.storage.generation import GenerationWriter
from zkd.storage.reader import Node, TreeReader
from zkd.storage.schema import FRESH_NODES
from zkd.tree import acl as acls
from zkd.tree.errors import ClientRefusal
from zkd.tree.settings import TreeSettings
from zkd.tree.stat import STAT

OPEN = None
CLOSED = acls.encode([(31, "digest", "bob:IJRDuvF0jwVbLnSVIkt+RaVVDPI=")])
SESSIONS = {0x77: 4000, -5: 40_000}


def stat(size: int, owner: int = 0) -> bytes:
    return STAT.pack(7, 8, 9, 10, 1, 0, 0, owner, size, 0, 7)


def nodes() -> Iterator[tuple[str, bytes | None, bytes, bytes | None]]:
    for path, data, raw, acl in FRESH_NODES:
        yield path, data, raw, acl
    for i in range(6):
        data = f"value {i}".encode() * 3
        yield f"/n{i}", data, stat(len(data)), CLOSED if i % 2 else OPEN
    yield "/none", None, stat(0), OPEN
    yield "/lock", b"", stat(0, 0x77), CLOSED
    yield "/zookeeper/quota/qq", b"", stat(0), OPEN
    yield "/zookeeper/quota/qq/zookeeper_limits", b"count=9,bytes=-1", stat(16), OPEN
    yield "/zookeeper/quota/qq/zookeeper_stats", b"count=1,bytes=21", stat(16), OPEN


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    writer = GenerationWriter(tmp_path, 1, bytes(16), TreeSettings())
    writer.nodes(nodes())
    writer.sessions(SESSIONS.items())
    writer.finish(8)
    return writer.path


def read(path: Path) -> dict[str, Node]:
    reader = TreeReader(path)
    try:
        return {p: node for p, *_ in nodes() if (node := reader.node(p)) is not None}
    finally:
        reader.close()


def what_becomes(tree: Path, wanted: dict[str, Node]) -> Iterator[str]:
    """Of each node and the sessions; a value that was never written fails the test."""
    try:
        reader = TreeReader(tree)
    except (apsw.Error, OperatorError, UnicodeDecodeError):
        yield "refused"
        return
    try:
        for path, node in wanted.items():
            try:
                found = reader.node(path)
            except RowDamaged:
                yield "damaged"
                continue
            assert found in (node, None), path
            yield "same" if found else "absent"
        try:
            assert reader.sessions() in (SESSIONS, {})
            assert len(reader.quotas()) <= 1
        except (RowDamaged, apsw.Error):
            yield "damaged"
    finally:
        reader.close()


def test_no_value_is_ever_read_with_a_flipped_bit(tree: Path) -> None:
    wanted = read(tree)
    whole = tree.read_bytes()
    seen = {"same": 0, "damaged": 0, "refused": 0, "absent": 0}
    for at in range(100, len(whole)):
        if whole[at]:
            tree.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
            for what in what_becomes(tree, wanted):
                seen[what] += 1
    assert seen["damaged"] > 100
    assert seen["refused"] > 10


def test_check_finds_every_flipped_bit_of_what_is_stored(tree: Path) -> None:
    """Also in keys and indexes, where a reader cannot know; but for free space, everywhere."""
    assert check_tree_file(tree, None, TreeSettings()) == []
    whole = tree.read_bytes()
    for text in (b"value 3", b"bob:", b"count=9", b"count=1,", b"n5value", b"zookeeper_stats"):
        at = whole.index(text)
        for bit in range(8):
            damaged = bytearray(whole)
            damaged[at + 1] ^= 1 << bit
            tree.write_bytes(damaged)
            assert check_tree_file(tree, None, TreeSettings()), (text, bit)


@pytest.mark.parametrize(
    ("sql", "path", "told"),
    [
        ("UPDATE node SET acl = NULL WHERE name = 'n1'", "/n1", "/n1 does not agree"),
        ("UPDATE node SET acl = x'07' WHERE name = 'n1'", "/n1", "/n1 does not agree"),
        ("UPDATE node SET data = NULL WHERE name = 'n2'", "/n2", "/n2 does not agree"),
        ("UPDATE node SET stat = zeroblob(68) WHERE name = 'n3'", "/n3", "/n3 does not agree"),
        (
            "UPDATE node SET data = CAST('count=9,bytes=-9' AS BLOB)"
            " WHERE name = 'zookeeper_limits'",
            "/zookeeper/quota/qq/zookeeper_limits",
            "zookeeper_limits does not agree",
        ),
        (  # a row that stands under another name
            "UPDATE node SET name = 'n9' WHERE name = 'n4'",
            "/n9",
            "/n9 does not agree",
        ),
    ],
)
def test_a_changed_row_is_refused_by_reader_and_check_alike(
    tree: Path, sql: str, path: str, told: str
) -> None:
    db = apsw.Connection(str(tree))
    db.execute(sql)
    assert db.changes() == 1
    db.close()
    heard: list[RowDamaged] = []
    reader = TreeReader(tree, told=heard.append)
    with pytest.raises(RowDamaged, match=told) as caught:
        reader.node(path)
    assert reader.node("/n5") is not None, "the others are there"
    with pytest.raises(RowDamaged):
        reader.scan(("", ""))
    reader.close()
    assert heard[0] is caught.value
    assert caught.value.where == str(tree)
    assert "`zkd check`" in caught.value.mend
    assert isinstance(caught.value, ClientRefusal)
    assert caught.value.code == Err.DATA_INCONSISTENCY
    findings = check_tree_file(tree, None, TreeSettings())
    assert any(f.what.startswith("checksum: ") and path in f.what for f in findings)


def test_changed_sessions_and_meta_values_are_refused(tree: Path) -> None:
    whole = tree.read_bytes()

    def change(sql: str, *values: Any) -> None:
        tree.write_bytes(whole)
        db = apsw.Connection(str(tree))
        db.execute(sql, values)
        assert db.changes() == 1
        db.close()

    change("UPDATE session SET timeout = 5 WHERE id = 119")
    reader = TreeReader(tree)
    with pytest.raises(RowDamaged, match="session 0x77 does not agree"):
        reader.sessions()
    reader.close()
    assert (
        "checksum: what is stored of session 0x77"
        in check_tree_file(tree, None, TreeSettings())[0].what
    )
    for key in ("zxid", "digest", "node_count", "data_bytes", "generation"):
        change("UPDATE meta SET value = value + 1 WHERE key = ?", key)
        with pytest.raises(OperatorError, match="meta is damaged"):
            TreeReader(tree)
