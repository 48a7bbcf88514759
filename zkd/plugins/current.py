"""The tree of a server as it is now, as snapshot formats read it: the file at T, the log above T.

A running server's tree on disk lags behind what its clients were told; the log does not. What the
log changes above T is kept in memory, which the server's own flushing bounds. Read beside the
running server, without a lock: one read transaction on the tree, short ones on the log.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from zkd.errors import OperatorError
from zkd.plugins.api import SnapshotNode, SnapshotSource
from zkd.plugins.trees import TreeSource
from zkd.storage.errors import LogCorrupt
from zkd.storage.log import LOG_NAME, LogReader
from zkd.storage.reader import Node, TreeReader, open_tree
from zkd.tree import effects as fx
from zkd.tree.effects import Effect
from zkd.tree.settings import TreeSettings
from zkd.tree.state import TreeState

CACHE_BYTES: Final = 8 << 20
ATTEMPTS: Final = 3
"""Between opening the tree and reading the log the server may have purged what lies between."""
PROGRESS_NODES: Final = 1000

Progress = Callable[[int, int], None]
"""(nodes read, of about how many)"""


def _quiet(done: int, total: int) -> None:
    return None


class CurrentTree(SnapshotSource):
    """The tree after the last of `rows` (zxid, body), which are those above `reader`'s.

    Raises apsw errors for a damaged file. `close` closes the reader.
    """

    def __init__(
        self,
        reader: TreeReader,
        rows: Iterable[tuple[int, bytes]],
        settings: TreeSettings,
        progress: Progress = _quiet,
    ) -> None:
        self._reader = reader
        self._progress = progress
        self._changed: dict[str, Node | None] = {}
        state = TreeState(reader, cache_bytes=CACHE_BYTES, settings=settings)
        for _, body in rows:
            for effect in state.apply(body):
                self._install(effect)
        self.zxid = state.zxid
        self.digest = state.digest if reader.digest and settings.digest_enabled else None
        self.node_count = state.node_count
        self._sessions = dict(state.sessions)

    def _install(self, effect: Effect) -> None:
        kind = effect[0]
        if kind in (fx.SESSION, fx.CLOSED):
            return
        path = effect[1]
        if kind == fx.DELETED:
            self._changed[path] = None
            return
        stat: bytes = effect[2]
        if kind == fx.CREATED:
            self._changed[path] = (effect[3], stat, effect[4])
            return
        old = self._changed[path] if path in self._changed else self._reader.node(path)
        assert old is not None, f"{path} is changed, but it is not there"
        data, _, acl = old
        if kind in (fx.CHANGED, fx.QUOTA):
            data = effect[3]
        elif kind == fx.ACL:
            acl = effect[3]
        self._changed[path] = (data, stat, acl)

    def sessions(self) -> Mapping[int, int]:
        return self._sessions

    def nodes(self) -> Iterator[SnapshotNode]:
        for done, node in enumerate(self._nodes()):
            if done % PROGRESS_NODES == 0:
                self._progress(done, self.node_count)
            yield node
        self._progress(self.node_count, self.node_count)

    def _nodes(self) -> Iterator[SnapshotNode]:
        changed = self._changed
        seen: set[str] = set()
        for node in TreeSource(self._reader).nodes():
            if node.path not in changed:
                yield node
                continue
            seen.add(node.path)
            now = changed[node.path]
            if now is not None:
                yield SnapshotNode(node.path, *now)
        # A path is less than all paths below it, so parents come first here, too.
        for path in sorted(changed.keys() - seen):
            now = changed[path]
            if now is not None:
                yield SnapshotNode(path, *now)

    def close(self) -> None:
        """End the read transaction."""
        self._reader.close()


def open_current(
    data_dir: Path,
    log_dir: Path,
    settings: TreeSettings,
    *,
    with_log: bool = True,
    progress: Progress = _quiet,
) -> CurrentTree:
    """The tree of the server, running or not, that has these folders.

    `with_log`: what the log holds above the tree is committed (a server that is alone). Raises
    OperatorError (LogCorrupt is one), apsw errors.
    """
    log = LogReader(log_dir / LOG_NAME)
    try:
        for attempt in range(1, ATTEMPTS + 1):
            reader = open_tree(data_dir, log_dir, cache_bytes=CACHE_BYTES)
            try:
                rows = log.read(reader.zxid) if with_log else iter(())
                return CurrentTree(reader, rows, settings, progress)
            except LogCorrupt as corrupt:
                reader.close()
                if attempt == ATTEMPTS or log.meta().purged_to <= corrupt.good:
                    raise
            except BaseException:
                reader.close()
                raise
        raise AssertionError("unreachable")
    finally:
        log.close()


def data_missing(data_dir: Path, log_dir: Path) -> OperatorError | None:
    """What to say if no server has ever written to these folders; None if one has."""
    if (log_dir / LOG_NAME).exists():
        return None
    mend = "give the configuration of the server, or its dataDir"
    if (data_dir / "version-2").is_dir():
        mend = "this is the dataDir of an Apache ZooKeeper server: its data is in version-2"
    return OperatorError("there is no data of zkd", str(log_dir), mend)
