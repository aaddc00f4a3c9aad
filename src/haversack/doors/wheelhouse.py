"""A wheelhouse: wheels in a folder, and what pip and uv need to install them with their hashes and no index."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from haversack.doors import copy, lacks, of_kind
from haversack.formats import pep751
from haversack.model.artifact import hex_of
from haversack.model.snapshot import SnapshotEnvironment
from haversack.ports import Store

REQUIREMENTS = "requirements.txt"
LOCK = "pylock.toml"


class Wheelhouse:
    """Wheels under their own names, a requirements file with hashes, and a lock of paths."""

    name = "wheelhouse"
    doc = "a folder of wheels with requirements.txt and pylock.toml, for pip and uv"
    carries = ("wheel",)
    folder = True
    together = False

    def refuses(self, environment: SnapshotEnvironment) -> str | None:
        """See the protocol."""
        return lacks(environment, "wheel", conda="pixi-pack")

    def write(self, environments: Sequence[SnapshotEnvironment], store: Store, dest: Path) -> list[str]:
        """See the protocol."""
        (environment,) = environments
        wheels = of_kind(environment, "wheel")
        for wheel in wheels:
            copy(store, wheel, dest / wheel.filename)
        # Both tools take the folder as meant from this file.
        lines = ["--no-index", "--find-links ."]
        lines += [f"{w.name}=={w.version} --hash=sha256:{hex_of(w.digest)}" for w in wheels]
        (dest / REQUIREMENTS).write_bytes("".join(f"{line}\n" for line in lines).encode())
        lock = pep751.write(wheels, environment.target, lambda wheel: ("path", wheel.filename))
        (dest / LOCK).write_bytes(lock)
        return sorted([LOCK, REQUIREMENTS, *(wheel.filename for wheel in wheels)])


DOORS = (Wheelhouse(),)
