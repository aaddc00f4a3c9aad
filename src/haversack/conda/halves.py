"""The outside of a ``.conda``: a zip file of two ``.tar.zst``, and how to come by the two tars in them.

Rattler decompresses zstd, but only as far as to the files in a tar, one at a time and each as a whole.  So
each half is given to it as a tar of *one* file: the head of that tar stands in front of the blocks of the
half as a block of its own, and what comes out as the file is the tar within.  The blocks stay as they are:
what they refer to lies at the same distance before them (RFC 8878, 3.1.1).
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import secrets
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO

from haversack.conda import engine
from haversack.errors import SpaceError, ToolError
from haversack.formats.wheel import TEXT_LIMIT
from haversack.formats.zipped import CHUNK, BrokenZipError, content, directory

BOMB_FLOOR = 64 * 1024 * 1024
"""Unpacked bytes below which no ratio hurts anybody; less than for a wheel, because tars lie on a disk."""
BOMB_SLACK = 4
"""How much further than the rule the tar itself may go: the heads of tiny files, and frames that tell their
size only as a bound (at most 1.5 of the true size is usual, 8 was seen in a library at a ratio of 3)."""

PARTS = ("info", "pkg")
"""The halves: what describes the package, and its files."""

_MAGIC = b"\x28\xb5\x2f\xfd"
_BLOCK = 128 * 1024  # bytes that one block of zstd unpacks to at most (RFC 8878, 3.1.1.2.4)
_HEADER = 512  # bytes of a tar's header, and what its files are rounded up to
_SMALL = 4 * 1024 * 1024  # bytes of tars that are as well in memory: rattler takes twice their size


class BrokenPackageError(Exception):
    """The package cannot be read to its end; becomes a finding with that code."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Budget:
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


@dataclass(frozen=True, slots=True)
class Half:
    """One of the tars: its ``part``, the file it lies in from its begin on, and its ``size`` in bytes."""

    part: str
    tar: BinaryIO
    size: int


@contextlib.contextmanager
def opened(file: BinaryIO, stem: str, limit: int) -> Iterator[list[Half]]:
    """Both halves of a ``.conda`` of the name ``stem``, what describes it first, while the block lasts.

    ``limit`` are the bytes that its files may have.  What does not fit into little memory goes to the
    system's folder for temporary files.  Raises :class:`BrokenPackageError`, ``SpaceError`` where that
    folder has no room, and what ``file`` itself raises.
    """
    size = file.seek(0, io.SEEK_END)
    try:
        members = _members(file, stem, Budget(BOMB_SLACK * limit, size))
        with (
            tempfile.TemporaryDirectory(prefix="haversack-package-") as folder,
            contextlib.ExitStack() as stack,
        ):
            place = Path(folder)
            room = sum(member.frame.room for member in members)
            if large := room > _SMALL:
                _expect_room(place, size + room)
            marker = secrets.token_bytes(31) + b"."
            _wrap(file, members, place / "wrapped.conda", marker)
            held = _unpacked(place, large=large)
            tars: list[BinaryIO] = [
                stack.enter_context((place / "out" / part).open("rb")) if large else io.BytesIO(held[part])
                for part in PARTS
            ]
            yield [
                Half(part, tar, _end(tar, member.frame, marker))
                for part, tar, member in zip(PARTS, tars, members, strict=True)
            ]
    except BrokenZipError as error:
        code = "conda-bomb" if error.code == "wheel-bomb" else "conda-invalid"
        raise BrokenPackageError(code, str(error)) from error


# The zip file


@dataclass(frozen=True, slots=True)
class _Member:
    """A half as it lies in the zip file: ``begin`` is where its frame does."""

    begin: int
    frame: _Frame


def _members(file: BinaryIO, stem: str, budget: Budget) -> list[_Member]:
    """Both halves of a zip file of the three members that make a package, each of them sound and stored."""
    info, payload = f"info-{stem}.tar.zst", f"pkg-{stem}.tar.zst"
    spans, _ = directory(file)
    names = [member.orig_filename for member, _ in spans]
    if sorted(names) != sorted(["metadata.json", info, payload]):
        told = ", ".join(map(ascii, names[:5])) + (" …" if len(names) > 5 else "")
        raise BrokenPackageError(
            "conda-invalid", f"it holds {told or 'nothing'}, not metadata.json, {payload} and {info}"
        )
    if spans[0][0].header_offset > 0:
        raise BrokenPackageError("conda-invalid", "bytes that no member owns stand before the first")
    found: dict[str, _Member] = {}
    for member, limit in spans:
        if member.compress_type:
            raise BrokenPackageError("conda-invalid", f"{member.orig_filename} is compressed, not stored")
        if member.orig_filename == "metadata.json":
            if member.file_size > TEXT_LIMIT:
                raise BrokenPackageError("conda-invalid", "metadata.json is too large for a text")
            _check_metadata(b"".join(content(file, member, limit)))
        else:
            frame = _frame(content(file, member, limit), member.orig_filename, budget)
            found[member.orig_filename] = _Member(file.tell() - member.file_size, frame)
    return [found[info], found[payload]]


