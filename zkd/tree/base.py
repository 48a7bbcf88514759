"""The tree on disk, as the tree's state needs it."""

from __future__ import annotations

from typing import Protocol


class Base(Protocol):
    """A consistent snapshot of the tree at one zxid. Its methods do not change it."""

    @property
    def zxid(self) -> int:
        """The last transaction in it."""

    @property
    def digest(self) -> int:
        """The tree's digest, unsigned 64 bit."""

    @property
    def node_count(self) -> int:
        """The number of nodes."""

    @property
    def data_bytes(self) -> int:
        """The sum of the lengths of paths (characters) and data (bytes) of all nodes."""

    def node(self, path: str) -> tuple[bytes | None, bytes, bytes | None] | None:
        """Data, raw stat, acl of a node; None if there is none. ClientRefusal if what is stored
        there is damaged: the base has told that, and whoever asks goes on without the node."""

    def last_child(self, path: str) -> str:
        """The name of the last child in the order of code points; "" if there is none."""

    def ephemerals(self, owner: int) -> list[str]:
        """The ephemerals of a session."""

    def sessions(self) -> dict[int, int]:
        """Session to timeout in ms."""

    def specials(self) -> list[tuple[str, int]]:
        """Containers and TTL nodes: path, raw owner."""

    def quotas(self) -> list[tuple[str, bytes | None]]:
        """Paths of all `zookeeper_limits` nodes below /zookeeper/quota, and their data."""

    def usage(self, path: str) -> tuple[int, int]:
        """Nodes and bytes of data of the subtree at `path`, itself included; (0, 0) if missing."""
