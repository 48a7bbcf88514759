"""Input that no client sends: who sends it is dropped with a logged reason, nobody else notices.

A witness works on its own connection all the time; no process of the server may end or grow
without bound. HOSTILE_SERVER=apache runs the same against Apache ZooKeeper, by hand: what names
zkd's log or processes is left out then.
"""

from __future__ import annotations

import os
import random
import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conformance import servers, wire
from tests.conformance.servers import Server
from tests.conformance.witness import watching

KIND = os.environ.get("HOSTILE_SERVER", "zkd")
GROWTH_BYTES_MAX = 96 << 20
SESSIONLESS_MS = 1500
CONNECTIONS_MAX = 400
SETTINGS = {
    "maxClientCnxns": str(CONNECTIONS_MAX),
    "nio.sessionlessCnxnTimeout": str(SESSIONLESS_MS),
    "enforceQuota": "true",
}
HELLO = wire.frame(wire.connect_request())
FOUR_LETTERS = (b"ruok", b"srvr", b"stat", b"envi", b"conf", b"mntr", b"wchs", b"cons", b"dump")

FIRST_BYTES: dict[str, bytes] = {
    "http": b"GET / HTTP/1.1\r\nHost: zk\r\n\r\n",
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
    "ssh": b"SSH-2.0-OpenSSH_9.2\r\n",
    "negative": b"\xff\xff\xff\xff",
    "most_negative": b"\x80\x00\x00\x00",
    "too_long": wire.int_(0xFFFFF + 1),
    "longest": b"\x7f\xff\xff\xff" + bytes(1000),
    "empty": wire.int_(0),
    "short": wire.frame(bytes(7)),
    "cut": wire.frame(wire.connect_request()[:-9]),
    "password_length": wire.frame(wire.connect_request()[:24] + b"\x7f\xff\xff\xff"),
    "password_negative": wire.frame(wire.connect_request()[:24] + b"\xff\xff\xff\x00" + bytes(16)),
}
LATER_BYTES: dict[str, bytes] = {
    "negative": b"\xff\xff\xff\xfe",
    "too_long": wire.int_(0xFFFFF + 1),
    "longest": b"\x7f\xff\xff\xff",
    "empty": wire.int_(0),
    "no_header": wire.frame(b"\0\0\0\1"),
    "http": b"GET / HTTP/1.1\r\n\r\n",
}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    if reason := servers.missing(KIND):
        pytest.skip(reason)
    with servers.running(KIND, SETTINGS) as running:
        yield running


@pytest.fixture
def unharmed(server: Server) -> Iterator[Server]:
    """The server, with a witness beside the test; the same processes must be there at the end."""
    before, bytes_before = server.pids(), server.resident_bytes()
    with watching(server.port):
        yield server
    if KIND == "zkd":
        assert server.pids() == before, server.tail()
    growth = server.resident_bytes() - bytes_before
    assert growth < GROWTH_BYTES_MAX, f"{growth} bytes more"


def _until(true: Callable[[], bool], what: str, within_s: float = 15.0) -> None:
    end = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < end, what
        time.sleep(0.01)  # between two looks


def _named_in_log(server: Server, address: str) -> None:
    """zkd says whom it dropped."""
    if KIND == "zkd":
        _until(lambda: f"client={address}" in server.tail(200_000), f"no reason for {address}")


def _address(connection: wire.Wire) -> str:
    host, port = connection.socket.getsockname()
    return f"{host}:{port}"


@pytest.mark.parametrize("name", FIRST_BYTES)
def test_no_session_from_what_is_no_handshake(unharmed: Server, name: str) -> None:
    """Closed without a byte, and the log says who it was."""
    connection = wire.Wire(unharmed.port)
    address = _address(connection)
    connection.send_raw(FIRST_BYTES[name])
    assert connection.wait_closed() == b""
    _named_in_log(unharmed, address)
    connection.drop()


