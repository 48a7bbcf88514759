"""The fence: calls with a time limit, and a log that cannot be flooded."""

from __future__ import annotations

import threading

import pytest

from zkd.plugins.guard import Faults, Late, Limited, Source, run_limited
from zkd.server.metrics import CounterSet


def test_a_call_gives_its_value_or_its_exception() -> None:
    assert run_limited("x", lambda: 7, 5.0) == 7
    with pytest.raises(ZeroDivisionError):
        run_limited("x", lambda: 1 // 0, 5.0)
    with pytest.raises(SystemExit):
        run_limited("x", lambda: exit(1), 5.0)


def test_a_late_call_is_given_up_and_the_next_one_runs() -> None:
    limited = Limited("x")
    forever = threading.Event()
    with pytest.raises(Late, match=r"did not end within 0\.02 s"):
        limited.run(lambda: forever.wait(30), 0.02)
    assert limited.run(lambda: 7, 5.0) == 7
    forever.set()
    limited.close()


def test_calls_run_in_one_thread_that_ends_with_close() -> None:
    limited = Limited("x")
    threads = [limited.run(threading.current_thread, 5.0) for _ in range(3)]
    assert len(set(threads)) == 1
    limited.close()
    threads[0].join(5.0)
    assert not threads[0].is_alive()


def test_every_fault_is_counted_by_plugin_and_kind() -> None:
    faults = Faults()
    for _ in range(5):
        faults.report(Source("auth.a", "acme", "1"), "raised", "raised in matches")
    faults.report(Source("auth.b", "acme", "1"), "late", "late")
    assert faults.counts == {("auth.a", "raised"): 5, ("auth.b", "late"): 1}


def test_faults_feed_a_metric_also_with_those_before_it_was_there() -> None:
    faults, counted = Faults(), CounterSet()
    faults.report(Source("auth.a", "acme", "1"), "raised", "raised")
    faults.feed(counted.add)
    faults.report(Source("auth.a", "acme", "1"), "late", "late")
    assert counted.values == {"auth.a": 2}
