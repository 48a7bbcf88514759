"""`zkd snapshot`: keep a whole tree in one file, from a running or a stopped server.

It reads by itself, beside the server, in a process of its own with a low priority; what was
acknowledged before it began is in the file. The file is written under another name, read back and
checked, and gets its own name last, so that whatever has the name is whole. Formats come from
plugins.
"""

from __future__ import annotations

import contextlib
import glob
import json
import logging
import os
import re
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import apsw
import click
from rich.console import Console
from rich.progress import Progress

from zkd import config as configuration
from zkd.config import Config
from zkd.errors import OperatorError
from zkd.plugins import loader
from zkd.plugins.api import SnapshotFormat
from zkd.plugins.current import CurrentTree, data_missing, open_current
from zkd.server.settings import tree_settings
from zkd.storage.files import sync_folder

FOLDER: Final = "snapshots"
"""In dataDir."""
DEFAULT_FORMAT: Final = "zkd"
NICENESS: Final = 10
SYNC_EVERY_S: Final = 0.05
TEMPORARY: Final = ".tmp"


@dataclass(frozen=True, slots=True)
class Taken:
    """What was done. `fresh`: false if the snapshot of this zxid was there already, and is sound.
    `removed`: older ones. Sizes in bytes, times in seconds."""

    path: Path
    format: str
    zxid: int
    nodes: int
    size: int
    seconds: float
    fresh: bool = True
    removed: tuple[Path, ...] = ()

    def as_object(self) -> dict[str, Any]:
        return {
            "path": str(self.path),
            "format": self.format,
            "zxid": f"0x{self.zxid:x}",
            "nodes": self.nodes,
            "bytes": self.size,
            "seconds": round(self.seconds, 3),
            "fresh": self.fresh,
            "removed": [str(path) for path in self.removed],
        }


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("file", metavar="[CONFIG]", required=False, type=click.Path(path_type=Path))
@click.option("--data", type=click.Path(path_type=Path), help="The server's dataDir.")
@click.option("--format", "name", default=DEFAULT_FORMAT, show_default=True, help="A format.")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help=f"The file to write; otherwise one in dataDir/{FOLDER}, where old ones are removed.",
)
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="A setting before CONFIG's."
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def snapshot(
    file: Path | None,
    data: Path | None,
    name: str,
    output: Path | None,
    settings: Sequence[str],
    as_json: bool,
) -> None:
    """Take a snapshot of a server's tree, running or not.

    The server is the one of CONFIG, or the one whose data is in --data, or the one that `zkd serve`
    without a configuration starts here. autopurge.snapRetainCount snapshots are kept.
    """
    config = _config(file, data, settings)
    logging.getLogger("zkd.plugins").addHandler(logging.NullHandler())  # _format says it
    os.nice(NICENESS)
    taken = take(config, name, output, quiet=as_json)
    if as_json:
        click.echo(json.dumps(taken.as_object()))
        return
    done = "wrote" if taken.fresh else "was there already:"
    click.echo(f"{done} {taken.path}")
    click.echo(
        f"{taken.nodes} znodes at 0x{taken.zxid:x}, {taken.size} bytes, {taken.seconds:.2f} s"
    )
    for path in taken.removed:
        click.echo(f"removed {path}")


def _config(file: Path | None, data: Path | None, settings: Sequence[str]) -> Config:
    overrides: dict[str, str] = {}
    for pair in settings:
        key, equals, value = pair.partition("=")
        if not equals or not key.strip():
            raise click.BadParameter(f"'{pair}' is not KEY=VALUE", param_hint="--set")
        overrides[key.strip()] = value.strip()
    if data is not None:
        if file is not None:
            raise click.UsageError("give CONFIG or --data, not both")
        overrides["dataDir"] = str(data)
    return configuration.load(file, overrides)


def take(config: Config, name: str, output: Path | None, *, quiet: bool = True) -> Taken:
    """Write the snapshot. `quiet`: without a progress bar. Raises OperatorError."""
    began = time.monotonic()
    form = _format(config, name)
    if output is not None:
        _check_output(output)
    missing = data_missing(config.data_dir, config.data_log_dir)
    if missing is not None:
        raise missing
    try:
        with _progress(quiet) as progress:
            tree = open_current(
                config.data_dir,
                config.data_log_dir,
                tree_settings(config),
                with_log=config.standalone,
                progress=progress,
            )
            with contextlib.closing(tree):
                taken = _write(config, form, tree, output)
    except apsw.Error as error:
        raise OperatorError(
            f"the tree cannot be read: {error}", str(config.data_dir), "see `zkd check`"
        ) from error
    path, fresh = taken
    removed = _retain(path.parent, form, config) if output is None else ()
    seconds = time.monotonic() - began
    size = path.stat().st_size
    return Taken(path, name, tree.zxid, tree.node_count, size, seconds, fresh, removed)


