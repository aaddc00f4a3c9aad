"""Look at a bundle as it arrived: everything wrong with it, and every good blob handed on.

``verify`` hands blobs to nobody, ``receive`` to the store; folders are read on all cores, a stream from
front to back.  Nothing is believed that the manifest does not say, and the manifest's digest is the
bundle's id.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from haversack.errors import HaversackError, IntegrityError, NotFoundError, StoreError
from haversack.formats import bundle as layout
from haversack.formats import oci
from haversack.model.artifact import Digest, digest_of, hex_of
from haversack.model.bundle import Bundle, Piece, Volume
from haversack.model.finding import Finding
from haversack.model.snapshot import Snapshot
from haversack.ports import Media, Member, Progress, Store
from haversack.verbs import holdings

_RESEND = "have it sent again: haversack verify --resend FILE, then haversack pack --resend FILE outside"
# What a manifest may weigh: a site of a hundred thousand artifacts has one of 20 MB.
_MANIFEST_LIMIT = 1 << 28


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
        self, code: str, subject: str, message: str, *, remedy: str = _RESEND, blocking: bool = True
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


def examine(
    media: Media, take: Take, admit: Callable[[Examination], None], *, store: Store | None, progress: Progress
) -> Examination:
    """Examine a bundle; ``admit`` sees the manifest before the first blob is taken and may raise."""
    exam = Examination()
    if media.streamed:
        _stream(media, exam, take, admit, progress)
    else:
        _folders(media, exam, take, admit, progress)
    if exam.bundle:
        _check_snapshot(exam, exam.bundle, store)
    return exam


def _adopt(exam: Examination, data: bytes, where: str, admit: Callable[[Examination], None]) -> Bundle:
    """Make ``data`` the manifest of this examination."""
    bundle, warning = layout.read(data, where)
    exam.id, exam.manifest, exam.bundle = digest_of(data), data, bundle
    if warning:
        exam.blame(
            "format-newer-minor", where, warning, remedy="update haversack when you can", blocking=False
        )
    admit(exam)
    return bundle


# --- folders -----------------------------------------------------------------------------------------------


def _folders(
    media: Media, exam: Examination, take: Take, admit: Callable[[Examination], None], progress: Progress
) -> None:
    places: dict[str, dict[str, Member]] = {}
    for member in media.members():
        files = places.setdefault(member.place, {})
        if member.problem:
            exam.blame(
                "path-unsafe",
                f"{member.place}/{member.path}",
                member.problem,
                remedy="copy the volume again from its source",
            )
        else:
            files[member.path] = member
    data = _choose_manifest(places, exam)
    if data is None:
        return
    bundle = _adopt(exam, data, layout.MANIFEST, admit)
    wanted: dict[str, list[Member]] = {}
    seen: dict[str, str] = {}
    for place, files in places.items():
        volume = _volume_of(place, files, bundle)
        if volume is None:
            exam.blame(
                "volume-foreign",
                place,
                "does not say which volume of the bundle it is",
                remedy="copy the volume again from its source",
            )
            continue
        if volume.name in seen and not _resent(files, volume):
            exam.blame(
                "volume-duplicate",
                place,
                f"is {volume.name} again, which {seen[volume.name]} is too",
                remedy="one copy is enough",
                blocking=False,
            )
        seen.setdefault(volume.name, place)
        _small_files(place, files, volume, exam, bundle)
        for path, member in files.items():
            wanted.setdefault(path, []).append(member)
    _take_all(bundle, wanted, seen, exam, take, progress)


def _choose_manifest(places: dict[str, dict[str, Member]], exam: Examination) -> bytes | None:
    """The manifest that most volumes carry; volumes that carry another are set aside, each with its finding."""
    found: dict[str, bytes] = {}
    newer: HaversackError | None = None
    for place, files in list(places.items()):
        member = files.get(layout.MANIFEST)
        if member is None or member.size > _MANIFEST_LIMIT:
            exam.blame(
                "manifest-damaged",
                f"{place}/{layout.MANIFEST}",
                "is absent" if member is None else "is too large to be one",
            )
            continue
        data = b"".join(member.chunks())
        try:
            layout.read(data, f"{place}/{layout.MANIFEST}")
        except IntegrityError as problem:
            exam.blame("manifest-damaged", problem.where, problem.message)
        except HaversackError as problem:
            newer = problem
            exam.blame("format-newer", problem.where, problem.message, remedy=problem.remedy)
        else:
            found[place] = data
    if not found:
        if not newer:
            exam.blame(
                "manifest-damaged",
                ", ".join(places),
                "no volume has a readable manifest",
                remedy="copy the bundle again from its source",
            )
        return None
    ranking = Counter(digest_of(data) for data in found.values())
    best = max(ranking, key=lambda digest: ranking[digest])
    for place, data in found.items():
        if digest_of(data) != best:
            told = _own_sum(places[place])
            if told == digest_of(data):
                exam.blame(
                    "volume-foreign",
                    place,
                    f"belongs to bundle {told}, the others to {best}",
                    remedy="take it out, and find the volume that belongs here",
                )
                del places[place]
            else:
                exam.blame(
                    "manifest-damaged", f"{place}/{layout.MANIFEST}", "differs from that of the other volumes"
                )
    return next(data for data in found.values() if digest_of(data) == best)


def _own_sum(files: dict[str, Member]) -> Digest | None:
    """What a volume's own ``SHA256SUMS`` says its manifest is."""
    if layout.SUMS not in files:
        return None
    try:
        return layout.read_sums(b"".join(files[layout.SUMS].chunks())).get(layout.MANIFEST)
    except IntegrityError:
        return None


