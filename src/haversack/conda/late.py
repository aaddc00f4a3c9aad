"""Channels whose solver is loaded when they are asked first."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from haversack.model.site import Credentials
from haversack.ports import Wish

if TYPE_CHECKING:
    from haversack.conda.channels import RattlerChannels


class LateChannels:
    """See :class:`haversack.ports.Channels`: rattler's, which takes 80 ms to load, and only who needs conda waits."""

    def __init__(self, cache: Path, credentials: Callable[[str], Credentials | None]) -> None:
        self._cache, self._credentials = cache, credentials

    def solve(self, wish: Wish) -> tuple[Mapping[str, Any], ...]:
        """See the protocol."""
        return self._loaded.solve(wish)

    def records(
        self, channels: Sequence[str], subdirs: Sequence[str], names: Sequence[str]
    ) -> tuple[Mapping[str, Any], ...]:
        """See the protocol."""
        return self._loaded.records(channels, subdirs, names)

    @cached_property
    def _loaded(self) -> RattlerChannels:
        from haversack.conda.channels import RattlerChannels

        return RattlerChannels(self._cache, self._credentials)
