"""log.db as commit observers read it.

What `zkd.storage.log` says about rows that have been purged becomes the runner's LogPurged; any
other error goes through, and the runner tries again later. The file is opened at the first use, and
anew after an error.
"""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import apsw

from zkd.admin.observers import LogPurged
from zkd.errors import OperatorError
from zkd.server import logs
from zkd.storage.errors import LogCorrupt
from zkd.storage.log import LOG_NAME, LogReader


class ObservedLog:
    """Reads the log in `folder`. For one thread at a time."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / LOG_NAME
        self._reader: LogReader | None = None

    def history(self) -> str | None:
        """What names the history that zxids belong to: the log's id, and how often its end was
        given up; None if it cannot be read."""
        try:
            meta = self._open().meta()
            return meta.id.hex() + (f"-{meta.losses}" if meta.losses else "")
        except (apsw.Error, OperatorError) as error:
            logs.get("admin").warning("log.unreadable", file=str(self._path), error=str(error))
            self._close()
            return None

    def read(self, after: int, limit: int) -> list[tuple[int, bytes]]:
        """At most `limit` rows (zxid, body) above `after`. Raises LogPurged, apsw.Error,
        OperatorError."""
        rows: list[tuple[int, bytes]] = []
        try:
            rows.extend(islice(self._open().read(after), limit))
        except LogCorrupt as error:
            purged_to = self._open().meta().purged_to
            if purged_to <= error.good:
                raise
            if not rows:
                raise LogPurged(purged_to) from None
        except BaseException:
            self._close()
            raise
        return rows

    def _open(self) -> LogReader:
        if self._reader is None:
            self._reader = LogReader(self._path)
        return self._reader

    def _close(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None
