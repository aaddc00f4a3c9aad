"""A file on its way: what of it has arrived."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from haversack.model.artifact import Digest
from haversack.ports.durable import begin_writing, explained

CHUNK = 1 << 20
_PORTION = 1 << 24  # bytes after which the disk is told to begin


class Partial:
    """The file being filled: its bytes, their hash, and what ``on_bytes`` was told of them, kept in step.

    ``on_bytes`` hears of the bytes that are there at first, of each one that comes, and with a negative
    number of those thrown away.  Methods raise ``StoreError`` or ``SpaceError`` for the disk.
    """

    def __init__(self, path: Path, on_bytes: Callable[[int], None]) -> None:
        self._path, self._on_bytes = path, on_bytes
        self.size, self._hash, self._told = 0, hashlib.sha256(), 0
        with explained(path, "opening a download"):
            self._file = path.open("a+b")
            self._file.seek(0)
            while chunk := self._file.read(CHUNK):
                self._count(chunk)

    @property
    def digest(self) -> Digest:
        """The digest of what is there."""
        return f"sha256:{self._hash.hexdigest()}"

    def write(self, chunk: bytes) -> None:
        """Append."""
        with explained(self._path, "downloading"):
            self._file.write(chunk)
        self._count(chunk)
        if self.size - self._told >= _PORTION:
            # Disk and network at once: otherwise the disk idles while a large file comes.
            begin_writing(self._file.fileno())
            self._told = self.size

    def restart(self) -> None:
        """Empty it."""
        with explained(self._path, "downloading"):
            self._file.seek(0)
            self._file.truncate()
        if self.size:
            self._on_bytes(-self.size)
        self.size, self._hash, self._told = 0, hashlib.sha256(), 0

    def _count(self, chunk: bytes) -> None:
        self._hash.update(chunk)
        self.size += len(chunk)
        self._on_bytes(len(chunk))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with explained(self._path, "downloading"):
            self._file.close()
