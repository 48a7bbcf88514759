"""Paths of znodes: validation, and the way up.

Source: `PathUtils.validatePath` of Apache ZooKeeper; spec client-protocol section 10.
"""

from __future__ import annotations

import re
from typing import Final

from zkd.jute.protocol import Err
from zkd.tree.errors import ClientRefusal

ROOT: Final = "/"
SYSTEM: Final = "/zookeeper"
SYSTEM_PREFIX: Final = "/zookeeper/"
"""Below it: outside the tree's digest."""
QUOTA: Final = "/zookeeper/quota"
CONFIG: Final = "/zookeeper/config"

SPECIAL: Final = frozenset({ROOT, SYSTEM, QUOTA, CONFIG})
"""Paths that cannot be deleted."""

# Java looks at UTF-16 units: characters above U+FFFF are pairs out of D800..DFFF.
_COMPONENT: Final = (
    r"/(?!\.{1,2}(?:/|\Z))[^/\x00-\x1f\x7f-\x9f\ud800-\uf8ff\ufff0-\uffff\U00010000-\U0010ffff]+"
)
_VALID: Final = re.compile(rf"(?:{_COMPONENT})+\Z").match


def is_valid(path: str) -> bool:
    """True if a node may have this path."""
    if path.isascii() and path.isprintable() and "//" not in path and "/." not in path:
        return path[:1] == "/" and (path[-1] != "/" or path == "/")
    return _VALID(path) is not None


def validate(path: str | None) -> str:
    """The path itself; raises ClientRefusal(BAD_ARGUMENTS) if no node may have it."""
    if path is None or not is_valid(path):
        raise ClientRefusal(Err.BAD_ARGUMENTS)
    return path


def parent_and_name(path: str) -> tuple[str, str]:
    """What is before the last slash ("/" for children of the root) and what is behind it.

    Raises ClientRefusal(BAD_ARGUMENTS) for a path without a slash or with a NUL; the rest of the
    path is not looked at.
    """
    slash = path.rfind("/")
    if slash < 0 or "\0" in path:
        raise ClientRefusal(Err.BAD_ARGUMENTS)
    return path[:slash] or ROOT, path[slash + 1 :]


def top_namespace(path: str) -> str | None:
    """The first component, the key of metrics by namespace; None for the root."""
    parts = path.split("/", 2)
    return parts[1] if len(parts) > 1 and parts[1] else None
