"""A log that is a list of zxids, and short names for zxids."""

from __future__ import annotations

from collections.abc import Iterable


def z(text: str) -> int:
    """`1:2` as a zxid."""
    epoch, counter = text.split(":")
    return int(epoch) << 32 | int(counter)


class Rows:
    def __init__(self, zxids: Iterable[int] = ()) -> None:
        self.zxids = sorted(zxids)

    def first(self) -> int | None:
        return self.zxids[0] if self.zxids else None

    def last(self) -> int | None:
        return self.zxids[-1] if self.zxids else None

    def floor(self, zxid: int) -> int | None:
        return max((row for row in self.zxids if row <= zxid), default=None)

    def has(self, zxid: int) -> bool:
        return zxid in self.zxids


def rows(*runs: str) -> Rows:
    """`1:3-5` is a run of three."""
    zxids: list[int] = []
    for run in runs:
        first, _, last = run.partition("-")
        start = z(first)
        end = (start >> 32 << 32) + int(last) if last else start
        zxids += range(start, end + 1)
    return Rows(zxids)