def _volume_of(place: str, files: dict[str, Member], bundle: Bundle) -> Volume | None:
    """Which volume a folder is, by its label, or by its own name where the label is lost."""
    if layout.LABEL in files and files[layout.LABEL].size < 1000:
        name = b"".join(files[layout.LABEL].chunks()).decode(errors="replace").partition("\n")[0]
        if found := bundle.volume(name):
            return found
    return bundle.volume(Path(place).name)


def _resent(files: dict[str, Member], volume: Volume) -> bool:
    """Whether a folder is a part of a volume that was sent again."""
    return any(piece.path not in files for piece in volume.pieces)


def _small_files(
    place: str, files: dict[str, Member], volume: Volume, exam: Examination, bundle: Bundle
) -> None:
    """Check what a volume holds besides pieces, and that it holds nothing else."""
    expected = layout.expected(bundle, volume, exam.manifest)
    pieces = {piece.path for piece in volume.pieces}
    for path, member in files.items():
        if path in pieces or path == layout.SUMS:
            continue
        if path not in expected:
            exam.blame(
                "file-extra",
                f"{place}/{path}",
                "is not part of the bundle",
                remedy="take it out; nothing may travel that the manifest does not name",
            )
        else:
            _small_file(f"{place}/{path}", member, expected[path][0], f"{volume.name}/{path}", exam)
    for path in expected.keys() - files.keys() - pieces:
        if path != layout.MANIFEST:
            exam.blame("blob-missing", f"{place}/{path}", "is not there")
            exam.resend.add(f"{volume.name}/{path}")
    _check_sums(place, files.get(layout.SUMS), expected, f"{volume.name}/{layout.SUMS}", exam)


def _small_file(where: str, member: Member, digest: Digest, resend: str, exam: Examination) -> None:
    try:
        only_hash(digest, member.chunks())
    except (IntegrityError, OSError) as problem:
        code = "manifest-damaged" if member.path == layout.MANIFEST else "file-damaged"
        if not any(f.subject == where for f in exam.findings):
            exam.blame(
                code,
                where,
                "differs from what the manifest says"
                if isinstance(problem, IntegrityError)
                else str(problem),
            )
        exam.resend.add(resend)


