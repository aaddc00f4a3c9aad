"""Snapshots as OCI: an image index of artifact manifests whose layers are titled files.

Follows the OCI image specification 1.1: *image-layout.md* for ``oci-layout``, ``index.json`` and
``blobs/``, *manifest.md* "Guidelines for Artifact Usage" for ``artifactType``, *annotations.md* for
``org.opencontainers.image.title`` and ``.ref.name``.  docs/spec/snapshot.md says it with examples.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from haversack.errors import IntegrityError
from haversack.formats import lockfile
from haversack.formats.canonical import Fields, canonical, check_version, parse
from haversack.model.artifact import Artifact, Digest, digest_of
from haversack.model.lock import Lock
from haversack.model.snapshot import Snapshot, SnapshotEnvironment
from haversack.model.target import Target

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
EMPTY = "application/vnd.oci.empty.v1+json"
ENVIRONMENT = "application/vnd.haversack.environment.v1+json"
LOCK = "application/vnd.haversack.lock.v1+json"
FILE = "application/octet-stream"
# What the layers of an environment are, by the kind of artifact; zip is IANA's type for a wheel, those of
# conda packages are what conda's own mirrors in OCI registries use.
MEDIA_TYPES = {"wheel": "application/zip", "prefix": "application/x-tar"}
CONDA = {".conda": "application/vnd.conda.package.v2", ".tar.bz2": "application/vnd.conda.package.v1"}
TITLE = "org.opencontainers.image.title"
REF_NAME = "org.opencontainers.image.ref.name"
SEQUENCE = "io.haversack.sequence"
VERSION = "1.0"
LAYOUT_FILE = canonical({"imageLayoutVersion": "1.0.0"})


def descriptor(
    media_type: str, data: bytes, annotations: Mapping[str, str] | None = None, **more: Any
) -> dict[str, Any]:
    """The descriptor of some bytes."""
    found: dict[str, Any] = {"mediaType": media_type, "digest": digest_of(data), "size": len(data), **more}
    if annotations:
        found["annotations"] = dict(annotations)
    return found


def empty_index() -> dict[str, Any]:
    """The ``index.json`` of a store that holds no snapshot."""
    return {"schemaVersion": 2, "mediaType": INDEX, "manifests": []}


def named(
    snapshot: Digest, size: int, name: str, annotations: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """A descriptor of a snapshot for ``index.json``."""
    notes = {REF_NAME: name, **(annotations or {})}
    return {"mediaType": INDEX, "digest": snapshot, "size": size, "annotations": notes}


def build(
    lock: Lock, facts: Mapping[Digest, tuple[int, Mapping[str, Any]]]
) -> tuple[Snapshot, dict[Digest, bytes]]:
    """The snapshot of a lock, and the bytes of its metadata blobs.

    ``facts`` gives the true size and the facts of every artifact, read from its bytes.
    """
    metadata: dict[Digest, bytes] = {}

    def keep(data: bytes) -> bytes:
        metadata[digest_of(data)] = data
        return data

    lock_bytes = keep(lockfile.write(lock))
    empty = keep(b"{}")
    of_lock = keep(lock_manifest(digest_of(lock_bytes), len(lock_bytes)))
    manifests = [descriptor(MANIFEST, of_lock, {REF_NAME: lockfile.FILENAME}, artifactType=LOCK)]
    members = lock.by_environment()
    environments = []
    blobs: dict[Digest, int] = {}
    for environment in sorted(lock.environments, key=lambda e: e.ref):
        target = lock.target(environment.target)
        artifacts = tuple(
            Artifact(
                a.kind,
                a.name,
                a.version,
                a.filename,
                a.digest,
                facts[a.digest][0],
                a.origin,
                (),
                {**a.facts, **facts[a.digest][1]},
            )
            for a in sorted(members[environment.ref], key=lambda a: (a.filename, a.digest))
        )
        config = keep(
            canonical(
                {
                    "haversack-environment": VERSION,
                    "environment": lockfile.environment_to_json(environment),
                    "target": target.to_json(),
                    "artifacts": [lockfile.artifact_to_json(a) for a in artifacts],
                }
            )
        )
        layers = [
            {"mediaType": _media_type(a), "digest": a.digest, "size": a.size, "annotations": {TITLE: a.filename}}
            for a in artifacts
        ]  # fmt: skip
        # image-spec manifest.md: layers must have at least one entry; an empty one is the "{}" blob.
        manifest = keep(
            _manifest(ENVIRONMENT, descriptor(ENVIRONMENT, config), layers or [descriptor(EMPTY, empty)])
        )
        manifests.append(
            descriptor(
                MANIFEST,
                manifest,
                {REF_NAME: environment.ref},
                artifactType=ENVIRONMENT,
                **({"platform": target.oci_platform} if target.oci_platform else {}),
            )
        )
        blobs.update((a.digest, a.size or 0) for a in artifacts)
        environments.append(SnapshotEnvironment(environment, target, artifacts, digest_of(manifest)))
    index = keep(canonical({**empty_index(), "manifests": manifests}))
    sizes = blobs | {digest: len(data) for digest, data in metadata.items()}
    order = tuple(metadata)
    return Snapshot(digest_of(index), digest_of(lock_bytes), tuple(environments), order, sizes), metadata


def _media_type(artifact: Artifact) -> str:
    if artifact.kind == "conda":
        return CONDA[".conda" if artifact.filename.endswith(".conda") else ".tar.bz2"]
    return MEDIA_TYPES.get(artifact.kind, FILE)


def _manifest(artifact_type: str, config: Mapping[str, Any], layers: Sequence[Mapping[str, Any]]) -> bytes:
    return canonical(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": artifact_type,
            "config": dict(config),
            "layers": [dict(layer) for layer in layers],
        }
    )


def lock_manifest(digest: Digest, size: int) -> bytes:
    """The manifest by which a snapshot names its lock: whoever knows the lock knows it."""
    layer = {
        "mediaType": LOCK,
        "digest": digest,
        "size": size,
        "annotations": {TITLE: lockfile.FILENAME},
    }
    return _manifest(LOCK, descriptor(EMPTY, b"{}"), [layer])


def manifests_of(snapshot: Digest, blob: Callable[[Digest], bytes]) -> set[Digest]:
    """The digests of the manifests that a snapshot names, without reading them."""
    index = Fields(parse(blob(snapshot), f"snapshot {snapshot}"), f"snapshot {snapshot}")
    return {Fields(entry, index.where).digest("digest") for entry in index.items("manifests")}


def read(snapshot: Digest, blob: Callable[[Digest], bytes], *, without: Collection[Digest] = ()) -> Snapshot:
    """The snapshot of that id, read through ``blob`` (which checks digests).

    Environments whose manifests are in ``without`` are left out and not read: a caller that compares two
    snapshots need not look at what they share.  Raises ``IntegrityError`` naming the manifest that is wrong.
    """
    metadata: dict[Digest, int] = {}

    def load(digest: Digest, where: str) -> Any:
        data = blob(digest)
        metadata[digest] = len(data)
        return parse(data, where)

    index = Fields(load(snapshot, f"snapshot {snapshot}"), f"snapshot {snapshot}")
    environments: list[SnapshotEnvironment] = []
    blobs: dict[Digest, int] = {}
    lock: Digest | None = None
    for entry in index.items("manifests"):
        described = Fields(entry, index.where)
        digest = described.digest("digest")
        where = f"manifest {digest}"
        if digest in without and described.text_or_none("artifactType") == ENVIRONMENT:
            continue
        manifest = Fields(load(digest, where), where)
        config = Fields(manifest.table("config"), where)
        layers = [Fields(layer, where) for layer in manifest.items("layers")]
        if manifest.text("artifactType") == LOCK:
            if len(layers) != 1:
                raise manifest.wrong("a lock is one layer")
            lock = layers[0].digest("digest")
            metadata[lock] = layers[0].count("size")
            metadata[config.digest("digest")] = config.count("size")
            continue
        environment = _environment(load(config.digest("digest"), where), where, digest)
        told = {(a.digest, a.size, a.filename) for a in environment.artifacts}
        found = {
            (x.digest("digest"), x.count("size"), Fields(x.table("annotations"), where).text(TITLE))
            for x in layers
            if x.text("mediaType") != EMPTY
        }
        if told != found:
            raise IntegrityError("its layers are not the artifacts that its config names", where=where)
        blobs.update((layer.digest("digest"), layer.count("size")) for layer in layers)
        if any(environment.ref == other.ref for other in environments):
            raise IntegrityError(f"holds {environment.ref} twice", where=index.where)
        environments.append(environment)
    if lock is None:
        raise IntegrityError("holds no lock", where=index.where)
    return Snapshot(snapshot, lock, tuple(environments), tuple(metadata), blobs | metadata)


def _environment(config: object, where: str, manifest: Digest) -> SnapshotEnvironment:
    fields = Fields(config, where)
    check_version(fields.text("haversack-environment"), VERSION, where)
    locked = lockfile.environment_from_json(fields.table("environment"), where, IntegrityError)
    target: Target = lockfile.target_from_json(locked.target, fields.table("target"), where, IntegrityError)
    artifacts = tuple(
        lockfile.artifact_from_json(a, where, IntegrityError) for a in fields.items("artifacts")
    )
    clashes = {a.filename.casefold() for a in artifacts}
    if len(clashes) != len(artifacts):
        raise IntegrityError("two artifacts have one file name where case is ignored", where=where)
    return SnapshotEnvironment(locked, target, artifacts, manifest)
