"""The table: complete, unambiguous, and the documents that are made from it."""

from __future__ import annotations

import dataclasses
import json
import re
from operator import attrgetter
from pathlib import Path

import pytest
from click.testing import CliRunner

from zkd.cli.config import config as command
from zkd.config import Config, Level, keys, load
from zkd.config.document import differences, markdown, sample
from zkd.config.key import Action
from zkd.config.pending import is_pending
from zkd.config.resolve import BUILT_IN_PROVIDERS

ROOT = Path(__file__).parents[3]
DOCUMENT = ROOT / "docs" / "configuration.md"
SAMPLE = ROOT / "conf" / "standalone.cfg"

REFERENCE = (Path(__file__).parent / "reference_keys.txt").read_text().split()


@pytest.mark.parametrize("name", REFERENCE)
def test_every_key_of_the_reference_is_known_with_and_without_prefix(name: str) -> None:
    """The keys of QuorumPeerConfig.java and the properties that the server's classes ask for."""
    found = keys.find(name)
    assert found is not None
    assert keys.find(f"zookeeper.{name}") is found


@pytest.mark.parametrize("name", ["server.1", "group.1", "weight.1", "version"])
def test_lines_of_the_membership_are_no_keys(name: str) -> None:
    assert keys.find(name) is None


def test_a_row_says_all_that_it_must() -> None:
    for key in keys.TABLE:
        assert key.section
        assert key.help.endswith("."), key.name
        if key.action is Action.APPLY or key.own:
            assert key.attribute, key.name
        else:
            assert key.note, key.name
        if key.own:
            assert re.fullmatch(r"[a-z0-9.]+\*?", key.name), key.name
        assert key.default is not None or key.default_text or key.action is Action.IGNORE, key.name


def test_every_attribute_of_the_table_is_one_of_the_configuration(tmp_path: Path) -> None:
    config = load(None, {"dataDir": str(tmp_path)})
    for key in keys.TABLE:
        if key.attribute:
            attrgetter(key.attribute)(config)


def test_secrets_never_show(tmp_path: Path) -> None:
    secret = [key for key in keys.TABLE if key.secret]
    assert secret
    config = load(None, {"dataDir": str(tmp_path), **{key.name: "s3cret" for key in secret}})
    assert "s3cret" not in repr(config)
    path = tmp_path / "zoo.cfg"
    lines = [f"{key.name}=s3cret" for key in secret] + ["plugin.x.password=s3cret"]
    path.write_text("\n".join([f"dataDir={tmp_path}", "clientPort=1", *lines]))
    for options in ([], ["--json"], ["--all"]):
        result = CliRunner().invoke(command, ["check", str(path), *options])
        assert result.exit_code == 0
        assert "s3cret" not in result.output


def test_unknown_names_find_their_nearest() -> None:
    assert keys.nearest("clientport") == "clientPort"
    assert keys.nearest("zookeeper.tickTme") == "tickTime"
    assert keys.nearest("qqqqqq") is None


def test_differences_from_the_reference_stand_in_one_place() -> None:
    assert {key.name for key in differences()} == {
        "autopurge.purgeInterval",
        "admin.serverAddress",
    }


def test_the_document_holds_the_table() -> None:
    """Mend it by: zkd config keys, between the two marks of docs/configuration.md."""
    text = DOCUMENT.read_text()
    begin, end = "<!-- keys: begin -->\n", "<!-- keys: end -->"
    assert text[text.index(begin) + len(begin) : text.index(end)] == markdown()


def test_the_sample_is_made_from_the_table() -> None:
    """Mend it by: zkd config sample > conf/standalone.cfg."""
    assert SAMPLE.read_text() == sample()


def test_the_sample_starts_a_standalone_server_and_shows_the_defaults(tmp_path: Path) -> None:
    config = load(SAMPLE, strict=True)
    assert config.warnings == ()
    assert config.standalone
    text = re.sub(r"(?m)^#(?=[\w.*-]+=\S)", "", SAMPLE.read_text())
    path = tmp_path / "standalone.cfg"
    path.write_text(text)
    everything = load(path, strict=True)
    left_out = {"raw", "source", "warnings"}
    for field in dataclasses.fields(Config):
        if field.name not in left_out:
            expected, found = getattr(config, field.name), getattr(everything, field.name)
            assert found == expected, field.name


