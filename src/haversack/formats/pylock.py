"""PEP 751 lock files: what a target takes from one, and a path-only one to install from."""

from __future__ import annotations

import json
import posixpath
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from packaging.pylock import (
    PackageArchive,
    PackageSdist,
    PackageWheel,
    Pylock,
    PylockSelectError,
    PylockValidationError,
)

from haversack.errors import DeclarationError
from haversack.model.artifact import Artifact
from haversack.model.finding import Finding
from haversack.model.target import Target

if TYPE_CHECKING:
    from packaging.pylock import Package


@dataclass(frozen=True, slots=True)
class Pick:
    """The file that a lock gives a target for one package.

    ``location`` is a URL, or a path relative to the lock file.  ``digest`` is the lock's; ``size`` in bytes
    and ``uploaded`` (RFC 3339, UTC) where the index told them.  ``yanked`` is the reason (PEP 592), or
    ``None`` if the file was not, or nobody said.
    """

    name: str
    version: str
    filename: str
    location: str
    digest: str
    size: int | None
    wheel: bool
    uploaded: str | None = None
    yanked: str | None = None


def read(data: bytes, where: str) -> Pylock:
    """The lock in some bytes.  Raises ``DeclarationError`` naming the place in it."""
    try:
        return Pylock.from_dict(tomllib.loads(data.decode()))
    except (ValueError, PylockValidationError) as problem:
        raise DeclarationError(
            f"is not a valid pylock file: {problem}", where=where, remedy="lock it again"
        ) from problem


def select(
    lock: Pylock, target: Target, where: str, *, extras: Sequence[str] = (), groups: Sequence[str] = ()
) -> tuple[list[Pick], list[Finding]]:
    """The files of a lock for a target, by the target's markers and tags, and what cannot cross."""
    picks: list[Pick] = []
    findings: list[Finding] = []
    try:
        chosen = list(
            lock.select(
                environment=target.markers(),
                tags=target.tags(),
                extras=extras or None,
                dependency_groups=groups or lock.default_groups,
            )
        )
    except (PylockSelectError, ValueError) as problem:
        finding = Finding(
            "no-solution", f"{where} on {target.name}", str(problem), "lock it for this target too"
        )
        return [], [finding]
    for package, source in chosen:
        if isinstance(source, PackageWheel | PackageSdist | PackageArchive):
            picks.append(_pick(package, source))
        else:
            findings.append(
                Finding(
                    "source-unsupported",
                    f"{package.name} on {target.name}",
                    "comes from a folder or a repository",
                    "build a wheel of it and name the wheel, or publish it on an index of yours",
                )
            )
    return picks, findings


def _pick(package: Package, source: PackageWheel | PackageSdist | PackageArchive) -> Pick:
    location = source.url or source.path or ""
    named = None if isinstance(source, PackageArchive) else source.name
    # uv writes no name: it is the last part of the URL.
    filename = named or posixpath.basename(unquote(urlsplit(location).path))
    sha256 = source.hashes.get("sha256", "")
    version = str(package.version) if package.version else ""
    if filename.endswith(".whl") and not version:
        version = filename.split("-")[1]
    moment = source.upload_time
    return Pick(
        name=package.name,
        version=version,
        filename=filename,
        location=location,
        digest=f"sha256:{sha256}",
        size=source.size,
        wheel=filename.endswith(".whl"),
        # TOML may have it without a zone; PEP 751 means UTC.
        uploaded=moment.replace(tzinfo=moment.tzinfo or UTC)
        .astimezone(UTC)
        .isoformat()
        .replace("+00:00", "Z")
        if moment
        else None,
    )


def path_only(artifacts: Iterable[Artifact], folder: str) -> bytes:
    """A lock that installs ``artifacts`` from ``folder/<hex>/<filename>``, hashes and all, with no index."""
    lines = ['lock-version = "1.0"', 'created-by = "haversack"']
    for artifact in sorted(artifacts, key=lambda a: a.name):
        digits = artifact.digest.removeprefix("sha256:")
        wheel = (
            f"name = {json.dumps(artifact.filename)}, path = {json.dumps(f'{folder}/{digits}/{artifact.filename}')}, "
            f"hashes = {{ sha256 = {json.dumps(digits)} }}"
        )
        lines += [
            "",
            "[[packages]]",
            f"name = {json.dumps(artifact.name)}",
            f"version = {json.dumps(artifact.version)}",
            f"wheels = [{{ {wheel} }}]",
        ]
    return ("\n".join(lines) + "\n").encode()


def preferences(pins: Iterable[tuple[str, str]]) -> bytes:
    """A lock that says only names and versions: ``uv`` keeps to it where the requirements allow."""
    lines = ['lock-version = "1.0"', 'created-by = "haversack"']
    for name, version in sorted(pins):
        lines += ["", "[[packages]]", f"name = {json.dumps(name)}", f"version = {json.dumps(version)}"]
    return ("\n".join(lines) + "\n").encode()
