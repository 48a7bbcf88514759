"""Audit: the queue that never blocks, and the file's lines."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

import zkd_audit_log as audit
from zkd.admin.audit import AuditDispatcher, acl_text
from zkd.plugins.api import AuditEvent, AuditSink
from zkd.plugins.guard import Faults, Source
from zkd.plugins.loader import Loaded

DEADLINE_S = 20.0
EVENT = AuditEvent(
    "create", "success", 1_700_000_000_123, user="127.0.0.1,ann", session=0x19344730000,
    ip="127.0.0.1", znode="/a", znode_type="persistent", zxid=0x100000005,
)  # fmt: skip


class Sink(AuditSink):
    def __init__(self, name: str = "test") -> None:
        self.name = name
        self.seen: list[AuditEvent] = []
        self.gate = threading.Event()
        self.gate.set()
        self.fails = False
        self.closed = False

    def write(self, event: AuditEvent) -> None:
        assert self.gate.wait(DEADLINE_S)
        if self.fails:
            raise OSError("disk")
        self.seen.append(event)

    def close(self) -> None:
        self.closed = True


def loaded(sink: AuditSink) -> Loaded[AuditSink]:
    return Loaded(Source(f"audit.{sink.name}", "acme", "1"), sink)


def await_(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.002)


def has(sink: Sink, events: int) -> bool:
    return len(sink.seen) == events


def test_every_sink_gets_every_event_in_order_and_stop_writes_out_the_queue() -> None:
    sinks = [Sink("a"), Sink("b")]
    dispatcher = AuditDispatcher([loaded(sink) for sink in sinks])
    assert dispatcher.active
    events = [replace(EVENT, znode=f"/{n}") for n in range(100)]
    for event in events:
        dispatcher.emit(event)
    dispatcher.stop(DEADLINE_S)
    assert [sink.seen for sink in sinks] == [events, events]
    assert all(sink.closed for sink in sinks)
    assert not AuditDispatcher([]).active


def test_a_sink_that_blocks_loses_its_own_events_only_and_that_is_counted() -> None:
    blocked, good, faults = Sink("blocked"), Sink("good"), Faults()
    blocked.gate.clear()
    dropped: list[str] = []
    dispatcher = AuditDispatcher(
        [loaded(blocked), loaded(good)], faults=faults, queue_max=10, on_drop=dropped.append
    )
    for n in range(50):
        dispatcher.emit(replace(EVENT, znode=f"/{n}"))
        await_(partial(has, good, n + 1))
    assert 39 <= dispatcher.dropped <= 40
    assert set(dropped) == {"blocked"}
    assert faults.counts == {("audit.blocked", "dropped"): dispatcher.dropped}
    blocked.gate.set()
    dispatcher.stop(DEADLINE_S)
    assert len(blocked.seen) == 50 - dispatcher.dropped


def test_a_sink_that_raises_is_counted_and_asked_again() -> None:
    sink, faults = Sink(), Faults()
    sink.fails = True
    dispatcher = AuditDispatcher([loaded(sink)], faults=faults)
    dispatcher.emit(EVENT)
    await_(lambda: faults.counts == {("audit.test", "raised"): 1})
    sink.fails = False
    dispatcher.emit(EVENT)
    dispatcher.stop(DEADLINE_S)
    assert sink.seen == [EVENT]


def test_a_sink_that_does_not_end_is_left_behind_and_named() -> None:
    sink, faults = Sink(), Faults()
    sink.gate.clear()
    dispatcher = AuditDispatcher([loaded(sink)], faults=faults)
    dispatcher.emit(EVENT)
    dispatcher.stop(0.05)
    assert faults.counts == {("audit.test", "late"): 1}
    sink.gate.set()


def test_a_line_is_the_one_of_apache() -> None:
    """As Slf4jAuditLogger and the appender RFAAUDIT write it."""
    assert audit.text_line(EVENT, utc=True) == (
        "2023-11-14 22:13:20,123 INFO audit.Slf4jAuditLogger: session=0x19344730000\t"
        "user=127.0.0.1,ann\tip=127.0.0.1\toperation=create\tznode=/a\tznode_type=persistent\t"
        "result=success"
    )


def test_a_failure_is_an_error_and_what_does_not_apply_is_left_out() -> None:
    event = AuditEvent("multiOperation", "failure", 0, session=-1)
    assert audit.text_line(event, utc=True) == (
        "1970-01-01 00:00:00,000 ERROR audit.Slf4jAuditLogger: "
        "session=0xffffffffffffffff\toperation=multiOperation\tresult=failure"
    )
    start = AuditEvent("serverStart", "success", 0, user="zk")
    assert audit.text_line(start, utc=True).endswith(
        "user=zk\toperation=serverStart\tresult=success"
    )


def test_nobody_can_forge_a_line() -> None:
    event = replace(EVENT, user="x\tresult=success\n2023", acl="digest:a\x85:r")
    line = audit.text_line(event)
    assert "user=x\\x09result=success\\x0a2023\t" in line
    assert "acl=digest:a\\x85:r\t" in line
    assert json.loads(audit.json_line(event))["user"] == "x\tresult=success\n2023"
    assert "\n" not in audit.json_line(event)


def test_json_lines_have_the_same_fields_and_the_zxid() -> None:
    assert json.loads(audit.json_line(EVENT)) == {
        "time_ms": 1_700_000_000_123,
        "session": "0x19344730000",
        "user": "127.0.0.1,ann",
        "ip": "127.0.0.1",
        "operation": "create",
        "znode": "/a",
        "znode_type": "persistent",
        "result": "success",
        "zxid": "0x100000005",
    }


def sink_of(config: dict[str, str]) -> AuditSink:
    (sink,) = audit.zkd_audit_sinks(config)
    return sink


def test_the_file_lies_beside_the_log_unless_told(tmp_path: Path) -> None:
    sink = sink_of({"dataDir": "/nowhere", "dataLogDir": str(tmp_path)})
    sink.write(EVENT)
    sink.write(EVENT)
    sink.close()
    assert len((tmp_path / "zookeeper_audit.log").read_text().splitlines()) == 2
    other = sink_of(
        {
            "plugin.audit.log.file": str(tmp_path / "other"),
            "plugin.audit.log.format": "json",
        }
    )
    other.write(EVENT)
    other.close()
    assert json.loads((tmp_path / "other").read_text())["znode"] == "/a"
    with pytest.raises(ValueError, match="neither text nor json"):
        sink_of({"plugin.audit.log.format": "xml"})


def test_a_full_file_is_renamed_and_two_processes_lose_no_line(tmp_path: Path) -> None:
    """Two sinks on one file, as two front-ends have them."""
    path = tmp_path / "audit.log"
    sinks = [audit.AuditLog(path, "json", max_bytes=2000, backups=50) for _ in range(2)]
    for n in range(100):
        sinks[n % 2].write(replace(EVENT, znode=f"/{n}"))
    for sink in sinks:
        sink.close()
    files = [file for file in tmp_path.iterdir() if not file.name.endswith(".lock")]
    assert len(files) > 5
    assert all(file.stat().st_size <= 2000 for file in files)
    znodes = [json.loads(line)["znode"] for file in files for line in file.read_text().splitlines()]
    assert sorted(znodes) == sorted(f"/{n}" for n in range(100))


def test_the_oldest_files_go(tmp_path: Path) -> None:
    sink = audit.AuditLog(tmp_path / "a", "json", max_bytes=500, backups=2)
    for _ in range(20):
        sink.write(EVENT)
    sink.close()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a", "a.1", "a.2", "a.lock"]


def test_a_file_that_somebody_moved_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    sink = audit.AuditLog(path)
    sink.write(EVENT)
    path.rename(tmp_path / "moved")
    sink.write(EVENT)
    sink.close()
    assert len(path.read_text().splitlines()) == 1


def test_an_acl_as_apache_writes_it() -> None:
    """ZKUtil.aclToString: entries one behind the other."""
    entries = [(31, "world", "anyone"), (1, "digest", "ann:x"), (6, "ip", None)]
    assert acl_text(entries) == "world:anyone:cdrwadigest:ann:x:rip::cw"
