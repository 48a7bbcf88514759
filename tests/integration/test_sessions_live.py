"""Sessions, order and watches on a real server with two front-ends, looked at byte by byte."""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Iterator

import pytest

from tests.conformance import wire
from tests.integration.test_processes import eventually
from zkd import testing
from zkd.jute.protocol import Err

TICK_MS = 500
ACL_DENIED: tuple[wire.Acl, ...] = ((31, "digest", "nobody:AAAAAAAAAAAAAAAAAAAAAAAAAAA="),)


@pytest.fixture(name="server", scope="module")
def _server() -> Iterator[testing.Server]:
    settings = {"frontends": "2", "tickTime": str(TICK_MS), "4lw.commands.whitelist": "*"}
    with testing.server(settings) as server:
        yield server


@pytest.fixture(name="client")
def _client(server: testing.Server) -> Iterator[wire.Client]:
    client = wire.Client(server.port)
    yield client
    client.close()


def make(client: wire.Client, path: str, flags: int = 0, acl: object = wire.OPEN) -> None:
    err, _ = client.call(wire.CREATE, wire.create(path, b"", acl, flags))  # type: ignore[arg-type]
    assert err == 0


def stat(client: wire.Client, path: str) -> tuple[int, ...] | None:
    """czxid, mzxid, ctime, mtime, version, cversion, aversion, owner, length, children, pzxid."""
    err, body = client.call(wire.EXISTS, wire.watched(path))
    return None if err else struct.unpack_from(">qqqqiiiqiiq", body)


@pytest.mark.parametrize("timeout_ms", [1500, 2600])
def test_a_killed_clients_ephemerals_go_within_its_timeout_and_a_tick(
    server: testing.Server, client: wire.Client, timeout_ms: int
) -> None:
    """M3, M34: all of them in one transaction, not before the timeout."""
    owner = wire.Client(server.port, timeout_ms=timeout_ms)
    assert owner.session.timeout_ms == timeout_ms
    make(client, f"/t{timeout_ms}")
    paths = [f"/t{timeout_ms}/e{i}" for i in range(5)]
    for path in paths:
        make(owner, path, 1)
    heard = time.monotonic()
    owner.drop()
    before = stat(client, f"/t{timeout_ms}")
    assert before is not None
    eventually(lambda: stat(client, paths[0]) is None)
    took_ms = (time.monotonic() - heard) * 1000
    assert timeout_ms - 50 <= took_ms <= timeout_ms + TICK_MS + 250, "a quarter is for the machine"
    assert all(stat(client, path) is None for path in paths)
    after = stat(client, f"/t{timeout_ms}")
    assert after is not None
    assert after[9] == 0
    assert after[10] == before[10] + 1, "one transaction has removed them all"


@pytest.mark.parametrize(("asked", "given"), [(1, 1000), (5000, 5000), (10**6, 10_000)])
def test_a_timeout_is_kept_between_two_and_twenty_ticks(
    server: testing.Server, asked: int, given: int
) -> None:
    client = wire.Client(server.port, timeout_ms=asked)
    assert client.session.timeout_ms == given
    client.close()


@pytest.mark.parametrize("wrong", ["password", "session"])
def test_a_session_that_is_refused_gets_zeros_and_the_end(
    server: testing.Server, client: wire.Client, wrong: str
) -> None:
    """M30, byte for byte."""
    known = client.session
    session = known.session if wrong == "password" else known.session + 77
    password = bytes(16) if wrong == "password" else known.password
    other = wire.Wire(server.port)
    other.send(wire.connect_request(session=session, password=password))
    assert other.receive() == bytes(16) + wire.int_(16) + bytes(16) + b"\0"
    assert other.receive() is None
    other.drop()
    if wrong == "password":  # Apache ZooKeeper closes the owner's connection first, so does zkd
        with pytest.raises(ConnectionError):
            client.call(wire.PING)
        client.drop()


def test_a_client_that_has_seen_more_is_sent_away(server: testing.Server) -> None:
    """M32: time never goes back for anybody."""
    ahead = wire.Wire(server.port)
    ahead.send(wire.connect_request(zxid=1 << 40))
    assert ahead.receive() is None
    ahead.drop()
    eventually(lambda: "client.ahead" in server.log.read_text())


