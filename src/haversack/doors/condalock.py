"""A ``conda-lock.yml``: an environment on all its targets, for conda-lock and micromamba."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from haversack.doors import lacks, nowhere, of_kind
from haversack.errors import UsageError
from haversack.formats import condalock
from haversack.formats.condalock import CondaLock, CondaLockPackage
from haversack.formats.repodata import record_of
from haversack.model.artifact import Artifact, hex_of
from haversack.model.snapshot import SnapshotEnvironment
from haversack.ports import Store

_DEPENDS = re.compile(r"(?:[^\s:\[]+::)?([A-Za-z0-9_.-]+)\s*(.*)")


class CondaLockFile:
    """Version 1, one entry for each package on each platform."""

    name = "conda-lock"
    doc = "a conda-lock.yml of all targets, for conda-lock install"
    carries = ("conda", "wheel")
    folder = False
    together = True

    def refuses(self, environment: SnapshotEnvironment) -> str | None:
        """See the protocol.  Version 1 asks for an md5 beside the sha256."""
        if wrong := lacks(environment, "conda"):
            return wrong
        packages = of_kind(environment, "conda")
        for artifact in packages:
            for key in ("md5", "build"):
                if not isinstance(record_of(artifact).get(key), str):
                    return f"nobody names the {key} of {artifact.filename}, which it needs; use pixi-pack"
        return nowhere([*packages, *of_kind(environment, "wheel")], "pixi-pack")

    def write(self, environments: Sequence[SnapshotEnvironment], store: Store, dest: Path) -> list[str]:
        """See the protocol.  A platform stands in one but once."""
        by_platform: dict[str, SnapshotEnvironment] = {}
        for environment in environments:
            other = by_platform.setdefault(environment.target.subdir, environment)
            if other is not environment:
                raise UsageError(
                    f"{other.ref} and {environment.ref} are both for {environment.target.subdir}, "
                    "which a conda-lock.yml has once",
                    remedy=f"choose one: --target {other.target.name}",
                )
        packages: list[CondaLockPackage] = []
        channels: dict[str, None] = {}
        for platform, environment in sorted(by_platform.items()):
            for artifact in of_kind(environment, "conda"):
                record = record_of(artifact)
                channels.setdefault(record["channel"])
                packages.append(_conda(artifact, record, platform))
            packages += (_pip(artifact, platform) for artifact in of_kind(environment, "wheel"))
        lock = CondaLock(tuple(channels), tuple(sorted(by_platform)), tuple(packages))
        sums = {platform: hex_of(environment.manifest) for platform, environment in by_platform.items()}
        dest.write_bytes(condalock.write(lock, sums))
        return [dest.name]


def _conda(artifact: Artifact, record: dict[str, Any], platform: str) -> CondaLockPackage:
    asked: dict[str, list[str]] = {}
    for line in record.get("depends") or ():
        if match := _DEPENDS.fullmatch(line):
            asked.setdefault(match[1], []).append(match[2])
    return CondaLockPackage(
        artifact.name,
        artifact.version,
        "conda",
        platform,
        artifact.origin,
        record["md5"],
        artifact.digest,
        {name: ",".join(filter(None, constraints)) for name, constraints in asked.items()},
        build=record["build"],
    )


def _pip(artifact: Artifact, platform: str) -> CondaLockPackage:
    return CondaLockPackage(
        artifact.name, artifact.version, "pip", platform, artifact.origin, None, artifact.digest
    )


DOORS = (CondaLockFile(),)
