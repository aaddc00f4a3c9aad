"""Doors: how an environment leaves for a site that works with other tools and never installs haversack.

Each is one module of this folder that holds ``DOORS``; the folder is the registry, and a door knows nothing
of another.  docs/spec/doors.md says what each writes, for which tool, and what was tested with which reader.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from haversack.model.artifact import Artifact
from haversack.model.snapshot import SnapshotEnvironment
from haversack.ports import Store

_CHUNK = 1 << 20


class Door(Protocol):
    """A way out, in the format of some other tool."""

    name: str
    """What ``--as`` says."""
    doc: str
    """In one line, what is written and for whom."""
    carries: tuple[str, ...]
    """The kinds of artifact that go through; others of the environment stay behind."""
    folder: bool
    """Whether it writes a folder; else one file."""
    together: bool
    """Whether all targets of an environment go into one."""

    def refuses(self, environment: SnapshotEnvironment) -> str | None:
        """Why this environment cannot leave here, with what to use instead; ``None`` if it can."""
        ...

    def write(self, environments: Sequence[SnapshotEnvironment], store: Store, dest: Path) -> list[str]:
        """Write to ``dest``, which does not exist, and return its files (relative to a folder), sorted.

        Several environments, none of which it refuses, are given only to a door that takes them
        ``together``.  Every byte is hashed on its way out: raises ``IntegrityError``, and ``UsageError``
        where the environments do not go together.
        """
        ...


@functools.cache
def doors() -> Mapping[str, Door]:
    """Every door by its name."""
    found: dict[str, Door] = {}
    for module in sorted(module.name for module in pkgutil.iter_modules(__path__)):
        for door in importlib.import_module(f"{__name__}.{module}").DOORS:
            found[door.name] = door
    return found


def of_kind(environment: SnapshotEnvironment, kind: str) -> list[Artifact]:
    """The artifacts of one kind, by name."""
    return sorted((a for a in environment.artifacts if a.kind == kind), key=lambda a: (a.name, a.filename))


def lacks(environment: SnapshotEnvironment, kind: str, **others: str) -> str | None:
    """Why an environment is none for a door that writes artifacts of ``kind``.

    ``others`` are kinds that it must not have as well, each with what to use instead.
    """
    kinds = {artifact.kind for artifact in environment.artifacts}
    if kind not in kinds:
        return f"it holds no artifact of kind {kind}"
    for other, instead in others.items():
        if other in kinds:
            return f"it holds artifacts of kind {other}, which cannot go this way; use {instead}"
    return None


def nowhere(artifacts: Sequence[Artifact], instead: str) -> str | None:
    """That an artifact has no address that another machine could ask."""
    for artifact in artifacts:
        if not artifact.origin.startswith(("https://", "http://")):
            return f"{artifact.filename} came from no server, so that there is no address to write; use {instead}"
    return None


def chunks(store: Store, artifact: Artifact) -> Iterator[bytes]:
    """The bytes of an artifact, hashed on the way.  Raises ``IntegrityError`` at their end."""
    with store.open(artifact.digest) as file:
        while chunk := file.read(_CHUNK):
            yield chunk


def copy(store: Store, artifact: Artifact, dest: Path) -> None:
    """Write an artifact's bytes to ``dest``: a copy, for what happens to it must not reach the store."""
    dest.parent.mkdir(parents=True, exist_ok=True)
    with dest.open("xb") as file:
        for chunk in chunks(store, artifact):
            file.write(chunk)
