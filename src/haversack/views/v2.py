"""The images of a snapshot, and the snapshot itself, as a registry (OCI distribution specification 1.1, "pull").

Names are whole, host first: ``docker.io/library/python/manifests/3.11-slim``.  A registry that mirrors several
others is asked in this way by every runtime that can be given a mirror.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from haversack.formats import oci
from haversack.formats.canonical import canonical
from haversack.model.artifact import Artifact, Digest, digest_of
from haversack.model.finding import Finding
from haversack.model.snapshot import CURRENT, Snapshot
from haversack.views import FILE, JSON, Page, clash, safe

PREFIX = "v2"
OWN = "haversack/snapshot"
"""The repository of the snapshot as an OCI artifact; no reference of an image can mean it: it has no host."""
CATALOG = "_catalog"
_MANIFESTS, _BLOBS, _TAGS, _REFERRERS = "manifests", "blobs", "tags/list", "referrers"
# What a tag may be; whatever else comes after a colon is part of a host's port or of a digest.
_REFERENCE = re.compile(r"(?P<name>[^@]+?)(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9._-]{0,127}))?(?:@.*)?")


@dataclass(frozen=True, slots=True)
class Manifest:
    """What must be said of a manifest or an index without opening it; ``size`` is in bytes."""

    media_type: str
    size: int
    artifact_type: str | None = None
    subject: Digest | None = None
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(slots=True)
class Repository:
    """One name: its tags, its manifests, and the sizes of its other blobs."""

    tags: dict[str, Digest] = field(default_factory=dict)
    manifests: dict[Digest, Manifest] = field(default_factory=dict)
    blobs: dict[Digest, int] = field(default_factory=dict)

    def paths(self) -> Iterator[str]:
        """What lies below the repository's name, sorted."""
        found = [f"{_BLOBS}/{digest}" for digest in self.blobs]
        found += [f"{_MANIFESTS}/{name}" for name in (*self.manifests, *self.tags)]
        found += [f"{_REFERRERS}/{digest}" for digest in self.manifests]
        yield from sorted([*found, _TAGS])

    def get(self, path: str, name: str) -> Page | None:
        """The page below the repository's name."""
        if path == _TAGS:
            return _page({"name": name, "tags": sorted(self.tags)}, JSON)
        kind, _, reference = path.partition("/")
        if kind == _BLOBS and (size := self.blobs.get(reference)) is not None:
            return Page(FILE, size, blob=reference)
        digest = self.tags.get(reference, reference) if kind == _MANIFESTS else reference
        manifest = self.manifests.get(digest)
        if kind == _MANIFESTS and manifest:
            return Page(manifest.media_type, manifest.size, blob=digest)
        if kind == _REFERRERS and manifest:
            return _page(self._referrers(digest), oci.INDEX)
        return None

    def _referrers(self, subject: Digest) -> dict[str, object]:
        """An index of the manifests with that subject, as the specification wants it: empty where there is none."""
        found = []
        for digest, manifest in sorted(self.manifests.items()):
            if manifest.subject == subject:
                entry = {"mediaType": manifest.media_type, "digest": digest, "size": manifest.size}
                kind = {"artifactType": manifest.artifact_type} if manifest.artifact_type else {}
                notes = {"annotations": dict(manifest.annotations)} if manifest.annotations else {}
                found.append({**entry, **kind, **notes})
        return {**oci.empty_index(), "manifests": found}


