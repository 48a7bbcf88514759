"""`python -m zkd`: the same as the command `zkd`."""

from __future__ import annotations

import sys

from zkd.cli import main

if __name__ == "__main__":
    sys.exit(main())
