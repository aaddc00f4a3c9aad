"""What an examination of a bundle knows so far, and the checks that folders and streams share."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from haversack.errors import HaversackError, IntegrityError
from haversack.formats import bundle as layout
from haversack.model.artifact import Digest, digest_of, hex_of
from haversack.model.bundle import Bundle, Piece
from haversack.model.finding import Finding
from haversack.model.snapshot import Snapshot
from haversack.ports import Member

RESEND = "have it sent again: haversack verify --resend FILE, then haversack pack --resend FILE outside"
# What a manifest may weigh: a site of a hundred thousand artifacts has one of 20 MB.
MANIFEST_LIMIT = 1 << 28


class Take(Protocol):
    """Who gets a blob: reads all chunks and raises ``IntegrityError`` if they are not the digest's."""

    def __call__(self, digest: Digest, chunks: Iterable[bytes], *, linkable: Path | None = None) -> object:
        """Take one blob."""
        ...


@dataclass(slots=True)
class Examination:
    """What was found.  ``bundle`` is ``None`` when no manifest could be read; ``resend`` lists pieces to send again."""

    id: Digest = ""
    manifest: bytes = b""
    bundle: Bundle | None = None
    snapshot: Snapshot | None = None
    findings: list[Finding] = field(default_factory=list)
    resend: set[str] = field(default_factory=set)
    good: set[Digest] = field(default_factory=set)
    metadata: dict[Digest, bytes] = field(default_factory=dict)

    def blame(
        self, code: str, subject: str, message: str, *, remedy: str = RESEND, blocking: bool = True
    ) -> None:
        """Add a finding."""
        self.findings.append(Finding(code, subject, message, remedy, blocking))


def only_hash(digest: Digest, chunks: Iterable[bytes], *, linkable: Path | None = None) -> None:
    """The taker that keeps nothing."""
    state = hashlib.sha256()
    for chunk in chunks:
        state.update(chunk)
    if state.hexdigest() != hex_of(digest):
        raise IntegrityError("is not what its name says")


def adopt(exam: Examination, data: bytes, where: str, admit: Callable[[Examination], None]) -> Bundle:
    """Make ``data`` the manifest of this examination."""
    bundle, warning = layout.read(data, where)
    exam.id, exam.manifest, exam.bundle = digest_of(data), data, bundle
    if warning:
        exam.blame(
            "format-newer-minor", where, warning, remedy="update haversack when you can", blocking=False
        )
    admit(exam)
    return bundle


def small_fault(where: str, member: Member, digest: Digest) -> Finding | None:
    """What is wrong with a small file, held against the manifest."""
    code = "manifest-damaged" if member.path == layout.MANIFEST else "file-damaged"
    try:
        only_hash(digest, pour([member], lambda _: None))
    except IntegrityError as problem:
        said = problem.message if problem.where == where else "differs from what the manifest says"
        return Finding(code, where, said, RESEND)
    return None


def sums_fault(
    place: str, member: Member, present: Collection[str], expected: Mapping[str, tuple[Digest, int]]
) -> Finding | None:
    """What is wrong with a ``SHA256SUMS``: it must name every file that is there, as the manifest does."""
    where = f"{place}/{layout.SUMS}"
    try:
        told = layout.read_sums(whole(member))
    except IntegrityError as problem:
        return Finding("file-damaged", where, str(problem), RESEND)
    wrong = sorted(path for path, digest in told.items() if expected.get(path, ("",))[0] != digest)
    unnamed = sorted((expected.keys() & set(present)) - told.keys())
    if wrong == [layout.MANIFEST]:
        said = f"does not agree with {layout.MANIFEST}: one of the two was changed"
        return Finding("file-damaged", where, said, "copy the volume again from its source")
    if wrong:
        said = f"says other things than the manifest of {', '.join(wrong[:3])}"
        return Finding("file-damaged", where, said, RESEND)
    if unnamed:
        return Finding("file-damaged", where, f"does not name {', '.join(unnamed[:3])}", RESEND)
    return None


def reason(problem: Exception, where: str) -> str:
    """Why a blob could not be taken; an error that names ``where`` itself knows best."""
    if isinstance(problem, HaversackError):
        return problem.message if problem.where == where else "is not what its name says"
    return f"cannot be read: {problem}"


def pour(members: list[Member], advance: Callable[[int], None]) -> Iterator[bytes]:
    """The bytes of some members one after the other.

    A medium that cannot be read is not the fault of the store that reads from it: it raises
    ``IntegrityError`` naming the member.
    """
    for member in members:
        try:
            for chunk in member.chunks():
                advance(len(chunk))
                yield chunk
        except OSError as problem:
            where = f"{member.place}/{member.path}"
            raise IntegrityError(f"cannot be read: {problem.strerror or problem}", where=where) from problem


def poured(piece: Piece, member: Member, advance: Callable[[int], None]) -> Iterator[bytes]:
    """A member's bytes, held against its piece where that is not the blob, which whoever takes it hashes."""
    state = hashlib.sha256()
    for chunk in pour([member], advance):
        if not piece.whole:
            state.update(chunk)
        yield chunk
    if not piece.whole and state.hexdigest() != hex_of(piece.digest):
        where = f"{member.place}/{member.path}"
        raise IntegrityError("differs from what the manifest says", where=where)


def whole(member: Member) -> bytes:
    """All bytes of a small member.  Raises ``IntegrityError`` for one that cannot be read or is not small."""
    if member.size > MANIFEST_LIMIT:
        raise IntegrityError(f"has {member.size} bytes, too many", where=f"{member.place}/{member.path}")
    return b"".join(pour([member], lambda _: None))
