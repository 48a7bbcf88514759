"""The log: lines that cannot be mistaken, levels, destinations, repetition, forks."""

from __future__ import annotations

import json
import logging
import os
import re
import socket
import timeit
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zkd.errors import OperatorError
from zkd.server import logs
from zkd.server.logformat import LEVELS, VALUE_MAX, Event, as_json, as_text
from zkd.server.logsettings import LogSettings, Output, parse_settings, read_settings

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """Each test begins and ends with the settings of a process that has called nothing."""
    logs.setup(None)
    yield
    logs._root.monotonic = __import__("time").monotonic
    logs.setup(None)


def configure(folder: Path, text: str, **more: Any) -> Path:
    path = folder / "logging.yaml"
    path.write_text(text)
    logs.setup(path, **more)
    return path


def to_file(folder: Path, extra: str = "", levels: str = "") -> Path:
    """Log to a file; its path."""
    target = folder / "zkd.log"
    text = f"{levels}\noutputs:\n  - to: file\n    path: {target}\n{extra}"
    configure(folder, text)
    return target


def event(**fields: Any) -> Event:
    return Event(1_700_000_000.25, LEVELS["warning"], "zoo", "frontend 1", 42, "a.b", fields)


# -- format --------------------------------------------------------------------------------------


def test_a_line_of_text() -> None:
    line = as_text(event(client="10.0.0.7:51234", reason="too many", count=3, ok=True, none=None))
    assert line == (
        "2023-11-14T22:13:20.250Z WARNING  frontend-1 a.b client=10.0.0.7:51234 "
        'reason="too many" count=3 ok=true none=-'
    )


def test_a_line_of_json() -> None:
    record = json.loads(as_json(event(client="x y", count=3, ok=True, time="z", none=None)))
    assert record == {
        "time": "2023-11-14T22:13:20.250Z",
        "level": "warning",
        "server": "zoo",
        "process": "frontend 1",
        "pid": 42,
        "event": "a.b",
        "client": "x y",
        "count": 3,
        "ok": True,
        "time_": "z",
        "none": None,
    }


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("session", 0x1000ABC, "0x1000abc"),
        ("session", -1, "0xffffffffffffffff"),
        ("last_zxid", 1 << 32, "0x100000000"),
        ("bytes", b"a\xff", '"a\\\\xff"'),
        ("path", Path("/a b"), '"/a b"'),
        ("seconds", 0.1234567890, "0.123457"),
        ("names", ("a", "b"), "a,b"),
        ("error", ValueError("x y"), '"ValueError: x y"'),
        ("empty", "", '""'),
        ("path", "/köln", '"/köln"'),
        ("quote", 'a"b\\c', '"a\\"b\\\\c"'),
        ("equals", "a=b", '"a=b"'),
        ("line", "a\nb", '"a\\nb"'),
        ("line", "a\r\x1b[31m\x85\u2028\u202e", '"a\\r\\u001b[31m\\u0085\\u2028\\u202e"'),
        ("password", "x", "***"),
        ("super_secret", "x", "***"),
        ("auth_token", "x", "***"),
        ("tokens", 5, "5"),
    ],
)
def test_a_value_in_text(key: str, value: Any, text: str) -> None:
    assert as_text(event(**{key: value})).endswith(f" a.b {key}={text}")


def test_long_values_are_cut() -> None:
    line = as_text(event(data="x" * (VALUE_MAX + 10)))
    assert line.endswith('x...(10 more)"')
    assert len(line) < VALUE_MAX + 100


@given(st.text())
def test_no_value_fakes_a_line_or_a_field(value: str) -> None:
    """The value can be taken out again; nothing in it ends the line or begins a field."""
    line = as_text(event(before=value, after="end"))
    assert line.isprintable()
    assert len(line.splitlines()) == 1
    match = re.fullmatch(r'.* a\.b before=("(?:[^"\\]|\\.)*"|[^" =]+) after=end', line)
    assert match
    shown = match[1]
    if shown.startswith('"'):
        assert json.loads(shown) == value or len(value) > VALUE_MAX
    else:
        assert shown == value
    assert "secret" not in as_json(event(password="secret"))
    json.loads(as_json(event(before=value)))