@pytest.mark.parametrize("name", LATER_BYTES)
def test_a_bad_frame_ends_the_connection_not_the_session(unharmed: Server, name: str) -> None:
    """The session can be resumed elsewhere: its ephemeral is still there."""
    client = wire.Client(unharmed.port)
    address = _address(client)
    client.call(wire.CREATE, wire.create(f"/bad-{name}", b"", wire.OPEN, 1))
    client.send_raw(LATER_BYTES[name])
    assert client.wait_closed() == b""
    _named_in_log(unharmed, address)
    again = wire.Client(
        unharmed.port, session=client.session.session, password=client.session.password
    )
    assert again.session.session == client.session.session
    assert again.call(wire.EXISTS, wire.watched(f"/bad-{name}"))[0] == 0
    again.close()
    client.drop()


@pytest.mark.parametrize("seed", range(4))
def test_random_bytes(unharmed: Server, seed: int) -> None:
    """Two hundred strangers; each is gone once it has nothing more to say."""
    rng = random.Random(seed)
    for _ in range(200):
        data = rng.randbytes(rng.choice((1, 3, 4, 5, 50, 4096)))
        if data[:4] in FOUR_LETTERS:
            continue
        connection = wire.Wire(unharmed.port)
        connection.send_raw(data)
        if not connection.closed:
            try:
                connection.socket.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # the server was quicker
        connection.wait_closed()
        connection.drop()


@pytest.mark.parametrize("seed", range(4))
def test_random_requests_in_a_session(unharmed: Server, seed: int) -> None:
    """Well-framed nonsense: an error or the end of the connection, never silence."""
    rng = random.Random(100 + seed)
    ops = [op for op in wire.OP_NAMES if op not in (wire.CLOSE_SESSION, wire.DELETE_CONTAINER)]
    client = wire.Client(unharmed.port)
    for _ in range(500):
        if client.closed:
            client.drop()
            client = wire.Client(unharmed.port)
        body = rng.randbytes(rng.choice((0, 4, 8, 20, 200)))
        if rng.random() < 0.5:
            body = wire.int_(rng.randrange(-3, 30)) + body
        client.send(wire.request(1, rng.choice(ops), body))
        while (answer := client.receive()) is not None:
            if struct.unpack_from(">i", answer)[0] != wire.EVENT_XID:
                break
    client.drop()


def test_handshakes_that_never_end_are_bounded(unharmed: Server) -> None:
    """Half a handshake each, up to maxClientCnxns; a client comes in when their time is over."""
    half_open = []
    refused = 0
    for _ in range(CONNECTIONS_MAX + 50):
        connection = wire.Wire(unharmed.port)
        connection.send_raw(wire.int_(0xFFFFF) + b"\0" * 10)
        half_open.append(connection)
    for connection in half_open:
        refused += connection.wait_closed() == b""
        connection.drop()
    assert refused == len(half_open)
    wire.Client(unharmed.port).close()


def test_a_byte_at_a_time_is_not_activity(unharmed: Server) -> None:
    """Trickling bytes does not keep a connection without a session alive for ever."""
    connection = wire.Wire(unharmed.port)
    connection.socket.settimeout(0.1)
    end = time.monotonic() + 20 * SESSIONLESS_MS / 1000
    for byte in wire.int_(40000) + bytes(40000):
        assert time.monotonic() < end, "still open"
        try:
            connection.socket.send(bytes([byte]))
            if connection.socket.recv(1) == b"":
                break
        except TimeoutError:
            continue
        except (BrokenPipeError, ConnectionResetError):
            break
    connection.drop()


def _open_files(server: Server) -> int:
    return sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in server.pids())


def test_thousands_of_connects_leave_nothing(unharmed: Server) -> None:
    """Some say nothing, some a handshake, some are reset: all their files are closed again."""
    before = _open_files(unharmed)
    for number in range(3000):
        connection = wire.Wire(unharmed.port)
        if number % 3 == 1:
            connection.send_raw(HELLO)
        if number % 3 == 2:
            connection.send_raw(HELLO[:20])
            linger = struct.pack("ii", 1, 0)
            connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        connection.drop()
    _until(lambda: _open_files(unharmed) <= before + 20, "files stay open")


def test_a_client_that_does_not_read_is_held_back(unharmed: Server) -> None:
    """It asks for two gigabytes and takes none; the server does not keep them for it."""
    client = wire.Client(unharmed.port)
    client.call(wire.CREATE, wire.create("/large", bytes(100_000), wire.OPEN, 1))
    client.socket.settimeout(0.5)
    batch = b"".join(
        wire.frame(wire.request(xid, wire.GET_DATA, wire.watched("/large"))) for xid in range(100)
    )
    try:
        for _ in range(200):
            client.socket.sendall(batch)
    except TimeoutError:
        pass  # the server has stopped to read from it: as it should
    except (BrokenPipeError, ConnectionResetError):
        pass  # or has dropped it
    grown = unharmed.resident_bytes()
    assert grown < 1 << 30
    client.drop()


