"""``haversack push``: a snapshot, its environments and its images into a registry that the site has already."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from haversack.errors import NotFoundError, UsageError
from haversack.formats import oci
from haversack.formats.canonical import canonical, parse
from haversack.images.inside import WHOLE
from haversack.images.manifest import read
from haversack.images.reference import Reference
from haversack.model.artifact import Artifact, Digest, digest_of
from haversack.model.finding import Finding
from haversack.model.snapshot import CURRENT, NAME_RULE, Snapshot, SnapshotEnvironment
from haversack.ports import Inside, Manifest, Push, Store
from haversack.verbs import holdings
from haversack.views.v2 import OWN

_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Pushed:
    """What ``push`` put into a registry, or would put there on a dry run.

    ``references`` are the names that can be pulled now, with the digest that each means; ``blobs`` counts the
    files that were sent and ``size`` their bytes, ``present`` those that were there, in that repository or in
    another one that gave them.
    """

    registry: str
    snapshot: str
    references: tuple[tuple[str, Digest], ...]
    blobs: int
    size: int
    present: int
    findings: tuple[Finding, ...]


@dataclass(slots=True)
class _Repository:
    """What one repository is to hold: blobs and their sizes, manifests after all that they name, tags."""

    name: str
    blobs: dict[Digest, int] = field(default_factory=dict)
    manifests: dict[Digest, Manifest] = field(default_factory=dict)
    tags: dict[str, Digest] = field(default_factory=dict)


def push(
    registry: str,
    inside: Inside,
    port: Push,
    *,
    snapshot: str | None = None,
    only: Sequence[str] = (),
    dry_run: bool = False,
) -> Pushed:
    """Fill ``registry`` (a host, and what stands before every name there) from a snapshot, the current one.

    Images keep their names and digests below it: ``REGISTRY/docker.io/library/python:3.11-slim``.  The snapshot
    and its environments are ``REGISTRY/haversack/snapshot`` with the tags ``NAME-OF-SNAPSHOT``, ``current`` and
    ``ENVIRONMENT__TARGET``.  ``only`` names environments and images.  What is there already is not sent, so that
    a second run goes on where the first one ended.  Raises ``FetchError``, ``NotFoundError``, ``IntegrityError``,
    and ``UsageError`` for a snapshot that is called like the tag of one of its environments.
    """
    held, content = holdings.current_snapshot(inside.store, snapshot)
    findings: list[Finding] = []
    repositories: dict[str, _Repository] = {}
    wanted = _wanted(content, only)
    for environment in content.environments:
        for artifact, name in _roots(environment, wanted):
            reference = Reference.parse(name)
            place = f"{registry}/{reference.repository.replace(':', '_').lower()}"
            repository = repositories.setdefault(place, _Repository(place))
            images = {a.digest: a for a in environment.artifacts if a.kind == "image"}
            _image(repository, artifact, reference, images, inside.store, findings)
    own = _Repository(f"{registry}/{OWN}")
    _own(own, content, held.name, held.current, only, inside.store)
    if own.tags:
        repositories[own.name] = own
    sent, present, size = _blobs(list(repositories.values()), inside, port, dry_run=dry_run)
    references = tuple(
        (f"{r.name}:{tag}" if ":" not in tag else f"{r.name}@{tag}", digest)
        for r in repositories.values()
        for tag, digest in sorted(r.tags.items())
    )
    done = Pushed(registry, held.name, references, sent, size, present, tuple(findings))
    if dry_run:
        return done
    # Recorded before anything has a name there: an act that cannot be recorded does not happen.
    details = {"registry": registry, "name": held.name, "references": [name for name, _ in references]}
    inside.ledger.append("push", content.id, details)
    for repository in repositories.values():
        for digest, manifest in repository.manifests.items():
            if not port.has(repository.name, digest, manifest=True):
                port.manifest(repository.name, digest, manifest)
        for tag, digest in repository.tags.items():
            if ":" not in tag:
                port.manifest(repository.name, tag, repository.manifests[digest])
    return done


def _wanted(content: Snapshot, only: Sequence[str]) -> Collection[str]:
    """The names in ``only``.  Raises ``NotFoundError`` for one that nothing in the snapshot has."""
    known = {e.locked.name for e in content.environments}
    known |= {name for e in content.environments for a in e.artifacts for name in a.facts.get("refs", ())}
    for name in only:
        if name not in known:
            raise NotFoundError(
                f"the snapshot holds neither an environment nor an image {name!r}",
                remedy=f"name one of {', '.join(sorted(known))}",
            )
    return frozenset(only)


def _roots(environment: SnapshotEnvironment, wanted: Collection[str]) -> Iterator[tuple[Artifact, str]]:
    """The images of an environment that are wanted, each with each of its names."""
    for artifact in environment.artifacts:
        for name in artifact.facts.get("refs", ()) if artifact.kind == "image" else ():
            if not wanted or name in wanted or environment.locked.name in wanted:
                yield artifact, name


def _image(
    repository: _Repository,
    root: Artifact,
    reference: Reference,
    images: dict[Digest, Artifact],
    store: Store,
    findings: list[Finding],
) -> None:
    """Put an image, all that it is made of and what refers to it into a repository, under its tag or digest."""
    top = _manifest(repository, root.digest, images, store)
    if top != root.digest:
        message = (
            f"is pushed as {top}, a list of the platforms that travelled: registries refuse {root.digest}, "
            "which names more"
        )
        findings.append(Finding("image-sparse", reference.name, message, WHOLE, blocking=False))
    repository.tags[reference.tag or top] = top
    subjects = {*repository.manifests, root.digest}
    for artifact in images.values():
        if artifact.facts.get("subject") in subjects:
            _manifest(repository, artifact.digest, images, store)


def _manifest(
    repository: _Repository, digest: Digest, images: dict[Digest, Artifact], store: Store
) -> Digest:
    """Put a manifest and what it names into a repository; its digest there.

    A list that names what did not travel is made anew with the rest of it, since registries take no list
    whose manifests they lack.
    """
    facts = images[digest].facts
    with store.open(digest) as blob:
        data = blob.read()
    manifest = Manifest(facts["media_type"], data)
    told = read(manifest, digest)
    if not told.is_index:
        for part in told.parts:
            if part.digest in images:
                repository.blobs[part.digest] = part.size
        repository.manifests[digest] = manifest
        return digest
    below = {
        part.digest: _manifest(repository, part.digest, images, store)
        for part in told.parts
        if part.digest in images
    }
    if len(below) < len({part.digest for part in told.parts}) or any(a != b for a, b in below.items()):
        manifest = Manifest(manifest.media_type, _narrowed(data, below, repository))
    found = digest_of(manifest.data)
    repository.manifests[found] = manifest
    return found


def _narrowed(data: bytes, below: dict[Digest, Digest], repository: _Repository) -> bytes:
    """A list of manifests with those alone that are there."""
    value = parse(data, "index")
    value["manifests"] = [
        {**entry, "digest": there, "size": len(repository.manifests[there].data)}
        for entry in value["manifests"]
        if (there := below.get(entry["digest"]))
    ]
    return canonical(value)


def _own(
    repository: _Repository, content: Snapshot, name: str, current: bool, only: Sequence[str], store: Store
) -> None:
    """Put the environments and, unless only some are wanted, the snapshot into haversack's own repository."""

    def load(digest: Digest) -> bytes:
        with store.open(digest) as blob:
            return blob.read()

    index = load(content.id)
    refs = {e.manifest: e for e in content.environments}
    for entry in parse(index, f"snapshot {content.id}")["manifests"]:
        environment = refs.get(entry["digest"])
        if only and (environment is None or environment.locked.name not in only):
            continue
        data = load(entry["digest"])
        told = parse(data, f"manifest {entry['digest']}")
        for part in (told["config"], *told["layers"]):
            repository.blobs[part["digest"]] = part["size"]
        repository.manifests[entry["digest"]] = Manifest(oci.MANIFEST, data)
        if environment is not None:
            repository.tags[_tag(environment)] = entry["digest"]
    if not only:
        if name in {_tag(environment) for environment in content.environments}:
            raise UsageError(
                f"the snapshot {name!r} is called like the tag of one of its environments",
                remedy=f"pack it under another name (haversack pack --name): {NAME_RULE}",
            )
        repository.manifests[content.id] = Manifest(oci.INDEX, index)
        repository.tags |= {name: content.id, **({CURRENT: content.id} if current else {})}