# -- levels --------------------------------------------------------------------------------------


def test_levels_by_process_and_by_event(tmp_path: Path) -> None:
    target = to_file(
        tmp_path,
        levels="level: warning\nlevels:\n  frontend: debug\n  frontend.noise: error\n"
        "  session: info\n",
    )
    front, peer = logs.get("frontend 1"), logs.get("peer")
    front.debug("a.b", n=1)
    front.info("frontend.noise", n=2)
    front.debug("session.opened", n=3)
    peer.info("a.b", n=4)
    peer.info("session.opened", n=5)
    peer.debug("session.opened", n=6)
    peer.info("sessions.opened", n=7)
    peer.warning("a.b", n=8)
    assert re.findall(r"n=(\d)", target.read_text()) == ["1", "5", "8"]


def test_a_level_that_is_off_costs_next_to_nothing() -> None:
    log = logs.get("peer")
    assert not log.enabled("debug")
    seconds = min(timeit.repeat(lambda: log.debug("a.b", x=1), number=10_000, repeat=5))
    assert seconds / 10_000 < 5e-6


def test_levels_change_at_run_time(tmp_path: Path) -> None:
    target = to_file(tmp_path)
    log = logs.get("peer")
    log.debug("a.one")
    path = tmp_path / "logging.yaml"
    before = path.read_text()
    path.write_text("level: debug\n" + before)
    logs.reload()
    log.debug("a.two")
    path.write_text("level: loud\n")
    with pytest.raises(OperatorError, match="loud is no level"):
        logs.reload()
    log.debug("a.three")
    path.write_text(before)
    logs.reload()
    log.debug("a.four")
    assert re.findall(r"a\.\w+", target.read_text()) == ["a.two", "a.three"]


# -- destinations --------------------------------------------------------------------------------


