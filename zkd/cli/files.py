"""What the commands that work on a server's files share: which server, a progress bar, owners."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import Progress

from zkd import config as configuration
from zkd.config import Config
from zkd.errors import OperatorError
from zkd.storage.check import Progress as Tell

Command = Callable[..., Any]


def which_server(command: Command) -> Command:
    """The options that name a server's files; see `server_of`."""
    path = click.Path(path_type=Path)
    for option in (
        click.option("--log-dir", type=path, help="Its dataLogDir, if that is another folder."),
        click.option("--data", type=path, help="The server's dataDir, instead of CONFIG."),
        click.argument("config", metavar="[CONFIG]", required=False, type=path),
    ):
        command = option(command)
    return command


def server_of(config: Path | None, data: Path | None, log_dir: Path | None) -> Config:
    """The configuration of the server that CONFIG or --data names, without either of them of the
    one that `zkd serve` starts here. Raises OperatorError."""
    overrides = {}
    if data is not None:
        if config is not None:
            raise click.UsageError("give CONFIG or --data, not both")
        overrides["dataDir"] = str(data)
    if log_dir is not None:
        overrides["dataLogDir"] = str(log_dir)
    return configuration.load(config, overrides)


def require_folders(config: Config) -> None:
    """OperatorError if there is no folder to look into."""
    for folder in (config.data_dir, config.data_log_dir):
        if not folder.is_dir():
            raise OperatorError(
                "there is no such folder",
                str(folder),
                "give the server's CONFIG, or its dataDir with --data",
            )


@contextlib.contextmanager
def bar(quiet: bool) -> Iterator[Tell]:
    """Progress (what, done, total) as bars on a terminal's standard error, else nowhere."""
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield lambda what, done, total: None
        return
    with Progress(console=console, transient=True) as shown:
        tasks: dict[str, Any] = {}

        def tell(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = shown.add_task(what, total=total)
            shown.update(tasks[what], completed=done, total=total)

        yield tell
