"""Whole trees over links: sent by one process, received by another, the parents never hold them."""

from __future__ import annotations

import asyncio
import io
import os
import struct
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from net_support import LOOPS, run, until
from test_learner_net import Pair, tls  # noqa: F401  (a fixture)

from zkd.errors import OperatorError
from zkd.jute.quorum import Kind, encode
from zkd.server.quorum import net
from zkd.server.quorum.learner_net import LinkSettings
from zkd.server.quorum.link import Sink
from zkd.server.quorum.snapshots import MODULE, receive_snapshot, send_snapshot
from zkd.storage.check import check, scan_all
from zkd.storage.engine import Engine
from zkd.storage.reader import open_tree
from zkd.storage.replay import replayer
from zkd.storage.settings import StorageSettings
from zkd.storage.snap_stream import write_stream
from zkd.tree.settings import TreeSettings

TREE = TreeSettings(extended_types_enabled=True)
SETTINGS = StorageSettings(tree=TREE, reserve_bytes=0, log_wal_bytes=65536)
ZXID = 3 << 32 | 9
COUNT = 3000
AFTER = encode(Kind.NEW_LEADER, 4 << 32, b"version=0")


def engine_of(folder: Path) -> Engine:
    return Engine(folder, folder, SETTINGS, effects_of=replayer(SETTINGS))


def filled(folder: Path, count: int = COUNT) -> Path:
    """A server's files with so many nodes, at ZXID."""
    engine = engine_of(folder)
    writer = engine.new_generation()
    raw = struct.pack(">qqqqiiiqiiq", 5, 6, 7, 8, 1, 0, 0, 0, 0, 0, 9)
    writer.nodes((f"/n{number}", b"%d" % number * 50, raw, None) for number in range(count))
    writer.sessions([(17, 4000), (1 << 60, 30_000)])
    writer.finish(ZXID)
    engine.switch_generation(ZXID)
    engine.close()
    return folder


def contents(folder: Path) -> tuple[Any, ...]:
    reader = open_tree(folder, folder, cache_bytes=1 << 20)
    try:
        return reader.zxid, reader.digest, list(scan_all(reader)), reader.sessions()
    finally:
        reader.close()


def stream_of(folder: Path) -> bytes:
    reader = open_tree(folder, folder, cache_bytes=1 << 20)
    out = io.BytesIO()
    write_stream(out, reader)
    reader.close()
    return out.getvalue()


