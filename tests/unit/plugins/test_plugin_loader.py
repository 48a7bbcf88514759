"""The loader: what is imported where, and that nothing a plugin does comes out of it."""

from __future__ import annotations

import logging
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from zkd.errors import OperatorError
from zkd.plugins import hookspecs, loader
from zkd.plugins.api import KINDS

GOOD_AUTH = """
    from zkd.plugins.api import AuthProvider, hookimpl

    class Token(AuthProvider):
        scheme = "token"
        def authenticate(self, data, origin):
            return [("token", data.decode())]
        def is_valid(self, acl_id):
            return bool(acl_id)

    @hookimpl
    def zkd_auth_providers(config):
        return [Token()]
"""


def refusal(points: list[EntryPoint], role: Any = "frontend", **options: Any) -> str:
    plugins = loader.load({}, role, points, **options)
    assert plugins.auth == []
    (refused,) = plugins.refused
    return refused.reason


def test_a_plugin_is_found_by_its_metadata_and_loaded(make_plugin: Any) -> None:
    plugins = loader.load({}, "frontend", make_plugin("auth.token", GOOD_AUTH))
    assert [loaded.item.scheme for loaded in plugins.auth] == ["token"]
    assert str(plugins.auth[0].source) == "plugin auth.token (acme-auth-token 1.2)"
    assert not plugins.auth[0].source.shipped


def test_plugins_of_other_processes_are_not_imported(make_plugin: Any) -> None:
    points = make_plugin("auth.token", GOOD_AUTH)
    for role in ("admin", "snapshot"):
        assert loader.load({}, role, points).auth == []
    assert points[0].value not in sys.modules
    loader.load({}, "peer", points)
    assert points[0].value in sys.modules


@pytest.mark.parametrize("pattern", ["auth.token", "auth.*", "observer.x, *.token"])
def test_a_disabled_plugin_is_not_imported(make_plugin: Any, pattern: str) -> None:
    points = make_plugin("auth.token", GOOD_AUTH)
    config = {"plugins.disabled": pattern}
    assert loader.load(config, "frontend", points).refused == []
    assert points[0].value not in sys.modules
    assert [plugin.enabled for plugin in loader.installed(config, points)] == [False]


def test_an_exporter_is_imported_only_if_the_configuration_names_it(make_plugin: Any) -> None:
    points = make_plugin("metrics.statsd", "raise ValueError('imported')")
    assert loader.load({}, "admin", points).refused == []
    (refused,) = loader.load({"metrics.exporters": "statsd"}, "admin", points).refused
    assert refused.reason == "ValueError: imported"


def test_an_audit_sink_is_imported_only_with_audit_enable_and_its_name(make_plugin: Any) -> None:
    points = make_plugin("audit.kafka", "raise ValueError('imported')")
    named = {"audit.impl.class": "plugin:kafka"}
    assert loader.load(named, "frontend", points).refused == []
    assert loader.load({"audit.enable": "true"}, "frontend", points).refused[0].source.plugin == (
        "audit.log"
    )
    (refused,) = loader.load({"audit.enable": "true", **named}, "frontend", points).refused
    assert refused.reason == "ValueError: imported"


def test_a_named_exporter_that_is_not_installed_is_refused_in_the_log() -> None:
    (refused,) = loader.load({"metrics.exporters": "statsd"}, "admin", []).refused
    assert refused.source.plugin == "metrics.statsd"
    assert "metrics.exporters names it" in refused.reason


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("1/0", "ZeroDivisionError: division by zero"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("x = 1", "it does not implement zkd_auth_providers, the hook of its kind"),
        ("zkd_hookspec_version = 2", "it is written for hooks of version 2, zkd has 1"),
    ],
)
def test_a_plugin_that_cannot_be_imported_is_named_and_refused(
    make_plugin: Any, caplog: pytest.LogCaptureFixture, code: str, reason: str
) -> None:
    with caplog.at_level(logging.ERROR):
        assert refusal(make_plugin("auth.token", code)) == reason
    assert "plugin auth.token (acme-auth-token 1.2) is not used" in caplog.text


def hook(body: str, signature: str = "config", name: str = "zkd_auth_providers") -> str:
    return (
        "from zkd.plugins.api import AuthProvider, hookimpl\n"
        f"@hookimpl\ndef {name}({signature}):\n    {body}\n"
    )


