"""What a restored folder is, against what it was: every byte, from the archive that it came from."""

from __future__ import annotations

import os
import re
import stat
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

from haversack.formats.prefixes import MARKER
from haversack.model.finding import Finding
from haversack.relocation.restore import placed
from haversack.relocation.tape import CHUNK, Entry, Member

_REMEDY = "install the environment again: haversack install NAME --to PREFIX"
_AHEAD = 8
_BATCH = 64
_BYTECODE = re.compile(r"(?:.*/)?__pycache__(?:/[^/]+\.pyc)?")


def drift(prefix: Path, blob: BinaryIO) -> list[Finding]:
    """Every way in which the folder at ``prefix`` is not the one in ``blob``: what is gone, altered, or new.

    Not looked at are bytecode in ``__pycache__``, which Python writes there, dates, and permissions other than
    that to run a file.  Raises what :func:`~haversack.relocation.restore.placed` raises.
    """
    findings: list[Finding] = []
    python = _python(prefix)
    told = placed(blob, prefix.absolute(), python or Path("/absent/bin/python"))
    known = {MARKER}
    pending: deque[Future[list[Finding]]] = deque()
    batch: list[Entry] = []
    size = 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for entry in told.entries:
            member = entry.member
            known.add(member.path)
            if _BYTECODE.fullmatch(member.path):
                continue
            if not isinstance(entry.chunks, tuple):
                # These are read from the archive here and now.
                findings += _compare_all(prefix, [entry])
                # To the end, where the first difference is: records name the digest of the whole.
                deque(entry.chunks, maxlen=0)
                continue
            batch.append(entry)
            size += member.size
            if len(batch) == _BATCH or size > CHUNK:
                pending.append(pool.submit(_compare_all, prefix, batch))
                batch, size = [], 0
            while len(pending) > _AHEAD:
                findings += pending.popleft().result()
        findings += _compare_all(prefix, batch)
        for future in pending:
            findings += future.result()
    if told.manifest.python is not None:
        known |= {link.path for link in told.links}
        if python is None or not python.exists():
            findings.append(Finding("env-python", "bin/python", "names no interpreter", _REMEDY))
    for path in _strangers(prefix, known):
        findings.append(Finding("env-extra", _shown(path), "was not in the environment", _REMEDY))
    return sorted(findings, key=lambda finding: (finding.code, finding.subject))


def _python(prefix: Path) -> Path | None:
    """What a virtual environment borrows."""
    try:
        return (prefix / "bin" / "python").readlink()
    except OSError:
        return None


def _compare_all(prefix: Path, entries: Iterable[Entry]) -> list[Finding]:
    found = [_compare(os.fspath(prefix), member, chunks) for member, chunks in entries]
    return [finding for finding in found if finding]


def _compare(top: str, member: Member, chunks: Iterable[bytes]) -> Finding | None:
    place = f"{top}/{member.path}"
    try:
        status = os.lstat(place)
        if member.kind == "folder":
            return None if stat.S_ISDIR(status.st_mode) else _changed(member, "is no folder any more")
        if member.kind == "symlink":
            same = stat.S_ISLNK(status.st_mode) and os.readlink(place) == member.target  # noqa: PTH115
        elif not stat.S_ISREG(status.st_mode):
            same = False
        elif member.kind == "hardlink":
            same = _equal(place, _read(f"{top}/{member.target}"))
        else:
            same = _equal(place, chunks)
    except (FileNotFoundError, NotADirectoryError):
        return Finding("env-missing", _shown(member.path), "is gone", _REMEDY)
    except OSError as problem:
        return _changed(member, f"cannot be read: {problem.strerror}")
    if not same:
        return _changed(member, "is not what was installed")
    if member.kind == "file" and (status.st_mode ^ member.mode) & stat.S_IXUSR:
        return _changed(member, "may be run" if status.st_mode & stat.S_IXUSR else "may not be run any more")
    return None


def _changed(member: Member, message: str) -> Finding:
    return Finding("env-changed", _shown(member.path), message, _REMEDY)


def _equal(place: str, chunks: Iterable[bytes]) -> bool:
    descriptor = os.open(place, os.O_RDONLY)
    try:
        return all(_exactly(descriptor, len(chunk)) == chunk for chunk in chunks) and not os.read(
            descriptor, 1
        )
    finally:
        os.close(descriptor)


def _exactly(descriptor: int, size: int) -> bytes:
    data = os.read(descriptor, size)
    while len(data) < size and (more := os.read(descriptor, size - len(data))):
        data += more
    return data


def _read(place: str) -> Iterator[bytes]:
    with open(place, "rb") as file:  # noqa: PTH123
        while chunk := file.read(CHUNK):
            yield chunk


def _strangers(prefix: Path, known: set[str]) -> Iterator[str]:
    """What is in the folder and was not in the archive; of a new folder with files only itself."""
    for place, folders, files in os.walk(prefix):
        inner = os.path.relpath(place, prefix)
        top = "" if inner == "." else f"{inner}/"
        for name in sorted([*files, *(f for f in folders if (Path(place) / f).is_symlink())]):
            if f"{top}{name}" not in known and not _BYTECODE.fullmatch(f"{top}{name}"):
                yield f"{top}{name}"
        for name in sorted(folders):
            path = f"{top}{name}"
            if path not in known and name != "__pycache__" and not (prefix / path).is_symlink():
                folders.remove(name)
                if any(files for _, _, files in os.walk(prefix / path)):
                    yield f"{path}/"


def _shown(path: str) -> str:
    return path if path.isprintable() else ascii(path)[1:-1]
