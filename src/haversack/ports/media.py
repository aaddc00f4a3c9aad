"""Bundles on media: folders to read and write, and one tar stream for a one-way link."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import stat
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO

from haversack.errors import NotFoundError, SpaceError, UsageError
from haversack.formats import tar
from haversack.formats.bundle import LABEL, MANIFEST, SUMS
from haversack.ports import Member
from haversack.ports.disk import read_chunks
from haversack.ports.durable import explained, sync_filesystem, sync_folder

_CHUNK = 1 << 20


class Folders:
    """Volumes in folders: each path is a volume, or a folder of volumes."""

    streamed = False

    def __init__(self, paths: Sequence[Path]) -> None:
        self._places: list[Path] = []
        self._beside: list[tuple[Path, Path]] = []
        for path in paths:
            with explained(path, "reading the medium", NotFoundError):
                self._look(path)
        if not self._places:
            raise NotFoundError(
                "holds no volume of a bundle",
                where=", ".join(map(str, paths)),
                remedy="give the folder of the bundle or of a volume",
            )

    def _look(self, path: Path) -> None:
        if not path.is_dir():
            raise NotFoundError(
                "is not a folder", where=str(path), remedy="give the folder of the bundle or of a volume"
            )
        if any((path / name).exists() for name in (MANIFEST, SUMS, LABEL)):
            self._places.append(path)
            return
        for inner in sorted(path.iterdir()):
            if inner.is_dir() and not inner.is_symlink() and not _partial(inner):
                self._places.append(inner)
            else:
                self._beside.append((path, inner))

    def members(self) -> Iterator[Member]:
        """See :class:`haversack.ports.Media`."""
        for place, path in self._beside:
            yield _found(place, path)
        for place in self._places:
            yield from _walk(place, place)


def _partial(path: Path) -> bool:
    """Whether a folder is one that :class:`FolderWriter` has not finished."""
    return path.name.startswith(".") and path.name.endswith(".partial")


def _walk(place: Path, folder: Path) -> Iterator[Member]:
    try:
        found = sorted(folder.iterdir())
    except OSError as problem:
        said = f"cannot be read: {problem.strerror}"
        yield Member(str(place), _name(place, folder), 0, lambda: iter(()), None, said)
        return
    for path in found:
        if path.is_dir() and not path.is_symlink():
            yield from _walk(place, path)
        else:
            yield _found(place, path)


def _found(place: Path, path: Path) -> Member:
    """A path that is no folder to look into, as a member."""
    problem = ""
    try:
        status = path.lstat()
    except OSError as broken:
        problem = f"cannot be read: {broken.strerror}"
    else:
        if stat.S_ISREG(status.st_mode):
            return Member(str(place), _name(place, path), status.st_size, partial(read_chunks, path), path)
        if stat.S_ISLNK(status.st_mode):
            problem = "is a symbolic link"
        elif stat.S_ISDIR(status.st_mode):
            problem = "was left by a pack that did not end"
        else:
            problem = "is neither a file nor a folder"
    return Member(str(place), _name(place, path), 0, lambda: iter(()), None, problem)


def _name(place: Path, path: Path) -> str:
    """A path within its volume; bytes that are no text become U+FFFD, which no manifest names."""
    return os.fsencode(path.relative_to(place).as_posix()).decode(errors="replace")


class TarStream:
    """A bundle as one uncompressed tar, read once from front to back."""

    streamed = True

    def __init__(self, file: BinaryIO, name: str = "stdin") -> None:
        self._file = file
        self._name = name

    def members(self) -> Iterator[Member]:
        """See :class:`haversack.ports.Media`."""
        try:
            for entry in tar.entries(self._file):
                if entry.kind != "folder":
                    yield _member(entry)
        except (tar.BrokenTarError, OSError) as problem:
            said = f"the stream breaks off or is no tar: {problem}"
            yield Member(self._name, "", 0, lambda: iter(()), None, said)
        # Whoever writes into the pipe must not die of our not reading on.
        with contextlib.suppress(OSError):
            while self._file.read(_CHUNK):
                pass


def _member(entry: tar.Entry) -> Member:
    volume, _, path = entry.name.partition("/")
    problem = ""
    if entry.kind != "file":
        problem = "is a link" if entry.kind == "link" else "is neither a file nor a folder"
    elif not path or {"", ".", ".."} & set(entry.name.split("/")) or "\\" in entry.name:
        problem = "leaves its folder"

    def chunks() -> Iterator[bytes]:
        try:
            yield from entry.chunks()
        except tar.BrokenTarError as problem:
            raise OSError(f"the stream breaks off: {problem}") from problem

    return Member(volume, path or entry.name, entry.size, chunks, None, problem)


def _leftover(path: Path) -> bool:
    """Whether a folder is what a killed pack left behind, and nothing else that may be somebody's."""
    return re.fullmatch(r"\.volume-\d{3,}\.partial", path.name) is not None and path.is_dir()


