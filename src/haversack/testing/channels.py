"""Conda channels in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from haversack.conda import engine
from haversack.errors import FetchError
from haversack.ports import Wish


class MemoryChannels:
    """A :class:`haversack.ports.Channels` over records by channel URL; an unknown channel does not answer.

    It knows no dates: ``exclude_newer`` is compared with ``timestamp`` by nobody.
    """

    def __init__(self, channels: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
        self._channels = {url.rstrip("/"): tuple(records) for url, records in channels.items()}

    def solve(self, wish: Wish) -> tuple[Mapping[str, Any], ...]:
        """See the protocol."""
        records = [
            record
            for url in wish.channels
            for record in self._of(url)
            if record["subdir"] in {wish.subdir, "noarch"}
        ]
        return engine.solve(wish.specs, records, wish.virtual_packages, held=wish.held, strict=wish.strict)

    def records(
        self, channels: Sequence[str], subdirs: Sequence[str], names: Sequence[str]
    ) -> tuple[Mapping[str, Any], ...]:
        """See the protocol."""
        return tuple(
            r for url in channels for r in self._of(url) if r["subdir"] in subdirs and r["name"] in names
        )

    def _of(self, url: str) -> Sequence[Mapping[str, Any]]:
        try:
            return self._channels[url.rstrip("/")]
        except KeyError as problem:
            raise FetchError("does not answer", where=url) from problem
