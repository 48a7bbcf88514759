"""What Apache ZooKeeper 3.9.5 wrote, reproduced bit for bit (tests/vectors)."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
from tree_support import VECTORS, MemoryBase, Node, Registry, raw_stat

from zkd.jute import txn
from zkd.jute.protocol import Err, Op
from zkd.tree import effects as fx
from zkd.tree.digest import node_digest
from zkd.tree.prepare import Preparer
from zkd.tree.settings import TreeSettings
from zkd.tree.state import TreeState

SETTINGS = TreeSettings(extended_types_enabled=True, skip_acl=True)


def log_entries(name: str) -> Iterator[bytes]:
    """The entries of a log file, their checksums compared."""
    data = (VECTORS / name).read_bytes()
    pos = 16
    while True:
        checksum, size = struct.unpack_from(">qi", data, pos)
        if size == 0:
            return
        entry = data[pos + 12 : pos + 12 + size]
        assert zlib.adler32(entry) == checksum
        yield entry
        pos += 13 + size


def fresh_state() -> TreeState:
    return TreeState(MemoryBase(), cache_bytes=1 << 20, settings=SETTINGS)


def test_the_empty_tree_has_the_known_digest() -> None:
    assert MemoryBase().digest == 0x51C6D660


@pytest.mark.parametrize(
    "vector",
    [one for one in json.loads((VECTORS / "digests.json").read_text()) if one.get("nodes")],
    ids=lambda one: one["name"],
)
def test_node_digests_add_up_to_the_trees(vector: dict[str, Any]) -> None:
    total = 0
    for node in vector["nodes"]:
        stat = node["stat"]
        owner = int(stat["eph"], 16)
        raw = raw_stat(
            **{key: stat[key] for key in stat if key != "eph"},
            owner=owner - (1 << 64) if owner >> 63 else owner,
        )
        digest = node_digest(node["path"] or "/", bytes.fromhex(node["data"] or ""), raw)
        assert digest == int(node["nodeDigest"], 16), node["path"]
        total += digest
    assert f"{total & (1 << 64) - 1:#x}" == vector["treeDigest"]


@pytest.mark.parametrize("name", ["standalone-log.1", "ensemble-log.100000001"])
def test_replaying_a_log_gives_every_digest_in_it(name: str) -> None:
    state = fresh_state()
    base = MemoryBase()
    digests = 0
    for entry in log_entries(name):
        applied = state.process(entry)
        base.install(applied.effects, applied.zxid)
        if applied.digest is not None:
            digests += 1
            assert applied.digest == state.digest == base.digest, hex(applied.zxid)
    assert digests > 15
    assert state.digest_mismatches == 0
    assert (state.node_count, state.data_bytes) == (base.node_count, base.data_bytes)


def test_digests_after_each_transaction_are_the_recorded_ones() -> None:
    state = fresh_state()
    recorded = {
        int(vector["name"].split()[2], 16): int(vector["treeDigest"], 16)
        for vector in json.loads((VECTORS / "digests.json").read_text())
        if vector["name"].startswith("after zxid")
    }
    seen = 0
    for entry in log_entries("standalone-log.1"):
        state.apply(entry)
        if state.zxid in recorded:
            seen += 1
            assert state.digest == recorded[state.zxid]
    assert seen == len(recorded) > 10


def requests() -> dict[tuple[int, int, int], bytes]:
    """Requests that learners sent to the leader: (session, cxid, type) to body."""
    found: dict[tuple[int, int, int], bytes] = {}
    for sequence in json.loads((VECTORS / "sequences.json").read_text()):
        for packet in sequence["packets"]:
            if packet["kind"] != "REQUEST":
                continue
            raw = bytes.fromhex(packet["hex"])
            (size,) = struct.unpack_from(">i", raw, 12)
            data = raw[16 : 16 + size]
            session, cxid, kind = struct.unpack_from(">qii", data)
            found[session, cxid, kind] = data[16:]
    return found


def same_txn(ours: bytes, theirs: bytes) -> bool:
    """Equal, but for the order of a closed session's paths, which is that of a hash set."""
    if ours == theirs:
        return True
    one, other = txn.decode(ours), txn.decode(theirs)
    if one.header.type != Op.CLOSE_SESSION or one.header != other.header:
        return False
    return one.digest == other.digest and len(ours) == len(theirs)


def test_requests_become_the_leaders_proposals() -> None:
    """A history of three epochs: what was asked is prepared, what was not captured is replayed."""
    asked = requests()
    state = fresh_state()
    preparer = Preparer(state, SETTINGS, Registry())
    prepared = set()
    for entry in log_entries("ensemble-log.100000001"):
        header = txn.TxnHeader.decode(entry)
        body = None
        for kind in (header.type, *range(-11, 23)):
            body = asked.get((header.session, header.cxid, kind)) if body is None else body
            if body is not None:
                break
        if body is None or header.cxid == 0 or kind == Op.RECONFIG:
            state.apply(entry)
            continue
        told = struct.unpack(">i", entry[32:])[0] if header.type == Op.ERROR else 0
        _, ours, _, _ = preparer.prepare(
            kind,
            body,
            header.session,
            header.cxid,
            (),
            header.zxid,
            header.time_ms,
            told if told in (Err.SESSION_MOVED, Err.SESSION_EXPIRED) else 0,
        )
        assert same_txn(ours, entry), (hex(header.zxid), kind, ours.hex(), entry.hex())
        prepared.add(header.type)
    assert {Op.CREATE, Op.CREATE2, Op.CREATE_CONTAINER, Op.SET_DATA, Op.ERROR} <= prepared


def test_a_snapshot_of_a_replayed_log_is_the_tree_that_effects_make() -> None:
    """Effects carry everything: a tree made of them alone equals the state's."""
    state = fresh_state()
    base = MemoryBase()
    kinds: set[int] = set()
    for entry in log_entries("ensemble-log.100000001"):
        effects = state.apply(entry)
        kinds.update(effect[0] for effect in effects)
        base.install(effects, state.zxid)
        nodes: dict[str, Node] = base.nodes
        for path, (_, stat, acl) in nodes.items():
            node = state.get(path)
            assert node is not None
            assert (node.stat, node.acl) == (stat, acl)
    assert {fx.CREATED, fx.DELETED, fx.CHANGED, fx.ACL, fx.STAT, fx.SESSION, fx.CLOSED} <= kinds
    assert base.live == state.sessions