def _check_output(output: Path) -> None:
    if output.exists():
        raise OperatorError("this file exists", str(output), "give another name, or move it away")
    if not output.parent.is_dir():
        raise OperatorError("this folder is missing", str(output.parent), "make it, or mount it")


def _format(config: Config, name: str) -> SnapshotFormat:
    """The format of this name, from the plugins that are installed."""
    plugins = loader.load(config.raw, "snapshot")
    formats = {one.item.name: one.item for one in reversed(plugins.snapshots)}
    if name in formats:
        return formats[name]
    told = "; ".join(f"{one.source} is refused: {one.reason}" for one in plugins.refused)
    raise OperatorError(
        f"no plugin knows the snapshot format {name!r}" + (f" ({told})" if told else ""),
        "--format",
        "these are known: " + (", ".join(sorted(formats)) or "none"),
    )


def _write(
    config: Config, form: SnapshotFormat, tree: CurrentTree, output: Path | None
) -> tuple[Path, bool]:
    """Write, check, publish; the file, and whether it is new."""
    path = output or config.data_dir / FOLDER / f"snapshot.{tree.zxid:x}{form.suffix}"
    if output is None:
        path.parent.mkdir(exist_ok=True)
        if path.exists():
            _verify(form, path, tree.zxid)
            return path, False
    temporary = path.with_name(f"{path.name}-{os.getpid()}{TEMPORARY}")
    try:
        with _smoothly(temporary):
            form.write(tree, temporary)
        _verify(form, temporary, tree.zxid)
        _publish(temporary, path)
    except (OperatorError, apsw.CorruptError):
        raise
    except FileExistsError as error:
        raise OperatorError("this file exists", str(path), "give another name") from error
    except OSError as error:
        raise OperatorError(
            f"the snapshot cannot be written: {error.strerror or error}",
            str(path),
            "is the folder there, writable, and is there room on the disk?",
        ) from error
    except Exception as error:
        raise OperatorError(
            f"format {form.name} has failed: {type(error).__name__}: {error}",
            str(path),
            "see the documentation of its plugin (`zkd plugins` names it)",
        ) from error
    finally:
        for left in _parts(temporary):
            left.unlink(missing_ok=True)
    return path, True


def _publish(temporary: Path, path: Path) -> None:
    """Give the file its name. Raises FileExistsError if that has been taken meanwhile."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        if path.exists():
            raise FileExistsError(path) from None
        temporary.rename(path)
    sync_folder(path.parent)


def _parts(path: Path) -> Iterator[Path]:
    """A temporary file, and what its format has beside it."""
    return path.parent.glob(glob.escape(path.name) + "*")


def _verify(form: SnapshotFormat, path: Path, zxid: int) -> None:
    try:
        found = form.verify(path)
    except ValueError as error:
        raise OperatorError(
            f"the snapshot is not sound: {error}", str(path), "see `zkd check` for the tree"
        ) from error
    if found != zxid:
        raise OperatorError(
            f"the snapshot says that it is of 0x{found:x}, not of 0x{zxid:x}", str(path), ""
        )


def _retain(folder: Path, form: SnapshotFormat, config: Config) -> tuple[Path, ...]:
    """Remove all but the newest snapshots of this format, if the configuration lets purge, and
    what a snapshot that was killed has left."""
    for left in folder.glob(f"snapshot.*{TEMPORARY}*"):
        pid = re.search(r"-(\d+)\.tmp", left.name)
        if pid is not None and not Path(f"/proc/{pid[1]}").exists():
            left.unlink(missing_ok=True)
    if not config.purge:
        return ()
    pattern = re.compile(rf"snapshot\.([0-9a-f]{{1,16}}){re.escape(form.suffix)}")
    found = [
        (int(match[1], 16), path)
        for path in folder.iterdir()
        if (match := pattern.fullmatch(path.name)) is not None
    ]
    found.sort(reverse=True)
    gone = tuple(path for _, path in found[config.autopurge_snap_retain_count :])
    for path in gone:
        path.unlink(missing_ok=True)
    return gone


@contextlib.contextmanager
def _smoothly(path: Path) -> Iterator[None]:
    """Bring what is written to the disk all the time: one large fsync at the end would make the
    server's own wait."""
    over = threading.Event()

    def sync() -> None:
        while not over.wait(SYNC_EVERY_S):
            for part in _parts(path):
                with contextlib.suppress(OSError):
                    descriptor = os.open(part, os.O_RDONLY)
                    try:
                        os.fdatasync(descriptor)
                    finally:
                        os.close(descriptor)

    thread = threading.Thread(target=sync, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextlib.contextmanager
def _progress(quiet: bool) -> Iterator[Any]:
    """A progress bar on a terminal's standard error."""
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield lambda done, total: None
        return
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("znodes", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