@pytest.mark.parametrize(
    ("code", "part"),
    [
        (hook("return []", "config, colour"), "colour"),
        (hook("return []", name="zkd_auth_provider"), "unknown hook 'zkd_auth_provider'"),
        (hook("1/0"), "ZeroDivisionError"),
        (hook("return 7"), "zkd_auth_providers returned 7, not a list"),
        (hook("return ['digest']"), "zkd_auth_providers returned 'digest', no AuthProvider"),
        (hook("return [AuthProvider]"), "no AuthProvider"),
        (hook("return [AuthProvider()]"), "abstract"),
        (GOOD_AUTH.replace('"token"', "None"), "Token.scheme is None"),
        (GOOD_AUTH.replace('scheme = "token"', 'scheme = "a b"'), "Token.scheme is 'a b'"),
        (GOOD_AUTH.replace('scheme = "token"', "scheme = property(lambda s: 1 / 0)"), "ZeroDiv"),
        (hook("class E(Exception): __str__ = None\n    raise E"), "E"),
    ],
)
def test_a_hook_that_is_wrong_raises_or_returns_rubbish_is_refused(
    make_plugin: Any, code: str, part: str
) -> None:
    assert part in refusal(make_plugin("auth.token", code))


@pytest.mark.parametrize("where", ["at import", "in the hook"])
def test_a_plugin_that_blocks_is_given_up(make_plugin: Any, where: str) -> None:
    block = "import time\nwhile True: time.sleep(0.01)"
    code = block if where == "at import" else hook("import time\n    while True: time.sleep(0.01)")
    assert refusal(make_plugin("auth.token", code), limit_s=0.1) == (
        "import and hook did not end within 0.1 s"
    )


def test_one_bad_plugin_leaves_the_others_alone(make_plugin: Any) -> None:
    make_plugin("auth.bad", "1/0")
    points = make_plugin("auth.token", GOOD_AUTH)
    plugins = loader.load({}, "frontend", points)
    assert [loaded.item.scheme for loaded in plugins.auth] == ["token"]
    assert [refused.source.plugin for refused in plugins.refused] == ["auth.bad"]


@pytest.mark.parametrize("name", ["token", "colour.token", "auth.", "auth.a b"])
def test_an_entry_point_with_a_name_of_no_kind_is_refused(make_plugin: Any, name: str) -> None:
    assert "not KIND.NAME with KIND one of auth, observer" in refusal(make_plugin(name, GOOD_AUTH))


def test_of_two_plugins_with_one_name_the_second_is_refused(make_plugin: Any) -> None:
    make_plugin("auth.token", GOOD_AUTH, dist="acme-a")
    plugins = loader.load({}, "frontend", make_plugin("auth.token", GOOD_AUTH, dist="acme-b"))
    assert [loaded.source.distribution for loaded in plugins.auth] == ["acme-a"]
    assert plugins.refused[0].reason == "the name is taken by plugin auth.token (acme-a 1.2)"


@pytest.mark.parametrize("value", ["plugin:token", "plugin:auth.token", " plugin:token "])
def test_a_named_auth_plugin_that_is_missing_stops_the_start(value: str) -> None:
    with pytest.raises(OperatorError, match=r"auth plugin auth\.token cannot serve") as caught:
        loader.load({"authProvider.1": value}, "peer", [])
    assert caught.value.where == "authProvider.1"
    assert "not installed" in caught.value.what
    assert "zkd plugins" in caught.value.mend
    with pytest.raises(OperatorError):
        loader.check_required({"authProvider.1": value}, [])


def test_a_named_auth_plugin_that_is_disabled_or_broken_stops_the_start(make_plugin: Any) -> None:
    points = make_plugin("auth.token", "1/0")
    config = {"authProvider.token": "plugin:token"}
    with pytest.raises(OperatorError, match="division by zero"):
        loader.load(config, "frontend", points)
    with pytest.raises(OperatorError, match="switched off"):
        loader.load({**config, "plugins.disabled": "auth.token"}, "frontend", points)
    loader.check_required(config, points)


def test_apaches_classes_name_plugins_and_other_classes_are_refused() -> None:
    package = "org.apache.zookeeper.server.auth."
    config = {"authProvider.1": package + "SASLAuthenticationProvider"}
    assert loader.required_auth(config) == {"auth.sasl": "authProvider.1"}
    with pytest.raises(OperatorError, match=r"com\.acme\.Auth is no authentication provider"):
        loader.required_auth({"authProvider.2": "com.acme.Auth"})


def test_the_shipped_plugins_are_found_like_anybodys() -> None:
    names = {plugin.source.plugin for plugin in loader.installed({}) if plugin.source.shipped}
    assert names == {
        "auth.digest",
        "auth.ip",
        "observer.commit_counter",
        "snapshot.zkd",
        "metrics.prometheus",
        "audit.log",
    }


def test_every_kind_has_a_hook_a_class_a_process_and_a_section_in_the_docs() -> None:
    pages = (Path(__file__).parents[3] / "docs" / "plugins.md").read_text()
    assert set(hookspecs.HOOK_OF_KIND) == set(hookspecs.CLASS_OF_KIND) == set(KINDS)
    assert {kind for kinds in loader.KINDS_OF_ROLE.values() for kind in kinds} == set(KINDS)
    for kind in KINDS:
        name = hookspecs.HOOK_OF_KIND[kind]
        assert f"## `{name}`" in pages
        text = getattr(hookspecs, name).__doc__
        for promise in ("Runs in:", "May block:", "If ", "Shipped:"):
            assert promise in text
