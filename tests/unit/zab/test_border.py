"""The border of the core: nothing below zkd/zab reads a clock, a file, a socket or global chance.

Time, chance, network and disk are the driver's; the same code runs in a server and in a simulator.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import zkd.zab

ROOM = Path(zkd.zab.__file__).parent
MODULES = sorted(ROOM.rglob("*.py"))
FORBIDDEN = {
    *("apsw", "asyncio", "datetime", "logging", "multiprocessing", "os", "pathlib"),
    *("secrets", "select", "selectors", "shutil", "signal", "socket", "sqlite3", "ssl"),
    *("subprocess", "tempfile", "threading", "time", "uuid", "uvloop", "zmq"),
}
FORBIDDEN_CALLS = {"open", "print", "input"}
CHANCE = {"Random"}
"""Of `random`: the class, whose instances the driver seeds and hands in."""


def trespasses(source: str) -> list[str]:
    """What a module does that the border forbids."""
    found: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [name.name for name in node.names if name.name.split(".")[0] in FORBIDDEN]
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if module.split(".")[0] in FORBIDDEN:
                found.append(module)
            if module == "random":
                found += [f"random.{name.name}" for name in node.names if name.name not in CHANCE]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.value.id == "random" and node.attr not in CHANCE:
                found.append(f"random.{node.attr}")
        elif isinstance(node, ast.Name) and node.id in FORBIDDEN_CALLS:
            found.append(node.id)
    return found


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(ROOM)))
def test_a_module_of_the_core_stays_within_the_border(module: Path) -> None:
    assert trespasses(module.read_text()) == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import time", ["time"]),
        ("import os.path as p", ["os.path"]),
        ("from socket import socket", ["socket"]),
        ("import random\nrandom.random()", ["random.random"]),
        ("from random import Random, choice", ["random.choice"]),
        ("import random\nrandom.Random(7).random()", []),
        ("def f():\n    import zmq", ["zmq"]),
        ("open('x')", ["open"]),
        ("from zkd.zab import quorum\nimport enum", []),
    ],
)
def test_the_border_sees_what_it_is_there_for(source: str, found: list[str]) -> None:
    assert trespasses(source) == found
