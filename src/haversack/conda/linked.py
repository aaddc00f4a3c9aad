"""The journey that kinds of conda packages share, from the bytes on; they differ in how they lock.

What works on packages is imported where it is needed: rattler is slow to load, and every command asks which
kinds there are.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from haversack.model.artifact import Artifact, Facts
from haversack.model.finding import Finding
from haversack.model.snapshot import SnapshotEnvironment
from haversack.ports import Inside, Store


class Linked:
    """Conda packages, linked by rattler at a home that is final, and wheels beside them."""

    relocatable = False

    def inspect(self, artifact: Artifact, file: BinaryIO) -> tuple[Facts, list[Finding]]:
        """See ``haversack.kinds.Kind``."""
        from haversack.conda import inspection

        return inspection.inspect(artifact, file)

    def prove(self, environment: SnapshotEnvironment) -> list[Finding]:
        """See ``haversack.kinds.Kind``."""
        from haversack.conda import proof

        return proof.prove(environment)

    def borrows(self, environment: SnapshotEnvironment, inside: Inside) -> str | None:
        """See ``haversack.kinds.Kind``; Python is a package like any other."""
        return None

    def install(
        self,
        environment: SnapshotEnvironment,
        prefix: Path,
        python: Path | None,
        inside: Inside,
        *,
        home: Path,
        compile_bytecode: bool,
    ) -> None:
        """See ``haversack.kinds.Kind``."""
        from haversack.conda import install

        install.install(environment, prefix, inside, home=home, compile_bytecode=compile_bytecode)

    def settle(self, environment: SnapshotEnvironment, prefix: Path, inside: Inside) -> None:
        """See ``haversack.kinds.Kind``."""
        from haversack.conda import install

        install.settle(environment, prefix, inside)

    def check(
        self, environment: SnapshotEnvironment, prefix: Path, inside: Inside, *, caged: bool
    ) -> list[Finding]:
        """See ``haversack.kinds.Kind``."""
        from haversack.conda import install

        return install.check(environment, prefix, inside, caged=caged)

    def drift(self, environment: SnapshotEnvironment, prefix: Path, store: Store) -> list[Finding]:
        """See ``haversack.kinds.Kind``."""
        from haversack.conda import drift

        return drift.drift(environment, prefix, store)
