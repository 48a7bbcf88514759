"""Files that Apache ZooKeeper wrote are read, and what is written here it reads."""

from __future__ import annotations

import gzip
import io
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from storage_model import SMALL

from tests import apache
from zkd.storage.apache_format import (
    FormatError,
    SnapshotReader,
    export_snapshot,
    open_snapshot,
    read_txn_log,
    write_snapshot,
)
from zkd.storage.check import check, scan_all
from zkd.storage.engine import Engine
from zkd.storage.reader import open_tree
from zkd.storage.replay import replayer
from zkd.storage.settings import StorageSettings
from zkd.storage.snappy import SnappyError, decode_block
from zkd.tree import acl
from zkd.tree.digest import MASK, node_digest
from zkd.tree.settings import TreeSettings

VECTORS = Path(__file__).parents[2] / "vectors"
PLAIN = [
    "standalone-snapshot.0",
    "standalone-snapshot.13",
    "leader-snapshot.200000004",
    "snapsync-snapshot.10000002a",
]
EXTENDED = TreeSettings(extended_types_enabled=True)
SETTINGS = StorageSettings(tree=EXTENDED, reserve_bytes=0, log_wal_bytes=65536)
STAT = struct.Struct(">qqqqiiiqiiq")
FIELDS = ("czxid", "mzxid", "ctime", "mtime", "version", "cversion", "aversion")


def vectors() -> dict[str, Any]:
    return json.loads((VECTORS / "snapshots.json").read_text())  # type: ignore[no-any-return]


def read(path: Path) -> tuple[SnapshotReader, list[Any]]:
    with open_snapshot(path) as file:
        snapshot = SnapshotReader(file, path.name)
        return snapshot, list(snapshot.nodes())


def signed(text: str) -> int:
    value = int(text, 16)
    return value - (1 << 64) if value >> 63 else value


@pytest.mark.parametrize("name", PLAIN)
def test_a_snapshot_is_read_as_it_was_written(name: str) -> None:
    wanted = vectors()[name]
    snapshot, nodes = read(VECTORS / name)
    assert snapshot.sessions == {signed(k): v for k, v in wanted["sessions"].items()}
    assert len(nodes) == len(wanted["nodes"]) == snapshot.count
    for (path, data, raw, acl_list), node in zip(nodes, wanted["nodes"], strict=True):
        stat = STAT.unpack(raw)
        assert path == (node["path"] or "/")
        assert data == (None if node["data"] is None else bytes.fromhex(node["data"]))
        assert stat[:7] == tuple(node["stat"][field] for field in FIELDS)
        assert stat[7] == signed(node["stat"]["eph"])
        assert stat[8:] == (len(data or b""), 0, node["stat"]["pzxid"])
        entries = wanted["acls"].get(str(node["acl"]), [[31, "world", "anyone"]])
        assert acl.parse(acl_list) == tuple(tuple(entry) for entry in entries)
    digest = sum(node_digest(path, data, raw) for path, data, raw, _ in nodes) & MASK
    assert digest == int(wanted["treeDigestRecomputed"], 16)
    told = int(wanted["digestSection"]["digest"], 16)
    assert snapshot.digest is not None
    assert snapshot.digest.digest in (told, digest)
    assert snapshot.last_zxid == int(wanted["lastZxidSection"], 16)


@pytest.mark.parametrize("ending", ["gz", "snappy"])
def test_packed_snapshots_hold_the_same(ending: str) -> None:
    plain, nodes = read(VECTORS / "standalone-snapshot.13")
    packed, same = read(VECTORS / f"standalone-snapshot.13.{ending}")
    assert sorted(nodes) == sorted(same)
    assert packed.sessions == plain.sessions


def test_a_fresh_tree_is_written_byte_for_byte(tmp_path: Path) -> None:
    Engine(tmp_path, tmp_path, SMALL, effects_of=replayer(SMALL)).close()
    reader = open_tree(tmp_path, tmp_path, cache_bytes=1 << 20)
    out = io.BytesIO()
    count = write_snapshot(
        out, scan_all(reader), sessions={}, acl_lists=reader.acl_lists(), zxid=0, digest=None
    )
    reader.close()
    assert count == 4
    assert out.getvalue() == (VECTORS / "standalone-snapshot.0").read_bytes()


def imported(folder: Path, name: str, zxid: int) -> Engine:
    """An engine whose tree is that snapshot."""
    engine = Engine(folder, folder, SETTINGS, effects_of=replayer(SETTINGS))
    writer = engine.new_generation()
    with open_snapshot(VECTORS / name) as file:
        snapshot = SnapshotReader(file)
        writer.nodes(snapshot.nodes())
        writer.sessions(snapshot.sessions.items())
    digest = writer.finish(zxid)
    assert digest == int(vectors()[name]["treeDigestRecomputed"], 16)
    engine.switch_generation(zxid)
    return engine


@pytest.mark.parametrize("name", PLAIN)
def test_import_and_export_keep_everything(tmp_path: Path, name: str) -> None:
    zxid = int(name.rpartition(".")[2], 16)
    imported(tmp_path, name, zxid).close()
    assert check(tmp_path, tmp_path, EXTENDED) == []
    reader = open_tree(tmp_path, tmp_path, cache_bytes=1 << 20)
    path = tmp_path / f"snapshot.{zxid:x}"
    with path.open("wb") as file:
        export_snapshot(reader, file)
    assert dict(reader.specials()).keys() <= {"/c", "/t"}
    reader.close()
    old, nodes = read(VECTORS / name)
    new, same = read(path)
    assert sorted(nodes) == sorted(same)
    assert (old.sessions, old.last_zxid) == (new.sessions, new.last_zxid)
    assert new.digest is not None
    assert new.digest.zxid == zxid


