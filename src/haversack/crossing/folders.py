"""A bundle in folders: its volumes in any order, read on all cores."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from haversack.crossing.examination import (
    RESEND,
    Examination,
    Take,
    adopt,
    only_hash,
    pour,
    poured,
    reason,
    small_fault,
    sums_fault,
    whole,
)
from haversack.errors import HaversackError, IntegrityError, StoreError
from haversack.formats import bundle as layout
from haversack.model.artifact import Digest, digest_of
from haversack.model.bundle import Bundle, Piece, Volume
from haversack.model.finding import Finding
from haversack.ports import Media, Member, Progress

_AGAIN = "copy the volume again from its source"


def folders(
    media: Media, exam: Examination, take: Take, admit: Callable[[Examination], None], progress: Progress
) -> None:
    """Examine volumes in folders; what was found is in ``exam`` afterwards."""
    places: dict[str, dict[str, Member]] = {}
    for member in media.members():
        files = places.setdefault(member.place, {})
        if member.problem:
            exam.blame("path-unsafe", f"{member.place}/{member.path}", member.problem, remedy=_AGAIN)
        else:
            files[member.path] = member
    data = _choose_manifest(places, exam)
    if data is None:
        return
    bundle = adopt(exam, data, layout.MANIFEST, admit)
    wanted: dict[str, list[Member]] = {}
    copies: dict[str, list[str]] = {}
    homes = {piece.path: volume for volume in bundle.volumes for piece in volume.pieces}
    for place, files in places.items():
        volume = _volume_of(place, files, bundle, homes)
        if volume is None:
            _no_volume(place, files, exam)
            continue
        if volume.name in copies and not _resent(files, volume):
            exam.blame(
                "volume-duplicate",
                place,
                f"is {volume.name} again, which {copies[volume.name][0]} is too",
                remedy="one copy is enough",
                blocking=False,
            )
        copies.setdefault(volume.name, []).append(place)
        _extra(place, files.keys() - layout.expected(bundle, volume, data).keys() - {layout.SUMS}, exam)
        for path, member in files.items():
            wanted.setdefault(path, []).append(member)
    for volume in bundle.volumes:
        if volume.name in copies:
            _small_files(volume, {place: places[place] for place in copies[volume.name]}, exam, bundle)
    given = {name: held[0] for name, held in copies.items()}
    _take_all(bundle, wanted, homes, given, exam, take, progress)


def _choose_manifest(places: dict[str, dict[str, Member]], exam: Examination) -> bytes | None:
    """The manifest of the bundle: the one that most volumes carry and vouch for in their ``SHA256SUMS``.

    Volumes that vouch for another are set aside; what is damaged in the others is told with their files.
    """
    carried: dict[str, bytes] = {}
    readable: dict[bytes, bool] = {}
    unread: list[Finding] = []
    for place, files in places.items():
        member = files.get(layout.MANIFEST)
        if member is None:
            continue
        where = f"{place}/{layout.MANIFEST}"
        try:
            data = carried[place] = whole(member)
            # The same bytes are not parsed again for every volume.
            if data not in readable:
                readable[data] = False
                layout.read(data, where)
                readable[data] = True
        except IntegrityError as problem:
            said = problem.message if problem.where == where else str(problem).removeprefix(f"{where}: ")
            unread.append(Finding("manifest-damaged", where, said, _AGAIN))
        except HaversackError as problem:
            unread.append(Finding("format-newer", where, problem.message, problem.remedy))
    ranking: Counter[bytes] = Counter()
    for place, data in carried.items():
        if readable[data]:
            ranking[data] += len(places) + 1 if _own_sum(places[place]) == digest_of(data) else 1
    if not ranking:
        exam.findings += unread or [
            Finding("manifest-damaged", place, "has no manifest of a bundle", _AGAIN) for place in places
        ]
        return None
    best = max(ranking, key=lambda data: ranking[data])
    for place, data in carried.items():
        if data != best and _own_sum(places[place]) == digest_of(data):
            exam.blame(
                "volume-foreign",
                place,
                f"belongs to bundle {digest_of(data)}, the others to {digest_of(best)}",
                remedy="take it out, and find the volume that belongs here",
            )
            del places[place]
    return best


def _own_sum(files: dict[str, Member]) -> Digest | None:
    """What a volume's own ``SHA256SUMS`` says its manifest is."""
    if layout.SUMS not in files:
        return None
    try:
        return layout.read_sums(whole(files[layout.SUMS])).get(layout.MANIFEST)
    except IntegrityError:
        return None


