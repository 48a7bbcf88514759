"""A ZooKeeper client for the shell: kazoo's connection, all opcodes, watches as one stream.

kazoo keeps the session alive and reconnects; what it does with requests and watches is replaced. A
watch here has no callback of its own: every event goes to one listener, in the order in which it
came, as in zkCli. The client remembers which watches are set, sets them again when the session
moves to another connection (setWatches2), and knows which it may remove.

Paths that go in and out are without the chroot of the connect string.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from kazoo.client import KazooClient
from kazoo.exceptions import ConnectionClosedError, KazooException
from kazoo.handlers.threading import KazooTimeoutError
from kazoo.protocol.connection import ConnectionHandler
from kazoo.protocol.serialization import ReplyHeader, Watch
from kazoo.protocol.states import Callback, KazooState, KeeperState

from zkd.cli import zkrequests as rq

NO_NODE = -101
NO_WATCHER = -121
CONNECTION_LOSS = -4
OPEN_ACL_PERMS = 31

DATA, EXIST, CHILD, PERSISTENT, RECURSIVE = range(5)
"""Kinds of watches, in the order of setWatches2."""

_EVENT_NAMES = {
    -1: "None",
    1: "NodeCreated",
    2: "NodeDeleted",
    3: "NodeDataChanged",
    4: "NodeChildrenChanged",
    5: "DataWatchRemoved",
    6: "ChildWatchRemoved",
    7: "PersistentWatchRemoved",
}
_FIRED_BY = {1: (DATA, EXIST), 2: (DATA, EXIST, CHILD), 3: (DATA, EXIST), 4: (CHILD,)}
_REMOVED_BY = {  # the watches that each type of removeWatches takes away
    1: (CHILD,),
    2: (DATA, EXIST),
    3: (DATA, EXIST, CHILD, PERSISTENT, RECURSIVE),
    4: (PERSISTENT,),
    5: (RECURSIVE,),
}
_REMOVED_EVENT = {DATA: 5, EXIST: 5, CHILD: 6, PERSISTENT: 7, RECURSIVE: 7}
_STATES = {
    KeeperState.CONNECTED: "CONNECTED",
    KeeperState.CONNECTED_RO: "CONNECTEDREADONLY",
    KeeperState.CONNECTING: "CONNECTING",
    KeeperState.AUTH_FAILED: "AUTH_FAILED",
    KeeperState.EXPIRED_SESSION: "CONNECTING",
    KeeperState.CLOSED: "CONNECTING",
}
LISTING_BATCH = 200
"""Nodes whose children are asked for in one multiRead."""
MULTIS_IN_FLIGHT = 10


class ZkError(Exception):
    """The server's refusal of one request: its error code, and the path it was about."""

    def __init__(self, code: int, path: str | None) -> None:
        super().__init__(code, path)
        self.code = code
        self.path = path


class Event(NamedTuple):
    """A watch event or a change of the connection; printed as Apache's WatchedEvent."""

    state: str
    type: str
    path: str | None
    zxid: int

    def __str__(self) -> str:
        path = "null" if self.path is None else self.path
        return f"WatchedEvent state:{self.state} type:{self.type} path:{path} zxid: {self.zxid}"


class _Connection(ConnectionHandler):  # type: ignore[misc]
    """kazoo's connection, with the events of all watches handed to the client as they come."""

    on_event: Callable[[int, str, int], None]

    def _read_watch_event(self, buffer: bytes, offset: int) -> None:
        header, _ = ReplyHeader.deserialize(buffer, 0)
        watch, _ = Watch.deserialize(buffer, offset)
        event = (watch.type, watch.path, header.zxid)
        self.client.handler.dispatch_callback(Callback("watch", self.on_event, event))


