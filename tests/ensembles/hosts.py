"""Where the members of an ensemble are: all on loopback, or each on a network of its own."""

from __future__ import annotations

from typing import Protocol


class Hosts(Protocol):
    """Addresses of members, and how their processes are started there."""

    def peer_host(self, sid: int) -> str:
        """Where the other members reach it."""

    def client_host(self, sid: int) -> str:
        """Where this process reaches it."""

    def listen_host(self, sid: int) -> str:
        """clientPortAddress."""

    def prefix(self, sid: int) -> tuple[str, ...]:
        """What goes before its command."""


class Loopback:
    """All on 127.0.0.1."""

    def peer_host(self, sid: int) -> str:
        return "127.0.0.1"

    def client_host(self, sid: int) -> str:
        return "127.0.0.1"

    def listen_host(self, sid: int) -> str:
        return "127.0.0.1"

    def prefix(self, sid: int) -> tuple[str, ...]:
        return ()
