"""Values: what is accepted, what it becomes, and that what is shown can be read again."""

from __future__ import annotations

from typing import Any

import pytest

from zkd.config import keys, kinds
from zkd.config.key import Action
from zkd.config.kinds import GIB, KIB, MIB, Kind


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (kinds.MS, "2000", 2000),
        (kinds.MS, "2s", 2000),
        (kinds.MS, "2 S", 2000),
        (kinds.MS, "500ms", 500),
        (kinds.MS, "1.5s", 1500),
        (kinds.MS, "3m", 180_000),
        (kinds.MS, "1h", 3_600_000),
        (kinds.MS, "1d", 86_400_000),
        (kinds.MS, "-1", -1),
        (kinds.duration("h"), "24", 86_400_000),
        (kinds.duration("h"), "90s", 90_000),
        (kinds.duration("h"), "0", 0),
        (kinds.duration("s"), "15", 15_000),
        (kinds.BYTES, "1048575", 1_048_575),
        (kinds.BYTES, "0xfffff", None),
        (kinds.BYTES, "64KB", 64 * KIB),
        (kinds.BYTES, "64k", 64 * KIB),
        (kinds.BYTES, "1 MiB", MIB),
        (kinds.BYTES, "2g", 2 * GIB),
        (kinds.BYTES, "0.5M", 512 * KIB),
        (kinds.BYTES, "10B", 10),
        (kinds.KILOBYTES, "65536", 64 * MIB),
        (kinds.KILOBYTES, "1GB", GIB),
        (kinds.KILOBYTES, "-1", -1),
        (kinds.MS, "10x", None),
        (kinds.MS, "1.5", None),
        (kinds.MS, "", None),
        (kinds.MS, "ten", None),
        (kinds.INT, "12", 12),
        (kinds.INT, "-12", -12),
        (kinds.INT, "0x10", 16),
        (kinds.INT, "1e3", None),
        (kinds.INT, "", None),
        (kinds.REAL, "0.33", 0.33),
        (kinds.REAL, "nan", None),
        (kinds.REAL, "inf", None),
        (kinds.REAL, "x", None),
        (kinds.BOOL, "TRUE", True),
        (kinds.BOOL, "False", False),
        (kinds.BOOL, "yes", None),
        (kinds.BOOL, "1", None),
        (kinds.WORDS, " a , b,,c ", ("a", "b", "c")),
        (kinds.NETWORKS, "10.0.0.0/33", None),
        (kinds.PATH, "", None),
        (kinds.PATH, "a\0b", None),
        (kinds.choice("x", "y"), "Y", "y"),
        (kinds.choice("x", "y"), "z", None),
    ],
)
def test_text_becomes_a_value_or_is_refused(kind: Kind, text: str, value: Any) -> None:
    if value is None:
        with pytest.raises(ValueError, match=r"."):
            kind.read(text)
    else:
        assert kind.read(text) == kinds.Read(value)


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (kinds.FLAG, "yes", False),
        (kinds.YES_NO, "true", False),
        (kinds.YES_NO, "YES", False),
        (kinds.YES_UNLESS_NO, "false", True),
        (kinds.YES_UNLESS_NO, "NO", True),
    ],
)
def test_what_the_reference_reads_silently_otherwise_is_remarked(
    kind: Kind, text: str, value: bool
) -> None:
    """Boolean.getBoolean, forceSync's equals("no"), skipACL's equals("yes")."""
    got = kind.read(text)
    assert got.value is value
    assert text in got.remark


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (kinds.show_ms(60_000), "1m"),
        (kinds.show_ms(1500), "1500ms"),
        (kinds.show_ms(0), "0"),
        (kinds.show_ms(-1), "-1"),
        (kinds.show_bytes(MIB), "1MB"),
        (kinds.show_bytes(0xFFFFF), "1048575"),
    ],
)
def test_values_are_shown_with_the_largest_unit(shown: str, expected: str) -> None:
    assert shown == expected


def test_every_default_that_is_shown_reads_back_as_the_default() -> None:
    for key in keys.TABLE:
        if key.default is None or key.default_text or key.action is Action.IGNORE or key.secret:
            continue
        assert key.kind.read(key.shown_default()).value == key.default, key.name


@pytest.mark.parametrize("value", [-1, 0, 500, 2048, 3 * MIB])
def test_sizes_are_shown_so_that_they_read_back(value: int) -> None:
    for kind in (kinds.BYTES, kinds.KILOBYTES):
        assert kind.read(kind.show(value)).value == value
