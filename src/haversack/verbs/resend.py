"""``haversack pack --resend``: what was lost or damaged on the way, once more."""

from __future__ import annotations

from haversack.crossing import volumes
from haversack.errors import IncompleteError, IntegrityError, NotFoundError
from haversack.formats import bundle as layout
from haversack.model.artifact import Digest, digest_of, hex_of
from haversack.model.bundle import Bundle
from haversack.ports import MediaWriter, Outside
from haversack.verbs.pack import Packed


def resend(data: bytes, where: str, out: Outside, writer: MediaWriter) -> Packed:
    """Write again what a resend list names: the same bundle, only those files.

    Raises ``NotFoundError`` when this store did not pack the bundle, ``IncompleteError`` when it no longer
    holds a blob.
    """
    bundle_id, wanted = layout.read_resend(data, where)
    manifest = out.store.read_state(f"bundles/{hex_of(bundle_id)}.json")
    if manifest is None:
        raise NotFoundError(
            f"bundle {bundle_id} was not packed from this store",
            where=str(out.store),
            remedy="pack on the machine that made it",
        )
    bundle, _ = layout.read(manifest)
    known = {
        f"{v.name}/{path}"
        for v in bundle.volumes
        for path in (*layout.expected(bundle, v, manifest), layout.SUMS)
    }
    unknown = [path for path in wanted if path not in known]
    if unknown:
        raise IntegrityError(
            f"the bundle has no file {unknown[0]}",
            where=where,
            remedy="make the list again: haversack verify --resend FILE",
        )
    only = frozenset(wanted)
    pieces = [p for v in bundle.volumes for p in v.pieces if f"{v.name}/{p.path}" in only]
    lost = [piece.blob for piece in pieces if out.store.size(piece.blob) is None]
    if lost:
        raise IncompleteError(
            f"the store no longer holds {len(lost)} blobs, {lost[0]} first",
            where=str(out.store),
            remedy="pack anew",
        )
    small = _small_again(bundle, out)
    volumes.write(
        bundle,
        manifest,
        small,
        out.store,
        writer,
        out.progress,
        only=only,
        before_finish=lambda: _record_resend(bundle_id, wanted, out),
    )
    volumes_written = len({path.partition("/")[0] for path in wanted})
    return Packed(bundle_id, bundle, sum(p.length for p in pieces), len(pieces), volumes_written, (), ())


def _record_resend(bundle_id: Digest, wanted: list[str], out: Outside) -> None:
    out.ledger.append("resend", bundle_id, {"files": len(wanted)})


def _small_again(bundle: Bundle, out: Outside) -> dict[str, bytes]:
    """The small files of a bundle packed before, as they were."""
    found: dict[str, bytes] = {}
    for path, (digest, _) in bundle.files.items():
        data = out.store.read_state(f"files/{hex_of(digest)}")
        if data is None or digest_of(data) != digest:
            raise IncompleteError(
                f"the store no longer holds {path} of the bundle", where=str(out.store), remedy="pack anew"
            )
        found[path] = data
    return found
