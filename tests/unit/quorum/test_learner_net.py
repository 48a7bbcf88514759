"""The quorum port: links, their queues, producers, timeouts; listening and connecting."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from net_support import LOOPS, free_port, run, until
from test_election_net import Raw, security

from zkd.errors import OperatorError
from zkd.jute import quorum
from zkd.jute.quorum import Kind, LearnerInfo, Packet, encode
from zkd.server.quorum import net
from zkd.server.quorum.history import history
from zkd.server.quorum.learner_net import LearnerListener, LinkSettings, connect
from zkd.server.quorum.link import Link, Sink
from zkd.storage.log import LogWriter

LOCAL = "127.0.0.1"
FIRST = encode(Kind.FOLLOWER_INFO, 0, LearnerInfo(1).encode())
OnLoop = Callable[[Coroutine[Any, Any, None]], None]


class Events:
    def __init__(self) -> None:
        self.learners: list[Link] = []
        self.packets: list[Packet] = []
        self.batches = 0
        self.closed: list[str] = []

    def on_learner(self, link: Link) -> None:
        self.learners.append(link)

    def on_packets(self, link: Link, packets: list[Packet]) -> None:
        self.packets += packets
        self.batches += 1

    def on_closed(self, link: Link, reason: str) -> None:
        self.closed.append(reason)


class Pair:
    """A listener and a learner that is connected to it."""

    def __init__(self, server: LinkSettings | None = None, client: LinkSettings | None = None):
        self.server, self.client = server or LinkSettings(), client or LinkSettings()
        self.at_leader, self.at_learner = Events(), Events()

    async def __aenter__(self) -> Pair:
        loop = asyncio.get_running_loop()
        self.listener = LearnerListener(loop, self.server, self.at_leader)
        await self.listener.start([(LOCAL, free_port())])
        addresses = self.listener.listening
        self.learner = await connect(loop, addresses, self.client, self.at_learner, within_s=5)
        self.learner.send(FIRST)
        await until(lambda: self.at_leader.packets)
        (self.leader,) = self.at_leader.learners
        return self

    async def __aexit__(self, *_: object) -> None:
        self.learner.abort("the test is over")
        await self.listener.close("the test is over")
        await until(lambda: self.at_learner.closed)


@pytest.fixture(params=list(LOOPS))
def on_loop(request: pytest.FixtureRequest) -> OnLoop:
    return lambda work: run(request.param, work)


def test_packets_travel_both_ways_in_order_and_in_one_write_a_turn(on_loop: OnLoop) -> None:
    async def work() -> None:
        async with Pair() as pair:
            assert pair.at_leader.packets == [(11, 0, LearnerInfo(1).encode(), None)]
            for zxid in range(1, 200):
                pair.leader.send(quorum.encode_commits([zxid]))
                pair.learner.send(quorum.encode_acks([zxid]))
            await until(lambda: len(pair.at_learner.packets) == 199)
            await until(lambda: len(pair.at_leader.packets) == 200)
            assert [p[1] for p in pair.at_learner.packets] == list(range(1, 200))
            assert pair.at_learner.batches == 1
            assert pair.leader.queued_bytes == 0
            pair.leader.close("enough")
            await until(lambda: pair.at_learner.closed)
            assert pair.at_leader.closed == ["enough"]
            assert pair.at_learner.closed == ["the peer has closed the connection"]
            pair.leader.send(b"nobody reads it")
            assert pair.leader.queued_bytes == 0
            assert not pair.listener.links

    on_loop(work())


def test_a_producer_writes_before_what_was_queued_after_it(on_loop: OnLoop) -> None:
    async def work() -> None:
        async with Pair() as pair:
            body = b"x" * 3000

            async def produce(sink: Sink) -> None:
                for zxid in range(100, 400):
                    await sink.write(encode(Kind.PROPOSAL, zxid, body))
                await sink.drained()
                assert sink.fileno() is not None

            pair.leader.send(quorum.encode_commits([1]))
            pair.leader.produce(produce)
            pair.leader.send(quorum.encode_commits([500]))
            pair.leader.produce(produce)
            pair.leader.send(quorum.encode_commits([501]))
            assert pair.leader.queued_bytes > 0
            await until(lambda: len(pair.at_learner.packets) == 603)
            zxids = [p[1] for p in pair.at_learner.packets]
            run_ = list(range(100, 400))
            assert zxids == [1, *run_, 500, *run_, 501]

    on_loop(work())


def test_a_slow_learner_holds_up_nobody_and_is_told_when_too_much_waits(on_loop: OnLoop) -> None:
    async def work() -> None:
        async with Pair(LinkSettings(queue_bytes_max=5_000_000)) as pair:
            pair.learner.pause_reading()
            body = b"x" * 100_000
            loop = asyncio.get_running_loop()
            began = loop.time()
            zxid = 0
            while not pair.leader.closed:
                zxid += 1
                pair.leader.send(encode(Kind.PROPOSAL, zxid, body))
                assert pair.leader.queued_bytes <= 6_500_000
                await asyncio.sleep(0)
            assert loop.time() - began < 2
            await until(lambda: pair.at_leader.closed)
            assert "too slow" in pair.at_leader.closed[0]
            other = await connect(
                loop, pair.listener.listening, LinkSettings(), Events(), within_s=5
            )
            other.send(FIRST)
            await until(lambda: len(pair.at_leader.learners) == 2)
            other.abort("over")
            pair.learner.resume_reading()
            await until(lambda: pair.at_learner.closed)

    on_loop(work())


def test_a_learner_that_catches_up_gets_everything(on_loop: OnLoop) -> None:
    async def work() -> None:
        async with Pair() as pair:
            pair.learner.pause_reading()
            body = b"x" * 100_000
            for zxid in range(200):
                pair.leader.send(encode(Kind.PROPOSAL, zxid, body))
                await asyncio.sleep(0)
            await until(lambda: pair.leader.queued_bytes > 5_000_000)
            pair.learner.resume_reading()
            await until(lambda: len(pair.at_learner.packets) == 200)
            assert [p[1] for p in pair.at_learner.packets] == list(range(200))
            await until(lambda: pair.leader.queued_bytes == 0)

    on_loop(work())


@pytest.mark.parametrize("error", [OperatorError("the log has a hole"), OSError("no disk")])
def test_a_producer_that_fails_ends_the_link(on_loop: OnLoop, error: Exception) -> None:
    async def work() -> None:
        async with Pair() as pair:

            async def produce(sink: Sink) -> None:
                await sink.write(quorum.encode_commits([1]))
                raise error

            pair.leader.produce(produce)
            await until(lambda: pair.at_leader.closed and pair.at_learner.closed)
            assert pair.at_leader.closed == [str(error)]

    on_loop(work())


def test_a_producer_ends_with_its_link(on_loop: OnLoop) -> None:
    async def work() -> None:
        async with Pair() as pair:
            ended: list[str] = []

            async def produce(sink: Sink) -> None:
                try:
                    while True:
                        await sink.write(b"\0" * 1000)
                except ConnectionError:
                    ended.append("told")
                    raise
                finally:
                    ended.append("over")

            pair.learner.pause_reading()
            pair.leader.produce(produce)
            await until(lambda: pair.leader.queued_bytes > 100_000)
            pair.leader.abort("not wanted")
            await until(lambda: ended[-1:] == ["over"])

    on_loop(work())


def test_silence_ends_a_link_but_not_while_nobody_reads(on_loop: OnLoop) -> None:
    async def work() -> None:
        async with Pair() as pair:
            loop = asyncio.get_running_loop()
            pair.leader.set_read_timeout(0.1)
            pair.leader.pause_reading()
            await asyncio.sleep(0.25)  # the time that must not count
            assert not pair.at_leader.closed
            pair.leader.resume_reading()
            for _ in range(5):
                await asyncio.sleep(0.04)
                pair.learner.send(encode(Kind.PING, 0, b""))
            began = loop.time()
            await until(lambda: pair.at_leader.closed)
            assert loop.time() - began < 1
            assert pair.at_leader.closed == ["nothing was heard for 0.1 s"]

    on_loop(work())


def test_the_time_that_this_process_stands_still_does_not_count(on_loop: OnLoop) -> None:
    async def work() -> None:
        async with Pair() as pair:
            pair.leader.set_read_timeout(0.2)
            pair.learner.send(encode(Kind.PING, 0, b""))
            pair.learner.flush()
            time.sleep(0.5)  # the stall itself
            await until(lambda: len(pair.at_leader.packets) == 2)
            assert not pair.at_leader.closed
            await until(lambda: pair.at_leader.closed)

    on_loop(work())


BAD = {
    "http": (b"GET / HTTP/1.1\r\n\r\n", "no ZooKeeper server"),
    "huge": (FIRST[:12] + b"\x7f\xff\xff\xff", "2147483647 bytes"),
    "large first": (FIRST[:12] + b"\0\0\x20\0", "8192 bytes"),
    "not a learner": (encode(Kind.ACK, 1), "no learner"),
    "silent": (b"", "nothing was heard"),
    "half": (FIRST[:20], "nothing was heard"),
}


@pytest.mark.parametrize("name", list(BAD))
def test_a_bad_connection_costs_itself_only(
    on_loop: OnLoop, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    raw, why = BAD[name]

    async def work() -> None:
        async with Pair(LinkSettings(read_timeout_s=0.2)) as pair:
            pair.leader.set_read_timeout(None)
            bad = await Raw.connect(pair.listener.listening[0][1])
            bad.writer.write(raw)
            assert await bad.ended()
            await bad.close()
            assert len(pair.at_leader.learners) == 1
            pair.leader.send(quorum.encode_commits([1]))
            await until(lambda: pair.at_learner.packets)
            assert pair.at_leader.closed == []

    on_loop(work())
    assert why in capfd.readouterr().err


def test_the_port_exists_only_while_it_is_wanted(on_loop: OnLoop) -> None:
    async def work() -> None:
        async with Pair() as pair:
            where = pair.listener.listening
            taken = LearnerListener(asyncio.get_running_loop(), LinkSettings(), Events())
            with pytest.raises(OperatorError, match="port for learners"):
                await taken.start(where)
            await taken.close("never began")
            await pair.listener.close("leads no more")
            await until(lambda: pair.at_learner.closed)
            with pytest.raises(ConnectionRefusedError), socket.create_connection(where[0]):
                pass

    on_loop(work())


def test_a_learner_waits_for_the_leader_to_listen(on_loop: OnLoop) -> None:
    async def work() -> None:
        loop = asyncio.get_running_loop()
        port, dead = free_port(), free_port()
        both = [(LOCAL, dead), (LOCAL, port)]
        with pytest.raises(OSError, match="Connect call failed"):
            await connect(loop, both, LinkSettings(), Events(), within_s=5, tries=2, pause_s=0.01)
        events, mine = Events(), Events()
        listener = LearnerListener(loop, LinkSettings(), events)
        connecting = loop.create_task(
            connect(loop, both, LinkSettings(), mine, within_s=5, tries=50, pause_s=0.02)
        )
        await asyncio.sleep(0.05)  # some attempts that fail
        await listener.start([(LOCAL, port)])
        link = await connecting
        link.send(FIRST)
        await until(lambda: events.learners)
        link.abort("over")
        await listener.close("over")
        assert events.closed

    on_loop(work())


def test_connecting_takes_no_longer_than_allowed(on_loop: OnLoop) -> None:
    async def work() -> None:
        loop = asyncio.get_running_loop()
        with socket.socket() as full:  # a backlog that is full: connections hang
            full.bind((LOCAL, 0))
            full.listen(0)
            fillers = [socket.socket() for _ in range(3)]
            for filler in fillers:
                filler.setblocking(False)
                with suppress(BlockingIOError):
                    filler.connect(full.getsockname())
            began = loop.time()
            with pytest.raises(TimeoutError):
                await connect(loop, [full.getsockname()], LinkSettings(), Events(), within_s=0.3)
            assert 0.2 < loop.time() - began < 1
            for filler in fillers:
                filler.close()

    on_loop(work())


def test_behind_a_snap_bytes_go_elsewhere_until_they_end(on_loop: OnLoop) -> None:
    async def work() -> None:
        after = encode(Kind.NEW_LEADER, 1 << 32, b"version=0")
        for in_pieces in (False, True):
            async with Pair() as pair:
                pair.leader.send(encode(Kind.SNAP, 7) + b"stream" * 3)
                await until(lambda p=pair: p.at_learner.packets)
                assert pair.at_learner.packets == [(Kind.SNAP, 7, None, None)]
                got: list[bytes] = []
                rest, fd = pair.learner.begin_stream(got.append if in_pieces else None)
                assert fd >= 0
                if in_pieces:
                    pair.leader.send(b"more" + after)
                    await until(lambda r=rest, g=got: len(r) + sum(map(len, g)) >= 22)
                    extra = (rest + b"".join(got))[22:]
                else:
                    assert rest == b"stream" * 3
                    pair.leader.send(b"more" + after)
                    pair.leader.flush()
                    peer = socket.socket(fileno=fd)
                    peer.setblocking(True)
                    extra = peer.recv(100)[4:]
                    peer.setblocking(False)
                    peer.detach()
                pair.learner.end_stream(extra)
                pair.leader.send(encode(Kind.UP_TO_DATE, -1))
                await until(lambda p=pair: len(p.at_learner.packets) == 3)
                assert [p[0] for p in pair.at_learner.packets] == [15, 10, 12]

    on_loop(work())


@pytest.mark.parametrize("right", [True, False])
def test_an_exchange_stands_before_the_first_packet(on_loop: OnLoop, right: bool) -> None:
    word = b"12345678"
    server = LinkSettings(security=security(word))
    client = LinkSettings(security=security(word if right else b"87654321"))

    async def work() -> None:
        if right:
            async with Pair(server, client) as pair:
                pair.leader.send(quorum.encode_commits([1]))
                await until(lambda: pair.at_learner.packets)
            return
        loop = asyncio.get_running_loop()
        at_leader, at_learner = Events(), Events()
        listener = LearnerListener(loop, server, at_leader)
        await listener.start([(LOCAL, free_port())])
        with pytest.raises(ConnectionError):
            await connect(
                loop, listener.listening, client, at_learner, within_s=5, tries=2, pause_s=0.01
            )
        assert not at_leader.learners
        await listener.close("over")
        assert not at_learner.closed
        assert not at_leader.closed

    on_loop(work())


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> net.Security:
    folder = tmp_path_factory.mktemp("tls")
    key, cert = folder / "key.pem", folder / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-keyout", str(key), "-out", str(cert), "-days", "2", "-subj", "/CN=zk",
         "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(cert, key)
    server.load_verify_locations(cert)
    server.verify_mode = ssl.CERT_REQUIRED
    client = ssl.create_default_context(cafile=str(cert))
    client.load_cert_chain(cert, key)
    return net.Security(server_tls=server, client_tls=client)


def test_links_work_under_tls(on_loop: OnLoop, tls: net.Security) -> None:
    async def work() -> None:
        settings = LinkSettings(security=tls)
        async with Pair(settings, settings) as pair:

            async def produce(sink: Sink) -> None:
                assert sink.fileno() is None
                await sink.write(b"stream" * 100_000)
                await sink.drained()

            pair.leader.send(encode(Kind.SNAP, 7))
            pair.leader.produce(produce)
            pair.leader.send(encode(Kind.UP_TO_DATE, -1))
            await until(lambda: pair.at_learner.packets)
            got: list[bytes] = []
            rest, fd = pair.learner.begin_stream(got.append)
            assert fd == -1
            await until(lambda: len(rest) + sum(map(len, got)) == 600_020)
            pair.learner.end_stream((rest + b"".join(got))[600_000:])
            assert pair.at_learner.packets[-1] == (Kind.UP_TO_DATE, -1, None, None)
            plain = await Raw.connect(pair.listener.listening[0][1])
            plain.writer.write(FIRST)
            with suppress(ConnectionError):
                while await plain.reader.read(100):
                    pass  # an alert
            await plain.close()
            assert len(pair.at_leader.learners) == 1

    on_loop(work())


def test_history_is_read_from_the_log(on_loop: OnLoop, tmp_path: Path) -> None:
    log = LogWriter(tmp_path / "log.db", cache_bytes=1 << 20)
    rows = [(z, bytes(12) + z.to_bytes(8, "big") + b"x" * 2000) for z in range(1, 501)]
    log.append(rows)

    async def work() -> None:
        async with Pair() as pair:
            pair.leader.produce(history(tmp_path, 100, 450))
            pair.leader.send(encode(Kind.NEW_LEADER, 0))
            await until(lambda: pair.at_learner.packets[-1:] == [(10, 0, None, None)])
            expected = [p for z, b in rows[100:450] for p in ((2, z, b, None), (4, z, None, None))]
            assert pair.at_learner.packets[:-1] == expected
            pair.leader.produce(history(tmp_path, 450, 600))
            await until(lambda: pair.at_leader.closed)
            assert "ends at 0x1f4" in pair.at_leader.closed[0]

    on_loop(work())
    log.close()
