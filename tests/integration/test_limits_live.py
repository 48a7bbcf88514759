"""Limits and throttles on a real server, each brought to its limit by clients that go beyond it.

Storage is stopped (SIGSTOP) where requests must be in flight for as long as a test looks at them.
"""

from __future__ import annotations

import functools
import os
import signal
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conformance import wire
from tests.integration.test_processes import eventually
from zkd import testing
from zkd.cli.console import ask
from zkd.config import load
from zkd.jute.protocol import Err
from zkd.server.admin_metrics import as_families

QUICK = {"frontends": "1", "fsync.warningthresholdms": "60000"}


@contextmanager
def stopped(server: testing.Server, name: str) -> Iterator[None]:
    """A process of the server stands still meanwhile."""
    pid = server.pids()[name]
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def metric(server: testing.Server, name: str) -> float:
    """A value of mntr."""
    with socket.create_connection((server.host, server.port)) as s:
        s.sendall(b"mntr")
        text = b"".join(iter(lambda: s.recv(65536), b"")).decode()
    values = dict(line.split("\t", 1) for line in text.splitlines() if "\t" in line)
    return float(values[f"zk_{name}"])


def created(server: testing.Server, path: str) -> wire.Client:
    """A session that has made a node."""
    client = wire.Client(server.port)
    err, _ = client.call(wire.CREATE, wire.create(path, b"", wire.OPEN, 0))
    assert err == 0
    return client


def sets(path: str, count: int, data: bytes = b"x") -> list[bytes]:
    """Pipelined requests with the xids 100, 101 ..."""
    body = wire.set_data(path, data, -1)
    return [wire.request(100 + i, wire.SET_DATA, body) for i in range(count)]


def answers(client: wire.Client, count: int) -> list[int]:
    """The error codes of so many replies, whose order is checked."""
    found = []
    for i in range(count):
        reply = client.receive()
        assert reply is not None
        xid, _zxid, err = struct.unpack_from(">iqi", reply)
        assert xid == 100 + i
        found.append(err)
    return found


def version(server: testing.Server, path: str) -> int:
    client = wire.Client(server.port)
    err, body = client.call(wire.EXISTS, wire.watched(path))
    assert err == 0
    client.close()
    return int(struct.unpack_from(">i", body, 32)[0])


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"maxClientCnxns": "3"}, "Too many connections from /127.0.0.1 - max is 3"),
        ({"maxCnxns": "3"}, "Too many connections max allowed is 3"),
    ],
    ids=["address", "all"],
)
def test_one_connection_too_many_is_refused_and_the_reason_logged(
    settings: dict[str, str], told: str
) -> None:
    """Counted over both front-ends."""
    with testing.server({**QUICK, "frontends": "2", **settings}) as server:
        clients = [wire.Client(server.port) for _ in range(3)]
        eventually(lambda: _refused(server), 5)
        assert told in server.log.read_text()
        for client in clients:
            assert client.round_trip_s() < 5
        clients[0].close()
        eventually(lambda: not _refused(server), 5)
        for client in clients[1:]:
            client.close()


def _refused(server: testing.Server) -> bool:
    """Is a connection refused now? (The front-ends tell each other a moment later.)"""
    connection = wire.Wire(server.port)
    connection.send(wire.connect_request())
    refused = connection.receive() is None
    if not refused:
        connection.send(wire.request(1, wire.CLOSE_SESSION))
        connection.wait_closed()
    connection.drop()
    return refused


def test_new_sessions_beyond_the_bucket_of_tokens_are_dropped() -> None:
    settings = {"connection_throttle_tokens": "5", "connection_throttle_fill_time": "600000"}
    with testing.server({**QUICK, **settings}) as server:
        clients = [wire.Client(server.port) for _ in range(5)]
        for _ in range(3):
            assert _refused(server)
        assert metric(server, "connection_drop_count") == 3
        assert "connection.throttled" in server.log.read_text()
        for client in clients:
            client.close()


def test_beyond_global_outstanding_limit_no_more_is_read_and_nothing_is_lost() -> None:
    with testing.server({**QUICK, "globalOutstandingLimit": "20"}) as server:
        clients = [created(server, f"/c{i}") for i in range(4)]
        with stopped(server, "storage"):
            for i, client in enumerate(clients):
                client.send(*sets(f"/c{i}", 500))
                eventually(lambda: metric(server, "outstanding_requests") >= 20, 5)
            outstanding = metric(server, "outstanding_requests")
            assert 20 <= outstanding <= 20 + 4 * 500, "what one read brought is taken in"
            late = [created_later(server, i) for i in range(3)]
            assert metric(server, "outstanding_requests") <= outstanding + len(late)
        for connection in late:
            assert connection.receive() is not None
            connection.drop()
        for i, client in enumerate(clients):
            assert answers(client, 500) == [0] * 500
            assert version(server, f"/c{i}") == 500
            client.close()
        assert metric(server, "request_throttle_wait_count") > 0


