"""A bundle on its way out: blobs shared out over volumes, and volumes written."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator

from haversack.errors import IntegrityError, SpaceError
from haversack.formats import bundle as layout
from haversack.model.artifact import Digest
from haversack.model.bundle import Bundle, Piece, Volume
from haversack.model.snapshot import Snapshot
from haversack.ports import MediaWriter, Progress, Store

_CHUNK = 1 << 20


def volumes_of(
    shares: list[list[tuple[Digest, int, int]]],
    snapshot: Snapshot,
    digest_of_part: Callable[[Digest, int, int], Digest],
) -> tuple[Volume, ...]:
    """The volumes of some shares."""
    return tuple(
        Volume(
            f"volume-{number:03d}",
            tuple(
                Piece(d, d if n == snapshot.blobs[d] else digest_of_part(d, offset, n), offset, n)
                for d, offset, n in share
            ),
        )
        for number, share in enumerate(shares, 1)
    )


def weight(bundle: Bundle, manifest: bytes, volume: Volume) -> int:
    """The bytes of all files of a volume."""
    files = layout.expected(bundle, volume, manifest)
    sums = layout.sums((path, digest) for path, (digest, _) in files.items())
    return sum(size for _, size in files.values()) + len(sums)


def part_digest(store: Store, digest: Digest, offset: int, length: int) -> Digest:
    """The digest of a part of a blob."""
    state = hashlib.sha256()
    for chunk in _slice(store, digest, offset, length):
        state.update(chunk)
    return "sha256:" + state.hexdigest()


def _slice(store: Store, digest: Digest, offset: int, length: int) -> Iterator[bytes]:
    with store.path(digest).open("rb") as file:
        file.seek(offset)
        while length and (chunk := file.read(min(length, _CHUNK))):
            length -= len(chunk)
            yield chunk


def write(
    bundle: Bundle,
    manifest: bytes,
    small: dict[str, bytes],
    store: Store,
    writer: MediaWriter,
    progress: Progress,
    *,
    before_finish: Callable[[], None],
    only: frozenset[str] | None = None,
) -> None:
    """Write volumes in order, each with its manifest first; ``only`` limits them to some ``VOLUME/PATH``."""
    total = sum(volume.size for volume in bundle.volumes) if only is None else 0
    free = writer.free()
    if free is not None and free < total:
        raise SpaceError(
            f"the bundle has {total} bytes, and {free} are free",
            remedy="write it to a larger disk, or in smaller volumes",
        )
    with progress("packing", total) as advance:
        for volume in bundle.volumes:
            expected = layout.expected(bundle, volume, manifest)
            sums = {
                path: digest
                for path, (digest, _) in expected.items()
                if only is None or f"{volume.name}/{path}" in only or path in {layout.MANIFEST, layout.LABEL}
            }
            if only is not None and not any(
                f"{volume.name}/{path}" in only for path in (*expected, layout.SUMS)
            ):
                continue
            first = {
                layout.MANIFEST: manifest,
                layout.LABEL: layout.label(bundle, volume),
                layout.SUMS: layout.sums(sums.items()),
            }
            for path, data in (first | small).items():
                if path in first or path in sums:
                    writer.write(volume.name, path, len(data), [data])
            for piece in volume.pieces:
                if piece.path in sums:
                    writer.write(
                        volume.name, piece.path, piece.length, _counted(_checked(store, piece), advance)
                    )
    # What nobody can record is not handed over: a folder gets its name only after this.
    before_finish()
    writer.finish()


def _checked(store: Store, piece: Piece) -> Iterator[bytes]:
    """A piece's bytes, hashed on their way out of the store."""
    if not piece.whole:
        state = hashlib.sha256()
        for chunk in _slice(store, piece.blob, piece.offset, piece.length):
            state.update(chunk)
            yield chunk
        if "sha256:" + state.hexdigest() != piece.digest:
            raise IntegrityError("is not what its name says", where=str(store.path(piece.blob)))
        return
    with store.open(piece.blob) as file:
        while chunk := file.read(_CHUNK):
            yield chunk


def _counted(chunks: Iterator[bytes], advance: Callable[[int], None]) -> Iterator[bytes]:
    for chunk in chunks:
        advance(len(chunk))
        yield chunk
