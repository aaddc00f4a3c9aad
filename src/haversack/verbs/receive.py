"""``haversack receive``: verify all, then act."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from haversack.crossing import Examination, examine, only_hash
from haversack.errors import SpaceError
from haversack.model.artifact import Digest, hex_of
from haversack.model.finding import Finding, raise_blocking, worst_first
from haversack.model.ledger import stamp
from haversack.model.snapshot import Snapshot
from haversack.ports import Inside, Media, Store
from haversack.verbs import holdings
from haversack.wheels.install import damaged


@dataclass(frozen=True, slots=True)
class Received:
    """What ``receive`` did.

    ``changed`` is false when the bundle's snapshot was current already, or is an older one of which only
    lost blobs were brought back; findings name the damaged blobs that were replaced.
    """

    id: Digest
    name: str
    snapshot: Snapshot
    files: int
    size: int
    changed: bool
    findings: tuple[Finding, ...]


def receive(media: Media, inside: Inside, *, copy: bool = False, dry_run: bool = False) -> Received:
    """Take a bundle into the store; its snapshot becomes ``current``.

    Blobs are hashed on their way in and only added, so that whatever the site serves stays as it is until
    the last step replaces the index.  A second call finishes what a killed one began.  With ``copy`` no
    blob shares its bytes on disk with the bundle; with ``dry_run`` the store is not written to.

    Blobs that the store holds already are read there and replaced if they are damaged; a bundle that was
    received before brings back what was lost of it, whatever came since.  Raises the error of the worst
    finding, having changed nothing that is served.
    """
    store = inside.store
    with store.exclusive():
        held = holdings.read(store)

        def admit(exam: Examination) -> None:
            bundle = exam.bundle
            assert bundle is not None
            refusals = holdings.refusals(bundle, exam.id, store, held)
            raise_blocking(
                refusals, "the bundle cannot be received here", remedy=refusals[0].remedy if refusals else ""
            )
            coming = sum(size for digest, size in bundle.sizes().items() if store.size(digest) is None)
            if coming > store.free() and media.streamed:
                raise SpaceError(
                    f"{coming} bytes are coming, {store.free()} are free",
                    where=str(store),
                    remedy="free some space",
                )

        mended: list[Finding] = []

        def take(digest: Digest, chunks: Iterable[bytes], *, linkable: Path | None = None) -> None:
            if store.size(digest) is not None and damaged(digest, store):
                inside.ledger.append("mend", digest, {"why": "damaged in the store"})
                store.remove(digest)
                told = "was damaged in the store and is replaced from the bundle"
                mended.append(
                    Finding("store-damaged", digest, told, "ask what happened to the disk", blocking=False)
                )
            store.add(digest, chunks, linkable=None if copy else linkable)

        exam = examine(media, only_hash if dry_run else take, admit, store=store, progress=inside.progress)
        raise_blocking(exam.findings, "the bundle is not whole; nothing was changed")
        bundle, snapshot = exam.bundle, exam.snapshot
        assert bundle is not None
        assert snapshot is not None
        raise_blocking(_shrunk(snapshot, store), "the base is not whole; nothing was changed")
        after, name = holdings.arrived(held, bundle, exam.id, snapshot, stamp(inside.clock.now()))
        older = holdings.older(bundle, exam.id, held)
        changed = not older and (
            exam.id != held.bundle or held.current is None or held.current.snapshot != snapshot.id
        )
        if changed and not dry_run:
            details = {
                "name": name,
                "snapshot": snapshot.id,
                "sequence": bundle.sequence,
                "site": bundle.site,
            }
            inside.ledger.append("receive", exam.id, details)
            store.write_state(f"bundles/{hex_of(exam.id)}.json", exam.manifest)
            store.publish(holdings.write(after, snapshot.id))
    sizes = bundle.sizes()
    total = sum(sizes.values())
    findings = worst_first([*exam.findings, *mended])
    return Received(exam.id, name, snapshot, len(sizes), total, changed, tuple(findings))


def _shrunk(snapshot: Snapshot, store: Store) -> list[Finding]:
    """A finding for every blob that the store already held at another size than the snapshot needs."""
    return [
        Finding(
            "store-damaged",
            digest,
            f"has {held} bytes instead of {size}",
            "haversack doctor --drop-damaged, then receive the bundle that brought it",
        )
        for digest, size in snapshot.blobs.items()
        if (held := store.size(digest)) not in {None, size}
    ]