def _check_sums(
    place: str, member: Member | None, expected: dict[str, tuple[Digest, int]], resend: str, exam: Examination
) -> None:
    where = f"{place}/{layout.SUMS}"
    if member is None:
        exam.blame("blob-missing", where, "is not there")
        exam.resend.add(resend)
        return
    try:
        told = layout.read_sums(b"".join(member.chunks()))
    except (IntegrityError, OSError) as problem:
        exam.blame("file-damaged", where, str(problem))
        exam.resend.add(resend)
        return
    wrong = sorted(path for path, digest in told.items() if expected.get(path, ("",))[0] != digest)
    if wrong:
        exam.blame("file-damaged", where, f"says other things than the manifest of {', '.join(wrong[:3])}")
        exam.resend.add(resend)


def _take_all(
    bundle: Bundle,
    wanted: dict[str, list[Member]],
    seen: dict[str, str],
    exam: Examination,
    take: Take,
    progress: Progress,
) -> None:
    """Hash every blob on all cores, largest first, and hand the good ones on."""
    sizes = bundle.sizes()
    metadata = set(bundle.metadata)
    homes = {piece.path: volume.name for volume in bundle.volumes for piece in volume.pieces}
    missing: dict[str, list[Piece]] = {}

    def one(item: tuple[Digest, list[Piece]]) -> None:
        digest, pieces = item
        absent = [piece for piece in pieces if piece.path not in wanted]
        if absent:
            for piece in absent:
                missing.setdefault(homes[piece.path], []).append(piece)
            return
        _take_blob(digest, pieces, wanted, homes, exam, take, advance, keep=digest in metadata)

    with progress("checking", sum(sizes.values())) as advance, ThreadPoolExecutor(os.cpu_count()) as pool:
        blobs = bundle.pieces()
        # Metadata first, so that a store has it before what it describes.
        first = [(digest, blobs.pop(digest)) for digest in bundle.metadata]
        list(pool.map(one, first))
        list(pool.map(one, sorted(blobs.items(), key=lambda item: -sizes[item[0]])))
    for volume in bundle.volumes:
        lost = missing.get(volume.name, [])
        exam.resend.update(f"{volume.name}/{piece.path}" for piece in lost)
        if volume.name not in seen:
            if lost or not volume.pieces:
                exam.blame(
                    "volume-missing",
                    volume.name,
                    f"was not given: {len(lost)} files, {sum(p.length for p in lost)} bytes",
                    remedy="give its folder too, or have it sent again: haversack verify --resend FILE",
                )
                exam.resend.update(
                    f"{volume.name}/{path}"
                    for path in (*bundle.files, layout.LABEL, layout.MANIFEST, layout.SUMS)
                )
        else:
            for piece in lost:
                exam.blame("blob-missing", f"{seen[volume.name]}/{piece.path}", "is not there")


def _take_blob(
    digest: Digest,
    pieces: list[Piece],
    wanted: dict[str, list[Member]],
    homes: dict[str, str],
    exam: Examination,
    take: Take,
    advance: Callable[[int], None],
    *,
    keep: bool,
) -> None:
    """Take one blob from the first copy of it that is good."""
    copies = max(len(wanted[piece.path]) for piece in pieces)
    bad: list[Finding] = []
    for attempt in range(copies):
        chosen = [wanted[piece.path][min(attempt, len(wanted[piece.path]) - 1)] for piece in pieces]
        try:
            for piece, member in zip(pieces, chosen, strict=True):
                if member.size != piece.length:
                    raise IntegrityError(
                        f"has {member.size} bytes instead of {piece.length}",
                        where=f"{member.place}/{member.path}",
                    )
            linkable = chosen[0].file if len(pieces) == 1 else None
            chunks = _pour(chosen, advance)
            if keep:
                data = b"".join(chunks)
                take(digest, [data], linkable=linkable)
                exam.metadata[digest] = data
            else:
                take(digest, chunks, linkable=linkable)
        except StoreError:
            raise
        except (HaversackError, OSError) as problem:
            where = f"{chosen[0].place}/{chosen[0].path}"
            message = (
                problem.message
                if isinstance(problem, IntegrityError) and problem.where == where
                else _reason(problem)
            )
            bad.append(Finding("blob-damaged", where, message, _RESEND))
            continue
        exam.good.add(digest)
        exam.findings += [
            Finding(f.code, f.subject, f.message, "another copy of it is good", blocking=False) for f in bad
        ]
        return
    exam.findings += bad
    exam.resend.update(f"{homes[piece.path]}/{piece.path}" for piece in pieces)


