"""Primitives: exact bytes, exact limits (spec client-protocol section 2)."""

from __future__ import annotations

import pytest

from zkd.jute import codec
from zkd.jute.codec import Malformed, Reader


def test_writers_give_the_known_bytes() -> None:
    assert codec.int_(-2) == b"\xff\xff\xff\xfe"
    assert codec.long(1) == b"\0\0\0\0\0\0\0\1"
    assert codec.boolean(True) + codec.boolean(False) == b"\1\0"
    assert codec.buffer(b"ab") == b"\0\0\0\2ab"
    assert codec.buffer(None) == codec.string(None) == codec.vector(None) == b"\xff\xff\xff\xff"
    assert codec.string("é") == b"\0\0\0\2\xc3\xa9"
    assert codec.string("\ud800") == b"\0\0\0\1?"
    assert codec.vector([b"x", b"y"]) == b"\0\0\0\2xy"


def test_reader_reads_what_writers_wrote() -> None:
    data = (
        codec.int_(-7)
        + codec.long(-(1 << 63))
        + b"\7"
        + codec.buffer(b"")
        + codec.buffer(None)
        + codec.string("/é")
        + codec.vector([codec.int_(1), codec.int_(2)])
        + codec.vector(None)
        + b"rest"
    )
    reader = Reader(data)
    assert reader.int_() == -7
    assert reader.long() == -(1 << 63)
    assert reader.boolean() is True
    assert reader.buffer() == b""
    assert reader.buffer() is None
    assert reader.string() == "/é"
    assert reader.vector(Reader.int_) == [1, 2]
    assert reader.vector(Reader.int_) is None
    assert reader.remaining() == 4
    assert reader.raw(4) == b"rest"


def test_undecodable_strings_are_replaced_and_negative_vectors_are_empty() -> None:
    assert Reader(codec.buffer(b"/\xff")).string() == "/\ufffd"
    assert Reader(codec.int_(-2)).vector(Reader.int_) == []


@pytest.mark.parametrize(
    ("method", "data"),
    [
        ("int_", b"\0\0\0"),
        ("long", b"\0" * 7),
        ("boolean", b""),
        ("buffer", codec.int_(-2)),
        ("buffer", codec.int_(5) + b"four"),
        ("string", codec.int_(1 << 30) + b"x"),
        ("buffer", codec.int_(101) + b"x" * 101),
    ],
)
def test_bad_lengths_are_malformed(method: str, data: bytes) -> None:
    with pytest.raises(Malformed):
        getattr(Reader(data, 0, 100), method)()


def test_a_vector_that_claims_too_much_is_malformed_at_once() -> None:
    with pytest.raises(Malformed):
        Reader(codec.int_(0x7FFFFFFF) + b"\0" * 100).vector(Reader.int_)


def test_raw_takes_no_negative_size() -> None:
    with pytest.raises(Malformed):
        Reader(b"abc").raw(-1)


@pytest.mark.parametrize(
    ("value", "as_int"), [(0, 0), (1 << 31, -(1 << 31)), (-(1 << 31) - 1, (1 << 31) - 1)]
)
def test_numbers_wrap_as_javas(value: int, as_int: int) -> None:
    assert codec.wrap_int(value) == as_int
    assert codec.wrap_long(value << 32) == as_int << 32
