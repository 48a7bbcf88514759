"""The tree as a leader sends it: Apache's streams are read, and what is written is one."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_apache_format import EXTENDED, PLAIN, SETTINGS, VECTORS, imported, read, vectors

from zkd.errors import OperatorError
from zkd.storage.apache_format import FormatError
from zkd.storage.check import check_tree_file, scan_all
from zkd.storage.engine import Engine
from zkd.storage.generation import GenerationWriter
from zkd.storage.reader import TreeReader, open_tree
from zkd.storage.replay import replayer
from zkd.storage.snap_stream import StreamEnd, read_stream, write_stream

SIGNED = bytes.fromhex("0000000a42656e57617348657265")


def streams() -> list[tuple[int, bytes]]:
    """(zxid, bytes) of every recorded SNAP."""
    found: dict[int, bytes] = {}
    for talk in json.loads((VECTORS / "sequences.json").read_text()):
        zxid = 0
        for packet in talk["packets"]:
            if packet["kind"] == "SNAP":
                zxid = int(packet["zxid"], 16)
            elif packet["kind"].startswith("snapshot stream"):
                found[zxid] = bytes.fromhex(packet["hex"])
    assert found
    return sorted(found.items())


class Pieces:
    """A file that gives at most `step` bytes at a time, as a socket does."""

    def __init__(self, data: bytes, step: int) -> None:
        self.file, self.step = io.BytesIO(data), step

    def read(self, size: int, /) -> bytes:
        return self.file.read(min(size, self.step))


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[GenerationWriter]:
    made = GenerationWriter(tmp_path, 1, bytes(16), EXTENDED)
    yield made
    made.abandon()


def comparable(nodes: Any) -> dict[str, Any]:
    return {path: (data, raw[:56] + raw[60:], acl) for path, data, raw, acl in nodes}


@pytest.mark.parametrize(("zxid", "stream"), streams(), ids=lambda v: repr(v)[:12])
@pytest.mark.parametrize("step", [1, 100, 1 << 20])
def test_a_recorded_stream_is_read(
    writer: GenerationWriter, zxid: int, stream: bytes, step: int
) -> None:
    end = read_stream(Pieces(stream + b"next packet", step), writer)
    assert end.size == len(stream)
    assert b"next packet".startswith(end.rest)
    digest = writer.finish(zxid)
    assert check_tree_file(writer.path, bytes(16), EXTENDED) == []
    reader = TreeReader(writer.path)
    assert (reader.zxid, reader.digest) == (zxid, digest)
    assert len(list(scan_all(reader))) == end.nodes
    reader.close()


def test_a_stream_gives_the_tree_that_a_follower_of_apaches_made_of_it(
    writer: GenerationWriter,
) -> None:
    """snapsync-snapshot.10000002a was written by a 3.9.5 follower after that SNAP."""
    stream = dict(streams())[0x10000002A]
    read_stream(io.BytesIO(stream), writer)
    wanted, nodes = read(VECTORS / "snapsync-snapshot.10000002a")
    told = vectors()["snapsync-snapshot.10000002a"]
    assert writer.finish(0x10000002A) == int(told["treeDigestRecomputed"], 16)
    reader = TreeReader(writer.path)
    mine, theirs = comparable(scan_all(reader)), comparable(nodes)
    mine.pop("/zookeeper/config")  # the follower has put its own configuration there
    theirs.pop("/zookeeper/config")
    assert mine == theirs
    assert reader.sessions() == wanted.sessions
    reader.close()


def sent(folder: Path) -> bytes:
    reader = open_tree(folder, folder, cache_bytes=1 << 20)
    out = io.BytesIO()
    write_stream(out, reader)
    reader.close()
    return out.getvalue()


@pytest.mark.parametrize("name", PLAIN)
def test_what_is_written_is_read_back(tmp_path: Path, writer: GenerationWriter, name: str) -> None:
    mine = tmp_path / "mine"
    imported(mine, name, 7).close()
    stream = sent(mine)
    nodes = read_stream(io.BytesIO(stream), writer)
    assert nodes == StreamEnd(len(vectors()[name]["nodes"]), len(stream), b"")
    assert writer.finish(7) == int(vectors()[name]["treeDigestRecomputed"], 16)
    reader, wanted = TreeReader(writer.path), open_tree(mine, mine, cache_bytes=1 << 20)
    assert list(scan_all(reader)) == list(scan_all(wanted))
    assert reader.sessions() == wanted.sessions()
    assert (reader.node_count, reader.data_bytes) == (wanted.node_count, wanted.data_bytes)
    reader.close()
    wanted.close()


def test_a_fresh_tree_is_the_body_of_apaches_first_snapshot(tmp_path: Path) -> None:
    Engine(tmp_path, tmp_path, SETTINGS, effects_of=replayer(SETTINGS)).close()
    snapshot = (VECTORS / "standalone-snapshot.0").read_bytes()
    stream = sent(tmp_path)
    assert stream.endswith(SIGNED)
    body = stream[: -len(SIGNED)]
    assert snapshot[16 : 16 + len(body)] == body


def test_a_stream_cut_anywhere_is_refused(tmp_path: Path) -> None:
    _, stream = streams()[0]
    for size in range(0, len(stream), 7):
        made = GenerationWriter(tmp_path, 1, bytes(16), EXTENDED)
        with pytest.raises(OperatorError, match="ends too early"):
            read_stream(io.BytesIO(stream[:size]), made)
        made.abandon()
        assert list(tmp_path.iterdir()) == []


SESSION = struct.pack(">iqi", 1, 5, 4000)
ROOT = struct.pack(">iiq", 0, 0, -1) + bytes(60)


def node(path: bytes, data: bytes = b"\0\0\0\0", acl: int = -1) -> bytes:
    return struct.pack(">i", len(path)) + path + data + struct.pack(">q", acl) + bytes(60)


@pytest.mark.parametrize(
    ("stream", "why"),
    [
        (struct.pack(">i", 2) + SESSION[4:] * 2, "session occurs twice"),
        (bytes(8) + ROOT + b"\0\0\0\1/" + SIGNED[:-1] + b"E", "signature"),
        (bytes(8) + ROOT + b"\0\0\0\1/" + b"\0\0\0\1/", "signature"),
        (bytes(8) + node(b"a"), "no path"),
        (bytes(8) + node(b"/a/"), "no path"),
        (bytes(8) + node(b"/a", acl=3), "ACL 3"),
        (bytes(8) + node(b"/a", data=b"\x7f\xff\xff\xff"), "impossible length"),
        (bytes(8) + b"\x7f\xff\xff\xff", "impossible length"),
        (bytes(8) + b"\xff\xff\xff\xff", "string is missing"),
        (bytes(8) + (node(b"/a") + node(b"/a")) + b"\0\0\0\1/" + SIGNED, "twice"),
    ],
)
def test_a_stream_that_makes_no_sense_is_refused(
    writer: GenerationWriter, stream: bytes, why: str
) -> None:
    with pytest.raises(OperatorError, match=why):
        read_stream(io.BytesIO(stream), writer)


def test_a_node_without_its_parent_is_found_at_the_end(writer: GenerationWriter) -> None:
    stream = bytes(8) + ROOT + node(b"/a/b") + b"\0\0\0\1/" + SIGNED
    assert read_stream(io.BytesIO(stream), writer).nodes == 2
    with pytest.raises(OperatorError, match="/a is missing"):
        writer.finish(1)


def test_a_string_longer_than_the_limit_is_refused_before_it_comes(
    writer: GenerationWriter,
) -> None:
    stream = bytes(8) + node(b"/a", data=struct.pack(">i", 1001) + bytes(1001))
    with pytest.raises(FormatError, match="impossible length"):
        read_stream(io.BytesIO(stream), writer, limit=1000)
