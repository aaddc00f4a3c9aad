"""``haversack pack``: collect, prove, rehearse, write volumes."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from haversack import __version__
from haversack.errors import IncompleteError, IntegrityError, NotFoundError, SpaceError, UsageError
from haversack.formats import bundle as layout
from haversack.formats import handout, oci
from haversack.formats.canonical import canonical
from haversack.kinds import prove_all
from haversack.model.artifact import Digest, digest_of
from haversack.model.bundle import VOLUME_OVERHEAD, Bundle, Piece, Rehearsal, Volume, cut
from haversack.model.finding import Finding, raise_blocking
from haversack.model.ledger import stamp
from haversack.model.lock import TOOL, Lock
from haversack.model.receipt import Receipt
from haversack.model.snapshot import Change, Snapshot, diff
from haversack.ports import MediaWriter, Outside, Store
from haversack.verbs import collect, holdings
from haversack.verbs.rehearse import rehearse

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Base:
    """What the inside holds already: a receipt's blobs, or those of a snapshot packed before."""

    snapshot: Digest
    sequence: int
    blobs: frozenset[Digest]
    label: str


@dataclass(frozen=True, slots=True)
class Packed:
    """What ``pack`` wrote."""

    id: Digest
    bundle: Bundle
    size: int
    files: int
    changes: tuple[Change, ...]
    findings: tuple[Finding, ...]


def base_of_receipt(receipt: Receipt) -> Base:
    """The base that a site's receipt names."""
    return Base(
        receipt.snapshot, receipt.sequence, frozenset(receipt.blobs), f"{receipt.name} ({receipt.site})"
    )


def base_of_snapshot(store: Store, name: str) -> Base:
    """The base that is a snapshot packed here before.  Raises ``NotFoundError``."""
    held = holdings.read(store)
    named = held.named(name)
    return Base(
        named.snapshot, held.sequence, frozenset(holdings.load(store, named.snapshot).blobs), named.name
    )


def pack(
    lock: Lock,
    root: Path,
    out: Outside,
    writer: MediaWriter,
    *,
    base: Base | None = None,
    name: str | None = None,
    volume_size: int | None = None,
    rehearsing: bool = True,
    tell: Callable[[collect.Plan], None] = lambda _: None,
) -> Packed:
    """Make a bundle of a lock.

    Everything is collected, read, proven and rehearsed before the first byte is written; ``tell`` hears
    what it will cost before anything is fetched.  With ``base`` only what it lacks travels.  Raises the
    error of the worst finding.
    """
    store = out.store
    with store.exclusive():
        planned = collect.plan(lock, out, base.blobs if base else ())
        tell(planned)
        facts = collect.collect(lock, root, planned, out)
        snapshot, metadata = oci.build(lock, facts)
        for digest, data in metadata.items():
            store.add(digest, [data])
        findings = prove_all(snapshot.environments)
        raise_blocking(
            findings,
            "the closure proof failed",
            remedy="run: haversack lock --upgrade, or mend the requirements",
        )
        if rehearsing:
            rehearsals, more = rehearse(snapshot.environments, out)
            raise_blocking(
                more,
                "the rehearsal failed: it would not work inside either",
                remedy="mend it, or pack with --no-rehearse",
            )
            findings += more
        else:
            at = stamp(out.clock.now())
            rehearsals = [
                Rehearsal(e.ref, "off", "--no-rehearse was given", at) for e in snapshot.environments
            ]
        held = holdings.read(store)
        bundle, small = _plan(
            snapshot,
            lock.site,
            held,
            base,
            name or out.clock.now().strftime("%Y-%m"),
            volume_size,
            rehearsals,
            out,
        )
        manifest = layout.write(bundle)
        bundle_id = digest_of(manifest)
        _write(
            bundle,
            manifest,
            small,
            store,
            writer,
            out,
            before_finish=lambda: _record(bundle, manifest, small, snapshot, held, out),
        )
    old = _known(base, held, store)
    sizes = bundle.sizes()
    return Packed(
        bundle_id, bundle, sum(sizes.values()), len(sizes), tuple(diff(old, snapshot)), tuple(findings)
    )


def _known(base: Base | None, held: holdings.Holdings, store: Store) -> Snapshot | None:
    """The base as a snapshot, where this store holds it, to say what changed."""
    if base is None or not any(h.snapshot == base.snapshot for h in held.held):
        return None
    return holdings.load(store, base.snapshot)


