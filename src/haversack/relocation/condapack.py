"""Archives that conda-pack made: opened, and put back to what the environment was where it was packed.

conda-pack (0.8, ``core.py``) takes files from the package cache, so that they hold the placeholders of their
packages, and writes the table of them into ``bin/conda-unpack``; a script in ``bin`` gets ``/usr/bin/env`` as its
first line.  What is left of the old path stands in that table too, as the placeholder of files that no package
brought.
"""

from __future__ import annotations

import ast
import errno
import hashlib
import json
import os
import re
import shutil
import stat
import tarfile
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, Self

from haversack.errors import FormatError, IntegrityError
from haversack.formats.prefixes import META
from haversack.relocation.scan import search
from haversack.relocation.spelling import Mode, Move, Occurrence, rewritten
from haversack.relocation.tape import CHUNK

_TABLE = re.compile(r"^_prefix_records = \[\n(?P<rows>.*?)\n?\]$", re.DOTALL | re.MULTILINE)
_SCRIPT = "bin/conda-unpack"
_OWN = (_SCRIPT, "bin/conda_unpack_progress.py")
_ENV = b"#!/usr/bin/env "
# Where an environment stood of which nothing tells: no package has less room than that.
_UNKNOWN = "/opt/conda-packed"
_REMEDY = "pack the environment again: conda-pack --format tar.gz"
# As for wheels: a hundred-fold is more than packages compress to, a small archive may be all zeros.
_LEAST, _RATIO = 64 << 20, 200
# Headers that hold a long name; all that one says it holds, tarfile takes into memory (bytes).
_NAMES = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
_LONGEST = 1 << 20
# What an archive may cause: names that are none, or stand twice.  Anything else is this machine's, as a full disk.
_THEIRS = {None, *(errno.EEXIST, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EMLINK)}
_THEIRS |= {errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ}


