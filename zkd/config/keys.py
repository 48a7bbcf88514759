"""The table of all keys: the one place that documents, checks and the sample file come from.

`TABLE` is in the order of the sections. `find(name)` gives the row of a spelling: with or without
`zookeeper.` before it, an alias, or a pattern such as `authProvider.*`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from zkd.config.key import Key
from zkd.config.sections.admin import AdminSettings
from zkd.config.sections.basic import BasicSettings, BehaviourSettings
from zkd.config.sections.ignored import INTERNALS
from zkd.config.sections.limits import LimitSettings
from zkd.config.sections.own import OwnSettings
from zkd.config.sections.quorum import QuorumSettings
from zkd.config.sections.security import SecuritySettings

PREFIX = "zookeeper."
DYNAMIC = ("server.", "group.", "weight.", "version")

_SECTIONS: tuple[tuple[Any, str], ...] = (
    (BasicSettings, "Ports, folders, log and snapshots"),
    (BehaviourSettings, "Behaviour"),
    (LimitSettings, "Limits and throttles"),
    (AdminSettings, "Four-letter words, admin server, metrics, audit"),
    (SecuritySettings, "TLS and authentication of clients"),
    (QuorumSettings, "Ensemble"),
    (OwnSettings, "Keys of zkd alone"),
)


def _rows(settings: Any, section: str, prefix: str = "", path: str = "") -> Iterator[Key]:
    for field in dataclasses.fields(settings):
        inner = field.metadata.get("group")
        if inner is not None:
            yield from _rows(
                inner,
                field.metadata["section"],
                field.metadata["prefix"],
                f"{path}{field.name}.",
            )
            continue
        key: Key = field.metadata["key"]
        yield dataclasses.replace(
            key, name=prefix + key.name, attribute=path + field.name, section=section
        )


TABLE: tuple[Key, ...] = (
    tuple(key for settings, section in _SECTIONS for key in _rows(settings, section)) + INTERNALS
)

_EXACT: dict[str, Key] = {}
for _key in TABLE:
    for _name in () if _key.is_pattern else (_key.name, *_key.aliases):
        assert _name not in _EXACT, _name
        _EXACT[_name] = _key
_PATTERNS = sorted(
    (key for key in TABLE if key.is_pattern), key=lambda key: len(key.name), reverse=True
)

BY_ATTRIBUTE: dict[str, Key] = {key.attribute: key for key in TABLE if key.attribute}


def find(name: str) -> Key | None:
    """The row for a name as written, or None if it is unknown."""
    for candidate in (name, name.removeprefix(PREFIX)):
        exact = _EXACT.get(candidate)
        if exact is not None:
            return exact
        for key in _PATTERNS:
            if candidate.startswith(key.name[:-1]) and len(candidate) >= len(key.name):
                return key
    return None


def nearest(name: str) -> str | None:
    """The known name that is most like an unknown one, if any is like it."""
    bare = name.removeprefix(PREFIX)
    lowered = {known.lower(): known for known in _EXACT}
    if bare.lower() in lowered:
        return lowered[bare.lower()]
    import difflib  # only who misspells pays for it

    found = difflib.get_close_matches(bare.lower(), list(lowered), n=1, cutoff=0.7)
    return lowered[found[0]] if found else None