def test_several_destinations_with_levels_of_their_own(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    text = (
        "outputs:\n  - to: stderr\n    level: error\n  - to: stdout\n    format: json\n"
        f"  - to: file\n    path: {tmp_path}/{{server}}.log\n"
    )
    configure(tmp_path, text, server="zoo")
    log = logs.get("storage")
    log.info("a.one")
    log.error("a.two")
    out, err = capfd.readouterr()
    assert [json.loads(line)["event"] for line in out.splitlines()] == ["a.one", "a.two"]
    assert "a.one" not in err
    assert "a.two" in err
    assert (tmp_path / "zoo.log").read_text().count("\n") == 2


def test_priorities_for_the_journal(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(tmp_path, "outputs: [{to: stderr, priorities: yes}]\n")
    logs.get("peer").warning("a.b", x=1)
    monkeypatch.setenv("JOURNAL_STREAM", "8:1")
    configure(tmp_path, "outputs: [{to: stderr, priorities: auto}]\n")
    logs.get("peer").critical("a.b")
    monkeypatch.delenv("JOURNAL_STREAM")
    configure(tmp_path, "outputs: [{to: stderr}]\n")
    logs.get("peer").error("a.b")
    first, second, third = capfd.readouterr().err.splitlines()
    assert first == "<4>WARNING  peer a.b x=1"
    assert second == "<2>CRITICAL peer a.b"
    assert third.startswith("20")


def test_syslog(tmp_path: Path) -> None:
    address = tmp_path / "log"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(address))
        configure(tmp_path, f"outputs: [{{to: syslog, address: {address}, tag: test}}]\n")
        logs.get("peer").error("a.b", x="y z")
        line = listener.recv(4096).decode()
    assert line == f'<27>test[{os.getpid()}]: ERROR    peer a.b x="y z"'
    logs.get("peer").error("a.c")
    assert logs.lost() == 1


def test_a_file_is_rotated(tmp_path: Path) -> None:
    target = to_file(tmp_path, "    size: 4KB\n    keep: 2\n")
    log = logs.get("peer")
    configure(tmp_path, "rate: 0\n" + (tmp_path / "logging.yaml").read_text())
    for number in range(1000):
        log.info("a.b", number=number, text="x" * 40)
    files = sorted(path.name for path in tmp_path.glob("zkd.log*"))
    assert files == ["zkd.log", "zkd.log.1", "zkd.log.2", "zkd.log.lock"]
    text = "".join((tmp_path / name).read_text() for name in ("zkd.log.2", "zkd.log.1", "zkd.log"))
    numbers = [int(number) for number in re.findall(r"number=(\d+)", text)]
    assert numbers == list(range(numbers[0], 1000))
    assert target.stat().st_size < 20_000
    assert logs.lost() == 0


def test_a_file_that_was_moved_is_opened_again(tmp_path: Path) -> None:
    target = to_file(tmp_path, "    size: 0\n")
    log = logs.get("peer")
    log.info("a.before")
    target.rename(tmp_path / "moved")
    for number in range(100):
        log.info("a.after", per=number)
    assert "a.after" in target.read_text()
    assert "a.before" in (tmp_path / "moved").read_text()


def test_processes_share_a_file_and_rotate_it_once(tmp_path: Path) -> None:
    """Four processes write; no line is torn, none is lost."""
    target = to_file(tmp_path, "    size: 16KB\n    keep: 100\n", levels="rate: 0\n")
    children = []
    for name in range(4):
        pid = os.fork()
        if pid == 0:
            logs.setup(tmp_path / "logging.yaml", "child")
            log = logs.get(f"frontend {name}")
            for number in range(300):
                log.info("a.b", number=number, text="x" * 50)
            os._exit(0)
        children.append(pid)
    for pid in children:
        assert os.waitpid(pid, 0)[1] == 0
    lines = [
        line
        for path in tmp_path.glob("zkd.log*")
        if path.suffix != ".lock"
        for line in path.read_text().splitlines()
    ]
    pattern = r"\S+ INFO     frontend-(\d) a\.b number=(\d+) text=x{50}"
    found = [re.fullmatch(pattern, line) for line in lines]
    assert all(found)
    seen = {(match[1], match[2]) for match in found if match}
    assert len(lines) == len(seen) == 4 * 300
    assert target.exists()


def test_a_stream_that_is_gone_loses_lines_and_nothing_else(tmp_path: Path) -> None:
    configure(tmp_path, "outputs: [{to: stderr}]\n")
    sink = logs._root.sinks[0]
    reader, writer = os.pipe()
    os.close(reader)
    sink.fd = writer  # type: ignore[attr-defined]
    logs.get("peer").info("a.b")
    os.close(writer)
    assert logs.lost() == 1


# -- repetition ----------------------------------------------------------------------------------


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    clock = Clock()
    logs._root.monotonic = clock
    return clock


def test_repeated_events_become_one_line_with_a_count(tmp_path: Path, clock: Clock) -> None:
    target = to_file(tmp_path, levels="rate: 2\n")
    log = logs.get("peer")
    for number in range(5):
        log.warning("a.b", number=number)
    log.warning("a.c")
    clock.now += 1.1
    log.warning("a.b", number=9)
    tails = [line.split(" peer ")[1] for line in target.read_text().splitlines()]
    assert tails == ["a.b number=0", "a.b number=1", "a.c", "a.b repeated=3", "a.b number=9"]


def test_a_count_is_told_without_another_event(tmp_path: Path, clock: Clock) -> None:
    target = to_file(tmp_path, levels="rate: 1\n")
    log = logs.get("peer")
    log.info("a.b", per="10.0.0.1")
    log.info("a.b", per="10.0.0.1")
    logs.tick()
    assert "repeated" not in target.read_text()
    clock.now += 2
    logs.tick()
    assert "a.b per=10.0.0.1 repeated=1" in target.read_text()
    log.info("a.b", per="10.0.0.1")
    log.info("a.b", per="10.0.0.1")
    logs.flush()
    assert target.read_text().count("repeated=1") == 2


def test_keys_are_counted_apart_and_are_bounded(tmp_path: Path, clock: Clock) -> None:
    target = to_file(tmp_path, levels="rate: 1\n")
    log = logs.get("peer")
    for number in range(10_000):
        log.info("a.b", per=number)
    assert target.read_text().count("\n") == logs._KEYS_MAX + 1
    assert len(logs._root.limiter._windows) == logs._KEYS_MAX + 1
    clock.now += 2
    logs.tick()
    assert len(logs._root.limiter._windows) == 0


def test_debug_lines_are_never_left_out(tmp_path: Path, clock: Clock) -> None:
    target = to_file(tmp_path, levels="rate: 1\nlevel: debug\n")
    for _ in range(10):
        logs.get("peer").debug("a.b")
    assert target.read_text().count("a.b") == 10


# -- others --------------------------------------------------------------------------------------


def test_an_exception_is_one_line(tmp_path: Path) -> None:
    target = to_file(tmp_path)
    log = logs.get("peer")
    try:
        raise ValueError("bad\nvalue")
    except ValueError as error:
        log.exception("a.one", error, zxid=255)
        log.exception("a.two")
    log.exception("a.three")
    one, two, three = target.read_text().splitlines()
    assert 'a.one error="ValueError: bad\\nvalue" zxid=0xff trace="Traceback' in one
    assert "in test_an_exception_is_one_line" in two
    assert three.endswith(" a.three")


def test_warnings_of_libraries_become_events(tmp_path: Path) -> None:
    target = to_file(tmp_path)
    logs.setup(tmp_path / "logging.yaml", "admin")
    logging.getLogger("some.library").warning("took %d s", 3)
    logging.getLogger("some.library").info("not this")
    [line] = target.read_text().splitlines()
    assert line.endswith(' WARNING  admin library.message library=some.library text="took 3 s"')


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ([], "the file is not a mapping"),
        ({"colour": 1}, "unknown key colour"),
        ({"level": 3}, "level: 3 is no level"),
        ({"levels": ["x"]}, "levels is not a mapping"),
        ({"levels": {"x": "loud"}}, r"levels\.x: loud"),
        ({"rate": -1}, "rate: -1"),
        ({"rate": True}, "rate: True"),
        ({"outputs": {}}, "outputs is not a list"),
        ({"outputs": ["x"]}, "entry 1 is not a mapping"),
        ({"outputs": [{}, {"to": "moon"}]}, "entry 2: to: moon"),
        ({"outputs": [{"format": "xml"}]}, "format: xml"),
        ({"outputs": [{"to": "file"}]}, "a file needs a path"),
        ({"outputs": [{"size": "big"}]}, "size: 'big'"),
        ({"outputs": [{"keep": "x"}]}, "keep: x"),
        ({"outputs": [{"priorities": "maybe"}]}, "priorities: maybe"),
        ({"outputs": [{"speed": 1}]}, "unknown key speed"),
    ],
)
def test_a_file_that_is_wrong_is_refused(content: Any, fault: str) -> None:
    with pytest.raises(OperatorError, match=fault) as caught:
        parse_settings(content, "x.yaml")
    assert caught.value.where == "x.yaml"


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match="cannot be read"):
        logs.setup(tmp_path / "none.yaml")
    with pytest.raises(OperatorError, match="is not YAML"):
        configure(tmp_path, "a: [\n")
    with pytest.raises(OperatorError, match="the log file cannot be opened"):
        configure(tmp_path, "outputs: [{to: file, path: /dev/null/x}]\n")
    configure(tmp_path, "")


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5), st.lists))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_content_raises_anything_else(content: Any) -> None:
    for one in (content, {"outputs": [{"to": content}]}, {"level": content}, {"rate": content}):
        try:
            parse_settings(one, "x")
        except OperatorError:
            pass


def test_the_sample_is_the_default() -> None:
    sample = read_settings(ROOT / "conf" / "logging.yaml")
    assert sample.level == LEVELS["info"]
    assert sample.rate == LogSettings().rate
    assert [(output.to, output.format) for output in sample.outputs] == [("stderr", "text")]


def test_everything_in_the_sample_can_be_switched_on() -> None:
    """A `#` that one blank and a word follow begins a sentence; any other hides an example."""
    text = (ROOT / "conf" / "logging.yaml").read_text()
    sample = parse_settings(yaml.safe_load(re.sub(r"(?m)^  #(?! \S)", "  ", text)), "sample")
    assert [output.to for output in sample.outputs] == ["stderr", "file", "syslog"]
    assert sample.outputs[1] == Output(to="file", format="json", path="/var/log/zkd/{server}.log")
    assert sample.outputs[2].level == LEVELS["warning"]
    assert sample.levels["client.rejected"] == LEVELS["error"]
