"""Files from elsewhere, by the scheme of their URLs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol, runtime_checkable

from haversack.errors import FetchError
from haversack.model.artifact import Digest
from haversack.ports import Fetch


class Sized(Protocol):
    """What fetches files whose digests are known: the part of :class:`haversack.ports.Fetch` that images need."""

    def size(self, url: str) -> int | None:
        """See :class:`haversack.ports.Fetch`."""
        ...

    def get(
        self, url: str, digest: Digest, dest: Path, on_bytes: Callable[[int], None], size: int | None = None
    ) -> int:
        """See :class:`haversack.ports.Fetch`."""
        ...


@runtime_checkable
class Taking(Protocol):
    """What fetches files whose digests nobody knows yet; an image's are always known."""

    def take(self, url: str, dest: Path, on_bytes: Callable[[int], None]) -> Digest:
        """See :class:`haversack.ports.Fetch`."""
        ...


class ByScheme:
    """A :class:`haversack.ports.Fetch` of several: each for the URLs of its scheme, ``rest`` for all others."""

    def __init__(self, rest: Fetch, **schemes: Sized) -> None:
        self._rest, self._schemes = rest, schemes

    def size(self, url: str) -> int | None:
        """See the protocol."""
        return self._of(url).size(url)

    def get(
        self, url: str, digest: Digest, dest: Path, on_bytes: Callable[[int], None], size: int | None = None
    ) -> int:
        """See the protocol."""
        return self._of(url).get(url, digest, dest, on_bytes, size=size)

    def take(self, url: str, dest: Path, on_bytes: Callable[[int], None]) -> Digest:
        """See the protocol."""
        fetch = self._of(url)
        if not isinstance(fetch, Taking):
            raise FetchError("is fetched by its digest only", where=url, remedy="declare what it is part of")
        return fetch.take(url, dest, on_bytes)

    def _of(self, url: str) -> Sized:
        return self._schemes.get(url.partition("://")[0].lower(), self._rest)
