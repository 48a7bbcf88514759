"""What a front-end serves from: the view of the tree, watches, prepared replies, one zxid.

Everything here changes only by `apply`, one committed transaction at a time. An event is queued
before the change that it announces can be read.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from zkd.server import replies
from zkd.server.settings import tree_settings
from zkd.server.view import View
from zkd.storage.log import LOG_NAME, LogReader
from zkd.storage.tree import TreeReader, open_tree
from zkd.tree import acl as acls
from zkd.tree import effects as fx
from zkd.tree.errors import ClientRefusal
from zkd.tree.stat import client_stat
from zkd.tree.state import TreeState
from zkd.tree.watches import WatchManager

if TYPE_CHECKING:
    from zkd.config import Config
    from zkd.plugins.auth import AuthRegistry
    from zkd.server.connection import Connection
    from zkd.server.metrics import Summary
    from zkd.storage.errors import RowDamaged
    from zkd.tree.effects import Effect

READER_CACHE_BYTES: Final = 4 << 20
"""Page cache of the tree's reader; every flush empties it."""
HOT_SHARE: Final = 4
"""A fourth of the cache is for prepared replies."""
GET_DATA, EXISTS, CHILDREN, CHILDREN2 = (op.to_bytes(4, "big") for op in (4, 3, 8, 12))


