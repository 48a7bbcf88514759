"""The process that codes or decodes one snapshot: `python -m zkd.server.quorum.snapshot_child`.

It lives for one SNAP. Its only argument is JSON; it talks with its parent over a Unix socket:

    sending     child: {"zxid": T}       it holds the tree at T in a read transaction
                parent: {"go": true} and the descriptor to write to
                child: {"nodes": n, "bytes": n, "peak": n}
    receiving   parent: {"rest": n}, the descriptor to read from, and n bytes from it that the
                parent has read already
                child: {"end": true}     only if `drain`: the stream is over, the rest is wanted
                child: the same, {"digest": d, "rest": n}, and n bytes from beyond the end
    either      child: {"error": [what, where, mend]}

Messages are lines; `peak` is the memory that this process has needed, in bytes. The descriptor is
a socket that others use too (non-blocking, so it is polled), or under TLS a pipe to the parent.
With `drain` it is read up to its end, so that nothing is lost; of the peer's own socket only what
one read gave beyond the stream comes back as rest.
It ends when its parent ends, and when nothing moves for `stall_s`.
"""

from __future__ import annotations

import json
import os
import resource
import select
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw

from zkd.errors import OperatorError
from zkd.server.process import SupervisorGone, die_with_parent
from zkd.storage.apache_format import FormatError
from zkd.storage.generation import GenerationWriter
from zkd.storage.log import LOG_NAME, LogReader
from zkd.storage.reader import open_tree
from zkd.storage.snap_stream import read_stream, write_stream
from zkd.tree.settings import TreeSettings

CACHE_BYTES = 8 << 20
LINE_MAX = 64 << 10


@dataclass(frozen=True)
class Job:
    """What the argument says."""

    send: bool
    control: int
    """Descriptor of the socket to the parent."""
    parent: int
    data_dir: str
    log_dir: str
    stall_s: float
    zxid: int = 0
    """Receiving: the SNAP's."""
    limit: int = 0
    drain: bool = False
    settings: dict[str, Any] | None = None


class Descriptor:
    """Reads and writes a descriptor that may be non-blocking, with a limit on standing still."""

    def __init__(self, fd: int, stall_s: float, before: bytes = b"") -> None:
        self.fd = fd
        self.moved = 0
        self._stall_s = stall_s
        self._before = before
        self._poll = select.poll()

    def _wait(self, event: int) -> None:
        self._poll.register(self.fd, event)
        if not self._poll.poll(self._stall_s * 1000):
            raise OperatorError(f"nothing moved on the connection for {self._stall_s:g} s")

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; none at the end."""
        if self._before:
            data, self._before = self._before, b""
            return data
        while True:
            self._wait(select.POLLIN)
            try:
                return os.read(self.fd, size)
            except BlockingIOError:
                continue
            except OSError as e:
                raise _ended(e) from e

    def write(self, data: bytes, /) -> None:
        """All of `data`."""
        view = memoryview(data)
        while view:
            self._wait(select.POLLOUT)
            try:
                done = os.write(self.fd, view)
            except BlockingIOError:
                continue
            except OSError as e:
                raise _ended(e) from e
            self.moved += done
            view = view[done:]


def _ended(error: OSError) -> OperatorError:
    return OperatorError(f"the connection has ended: {error.strerror}")


class Control:
    """The child's end of the socket to its parent."""

    def __init__(self, fd: int) -> None:
        self.sock = socket.socket(fileno=fd)

    def say(self, more: bytes = b"", **message: Any) -> None:
        try:
            self.sock.sendall(json.dumps(message).encode() + b"\n" + more)
        except (BrokenPipeError, ConnectionResetError):
            raise SupervisorGone from None

    def hear(self) -> tuple[dict[str, Any], int, bytes]:
        """A message, the descriptor that came with it, and what follows the line so far."""
        data, fds, _, _ = socket.recv_fds(self.sock, LINE_MAX, 1)
        line, newline, more = data.partition(b"\n")
        if not newline or not fds:
            raise SupervisorGone
        return json.loads(line), fds[0], more


def send(job: Job, control: Control) -> None:
    """Write the tree to the descriptor that comes."""
    reader = open_tree(Path(job.data_dir), Path(job.log_dir), cache_bytes=CACHE_BYTES)
    try:
        control.say(zxid=reader.zxid)
        _, fd, _ = control.hear()
        out = Descriptor(fd, job.stall_s)
        nodes = write_stream(out, reader)
        os.close(fd)
        control.say(nodes=nodes, bytes=out.moved, peak=_peak())
    finally:
        reader.close()


def receive(job: Job, control: Control) -> None:
    """Read a tree from the descriptor that comes into the next generation."""
    log = LogReader(Path(job.log_dir) / LOG_NAME)
    try:
        meta = log.meta()
    finally:
        log.close()
    message, fd, before = control.hear()
    while len(before) < message["rest"]:
        part = control.sock.recv(message["rest"] - len(before))
        if not part:
            raise SupervisorGone
        before += part
    file = Descriptor(fd, job.stall_s, before)
    settings = TreeSettings(**(job.settings or {}))
    writer = GenerationWriter(Path(job.data_dir), meta.generation + 1, meta.id, settings)
    try:
        end = read_stream(file, writer, limit=job.limit)
        rest = end.rest
        if job.drain:
            control.say(end=True)
            while part := file.read(1 << 16):
                rest += part
        os.close(fd)
        digest = writer.finish(job.zxid)
    except BaseException:
        writer.abandon()
        raise
    told = {"nodes": end.nodes, "bytes": end.size, "peak": _peak()}
    control.say(rest, digest=digest, rest=len(rest), **told)


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main(argument: str) -> int:
    """Exit status 0 if the work was done, 1 if it was not, and the parent knows why."""
    job = Job(**json.loads(argument))
    control = Control(job.control)
    try:
        die_with_parent(job.parent)
        error = _attempt(job, control)
        if error:
            control.say(error=error)
    except SupervisorGone:
        return 1
    return 1 if error else 0


def _attempt(job: Job, control: Control) -> list[str]:
    """What, where and how to mend it, if it fails."""
    try:
        (send if job.send else receive)(job, control)
    except FormatError as e:
        return [e.what, e.where, ""]
    except OperatorError as e:
        return [e.what, e.where, e.mend]
    except (apsw.Error, OSError) as e:
        return [f"{type(e).__name__}: {e}", job.data_dir, ""]
    return []


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
