"""The two ways into an inbox: order, sizes, a receiver that is slow or gone."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from zkd.bus.messages import decode
from zkd.bus.places import listen
from zkd.bus.sockets import Direct, Inbox, Outbox

LIFE = 7
WAIT_S = 5.0


class Bus:
    """Inboxes of several processes, all in this one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.context: zmq.Context[Any] = zmq.Context()
        self.inboxes: list[Inbox] = []

    def inbox(self, name: str, life: int = LIFE) -> Inbox:
        inbox = Inbox(self.context, self.folder, name, life, listen(self.folder, name, life))
        self.inboxes.append(inbox)
        return inbox

    def close(self) -> None:
        for inbox in self.inboxes:
            inbox.close()
        self.context.destroy(0)


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[Bus]:
    with contextlib.closing(Bus(tmp_path)) as one:
        yield one


def take(inbox: Inbox, count: int) -> list[Any]:
    """That many messages, decoded."""
    found = []
    for _ in range(count):
        frame = inbox.recv(WAIT_S)
        assert frame, f"only {len(found)} of {count} messages came"
        found.append(decode(frame))
    return found


def test_messages_come_in_order_whatever_their_size(bus: Bus) -> None:
    receiver, sender = bus.inbox("peer"), bus.inbox("frontend 1")
    out = Direct(sender, bus.folder, "peer", LIFE)
    sizes = [0, 1, 10, 100_000, 3, 700_000, 5, 1 << 20, 2, 20 << 20, 1]
    for number, size in enumerate(sizes):
        out.send((number, bytes(size)))
    found = []
    while len(found) < len(sizes):
        frame = receiver.recv(0.05)
        if frame:
            found.append(decode(frame))
        else:
            sender.recv()  # flushes what the receiver takes now
    assert [(number, len(data)) for number, data in found] == list(enumerate(sizes))
    out.close()


def test_a_receiver_that_takes_nothing_blocks_nobody(bus: Bus) -> None:
    receiver, sender = bus.inbox("peer"), bus.inbox("frontend 1")
    out = Direct(sender, bus.folder, "peer", LIFE)
    for number in range(500):
        out.send((number, bytes(10_000)))
    found = 0
    while found < 500:
        frame = receiver.recv(0.05)
        if frame:
            assert decode(frame)[0] == found
            found += 1
        else:
            sender.recv()
    out.close()


def test_two_senders_at_once_keep_their_own_order(bus: Bus) -> None:
    receiver = bus.inbox("peer")
    outs = []
    for name in ("frontend 1", "frontend 2"):
        outs.append(Direct(bus.inbox(name), bus.folder, "peer", LIFE))
    for number in range(200):
        for who, out in enumerate(outs):
            out.send((who, number))
    found = take(receiver, 400)
    for who in range(2):
        assert [number for one, number in found if one == who] == list(range(200))
    for out in outs:
        out.close()


def test_both_ways_reach_the_same_inbox(bus: Bus) -> None:
    receiver, sender = bus.inbox("storage"), bus.inbox("peer")
    direct = Direct(sender, bus.folder, "storage", LIFE)
    through = Outbox(bus.context, bus.folder, "storage", LIFE)
    direct.send(("direct",))
    through.send(("through zmq",))
    assert {message[0] for message in take(receiver, 2)} == {"direct", "through zmq"}
    direct.close()
    through.close()


def test_what_is_meant_for_a_life_that_has_ended_is_dropped(bus: Bus) -> None:
    sender = bus.inbox("frontend 1")
    out = Direct(sender, bus.folder, "peer", LIFE)
    out.send(("to nobody",))
    receiver = bus.inbox("peer", LIFE + 1)
    later = Direct(sender, bus.folder, "peer", LIFE + 1)
    later.send(("one",))
    assert take(receiver, 1) == [("one",)]
    receiver.close()
    bus.inboxes.remove(receiver)
    for _ in range(100):
        later.send(("two", bytes(10_000)))
    assert not sender.recv()
    later.close()
    out.close()


def test_an_empty_inbox_says_so_in_time(bus: Bus) -> None:
    assert not bus.inbox("peer").recv(0.01)
