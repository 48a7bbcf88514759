"""`zkd serve [CONFIG]`: run a server in the foreground.

The command line is read by hand: this module must not import more than the supervisor does.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from zkd.errors import OperatorError

USAGE = """\
Usage: zkd serve [OPTIONS] [CONFIG]

  Run a server in the foreground until SIGTERM or Ctrl-C.

  CONFIG is a file as Apache ZooKeeper reads it (zoo.cfg). Without one: a
  standalone server on 127.0.0.1:2181 with its data in ./zkd-data.

Options:
  --set KEY=VALUE  A setting that goes before CONFIG's; may be repeated.
  --help           Show this message and exit.
"""

_MEND = "see zkd serve --help"


def parse(arguments: Sequence[str]) -> tuple[str | None, dict[str, str]]:
    """The configuration file, or None, and the settings of `--set`; the last of a key wins.

    Raises OperatorError for anything else.
    """
    config: str | None = None
    overrides: dict[str, str] = {}
    rest = list(arguments)
    options_end = False
    while rest:
        argument = rest.pop(0)
        if options_end or not argument.startswith("-") or argument == "-":
            if config is not None:
                raise OperatorError("more than one configuration file", argument, _MEND)
            config = argument
        elif argument == "--":
            options_end = True
        elif argument == "--set" or argument.startswith("--set="):
            if argument == "--set" and not rest:
                raise OperatorError("--set needs KEY=VALUE", "the command line", _MEND)
            pair = rest.pop(0) if argument == "--set" else argument.removeprefix("--set=")
            key, equals, value = pair.partition("=")
            if not equals or not key.strip():
                raise OperatorError("--set needs KEY=VALUE", repr(pair), _MEND)
            overrides[key.strip()] = value.strip()
        else:
            raise OperatorError("unknown option", argument, _MEND)
    return config, overrides


def serve(arguments: Sequence[str]) -> int:
    """Run a server as the command line says; the exit status."""
    if "--help" in arguments or "-h" in arguments:
        sys.stdout.write(USAGE)
        return 0
    config, overrides = parse(arguments)
    from zkd.server.supervisor import run

    return run(config, overrides)
