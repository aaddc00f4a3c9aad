"""Container registries over http(s), by the OCI distribution specification 1.1."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote, urljoin, urlsplit

from haversack.errors import FetchError, IntegrityError, NotFoundError
from haversack.formats.canonical import parse
from haversack.model.artifact import Digest, digest_of, is_digest
from haversack.model.site import Credentials, Registry
from haversack.ports import Manifest
from haversack.ports.fetch import HttpFetch
from haversack.ports.http import Answer, Http
from haversack.ports.tokens import TokenLogin

SCHEME = "docker://"
"""How the origin of an artifact begins that a registry serves."""
_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_HUB = {"docker.io": "https://registry-1.docker.io"}
"""A name in references that is not the name of the registry's host."""
_CHUNK = 1 << 20
_LOGIN = "set `auth` of the registry ([registry.NAME] in haversack.toml, --auth of push), and check the login it names"


class _Hosts:
    """Where registries are: the site's own tables first, else https at the host that references name."""

    def __init__(
        self,
        registries: Sequence[Registry],
        credentials: Callable[[str], Credentials | None],
        options: Mapping[str, Any],
    ) -> None:
        self._places = {registry.host: registry.url.rstrip("/") for registry in registries}
        options = {"login_remedy": _LOGIN, **options}
        self.http = Http(TokenLogin(credentials, **options), **options)

    def url(self, repository: str, rest: str) -> str:
        """The URL of something of a repository."""
        host, _, name = repository.partition("/")
        place = self._places.get(host) or _HUB.get(host) or f"https://{host}"
        return f"{place}/v2/{quote(name)}/{rest}"

    def ask(self, method: str, repository: str, rest: str, expected: Sequence[int], **more: Any) -> Answer:
        """A whole answer about a repository; errors name the repository too."""
        try:
            return self.http.read(method, self.url(repository, rest), expected=expected, **more)
        except FetchError as problem:
            raise FetchError(str(problem), where=repository, remedy=problem.remedy) from problem


class HttpRegistries:
    """See :class:`haversack.ports.Registries`; for ``docker://`` URLs a :class:`haversack.ports.Fetch` too.

    ``credentials`` answers for the URL of a registry; ``options`` are those of
    :class:`~haversack.ports.http.Http`.
    """

    def __init__(
        self,
        registries: Sequence[Registry],
        credentials: Callable[[str], Credentials | None],
        **options: Any,
    ) -> None:
        self._hosts = _Hosts(registries, credentials, options)
        self._fetch = HttpFetch.over(self._hosts.http, {"Accept": ", ".join((*_TYPES, "*/*"))})

    def manifest(self, repository: str, reference: str) -> Manifest:
        """See the protocol."""
        rest = f"manifests/{reference}"
        headers = {"Accept": ", ".join(_TYPES)}
        answer = self._hosts.ask("GET", repository, rest, (200, 404), headers=headers)
        joint = "@" if is_digest(reference) else ":"
        if answer.status == 404:
            raise NotFoundError("its registry has no such image", where=f"{repository}{joint}{reference}")
        found = digest_of(answer.data)
        told = answer.header("Docker-Content-Digest")
        wanted = reference if is_digest(reference) else told if is_digest(told) else found
        if found != wanted:
            raise IntegrityError(
                f"its manifest is {found}, not {wanted}",
                where=f"{repository}{joint}{reference}",
                remedy="try again later; if it stays so, ask who runs the registry",
            )
        return Manifest(answer.header("Content-Type").partition(";")[0].strip(), answer.data)

    def referrers(self, repository: str, digest: Digest) -> tuple[Digest, ...]:
        """See the protocol: by the API, or where a registry has none by the tag that stands in for it.

        Distribution specification 1.1, *Listing Referrers* and *Referrers Tag Schema*.
        """
        answer = self._hosts.ask("GET", repository, f"referrers/{digest}", (200, 400, 404, 405), headers={})
        if answer.status != 200:
            tag = f"manifests/{digest.replace(':', '-')}"
            answer = self._hosts.ask("GET", repository, tag, (200, 404), headers={"Accept": _TYPES[0]})
        if answer.status != 200:
            return ()
        told = parse(answer.data, repository, FetchError)
        # Not every registry lists nothing as an empty list.
        listed = told.get("manifests") or [] if isinstance(told, dict) else None
        if not isinstance(listed, list):
            raise FetchError("lists what refers to its images in no form that can be read", where=repository)
        digests = [entry.get("digest") for entry in listed if isinstance(entry, dict)]
        return tuple(
            dict.fromkeys(digest for digest in digests if isinstance(digest, str) and is_digest(digest))
        )

    def size(self, url: str) -> int | None:
        """See :class:`haversack.ports.Fetch`."""
        return self._fetch.size(self._url(url))

    def get(
        self, url: str, digest: Digest, dest: Path, on_bytes: Callable[[int], None], size: int | None = None
    ) -> int:
        """See :class:`haversack.ports.Fetch`."""
        place = self._url(url)
        try:
            return self._fetch.get(place, digest, dest, on_bytes, size=size)
        except (FetchError, IntegrityError) as problem:
            raise type(problem)(str(problem), where=url, remedy=problem.remedy) from problem

    def take(self, url: str, dest: Path, on_bytes: Callable[[int], None]) -> Digest:
        """See :class:`haversack.ports.Fetch`: such a URL ends in the digest of what it names."""
        self._url(url)
        digest = url.rpartition("/")[2]
        self.get(url, digest, dest, on_bytes)
        return digest

    def _url(self, url: str) -> str:
        """Where a ``docker://`` URL leads.  Raises ``FetchError`` for one that leads to no part of an image."""
        match = re.fullmatch(r"docker://([^/@?#]+/[^@?#]+)/((?:manifests|blobs)/sha256:[0-9a-f]{64})", url)
        if match is None:
            raise FetchError("does not name a part of an image by its digest", where=url.rpartition("@")[2])
        return self._hosts.url(match[1], match[2])


