"""Apache's C client from Debian's libzookeeper-mt: c/client.c, compiled here."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conformance.servers import Server

SOURCE = Path(__file__).with_name("c") / "client.c"
HEADER = Path("/usr/include/zookeeper/zookeeper.h")
PARTS = ["nodes", "kinds", "watches", "transactions", "permissions", "restart"]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("gcc") is None or not HEADER.exists():
        pytest.skip("gcc or libzookeeper-mt-dev is missing")
    target = tmp_path_factory.mktemp("c") / "client"
    flags = ["-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-DTHREADED"]
    compile_ = ["gcc", *flags, "-o", str(target), str(SOURCE), "-lzookeeper_mt", "-lpthread"]
    done = subprocess.run(compile_, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return target


def test_c_client(server: Server, program: Path, path: str) -> None:
    """All that the C client can ask for, and a restart of the server in the middle."""
    with subprocess.Popen(
        [program, server.hosts, path],
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