class Registry:
    """Every image under each name that the declaration gave it, and the snapshot under :data:`OWN`."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._findings: list[Finding] = []
        self.repositories: dict[str, Repository] = {}
        """Repositories by their names, as paths: a port is part of the host (``registry.example.org_5000``)."""
        for environment in snapshot.environments:
            images = {a.digest: a for a in environment.artifacts if a.kind == "image"}
            self._add(images)
        self.repositories[OWN] = _own(snapshot)
        self.repositories = dict(sorted(self.repositories.items(), key=lambda item: f"{item[0]}/"))

    def _add(self, images: Mapping[Digest, Artifact]) -> None:
        """Put the images of one environment under their names, each with all that belongs to it."""
        referrers: dict[str, list[Digest]] = {}
        for artifact in images.values():
            if subject := _text(artifact, "subject"):
                referrers.setdefault(subject, []).append(artifact.digest)
        for root in sorted(images.values(), key=lambda a: a.digest):
            for reference in _texts(root, "refs"):
                match = _REFERENCE.fullmatch(reference)
                if match is None:
                    continue
                name = "/".join(map(safe, match["name"].replace(":", "_").split("/")))
                repository = self.repositories.setdefault(name, Repository())
                held = repository.tags.setdefault(match["tag"], root.digest) if match["tag"] else root.digest
                if held != root.digest:
                    shown = f"{held} is shown"
                    self._findings.append(clash(reference, (images.get(held, root), root), shown))
                _fill(repository, root.digest, images, referrers)

    def paths(self) -> Iterator[str]:
        """See the protocol."""
        yield CATALOG
        for name, repository in self.repositories.items():
            yield from (f"{name}/{path}" for path in repository.paths())

    def get(self, path: str) -> Page | None:
        """See the protocol."""
        if path == CATALOG:
            return _page({"repositories": sorted(self.repositories)}, JSON)
        # The name may hold slashes; what comes after it never has more than one.
        name, *rest = path.rsplit("/", 2)
        repository = self.repositories.get(name)
        return repository.get("/".join(rest), name) if repository else None

    def findings(self) -> list[Finding]:
        """See the protocol."""
        return self._findings


def _fill(
    repository: Repository,
    root: Digest,
    images: Mapping[Digest, Artifact],
    referrers: Mapping[str, Iterable[Digest]],
) -> None:
    """Put an image, what it is made of, and what refers to it (signatures, attestations) into a repository."""
    waiting = [root]
    while waiting:
        digest = waiting.pop()
        artifact = images.get(digest)
        if artifact is None or digest in repository.manifests:
            # A platform that nobody chose stays named in the index and did not travel.
            continue
        if _text(artifact, "role") not in {"index", "manifest"}:
            repository.blobs[digest] = artifact.size or 0
            continue
        notes = artifact.facts.get("annotations")
        repository.manifests[digest] = Manifest(
            media_type=_text(artifact, "media_type") or oci.MANIFEST,
            size=artifact.size or 0,
            artifact_type=_text(artifact, "artifact_type"),
            subject=_text(artifact, "subject"),
            annotations=notes if isinstance(notes, dict) else {},
        )
        waiting += [*_texts(artifact, "children"), *referrers.get(digest, ())]


def _own(snapshot: Snapshot) -> Repository:
    """The snapshot as an artifact: ``current`` is its index, ``<environment>__<target>`` one environment alone."""
    found = Repository(tags={e.ref.replace("/", "__"): e.manifest for e in snapshot.environments})
    types = {snapshot.id: oci.INDEX, **dict.fromkeys(found.tags.values(), oci.MANIFEST)}
    found.tags[CURRENT] = snapshot.id
    if snapshot.lock in snapshot.blobs:
        types[digest_of(oci.lock_manifest(snapshot.lock, snapshot.blobs[snapshot.lock]))] = oci.MANIFEST
    for digest, size in snapshot.blobs.items():
        if digest in types:
            found.manifests[digest] = Manifest(types[digest], size)
        else:
            found.blobs[digest] = size
    return found


def _text(artifact: Artifact, fact: str) -> str | None:
    value = artifact.facts.get(fact)
    return value if isinstance(value, str) else None


def _texts(artifact: Artifact, fact: str) -> list[str]:
    value = artifact.facts.get(fact)
    return [item for item in value if isinstance(item, str)] if isinstance(value, list | tuple) else []


def _page(value: object, media_type: str) -> Page:
    data = canonical(value) + b"\n"
    return Page(media_type, len(data), data)


VIEW = Registry
