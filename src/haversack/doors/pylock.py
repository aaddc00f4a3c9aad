"""A ``pylock.toml`` (PEP 751) with the canonical addresses of wheels, for uv, pip and what else reads one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from haversack.doors import lacks, nowhere, of_kind
from haversack.formats import pep751
from haversack.model.snapshot import SnapshotEnvironment
from haversack.ports import Store


class PylockFile:
    """The wheels of one target, by address, sha256 and size."""

    name = "pylock"
    doc = "a pylock.toml (PEP 751) with addresses and hashes, for uv pip sync and pip"
    carries = ("wheel",)
    folder = False
    together = False

    def refuses(self, environment: SnapshotEnvironment) -> str | None:
        """See the protocol."""
        wrong = lacks(environment, "wheel", conda="conda-lock")
        return wrong or nowhere(of_kind(environment, "wheel"), "wheelhouse")

    def write(self, environments: Sequence[SnapshotEnvironment], store: Store, dest: Path) -> list[str]:
        """See the protocol."""
        (environment,) = environments
        wheels = of_kind(environment, "wheel")
        dest.write_bytes(pep751.write(wheels, environment.target, lambda wheel: ("url", wheel.origin)))
        return [dest.name]


DOORS = (PylockFile(),)
