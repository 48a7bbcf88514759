"""`zkd shed`: close a share of a server's client connections, so that they go elsewhere.

No session ends by it: a client connects again, to this server or another one of its list.
"""

from __future__ import annotations

import json
from pathlib import Path

import click

from zkd.cli.console import ask
from zkd.cli.files import server_of, which_server


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--percent",
    type=click.FloatRange(0, 100, min_open=True),
    required=True,
    help="How many of every hundred connections of each front-end.",
)
@which_server
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def shed(
    percent: float, config: Path | None, data: Path | None, log_dir: Path | None, as_json: bool
) -> None:
    """Close a random share of the client connections of a server on this machine.

    Their sessions live on: the clients come back within their session timeout. Before a stop, or
    when one server of several has most of the clients.
    """
    answers = ask(server_of(config, data, log_dir), ("frontend",), {"parts": [], "shed": percent})
    closed = {name: answer["shed"] for name, answer in sorted(answers.items())}
    left = sum(answer["connection_count"] for answer in answers.values())
    if as_json:
        click.echo(json.dumps({"closed": sum(closed.values()), "left": left, "by": closed}))
    else:
        click.echo(f"closed {sum(closed.values())} connections, {left} are left")
