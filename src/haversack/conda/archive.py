"""Conda packages as files: what is in a ``.conda`` or a ``.tar.bz2``, read once, with nothing unpacked.

A ``.conda`` is a zip file of two ``.tar.zst``, which rattler decompresses for us; an older package is one
``.tar.bz2``, which the standard library reads.  Either comes from strangers: the zip file must agree with
itself, nothing may follow an end, and no more is decompressed than a package of that size may hold.
"""

from __future__ import annotations

import bz2
import contextlib
import hashlib
import io
import json
import os
import shutil
import tarfile
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from haversack.conda import engine
from haversack.errors import ToolError
from haversack.formats.wheel import BOMB_RATIO, TEXT_LIMIT
from haversack.formats.zipped import CHUNK, BrokenZipError, content, directory

BOMB_FLOOR = 64 * 1024 * 1024
"""Unpacked bytes below which no ratio hurts anybody; less than for a wheel, because files are held whole."""
BOMB_SLACK = 4
"""How much further than the rule the tar itself may go: the heads of tiny files, and frames that tell their
size only as a bound (at most 1.5 of the true size is usual, 8 was seen in a library at a ratio of 3)."""

_NAME_LIMIT = 4096  # characters of a name or a link: PATH_MAX of Linux, and room for others
_EXTENSION_LIMIT = 1024 * 1024  # bytes of an extended tar header, as formats/tar.py has it
_ZST_BLOCK = 128 * 1024  # bytes that one block of zstd unpacks to at most (RFC 8878, 3.1.1.2.4)
# One file at a time of those that are larger: rattler gives a file whole, and takes twice its size to do so.
_LARGE = BOMB_FLOOR
_one_large_file = threading.Lock()


class BrokenPackageError(Exception):
    """The package cannot be read to its end; becomes a finding with that code."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


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

    Raises :class:`BrokenPackageError`, with what was read until then in ``found``, and what ``file`` itself
    raises.
    """
    size = file.seek(0, io.SEEK_END)
    budget = _Budget(max(BOMB_FLOOR, BOMB_RATIO * size), size)
    if filename.endswith(".tar.bz2"):
        _read_bz2(file, budget, found)
    else:
        _check_outside(file, filename.removesuffix(".conda"), budget)
        with _path(file) as path:
            try:
                with engine.guarded("reading it"):
                    engine.run(_read_zst(path, budget, found))
            except OSError as error:
                raise BrokenPackageError("conda-invalid", f"it is damaged: {error}") from error
            except ToolError as error:
                raise BrokenPackageError("conda-invalid", f"it is damaged: {error.message}") from error


class _Budget:
    """How many bytes a package may still unpack to."""

    def __init__(self, limit: int, packed: int) -> None:
        self.limit, self.packed, self.used = limit, packed, 0

    def spend(self, size: int) -> None:
        """Raise :class:`BrokenPackageError` where ``size`` bytes more are too many."""
        self.used += size
        if self.used > self.limit:
            raise BrokenPackageError(
                "conda-bomb", f"{self.packed} bytes unpack to {self.used} or more, {self.limit} are the limit"
            )


# The outside of a .conda


def _check_outside(file: BinaryIO, stem: str, budget: _Budget) -> None:
    """Whether it is a zip file of the three members that make a package, each of them sound and stored."""
    info, payload = f"info-{stem}.tar.zst", f"pkg-{stem}.tar.zst"
    try:
        spans, _ = directory(file)
        names = [member.orig_filename for member, _ in spans]
        if sorted(names) != sorted(["metadata.json", info, payload]):
            told = ", ".join(map(ascii, names[:5])) + (" …" if len(names) > 5 else "")
            raise BrokenPackageError(
                "conda-invalid", f"it holds {told or 'nothing'}, not metadata.json, {payload} and {info}"
            )
        if spans[0][0].header_offset > 0:
            raise BrokenPackageError("conda-invalid", "bytes that no member owns stand before the first")
        frames = _Budget(BOMB_SLACK * budget.limit, budget.packed)
        for member, limit in spans:
            if member.compress_type:
                raise BrokenPackageError("conda-invalid", f"{member.orig_filename} is compressed, not stored")
            if member.orig_filename == "metadata.json":
                if member.file_size > TEXT_LIMIT:
                    raise BrokenPackageError("conda-invalid", "metadata.json is too large for a text")
                _check_metadata(b"".join(content(file, member, limit)))
            else:
                _check_frame(content(file, member, limit), member.orig_filename, frames)
    except BrokenZipError as error:
        code = "conda-bomb" if error.code == "wheel-bomb" else "conda-invalid"
        raise BrokenPackageError(code, str(error)) from error


def _check_metadata(data: bytes) -> None:
    try:
        found = json.loads(data)
        version = found["conda_pkg_format_version"]
    except (ValueError, RecursionError, LookupError, TypeError) as error:
        raise BrokenPackageError("conda-invalid", "metadata.json says no format version") from error
    if version != 2 or isinstance(version, bool):
        raise BrokenPackageError("conda-invalid", f"metadata.json says format version {version!r}, not 2")


def _check_frame(chunks: Iterator[bytes], name: str, budget: _Budget) -> None:
    """Whether a member is one frame of zstd and nothing else, whose blocks cannot unpack to too much.

    Readers stop after the first frame, and some take whatever a header in the tar claims into memory.
    """
    walk = _walk(budget)
    wanted, held = next(walk), b""
    for chunk in chunks:
        held += chunk
        start = 0
        while wanted >= 0 and len(held) - start >= wanted:
            wanted, start = walk.send(held[start : start + wanted]), start + wanted
        # A skipped block may be larger than what is held: the generator asks for headers and bodies alike.
        held = held[start:]
        if wanted < 0 and held:
            raise BrokenPackageError("conda-invalid", f"bytes that nobody reads follow the end of {name}")
    if wanted >= 0:
        raise BrokenPackageError("conda-invalid", f"{name} is cut short")