def test_ten_thousand_requests_in_flight_are_answered_in_order(client: wire.Client) -> None:
    """M38: reads between writes, each read sees the write before it."""
    make(client, "/order")
    requests = []
    for i in range(5000):
        body = wire.set_data("/order", str(i).encode(), -1)
        requests += [
            wire.request(2 * i, wire.SET_DATA, body),
            wire.request(2 * i + 1, wire.GET_DATA, wire.watched("/order")),
        ]
    sender = threading.Thread(target=client.send, args=requests)
    sender.start()
    zxids = []
    for xid in range(10_000):
        reply = client.receive()
        assert reply is not None
        got, zxid, err = struct.unpack_from(">iqi", reply)
        assert (got, err) == (xid, 0)
        zxids.append(zxid)
        if xid % 2:
            (size,) = struct.unpack_from(">i", reply, 16)
            assert reply[20 : 20 + size] == str(xid // 2).encode()
    sender.join()
    assert zxids == sorted(zxids)


def test_sequential_names_have_no_gap_and_no_duplicate(
    server: testing.Server, client: wire.Client
) -> None:
    """M5: several clients at once, on both front-ends."""
    make(client, "/sequence")
    names: list[str] = []

    def create() -> None:
        own = wire.Client(server.port)
        for _ in range(200):
            body = wire.create("/sequence/n-", b"", wire.OPEN, 2)
            err, reply = own.call(wire.CREATE, body)
            assert err == 0
            names.append(reply[4:].decode())
        own.close()

    threads = [threading.Thread(target=create) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(names) == [f"/sequence/n-{i:010d}" for i in range(1000)]


def test_what_one_client_was_told_another_reads_at_once(
    server: testing.Server, client: wire.Client
) -> None:
    """M45, and zkd's own promise that it needs no sync within one server."""
    make(client, "/told")
    others = [wire.Client(server.port) for _ in range(4)]
    for i in range(300):
        data = str(i).encode()
        assert client.call(wire.SET_DATA, wire.set_data("/told", data, -1))[0] == 0
        other = others[i % 4]
        if i % 2:
            assert other.call(wire.SYNC, wire.text("/told"))[0] == 0
        _, body = other.call(wire.GET_DATA, wire.watched("/told"))
        assert body[4 : 4 + len(data)] == data
    for other in others:
        other.close()


def test_a_container_is_not_removed_for_a_client(client: wire.Client) -> None:
    """M51: a hand-made packet with the opcode of the container manager."""
    err, _ = client.call(wire.CREATE_CONTAINER, wire.create("/container", b"", wire.OPEN, 4))
    assert err == 0
    err, _ = client.call(wire.DELETE_CONTAINER, wire.text("/container"))
    assert err == Err.NO_AUTH
    assert stat(client, "/container") is not None


def test_an_event_carries_the_zxid_of_its_change(
    client: wire.Client, server: testing.Server
) -> None:
    """M62"""
    watcher = wire.Wire(server.port)
    watcher.send(wire.connect_request())
    assert watcher.receive() is not None
    watcher.send(wire.request(1, wire.EXISTS, wire.watched("/with-zxid", 1)))
    assert watcher.receive() is not None
    make(client, "/with-zxid")
    made = stat(client, "/with-zxid")
    assert made is not None
    event = watcher.receive()
    assert event is not None
    assert event[:16] == struct.pack(">iqi", wire.EVENT_XID, made[0], 0)
    watcher.send(wire.request(2, wire.CLOSE_SESSION))
    watcher.wait_closed()
    watcher.drop()


def test_nobody_hears_of_what_he_may_not_read(server: testing.Server, client: wire.Client) -> None:
    """M63, M64: a recursive watch above, and setWatches for what changed while away."""
    watcher = wire.Client(server.port)
    make(client, "/open")
    assert watcher.call(wire.ADD_WATCH, wire.text("/open") + wire.int_(1))[0] == 0
    make(client, "/open/secret", acl=ACL_DENIED)
    make(client, "/open/plain")
    watcher.call(wire.PING)
    assert watcher.events == [(1, "/open/plain")]
    watcher.events.clear()
    paths = ("/open/secret", "/open/plain")
    err, _ = watcher.call(wire.SET_WATCHES, wire.set_watches(0, (paths, (), ())))
    assert err == 0
    watcher.call(wire.PING)
    assert watcher.events == [(3, "/open/plain")]
    watcher.close()


def test_a_new_peer_gives_every_session_its_whole_time(server: testing.Server) -> None:
    """M35, alone: nobody expires because the process that counts was away."""
    client = wire.Client(server.port, timeout_ms=1000)
    make(client, "/kept", 1)
    other = wire.Client(server.port)
    client.drop()
    time.sleep(0.7)  # what is tested is the passing of time
    before = server.pids()["peer"]
    server.kill("peer")
    eventually(lambda: server.pids().get("peer", before) != before)
    back = again(server, client)
    back.send(wire.request(1, wire.EXISTS, wire.watched("/kept")))
    reply = back.receive()
    assert reply is not None
    assert reply[12:16] == bytes(4)
    back.send(wire.request(2, wire.CLOSE_SESSION))
    back.wait_closed()
    back.drop()
    other.drop()


def again(server: testing.Server, client: wire.Client) -> wire.Wire:
    """The session on another connection, which is tried for until the server serves."""
    told = client.session
    while True:
        back = wire.Wire(server.port)
        back.send(wire.connect_request(session=told.session, password=told.password))
        answer = back.receive()
        if answer is not None:
            assert wire.connected(answer).session == told.session
            return back
        back.drop()
        time.sleep(0.01)  # between two attempts
