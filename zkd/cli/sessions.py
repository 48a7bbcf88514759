"""`zkd sessions`: who is connected, and what ephemerals any session has."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from zkd.cli.console import ask
from zkd.cli.files import server_of, which_server
from zkd.errors import OperatorError


@dataclass(frozen=True, slots=True)
class SessionRow:
    """One session. `client` and `frontend` are empty while it has no connection; times are ms."""

    session: str
    timeout_ms: int
    expires_in_ms: int
    client: str
    frontend: str
    queued: int
    ephemerals: tuple[str, ...]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--session", help="Show this one (0x...) with the paths of its ephemerals.")
@which_server
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def sessions(
    session: str | None,
    config: Path | None,
    data: Path | None,
    log_dir: Path | None,
    as_json: bool,
) -> None:
    """List the sessions of a server that runs on this machine.

    The server is the one of CONFIG or --data; without either the one that `zkd serve` starts here.
    """
    found = rows(config, data, log_dir)
    if session is not None:
        found = [row for row in found if int(row.session, 16) == _number(session)]
        if not found:
            raise OperatorError("there is no such session", session, "see `zkd sessions`")
    if as_json:
        click.echo(json.dumps({"sessions": [asdict(row) for row in found]}))
    elif session is not None:
        _print_one(found[0])
    else:
        _print(found)


def _number(session: str) -> int:
    try:
        return int(session, 16)
    except ValueError:
        raise OperatorError(
            "this is no session id", session, "give it as it is shown: 0x..."
        ) from None


def rows(config: Path | None, data: Path | None, log_dir: Path | None) -> list[SessionRow]:
    """All sessions, by id."""
    what = {"parts": ["sessions", "ephemerals", "connections"]}
    answers = ask(server_of(config, data, log_dir), ("frontend", "peer"), what)
    peer = answers.pop("peer")
    connections = {
        conn["sid"]: (name, conn)
        for name, answer in sorted(answers.items())
        for conn in answer["connections"]
        if conn["sid"]
    }
    now_ms = time.time() * 1000
    found = []
    for one in peer.get("sessions", []):
        name, conn = connections.get(one["sid"], ("", None))
        found.append(
            SessionRow(
                hex(one["sid"] & (1 << 64) - 1),
                one["timeout_ms"],
                max(0, round(one["expires_ms"] - now_ms)),
                f"{conn['address']}:{conn['port']}" if conn else "",
                name,
                conn["queued"] if conn else 0,
                tuple(peer.get("ephemerals", {}).get(one["sid"], ())),
            )
        )
    return sorted(found, key=lambda row: int(row.session, 16))


def _print_one(row: SessionRow) -> None:
    click.echo(f"session     {row.session}")
    click.echo(f"timeout     {row.timeout_ms} ms, expires in {row.expires_in_ms} ms if silent")
    click.echo(f"client      {row.client or 'not connected'}")
    if row.frontend:
        click.echo(f"front-end   {row.frontend.removeprefix('frontend ')}")
    click.echo(f"ephemerals  {len(row.ephemerals)}")
    for path in row.ephemerals:
        click.echo(path)


def _print(found: list[SessionRow]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("Session", "Timeout ms", "Client", "Front-end", "Ephemerals")
    for row in found:
        table.add_row(
            row.session,
            str(row.timeout_ms),
            row.client or "not connected",
            row.frontend.removeprefix("frontend "),
            str(len(row.ephemerals)),
        )
    Console().print(table)
