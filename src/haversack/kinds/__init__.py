"""Kinds of environment: each one module of this folder that holds a ``KIND``.

The folder is the registry.  A kind knows nothing of another; ``tests/contract/test_kinds.py`` holds each to
the protocol below, and fails until a new kind brings its sample.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from haversack.formats.declaration import KindKeys
from haversack.model.artifact import Artifact, Facts
from haversack.model.finding import Finding
from haversack.model.lock import Lock, LockedEnvironment
from haversack.model.site import Environment, Site
from haversack.model.snapshot import SnapshotEnvironment
from haversack.model.target import Target
from haversack.ports import Inside, Outside, Store


@dataclass(frozen=True, slots=True)
class Locked:
    """What locking one environment on one target gave; with a blocking finding the rest is partial."""

    environment: LockedEnvironment
    artifacts: tuple[Artifact, ...]
    findings: tuple[Finding, ...]


class Kind(Protocol):
    """A kind of environment, through its whole journey."""

    name: str
    """What ``kind =`` says in a declaration."""
    keys: KindKeys
    """The keys of a declaration that belong to this kind."""
    artifacts: tuple[str, ...]
    """The kinds of artifact it reads."""
    relocatable: bool
    """Whether what it installed works wherever it is moved to, or only at its ``home``."""

    def lock(
        self, site: Site, environment: Environment, target: Target, held: Lock | None, out: Outside
    ) -> Locked:
        """Resolve for a target, keeping to the versions of ``held`` where the declaration allows."""
        ...

    def inspect(self, artifact: Artifact, file: BinaryIO) -> tuple[Facts, list[Finding]]:
        """Read an artifact's bytes once: its facts, and everything that is wrong with it."""
        ...

    def prove(self, environment: SnapshotEnvironment) -> list[Finding]:
        """Whether its artifacts alone are all that the environment needs on its target."""
        ...

    def borrows(self, environment: SnapshotEnvironment, inside: Inside) -> str | None:
        """The Python (``"3.11"``) that an installation takes from the machine; ``None`` if it brings its own."""
        ...

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
        """Make the environment at ``prefix``, which does not exist and is moved to ``home`` afterwards.

        ``python`` is the interpreter to borrow, if it borrows one.
        """
        ...

    def settle(self, environment: SnapshotEnvironment, prefix: Path, inside: Inside) -> None:
        """Do what can only be done at home, once ``prefix`` is there: link scripts."""
        ...

    def check(
        self, environment: SnapshotEnvironment, prefix: Path, inside: Inside, *, caged: bool
    ) -> list[Finding]:
        """Run the environment's check, or the kind's own where it has none."""
        ...

    def drift(self, environment: SnapshotEnvironment, prefix: Path, store: Store) -> list[Finding]:
        """Every way in which what is installed is not the environment; ``store`` may have lost its artifacts."""
        ...


@functools.cache
def kinds() -> Mapping[str, Kind]:
    """Every kind by its name."""
    found: dict[str, Kind] = {}
    for module in pkgutil.iter_modules(__path__):
        kind: Kind = importlib.import_module(f"{__name__}.{module.name}").KIND
        found[kind.name] = kind
    return found


def inspector(artifact_kind: str) -> Kind | None:
    """The kind that reads artifacts of that kind, if any does."""
    return next((kind for kind in kinds().values() if artifact_kind in kind.artifacts), None)


def keys() -> dict[str, KindKeys]:
    """The keys of every kind, for the parser of declarations."""
    return {name: kind.keys for name, kind in kinds().items()}


def prove_all(environments: Sequence[SnapshotEnvironment]) -> list[Finding]:
    """The closure proof of several environments."""
    return [
        finding
        for environment in environments
        for finding in kinds()[environment.locked.kind].prove(environment)
    ]
