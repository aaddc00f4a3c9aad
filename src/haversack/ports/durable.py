"""Files that survive a power cut: written aside, made durable, renamed.

A rename without a synced folder is undone by a power cut, and an unsynced file comes back with no bytes;
one ``syncfs`` for a batch costs what one ``fsync`` costs.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from haversack.errors import HaversackError, LedgerError, SpaceError, StoreError


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable (a no-op where folders cannot be opened)."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_filesystem(folder: Path) -> None:
    """Make everything written so far to the folder's file system durable; raises ``OSError`` on failure."""
    if sys.platform == "linux":
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.syncfs(descriptor):
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number), str(folder))
        finally:
            os.close(descriptor)
    elif hasattr(os, "sync"):
        os.sync()


_WRITE = 2  # SYNC_FILE_RANGE_WRITE, linux/fs.h


def begin_writing(descriptor: int) -> None:
    """Let the disk begin with what a file holds, and wait for nothing; where a system cannot, it does nothing.

    The sync that is to come then finds most of the work done.  It is a hint: what became of it, only a sync tells.
    """
    if sys.platform == "linux":
        offset = ctypes.c_int64(0)
        ctypes.CDLL(None).sync_file_range(descriptor, offset, offset, _WRITE)


_UNFINISHED = ".new-"


def drop_unfinished(folder: Path) -> None:
    """Remove what a killed :func:`replace` left in a folder; the caller keeps other writers out of it."""
    for leftover in folder.glob(f"{_UNFINISHED}*"):
        leftover.unlink()


def replace(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Put ``data`` under ``path`` in one step: a reader, or a crash, finds the old bytes or the new."""
    descriptor, name = tempfile.mkstemp(prefix=_UNFINISHED, dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(mode)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


@contextlib.contextmanager
def explained(place: Path, doing: str, error: type[HaversackError] = StoreError) -> Iterator[None]:
    """Turn an ``OSError`` into the error a person can act upon: no room, read-only, or ``error``."""
    try:
        yield
    except BrokenPipeError:
        # The reader of our output went away: that is not the fault of a disk.
        raise
    except OSError as problem:
        if problem.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            raise SpaceError(
                f"no room left while {doing}",
                where=str(place),
                remedy="free some space and run the same command again",
            ) from problem
        if problem.errno in {errno.EROFS, errno.EACCES, errno.EPERM}:
            ours = issubclass(error, StoreError | LedgerError)
            raise error(
                f"not allowed while {doing}: {problem.strerror}",
                where=str(place),
                remedy="use a store you may write to: --store or HAVERSACK_STORE"
                if ours
                else "ask for the right to that place, or use another",
            ) from problem
        raise error(f"{doing} failed: {problem.strerror or problem}", where=str(place)) from problem