def _volume_of(
    place: str, files: dict[str, Member], bundle: Bundle, homes: Mapping[str, Volume]
) -> Volume | None:
    """Which volume a folder is: by the pieces in it, or by its label, or by its own name."""
    votes = Counter(homes[path].name for path in files if path in homes)
    names = [name for name, _ in votes.most_common(1)]
    if layout.LABEL in files:
        with contextlib.suppress(IntegrityError):
            names.append(whole(files[layout.LABEL]).decode(errors="replace").partition("\n")[0])
    found = map(bundle.volume, [*names, Path(place).name])
    return next((volume for volume in found if volume), None)


def _no_volume(place: str, files: dict[str, Member], exam: Examination) -> None:
    """Blame a folder that is no volume of the bundle, or the files that stand beside its volumes."""
    if files.keys().isdisjoint({layout.MANIFEST, layout.SUMS, layout.LABEL}):
        _extra(place, files, exam)
    else:
        exam.blame("volume-foreign", place, "does not say which volume of the bundle it is", remedy=_AGAIN)


def _extra(place: str, paths: Iterable[str], exam: Examination) -> None:
    for path in sorted(paths):
        exam.blame(
            "file-extra",
            f"{place}/{path}",
            "is not part of the bundle",
            remedy="take it out; nothing may travel that the manifest does not name",
        )


def _resent(files: dict[str, Member], volume: Volume) -> bool:
    """Whether a folder is a part of a volume that was sent again."""
    return any(piece.path not in files for piece in volume.pieces)


def _small_files(
    volume: Volume, copies: dict[str, dict[str, Member]], exam: Examination, bundle: Bundle
) -> None:
    """Check what a volume holds besides pieces: one good copy of each file is enough."""
    expected = layout.expected(bundle, volume, exam.manifest)
    pieces = {piece.path for piece in volume.pieces}
    for path in sorted(expected.keys() - pieces | {layout.SUMS}):
        faults: list[Finding] = []
        good = False
        for place, files in copies.items():
            if path not in files:
                continue
            if path == layout.SUMS:
                fault = sums_fault(place, files[path], files, expected)
            else:
                fault = small_fault(f"{place}/{path}", files[path], expected[path][0])
            faults += [fault] if fault else []
            good = good or fault is None
        if not good:
            exam.resend.add(f"{volume.name}/{path}")
            if not faults:
                exam.blame("blob-missing", f"{next(iter(copies))}/{path}", "is not there")
        exam.findings += _excused(faults) if good else faults


def _excused(faults: list[Finding]) -> list[Finding]:
    """The faults of copies that another copy makes good."""
    return [
        Finding(f.code, f.subject, f.message, "another copy of it is good", blocking=False) for f in faults
    ]


