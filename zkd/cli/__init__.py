"""The `zkd` command: which subcommand runs, and what its errors look like.

`zkd serve` is dispatched here, before click, rich or kazoo are imported: all that the supervisor
loads is shared by the processes it forks, and a test waits for each millisecond of it. Exit status:
0 only when what was asked for is done, 1 when it failed, 2 when the command line or the operator's
surroundings were wrong.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from zkd.errors import OperatorError

INTERRUPTED = 130
"""The exit status of a program that Ctrl-C ended, as shells count it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand; the exit status. `argv` is without the program's name."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        if arguments[:1] == ["serve"]:
            from zkd.cli.serve import serve

            return serve(arguments[1:])
        from zkd.cli.commands import run

        return run(arguments)
    except OperatorError as error:
        print(explain(error), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return INTERRUPTED


def explain(error: OperatorError) -> str:
    """An operator's error in lines: what, where, what to do; a part that is unknown is left out."""
    lines = [f"zkd: {error.what}"]
    if error.where:
        lines.append(f"  where: {error.where}")
    if error.mend:
        lines.append(f"  to mend it: {error.mend}")
    return "\n".join(lines)
