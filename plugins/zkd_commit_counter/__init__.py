"""Counts the changes below each top-level path, as metrics.

`zkd_namespace_changes_total` has the label `namespace`: the first component of a znode's path, "/"
for the root itself. Counting begins with the process; the cursor sees to it that a restart counts
no transaction twice. At most NAMESPACES_MAX names are kept apart, the rest is `_other`.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Final

from zkd.plugins.api import Commit, CommitObserver, Config, MetricFamily, hookimpl

NAMESPACES_MAX: Final = 1000
OTHER: Final = "_other"


def namespace(path: str) -> str:
    """`/a/b/c` -> `a`; `/` -> `/`."""
    return path.split("/", 2)[1] or "/"


class CommitCounter(CommitObserver):
    name = "commit_counter"

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._changes: dict[str, int] = {}
        self._commits = 0

    def on_commit(self, batch: Sequence[Commit]) -> None:
        with self._lock:
            self._commits += len(batch)
            for commit in batch:
                for change in commit.changes:
                    if change.path is not None and change.kind != "check":
                        self._count(namespace(change.path))

    def _count(self, name: str) -> None:
        changes = self._changes
        if name not in changes and len(changes) >= NAMESPACES_MAX:
            name = OTHER
        changes[name] = changes.get(name, 0) + 1

    def metrics(self) -> Sequence[MetricFamily]:
        with self._lock:
            return (
                MetricFamily(
                    "zkd_namespace_changes_total",
                    "counter",
                    "Znodes created, changed or deleted below a top-level path",
                    "namespace",
                    dict(self._changes),
                ),
                MetricFamily(
                    "zkd_observed_commits_total",
                    "counter",
                    "Transactions that the commit counter has seen",
                    "",
                    {"": self._commits},
                ),
            )


@hookimpl
def zkd_commit_observers(config: Config) -> list[CommitObserver]:
    """Reading every transaction costs CPU: only where somebody looks at metrics."""
    exported = "prometheus" in config.get("metricsProvider.className", "").lower()
    return [CommitCounter()] if exported or config.get("metrics.exporters") else []
