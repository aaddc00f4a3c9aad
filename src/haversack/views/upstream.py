"""The files of a snapshot that came from web servers, where they lay there: ``<host>/<path>``.

A lock of another tool names each file by its URL.  Where only the part before the host is replaced, such a
lock works inside without another change to it.
"""

from __future__ import annotations

from collections.abc import Iterator

from haversack.model.artifact import Artifact
from haversack.model.finding import Finding
from haversack.model.snapshot import Snapshot
from haversack.views import FILE, Page, clash, place_of

PREFIX = "upstream"
_MEDIA_TYPES = {"wheel": "application/zip"}


class Upstream:
    """Every artifact with an http(s) origin, but conda packages that lie where their channel has them."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._files: dict[str, Artifact] = {}
        self._findings: dict[str, Finding] = {}
        for environment in snapshot.environments:
            for artifact in environment.artifacts:
                if not artifact.origin.startswith(("https://", "http://")) or _in_channel(artifact):
                    continue
                path = "/".join(place_of(artifact.origin))
                held = self._files.setdefault(path, artifact)
                if held.digest != artifact.digest:
                    kept = max(held, artifact, key=lambda a: a.digest)
                    self._files[path] = kept
                    shown = f"{kept.digest} is shown"
                    self._findings[path] = clash(artifact.origin, (held, artifact), shown)

    def paths(self) -> Iterator[str]:
        """See the protocol."""
        yield from sorted(self._files)

    def get(self, path: str) -> Page | None:
        """See the protocol."""
        artifact = self._files.get(path)
        if artifact is None:
            return None
        return Page(_MEDIA_TYPES.get(artifact.kind, FILE), artifact.size or 0, blob=artifact.digest)

    def findings(self) -> list[Finding]:
        """See the protocol."""
        return list(self._findings.values())


def _in_channel(artifact: Artifact) -> bool:
    """Whether the view of channels shows an artifact where a client looks for it.

    A channel may keep its packages elsewhere than its records (``base_url``, CEP 15).
    """
    place = f"{artifact.facts.get('channel')}/{artifact.facts.get('subdir')}/"
    return artifact.kind == "conda" and artifact.origin.rpartition("/")[0] + "/" == place


VIEW = Upstream
