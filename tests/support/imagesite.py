"""A site of images alone, through lock, pack and receive in this process, with real registries and stores.

::

    site = ImageSite(tmp_path, registry.url)
    site.declare('ref = "registry.example.org/team/app:1"')     # the registry that `url` is
    locked = site.lock()
    snapshot = site.pack(locked)
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from haversack.formats.declaration import parse
from haversack.kinds import Locked, keys, kinds
from haversack.model.finding import Finding
from haversack.model.lock import Lock, merge_artifacts
from haversack.model.site import Site
from haversack.model.snapshot import SnapshotEnvironment
from haversack.model.target import ANY
from haversack.ports import Inside, Outside
from haversack.ports.credentials import IndexCredentials
from haversack.ports.fetch import HttpFetch
from haversack.ports.fetchers import ByScheme
from haversack.ports.media import Folders, FolderWriter
from haversack.ports.registry import HttpRegistries
from haversack.verbs import holdings, pack
from haversack.verbs.receive import receive
from tests.support import tiny

HOST = "registry.example.org"
"""What references call the registry of the site."""


class ImageSite:
    """A declaration in ``folder/site``, a store outside and one inside."""

    def __init__(
        self, folder: Path, url: str, *, auth: str = "none", environ: Mapping[str, str] | None = None
    ) -> None:
        self.folder, self.root = folder, folder / "site"
        self.root.mkdir(parents=True, exist_ok=True)
        self.environ = {**os.environ, **(environ or {})}
        self._registry = f'[registry.main]\nurl = "{url}"\nhost = "{HOST}"\nauth = "{auth}"\n'

    def declare(self, *images: str, more: str = "") -> None:
        """Write the declaration; each of ``images`` holds the lines of one ``[[image]]``."""
        tables = "".join(f"[[image]]\n{lines}\n" for lines in images)
        (self.root / "haversack.toml").write_text(f'[site]\nname = "images"\n{self._registry}{more}{tables}')

    def site(self) -> Site:
        """The declaration as it is now."""
        return parse(self.root / "haversack.toml", keys())

    def outside(self) -> Outside:
        """The ports of the connected side."""
        site = self.site()
        credentials = IndexCredentials(site.registries, self.environ)
        registries = HttpRegistries(
            site.registries, credentials.by_registry, attempts=4, timeout=5, backoff=0.01, longest_wait=1.0
        )
        out = tiny.outside(self.folder / "outside")
        fetch = ByScheme(
            HttpFetch(credentials.by_url, attempts=2, timeout=5, backoff=0.01), docker=registries
        )
        return replace(out, registries=registries, fetch=fetch)

    def inside(self) -> Inside:
        """The ports of the air-gapped side."""
        return tiny.inside(self.folder / "inside")

    def lock(self, held: Locked | None = None) -> Locked:
        """What the kind gives."""
        site = self.site()
        (environment,) = site.environments
        before = self.lock_of(held) if held else None
        out = self.outside()
        with out.store.exclusive():
            return kinds()["image"].lock(site, environment, ANY, before, out)

    def lock_of(self, locked: Locked) -> Lock:
        """A lock of the images alone."""
        assert [str(finding) for finding in locked.findings if finding.blocking] == []
        site = self.site()
        return Lock(site.name, site.digest, (ANY,), (locked.environment,), merge_artifacts(locked.artifacts))

    def pack(self, locked: Locked, *, name: str = "2026-11") -> SnapshotEnvironment:
        """Pack to ``folder/bundle-NAME``, receive it inside; the environment as it arrived."""
        bundle = self.folder / f"bundle-{name}"
        pack.pack(
            self.lock_of(locked), self.root, self.outside(), FolderWriter(bundle), name=name, rehearsing=False
        )
        inside = self.inside()
        receive(Folders([bundle]), inside)
        _, content = holdings.current_snapshot(inside.store, None)
        (environment,) = content.environments
        return environment

    def install(self, environment: SnapshotEnvironment) -> Path:
        """The images as an OCI layout."""
        prefix = self.folder / "installed"
        kinds()["image"].install(
            environment, prefix, None, self.inside(), home=prefix, compile_bytecode=False
        )
        return prefix


def told(findings: tuple[Finding, ...] | list[Finding]) -> list[tuple[str, bool]]:
    """Codes of findings, and whether they block."""
    return [(finding.code, finding.blocking) for finding in findings]
