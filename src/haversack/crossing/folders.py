"""A bundle in folders: its volumes in any order, read on all cores."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from haversack.crossing.examination import (
    RESEND,
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
from haversack.model.artifact import Digest, digest_of
from haversack.model.bundle import Bundle, Piece, Volume
from haversack.model.finding import Finding
from haversack.ports import Media, Member, Progress


def folders(
    media: Media, exam: Examination, take: Take, admit: Callable[[Examination], None], progress: Progress
) -> None:
    """Examine volumes in folders; what was found is in ``exam`` afterwards."""
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
    bundle = adopt(exam, data, layout.MANIFEST, admit)
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
        if member is None:
            exam.blame("manifest-damaged", f"{place}/{layout.MANIFEST}", "is absent")
            continue
        try:
            data = whole(member)
            if data in found.values():
                # The same bytes are not parsed again for every volume.
                found[place] = data
                continue
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
        return layout.read_sums(whole(files[layout.SUMS])).get(layout.MANIFEST)
    except IntegrityError:
        return None


def _volume_of(place: str, files: dict[str, Member], bundle: Bundle) -> Volume | None:
    """Which volume a folder is, by its label, or by its own name where the label is lost."""
    if layout.LABEL in files:
        with contextlib.suppress(IntegrityError):
            name = whole(files[layout.LABEL]).decode(errors="replace").partition("\n")[0]
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
            small_file(f"{place}/{path}", member, expected[path][0], f"{volume.name}/{path}", exam)
    for path in expected.keys() - files.keys() - pieces:
        if path != layout.MANIFEST:
            exam.blame("blob-missing", f"{place}/{path}", "is not there")
            exam.resend.add(f"{volume.name}/{path}")
    check_sums(place, files.get(layout.SUMS), expected, f"{volume.name}/{layout.SUMS}", exam)


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
            chunks = pour(chosen, advance)
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
            message = reason(problem, where)
            bad.append(Finding("blob-damaged", where, message, RESEND))
            continue
        exam.good.add(digest)
        exam.findings += [
            Finding(f.code, f.subject, f.message, "another copy of it is good", blocking=False) for f in bad
        ]
        return
    exam.findings += bad
    exam.resend.update(f"{homes[piece.path]}/{piece.path}" for piece in pieces)
