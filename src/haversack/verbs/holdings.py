"""What a store holds, by name: the ``index.json`` as haversack reads and writes it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from haversack.errors import IntegrityError, NotFoundError
from haversack.formats import oci
from haversack.formats.canonical import Fields
from haversack.model.artifact import Digest
from haversack.model.bundle import Bundle
from haversack.model.finding import Finding
from haversack.model.snapshot import CURRENT, Snapshot, free_name
from haversack.ports import Store

BUNDLE = "io.haversack.bundle"
SITE = "io.haversack.site"
AT = "io.haversack.at"
_REMEDY = "restore index.json from a backup, or receive the newest bundle into an empty store"


@dataclass(frozen=True, slots=True)
class Held:
    """A snapshot of the store: its name, digest, when it came and by which bundle."""

    name: str
    snapshot: Digest
    size: int
    at: str
    current: bool


@dataclass(frozen=True, slots=True)
class Holdings:
    """Named snapshots, oldest first, and the newest bundle that was taken in (or packed)."""

    held: tuple[Held, ...]
    site: str
    sequence: int
    bundle: Digest | None

    @property
    def current(self) -> Held | None:
        """The snapshot that the site uses."""
        return next((held for held in self.held if held.current), None)

    def named(self, name: str) -> Held:
        """The snapshot of that name, or of that digest or the beginning of one.  Raises ``NotFoundError``."""
        if name == CURRENT and self.current:
            return self.current
        for held in self.held:
            if held.name == name:
                return held
        digits = name.removeprefix("sha256:")
        matches = [
            held for held in self.held if len(digits) >= 6 and held.snapshot.startswith(f"sha256:{digits}")
        ]
        if len({held.snapshot for held in matches}) == 1:
            return matches[0]
        known = ", ".join(held.name for held in self.held) or "none"
        raise NotFoundError(
            f"no snapshot {name!r}; the store holds {known}", remedy="see: haversack snapshots"
        )


def read(store: Store) -> Holdings:
    """What the store's index says.  Raises ``IntegrityError`` naming the entry that is wrong."""
    index = store.index()
    current: Digest | None = None
    held: list[Held] = []
    for number, record in enumerate(index["manifests"]):
        fields = Fields(record, f"index.json: manifests[{number}]", remedy=_REMEDY)
        notes = Fields(fields.table("annotations"), fields.where, remedy=_REMEDY)
        name = notes.text(oci.REF_NAME)
        if name == CURRENT:
            current = fields.digest("digest")
            continue
        held.append(
            Held(
                name,
                fields.digest("digest"),
                fields.count("size"),
                notes.text_or_none(AT) or "",
                current=False,
            )
        )
    notes = Fields(index.get("annotations") or {}, "index.json: annotations", remedy=_REMEDY)
    return Holdings(
        held=tuple(Held(h.name, h.snapshot, h.size, h.at, h.snapshot == current) for h in held),
        site=notes.text_or_none(SITE) or "",
        sequence=_number(notes),
        bundle=notes.digest_or_none(BUNDLE),
    )


def _number(notes: Fields) -> int:
    """The number of the newest bundle; annotations are strings, so a number stands there as one."""
    text = notes.text_or_none(oci.SEQUENCE) or "0"
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise notes.wrong(f"{oci.SEQUENCE!r} is not a number")
    return int(text)


def write(holdings: Holdings, current: Digest | None) -> dict[str, Any]:
    """The index of some holdings, with ``current`` pointing at one snapshot."""
    manifests = [oci.named(h.snapshot, h.size, h.name, {AT: h.at}) for h in holdings.held]
    manifests += [oci.named(h.snapshot, h.size, CURRENT) for h in holdings.held if h.snapshot == current][:1]
    notes = {SITE: holdings.site, oci.SEQUENCE: str(holdings.sequence)}
    if holdings.bundle:
        notes[BUNDLE] = holdings.bundle
    return {**oci.empty_index(), "manifests": manifests, "annotations": notes}


def added(holdings: Holdings, name: str, snapshot: Snapshot, size: int, at: str) -> tuple[Holdings, str]:
    """The holdings with one more snapshot, and the name it got: its own, unless another has that."""
    for held in holdings.held:
        if held.snapshot == snapshot.id:
            return holdings, held.name
    given = free_name(name, [held.name for held in holdings.held])
    more = Held(given, snapshot.id, size, at, current=False)
    return Holdings((*holdings.held, more), holdings.site, holdings.sequence, holdings.bundle), given


def arrived(
    holdings: Holdings, bundle: Bundle, bundle_id: Digest, snapshot: Snapshot, at: str
) -> tuple[Holdings, str]:
    """The holdings once a bundle was received (or packed), and the name its snapshot got."""
    more, name = added(holdings, bundle.name, snapshot, snapshot.blobs[snapshot.id], at)
    return Holdings(more.held, bundle.site, bundle.sequence, bundle_id), name


def load(store: Store, digest: Digest, *, without: Collection[Digest] = ()) -> Snapshot:
    """A snapshot of the store, every byte of its metadata checked; ``without`` names manifests to leave out."""
    return oci.read(digest, _reader(store), without=without)


def load_both(store: Store, old: Digest, new: Digest) -> tuple[Snapshot, Snapshot]:
    """Two snapshots to compare, without the environments that they have in common."""
    shared = oci.manifests_of(old, _reader(store)) & oci.manifests_of(new, _reader(store))
    return load(store, old, without=shared), load(store, new, without=shared)


def _reader(store: Store) -> Callable[[Digest], bytes]:
    def blob(digest: Digest) -> bytes:
        with store.open(digest) as file:
            return file.read()

    return blob


def current_snapshot(store: Store, name: str | None = None) -> tuple[Held, Snapshot]:
    """The snapshot of that name, or the current one.  Raises ``NotFoundError`` where there is none."""
    holdings = read(store)
    held = holdings.named(name) if name else holdings.current
    if held is None:
        raise NotFoundError(
            "the store holds no snapshot yet", where=str(store), remedy="haversack receive BUNDLE"
        )
    try:
        return held, load(store, held.snapshot)
    except NotFoundError as problem:
        raise IntegrityError(
            f"snapshot {held.name} is not whole: {problem.message}", where=str(store)
        ) from problem


def refusals(bundle: Bundle, bundle_id: Digest, store: Store, held: Holdings) -> list[Finding]:
    """Why a store cannot take a bundle in, however sound it is: another site's, without its base, or older."""
    if held.site and bundle.site != held.site:
        said = f"is for site {bundle.site!r}; the store holds site {held.site!r}"
        return [Finding("site-other", bundle_id, said, "give the store of that site: --store")]
    lacking = any(store.size(digest) is None for digest in bundle.sizes())
    if lacking and any(h.snapshot == bundle.snapshot for h in held.held):
        # It was received before and something of it was lost since: it may bring that back, and no more.
        return []
    return base_missing(bundle, store) + older(bundle, bundle_id, held)


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


def older(bundle: Bundle, bundle_id: Digest, held: Holdings) -> list[Finding]:
    """A finding if the store has already taken in a newer bundle, or another of the same number."""
    if bundle.sequence > held.sequence or bundle_id == held.bundle:
        return []
    message = f"is number {bundle.sequence} of site {bundle.site}; number {held.sequence} was received before"
    remedy = "to go back to an older snapshot: haversack use NAME; to bring new content: pack with this site's receipt"
    return [Finding("bundle-older", bundle_id, message, remedy)]
