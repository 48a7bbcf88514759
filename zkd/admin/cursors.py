"""Where a commit observer is in the log: one small file each, replaced as a whole.

`Cursor.zxid`: all up to it was handled. `history`: names the history that the zxid belongs to; a
restored server has another one, in which the same zxid is another transaction.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Cursor:
    zxid: int
    history: str = ""


class CursorFile:
    """The cursor of one observer. `save` is atomic and durable: write, sync, rename, sync."""

    def __init__(self, directory: Path, name: str) -> None:
        self.path = directory / f"{name}.cursor"

    def load(self) -> Cursor | None:
        """None if there is none. Raises ValueError for a file that is none, OSError."""
        try:
            text = self.path.read_text("utf-8")
        except FileNotFoundError:
            return None
        try:
            fields = json.loads(text)
            return Cursor(int(fields["zxid"], 16), str(fields["history"]))
        except (TypeError, KeyError, ValueError) as error:
            raise ValueError(f"{self.path}: not a cursor: {text[:80]!r}") from error

    def save(self, cursor: Cursor) -> None:
        """Raises OSError; the old cursor then still stands."""
        text = json.dumps({"zxid": f"{cursor.zxid:#x}", "history": cursor.history})
        fresh = self.path.with_suffix(".new")
        with fresh.open("w", encoding="utf-8") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self.path)
        folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
