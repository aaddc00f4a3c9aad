"""Tar archives from a stream: read once, front to back, never further and never larger than what comes.

Reads the ustar, pax and GNU dialects as far as plain files need them.  The standard library's reader takes
a damaged header for the end of the archive, counts its way through any size that a header claims, reads
extended headers of any size into memory and expands sparse files; over a one-way line, from strangers,
none of that will do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

_BLOCK = 512
_CHUNK = 1 << 20
_WITHOUT_DATA = b"123456"
_KINDS = {b"0": "file", b"\0": "file", b"7": "file", b"1": "link", b"2": "link", b"5": "folder"}


class BrokenTarError(Exception):
    """The stream ends too early, or is no tar."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One member: its name, ``file``, ``folder``, ``link`` or ``other``, its size in bytes.

    ``chunks`` reads it once, before the next entry is asked for; it raises :class:`BrokenTarError` where
    the stream ends first.
    """

    name: str
    kind: str
    size: int
    chunks: Callable[[], Iterator[bytes]]


def entries(file: BinaryIO) -> Iterator[Entry]:
    """Every member in turn.  Raises :class:`BrokenTarError`, also for anything that follows the end mark."""
    records: dict[str, str] = {}
    while (block := _read(file, _BLOCK)).strip(b"\0"):
        kind, size = _checked(block), _number(block[124:136])
        if kind in b"xgLK":
            # What global headers and long link names say concerns no plain file.
            records |= _extension(kind, _exactly(file, size, _CHUNK))
            _exactly(file, -size % _BLOCK, _BLOCK)
            continue
        if "size" in records:
            size = _decimal(records["size"])
        body = _Body(file, 0 if kind in _WITHOUT_DATA else size)
        sparse = any(key.startswith("GNU.sparse.") for key in records)
        told = "other" if sparse else _KINDS.get(kind, "other")
        yield Entry(records.get("path") or _name(block), told, body.left, body.chunks)
        for _ in body.chunks():
            """What nobody wanted."""
        _exactly(file, -body.size % _BLOCK, _BLOCK)
        records = {}
    while rest := file.read(_CHUNK):
        if rest.strip(b"\0"):
            raise BrokenTarError("bytes follow its end")


class _Body:
    """The bytes of the member that the stream stands at."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self.size, self.left = file, size, size

    def chunks(self) -> Iterator[bytes]:
        while self.left:
            chunk = self._file.read(min(self.left, _CHUNK))
            if not chunk:
                raise BrokenTarError(f"it ends {self.left} bytes before the end of a file")
            self.left -= len(chunk)
            yield chunk


def _read(file: BinaryIO, size: int) -> bytes:
    """So many bytes, or fewer at the end of the stream; a pipe gives what it has."""
    data = b""
    while len(data) < size and (more := file.read(size - len(data))):
        data += more
    return data


def _exactly(file: BinaryIO, size: int, most: int) -> bytes:
    if size > most:
        raise BrokenTarError(f"a header says that it goes on for {size} bytes")
    data = _read(file, size)
    if len(data) < size:
        raise BrokenTarError("it ends within a header")
    return data


def _checked(block: bytes) -> bytes:
    """The kind of a header whose check sum is right."""
    if len(block) < _BLOCK:
        raise BrokenTarError("it ends within a header")
    if sum(block[:148]) + 8 * ord(" ") + sum(block[156:]) != _number(block[148:156]):
        raise BrokenTarError("a header of it is damaged")
    return block[156:157]


def _number(field: bytes) -> int:
    """A number in octal digits, or in binary where its first bit is set (GNU)."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \0")
    if digits.strip(b"01234567"):
        raise BrokenTarError("a header of it has a number that is none")
    return int(digits or b"0", 8)


def _decimal(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise BrokenTarError("a header of it has a number that is none")
    return int(text)


def _name(block: bytes) -> str:
    """The name in a header; the prefix is one only in the dialect of POSIX."""
    name, prefix = (
        part.partition(b"\0")[0].decode(errors="replace") for part in (block[:100], block[345:500])
    )
    return f"{prefix}/{name}" if prefix and block[257:263] == b"ustar\0" else name


def _extension(kind: bytes, data: bytes) -> dict[str, str]:
    """What an extended header says of the member after it."""
    if kind == b"L":
        return {"path": data.partition(b"\0")[0].decode(errors="replace")}
    records: dict[str, str] = {}
    while kind == b"x" and data:
        length, _, _ = data.partition(b" ")
        size = _decimal(length.decode(errors="replace"))
        record, data = data[len(length) + 1 : size], data[size:]
        key, equals, value = record.partition(b"=")
        if len(length) + 1 + len(record) != size or not equals or not value.endswith(b"\n"):
            raise BrokenTarError("an extended header of it is damaged")
        records[key.decode(errors="replace")] = value[:-1].decode(errors="replace")
    return records
