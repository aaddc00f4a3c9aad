"""An environment of images as an OCI image layout in a folder, which skopeo, podman and umoci read."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from haversack.errors import HaversackError
from haversack.formats import oci
from haversack.formats.canonical import canonical
from haversack.images.manifest import OCI_INDEX, OCI_MANIFEST
from haversack.model.artifact import Artifact, Digest, digest_of, hex_of
from haversack.model.finding import Finding
from haversack.ports import Store

_CHUNK = 1 << 20


def layout(artifacts: Iterable[Artifact]) -> tuple[bytes, dict[Digest, bytes]]:
    """The ``index.json``, and blobs that only the layout has.

    Every image stands there under each of its names, and what refers to another one by none.  skopeo and podman
    find by name only what is of OCI's own types: docker's manifests stand in a list of OCI's made for them.
    """
    there = {artifact.digest: artifact for artifact in artifacts}
    entries: list[dict[str, Any]] = []
    made: dict[Digest, bytes] = {}
    for a in sorted(there.values(), key=lambda a: (a.name, a.digest)):
        described = _descriptor(a)
        refs = a.facts.get("refs", ())
        if refs and a.facts["media_type"] not in {OCI_INDEX, OCI_MANIFEST}:
            listed = (
                [there[c] for c in a.facts["children"] if c in there] if a.facts["role"] == "index" else [a]
            )
            data = canonical({**oci.empty_index(), "manifests": [_descriptor(one) for one in listed]})
            made[digest_of(data)] = data
            described = oci.descriptor(OCI_INDEX, data)
        entries += [{**described, "annotations": {oci.REF_NAME: name}} for name in refs]
        if a.facts.get("subject") and not refs:
            entries.append(described)
    return canonical({**oci.empty_index(), "manifests": entries}), made


def _descriptor(artifact: Artifact) -> dict[str, Any]:
    """A descriptor of an artifact, with its platform if it has one."""
    told = {
        "mediaType": artifact.facts.get("media_type", ""),
        "digest": artifact.digest,
        "size": artifact.size,
    }
    if artifact.facts.get("platform"):
        system, architecture, *variant = artifact.facts["platform"].split("/")
        platform = {"architecture": architecture, "os": system}
        told["platform"] = {**platform, **({"variant": variant[0]} if variant else {})}
    return told


def lay(artifacts: Sequence[Artifact], folder: Path, store: Store) -> None:
    """Write the layout to ``folder``, sharing files with the store where the system can.

    Every blob is hashed.  Raises ``IntegrityError`` for one that is not what its name says.
    """
    place = folder / "blobs" / "sha256"
    place.mkdir(parents=True)
    for artifact in artifacts:
        file = place / hex_of(artifact.digest)
        shared = False
        # A copy of what lies elsewhere is not what is hashed below.
        if store.copies() is None:
            with contextlib.suppress(OSError, HaversackError):
                os.link(store.path(artifact.digest), file)
                shared = True
        with store.open(artifact.digest) as blob, contextlib.ExitStack() as stack:
            # What was linked is only read, to see that it is right.
            copy = None if shared else stack.enter_context(file.open("xb"))
            while chunk := blob.read(_CHUNK):
                if copy:
                    copy.write(chunk)
    index, made = layout(artifacts)
    for digest, data in made.items():
        (place / hex_of(digest)).write_bytes(data)
    (folder / "oci-layout").write_bytes(oci.LAYOUT_FILE)
    (folder / "index.json").write_bytes(index)


def differences(artifacts: Sequence[Artifact], folder: Path, *, hashing: bool = True) -> list[Finding]:
    """Every way in which a folder is not the layout; without ``hashing`` only names and sizes are compared."""
    remedy = "install it again"
    found = []
    place = folder / "blobs" / "sha256"
    for artifact in artifacts:
        file = place / hex_of(artifact.digest)
        if not file.is_file():
            found.append(
                Finding("env-missing", f"blobs/sha256/{file.name}", f"{artifact.name} is gone", remedy)
            )
        elif file.stat().st_size != artifact.size or (hashing and _digest(file) != artifact.digest):
            message = f"{artifact.name} was changed"
            found.append(Finding("env-changed", f"blobs/sha256/{file.name}", message, remedy))
    index, made = layout(artifacts)
    small = {"index.json": index, "oci-layout": oci.LAYOUT_FILE}
    for name, data in {**small, **{f"blobs/sha256/{hex_of(d)}": data for d, data in made.items()}}.items():
        if not (folder / name).is_file():
            found.append(Finding("env-missing", name, "is gone", remedy))
        elif (folder / name).read_bytes() != data:
            found.append(Finding("env-changed", name, "was changed", remedy))
    known = {*map(hex_of, made), *(hex_of(artifact.digest) for artifact in artifacts)}
    for file in sorted(place.iterdir()) if place.is_dir() else ():
        if file.name not in known:
            message = "is no part of these images"
            found.append(
                Finding("env-extra", f"blobs/sha256/{file.name}", message, "remove it, or install again")
            )
    return found


def _digest(file: Path) -> Digest:
    with file.open("rb") as opened:
        return f"sha256:{hashlib.file_digest(opened, 'sha256').hexdigest()}"
