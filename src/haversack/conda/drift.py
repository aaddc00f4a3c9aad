"""What an installed environment of conda packages is, against what its packages brought."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name

from haversack.conda import activation, engine, settling
from haversack.conda.layout import Layout, Meta, Placed, layout_of, read_metas, record, state_of
from haversack.errors import NotFoundError, PrefixError
from haversack.formats import prefixes
from haversack.formats.prefixes import MARKER, META
from haversack.model.artifact import Artifact
from haversack.model.finding import Finding
from haversack.model.snapshot import SnapshotEnvironment
from haversack.ports import Store
from haversack.wheels import drift as wheels_drift

_REMEDY = "install the environment again: haversack install NAME --to PREFIX"
# What stands in a prefix beside its packages: haversack's marker, what rattler and conda write for themselves.
_BESIDE = (MARKER, "CACHEDIR.TAG", f"{META}/history")
_ASIDE = "__clobbers__/"  # where rattler keeps files that lost their place
_BATCH, _SMALL = 100, 1 << 16  # files that one thread takes at once; bytes
# Where a file does something by being there: it is found as a program, a library, a module or a hook.
_LIVE = ("bin/", "sbin/", "libexec/", "lib/", "Scripts/", "Lib/", "Library/", "DLLs/", "etc/conda/")


@dataclass(frozen=True, slots=True)
class _Row:
    """What a package's ``paths.json`` says of a file: its digest in hexadecimal, and whether a prefix is in it."""

    kind: str
    sha256: str | None
    patched: bool


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What a file of the prefix should be: ``sha256`` of its bytes, ``None`` where nobody knows.

    ``original`` is the digest that its package tells, by which links to it are recognised.
    """

    kind: str
    sha256: str | None
    original: str | None


def drift(environment: SnapshotEnvironment, prefix: Path, store: Store) -> list[Finding]:
    """Every way in which the environment at ``prefix`` is no longer what was installed there.

    Each file is hashed against ``info/paths.json`` in the package that brought it, where ``store`` still
    holds that; one into which the prefix was written, and an entry point, against ``conda-meta/`` in the
    environment, as is everything of a package that the store lost.  A link must lead to a file that its
    package knows.  Activation scripts are derived again for the home that the marker names; an environment
    that stands elsewhere now is one finding.  Wheels are compared as :mod:`haversack.wheels.drift` does.  A
    file that nobody brought blocks only where it does something by being there, and not where link scripts
    were allowed: nobody knows what they make.  Not seen are permissions, bytecode in ``__pycache__``, and a
    file with a prefix in it that was altered together with its line in ``conda-meta/``.
    """
    packages = {a.name: a for a in environment.artifacts if a.kind == "conda"}
    wheels = [artifact for artifact in environment.artifacts if artifact.kind == "wheel"]
    layout = layout_of(environment.artifacts, environment.target)
    metas, wrong = read_metas(prefix)
    findings = [Finding("env-changed", f"{META}/{file}", why, _REMEDY) for file, why in wrong]
    known, more = _members(packages, metas)
    findings += more
    told, more = _told([packages[meta.name] for meta in known], store)
    findings += more
    beside: set[str] = set()
    if wheels and layout.site is not None:
        rows = wheels_drift.named(prefix / layout.site, {canonicalize_name(wheel.name) for wheel in wheels})
        beside = {os.path.normpath(f"{layout.site}/{row}").replace(os.sep, "/") for row in rows}
    wanted: dict[str, _Wanted] = {}
    for meta in known:
        wanted |= _wanted(meta, told.get(meta.name), layout, packages[meta.name])
    # A wheel that brings a file of a conda package too was there last.
    findings += _compared(prefix, {path: want for path, want in wanted.items() if path not in beside})
    variables = environment.locked.settings.get("variables", {})
    home = _home(prefix)
    if not _same(home, prefix):
        moved = f"was installed at {_shown(str(home))}, and works only there"
        findings.append(Finding("env-changed", _shown(str(prefix.absolute())), moved, _REMEDY))
    ours = activation.files(prefix, layout, home, variables, wanted.keys() | beside)
    if variables:
        ours[f"{META}/state"] = state_of(variables)
    findings += _derived(prefix, ours)
    owned = {*wanted, *ours, *_BESIDE, *beside, *(f"{META}/{meta.file}" for meta in metas)}
    owned |= {placed.path for meta in metas if meta not in known for placed in meta.paths}
    owned |= {f"{META}/{file}" for file, _ in wrong}
    findings += _strangers(prefix, layout, owned, scripted=bool(settling.allowed(environment)))
    if layout.site is not None:
        site = layout.site + "/"
        theirs = {path.removeprefix(site) for path in owned - beside if path.startswith(site)}
        findings += wheels_drift.drift(prefix, wheels, store, site=prefix / layout.site, theirs=theirs)
    return findings


def _home(prefix: Path) -> Path:
    """Where the environment was installed: what its marker says, or where it is, by the name it is called here."""
    try:
        marker = prefixes.read((prefix / MARKER).read_bytes(), MARKER)
    except (OSError, PrefixError):
        return prefix.absolute()
    return Path(marker.home) if marker.home else prefix.absolute()


def _same(home: Path, prefix: Path) -> bool:
    """Whether two paths are one folder, through whatever links."""
    try:
        return home.samefile(prefix)
    except (OSError, ValueError):
        return False


def _members(packages: Mapping[str, Artifact], metas: Sequence[Meta]) -> tuple[list[Meta], list[Finding]]:
    """The packages that are installed as they should be, and what is wrong with the others."""
    known: list[Meta] = []
    findings: list[Finding] = []
    for meta in metas:
        package = packages.get(meta.name)
        if package is None or any(other.name == meta.name for other in known):
            told = "is installed, but the environment does not name it"
            findings.append(Finding("env-extra", f"{meta.name} {meta.version}", told, _REMEDY))
            continue
        is_, should = f"{meta.version}={meta.build}", f"{package.version}={record(package).get('build')}"
        if is_ == should:
            known.append(meta)
        else:
            told = f"is installed at {is_}, not at {should}"
            findings.append(Finding("env-changed", meta.name, told, _REMEDY))
    absent = packages.keys() - {meta.name for meta in metas}
    return known, findings + [
        Finding("env-absent", f"{name} {packages[name].version}", "is not installed", _REMEDY)
        for name in sorted(absent)
    ]


def _told(packages: Sequence[Artifact], store: Store) -> tuple[dict[str, dict[str, _Row]], list[Finding]]:
    """What ``paths.json`` in the packages of the store says, by package; none for one from before there was one."""
    found: dict[str, dict[str, _Row]] = {}
    findings: list[Finding] = []
    lost = 0
    with tempfile.TemporaryDirectory(prefix="haversack-drift-") as folder:
        places: dict[str, Path] = {}
        for number, package in enumerate(packages):
            try:
                blob = store.path(package.digest)
            except NotFoundError:
                lost += 1
                continue
            # Rattler knows formats by their names.
            places[package.name] = Path(folder) / f"{number}-{package.filename}"
            places[package.name].symlink_to(blob)
        for name, rows in zip(places, engine.run(_read_all([*places.values()])), strict=True):
            if isinstance(rows, Exception):
                damaged = str(places[name].readlink())
                said = f"cannot be read: {rows}"
                findings.append(Finding("store-damaged", damaged, said, "haversack doctor --read-all", False))
            elif rows is not None:
                found[name] = rows
    if lost:
        findings.append(
            Finding(
                "store-incomplete",
                f"{lost} packages of {len(packages)}",
                "are not in the store any more: their files were compared with conda-meta/ in the environment",
                "receive a bundle that holds them again, or install from the current snapshot",
                blocking=False,
            )
        )
    return found, findings


async def _read_all(files: Sequence[Path]) -> list[dict[str, _Row] | Exception | None]:
    from rattler.package_streaming import PackageArchive

    found: list[dict[str, _Row] | Exception | None] = []
    for file in files:
        try:
            with engine.guarded("reading it"):
                archive = await PackageArchive.from_path(file)
                data = await archive.read_file("info/paths.json")
            found.append(None if data is None else _rows(data))
        except Exception as problem:  # rattler says this and that of bytes like these
            found.append(problem)
    return found


def _rows(data: bytes) -> dict[str, _Row]:
    """The rows of a ``paths.json``.  Raises ``ValueError``, ``LookupError`` or ``TypeError``."""
    rows: list[dict[str, Any]] = json.loads(data)["paths"]
    return {
        row["_path"]: _Row(row.get("path_type", "hardlink"), row.get("sha256"), "prefix_placeholder" in row)
        for row in rows
    }


def _wanted(
    meta: Meta, told: Mapping[str, _Row] | None, layout: Layout, package: Artifact
) -> dict[str, _Wanted]:
    """What the files of a package should be where they are; ``told`` is what its ``paths.json`` says."""
    if told is None:
        return {row.path: _Wanted(row.kind, row.in_prefix or row.sha256, row.sha256) for row in meta.paths}
    # What the installer wrote itself, a package does not know.
    made = [row for row in meta.paths if "entry_point" in row.kind or row.kind == "pyc_file"]
    found = {row.path: _Wanted(row.kind, row.sha256, row.sha256) for row in made}
    noarch = record(package).get("noarch") == "python"
    linked = {row.wanted: row for row in meta.paths}
    for path, row in told.items():
        place = layout.placed(path, noarch=noarch)
        at: Placed | None = linked.get(place)
        sha256 = row.sha256
        if at is not None and row.patched and row.kind == "hardlink":
            sha256 = at.in_prefix or at.sha256
        if at is not None and at.path.startswith(_ASIDE):
            place = at.path
        found[place] = _Wanted(row.kind, sha256, row.sha256)
    return found


def _compared(prefix: Path, wanted: Mapping[str, _Wanted]) -> list[Finding]:
    real = Path(os.path.realpath(prefix))
    jobs = list(wanted.items())
    # By the hundred: to hand over one small file costs more than to hash it.
    batches = [jobs[start : start + _BATCH] for start in range(0, len(jobs), _BATCH)]

    def compare(batch: Sequence[tuple[str, _Wanted]]) -> list[Finding | None]:
        return [_compare(path, want, prefix, real, wanted) for path, want in batch]

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return [finding for found in pool.map(compare, batches) for finding in found if finding]


def _compare(
    path: str, want: _Wanted, prefix: Path, real: Path, wanted: Mapping[str, _Wanted]
) -> Finding | None:
    place = os.path.join(prefix, path)
    if want.kind in ("directory", "pyc_file"):
        return None
    try:
        try:
            mode = os.lstat(place).st_mode
        except (FileNotFoundError, NotADirectoryError):
            return Finding("env-missing", _shown(path), "is gone", _REMEDY)
        if want.kind == "softlink":
            return _compare_link(path, want, prefix, real, wanted)
        if not stat.S_ISREG(mode):
            return Finding("env-changed", _shown(path), "is not a file any more", _REMEDY)
        if want.sha256 in (None, _digest(place)):
            return None
    except OSError as problem:
        return Finding("env-changed", _shown(path), f"cannot be read: {problem.strerror}", _REMEDY)
    return Finding("env-changed", _shown(path), "is not the file that was installed", _REMEDY)


def _digest(place: str) -> str:
    with Path(place).open("rb") as file:
        # One read for a small file; file_digest makes a buffer of 256 KiB for each.
        start = file.read(_SMALL)
        if len(start) < _SMALL:
            return hashlib.sha256(start).hexdigest()
        file.seek(0)
        return hashlib.file_digest(file, "sha256").hexdigest()


def _compare_link(
    path: str, want: _Wanted, prefix: Path, real: Path, wanted: Mapping[str, _Wanted]
) -> Finding | None:
    """Whether a link leads to the bytes that its package knows; packages do not say where one leads."""
    place = prefix / path
    if not place.is_symlink():
        return Finding("env-changed", _shown(path), "is not a link any more", _REMEDY)
    end = Path(os.path.realpath(place))
    if not end.is_relative_to(real):
        told = f"leads out of the environment, to {_shown(str(end))}"
        return Finding("env-changed", _shown(path), told, _REMEDY, blocking=False)
    other = wanted.get(end.relative_to(real).as_posix())
    if other is not None and want.original not in (None, other.original):
        return Finding("env-changed", _shown(path), f"leads to {_shown(str(end))}", _REMEDY)
    return None


def _derived(prefix: Path, ours: Mapping[str, bytes]) -> Iterator[Finding]:
    """Files that haversack wrote itself, against what it would write now."""
    for path, data in ours.items():
        place = prefix / path
        if not place.is_file():
            yield Finding("env-missing", _shown(path), "is gone", _REMEDY)
        elif place.is_symlink() or place.read_bytes() != data:
            yield Finding("env-changed", _shown(path), "is not the file that was installed", _REMEDY)


def _strangers(prefix: Path, layout: Layout, owned: Collection[str], *, scripted: bool) -> Iterator[Finding]:
    """Files outside of ``site-packages`` that nobody brought."""
    for place, folders, names in os.walk(prefix):
        at = os.path.relpath(place, prefix).replace(os.sep, "/")
        start = "" if at == "." else f"{at}/"
        linked = [name for name in folders if Path(place, name).is_symlink()]
        folders[:] = sorted(
            name
            for name in folders
            if name != "__pycache__" and name not in linked and start + name != layout.site
        )
        for name in sorted([*names, *linked]):
            path = start + name
            if path in owned:
                continue
            live = path.startswith(_LIVE) or (layout.windows and not start)
            told = "no package of the environment brought it"
            if scripted:
                told += "; a link script may have made it"
            yield Finding("env-extra", _shown(path), told, _REMEDY, blocking=live and not scripted)


def _shown(path: str) -> str:
    return path if path.isprintable() else ascii(path)[1:-1]
