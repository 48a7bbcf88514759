"""`zkd plugins`: what is installed, where it runs, and why it is not used if it is not."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from zkd import config as configuration
from zkd.errors import OperatorError
from zkd.plugins import loader
from zkd.plugins.api import Config
from zkd.plugins.loader import KINDS_OF_ROLE, Installed, Role

_PROCESSES: dict[Role, str] = {
    "frontend": "front-ends",
    "peer": "peer",
    "admin": "admin",
    "snapshot": "zkd snapshot",
}
_STYLES = {"used": "green", "off": "dim", "refused": "bold red"}


@dataclass(frozen=True, slots=True)
class Row:
    """One plugin. `state`: used, off (by the configuration), refused. `offers`: names of what it
    gives (schemes, observers, formats, exporters, sinks). `reason`: of a refusal."""

    plugin: str
    kind: str
    distribution: str
    version: str
    shipped: bool
    processes: tuple[str, ...]
    state: str
    offers: tuple[str, ...] = ()
    reason: str = ""


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("file", metavar="[CONFIG]", required=False, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")
def plugins(file: Path | None, as_json: bool) -> None:
    """List the plugins that are installed, as CONFIG would use them.

    They are imported here to find out. Exit status 1 if one is refused.
    """
    logging.getLogger("zkd.plugins").addHandler(logging.NullHandler())  # the table says it all
    found = rows(configuration.load(file).raw)
    if as_json:
        click.echo(json.dumps([asdict(row) for row in found], indent=2))
    else:
        _print(found)
    if any(row.state == "refused" for row in found):
        raise click.exceptions.Exit(1)


def rows(config: Config) -> list[Row]:
    """Everything that is installed or that the configuration names, in the loader's order."""
    offers: dict[str, list[str]] = {}
    refused: dict[str, str] = {}
    missing: list[Row] = []
    installed = loader.installed(config)
    known = {plugin.source for plugin in installed}
    demands = {key: value for key, value in config.items() if key.startswith("authProvider.")}
    others = {key: value for key, value in config.items() if key not in demands}
    for key, value in demands.items():
        try:
            loader.load({**others, key: value}, "peer")
        except OperatorError as error:
            missing.append(Row(key, "auth", value, "-", False, (), "refused", (), error.what))
    for role in _PROCESSES:
        loaded = loader.load(others, role)
        for kind in KINDS_OF_ROLE[role]:
            for one in loaded.of_kind(kind):
                names = offers.setdefault(str(one.source), [])
                name = one.item.scheme if kind == "auth" else one.item.name
                if name not in names:
                    names.append(name)
        for refusal in loaded.refused:
            refused.setdefault(str(refusal.source), refusal.reason)
            if refusal.source not in known:
                known.add(refusal.source)
                missing.append(_missing(refusal))
    return [_row(plugin, offers, refused) for plugin in installed] + missing


def _processes(kind: str) -> tuple[str, ...]:
    return tuple(text for role, text in _PROCESSES.items() if kind in KINDS_OF_ROLE[role])


def _row(plugin: Installed, offers: dict[str, list[str]], refused: dict[str, str]) -> Row:
    source = plugin.source
    reason = refused.get(str(source), "")
    state = "refused" if reason else "used" if plugin.enabled else "off"
    return Row(
        source.plugin,
        plugin.kind,
        source.distribution,
        source.version,
        source.shipped,
        _processes(plugin.kind),
        state,
        tuple(offers.get(str(source), ())),
        reason,
    )


def _missing(refusal: loader.Refusal) -> Row:
    source = refusal.source
    kind = source.plugin.partition(".")[0]
    distribution, version = source.distribution, source.version
    return Row(
        source.plugin,
        kind,
        distribution,
        version,
        False,
        _processes(kind),
        "refused",
        (),
        refusal.reason,
    )


def _print(found: Sequence[Row]) -> None:
    console = Console(highlight=False)
    table = Table(box=None, pad_edge=False)
    table.add_column("plugin", no_wrap=True)
    for title in ("distribution", "runs in", "state", "offers"):
        table.add_column(title, overflow="fold")
    for row in found:
        distribution = f"{row.distribution} {row.version}"
        cells = (row.plugin, distribution, ", ".join(row.processes), row.state)
        texts = [*cells, ", ".join(row.offers)]
        table.add_row(*(escape(text) for text in texts), style=_STYLES[row.state])
    console.print(table)
    for row in found:
        if row.reason:
            console.print(escape(f"{row.plugin}: {row.reason}"), soft_wrap=True)
