"""Share the files of an environment with another one: equal files become one on disk."""

from __future__ import annotations

import hashlib
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path


def share(prefix: Path, base: Path) -> int:
    """Hard-link every file of ``prefix`` that ``base`` has too, and return the bytes shared.

    Files are one when path, mode and every byte agree.  What cannot be linked (another file system, a file
    of somebody else where the system protects those) stays a copy.
    """

    def one(path: Path) -> int:
        twin = base / path.relative_to(prefix)
        try:
            mine, other = path.lstat(), twin.lstat()
        except OSError:
            return 0
        if not (
            stat.S_ISREG(other.st_mode) and (mine.st_mode, mine.st_size) == (other.st_mode, other.st_size)
        ):
            return 0
        if (mine.st_dev, mine.st_ino) == (other.st_dev, other.st_ino):
            return mine.st_size
        if mine.st_dev != other.st_dev or _digest(path) != _digest(twin):
            return 0
        aside = path.with_name(f"{path.name}.haversack-{os.getpid()}")
        try:
            aside.hardlink_to(twin)
        except OSError:
            return 0
        aside.replace(path)
        return mine.st_size

    files = [Path(folder) / name for folder, _, names in os.walk(prefix) for name in names]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return sum(pool.map(one, [path for path in files if not path.is_symlink()]))


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
