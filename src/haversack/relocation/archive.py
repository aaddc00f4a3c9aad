"""Pack a folder that was looked at into one file, and read such a file as strangers may have made it."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, BinaryIO

from haversack.errors import FormatError, IntegrityError, PrefixError
from haversack.model.artifact import Digest
from haversack.model.finding import Finding
from haversack.relocation import manifest as manifests
from haversack.relocation import tape
from haversack.relocation.scan import Scan, date_of
from haversack.relocation.tape import CHUNK, END, Member

INVALID = "manifest-damaged"
"""The code of a finding about an archive that is none, or contradicts itself."""
_REMEDY = "lock and pack the environment again"
# So many batches of up to a chunk and a file are read ahead: some ten MiB.
_AHEAD = 6
_READ = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


def write(scan: Scan, file: BinaryIO, advance: Callable[[int], None] = lambda _: None) -> tuple[Digest, int]:
    """Write a folder that was scanned into a file, and return the digest and the size of that.

    The same folder gives the same bytes.  Raises ``PrefixError`` when it changes meanwhile.
    """
    state, size = hashlib.sha256(), 0
    for chunk in packed(scan):
        state.update(chunk)
        file.write(chunk)
        size += len(chunk)
        advance(len(chunk))
    return f"sha256:{state.hexdigest()}", size


def packed(scan: Scan) -> Iterator[bytes]:
    """The bytes of a packed folder; files are read ahead by threads."""
    data = manifests.write(scan.manifest)
    yield tape.manifest_header(len(data)) + data + tape.padding(len(data))
    top = os.fspath(scan.root)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        ahead: deque[Future[bytes] | Iterator[bytes]] = deque()
        for batch in _batches(scan.members):
            large = batch[0].size > CHUNK
            ahead.append(_stream(top, batch[0]) if large else pool.submit(_together, top, batch))
            if len(ahead) > _AHEAD:
                yield from _told(ahead.popleft())
        while ahead:
            yield from _told(ahead.popleft())
    yield END


def _batches(members: Iterable[Member]) -> Iterator[list[Member]]:
    """Members in turn, as many together as make up a chunk; a file larger than that alone."""
    batch: list[Member] = []
    size = 0
    for member in members:
        if batch and (size + member.size > CHUNK or len(batch) == 256):
            yield batch
            batch, size = [], 0
        batch.append(member)
        size += member.size
    if batch:
        yield batch


def _told(part: Future[bytes] | Iterator[bytes]) -> Iterator[bytes]:
    if isinstance(part, Future):
        yield part.result()
    else:
        yield from part


def _together(top: str, batch: list[Member]) -> bytes:
    parts = []
    for member in batch:
        parts.append(tape.header(member))
        if member.size:
            parts += [*_bytes_of(top, member), tape.padding(member.size)]
    return b"".join(parts)


def _stream(top: str, member: Member) -> Iterator[bytes]:
    yield tape.header(member)
    yield from _bytes_of(top, member)
    yield tape.padding(member.size)


def _bytes_of(top: str, member: Member) -> Iterator[bytes]:
    """The bytes of a file, if it is still the one that was looked at."""
    place, left = f"{top}/{member.path}", member.size
    try:
        descriptor = os.open(place, _READ)
        try:
            changed = date_of(os.fstat(descriptor)) != member.mtime
            while left and not changed:
                chunk = os.read(descriptor, min(left, CHUNK))
                if not chunk:
                    break
                left -= len(chunk)
                yield chunk
            changed = changed or bool(left or os.read(descriptor, 1))
        finally:
            os.close(descriptor)
    except OSError as problem:
        raise PrefixError(f"cannot be read any more: {problem.strerror}", where=place) from problem
    if changed:
        raise PrefixError(
            "changed while it was packed", where=place, remedy="stop what writes there, and lock again"
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