def _check_metadata(data: bytes) -> None:
    try:
        found = json.loads(data)
        version = found["conda_pkg_format_version"]
    except (ValueError, RecursionError, LookupError, TypeError) as error:
        raise BrokenPackageError("conda-invalid", "metadata.json says no format version") from error
    if version != 2 or isinstance(version, bool):
        raise BrokenPackageError("conda-invalid", f"metadata.json says format version {version!r}, not 2")


# Frames of zstd


@dataclass(frozen=True, slots=True)
class _Frame:
    """Where the blocks of a frame are, counted in bytes from its begin, and what they unpack to.

    They are ``start`` to ``end``, the head of the last of them at ``last``.  They unpack to no more than
    ``most`` bytes, and to exactly ``stated`` if the frame says so; ``window`` is how far back they refer.
    """

    window: int
    stated: int | None
    start: int
    last: int
    end: int
    most: int

    @property
    def room(self) -> int:
        """The bytes to make room for: what the frame says, where that can be true."""
        return self.most if self.stated is None else min(self.stated, self.most)


def _frame(chunks: Iterator[bytes], name: str, budget: Budget) -> _Frame:
    """The one frame that a member must be, whose blocks cannot unpack to too much.

    Readers stop after the first frame: what follows it is read by nobody, and checked by nobody.
    """
    walk = _walk(budget)
    frame: _Frame | None = None
    wanted, held = next(walk), b""
    for chunk in chunks:
        held += chunk
        start = 0
        while frame is None and len(held) - start >= wanted:
            part, start = held[start : start + wanted], start + wanted
            try:
                wanted = walk.send(part)
            except StopIteration as end:
                frame = end.value
        # A skipped block may be larger than what is held: the generator asks for headers and bodies alike.
        held = held[start:]
        if frame is not None and held:
            raise BrokenPackageError("conda-invalid", f"bytes that nobody reads follow the end of {name}")
    if frame is None:
        raise BrokenPackageError("conda-invalid", f"{name} is cut short")
    return frame


def _walk(budget: Budget) -> Generator[int, bytes, _Frame]:
    """Ask for the parts of a zstd frame (RFC 8878, 3.1.1) one after the other, by their sizes in bytes."""
    if (yield 4) != _MAGIC:
        raise BrokenPackageError("conda-invalid", "one half of it is not compressed by zstd")
    (flags,) = yield 1
    single = flags >> 5 & 1
    exponent = yield 1 - single
    dictionary = yield (0, 1, 2, 4)[flags & 3]
    if dictionary.strip(b"\0"):
        raise BrokenPackageError("conda-invalid", "one half of it wants a dictionary that nobody has")
    told = yield (single, 2, 4, 8)[flags >> 6]
    stated = int.from_bytes(told, "little") + (256 if len(told) == 2 else 0) if told else None
    window = stated or 0
    if not single:
        base = 1 << 10 + (exponent[0] >> 3)
        window = base + base // 8 * (exponent[0] & 7)
    start = at = 5 + 1 - single + len(dictionary) + len(told)
    begun, last = budget.used, False
    while not last:
        head = int.from_bytes((yield 3), "little")
        last, kind, size = bool(head & 1), head >> 1 & 3, head >> 3
        if kind == 3 or size > _BLOCK:
            raise BrokenPackageError(
                "conda-invalid", "one half of it is damaged: a block is of no known kind"
            )
        budget.spend(_BLOCK if kind == 2 else size)
        place = at
        at += 3 + len((yield 1 if kind == 1 else size))
    yield flags & 4
    return _Frame(window, stated, start, place, at, budget.used - begun)


def _block(kind: int, size: int, last: int = 0) -> bytes:
    """The head of a block: kind 0 is bytes as they are, kind 1 is one byte, ``size`` times."""
    return (size << 3 | kind << 1 | last).to_bytes(3, "little")


