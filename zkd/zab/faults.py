"""Whose fault it is when the core cannot go on.

`PeerFault`: another server broke the protocol; its connection is closed, nothing else happens.
`DriverFault`: our own process used the core wrongly; it must not go on.
"""

from __future__ import annotations


class PeerFault(Exception):
    """What a peer sent has no meaning in its phase. The text is for the log."""


class DriverFault(AssertionError):
    """The driver handed in what its duties (docs/zab.md) rule out."""
