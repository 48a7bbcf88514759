"""What this server is and what it runs on, as `envi` and the version lines show it.

The keys are Apache ZooKeeper's (`Environment.java`), so that scripts find what they look for; those
of the Java machine say `<NA>`, and Python's come after them.
"""

from __future__ import annotations

import getpass
import os
import platform
import resource
import socket
import sys
import tempfile
import time
from functools import cache
from importlib import metadata
from pathlib import Path

COMPATIBLE_WITH = "3.9.5"
"""The Apache ZooKeeper that zkd behaves as; clients read it as the server's version."""

NOT_AVAILABLE = "<NA>"
_MIB = 1024 * 1024


@cache
def zkd_version() -> str:
    """The version of the installed package; "source" when it runs from a checkout."""
    try:
        return metadata.version("zkd")
    except metadata.PackageNotFoundError:
        return "source"


@cache
def full_version() -> str:
    """As Apache ZooKeeper writes its own: version-revision, built on date.

    zkd's version stands for the revision, the date of the installed files for that of the build.
    """
    built = time.gmtime(Path(__file__).stat().st_mtime)
    date = time.strftime("%Y-%m-%d %H:%M UTC", built)
    return f"{COMPATIBLE_WITH}-zkd-{zkd_version()}, built on {date}"


def environment() -> list[tuple[str, str]]:
    """The keys and values of `envi`, in its order."""
    system = os.uname()
    rows = [("zookeeper.version", full_version()), ("host.name", _host_name())]
    rows += [
        (f"java.{key}", NOT_AVAILABLE)
        for key in ("version", "vendor", "home", "class.path", "library.path")
    ]
    rows += [
        ("java.io.tmpdir", tempfile.gettempdir()),
        ("java.compiler", NOT_AVAILABLE),
        ("os.name", system.sysname),
        ("os.arch", system.machine),
        ("os.version", system.release),
        ("user.name", _user_name()),
        ("user.home", str(Path("~").expanduser())),
        ("user.dir", str(Path.cwd())),
    ]
    rows += [(f"os.memory.{key}", f"{value // _MIB}MB") for key, value in _memory().items()]
    rows += [
        ("python.version", platform.python_version()),
        ("python.home", sys.prefix),
        ("process.memory.max", f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}MB"),
    ]
    return rows


def _host_name() -> str:
    try:
        return socket.getfqdn(socket.gethostname())
    except OSError:
        return NOT_AVAILABLE


def _user_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return NOT_AVAILABLE


def _memory() -> dict[str, int]:
    """Memory of the machine in bytes: there is no heap with a limit of its own to tell of."""
    page = os.sysconf("SC_PAGE_SIZE")
    total = os.sysconf("SC_PHYS_PAGES") * page
    return {"free": os.sysconf("SC_AVPHYS_PAGES") * page, "max": total, "total": total}
