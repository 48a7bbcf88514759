"""Structured logs: `log = get("frontend 1")`, then `log.info("client.rejected", client=...)`.

An event's name is stable and dotted; what varies is in fields. A level that is switched off costs
one call of an empty function. `setup` is called once in each process, after the fork; before it,
everything from info on goes to standard error. `reload` reads the YAML file again.

Repetition: of one event (and one value of `per`, if it is given) at most `rate` lines in a second
are written; what is left out is told in one line with `repeated=N` when the second is over, by
the next event or by `tick`. Debug lines are never left out.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from zkd.server.logformat import LEVELS, NAMES, Event, trace
from zkd.server.logsettings import LogSettings, open_sink, read_settings
from zkd.server.logsinks import Sink

DEBUG = LEVELS["debug"]
_WINDOW_S = 1.0
_KEYS_MAX = 4096
"""Different (event, per) that are counted apart; beyond, `per` is left out."""


class LogCall(Protocol):
    """Type of `log.info` and its like: an event's name, `per` for counting, fields."""

    def __call__(self, event: str, /, *, per: object = None, **fields: Any) -> None: ...


def _off(event: str, /, *, per: object = None, **fields: Any) -> None:
    """What a level that is switched off does."""


@dataclass(slots=True)
class _Window:
    """Lines of one key within a second; `start` on the monotonic clock."""

    start: float
    written: int
    left_out: int
    level: int
    log: Log


class RateLimiter:
    """Decides whether a line is written. Time is an argument, in seconds."""

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self._windows: dict[tuple[str, object], _Window] = {}
        self._sweep_at = 0.0

    def allows(self, key: tuple[str, object], now: float, level: int, log: Log) -> bool:
        if not self.rate:
            return True
        window = self._windows.get(key)
        if window is None:
            if len(self._windows) >= _KEYS_MAX and key[1] is not None:
                return self.allows((key[0], None), now, level, log)
            self._windows[key] = _Window(now, 1, 0, level, log)
            return True
        if window.written < self.rate:
            window.written += 1
            return True
        window.left_out += 1
        return False

    def ended(self, now: float) -> list[tuple[str, object, _Window]]:
        """Take out the windows whose second is over; give those that left lines out."""
        if now < self._sweep_at:
            return []
        self._sweep_at = now + _WINDOW_S / 4
        return self._take(lambda window: now - window.start >= _WINDOW_S)

    def all(self) -> list[tuple[str, object, _Window]]:
        return self._take(lambda window: True)

    def _take(self, over: Callable[[_Window], bool]) -> list[tuple[str, object, _Window]]:
        gone = [(key, window) for key, window in list(self._windows.items()) if over(window)]
        for key, _ in gone:
            self._windows.pop(key, None)
        return [(*key, window) for key, window in gone if window.left_out]


class _Root:
    """The state of this process: settings, sinks, limiter, all logs by name."""

    def __init__(self) -> None:
        self.settings = LogSettings()
        self.path: Path | None = None
        self.server = ""
        self.process = "library"
        self.sinks: list[Sink] = [open_sink(output, "") for output in self.settings.outputs]
        self.limiter = RateLimiter(self.settings.rate)
        self.logs: dict[str, Log] = {}
        self.thresholds: dict[tuple[str, str], int] = {}
        self.wall: Callable[[], float] = time.time
        self.monotonic: Callable[[], float] = time.monotonic

    def threshold(self, process: str, event: str) -> int:
        """The level from which an event of a process is written: the longest name that fits."""
        known = self.thresholds.get((process, event))
        if known is None:
            levels = self.settings.levels
            known = levels.get(process, self.settings.level)
            parts = event.split(".")
            for count in range(1, len(parts) + 1):
                known = levels.get(".".join(parts[:count]), known)
            if len(self.thresholds) > _KEYS_MAX:
                self.thresholds.clear()
            self.thresholds[process, event] = known
        return known

    def lowest(self, process: str) -> int:
        levels = self.settings.levels
        return min([levels.get(process, self.settings.level), *levels.values()])

    def write(self, log: Log, level: int, event: str, fields: dict[str, Any]) -> None:
        record = Event(self.wall(), level, self.server, log.name, os.getpid(), event, fields)
        for sink in self.sinks:
            if level >= sink.level:
                sink.write(record)

    def tell_repeated(self, ended: Iterable[tuple[str, object, _Window]]) -> None:
        for event, per, window in ended:
            fields: dict[str, Any] = {} if per is None else {"per": per}
            self.write(window.log, window.level, event, {**fields, "repeated": window.left_out})


