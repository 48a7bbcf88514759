"""An SQLite VFS that fails where a test wants it: the n-th write or sync of a file."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import apsw


@dataclass
class Faults:
    """What happens to files whose name ends with `suffix`, counted from `arm`.

    `op` is "write" or "sync"; `action`: "full" (SQLITE_FULL, nothing written), "eio", "short" (half
    of it written, then eio). It lasts for `times` hits from the `first` on, 0 for ever.
    """

    op: str = ""
    suffix: str = ""
    action: str = ""
    first: int = 1
    times: int = 1
    hits: int = 0
    seen: list[tuple[str, str]] = field(default_factory=list)

    def arm(self, op: str, suffix: str, action: str, first: int = 1, times: int = 1) -> None:
        self.op, self.suffix, self.action = op, suffix, action
        self.first, self.times, self.hits = first, times, 0

    def disarm(self) -> None:
        self.op = ""

    def strikes(self, op: str, name: str) -> bool:
        self.seen.append((op, Path(name).name))
        if op != self.op or not name.endswith(self.suffix):
            return False
        self.hits += 1
        late = self.times and self.hits >= self.first + self.times
        return self.hits >= self.first and not late


class _File(apsw.VFSFile):
    def __init__(self, faults: Faults, name: apsw.URIFilename | str | None, flags: list[int]):
        self._faults = faults
        self._name = name.filename() if isinstance(name, apsw.URIFilename) else str(name)
        super().__init__("", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:
        if self._faults.strikes("write", self._name):
            if self._faults.action == "full":
                raise apsw.FullError("a full disk, by the test")
            if self._faults.action == "short":
                super().xWrite(data[: len(data) // 2], offset)
            raise apsw.IOError("a failed write, by the test")
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:
        if self._faults.strikes("sync", self._name):
            raise apsw.IOError("a failed fsync, by the test")
        super().xSync(flags)


class _Vfs(apsw.VFS):
    def __init__(self, name: str, faults: Faults) -> None:
        self._faults = faults
        super().__init__(name, "")

    def xOpen(self, name: apsw.URIFilename | str | None, flags: list[int]) -> _File:
        return _File(self._faults, name, flags)


@contextlib.contextmanager
def faulty(name: str = "faulty") -> Iterator[Faults]:
    """A registered VFS of that name, and the faults it has."""
    faults = Faults()
    vfs = _Vfs(name, faults)
    try:
        yield faults
    finally:
        vfs.unregister()
