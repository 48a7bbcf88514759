"""Sessions of an ensemble of zkd servers: they move, expire at the leader, outlive it."""

from __future__ import annotations

import itertools
import struct
import time
from collections.abc import Iterator

import pytest

from tests.conformance import wire
from tests.ensemble import Ensemble, until
from zkd.jute.protocol import Err

TICK_MS = 200
TIMEOUT_MS = 1000
SYNC = 9


@pytest.fixture(name="ensemble", scope="module")
def _ensemble() -> Iterator[Ensemble]:
    with Ensemble(3, tickTime=TICK_MS) as ensemble:
        yield ensemble


def connect(ensemble: Ensemble, sid: int, **more: object) -> wire.Client:
    return wire.Client(ensemble.servers[sid].port, **more)


def make(client: wire.Client, path: str, flags: int = 0) -> None:
    err, _ = client.call(wire.CREATE, wire.create(path, b"", wire.OPEN, flags))
    assert err == 0


def exists(client: wire.Client, path: str) -> bool:
    client.call(SYNC, wire.text("/"))
    return client.call(wire.EXISTS, wire.watched(path))[0] == 0


def moved(ensemble: Ensemble, client: wire.Client, sid: int) -> wire.Client:
    """The same session on another server."""
    had = client.session
    again = connect(
        ensemble, sid, session=had.session, password=had.password, timeout_ms=had.timeout_ms
    )
    assert again.session.session == had.session
    return again


@pytest.mark.parametrize(("one", "other"), list(itertools.permutations((1, 2, 3), 2)))
def test_a_session_moves_with_its_ephemerals(ensemble: Ensemble, one: int, other: int) -> None:
    first = connect(ensemble, one)
    path = f"/moves-{one}-{other}"
    make(first, path, flags=1)
    second = moved(ensemble, first, other)
    assert exists(second, path)
    first.drop()
    make(second, path + "-later", flags=1)
    second.close()
    witness = connect(ensemble, one)
    until(lambda: not exists(witness, path) and not exists(witness, path + "-later"))
    witness.close()


@pytest.mark.parametrize("leads", [True, False])
def test_the_connection_that_was_left_can_write_no_more(ensemble: Ensemble, leads: bool) -> None:
    leader = ensemble.leader()
    one = leader if leads else leader % 3 + 1
    other = one % 3 + 1
    first = connect(ensemble, one)
    second = moved(ensemble, first, other)
    with pytest.raises(ConnectionError):  # closed at once by a leader, else in answer to the write
        first.call(wire.CREATE, wire.create(f"/left-{leads}", b"", wire.OPEN, 0))
    assert not exists(second, f"/left-{leads}")
    second.close()
    first.drop()


@pytest.mark.parametrize("sid", [1, 2, 3])
def test_a_dead_clients_ephemerals_go_in_time_whichever_server_it_was_on(
    ensemble: Ensemble, sid: int
) -> None:
    owner = connect(ensemble, sid, timeout_ms=TIMEOUT_MS)
    make(owner, f"/dead-{sid}", flags=1)
    witness = connect(ensemble, sid % 3 + 1)
    died = time.monotonic()
    owner.drop()
    until(lambda: not exists(witness, f"/dead-{sid}"), 5.0)
    took_ms = (time.monotonic() - died) * 1000
    assert TIMEOUT_MS - TICK_MS <= took_ms <= TIMEOUT_MS + 2 * TICK_MS + 500
    witness.close()


@pytest.mark.parametrize("sid", [1, 2, 3])
def test_a_client_that_only_pings_keeps_its_session(ensemble: Ensemble, sid: int) -> None:
    client = connect(ensemble, sid, timeout_ms=TIMEOUT_MS)
    make(client, f"/pings-{sid}", flags=1)
    end = time.monotonic() + 3 * TIMEOUT_MS / 1000
    while time.monotonic() < end:
        client.send(struct.pack(">ii", -2, 11))
        assert client.receive() is not None
        time.sleep(0.2)  # as a client that has nothing to do
    assert exists(client, f"/pings-{sid}")
    client.close()


@pytest.mark.parametrize("sid", [1, 2, 3])
def test_a_wrong_password_gets_no_session(ensemble: Ensemble, sid: int) -> None:
    client = connect(ensemble, sid)
    for other in (1, 2, 3):
        wrong = connect(ensemble, other, session=client.session.session, password=b"x" * 16)
        assert wrong.session.session == 0
        wrong.drop()
    client.drop()


@pytest.mark.parametrize("sid", [1, 2, 3])
def test_an_unknown_session_is_refused(ensemble: Ensemble, sid: int) -> None:
    had = connect(ensemble, sid)
    had.close()
    again = connect(
        ensemble, sid % 3 + 1, session=had.session.session, password=had.session.password
    )
    assert again.session.session == 0
    again.drop()


@pytest.mark.parametrize("sid", [1, 2, 3])
def test_replies_come_in_the_order_of_the_requests(ensemble: Ensemble, sid: int) -> None:
    """Writes, failed writes, syncs and reads, all sent at once."""
    client = connect(ensemble, sid)
    make(client, f"/order-{sid}")
    requests = []
    for i in range(200):
        path = f"/order-{sid}/{i}"
        requests.append((wire.CREATE, wire.create(path, b"", wire.OPEN, 0)))
        requests.append((SYNC, wire.text("/")))
        requests.append((wire.EXISTS, wire.watched(path)))
        requests.append((wire.CREATE, wire.create(path, b"", wire.OPEN, 0)))
    client.send(*(wire.request(i + 1000, op, body) for i, (op, body) in enumerate(requests)))
    last_zxid = 0
    for i in range(len(requests)):
        reply = client.receive()
        assert reply is not None
        xid, zxid, err = struct.unpack_from(">iqi", reply)
        assert xid == i + 1000
        assert zxid >= last_zxid
        assert err == (Err.NODE_EXISTS if i % 4 == 3 else 0)
        last_zxid = zxid
    client.close()


@pytest.mark.parametrize("sid", [1, 2, 3])
def test_what_cannot_be_read_is_answered_in_its_turn(ensemble: Ensemble, sid: int) -> None:
    client = connect(ensemble, sid)
    make(client, f"/unreadable-{sid}")
    err, _ = client.call(wire.CREATE, b"\x7f\xff\xff\xff")
    assert err == Err.MARSHALLING_ERROR
    make(client, f"/unreadable-{sid}/after")
    client.close()
