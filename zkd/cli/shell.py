"""`zkd shell`: zkCli's commands, interactive or one at a time.

With a command it runs that and ends; without, it reads lines: with a prompt, history and completion
from a terminal, plainly from a pipe. Exit status: that of the (last) command.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import click

from zkd.cli.shell_session import Quit, Shell, names, run_lines
from zkd.cli.zkclient import Client, Event
from zkd.errors import OperatorError

DEFAULT_HOSTS = "localhost:2181"


def _complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    if ctx.params.get("words"):
        return []
    return [name for name in names() if name.startswith(incomplete)]


@click.command(
    context_settings={
        "ignore_unknown_options": True,
        "allow_interspersed_args": False,
        "help_option_names": ["-h", "--help"],
    }
)
@click.option(
    "-s", "--server", "-server", "hosts",
    default=DEFAULT_HOSTS, show_default=True, metavar="HOST:PORT,...",
    help="Servers, with an optional /chroot at the end.",
)  # fmt: skip
@click.option(
    "-t", "--timeout",
    default=30.0, show_default=True, metavar="SECONDS",
    help="Session timeout, and how long to wait for a connection and an answer.",
)  # fmt: skip
@click.option("-r", "--read-only", is_flag=True, help="Accept a server that is read-only.")
@click.option(
    "-a", "--auth", multiple=True, metavar="SCHEME:CREDENTIAL",
    help="Authenticate at once; may be repeated.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print what is read as JSON.")
@click.argument("words", nargs=-1, metavar="[COMMAND [ARGUMENT]...]", shell_complete=_complete)
@click.pass_context
def shell(
    context: click.Context,
    hosts: str,
    timeout: float,
    read_only: bool,
    auth: tuple[str, ...],
    as_json: bool,
    words: tuple[str, ...],
) -> None:
    """Read and change znodes, as zkCli does.

    Without COMMAND it reads lines; `help` lists the commands.
    """
    credentials = [_credential(text) for text in auth]

    def connect(hosts: str, listener: Callable[[Event], None]) -> Client:
        return Client(
            hosts, timeout_s=timeout, read_only=read_only, auth=credentials, listener=listener
        )

    run = Shell(hosts, connect, as_json=as_json, announce=not words, connect_timeout_s=timeout)
    context.exit(_one_shot(run, words) if words else _lines(run))


def _credential(text: str) -> tuple[str, str]:
    scheme, colon, credential = text.partition(":")
    if not colon:
        raise OperatorError("--auth needs SCHEME:CREDENTIAL", repr(text), "digest:user:password")
    return scheme, credential


def _one_shot(run: Shell, words: tuple[str, ...]) -> int:
    try:
        if words[0] not in ("help", "quit", "exit", "version", "history", "printwatches"):
            run.connect(run.hosts)
        return run.command(words)
    except Quit:
        return run.status
    finally:
        run.close()


def _lines(run: Shell) -> int:
    try:
        run.connect(run.hosts)
        run.out("Welcome to ZooKeeper!")
        if sys.stdin.isatty():
            from zkd.cli.shell_prompt import interact

            return interact(run)
        return run_lines(run, sys.stdin)
    finally:
        run.close()
