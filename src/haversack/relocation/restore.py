"""Put a packed folder where it is to be: every file as it must be there, written to disk or compared with it.

The digests in conda's records (``sha256_in_prefix``, or ``sha256`` of what an installer wrote) are those of the
rewritten files afterwards, so that whoever compares files and records finds that they agree.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from haversack.errors import IntegrityError, ToolError
from haversack.formats.prefixes import META
from haversack.relocation import manifest as manifests
from haversack.relocation import tape
from haversack.relocation.manifest import Manifest
from haversack.relocation.spelling import Move, Occurrence, rewritten
from haversack.relocation.tape import CHUNK, Entry, Member

CONFIG = "pyvenv.cfg"
_AHEAD = 8
_BATCH = 64
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
_DIGEST = re.compile(rb'("sha256(?:_in_prefix)?"\s*:\s*")([0-9a-f]{64})(?=")')


@dataclass(frozen=True, slots=True)
class Placed:
    """A packed folder opened for one place: its manifest and its members as they must be there.

    ``links`` are the interpreter of a virtual environment, which is not in the archive.
    """

    manifest: Manifest
    entries: Iterator[Entry]
    links: tuple[Member, ...]


def placed(blob: BinaryIO, home: Path, python: Path | None) -> Placed:
    """Open a packed folder for ``home``, an absolute path; ``python`` is what a virtual environment borrows.

    The entries are read in turn and once; their end is that of ``blob``, where a reader of the store compares
    the digest.  Raises ``IntegrityError`` (the iterator as well), and ``PrefixError`` before anything is read
    where the path does not fit.
    """
    data, entries = tape.read(blob)
    manifest = manifests.read(data)
    move = manifest.move(os.fspath(home))
    links: tuple[Member, ...] = ()
    if manifest.python is not None:
        if python is None:
            raise ToolError(
                f"a Python {manifest.python} is needed, which the environment borrows", where=str(home)
            )
        links = interpreter_links(manifest.python, python)
    return Placed(manifest, _moved(entries, manifest, move, python), links)


def interpreter_links(minor: str, python: Path) -> tuple[Member, ...]:
    """The names of the interpreter in a virtual environment (PEP 405), as links."""
    first = Member("bin/python", "symlink", 0o777, target=os.fspath(python))
    others = [Member(f"bin/python{end}", "symlink", 0o777, target="python") for end in ("3", minor)]
    return (first, *others)


def _moved(entries: Iterator[Entry], manifest: Manifest, move: Move, python: Path | None) -> Iterator[Entry]:
    """Every member as it is after the move; the records of conda last, since they name digests of the others."""
    known = {occurrence.path: occurrence for occurrence in manifest.occurrences}
    digests: dict[bytes, bytes] = {}
    held: list[Entry] = []
    conda = manifest.flavour == "conda"
    for entry in entries:
        path = entry.member.path
        occurrence = known.pop(path, None)
        if occurrence is not None:
            if entry.member.kind != "file":
                raise IntegrityError(f"{path!a} is no file, and {tape.MANIFEST} says how to rewrite it")
            chunks = _rewritten(entry, occurrence, move)
            if conda:
                chunks = _hashed(entry.chunks, occurrence, move, digests)
            small = entry.member.size <= CHUNK
            entry = Entry(entry.member, (b"".join(chunks),) if small else chunks)
        if python is not None and path == CONFIG:
            entry = Entry(entry.member, (_configured(b"".join(entry.chunks), python),))
        if conda and posixpath.dirname(path) == META and path.endswith(".json"):
            held.append(Entry(entry.member, (b"".join(entry.chunks),)))
        else:
            yield entry
    if known:
        raise IntegrityError(f"{tape.MANIFEST} names {min(known)!a}, which is no file of it")
    for entry in held:
        yield Entry(entry.member, tuple(_with_digests(chunk, digests) for chunk in entry.chunks))


def _rewritten(entry: Entry, occurrence: Occurrence, move: Move) -> Iterator[bytes]:
    try:
        yield from rewritten(entry.chunks, occurrence, move)
    except ValueError as problem:
        # The manifest said that there is room.
        raise IntegrityError(f"{tape.MANIFEST} contradicts the files: {problem}") from problem


def _hashed(
    chunks: Iterable[bytes], occurrence: Occurrence, move: Move, digests: dict[bytes, bytes]
) -> Iterator[bytes]:
    """The rewritten bytes; at their end ``digests`` knows by what SHA-256 (hex) they replace which."""
    before, after = hashlib.sha256(), hashlib.sha256()

    def read() -> Iterator[bytes]:
        for chunk in chunks:
            before.update(chunk)
            yield chunk

    for chunk in _rewritten(Entry(Member(occurrence.path, "file", 0), read()), occurrence, move):
        after.update(chunk)
        yield chunk
    digests[before.hexdigest().encode()] = after.hexdigest().encode()


def _with_digests(record: bytes, digests: dict[bytes, bytes]) -> bytes:
    """A record of conda whose files have the digests that they have now; all else stays as conda wrote it."""
    return _DIGEST.sub(lambda match: match[1] + digests.get(match[2], match[2]), record)


def _configured(config: bytes, python: Path) -> bytes:
    """``pyvenv.cfg`` for another interpreter; keys of ``venv``, ``virtualenv`` and ``uv`` that name one."""
    real = Path(os.path.realpath(python))
    base = os.fspath(real.parent.parent)
    told = {
        b"home": os.fspath(python.parent),
        b"executable": os.fspath(real),
        b"base-executable": os.fspath(python),
        b"base-prefix": base,
        b"base-exec-prefix": base,
    }
    lines = []
    for line in config.splitlines():
        key = line.partition(b"=")[0].strip().lower()
        lines.append(b"%b = %b" % (key, os.fsencode(told[key])) if key in told else line)
    return b"\n".join(lines) + b"\n"


def restore(
    blob: BinaryIO,
    folder: Path,
    home: Path,
    python: Path | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> Manifest:
    """Write a packed folder into ``folder``, which does not exist, as it must be at ``home``.

    Files are written by threads, with memory for a few mebibytes of them.  Raises what :func:`placed` raises,
    and leaves what it wrote to whoever called.
    """
    told = placed(blob, home, python)
    top = os.fspath(folder)
    modes: list[Member] = []
    twins: list[Member] = []
    pending: deque[Future[None]] = deque()
    batch: list[tuple[Member, bytes]] = []
    size = granted = 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:

        def hand_over() -> None:
            nonlocal batch, size
            pending.append(pool.submit(_write_all, top, batch, granted))
            advance(size)
            batch, size = [], 0
            while len(pending) > _AHEAD:
                pending.popleft().result()

        for member, chunks in told.entries:
            if member.kind == "file" and isinstance(chunks, tuple):
                data = chunks[0] if chunks else b""
                batch.append((member, data))
                size += len(data)
                if len(batch) == _BATCH or size > CHUNK:
                    hand_over()
            elif member.kind == "file":
                _write(top, member, chunks, granted)
                advance(member.size)
            elif member.kind == "folder":
                os.mkdir(f"{top}/{member.path}")  # noqa: PTH102
                # What the system lets a new file have: the first folder tells.
                granted = granted if modes else os.stat(top).st_mode
                modes.append(member)
            elif member.kind == "symlink":
                os.symlink(member.target, f"{top}/{member.path}")  # noqa: PTH211
            else:
                twins.append(member)
        if batch:
            hand_over()
        for future in pending:
            future.result()
    for member in twins:
        os.link(f"{top}/{member.target}", f"{top}/{member.path}")
    for member in told.links:
        (folder / "bin").mkdir(exist_ok=True)
        (folder / member.path).symlink_to(member.target)
    for member in reversed(modes):
        os.chmod(f"{top}/{member.path}", member.mode)  # noqa: PTH101
    return told.manifest


def _write_all(top: str, batch: list[tuple[Member, bytes]], granted: int) -> None:
    for member, data in batch:
        _write(top, member, (data,), granted)


def _write(top: str, member: Member, chunks: Iterable[bytes], granted: int) -> None:
    """Write a new file with its permissions and its date, which bytecode is compared with."""
    descriptor = os.open(f"{top}/{member.path}", _NEW, member.mode)
    try:
        for chunk in chunks:
            done = os.write(descriptor, chunk) if chunk else 0
            while done < len(chunk):
                done += os.write(descriptor, memoryview(chunk)[done:])
        if member.mode & ~granted:
            os.fchmod(descriptor, member.mode)
        os.utime(descriptor, ns=(member.mtime * 10**9, member.mtime * 10**9))
    finally:
        os.close(descriptor)
