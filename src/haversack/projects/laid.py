"""Files of a snapshot laid at their paths: copied, since people work on them, and hashed on the way."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from haversack.errors import IntegrityError, PrefixError
from haversack.model.artifact import Artifact, Digest, unsafe_path
from haversack.model.finding import Finding
from haversack.model.snapshot import SnapshotEnvironment
from haversack.ports import Inside
from haversack.projects.folder import stays

_CHUNK = 1 << 20


def lay(files: Mapping[str, Artifact], links: Mapping[str, str], place: Path, inside: Inside) -> None:
    """Make the folder ``place`` of files and links by their paths.

    Raises ``IntegrityError`` for other bytes, and for a path or a link that leaves the folder: what a snapshot
    says is not taken on trust.
    """
    every = {*files, *links}
    for path in every:
        if problem := unsafe_path(path):
            raise IntegrityError(f"{path!r} cannot be laid: {problem}", where=str(place))
        above = path.split("/")[:-1]
        if any("/".join(above[: n + 1]) in every for n in range(len(above))):
            raise IntegrityError(f"{path!r} lies below what is no folder", where=str(place))
    for path, where in links.items():
        if not stays(path, where, links):
            raise IntegrityError(f"{path!r} is a link that leads out of the folder", where=str(place))
    place.mkdir(parents=True)
    with inside.progress("laying", sum(artifact.size or 0 for artifact in files.values())) as advance:
        for path, artifact in files.items():
            target = place / path
            target.parent.mkdir(parents=True, exist_ok=True)
            with inside.store.open(artifact.digest) as blob, target.open("xb") as file:
                while chunk := blob.read(_CHUNK):
                    file.write(chunk)
                    advance(len(chunk))
            if artifact.facts.get("executable"):
                target.chmod(target.stat().st_mode | 0o111)
    # The links last: nothing is written through one.
    for path, where in links.items():
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        try:
            (place / path).symlink_to(where)
        except OSError as problem:
            raise PrefixError(
                f"cannot be linked: {problem.strerror}",
                where=str(place / path),
                remedy="use another file system",
            ) from problem


def checked(environment: SnapshotEnvironment, folder: Path, inside: Inside, *, caged: bool) -> list[Finding]:
    """A finding if the environment's own check command fails in a folder."""
    done = inside.run(["sh", "-c", environment.locked.check or "true"], cwd=folder, caged=caged)
    if done.code == 0:
        return []
    message = f"check exited with {done.code}: {(done.err + done.out).strip()[-2000:]}"
    return [Finding("rehearsal-failed", environment.ref, message, "see what it says")]


def digest_of_stream(file: BinaryIO) -> Digest:
    """The digest of what a file still holds."""
    hashed = hashlib.sha256()
    while chunk := file.read(_CHUNK):
        hashed.update(chunk)
    return f"sha256:{hashed.hexdigest()}"