def _tag(environment: SnapshotEnvironment) -> str:
    """The tag of an environment: no tag has a slash."""
    return environment.ref.replace("/", "__")


def _blobs(
    repositories: Sequence[_Repository], inside: Inside, port: Push, *, dry_run: bool
) -> tuple[int, int, int]:
    """Send the blobs that are not there; how many were sent, how many were there, how many bytes were sent."""
    places: dict[Digest, list[str]] = {}
    sizes: dict[Digest, int] = {}
    for repository in repositories:
        for digest, size in repository.blobs.items():
            places.setdefault(digest, []).append(repository.name)
            sizes[digest] = size
    with ThreadPoolExecutor(_AT_ONCE) as pool:

        def look(digest: Digest) -> list[str]:
            return [place for place in places[digest] if port.has(place, digest)]

        there = dict(zip(places, pool.map(look, places), strict=True))
        missing = {
            d: [p for p in places[d] if p not in there[d]] for d in places if len(there[d]) < len(places[d])
        }
        total = sum(sizes[d] for d in missing if not there[d])

        def send(digest: Digest) -> int:
            have, sent = list(there[digest]), 0
            for place in missing[digest]:
                if dry_run:
                    # The registry is believed to hand on what one of its repositories has.
                    sent += not have
                elif port.blob(place, digest, sizes[digest], lambda: inside.store.open(digest), have):
                    sent += 1
                have.append(place)
            advance(0 if there[digest] else sizes[digest])
            return sent

        with inside.progress("pushing", total) as advance:
            # The largest first: the last to arrive should be small.
            order = sorted(missing, key=lambda digest: -sizes[digest])
            sent = dict(zip(order, pool.map(send, order), strict=True))
    count = sum(sent.values())
    pairs = sum(len(named) for named in places.values())
    return count, pairs - count, sum(sizes[digest] * times for digest, times in sent.items())