class _Header(tarfile.TarInfo):
    """A header, refused where it holds more than names."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        header = super().frombuf(buf, encoding, errors)
        if header.type in _NAMES and header.size > _LONGEST:
            raise ValueError(f"a header of it goes on for {header.size} bytes")
        return header


def open_packed(packed: Path, folder: Path) -> tuple[str, ...]:
    """Unpack an archive into a new folder, as the environment was; the paths that its files call it by.

    Raises ``IntegrityError`` for an archive that leaves the folder, is damaged or bursts, ``FormatError`` for one
    that conda-pack did not make, or made for one place alone, and ``OSError`` where the machine fails.
    """
    folder.mkdir()
    try:
        with packed.open("rb") as file, tarfile.open(fileobj=file, mode="r|*", tarinfo=_Header) as tar:
            _unpack(tar, folder, max(_LEAST, _RATIO * packed.stat().st_size))
    except tarfile.ReadError as problem:
        raise FormatError(f"is no tar archive: {problem}", where=str(packed), remedy=_REMEDY) from problem
    except (tarfile.TarError, EOFError, ValueError, OverflowError, RecursionError, OSError) as problem:
        if isinstance(problem, OSError) and problem.errno not in _THEIRS:
            raise
        raise IntegrityError(f"cannot be unpacked: {problem}", where=str(packed), remedy=_REMEDY) from problem
    rows = _table(_file(folder, _SCRIPT), packed)
    records = _records(folder)
    told = _placeholders(records)
    others = Counter(placeholder for path, placeholder, _ in rows if path not in told)
    old = others.most_common(1)[0][0] if others else _UNKNOWN
    # conda-unpack leaves the interpreter that runs it alone; its package says what is in it.
    known = {path: (path, *rest) for path, rest in told.items()} | {row[0]: row for row in rows}
    try:
        digests = {
            path: digest
            for path, word, mode in known.values()
            if (digest := _put_back(folder, Occurrence(path, mode, everywhere=True), word, old))
        }
    except ValueError as problem:
        raise IntegrityError(f"contradicts itself: {problem}", where=str(packed), remedy=_REMEDY) from problem
    for place in _scripts(folder):
        digests.setdefault(f"bin/{place.name}", _digest(place))
    for place, record in records.items():
        _correct(place, record, digests)
    for path in _OWN:
        own = _file(folder, path)
        if own is not None:
            own.unlink()
    return (old,)


def _file(folder: Path, path: str) -> Path | None:
    """The file at a path below the folder; ``None`` if there is none, or a link is on the way or at its end.

    A link of an archive leads wherever its maker liked: nothing is read, written or removed through one.
    """
    *folders, name = path.split("/")
    place = folder
    try:
        for part in folders:
            place /= part
            if part == ".." or not stat.S_ISDIR(place.lstat().st_mode):
                return None
        place /= name
        return place if stat.S_ISREG(place.lstat().st_mode) else None
    except (OSError, ValueError):
        return None


def _files(folder: Path, inner: str, ending: str = "") -> list[Path]:
    """The files of a folder below the folder, sorted."""
    return [
        place
        for place in sorted((folder / inner).glob(f"*{ending}"))
        if _file(folder, f"{inner}/{place.name}")
    ]


def _unpack(tar: tarfile.TarFile, folder: Path, most: int) -> None:
    """Write every member; neither through a link nor out of the folder, and no more than ``most`` bytes."""
    modes = []
    for member in tar:
        most -= tarfile.BLOCKSIZE + (member.size if member.isreg() else 0)
        if most < 0 or member.size < 0:
            raise ValueError("it unpacks to far more than its size allows")
        parts = [part for part in member.name.split("/") if part not in ("", ".")]
        if ".." in parts or member.name.startswith("/") or "\0" in member.name:
            raise ValueError(f"{member.name!a} leaves the archive")
        place = folder.joinpath(*parts)
        inner = folder
        for part in parts[:-1]:
            inner /= part
            if not inner.is_symlink() and not inner.exists():
                inner.mkdir()
            if inner.is_symlink() or not inner.is_dir():
                raise ValueError(f"{member.name!a} goes through what is no folder")
        if place.is_symlink() or place.is_file():
            if member.isdir():
                raise ValueError(f"{member.name!a} stands twice")
            # conda-pack writes a file that two packages bring, or that it brings itself, once more: as with
            # any tar, the last one counts.
            place.unlink()
        if member.isdir():
            place.mkdir(exist_ok=True)
            modes.append((place, member.mode))
        elif member.issym():
            place.symlink_to(member.linkname)
        elif member.islnk():
            twin = folder / os.path.normpath(member.linkname)
            if member.linkname.startswith(("/", "..")) or not stat.S_ISREG(twin.lstat().st_mode):
                raise ValueError(f"{member.name!a} is a link to what is no file")
            if not twin.parent.resolve().is_relative_to(folder.resolve()):
                raise ValueError(f"{member.name!a} is a link out of the archive")
            place.hardlink_to(twin)
        elif member.isreg():
            body = tar.extractfile(member)
            assert body is not None
            with place.open("xb") as file:
                while chunk := body.read(CHUNK):
                    file.write(chunk)
            place.chmod(member.mode & 0o777)
            os.utime(place, (member.mtime, member.mtime))
        else:
            raise ValueError(f"{member.name!a} is a device")
    for place, mode in reversed(modes):
        place.chmod(mode & 0o777 | stat.S_IRWXU)


def _table(script: Path | None, packed: Path) -> list[tuple[str, str, Mode]]:
    """Path, placeholder and mode of each file that conda-unpack would rewrite."""
    if script is None:
        message = f"has no {_SCRIPT}: conda-pack did not make it, or made it for one place (--dest-prefix)"
        raise FormatError(message, where=str(packed), remedy=_REMEDY)
    match = _TABLE.search(script.read_text(encoding="utf-8", errors="replace"))
    try:
        rows = ast.literal_eval(f"[{match['rows']}]") if match else None
        table = [(str(path), str(word), mode) for path, word, mode in rows or ()]
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as problem:
        raise FormatError(f"{_SCRIPT} has no readable table", where=str(packed), remedy=_REMEDY) from problem
    wrong = [row for row in table if row[2] not in ("text", "binary") or not _is_path(row[1])]
    if rows is None or wrong:
        raise FormatError(f"{_SCRIPT} has no readable table", where=str(packed), remedy=_REMEDY)
    return table


def _is_path(word: str) -> bool:
    """Whether a placeholder is a path: nothing else is replaced wherever it stands."""
    return word.startswith("/") and word.isprintable()


def _records(folder: Path) -> dict[Path, dict[str, Any]]:
    """The records of packages that can be read; the scan tells of the others."""
    found = {}
    for place in _files(folder, META, ".json"):
        try:
            record = json.loads(place.read_bytes())
        except (OSError, ValueError, RecursionError):
            continue
        if isinstance(record, dict):
            found[place] = record
    return found


def _rows(record: dict[str, Any]) -> list[dict[str, Any]]:
    data = record.get("paths_data")
    rows = data.get("paths") if isinstance(data, dict) else None
    return [row for row in rows or () if isinstance(row, dict) and isinstance(row.get("_path"), str)]


def _placeholders(records: dict[Path, dict[str, Any]]) -> dict[str, tuple[str, Mode]]:
    """What packages say that their files hold in the place of a path."""
    return {
        row["_path"]: (row["prefix_placeholder"], "binary" if row.get("file_mode") == "binary" else "text")
        for record in records.values()
        for row in _rows(record)
        if isinstance(row.get("prefix_placeholder"), str) and _is_path(row["prefix_placeholder"])
    }


def _put_back(folder: Path, occurrence: Occurrence, word: str, old: str) -> str | None:
    """Write the old path where a placeholder is; the SHA-256 (hex) of the file, ``None`` if it holds none.

    Raises ``ValueError`` if the old path is longer than the placeholder of a program.
    """
    place = _file(folder, occurrence.path)
    if place is None:
        return None
    status = place.stat()
    if not search(os.fspath(place), status.st_size, (word.encode(),), hashed=False)[0]:
        return None
    state = hashlib.sha256()
    # Into the same file, which may have other names.
    with tempfile.SpooledTemporaryFile(CHUNK, dir=os.fspath(folder.parent)) as aside:
        with place.open("rb") as file:
            chunks = iter(lambda: file.read(CHUNK), b"")
            for chunk in rewritten(chunks, occurrence, Move((word.encode(),), old.encode())):
                state.update(chunk)
                aside.write(chunk)
        aside.seek(0)
        place.chmod(status.st_mode | stat.S_IWUSR)
        with place.open("wb") as file:
            shutil.copyfileobj(aside, file, CHUNK)
    place.chmod(status.st_mode & 0o777)
    os.utime(place, ns=(status.st_mtime_ns, status.st_mtime_ns))
    return state.hexdigest()


def _scripts(folder: Path) -> list[Path]:
    """Scripts whose first line conda-pack may have written."""
    found = []
    for place in _files(folder, "bin"):
        with place.open("rb") as file:
            if file.read(len(_ENV)) == _ENV:
                found.append(place)
    return found


def _digest(place: Path) -> str:
    with place.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _correct(place: Path, record: dict[str, Any], digests: dict[str, str]) -> None:
    """Let a record say of the files what they are now."""
    changed = False
    for row in _rows(record):
        if row["_path"] in digests:
            row["sha256_in_prefix"] = digests[row["_path"]]
            changed = True
    if not changed:
        return
    try:
        text = json.dumps(record, indent=True, sort_keys=True)
    except RecursionError:
        # Newer versions of Python read what is too deep for them to write.
        return
    status = place.stat()
    place.write_text(text, encoding="utf-8")
    os.utime(place, ns=(status.st_mtime_ns, status.st_mtime_ns))
