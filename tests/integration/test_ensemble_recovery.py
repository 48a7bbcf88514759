"""Members that come back: by DIFF, TRUNC and SNAP, killed and stopped in the middle of writes."""

from __future__ import annotations

from tests.ensemble import Ensemble, Writer, seen


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
