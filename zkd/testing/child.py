"""The process of a throwaway server: `zkd serve` that ends with the process which started it.

Arguments: the parent's process id, the server's folder, then those of `zkd serve`. When the parent
is gone, however it ended, this process is told by the kernel (prctl(2), PR_SET_PDEATHSIG), stops
the server in order and removes the folder, since nobody else is left to do it.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> int:
    """Run the server; the exit status."""
    parent, folder, *arguments = sys.argv[1:]
    me = os.getpid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    from zkd.cli import main as zkd

    try:
        return zkd(["serve", *arguments]) if os.getppid() == int(parent) else 1
    finally:
        if os.getpid() == me and os.getppid() != int(parent):
            shutil.rmtree(folder, ignore_errors=True)
