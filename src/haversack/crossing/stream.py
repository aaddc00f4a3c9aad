"""A bundle as one stream: read once, from front to back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from haversack.crossing.examination import (
    MANIFEST_LIMIT,
    Examination,
    Take,
    adopt,
    poured,
    reason,
    small_fault,
    sums_fault,
    whole,
)
from haversack.errors import HaversackError, IntegrityError, StoreError
from haversack.formats import bundle as layout
from haversack.model.artifact import Digest
from haversack.model.bundle import Bundle, Piece
from haversack.ports import Media, Member, Progress

AGAIN = "send the stream again"


def stream(
    media: Media, exam: Examination, take: Take, admit: Callable[[Examination], None], progress: Progress
) -> None:
    """Examine a stream; what was found is in ``exam`` afterwards."""
    members = media.members()
    first = next(members, None)
    if first is None or first.path != layout.MANIFEST or first.problem or first.size > MANIFEST_LIMIT:
        said = first.problem if first and first.problem else "does not begin with the manifest of a bundle"
        exam.blame("manifest-damaged", "stream", said, remedy=AGAIN)
        for _ in members:
            """To its end, so that whoever writes is not cut off."""
        return
    try:
        bundle = adopt(exam, whole(first), f"{first.place}/{first.path}", admit)
    except IntegrityError as problem:
        exam.blame("manifest-damaged", problem.where, problem.message, remedy=AGAIN)
        return
    if first.place != bundle.volumes[0].name:
        exam.blame("path-unsafe", f"{first.place}/{first.path}", "is not in the first volume", remedy=AGAIN)
    Stream(bundle, exam, take, members, progress).run()


class Stream:
    """One pass over a stream whose manifest is known."""

    def __init__(
        self, bundle: Bundle, exam: Examination, take: Take, members: Iterator[Member], progress: Progress
    ) -> None:
        self._bundle, self._exam, self._take = bundle, exam, take
        self._members, self._progress = members, progress
        self._advance: Callable[[int], None] = lambda _: None
        self._held: Member | None = None
        self._expected: dict[str, dict[str, tuple[Digest, int]]] = {}
        self._pieces: dict[str, Piece] = {}
        self._came: dict[str, set[str]] = {volume.name: set() for volume in bundle.volumes}
        for volume in bundle.volumes:
            self._expected[volume.name] = layout.expected(bundle, volume, exam.manifest)
            self._pieces |= {f"{volume.name}/{piece.path}": piece for piece in volume.pieces}
        self._came[bundle.volumes[0].name].add(layout.MANIFEST)

    def run(self) -> None:
        """Take every member in turn; what does not come by the end is missing."""
        sizes = self._bundle.sizes()
        with self._progress("receiving", sum(sizes.values())) as self._advance:
            while (member := self._next()) is not None:
                self._one(member)
        for volume, expected in self._expected.items():
            for path in sorted({*expected, layout.SUMS} - self._came[volume]):
                self._exam.blame("blob-missing", f"{volume}/{path}", "did not come", remedy=AGAIN)
                self._exam.resend.add(f"{volume}/{path}")

    def _next(self) -> Member | None:
        member, self._held = self._held, None
        return member or next(self._members, None)

    def _one(self, member: Member) -> None:
        exam = self._exam
        name = f"{member.place}/{member.path}" if member.path else member.place
        if member.problem:
            code = "path-unsafe" if member.path else "blob-missing"
            exam.blame(code, name, member.problem, remedy=AGAIN)
            return
        expected = self._expected.get(member.place, {})
        if not expected or (member.path not in expected and member.path != layout.SUMS):
            exam.blame("file-extra", name, "is not part of the bundle", remedy=AGAIN)
            return
        if member.path in self._came[member.place]:
            exam.blame("file-extra", name, "came twice", remedy=AGAIN)
            return
        self._came[member.place].add(member.path)
        if name in self._pieces:
            self._piece(name, self._pieces[name], member)
            return
        if member.path == layout.SUMS:
            # A stream is whole or not at all: its sums name every file of the volume.
            fault = sums_fault(member.place, member, expected, expected)
        else:
            fault = small_fault(name, member, expected[member.path][0])
        if fault:
            exam.findings.append(fault)
            exam.resend.add(name)

    def _piece(self, name: str, piece: Piece, member: Member) -> None:
        """Take the blob that begins with this piece; its other pieces must follow, as ``pack`` writes them."""
        exam, digest = self._exam, piece.blob
        pieces = self._bundle.pieces()[digest] if not piece.whole else [piece]
        if piece != pieces[0]:
            exam.blame("blob-damaged", name, "comes without what stands before it in its file")
            exam.resend.add(name)
            return
        chunks: Iterable[bytes] = self._poured(member, pieces)
        try:
            data = b"".join(chunks) if digest in self._bundle.metadata else None
            self._take(digest, chunks if data is None else [data])
        except StoreError:
            raise
        except HaversackError as problem:
            where = problem.where if problem.where in self._pieces else name
            exam.blame("blob-damaged", where, reason(problem, where))
            exam.resend.update(key for key, other in self._pieces.items() if other.blob == digest)
            return
        if data is not None:
            exam.metadata[digest] = data
        exam.good.add(digest)

    def _poured(self, member: Member, pieces: list[Piece]) -> Iterator[bytes]:
        """The bytes of a blob that begins with ``member``: what stands between its pieces is looked at in turn."""
        yield from poured(pieces[0], member, self._advance)
        for wanted in pieces[1:]:
            following = self._following(wanted)
            if following is None:
                return
            yield from poured(wanted, following, self._advance)

    def _following(self, wanted: Piece) -> Member | None:
        """The member of a piece, unless another piece comes first: that one is kept for :meth:`run`."""
        while (member := self._next()) is not None:
            name = f"{member.place}/{member.path}"
            if self._pieces.get(name) == wanted and not member.problem:
                self._came[member.place].add(member.path)
                return member
            if name in self._pieces:
                self._held = member
                return None
            self._one(member)
        return None