def _window(size: int) -> tuple[int, int]:
    """The smallest window of at least ``size`` bytes: as a frame says it (RFC 8878, 3.1.1.1.2), and in bytes."""
    for code in range(256):
        base = 1 << 10 + (code >> 3)
        if (bytes_ := base + base // 8 * (code & 7)) >= size:
            return code, bytes_
    raise BrokenPackageError("conda-invalid", "one half of it is damaged: it refers back without end")


# The tars within


def _wrap(file: BinaryIO, members: list[_Member], path: Path, marker: bytes) -> None:
    """Write a ``.conda`` whose halves are tars of one file each, named after its part: the tar within.

    That file has room for all that the blocks unpack to, then for ``marker``, which stands where they end
    and which nobody could know who made the package; zeros fill the rest.  Blocks that hold more than their
    frame says would go on to be a tar for rattler, which lets nothing out of its folder: see :func:`_end`.
    """
    with zipfile.ZipFile(path, "w") as archive:
        for part, member in zip(PARTS, members, strict=True):
            frame = member.frame
            code, window = _window(frame.window)
            head = tarfile.TarInfo(part)
            head.size = frame.room + len(marker)
            zeros = 4 * _HEADER + (frame.room if frame.stated is None else 0)
            largest = min(window, _BLOCK)
            with archive.open(f"{part}-x.tar.zst", "w", force_zip64=frame.end > 1 << 31) as out:
                out.write(_MAGIC + bytes([0, code]) + _block(0, _HEADER) + head.tobuf(tarfile.GNU_FORMAT))
                _copy(file, out, member.begin + frame.start, frame.last - frame.start)
                # It is no longer the last one; the check sum that may follow it is left out.
                out.write(bytes([file.read(1)[0] & 0xFE]))
                _copy(file, out, member.begin + frame.last + 1, frame.end - frame.last - 1)
                out.write(_block(0, len(marker)) + marker)
                out.write(
                    (_block(1, largest) + b"\0") * (zeros // largest) + _block(1, zeros % largest, 1) + b"\0"
                )


def _copy(file: BinaryIO, out: IO[bytes], begin: int, size: int) -> None:
    file.seek(begin)
    while size and (chunk := file.read(min(size, CHUNK))):
        out.write(chunk)
        size -= len(chunk)


def _unpacked(place: Path, *, large: bool) -> dict[str, bytes]:
    """The tars in ``wrapped.conda``, by their parts; those that are ``large`` go to ``out/`` instead."""
    from rattler import Client
    from rattler.package_streaming import PackageArchive, download_and_extract

    wrapped = place / "wrapped.conda"
    held: dict[str, bytes] = {}

    async def work() -> None:
        if large:
            # Its plain extract() keeps the interpreter lock, and all other threads waiting.
            await download_and_extract(Client(), wrapped.as_uri(), place / "out")
        else:
            read = await (await PackageArchive.from_path(wrapped)).read_files(PARTS)
            held.update({part: data or b"" for part, data in read.items()})

    with _told():
        engine.run(work())
    return held


def listed(file: BinaryIO, part: str) -> list[str]:
    """The files and links that rattler reads in one half of a ``.conda``; raises :class:`BrokenPackageError`."""
    from rattler.package_streaming import PackageArchive

    async def work() -> list[str]:
        names = await (await PackageArchive.from_path(path)).list_files("info" if part == "info" else "pkg")
        return list(names)

    with tempfile.TemporaryDirectory(prefix="haversack-package-") as folder:
        path = _sighted(file, Path(folder) / "package.conda")
        with _told():
            return engine.run(work())


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Rattler's errors and panics as ours."""
    try:
        with engine.guarded("reading it"):
            yield
    except OSError as error:
        raise BrokenPackageError("conda-invalid", f"it is damaged: {error}") from error
    except ToolError as error:
        raise BrokenPackageError("conda-invalid", f"it is damaged: {error.message}") from error


def _end(tar: BinaryIO, frame: _Frame, marker: bytes) -> int:
    """Where the tar ends in the file that it came out as: at the marker, which only zeros follow."""
    at, rest = tar.seek(0, io.SEEK_END), b""
    while at and not rest:
        begin = max(at - _BLOCK, 0)
        tar.seek(begin)
        rest, at = tar.read(at - begin), begin
        # Many times as fast as to strip them off.
        rest = b"" if rest == bytes(len(rest)) else rest.rstrip(b"\0")
    end = at + len(rest) - len(marker)
    tar.seek(max(end, 0))
    if tar.read(len(marker)) != marker or frame.stated not in {None, end}:
        raise BrokenPackageError("conda-invalid", "it is damaged: one half of it is not as large as it says")
    return end


def _expect_room(place: Path, size: int) -> None:
    if (free := shutil.disk_usage(place).free) < size:
        raise SpaceError(
            f"{size} bytes are needed to look into a package, and {free} are free",
            where=str(place.parent),
            remedy="free some space, or set TMPDIR to a folder that has it",
        )


def _sighted(file: BinaryIO, path: Path) -> Path:
    """``path``, with the suffix by which rattler knows the format, as a way to the very file that is open."""
    name = getattr(file, "name", None)
    if isinstance(name, str):
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(file.fileno()), os.stat(name)):
                path.symlink_to(Path(name).absolute())
                return path
    file.seek(0)
    with path.open("wb") as copy:
        shutil.copyfileobj(file, copy, CHUNK)
    return path