def _reason(problem: Exception) -> str:
    return (
        "is not what its name says" if isinstance(problem, IntegrityError) else f"cannot be read: {problem}"
    )


def _pour(members: list[Member], advance: Callable[[int], None]) -> Iterator[bytes]:
    for member in members:
        for chunk in member.chunks():
            advance(len(chunk))
            yield chunk


# --- one stream --------------------------------------------------------------------------------------------


def _stream(
    media: Media, exam: Examination, take: Take, admit: Callable[[Examination], None], progress: Progress
) -> None:
    members = media.members()
    first = next(members, None)
    if first is None or first.path != layout.MANIFEST or first.problem or first.size > _MANIFEST_LIMIT:
        said = first.problem if first and first.problem else "does not begin with the manifest of a bundle"
        exam.blame("manifest-damaged", "stream", said, remedy="send the stream again")
        for _ in members:
            """To its end, so that whoever writes is not cut off."""
        return
    try:
        bundle = _adopt(exam, b"".join(first.chunks()), f"{first.place}/{first.path}", admit)
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
                _check_sums(
                    member.place, member, layout.expected(self._bundle, volume, exam.manifest), name, exam
                )
            else:
                _small_file(name, member, self._expected[name][0], name, exam)

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
            yield from _pour([member], advance)
            for wanted in rest:
                following = next((m for m in members if self._note(m, wanted)), None)
                if following is None:
                    return
                yield from _pour([following], advance)

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
            exam.blame("blob-damaged", name, _reason(problem))
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
            _small_file(name, member, self._expected[name][0], name, self._exam)
        return False


# --- what the metadata says --------------------------------------------------------------------------------


def _check_snapshot(exam: Examination, bundle: Bundle, store: Store | None) -> None:
    """The snapshot that the manifest names must be readable, and need exactly what travels or is required."""
    lacking = [d for d in bundle.metadata if d not in exam.metadata]
    if lacking:
        return
    nowhere = bundle.snapshot not in exam.metadata and (store is None or store.size(bundle.snapshot) is None)
    if nowhere:
        return

    def blob(digest: Digest) -> bytes:
        if digest in exam.metadata:
            return exam.metadata[digest]
        if store is None:
            raise NotFoundError(f"{digest} is in the base")
        with store.open(digest) as file:
            return file.read()

    try:
        snapshot = oci.read(bundle.snapshot, blob)
    except NotFoundError:
        return
    except HaversackError as problem:
        exam.blame(
            "manifest-damaged",
            problem.where or bundle.snapshot,
            problem.message,
            remedy="pack the bundle again",
        )
        return
    travelling = bundle.sizes()
    told = travelling.keys() | set(bundle.requires)
    wrong = [d for d, size in snapshot.blobs.items() if d not in told or travelling.get(d, size) != size]
    if wrong or len(told) != len(snapshot.blobs):
        exam.blame(
            "manifest-damaged",
            layout.MANIFEST,
            "names other files than its snapshot needs",
            remedy="pack the bundle again",
        )
        return
    exam.snapshot = snapshot


def base_missing(bundle: Bundle, store: Store) -> list[Finding]:
    """A finding for every blob that the bundle requires and the store does not hold."""
    remedy = "receive the bundle of the base first, or pack again with this site's receipt: haversack receipt"
    return [
        Finding(
            "base-missing",
            digest,
            f"is part of the base {bundle.base or '(none named)'} and is not in the store",
            remedy,
        )
        for digest in bundle.requires
        if store.size(digest) is None
    ]


def older(bundle: Bundle, bundle_id: Digest, held: holdings.Holdings) -> list[Finding]:
    """A finding if the store has already taken in a newer bundle, or another of the same number."""
    if bundle.sequence > held.sequence or bundle_id == held.bundle:
        return []
    message = f"is number {bundle.sequence} of site {bundle.site}; number {held.sequence} was received before"
    remedy = "to go back to an older snapshot: haversack use NAME; to bring new content: pack with this site's receipt"
    return [Finding("bundle-older", bundle_id, message, remedy)]
