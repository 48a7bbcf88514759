"""The front-end of a member: what the peer commits is applied, a role ends and another begins."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest

from tests.conformance import wire
from tests.integration.test_processes import eventually
from tests.member.scripted import FRONTEND, Member, Tree
from zkd.bus.messages import (
    ANSWERS,
    ATTACHED,
    DENIED,
    DURABLE,
    EPOCHS,
    INSTALL,
    INSTALLED,
    JOIN,
    NEW_SESSION,
    READ_ONLY,
    SAVED,
    SESSION_CLOSED,
    TRUNCATE,
    TRUNCATED,
    TXNS,
)
from zkd.jute.protocol import Err, Op

SESSION = 0x1_0000_0000_0001
PASSWORD = bytes(range(16))


@pytest.fixture(name="member")
def _member() -> Iterator[Member]:
    with Member("4lw.commands.whitelist=*") as member:
        member.start("storage")
        member.open()
        member.start(FRONTEND)
        member.expect(JOIN)
        yield member


@pytest.fixture(name="tree")
def _tree(member: Member) -> Iterator[Tree]:
    """The tree of a peer that has not begun to serve."""
    base = member.read_tree()
    yield Tree(base)
    base.close()


def session_txn(member: Member, tree: Tree, number: int, session: int) -> tuple[object, ...]:
    """createSession for the client on a connection."""
    asked = (member.processes[FRONTEND].life, number, 0)
    timeout = (30_000).to_bytes(4, "big")
    txn = tree.write(Op.CREATE_SESSION, timeout, session=session, asked=asked)
    return (*txn[:7], (session, 30_000, PASSWORD))


def attach(member: Member, tree: Tree, session: int = SESSION) -> tuple[wire.Wire, int]:
    """A client with a session, and the number of its connection."""
    client = wire.Wire(member.port)
    client.send(wire.connect_request())
    number, *_ = member.request(NEW_SESSION)
    txn = session_txn(member, tree, number, session)
    member.hand_on(txn)
    member.commit(txn[0])  # type: ignore[arg-type]
    answer = client.receive()
    assert answer is not None
    assert wire.connected(answer).session == session
    return client, number


def ask(client: wire.Wire, xid: int, op: int, body: bytes) -> tuple[int, int, int]:
    """xid, zxid and err of the reply to a request."""
    client.send(wire.request(xid, op, body))
    answer = client.receive()
    assert answer is not None
    return struct.unpack_from(">iqi", answer)  # type: ignore[return-value]


def refused(member: Member) -> bool:
    """Whether a client is sent away at once."""
    client = wire.Wire(member.port)
    client.send(wire.connect_request())
    try:
        return client.receive() is None
    finally:
        client.drop()


def closed(client: wire.Wire) -> bool:
    """Whether the server ends the connection without another word."""
    answer = client.receive()
    client.drop()
    return answer is None


def word(member: Member, text: bytes) -> bytes:
    client = wire.Wire(member.port)
    client.send_raw(text)
    answer = client.receive_raw()
    client.drop()
    return answer


def test_without_a_role_clients_are_sent_away_and_words_answered(member: Member) -> None:
    assert refused(member)
    assert word(member, b"ruok") == b"imok"


def test_a_reply_waits_for_the_commit_not_for_the_disk(member: Member, tree: Tree) -> None:
    member.begin(0)
    client, number = attach(member, tree)
    client.send(wire.request(1, wire.CREATE, wire.create("/a", b"", wire.OPEN, 0)))
    _, xid, op, body = member.request(Op.CREATE)
    life = member.processes[FRONTEND].life
    member.hand_on(tree.write(op, body, session=SESSION, asked=(life, number, xid)))
    assert member.nothing_comes(client.socket), "it is durable here, and that is not enough"
    member.commit(tree.zxid)
    answer = client.receive()
    assert answer is not None
    assert struct.unpack_from(">iqi", answer) == (1, tree.zxid, 0)
    client.drop()


def test_what_is_not_committed_when_a_role_begins_is_not_shown(member: Member, tree: Tree) -> None:
    first, *pending = (tree.create("/a"), tree.create("/b"), tree.create("/c"))
    member.hand_on(first, *pending)
    member.commit(1)
    member.begin(1, pending)
    client, _ = attach(member, tree)  # commits all of it
    assert ask(client, 1, wire.EXISTS, wire.watched("/b")) == (1, 4, 0)
    client.drop()


def test_a_role_that_ends_closes_its_clients_and_the_next_serves(
    member: Member, tree: Tree
) -> None:
    """In the same incarnation; what the first had handed out and not committed may be gone."""
    member.begin(0)
    client, _ = attach(member, tree)
    lost = tree.create("/lost")
    member.hand_on(lost)
    member.role_over()
    assert closed(client)
    assert refused(member)
    member.order(TRUNCATE, lost[0] - 1)
    assert member.expect(TRUNCATED)[2] == lost[0] - 1
    member.begin(lost[0] - 1)
    base = member.read_tree()
    fresh = Tree(base)
    fresh.zxid = 1 << 32
    other, _ = attach(member, fresh, SESSION + 1)
    assert ask(other, 1, wire.EXISTS, wire.watched("/lost"))[2] == Err.NO_NODE
    other.drop()
    base.close()


def test_another_tree_is_served_after_a_snapshot(member: Member, tree: Tree) -> None:
    """Also when its zxid is below what was applied here: the rows behind it make up for that."""
    member.begin(0)
    client, _ = attach(member, tree)
    member.hand_on(*tree.creates(0, 9))
    member.commit(10)
    eventually(lambda: member.tree_zxid() == 10)
    assert ask(client, 1, wire.EXISTS, wire.watched("/n3"))[2] == 0
    member.role_over()
    assert closed(client)
    member.snapshot(6, "/snapped")
    base = member.read_tree()
    other = Tree(base)
    other.zxid = 6
    rows = [(txn[0], txn[5]) for txn in other.creates(100, 4)]
    member.order(INSTALL, 6, rows, 3, 3)
    member.expect(INSTALLED)
    member.order(EPOCHS, 4, 4)
    member.expect(SAVED)
    member.commit(10)
    member.begin(10)
    second, _ = attach(member, other, SESSION + 1)
    found = [ask(second, i, wire.EXISTS, wire.watched(p))[2] for i, p in enumerate(PATHS)]
    assert found == [0, 0, 0, Err.NO_NODE]
    eventually(lambda: member.tree_zxid() == 11)
    second.drop()
    base.close()


PATHS = ("/snapped", "/n100", "/n103", "/n3")


def answer(member: Member, *answers: tuple[object, ...]) -> None:
    """What the peer answers without a transaction: (connection, xid, after, kind, payload)."""
    member.send(FRONTEND, ANSWERS, member.incarnation, member.seq, list(answers))


def attach_locally(member: Member, kind: bytes = b"\1") -> tuple[wire.Wire, int, bytes]:
    """A client with a session that no transaction knows; the byte of its ConnectResponse."""
    client = wire.Wire(member.port)
    client.send(wire.connect_request(read_only=kind))
    number, *_ = member.request(NEW_SESSION)
    answer(member, (number, 0, 0, ATTACHED, (SESSION, 30_000, PASSWORD)))
    told = client.receive()
    assert told is not None
    return client, number, wire.connected(told).rest


def test_a_server_that_is_cut_off_serves_reads_to_those_who_want_them(
    member: Member, tree: Tree
) -> None:
    member.hand_on(tree.create("/a"))
    member.commit(1)
    member.begin(1, writes=READ_ONLY)
    assert refused(member), "it did not ask for a read-only server"
    client, number, byte = attach_locally(member)
    assert byte == b"\1"
    assert ask(client, 1, wire.EXISTS, wire.watched("/a")) == (1, 1, 0)
    for xid, (op, body) in enumerate(
        [
            (wire.CREATE, wire.create("/b", b"", wire.OPEN, 0)),
            (wire.SET_DATA, wire.set_data("/a", b"", -1)),
            (wire.MULTI, wire.multi([])),
            (wire.SYNC, wire.text("/a")),
            (Op.CHECK, wire.versioned("/a", -1)),
        ]
    ):
        assert ask(client, xid, op, body) == (xid, 1, Err.NOT_READONLY)
    client.send(wire.request(9, wire.CLOSE_SESSION))
    assert member.request(Op.CLOSE_SESSION)[:2] == (number, 9)
    answer(member, (number, 9, 1, SESSION_CLOSED, None))
    told = client.receive()
    assert told is not None
    assert struct.unpack_from(">iqi", told) == (9, 1, 0)
    assert closed(client)


def test_a_client_that_may_be_read_only_hears_that_it_is_not(member: Member) -> None:
    member.begin(0)
    client, number, byte = attach_locally(member)
    assert byte == b"\0"
    client.send(wire.request(1, wire.CREATE, wire.create("/e", b"", wire.OPEN, 1)))
    member.request(Op.CREATE)
    answer(member, (number, 1, 0, DENIED, Err.EPHEMERAL_ON_LOCAL_SESSION))
    told = client.receive()
    assert told is not None
    assert struct.unpack_from(">iqi", told) == (1, 0, Err.EPHEMERAL_ON_LOCAL_SESSION)
    client.drop()


def test_a_client_hears_of_its_write_over_a_restart_of_storage(member: Member, tree: Tree) -> None:
    """What the dead storage may not have written is handed on again, in a new incarnation."""
    member.begin(0)
    client, number = attach(member, tree)
    client.send(wire.request(1, wire.CREATE, wire.create("/a", b"", wire.OPEN, 0)))
    _, xid, op, body = member.request(Op.CREATE)
    asked = (member.processes[FRONTEND].life, number, xid)
    member.processes["storage"].kill()
    txn = tree.write(op, body, session=SESSION, asked=asked)
    member.send(FRONTEND, TXNS, member.incarnation, member.seq, [txn])
    member.start("storage")
    assert member.open()[0] == txn[0] - 1
    member.begin(txn[0] - 1, [txn])
    member.send("storage", TXNS, member.incarnation, 1, [txn])
    member.expect(DURABLE, where=lambda message: message[3] == txn[0])
    assert member.nothing_comes(client.socket)
    member.commit(txn[0])
    told = client.receive()
    assert told is not None
    assert struct.unpack_from(">iqi", told) == (1, txn[0], 0)
    client.drop()


def test_a_restarted_front_end_goes_on_in_the_role(member: Member, tree: Tree) -> None:
    member.begin(0)
    client, _ = attach(member, tree)
    pending = tree.creates(0, 3)
    member.hand_on(*pending)
    member.commit(2)
    member.processes[FRONTEND].kill()
    assert closed(client)
    member.start(FRONTEND)
    assert member.expect(JOIN)[3] == []
    member.begin(2, pending[1:])
    member.commit(3)
    other, _ = attach(member, tree, SESSION + 1)  # commits the rest
    found = [ask(other, i, wire.EXISTS, wire.watched(f"/n{i}"))[2] for i in range(4)]
    assert found == [0, 0, 0, Err.NO_NODE]
    other.drop()


def test_a_lapsed_grant_closes_the_clients(member: Member, tree: Tree) -> None:
    member.begin(0)
    client, _ = attach(member, tree)
    member.grant(0.1)
    assert closed(client)
    member.grant(60)
    eventually(lambda: not refused_now(member))


def refused_now(member: Member) -> bool:
    """Whether a client would be sent away; it is not waited for a session."""
    client = wire.Wire(member.port)
    client.send(wire.connect_request())
    quiet = member.nothing_comes(client.socket)
    client.drop()
    return not quiet
