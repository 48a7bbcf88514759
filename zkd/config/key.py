"""What one configuration key is, and how a section of `Config` declares it.

A section is a frozen dataclass; each field is declared with `setting(...)`, which carries the
key's whole row: so the attribute, its type, the document and the check come from one place.
`zkd.config.keys` collects the rows into the table.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from zkd.config.kinds import TEXT, Kind


class Action(StrEnum):
    """What zkd does with a key."""

    APPLY = "applied"
    OWN = "applied, own meaning"
    MAP = "mapped"
    IGNORE = "ignored"
    REFUSE = "refused"


@dataclass(frozen=True, slots=True)
class Key:
    """One row of the table of keys.

    `name` may end in `*`: then it stands for all names with that beginning. `aliases`: other
    spellings; `zookeeper.` before any of them is always accepted and not listed.
    `default_text` describes a default that depends on other keys (`default` is then None).
    `note`: zkd's own meaning, or what takes the key's place. `apache`: Apache ZooKeeper's default
    where zkd's differs. `minimum`/`maximum` refuse, unless `clamp`. `lowest_special`: a value below
    the minimum that is allowed because it means off or default.
    """

    name: str
    kind: Kind
    help: str
    default: Any = None
    default_text: str = ""
    attribute: str = ""
    section: str = ""
    action: Action = Action.APPLY
    aliases: tuple[str, ...] = ()
    note: str = ""
    apache: str = ""
    minimum: float | None = None
    maximum: float | None = None
    special: float | None = None
    clamp: bool = False
    reloadable: bool = False
    secret: bool = False
    own: bool = False

    @property
    def is_pattern(self) -> bool:
        return self.name.endswith("*")

    def shown_default(self) -> str:
        if self.default_text:
            return self.default_text
        return "" if self.default is None else self.kind.show(self.default)


def setting(name: str, kind: Kind, default: Any, help: str, **row: Any) -> Any:
    """A dataclass field that carries its `Key`; `row` as the fields of `Key`."""
    key = Key(name, kind, help, default, **row)
    if key.note and "action" not in row and not key.own:
        key = dataclasses.replace(key, action=Action.OWN)
    return dataclasses.field(default=default, repr=not key.secret, metadata={"key": key})


def own(name: str, kind: Kind, default: Any, help: str, **row: Any) -> Any:
    """A key that only zkd has: lowercase, with dots."""
    return setting(name, kind, default, help, own=True, **row)


def pattern(name: str, kind: Kind, help: str, **row: Any) -> Any:
    """A key whose name ends in `*`; the attribute maps the rest of the name to the value."""
    return dataclasses.field(
        default_factory=dict, metadata={"key": Key(name, kind, help, None, **row)}
    )


def group(settings: type, prefix: str, section: str) -> Any:
    """A nested dataclass of settings whose keys all begin with `prefix`."""
    return dataclasses.field(
        default_factory=settings,
        metadata={"group": settings, "prefix": prefix, "section": section},
    )


def ignored(name: str, section: str, note: str) -> Key:
    """A key that is accepted, told once and left without effect; `note`: what takes its place."""
    return Key(
        name,
        TEXT,
        "Has no meaning outside the Java server.",
        section=section,
        action=Action.IGNORE,
        note=note,
    )
