"""The archive of pixi-pack, format "1": an environment as a channel, a folder of wheels and an environment.yml.

::

    pixi-pack.json              {"version": "1", "pixi-pack-version": "0.7.10", "platform": "linux-64"}
    environment.yml             name=version=build of every package; with wheels a pip section
    channel/<subdir>/…          packages and a repodata.json
    pypi/*.whl                  where there are wheels

A plain tar, sorted.  There is no list of hashes: those of packages stand in their records, those of wheels
nowhere.  pixi-unpack checks neither; what is read here is checked against all that the archive says of itself.
As pixi-pack 0.7.10 writes it in ``src/pack.rs`` and reads it in ``src/unpack.rs``.
"""

from __future__ import annotations

import functools
import hashlib
import json
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from haversack.errors import FormatError, HaversackError, IntegrityError
from haversack.formats import environmentyml, tar, yaml
from haversack.formats.canonical import Fields, parse
from haversack.formats.repodata import SUFFIXES
from haversack.model.artifact import Digest, is_digest, is_safe_filename
from haversack.model.finding import Finding, raise_blocking
from haversack.model.target import PLATFORMS, Target

METADATA = "pixi-pack.json"
ENVIRONMENT = "environment.yml"
CHANNEL = "channel"
PYPI = "pypi"
VERSION = "1"
MADE_BY = "0.7.10"
"""The pixi-pack whose format is written; another one in an archive makes pixi-unpack warn."""
_LARGEST = 64 << 20
"""Bytes of the largest text that is read: the records of an environment are some thousand times smaller."""
_REMEDY = "get the archive once more, or make it again"


@dataclass(frozen=True, slots=True)
class PackedFile:
    """A file of the archive, hashed.

    ``record`` is what the channel in it says of a conda package, with ``fn``; where the package came from
    nobody wrote down, so there is neither ``url`` nor ``channel``.  A wheel has none.
    """

    path: str
    size: int
    digest: Digest
    record: Mapping[str, Any] | None = field(default=None, hash=False)

    @property
    def filename(self) -> str:
        """Its name without folders."""
        return self.path.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class PixiPack:
    """What is in an archive: conda packages and wheels by their paths, for one platform (a subdir)."""

    platform: str
    packages: tuple[PackedFile, ...]
    wheels: tuple[PackedFile, ...]
    environment: environmentyml.EnvironmentFile


def members(file: BinaryIO, where: str) -> Iterator[tuple[str, int, Callable[[], Iterator[bytes]]]]:
    """Every file of an archive in turn: path, size in bytes, chunks to be read before the next is asked for.

    Raises ``IntegrityError`` for what is no tar or ends too early, and for a name or a link that leaves it.
    """
    try:
        for entry in tar.entries(file):
            path = entry.name.removeprefix("./").rstrip("/")
            if entry.kind == "folder" and path in {"", "."}:
                continue
            if entry.kind not in {"file", "folder"} or not all(map(is_safe_filename, path.split("/"))):
                told = (
                    "is a name that leaves its folder, or no file name everywhere"
                    if entry.kind in {"file", "folder"}
                    else "is a link or a device"
                )
                finding = Finding("path-unsafe", f"{where}: {entry.name}", told, "do not use the archive")
                raise_blocking([finding], "is not a safe archive")
            if entry.kind == "file":
                yield path, entry.size, functools.partial(_whole, entry, where)
    except tar.BrokenTarError as problem:
        raise _broken(problem, where) from problem


def _whole(entry: tar.Entry, where: str) -> Iterator[bytes]:
    try:
        yield from entry.chunks()
    except tar.BrokenTarError as problem:
        raise _broken(problem, where) from problem


def _broken(problem: tar.BrokenTarError, where: str) -> HaversackError:
    return IntegrityError(f"is not a whole tar: {problem}", where=where, remedy=_REMEDY)


