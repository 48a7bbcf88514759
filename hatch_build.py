"""Compiles the modules on the way of a request to machine code (mypyc), if that can be done here.

As hatchling's build hook for the wheel, and as a program for a checkout: `python hatch_build.py`
puts the compiled modules beside their sources, `--check` only says whether they are up to date,
`--list` which they are.
It needs mypyc (which comes with mypy), setuptools, a C compiler and Python's headers. Where one of
them is missing the modules stay Python: slower, otherwise the same. ZKD_COMPILE=0 wants that.

Python prefers a compiled module to its source, so after a change it must be made anew: `make`
does, and tests/conftest.py refuses to run with older ones.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # run as a program
    BuildHookInterface = object

ROOT = Path(__file__).resolve().parent
GROUP = "zkd"
"""Names the shared library of all compiled modules: zkd__mypyc."""
MODULES = """
zkd/bus/messages.py zkd/bus/sockets.py zkd/jute/codec.py zkd/jute/protocol.py zkd/jute/txn.py
zkd/server/connection.py zkd/server/frontend.py zkd/server/member/process.py
zkd/server/member/served.py zkd/server/operations.py zkd/server/peer.py zkd/server/peer_alone.py
zkd/server/replies.py zkd/server/served.py zkd/server/storage.py zkd/server/stream.py
zkd/server/view.py zkd/storage/changes.py zkd/storage/noderows.py zkd/tree/acl.py
zkd/tree/apply.py zkd/tree/base.py zkd/tree/digest.py zkd/tree/effects.py zkd/tree/ephemeral.py
zkd/tree/multi.py zkd/tree/nodes.py zkd/tree/operations.py zkd/tree/paths.py zkd/tree/prepare.py
zkd/tree/quota.py zkd/tree/quotas.py zkd/tree/settings.py zkd/tree/stat.py zkd/tree/state.py
zkd/tree/watches.py
""".split()  # noqa: SIM905


def why_not() -> str:
    """What is missing here; empty if nothing is."""
    if os.environ.get("ZKD_COMPILE", "") == "0":
        return "ZKD_COMPILE=0"
    try:
        import mypyc.build
        import setuptools  # noqa: F401
    except ImportError as e:
        return str(e)
    del mypyc
    compiler = os.environ.get("CC") or (sysconfig.get_config_var("CC") or "cc").split()[0]
    if shutil.which(compiler.split()[0]) is None:
        return f"no C compiler ({compiler})"
    if not Path(sysconfig.get_paths()["include"], "Python.h").exists():
        return "no Python.h (on Debian: python3-dev)"
    return ""


def compiled(root: Path) -> list[Path]:
    """The compiled modules that are there."""
    return [*root.glob(f"{GROUP}__mypyc.*.so"), *root.glob("zkd/**/*.so")]


def stale(root: Path) -> list[Path]:
    """Compiled modules that are older than their sources."""
    return [
        library
        for library in compiled(root)
        for source in [library.parent / (library.name.partition(".")[0] + ".py")]
        if library.parent != root
        and (not source.exists() or source.stat().st_mtime > library.stat().st_mtime)
    ]


def compile_into(target: Path) -> list[Path]:
    """Compile all of MODULES; the files, below `target` as they belong below the root."""
    with tempfile.TemporaryDirectory(prefix="zkd-compile-") as folder:
        ignored = shutil.ignore_patterns("*.so", "__pycache__")
        shutil.copytree(ROOT / "zkd", Path(folder, "zkd"), ignore=ignored)
        subprocess.run(
            [sys.executable, str(Path(__file__).resolve()), "--in-this-folder", str(target)],
            cwd=folder,
            check=True,
            stdout=subprocess.DEVNULL,
        )
    return compiled(target)


def _compile_in_this_folder(target: str) -> None:
    from mypyc.build import mypycify
    from setuptools import setup

    extensions = mypycify(
        ["--ignore-missing-imports", "--cache-dir=mypy-cache", *MODULES],
        opt_level="3",
        debug_level="0",
        group_name=GROUP,
    )
    setup(
        name="zkd-compiled",
        packages=[],
        ext_modules=extensions,
        script_args=["build_ext", "--build-lib", target, "--build-temp", "objects"],
    )


class CustomBuildHook(BuildHookInterface):  # type: ignore[misc]
    """Puts the compiled modules into the wheel, beside their sources."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel" or version == "editable":
            return
        missing = why_not()
        if missing:
            self.app.display_warning(f"zkd stays plain Python, which is slower: {missing}")
            return
        self._folder = tempfile.TemporaryDirectory(prefix="zkd-compiled-")
        target = Path(self._folder.name)
        for path in compile_into(target):
            build_data["force_include"][str(path)] = str(path.relative_to(target))
        build_data["pure_python"] = False
        build_data["infer_tag"] = True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if hasattr(self, "_folder"):
            self._folder.cleanup()


def main(arguments: list[str]) -> int:
    """Compile this checkout in place."""
    if arguments[:1] == ["--in-this-folder"]:
        _compile_in_this_folder(arguments[1])
        return 0
    if arguments == ["--list"]:
        print(*MODULES)
        return 0
    if arguments == ["--check"]:
        for path in stale(ROOT):
            print(
                f"{path.relative_to(ROOT)} is older than its source: make compile", file=sys.stderr
            )
        return 1 if stale(ROOT) else 0
    for path in compiled(ROOT):
        path.unlink()
    missing = why_not()
    if missing:
        print(f"zkd stays plain Python, which is slower: {missing}", file=sys.stderr)
        return 0
    with tempfile.TemporaryDirectory(prefix="zkd-compiled-") as folder:
        for path in compile_into(Path(folder)):
            shutil.move(path, ROOT / path.relative_to(folder))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
