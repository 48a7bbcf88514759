"""The storage process: the only writer of log.db and tree-N.db, driven by the bus.

It drains its inbox, appends every transaction of the batch with one commit (one fsync), says the
durable zxid to the peer and to all front-ends, and only then does the slower work (flushing the
tree, checkpoints, purging) in slices while nothing waits. What it has lost the right to append
(a failed append, an older incarnation) is refused until the peer opens the next incarnation.

Alone, what is durable is committed. In an ensemble the peer says what is committed, and orders the
rest as well (epochs, truncation, a snapshot's tree for the present one): each is answered when it
and everything before it is durable.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, Final

import zmq

from zkd import failpoints
from zkd.bus.messages import (
    COMMITTED,
    DURABLE,
    EPOCHS,
    FAILED,
    IMPOSSIBLE,
    INSTALL,
    INSTALLED,
    JOIN,
    OPEN,
    OPENED,
    QUERY,
    REPLY,
    SAVED,
    TRUNCATE,
    TRUNCATED,
    TXNS,
    decode,
    encode,
)
from zkd.bus.sockets import Direct, Outbox
from zkd.errors import OperatorError
from zkd.server import logs
from zkd.server.early import EarlyWarnings
from zkd.server.settings import storage_settings
from zkd.server.storage_metrics import StorageMetrics, size_of
from zkd.storage.engine import Engine, LogFailed, LogFull
from zkd.storage.replay import replayer

if TYPE_CHECKING:
    from zkd.server.process import Child

LOOK_S: Final = 0.02
"""So often the control channel is looked at, and idle work is done."""
PEER_EVERY_S: Final = 0.01
WORK_EVERY_S: Final = 0.001
"""Background work gets a slice so often, however much waits to be appended."""
SLICE_S: Final = 0.0003
"""How long a slice may take: a write that comes meanwhile waits so long."""
SLICE_FACTOR_MAX: Final = 16
"""By so much a slice may grow with what is not flushed yet."""
PAUSE_S: Final = 0.001
"""Between two slices storage sleeps if nothing comes: the scheduler lets a process that never does
keep its core for milliseconds, and the peer or a front-end may be waiting for that core. (epoll
counts whole milliseconds.)"""
ADMIN_EVERY_S: Final = 0.1
"""How often the admin process is told what is durable, while that changes."""
FULL_RETRY_S: Final = 1.0
"""How often a full disk is tried again."""


class Storage:
    """The engine, its inbox, and those who want to hear of durable zxids."""

    def __init__(self, child: Child) -> None:
        self.child = child
        self.log = logs.get(child.name)
        config = child.config
        settings = storage_settings(config)
        self.began = time.monotonic()
        self.engine = Engine(
            config.data_dir,
            config.data_log_dir,
            settings,
            effects_of=replayer(settings),
            progress=self._progress,
        )
        for note in self.engine.notes:
            self.log.warning("storage.note", note=note)
        self.context: zmq.Context[Any] = zmq.Context()
        self.inbox = child.inbox(self.context)
        self.listeners: dict[str, Direct] = {}
        """Front-ends that have joined, by name; the peer and the admin process are apart."""
        self.peer: Direct | None = None
        self.admin: Outbox | None = None
        self.peer_waits = False
        """There is something durable that the peer has not been told of."""
        self.peer_at = 0.0
        self.admin_told = -1
        self.admin_at = 0.0
        self.seq = 0
        self.announced = (0, 0)
        self.accepting = False
        self.alone = not config.distributed
        self.committed = 0
        """What the peer has said last; taken in behind the append that may be waiting."""
        self.delay_s = self.poll_s = 0.0
        self.batch_max = 1
        self._configure()
        self.metrics = StorageMetrics(self)
        self.early = EarlyWarnings(self.log, {config.data_dir, config.data_log_dir})
        child.on_lives = self._lives
        child.on_reload = self._configure

    def _configure(self) -> None:
        """Take from the configuration what may change while the server runs."""
        config = self.child.config
        self.delay_s = config.flush_delay / 1000
        poll_ms = config.max_write_queue_poll_time
        self.poll_s = (poll_ms if poll_ms >= 0 else config.flush_delay / 3) / 1000
        self.batch_max = config.max_batch_size
        self.engine.reconfigure(storage_settings(config))

    def _progress(self, done: int, total: int) -> None:
        """The log above the tree is being replayed: tell the operator how far it is."""
        self.child.alive()
        took_s = time.monotonic() - self.began
        left_s = took_s / done * (total - done) if done else 0.0
        told = f"Recovering: {done * 100 // total} %, {done} of {total} transactions replayed"
        self.child.say(status=f"{told}, {left_s:.0f} s left")

    # -- the loop ------------------------------------------------------------------------------

    def run(self) -> None:
        """Serve until told to stop, or until the log fails for good."""
        child = self.child
        recv = self.inbox.recv
        look_at = work_at = 0.0
        more = True
        child.ready()
        while not child.stopping:
            frame = recv(PAUSE_S if more else LOOK_S)
            if frame:
                self._drain(frame)
            now = time.monotonic()
            if not frame or now >= work_at:
                work_at = now + WORK_EVERY_S
                more = self.engine.work(self._slice_s())
                if self.engine.turn != self.announced[1]:
                    self._announce()
                    self.metrics.turned()
            if self.peer_waits and now >= self.peer_at:
                self._tell_peer(now)
            if now >= look_at:
                look_at = now + LOOK_S
                child.read_control()
                child.alive(now)
                self.early.look(now, self.engine.tree.counters.highest())
                if self.admin is not None and self.admin_told != self.engine.committed:
                    self._tell_admin(self.admin)
        self._drain(b"")
        self.engine.close()

    def _slice_s(self) -> float:
        """The more there is to flush, the longer a slice."""
        pinned = self.engine.tree.pinned_bytes / self.engine.settings.flush_bytes
        return SLICE_S * min(max(1.0, 4 * pinned), SLICE_FACTOR_MAX)

    def _drain(self, frame: bytes | memoryview) -> None:
        """Take this and everything else that has arrived; append the batch with one commit."""
        recv = self.inbox.recv
        batch: list[tuple[Any, ...]] = []
        incarnation = self.engine.incarnation
        deadline = 0.0
        while True:
            if frame:
                message = decode(frame)
                if message[0] == COMMITTED:  # must not part the batch in two
                    if message[1] == incarnation:
                        self.committed = message[2]
                elif message[0] != TXNS:
                    if batch:
                        self._append(batch)
                        batch = []
                    self._other(message)
                    incarnation = self.engine.incarnation
                elif message[1] == incarnation:
                    batch += message[3]
                    while len(batch) >= self.batch_max:
                        self._append(batch[: self.batch_max])
                        batch = batch[self.batch_max :]
                        deadline = 0.0
            frame = recv()
            if not frame:
                if batch and self.delay_s:
                    deadline = deadline or time.monotonic() + self.delay_s
                    left_s = min(deadline - time.monotonic(), self.poll_s)
                    if left_s > 0 and (frame := recv(left_s)):
                        continue
                break
        if batch:
            self._append(batch)
        if self.committed:
            self._commit()

    def _commit(self) -> None:
        """Take in what the peer has said to be committed."""
        zxid, self.committed = self.committed, 0
        failpoints.hit("member.before-commit")
        self.engine.commit(zxid)

    def _append(self, batch: list[tuple[Any, ...]]) -> None:
        """One commit; then the word."""
        if not self.accepting:
            return
        began = time.perf_counter()
        try:
            self.engine.append(batch)
        except LogFull as e:
            self._failed(str(e))
            return
        failpoints.hit("storage.after-fsync")
        took_s = time.perf_counter() - began
        self._announce()
        self.metrics.appended(batch, took_s)
        if took_s * 1000 > self.child.config.fsync_warning_threshold:
            self.log.warning("log.slow_commit", ms=round(took_s * 1000), rows=len(batch))

    def _announce(self) -> None:
        """Say what is durable and what the tree holds to everyone."""
        engine = self.engine
        self.seq += 1
        turned = self.announced[1] != engine.turn
        self.announced = (engine.durable, engine.turn)
        self.peer_waits = True
        if not self.alone:  # others wait for the peer's word
            self._tell_peer(0.0)
        if self.alone or turned:
            frame = self._durable(engine.durable)
            for outbox in self.listeners.values():
                outbox.send_frame(frame)
                failpoints.hit("storage.between-announcements")
        if turned and self.alone:
            self._tell_peer(time.monotonic())

    def _tell_peer(self, now: float) -> None:
        """Alone, the peer only forgets what is durable: it is not woken for each batch."""
        self.peer_waits = False
        self.peer_at = now + PEER_EVERY_S
        if self.peer is not None:
            failpoints.hit("storage.before-peer-hears")
            self.peer.send_frame(self._durable(self.engine.durable))

    def _durable(self, zxid: int) -> bytes:
        """`zxid`: the admin process is told what is committed instead."""
        engine = self.engine
        return encode(
            (
                DURABLE,
                engine.incarnation,
                self.seq,
                zxid,
                engine.tree_zxid,
                engine.turn,
            )
        )

    def _tell_admin(self, admin: Outbox) -> None:
        """Observers are in no hurry: their process is not woken for each batch."""
        now = time.monotonic()
        if now >= self.admin_at:
            self.admin_at = now + ADMIN_EVERY_S
            self.admin_told = self.engine.committed
            admin.send_frame(self._durable(self.admin_told))

    def _failed(self, reason: str) -> None:
        self.accepting = False
        self.log.error("log.full", reason=reason, durable=hex(self.engine.durable))
        if self.peer is not None:
            self.peer.send(
                (FAILED, self.peer.life, self.engine.incarnation, self.engine.durable, reason)
            )

    # -- other messages ------------------------------------------------------------------------

    def _other(self, message: tuple[Any, ...]) -> None:
        kind = message[0]
        if kind == OPEN:
            self._open(message[1])
        elif kind == JOIN:
            self._join(message[1], message[2])
        elif kind == QUERY:
            _, ident, what, (name, life) = message
            out = Outbox(self.context, self.child.runtime_dir, name, life)
            out.send((REPLY, ident, self.child.name, self.statistics(what)))
            out.close(linger_ms=500)
        elif message[1] == self.engine.incarnation and self.accepting:
            if self.committed:
                self._commit()
            try:
                self._ordered(message)
            except LogFull as e:
                self._failed(str(e))

    def _ordered(self, message: tuple[Any, ...]) -> None:
        """What only a member of an ensemble is told."""
        engine, peer = self.engine, self.peer
        kind, incarnation = message[:2]
        assert peer is not None
        if kind == EPOCHS:
            engine.set_epochs(*message[2:])
            failpoints.hit("member.before-saved")
            peer.send((SAVED, *message[1:]))
        elif kind == TRUNCATE:
            done = engine.truncate(message[2])
            failpoints.hit("member.before-truncated")
            peer.send((TRUNCATED, incarnation, message[2] if done else IMPOSSIBLE))
        elif kind == INSTALL:
            _, _, zxid, rows, accepted, current = message
            engine.switch_generation(zxid, (accepted, current), rows)
            failpoints.hit("member.before-installed")
            peer.send((INSTALLED, incarnation, zxid, engine.generation))
            self.log.info("snapshot.installed", zxid=hex(zxid), rows=len(rows))
            self._announce()

    def _open(self, peer_life: int) -> None:
        """A peer begins (again): what came before belongs to an older incarnation."""
        if self.peer is None or self.peer.life != peer_life:
            if self.peer is not None:
                self.peer.close()
            self.peer = Direct(self.inbox, self.child.runtime_dir, "peer", peer_life)
        engine = self.engine
        try:
            engine.open_incarnation()
        except LogFull as e:
            self.peer.send((FAILED, peer_life, engine.incarnation, engine.durable, str(e)))
            return
        self.accepting = True
        self.committed = self.seq = 0
        self.log.info(
            "incarnation.opened",
            incarnation=engine.incarnation,
            durable=hex(engine.durable),
            tree=hex(engine.tree_zxid),
        )
        self.peer.send(
            (
                OPENED,
                peer_life,
                engine.incarnation,
                engine.durable,
                engine.tree_zxid,
                engine.generation,
                *engine.epochs,
                engine.must_synchronise,
                engine.committed,
            )
        )
        self._announce()

    def _join(self, name: str, life: int) -> None:
        if name == "admin":
            if self.admin is not None:
                if self.admin.life >= life:
                    return
                self.admin.close()
            self.admin = Outbox(self.context, self.child.runtime_dir, name, life)
            self.admin_told = -1
            return
        old = self.listeners.get(name)
        if old is not None and old.life == life:
            return
        if old is not None:
            old.close()
        self.listeners[name] = Direct(self.inbox, self.child.runtime_dir, name, life)
        self._announce()

    def _lives(self, lives: dict[str, int]) -> None:
        """A listener whose life has ended is forgotten."""
        if self.admin is not None and lives.get("admin", 0) > self.admin.life:
            self.admin.close()
            self.admin = None
        for name, outbox in list(self.listeners.items()):
            if lives.get(name, 0) > outbox.life:
                outbox.close()
                del self.listeners[name]

    def statistics(self, what: dict[str, Any]) -> dict[str, Any]:
        """What four-letter words and metrics are made of (see gathered.py)."""
        wanted = what.get("parts", ())
        if what.get("reset") == "server":
            self.metrics.reset()
        answer = {"name": self.child.name, "pid": os.getpid(), **self.engine.statistics()}
        if "metrics" in wanted:
            answer["metrics"] = self.metrics.dump()
        if "sizes" in wanted:
            config = self.child.config
            answer["data_dir_size"] = size_of(config.data_dir, "tree-*.db*")
            answer["log_dir_size"] = size_of(config.data_log_dir, "log.db*")
        return answer


def main(child: Child) -> None:
    """The life of the storage process. After a failed write or fsync it ends, without a word to the
    peer: the next life reads what the disk holds, and the peer goes on from there."""
    try:
        Storage(child).run()
    except LogFailed as e:
        raise OperatorError(
            f"a write or an fsync failed: {e}",
            str(child.config.data_log_dir),
            "is the disk sound (dmesg)? Storage starts again and goes on with what the disk holds",
        ) from e
