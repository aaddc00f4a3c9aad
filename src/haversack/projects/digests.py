"""Digests of many files, those of a large working folder too: what did not change is not read again."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from haversack.errors import DeclarationError, HaversackError
from haversack.formats.canonical import canonical
from haversack.model.artifact import Digest
from haversack.ports import Outside

_CHUNK = 1 << 20
_AT_ONCE = 2
# A file that changed this short a time ago could change again without its times telling so.
_SETTLED = 2 * 10**9


@dataclass(frozen=True, slots=True)
class Known:
    """A file that was read: its digest, its size in bytes, and whether it may be run."""

    digest: Digest
    size: int
    executable: bool


def digests(files: Mapping[str, Path], memo: str, out: Outside) -> dict[str, Known]:
    """What each of some files is, by the names they are given with; ``memo`` names what the store remembers.

    A file whose size, times and inode are those of the last time is not read again.  Raises
    ``DeclarationError`` for one that cannot be read, or changes while it is read.
    """
    held = out.store.read_state(memo)
    try:
        before: dict[str, list[object]] = json.loads(held) if held else {}
    except ValueError:
        before = {}
    stamps = {name: _stamp(path) for name, path in files.items()}
    due = {name: stamp for name, stamp in stamps.items() if before.get(name, [])[:-1] != [*stamp]}
    now = int(out.clock.now().timestamp()) * 10**9
    found = {name: str(before[name][-1]) for name in files if name not in due}
    with (
        out.progress("hashing", sum(size for size, *_ in due.values())) as advance,
        ThreadPoolExecutor(_AT_ONCE) as pool,
    ):
        read = pool.map(lambda name: _read(files[name], due[name], advance), due)
        found |= dict(zip(due, read, strict=True))
    kept = {
        name: [*stamp, found[name]]
        for name, stamp in stamps.items()
        if max(stamp[1], stamp[2]) < now - _SETTLED or name not in due
    }
    out.store.write_state(memo, canonical(kept))
    return {
        name: Known(found[name], stamps[name][0], bool(os.stat(path).st_mode & 0o111))
        for name, path in files.items()
    }


def digest_of_file(path: Path, on_bytes: Callable[[int], None] = lambda _: None) -> Digest:
    """The digest of a file, read once.  Raises ``OSError``."""
    hashed = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(_CHUNK):
            hashed.update(chunk)
            on_bytes(len(chunk))
    return f"sha256:{hashed.hexdigest()}"


def _read(path: Path, stamp: tuple[int, int, int, int], advance: Callable[[int], None]) -> Digest:
    try:
        digest = digest_of_file(path, advance)
    except OSError as problem:
        raise _unreadable(path, problem) from problem
    if _stamp(path) != stamp:
        raise DeclarationError(
            "changes while it is read",
            where=str(path),
            remedy="wait until nobody writes to it, and lock again",
        )
    return digest


def _stamp(path: Path) -> tuple[int, int, int, int]:
    """What changes whenever the bytes do: size, time of change of bytes and of the file, inode."""
    try:
        told = path.stat()
    except OSError as problem:
        raise _unreadable(path, problem) from problem
    return told.st_size, told.st_mtime_ns, told.st_ctime_ns, told.st_ino


def _unreadable(path: Path, problem: OSError) -> HaversackError:
    return DeclarationError(
        f"cannot be read: {problem.strerror}", where=str(path), remedy="make it readable, or exclude it"
    )
