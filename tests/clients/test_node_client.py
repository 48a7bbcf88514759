"""A client in another language: node-zookeeper-client, which speaks the protocol in JavaScript.

node/client.js does the work; `npm ci` brings the packages that node/package-lock.json names.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conformance.servers import Server

FOLDER = Path(__file__).with_name("node")
PARTS = ["nodes", "kinds", "watches", "transactions", "permissions", "restart"]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """client.js in a folder with its packages."""
    if shutil.which("npm") is None:
        pytest.skip("npm is missing")
    folder = tmp_path_factory.mktemp("node")
    for name in ("package.json", "package-lock.json", "client.js"):
        shutil.copy(FOLDER / name, folder)
    install = ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"]
    done = subprocess.run(
        install, cwd=folder, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder / "client.js"


def test_the_lock_file_names_no_registry() -> None:
    assert "resolved" not in (FOLDER / "package-lock.json").read_text()


def test_node_client(server: Server, program: Path, path: str) -> None:
    """All that the client can ask for, and a restart of the server in the middle."""
    with subprocess.Popen(
        ["node", program, server.hosts, path],
        cwd=program.parent,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as client:
        assert client.stdout is not None
        parts = []
        for line in client.stdout:
            parts.append(line.split()[1])
            if parts[-1] == "restart":
                server.restart()
                assert client.stdin is not None
                client.stdin.write("restarted\n")
                client.stdin.flush()
        status = client.wait(60)
        assert client.stderr is not None
        assert status == 0, client.stderr.read()
    assert parts == [*PARTS, "reconnection", "end"]