def _take_all(
    bundle: Bundle,
    wanted: dict[str, list[Member]],
    homes: Mapping[str, Volume],
    given: dict[str, str],
    exam: Examination,
    take: Take,
    progress: Progress,
) -> None:
    """Hash every blob on all cores, largest first, and hand the good ones on."""
    sizes = bundle.sizes()
    metadata = set(bundle.metadata)

    def one(item: tuple[Digest, list[Piece]]) -> None:
        digest, pieces = item
        lost = _take_blob(digest, pieces, wanted, exam, take, advance, keep=digest in metadata)
        exam.resend.update(f"{homes[piece.path].name}/{piece.path}" for piece in lost)

    with progress("checking", sum(sizes.values())) as advance, ThreadPoolExecutor(os.cpu_count()) as pool:
        blobs = bundle.pieces()
        # Metadata first, so that a store has it before what it describes.
        first = [(digest, blobs.pop(digest)) for digest in bundle.metadata]
        list(pool.map(one, first))
        list(pool.map(one, sorted(blobs.items(), key=lambda item: -sizes[item[0]])))
    for volume in bundle.volumes:
        absent = [piece for piece in volume.pieces if piece.path not in wanted]
        if volume.name in given:
            for piece in absent:
                exam.blame("blob-missing", f"{given[volume.name]}/{piece.path}", "is not there")
        elif absent or not volume.pieces:
            exam.blame(
                "volume-missing",
                volume.name,
                f"was not given: {len(absent)} files, {sum(p.length for p in absent)} bytes",
                remedy="give its folder too, or have it sent again: haversack verify --resend FILE",
            )
            small = (*bundle.files, layout.LABEL, layout.MANIFEST, layout.SUMS)
            exam.resend.update(f"{volume.name}/{path}" for path in small)


def _take_blob(
    digest: Digest,
    pieces: list[Piece],
    wanted: dict[str, list[Member]],
    exam: Examination,
    take: Take,
    advance: Callable[[int], None],
    *,
    keep: bool,
) -> list[Piece]:
    """Take one blob from good copies of its pieces; the pieces that have none."""
    chosen = [wanted[piece.path][0] for piece in pieces if piece.path in wanted]
    faults: list[Finding] = []
    if len(chosen) == len(pieces) and not _taken(digest, pieces, chosen, exam, take, advance, keep=keep):
        exam.good.add(digest)
        return []
    # Something is wrong with it: each copy of each piece is now looked at alone.
    good: list[Member] = []
    lost: list[Piece] = []
    for piece in pieces:
        bad: list[Finding] = []
        found = next((m for m in wanted.get(piece.path, ()) if not _fault(piece, m, bad)), None)
        if found is None:
            lost.append(piece)
            exam.findings += bad
        else:
            good.append(found)
            faults += bad
    if lost:
        exam.findings += _excused(faults)
        return lost
    if wrong := _taken(digest, pieces, good, exam, take, advance, keep=keep):
        exam.findings += wrong
        return pieces
    exam.findings += _excused(faults)
    exam.good.add(digest)
    return []


def _fault(piece: Piece, member: Member, bad: list[Finding]) -> bool:
    """Whether one copy of a piece is damaged; if so, how is added to ``bad``."""
    where = f"{member.place}/{member.path}"
    if member.size != piece.length:
        said = f"has {member.size} bytes instead of {piece.length}"
        bad.append(Finding("blob-damaged", where, said, RESEND))
        return True
    try:
        only_hash(piece.digest, pour([member], lambda _: None))
    except IntegrityError as problem:
        bad.append(Finding("blob-damaged", where, reason(problem, where), RESEND))
        return True
    return False


def _taken(
    digest: Digest,
    pieces: list[Piece],
    chosen: list[Member],
    exam: Examination,
    take: Take,
    advance: Callable[[int], None],
    *,
    keep: bool,
) -> list[Finding]:
    """Hand a blob on; what was wrong with it, if anything was."""
    where = f"{chosen[0].place}/{chosen[0].path}"
    if any(piece.length != member.size for piece, member in zip(pieces, chosen, strict=True)):
        return [Finding("blob-damaged", where, "has another size than the manifest says", RESEND)]
    chunks = itertools.chain.from_iterable(
        poured(piece, member, advance) for piece, member in zip(pieces, chosen, strict=True)
    )
    try:
        data = b"".join(chunks) if keep else b""
        take(digest, [data] if keep else chunks, linkable=chosen[0].file if len(chosen) == 1 else None)
    except StoreError:
        raise
    except (HaversackError, OSError) as problem:
        return [Finding("blob-damaged", where, reason(problem, where), RESEND)]
    if keep:
        exam.metadata[digest] = data
    return []
