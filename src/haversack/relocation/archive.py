"""Pack a folder that was looked at into one file, and read such a file as strangers may have made it."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, BinaryIO

from haversack.errors import FormatError, IntegrityError, PrefixError
from haversack.model.artifact import Digest
from haversack.model.finding import Finding
from haversack.relocation import manifest as manifests
from haversack.relocation import tape
from haversack.relocation.scan import Scan, date_of, scan
from haversack.relocation.tape import CHUNK, END, Member

INVALID = "prefix-invalid"
"""The code of a finding about an archive that is none, or contradicts itself."""
_REMEDY = "lock and pack the environment again"
_QUIET = "stop what writes there, and lock again"
# The first round finds all that differs from its package, unless somebody writes there.
_ROUNDS = 3
# So many batches of up to a chunk are read ahead: some ten MiB.
_AHEAD = 6
_MOST = 256
_READ = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


@dataclass(frozen=True, slots=True)
class Written:
    """An archive that was written: what it holds, its digest and its size in bytes."""

    scan: Scan
    digest: Digest
    size: int


def _silently(_: int) -> None:
    """Say nothing of how far it is."""


def write(scanned: Scan, file: BinaryIO, advance: Callable[[int], None] = _silently) -> Written:
    """Write a folder that was scanned into a new file; the same folder gives the same bytes.

    Files that the scan believed are compared with their digests here, where they are read anyway; if one is
    another file, the folder is scanned and written again without that belief.  Raises ``PrefixError`` when the
    folder changes meanwhile.
    """
    doubted: list[str] = []
    for _ in range(_ROUNDS):
        known = len(doubted)
        state, size = hashlib.sha256(), 0
        for chunk in _packed(scanned, doubted):
            state.update(chunk)
            # A file without a buffer takes what there is room for.
            done = file.write(chunk)
            while done < len(chunk):
                done += file.write(chunk[done:])
            size += len(chunk)
            advance(len(chunk))
        if len(doubted) == known:
            return Written(scanned, f"sha256:{state.hexdigest()}", size)
        advance = _silently
        file.seek(0)
        file.truncate()
        scanned = scan(scanned.root, known_as=scanned.manifest.old, doubted=frozenset(doubted))
    raise PrefixError("changes while it is packed", where=str(scanned.root), remedy=_QUIET)


def _packed(scanned: Scan, doubted: list[str]) -> Iterator[bytes | memoryview]:
    """The bytes of a packed folder; files are read ahead by threads, into buffers that are used again."""
    data = manifests.write(scanned.manifest)
    yield tape.manifest_header(len(data)) + data + tape.padding(len(data))
    top = os.fspath(scanned.root)
    spare: SimpleQueue[bytearray] = SimpleQueue()

    def together(batch: list[Member]) -> tuple[bytearray, int]:
        try:
            buffer = spare.get_nowait()
        except Empty:
            buffer = bytearray()
        return _fill(top, batch, buffer, scanned.believed, doubted)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        ahead: deque[Future[tuple[bytearray, int]] | Member] = deque()
        for batch in [*_batches(scanned.members), []]:
            if batch:
                ahead.append(batch[0] if batch[0].size > CHUNK else pool.submit(together, batch))
            while ahead and (len(ahead) > _AHEAD or not batch):
                part = ahead.popleft()
                if isinstance(part, Member):
                    yield from _stream(top, part, scanned.believed, doubted)
                    continue
                buffer, end = part.result()
                with memoryview(buffer) as view:
                    yield view[:end]
                spare.put(buffer)
    yield END


def _batches(members: Iterable[Member]) -> Iterator[list[Member]]:
    """Members in turn, as many together as make up a chunk; a file larger than that alone."""
    batch: list[Member] = []
    size = 0
    for member in members:
        if batch and (size + member.size > CHUNK or len(batch) == _MOST):
            yield batch
            batch, size = [], 0
        batch.append(member)
        size += member.size
    if batch:
        yield batch


def _fill(
    top: str, batch: list[Member], buffer: bytearray, believed: Mapping[str, str], doubted: list[str]
) -> tuple[bytearray, int]:
    """Some members one after the other in a buffer, and where they end."""
    heads = [tape.header(member) for member in batch]
    need = sum(map(len, heads)) + sum(member.size + len(tape.padding(member.size)) for member in batch)
    if len(buffer) < need:
        buffer = bytearray(max(need, CHUNK + _MOST * 1024))
    at = 0
    with memoryview(buffer) as view:
        for member, head in zip(batch, heads, strict=True):
            view[at : at + len(head)] = head
            at += len(head)
            if not member.size:
                continue
            with _opened(top, member) as descriptor, view[at : at + member.size] as body:
                left = body
                while left and (count := os.readv(descriptor, [left])):
                    left = left[count:]
                _settled(top, member, descriptor, len(left))
                digest = believed.get(member.path)
                if digest is not None and hashlib.sha256(body).hexdigest() != digest:
                    doubted.append(member.path)
                left.release()
            at += member.size
            rest = tape.padding(member.size)
            view[at : at + len(rest)] = rest
            at += len(rest)
    return buffer, at


def _stream(top: str, member: Member, believed: Mapping[str, str], doubted: list[str]) -> Iterator[bytes]:
    """A large file, a chunk at a time."""
    yield tape.header(member)
    state, left = hashlib.sha256(), member.size
    digest = believed.get(member.path)
    with _opened(top, member) as descriptor:
        while left and (chunk := os.read(descriptor, min(left, CHUNK))):
            left -= len(chunk)
            if digest is not None:
                state.update(chunk)
            yield chunk
        _settled(top, member, descriptor, left)
    if digest is not None and state.hexdigest() != digest:
        doubted.append(member.path)
    yield tape.padding(member.size)


@contextmanager
def _opened(top: str, member: Member) -> Iterator[int]:
    place = f"{top}/{member.path}"
    try:
        descriptor = os.open(place, _READ)
        try:
            yield descriptor
        finally:
            os.close(descriptor)
    except OSError as problem:
        raise PrefixError(f"cannot be read any more: {problem.strerror}", where=place) from problem


def _settled(top: str, member: Member, descriptor: int, left: int) -> None:
    """Raise ``PrefixError`` if an open file is no more the one that was looked at."""
    status = os.fstat(descriptor)
    if left or status.st_size != member.size or date_of(status) != member.mtime:
        raise PrefixError(
            "changed while it was packed",
            where=f"{top}/{member.path}",
            remedy=_QUIET,
        )


def inspect(file: BinaryIO) -> tuple[dict[str, Any], list[Finding]]:
    """Read a packed folder once, strictly: facts of it, and what is wrong.

    The facts are ``flavour``, ``python`` (of a virtual environment), ``prefixes`` (the paths it had), ``room``
    (the length in bytes of the longest path it can be put at, absent where any will do), ``files`` (their
    number) and ``unpacked`` (bytes).  It is not compressed and cannot be larger inside than it is.
    """
    files = size = 0
    names: set[str] = set()
    try:
        data, entries = tape.read(file)
        manifest = manifests.read(data)
        for entry in entries:
            if entry.member.kind == "file":
                names.add(entry.member.path)
                files += 1
                size += entry.member.size
    except (IntegrityError, FormatError) as problem:
        code = "format-newer" if isinstance(problem, FormatError) else INVALID
        return {}, [Finding(code, tape.MANIFEST, str(problem), problem.remedy or _REMEDY)]
    lost = [o.path for o in manifest.occurrences if o.path not in names]
    if lost:
        return {}, [Finding(INVALID, tape.MANIFEST, f"names {lost[0]!a}, which is no file of it", _REMEDY)]
    facts: dict[str, Any] = {
        "flavour": manifest.flavour,
        "prefixes": list(manifest.old),
        "files": files,
        "unpacked": size,
    }
    if manifest.python is not None:
        facts["python"] = manifest.python
    if manifest.room is not None:
        facts["room"] = manifest.room
    return facts, []