class Served:
    """See the module's text. Clients may be served once `view` is there (after `catch_up`)."""

    def __init__(
        self,
        config: Config,
        registry: AuthRegistry,
        *,
        touched: Callable[[Connection], None],
        ended: Callable[[int], None],
        damaged: Callable[[RowDamaged], None],
    ) -> None:
        """`touched`: something was queued for this connection; `ended`: this session is over;
        `damaged`: something in the tree's file is."""
        self.config = config
        self.registry = registry
        self.settings = tree_settings(config)
        self.skip_acl = self.settings.skip_acl
        self.client_stat = partial(client_stat, settings=self.settings)
        self.watches: WatchManager[Connection] = WatchManager(
            connection_limit=config.watch_limit_connection, path_limit=config.watch_limit_path
        )
        self.cache_bytes = config.cache_bytes // (config.frontends + 1)
        self.started = False
        self.view: View = None  # type: ignore[assignment]
        """None before the first catch_up, when no client is let in yet."""
        self.hot: dict[bytes, bytes] = {}
        """Request from the opcode on -> body of its reply, for requests that anyone may make."""
        self._hot_bytes = 0
        self._hot_limit = self.cache_bytes // HOT_SHARE
        self._not_kept: set[bytes] = set()
        """Opcodes whose replies are not kept prepared."""
        if config.max_response_cache_size <= 0:
            self._not_kept |= {GET_DATA, EXISTS}
        self.keeps_lists = config.max_get_children_response_cache_size > 0
        if not self.keeps_lists:
            self._not_kept |= {CHILDREN, CHILDREN2}
        self.applied = 0
        self.zx = bytes(12)
        """The middle of a reply header: applied, and no error."""
        self.watches_refused = 0
        self.events = 0
        self.event_bytes = 0
        self.fired: dict[int, Summary] = {}
        """Type of event -> watches that it fired each time."""
        self._touched = touched
        self._ended = ended
        self._damaged = damaged

    @property
    def pinned_bytes(self) -> int:
        """Changes that the tree on disk does not hold yet."""
        return self.view.pinned_bytes if self.started else 0

    def open_tree(self) -> TreeReader:
        """A reader of the present tree on disk."""
        config = self.config
        return open_tree(
            config.data_dir,
            config.data_log_dir,
            cache_bytes=READER_CACHE_BYTES,
            told=self._damaged,
        )

    # -- applying ------------------------------------------------------------------------------

    def set_applied(self, zxid: int) -> None:
        """Everything up to zxid can be read."""
        self.applied = zxid
        self.zx = zxid.to_bytes(8, "big") + b"\0\0\0\0"

    def apply(self, zxid: int, effects: list[Effect]) -> None:
        """Install one committed transaction and queue the events that it fires."""
        install = self.view.install
        if self.watches.count:
            for effect in effects:
                self._fire(zxid, effect)
                install(zxid, effect)
        else:
            for effect in effects:
                install(zxid, effect)
        self.applied = zxid
        self.zx = zxid.to_bytes(8, "big") + b"\0\0\0\0"

    def _fire(self, zxid: int, effect: Effect) -> None:
        """Queue the events of one effect, which is not installed yet."""
        for kind, path, node_path, watchers in self.watches.triggered(effect):
            packet = replies.event(kind, path, zxid)
            self.fired[kind].add(len(watchers))
            if effect[0] == fx.CREATED and node_path == effect[1]:
                acl = effect[4]
            else:
                try:
                    node = self.view.get(node_path)
                except ClientRefusal:  # damaged: who may hear of it cannot be known
                    for conn in watchers:
                        conn.close("what is stored of a watched node is damaged")
                    continue
                acl = node.acl if node is not None else None
            for conn in watchers:
                if acl is None or self.may(conn, acl, 1):
                    conn.out.append(packet)
                    conn.sent += 1
                    self.events += 1
                    self.event_bytes += len(packet)
                    self._touched(conn)

    def may(self, conn: Connection, acl: bytes | None, perm: int) -> bool:
        """Has the connection one of the permissions in perm by this list?"""
        return self.skip_acl or acls.check(acl, perm, conn.identities, self.registry)

    def add_watch(self, conn: Connection, path: str, kind: int) -> None:
        """Set a watch; raises ClientRefusal beyond the limits."""
        try:
            self.watches.add(conn, path, kind)
        except ClientRefusal:
            self.watches_refused += 1
            raise
        conn.watching = True

    def catch_up(self, zxid: int, missed: Callable[[], None]) -> None:
        """Read what is committed up to zxid and has not been applied, from the tree and the log.

        Events between what was applied and what the tree holds already cannot be told any more:
        `missed` must end the connections that watch (their clients come back, set their watches
        again and are told then).
        """
        if self.started and self.applied >= zxid and not self._replaced():
            return
        applied = self.applied
        reader = self.open_tree()
        if not self.started:
            self.started = True
            self.view = View(reader, self.open_tree, self.cache_bytes // 2, self.forget_hot)
            applied = max(zxid, reader.zxid)
        else:
            if reader.zxid > applied and self.watches.count:
                missed()
            self.view.restart(reader)
        self.hot.clear()
        state = TreeState(reader, cache_bytes=1 << 20, settings=self.settings)
        log = LogReader(self.config.data_log_dir / LOG_NAME)
        try:
            for at, body in log.read(reader.zxid, zxid):
                effects = state.apply(body)
                if at > applied:
                    self.apply(at, effects)
                else:
                    for effect in effects:
                        self.view.install(at, effect)
                for effect in effects:
                    if effect[0] == fx.CLOSED:
                        self._ended(effect[1])
        finally:
            log.close()
        self.set_applied(max(zxid, reader.zxid, self.applied))
        self.view.applied = self.applied

    def _replaced(self) -> bool:
        """Has another tree taken the place of the one that is read?"""
        log = LogReader(self.config.data_log_dir / LOG_NAME)
        try:
            return log.meta().generation != self.view.reader.generation
        finally:
            log.close()

    # -- prepared replies ----------------------------------------------------------------------

    def remember_hot(self, frame: bytes, body: bytes) -> None:
        """Answer the same request with body until the node changes."""
        if frame[:4] in self._not_kept:
            return
        self._hot_bytes += len(frame) + len(body) + 200
        if self._hot_bytes > self._hot_limit:
            self.hot.clear()
            self._hot_bytes = 0
        self.hot[frame] = body

    def forget_hot(self, path: str) -> None:
        """The node has changed."""
        raw = path.encode()
        tail = len(raw).to_bytes(4, "big") + raw + b"\0"
        pop = self.hot.pop
        pop(GET_DATA + tail, None)
        pop(EXISTS + tail, None)
        pop(CHILDREN2 + tail, None)
        pop(CHILDREN + tail, None)
        if path == "/":  # which "" is another name of
            for op in (GET_DATA, EXISTS, CHILDREN, CHILDREN2):
                pop(op + b"\0\0\0\0\0", None)