def _walk(budget: _Budget) -> Any:
    """Ask for the parts of a zstd frame (RFC 8878, 3.1.1) one after the other, and for -1 bytes at its end."""
    if (yield 4) != b"\x28\xb5\x2f\xfd":
        raise BrokenPackageError("conda-invalid", "one half of it is not compressed by zstd")
    (flags,) = yield 1
    single = flags >> 5 & 1
    yield 1 - single
    yield (0, 1, 2, 4)[flags & 3]
    yield (single, 2, 4, 8)[flags >> 6]
    last = False
    while not last:
        head = int.from_bytes((yield 3), "little")
        last, kind, size = bool(head & 1), head >> 1 & 3, head >> 3
        if kind == 3 or size > _ZST_BLOCK:
            raise BrokenPackageError(
                "conda-invalid", "one half of it is damaged: a block is of no known kind"
            )
        budget.spend(_ZST_BLOCK if kind == 2 else size)
        yield 1 if kind == 1 else size
    yield flags & 4
    yield -1


# The inside of a .conda


@contextlib.contextmanager
def _path(file: BinaryIO) -> Iterator[Path]:
    """A path with the suffix by which rattler knows the format, for the very file that is open."""
    with tempfile.TemporaryDirectory(prefix="haversack-package-") as folder:
        path = Path(folder) / "package.conda"
        if name := _name(file):
            path.symlink_to(Path(name).absolute())
        else:
            file.seek(0)
            with path.open("wb") as copy:
                shutil.copyfileobj(file, copy, CHUNK)
        yield path


def _name(file: BinaryIO) -> str:
    """Where the file that is open lies, or an empty string where it lies nowhere (any more)."""
    name = getattr(file, "name", None)
    if isinstance(name, str):
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(file.fileno()), os.stat(name)):
                return name
    return ""


async def _read_zst(path: Path, budget: _Budget, found: list[Entry]) -> None:
    from rattler.package_streaming import PackageArchive

    archive = await PackageArchive.from_path(path)
    for part in ("info", "pkg"):
        async for member in archive.stream("info" if part == "info" else "pkg"):
            _check_length(member.name, member.link_target or "")
            if not member.is_file:
                found.append(_special(part, member))
                continue
            budget.spend(member.size)
            with _one_large_file if member.size > _LARGE else contextlib.nullcontext():
                data = await member.read()
                digest = hashlib.sha256(data).hexdigest()
                text = data if part == "info" and member.size <= TEXT_LIMIT else None
                found.append(Entry(part, member.name, "file", member.size, digest, text=text))
                del data


def _check_length(*names: str) -> None:
    longest = max(map(len, names))
    if longest > _NAME_LIMIT:
        raise BrokenPackageError("conda-invalid", f"a name in it has {longest} characters")


def _special(part: str, member: Any) -> Entry:
    """A member that is no file: rattler tells links, and a folder only by the slash at its end."""
    if member.is_link:
        kind = "link" if member.is_symlink else "hardlink"
        return Entry(part, member.name, kind, target=member.link_target or "")
    return Entry(part, member.name.rstrip("/"), "folder" if member.name.endswith("/") else "other")


# A .tar.bz2


class _Inflated:
    """A ``.bz2`` as a file that :mod:`tarfile` can read once, front to back, and not too much at a time."""

    def __init__(self, file: BinaryIO, budget: _Budget) -> None:
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
        if size > _EXTENSION_LIMIT:
            raise tarfile.ReadError(f"a header says that it goes on for {size} bytes")
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


def _read_bz2(file: BinaryIO, budget: _Budget, found: list[Entry]) -> None:
    # The heads of a tar count too, of which rattler tells nothing.
    inflated: Any = _Inflated(file, _Budget(BOMB_SLACK * budget.limit, budget.packed))
    try:
        with tarfile.TarFile(fileobj=inflated, mode="r", errorlevel=1) as archive:
            while (member := archive.next()) is not None:
                found.append(_entry(archive, member, budget))
        _expect_end(inflated)
    except BrokenPackageError:
        raise
    except Exception as error:  # tarfile promises nothing about what it raises for bytes like these
        raise BrokenPackageError("conda-invalid", f"it is damaged: {error}") from error


def _expect_end(inflated: _Inflated) -> None:
    while rest := inflated.read(CHUNK):
        if rest.strip(b"\0"):
            raise BrokenPackageError(
                "conda-invalid", "bytes follow the end of its tar, or a header is damaged"
            )


def _entry(archive: tarfile.TarFile, member: tarfile.TarInfo, budget: _Budget) -> Entry:
    _check_length(member.name, member.linkname)
    name = member.name.removeprefix("./")
    if member.issym() or member.islnk():
        return Entry("", name, "link" if member.issym() else "hardlink", target=member.linkname)
    if not member.isreg() or member.issparse():
        return Entry("", name, "folder" if member.isdir() else "other")
    budget.spend(member.size)
    hasher, size = hashlib.sha256(), 0
    kept = bytearray() if name.startswith("info/") and member.size <= TEXT_LIMIT else None
    body = archive.extractfile(member)
    while body and (chunk := body.read(CHUNK)):
        hasher.update(chunk)
        size += len(chunk)
        if kept is not None:
            kept += chunk
    if size != member.size:
        raise BrokenPackageError("conda-invalid", f"it is cut short, within {name}")
    return Entry("", name, "file", size, hasher.hexdigest(), text=None if kept is None else bytes(kept))
