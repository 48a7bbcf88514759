"""`zkd config`: what a configuration says, checked and explained before a server is started."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from zkd.config.document import markdown, sample
from zkd.config.explain import Row, rows
from zkd.config.findings import Finding, Level
from zkd.config.loader import Examination, examine
from zkd.errors import OperatorError

_STYLES = {
    Level.ERROR: "bold red",
    Level.DANGER: "bold magenta",
    Level.WARNING: "yellow",
    Level.NOTE: "dim",
}


@click.group()
def config() -> None:
    """Check and explain configurations."""


@config.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--strict", is_flag=True, help="Refuse unknown keys.")
@click.option("--all", "everything", is_flag=True, help="Show the keys that are not set, too.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="A key as on the command line."
)
def check(
    file: Path, strict: bool, everything: bool, as_json: bool, overrides: Sequence[str]
) -> None:
    """Explain each key of FILE and tell what is wrong with it; exit status 1 if something is."""
    told = dict(_pair(override) for override in overrides)
    examined = _with_plugins(examine(file, told, strict=strict))
    listed = rows(examined, everything=everything)
    if as_json:
        click.echo(json.dumps(_report(file, examined, listed), indent=2))
    else:
        _print(file, examined, listed)
    if examined.errors:
        raise click.exceptions.Exit(1)


@config.command()
def keys() -> None:
    """Print the table of all keys as markdown."""
    click.echo(markdown(), nl=False)


@config.command("sample")
def sample_() -> None:
    """Print a configuration of a standalone server with every key and its meaning."""
    click.echo(sample(), nl=False)


def _with_plugins(examined: Examination) -> Examination:
    """Add what the installed plugins say: one that the configuration names may be missing."""
    from zkd.plugins.loader import check_required

    if examined.config is None:
        return examined
    try:
        check_required(examined.raw)
    except OperatorError as error:
        finding = Finding(Level.ERROR, error.where, error.what, error.where, error.mend)
        return dataclasses.replace(examined, config=None, findings=(*examined.findings, finding))
    return examined


def _pair(override: str) -> tuple[str, str]:
    name, equals, value = override.partition("=")
    if not equals or not name.strip():
        raise click.BadParameter(f"'{override}' is not KEY=VALUE", param_hint="--set")
    return name.strip(), value.strip()


def _report(file: Path, examined: Examination, listed: Sequence[Row]) -> dict[str, Any]:
    return {
        "file": str(file),
        "ok": not examined.errors,
        "keys": [dataclasses.asdict(row) for row in listed],
        "findings": [dataclasses.asdict(finding) for finding in examined.findings],
    }


def _print(file: Path, examined: Examination, listed: Sequence[Row]) -> None:
    console = Console(highlight=False)
    table = Table(title=escape(str(file)), title_justify="left", expand=False)
    table.add_column("key", no_wrap=True)
    table.add_column("value", overflow="fold")
    table.add_column("from", overflow="fold")
    table.add_column("meaning")
    table.add_column("zkd")
    for row in listed:
        place = "default" if row.is_default else _line(row.where)
        style = "dim" if row.is_default else ""
        cells = (row.key, row.value, place, row.meaning, row.zkd)
        table.add_row(*(escape(cell) for cell in cells), style=style)
    console.print(table)
    for finding in sorted(examined.findings, key=lambda one: list(_STYLES).index(one.level)):
        _print_finding(console, finding)
    if examined.errors:
        console.print(f"{len(examined.errors)} to be corrected", style="bold red")
    else:
        console.print("The configuration can be used.", style="green")


def _line(where: str) -> str:
    """`zoo.cfg:12` -> `line 12`; other places as they are."""
    head, colon, number = where.rpartition(":")
    return f"line {number}" if colon and head and number.isdigit() else where


def _print_finding(console: Console, finding: Finding) -> None:
    console.print(escape(f"{finding.level}:"), style=_STYLES[finding.level], end=" ")
    place = f"{finding.where}: " if finding.where else ""
    console.print(escape(f"{place}{finding.what}"), soft_wrap=True)
    if finding.mend:
        console.print(escape(f"    {finding.mend}"), style="dim", soft_wrap=True)
