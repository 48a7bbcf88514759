"""What the tests of plugins in a running server share: plugins made on the spot, waiting."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

LIMIT_S = 20.0


def until(condition: Callable[[], object], limit_s: float = LIMIT_S) -> None:
    """Wait until the condition holds; fail if it does not."""
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, f"not within {limit_s} s"
        time.sleep(0.01)


class PluginFolder:
    """A folder on PYTHONPATH of the servers that this test starts; each plugin in it looks like one
    that pip has installed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, entry_point: str, source: str) -> None:
        """Install a module with this source as `KIND.NAME`."""
        module = "acme_" + entry_point.replace(".", "_")
        (self.folder / f"{module}.py").write_text(textwrap.dedent(source))
        info = self.folder / f"{module}-1.0.dist-info"
        info.mkdir()
        name = module.replace("_", "-")
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[zkd.plugins]\n{entry_point} = {module}\n")


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PluginFolder:
    """Where to put plugins before the server is started."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return PluginFolder(folder)