def read(file: BinaryIO, where: str) -> PixiPack:
    """What an archive holds, every byte hashed and compared with what its records say.

    Raises ``FormatError`` for another version or for something that pixi-pack did not make, and with all
    findings ``IntegrityError``, ``IncompleteError`` where only files are missing, ``ResolutionError`` where only
    hashes are.
    """
    start = file.read(4)
    if start[:2] == b"\x1f\x8b" or start == b"\x28\xb5\x2f\xfd":
        remedy = "decompress it first; pixi-pack itself never compresses, whatever the name says"
        raise FormatError("is compressed", where=where, remedy=remedy)
    if start[:2] == b"#!":
        remedy = "run pixi-pack without --create-executable"
        raise FormatError("is a self-extracting program", where=where, remedy=remedy)
    file.seek(0)
    files: dict[str, PackedFile] = {}
    texts: dict[str, bytes] = {}
    findings: list[Finding] = []
    folded: dict[str, str] = {}
    for path, size, chunks in members(file, where):
        other = folded.setdefault(path.casefold(), path)
        if path in files or other != path:
            told = f"is {other} as well where case does not count" if other != path else "stands twice"
            findings.append(Finding("name-clash", f"{where}: {path}", told, _REMEDY))
        if path in files:
            continue
        kept = bytearray() if _is_text(path) and size <= _LARGEST else None
        digest = hashlib.sha256()
        for chunk in chunks():
            digest.update(chunk)
            if kept is not None:
                kept += chunk
        files[path] = PackedFile(path, size, f"sha256:{digest.hexdigest()}")
        if kept is not None:
            texts[path] = bytes(kept)
    pack = _Contents(where, files, texts, findings).pack()
    raise_blocking(findings, "is not what it says of itself", remedy=_REMEDY)
    return pack


def _is_text(path: str) -> bool:
    return path in {METADATA, ENVIRONMENT} or path.endswith("/repodata.json")


class _Contents:
    """The files of one archive, compared with each other; findings are added to a list."""

    def __init__(
        self, where: str, files: Mapping[str, PackedFile], texts: Mapping[str, bytes], findings: list[Finding]
    ) -> None:
        self._where, self._files, self._texts, self._findings = where, files, texts, findings

    def _found(self, code: str, path: str, message: str) -> None:
        self._findings.append(Finding(code, f"{self._where}: {path}", message, _REMEDY))

    def pack(self) -> PixiPack:
        """All of it."""
        platform = self._platform()
        packages: list[PackedFile] = []
        for path in sorted(self._texts):
            if path.startswith(f"{CHANNEL}/") and path.count("/") == 2:
                packages += self._packages(path, platform)
        wheels = [file for path, file in sorted(self._files.items()) if path.startswith(f"{PYPI}/")]
        known = {METADATA, ENVIRONMENT, *self._texts, *(file.path for file in [*packages, *wheels])}
        blamed = {finding.subject.removeprefix(f"{self._where}: ") for finding in self._findings}
        for path in sorted(self._files.keys() - known):
            if path not in blamed:
                self._found("file-extra", path, "is in no list of the archive")
        if ENVIRONMENT not in self._texts:
            raise self._foreign(f"has no {ENVIRONMENT}")
        at = f"{self._where}: {ENVIRONMENT}"
        environment = environmentyml.read(self._texts[ENVIRONMENT], at, IntegrityError)
        self._compare(environment, packages, wheels)
        return PixiPack(platform, tuple(packages), tuple(wheels), environment)

    def _foreign(self, message: str) -> HaversackError:
        return FormatError(message, where=self._where, remedy="name an archive that pixi-pack made")

    def _platform(self) -> str:
        if METADATA not in self._texts:
            raise self._foreign(f"has no {METADATA}")
        at = f"{self._where}: {METADATA}"
        fields = Fields(parse(self._texts[METADATA], at), at)
        version, platform = fields.text("version"), fields.text("platform")
        if version != VERSION:
            remedy = "use a newer haversack, or a pixi-pack that writes this version"
            told = f"is of pixi-pack's format {version[:20]!r}; this haversack reads {VERSION!r}"
            raise FormatError(told, where=self._where, remedy=remedy)
        known = [Target(name, name, "3.11").subdir for name in PLATFORMS]
        if platform not in known:
            told = f"is for the platform {platform[:40]!r}; known are {', '.join(known)}"
            raise FormatError(told, where=self._where, remedy="pack it for one of those")
        return platform

    def _packages(self, path: str, platform: str) -> Iterator[PackedFile]:
        """The packages of one subdir, as its records say they are."""
        at = f"{self._where}: {path}"
        folder = path.rpartition("/")[0]
        subdir = folder.rpartition("/")[2]
        if subdir not in {platform, "noarch"}:
            self._found("conda-invalid", path, f"is for {subdir}, and the archive for {platform}")
            return
        fields = Fields(parse(self._texts[path], at), at)
        tables = {**fields.table("packages"), **fields.table("packages.conda")}
        for name, raw in sorted(tables.items()):
            record = Fields(raw, f"{at}: {name}")
            file = self._files.get(f"{folder}/{name}")
            told = f"sha256:{(record.text_or_none('sha256') or '').lower()}"
            if not is_safe_filename(name) or not name.endswith(SUFFIXES) or record.text("subdir") != subdir:
                self._found("conda-invalid", path, f"its record {name[:80]!r} names no package of {subdir}")
            elif file is None:
                self._found("blob-missing", f"{folder}/{name}", f"is named by {path} and not there")
            elif not is_digest(told):
                self._found("conda-unhashed", file.path, "its record names no sha256")
            elif file.digest != told or record.count_or_none("size") not in {None, file.size}:
                self._found("blob-damaged", file.path, f"is {file.digest}; its record says {told}")
            else:
                yield PackedFile(file.path, file.size, file.digest, {**raw, "fn": name, "size": file.size})

    def _compare(
        self,
        environment: environmentyml.EnvironmentFile,
        packages: Iterable[PackedFile],
        wheels: Iterable[PackedFile],
    ) -> None:
        """What environment.yml lists is what is there, and the other way round."""
        asked = set(environment.specs)
        there = {_spec(file.record) for file in packages if file.record is not None}
        damaged = {finding.subject.rpartition("/")[2] for finding in self._findings}
        for spec in sorted(asked - there):
            if not any(name.startswith(spec.replace("=", "-")) for name in damaged):
                self._found("blob-missing", ENVIRONMENT, f"{spec} is listed, and no package of the channel")
        for spec in sorted(there - asked):
            self._found("file-extra", ENVIRONMENT, f"{spec} is in the channel, and not listed")
        wanted = {_pin(line) for line in environment.pip if not line.startswith("-")}
        found = set()
        for file in wheels:
            try:
                name, version, *_ = parse_wheel_filename(file.filename)
            except InvalidWheelFilename:
                self._found("wheel-invalid", file.path, "is not the name of a wheel")
                continue
            found.add((str(name), str(version)))
        for pin in sorted(wanted - found):
            self._found("blob-missing", ENVIRONMENT, f"{'=='.join(pin)} is listed, and no wheel of it there")
        for pin in sorted(found - wanted):
            self._found("file-extra", ENVIRONMENT, f"a wheel of {' '.join(pin)} is there, and not listed")


