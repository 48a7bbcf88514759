"""Curator's recipes: curator/Recipes.java, by hand.

CURATOR_CLASSPATH names the jars of Curator 5 (client, framework, recipes; what they need: the
ZooKeeper client, guava, slf4j), as java's -cp. They are too large for continuous integration.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.conformance.servers import Server

SOURCE = Path(__file__).with_name("curator") / "Recipes.java"
JARS = os.environ.get("CURATOR_CLASSPATH")
FLAGS = os.environ.get("APACHE_ZK_JVMFLAGS", "").split()
NAMES = re.findall(r'parts\.put\("(\w+)"', SOURCE.read_text())


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The class path with Recipes compiled."""
    folder = tmp_path_factory.mktemp("curator")
    done = subprocess.run(
        ["javac", "-nowarn", "-d", folder, "-cp", str(JARS), SOURCE],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return f"{folder}:{JARS}"


@pytest.mark.skipif(not JARS, reason="by hand only: CURATOR_CLASSPATH is not set")
@pytest.mark.parametrize("name", NAMES)
def test_recipe(server: Server, classes: str, name: str) -> None:
    flags = [
        "-XX:TieredStopAtLevel=1",
        "-Xshare:auto",
        *os.environ.get("CURATOR_FLAGS", "").split(),
    ]
    done = subprocess.run(
        ["java", *flags, "-cp", classes, "Recipes", server.hosts, name],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"ok {name}" in done.stdout
