"""Bundles: what crosses, cut into volumes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from haversack.model.artifact import Digest, hex_of

VOLUME_OVERHEAD = 64 * 1024
"""Bytes a volume keeps free for its own small files and the file system's rounding."""
LEAST_ROOM = 1024
"""Bytes of content below which a volume is not worth its own small files."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A blob, or ``length`` bytes of one from ``offset`` on; ``digest`` is that of the piece's own bytes.

    A piece of a blob larger than a volume has ``blob`` set to another digest than its own.
    """

    blob: Digest
    digest: Digest
    offset: int
    length: int

    @property
    def whole(self) -> bool:
        """Whether the piece is the blob."""
        return self.blob == self.digest

    @property
    def path(self) -> str:
        """Where the piece lies in a volume: the OCI place of a blob, or ``parts/`` for a piece of one."""
        if self.whole:
            return f"blobs/sha256/{hex_of(self.blob)}"
        return f"parts/{hex_of(self.blob)}.{self.offset:015d}"


@dataclass(frozen=True, slots=True)
class Volume:
    """A folder of pieces that is copied, checked and replaced alone."""

    name: str
    pieces: tuple[Piece, ...]

    @property
    def size(self) -> int:
        """Bytes of its pieces."""
        return sum(piece.length for piece in self.pieces)


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What happened when an environment was installed on the connected side with no network.

    ``result`` is ``passed``, ``skipped`` (with the reason in ``detail``) or ``off`` (``--no-rehearse``).
    """

    ref: str
    result: str
    detail: str
    at: str


@dataclass(frozen=True, slots=True)
class Bundle:
    """The manifest of what crosses; its id is the digest of its canonical bytes.

    ``sequence`` counts the bundles of a site, so that an older one is told from a newer one without
    trusting a clock.  ``base`` is the snapshot an increment builds on and ``requires`` the blobs of
    ``snapshot`` that travel in no volume; both are empty for a full bundle.  ``metadata`` are the
    travelling blobs that describe the snapshot, first in the first volume.  ``files`` are the small files
    that stand on every volume, by path, so that the id covers them too.
    """

    site: str
    sequence: int
    name: str
    snapshot: Digest
    base: Digest | None
    requires: tuple[Digest, ...]
    volumes: tuple[Volume, ...]
    metadata: tuple[Digest, ...]
    files: Mapping[str, tuple[Digest, int]]
    rehearsals: tuple[Rehearsal, ...]
    created: str
    tool: str

    def pieces(self) -> dict[Digest, list[Piece]]:
        """Pieces of every blob that travels, in order of their offset."""
        found: dict[Digest, list[Piece]] = {}
        for volume in self.volumes:
            for piece in volume.pieces:
                found.setdefault(piece.blob, []).append(piece)
        for pieces in found.values():
            pieces.sort(key=lambda piece: piece.offset)
        return found

    def sizes(self) -> dict[Digest, int]:
        """The size in bytes of every blob that travels."""
        return {digest: sum(piece.length for piece in pieces) for digest, pieces in self.pieces().items()}

    def volume(self, name: str) -> Volume | None:
        """The volume of that name."""
        return next((volume for volume in self.volumes if volume.name == name), None)


def cut(
    blobs: Iterable[tuple[Digest, int]], volume_size: int | None, reserve: int = VOLUME_OVERHEAD
) -> list[list[tuple[Digest, int, int]]]:
    """Share blobs out over volumes of at most ``volume_size`` bytes, as (blob, offset, length).

    Keeps the order given, and ``reserve`` bytes of each volume free.  A blob that fits into a volume is
    never split; a larger one fills volumes of its own.  Raises :class:`ValueError` when the size leaves no
    room to speak of.
    """
    room = None if volume_size is None else volume_size - reserve
    if room is not None and room < LEAST_ROOM:
        raise ValueError(f"a volume of {volume_size} bytes is too small; the least is {reserve + LEAST_ROOM}")
    volumes: list[list[tuple[Digest, int, int]]] = [[]]
    used = 0
    for digest, size in blobs:
        if room is None or used + size <= room:
            volumes[-1].append((digest, 0, size))
            used += size
            continue
        offset = 0
        while True:
            if volumes[-1]:
                volumes.append([])
            length = min(size - offset, room)
            volumes[-1].append((digest, offset, length))
            used = length
            offset += length
            if offset >= size:
                break
    return volumes
