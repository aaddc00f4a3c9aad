"""The files that a site declared, by their names, each with its check sum beside it as ``sha256sum`` reads it."""

from __future__ import annotations

from collections.abc import Iterator

from haversack.model.artifact import Artifact, described, hex_of
from haversack.model.finding import Finding
from haversack.model.snapshot import Snapshot
from haversack.views import FILE, Page, clash

PREFIX = "files"
SUMS = "SHA256SUMS"
TEXT = "text/plain; charset=utf-8"
_SUFFIX = ".sha256"


class Files:
    """Every file of ``[[file]]``; a file that is itself called like a check sum is shown instead of one."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._files: dict[str, Artifact] = {}
        self._findings: dict[str, Finding] = {}
        for environment in snapshot.environments:
            if environment.locked.kind != "file":
                continue
            for artifact in environment.artifacts:
                name = artifact.filename
                held = self._files.setdefault(name, artifact)
                if held.digest != artifact.digest:
                    self._files[name] = max(held, artifact, key=lambda a: a.digest)
                    shown = f"{self._files[name].digest} is shown"
                    self._findings[name] = clash(name, (held, artifact), shown)

    def paths(self) -> Iterator[str]:
        """See the protocol."""
        if self._files:
            sums = (name + _SUFFIX for name in self._files)
            yield from sorted({*self._files, *sums, SUMS})

    def get(self, path: str) -> Page | None:
        """See the protocol."""
        if artifact := self._files.get(path):
            name, version = described(artifact)
            told = f"{name} {version}" if "package" in artifact.facts else ""
            return Page(FILE, artifact.size or 0, blob=artifact.digest, told=told)
        if path == SUMS and self._files:
            return _sums(*(self._files[name] for name in sorted(self._files)))
        summed = self._files.get(path.removesuffix(_SUFFIX))
        return _sums(summed) if summed else None

    def findings(self) -> list[Finding]:
        """See the protocol."""
        return list(self._findings.values())


def _sums(*artifacts: Artifact) -> Page:
    data = "".join(f"{hex_of(artifact.digest)}  {artifact.filename}\n" for artifact in artifacts).encode()
    return Page(TEXT, len(data), data)


VIEW = Files
