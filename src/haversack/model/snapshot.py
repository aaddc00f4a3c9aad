"""Snapshots: immutable sets of artifacts, and what changed between two of them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from haversack.model.artifact import Artifact, Digest, described
from haversack.model.lock import LockedEnvironment
from haversack.model.target import Target

CURRENT = "current"
"""The name that points at the snapshot in use."""
_NAME = re.compile(r"[A-Za-z0-9]+(?:[-._]+[A-Za-z0-9]+)*")


@dataclass(frozen=True, slots=True)
class SnapshotEnvironment:
    """One environment on one target as it stands in a snapshot.

    ``manifest`` is the digest of its OCI manifest; artifacts carry sizes and facts.
    """

    locked: LockedEnvironment
    target: Target
    artifacts: tuple[Artifact, ...]
    manifest: Digest

    @property
    def ref(self) -> str:
        """``name/target``."""
        return self.locked.ref


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a site holds at one moment.

    ``id`` is the digest of the OCI image index; the same lock and bytes give the same id on any machine.
    ``metadata`` are the small blobs that describe it (index, manifests, configs, lock), ``blobs`` maps
    every digest, metadata included, to its size in bytes.
    """

    id: Digest
    lock: Digest
    environments: tuple[SnapshotEnvironment, ...]
    metadata: tuple[Digest, ...]
    blobs: dict[Digest, int]

    def environment(self, name: str, target: str) -> SnapshotEnvironment | None:
        """The environment of that name on that target."""
        return next((e for e in self.environments if e.ref == f"{name}/{target}"), None)


@dataclass(frozen=True, slots=True)
class Change:
    """One artifact that came, went, or changed within an environment; versions are ``None`` where absent."""

    ref: str
    name: str
    old: str | None
    new: str | None
    bytes: int


def diff(old: Snapshot | None, new: Snapshot) -> list[Change]:
    """What ``new`` has that ``old`` has not and the other way round, environment by environment.

    Environments whose manifests are equal are skipped without looking at their artifacts, so the cost
    grows with what changed.  ``bytes`` counts what a change adds.
    """
    before = {e.ref: e for e in old.environments} if old else {}
    after = {e.ref: e for e in new.environments}
    changes: list[Change] = []
    for ref in sorted(before.keys() | after.keys()):
        left, right = before.get(ref), after.get(ref)
        if left and right and left.manifest == right.manifest:
            continue
        # By file name too: two files may have the same bytes.
        olds = {(a.digest, a.filename): a for a in left.artifacts} if left else {}
        news = {(a.digest, a.filename): a for a in right.artifacts} if right else {}
        gone = {described(a)[0]: a for key, a in olds.items() if key not in news}
        come = {described(a)[0]: a for key, a in news.items() if key not in olds}
        for name in sorted(gone.keys() | come.keys()):
            was, now = gone.get(name), come.get(name)
            changes.append(
                Change(
                    ref,
                    name,
                    described(was)[1] if was else None,
                    described(now)[1] if now else None,
                    (now.size or 0) if now else 0,
                )
            )
    return changes


def is_snapshot_name(name: str) -> bool:
    """Whether a snapshot may be called so: a component of an OCI reference, and not the word ``current``."""
    return _NAME.fullmatch(name) is not None and name != CURRENT


def is_name_to_give(name: str) -> bool:
    """Whether a snapshot may be newly called so: not with ``__``, which parts environment and target in a tag.

    Snapshots of before may have such a name (``is_snapshot_name``).
    """
    return is_snapshot_name(name) and "__" not in name


NAME_RULE = "letters and digits, joined by dots, dashes or single underscores, and not `current`"
"""What :func:`is_name_to_give` says, for people."""


def free_name(wanted: str, taken: Collection[str]) -> str:
    """``wanted``, or ``wanted.2``, ``wanted.3`` … whichever is not taken first."""
    if wanted not in taken:
        return wanted
    return next(f"{wanted}.{n}" for n in range(2, len(taken) + 3) if f"{wanted}.{n}" not in taken)


def reachable(snapshots: Iterable[Snapshot]) -> set[Digest]:
    """Every blob that any of the snapshots needs."""
    return {digest for snapshot in snapshots for digest in snapshot.blobs}
