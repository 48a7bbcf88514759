"""What reading a configuration found out: errors that refuse it, and warnings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from zkd.errors import OperatorError


class Level(StrEnum):
    """How bad a finding is. DANGER: it works, and risks data or access."""

    ERROR = "error"
    DANGER = "danger"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding; `key` is the key's name as the table has it, or as written if unknown."""

    level: Level
    key: str
    what: str
    where: str = ""
    mend: str = ""

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        mend = f" ({self.mend})" if self.mend else ""
        return f"{self.level}: {place}{self.what}{mend}"


class ConfigError(OperatorError):
    """All faults of a configuration at once; `findings` holds them."""

    def __init__(self, findings: Sequence[Finding], source: str) -> None:
        self.findings = tuple(findings)
        if len(findings) == 1:
            only = findings[0]
            super().__init__(only.what, only.where or source, only.mend)
        else:
            listed = "".join(f"\n  {_line(finding)}" for finding in findings)
            super().__init__(f"{len(findings)} faults in the configuration:{listed}", source)


def _line(finding: Finding) -> str:
    place = f"{finding.where}: " if finding.where else ""
    mend = f" ({finding.mend})" if finding.mend else ""
    return f"{place}{finding.what}{mend}"
