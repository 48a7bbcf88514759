"""Commit observers: order, at least once, cursors, gaps, and that none hurts another."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from zkd.admin.cursors import Cursor, CursorFile
from zkd.admin.observers import LogPurged, ObserverRunner
from zkd.plugins.api import Commit, CommitObserver, MetricFamily
from zkd.plugins.guard import Faults, Source
from zkd.plugins.loader import Loaded

DEADLINE_S = 20.0


class Log:
    """A log in memory. `fail` raises in the next read."""

    def __init__(self, *zxids: int) -> None:
        self.zxids = list(zxids)
        self.purged = 0
        self.fail: Exception | None = None

    def read(self, after: int, limit: int) -> list[tuple[int, bytes]]:
        fail, self.fail = self.fail, None
        if fail is not None:
            raise fail
        if after < self.purged:
            raise LogPurged(self.purged)
        return [(zxid, b"%d" % zxid) for zxid in self.zxids if zxid > after][:limit]


def decode(zxid: int, body: bytes) -> Commit:
    return Commit(zxid, 0, 0, 0, 0, (), body)


class Recorder(CommitObserver):
    def __init__(self, name: str = "recorder", *, from_oldest: bool = True) -> None:
        self.name = name
        self.from_oldest = from_oldest
        self.seen: list[int] = []
        self.gaps: list[tuple[int, int, str]] = []
        self.failures = 0
        self.gate = threading.Event()
        self.gate.set()
        self.closed = False

    def on_commit(self, batch: Sequence[Commit]) -> None:
        assert self.gate.wait(DEADLINE_S)
        if self.failures:
            self.failures -= 1
            raise RuntimeError("not now")
        self.seen += [commit.zxid for commit in batch]

    def on_gap(self, after_zxid: int, upto_zxid: int, reason: str) -> None:
        self.gaps.append((after_zxid, upto_zxid, reason))

    def close(self) -> None:
        self.closed = True


def await_(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.002)


Run = Callable[..., ObserverRunner]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    runners: list[ObserverRunner] = []

    def start(
        log: Log, *observers: CommitObserver, upto: int = 0, **options: Any
    ) -> ObserverRunner:
        loaded = [
            Loaded(Source(f"observer.{observer.name}", "acme", "1"), observer)
            for observer in observers
        ]
        options = {"decode": decode, "back_off_s": 0.001, **options}
        runner = ObserverRunner(loaded, log.read, tmp_path / "cursors", **options)
        runners.append(runner)
        runner.start(upto)
        return runner

    yield start
    for runner in runners:
        runner.stop(DEADLINE_S)


def cursor(tmp_path: Path, name: str = "recorder") -> Cursor | None:
    return CursorFile(tmp_path / "cursors", name).load()


def test_all_commits_come_in_order_in_batches(run: Run) -> None:
    observer = Recorder()
    runner = run(Log(*range(1, 101)), observer, batch_max=7)
    runner.committed(60)
    await_(lambda: len(observer.seen) == 60)
    runner.committed(100)
    await_(lambda: len(observer.seen) == 100)
    assert observer.seen == list(range(1, 101))


def test_what_is_not_committed_is_not_handed_over(run: Run) -> None:
    observer = Recorder()
    runner = run(Log(1, 2, 3), observer)
    runner.committed(2)
    await_(lambda: observer.seen == [1, 2])
    runner.committed(1)
    runner.stop(DEADLINE_S)
    assert observer.seen == [1, 2]
    assert observer.closed


def test_without_a_cursor_an_observer_begins_with_what_comes_next(run: Run) -> None:
    observer = Recorder(from_oldest=False)
    runner = run(Log(1, 2, 3), observer, upto=2)
    runner.committed(3)
    await_(lambda: observer.seen == [3])


def test_an_observer_goes_on_behind_its_cursor_after_a_restart(run: Run, tmp_path: Path) -> None:
    log = Log(1, 2, 3)
    run(log, Recorder()).committed(2)
    await_(lambda: cursor(tmp_path) == Cursor(2))
    again = Recorder()
    run(log, again, upto=3)
    await_(lambda: again.seen == [3])


def test_a_batch_is_handed_over_again_until_it_is_taken(run: Run, tmp_path: Path) -> None:
    observer = Recorder()
    observer.failures = 3
    faults = Faults()
    runner = run(Log(1, 2), observer, faults=faults)
    runner.committed(2)
    await_(lambda: observer.seen == [1, 2])
    assert faults.counts == {("observer.recorder", "raised"): 3}
    assert runner.statistics()[0].retries == 3
    await_(lambda: cursor(tmp_path) == Cursor(2))


def test_a_batch_that_was_not_taken_comes_again_after_a_restart(run: Run, tmp_path: Path) -> None:
    observer = Recorder()
    observer.failures = 1_000_000
    runner = run(Log(1, 2), observer)
    runner.committed(2)
    await_(lambda: runner.statistics()[0].retries > 2)
    runner.stop(DEADLINE_S)
    assert cursor(tmp_path) == Cursor(0)
    again = Recorder()
    run(Log(1, 2), again, upto=2)
    await_(lambda: again.seen == [1, 2])


def test_one_observer_that_blocks_or_fails_holds_up_no_other(run: Run) -> None:
    blocked, failing, good = Recorder("blocked"), Recorder("failing"), Recorder("good")
    blocked.gate.clear()
    failing.failures = 1_000_000
    runner = run(Log(*range(1, 50)), blocked, failing, good)
    runner.committed(49)
    await_(lambda: len(good.seen) == 49)
    await_(lambda: runner.statistics()[0].waiting_s > 0)
    await_(lambda: runner.statistics()[1].retries > 0)
    assert blocked.seen == failing.seen == []
    assert runner.statistics()[2].zxid == 49
    blocked.gate.set()
    await_(lambda: len(blocked.seen) == 49)


def test_one_that_does_not_end_is_left_behind_and_named(run: Run) -> None:
    observer = Recorder()
    observer.gate.clear()
    faults = Faults()
    runner = run(Log(1), observer, faults=faults)
    runner.committed(1)
    await_(lambda: runner.statistics()[0].waiting_s > 0)
    runner.stop(0.01)
    assert faults.counts == {("observer.recorder", "late"): 1}
    observer.gate.set()


def test_an_observer_is_told_what_the_purge_has_taken_from_it(run: Run) -> None:
    log = Log(7, 8)
    log.purged = 6
    observer = Recorder()
    run(log, observer).committed(8)
    await_(lambda: observer.seen == [7, 8])
    assert observer.gaps == [(0, 6, "the log was purged")]


def test_a_cursor_of_another_history_is_not_used(run: Run, tmp_path: Path) -> None:
    run(Log(1, 2, 3), Recorder(), history="a").committed(3)
    await_(lambda: cursor(tmp_path) == Cursor(3, "a"))
    again = Recorder()
    run(Log(1, 2), again, upto=2, history="b")
    await_(lambda: again.seen == [1, 2])
    assert again.gaps == [(3, 0, "the server's history was replaced")]
    await_(lambda: cursor(tmp_path) == Cursor(2, "b"))


def test_a_damaged_cursor_is_reported_and_replaced(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "cursors"
    folder.mkdir()
    (folder / "recorder.cursor").write_text("rubbish")
    observer, faults = Recorder(), Faults()
    run(Log(1), observer, upto=1, faults=faults)
    await_(lambda: observer.seen == [1])
    assert faults.counts == {("observer.recorder", "cursor"): 1}


def test_a_log_that_cannot_be_read_is_asked_again(run: Run) -> None:
    log, observer, faults = Log(1), Recorder(), Faults()
    log.fail = OSError("disk")
    run(log, observer, faults=faults).committed(1)
    await_(lambda: observer.seen == [1])
    assert faults.counts == {("observer.recorder", "log"): 1}


def test_a_cursor_that_cannot_be_written_costs_repetition_not_progress(
    run: Run, tmp_path: Path
) -> None:
    (tmp_path / "cursors" / "recorder.new").mkdir(parents=True)
    observer, faults = Recorder(), Faults()
    run(Log(1, 2), observer, faults=faults).committed(2)
    await_(lambda: observer.seen == [1, 2])
    await_(lambda: ("observer.recorder", "cursor") in faults.counts)


def test_two_observers_of_one_name_would_share_a_cursor_so_the_second_is_refused(run: Run) -> None:
    first, second, faults = Recorder(), Recorder(), Faults()
    run(Log(1), first, second, faults=faults).committed(1)
    await_(lambda: first.seen == [1])
    assert second.seen == []
    assert faults.counts == {("observer.recorder", "hook"): 1}


class Metered(Recorder):
    def __init__(self, name: str, answer: Callable[[], Any]) -> None:
        super().__init__(name)
        self._answer = answer

    def metrics(self) -> Any:
        return self._answer()


def test_metrics_of_observers_are_taken_if_they_are_families_called_zkd(run: Run) -> None:
    family = MetricFamily("zkd_x_total", "counter", "x", "", {"": 1})
    foreign = MetricFamily("znode_count", "gauge", "x", "", {"": 1})

    def fail() -> Any:
        raise RuntimeError("no")

    runner = run(
        Log(),
        Metered("a", lambda: [family, foreign, 7]),
        Metered("b", fail),
        Metered("c", lambda: 7),
    )
    assert runner.metrics() == [family]


def test_the_cursor_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    file = CursorFile(tmp_path, "x")
    assert file.load() is None
    for zxid in (0, 5, 1 << 62):
        file.save(Cursor(zxid, "h"))
        assert file.load() == Cursor(zxid, "h")
    assert [path.name for path in tmp_path.iterdir()] == ["x.cursor"]
    file.path.write_text('{"zxid": 5}')
    with pytest.raises(ValueError, match="not a cursor"):
        file.load()
