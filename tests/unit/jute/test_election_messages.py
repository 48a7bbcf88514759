"""The election port's messages: every recorded one, all old forms, and what is refused."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zkd.config.servers import parse_membership
from zkd.jute import election
from zkd.jute.codec import Malformed
from zkd.jute.election import Initial, MessageDecoder, Notification, encode_initial, read_initial

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "fle-messages.json").read_text())
INITIALS = [v for v in VECTORS if v["name"].startswith("initial")]
NOTIFICATIONS = [v for v in VECTORS if v["name"].startswith("notification")]


def signed(told: str | int) -> int:
    value = int(told, 16) if isinstance(told, str) else told
    return value - (1 << 64) if value >> 63 and value > 0 else value


def number(vector: dict[str, Any]) -> str:
    return f"{VECTORS.index(vector)} {vector['name']}"


@pytest.mark.parametrize("vector", INITIALS, ids=number)
def test_a_recorded_first_message_is_read_and_written(vector: dict[str, Any]) -> None:
    raw, told = bytes.fromhex(vector["hex"]), vector["decoded"]
    found = read_initial(raw)
    assert found is not None
    initial, end = found
    assert end == len(raw)
    assert initial.sid == told["sid"]
    address = "|".join(f"{host}:{port}" for host, port in initial.addresses)
    assert address == told["electionAddress"]
    many = told["protocolVersion"] == election.MANY_ADDRESSES
    assert encode_initial(initial.sid, initial.addresses, many=many) == raw
    assert [read_initial(raw[:cut]) for cut in range(len(raw))] == [None] * len(raw)
    assert read_initial(raw + b"more") == (initial, end)


@pytest.mark.parametrize("vector", NOTIFICATIONS, ids=number)
def test_a_recorded_notification_is_read_and_written(vector: dict[str, Any]) -> None:
    raw, told = bytes.fromhex(vector["hex"]), vector["decoded"]
    (message,) = MessageDecoder().feed(raw)
    assert len(message) == told["length"]
    vote = Notification.read(message)
    assert vote is not None
    assert (vote.state, vote.leader, vote.round) == (
        told["state"],
        told["leader"],
        told["electionEpoch"],
    )
    assert vote.zxid == signed(told["zxid"])
    assert (vote.peer_epoch, vote.version) == (told["peerEpoch"], told["version"])
    assert vote.config == told["config"]
    assert parse_membership(vote.config).text() == vote.config
    assert election.frame(vote.encode()) == raw


def test_addresses_may_be_ipv6_several_or_missing() -> None:
    addresses = (("::1", 3888), ("zk-1.example", 3889), ("10.0.0.1", 1))
    raw = encode_initial(7, addresses, many=True)
    assert raw.endswith(b"[::1]:3888|zk-1.example:3889|10.0.0.1:1")
    assert read_initial(raw) == (Initial(7, addresses), len(raw))
    one = encode_initial(7, addresses, many=False)
    assert read_initial(one) == (Initial(7, addresses[:1]), len(one))
    assert one.startswith(struct.pack(">qqi", -65536, 7, 10))
    anywhere = encode_initial(7, (("0.0.0.0", 5), ("::", 5)), many=True)
    assert read_initial(anywhere) == (Initial(7), len(anywhere))


def test_a_server_from_before_reconfiguration_says_only_its_sid() -> None:
    assert read_initial(struct.pack(">q", 3) + b"rest") == (Initial(3), 8)
    anonymous = struct.pack(">q", election.ANONYMOUS)
    assert read_initial(anonymous) == (Initial(election.ANONYMOUS), 8)


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (struct.pack(">q", -1), "version -1"),
        (struct.pack(">q", -(1 << 63)), "unknown version"),
        (struct.pack(">qqi", -65536, 1, 0), "0 bytes"),
        (struct.pack(">qqi", -65536, 1, -1), "-1 bytes"),
        (struct.pack(">qqi", -65536, 1, 2049), "2049 bytes"),
        (struct.pack(">qqi", -65536, 1, 4) + b"host", "host:port"),
        (struct.pack(">qqi", -65536, 1, 5) + b"h:99x", "host:port"),
        (struct.pack(">qqi", -65536, 1, 7) + b"h:70000", "host:port"),
        (struct.pack(">qqi", -65536, 1, 5) + b"::1:1", "host:port"),
        (struct.pack(">qqi", -65535, 1, 6) + b"h:1|x:", "host:port"),
    ],
)
def test_a_first_message_that_makes_no_sense_is_malformed(raw: bytes, why: str) -> None:
    with pytest.raises(Malformed, match=why):
        read_initial(raw)


VOTE = struct.pack(">iqqqq", 2, 3, 5 << 32 | 1, 9, 6)


@pytest.mark.parametrize(
    ("message", "read"),
    [
        (VOTE[:28], Notification(2, 3, 5 << 32 | 1, 9, 5, 0)),
        (VOTE + struct.pack(">i", 2), Notification(2, 3, 5 << 32 | 1, 9, 6, 0)),
        (VOTE + struct.pack(">ii", 1, 77), Notification(2, 3, 5 << 32 | 1, 9, 6, 1)),
        (VOTE + struct.pack(">i", 1) + b"xy", Notification(2, 3, 5 << 32 | 1, 9, 6, 1)),
        (VOTE + struct.pack(">ii", 2, 0), Notification(2, 3, 5 << 32 | 1, 9, 6, 2)),
        (VOTE + struct.pack(">ii", 2, 1) + b"ab", Notification(2, 3, 5 << 32 | 1, 9, 6, 2, "a")),
        (VOTE + struct.pack(">ii", 3, 1) + b"a", Notification(2, 3, 5 << 32 | 1, 9, 6, 3, "a")),
        (b"", None),
        (VOTE[:27], None),
        (VOTE[:35], None),
        (VOTE[:36], None),
        (VOTE + b"\0\0\0", None),
        (VOTE + struct.pack(">i", 2) + b"\0", None),
        (VOTE + struct.pack(">ii", 2, 3) + b"ab", None),
        (VOTE + struct.pack(">ii", 2, -1) + b"ab", None),
    ],
)
def test_notifications_of_every_length(message: bytes, read: Notification | None) -> None:
    assert Notification.read(message) == read


@pytest.mark.parametrize("size", [0, -1, election.MESSAGE_MAX + 1, 0x7FFFFFFF])
def test_a_notification_of_a_bad_length_is_malformed_at_once(size: int) -> None:
    with pytest.raises(Malformed, match=str(size)):
        MessageDecoder().feed(struct.pack(">i", size))


@given(st.lists(st.binary(min_size=1, max_size=60), max_size=6), st.integers(1, 50))
@settings(max_examples=100, deadline=None)
def test_notifications_cut_anywhere_come_out_whole(messages: list[bytes], step: int) -> None:
    raw = b"".join(map(election.frame, messages))
    decoder = MessageDecoder()
    pieces = [raw[at : at + step] for at in range(0, len(raw), step)]
    assert [m for piece in pieces for m in decoder.feed(piece)] == messages


@given(st.binary(max_size=120))
@settings(max_examples=300, deadline=None)
def test_random_bytes_are_read_or_refused(raw: bytes) -> None:
    vote = Notification.read(raw)
    if vote is not None:
        assert len(vote.config) <= len(raw)
    for call in (read_initial, MessageDecoder().feed):
        try:
            call(raw)  # type: ignore[operator]
        except Malformed:
            pass
