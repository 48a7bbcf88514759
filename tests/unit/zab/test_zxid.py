"""Zxids: epoch and counter, signed as Java's longs."""

from __future__ import annotations

import pytest

from zkd.zab import zxid


@pytest.mark.parametrize(
    ("value", "epoch", "counter", "text"),
    [
        (0, 0, 0, "0x0"),
        (0x100000025, 1, 0x25, "0x100000025"),
        (0x7FFFFFFFFFFFFFFF, 0x7FFFFFFF, 0xFFFFFFFF, "0x7fffffffffffffff"),
        (0x1FFFFFFFF, 1, zxid.COUNTER_MAX, "0x1ffffffff"),
        (-1, -1, 0xFFFFFFFF, "0xffffffffffffffff"),
        (zxid.LOWEST, -0x80000000, 0, "0x8000000000000000"),
    ],
)
def test_epoch_and_counter_make_the_zxid(value: int, epoch: int, counter: int, text: str) -> None:
    assert (zxid.epoch_of(value), zxid.counter_of(value)) == (epoch, counter)
    assert zxid.make(epoch, counter) == value
    assert zxid.text(value) == text


@pytest.mark.parametrize(("epoch", "counter"), [(1 << 31, 0), (0, 1 << 32), (0, -1)])
def test_what_does_not_fit_is_refused(epoch: int, counter: int) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        zxid.make(epoch, counter)


def test_only_counter_zero_stands_for_a_new_epoch() -> None:
    assert zxid.is_new_epoch(zxid.make(7, 0))
    assert not zxid.is_new_epoch(zxid.make(7, 1))
