"""``haversack snapshots | use | prune | diff | receipt``: what a store holds, and which of it counts."""

from __future__ import annotations

from dataclasses import dataclass

from haversack.errors import IntegrityError, NotFoundError
from haversack.model.artifact import Digest
from haversack.model.ledger import GENESIS, stamp
from haversack.model.receipt import Receipt
from haversack.model.snapshot import Change, diff, reachable
from haversack.ports import Inside
from haversack.verbs import holdings
from haversack.verbs.holdings import Held
from haversack.wheels import cache


@dataclass(frozen=True, slots=True)
class Listed:
    """A snapshot as ``haversack snapshots`` shows it; ``bytes`` are those of its blobs.

    One that is not ``whole`` cannot be read: its description lacks a blob.
    """

    name: str
    id: Digest
    current: bool
    at: str
    environments: tuple[str, ...]
    artifacts: int
    bytes: int
    whole: bool = True


@dataclass(frozen=True, slots=True)
class Pruned:
    """What ``prune`` removed (or would remove)."""

    snapshots: tuple[str, ...]
    blobs: int
    bytes: int


def snapshots(inside: Inside) -> list[Listed]:
    """Every snapshot of the store, oldest first."""
    listed = []
    for held in holdings.read(inside.store).held:
        try:
            content = holdings.load(inside.store, held.snapshot)
        except (NotFoundError, IntegrityError):
            listed.append(Listed(held.name, held.snapshot, held.current, held.at, (), 0, 0, whole=False))
            continue
        refs = tuple(environment.ref for environment in content.environments)
        count = len(
            {artifact.digest for environment in content.environments for artifact in environment.artifacts}
        )
        listed.append(
            Listed(held.name, held.snapshot, held.current, held.at, refs, count, sum(content.blobs.values()))
        )
    return listed


def use(name: str, inside: Inside) -> tuple[Held, bool]:
    """Make a snapshot ``current``; whether it was not already.  Raises ``NotFoundError``."""
    with inside.store.exclusive():
        held = holdings.read(inside.store)
        chosen = held.named(name)
        if chosen.current:
            return chosen, False
        lacking = [
            d for d in holdings.load(inside.store, chosen.snapshot).blobs if inside.store.size(d) is None
        ]
        if lacking:
            raise NotFoundError(
                f"snapshot {chosen.name} is not whole: {len(lacking)} blobs are gone, {lacking[0]} first",
                remedy="receive a bundle that holds it again",
            )
        before = held.current.snapshot if held.current else None
        inside.ledger.append("use", chosen.snapshot, {"name": chosen.name, "before": before})
        inside.store.publish(holdings.write(held, chosen.snapshot))
    return chosen, True


def prune(inside: Inside, *, keep: int | None = None, dry_run: bool = False) -> Pruned:
    """Forget all but the ``keep`` newest snapshots and the current one, then drop blobs nobody needs.

    Without ``keep`` no snapshot is forgotten.  Environments that are installed stay as they are.  What the
    cache keeps for wheels that went is removed too (with all of uv's unpacked wheels, which the next install
    unpacks again) and not counted, since environments share most of it.
    """
    store = inside.store
    with store.exclusive():
        held = holdings.read(store)
        newest = {h.name for h in held.held[-keep:]} if keep else set()
        gone = [h for h in held.held if keep is not None and h.name not in newest and not h.current]
        left = tuple(h for h in held.held if h not in gone)
        needed = reachable([holdings.load(store, h.snapshot) for h in left])
        surplus = [(digest, size) for digest, size in store.blobs() if digest not in needed]
        done = Pruned(tuple(h.name for h in gone), len(surplus), sum(size for _, size in surplus))
        if dry_run:
            return done
        if not (gone or surplus):
            # An earlier one may have been killed after the blobs.
            cache.drop_unneeded(inside.cache, store)
            return done
        details = {"forgotten": list(done.snapshots), "blobs": done.blobs, "bytes": done.bytes}
        inside.ledger.append("prune", str(held.current.snapshot if held.current else GENESIS), details)
        current = held.current.snapshot if held.current else None
        # The names first: a kill in between leaves blobs without a name, never a name without blobs.
        store.publish(holdings.write(holdings.Holdings(left, held.site, held.sequence, held.bundle), current))
        with inside.progress("pruning", len(surplus), "") as advance:
            for digest, _ in surplus:
                store.remove(digest)
                advance(1)
        cache.drop_unneeded(inside.cache, store)
    return done


def compare(old: str, new: str, inside: Inside) -> list[Change]:
    """What changed from one snapshot to another, environment by environment."""
    held = holdings.read(inside.store)
    left, right = held.named(old), held.named(new)
    return diff(*holdings.load_both(inside.store, left.snapshot, right.snapshot))


def receipt(inside: Inside) -> Receipt:
    """What the store holds now, as the base of the next pack.  Raises ``NotFoundError`` for an empty store."""
    held, _ = holdings.current_snapshot(inside.store)
    known = holdings.read(inside.store)
    head = inside.ledger.head()
    return Receipt(
        site=known.site,
        snapshot=held.snapshot,
        name=held.name,
        sequence=known.sequence,
        blobs=tuple(digest for digest, _ in inside.store.blobs()),
        ledger=head[1] if head else GENESIS,
        at=stamp(inside.clock.now()),
    )
