"""`zkd check`: read all files of one server and compare them; go on with a log that lacks its end.

Reading is harmless beside a running server. `--accept-log-end` is the operator's word that the log
may end where it does, for a server that refuses to start because something durable is missing: it
says what was given up, and leaves files with which the server starts.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from zkd.cli.files import bar, require_folders, server_of, which_server
from zkd.config import Config
from zkd.errors import OperatorError
from zkd.jute import txn
from zkd.jute.codec import Malformed
from zkd.jute.protocol import Op
from zkd.server.settings import storage_settings
from zkd.storage.check import Finding, check_tree_readable
from zkd.storage.check import check as check_files
from zkd.storage.engine import Engine
from zkd.storage.log import LOG_NAME
from zkd.storage.recovery import GivenUp
from zkd.storage.replay import replayer
from zkd.storage.restore import give_to_owner

TOLD_MAX = 20
"""So many transactions that are given up are named on a terminal; all of them in JSON."""
_OPS = {value: name.lower() for name, value in vars(Op).items() if isinstance(value, int)}


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@which_server
@click.option(
    "--accept-log-end",
    is_flag=True,
    help="The log may end where it does. What is missing is given up. The server must be stopped.",
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def check(
    config: Path | None,
    data: Path | None,
    log_dir: Path | None,
    accept_log_end: bool,
    as_json: bool,
) -> None:
    """Read every file of a server, running or stopped, and tell what is wrong.

    The server is the one of CONFIG, or the one whose data is in --data, or the one that `zkd serve`
    without a configuration starts here. Exit status 1 if anything is wrong.
    """
    server = server_of(config, data, log_dir)
    require_folders(server)
    if not (server.data_log_dir / LOG_NAME).exists():
        raise OperatorError(
            f"there is no {LOG_NAME}",
            str(server.data_log_dir),
            "if this is the server's dataLogDir, see docs/recovery.md; else name the right one",
        )
    given_up = _accept(server) if accept_log_end else None
    with bar(as_json) as progress:
        findings = check_files(
            server.data_dir, server.data_log_dir, storage_settings(server).tree, progress
        )
    if as_json:
        click.echo(json.dumps(_report(server, findings, given_up), indent=2))
    else:
        _print(server, findings, given_up)
    if findings:
        raise click.exceptions.Exit(1)


def _accept(server: Config) -> GivenUp:
    """Open the files once with the operator's word. Raises OperatorError; nothing is given up
    then: a tree that cannot be read is told first, because it must be mended first."""
    for found in check_tree_readable(server.data_dir, server.data_log_dir):
        raise OperatorError(found.what, found.where, found.mend)
    settings = replace(storage_settings(server), accept_log_end=True)
    engine = Engine(server.data_dir, server.data_log_dir, settings, effects_of=replayer(settings))
    given_up = engine.given_up
    engine.close()
    for folder in {server.data_dir, server.data_log_dir}:
        give_to_owner(folder)
    return given_up or GivenUp("", engine.durable, engine.durable, ())


def _report(server: Config, findings: list[Finding], given_up: GivenUp | None) -> dict[str, Any]:
    report: dict[str, Any] = {
        "data_dir": str(server.data_dir),
        "data_log_dir": str(server.data_log_dir),
        "sound": not findings,
        "findings": [dataclasses.asdict(finding) for finding in findings],
    }
    if given_up is not None:
        report["accepted"] = {
            "reason": given_up.reason,
            "log_end": f"0x{given_up.end:x}",
            "promised": f"0x{given_up.promised:x}",
            "lost": [_described(*row) for row in given_up.rows],
            "forgotten_up_to": f"0x{given_up.forgotten:x}" if given_up.forgotten else None,
        }
    return report


def _described(zxid: int, body: bytes) -> dict[str, Any]:
    """A transaction that could still be read: what it would have done."""
    told: dict[str, Any] = {"zxid": f"0x{zxid:x}"}
    try:
        found = txn.decode(body, len(body))
    except Malformed:
        return told | {"type": "damaged"}
    told["type"] = _OPS.get(found.header.type, str(found.header.type))
    told["session"] = f"0x{found.header.session & (1 << 64) - 1:x}"
    told["time_ms"] = found.header.time_ms
    path = getattr(found.record, "path", None)
    return told if path is None else told | {"path": path}


def _print(server: Config, findings: list[Finding], given_up: GivenUp | None) -> None:
    if given_up is not None:
        for line in _accepted(given_up):
            click.echo(line)
    for finding in findings:
        click.echo(f"{finding.where}: {finding.what}")
        if finding.mend:
            click.echo(f"  to mend it: {finding.mend}")
    where = ", ".join(dict.fromkeys(map(str, (server.data_dir, server.data_log_dir))))
    click.echo(f"{where}: {len(findings)} found wrong" if findings else f"{where}: sound")


def _accepted(given_up: GivenUp) -> list[str]:
    """What the operator's word has cost, in lines."""
    lines = []
    if given_up.forgotten:
        lines.append(
            f"the log's rows up to 0x{given_up.forgotten:x} are removed, one of them was damaged;"
            " the tree holds what they did: no change is lost"
        )
    if not given_up.reason:
        return lines or ["nothing had to be given up: the log ends where it should"]
    lines.append(f"accepted: {given_up.reason}")
    if given_up.promised <= given_up.end:
        return [*lines, f"no transaction is lost; the log goes on above 0x{given_up.end:x}"]
    lines.append(
        f"given up: every transaction above 0x{given_up.end:x} up to 0x{given_up.promised:x},"
        " though clients may have been told that they are done"
    )
    for row in given_up.rows[:TOLD_MAX]:
        told = _described(*row)
        lines.append(f"  {' '.join(str(value) for value in told.values())}")
    if len(given_up.rows) > TOLD_MAX:
        lines.append(f"  and {len(given_up.rows) - TOLD_MAX} more (--json names them)")
    return lines
