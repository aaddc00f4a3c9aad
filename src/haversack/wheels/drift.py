"""What an installed environment is, against what it should be."""

from __future__ import annotations

import base64
import csv
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from packaging.utils import canonicalize_name

from haversack.model.artifact import Artifact
from haversack.model.finding import Finding

_REMEDY = "install the environment again: haversack install NAME --to PREFIX"


def site_packages(prefix: Path) -> Path:
    """Where an environment keeps its distributions (``lib/python3.11/site-packages``)."""
    if os.name == "nt":
        return prefix / "Lib" / "site-packages"
    return next(iter(sorted(prefix.glob("lib/python3.*/site-packages"))), prefix / "lib" / "site-packages")


def drift(prefix: Path, artifacts: Sequence[Artifact]) -> list[Finding]:
    """Every way in which the environment at ``prefix`` is no longer that of ``artifacts``.

    Each file is hashed against the RECORD of its distribution (PyPA *Recording installed projects*).
    """
    wanted = {a.name: a for a in artifacts if a.kind == "wheel"}
    site = site_packages(prefix)
    findings: list[Finding] = []
    found: set[str] = set()
    jobs: list[tuple[Path, str, str]] = []
    for info in sorted(site.glob("*.dist-info")):
        name, _, version = info.name.removesuffix(".dist-info").rpartition("-")
        name = str(canonicalize_name(name))
        found.add(name)
        if name not in wanted:
            findings.append(
                Finding(
                    "env-extra",
                    f"{name} {version}",
                    "is installed, but the environment does not name it",
                    _REMEDY,
                )
            )
            continue
        if version.replace("_", "-") != wanted[name].version.replace("_", "-"):
            message = f"is installed at {version}, not at {wanted[name].version}"
            findings.append(Finding("env-changed", name, message, _REMEDY))
        if not (info / "RECORD").is_file():
            findings.append(Finding("env-missing", f"{info.name}/RECORD", "is gone", _REMEDY))
            continue
        jobs += [(site / path, digest, size) for path, digest, size in _record(info / "RECORD")]
    findings += [
        Finding("env-absent", f"{name} {wanted[name].version}", "is not installed", _REMEDY)
        for name in sorted(wanted.keys() - found)
    ]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        findings += [finding for finding in pool.map(lambda job: _compare(prefix, *job), jobs) if finding]
    return findings


def _record(path: Path) -> Iterator[tuple[str, str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.reader(file):
            if len(row) == 3 and row[1]:
                yield row[0], row[1], row[2]


def _compare(prefix: Path, path: Path, digest: str, size: str) -> Finding | None:
    place = Path(os.path.normpath(path))
    subject = str(place.relative_to(prefix)) if place.is_relative_to(prefix) else str(place)
    if not place.is_file():
        return Finding("env-missing", subject, "is gone", _REMEDY)
    algorithm, _, told = digest.partition("=")
    with place.open("rb") as file:
        state = hashlib.file_digest(file, algorithm)
    if base64.urlsafe_b64encode(state.digest()).rstrip(b"=").decode() != told or (
        size and place.stat().st_size != int(size)
    ):
        return Finding("env-changed", subject, "is not the file that was installed", _REMEDY)
    return None


def changed_since(prefix: Path, unpacked: Mapping[str, int], *, every: bool) -> list[Finding]:
    """Files of a fresh installation that are not what their RECORD says.

    ``unpacked`` maps a distribution to when its wheel was unpacked into the cache (ns since the epoch).  A
    file edited in one environment is edited in the cache that shares it by hard link, and keeps the date of
    the edit: only files younger than the unpacking are hashed, unless ``every`` one is to be.
    """
    site = site_packages(prefix)
    jobs = []
    for info in sorted(site.glob("*.dist-info")):
        moment = unpacked.get(str(canonicalize_name(info.name.removesuffix(".dist-info").rpartition("-")[0])))
        if moment is None:
            continue
        for path, digest, size in _record(info / "RECORD"):
            place = os.path.join(site, path)
            if every or os.stat(place).st_mtime_ns > moment:
                jobs.append((Path(place), digest, size))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return [finding for finding in pool.map(lambda job: _compare(prefix, *job), jobs) if finding]
