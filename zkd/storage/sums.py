"""Checksums of what stands in tree-N.db: whatever is read from there is looked at first.

    data_sum = sum_of(data)    stat_sum = sum_of(path, stat)    acl_sum = sum_of(acl)

One sum a column, because most changes of a node write the stat alone, or data and stat: a sum over
the row would have to read the rest first. The path goes into the stat's, so that a row is never
taken for another one's. An absent value (data None, the ACL open to all) has no sum.

Adler-32, not CRC-32: it costs a third (60 ns for 100 bytes) on the way of every flushed row, and
finds every change of fewer than eight neighbouring bits; SQLite's pages have no checksum at all.
`meta` has one sum over what readers rely on, the table of sessions one a row.
"""

from __future__ import annotations

from collections.abc import Mapping
from zlib import adler32, crc32

SEALED = ("format", "id", "generation", "zxid", "digest", "node_count", "data_bytes")


def sum_of(value: bytes | None) -> int | None:
    """Of data or of an ACL."""
    return None if value is None else adler32(value)


def stat_sum(path: str, stat: bytes) -> int:
    """Of a stat in the row of `path`."""
    return adler32(stat, adler32(path.encode()))


def row(
    path: str, data: bytes | None, stat: bytes, acl: bytes | None
) -> tuple[int | None, int, int | None]:
    """The three sums of a whole row, in the order of the columns."""
    return sum_of(data), stat_sum(path, stat), sum_of(acl)


def intact(path: str, values: tuple[object, ...]) -> bool:
    """Whether (data, stat, acl, data_sum, stat_sum, acl_sum) agree; values of any type."""
    data, stat, acl, data_sum, stat_sum, acl_sum = values
    try:
        return (
            stat_sum == adler32(stat, adler32(path.encode()))  # type: ignore[arg-type]
            and data_sum == (None if data is None else adler32(data))  # type: ignore[arg-type]
            and acl_sum == (None if acl is None else adler32(acl))  # type: ignore[arg-type]
        )
    except TypeError:
        return False


def session_sum(session: object, timeout: object) -> int:
    """Of a row of the table of sessions; values of any type."""
    return crc32(repr((session, timeout)).encode())


def meta_sum(values: Mapping[str, object]) -> int:
    """Of a tree's meta values."""
    return crc32(repr([values.get(key) for key in SEALED]).encode())
