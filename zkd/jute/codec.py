"""Primitives of the jute encoding.

Everything is big-endian. A `Reader` never reads outside its buffer and never allocates more than
the buffer holds, whatever lengths the bytes claim: all that can come out of bad bytes is
`Malformed`. Writers are functions that return bytes; they trust their caller.
Source: `BinaryInputArchive.java`, `BinaryOutputArchive.java` of Apache ZooKeeper.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from struct import Struct
from typing import Final, TypeVar

T = TypeVar("T")

INT: Final = Struct(">i")
LONG: Final = Struct(">q")

NULL: Final = b"\xff\xff\xff\xff"
"""A null string, buffer or vector."""

DEFAULT_LIMIT: Final = 2 * 0xFFFFF
"""Longest string or buffer: `jute.maxbuffer` plus its extra size, by default."""


class Malformed(Exception):
    """The bytes are not what they should be (a client gets MARSHALLINGERROR)."""


_SURROGATES: Final = re.compile(f"[{chr(0xD800)}-{chr(0xDFFF)}]").sub


def text(raw: bytes) -> str:
    """Bytes as Java reads them as UTF-8: what is none becomes U+FFFD, an encoded surrogate one."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        pass
    try:
        return _SURROGATES("\ufffd", raw.decode("utf-8", "surrogatepass"))
    except UnicodeDecodeError:
        return raw.decode("utf-8", "replace")


class Reader:
    """Reads primitives one after the other.

    `limit` is the longest string or buffer taken, in bytes. Reading on past the end, a length
    that is negative (other than -1, null) or above `limit` raise `Malformed`.
    """

    __slots__ = ("buf", "end", "limit", "pos")

    def __init__(self, buf: bytes, pos: int = 0, limit: int = DEFAULT_LIMIT) -> None:
        self.buf = buf
        self.pos = pos
        self.end = len(buf)
        self.limit = limit

    def remaining(self) -> int:
        """Bytes not read yet."""
        return self.end - self.pos

    def raw(self, size: int) -> bytes:
        """The next `size` bytes."""
        end = self.pos + size
        if size < 0 or end > self.end:
            raise Malformed(f"{size} bytes wanted at {self.pos}, {self.end - self.pos} there")
        data = self.buf[self.pos : end]
        self.pos = end
        return data

    def int_(self) -> int:
        """A signed 32-bit number."""
        pos = self.pos
        if pos + 4 > self.end:
            raise Malformed(f"an int wanted at {pos}, {self.end - pos} bytes there")
        self.pos = pos + 4
        value: int = INT.unpack_from(self.buf, pos)[0]
        return value

    def long(self) -> int:
        """A signed 64-bit number."""
        pos = self.pos
        if pos + 8 > self.end:
            raise Malformed(f"a long wanted at {pos}, {self.end - pos} bytes there")
        self.pos = pos + 8
        value: int = LONG.unpack_from(self.buf, pos)[0]
        return value

    def boolean(self) -> bool:
        """One byte; everything but 0 is true, as in Java."""
        return self.raw(1) != b"\0"

    def buffer(self) -> bytes | None:
        """Bytes with their length in front; null is None."""
        size = self.int_()
        if size == -1:
            return None
        if size < 0 or size > self.limit:
            raise Malformed(f"unreasonable length {size} at {self.pos - 4}")
        return self.raw(size)

    def string(self) -> str | None:
        """A string; bytes that are not UTF-8 become replacement characters, as in Java."""
        data = self.buffer()
        return None if data is None else text(data)

    def vector(self, item: Callable[[Reader], T]) -> list[T] | None:
        """Items with their number in front; -1 is null, other negative numbers are empty.

        Every item must take at least one byte.
        """
        count = self.int_()
        if count == -1:
            return None
        if count > self.end - self.pos:
            raise Malformed(f"{count} items wanted at {self.pos}, too few bytes there")
        return [item(self) for _ in range(count)]


def int_(value: int) -> bytes:
    """A signed 32-bit number."""
    return INT.pack(value)


def long(value: int) -> bytes:
    """A signed 64-bit number."""
    return LONG.pack(value)


def boolean(value: bool) -> bytes:
    """One byte, 0 or 1."""
    return b"\1" if value else b"\0"


def buffer(value: bytes | None) -> bytes:
    """Bytes with their length in front."""
    return NULL if value is None else INT.pack(len(value)) + value


def utf8(value: str) -> bytes:
    """The bytes of a string as Apache ZooKeeper writes them: each half of a surrogate pair by
    itself (`BinaryOutputArchive.stringToByteBuffer`); lone surrogates become `?`."""
    if value.isascii() or max(value) <= "\uffff":
        return value.encode("utf-8", "replace")
    units = value.encode("utf-16-be", "replace")
    return b"".join(
        chr(units[i] << 8 | units[i + 1]).encode("utf-8", "surrogatepass")
        for i in range(0, len(units), 2)
    )


def string(value: str | None) -> bytes:
    """A string; lone surrogates, which no UTF-8 has, become `?`, as in Java."""
    return NULL if value is None else buffer(value.encode("utf-8", "replace"))


def vector(items: Iterable[bytes] | None) -> bytes:
    """Encoded items with their number in front."""
    if items is None:
        return NULL
    encoded = list(items)
    return INT.pack(len(encoded)) + b"".join(encoded)


def wrap_int(value: int) -> int:
    """`value` modulo 2**32 as a signed number, as Java's int overflows."""
    return (value + 0x80000000 & 0xFFFFFFFF) - 0x80000000


def wrap_long(value: int) -> int:
    """`value` modulo 2**64 as a signed number, as Java's long overflows."""
    return (value + 0x8000000000000000 & 0xFFFFFFFFFFFFFFFF) - 0x8000000000000000
