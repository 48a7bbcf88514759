"""Tests run what is in the sources: compiled modules that are older are refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):
        return
    command = [sys.executable, str(ROOT / "hatch_build.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.exit(f"compiled modules are older than their sources:\n{done.stderr}", 4)
