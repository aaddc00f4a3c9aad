"""A cache of packages as rattler keeps one: for a site that sets ``PIXI_CACHE_DIR`` or ``RATTLER_CACHE_DIR``."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from haversack.doors import copy, lacks, of_kind
from haversack.formats.repodata import record_of
from haversack.model.snapshot import SnapshotEnvironment
from haversack.ports import Store

PACKAGES = "pkgs"
"""Where pixi and rattler look below the folder that they are told."""


class PackageCache:
    """Packages unpacked, each beside the digest of what it was unpacked from."""

    name = "package-cache"
    doc = "a package cache for PIXI_CACHE_DIR or RATTLER_CACHE_DIR, for pixi and rattler"
    carries = ("conda",)
    folder = True
    together = False

    def refuses(self, environment: SnapshotEnvironment) -> str | None:
        """See the protocol."""
        return lacks(environment, "conda")

    def write(self, environments: Sequence[SnapshotEnvironment], store: Store, dest: Path) -> list[str]:
        """See the protocol.  rattler unpacks what it is given and checks nothing: so it is given copies of ours."""
        # rattler is slow to load.
        from haversack.conda import unpacked

        (environment,) = environments
        dest.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".unpacking-", dir=dest) as scratch:
            files = []
            for artifact in of_kind(environment, "conda"):
                record = record_of(artifact)
                place = Path(scratch, record["subdir"], artifact.filename)
                copy(store, artifact, place)
                files.append((record, place))
            unpacked.fill(files, dest / PACKAGES, Path(scratch, "prefix"), environment.target.subdir)
        return sorted(path.relative_to(dest).as_posix() for path in dest.rglob("*") if not path.is_dir())


DOORS = (PackageCache(),)