class HttpPush:
    """See :class:`haversack.ports.Push`; what it is made of is as for :class:`HttpRegistries`."""

    def __init__(
        self,
        registries: Sequence[Registry],
        credentials: Callable[[str], Credentials | None],
        **options: Any,
    ) -> None:
        self._hosts = _Hosts(registries, credentials, options)

    def has(self, repository: str, digest: Digest, *, manifest: bool = False) -> bool:
        """See the protocol."""
        rest = f"{'manifests' if manifest else 'blobs'}/{digest}"
        headers = {"Accept": ", ".join(_TYPES)}
        return self._hosts.ask("HEAD", repository, rest, (200, 404), headers=headers).status == 200

    def blob(
        self,
        repository: str,
        digest: Digest,
        size: int,
        read: Callable[[], BinaryIO],
        elsewhere: Sequence[str] = (),
    ) -> bool:
        """See the protocol: one POST that also asks for a mount, and one PUT of the whole."""
        source = quote(elsewhere[0].partition("/")[2], safe="") if elsewhere else ""
        begin = self._hosts.url(
            repository, f"blobs/uploads/{f'?mount={digest}&from={source}' if source else ''}"
        )
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        http = self._hosts.http

        def once() -> bool:
            begun = http.once("POST", begin, {"Content-Length": "0"}, expected=(201, 202))
            if begun.status == 201:
                return False
            # A broken upload is begun anew: registries differ in what they make of its first half.
            place = urljoin(begun.url, begun.header("Location"))
            end = f"{place}{'&' if urlsplit(place).query else '?'}digest={digest}"
            http.once("PUT", end, headers, lambda: _chunks(read()), expected=(201, 204))
            return True

        try:
            return http.patiently(begin, once, lambda: 0)
        except FetchError as problem:
            raise FetchError(str(problem), where=repository, remedy=problem.remedy) from problem

    def manifest(self, repository: str, reference: str, manifest: Manifest) -> None:
        """See the protocol."""
        headers = {"Content-Type": manifest.media_type, "Content-Length": str(len(manifest.data))}
        rest = f"manifests/{reference}"
        self._hosts.ask("PUT", repository, rest, (201,), headers=headers, body=lambda: [manifest.data])


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    """A file as the body of a request, closed at its end."""
    with file:
        while chunk := file.read(_CHUNK):
            yield chunk
