"""Run kazoo's own integration tests against zkd, or against Apache ZooKeeper to compare.

    python -m tests.conformance.kazoo_suite [--server zkd|apache] [pytest's arguments]

The tests come from the folder or bare repository in KAZOO_CHECKOUT, else from kazoo's source
archive; none of it is kept here. They run in a venv of their own (kazoo's tests need packages that
zkd does not) and start one standalone server for each test class through `java`: for zkd a script
of that name in front of PATH hands over to kazoo_java.py. A bare folder to work in is kept in the
user's cache, so that a second run need not fetch anything.

LEFT_OUT lists what does not run, each with its reason; docs/conformance.md repeats it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import tests.apache as debian

ROOT = Path(__file__).resolve().parents[2]
KAZOO = "kazoo==2.11.0"
# X509.add_extensions, which kazoo's harness calls for its certificates, is gone from later ones.
PACKAGES = ("pytest", "pytest-timeout", "objgraph", "gevent", "eventlet", "pyjks", "pyopenssl<24.3")
TIMEOUT_S = 180
PORTS = 23400

ENSEMBLE = "needs an ensemble of three servers, which is a later issue"
TLS = "needs TLS, which is a later issue"
SASL = "needs SASL, which is a later issue; skips itself without a KDC or a JAAS file"
LEFT_OUT = {
    "kazoo/tests/test_client.py::TestReconfig": ENSEMBLE,
    "kazoo/tests/test_client.py::TestClient::test_update_host_list": ENSEMBLE,
    "kazoo/tests/test_gevent_handler.py::TestGeventClient::test_update_host_list": ENSEMBLE,
    "kazoo/tests/test_eventlet_handler.py::TestEventletClient::test_update_host_list": ENSEMBLE,
    "kazoo/tests/test_connection.py::TestReadOnlyMode": ENSEMBLE,
    "kazoo/tests/test_client.py::TestSSLClient": TLS,
    "kazoo/tests/test_sasl.py": SASL,
}


def cache() -> Path:
    """Where the venv and the unpacked tests stay between runs."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "zkd-kazoo-suite"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def python(folder: Path) -> Path:
    """The interpreter of a venv with what kazoo's tests import."""
    executable = folder / "venv" / "bin" / "python"
    if not executable.exists():
        subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
        install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PACKAGES]
        subprocess.run([executable, *install], check=True)
    return executable


def checkout(folder: Path) -> Path:
    """A folder that holds kazoo/tests: the one named, or an archive of it unpacked."""
    named = os.environ.get("KAZOO_CHECKOUT")
    if named and (Path(named) / "kazoo" / "tests").is_dir():
        return Path(named)
    target = folder / ("checkout" if named else KAZOO)
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    if named:
        archive = subprocess.run(
            ["git", "-C", named, "archive", "HEAD"], check=True, capture_output=True
        )
        subprocess.run(["tar", "x", "-C", target], input=archive.stdout, check=True)
        return target
    with tempfile.TemporaryDirectory() as downloads:
        fetch = ["-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "kazoo"]
        subprocess.run([python(folder), *fetch, "--dest", downloads, KAZOO], check=True)
        (archive_file,) = Path(downloads).iterdir()
        with tarfile.open(archive_file) as unpacked:
            unpacked.extractall(target, filter="data")
    return next(target.iterdir())


def environment(server: str, source: Path, scratch: Path) -> dict[str, str]:
    """What the tests see: which server to start, and how."""
    env = os.environ | {
        "PYTHONPATH": str(source),
        "ZOOKEEPER_VERSION": "3.8.0",
        "ZOOKEEPER_CLUSTER_SIZE": "1",
        "ZOOKEEPER_PORT_OFFSET": str(PORTS),
        "ZOOKEEPER_CLASSPATH": debian.classpath() if server == "apache" else "unused",
    }
    if server == "zkd":
        launcher = scratch / "java"
        run = f"PYTHONPATH={ROOT} exec {sys.executable} -m tests.conformance.kazoo_java"
        launcher.write_text(f'#!/bin/sh\n{run} "$@"\n')
        launcher.chmod(0o755)
        env["PATH"] = f"{scratch}{os.pathsep}{env['PATH']}"
    return env


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--server", choices=("zkd", "apache"), default="zkd")
    parser.add_argument("--all", action="store_true", help="also what is left out")
    chosen, rest = parser.parse_known_args(arguments)
    folder = cache()
    source = checkout(folder)
    with tempfile.TemporaryDirectory() as scratch:
        command = [
            str(python(folder)), "-m", "pytest", "-q", "-W", "ignore", "-o", "log_cli=false",
            "-p", "no:cacheprovider", "--timeout", str(TIMEOUT_S), "-ra",
        ]  # fmt: skip
        if not chosen.all:
            command += [f"--deselect={test}" for test in LEFT_OUT]
        if not any(argument.startswith("kazoo/") for argument in rest):
            command.append("kazoo/tests")
        env = environment(chosen.server, source, Path(scratch))
        return subprocess.run([*command, *rest], cwd=source, env=env, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
