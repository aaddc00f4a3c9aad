"""The lock: the exact answer to a site declaration."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from haversack.model.artifact import Artifact, Digest
from haversack.model.target import Target

TOOL = "haversack"
"""The environment in which haversack itself crosses; a site may not declare one of that name."""


@dataclass(frozen=True, slots=True)
class LockedEnvironment:
    """One environment on one target.

    ``roots`` are the requirements a person wrote, in the kind's own language (PEP 508 for ``pip``);
    ``check`` is the command that proves an installation, ``settings`` what else the kind needs inside.
    """

    name: str
    target: str
    kind: str
    roots: tuple[str, ...] = ()
    check: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def ref(self) -> str:
        """``name/target``, the word by which artifacts, manifests and messages mean this environment."""
        return f"{self.name}/{self.target}"


@dataclass(frozen=True, slots=True)
class Lock:
    """Artifacts and environments of a site, in canonical order.

    ``declaration`` is the digest of everything that was locked (the declaration and the files it names),
    so that a stale lock is noticed.
    """

    site: str
    declaration: Digest
    targets: tuple[Target, ...]
    environments: tuple[LockedEnvironment, ...]
    artifacts: tuple[Artifact, ...]

    def target(self, name: str) -> Target:
        """The target of that name (:class:`KeyError` if there is none)."""
        for target in self.targets:
            if target.name == name:
                return target
        raise KeyError(name)

    def by_environment(self) -> dict[str, list[Artifact]]:
        """Artifacts of each environment by its ``ref``, in one pass over the lock."""
        found: dict[str, list[Artifact]] = {environment.ref: [] for environment in self.environments}
        for artifact in self.artifacts:
            for ref in artifact.members:
                found[ref].append(artifact)
        return found


def merge_artifacts(parts: Iterable[Artifact]) -> tuple[Artifact, ...]:
    """One artifact per digest, file name and origin, with the members of all, in canonical order.

    The same file from two conda channels stays two: a mirror must show it in both.
    """
    merged: dict[tuple[str, str, str], Artifact] = {}
    members: dict[tuple[str, str, str], set[str]] = {}
    for part in parts:
        key = (part.digest, part.filename, part.origin)
        merged.setdefault(key, part)
        members.setdefault(key, set()).update(part.members)
    return tuple(
        Artifact(a.kind, a.name, a.version, a.filename, a.digest, a.size, a.origin, tuple(sorted(members[key])), a.facts)
        for key, a in sorted(merged.items(), key=lambda item: (item[1].name, item[1].filename, item[0]))
    )  # fmt: skip