def children() -> list[str]:
    """Snapshot children of this process that run still (servers of other tests are not meant)."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            stat = (folder / "stat").read_text().rpartition(")")[2].split()
            command = (folder / "cmdline").read_bytes().decode()
        except (OSError, ValueError):
            continue
        ours = folder.name.isdigit() and int(stat[1]) == os.getpid()
        if ours and MODULE in command:
            found.append(command)
    return found


OnLoop = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(params=list(LOOPS))
def on_loop(request: pytest.FixtureRequest) -> OnLoop:
    return lambda work: run(request.param, work)


@pytest.mark.parametrize("secure", [False, True])
def test_a_tree_arrives_whole_and_packets_go_on(
    on_loop: OnLoop,
    tmp_path: Path,
    secure: bool,
    tls: net.Security,  # noqa: F811
) -> None:
    leader = filled(tmp_path / "leader")
    learner = tmp_path / "learner"
    engine = engine_of(learner)
    settings = LinkSettings(security=tls if secure else net.PLAIN)

    async def work() -> None:
        async with Pair(settings, settings) as pair:
            pair.leader.set_read_timeout(30)
            assert await send_snapshot(pair.leader, leader, leader) == ZXID
            for zxid in range(ZXID + 1, ZXID + 400):
                pair.leader.send(encode(Kind.PROPOSAL, zxid, b"x" * 500))
            pair.leader.send(AFTER)
            await until(lambda: pair.at_learner.packets)
            assert pair.at_learner.packets == [(Kind.SNAP, ZXID, None, None)]
            got = await receive_snapshot(pair.learner, ZXID, learner, learner, TREE)
            assert (got.zxid, got.generation, got.nodes) == (ZXID, 2, COUNT + 4)
            assert got.size == len(stream_of(leader))
            await until(lambda: len(pair.at_learner.packets) == 401)
            assert pair.at_learner.packets[-1][0] == Kind.NEW_LEADER
            await until(lambda: pair.leader.queued_bytes == 0)
            engine.switch_generation(ZXID, (4, 4))
            assert engine.tree.digest == got.digest
            pair.learner.send(encode(Kind.ACK, 4 << 32))
            await until(lambda: len(pair.at_leader.packets) == 2)
        assert children() == []

    on_loop(work())
    engine.close()
    assert contents(learner) == contents(leader)
    assert check(learner, learner, TREE) == []


def test_a_tree_that_is_large_is_sent_at_the_pace_of_the_learner(
    on_loop: OnLoop, tmp_path: Path
) -> None:
    """The learner reads only when everything is stuck; other learners go on meanwhile."""
    leader = filled(tmp_path / "leader", 60_000)
    learner = tmp_path / "learner"
    engine_of(learner).close()

    async def work() -> None:
        async with Pair() as pair:
            pair.learner.pause_reading()
            assert await send_snapshot(pair.leader, leader, leader) == ZXID
            pair.leader.send(AFTER)
            loop = asyncio.get_running_loop()
            longest = last = 0.0
            end = loop.time() + 0.3
            while (now := loop.time()) < end:
                longest = max(longest, now - last if last else 0.0)
                last = now
                await asyncio.sleep(0.001)
            assert longest < 0.1
            assert pair.at_learner.packets == []
            pair.learner.resume_reading()
            await until(lambda: pair.at_learner.packets)
            got = await receive_snapshot(pair.learner, ZXID, learner, learner, TREE)
            assert got.nodes == 60_004
            await until(lambda: len(pair.at_learner.packets) == 2)

    on_loop(work())


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda s: s[:40] + b"\x7f" + s[41:], "byte|ends|twice|missing|path|nothing moved"),
        (lambda s: s[:-1] + b"E" + AFTER * 10, "signature"),
        (lambda s: s[: len(s) // 2], "nothing moved|closed|ends too early"),
        (lambda s: b"", "nothing moved|closed"),
    ],
)
@pytest.mark.parametrize("secure", [False, True])
def test_a_bad_or_cut_stream_leaves_everything_as_it_was(
    on_loop: OnLoop,
    tmp_path: Path,
    damage: Callable[[bytes], bytes],
    why: str,
    secure: bool,
    tls: net.Security,  # noqa: F811
) -> None:
    stream = damage(stream_of(filled(tmp_path / "leader", 100)))
    learner = filled(tmp_path / "learner", 10)
    before = contents(learner)
    files = sorted(path.name for path in learner.iterdir())
    settings = LinkSettings(security=tls if secure else net.PLAIN)

    async def work() -> None:
        async with Pair(settings, settings) as pair:
            pair.leader.send(encode(Kind.SNAP, ZXID + 1) + stream)
            await until(lambda: pair.at_learner.packets)
            with pytest.raises((OperatorError, ConnectionError), match=why):
                await receive_snapshot(pair.learner, ZXID + 1, learner, learner, TREE, stall_s=0.3)
            assert pair.learner.closed
            await until(lambda: pair.at_leader.closed)
        assert children() == []

    on_loop(work())
    assert sorted(path.name for path in learner.iterdir()) == files
    assert contents(learner) == before


def test_a_leader_that_goes_away_is_noticed(on_loop: OnLoop, tmp_path: Path) -> None:
    stream = stream_of(filled(tmp_path / "leader", 1000))
    learner = filled(tmp_path / "learner", 10)

    async def work() -> None:
        async with Pair() as pair:
            pair.leader.send(encode(Kind.SNAP, ZXID + 1) + stream[:-100])
            await until(lambda: pair.at_learner.packets)
            receiving = asyncio.ensure_future(
                receive_snapshot(pair.learner, ZXID + 1, learner, learner, TREE)
            )
            await until(lambda: children())
            pair.leader.close("leads no more")
            why = r"ends too early|ended|reset"
            with pytest.raises((OperatorError, ConnectionError), match=why):
                await receiving
        assert children() == []
        assert len(list(learner.glob("tree-*.db"))) == 1

    on_loop(work())


def test_a_learner_that_goes_away_ends_the_sending(on_loop: OnLoop, tmp_path: Path) -> None:
    leader = filled(tmp_path / "leader", 40_000)

    async def work() -> None:
        async with Pair() as pair:
            pair.learner.pause_reading()
            await send_snapshot(pair.leader, leader, leader)
            await until(lambda: pair.leader._producing is not None)
            pair.learner.abort("not wanted any more")
            await until(lambda: pair.at_leader.closed)
            await until(lambda: not children())
        async with Pair() as pair:  # it waits behind something that never ends

            async def never(sink: Sink) -> None:
                await asyncio.Event().wait()

            pair.leader.produce(never)
            await send_snapshot(pair.leader, leader, leader)
            assert children()
            pair.leader.abort("not wanted any more")
            await until(lambda: not children())

    on_loop(work())


def test_a_learner_that_does_not_read_is_given_up(on_loop: OnLoop, tmp_path: Path) -> None:
    leader = filled(tmp_path / "leader", 60_000)

    async def work() -> None:
        async with Pair() as pair:
            pair.learner.pause_reading()
            await send_snapshot(pair.leader, leader, leader, stall_s=0.2)
            await until(lambda: pair.at_leader.closed)
            assert "nothing moved" in pair.at_leader.closed[0]

    on_loop(work())


@pytest.mark.slow
def test_a_million_nodes_need_no_more_memory_than_few(tmp_path: Path) -> None:
    few, many = (filled(tmp_path / str(count), count) for count in (100_000, 1_000_000))
    learner = filled(tmp_path / "learner", 10)
    peaks = []

    async def work() -> None:
        for leader in (few, many):
            async with Pair() as pair:
                await send_snapshot(pair.leader, leader, leader)
                await until(lambda p=pair: p.at_learner.packets)
                got = await receive_snapshot(pair.learner, ZXID, learner, learner, TREE)
                peaks.append(got.peak)

    run("uvloop", work())
    assert peaks[1] < peaks[0] + (64 << 20) < 192 << 20, "SQLite's cache, and little else"


def test_a_tree_that_cannot_be_opened_is_told_at_once(on_loop: OnLoop, tmp_path: Path) -> None:
    async def work() -> None:
        async with Pair() as pair:
            with pytest.raises(OperatorError, match="CantOpen"):
                await send_snapshot(pair.leader, tmp_path, tmp_path)
            assert not pair.leader.closed
        assert children() == []

    on_loop(work())
