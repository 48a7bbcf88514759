"""`zkd init`: make the folders of a configuration, and the file myid, before the first start.

What zkServer-initialize.sh does for Apache ZooKeeper, except that nothing is ever deleted: a folder
that holds data of a server is refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import click

from zkd import config as configuration
from zkd.config import ConfigError
from zkd.errors import OperatorError

MYID = "myid"
MARK = "initialize"
"""An empty file that allows an empty member of an ensemble to vote with db.autocreate=false."""
_DATA = ("log.db", "tree-*.db", "version-2")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("file", metavar="CONFIG", type=click.Path(path_type=Path))
@click.option("--myid", "my_id", type=click.IntRange(min=0), help="This server's id, for dataDir.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def init(file: Path, my_id: int | None, as_json: bool) -> None:
    """Make the folders that CONFIG names, and the file myid."""
    data_dir, log_dir = folders(file)
    for folder in {data_dir, log_dir}:
        _refuse_data(folder)
    made = [folder for folder in dict.fromkeys((data_dir, log_dir)) if _make(folder)]
    if my_id is not None:
        _write_my_id(file, data_dir / MYID, my_id)
    (data_dir / MARK).touch()
    if as_json:
        told = {"data_dir": str(data_dir), "data_log_dir": str(log_dir), "myid": my_id}
        click.echo(json.dumps(told | {"made": [str(folder) for folder in made]}))
        return
    for folder in made:
        click.echo(f"made {folder}")
    click.echo(f"wrote {data_dir / MYID}" if my_id is not None else f"no {MYID} was written")


def folders(file: Path) -> tuple[Path, Path]:
    """dataDir and dataLogDir of a configuration, whose only fault may be that myid is missing.

    Raises OperatorError.
    """
    examined = configuration.examine(file)
    if examined.config is not None:
        return examined.config.data_dir, examined.config.data_log_dir
    others = tuple(fault for fault in examined.errors if fault.key != MYID)
    if others:
        raise ConfigError(others, str(file))
    data_dir = Path(examined.raw["dataDir"]).absolute()
    return data_dir, Path(examined.raw.get("dataLogDir", data_dir)).absolute()


def _found(folder: Path) -> Iterator[Path]:
    for pattern in _DATA:
        yield from folder.glob(pattern)


def _refuse_data(folder: Path) -> None:
    found = next(_found(folder), None)
    if found is not None:
        raise OperatorError(
            "there is data of a server already",
            str(found),
            "start the server with it, name another folder, or move it away",
        )


def _make(folder: Path) -> bool:
    """Whether the folder had to be made."""
    if folder.is_dir():
        return False
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise OperatorError(f"cannot be made: {error.strerror}", str(folder)) from None
    return True


def _write_my_id(file: Path, path: Path, my_id: int) -> None:
    """Write the id, if the configuration can be used with it."""
    try:
        before = path.read_text() if path.exists() else None
        path.write_text(f"{my_id}\n")
    except OSError as error:
        raise OperatorError(f"cannot be written: {error.strerror}", str(path)) from None
    try:
        configuration.load(file)
    except ConfigError:
        if before is None:
            path.unlink()
        else:
            path.write_text(before)
        raise
