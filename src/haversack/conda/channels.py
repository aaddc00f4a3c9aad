"""Conda channels over http(s) and from file URLs, through rattler's gateway: shards, caches and all.

Rattler dials here and nowhere else.  It is given no configuration of the machine's: neither its stored
logins nor a mirror; credentials come from the declaration and go to their channel alone.  Rattler lets a
client add a header by the host and path of a request and does not say its port or scheme, so that a channel
with a login has a client of its own, which nothing that another channel says can send anywhere.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

from rattler import (
    Channel,
    ChannelPriority,
    Client,
    Gateway,
    MatchSpec,
    PackageName,
    RepoDataRecord,
    SourceConfig,
    Subdir,
    solve,
)
from rattler.exceptions import GatewayError, InvalidChannelError, SolverError
from rattler.networking.middleware import AddHeadersMiddleware, RetryMiddleware

from haversack.conda import engine
from haversack.errors import FetchError, ResolutionError
from haversack.model.site import Credentials
from haversack.ports import Wish

_Result = TypeVar("_Result")
_RETRIES = 3
_TIMEOUT = 60  # seconds
# A channel may name others (CEP 42): only those that people wrote down are asked.
_RELATIONS: Literal["disabled"] = "disabled"


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
        channels, logins = self._known(wish.channels)
        subdirs = [Subdir(wish.subdir), Subdir("noarch")]
        if len(channels) == 1:
            sources: list[Channel | _Alone] = [*channels.values()]
            gateway = self._gateway(wish.channels[0], logins.get(wish.channels[0]))
        else:
            sources = [
                self._alone(url, channel, logins[url], subdirs) if url in logins else channel
                for url, channel in channels.items()
            ]
            gateway = self._gateway()
        work = solve(
            sources,
            specs,
            gateway=gateway,
            platforms=subdirs,
            locked_packages=held,
            virtual_packages=engine.virtual(wish.virtual_packages),
            channel_priority=ChannelPriority.Strict if wish.strict else ChannelPriority.Disabled,
            exclude_newer=_moment(wish.exclude_newer) if wish.exclude_newer else None,
            channel_relations=_RELATIONS,
        )
        return _sorted(self._asked(work, wish.channels))

    def records(
        self, channels: Sequence[str], subdirs: Sequence[str], names: Sequence[str]
    ) -> tuple[Mapping[str, Any], ...]:
        """See the protocol."""
        known, logins = self._known(channels)
        specs = [engine.match(name) for name in names]
        found: list[RepoDataRecord] = []
        for url, channel in known.items():
            work = self._gateway(url, logins.get(url)).query(
                [channel], [Subdir(s) for s in subdirs], specs, recursive=False, channel_relations=_RELATIONS
            )
            found += [record for part in self._asked(work, [url]) for record in part]
        return _sorted(found)

    def _known(self, urls: Sequence[str]) -> tuple[dict[str, Channel], dict[str, Credentials]]:
        """Channels by their URLs, and the logins of those that want one."""
        channels: dict[str, Channel] = {}
        logins: dict[str, Credentials] = {}
        for url in urls:
            try:
                with engine.guarded(f"reading the address {url}"):
                    channels[url] = Channel(url)
            except InvalidChannelError as problem:
                raise FetchError(
                    f"is not the address of a channel: {_plain(str(problem))}",
                    where=url,
                    remedy="correct the address",
                ) from problem
            # Looked up here, in the thread that asks: a keyring may want to talk to a person.
            if login := self._credentials(url):
                logins[url] = login
        return channels, logins

    def _alone(self, url: str, channel: Channel, login: Credentials, subdirs: Sequence[Subdir]) -> _Alone:
        """A channel with a login beside others; asked once before, for within a solve its refusal has no reason."""
        gateway = self._gateway(url, login)
        self._asked(gateway.names([channel], subdirs, channel_relations=_RELATIONS), [url])
        return _Alone(channel, gateway)

    def _gateway(self, url: str = "", login: Credentials | None = None) -> Gateway:
        """A gateway that logs in to the channel at ``url``, or nowhere.

        One of its own for each question: one that lived on would not see a file channel change.
        """
        self._cache.mkdir(parents=True, exist_ok=True)
        headers = [AddHeadersMiddleware(_header(url, login))] if login else []
        client = Client([RetryMiddleware(self._attempts), *headers], timeout=self._timeout)
        return Gateway(cache_dir=self._cache, client=client, default_config=SourceConfig())

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
                # What a source of ours raised comes back with the name of its class.
                _plain(str(problem).removeprefix("GatewayError: ")),
                where=", ".join(channels),
                remedy="check the network and the address of the channel, then run this again",
            ) from problem


class _Alone:
    """A channel that is asked through a gateway of its own (rattler's ``RepoDataSource``)."""

    def __init__(self, channel: Channel, gateway: Gateway) -> None:
        self._channel, self._gateway = channel, gateway

    async def fetch_package_records(self, platform: Subdir, name: PackageName) -> list[RepoDataRecord]:
        """Every record of a package in a subdir."""
        found = await self._gateway.query(
            [self._channel],
            [platform],
            [MatchSpec(name.normalized)],
            recursive=False,
            channel_relations=_RELATIONS,
        )
        return [record for part in found for record in part]

    def package_names(self, platform: Subdir) -> list[str]:
        """Nothing: a solve asks for what it meets, by name."""
        return []


def _header(url: str, login: Credentials) -> Callable[[str, str], dict[str, str] | None]:
    """What says to rattler which requests get a login: those below the URL of its channel."""
    parts = urlsplit(url)
    pair = base64.b64encode(f"{login.username}:{login.password}".encode()).decode()

    def headers(host: str, path: str) -> dict[str, str] | None:
        if parts.hostname == host and path.startswith(f"{parts.path.rstrip('/')}/"):
            return {"Authorization": f"Basic {pair}"}
        return None

    return headers


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
