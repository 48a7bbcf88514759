"""`zkd restore`: a stopped server's data out of a snapshot of zkd's own form.

What was there is moved into a folder `replaced-...`, never removed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from zkd.cli.files import bar, server_of, which_server
from zkd.config import Config
from zkd.errors import OperatorError
from zkd.server.settings import storage_settings
from zkd.storage.check import check as check_files
from zkd.storage.replay import replayer
from zkd.storage.restore import Restored, Way
from zkd.storage.restore import restore as restore_files


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("snapshot", type=click.Path(path_type=Path))
@which_server
@click.option(
    "--keep-log",
    is_flag=True,
    help="Mend a damaged tree: the server's own log above the snapshot is brought into it.",
)
@click.option("--replace", is_flag=True, help="Give up what is there, the log included.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def restore(
    snapshot: Path,
    config: Path | None,
    data: Path | None,
    log_dir: Path | None,
    keep_log: bool,
    replace: bool,
    as_json: bool,
) -> None:
    """Make a stopped server's data out of SNAPSHOT.

    SNAPSHOT is a file of `zkd snapshot`, or a tree-N.db. The server is the one of CONFIG, or the
    one whose data is in --data, or the one that `zkd serve` without a configuration starts here.
    Data that is there is refused, unless an option says what to do with it.
    """
    if keep_log and replace:
        raise click.UsageError("give --keep-log or --replace, not both")
    server = server_of(config, data, log_dir)
    way = Way.KEEP_LOG if keep_log else Way.REPLACE if replace else Way.REFUSE
    settings = storage_settings(server)
    with bar(as_json) as progress:
        done = restore_files(
            snapshot.absolute(),
            server.data_dir,
            server.data_log_dir,
            settings,
            effects_of=replayer(settings),
            progress=progress,
            way=way,
        )
        if done.refusal is None:
            _verify(server, progress)
    if as_json:
        click.echo(json.dumps(_report(snapshot, server, done)))
    else:
        _print(snapshot, server, done)
    if done.refusal is not None:
        raise done.refusal


def _verify(server: Config, progress: Any) -> None:
    settings = storage_settings(server)
    findings = check_files(server.data_dir, server.data_log_dir, settings.tree, progress)
    if findings:
        first = findings[0]
        raise OperatorError(f"restored, but {first.what}", first.where, first.mend)


def _report(snapshot: Path, server: Config, done: Restored) -> dict[str, Any]:
    return {
        "snapshot": str(snapshot),
        "data_dir": str(server.data_dir),
        "data_log_dir": str(server.data_log_dir),
        "snapshot_zxid": f"0x{done.snapshot_zxid:x}",
        "zxid": f"0x{done.zxid:x}",
        "nodes": done.nodes,
        "replayed": done.replayed,
        "moved": [str(folder) for folder in done.moved],
        "starts": done.refusal is None,
    }


def _print(snapshot: Path, server: Config, done: Restored) -> None:
    click.echo(f"restored {snapshot} (0x{done.snapshot_zxid:x}) into {server.data_dir}")
    if done.replayed:
        click.echo(f"and {done.replayed} transactions of the log above it")
    click.echo(f"{done.nodes} znodes, the server goes on at 0x{done.zxid:x}")
    for folder in done.moved:
        click.echo(f"what was there before is in {folder}")
