"""An archive as pixi-pack makes one, for pixi-unpack, and for conda and micromamba through its channel."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

from haversack.doors import chunks, lacks, of_kind
from haversack.formats import pixipack, repodata
from haversack.formats.pixipack import Source
from haversack.model.snapshot import SnapshotEnvironment
from haversack.ports import Store


class PixiPackArchive:
    """Packages, wheels, records and an environment.yml in a plain tar.

    There is a ``repodata.json`` of ``noarch`` in any case: conda, mamba and rattler solve nothing without it.
    """

    name = "pixi-pack"
    doc = "an archive as pixi-pack makes one, for pixi-unpack, conda and micromamba"
    carries = ("conda", "wheel")
    folder = False
    together = False

    def refuses(self, environment: SnapshotEnvironment) -> str | None:
        """See the protocol.  Wheels are installed by the Python among the packages."""
        if wrong := lacks(environment, "conda"):
            return wrong
        has_python = any(artifact.name == "python" for artifact in of_kind(environment, "conda"))
        if of_kind(environment, "wheel") and not has_python:
            return "it holds wheels, but no conda package of Python to install them with; use wheelhouse"
        return None

    def write(self, environments: Sequence[SnapshotEnvironment], store: Store, dest: Path) -> list[str]:
        """See the protocol."""
        (environment,) = environments
        packages, wheels = of_kind(environment, "conda"), of_kind(environment, "wheel")
        records = [repodata.record_of(artifact) for artifact in packages]
        named = [(wheel.name, wheel.version) for wheel in wheels]
        files: dict[str, Source] = {**pixipack.describe(environment.target.subdir, records, named)}
        for subdir in {"noarch", *(record["subdir"] for record in records)}:
            table = repodata.write(subdir, (record for record in records if record["subdir"] == subdir))
            files[f"{pixipack.CHANNEL}/{subdir}/repodata.json"] = table
        places = [f"{pixipack.CHANNEL}/{record['subdir']}" for record in records]
        for folder, artifact in zip(
            [*places, *[pixipack.PYPI] * len(wheels)], packages + wheels, strict=True
        ):
            files[f"{folder}/{artifact.filename}"] = (
                store.size(artifact.digest) or 0,
                functools.partial(chunks, store, artifact),
            )
        with dest.open("xb") as out:
            pixipack.write(out, files)
        return [dest.name]


DOORS = (PixiPackArchive(),)
