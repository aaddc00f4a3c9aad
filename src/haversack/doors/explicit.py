"""An ``@EXPLICIT`` file: addresses and hashes, for conda and whoever reads its formats; nothing is solved."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from haversack.doors import lacks, nowhere, of_kind
from haversack.formats import explicit
from haversack.formats.repodata import record_of
from haversack.model.snapshot import SnapshotEnvironment
from haversack.ports import Store


class Explicit:
    """Canonical addresses, each with its sha256 or, for tools that know nothing better, its md5."""

    carries = ("conda",)
    folder = False
    together = False

    def __init__(self, name: str, hashed: Literal["sha256", "md5"]) -> None:
        self.name, self._hashed = name, hashed
        self.doc = f"an @EXPLICIT file with {hashed} sums, for conda create --file"

    def refuses(self, environment: SnapshotEnvironment) -> str | None:
        """See the protocol.  It cannot name wheels."""
        if wrong := lacks(environment, "conda", wheel="conda-lock or pixi-pack"):
            return wrong
        packages = of_kind(environment, "conda")
        for artifact in packages:
            if self._hashed == "md5" and not record_of(artifact).get("md5"):
                return f"nobody names the md5 of {artifact.filename}; use explicit"
        return nowhere(packages, "pixi-pack")

    def write(self, environments: Sequence[SnapshotEnvironment], store: Store, dest: Path) -> list[str]:
        """See the protocol."""
        (environment,) = environments
        records = map(record_of, of_kind(environment, "conda"))
        dest.write_bytes(explicit.write(environment.target.subdir, records, self._hashed))
        return [dest.name]


DOORS = (Explicit("explicit", "sha256"), Explicit("explicit-md5", "md5"))
