"""Objects of a bucket as files: as they arrive, and in parts."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

from haversack.ports.s3client import explained

if TYPE_CHECKING:
    from haversack.ports.s3client import Client

PORTION = 128 << 10
"""Bytes that whoever waits for an object gets at once: few, since the way may be slow."""


def parts(client: Client, key: str, size: int, where: str) -> BinaryIO:
    """An object of ``size`` bytes to seek in.  Raises ``StoreError`` where the server does not give parts."""
    file = _Parts(client, key, size, where)
    if size:
        file.read(1)
        file.seek(0)
    return io.BufferedReader(file, PORTION)


class Arriving(io.RawIOBase):
    """The chunks of an object as they arrive, as a file."""

    def __init__(self, chunks: Iterator[bytes], where: str) -> None:
        super().__init__()
        self._chunks, self._where = chunks, where
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        """True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer; 0 at the end."""
        while not self._rest:
            with explained(self._where, "reading a blob"):
                chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._rest = memoryview(bytes(chunk))
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


class _Parts(io.RawIOBase):
    """An object that is asked for part by part."""

    def __init__(self, client: Client, key: str, size: int, where: str) -> None:
        super().__init__()
        self._client, self._key, self._size, self._where = client, key, size, where
        self._at = 0

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place; nothing is asked for."""
        begin = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        if begin + offset < 0:
            raise ValueError("there is nothing before the beginning")
        self._at = begin + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer; 0 at the end."""
        count = min(len(buffer), self._size - self._at)
        if count <= 0:
            return 0
        with explained(self._where, "reading a part of a blob"):
            data = memoryview(bytes(self._client.get_range(self._key, start=self._at, length=count)))[:count]
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)