@pytest.mark.parametrize("name", ["standalone-snapshot.13", "standalone-snapshot.13.snappy"])
def test_a_flipped_bit_or_a_missing_end_is_found(tmp_path: Path, name: str) -> None:
    content = (VECTORS / name).read_bytes()
    path = tmp_path / name
    whole = name.endswith("13")
    packed = 0
    _, nodes = read(VECTORS / name)
    for at in range(0, len(content), 11):
        path.write_bytes(content[:at] + bytes([content[at] ^ 0x20]) + content[at + 1 :])
        try:
            assert read(path)[1] == nodes, "a copy of the same bytes from elsewhere"
            packed += 1
        except FormatError:
            pass
    assert packed == 0 if whole else packed < 20
    readable = 0
    for size in range(0, len(content), 1 if whole else 5):
        path.write_bytes(content[:size])
        try:
            read(path)
            readable += 1
        except FormatError:
            pass
    # Sections after the first seal may be missing; less than a number behind one is not a section.
    assert readable <= 2 + 20 + 8 if whole else readable == 0


def log_bodies(name: str) -> list[bytes]:
    with (VECTORS / name).open("rb") as file:
        return [record.body for record in read_txn_log(file, name)]


@pytest.mark.parametrize(
    ("name", "count", "last"),
    [("standalone-log.1", 19, 0x13), ("ensemble-log.100000001", 71, 0x300000010)],
)
def test_a_transaction_log_is_read(name: str, count: int, last: int) -> None:
    content = (VECTORS / name).read_bytes()
    records = list(read_txn_log(io.BytesIO(content)))
    assert (len(records), records[-1].zxid) == (count, last)
    end = records[-1].offset + 12 + len(records[-1].body) + 1
    for cut in range(records[-2].offset + 1, end):
        left = len(list(read_txn_log(io.BytesIO(content[:cut]))))
        whole = cut >= records[-1].offset
        assert left == count - 1 if whole else left == count - 2
    damaged = bytearray(content)
    damaged[records[5].offset + 40] ^= 1
    with pytest.raises(FormatError, match="checksum"):
        list(read_txn_log(io.BytesIO(bytes(damaged))))
    assert list(read_txn_log(io.BytesIO(b""))) == []
    with pytest.raises(FormatError, match="not a transaction log"):
        list(read_txn_log(io.BytesIO(b"x" * 100)))


def test_the_engine_replays_apaches_log_into_apaches_tree(tmp_path: Path) -> None:
    """standalone-snapshot.13 is the tree after standalone-log.1."""
    engine = Engine(tmp_path, tmp_path, SETTINGS, effects_of=replayer(SETTINGS))
    engine.open_incarnation()
    engine.log.append(
        [(int.from_bytes(b[12:20], "big"), b) for b in log_bodies("standalone-log.1")]
    )
    engine.close()
    engine = Engine(tmp_path, tmp_path, SETTINGS, effects_of=replayer(SETTINGS))
    assert (engine.replayed, engine.durable) == (19, 0x13)
    engine.close()
    assert check(tmp_path, tmp_path, EXTENDED) == []
    reader = open_tree(tmp_path, tmp_path, cache_bytes=1 << 20)
    wanted, nodes = read(VECTORS / "standalone-snapshot.13")
    mine = {p: (d, raw[:56] + raw[60:], a) for p, d, raw, a in scan_all(reader)}
    assert mine == {p: (d, raw[:56] + raw[60:], a) for p, d, raw, a in nodes}
    assert reader.sessions() == wanted.sessions
    assert reader.digest == int(vectors()["standalone-snapshot.13"]["treeDigestRecomputed"], 16)
    reader.close()


@pytest.fixture
def loaded(tmp_path: Path) -> Iterator[tuple[Path, apache.ApacheServer]]:
    """Apache ZooKeeper started on what was exported here."""
    reason = apache.missing()
    if reason:
        pytest.skip(reason)
    mine = tmp_path / "mine"
    imported(mine, "standalone-snapshot.13", 0x13).close()
    target = tmp_path / "apache" / "data" / "version-2"
    target.mkdir(parents=True)
    reader = open_tree(mine, mine, cache_bytes=1 << 20)
    with (target / "snapshot.13").open("wb") as file:
        export_snapshot(reader, file)
    reader.close()
    with apache.start(tmp_path / "apache") as server:
        yield mine, server


@pytest.mark.apache
def test_apache_zookeeper_loads_what_was_exported(
    loaded: tuple[Path, apache.ApacheServer],
) -> None:
    mine, server = loaded
    reader = open_tree(mine, mine, cache_bytes=1 << 20)
    nodes = {p: d for p, d, _, _ in scan_all(reader)}
    reader.close()
    assert f"Node count: {len(nodes) + 1}" in apache.four_letters(server.port, "srvr")
    code, out, err = apache.shell(server, "get", "-s", "/a")
    assert (code, "v1" in out) == (0, True), (out, err)
    assert "cZxid = 0x2" in out


def test_snappy_blocks_that_make_no_sense_are_refused() -> None:
    assert decode_block(b"\x05\x00a\x01\x01" + b"") == b"aaaaa"
    for block in (b"", b"\x05", b"\x05\x00a", b"\x05\x00a\x01\x02", b"\xff" * 12, b"\x01\x00"):
        with pytest.raises(SnappyError):
            decode_block(block)


def test_gzip_that_ends_early_is_named(tmp_path: Path) -> None:
    path = tmp_path / "snapshot.0.gz"
    content = gzip.compress((VECTORS / "standalone-snapshot.0").read_bytes())
    path.write_bytes(content[:-20])
    with pytest.raises(FormatError, match="unpacked"):
        read(path)
