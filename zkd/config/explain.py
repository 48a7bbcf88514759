"""A configuration in words: each key with its value, where it comes from and what zkd does with it.

For `zkd config check`; secrets are hidden.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from zkd.config import keys
from zkd.config.key import Action, Key
from zkd.config.kinds import SECRET
from zkd.config.loader import Examination
from zkd.config.model import Config
from zkd.config.pending import is_pending

_HIDDEN = "***"
_SECRET_NAME = re.compile(r"passw|secret|token$", re.IGNORECASE)
"""For plugins' settings, of which the table does not know what they are."""


@dataclass(frozen=True, slots=True)
class Row:
    """One key as it stands. `where` is empty for a default."""

    key: str
    value: str
    is_default: bool
    where: str
    meaning: str
    zkd: str
    reloadable: bool


def rows(examined: Examination, *, everything: bool = False) -> list[Row]:
    """The keys that are set, in the table's order; with `everything` the defaults, too."""
    found: list[Row] = []
    for key in keys.TABLE:
        found += _of_key(key, examined, everything)
    if examined.config is not None:
        found += _members(examined.config)
    return found


def _of_key(key: Key, examined: Examination, everything: bool) -> Iterator[Row]:
    told = [name for name in examined.raw if keys.find(name) is key]
    for name in told:
        text = examined.raw[name]
        hidden = text and (key.secret or _SECRET_NAME.search(name))
        shown = _HIDDEN if hidden else _value(key, examined.config, text)
        yield _row(key, name, shown, examined.where.get(name, ""))
    if not told and everything and key.attribute and not key.is_pattern:
        yield _row(key, key.name, _value(key, examined.config, key.shown_default()), "")


def _row(key: Key, name: str, value: str, where: str) -> Row:
    reloadable = key.reloadable and not is_pending(key)
    return Row(name, value, not where, where, key.help, what_zkd_does(key), reloadable)


def _value(key: Key, config: Config | None, text: str) -> str:
    """The value in force; without a configuration, or for a pattern, the text as given."""
    if config is None or not key.attribute or key.is_pattern:
        return text
    value: Any = attrgetter(key.attribute)(config)
    if value is None:
        return text
    if isinstance(value, frozenset):
        value = sorted(value)
    return key.kind.show(value) if key.kind is not SECRET else (_HIDDEN if value else "")


def _members(config: Config) -> Iterator[Row]:
    for sid, line in config.servers.items():
        mine = " (this server)" if sid == config.my_id else ""
        meaning = f"A member of the ensemble{mine}."
        yield Row(f"server.{sid}", str(line), False, "", meaning, "applied", False)
    for gid, ids in config.membership.groups.items():
        shown = ":".join(map(str, ids))
        yield Row(f"group.{gid}", shown, False, "", "A group of servers.", "applied", False)
    for sid, weight in config.membership.weights.items():
        meaning = "Weight of a server's vote."
        yield Row(f"weight.{sid}", str(weight), False, "", meaning, "applied", False)


def what_zkd_does(key: Key) -> str:
    """Applied, ignored ... and the note that explains it."""
    if key.action is not Action.REFUSE and is_pending(key):
        return "read and checked; this version does not act on it yet"
    if key.action is Action.APPLY or (key.own and not key.note):
        return "applied"
    if key.action is Action.OWN:
        return f"applied. {key.note}"
    return f"{key.action}: {key.note}"
