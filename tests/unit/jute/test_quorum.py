"""QuorumPackets: every recorded one, in pieces of any size, and what is none of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zkd.config.servers import parse_membership
from zkd.jute import quorum, txn
from zkd.jute.codec import DEFAULT_LIMIT, Malformed
from zkd.jute.quorum import Kind, LearnerInfo, PacketDecoder

VECTORS = Path(__file__).parents[2] / "vectors"


def load(name: str) -> Any:
    return json.loads((VECTORS / name).read_text())


PACKETS = [v for v in load("quorum-packets.json") if not v["name"].startswith("QuorumAuth")]


def unhex(told: str | None) -> bytes | None:
    return None if told is None else bytes.fromhex(told)


def conversations() -> list[tuple[str, list[dict[str, Any]]]]:
    found = []
    for file in ("sequences.json", "scripted-leader.json"):
        for talk in load(file):
            for way in ("L>M", "M>L"):
                packets = [p for p in talk["packets"] if p["dir"].startswith(way) and "hex" in p]
                found.append((f"{talk['title']} {way}", packets))
    return found


def decode(raw: bytes, **settings: int) -> list[quorum.Packet]:
    decoder = PacketDecoder(**settings)
    packets = decoder.feed(raw)
    assert decoder.take_rest() == b""
    return packets


@pytest.mark.parametrize("vector", PACKETS, ids=lambda v: v["name"])
def test_a_recorded_packet_is_read_and_written(vector: dict[str, Any]) -> None:
    raw, told = bytes.fromhex(vector["hex"]), vector["decoded"]
    ((kind, zxid, data, authinfo),) = decode(raw)
    assert (kind, quorum.name(kind)) == (told["type"], told["typeName"])
    assert zxid & (1 << 64) - 1 == int(told["zxid"], 16) & (1 << 64) - 1
    assert data == unhex(told["data"])
    ids = told["authinfo"]
    if ids is not None:
        ids = tuple(tuple(i.values()) if isinstance(i, dict) else tuple(i) for i in ids)
    assert authinfo == ids
    assert quorum.encode(kind, zxid, data, authinfo) == raw


def check_data(kind: int, data: bytes | None, told: dict[str, Any]) -> bytes | None:
    """Compare what the data say, and write them again."""
    if "learnerInfo" in told:
        info, wanted = LearnerInfo.read(data), told["learnerInfo"]
        assert info.sid == wanted["serverid"]
        assert info.protocol_version == int(wanted["protocolVersion"], 16) == 0x10000
        assert info.config_version == int(wanted["configVersion"], 16)
        return info.encode()
    if "touchTable" in told:
        table = dict(quorum.read_touches(data))
        assert len(table) == len(told["touchTable"])
        return quorum.touches(table)
    if "request" in told:
        session, cxid, op, body = quorum.read_request(data)
        assert f"REQUEST/op{op}" == "/".join(told["name"].split("/")[:2])
        return quorum.request(session, cxid, op, body)
    if "valid" in told:
        session, valid = quorum.read_revalidated(data)
        assert valid == bool(told["valid"])
        return quorum.revalidated(session, valid)
    if kind == Kind.REVALIDATE:
        session, timeout = quorum.read_revalidate(data)
        assert timeout == told["timeout"]
        return quorum.revalidate(session, timeout)
    if "designatedLeader" in told:
        leader = quorum.read_long(data, told["typeName"])
        assert leader == told["designatedLeader"]
        assert data is not None
        if kind == Kind.INFORM_AND_ACTIVATE:
            assert txn.decode(data[8:]).header.type == 16
        return quorum.designate(leader, data[8:])
    if "currentEpoch" in told:
        return (quorum.read_int(data, "ACKEPOCH") & 0xFFFFFFFF).to_bytes(4, "big")
    return data


@pytest.mark.parametrize("vector", PACKETS, ids=lambda v: v["name"])
def test_the_data_of_a_recorded_packet_are_understood(vector: dict[str, Any]) -> None:
    ((kind, zxid, data, _),) = decode(bytes.fromhex(vector["hex"]))
    told = vector["decoded"] | {"name": vector["name"]}
    assert check_data(kind, data, told) == data
    if "currentEpoch" in told:
        assert quorum.read_int(data, "ACKEPOCH") == told["currentEpoch"]
    if "config" in told:
        assert data is not None
        assert parse_membership(told["config"]).text().encode() == data
    if kind in (Kind.PROPOSAL, Kind.INFORM):
        assert data is not None
        assert txn.decode(data).header.zxid == zxid
        assert quorum.encode_proposals([(zxid, data)], kind) == bytes.fromhex(vector["hex"])


@pytest.mark.parametrize(("title", "packets"), conversations(), ids=lambda v: str(v)[:60])
@pytest.mark.parametrize("step", [1, 7, 1 << 20])
def test_a_recorded_conversation_is_read_in_pieces(
    title: str, packets: list[dict[str, Any]], step: int
) -> None:
    """Snapshot streams and SASL stand between the packets: the decoder stops before them."""
    decoder = PacketDecoder()
    for told in packets:
        raw = bytes.fromhex(told["hex"])
        if told["kind"] not in quorum.NAMES.values():
            assert decoder.stopped or told["kind"] == "QuorumAuthPacket"
            if decoder.stopped:
                assert decoder.feed(raw) == []
                assert decoder.take_rest() == raw
            continue
        found = [p for at in range(0, len(raw), step) for p in decoder.feed(raw[at : at + step])]
        assert [quorum.name(p[0]) for p in found] == [told["kind"]], title
        assert quorum.encode(*found[0]) == raw


def test_runs_are_the_same_as_single_packets() -> None:
    txns = [(7, b"seven"), (8, b""), (9, b"x" * 1000)]
    pairs = [p for z, b in txns for p in ((2, z, b, None), (4, z, None, None))]
    assert decode(quorum.encode_history(txns)) == pairs
    assert decode(quorum.encode_proposals(txns)) == pairs[::2]
    assert decode(quorum.encode_commits(z for z, _ in txns)) == pairs[1::2]
    assert decode(quorum.encode_acks([7, 8])) == [(3, 7, None, None), (3, 8, None, None)]
    assert quorum.encode_history([]) == b""


def test_behind_a_snap_nothing_is_a_packet_until_told() -> None:
    after = quorum.encode(Kind.NEW_LEADER, 1 << 32, b"version=0")
    decoder = PacketDecoder()
    assert decoder.feed(quorum.encode(Kind.SNAP, 5) + b"stream" + after[:9]) == [
        (Kind.SNAP, 5, None, None)
    ]
    assert decoder.stopped
    assert decoder.feed(after[9:12]) == []
    rest = decoder.take_rest()
    assert rest == b"stream" + after[:12]
    assert decoder.go_on(rest[6:]) == []
    assert decoder.feed(after[12:]) == [(Kind.NEW_LEADER, 1 << 32, b"version=0", None)]


def one_by_one(raw: bytes) -> None:
    decoder = PacketDecoder()
    for at in range(len(raw)):
        decoder.feed(raw[at : at + 1])


HUGE = (0).to_bytes(4, "big") + bytes(8)


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (HUGE + (DEFAULT_LIMIT + 1).to_bytes(4, "big"), "2097151 bytes of data"),
        (HUGE + b"\x7f\xff\xff\xff", "2147483647 bytes of data"),
        (HUGE + b"\xff\xff\xff\xfe", "-2 bytes of data"),
        (quorum.encode(1, 1)[:-4] + b"\x7f\xff\xff\xff", "2147483647 identities"),
        (quorum.encode(1, 1)[:-4] + b"\0\0\0\1\x7f\xff\xff\xff" + bytes(4), "2147483647 bytes"),
        (quorum.encode(1, 1)[:-4] + b"\0\0\0\1\xff\xff\xff\xfe" + bytes(4), "-2 bytes"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "no ZooKeeper server"),
    ],
)
def test_a_huge_length_is_refused_before_its_bytes_come(raw: bytes, why: str) -> None:
    with pytest.raises(Malformed, match=why):
        PacketDecoder().feed(raw)
    with pytest.raises(Malformed, match=why):
        one_by_one(raw)


def test_null_and_empty_differ_and_null_identities_are_empty_texts() -> None:
    for data in (None, b""):
        for authinfo in (None, (), (("ip", "::1"), ("", "é"))):
            assert decode(quorum.encode(1, -1, data, authinfo)) == [(1, -1, data, authinfo)]
    raw = quorum.encode(1, -1)[:-4] + b"\0\0\0\1" + b"\xff\xff\xff\xff" * 2
    assert decode(raw) == [(1, -1, None, (("", ""),))]


@pytest.mark.parametrize(
    ("data", "info"),
    [
        (None, LearnerInfo(None, 1)),
        (bytes(7) + b"\5", LearnerInfo(5, 1)),
        (bytes(7) + b"\5\0\1\0\0", LearnerInfo(5)),
        (bytes(7) + b"\5\0\1\0\0" + bytes(7) + b"\x09", LearnerInfo(5, 0x10000, 9)),
        (bytes(7) + b"\5\0\1\0\0" + bytes(7) + b"\x09more", LearnerInfo(5, 0x10000, 9)),
    ],
)
def test_learner_info_of_old_servers(data: bytes | None, info: LearnerInfo) -> None:
    assert LearnerInfo.read(data) == info


@pytest.mark.parametrize(
    "call",
    [
        lambda: LearnerInfo.read(b"short"),
        lambda: quorum.read_int(None, "LEADERINFO"),
        lambda: quorum.read_int(b"\0", "LEADERINFO"),
        lambda: quorum.read_long(b"\0" * 7, "COMMITANDACTIVATE"),
        lambda: quorum.read_touches(b"\0" * 13),
        lambda: quorum.read_request(b"\0" * 15),
        lambda: quorum.read_request(None),
        lambda: quorum.read_revalidate(b"\0" * 11),
        lambda: quorum.read_revalidated(b"\0" * 8),
    ],
)
def test_data_that_are_too_short_are_malformed(call: Any) -> None:
    with pytest.raises(Malformed):
        call()


def test_a_leaders_ping_has_no_touches() -> None:
    assert quorum.read_touches(None) == quorum.read_touches(b"") == []
    assert quorum.touches({}) == b""


LONGS = st.integers(-(1 << 63), (1 << 63) - 1)
IDS = st.none() | st.lists(st.tuples(st.text(max_size=9), st.text(max_size=9)), max_size=3).map(
    tuple
)
ANY_PACKET = st.tuples(
    st.integers(-(1 << 31), (1 << 31) - 1).filter(lambda kind: kind != Kind.SNAP),
    LONGS,
    st.none() | st.binary(max_size=40),
    IDS,
)


@given(st.lists(ANY_PACKET, max_size=5), st.data())
@settings(max_examples=150, deadline=None)
def test_packets_cut_anywhere_come_out_whole(packets: list[Any], data: st.DataObject) -> None:
    raw = b"".join(quorum.encode(*packet) for packet in packets)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=6)))
    decoder = PacketDecoder()
    pieces = [raw[a:b] for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
    found = [packet for piece in pieces for packet in decoder.feed(piece)]
    assert found == packets
    assert decoder.take_rest() == b""


@given(st.lists(st.binary(max_size=64), max_size=12))
@settings(max_examples=300, deadline=None)
def test_random_bytes_give_packets_or_malformed_and_stay_small(pieces: list[bytes]) -> None:
    decoder = PacketDecoder(limit=100)
    try:
        for piece in pieces:
            decoder.feed(piece)
            if decoder.stopped:
                decoder.take_rest()
            assert len(decoder._buffer) < 100 + 16 + 4 + 100 + 4 + 64
    except Malformed:
        pass


@given(st.binary(max_size=400), st.integers(0, 400), st.integers(0, 255))
@settings(max_examples=200, deadline=None)
def test_a_changed_byte_never_makes_anything_but_malformed(
    body: bytes, at: int, value: int
) -> None:
    raw = bytearray(quorum.encode(1, 5, body, (("digest", "u:p"), ("ip", "::1"))) * 2)
    raw[at % len(raw)] = value
    decoder = PacketDecoder(limit=1000)
    try:
        for packet in decoder.feed(bytes(raw)):
            quorum.encode(*packet)
    except Malformed:
        pass
