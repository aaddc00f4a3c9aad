"""Conda packages as files: what is in a ``.conda`` or a ``.tar.bz2``, read once, with nothing unpacked.

Both are tars in the end, and the standard library reads them.  They come from strangers: nothing may follow
an end, no more is decompressed than a package of that size may hold, and no file is ever held whole.
"""

from __future__ import annotations

import bz2
import hashlib
import io
import tarfile
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol

from haversack.conda.halves import BOMB_FLOOR, BOMB_SLACK, BrokenPackageError, Budget, listed, opened
from haversack.formats.wheel import BOMB_RATIO, TEXT_LIMIT
from haversack.formats.zipped import CHUNK

_NAME_LIMIT = 4096  # characters of a name or a link: PATH_MAX of Linux, and room for others
_EXTENSION_LIMIT = CHUNK  # bytes of an extended tar header, as formats/tar.py has it


@dataclass(frozen=True, slots=True)
class Entry:
    """One member of a package: ``file``, ``link``, ``hardlink``, ``folder`` or ``other``.

    ``size`` counts bytes and ``sha256`` are 64 digits, both of a file; ``target`` is what a link says, and
    ``text`` what a file in ``info/`` holds, if it is no larger than a text.  ``part`` is the half of a
    ``.conda`` that it is in, ``info`` or ``pkg``, and ``""`` in a ``.tar.bz2``.
    """

    part: str
    name: str
    kind: str
    size: int = 0
    sha256: str = ""
    target: str = ""
    text: bytes | None = None


def read(file: BinaryIO, filename: str, found: list[Entry]) -> None:
    """Append every member of a package to ``found``; ``filename`` says which format it should be.

    Raises :class:`BrokenPackageError`, with what was read until then in ``found``, ``SpaceError``, and what
    ``file`` itself raises.
    """
    size = file.seek(0, io.SEEK_END)
    budget = Budget(max(BOMB_FLOOR, BOMB_RATIO * size), size)
    if filename.endswith(".tar.bz2"):
        # The heads of a tar count too, which are no member's.
        inflated = _Inflated(file, Budget(BOMB_SLACK * budget.limit, size))
        _read_tar(inflated, "", budget, found)
        return
    with opened(file, filename.removesuffix(".conda"), budget.limit) as halves:
        for half in halves:
            begin = len(found)
            if _read_tar(_Part(half.tar, half.size), half.part, budget, found):
                _compare(found[begin:], listed(file, half.part))


def _compare(entries: list[Entry], names: list[str]) -> None:
    """Whether rattler, which will install it, reads the same names in a tar as we do.

    Readers of plain headers agree; about extended ones they have been made to differ, and to see files that
    others took for the content of one (CVE-2025-62518).
    """
    ours = [
        entry.name.encode(errors="surrogateescape").decode(errors="replace")
        for entry in entries
        if entry.kind in {"file", "link", "hardlink"}
    ]
    if sorted(ours) != sorted(names):
        raise BrokenPackageError("conda-invalid", "not all readers find the same files in it")


# Tars


class _Stream(Protocol):
    """What :mod:`tarfile` and we need of a file that is read once, front to back."""

    def tell(self) -> int: ...
    def seek(self, offset: int) -> int: ...
    def read(self, size: int) -> bytes: ...


class _Part:
    """The first ``size`` bytes of a file, of which no more is taken at once than a header may have."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size = file, size
        self._at = file.seek(0)

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int) -> int:
        if offset < self._at:
            raise tarfile.ReadError("a header of it leads back")
        self._at = self._file.seek(offset)
        return self._at

    def read(self, size: int) -> bytes:
        _check_request(size)
        data = self._file.read(max(min(size, self._size - self._at), 0))
        self._at += len(data)
        return data


class _Inflated:
    """A ``.bz2`` as a file that :mod:`tarfile` can read once, front to back, and not too much at a time."""

    def __init__(self, file: BinaryIO, budget: Budget) -> None:
        self._file, self._budget = file, budget
        self._inflater = bz2.BZ2Decompressor()
        self._held = bytearray()
        self._at = 0
        file.seek(0)

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int) -> int:
        if offset < self._at:
            raise tarfile.ReadError("a header of it leads back")
        while self._at < offset and self.read(min(offset - self._at, CHUNK)):
            pass
        return self._at

    def read(self, size: int) -> bytes:
        _check_request(size)
        while len(self._held) < size and (more := self._more()):
            self._held += more
        data = bytes(self._held[:size])
        del self._held[:size]
        self._at += len(data)
        return data

    def _more(self) -> bytes:
        """The next bytes, none at the end; a file may be several streams, one after the other."""
        while True:
            if self._inflater.eof:
                rest = self._inflater.unused_data or self._file.read(CHUNK)
                if not rest:
                    return b""
                self._inflater = bz2.BZ2Decompressor()
            else:
                rest = self._file.read(CHUNK // 4) if self._inflater.needs_input else b""
                if not rest and self._inflater.needs_input:
                    raise EOFError("it is cut short")
            if data := self._inflater.decompress(rest, CHUNK):
                self._budget.spend(len(data))
                return data


def _check_request(size: int) -> None:
    if size > _EXTENSION_LIMIT:
        raise tarfile.ReadError(f"a header says that it goes on for {size} bytes")


def _read_tar(stream: _Stream, part: str, budget: Budget, found: list[Entry]) -> bool:
    """Append the members of a tar; whether any of them has an extended header."""
    source: Any = stream
    extended = False
    try:
        with tarfile.TarFile(fileobj=source, mode="r", errorlevel=1, encoding="utf-8") as archive:
            while (member := archive.next()) is not None:
                found.append(_entry(stream, part, member, budget))
                extended |= member.offset_data - member.offset > tarfile.BLOCKSIZE
        _expect_end(stream)
    except BrokenPackageError:
        raise
    except Exception as error:  # tarfile promises nothing about what it raises for bytes like these
        raise BrokenPackageError("conda-invalid", f"it is damaged: {error}") from error
    return extended


def _expect_end(stream: _Stream) -> None:
    while rest := stream.read(CHUNK):
        if rest.strip(b"\0"):
            raise BrokenPackageError(
                "conda-invalid", "bytes follow the end of its tar, or a header is damaged"
            )


def _entry(stream: _Stream, part: str, member: tarfile.TarInfo, budget: Budget) -> Entry:
    _check_length(member.name, member.linkname)
    name = member.name.removeprefix("./")
    if member.issym() or member.islnk():
        return Entry(part, name, "link" if member.issym() else "hardlink", target=member.linkname)
    if not member.isreg() or member.issparse():
        return Entry(part, name, "folder" if member.isdir() else "other")
    budget.spend(member.size)
    hasher, left = hashlib.sha256(), member.size
    kept = bytearray() if name.startswith("info/") and part != "pkg" and left <= TEXT_LIMIT else None
    stream.seek(member.offset_data)
    while left and (chunk := stream.read(min(left, CHUNK))):
        hasher.update(chunk)
        left -= len(chunk)
        if kept is not None:
            kept += chunk
    if left:
        raise BrokenPackageError("conda-invalid", f"it is cut short, within {name}")
    return Entry(
        part, name, "file", member.size, hasher.hexdigest(), text=None if kept is None else bytes(kept)
    )


def _check_length(*names: str) -> None:
    longest = max(map(len, names))
    if longest > _NAME_LIMIT:
        raise BrokenPackageError("conda-invalid", f"a name in it has {longest} characters")
