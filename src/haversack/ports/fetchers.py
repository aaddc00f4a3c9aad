"""Files from elsewhere, by the scheme of their URLs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from haversack.model.artifact import Digest
from haversack.ports import Fetch


class Sized(Protocol):
    """What fetches files whose digests are known: the part of :class:`haversack.ports.Fetch` that images need."""

    def size(self, url: str) -> int | None:
        """See :class:`haversack.ports.Fetch`."""
        ...

    def get(self, url: str, digest: Digest, dest: Path, on_bytes: Callable[[int], None]) -> int:
        """See :class:`haversack.ports.Fetch`."""
        ...


class ByScheme:
    """A :class:`haversack.ports.Fetch` of several: each for the URLs of its scheme, ``rest`` for all others."""

    def __init__(self, rest: Fetch, **schemes: Sized) -> None:
        self._rest, self._schemes = rest, schemes

    def size(self, url: str) -> int | None:
        """See the protocol."""
        return self._of(url).size(url)

    def get(self, url: str, digest: Digest, dest: Path, on_bytes: Callable[[int], None]) -> int:
        """See the protocol."""
        return self._of(url).get(url, digest, dest, on_bytes)

    def _of(self, url: str) -> Sized:
        return self._schemes.get(url.partition("://")[0].lower(), self._rest)
