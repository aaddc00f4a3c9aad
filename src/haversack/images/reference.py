"""Names of images: ``docker.io/library/python:3.11-slim``, always with the host.

The grammar is that of the distribution project (its package ``reference``), without its defaults: a name that
leaves out the host means another image on every machine.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from haversack.model.artifact import Digest

_HOST = r"(?:[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+|localhost|[A-Za-z0-9-]+(?=:))(?::[0-9]{1,5})?"
_PART = r"[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*"
_TAG = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}"
PATTERN = rf"{_HOST}/{_PART}(?:/{_PART})*(?::{_TAG})?(?:@sha256:[0-9a-f]{{64}})?"
"""What a reference looks like, for declarations."""
_REFERENCE = re.compile(
    rf"(?P<host>{_HOST})/(?P<path>{_PART}(?:/{_PART})*)(?::(?P<tag>{_TAG}))?(?:@(?P<digest>sha256:[0-9a-f]{{64}}))?"
)
_HUB = "docker.io"


@dataclass(frozen=True, slots=True)
class Reference:
    """An image by its tag, by its digest, or by both; one that says neither means ``latest``."""

    host: str
    path: str
    tag: str | None
    digest: Digest | None = None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """The reference that a text is.  Raises :class:`ValueError`."""
        match = _REFERENCE.fullmatch(text)
        if match is None:
            raise ValueError(
                "is not the name of an image with its host, like docker.io/library/python:3.11-slim"
            )
        host, path, tag, digest = match["host"], match["path"], match["tag"], match["digest"]
        if host == _HUB and "/" not in path:
            path = f"library/{path}"
        return cls(host, path, tag or (None if digest else "latest"), digest)

    @property
    def repository(self) -> str:
        """The name without tag and digest."""
        return f"{self.host}/{self.path}"

    @property
    def name(self) -> str:
        """What the image is called inside: with its tag if it has one."""
        return f"{self.repository}:{self.tag}" if self.tag else f"{self.repository}@{self.digest}"
