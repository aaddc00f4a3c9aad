"""An environment of images as an OCI image layout in a folder, which skopeo, podman and umoci read."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from haversack.errors import HaversackError
from haversack.formats import oci
from haversack.formats.canonical import canonical
from haversack.model.artifact import Artifact, Digest, hex_of
from haversack.model.finding import Finding
from haversack.ports import Store

_CHUNK = 1 << 20


def index(artifacts: Iterable[Artifact]) -> bytes:
    """The ``index.json``: every image under each of its names, and what refers to another by none."""
    entries = []
    for a in sorted(artifacts, key=lambda a: (a.name, a.digest)):
        described = {"mediaType": a.facts.get("media_type", ""), "digest": a.digest, "size": a.size}
        refs = a.facts.get("refs", ())
        entries += [{**described, "annotations": {oci.REF_NAME: name}} for name in refs]
        if a.facts.get("subject") and not refs:
            entries.append(described)
    return canonical({**oci.empty_index(), "manifests": entries})


def lay(artifacts: Sequence[Artifact], folder: Path, store: Store) -> None:
    """Write the layout to ``folder``, sharing files with the store where the system can.

    Every blob is hashed.  Raises ``IntegrityError`` for one that is not what its name says.
    """
    place = folder / "blobs" / "sha256"
    place.mkdir(parents=True)
    for artifact in artifacts:
        file = place / hex_of(artifact.digest)
        shared = False
        with contextlib.suppress(OSError, HaversackError):
            os.link(store.path(artifact.digest), file)
            shared = True
        with store.open(artifact.digest) as blob, contextlib.ExitStack() as stack:
            # What was linked is only read, to see that it is right.
            copy = None if shared else stack.enter_context(file.open("xb"))
            while chunk := blob.read(_CHUNK):
                if copy:
                    copy.write(chunk)
    (folder / "oci-layout").write_bytes(oci.LAYOUT_FILE)
    (folder / "index.json").write_bytes(index(artifacts))


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
    for name, data in (("index.json", index(artifacts)), ("oci-layout", oci.LAYOUT_FILE)):
        if not (folder / name).is_file():
            found.append(Finding("env-missing", name, "is gone", remedy))
        elif (folder / name).read_bytes() != data:
            found.append(Finding("env-changed", name, "was changed", remedy))
    known = {hex_of(artifact.digest) for artifact in artifacts}
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
