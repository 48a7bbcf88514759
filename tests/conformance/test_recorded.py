"""zkd against what Apache ZooKeeper 3.9.5 answered: see recorded.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance import recorded, servers
from tests.conformance.lockstep import report

FILES = sorted(recorded.FOLDER.glob("*.xz"))


def test_there_are_recordings() -> None:
    assert FILES


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_zkd_answers_as_recorded(path: Path) -> None:
    """The same requests give the same replies and events as from 3.9.5."""
    if reason := servers.missing("zkd"):
        pytest.skip(reason)
    outcome = recorded.replay(path, "zkd")
    assert not outcome.found, report(outcome)
