"""Records: round trips, known bytes, and hostile input for every decoder.

Whatever bytes come, nothing but `Malformed` comes out, and no more memory is used than the bytes
can stand for.
"""

from __future__ import annotations

import dataclasses
import tracemalloc
from collections.abc import Callable
from typing import Any, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zkd.jute import messages, records, txn
from zkd.jute.codec import Malformed, Reader, int_
from zkd.jute.protocol import OP_NAMES, Op
from zkd.jute.records import Record
from zkd.tree import acl, multi
from zkd.tree.errors import ClientRefusal

ALL = [
    kind
    for kind in vars(records).values()
    if isinstance(kind, type) and issubclass(kind, Record) and kind is not Record
]

TEXT = st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
BASIC: dict[Any, st.SearchStrategy[Any]] = {
    records.Int: st.integers(-(1 << 31), (1 << 31) - 1),
    records.Long: st.integers(-(1 << 63), (1 << 63) - 1),
    records.Bool: st.booleans(),
    records.Buffer: st.none() | st.binary(max_size=20),
    records.UString: TEXT,
    records.Strings: st.none() | st.lists(TEXT, max_size=3).map(tuple),
}


def values_of(hint: Any) -> st.SearchStrategy[Any]:
    if hint in BASIC:
        return BASIC[hint]
    if isinstance(hint, type) and issubclass(hint, Record):
        return instances_of(hint)
    assert get_origin(hint) is not None
    item = get_args(get_args(hint)[0])[0]
    return st.none() | st.lists(values_of(item), max_size=3).map(tuple)


def instances_of(kind: type[Record]) -> st.SearchStrategy[Record]:
    hints = get_type_hints(kind, include_extras=True)
    fields = dataclasses.fields(kind)
    return st.tuples(*(values_of(hints[one.name]) for one in fields)).map(lambda v: kind(*v))


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_records_come_back_as_they_were(kind: type[Record]) -> None:
    @settings(max_examples=30, deadline=None, derandomize=True)
    @given(instances_of(kind), st.binary(max_size=3))
    def check(record: Record, rest: bytes) -> None:
        data = record.encode()
        reader = Reader(data + rest)
        if kind in (records.ConnectRequest, records.ConnectResponse):
            assert kind.from_bytes(data) == record
            return
        assert kind.decode(reader) == record
        assert reader.remaining() == len(rest)
        for end in range(len(data)):
            with pytest.raises(Malformed):
                kind.from_bytes(data[:end])

    check()


def test_connect_records_have_their_known_sizes() -> None:
    request = records.ConnectRequest(0, 0, 10000, 0, bytes(16), True).encode()
    assert len(request) == 45
    old = records.ConnectRequest.from_bytes(request[:-1])
    assert old.readOnly is False
    assert len(records.ConnectResponse(0, 10000, 7, bytes(16)).encode()) == 37


def test_a_create_request_has_the_known_bytes() -> None:
    request = records.CreateRequest("/a", b"hi", records.WORLD_ALL, 1).encode()
    assert request.hex() == (
        "000000022f61000000026869000000010000001f00000005776f726c6400000006616e796f6e6500000001"
    )


def test_an_empty_multi_has_the_known_bytes() -> None:
    assert messages.encode_multi([]).hex() == "ffffffff01ffffffff"
    assert messages.encode_multi_response([]).hex() == "ffffffff01ffffffff"


def test_multis_come_back_as_they_were() -> None:
    ops: list[tuple[int, Record]] = [
        (Op.CREATE, records.CreateRequest("/a", b"", records.WORLD_ALL, 0)),
        (Op.CHECK, records.CheckVersionRequest("/a", 3)),
    ]
    assert messages.decode_multi(Reader(messages.encode_multi(ops))) == ops
    stat = records.Stat(*range(11))
    results: list[tuple[int, Record | None]] = [
        (Op.CREATE2, records.Create2Response("/a", stat)),
        (Op.DELETE, None),
        (Op.ERROR, records.IntResponse(-101)),
    ]
    data = messages.encode_multi_response(results)
    assert messages.decode_multi_response(Reader(data)) == results
    assert data[-9 - 4 - 9 :][:9] == records.MultiHeader(-1, False, -101).encode()
    reads = [(Op.GET_DATA, records.ReadRequest("/", False))]
    assert messages.decode_multi(Reader(messages.encode_multi(reads))) == reads
    for bad in (ops + reads, [(99, records.PathRequest("/"))]):
        with pytest.raises(Malformed):
            messages.decode_multi(Reader(messages.encode_multi(bad)))
    with pytest.raises(Malformed):
        messages.decode_multi_response(Reader(messages.encode_multi([(99, ops[1][1])])))


def test_every_opcode_has_a_name_and_its_records() -> None:
    codes = {value for name, value in vars(Op).items() if name.isupper()}
    assert codes == set(OP_NAMES)
    assert set(messages.REQUESTS) | set(messages.RESPONSES) <= codes


DECODERS: list[Callable[[bytes], object]] = [
    *(kind.from_bytes for kind in ALL),
    txn.decode,
    txn.TxnHeader.decode,
    lambda data: messages.decode_multi(Reader(data)),
    lambda data: messages.decode_multi_response(Reader(data)),
    multi.split,
    acl.parse,
    acl.redact,
    lambda data: acl.fix_up(data, (("digest", "a:b"),), NoRegistry()),
]


class NoRegistry:
    """Takes every id."""

    def is_valid(self, scheme: str, id_: str) -> bool:
        return True

    def matches(self, identities: object, scheme: str, id_: str) -> bool:
        return False

    def is_authenticated(self, scheme: str) -> bool:
        return True


NUMBERS = st.sampled_from([-1, -2, 0, 1, 2, 5, 14, 100, 0x7FFFFFFF, -0x80000000, -10, -11])
HOSTILE = st.one_of(
    st.binary(max_size=120),
    st.lists(st.one_of(NUMBERS.map(int_), st.binary(max_size=9)), max_size=14).map(b"".join),
    st.tuples(NUMBERS, st.lists(NUMBERS, max_size=9)).map(
        lambda v: bytes(28) + int_(v[0]) + b"".join(map(int_, v[1]))
    ),
)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(HOSTILE)
def test_decoders_take_any_bytes(data: bytes) -> None:
    for decode in DECODERS:
        try:
            decode(data)
        except (Malformed, ClientRefusal):
            pass


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.sampled_from(sorted(txn.RECORDS)), st.data())
def test_damaged_transactions_are_malformed_or_something_else(kind: int, data: Any) -> None:
    record = data.draw(instances_of(txn.RECORDS[kind]))
    body = bytearray(txn.encode(txn.TxnHeader(1, 2, 3, 4, kind), record, 77))
    for _ in range(data.draw(st.integers(0, 3))):
        body[data.draw(st.integers(28, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        txn.decode(bytes(body[: data.draw(st.integers(0, len(body)))]))
    except Malformed:
        pass


def test_huge_claims_use_no_memory() -> None:
    claims = [int_(0x7FFFFFFF), int_(1 << 24), int_(2_000_000)]
    tracemalloc.start()
    try:
        for decode in DECODERS:
            for claim in claims:
                for lead in range(0, 40, 4):
                    try:
                        decode(bytes(lead) + claim * 8)
                    except (Malformed, ClientRefusal):
                        pass
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2_000_000
