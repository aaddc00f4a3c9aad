"""Local copies of blobs that lie elsewhere, within bounds: those not asked for longest go first."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from haversack.model.artifact import Digest, hex_of, is_digest
from haversack.ports import Seal, Watch
from haversack.ports.disk import pour
from haversack.ports.durable import explained, sync_folder

_NEW = ".new-"
# Somebody may be about to open what was lent by its path this long ago (seconds).
_IN_USE = 3600.0
# What a killed download left.
_ABANDONED = 24 * 3600.0


class BlobCache:
    """Files named by digest in ``folder``, together ``limit`` bytes.

    Safe between threads and processes: a file is written aside, hashed on its way, made durable and renamed.
    What was lent by its path within half an hour is spared, whatever the limit.  The rest is for who opens it
    at once, and a file that is removed stays for whoever has opened it.

    The date of a file says when it was asked for last: of those that are not lent, an hour before.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder, self._limit = folder, limit
        self._turn = threading.Lock()
        self._busy: dict[Digest, threading.Lock] = {}
        self._seals: dict[Digest, Seal] = {}
        # The first addition looks at what others left.
        self._added = limit

    def held(self, digest: Digest, *, lent: bool = False) -> Path | None:
        """The file of a blob, if there is one; to be opened at once where it is not ``lent``."""
        place = self._folder / hex_of(digest)
        try:
            used = place.stat().st_mtime
        except FileNotFoundError:
            return None
        # Roughly, since whoever hashed the file looks at its dates.
        if (due := _date(lent)) - used > _IN_USE / 2:
            with contextlib.suppress(FileNotFoundError, PermissionError):
                os.utime(place, (due, due))
        return place

    def digests(self) -> Iterator[Digest]:
        """The blobs that have a file."""
        with contextlib.suppress(FileNotFoundError):
            names = [f"sha256:{place.name}" for place in self._folder.iterdir()]
            yield from sorted(Digest(name) for name in names if is_digest(name))

    def get(
        self, digest: Digest, fetch: Callable[[], Iterable[bytes]], *, watch: Watch | None = None
    ) -> Path:
        """The file of a blob, filled by ``fetch`` where there is none, which ``watch`` is told of.

        It is lent, unless somebody watches and so can open it.  What is lent was hashed by this process: a
        file that rotted is filled anew.  Raises ``IntegrityError`` for other bytes that ``fetch`` gives, and
        ``StoreError`` or ``SpaceError`` for the disk.
        """
        return self._ensured(digest, fetch, watch, lent=watch is None)

    def open(self, digest: Digest, fetch: Callable[[], Iterable[bytes]]) -> BinaryIO:
        """The file of a blob, open.  Raises as :meth:`get`."""
        while True:
            place = self._ensured(digest, fetch, None, lent=False)
            # Another one's addition may have been too much.
            with contextlib.suppress(FileNotFoundError):
                return place.open("rb")

    def _ensured(
        self, digest: Digest, fetch: Callable[[], Iterable[bytes]], watch: Watch | None, *, lent: bool
    ) -> Path:
        place = self._folder / hex_of(digest)
        with self._turn:
            busy = self._busy.setdefault(digest, threading.Lock())
        with busy:
            if self.held(digest, lent=lent) is None or (lent and not self._right(digest, place)):
                self._fill(digest, place, fetch(), watch, lent)
        return place

    def _right(self, digest: Digest, place: Path) -> bool:
        """Whether a file is what its name says, hashed unless it stands as this process has found it."""
        try:
            with place.open("rb") as file:
                seal = Seal.of(os.fstat(file.fileno()))
                if self._seals.get(digest) != seal:
                    if hashlib.file_digest(file, "sha256").hexdigest() != hex_of(digest):
                        return False
                    self._seals[digest] = seal
        except OSError:
            # A disk that cannot read it back has lost it.
            return False
        return True

    def drop(self, digest: Digest) -> None:
        """Forget a blob."""
        with contextlib.suppress(OSError):
            (self._folder / hex_of(digest)).unlink()

    def _fill(
        self, digest: Digest, place: Path, chunks: Iterable[bytes], watch: Watch | None, lent: bool
    ) -> None:
        with explained(self._folder, "keeping a copy of a blob"):
            self._folder.mkdir(parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(prefix=_NEW, dir=self._folder)
            aside = Path(name)
            try:
                with os.fdopen(descriptor, "wb", buffering=0) as file:
                    size = pour(_told(chunks, descriptor, watch) if watch else chunks, file, digest)
                    # A renamed file that was not made durable comes back empty after a power cut.
                    os.fsync(descriptor)
                aside.chmod(0o444)
                os.utime(aside, (date := _date(lent), date))
                self._seals[digest] = Seal.of(aside.stat())
                aside.replace(place)
            except BaseException:
                aside.unlink(missing_ok=True)
                raise
            sync_folder(self._folder)
        with self._turn:
            self._added += size
            due = self._added > self._limit // 20
            if due:
                self._added = 0
        if due:
            self._shrink(place)

    def _shrink(self, new: Path) -> None:
        """Remove the files that were not asked for longest, but the ``new`` one, until the rest is within the limit."""
        now, found, total = time.time(), [], 0
        with contextlib.suppress(OSError), os.scandir(self._folder) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    status = entry.stat(follow_symlinks=False)
                    if entry.name.startswith(_NEW) and now - status.st_mtime > _ABANDONED:
                        Path(entry.path).unlink()
                        continue
                    total += status.st_size
                    if not entry.name.startswith(_NEW) and entry.name != new.name:
                        found.append((status.st_mtime, status.st_size, entry.path))
        for used, size, path in sorted(found):
            if total <= self._limit or now - used < _IN_USE:
                return
            with contextlib.suppress(OSError):
                Path(path).unlink()
                total -= size


def _date(lent: bool) -> float:
    return time.time() - (0 if lent else _IN_USE)


def _told(chunks: Iterable[bytes], descriptor: int, watch: Watch) -> Iterator[bytes]:
    """The chunks; whoever asks for the next one has hashed and written those before."""
    size = 0
    for chunk in chunks:
        yield chunk
        size += len(chunk)
        watch(descriptor, size)