def created_later(server: testing.Server, number: int) -> wire.Wire:
    """A client that asks for a session, which cannot be made at present."""
    late = wire.Wire(server.port)
    late.send(wire.connect_request())
    return late


def test_requests_of_a_connection_that_lost_its_session_do_not_stay_in_flight() -> None:
    """They reach the peer behind the re-attach of another connection, and are never done."""
    with testing.server({**QUICK, "globalOutstandingLimit": "20"}) as server:
        client = created(server, "/n")
        told = client.session
        old: wire.Wire = client
        for _ in range(3):
            back = wire.Wire(server.port)
            with stopped(server, "peer"):  # which four-letter words wait for, too
                back.send(wire.connect_request(session=told.session, password=told.password))
                eventually(functools.partial(is_read, back), 5)
                old.send(*sets("/n", 15))
                eventually(functools.partial(is_read, old), 5)
            answer = back.receive()
            assert answer is not None
            assert wire.connected(answer).session == told.session
            old.wait_closed()
            old.drop()
            eventually(lambda: metric(server, "outstanding_requests") == 0, 5)
            old = back
        old.drop()
        assert version(server, "/n") == 0


def is_read(client: wire.Wire) -> bool:
    """Has the server taken everything that this client has sent (proc(5), /proc/net/tcp)?"""
    ours, theirs = client.socket.getsockname()[1], client.socket.getpeername()[1]
    ends = f":{theirs:04X}", f":{ours:04X}"
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if (fields[1][-5:], fields[2][-5:]) == ends:
            return fields[4].endswith(":00000000")
    raise AssertionError("the server has no such connection")


@pytest.mark.parametrize("drop", ["true", "false"])
def test_requests_beyond_the_throttle_wait_and_stale_ones_are_dropped(drop: str) -> None:
    settings = {
        "request_throttle_max_requests": "2",
        "request_throttle_stall_time": "20",
        "request_throttle_drop_stale": drop,
    }
    with testing.server({**QUICK, **settings}) as server:
        gone, there = created(server, "/gone"), created(server, "/there")
        with stopped(server, "storage"):
            gone.send(*sets("/gone", 10))
            eventually(lambda: metric(server, "outstanding_requests") == 2, 5)
            there.send(*sets("/there", 10))
            gone.drop()
            eventually(lambda: metric(server, "num_alive_connections") == 2, 5)  # + mntr's own
        assert answers(there, 10) == [0] * 10
        assert version(server, "/there") == 10
        assert version(server, "/gone") == (2 if drop == "true" else 10)
        assert metric(server, "stale_requests") >= 1
        assert metric(server, "stale_requests_dropped") == (8 if drop == "true" else 0)
        assert metric(server, "request_throttle_wait_count") >= 8
        there.close()


def test_a_closing_session_in_the_line_is_never_stale() -> None:
    settings = {"request_throttle_max_requests": "1", "request_throttle_stall_time": "20"}
    with testing.server({**QUICK, **settings}) as server:
        held, client = created(server, "/held"), wire.Client(server.port)
        client.call(wire.CREATE, wire.create("/mine", b"", wire.OPEN, 1))
        with stopped(server, "storage"):
            held.send(*sets("/held", 3))
            eventually(lambda: metric(server, "outstanding_requests") == 1, 5)
            client.send(wire.request(7, wire.CLOSE_SESSION))
        assert client.receive() is not None
        assert client.receive() is None
        client.drop()
        assert answers(held, 3) == [0] * 3
        err, _ = held.call(wire.EXISTS, wire.watched("/mine"))
        assert err == Err.NO_NODE
        held.close()


def test_a_request_that_waited_too_long_is_not_done_and_says_so() -> None:
    with testing.server({**QUICK, "throttled_op_wait_time": "200"}) as server:
        client = created(server, "/n")
        with stopped(server, "peer"):
            client.send(*sets("/n", 5))
            time.sleep(0.5)  # what is tested is the passing of time
        assert answers(client, 5) == [Err.THROTTLED_OP] * 5
        assert version(server, "/n") == 0
        err, _ = client.call(wire.SET_DATA, wire.set_data("/n", b"", -1))
        assert err == 0
        assert metric(server, "throttled_ops") == 5
        client.close()