class Client:
    """One session. `listener` is called from another thread, never two at a time."""

    def __init__(
        self,
        hosts: str,
        *,
        timeout_s: float = 30.0,
        read_only: bool = False,
        auth: Sequence[tuple[str, str]] = (),
        listener: Callable[[Event], None] = lambda event: None,
    ) -> None:
        logger = logging.getLogger("zkd.cli.kazoo")
        logger.addHandler(logging.NullHandler())
        logger.propagate = False
        self.hosts = hosts
        self.timeout_s = timeout_s
        self._listener = listener
        self._kazoo = KazooClient(
            hosts,
            timeout=timeout_s,
            read_only=read_only,
            auth_data=set(auth),
            logger=logger,
            connection_retry={"max_tries": -1, "delay": 0.1, "max_delay": 1.0},
        )
        connection = _Connection(self._kazoo, self._kazoo._conn_retry.copy(), logger=logger)
        connection.on_event = self._on_watch
        self._kazoo._connection = connection
        self._kazoo.add_listener(self._on_state)
        self._chroot: str = self._kazoo.chroot
        self._watches: tuple[set[str], ...] = (set(), set(), set(), set(), set())
        self._lock = threading.Lock()
        self._suspended = False
        self._closing = False

    # -- the connection ------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to connect; events tell how it goes."""
        self._kazoo.start_async()

    def wait_connected(self, timeout_s: float) -> bool:
        """Whether there is a connection, waiting for it at most so long."""
        return bool(self._kazoo._live.wait(timeout_s))

    def close(self) -> None:
        """End the session; harmless if it has ended."""
        self._closing = True
        self._kazoo.stop()
        self._kazoo.close()

    @property
    def state(self) -> str:
        """As Apache's `ZooKeeper.States`; only `close` and a failed login end it for good."""
        return "CLOSED" if self._closing else _STATES[self._kazoo.client_state]

    @property
    def alive(self) -> bool:
        return self.state not in ("CLOSED", "AUTH_FAILED")

    @property
    def session_id(self) -> int:
        identity = self._kazoo.client_id
        return identity[0] if identity else 0

    def _on_state(self, state: str) -> None:
        if state == KazooState.CONNECTED:
            read_only = self._kazoo.client_state == KeeperState.CONNECTED_RO
            self._tell("ConnectedReadOnly" if read_only else "SyncConnected", -1, None, -1)
            if self._suspended:
                self._suspended = False
                self._set_watches_again()
        elif state == KazooState.SUSPENDED:
            self._suspended = True
            self._tell("Disconnected", -1, None, -1)
        else:
            self._suspended = False
            with self._lock:
                for paths in self._watches:
                    paths.clear()
            if self._kazoo.client_state == KeeperState.AUTH_FAILED:
                self._tell("AuthFailed", -1, None, -1)
            else:
                self._tell("Closed" if self._closing else "Expired", -1, None, -1)

    # -- requests ------------------------------------------------------------------------------

    def send(self, request: rq.Request) -> Any:
        """Queue a request; kazoo's asynchronous result, for `receive`."""
        result = self._kazoo.handler.async_result()
        self._kazoo._call(request, result)
        return result

    def receive(self, result: Any, path: str | None) -> Any:
        """The answer to a request that was sent. Raises ZkError."""
        try:
            return result.get(timeout=self.timeout_s)
        except ConnectionClosedError:
            raise ZkError(CONNECTION_LOSS, path) from None
        except KazooTimeoutError:
            raise ZkError(CONNECTION_LOSS, path) from None
        except KazooException as error:
            raise ZkError(getattr(error, "code", CONNECTION_LOSS), path) from None

    def call(self, request: rq.Request, path: str | None) -> Any:
        """Send a request and wait for its answer. Raises ZkError with `path`."""
        return self.receive(self.send(request), path)

    def full(self, path: str) -> str:
        """The server's path for the user's."""
        return (self._chroot + ("" if path == "/" else path)) if self._chroot else path

    def user(self, path: str) -> str:
        """The user's path for the server's."""
        if self._chroot and path.startswith(self._chroot):
            return path[len(self._chroot) :] or "/"
        return path

    def create(
        self, path: str, data: bytes | None, acl: Sequence[Any], mode: int, ttl_ms: int = 0
    ) -> str:
        request = rq.create(self.full(path), data, acl, mode, ttl_ms)
        return self.user(self.call(request, path))

    def delete(self, path: str, version: int = -1) -> None:
        self.call(rq.delete(self.full(path), version), path)

    def exists(self, path: str, watch: bool = False) -> Any:
        """The stat, or None."""
        stat = self.call(rq.exists(self.full(path), watch), path)
        if watch:
            self._remember(EXIST if stat is None else DATA, path)
        return stat

    def get(self, path: str, watch: bool = False) -> tuple[bytes | None, Any]:
        data, stat = self.call(rq.get_data(self.full(path), watch), path)
        if watch:
            self._remember(DATA, path)
        return data, stat

    def set(self, path: str, data: bytes | None, version: int = -1) -> Any:
        return self.call(rq.set_data(self.full(path), data, version), path)

    def get_acl(self, path: str) -> tuple[list[Any], Any]:
        acl, stat = self.call(rq.get_acl(self.full(path)), path)
        return acl, stat

    def set_acl(self, path: str, acl: Sequence[Any], version: int = -1) -> Any:
        return self.call(rq.set_acl(self.full(path), acl, version), path)

    def children(self, path: str, watch: bool = False) -> tuple[list[str], Any]:
        names, stat = self.call(rq.get_children(self.full(path), watch), path)
        if watch:
            self._remember(CHILD, path)
        return names, stat

    def sync(self, path: str) -> None:
        self.call(rq.sync(self.full(path)), path)

    def ephemerals(self, prefix: str = "/") -> list[str]:
        found = self.call(rq.get_ephemerals(self.full(prefix)), prefix)
        return [self.user(path) for path in found]

    def descendants_count(self, path: str) -> int:
        return int(self.call(rq.get_all_children_number(self.full(path)), path))

    def who_am_i(self) -> list[tuple[str, str]]:
        return list(self.call(rq.who_am_i(), None))

    def add_auth(self, scheme: str, credential: str) -> None:
        """Kept for reconnections too. Raises ZkError; the session has ended then."""
        self.receive(self._kazoo.add_auth_async(scheme, credential), None)

    def reconfig(
        self, joining: str | None, leaving: str | None, members: str | None, version: int
    ) -> tuple[bytes | None, Any]:
        data, stat = self.call(rq.reconfig(joining, leaving, members, version), None)
        return data, stat

    # -- whole subtrees ------------------------------------------------------------------------

    def children_of_many(self, paths: Sequence[str]) -> list[list[str] | int]:
        """The names of the children of each path, or an error code; few round trips."""
        batches = [paths[i : i + LISTING_BATCH] for i in range(0, len(paths), LISTING_BATCH)]
        found: list[list[str] | int] = []
        for batch in batches:
            request = rq.children_of_many([self.full(path) for path in batch])
            found += self.call(request, batch[0])
        return found

    def delete_many(self, paths: Sequence[str], batch: int) -> bool:
        """Delete in this order, `batch` nodes a transaction; False if a transaction failed."""
        waiting: deque[Any] = deque()
        done = True
        for i in range(0, len(paths), batch):
            if len(waiting) == MULTIS_IN_FLIGHT:
                done = self._all_done(waiting.popleft()) and done
            if not done:
                break
            operations = [rq.delete(self.full(path), -1) for path in paths[i : i + batch]]
            waiting.append(self.send(rq.multi(operations)))
        while waiting:
            done = self._all_done(waiting.popleft()) and done
        return done

    def _all_done(self, result: Any) -> bool:
        return not any(self.receive(result, None))

    # -- watches -------------------------------------------------------------------------------

    def add_watch(self, path: str, recursive: bool) -> None:
        self.call(rq.add_watch(self.full(path), 1 if recursive else 0), path)
        self._remember(RECURSIVE if recursive else PERSISTENT, path)

    def remove_watches(self, path: str, kind: int, local: bool) -> None:
        """`kind` as in `zkrequests.remove_watches`; `local`: forget them also without a server.

        Raises ZkError(NO_WATCHER) if none is set.
        """
        with self._lock:
            held = [k for k in _REMOVED_BY[kind] if path in self._watches[k]]
        if not held:
            raise ZkError(NO_WATCHER, path)
        try:
            self.call(rq.remove_watches(self.full(path), kind), path)
        except ZkError as error:
            if not (local and error.code == CONNECTION_LOSS):
                raise
        with self._lock:
            for k in held:
                self._watches[k].discard(path)
        for event in sorted({_REMOVED_EVENT[k] for k in held}):
            self._tell("SyncConnected", event, path, -1)

    def _remember(self, kind: int, path: str) -> None:
        with self._lock:
            self._watches[kind].add(path)

    def _on_watch(self, kind: int, path: str, zxid: int) -> None:
        own = self.user(path)
        with self._lock:
            for k in _FIRED_BY.get(kind, ()):
                self._watches[k].discard(own)
        self._tell("SyncConnected", kind, own, zxid)

    def _tell(self, state: str, kind: int, path: str | None, zxid: int) -> None:
        self._listener(Event(state, _EVENT_NAMES.get(kind, str(kind)), path, zxid))

    def _set_watches_again(self) -> None:
        with self._lock:
            paths = [[self.full(path) for path in sorted(held)] for held in self._watches]
        if any(paths):
            self.send(rq.set_watches2(self._kazoo.last_zxid, paths))


def walk(client: Client, path: str, watch: bool = False) -> Iterator[str]:
    """All paths of a subtree in the order of `ls -R`: a node's children, then each one's subtree.

    Nodes that vanish meanwhile are left out. With `watch`, a data watch is set on the first node
    and a child watch on all, at a round trip a node. Raises ZkError if the first is not there.
    """
    client.get(path, watch)
    yield path
    pending: list[tuple[str, list[str] | None]] = [(path, None)]
    while pending:
        node, names = pending.pop()
        if names is None:
            try:
                names = client.children(node, watch)[0]
            except ZkError as error:
                if error.code != NO_NODE:
                    raise
                continue
        base = "" if node == "/" else node
        children = [f"{base}/{name}" for name in sorted(names)]
        yield from children
        if watch:
            pending += [(child, None) for child in reversed(children)]
        elif children:
            found = client.children_of_many(children)
            pending += [
                (child, listing)
                for child, result in zip(reversed(children), reversed(found), strict=True)
                if (listing := _listing(child, result))
            ]


def _listing(path: str, result: list[str] | int) -> list[str] | None:
    """The names, or None for a node that has vanished."""
    if isinstance(result, int):
        if result != NO_NODE:
            raise ZkError(result, path)
        return None
    return result
