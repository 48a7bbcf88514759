"""The table of subcommands, as a click group whose members are imported when they are called.

A subcommand is a click command in a module of its own; the table holds the line that `zkd --help`
shows, so that help and completion import none of them. A module that is not installed is left out.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
from collections.abc import Sequence
from dataclasses import dataclass

import click

from zkd.cli.serve import USAGE as SERVE_USAGE


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a subcommand is, and the one line that describes it."""

    module: str
    attribute: str
    help: str


TABLE = {
    "serve": Entry("zkd.cli.commands", "serve", "Run a server in the foreground."),
    "shell": Entry("zkd.cli.shell", "shell", "Read and change znodes, as zkCli does."),
    "status": Entry("zkd.cli.status", "status", "Show how a running server is doing."),
    "sessions": Entry("zkd.cli.sessions", "sessions", "List sessions and their ephemerals."),
    "shed": Entry("zkd.cli.shed", "shed", "Send a share of the clients to other servers."),
    "config": Entry("zkd.cli.config", "config", "Check and explain a configuration file."),
    "init": Entry("zkd.cli.init", "init", "Make the folders of a configuration."),
    "check": Entry("zkd.cli.check", "check", "Read a server's files and tell what is wrong."),
    "restore": Entry("zkd.cli.restore", "restore", "Make a server's data out of a snapshot."),
    "bench": Entry("zkd.cli.bench", "bench", "Measure a server."),
    "snapshot": Entry("zkd.cli.snapshot", "snapshot", "Keep a server's whole tree in a file."),
    "plugins": Entry("zkd.cli.plugins", "plugins", "List the plugins and what becomes of them."),
    "version": Entry("zkd.cli.commands", "version", "Show the version of zkd."),
}


class Subcommands(click.Group):
    """The group of `TABLE`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for name, entry in TABLE.items() if _installed(entry.module)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = TABLE.get(cmd_name)
        if entry is None or not _installed(entry.module):
            return None
        command = getattr(importlib.import_module(entry.module), entry.attribute)
        assert isinstance(command, click.Command), f"{entry.module}.{entry.attribute}"
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [(name, TABLE[name].help) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


@click.command(cls=Subcommands, context_settings={"help_option_names": ["-h", "--help"]})
def zkd() -> None:
    """zkd, a coordination server that every ZooKeeper client can use."""


@click.command(
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
)
@click.pass_context
def serve(context: click.Context) -> None:
    """Run a server in the foreground."""
    # Reached only by `zkd -x serve` and the like: `zkd serve` goes past this group.
    from zkd.cli.serve import serve as run_server

    context.exit(run_server(context.args))


serve.get_help = lambda ctx: SERVE_USAGE  # type: ignore[method-assign]


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def version(as_json: bool) -> None:
    """Show the version of zkd and of the ZooKeeper that it is compatible with."""
    from zkd.server.environment import COMPATIBLE_WITH, zkd_version

    if as_json:
        click.echo(json.dumps({"zkd": zkd_version(), "zookeeper": COMPATIBLE_WITH}))
    else:
        click.echo(f"zkd {zkd_version()}, compatible with Apache ZooKeeper {COMPATIBLE_WITH}")


def run(arguments: Sequence[str]) -> int:
    """Run the subcommand that `arguments` name; the exit status.

    OperatorError goes through to the caller; click's own errors are told here.
    """
    try:
        zkd.main(args=list(arguments), prog_name="zkd", standalone_mode=True)
    except SystemExit as end:
        if isinstance(end.code, int):
            return end.code
        if end.code is not None:
            click.echo(end.code, err=True)
            return 1
        return 0