def _spec(record: Mapping[str, Any]) -> str:
    return f"{record.get('name')}={record.get('version')}={record.get('build')}"


def _pin(line: str) -> tuple[str, str]:
    name, _, version = line.partition("==")
    try:
        return str(canonicalize_name(name.strip())), str(Version(version.strip()))
    except InvalidVersion:
        return name, version


def describe(
    platform: str, records: Iterable[Mapping[str, Any]], wheels: Iterable[tuple[str, str]]
) -> dict[str, bytes]:
    """The two texts of an archive by their paths, for full records and the names and versions of wheels."""
    told = {"version": VERSION, "pixi-pack-version": MADE_BY, "platform": platform}
    specs: list[Any] = [_spec(record) for record in records]
    pins = [f"{name}=={version}" for name, version in wheels]
    if pins:
        specs.append({"pip": ["--no-index", f"--find-links ./{PYPI}", *pins]})
    listed = {"channels": [f"./{CHANNEL}", "nodefaults"], "dependencies": specs}
    return {METADATA: json.dumps(told, indent=2).encode(), ENVIRONMENT: yaml.dump(listed)}


Source = bytes | tuple[int, Callable[[], Iterable[bytes]]]
"""What a file of an archive holds: its bytes, or its size in bytes and where they come from."""


def write(out: BinaryIO, files: Mapping[str, Source]) -> None:
    """Write an archive: equal files, equal bytes.  A folder stands before what is in it, as with pixi-pack.

    Raises ``ValueError`` where a source gives another number of bytes than it said.
    """
    seen: set[str] = set()
    for path in sorted(files, key=lambda path: path.split("/")):
        parts = path.split("/")
        for folder in ("/".join(parts[:depth]) for depth in range(1, len(parts))):
            if folder not in seen:
                seen.add(folder)
                out.write(_header(f"{folder}/", 0, tarfile.DIRTYPE, 0o755))
        source = files[path]
        size, chunks = (len(source), lambda data=source: [data]) if isinstance(source, bytes) else source
        out.write(_header(path, size, tarfile.REGTYPE, 0o644))
        written = sum(out.write(chunk) for chunk in chunks())
        if written != size:
            raise ValueError(f"{path} has {written} bytes, not {size}")
        out.write(b"\0" * (-size % tarfile.BLOCKSIZE))
    out.write(b"\0" * 2 * tarfile.BLOCKSIZE)


def _header(name: str, size: int, kind: bytes, mode: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.mode, info.mtime = size, kind, mode, _MOMENT
    # GNU, as the tar that pixi-pack uses: what it reads for certain.
    return info.tobuf(tarfile.GNU_FORMAT)


_MOMENT = 1_153_704_088
"""The time that the tar library of pixi-pack gives every file, in seconds; some tools take 0 for none."""
