"""The authentication schemes of one process: who a client is, and whom an ACL entry means.

`world` (matches everyone), `auth` (stands for the connection's own identities) and `super` (no
ACL applies) are built in; all others come from auth plugins. What is asked while an ACL is checked
must be quick, so each such answer is cut off after 50 ms:

- a plugin of zkd's own is called directly and measured;
- any other is called in a helper thread that is given up when it is late, and its answers are
  kept, which the plugin's contract allows (zkd/plugins/api.py).

A call that raises, is late or answers with the wrong type means "no"; it is logged and counted.
After three late calls the provider is off until the process restarts: no id of its scheme is valid
or matches. (`org.apache.zookeeper.server.auth.ProviderRegistry`; client protocol section 11.)

All methods but `authenticate` are for one thread, the process's loop.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from zkd.plugins.api import AuthFailed, AuthProvider, Config, Disconnect, Identity, Origin
from zkd.plugins.guard import Faults, Late, Limited, Source
from zkd.plugins.loader import Loaded, PluginSet, required_auth

__all__ = ["AUTH_LIMIT_S", "AuthFailed", "AuthRegistry", "Disconnect", "Identity", "Origin"]

PURE_LIMIT_S: Final = 0.05
"""How long valid, matches and the like may take."""

LATE_MAX: Final = 3
"""So many late calls, and the provider is off."""

AUTH_LIMIT_S: Final = 10.0
"""The time limit that the caller of `authenticate` sets its thread."""

KEPT_MAX: Final = 65_536
"""Answers kept for one provider; beyond that all are forgotten."""

BUILT_IN: Final = frozenset({"world", "auth", "super"})


class _Slot:
    """One provider behind its fence."""

    def __init__(self, loaded: Loaded[AuthProvider], faults: Faults, limit_s: float) -> None:
        self.source: Source = loaded.source
        self.provider = loaded.item
        self.scheme = loaded.item.scheme
        self.off = False
        self.late = 0
        self.raised = 0
        self._faults = faults
        self._limit_s = limit_s
        self._direct = loaded.source.shipped
        self._helper = Limited(self.scheme)
        self._kept: dict[tuple[object, ...], Any] = {}
        self.is_authenticated: bool = self._ask(
            "is_authenticated", None, lambda: loaded.item.is_authenticated, bool, False
        )

    def ask(self, what: str, call: Callable[[Any], Any], argument: Any, kind: type, no: Any) -> Any:
        """The answer of a pure method with one argument; `no` if it has none to give."""
        return self._ask(what, (what, argument), lambda: call(argument), kind, no)

    def matches(self, identity_id: str, acl_id: str) -> bool:
        provider = self.provider
        key = (identity_id, acl_id)
        answer: bool = self._ask(
            "matches", key, lambda: provider.matches(identity_id, acl_id), bool, False
        )
        return answer

    def on_connect(self, origin: Origin) -> object:
        """Not kept: hardly two origins are the same."""
        return self._ask("on_connect", None, lambda: self.provider.on_connect(origin), object, ())

    def _ask(
        self,
        what: str,
        key: tuple[object, ...] | None,
        call: Callable[[], Any],
        kind: type,
        no: Any,
    ) -> Any:
        if self.off:
            return no
        kept = self._kept
        if key is not None and key in kept:
            return kept[key]
        try:
            answer = self._measured(call) if self._direct else self._helper.run(call, self._limit_s)
        except Late as late:
            self._count_late(what, late)
            return no
        except (Exception, SystemExit) as error:  # noqa: BLE001  a plugin call
            self.raised += 1
            self._faults.report(self.source, "raised", f"raised in {what}", error)
            return no
        if not isinstance(answer, kind):
            self._faults.report(
                self.source, "rubbish", f"answered {what} with {type(answer).__name__}"
            )
            return no
        if key is not None and not self._direct:
            if len(kept) >= KEPT_MAX:
                kept.clear()
            kept[key] = answer
        return answer

    def _measured(self, call: Callable[[], Any]) -> Any:
        begin = time.perf_counter()
        answer = call()
        took = time.perf_counter() - begin
        if took > self._limit_s:
            raise Late(f"took {took:.3f} s of {self._limit_s:g} s")
        return answer

    def _count_late(self, what: str, late: Late) -> None:
        self.late += 1
        self._faults.report(self.source, "late", f"{late} in {what}; that counts as no")
        if self.late >= LATE_MAX:
            self.off = True
            self._kept.clear()
            self._faults.report(
                self.source,
                "off",
                f"was late {self.late} times and is off: scheme {self.scheme} matches nothing "
                "until this process restarts",
            )


class AuthRegistry:
    """The schemes in use, as front-ends and the peer ask for them.

    `plugins`: from `zkd.plugins.loader.load`. Two plugins for one scheme: the one that the
    configuration names (`authProvider.X=plugin:NAME`), else the shipped one, else the first by
    name; the other is refused in the log.
    """

    def __init__(
        self, plugins: PluginSet, config: Config | None = None, *, limit_s: float = PURE_LIMIT_S
    ) -> None:
        self._faults = plugins.faults
        self._slots: dict[str, _Slot] = {}
        named = required_auth(config or {})
        for loaded in sorted(plugins.auth, key=lambda entry: entry.source.plugin not in named):
            self._add(loaded, limit_s)
        self._connecting = [
            slot
            for slot in self._slots.values()
            if type(slot.provider).on_connect is not AuthProvider.on_connect
        ]

    def _add(self, loaded: Loaded[AuthProvider], limit_s: float) -> None:
        scheme = loaded.item.scheme
        if scheme in BUILT_IN:
            self._faults.report(loaded.source, "hook", f"may not provide scheme {scheme}")
        elif scheme in self._slots:
            other = self._slots[scheme].source
            self._faults.report(
                loaded.source, "hook", f"is not used for scheme {scheme}: {other} provides it"
            )
        else:
            self._slots[scheme] = _Slot(loaded, self._faults, limit_s)

    @property
    def schemes(self) -> tuple[str, ...]:
        """The schemes of plugins, without the built-in ones."""
        return tuple(self._slots)

    def is_valid(self, scheme: str, acl_id: str) -> bool:
        """Whether an ACL may hold `scheme:acl_id`. `auth` is not asked here: it is replaced."""
        slot = self._slots.get(scheme)
        if slot is None:
            return scheme == "world" and acl_id == "anyone"
        answer: bool = slot.ask("is_valid", slot.provider.is_valid, acl_id, bool, False)
        return answer

    def matches(self, identities: Sequence[Identity], scheme: str, acl_id: str) -> bool:
        """Whether one of the connection's identities is meant by the ACL entry."""
        slot = self._slots.get(scheme)
        if slot is None:
            return scheme == "world" and acl_id == "anyone"
        for own_scheme, own_id in identities:
            if own_scheme == scheme and slot.matches(own_id, acl_id):
                return True
        return False

    def is_authenticated(self, scheme: str) -> bool:
        """Whether `auth:` in an ACL stands for identities of this scheme."""
        slot = self._slots.get(scheme)
        return slot is not None and slot.is_authenticated

    def on_connect(self, origin: Origin) -> tuple[Identity, ...]:
        """The identities of a new connection."""
        identities: list[Identity] = []
        for slot in self._connecting:
            answer = slot.on_connect(origin)
            checked = _identities(answer)
            if checked is None:
                self._faults.report(
                    slot.source,
                    "rubbish",
                    "answered on_connect with something else than identities",
                )
                continue
            identities += checked
        return tuple(identities)

    def authenticate(self, scheme: str, data: bytes, origin: Origin) -> tuple[Identity, ...]:
        """The identities that an auth packet gives. May block: for a thread of the caller's, which
        waits AUTH_LIMIT_S at most and treats what is late as AuthFailed.

        Raises AuthFailed (also for an unknown scheme) and Disconnect, nothing else.
        """
        slot = self._slots.get(scheme)
        if slot is None or slot.off:
            raise AuthFailed(f"no provider for scheme {scheme}")
        try:
            answer = slot.provider.authenticate(data, origin)
        except (AuthFailed, Disconnect):
            raise
        except (Exception, SystemExit) as error:  # noqa: BLE001  a plugin call
            slot.raised += 1
            self._faults.report(slot.source, "raised", "raised in authenticate", error)
            raise AuthFailed(f"the provider of scheme {scheme} failed") from None
        identities = _identities(answer)
        if identities is None:
            self._faults.report(
                slot.source, "rubbish", "answered authenticate with something else than identities"
            )
            raise AuthFailed(f"the provider of scheme {scheme} failed")
        return identities

    def count_late(self, scheme: str) -> None:
        """The caller of `authenticate` has given up waiting: log and count it."""
        slot = self._slots.get(scheme)
        if slot is not None:
            self._faults.report(slot.source, "late", "did not end authenticate within its limit")

    def user_name(self, scheme: str, identity_id: str) -> str | None:
        """What whoAmI and audit lines show of an identity; None without a provider."""
        slot = self._slots.get(scheme)
        if slot is None:
            return None
        name: str = slot.ask("user_name", slot.provider.user_name, identity_id, str, "")
        return name

    def users(self, identities: Sequence[Identity]) -> str | None:
        """All user names, comma-separated, for an audit line; None if there is none."""
        names = (self.user_name(scheme, own_id) for scheme, own_id in identities)
        return ",".join(name for name in names if name and name.strip()) or None

    def redact(self, scheme: str, acl_id: str) -> str:
        """An ACL's id without its secret; `x` where the provider cannot say."""
        slot = self._slots.get(scheme)
        if slot is None:
            return acl_id
        answer: str = slot.ask("redact", slot.provider.redact, acl_id, str, "x")
        return answer

    def statistics(self) -> dict[str, dict[str, int | str]]:
        """Per scheme: plugin, raised, late, off (0 or 1)."""
        return {
            scheme: {
                "plugin": str(slot.source),
                "raised": slot.raised,
                "late": slot.late,
                "off": int(slot.off),
            }
            for scheme, slot in self._slots.items()
        }


def _identities(answer: object) -> tuple[Identity, ...] | None:
    """`answer` as identities; None if it is not a list or tuple of pairs of strings."""
    if not isinstance(answer, (list, tuple)):
        return None
    checked: list[Identity] = []
    for pair in answer:
        if not isinstance(pair, tuple) or len(pair) != 2:
            return None
        scheme, own_id = pair
        if not isinstance(scheme, str) or not isinstance(own_id, str) or not scheme:
            return None
        checked.append((scheme, own_id))
    return tuple(checked)
