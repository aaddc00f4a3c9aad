"""What :class:`haversack.platforms.Platform` promises, from its declaration to its files."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from haversack.formats import declaration, oci
from haversack.formats.canonical import canonical
from haversack.kinds import keys, kinds
from haversack.model.finding import Finding
from haversack.model.lock import Lock, LockedEnvironment
from haversack.model.site import Environment, Site
from haversack.model.snapshot import Snapshot
from haversack.model.target import ANY
from haversack.platforms import KIND, Order, Platform
from haversack.ports import Outside


@dataclass(frozen=True, slots=True)
class PlatformSample:
    """A platform as a site declares it.

    ``declaration`` is a ``haversack.toml`` with one environment ``lab`` and the platform; ``wrong`` is the same
    with settings that the rest of it contradicts.  ``prepare`` puts what is rendered for at its place inside,
    given the snapshot.  ``always`` is asked of all that it renders; ``asked`` and ``command`` are of one more
    thing that it renders, if it does.
    """

    declaration: Path
    wrong: Path
    prepare: Callable[[Snapshot], object]
    asked: Mapping[str, Any] = field(default_factory=dict)
    command: tuple[str, ...] = ()
    always: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Declared:
    """A sample that has been parsed and locked."""

    platform: Platform
    sample: PlatformSample
    site: Site
    environment: Environment
    locked: LockedEnvironment
    order: Order
    out: Outside


def declare(platform: Platform, sample: PlatformSample, out: Outside) -> Declared:
    """Parse and lock a sample, once for all tests of its platform."""
    site, environment = _parsed(platform, sample.declaration)
    locked = kinds()[KIND].lock(site, environment, ANY, None, out)
    assert [finding for finding in locked.findings if finding.blocking] == []
    lock = Lock(site.name, site.digest, (ANY,), (locked.environment,), ())
    snapshot, _ = oci.build(lock, {})
    (held,) = snapshot.environments
    sample.prepare(snapshot)
    origin = f"Written by haversack render {platform.name}, of snapshot 2026-11."
    names = {"2026-11": snapshot.id}
    order = Order(held.locked.settings, snapshot, "2026-11", names, origin, asked=sample.always)
    return Declared(platform, sample, site, environment, locked.environment, order, out)


def _parsed(platform: Platform, path: Path) -> tuple[Site, Environment]:
    site = declaration.parse(path, keys())
    (environment,) = (e for e in site.environments if e.kind == KIND)
    assert environment.name == f"{KIND}.{platform.name}"
    return site, environment


class PlatformContract:
    """Tests of a platform; they take a fixture ``declared`` (what :func:`declare` gave) and ``tmp_path``."""

    def test_its_settings_travel(self, declared: Declared) -> None:
        """What stands in a lock is JSON, and all that was declared; no path of this machine is in it."""
        settings = declared.locked.settings
        assert json.loads(canonical(settings)) == dict(settings)
        assert settings.keys() == declared.environment.settings.keys()
        assert str(declared.site.root).encode() not in canonical(settings)

    def test_what_contradicts_the_declaration_is_found(self, declared: Declared) -> None:
        """Settings that name what is not declared block, each with a remedy."""
        site, environment = _parsed(declared.platform, declared.sample.wrong)
        findings = declared.platform.validate(environment.settings, site)
        assert [finding.code for finding in findings if finding.blocking]
        assert all(finding.remedy for finding in findings)
        assert declared.platform.validate(declared.environment.settings, declared.site) == []

    def test_it_renders_the_same_again(self, declared: Declared) -> None:
        """The same order gives the same bytes, at safe paths, and each file says where it comes from.

        In a table such a line would be a row: another file that says it names the table.
        """
        for order in self._orders(declared):
            first = declared.platform.render(order, declared.out)
            again = declared.platform.render(order, declared.out)
            assert first.files
            assert dict(first.files) == dict(again.files)
            files = {path: data.decode() for path, data in first.files.items()}
            signed = {path: text for path, text in files.items() if order.origin in _head(text)}
            for path in files:
                assert not path.startswith("/")
                assert ".." not in path.split("/")
                told = any(path in text for text in signed.values()) if path.endswith(".csv") else None
                assert path in signed or told, f"{path} does not say where it comes from"

    def test_looking_changes_nothing(self, declared: Declared, tmp_path: Path) -> None:
        """Preflight tells what it cannot find out, gives a remedy for everything, and writes no file."""
        before = _files(declared.site.root)
        findings = declared.platform.preflight(declared.order, declared.out)
        assert _files(declared.site.root) == before
        assert findings
        assert [f for f in findings if f.code == "platform-unknown" and f.blocking] == []
        assert all(finding.remedy for finding in findings)

    def test_a_site_that_is_not_ready_is_found(self, declared: Declared, tmp_path: Path) -> None:
        """Where nothing of the platform is there, preflight does not say that all is well."""
        settings = {key: _elsewhere(value) for key, value in declared.order.settings.items()}
        findings = declared.platform.preflight(replace(declared.order, settings=settings), declared.out)
        assert _codes(findings) - {"platform-unknown"}

    def _orders(self, declared: Declared) -> list[Order]:
        sample, order = declared.sample, declared.order
        more = {**sample.always, **sample.asked}
        return [
            order,
            *([replace(order, asked=more, command=sample.command)] if sample.asked else []),
        ]


def _head(text: str) -> str:
    """The first two lines: the system wants that of a script to name what runs it."""
    return "".join(text.splitlines(keepends=True)[:2])


def _elsewhere(value: Any) -> Any:
    """A setting that is a path, as one that nobody has."""
    return f"{value}-nowhere" if isinstance(value, str) and value.startswith("/") else value


def _codes(findings: list[Finding]) -> set[str]:
    return {finding.code for finding in findings}


def _files(folder: Path) -> dict[str, tuple[int, ...]]:
    found = {str(path): path.lstat() for path in folder.rglob("*")}
    return {path: (told.st_mode, told.st_size, told.st_mtime_ns) for path, told in found.items()}
