"""The registry of schemes: built-in ones, providers, and the fence around them."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from zkd.plugins.api import AuthFailed, AuthProvider, Disconnect, Identity, Origin
from zkd.plugins.auth import LATE_MAX, AuthRegistry
from zkd.plugins.loader import PluginSet

ORIGIN = Origin("10.1.2.3", 4711)
Make = Callable[..., PluginSet]


class Token(AuthProvider):
    scheme = "token"

    def authenticate(self, data: bytes, origin: Origin) -> Sequence[Identity]:
        if data == b"wrong":
            raise AuthFailed
        return [("token", data.decode())]

    def is_valid(self, acl_id: str) -> bool:
        return acl_id.isalpha()


def registry(make: Make, provider: AuthProvider, **options: Any) -> AuthRegistry:
    return AuthRegistry(make(provider, **options), limit_s=0.05)


def test_world_anyone_is_everybody_and_nothing_else_of_world_is_valid() -> None:
    schemes = AuthRegistry(PluginSet())
    assert schemes.is_valid("world", "anyone")
    assert schemes.matches((), "world", "anyone")
    assert not schemes.is_valid("world", "someone")
    assert not schemes.matches((("world", "someone"),), "world", "someone")
    assert not schemes.is_authenticated("world")


@pytest.mark.parametrize("scheme", ["super", "auth", "nobody"])
def test_super_auth_and_unknown_schemes_cannot_be_written_into_an_acl(scheme: str) -> None:
    schemes = AuthRegistry(PluginSet())
    assert not schemes.is_valid(scheme, "")
    assert not schemes.matches((("super", ""),), scheme, "")
    with pytest.raises(AuthFailed):
        schemes.authenticate(scheme, b"", ORIGIN)
    assert schemes.user_name(scheme, "x") is None
    assert schemes.redact(scheme, "x:y") == "x:y"


def test_identities_match_only_entries_of_their_own_scheme(third_party: Make) -> None:
    schemes = registry(third_party, Token())
    mine = (("ip", "10.0.0.1"), ("token", "ann"))
    assert schemes.matches(mine, "token", "ann")
    assert not schemes.matches(mine, "token", "bob")
    assert not schemes.matches((("ip", "ann"),), "token", "ann")
    assert schemes.is_valid("token", "ann")
    assert not schemes.is_valid("token", "4711")
    assert schemes.is_authenticated("token")


def test_authenticate_gives_identities_or_raises_what_the_client_gets(third_party: Make) -> None:
    schemes = registry(third_party, Token())
    assert schemes.authenticate("token", b"ann", ORIGIN) == (("token", "ann"),)
    with pytest.raises(AuthFailed):
        schemes.authenticate("token", b"wrong", ORIGIN)
    with pytest.raises(AuthFailed):
        schemes.authenticate("token", b"\xff", ORIGIN)
    assert schemes.statistics()["token"]["raised"] == 1


class Guard(Token):
    def authenticate(self, data: bytes, origin: Origin) -> Sequence[Identity]:
        raise Disconnect


def test_a_provider_may_close_the_connection_without_an_answer(third_party: Make) -> None:
    with pytest.raises(Disconnect):
        registry(third_party, Guard()).authenticate("token", b"other cluster", ORIGIN)


class Broken(Token):
    """Every method does what `how` does."""

    def __init__(self, how: Callable[[], Any]) -> None:
        self.how = how

    def authenticate(self, data: bytes, origin: Origin) -> Any:
        return self.how()

    def on_connect(self, origin: Origin) -> Any:
        return self.how()

    def is_valid(self, acl_id: str) -> Any:
        return self.how()

    def matches(self, identity_id: str, acl_id: str) -> Any:
        return self.how()

    def user_name(self, identity_id: str) -> Any:
        return self.how()

    def redact(self, acl_id: str) -> Any:
        return self.how()


def boom() -> Any:
    raise KeyError("boom")


def leave() -> Any:
    raise SystemExit(1)


class Shy(Token):
    @property
    def is_authenticated(self) -> bool:  # type: ignore[override]
        raise KeyError("not now")


def test_a_provider_that_cannot_say_whether_it_authenticates_does_not(third_party: Make) -> None:
    schemes = registry(third_party, Shy())
    assert schemes.is_authenticated("token") is False
    assert schemes.statistics()["token"]["raised"] == 1


@pytest.mark.parametrize("shipped", [False, True])
@pytest.mark.parametrize("how", [boom, leave, lambda: 7, lambda: None, lambda: [("token",)]])
def test_what_raises_or_answers_rubbish_means_no(
    third_party: Make, how: Callable[[], Any], shipped: bool
) -> None:
    schemes = registry(third_party, Broken(how), shipped=shipped)
    assert schemes.is_valid("token", "ann") is False
    assert schemes.matches((("token", "ann"),), "token", "ann") is False
    assert schemes.on_connect(ORIGIN) == ()
    assert schemes.user_name("token", "ann:secret") == ""
    assert schemes.redact("token", "ann:secret") == "x"
    with pytest.raises(AuthFailed):
        schemes.authenticate("token", b"", ORIGIN)


def test_faults_are_counted_and_logged_without_a_flood(
    third_party: Make, caplog: pytest.LogCaptureFixture
) -> None:
    schemes = registry(third_party, Broken(boom))
    with caplog.at_level(logging.ERROR):
        for n in range(100):
            schemes.matches((("token", "ann"),), "token", f"id{n}")
    assert schemes.statistics()["token"]["raised"] == 100
    assert len(caplog.records) == 7  # the 1st, 2nd, 4th, ... 64th
    assert "plugin auth.p0 (acme-0 1.2) raised in matches: KeyError: 'boom'" in caplog.text


def test_a_call_that_never_ends_is_cut_off_and_the_third_puts_the_provider_off(
    third_party: Make, caplog: pytest.LogCaptureFixture
) -> None:
    """Also a call that waits and cannot be interrupted."""
    forever = threading.Event()
    schemes = registry(third_party, Broken(lambda: forever.wait(30)))
    begin = time.monotonic()
    with caplog.at_level(logging.ERROR):
        for n in range(10):
            assert not schemes.matches((("token", "ann"),), "token", f"id{n}")
    took = time.monotonic() - begin
    forever.set()
    assert took < 5
    assert schemes.statistics()["token"] == {
        "plugin": "plugin auth.p0 (acme-0 1.2)",
        "raised": 0,
        "late": LATE_MAX,
        "off": 1,
    }
    assert "is off: scheme token matches nothing" in caplog.text
    assert not schemes.is_valid("token", "ann")
    with pytest.raises(AuthFailed):
        schemes.authenticate("token", b"", ORIGIN)


def test_a_busy_loop_is_stopped_not_only_left_behind(third_party: Make) -> None:
    turning = threading.Event()

    def spin() -> bool:
        turning.set()
        while True:
            pass

    before = set(threading.enumerate())
    schemes = registry(third_party, Broken(spin))
    assert not schemes.is_valid("token", "ann")
    assert turning.is_set()
    deadline = time.monotonic() + 10
    while set(threading.enumerate()) - before:
        assert time.monotonic() < deadline
        threading.Event().wait(0.01)


def test_a_shipped_provider_that_is_late_is_measured(third_party: Make) -> None:
    def slow() -> bool:
        end = time.perf_counter() + 0.06
        while time.perf_counter() < end:
            pass
        return True

    schemes = registry(third_party, Broken(slow), shipped=True)
    for n in range(LATE_MAX):
        assert not schemes.is_valid("token", f"id{n}")
    assert schemes.statistics()["token"]["off"] == 1


def test_answers_of_third_parties_are_kept(third_party: Make) -> None:
    calls: list[int] = []

    def count() -> bool:
        calls.append(1)
        return True

    schemes = registry(third_party, Broken(count))
    for _ in range(5):
        assert schemes.matches((("token", "ann"),), "token", "ann")
    assert len(calls) == 1


def test_identities_at_connect_come_from_all_providers(third_party: Make) -> None:
    class Address(Token):
        scheme = "address"

        def on_connect(self, origin: Origin) -> Sequence[Identity]:
            return (("address", origin.address),)

    schemes = AuthRegistry(third_party(Token(), Address()))
    assert schemes.on_connect(ORIGIN) == (("address", "10.1.2.3"),)


@pytest.mark.parametrize("scheme", ["world", "auth", "super"])
def test_a_built_in_scheme_cannot_be_taken(third_party: Make, scheme: str) -> None:
    provider = Token()
    provider.scheme = scheme
    assert AuthRegistry(third_party(provider)).schemes == ()


def test_of_two_providers_of_a_scheme_the_one_that_the_configuration_names_serves(
    third_party: Make,
) -> None:
    first, second = Token(), Broken(lambda: True)
    assert not AuthRegistry(third_party(first, second)).is_valid("token", "47")
    named = AuthRegistry(third_party(first, second), {"authProvider.1": "plugin:p1"})
    assert named.is_valid("token", "47")


def test_users_joins_the_names_that_there_are(third_party: Make) -> None:
    schemes = registry(third_party, Token())
    assert schemes.users((("token", "ann"), ("super", ""), ("token", " "), ("token", "bob"))) == (
        "ann,bob"
    )
    assert schemes.users((("super", ""),)) is None
