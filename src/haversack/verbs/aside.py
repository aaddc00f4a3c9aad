"""Build beside, then swap: a folder is whole at every moment, the old one or the new one."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from haversack.errors import PrefixError, SpaceError

_RENAME_EXCHANGE = 2  # linux/fs.h


def beside(folder: Path) -> Path:
    """Where to build what will stand at ``folder``; the name says which process of which machine builds."""
    return folder.parent / f".{folder.name}.haversack-{platform.node()}-{os.getpid()}"


def clear_leftovers(folder: Path, is_ours: Callable[[Path], bool]) -> None:
    """Remove what builds of this folder left behind when they were killed on this machine.

    A name is not proof enough for removing a folder: ``is_ours`` looks into it.
    """
    start = f".{folder.name}.haversack-{platform.node()}-"
    for leftover in folder.parent.iterdir():
        pid = leftover.name.removeprefix(start)
        if not (leftover.name.startswith(start) and pid.isascii() and pid.isdigit()):
            continue
        if leftover.is_symlink() or not is_ours(leftover):
            continue
        if int(pid) == os.getpid() or not _is_alive(int(pid)):
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        """Somebody else's process."""
    return True


def swap(aside: Path, prefix: Path, *, replaced: bool) -> None:
    """Put ``aside`` where ``prefix`` is, in one step where the system can exchange two names.

    What was replaced is at ``aside`` afterwards.
    """
    if not replaced:
        with contextlib.suppress(FileNotFoundError):
            prefix.rmdir()
        aside.rename(prefix)
        return
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        names = (os.fsencode(aside), os.fsencode(prefix))
        if (
            hasattr(libc, "renameat2")
            and libc.renameat2(-100, names[0], -100, names[1], _RENAME_EXCHANGE) == 0
        ):
            return
    old = aside.with_name(f"{aside.name}.old")
    prefix.rename(old)
    try:
        aside.rename(prefix)
    except OSError:
        old.rename(prefix)
        raise
    old.rename(aside)


def swap_back(aside: Path, prefix: Path, *, replaced: bool) -> None:
    """Undo :func:`swap`."""
    if replaced:
        swap(aside, prefix, replaced=True)
    else:
        prefix.rename(aside)


def unwritable(problem: OSError, done: str, place: Path) -> PrefixError | SpaceError:
    """That something cannot be ``done`` (``installed to``) to a place, and whether for want of room.

    A file elsewhere that is in the way (a cache, a record) is named.
    """
    said = f"cannot be {done}: {problem.strerror}"
    file = problem.filename
    if isinstance(file, str) and not Path(file).absolute().is_relative_to(place.absolute().parent):
        said += f": {file}"
    if problem.errno in {errno.ENOSPC, errno.EDQUOT}:
        remedy = "free some space, or ask for a larger quota, and run the same command again"
        return SpaceError(said, where=str(place), remedy=remedy)
    return PrefixError(said, where=str(place))