def _plan(
    snapshot: Snapshot,
    site: str,
    held: holdings.Holdings,
    base: Base | None,
    name: str,
    volume_size: int | None,
    rehearsals: list[Rehearsal],
    out: Outside,
) -> tuple[Bundle, dict[str, bytes]]:
    """The manifest, and the small files that stand on every volume."""
    has = base.blobs if base else frozenset()
    metadata = tuple(digest for digest in snapshot.metadata if digest not in has)
    # The tool first: whoever has only the first volume can already install haversack.
    order = [
        a.digest
        for e in sorted(snapshot.environments, key=lambda e: (e.locked.name != TOOL, e.ref))
        for a in e.artifacts
    ]
    travelling = [d for d in dict.fromkeys([*metadata, *order]) if d not in has]
    ref = oci.named(snapshot.id, snapshot.blobs[snapshot.id], name)
    always = {
        "bootstrap.sh": handout.bootstrap(),
        "oci-layout": oci.LAYOUT_FILE,
        "index.json": canonical({**oci.empty_index(), "manifests": [ref]}),
        **handout.tables(snapshot),
    }
    created = stamp(out.clock.now())

    def laid_out(volumes: tuple[Volume, ...]) -> tuple[Bundle, dict[str, bytes]]:
        readme = handout.readme(site, name, len(volumes), snapshot, base.label if base else None)
        small = {"README.txt": readme, **always}
        bundle = Bundle(
            site=site,
            sequence=max(held.sequence, base.sequence if base else 0) + 1,
            name=name,
            snapshot=snapshot.id,
            base=base.snapshot if base else None,
            requires=tuple(sorted(digest for digest in snapshot.blobs if digest in has)),
            volumes=volumes,
            metadata=metadata,
            files={path: (digest_of(data), len(data)) for path, data in small.items()},
            rehearsals=tuple(rehearsals),
            created=created,
            tool=f"haversack {__version__}",
        )
        return bundle, small

    reserve = VOLUME_OVERHEAD
    while True:
        try:
            shares = cut([(digest, snapshot.blobs[digest]) for digest in travelling], volume_size, reserve)
        except ValueError as problem:
            raise UsageError(str(problem), remedy="give larger volumes: --volume-size") from problem
        # Volumes are measured before the parts of split blobs are hashed: every digest is as long as another.
        bundle, _ = laid_out(_volumes(shares, snapshot, lambda digest, *_: digest_of(digest.encode())))
        weigh = functools.partial(_weight, bundle, layout.write(bundle))
        excess = max(map(weigh, bundle.volumes)) - (volume_size or 0)
        if volume_size is None or excess <= 0:
            return laid_out(_volumes(shares, snapshot, functools.partial(_part_digest, out.store)))
        # The lists that stand on every volume grow with the site.
        reserve += excess


def _volumes(
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


def _weight(bundle: Bundle, manifest: bytes, volume: Volume) -> int:
    """The bytes of all files of a volume."""
    files = layout.expected(bundle, volume, manifest)
    sums = layout.sums((path, digest) for path, (digest, _) in files.items())
    return sum(size for _, size in files.values()) + len(sums)


def _part_digest(store: Store, digest: Digest, offset: int, length: int) -> Digest:
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


def _write(
    bundle: Bundle,
    manifest: bytes,
    small: dict[str, bytes],
    store: Store,
    writer: MediaWriter,
    out: Outside,
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
    with out.progress("packing", total) as advance:
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


def _record(
    bundle: Bundle,
    manifest: bytes,
    small: dict[str, bytes],
    snapshot: Snapshot,
    held: holdings.Holdings,
    out: Outside,
) -> None:
    """Enter the bundle into the ledger and the store, so that parts of it can be sent again."""
    bundle_id = digest_of(manifest)
    details = {
        "name": bundle.name,
        "snapshot": bundle.snapshot,
        "sequence": bundle.sequence,
        "base": bundle.base,
        "site": bundle.site,
    }
    out.ledger.append("pack", bundle_id, details)
    out.store.write_state(f"bundles/{bundle_id[7:]}.json", manifest)
    for data in small.values():
        out.store.write_state(f"files/{digest_of(data)[7:]}", data)
    after, _ = holdings.added(
        held, bundle.name, snapshot, snapshot.blobs[snapshot.id], stamp(out.clock.now())
    )
    after = holdings.Holdings(after.held, bundle.site, bundle.sequence, bundle_id)
    out.store.publish(holdings.write(after, snapshot.id))


def resend(data: bytes, where: str, out: Outside, writer: MediaWriter) -> Packed:
    """Write again what a resend list names: the same bundle, only those files.

    Raises ``NotFoundError`` when this store did not pack the bundle, ``IncompleteError`` when it no longer
    holds a blob.
    """
    bundle_id, wanted = layout.read_resend(data, where)
    manifest = out.store.read_state(f"bundles/{bundle_id[7:]}.json")
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
    _write(
        bundle,
        manifest,
        small,
        out.store,
        writer,
        out,
        only=only,
        before_finish=lambda: _record_resend(bundle_id, wanted, out),
    )
    return Packed(bundle_id, bundle, sum(p.length for p in pieces), len(pieces), (), ())


def _record_resend(bundle_id: Digest, wanted: list[str], out: Outside) -> None:
    out.ledger.append("resend", bundle_id, {"files": len(wanted)})


def _small_again(bundle: Bundle, out: Outside) -> dict[str, bytes]:
    """The small files of a bundle packed before, as they were."""
    found: dict[str, bytes] = {}
    for path, (digest, _) in bundle.files.items():
        data = out.store.read_state(f"files/{digest[7:]}")
        if data is None or digest_of(data) != digest:
            raise IncompleteError(
                f"the store no longer holds {path} of the bundle", where=str(out.store), remedy="pack anew"
            )
        found[path] = data
    return found