def test_a_client_that_does_not_read_its_events_is_bounded(unharmed: Server) -> None:
    """A recursive watch on everything, a busy tree, and nobody at the other end."""
    lazy = wire.Client(unharmed.port)
    lazy.call(wire.ADD_WATCH, wire.versioned("/", 1))
    busy = wire.Client(unharmed.port)
    name = "/events-" + "n" * 1000
    busy.call(wire.CREATE, wire.create(name, b"", wire.OPEN, 1))
    body = wire.set_data(name, b"", -1)
    for _ in range(40):
        busy.send(*(wire.request(1, wire.SET_DATA, body) for _ in range(500)))
        for _ in range(500):
            assert busy.receive() is not None
    busy.close()
    lazy.drop()


def test_a_multi_of_many_operations(unharmed: Server) -> None:
    """As many as fit into a request: done, or refused, but answered."""
    client = wire.Client(unharmed.port, timeout_s=30)
    check = (wire.CHECK, wire.versioned("/", -1))
    err, body = client.call(wire.MULTI, wire.multi([check] * 50_000))
    assert err == 0
    assert len(body) == 9 * 50_001
    client.close()


@pytest.mark.skipif(KIND == "apache", reason="by hand only: ends an Apache ZooKeeper")
@pytest.mark.parametrize("data", [b"", b"garbage", None, b"count=x,bytes=1", b"\xff\xfe", b"count"])
def test_nonsense_in_a_quota_is_survived(unharmed: Server, data: bytes | None) -> None:
    """Apache ZooKeeper ends at the next write below such a quota; zkd takes it for no quota."""
    client = wire.Client(unharmed.port)
    quota = "/zookeeper/quota/q"
    for path, content in (
        ("/q", b""),
        (quota, b""),
        (quota + "/zookeeper_limits", data),
        (quota + "/zookeeper_stats", data),
    ):
        client.call(wire.CREATE, wire.create(path, content, wire.OPEN, 0))
        client.call(wire.SET_DATA, wire.set_data(path, content, -1))
    assert client.call(wire.CREATE, wire.create("/q/c", b"x", wire.OPEN, 0))[0] == 0
    assert client.call(wire.SET_DATA, wire.set_data("/q/c", b"xyz", -1))[0] == 0
    assert client.call(wire.DELETE, wire.versioned("/q/c", -1))[0] == 0
    for path in (quota + "/zookeeper_limits", quota + "/zookeeper_stats", quota, "/q"):
        assert client.call(wire.DELETE, wire.versioned(path, -1))[0] == 0
    client.close()


@pytest.mark.skipif(KIND == "apache", reason="by hand only: ends an Apache ZooKeeper")
@pytest.mark.parametrize("flags", [0, 1, 4])
def test_a_negative_ttl_without_ttl_flags_is_survived(unharmed: Server, flags: int) -> None:
    """createTTL with the flags of another mode; Apache ZooKeeper logs it and cannot apply it."""
    client = wire.Client(unharmed.port)
    body = wire.create_ttl("/ttl", b"", wire.OPEN, flags, -1)
    client.call(wire.CREATE_TTL, body)
    client.call(wire.MULTI, wire.multi([(wire.CREATE_TTL, body)]))
    assert client.call(wire.EXISTS, wire.watched("/"))[0] == 0
    client.call(wire.DELETE, wire.versioned("/ttl", -1))
    client.close()


def test_restart_after_all_of_this(server: Server) -> None:
    """What was accepted can be read back: the server comes up again with its data."""
    client = wire.Client(server.port)
    assert client.call(wire.CREATE, wire.create("/last", b"words", wire.OPEN, 0))[0] == 0
    client.close()
    server.restart()
    client = wire.Client(server.port)
    err, body = client.call(wire.GET_DATA, wire.watched("/last"))
    assert (err, body[4:9]) == (0, b"words")
    client.close()
