"""The files of a project that crossed with its environment, where they lay: for ``pixi install --frozen``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from haversack.doors import copy, lacks, of_kind
from haversack.errors import IntegrityError
from haversack.model.artifact import Artifact, is_safe_filename
from haversack.model.snapshot import SnapshotEnvironment
from haversack.ports import Store


class Project:
    """``pixi.toml``, ``pixi.lock`` and what else was declared, byte for byte."""

    name = "project"
    doc = "the project's own files, for pixi install --frozen"
    carries = ("file",)
    folder = True
    together = False

    def refuses(self, environment: SnapshotEnvironment) -> str | None:
        """See the protocol."""
        return lacks(environment, "file")

    def write(self, environments: Sequence[SnapshotEnvironment], store: Store, dest: Path) -> list[str]:
        """See the protocol."""
        (environment,) = environments
        places = {_path(artifact): artifact for artifact in of_kind(environment, "file")}
        for path, artifact in places.items():
            copy(store, artifact, dest / path)
            if artifact.facts.get("executable") is True:
                (dest / path).chmod(0o755)
        return sorted(places)


def _path(artifact: Artifact) -> str:
    """Where the file lay, relative to the project.  Raises ``IntegrityError`` if that is elsewhere."""
    path = artifact.facts.get("path")
    if not isinstance(path, str) or not all(map(is_safe_filename, path.split("/"))):
        raise IntegrityError("has no path within its project", where=artifact.filename)
    return path


DOORS = (Project(),)