class Log:
    """The log of one process or part of it; made by `get`."""

    debug: LogCall
    info: LogCall
    warning: LogCall
    error: LogCall
    critical: LogCall

    def __init__(self, name: str, root: _Root) -> None:
        self.name = name
        self.process = name.split(" ")[0]
        self._root = root
        self.bind()

    def bind(self) -> None:
        """Switch each level on or off, as the settings say."""
        lowest = self._root.lowest(self.process)
        for number, name in NAMES.items():
            setattr(self, name, self._writer(number) if number >= lowest else _off)

    def enabled(self, level: str) -> bool:
        """Whether a level may be written at all: asks before costly fields are made."""
        return getattr(self, level) is not _off

    def exception(self, event: str, error: BaseException | None = None, /, **fields: Any) -> None:
        """An error with its traceback, in one line; without `error` the one being handled."""
        fault = error or sys.exception()
        if fault is None:
            self.error(event, **fields)
        else:
            self.error(event, error=fault, **fields, trace=trace(fault))

    def _writer(self, level: int) -> Callable[..., None]:
        root = self._root

        def write(event: str, /, *, per: object = None, **fields: Any) -> None:
            if level < root.threshold(self.process, event):
                return
            if level > DEBUG:
                now = root.monotonic()
                root.tell_repeated(root.limiter.ended(now))
                if not root.limiter.allows((event, per), now, level, self):
                    return
            root.write(self, level, event, fields)

        return write


class _Bridge(logging.Handler):
    """Warnings of libraries (asyncio and its like) become events `library.message`."""

    def emit(self, record: logging.LogRecord) -> None:
        level = min(max(record.levelno // 10 * 10, DEBUG), LEVELS["critical"])
        fields: dict[str, Any] = {"library": record.name, "text": record.getMessage()}
        if record.exc_info and record.exc_info[1]:
            fields["trace"] = trace(record.exc_info[1])
        getattr(get(_root.process), NAMES[level])("library.message", **fields)


_root = _Root()
_bridge = _Bridge(logging.WARNING)


def get(name: str) -> Log:
    """The log of a process, by the name that its lines carry: `peer`, `frontend 1`."""
    log = _root.logs.get(name)
    if log is None:
        log = _root.logs[name] = Log(name, _root)
    return log


def setup(path: Path | None, process: str = "library", *, server: str = "") -> None:
    """Take the settings of a YAML file (None: info and above to stderr). Once per process.

    `process`: whose name the lines of libraries carry. `server`: the configuration's name. Sinks
    are opened anew, so it is right after a fork. Raises OperatorError; nothing has changed then.
    """
    _use(path, server)
    _root.process = process
    if _bridge not in logging.getLogger().handlers:
        logging.getLogger().addHandler(_bridge)


def reload() -> None:
    """Read the YAML file again. Raises OperatorError; the old settings then stay."""
    _use(_root.path, _root.server)


def _use(path: Path | None, server: str) -> None:
    settings = read_settings(path) if path is not None else LogSettings()
    sinks = [open_sink(output, server) for output in settings.outputs]
    old = _root.sinks
    _root.path, _root.server = path, server
    _root.settings, _root.sinks = settings, sinks
    _root.thresholds.clear()
    _root.limiter = RateLimiter(settings.rate)
    for log in _root.logs.values():
        log.bind()
    for sink in old:
        sink.close()


def tick() -> None:
    """Tell what was left out in seconds that are over; to be called about once a second."""
    _root.tell_repeated(_root.limiter.ended(_root.monotonic()))


def flush() -> None:
    """Tell everything that was left out so far: before a process ends."""
    _root.tell_repeated(_root.limiter.all())


def lost() -> int:
    """Lines that no destination could take, since the settings were read."""
    return sum(sink.lost for sink in _root.sinks)
