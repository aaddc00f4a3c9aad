"""Bundles on media: folders to read and write, and one tar stream for a one-way link."""

from __future__ import annotations

import io
import os
import shutil
import stat
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO

from haversack.errors import NotFoundError, SpaceError, UsageError
from haversack.formats.bundle import MANIFEST, SUMS
from haversack.ports import Member
from haversack.ports.disk import read_chunks
from haversack.ports.durable import explained, sync_filesystem, sync_folder

_CHUNK = 1 << 20


class Folders:
    """Volumes in folders: each path is a volume, or a folder of volumes."""

    streamed = False

    def __init__(self, paths: Sequence[Path]) -> None:
        self._places: list[Path] = []
        for path in paths:
            if not path.is_dir():
                raise NotFoundError(
                    "is not a folder", where=str(path), remedy="give the folder of the bundle or of a volume"
                )
            if (path / MANIFEST).exists() or (path / SUMS).exists():
                self._places.append(path)
            else:
                self._places += sorted(
                    p for p in path.iterdir() if p.is_dir() and not p.is_symlink() and not _partial(p)
                )
        if not self._places:
            raise NotFoundError("holds no volume of a bundle", where=", ".join(map(str, paths)))

    def members(self) -> Iterator[Member]:
        """See :class:`haversack.ports.Media`."""
        for place in self._places:
            yield from _walk(place, place)


def _partial(path: Path) -> bool:
    return path.name.startswith(".")


def _walk(place: Path, folder: Path) -> Iterator[Member]:
    with os.scandir(folder) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        path = Path(entry.path)
        name = path.relative_to(place).as_posix()
        status = entry.stat(follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            yield from _walk(place, path)
        elif stat.S_ISREG(status.st_mode):
            yield Member(str(place), name, status.st_size, partial(read_chunks, path), path)
        else:
            kind = "a symbolic link" if stat.S_ISLNK(status.st_mode) else "neither a file nor a folder"
            yield Member(str(place), name, 0, lambda: iter(()), None, f"is {kind}")


class TarStream:
    """A bundle as one uncompressed tar, read once from front to back."""

    streamed = True

    def __init__(self, file: BinaryIO, name: str = "stdin") -> None:
        self._file = file
        self._name = name

    def members(self) -> Iterator[Member]:
        """See :class:`haversack.ports.Media`."""
        try:
            with tarfile.open(fileobj=self._file, mode="r|", errorlevel=1) as tar:
                for info in tar:
                    if not info.isdir():
                        yield self._member(tar, info)
                    # tarfile keeps every member it met; a stream of a hundred thousand must not grow with them.
                    tar.members.clear()  # type: ignore[attr-defined]
        except (tarfile.TarError, EOFError, OSError) as problem:
            yield Member(
                self._name, "", 0, lambda: iter(()), None, f"the stream breaks off or is no tar: {problem}"
            )
        # Whoever writes into the pipe must not die of our not reading on.
        while self._file.read(_CHUNK):
            pass

    def _member(self, tar: tarfile.TarFile, info: tarfile.TarInfo) -> Member:
        volume, _, path = info.name.partition("/")
        parts = info.name.split("/")
        problem = ""
        if not info.isreg():
            problem = "is neither a file nor a folder" if not (info.issym() or info.islnk()) else "is a link"
        elif info.name.startswith("/") or ".." in parts or "" in parts or not path or "\\" in info.name:
            problem = "leaves its folder"

        def chunks() -> Iterator[bytes]:
            file = tar.extractfile(info)
            assert file is not None
            try:
                while chunk := file.read(_CHUNK):
                    yield chunk
            except tarfile.TarError as broken:
                raise OSError(f"the stream breaks off: {broken}") from broken

        return Member(volume, path or info.name, info.size, chunks, None, problem)


class FolderWriter:
    """Writes ``OUT/volume-001/…``; the volumes get their names only when all is written and durable."""

    def __init__(self, out: Path) -> None:
        if out.exists() and (not out.is_dir() or any(not _partial(p) for p in out.iterdir())):
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
