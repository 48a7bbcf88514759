"""A third party's auth plugin, made from docs/plugins.md, in an environment of its own.

What the documentation says is built as it stands there: both code blocks become files, the files
a wheel. It is installed together with a wheel of zkd in a fresh virtual environment, which takes
the other dependencies from the one that runs the tests.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import textwrap
import time
import venv
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from kazoo.client import KazooClient
from kazoo.exceptions import AuthFailedError, NoAuthError
from kazoo.security import make_acl

ROOT = Path(__file__).parents[2]
BUILT = ("pyproject.toml", "hatch_build.py", "README.md", "zkd", "plugins", "conf")
KEY = "test key"
DEADLINE_S = 60.0


def documented_files() -> dict[str, str]:
    """File name -> text, of the code blocks in docs/plugins.md that follow a line `NAME`:"""
    pages = (ROOT / "docs" / "plugins.md").read_text()
    found = re.findall(r"`([\w.]+)`:\n\n```\w+\n(.*?)```", pages, re.DOTALL)
    return dict(found)


def pip(*arguments: str | Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments],
        check=True,
        timeout=300,
        stdin=subprocess.DEVNULL,
    )


def wheel(source: Path, into: Path) -> Path:
    """Build one wheel; the environment's own build backend is used if there is one."""
    isolation = ["--no-build-isolation"] if find_spec("hatchling") else []
    pip("wheel", "--no-deps", *isolation, "--wheel-dir", into, source)
    (built,) = into.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with zkd and the plugin installed from wheels."""
    base = tmp_path_factory.mktemp("third-party")
    (base / "zkd").mkdir()
    for name in BUILT:
        source, target = ROOT / name, base / "zkd" / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
        else:
            shutil.copy(source, target)
    (base / "plugin").mkdir()
    for name, text in documented_files().items():
        (base / "plugin" / name).write_text(text)
    wheels = [wheel(base / "zkd", base / "dist-zkd"), wheel(base / "plugin", base / "dist-plugin")]
    home = base / "venv"
    venv.create(home, with_pip=False, symlinks=True)
    interpreter = home / "bin" / "python"
    pip("--python", interpreter, "install", "--no-index", "--no-deps", *wheels)
    (site,) = (home / "lib").glob("python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return interpreter


def run(python: Path, code: str) -> str:
    done = subprocess.run(
        [python, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=python.parent,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_wheel_of_zkd_carries_all_of_zkd_and_its_plugins(python: Path) -> None:
    code = """
        import sys, zkd, zkd.server.metrics, zkd.tree.state
        from zkd.plugins import loader
        assert zkd.__file__.startswith(sys.prefix), zkd.__file__
        assert zkd.tree.state.__file__.endswith(".so"), zkd.tree.state.__file__
        for plugin in loader.installed({}):
            print(plugin.source)
    """
    found = run(python, code).splitlines()
    assert found[-1] == "plugin auth.token (acme-zkd-token 1.0)"
    assert [line.split()[1] for line in found[:-1]] == [
        "audit.log",
        "auth.digest",
        "auth.ip",
        "metrics.prometheus",
        "observer.commit_counter",
        "snapshot.zkd",
    ]


def test_the_plugin_works_through_the_registry(python: Path) -> None:
    code = f"""
        from acme_zkd_token import sign
        from zkd.plugins import loader
        from zkd.plugins.api import Origin
        from zkd.plugins.auth import AuthFailed, AuthRegistry

        config = {{"authProvider.1": "plugin:token", "plugin.auth.token.key": {KEY!r}}}
        schemes = AuthRegistry(loader.load(config, "frontend"), config)
        origin = Origin("127.0.0.1", 1)
        mine = schemes.authenticate("token", f"ann:{{sign('ann', {KEY!r})}}".encode(), origin)
        assert mine == (("token", "ann"),)
        assert schemes.is_valid("token", "ann") and not schemes.is_valid("token", "a b")
        assert schemes.matches(mine, "token", "a*") and not schemes.matches(mine, "token", "b*")
        assert schemes.is_authenticated("token")
        try:
            schemes.authenticate("token", b"ann:wrong", origin)
        except AuthFailed:
            print("refused")
    """
    assert run(python, code) == "refused"


def test_without_its_key_a_demanded_plugin_stops_the_start(python: Path) -> None:
    code = """
        from zkd.errors import OperatorError
        from zkd.plugins import loader
        try:
            loader.load({"authProvider.1": "plugin:token"}, "peer")
        except OperatorError as error:
            print(error)
    """
    text = run(python, code)
    assert "auth plugin auth.token cannot serve: KeyError: 'key'" in text
    assert text.startswith("authProvider.1: ")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@pytest.fixture
def server(python: Path, tmp_path: Path) -> Iterator[str]:
    """`zkd serve` of that environment; its address."""
    port = free_port()
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                python.parent / "zkd",
                "serve",
                *("--set", f"clientPort={port}"),
                *("--set", "clientPortAddress=127.0.0.1"),
                *("--set", f"dataDir={tmp_path / 'data'}"),
                *("--set", "admin.enableServer=false"),
                *("--set", "authProvider.1=plugin:token"),
                *("--set", f"plugin.auth.token.key={KEY}"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=tmp_path,
        )
    try:
        end = time.monotonic() + DEADLINE_S
        while True:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.02)
        yield f"127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def test_a_client_logs_in_with_the_plugin(server: str, python: Path) -> None:
    token = "ann:" + run(python, f"import acme_zkd_token as t; print(t.sign('ann', {KEY!r}))")
    ann, bob = KazooClient(server), KazooClient(server)
    try:
        ann.start(timeout=DEADLINE_S)
        bob.start(timeout=DEADLINE_S)
        ann.add_auth("token", token)
        ann.create("/private", b"secret", acl=[make_acl("token", "ann", all=True)])
        assert ann.get("/private")[0] == b"secret"
        with pytest.raises(NoAuthError):
            bob.get("/private")
        with pytest.raises(NoAuthError):
            bob.set("/private", b"mine")
        with pytest.raises(AuthFailedError):
            bob.add_auth("token", "ann:wrong")
    finally:
        for client in (ann, bob):
            client.stop()
            client.close()
