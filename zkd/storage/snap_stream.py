"""The tree as it follows a SNAP packet: sessions, ACLs and nodes as in a snapshot file, then a
signature. No header, no checksum, no length: where it ends is found by reading it.

Both directions hold a few nodes at a time, whatever the size of the tree.
Source: `quorum/Learner.java`, `quorum/LearnerHandler.java`, `DataTree.java` of Apache ZooKeeper;
spec zab-quorum-protocol section 3.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import apsw

from zkd.jute.codec import DEFAULT_LIMIT
from zkd.storage.apache_format import (
    Readable,
    Sink,
    Source,
    Writable,
    read_acls,
    read_nodes,
    read_sessions,
    write_tree,
)
from zkd.storage.generation import GenerationWriter, NodeRow
from zkd.storage.reader import TreeReader

SIGNATURE = "BenWasHere"
_SIGNED = len(SIGNATURE).to_bytes(4, "big") + SIGNATURE.encode()
GROUP_NODES = 500
GROUP_BYTES = 1 << 20

_ALL = "SELECT parent, name, data, stat, acl FROM node ORDER BY parent, name"


def write_stream(file: Writable, reader: TreeReader) -> int:
    """The tree that `reader` holds; how many nodes."""
    sink = Sink(file)
    count = write_tree(
        sink, _rows(reader), sessions=reader.sessions(), acl_lists=reader.acl_lists()
    )
    sink.put(_SIGNED)
    sink.flush()
    return count


def _rows(reader: TreeReader) -> Iterator[NodeRow]:
    """All nodes one at a time: an order of (parent, name) has parents before their children."""
    row: Any
    for row in reader.db.execute(_ALL):
        parent, name, data, stat, acl = row
        yield f"{parent}/{name}", data, stat, acl


@dataclass(frozen=True)
class StreamEnd:
    """What was read."""

    nodes: int
    size: int
    """Bytes of the stream."""
    rest: bytes
    """Read beyond its end."""


def read_stream(
    file: Readable, writer: GenerationWriter, *, limit: int = DEFAULT_LIMIT
) -> StreamEnd:
    """Put a stream into the next generation, which the caller finishes at the SNAP's zxid.

    `file.read` may give less than it is asked for. FormatError, with the place, for a stream that
    ends too early, makes no sense or has a string or buffer longer than `limit`; OperatorError
    from the writer. The caller abandons the writer then."""
    source = Source(file, "the snapshot from the leader", limit)
    try:
        writer.sessions(read_sessions(source))
    except apsw.ConstraintError as e:
        raise source.error("a session occurs twice") from e
    lists = read_acls(source)
    nodes = 0
    for group in _groups(read_nodes(source, lists)):
        nodes += writer.nodes(group)
    if source.text() != SIGNATURE:
        raise source.error("the signature at the end of the snapshot is wrong")
    return StreamEnd(nodes, source.offset, source.rest())


def _groups(nodes: Iterator[NodeRow]) -> Iterator[list[NodeRow]]:
    """A few nodes, and not too many bytes, at a time."""
    group: list[NodeRow] = []
    size = 0
    for node in nodes:
        group.append(node)
        size += len(node[1] or b"")
        if len(group) >= GROUP_NODES or size >= GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group
