"""The disturbance benchmark runs on a small tree; its figures are not looked at here."""

from __future__ import annotations

import pytest

from tests.bench import disturbance


def test_each_disturbance_of_one_front_end_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disturbance, "TREE", 500)
    monkeypatch.setattr(disturbance, "ALONE_S", 0.5)
    monkeypatch.setattr(disturbance, "CATCH_UP_S", 0.1)
    table = disturbance.report([1], conns=4, rate=400, children=2000)
    rows = [line for line in table.splitlines() if line.startswith("| zkd F=1 ")]
    said = [row.split("|")[2].strip() for row in rows]
    assert said == [
        "alone",
        "while the tree is flushed",
        "while a snapshot is taken",
        "while another client lists 2,000 children",
    ]
    assert all(int(row.split("|")[3].replace(",", "")) > 0 for row in rows)
