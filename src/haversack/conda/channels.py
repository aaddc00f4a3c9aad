"""Conda channels over http(s) and from file URLs, through rattler's gateway: shards, caches and all.

Rattler dials here and nowhere else.  It is given no configuration of the machine's: neither its stored
logins nor a mirror; credentials come from the declaration and go to their channel alone.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from rattler import (
    Channel,
    ChannelPriority,
    Client,
    Gateway,
    MatchSpec,
    RepoDataRecord,
    SourceConfig,
    Subdir,
    solve,
)
from rattler.exceptions import GatewayError, SolverError
from rattler.networking.middleware import AddHeadersMiddleware, RetryMiddleware

from haversack.conda import engine
from haversack.errors import FetchError, ResolutionError
from haversack.model.site import Credentials
from haversack.ports import Wish

_Result = TypeVar("_Result")
_RETRIES = 3
_TIMEOUT = 60  # seconds


class RattlerChannels:
    """See :class:`haversack.ports.Channels`.  Safe between threads.

    ``cache`` keeps what channels said, revalidated each time; ``credentials`` is asked with the URL of a
    channel.  ``attempts`` counts how often a request is tried again, ``timeout`` is in seconds.
    """

    def __init__(
        self,
        cache: Path,
        credentials: Callable[[str], Credentials | None],
        *,
        attempts: int = _RETRIES,
        timeout: int = _TIMEOUT,
    ) -> None:
        self._cache, self._credentials = cache, credentials
        self._attempts, self._timeout = attempts, timeout

    def solve(self, wish: Wish) -> tuple[Mapping[str, Any], ...]:
        """See the protocol."""
        specs = [engine.match(spec) for spec in wish.specs]
        held = engine.to_rattler(wish.held)
        work = solve(
            [Channel(url) for url in wish.channels],
            specs,
            gateway=self._gateway(wish.channels),
            platforms=[Subdir(wish.subdir), Subdir("noarch")],
            locked_packages=held,
            virtual_packages=engine.virtual(wish.virtual_packages),
            channel_priority=ChannelPriority.Strict if wish.strict else ChannelPriority.Disabled,
            exclude_newer=_moment(wish.exclude_newer) if wish.exclude_newer else None,
            channel_relations="disabled",
        )
        return _sorted(self._asked(work, wish.channels))

    def records(
        self, channels: Sequence[str], subdirs: Sequence[str], names: Sequence[str]
    ) -> tuple[Mapping[str, Any], ...]:
        """See the protocol."""
        work = self._gateway(channels).query(
            [Channel(url) for url in channels],
            [Subdir(subdir) for subdir in subdirs],
            [MatchSpec(name) for name in names],
            recursive=False,
        )
        return _sorted(record for found in self._asked(work, channels) for record in found)

    def _gateway(self, channels: Sequence[str]) -> Gateway:
        """A gateway of its own for each question: one that lived on would not see a file channel change."""
        self._cache.mkdir(parents=True, exist_ok=True)
        headers = AddHeadersMiddleware(self._headers_for(channels))
        client = Client([RetryMiddleware(self._attempts), headers], timeout=self._timeout)
        return Gateway(cache_dir=self._cache, client=client, default_config=SourceConfig())

    def _headers_for(self, channels: Sequence[str]) -> Callable[[str, str], dict[str, str] | None]:
        # Looked up here, in the thread that asks: a keyring may want to talk to a person.
        known = [(urlsplit(url), self._credentials(url)) for url in channels]

        def headers(host: str, path: str) -> dict[str, str] | None:
            for parts, found in known:
                if found and parts.hostname == host and path.startswith(f"{parts.path.rstrip('/')}/"):
                    pair = f"{found.username}:{found.password}".encode()
                    return {"Authorization": f"Basic {base64.b64encode(pair).decode()}"}
            return None

        return headers

    def _asked(self, work: Coroutine[Any, Any, _Result], channels: Sequence[str]) -> _Result:
        """The answer of channels, or an error in our words."""
        try:
            with engine.guarded("asking the channels"):
                return engine.run(work)
        except SolverError as problem:
            raise ResolutionError(
                str(problem).strip(), remedy="relax what the reason names, or declare what the target has"
            ) from problem
        except GatewayError as problem:
            # Its text can quote an answer of the host; the first line says what happened.
            raise FetchError(
                _plain(str(problem)),
                where=", ".join(channels),
                remedy="check the network and the address of the channel, then run this again",
            ) from problem


def _sorted(records: Any) -> tuple[Mapping[str, Any], ...]:
    found: list[RepoDataRecord] = list(records)
    plain = [engine.from_rattler(record) for record in found]
    return tuple(sorted(plain, key=lambda record: (record["name"], record["fn"], record["url"])))


def _moment(text: str) -> datetime:
    """A day as the moment it ends in UTC, as for wheels."""
    moment = datetime.fromisoformat(text)
    if "T" not in text:
        moment += timedelta(days=1)
    # Rattler takes the fields for UTC, whatever the zone.
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


def _plain(text: str) -> str:
    """A text without what may be a password within a URL."""
    return re.sub(r"(?<=://)[^/\s@]*@", "", " ".join(text.split()))
