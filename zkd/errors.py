"""Errors that are told to a person.

A fault of configuration, disk or rights stops what was asked for; its text says what happened,
where, and what to do about it. Errors that belong to a client's request or to another server are
not here: they live beside the code that answers them.
"""

from __future__ import annotations


class OperatorError(Exception):
    """Something only the operator can put right.

    `what`: the fault, in one sentence. `where`: the place, as precise as it is known (`file:line`,
    a path, an address; empty if there is none). `mend`: what to do about it (empty if unknown).
    """

    def __init__(self, what: str, where: str = "", mend: str = "") -> None:
        super().__init__(what, where, mend)
        self.what = what
        self.where = where
        self.mend = mend

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text}\n  to mend it: {self.mend}" if self.mend else text
