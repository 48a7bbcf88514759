"""Sessions that one member keeps for itself, and members that are cut off."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest

from tests.conformance import wire
from tests.ensemble import Ensemble, until
from zkd.jute.protocol import Err

SYNC, CLOSE = 9, -11
TICK_MS = 200


@pytest.fixture(name="upgrading", scope="module")
def _upgrading() -> Iterator[Ensemble]:
    settings = {"localSessionsEnabled": "true", "localSessionsUpgradingEnabled": "true"}
    with Ensemble(3, tickTime=TICK_MS, **settings) as ensemble:
        yield ensemble


@pytest.fixture(name="local", scope="module")
def _local() -> Iterator[Ensemble]:
    with Ensemble(3, tickTime=TICK_MS, localSessionsEnabled="true") as ensemble:
        yield ensemble


def connect(ensemble: Ensemble, sid: int, **more: object) -> wire.Client:
    return wire.Client(ensemble.servers[sid].port, **more)


def make(client: wire.Client, path: str, flags: int = 0) -> int:
    return client.call(wire.CREATE, wire.create(path, b"", wire.OPEN, flags))[0]


def moved(ensemble: Ensemble, client: wire.Client, sid: int) -> wire.Client:
    had = client.session
    return connect(ensemble, sid, session=had.session, password=had.password)


@pytest.mark.parametrize("sid", [1, 2, 3])
def test_a_local_session_writes_and_moves_nowhere(local: Ensemble, sid: int) -> None:
    client = connect(local, sid)
    assert make(client, f"/plain-{sid}") == 0
    assert make(client, f"/mine-{sid}", flags=1) == Err.EPHEMERAL_ON_LOCAL_SESSION
    assert client.call(wire.SET_DATA, wire.set_data(f"/plain-{sid}", b"x", -1))[0] == 0
    other = moved(local, client, sid % 3 + 1)
    assert other.session.session == 0
    other.drop()
    client.drop()
    again = moved(local, client, sid)
    assert again.session.session == client.session.session
    assert again.call(wire.EXISTS, wire.watched(f"/plain-{sid}"))[0] == 0
    again.close()
    gone = moved(local, client, sid)
    assert gone.session.session == 0
    gone.drop()


@pytest.mark.parametrize("sid", [1, 2, 3])
def test_a_local_session_costs_no_transaction_and_expires(local: Ensemble, sid: int) -> None:
    def zxid() -> str:
        word = wire.Wire(local.servers[sid].port)
        word.send_raw(b"srvr")
        told = word.receive_raw().decode()
        word.drop()
        return next(line for line in told.splitlines() if line.startswith("Zxid: "))

    before = zxid()
    client = connect(local, sid, timeout_ms=2 * TICK_MS)
    assert client.session.timeout_ms == 2 * TICK_MS
    until(lambda: client.socket.recv(1) == b"")
    client.drop()
    late = moved(local, client, sid)
    assert late.session.session == 0
    late.drop()
    assert zxid() == before


@pytest.mark.parametrize("sid", [1, 2, 3])
def test_the_first_ephemeral_makes_the_session_everybodys(upgrading: Ensemble, sid: int) -> None:
    client = connect(upgrading, sid)
    assert make(client, f"/plain-{sid}") == 0
    assert make(client, f"/mine-{sid}", flags=1) == 0
    assert make(client, f"/mine-too-{sid}", flags=1) == 0
    other = moved(upgrading, client, sid % 3 + 1)
    assert other.session.session == client.session.session
    assert make(other, f"/later-{sid}", flags=1) == 0
    client.drop()
    other.close()
    witness = connect(upgrading, sid)

    def gone() -> bool:
        witness.call(SYNC, wire.text("/"))
        return witness.call(wire.EXISTS, wire.watched(f"/mine-{sid}"))[0] == Err.NO_NODE

    until(gone)
    witness.close()


@pytest.mark.parametrize("sid", [1, 2, 3])
def test_refusals_and_the_end_come_in_their_turn(local: Ensemble, sid: int) -> None:
    client = connect(local, sid)
    assert make(client, f"/turn-{sid}") == 0
    requests = []
    for i in range(50):
        requests.append((wire.CREATE, wire.create(f"/turn-{sid}/{i}", b"", wire.OPEN, 0)))
        requests.append((wire.CREATE, wire.create(f"/turn-{sid}/e", b"", wire.OPEN, 1)))
        requests.append((SYNC, wire.text("/")))
        requests.append((wire.CREATE, wire.create(f"/turn-{sid}/e", b"", wire.OPEN, 1)))
    requests.append((CLOSE, b""))
    client.send(*(wire.request(i + 1000, op, body) for i, (op, body) in enumerate(requests)))
    for i in range(len(requests)):
        reply = client.receive()
        assert reply is not None
        xid, _, err = struct.unpack_from(">iqi", reply)
        assert xid == i + 1000
        assert err == (Err.EPHEMERAL_ON_LOCAL_SESSION if i % 2 == 1 else 0)
    assert client.receive() is None
    client.drop()


def test_a_server_that_is_cut_off_serves_reads_to_those_who_ask() -> None:
    settings = {"readonlymode.enabled": "true"}
    with Ensemble(3, tickTime=TICK_MS, **settings) as ensemble:
        client = connect(ensemble, 3)
        assert make(client, "/a") == 0
        client.call(SYNC, wire.text("/"))
        for sid in (1, 2):
            ensemble.kill(sid)
        assert client.wait_closed() == b""
        client.drop()
        until(lambda: ensemble.modes()[3] == "read-only")
        plain = wire.Wire(ensemble.servers[3].port)
        plain.send(wire.connect_request())
        assert plain.wait_closed() == b""
        plain.drop()
        reads = connect(ensemble, 3, read_only=b"\1")
        assert reads.session.rest == b"\1"
        assert reads.call(wire.EXISTS, wire.watched("/a"))[0] == 0
        assert make(reads, "/b") == Err.NOT_READONLY
        ensemble.servers[1].start()
        ensemble.all_serve()
        assert reads.wait_closed() == b""
        reads.drop()
        back = connect(ensemble, 3)
        assert make(back, "/b") == 0
        back.close()
