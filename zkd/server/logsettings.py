"""The YAML file of the log: levels and destinations. See conf/logging.yaml for every key."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from zkd.config.kinds import BYTES, MIB
from zkd.errors import OperatorError
from zkd.server.logformat import LEVELS, as_json, as_text
from zkd.server.logsinks import FileSink, Render, Sink, StreamSink, SyslogSink

_SIZE = 64 * MIB
_STREAMS = {"stdout": 1, "stderr": 2}
_OUTPUT_KEYS = frozenset(
    ("to", "format", "level", "priorities", "path", "size", "keep", "address", "tag")
)


@dataclass(frozen=True, slots=True)
class Output:
    """One destination as the file describes it; `size` in bytes."""

    to: str = "stderr"
    format: str = "text"
    level: int = LEVELS["debug"]
    priorities: bool | None = None
    path: str = ""
    size: int = _SIZE
    keep: int = 5
    address: str = "/dev/log"
    tag: str = "zkd"


@dataclass(frozen=True, slots=True)
class LogSettings:
    """What the YAML file says.

    `levels`: by process (frontend) or by the beginning of an event's name (session, quorum.sync).
    `rate`: lines of one event (and `per`) in a second; 0 is without limit.
    """

    level: int = LEVELS["info"]
    levels: Mapping[str, int] = field(default_factory=dict)
    outputs: Sequence[Output] = (Output(),)
    rate: int = 20


def read_settings(path: Path) -> LogSettings:
    """Raises OperatorError, which names the file and the key, for anything it does not know."""
    import yaml  # only who names a file pays for it

    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        raise OperatorError(f"cannot be read: {error.strerror}", str(path)) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        summary = " ".join(str(error).split())
        raise OperatorError(f"is not YAML: {summary}", str(path)) from error
    return parse_settings({} if content is None else content, str(path))


def parse_settings(content: Any, where: str) -> LogSettings:
    """The content of the file as `yaml.safe_load` gives it."""
    top = _mapping(content, where, "the file", {"level", "levels", "outputs", "rate"})
    levels = top.get("levels") or {}
    if not isinstance(levels, dict):
        raise OperatorError("levels is not a mapping of names to levels", where)
    outputs = top.get("outputs", [{}])
    if not isinstance(outputs, list):
        raise OperatorError("outputs is not a list", where)
    return LogSettings(
        level=_level(top.get("level", "info"), where, "level"),
        levels={
            str(name): _level(level, where, f"levels.{name}") for name, level in levels.items()
        },
        outputs=tuple(_output(output, where, n) for n, output in enumerate(outputs, 1)),
        rate=_number(top.get("rate", 20), where, "rate"),
    )


def _output(content: Any, where: str, number: int) -> Output:
    name = f"outputs, entry {number}"
    given = _mapping(content, where, name, _OUTPUT_KEYS)
    to = str(given.get("to", "stderr"))
    if to not in (*_STREAMS, "file", "syslog"):
        raise OperatorError(f"{name}: to: {to} is not stderr, stdout, file or syslog", where)
    form = str(given.get("format", "text"))
    if form not in ("text", "json"):
        raise OperatorError(f"{name}: format: {form} is neither text nor json", where)
    if to == "file" and not given.get("path"):
        raise OperatorError(f"{name}: a file needs a path", where)
    try:
        size = BYTES.read(str(given.get("size", _SIZE))).value
    except ValueError as error:
        raise OperatorError(f"{name}: size: {error}", where) from error
    priorities = given.get("priorities", "auto")
    if priorities not in (True, False, "auto"):
        raise OperatorError(f"{name}: priorities: {priorities} is not yes, no or auto", where)
    return Output(
        to=to,
        format=form,
        level=_level(given.get("level", "debug"), where, f"{name}: level"),
        priorities=None if priorities == "auto" else bool(priorities),
        path=str(given.get("path", "")),
        size=size,
        keep=_number(given.get("keep", 5), where, f"{name}: keep"),
        address=str(given.get("address", "/dev/log")),
        tag=str(given.get("tag", "zkd")),
    )


def _mapping(content: Any, where: str, name: str, known: frozenset[str] | set[str]) -> Any:
    if not isinstance(content, dict):
        raise OperatorError(f"{name} is not a mapping", where)
    for key in content:
        if key not in known:
            mend = f"known are {', '.join(sorted(known))}"
            raise OperatorError(f"{name}: unknown key {key}", where, mend)
    return content


def _level(name: Any, where: str, key: str) -> int:
    level = LEVELS.get(str(name).lower())
    if level is None:
        raise OperatorError(f"{key}: {name} is no level", where, f"known are {', '.join(LEVELS)}")
    return level


def _number(value: Any, where: str, key: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise OperatorError(f"{key}: {value} is not a whole number from 0", where)
    return value


def open_sink(output: Output, server: str) -> Sink:
    """`{server}` in a path is the server's name. Raises OperatorError if a file cannot be made."""
    if output.to in _STREAMS:
        journald = bool(os.environ.get("JOURNAL_STREAM"))
        priorities = journald if output.priorities is None else output.priorities
        render = _render(output, with_time=not priorities)
        return StreamSink(_STREAMS[output.to], render, output.level, priorities=priorities)
    if output.to == "syslog":
        render = _render(output, with_time=False)
        return SyslogSink(output.address, render, output.level, tag=output.tag)
    path = Path(output.path.replace("{server}", server))
    try:
        return FileSink(path, _render(output), output.level, size=output.size, keep=output.keep)
    except OSError as error:
        mend = "correct path in the log's YAML file, or the rights of the folder"
        raise OperatorError(
            f"the log file cannot be opened: {error.strerror}", str(path), mend
        ) from error


def _render(output: Output, *, with_time: bool = True) -> Render:
    return as_json if output.format == "json" else partial(as_text, with_time=with_time)
