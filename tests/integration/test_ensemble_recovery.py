"""Members that come back: by DIFF, TRUNC and SNAP, killed and stopped in the middle of writes."""

from __future__ import annotations

import threading
import time
from typing import Any

from kazoo.client import KazooClient
from kazoo.exceptions import KazooException, NodeExistsError

from tests.ensemble import Ensemble, until


class Writer:
    """Creates /w/00000001 and so on, as fast as it gets answers; `done` were acknowledged."""

    def __init__(self, client: KazooClient) -> None:
        self.client = client
        self.done: list[str] = []
        self.longest_s = 0.0
        self.stopped = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        client.ensure_path("/w")
        self._thread.start()

    def _run(self) -> None:
        number = 0
        while not self.stopped:
            number += 1
            began = time.monotonic()
            while not self.stopped:
                try:
                    self.client.create(f"/w/{number:08}", b"x" * 100)
                    break
                except NodeExistsError:
                    break
                except KazooException:
                    time.sleep(0.005)
            else:
                return
            self.longest_s = max(self.longest_s, time.monotonic() - began)
            self.done.append(f"{number:08}")

    def more(self, count: int = 20) -> None:
        """Wait for further writes to be acknowledged."""
        wanted = len(self.done) + count
        until(lambda: len(self.done) >= wanted)

    def stop(self) -> set[str]:
        self.stopped = True
        self._thread.join(30)
        return set(self.done)


def seen(client: KazooClient, path: str = "/") -> dict[str, Any]:
    """Every node that this client may read, after a sync: data, stat, children."""
    if path == "/":
        client.sync("/")
    data, stat = client.get(path)
    names = sorted(client.get_children(path))
    found = {path: (data, tuple(stat), names)}
    for name in names:
        child = f"{path.rstrip('/')}/{name}"
        if child != "/zookeeper/config":
            found |= seen(client, child)
    return found


def assert_equal_everywhere(ensemble: Ensemble, written: set[str]) -> None:
    ensemble.all_serve()
    trees = [seen(ensemble.client(sid)) for sid in ensemble.servers]
    assert written <= set(trees[0]["/w"][2])
    for tree in trees[1:]:
        assert tree == trees[0]


def test_each_server_killed_in_turn_under_load_loses_nothing() -> None:
    with Ensemble(3) as ensemble:
        writer = Writer(ensemble.client())
        for _ in range(2):
            for sid in list(ensemble.servers):
                writer.more()
                ensemble.kill(sid)
                writer.more()
                ensemble.servers[sid].start()
                ensemble.all_serve()
        assert_equal_everywhere(ensemble, writer.stop())
