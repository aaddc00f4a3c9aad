"""``haversack import ARCHIVE``: an environment that another tool packed, declared here.

The archive is looked at, put beside the declaration, and named in a new table at the end of it; what is in
it is locked, proven and packed like any other environment afterwards.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import re
import shutil
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from haversack.errors import DeclarationError, FormatError, IntegrityError, NotFoundError, UsageError
from haversack.formats import declaration, pixipack, tar
from haversack.formats.declaration import FILENAME
from haversack.formats.schema import NAME, KindKeys, quoted
from haversack.formats.strict import Place, load, toml
from haversack.kinds import keys
from haversack.model.artifact import is_safe_filename
from haversack.model.target import DEFAULT_GLIBC, PLATFORMS, Target

_PIXI_PACK = (pixipack.METADATA, f"{pixipack.CHANNEL}/", f"{pixipack.PYPI}/")
_CONDA = "conda-meta/"
_OTHERS = {b"PK\x03\x04": "a zip", b"\x28\xb5\x2f\xfd": "compressed with zstd", b"hsqs": "a SquashFS"}
_GLIBC = re.compile(r"__glibc\s*>=\s*(\d+)\.(\d+)(?:\D.*)?")
_LARGEST = 16 << 20
"""Bytes of the largest record of an installed package that is read; the greatest name some thousand files."""


@dataclass(frozen=True, slots=True)
class Adopted:
    """The environment declared: its name, kind and targets, the archive, and the declaration it stands in.

    ``made`` says that the declaration is new, ``copied`` that the archive was put beside it.
    """

    name: str
    kind: str
    targets: tuple[str, ...]
    archive: Path
    declaration: Path
    made: bool
    copied: bool


def adopt(
    archive: Path,
    folder: Path,
    *,
    name: str | None = None,
    targets: Sequence[str] = (),
    kinds: Mapping[str, KindKeys] | None = None,
    dry_run: bool = False,
) -> Adopted:
    """Declare what is in ``archive`` in the ``haversack.toml`` of ``folder``, which is made if there is none.

    Nothing that stands there is changed.  ``name`` is that of the archive without one, ``targets`` what the
    archive says it is for.  Raises ``NotFoundError``, ``FormatError`` for an archive of no known make,
    ``IntegrityError`` with all findings for one that is not what it says, ``UsageError`` for a name that is
    taken, ``DeclarationError``.
    """
    if not archive.is_file():
        raise NotFoundError("there is no such file", where=str(archive), remedy="correct the path")
    path = folder.absolute() / FILENAME
    before = load(FILENAME, Place(folder, FILENAME)) if path.exists() else _site(folder)
    name = name or _word(archive.name)
    if not re.fullmatch(NAME, name) or not is_safe_filename(name):
        raise UsageError(f"{name!r} cannot be the name of an environment", remedy="give one: --name")
    declared = toml(before, Place(folder, FILENAME)).get("env")
    if isinstance(declared, dict) and name in declared:
        raise UsageError(f"there is an environment {name} already", where=FILENAME, remedy="give --name")
    here = _beside(archive, folder)
    place = folder.absolute() / here
    copied = not place.exists()
    moved = copied and not dry_run
    aside = place.with_name(f".{place.name}.{os.getpid()}") if moved else archive
    try:
        if moved:
            folder.mkdir(parents=True, exist_ok=True)
            # What is looked at is what stays.
            shutil.copyfile(archive, aside)
        kind, found = _look(aside, archive.name)
        chosen = tuple(targets) or found
        if not chosen:
            told = "does not say for what machine its packages are"
            raise UsageError(told, where=str(archive), remedy="name it: --target NAME")
        lines = [f"[env.{quoted(name)}]", f"kind = {_shown(kind)}", f"archive = {_shown(here)}"]
        lines.append(f"targets = {_shown(list(chosen))}")
        done = Adopted(name, kind, chosen, place, path, not path.exists(), copied)
        if not dry_run:
            if moved:
                aside.replace(place)
            try:
                _declare(path, before, "\n".join(lines), kinds or keys())
            except BaseException:
                if moved:
                    place.unlink()
                raise
    except OSError as problem:
        raise DeclarationError(
            f"cannot be imported: {problem.strerror}",
            where=str(problem.filename or archive),
            remedy="choose a file you may read, and a folder you may write to",
        ) from problem
    finally:
        if moved:
            aside.unlink(missing_ok=True)
    return done


def _beside(archive: Path, folder: Path) -> str:
    """Where the archive is to lie, relative to the declaration: where it is, if that is below."""
    root = folder.resolve()
    if archive.resolve().is_relative_to(root):
        return archive.resolve().relative_to(root).as_posix()
    if not is_safe_filename(archive.name):
        raise UsageError("is no name that every file system can hold", where=str(archive), remedy="rename it")
    place = folder / archive.name
    if place.exists():
        remedy = "import that file, or rename one of them"
        raise UsageError("is there already, beside the declaration", where=str(place), remedy=remedy)
    return archive.name


def _look(file: Path, where: str) -> tuple[str, tuple[str, ...]]:
    """The kind of environment that an archive makes, and the name of the target that it is for.

    Of a conda-pack archive only the records of its packages are looked at: its kind reads the rest.
    """
    installed: list[dict[str, Any]] = []
    with _opened(file, where) as stream:
        for entry in tar.entries(stream):
            path = entry.name.removeprefix("./")
            if path.startswith(_PIXI_PACK):
                break
            if path.startswith(_CONDA) and path.endswith(".json") and entry.size <= _LARGEST:
                installed.append(_record(b"".join(entry.chunks())))
        else:
            if not installed:
                remedy = "name an archive that pixi-pack or conda-pack made"
                raise FormatError("is of neither pixi-pack nor conda-pack", where=where, remedy=remedy)
            subdirs = {str(record.get("subdir")) for record in installed} - {"noarch"}
            return "prefix", _targets(subdirs.pop(), installed) if len(subdirs) == 1 else ()
    with file.open("rb") as plain:
        pack = pixipack.read(plain, where)
    records = [package.record for package in pack.packages if package.record is not None]
    return "conda", _targets(pack.platform, records)


@contextmanager
def _opened(file: Path, where: str) -> Iterator[BinaryIO]:
    """The tar in a file, decompressed; what is wrong with either is an error in our words."""
    with file.open("rb") as raw:
        start = raw.read(8)
        raw.seek(0)
        for magic, told in _OTHERS.items():
            if start.startswith(magic):
                remedy = "make it a tar or a tar.gz: conda-pack --format tar.gz"
                raise FormatError(f"is {told}, which is not read here", where=where, remedy=remedy)
        if start.startswith(b"#!"):
            remedy = "run pixi-pack without --create-executable"
            raise FormatError("is a program that unpacks itself", where=where, remedy=remedy)
        try:
            yield _decompressed(raw, start)
        except (tar.BrokenTarError, EOFError, OSError, zlib.error, lzma.LZMAError) as problem:
            # What bz2 cannot read is an OSError without a number; the disk's own errors have one.
            if isinstance(problem, OSError) and problem.errno is not None:
                raise
            raise IntegrityError(
                f"is not a whole tar: {problem}", where=where, remedy="get it once more"
            ) from problem


def _decompressed(raw: BinaryIO, start: bytes) -> BinaryIO:
    """A file as it is, or what it holds compressed."""
    if start.startswith(b"\x1f\x8b"):
        return cast(BinaryIO, gzip.GzipFile(fileobj=raw))
    if start.startswith(b"BZh"):
        return cast(BinaryIO, bz2.BZ2File(raw))
    return cast(BinaryIO, lzma.open(raw)) if start.startswith(b"\xfd7zXZ") else raw


def _record(data: bytes) -> dict[str, Any]:
    try:
        found = json.load(io.BytesIO(data))
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _targets(subdir: str, records: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """The oldest machine that the packages of a subdir run on, by name; nothing where it is not known."""
    named = [platform for platform in PLATFORMS if Target(platform, platform, "3.11").subdir == subdir]
    pythons = [str(r.get("version")) for r in records if r.get("name") == "python"]
    python = re.match(r"3\.\d+", pythons[0] if pythons else "3.11")
    if not named or not python:
        return ()
    asked = [tuple(map(int, DEFAULT_GLIBC.split(".")))]
    for record in records:
        depends = record.get("depends")
        lines = map(str, depends if isinstance(depends, list) else ())
        asked += ((int(match[1]), int(match[2])) for match in map(_GLIBC.fullmatch, lines) if match)
    glibc = "{}.{}".format(*max(asked)) if named[0].startswith("linux") else None
    return (Target("", named[0], python[0], glibc).long_name,)


def _site(folder: Path) -> bytes:
    return f"[site]\nname = {_shown(_word(folder.resolve().name))}\n".encode()


def _word(text: str) -> str:
    """A text as a name for a site or an environment."""
    stem = re.sub(r"\.(tar|tgz|tbz2?|txz)(\.\w+)?$", "", text.lower())
    return re.sub(r"[^a-z0-9]+", "-", stem).strip("-") or "imported"


def _shown(value: str | list[str]) -> str:
    """A text or an array of texts in TOML."""
    return json.dumps(value, ensure_ascii=False)


def _declare(path: Path, before: bytes, table: str, kinds: Mapping[str, KindKeys]) -> None:
    """Put a table at the end of a declaration, in one step, if it is a good one with it."""
    end = b"" if before.endswith(b"\n") else b"\n"
    trial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with trial.open("wb") as file:
            file.write(before + end + f"\n{table}\n".encode())
            file.flush()
            os.fsync(file.fileno())
        declaration.parse(trial, kinds)
        if path.exists():
            shutil.copymode(path, trial)
        # Where a link stands, the file that it leads to is the declaration.
        trial.replace(path.resolve())
    except DeclarationError as problem:
        where = problem.where.replace(trial.name, path.name)
        raise DeclarationError(problem.message, where=where, remedy=problem.remedy) from problem
    finally:
        trial.unlink(missing_ok=True)
