"""What differs between two readings of a configuration, for SIGHUP.

Only keys marked reloadable in the table are taken; a test looks at what each does to a running
server. The others are told, and wait for a restart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from zkd.config import keys
from zkd.config.key import Action
from zkd.config.model import Config


@dataclass(frozen=True, slots=True)
class Changed:
    """New values by attribute (all of them can be pickled), and the names of their keys."""

    keys: tuple[str, ...]
    values: Mapping[str, Any]


def differences(old: Config, new: Config) -> tuple[Changed, tuple[str, ...]]:
    """What can be put in force at once, and the keys whose change cannot."""
    changed: dict[str, Any] = {}
    names: list[str] = []
    fixed: list[str] = []
    for key in keys.TABLE:
        if not key.attribute or key.action in (Action.IGNORE, Action.REFUSE):
            continue
        read = attrgetter(key.attribute)
        value = read(new)
        if value == read(old):
            continue
        if key.reloadable:
            changed[key.attribute] = value
            names.append(key.name)
        else:
            fixed.append(key.name)
    if (old.membership, old.my_id) != (new.membership, new.my_id):
        fixed.append("server.N")
    return Changed(tuple(names), changed), tuple(fixed)
