"""Bundle manifests, volumes and ``SHA256SUMS`` (docs/spec/bundle.md)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from haversack.errors import IntegrityError
from haversack.formats.canonical import Fields, canonical, check_version, parse
from haversack.model.artifact import Digest, digest_of, hex_of, is_safe_filename
from haversack.model.bundle import Bundle, Piece, Rehearsal, Volume
from haversack.model.snapshot import is_snapshot_name

VERSION = "1.0"
MANIFEST = "bundle.json"
SUMS = "SHA256SUMS"
LABEL = "VOLUME"
_KNOWN = {name.casefold() for name in (MANIFEST, SUMS, LABEL)}


def write(bundle: Bundle) -> bytes:
    """The canonical bytes of a manifest; their digest is the bundle's id."""

    def piece(found: Piece) -> dict[str, Any]:
        record: dict[str, Any] = {"digest": found.digest, "size": found.length}
        return record if found.whole else record | {"blob": found.blob, "offset": found.offset}

    return canonical(
        {
            "haversack-bundle": VERSION,
            "site": bundle.site,
            "sequence": bundle.sequence,
            "name": bundle.name,
            "snapshot": bundle.snapshot,
            "base": bundle.base,
            "requires": sorted(bundle.requires),
            "metadata": list(bundle.metadata),
            "volumes": [{"name": v.name, "pieces": [piece(p) for p in v.pieces]} for v in bundle.volumes],
            "files": {path: {"digest": d, "size": size} for path, (d, size) in bundle.files.items()},
            "rehearsals": [
                {"ref": r.ref, "result": r.result, "detail": r.detail, "at": r.at} for r in bundle.rehearsals
            ],
            "created": bundle.created,
            "tool": bundle.tool,
        }
    )


def read(data: bytes, where: str = MANIFEST) -> tuple[Bundle, str | None]:
    """The manifest in some bytes, and a warning about a newer minor format.

    Raises ``IntegrityError`` for one that contradicts itself, ``FormatError`` for a newer major version.
    """
    fields = Fields(parse(data, where), where)
    warning = check_version(fields.text("haversack-bundle"), VERSION, where)
    files: dict[str, tuple[Digest, int]] = {}
    for path, record in fields.table("files").items():
        _check_path(path, where)
        entry = Fields(record, f"{where}: files.{path}")
        files[path] = (entry.digest("digest"), entry.count("size"))
    bundle = Bundle(
        site=fields.text("site"),
        sequence=fields.count("sequence"),
        name=fields.text("name"),
        snapshot=fields.digest("snapshot"),
        base=fields.digest_or_none("base"),
        requires=fields.texts("requires"),
        volumes=tuple(
            _volume(record, f"{where}: volumes[{n}]") for n, record in enumerate(fields.items("volumes"))
        ),
        metadata=fields.texts("metadata"),
        files=files,
        rehearsals=tuple(_rehearsal(record, where) for record in fields.items("rehearsals")),
        created=fields.text("created"),
        tool=fields.text("tool"),
    )
    _check(bundle, where)
    return bundle, warning


def _volume(record: object, where: str) -> Volume:
    fields = Fields(record, where)
    name = fields.text("name")
    if not is_safe_filename(name):
        raise fields.wrong(f"{name!r} is not a plain file name")
    return Volume(
        name, tuple(_piece(piece, f"{where}.pieces[{n}]") for n, piece in enumerate(fields.items("pieces")))
    )


def _piece(record: object, where: str) -> Piece:
    fields = Fields(record, where)
    digest = fields.digest("digest")
    blob = fields.digest_or_none("blob") or digest
    return Piece(blob, digest, fields.count_or_none("offset") or 0, fields.count("size"))


def _rehearsal(record: object, where: str) -> Rehearsal:
    fields = Fields(record, f"{where}: rehearsals")
    return Rehearsal(fields.text("ref"), fields.text("result"), fields.text("detail"), fields.text("at"))


def _check_path(path: str, where: str) -> None:
    parts = path.split("/")
    if (
        len(parts) > 2
        or not all(map(is_safe_filename, parts))
        or path.casefold() in _KNOWN
        or parts[0].casefold() in {"blobs", "parts"}
    ):
        raise IntegrityError(f"{path!r} is not a place for a file of a volume", where=where)


