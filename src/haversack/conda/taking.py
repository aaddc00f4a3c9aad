"""Packages that people chose already: by address, or as they stand in an environment of this machine.

An address says where a package is and what its bytes are, not what its channel says of it.  The channel is
asked for its record, so that hotfixes come along; what it does not list any more is read from the package.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from haversack.conda import engine
from haversack.conda.layout import load_meta
from haversack.errors import DeclarationError, FetchError, PrefixError
from haversack.formats import repodata
from haversack.formats.prefixes import META
from haversack.model.artifact import Artifact, Digest, hex_of
from haversack.model.finding import Finding
from haversack.model.target import Target
from haversack.ports import Outside
from haversack.wheels import drift

# What stands in the name of a package (CEP 26).
_NAME = re.compile(r"[A-Za-z0-9_.-]+")
# What a record of conda-meta has of the channel's; the rest is about the installation.
_OF_CHANNEL = frozenset(
    [
        "arch",
        "build",
        "build_number",
        "channel",
        "constrains",
        "depends",
        "features",
        "fn",
        "legacy_bz2_md5",
        "legacy_bz2_size",
        "license",
        "license_family",
        "md5",
        "name",
        "noarch",
        "platform",
        "purls",
        "python_site_packages_path",
        "sha256",
        "size",
        "subdir",
        "timestamp",
        "track_features",
        "url",
        "version",
    ]
)


@dataclass(frozen=True, slots=True)
class Chosen:
    """A package by its address: ``url`` without secrets, ``md5`` in hexadecimal, either digest if known."""

    url: str
    md5: str | None
    sha256: Digest | None

    @property
    def place(self) -> tuple[str, str, str]:
        """Channel, subdir and file name."""
        folder, _, filename = self.url.rpartition("/")
        channel, _, subdir = folder.rpartition("/")
        return channel, subdir, filename

    @property
    def name(self) -> str:
        """The name of the package, as its file has it."""
        return self.place[2].rsplit("-", 2)[0].lower()


def by_address(
    chosen: Sequence[Chosen], target: Target, ref: str, out: Outside
) -> tuple[list[Artifact], list[Finding]]:
    """The packages at some addresses as artifacts of an environment.

    Findings: ``conda-invalid`` for one whose name none can have, ``lock-platform`` for one of another
    platform, ``hash-refused`` where the channel's digests are others, ``conda-unhashed`` where nobody names a
    sha256, ``fetch-failed`` where the channel does not answer.
    """
    artifacts: list[Artifact] = []
    findings: list[Finding] = []
    try:
        listed = _listed(chosen, target, out)
        for one in chosen:
            found = _one(one, listed.get(one.url), target, ref, out)
            if isinstance(found, Artifact):
                artifacts.append(found)
            else:
                findings.append(found)
    except FetchError as problem:
        findings.append(Finding("fetch-failed", ref, str(problem), problem.remedy))
    return artifacts, findings


def _listed(chosen: Iterable[Chosen], target: Target, out: Outside) -> dict[str, Mapping[str, Any]]:
    """What the channels say of these packages, by URL."""
    names: dict[str, set[str]] = {}
    for one in chosen:
        channel, subdir, _ = one.place
        if subdir in {target.subdir, "noarch"} and _NAME.fullmatch(one.name):
            names.setdefault(channel, set()).add(one.name)
    return {
        repodata.plain_url(record["url"]): record
        for channel, wanted in sorted(names.items())
        for record in out.channels.records([channel], [target.subdir, "noarch"], sorted(wanted))
    }


def _one(
    one: Chosen, record: Mapping[str, Any] | None, target: Target, ref: str, out: Outside
) -> Artifact | Finding:
    _, subdir, filename = one.place
    subject = f"{filename} in {ref}"
    if not _NAME.fullmatch(one.name):
        message = f"no conda package is called {one.name!r}"
        return Finding("conda-invalid", subject, message, "correct the address, or leave the package out")
    if subdir not in {target.subdir, "noarch"}:
        message = f"is for {subdir}, and the target {target.name} is {target.subdir}"
        return Finding("lock-platform", subject, message, f"name packages for {target.subdir} too")
    if record is None and one.sha256 is not None:
        record = _from_package(one, one.sha256, out)
    if record is None:
        message = "is not in its channel's repodata any more, and only an md5 is named"
        return Finding("conda-unhashed", subject, message, "lock the environment again, or name its sha256")
    told = {"md5": record.get("md5"), "sha256": record.get("sha256")}
    wanted = {"md5": one.md5, "sha256": hex_of(one.sha256) if one.sha256 else None}
    for name, digits in wanted.items():
        if digits and told[name] and told[name] != digits:
            message = f"the channel's {name} is {told[name]}, and {digits} was chosen"
            return Finding(
                "hash-refused", subject, message, "find out who changed the package, or lock again"
            )
    if one.sha256 and not told["sha256"]:
        record = {**record, "sha256": hex_of(one.sha256)}
    return repodata.artifact_of(record, ref)


def _from_package(one: Chosen, digest: Digest, out: Outside) -> Mapping[str, Any]:
    """The record that a package has of itself; it is fetched, and stays for collect."""
    from rattler import RepoDataRecord

    channel, subdir, filename = one.place
    file = out.cache / "partial" / hex_of(digest)
    file.parent.mkdir(parents=True, exist_ok=True)
    out.fetch.get(one.url, digest, file, lambda _: None)
    with tempfile.TemporaryDirectory(prefix="haversack-package-") as folder:
        named = Path(folder) / filename
        named.symlink_to(file)
        try:
            with engine.guarded(f"reading {filename}"):
                record = engine.from_rattler(engine.run(RepoDataRecord.from_package_archive(named)))
        except (OSError, ValueError) as problem:
            raise FetchError(f"is no conda package: {problem}", where=one.url) from problem
    told = {"fn": filename, "url": one.url, "channel": channel, "subdir": subdir, "sha256": hex_of(digest)}
    return {**record, **told}


def installed(prefix: Path, target: Target, ref: str, out: Outside) -> tuple[list[Artifact], list[Finding]]:
    """The conda packages of an environment that is installed on this machine, from its ``conda-meta``.

    Raises ``DeclarationError`` if that is none.
    """
    artifacts: list[Artifact] = []
    unhashed: list[Chosen] = []
    findings: list[Finding] = []
    for record in _conda_meta(prefix):
        kept = {key: value for key, value in record.items() if key in _OF_CHANNEL and value is not None}
        if kept.get("subdir") not in {target.subdir, "noarch"}:
            message = f"is for {kept.get('subdir')}, and the target {target.name} is {target.subdir}"
            remedy = f"leave {target.name} out, or write an environment.yml"
            findings.append(Finding("lock-platform", f"{kept.get('name')} in {ref}", message, remedy))
        elif "sha256" in kept or "url" not in kept:
            made = repodata.artifact_of(kept, ref)
            (artifacts if isinstance(made, Artifact) else findings).append(made)  # type: ignore[arg-type]
        else:
            try:
                url = repodata.plain_url(str(kept["url"]))
            except ValueError as problem:
                subject = f"{kept.get('name')} in {ref}"
                remedy = "make the environment anew, or write an environment.yml"
                findings.append(Finding("conda-invalid", subject, f"its address {problem}", remedy))
            else:
                unhashed.append(Chosen(url, kept.get("md5"), None))
    more, wrong = by_address(unhashed, target, ref, out)
    return [*artifacts, *more], [*findings, *wrong]


def _conda_meta(prefix: Path) -> list[dict[str, Any]]:
    files = sorted((prefix / META).glob("*.json"))
    if not files:
        raise DeclarationError(
            "is no conda environment: it has no conda-meta/*.json",
            where=str(prefix),
            remedy='name the prefix of one, or take it as it is with kind = "prefix"',
        )
    found = []
    for file in files:
        try:
            found.append(load_meta(file))
        except PrefixError as problem:
            raise DeclarationError(
                problem.message, where=str(file), remedy="mend the environment, or make it anew"
            ) from problem
    return found


def installed_wheels(prefix: Path) -> list[str]:
    """``name==version`` of the distributions in an environment that no conda package brought."""
    owned = {path for record in _conda_meta(prefix) for path in record.get("files", ())}
    site = drift.site_packages(prefix)
    found = []
    for info in sorted(site.glob("*.dist-info")):
        if (info / "METADATA").relative_to(prefix).as_posix() not in owned:
            name, _, version = info.name.removesuffix(".dist-info").rpartition("-")
            found.append(f"{name}=={version}")
    return found
