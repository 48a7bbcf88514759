"""docs/features.md names tests that there are."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "features.md").read_text()


def test_every_test_that_it_names_is_there() -> None:
    named = re.findall(r"`(tests/[\w/.]+\.py)(?:::(\w+))?`", TEXT)
    assert len(named) > 200
    missing = [
        f"{path}::{name}"
        for path, name in named
        if not (ROOT / path).is_file() or (name and f"def {name}(" not in (ROOT / path).read_text())
    ]
    assert missing == []


def test_every_recording_that_it_names_is_there() -> None:
    named = set(re.findall(r"test_zkd_answers_as_recorded` \((\w+)\)", TEXT))
    recorded = {path.stem for path in (ROOT / "tests/conformance/recorded").glob("*.xz")}
    assert named
    assert named <= recorded


def test_no_row_is_named_twice_and_none_is_empty() -> None:
    rows = re.findall(r"^\| (M\d+) \| (.+?) \| (.+?) \|$", TEXT, re.MULTILINE)
    assert len({row for row, _, _ in rows}) == len(rows)
    assert all(what and shown for _, what, shown in rows)
