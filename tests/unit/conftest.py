"""Folders in memory where there are any: these tests kill processes, not machines, so nothing in
them depends on a disk, and thousands of fsyncs would only slow them down."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

MEMORY = Path("/dev/shm")


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    usable = MEMORY.is_dir() and os.access(MEMORY, os.W_OK)
    folder = Path(tempfile.mkdtemp(prefix="zkd-test-", dir=MEMORY if usable else None))
    yield folder
    shutil.rmtree(folder)
