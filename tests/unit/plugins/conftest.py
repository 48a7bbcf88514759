"""Third-party plugins made on the spot: a module, its metadata, its entry points."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint, distributions
from pathlib import Path

import pytest

from zkd.plugins.api import ENTRY_POINT_GROUP, AuthProvider
from zkd.plugins.guard import Source
from zkd.plugins.loader import Loaded, PluginSet

MakePlugin = Callable[..., list[EntryPoint]]


@pytest.fixture
def make_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakePlugin]:
    """`make_plugin("auth.token", "source of the module")`: the entry points made so far."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    modules: list[str] = []

    def make(name: str, code: str, *, dist: str = "", version: str = "1.2") -> list[EntryPoint]:
        module = f"third_party_{len(modules)}"
        modules.append(module)
        dist = dist or f"acme-{name.replace('.', '-')}"
        (site / f"{module}.py").write_text(textwrap.dedent(code))
        info = site / f"{dist.replace('-', '_')}_{len(modules)}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {dist}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[{ENTRY_POINT_GROUP}]\n{name} = {module}\n")
        return [
            point
            for found in distributions(path=[str(site)])
            for point in found.entry_points
            if point.group == ENTRY_POINT_GROUP
        ]

    yield make
    for module in modules:
        sys.modules.pop(module, None)


@pytest.fixture
def third_party() -> Callable[..., PluginSet]:
    """`third_party(provider, ...)`: a PluginSet as if each came from a plugin of its own."""

    def make(*providers: AuthProvider, shipped: bool = False) -> PluginSet:
        plugins = PluginSet()
        for n, provider in enumerate(providers):
            dist = "zkd" if shipped else f"acme-{n}"
            source = Source(f"auth.p{n}", dist, "1.2", shipped)
            plugins.auth.append(Loaded(source, provider))
        return plugins

    return make
