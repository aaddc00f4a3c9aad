"""Archives that conda-pack made: opened, and put back to what the environment was where it was packed.

conda-pack (0.8, ``core.py``) takes files from the package cache, so that they hold the placeholders of their
packages, and writes the table of them into ``bin/conda-unpack``; a script in ``bin`` gets ``/usr/bin/env`` as its
first line.  What is left of the old path stands in that table too, as the placeholder of files that no package
brought.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
import stat
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

from haversack.errors import FormatError, IntegrityError
from haversack.relocation.records import META
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


def open_packed(packed: Path, folder: Path) -> tuple[str, ...]:
    """Unpack an archive into a new folder, as the environment was; the paths that its files call it by.

    Raises ``IntegrityError`` for an archive that leaves the folder, is damaged or bursts, ``FormatError`` for one
    that conda-pack did not make, or made for one place alone.
    """
    folder.mkdir()
    try:
        with packed.open("rb") as file, tarfile.open(fileobj=file, mode="r|*") as tar:
            _unpack(tar, folder, max(_LEAST, _RATIO * packed.stat().st_size))
    except tarfile.ReadError as problem:
        raise FormatError(f"is no tar archive: {problem}", where=str(packed), remedy=_REMEDY) from problem
    except (tarfile.TarError, EOFError, ValueError, OSError) as problem:
        raise IntegrityError(f"cannot be unpacked: {problem}", where=str(packed), remedy=_REMEDY) from problem
    rows = _table(folder / _SCRIPT, packed)
    records = _records(folder)
    told = _placeholders(records)
    others = Counter(placeholder for path, placeholder, _ in rows if path not in told)
    old = others.most_common(1)[0][0] if others else _UNKNOWN
    # conda-unpack leaves the interpreter that runs it alone; its package says what is in it.
    known = {path: (path, *rest) for path, rest in told.items()} | {row[0]: row for row in rows}
    digests = {
        path: digest
        for path, word, mode in known.values()
        if (digest := _put_back(folder / path, word, mode, old))
    }
    for path in _scripts(folder):
        digests.setdefault(path, _digest(folder / path))
    for place, record in records.items():
        _correct(place, record, digests)
    for path in _OWN:
        (folder / path).unlink(missing_ok=True)
    return (old,)


def _unpack(tar: tarfile.TarFile, folder: Path, most: int) -> None:
    """Write every member; neither through a link nor out of the folder, and no more than ``most`` bytes."""
    modes = []
    for member in tar:
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
        if member.isdir():
            if place.is_symlink():
                raise ValueError(f"{member.name!a} stands twice")
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
            most -= member.size
            if most < 0:
                raise ValueError("it unpacks to far more than its size allows")
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


def _table(script: Path, packed: Path) -> list[tuple[str, str, Mode]]:
    """Path, placeholder and mode of each file that conda-unpack would rewrite."""
    if script.is_symlink() or not script.is_file():
        message = f"has no {_SCRIPT}: conda-pack did not make it, or made it for one place (--dest-prefix)"
        raise FormatError(message, where=str(packed), remedy=_REMEDY)
    match = _TABLE.search(script.read_text(encoding="utf-8", errors="replace"))
    try:
        rows = ast.literal_eval(f"[{match['rows']}]") if match else None
        table = [(str(path), str(word), mode) for path, word, mode in rows or ()]
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as problem:
        raise FormatError(f"{_SCRIPT} has no readable table", where=str(packed), remedy=_REMEDY) from problem
    wrong = [row for row in table if row[2] not in ("text", "binary") or not row[1].startswith("/")]
    if rows is None or wrong or any(not _is_inside(path) for path, _, _ in table):
        raise FormatError(f"{_SCRIPT} has no readable table", where=str(packed), remedy=_REMEDY)
    return table


def _is_inside(path: str) -> bool:
    return not path.startswith("/") and ".." not in path.split("/")


def _records(folder: Path) -> dict[Path, dict[str, Any]]:
    """The records of packages that can be read; the scan tells of the others."""
    found = {}
    for place in sorted((folder / META).glob("*.json")):
        try:
            record = json.loads(place.read_bytes())
        except (OSError, ValueError):
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
        if isinstance(row.get("prefix_placeholder"), str) and _is_inside(row["_path"])
    }


def _put_back(place: Path, placeholder: str, mode: Mode, old: str) -> str | None:
    """Write the old path where a placeholder is; the SHA-256 (hex) of the file, ``None`` if it holds none."""
    if place.is_symlink() or not place.is_file() or place.resolve() != place.parent.resolve() / place.name:
        return None
    data, status = place.read_bytes(), place.stat()
    if placeholder.encode() not in data:
        return None
    room = len(placeholder.encode()) if mode == "binary" else None
    occurrence = Occurrence(str(place), mode, room, everywhere=True)
    done = b"".join(rewritten([data], occurrence, Move((placeholder.encode(),), old.encode())))
    place.chmod(status.st_mode | stat.S_IWUSR)
    place.write_bytes(done)
    place.chmod(status.st_mode & 0o777)
    os.utime(place, ns=(status.st_mtime_ns, status.st_mtime_ns))
    return hashlib.sha256(done).hexdigest()


def _scripts(folder: Path) -> list[str]:
    """Scripts whose first line conda-pack may have written."""
    found = []
    for place in sorted((folder / "bin").glob("*")):
        if place.is_file() and not place.is_symlink():
            with place.open("rb") as file:
                if file.read(len(_ENV)) == _ENV:
                    found.append(f"bin/{place.name}")
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
    if changed:
        status = place.stat()
        place.write_text(json.dumps(record, indent=True, sort_keys=True), encoding="utf-8")
        os.utime(place, ns=(status.st_mtime_ns, status.st_mtime_ns))
