"""What an installed environment is, against what it should be."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import os
import re
import zipfile
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from packaging.utils import canonicalize_name

from haversack.errors import NotFoundError
from haversack.model.artifact import Artifact
from haversack.model.finding import Finding
from haversack.ports import Store

_REMEDY = "install the environment again: haversack install NAME --to PREFIX"
# Any other one would be refused in a wheel.
_HASHES = {"sha256", "sha384", "sha512", "sha3_256", "sha3_384", "sha3_512"}
# What an installer adds to a .dist-info folder, and uv to environments of older Pythons.
_INSTALLERS = (
    "RECORD",
    "RECORD.jws",
    "RECORD.p7s",
    "INSTALLER",
    "REQUESTED",
    "direct_url.json",
    "uv_cache.json",
)
_UVS = ("_virtualenv.py", "_virtualenv.pth")
_MOVED = re.compile(r"[^/]+\.data/(?P<where>[^/]+)/(?P<rest>.+)")


class _Row(NamedTuple):
    """What a RECORD says of a file: ``sha256=…`` and its size as text, either of which can be empty."""

    digest: str
    size: str


_Rows = dict[str, _Row]
"""Rows by path, from the folder of distributions on."""


def site_packages(prefix: Path) -> Path:
    """Where an environment keeps its distributions (``lib/python3.11/site-packages``)."""
    if os.name == "nt":
        return prefix / "Lib" / "site-packages"
    return next(iter(sorted(prefix.glob("lib/python3.*/site-packages"))), prefix / "lib" / "site-packages")


def drift(
    prefix: Path,
    artifacts: Sequence[Artifact] | None,
    store: Store,
    *,
    site: Path | None = None,
    theirs: Collection[str] = (),
) -> list[Finding]:
    """Every way in which the environment at ``prefix`` is no longer that of ``artifacts``.

    Each file is hashed against the RECORD in the wheel that it came from, where ``store`` still holds that;
    a script, which its installer wrote, against the RECORD in the environment (PyPA *Recording installed
    projects*), as is everything where the artifacts are not known (``None``).  Not seen are bytecode in
    ``__pycache__``, which Python writes there, and a script that was altered together with its line.
    ``site`` is where distributions are, if not in the usual place; ``theirs`` are files in it, relative to it,
    that are there by other right, and a distribution of which one is theirs is not looked at.
    """
    wanted = None if artifacts is None else {a.name: a for a in artifacts if a.kind == "wheel"}
    site = site or site_packages(prefix)
    findings: list[Finding] = []
    found: set[str] = set()
    expected: dict[str, list[_Row]] = {}
    owned: set[str] = set(theirs)
    foreign = {path.partition("/")[0] for path in theirs}
    for info in sorted(info for info in site.glob("*.dist-info") if info.name not in foreign):
        name, _, version = info.name.removesuffix(".dist-info").rpartition("-")
        name = str(canonicalize_name(name))
        found.add(name)
        rows, wrong = _installed(info, prefix)
        artifact = wanted.get(name) if wanted is not None else None
        if wanted is not None and artifact is None:
            message = "is installed, but the environment does not name it"
            findings.append(Finding("env-extra", f"{name} {version}", message, _REMEDY))
            owned |= {
                *rows,
                *(f"{info.name}/{file.relative_to(info).as_posix()}" for file in info.rglob("*")),
            }
            continue
        findings += wrong
        if artifact and version.replace("_", "-") != artifact.version.replace("_", "-"):
            message = f"is installed at {version}, not at {artifact.version}"
            findings.append(Finding("env-changed", name, message, _REMEDY))
        elif artifact:
            truth, scripts, notes = _original(artifact, site, prefix, store)
            findings += notes
            if rows or not wrong:
                findings += [
                    Finding(
                        "env-changed", _shown(info / "RECORD", prefix), f"does not name {script}", _REMEDY
                    )
                    for script in sorted(scripts - rows.keys())
                ]
            if truth:
                # A line that the wheel has not makes nothing its own, except where the installer puts things.
                rows = {path: row for path, row in rows.items() if path.startswith("../")} | truth
        owned |= {*rows, *(f"{info.name}/{file}" for file in _INSTALLERS)}
        for path, row in rows.items():
            if row.digest:
                expected.setdefault(path, []).append(row)
    if wanted is not None:
        findings += [
            Finding("env-absent", f"{name} {wanted[name].version}", "is not installed", _REMEDY)
            for name in sorted(wanted.keys() - found)
        ]
    findings += [
        Finding("env-extra", _shown(path, prefix), "no distribution of the environment brought it", _REMEDY)
        for path in _strangers(site, owned)
    ]
    return findings + _compare_all(prefix, site, expected)


def named(site: Path, names: Collection[str]) -> set[str]:
    """Every file that the RECORDs of some distributions (canonical names) in ``site`` name, relative to it."""
    found: set[str] = set()
    for info in site.glob("*.dist-info"):
        if canonicalize_name(info.name.removesuffix(".dist-info").rpartition("-")[0]) in names:
            found |= _installed(info, site)[0].keys()
    return found


def _shown(path: Path, prefix: Path) -> str:
    place = Path(os.path.normpath(path))
    text = str(place.relative_to(prefix)) if place.is_relative_to(prefix) else str(place)
    return text if text.isprintable() else ascii(text)[1:-1]


def _installed(info: Path, prefix: Path) -> tuple[_Rows, list[Finding]]:
    """The RECORD of an installed distribution, and what is wrong with it."""
    record = info / "RECORD"
    if not record.is_file():
        return {}, [Finding("env-missing", f"{info.name}/RECORD", "is gone", _REMEDY)]
    try:
        rows = _rows(record.read_bytes())
    except (OSError, ValueError, csv.Error) as problem:
        message = f"cannot be read: {problem}"
        return {}, [Finding("env-changed", _shown(record, prefix), message, _REMEDY)]
    odd = [path for path, row in rows.items() if row.digest and row.digest.partition("=")[0] not in _HASHES]
    if odd:
        message = f"hashes {odd[0]!a} by no function that a wheel may use"
        return rows, [Finding("env-changed", _shown(record, prefix), message, _REMEDY)]
    return rows, []


def _rows(data: bytes) -> _Rows:
    """The rows of a RECORD.  Raises ``ValueError`` or ``csv.Error`` for what is none."""
    lines = csv.reader(io.StringIO(data.decode("utf-8"), newline=""))
    return {
        os.path.normpath(row[0]).replace(os.sep, "/"): _Row(row[1], row[2]) for row in lines if len(row) == 3
    }


def _original(
    artifact: Artifact, site: Path, prefix: Path, store: Store
) -> tuple[_Rows, set[str], list[Finding]]:
    """What the wheel in the store says of its files where they are installed, and the scripts it brings.

    Both are empty where the store has it no more; the files then have the RECORD in the environment only.
    """
    try:
        blob = store.path(artifact.digest)
    except NotFoundError:
        return {}, set(), []
    try:
        with zipfile.ZipFile(blob) as archive:
            (name,) = (n for n in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/RECORD", n))
            told = _rows(archive.read(name))
    except (OSError, ValueError, csv.Error, zipfile.BadZipFile, zlib.error) as problem:
        message = f"cannot be read: {problem}"
        return {}, set(), [Finding("store-damaged", str(blob), message, "haversack doctor --read-all", False)]
    top = os.path.relpath(prefix, site).replace(os.sep, "/")
    folder = f"{top}/{'Scripts' if os.name == 'nt' else 'bin'}"
    rows: _Rows = {}
    scripts = (
        set() if os.name == "nt" else {f"{folder}/{tool}" for tool in artifact.facts.get("entry_points", ())}
    )
    for path, row in told.items():
        moved = _MOVED.fullmatch(path)
        if moved is None or moved["where"] in ("purelib", "platlib"):
            rows[moved["rest"] if moved else path] = row
        elif moved["where"] == "data":
            rows[f"{top}/{moved['rest']}"] = row
        elif moved["where"] == "scripts":
            scripts.add(f"{folder}/{moved['rest']}")
    written = {f"{name.partition('/')[0]}/{file}" for file in _INSTALLERS}
    return {path: row for path, row in rows.items() if path not in written}, scripts, []


def _strangers(site: Path, owned: set[str]) -> Iterator[Path]:
    """What lies beside the distributions and is of none: files, and folders where nothing in them is owned."""
    folders = {path.rpartition("/")[0] for path in owned}
    for path in list(folders):
        while path := path.rpartition("/")[0]:
            folders.add(path)
    for place, inner, files in os.walk(site):
        at = Path(place).relative_to(site)
        for name in sorted(files):
            path = (at / name).as_posix()
            if path not in owned and path not in _UVS and not _is_bytecode(at / name):
                yield site / path
        for name in sorted(inner):
            path = (at / name).as_posix()
            if (site / path).is_symlink():
                inner.remove(name)
                yield site / path
            elif name != "__pycache__" and path not in folders:
                inner.remove(name)
                if any(not (f.is_dir() or _is_bytecode(f)) for f in (site / path).rglob("*")):
                    yield site / path


def _is_bytecode(path: Path) -> bool:
    """Whether Python wrote it: elsewhere than in ``__pycache__`` a ``.pyc`` is a module like any other."""
    return path.suffix == ".pyc" and path.parent.name == "__pycache__"


def _compare_all(prefix: Path, site: Path, expected: Mapping[str, Sequence[_Row]]) -> list[Finding]:
    def compare(job: tuple[str, Sequence[_Row]]) -> Finding | None:
        return _compare(prefix, site / job[0], job[1])

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return [finding for finding in pool.map(compare, expected.items()) if finding]


def _compare(prefix: Path, place: Path, rows: Iterable[_Row]) -> Finding | None:
    """Whether a file is what a row says of it; two distributions may bring one file, and the last one won."""
    subject = _shown(place, prefix)
    try:
        if not place.is_file():
            return Finding("env-missing", subject, "is gone", _REMEDY)
        for row in rows:
            algorithm, _, told = row.digest.partition("=")
            if algorithm not in _HASHES or row.size not in ("", str(place.stat().st_size)):
                continue
            with place.open("rb") as file:
                digest = hashlib.file_digest(file, algorithm).digest()
            # In URL-safe base 64, as it should be, or in hexadecimal, as some wheels have it.
            if told.rstrip("=") in (base64.urlsafe_b64encode(digest).rstrip(b"=").decode(), digest.hex()):
                return None
    except OSError as problem:
        return Finding("env-changed", subject, f"cannot be read: {problem.strerror}", _REMEDY)
    return Finding("env-changed", subject, "is not the file that was installed", _REMEDY)


def changed_since(prefix: Path, unpacked: Mapping[str, int | None]) -> list[Finding]:
    """Files of a fresh installation that are not what their RECORD says.

    ``unpacked`` maps a distribution to when its wheel was unpacked into the cache (ns since the epoch), or to
    ``None`` where nobody knows; one that is not in it was unpacked just now and is believed.  A file edited in one environment is edited in the cache that
    shares it by hard link: only files that are younger than the unpacking or of another size are hashed.  An
    edit that keeps both the date and the size of a file is not seen.
    """
    if not unpacked:
        return []
    site = site_packages(prefix)
    findings: list[Finding] = []
    suspect: set[str] = set()
    expected: dict[str, list[_Row]] = {}
    for info in sorted(site.glob("*.dist-info")):
        name = str(canonicalize_name(info.name.removesuffix(".dist-info").rpartition("-")[0]))
        rows, wrong = _installed(info, prefix)
        findings += wrong if name in unpacked else []
        for path, row in rows.items():
            if not row.digest:
                continue
            expected.setdefault(path, []).append(row)
            if name in unpacked and _suspect(os.path.join(site, path), row, unpacked[name]):
                suspect.add(path)
    return findings + _compare_all(prefix, site, {path: expected[path] for path in suspect})


def _suspect(place: str, row: _Row, moment: int | None) -> bool:
    if moment is None:
        return True
    try:
        status = os.stat(place)
    except (OSError, ValueError):
        return True
    return status.st_mtime_ns > moment or row.size not in ("", str(status.st_size))
