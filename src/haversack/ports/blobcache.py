"""Local copies of blobs that lie elsewhere, within bounds: those not asked for longest go first."""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from haversack.model.artifact import Digest, hex_of
from haversack.ports import Watch
from haversack.ports.disk import pour
from haversack.ports.durable import explained, sync_folder

_NEW = ".new-"
# Somebody may be about to read what was handed out this long ago (seconds); of its links others live.
_IN_USE = 3600.0
# What a killed download left.
_ABANDONED = 24 * 3600.0


class BlobCache:
    """Files named by digest in ``folder``, together ``limit`` bytes; what was used within half an hour is spared.

    Safe between threads and processes: a file is written aside, hashed on its way, made durable and renamed.
    A file in use that is removed stays for whoever has opened it.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder, self._limit = folder, limit
        self._turn = threading.Lock()
        self._busy: dict[Digest, threading.Lock] = {}
        # The first addition looks at what others left.
        self._added = limit

    def held(self, digest: Digest) -> Path | None:
        """The file of a blob, if there is one."""
        place = self._folder / hex_of(digest)
        try:
            used = place.stat().st_mtime
        except FileNotFoundError:
            return None
        # The date says when it was asked for last; roughly, since whoever hashed the file looks at its dates.
        if time.time() - used > _IN_USE / 2:
            with contextlib.suppress(FileNotFoundError, PermissionError):
                os.utime(place)
        return place

    def get(
        self, digest: Digest, fetch: Callable[[], Iterable[bytes]], *, watch: Watch | None = None
    ) -> Path:
        """The file of a blob, filled by ``fetch`` where there is none, which ``watch`` is told of.

        Raises ``IntegrityError`` for other bytes, and ``StoreError`` or ``SpaceError`` for the disk.
        """
        place = self._folder / hex_of(digest)
        with self._turn:
            busy = self._busy.setdefault(digest, threading.Lock())
        with busy:
            if self.held(digest) is None:
                self._fill(digest, place, fetch(), watch)
        return place

    def drop(self, digest: Digest) -> None:
        """Forget a blob."""
        with contextlib.suppress(OSError):
            (self._folder / hex_of(digest)).unlink()

    def _fill(self, digest: Digest, place: Path, chunks: Iterable[bytes], watch: Watch | None) -> None:
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
            self._shrink()

    def _shrink(self) -> None:
        """Remove the files that were not asked for longest, until the rest is within the limit."""
        now, found = time.time(), []
        with contextlib.suppress(OSError), os.scandir(self._folder) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    status = entry.stat(follow_symlinks=False)
                    if not entry.name.startswith(_NEW):
                        found.append((status.st_mtime, status.st_size, entry.path))
                    elif now - status.st_mtime > _ABANDONED:
                        Path(entry.path).unlink()
        total = sum(size for _, size, _ in found)
        for used, size, path in sorted(found):
            if total <= self._limit or now - used < _IN_USE:
                return
            with contextlib.suppress(OSError):
                Path(path).unlink()
                total -= size


def _told(chunks: Iterable[bytes], descriptor: int, watch: Watch) -> Iterator[bytes]:
    """The chunks; whoever asks for the next one has hashed and written those before."""
    size = 0
    for chunk in chunks:
        yield chunk
        size += len(chunk)
        watch(descriptor, size)
