"""Reading what snappy-java writes: Apache ZooKeeper's compressed snapshots.

    82 'SNAPPY' 00, int version, int compatible version, then blocks: int length, raw snappy block
    raw block: varint of the decoded length, then elements: literals, and copies of earlier bytes

Sources: the format description of google/snappy; `SnappyOutputStream` of xerial/snappy-java.
"""

from __future__ import annotations

import io
from typing import BinaryIO

MAGIC = b"\x82SNAPPY\0"
HEADER_BYTES = 16
BLOCK_MAX = 512 << 20


class SnappyError(ValueError):
    """The bytes are no snappy stream, or end too early."""


def decode_block(block: bytes) -> bytes:
    """Decode one raw block."""
    try:
        return _decode(block)
    except IndexError as e:
        raise SnappyError("a block ends too early") from e


def _decode(block: bytes) -> bytes:
    length = shift = at = 0
    while True:
        byte = block[at]
        at += 1
        length |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    if length > BLOCK_MAX:
        raise SnappyError(f"a block of {length} bytes")
    out = bytearray()
    end = len(block)
    while at < end:
        tag = block[at]
        at += 1
        kind = tag & 3
        if kind == 0:
            size = (tag >> 2) + 1
            if size > 60:
                extra = size - 60
                size = int.from_bytes(block[at : at + extra], "little") + 1
                at += extra
            out += block[at : at + size]
            at += size
            continue
        if kind == 1:
            size = ((tag >> 2) & 7) + 4
            offset = (tag >> 5) << 8 | block[at]
            at += 1
        else:
            size = (tag >> 2) + 1
            width = 2 if kind == 2 else 4
            offset = int.from_bytes(block[at : at + width], "little")
            at += width
        _copy(out, offset, size)
    if len(out) != length or at != end:
        raise SnappyError(f"a block of {length} bytes gave {len(out)}")
    return bytes(out)


def _copy(out: bytearray, offset: int, size: int) -> None:
    """Append `size` bytes from `offset` before the end, which may overlap what is appended."""
    if not 0 < offset <= len(out):
        raise SnappyError(f"a copy from {offset} bytes back, there are {len(out)}")
    start = len(out) - offset
    if offset >= size:
        out += out[start : start + size]
        return
    pattern = bytes(out[start:])
    out += (pattern * (size // offset + 1))[:size]


class SnappyReader(io.RawIOBase):
    """A snappy-java stream as a readable file. Raises SnappyError."""

    def __init__(self, source: BinaryIO) -> None:
        super().__init__()
        self._source = source
        head = source.read(HEADER_BYTES)
        if head[: len(MAGIC)] != MAGIC or len(head) < HEADER_BYTES:
            raise SnappyError("not a snappy-java stream")
        self._block = b""
        self._at = 0

    def close(self) -> None:
        if not self.closed:
            self._source.close()
        super().close()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill `buffer` from the present block; 0 at the end."""
        while self._at == len(self._block):
            head = self._source.read(4)
            if not head:
                return 0
            size = int.from_bytes(head, "big")
            block = self._source.read(size) if size <= BLOCK_MAX else b""
            if len(head) < 4 or len(block) < size:
                raise SnappyError("the stream ends within a block")
            self._block, self._at = decode_block(block), 0
        some = self._block[self._at : self._at + len(buffer)]
        buffer[: len(some)] = some
        self._at += len(some)
        return len(some)
