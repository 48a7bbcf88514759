"""Transaction ids: the epoch of a leader above, a counter below.

    zxid = epoch << 32 | counter        both as on the wire: a zxid is a signed 64-bit number

The epoch of a negative zxid is negative (arithmetic shift), as Java computes it: an observer's vote
carries `LOWEST`, an empty database that must not vote carries -1. Counter 0 belongs to no
transaction: it stands for the beginning of the epoch (NEWLEADER, and the leader's tree before its
first proposal). `COUNTER_MAX` is never proposed: a leader that gets there steps down, and the next
one begins a new epoch. So `zxid + 1` is the next zxid of the epoch wherever a transaction may be.

Source: `ZxidUtils.java` of Apache ZooKeeper; spec zab-quorum-protocol sections 3 and 5.
"""

from __future__ import annotations

from typing import Final

COUNTER_MAX: Final = 0xFFFFFFFF
LOWEST: Final = -(1 << 63)
"""Long.MIN_VALUE: below every zxid; also the leader and the epoch in the vote of an observer."""

_EPOCH_MAX: Final = 0x7FFFFFFF


def epoch_of(zxid: int) -> int:
    return zxid >> 32


def counter_of(zxid: int) -> int:
    return zxid & COUNTER_MAX


def make(epoch: int, counter: int) -> int:
    """The zxid of an epoch (an int of Java: signed 32 bits) and a counter; ValueError beyond."""
    if not -_EPOCH_MAX - 1 <= epoch <= _EPOCH_MAX:
        raise ValueError(f"epoch {epoch} does not fit into 32 bits")
    if not 0 <= counter <= COUNTER_MAX:
        raise ValueError(f"counter {counter} does not fit into 32 bits")
    return epoch << 32 | counter


def is_new_epoch(zxid: int) -> bool:
    """Does it stand for the beginning of an epoch, and for no transaction?"""
    return zxid & COUNTER_MAX == 0


def text(zxid: int) -> str:
    """As Apache ZooKeeper logs it: hexadecimal, negative ones in two's complement."""
    return f"0x{zxid & 0xFFFFFFFFFFFFFFFF:x}"
