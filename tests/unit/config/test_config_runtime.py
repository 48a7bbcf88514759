"""The private folder of the sockets."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from zkd.config.runtime import (
    SOCKET_NAME_MAX,
    SOCKET_PATH_MAX,
    default_runtime_dir,
    prepare_runtime_dir,
    short_enough,
)
from zkd.errors import OperatorError

DATA = Path("/var/lib/zkd")


def test_it_lies_where_the_system_says_and_depends_on_the_data(tmp_path: Path) -> None:
    first = default_runtime_dir(DATA, {"XDG_RUNTIME_DIR": "/tmp"}, tmp_path)
    other = default_runtime_dir(DATA / "b", {"XDG_RUNTIME_DIR": "/tmp"}, tmp_path)
    assert first.parent == other.parent == Path("/tmp")
    assert first != other
    both = {"XDG_RUNTIME_DIR": "/nowhere", "RUNTIME_DIRECTORY": "/tmp:/x"}
    assert default_runtime_dir(DATA, both, tmp_path) == first


def test_a_folder_that_is_missing_or_too_long_is_passed_over(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 90)
    deep.mkdir()
    for base in (str(deep), "/nowhere", "relative"):
        found = default_runtime_dir(DATA, {"XDG_RUNTIME_DIR": base}, Path("/tmp"))
        assert found.parent == Path("/tmp")
        assert len(str(found)) + SOCKET_NAME_MAX <= SOCKET_PATH_MAX
    assert default_runtime_dir(DATA, {}, deep).parent == Path("/tmp")


def test_the_limit_is_in_bytes() -> None:
    assert short_enough(Path("/" + "a" * 79))
    assert not short_enough(Path("/" + "a" * 80))
    assert not short_enough(Path("/" + "é" * 40))


def test_it_is_made_private_and_stays_so(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "run"
    prepare_runtime_dir(folder)
    folder.chmod(0o755)
    prepare_runtime_dir(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_somebody_elses_is_refused(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    with pytest.raises(OperatorError, match="somebody else"):
        prepare_runtime_dir(link)
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(OperatorError, match="somebody else"):
        prepare_runtime_dir(file)
    with pytest.raises(OperatorError, match="cannot be made"):
        prepare_runtime_dir(file / "below")
