"""The audit log as a file: one line an event, as Apache ZooKeeper writes it, or as JSON.

    2026-11-22 18:00:35,123 INFO audit.Slf4jAuditLogger: session=0x1..<TAB>user=..<TAB>..

A failure has the level ERROR. Fields that do not apply are left out; control characters in values
are written as \\xNN, so that nobody can forge a line. All front-ends append to one file: each line
is one write, and the file is renamed (`audit.log` to `audit.log.1`, and so on) under a lock.
(`org.apache.zookeeper.audit.AuditEvent`, `Slf4jAuditLogger`, the appender RFAAUDIT of logback.xml)

Settings: `plugin.audit.log.file` (zookeeper_audit.log in dataLogDir or dataDir), `.format` (text or
json), `.maxBytes` (10485760; 0: never rename), `.backups` (10), `.utc` (false).
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import time
from pathlib import Path
from typing import Final, Literal

from zkd.plugins.api import AuditEvent, AuditSink, Config, flag, hookimpl, settings

FILE_NAME: Final = "zookeeper_audit.log"
MAX_BYTES: Final = 10 * 1024 * 1024
BACKUPS: Final = 10

Format = Literal["text", "json"]

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def fields(event: AuditEvent) -> list[tuple[str, str]]:
    """The fields that apply, in Apache ZooKeeper's order, the result last."""
    pairs = (
        ("session", None if event.session is None else f"{event.session & (1 << 64) - 1:#x}"),
        ("user", event.user),
        ("ip", event.ip),
        ("operation", event.operation),
        ("znode", event.znode),
        ("znode_type", event.znode_type),
        ("acl", event.acl),
        ("result", event.result),
    )
    return [(name, value) for name, value in pairs if value is not None]


def text_line(event: AuditEvent, *, utc: bool = False) -> str:
    """The line without its end."""
    seconds, milliseconds = divmod(event.time_ms, 1000)
    when = time.gmtime(seconds) if utc else time.localtime(seconds)
    stamp = time.strftime("%Y-%m-%d %H:%M:%S", when)
    level = "ERROR" if event.result == "failure" else "INFO"
    pairs = "\t".join(f"{name}={_CONTROL.sub(_hex, value)}" for name, value in fields(event))
    return f"{stamp},{milliseconds:03d} {level} audit.Slf4jAuditLogger: {pairs}"


def json_line(event: AuditEvent) -> str:
    """One JSON object: the fields of the text form, `time_ms`, and `zxid` in hex where known."""
    record: dict[str, object] = {"time_ms": event.time_ms, **dict(fields(event))}
    if event.zxid is not None:
        record["zxid"] = f"{event.zxid:#x}"
    return json.dumps(record, ensure_ascii=True)


def _hex(match: re.Match[str]) -> str:
    return f"\\x{ord(match[0]):02x}"


class AuditLog(AuditSink):
    """Appends to `path`. Several processes may do so at once."""

    name = "log"

    def __init__(
        self,
        path: Path,
        form: Format = "text",
        *,
        max_bytes: int = MAX_BYTES,
        backups: int = BACKUPS,
        utc: bool = False,
    ) -> None:
        self._path = path
        self._form = form
        self._max_bytes = max_bytes
        self._backups = backups
        self._utc = utc
        self._file: int | None = None

    def write(self, event: AuditEvent) -> None:
        line = json_line(event) if self._form == "json" else text_line(event, utc=self._utc)
        data = (line + "\n").encode("utf-8", "backslashreplace")
        file = self._current()
        if self._max_bytes and 0 < os.fstat(file).st_size > self._max_bytes - len(data):
            file = self._roll(len(data))
        if os.write(file, data) != len(data):
            raise OSError(f"{self._path}: a line was written in part")

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _current(self) -> int:
        """The file that has the name now: another process may have renamed ours."""
        if self._file is not None:
            mine = os.fstat(self._file)
            try:
                named = self._path.stat()
            except FileNotFoundError:
                named = None
            if named is not None and (named.st_dev, named.st_ino) == (mine.st_dev, mine.st_ino):
                return self._file
            self.close()
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._file = os.open(self._path, flags, 0o640)
        return self._file

    def _roll(self, coming: int) -> int:
        """Rename the full file, unless another process just did; the file to write to."""
        lock = os.open(f"{self._path}.lock", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            file = self._current()
            if os.fstat(file).st_size + coming > self._max_bytes:
                for n in range(self._backups - 1, 0, -1):
                    older = self._backup(n)
                    if older.exists():
                        older.replace(self._backup(n + 1))
                if self._backups:
                    self._path.replace(self._backup(1))
                else:
                    self._path.unlink()
            return self._current()
        finally:
            os.close(lock)

    def _backup(self, n: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{n}")


@hookimpl
def zkd_audit_sinks(config: Config) -> list[AuditSink]:
    own = settings(config, "audit.log")
    folder = config.get("dataLogDir") or config.get("dataDir") or "."
    form = own.get("format", "text").strip().lower()
    if form not in ("text", "json"):
        raise ValueError(f"plugin.audit.log.format={form}: neither text nor json")
    return [
        AuditLog(
            Path(own.get("file", str(Path(folder) / FILE_NAME))),
            "json" if form == "json" else "text",
            max_bytes=int(own.get("maxBytes", MAX_BYTES)),
            backups=int(own.get("backups", BACKUPS)),
            utc=flag(own, "utc", False),
        )
    ]
