"""A file on its way: what of it has arrived."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from haversack.errors import SpaceError
from haversack.model.artifact import Digest
from haversack.ports.durable import begin_writing, explained

CHUNK = 1 << 20
_PORTION = 1 << 24  # bytes after which the disk is told to begin
_SPARED = 10
"""A file whose end nobody tells leaves this part of what was free, a tenth: others live on that disk."""


class TooMuchError(Exception):
    """More came, or would come, than the file may have; the text says how much."""


class Partial:
    """The file being filled: its bytes, their hash, and what ``on_bytes`` was told of them, kept in step.

    ``on_bytes`` hears of the bytes that are there at first, of each one that comes, and with a negative
    number of those thrown away.  Of a file that has ``most`` bytes no more are taken.  Methods raise
    ``StoreError`` or ``SpaceError`` for the disk; ``url`` is what the latter name it by.
    """

    def __init__(self, path: Path, on_bytes: Callable[[int], None], url: str, most: int | None) -> None:
        self._path, self._on_bytes, self._url, self._most = path, on_bytes, url, most
        self._endless = False
        self.size, self._hash, self._told = 0, hashlib.sha256(), 0
        with explained(path, "opening a download"):
            self._file = path.open("a+b")
            self._spare = self._free() // _SPARED
            self._file.seek(0)
            while chunk := self._file.read(CHUNK):
                self._count(chunk)

    @property
    def digest(self) -> Digest:
        """The digest of what is there."""
        return f"sha256:{self._hash.hexdigest()}"

    def expect(self, coming: int | None) -> None:
        """Say how many bytes will follow what is there, ``None`` where nobody told.

        Raises :class:`TooMuchError` or ``SpaceError`` for more than may come.
        """
        self._endless = self._most is None and coming is None
        whole = self.size + (coming or 0)
        if self._most is not None and whole > self._most:
            raise TooMuchError(
                f"its host has {whole} bytes, more than the {self._most} bytes that it should be"
            )
        if self._most is None and (coming or 0) > self._free():
            raise SpaceError(
                f"{coming} bytes are to be fetched and {self._free()} are free in {self._path.parent}",
                where=self._url,
                remedy="free some space and run the same command again",
            )

    def write(self, chunk: bytes) -> None:
        """Append.  Raises :class:`TooMuchError` for more than the file may have."""
        if self._most is not None and self.size + len(chunk) > self._most:
            raise TooMuchError(f"its host sent more than the {self._most} bytes that it should be")
        with explained(self._path, "downloading"):
            self._file.write(chunk)
        self._count(chunk)
        if self.size - self._told >= _PORTION:
            # Disk and network at once: otherwise the disk idles while a large file comes.
            begin_writing(self._file.fileno())
            self._told = self.size
        if self._endless and self._free() < self._spare:
            came = self.size
            self.restart()
            raise SpaceError(
                f"{came} bytes came and no end of them, with a tenth of the room in {self._path.parent} left; they were dropped",
                where=self._url,
                remedy="see whether its host sends what it should; if it does, free some space",
            )

    def restart(self) -> None:
        """Empty it."""
        with explained(self._path, "downloading"):
            self._file.seek(0)
            self._file.truncate()
        if self.size:
            self._on_bytes(-self.size)
        self.size, self._hash, self._told = 0, hashlib.sha256(), 0

    def _free(self) -> int:
        return shutil.disk_usage(self._path.parent).free

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
