"""What each artifact of a conda or pixi environment says of itself, read from its bytes once."""

from __future__ import annotations

from typing import BinaryIO

from haversack.conda import package
from haversack.formats import wheel
from haversack.model.artifact import Artifact, Facts, digest_of
from haversack.model.finding import Finding


def inspect(artifact: Artifact, file: BinaryIO) -> tuple[Facts, list[Finding]]:
    """Facts and findings of a conda package, a wheel, or a plain file, by the kind of artifact."""
    if artifact.kind == "conda":
        return package.inspect(file, artifact)
    if artifact.kind == "wheel":
        return wheel.inspect(file, artifact.filename)
    if digest_of(file.read()) == artifact.digest:
        return {}, []
    return {}, [Finding("blob-damaged", artifact.filename, "is not what its digest says", "lock it again")]
