"""The private folder of the sockets between the processes of one server.

A Unix socket's path ends at 107 bytes, so the folder's own path is kept short: it is derived from
dataDir (one server, one folder) and lies where the system keeps such things.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from zkd.errors import OperatorError

SOCKET_PATH_MAX = 107
SOCKET_NAME_MAX = 27
"""Longest name of a socket inside the folder, with the slash before it."""


def default_runtime_dir(data_dir: Path, environ: Mapping[str, str], temporary: Path) -> Path:
    """RUNTIME_DIRECTORY (systemd's), XDG_RUNTIME_DIR or `temporary`: the first whose path is short.

    `data_dir` is absolute. Nothing is created.
    """
    key = hashlib.blake2b(os.fsencode(data_dir), digest_size=6).hexdigest()
    candidates = [
        Path(base) / f"zkd-{key}"
        for base in (
            environ.get("RUNTIME_DIRECTORY", "").split(":")[0],
            environ.get("XDG_RUNTIME_DIR", ""),
        )
        if base.startswith("/") and os.access(base, os.W_OK | os.X_OK)
    ]
    candidates.append(temporary / f"zkd-{os.getuid()}-{key}")
    candidates.append(Path("/tmp") / f"zkd-{os.getuid()}-{key}")
    for candidate in candidates:
        if short_enough(candidate):
            return candidate
    return candidates[-1]


def short_enough(directory: Path) -> bool:
    return len(os.fsencode(directory)) + SOCKET_NAME_MAX <= SOCKET_PATH_MAX


def prepare_runtime_dir(directory: Path) -> None:
    """Create the folder with mode 0700, or make sure that it is this user's alone.

    Raises OperatorError if it cannot be made, or if somebody else could have made it.
    """
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        try:
            directory.mkdir(mode=0o700)
        except FileExistsError:
            pass
        found = directory.lstat()
    except OSError as error:
        raise OperatorError(
            f"the runtime folder cannot be made: {error.strerror}",
            str(directory),
            "set runtime.dir to a folder that this user may create",
        ) from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise OperatorError(
            "the runtime folder belongs to somebody else or is no folder",
            str(directory),
            "remove it, or set runtime.dir to a private folder",
        )
    if stat.S_IMODE(found.st_mode) != 0o700:
        directory.chmod(0o700)
