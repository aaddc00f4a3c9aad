"""``haversack pack``: collect, prove, rehearse, write volumes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from haversack import __version__
from haversack.crossing import volumes
from haversack.errors import UsageError
from haversack.formats import bundle as layout
from haversack.formats import handout, oci
from haversack.formats.canonical import canonical
from haversack.kinds import prove_all
from haversack.model.artifact import Digest, digest_of, hex_of
from haversack.model.bundle import VOLUME_OVERHEAD, Bundle, Rehearsal, Volume, cut
from haversack.model.finding import Finding, raise_blocking
from haversack.model.ledger import stamp
from haversack.model.lock import TOOL, Lock
from haversack.model.receipt import Receipt
from haversack.model.snapshot import Change, Snapshot, diff
from haversack.ports import MediaWriter, Outside, Store
from haversack.verbs import collect, holdings
from haversack.verbs.rehearse import rehearse


@dataclass(frozen=True, slots=True)
class Base:
    """What the inside holds already: a receipt's blobs, or those of a snapshot packed before.

    ``site`` is ``None`` for a snapshot: one store outside may have packed for several sites.
    """

    site: str | None
    snapshot: Digest
    sequence: int
    blobs: frozenset[Digest]
    label: str


@dataclass(frozen=True, slots=True)
class Packed:
    """What ``pack`` wrote: the bundle, and how many bytes of how many files in how many volumes."""

    id: Digest
    bundle: Bundle
    size: int
    files: int
    volumes: int
    changes: tuple[Change, ...]
    findings: tuple[Finding, ...]


def base_of_receipt(receipt: Receipt) -> Base:
    """The base that a site's receipt names."""
    return Base(
        receipt.site,
        receipt.snapshot,
        receipt.sequence,
        frozenset(receipt.blobs),
        f"{receipt.name} ({receipt.site})",
    )


def base_of_snapshot(store: Store, name: str) -> Base:
    """The base that is a snapshot packed here before.  Raises ``NotFoundError``."""
    held = holdings.read(store)
    named = held.named(name)
    return Base(
        None, named.snapshot, held.sequence, frozenset(holdings.load(store, named.snapshot).blobs), named.name
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
    if base is not None and base.site not in {None, lock.site}:
        raise UsageError(
            f"the base is of site {base.site!r}; the lock is for {lock.site!r}",
            remedy="give a receipt or a snapshot of this site",
        )
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
            remedy="do what the findings say, and lock again: haversack lock (or lock --upgrade)",
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
        volumes.write(
            bundle,
            manifest,
            small,
            store,
            writer,
            out.progress,
            before_finish=lambda: _record(bundle, manifest, small, snapshot, held, out),
        )
    old = _known(base, held, store)
    sizes = bundle.sizes()
    return Packed(
        bundle_id,
        bundle,
        sum(sizes.values()),
        len(sizes),
        len(bundle.volumes),
        tuple(diff(old, snapshot)),
        tuple(findings),
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

    def laid_out(parts: tuple[Volume, ...]) -> tuple[Bundle, dict[str, bytes]]:
        readme = handout.readme(site, name, len(parts), snapshot, base.label if base else None)
        small = {"README.txt": readme, **always}
        bundle = Bundle(
            site=site,
            sequence=max(held.sequence, base.sequence if base else 0) + 1,
            name=name,
            snapshot=snapshot.id,
            base=base.snapshot if base else None,
            requires=tuple(sorted(digest for digest in snapshot.blobs if digest in has)),
            volumes=parts,
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
        bundle, _ = laid_out(
            volumes.volumes_of(shares, snapshot, lambda digest, *_: digest_of(digest.encode()))
        )
        weigh = functools.partial(volumes.weight, bundle, layout.write(bundle))
        excess = max(map(weigh, bundle.volumes)) - (volume_size or 0)
        if volume_size is None or excess <= 0:
            return laid_out(
                volumes.volumes_of(shares, snapshot, functools.partial(volumes.part_digest, out.store))
            )
        # The lists that stand on every volume grow with the site.
        reserve += excess


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
    out.store.write_state(f"bundles/{hex_of(bundle_id)}.json", manifest)
    for data in small.values():
        out.store.write_state(f"files/{hex_of(digest_of(data))}", data)
    after, _ = holdings.arrived(held, bundle, bundle_id, snapshot, stamp(out.clock.now()))
    out.store.publish(holdings.write(after, snapshot.id))