def _check(bundle: Bundle, where: str) -> None:
    """What one part of a manifest may not say about another."""

    def wrong(message: str) -> IntegrityError:
        return IntegrityError(message, where=where)

    if not bundle.volumes:
        raise wrong("has no volume")
    if not is_snapshot_name(bundle.name):
        raise wrong(f"{bundle.name!r} is no name for a snapshot")
    names = [volume.name.casefold() for volume in bundle.volumes]
    if len(set(names)) != len(names):
        raise wrong("two volumes have one name")
    paths = [path.casefold() for path in bundle.files]
    if len(set(paths)) != len(paths):
        raise wrong("two files have one name where case is ignored")
    for digest, pieces in bundle.pieces().items():
        at = 0
        for piece in pieces:
            if piece.offset != at:
                raise wrong(f"the pieces of {digest} do not fit together at byte {at}")
            if not piece.whole and not piece.length:
                raise wrong(f"a piece of {digest} is empty")
            at += piece.length
        if pieces[0].whole and len(pieces) > 1:
            raise wrong(f"{digest} travels twice")
    travelling = bundle.pieces().keys()
    for digest in bundle.requires:
        Fields({"digest": digest}, f"{where}: requires").digest("digest")
        if digest in travelling:
            raise wrong(f"{digest} both travels and is required")
    if not travelling >= set(bundle.metadata):
        raise wrong("names metadata that does not travel")
    if len(set(bundle.metadata)) != len(bundle.metadata) or len(set(bundle.requires)) != len(bundle.requires):
        raise wrong("names one blob twice")
    if bundle.snapshot not in bundle.metadata and bundle.snapshot not in bundle.requires:
        raise wrong("its snapshot neither travels as metadata nor is required")


def label(bundle: Bundle, volume: Volume) -> bytes:
    """The ``VOLUME`` file: which one of how many this is."""
    place = [v.name for v in bundle.volumes].index(volume.name) + 1
    return f"{volume.name}\n{place} of {len(bundle.volumes)}\n".encode()


def expected(bundle: Bundle, volume: Volume, manifest: bytes) -> dict[str, tuple[Digest, int]]:
    """Every file of a volume but ``SHA256SUMS``: path to digest and size in bytes."""
    note = label(bundle, volume)
    found = {
        MANIFEST: (digest_of(manifest), len(manifest)),
        LABEL: (digest_of(note), len(note)),
        **bundle.files,
    }
    return found | {piece.path: (piece.digest, piece.length) for piece in volume.pieces}


def sums(files: Iterable[tuple[str, Digest]]) -> bytes:
    """``SHA256SUMS`` as ``sha256sum -c`` reads it."""
    return "".join(f"{hex_of(digest)}  {path}\n" for path, digest in sorted(files)).encode()


def read_sums(data: bytes) -> dict[str, Digest]:
    """Paths and digests of a ``SHA256SUMS``; raises ``IntegrityError`` naming the line."""
    found: dict[str, Digest] = {}
    for number, line in enumerate(data.decode(errors="replace").splitlines(), 1):
        digits, gap, path = line[:64], line[64:66], line[66:]
        if gap not in {"  ", " *"} or not path or set(digits) - set("0123456789abcdef"):
            raise IntegrityError("is not a line of sha256sum", where=f"{SUMS} line {number}")
        found[path] = f"sha256:{digits}"
    return found


def write_resend(bundle_id: Digest, paths: Iterable[str]) -> bytes:
    """A resend list: the bundle, then ``VOLUME/PATH`` of each piece or file to send again."""
    return "".join(
        [f"haversack-resend 1.0 {bundle_id}\n", *(f"{path}\n" for path in sorted(set(paths)))]
    ).encode()


def read_resend(data: bytes, where: str) -> tuple[Digest, list[str]]:
    """Bundle id and paths of a resend list.  Raises ``IntegrityError``, or ``FormatError`` if newer."""
    remedy = "make one: haversack verify BUNDLE --resend FILE"
    lines = data.decode(errors="replace").splitlines()
    head = lines[0].split() if lines else []
    if len(head) != 3 or head[0] != "haversack-resend":
        raise IntegrityError("is not a resend list", where=where, remedy=remedy)
    check_version(head[1], "1.0", where)
    bundle_id = Fields({"bundle": head[2]}, where, remedy=remedy).digest("bundle")
    return bundle_id, [line for line in lines[1:] if line]