def test_a_request_that_waited_too_long_in_the_throttles_line_says_so_too() -> None:
    settings = {"throttled_op_wait_time": "200", "request_throttle_max_requests": "1"}
    with testing.server({**QUICK, **settings}) as server:
        client = created(server, "/n")
        with stopped(server, "storage"):
            client.send(*sets("/n", 4))
            eventually(lambda: metric(server, "outstanding_requests") == 1, 5)
            time.sleep(0.5)  # what is tested is the passing of time
        assert answers(client, 4) == [0, *[Err.THROTTLED_OP] * 3]
        assert version(server, "/n") == 1
        client.close()


def test_large_requests_in_flight_have_a_limit_and_small_ones_pass() -> None:
    settings = {"largeRequestThreshold": "10000", "largeRequestMaxBytes": "25000"}
    with testing.server({**QUICK, **settings}) as server:
        large, other, small = (created(server, f"/{name}") for name in ("large", "other", "small"))
        with stopped(server, "storage"):
            large.send(*sets("/large", 2, bytes(11_000)))
            eventually(lambda: metric(server, "outstanding_requests") == 2, 5)
            other.send(*sets("/other", 1, bytes(11_000)))
            assert other.receive() is None, "one too many costs its connection"
            other.drop()
            small.send(*sets("/small", 5))
            eventually(lambda: metric(server, "outstanding_requests") == 7, 5)
        assert answers(large, 2) == [0, 0]
        assert answers(small, 5) == [0] * 5
        assert version(server, "/other") == 0
        assert "request.large" in server.log.read_text()
        large.send(*sets("/large", 2, bytes(11_000)))
        assert answers(large, 2) == [0, 0], "what is answered is given back"
        large.close()
        small.close()


def test_a_slow_write_is_logged_with_its_path() -> None:
    with testing.server({**QUICK, "slow.request.ms": "100"}) as server:
        client = created(server, "/slow")
        with stopped(server, "storage"):
            client.send(*sets("/slow", 1))
            time.sleep(0.3)  # what is tested is the passing of time
        assert answers(client, 1) == [0]
        lines = [line for line in server.log.read_text().splitlines() if "request.slow" in line]
        assert len(lines) == 1
        assert "path=/slow" in lines[0]
        assert "op=SETD" in lines[0]
        client.close()


def test_watches_beyond_the_limits_are_refused_and_counted_and_events_are_timed(
    tmp_path: Path,
) -> None:
    """M67, M68."""
    run = tmp_path / "run"
    limits = {"watch.limit.connection": "2", "watch.limit.path": "3", "runtime.dir": str(run)}
    with testing.server({**QUICK, **limits}) as server:
        clients = [created(server, f"/c{i}") for i in range(4)]
        found = [client.call(wire.EXISTS, wire.watched("/c0", 1))[0] for client in clients]
        assert found == [0, 0, 0, Err.QUOTA_EXCEEDED]
        own = [clients[0].call(wire.EXISTS, wire.watched(f"/c{i}", 1))[0] for i in (1, 2)]
        assert own == [0, Err.QUOTA_EXCEEDED]
        assert clients[0].call(wire.EXISTS, wire.watched("/c0", 1))[0] == 0, "it has that one"
        assert clients[3].call(wire.SET_DATA, wire.set_data("/c0", b"x", -1))[0] == 0
        for client in clients[:3]:
            client.call(wire.PING)
            assert client.events == [(3, "/c0")]
        config = load(None, {"dataDir": str(server.data_dir), "runtime.dir": str(run)})
        [answer] = ask(config, ("frontend",), {"parts": ["metrics"]}).values()
        families = as_families([answer["metrics"]], 0, [])
        values: Any = {one.name: one.samples.get("") for one in families}
        assert values["zkd_watches_refused_total"] == 2
        assert values["zkd_watch_events_total"] == 3
        assert values["zkd_watch_delivery_seconds"].buckets[-1][1] == 3
        assert 0 < values["zkd_watch_delivery_seconds"].sum < 3
        for client in clients:
            client.close()


@pytest.mark.parametrize(("size", "kept"), [("0", False), ("400", True)])
def test_a_response_cache_of_size_zero_is_off(size: str, kept: bool) -> None:
    settings = {"maxResponseCacheSize": size, "maxGetChildrenResponseCacheSize": size}
    with testing.server({**QUICK, **settings}) as server:
        client = created(server, "/n")
        for _ in range(20):
            assert client.call(wire.GET_DATA, wire.watched("/n"))[0] == 0
            assert client.call(wire.GET_CHILDREN2, wire.watched("/"))[0] == 0
        assert (metric(server, "response_packet_cache_hits") > 0) == kept
        client.close()
