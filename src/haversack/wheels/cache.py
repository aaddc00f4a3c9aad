"""What installs share beside the store: link farms and uv's unpacked wheels, all of which can be made again.

wheels/<hex>/<name>      the blob under the file name that uv needs
wheels/<hex>/.unpacked   touched once uv had unpacked that wheel and its files were right
uv/                      uv's own cache; environments are hard links into it
conda/<hex>/<name>       the blob of a conda package under the file name that rattler needs
conda/pkgs/              rattler's own cache; environments are hard links into it
lock                     held by everybody who uses uv/, alone by whoever removes it
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from haversack.model.artifact import is_digest
from haversack.ports import Store

try:
    import fcntl
except ImportError:  # Windows has no flock; there installs at once are not kept apart
    fcntl = None  # type: ignore[assignment]

_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}


@contextlib.contextmanager
def held(cache: Path, *, alone: bool) -> Iterator[None]:
    """Hold the cache, together with others who use it or ``alone``; waits as long as that takes.

    Where the system or the file system has no locks, nothing is held.
    """
    cache.mkdir(parents=True, exist_ok=True)
    # Read-only: whoever shares the cache by its group may not own this file.
    descriptor = os.open(cache / "lock", os.O_RDONLY | os.O_CREAT, 0o666)
    try:
        if fcntl is not None:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
            except OSError as problem:
                if problem.errno not in _NO_LOCKS:
                    raise
        yield
    finally:
        os.close(descriptor)


def drop_unpacked(cache: Path) -> None:
    """Remove every unpacked wheel.  The caller holds the cache alone."""
    # The stamps first: without its stamp a wheel is not believed to be as it was unpacked.
    for stamp in cache.glob("wheels/*/.unpacked"):
        stamp.unlink()
    if (cache / "uv").exists():
        shutil.rmtree(cache / "uv")


def drop_unneeded(cache: Path, store: Store) -> None:
    """Remove what is kept for wheels and conda packages that the store does not hold any more.

    uv's cache and rattler's do not tell which file a part of them is from: if any went, all of it goes, and
    the next install unpacks anew.  Environments keep their files, which are hard links.
    """
    farms = {"wheels": drop_unpacked, "conda": _drop_linked}
    if not any((cache / farm).is_dir() for farm in farms):
        return
    with held(cache, alone=True):
        for farm, drop in farms.items():
            places = (cache / farm).iterdir() if (cache / farm).is_dir() else ()
            digests = {place: f"sha256:{place.name}" for place in places}
            gone = [place for place, name in digests.items() if is_digest(name) and store.size(name) is None]
            if gone:
                drop(cache)
            for place in gone:
                shutil.rmtree(place)


def _drop_linked(cache: Path) -> None:
    """Remove every unpacked conda package.  The caller holds the cache alone."""
    if (cache / "conda" / "pkgs").exists():
        shutil.rmtree(cache / "conda" / "pkgs")