class FolderWriter:
    """Writes ``OUT/volume-001/…``; the volumes get their names only when all is written and durable."""

    def __init__(self, out: Path) -> None:
        if out.exists() and (not out.is_dir() or not all(map(_leftover, out.iterdir()))):
            raise UsageError(
                "is not an empty folder", where=str(out), remedy="give a folder that does not exist yet"
            )
        self.out = out
        self._made: set[Path] = set()
        with explained(out, "making the bundle's folder", UsageError):
            out.mkdir(parents=True, exist_ok=True)
            for leftover in out.iterdir():
                shutil.rmtree(leftover)

    def free(self) -> int | None:
        """See :class:`haversack.ports.MediaWriter`."""
        return shutil.disk_usage(self.out).free

    def write(self, volume: str, path: str, size: int, chunks: Iterable[bytes]) -> None:
        """See :class:`haversack.ports.MediaWriter`."""
        place = self.out / f".{volume}.partial" / path
        with explained(place, "writing the bundle", UsageError):
            if place.parent not in self._made:
                place.parent.mkdir(parents=True, exist_ok=True)
                self._made.add(place.parent)
            with place.open("xb", buffering=0) as file:
                for chunk in chunks:
                    rest = memoryview(chunk)
                    while rest:
                        rest = rest[file.write(rest) :]
            # A store may share the file by hard link: nobody should write into it by mistake.
            place.chmod(0o444)

    def finish(self) -> None:
        """See :class:`haversack.ports.MediaWriter`."""
        with explained(self.out, "finishing the bundle", UsageError):
            sync_filesystem(self.out)
            for partial_folder in sorted(self.out.iterdir()):
                partial_folder.rename(
                    self.out / partial_folder.name.removeprefix(".").removesuffix(".partial")
                )
            sync_folder(self.out)


class TarWriter:
    """Writes a bundle as one uncompressed tar, manifest first."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._tar = tarfile.open(fileobj=file, mode="w|", format=tarfile.PAX_FORMAT)  # noqa: SIM115 - closed by finish

    def free(self) -> int | None:
        """See :class:`haversack.ports.MediaWriter`."""
        return None

    def write(self, volume: str, path: str, size: int, chunks: Iterable[bytes]) -> None:
        """See :class:`haversack.ports.MediaWriter`."""
        info = tarfile.TarInfo(f"{volume}/{path}")
        info.size, info.mode = size, 0o644
        with explained(Path("stdout"), "writing the stream", SpaceError):
            self._tar.addfile(info, _Joined(chunks))
            self._tar.members.clear()  # type: ignore[attr-defined]

    def finish(self) -> None:
        """See :class:`haversack.ports.MediaWriter`."""
        with explained(Path("stdout"), "writing the stream", SpaceError):
            self._tar.close()
            self._file.flush()


class _Joined(io.RawIOBase):
    """Chunks as a file, which is what tarfile copies from."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        super().__init__()
        self._chunks = iter(chunks)
        self._rest = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        while not self._rest:
            try:
                self._rest = next(self._chunks)
            except StopIteration:
                return b""
        taken, self._rest = self._rest[:size], self._rest[size:]
        # tarfile takes a short read for the end of the file.
        while len(taken) < size:
            more = next(self._chunks, b"")
            if not more:
                break
            taken, self._rest = taken + more[: size - len(taken)], more[size - len(taken) :]
        return taken
