"""A member whose disk is full is out until there is room; the others go on.

A small tmpfs in the place of its data; needs the right to mount.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator

import pytest

from tests.ensemble import Ensemble, Writer, seen, until
from tests.integration.test_disk_full import fill

SIZE_MIB = 24


@pytest.fixture(name="ensemble")
def _ensemble() -> Iterator[Ensemble]:
    """The data of every server is on a tmpfs."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount: by hand only, as root")
    ensemble = Ensemble(3)
    mounted = []
    try:
        for sid, server in ensemble.servers.items():
            options = f"size={SIZE_MIB}m"
            mount = ["mount", "-t", "tmpfs", "-o", options, "zkd-test", str(server.data_dir)]
            done = subprocess.run(mount, check=False, capture_output=True, text=True)
            if done.returncode != 0:
                pytest.skip(f"a tmpfs cannot be mounted here ({done.stderr.strip()}): by hand only")
            mounted.append(server.data_dir)
            (server.data_dir / "myid").write_text(f"{sid}\n")
        with ensemble:
            yield ensemble
    finally:
        for folder in mounted:
            subprocess.run(["umount", "-l", str(folder)], check=True)
            shutil.rmtree(folder.parent, ignore_errors=True)


@pytest.mark.parametrize("leads", [True, False])
def test_a_full_disk_takes_one_member_out_until_there_is_room(
    ensemble: Ensemble, leads: bool
) -> None:
    leader = ensemble.leader()
    victim = leader if leads else leader % 3 + 1
    client = ensemble.client()
    client.create("/mine", b"", ephemeral=True)
    writer = Writer(client)
    writer.more()
    ballast = fill(ensemble.servers[victim].data_dir)
    until(lambda: not ensemble.modes()[victim])
    assert ensemble.leader() != victim
    writer.more(100)
    ballast.unlink()
    ensemble.all_serve()
    written = writer.stop()
    trees = [seen(ensemble.client(sid)) for sid in ensemble.servers]
    assert written <= set(trees[0]["/w"][2])
    assert all(tree == trees[0] for tree in trees)
    assert "/mine" in trees[0]
