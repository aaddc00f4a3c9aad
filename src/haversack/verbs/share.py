"""Share the files of an environment with another one: equal files become one on disk."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

_FICLONE = 0x40049409  # linux/fs.h
_WHY = {
    errno.EPERM: "the system links no files of somebody else (fs.protected_hardlinks)",
    errno.EACCES: "they may not be linked by you",
    errno.EXDEV: "they lie on another file system, or another mount of it",
    errno.EMLINK: "they have as many links as the file system takes",
}


@dataclass(frozen=True, slots=True)
class Shared:
    """Bytes that are one on disk, and of those that are equal and stayed two the bytes by the reason."""

    shared: int
    copied: Mapping[str, int]


def share(prefix: Path, base: Path) -> Shared:
    """Make every file of ``prefix`` that ``base`` has too one with it on disk.

    Files are equal when path, mode and every byte agree.  They become hard links; where that is refused (another
    file system or volume, a file of somebody else where the system protects those) clones that share their blocks,
    and where the file system has no such clones they stay copies.
    """

    def one(path: Path) -> tuple[int, str]:
        """The bytes of an equal file, and why they are not shared."""
        twin = base / path.relative_to(prefix)
        try:
            mine, other = path.lstat(), twin.lstat()
            if (
                not stat.S_ISREG(other.st_mode)
                or mine.st_mode != other.st_mode
                or mine.st_size != other.st_size
            ):
                return 0, ""
            if (mine.st_dev, mine.st_ino) == (other.st_dev, other.st_ino):
                return mine.st_size, ""
            if _digest(path) != _digest(twin):
                return 0, ""
        except OSError:
            return 0, ""
        aside = path.with_name(f"{path.name}.haversack-{os.getpid()}")
        try:
            aside.hardlink_to(twin)
        except OSError as problem:
            if not _clone(twin, path, aside):
                return mine.st_size, _WHY.get(problem.errno or 0, os.strerror(problem.errno or 0))
        aside.replace(path)
        return mine.st_size, ""

    files = [Path(folder) / name for folder, _, names in os.walk(prefix) for name in names]
    shared, copied = 0, dict[str, int]()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for size, why in pool.map(one, [path for path in files if not path.is_symlink()]):
            if why:
                copied[why] = copied.get(why, 0) + size
            else:
                shared += size
    return Shared(shared, dict(sorted(copied.items())))


def _clone(source: Path, path: Path, aside: Path) -> bool:
    """Make ``aside`` a file like ``path`` that shares its blocks with ``source`` (ioctl_ficlone(2)), if that can be."""
    if sys.platform != "linux":
        return False
    import fcntl

    try:
        with source.open("rb") as file, aside.open("xb") as clone:
            fcntl.ioctl(clone, _FICLONE, file.fileno())
        shutil.copystat(path, aside)
    except OSError:
        aside.unlink(missing_ok=True)
        return False
    return True


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