ACTED_ON_HERE = frozenset(
    """secure_client_port_address pre_alloc_bytes snap_count snap_size_limit_bytes
    txn_log_size_limit_bytes autopurge_purge_interval peer_type dynamic_config_file
    standalone_enabled multi_address_enabled four_letter_loopback_whitelist
    four_letter_loopback_networks plugin_settings""".split()  # noqa: SIM905
)
"""Attributes that `zkd.config` itself turns into what the server reads."""


def sources() -> str:
    """The code that may read the configuration."""
    found = [*(ROOT / "zkd").rglob("*.py"), *(ROOT / "plugins").rglob("*.py")]
    left_out = (ROOT / "zkd" / "config", ROOT / "zkd" / "server" / "limits.py")
    return "\n".join(
        path.read_text() for path in found if not any(path.is_relative_to(out) for out in left_out)
    )


def used_limits(code: str) -> str:
    """The source of those classes of limits.py that the code uses."""
    text = (ROOT / "zkd" / "server" / "limits.py").read_text()
    classes = re.split(r"(?m)^class ", text)[1:]
    names = {one: re.split(r"[(:]", one)[0] for one in classes}
    used = [one for one, name in names.items() if re.search(rf"\b{name}\b", code)]
    inner = [one for one, name in names.items() if any(f"{name}.of(" in other for other in used)]
    return "".join(used + inner)


def test_what_is_not_acted_on_yet_is_said() -> None:
    """Whoever makes the server read a key removes it from zkd/config/pending.py."""
    code = sources()
    everywhere = code + used_limits(code)
    silent, stale = [], []
    for key in keys.TABLE:
        if not key.attribute or key.action is Action.REFUSE or key.attribute in ACTED_ON_HERE:
            continue
        leaf, name = re.escape(key.attribute), re.escape(key.name.rstrip("*"))
        tail = re.escape(key.name.partition(".")[2] or key.name)
        read = re.search(rf"""\.{leaf}\b|["']{leaf}["']|"{name}|PREFIX \+ "{tail}""", everywhere)
        if not is_pending(key) and not read:
            silent.append(key.name)
        if is_pending(key) and re.search(rf"\b(config|settings)\.{leaf}\b", everywhere):
            stale.append(key.name)
    assert silent == [], "nobody reads these: add them to pending.py"
    assert stale == [], "these are read: remove them from pending.py"


def test_a_key_that_is_not_acted_on_yet_warns_unless_it_says_the_default(tmp_path: Path) -> None:
    told = {"dataDir": str(tmp_path), "pathStats.delay": "9", "jvm.pause.monitor": "true"}
    [warning] = load(None, {**told, "initLimit": "5"}).warnings
    words = "this version does not act on these keys yet: pathStats.delay, jvm.pause.monitor"
    assert warning.what == words
    assert warning.level is Level.WARNING


def run(*arguments: str, status: int = 0) -> str:
    result = CliRunner().invoke(command, list(arguments))
    assert result.exit_code == status, result.output
    return result.output


def test_check_explains_what_is_set(tmp_path: Path) -> None:
    path = tmp_path / "zoo.cfg"
    path.write_text("dataDir=/var/lib/zkd\nclientPort=2181\ntickTime=2000\nsnpCount=1\n")
    output = run("check", str(path))
    for part in ("tickTime", "2s", "line 3", "unknown key snpCount", "did you mean snapCount?"):
        assert part in output
    assert "maxClientCnxns" not in output
    assert "maxClientCnxns" in run("check", str(path), "--all")
    assert "1 to be corrected" in run("check", str(path), "--strict", status=1)
    assert "3s" in run("check", str(path), "--set", "tickTime=3s")


def test_check_as_json(tmp_path: Path) -> None:
    path = tmp_path / "zoo.cfg"
    path.write_text("dataDir=/var/lib/zkd\nclientPort=x\n")
    report = json.loads(run("check", "--json", str(path), status=1))
    assert report["ok"] is False
    assert [key["key"] for key in report["keys"]] == ["clientPort", "dataDir"]
    [finding] = report["findings"]
    assert finding["level"] == "error"
    assert finding["where"] == f"{path}:2"


def test_check_knows_the_plugins(tmp_path: Path) -> None:
    path = tmp_path / "zoo.cfg"
    path.write_text("dataDir=/var/lib/zkd\nclientPort=1\nauthProvider.1=plugin:missing\n")
    assert "auth.missing" in run("check", str(path), status=1)


def test_the_classes_that_are_known_are_those_of_the_plugins() -> None:
    loader = pytest.importorskip("zkd.plugins.loader")
    assert set(loader.JAVA_PROVIDERS) == set(BUILT_IN_PROVIDERS)
