"""A bundle as one stream: read once, from front to back."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from haversack.crossing.examination import (
    MANIFEST_LIMIT,
    Examination,
    Take,
    adopt,
    check_sums,
    pour,
    reason,
    small_file,
    whole,
)
from haversack.errors import HaversackError, IntegrityError, StoreError
from haversack.formats import bundle as layout
from haversack.model.artifact import Digest
from haversack.model.bundle import Bundle, Piece
from haversack.ports import Media, Member, Progress


def stream(
    media: Media, exam: Examination, take: Take, admit: Callable[[Examination], None], progress: Progress
) -> None:
    """Examine a stream; what was found is in ``exam`` afterwards."""
    members = media.members()
    first = next(members, None)
    if first is None or first.path != layout.MANIFEST or first.problem or first.size > MANIFEST_LIMIT:
        said = first.problem if first and first.problem else "does not begin with the manifest of a bundle"
        exam.blame("manifest-damaged", "stream", said, remedy="send the stream again")
        for _ in members:
            """To its end, so that whoever writes is not cut off."""
        return
    try:
        bundle = adopt(exam, whole(first), f"{first.place}/{first.path}", admit)
    except IntegrityError as problem:
        exam.blame("manifest-damaged", problem.where, problem.message, remedy="send the stream again")
        return
    Stream(bundle, exam, take).run(members, progress)


class Stream:
    """One pass over a stream whose manifest is known."""

    def __init__(self, bundle: Bundle, exam: Examination, take: Take) -> None:
        self._bundle, self._exam, self._take = bundle, exam, take
        self._expected: dict[str, tuple[Digest, int]] = {}
        self._pieces: dict[str, Piece] = {}
        for volume in bundle.volumes:
            for path, told in layout.expected(bundle, volume, exam.manifest).items():
                self._expected[f"{volume.name}/{path}"] = told
            self._pieces |= {f"{volume.name}/{piece.path}": piece for piece in volume.pieces}
            self._expected[f"{volume.name}/{layout.SUMS}"] = ("", 0)
        self._seen: set[str] = {f"{bundle.volumes[0].name}/{layout.MANIFEST}"}

    def run(self, members: Iterator[Member], progress: Progress) -> None:
        """Take every member in turn; what does not come by the end is missing."""
        with progress("receiving", sum(self._bundle.sizes().values())) as advance:
            for member in members:
                name = f"{member.place}/{member.path}" if member.path else member.place
                try:
                    self._one(name, member, members, advance)
                except (OSError, EOFError) as problem:
                    self._exam.blame("blob-damaged", name, f"the stream breaks off: {problem}")
        for name in sorted(self._expected.keys() - self._seen):
            if name in self._pieces:
                self._exam.blame("blob-missing", name, "did not come")
            self._exam.resend.add(name)

    def _one(
        self, name: str, member: Member, members: Iterator[Member], advance: Callable[[int], None]
    ) -> None:
        exam = self._exam
        if member.problem:
            code = "path-unsafe" if member.path else "blob-missing"
            exam.blame(code, name, member.problem, remedy="send the stream again")
        elif name not in self._expected:
            exam.blame("file-extra", name, "is not part of the bundle", remedy="send the stream again")
        elif name in self._seen:
            exam.blame("volume-duplicate", name, "came twice", remedy="one copy is enough", blocking=False)
        else:
            self._seen.add(name)
            if name in self._pieces:
                self._piece(name, self._pieces[name], member, members, advance)
            elif member.path == layout.SUMS:
                volume = self._bundle.volume(member.place)
                assert volume is not None
                check_sums(
                    member.place, member, layout.expected(self._bundle, volume, exam.manifest), name, exam
                )
            else:
                small_file(name, member, self._expected[name][0], name, exam)

    def _piece(
        self,
        name: str,
        piece: Piece,
        member: Member,
        members: Iterator[Member],
        advance: Callable[[int], None],
    ) -> None:
        """Take the blob that begins with this piece; its other pieces must follow, as ``pack`` writes them."""
        exam, digest = self._exam, piece.blob
        rest = self._bundle.pieces()[digest][1:] if not piece.whole else []

        def chunks() -> Iterator[bytes]:
            yield from pour([member], advance)
            for wanted in rest:
                following = next((m for m in members if self._note(m, wanted)), None)
                if following is None:
                    return
                yield from pour([following], advance)

        try:
            if digest in self._bundle.metadata:
                data = b"".join(chunks())
                self._take(digest, [data])
                exam.metadata[digest] = data
            else:
                self._take(digest, chunks())
        except StoreError:
            raise
        except HaversackError as problem:
            exam.blame("blob-damaged", name, reason(problem, name))
            exam.resend.update(key for key, other in self._pieces.items() if other.blob == digest)
            return
        exam.good.add(digest)

    def _note(self, member: Member, wanted: Piece) -> bool:
        """Check a member that stands between two pieces of a blob; whether it is the piece that is wanted."""
        name = f"{member.place}/{member.path}"
        self._seen.add(name)
        if member.path == wanted.path:
            return True
        if name in self._expected and member.path != layout.SUMS:
            small_file(name, member, self._expected[name][0], name, self._exam)
        return False
