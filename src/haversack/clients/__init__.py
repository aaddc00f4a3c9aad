"""Clients: what each program must be told to take a snapshot from where it is served.

Each is one module of this folder that holds a ``CLIENT``: the files and the variables of one program, made of
a snapshot and an address.  Pure, and the same on every machine.  The folder is the registry, and a client
knows nothing of another; what concerns all of them is in :mod:`haversack.clients.together`.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

from haversack.errors import UsageError
from haversack.formats.hosts import is_authority
from haversack.formats.repodata import is_plain, plain_url
from haversack.model.snapshot import Snapshot
from haversack.views import place_of
from haversack.views.channel import PREFIX, Channels

BASE_URL = "BASE_URL"
"""What stands in a configuration for the URL that nobody told us, and for its host and port: ``BASE_HOST``."""
BASE_HOST = "BASE_HOST"
CA = "ca.pem"
"""The file of certificates that vouch for the server."""
_HOST = re.compile(r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*(:[0-9]+)?")
# RFC 3986, 3.3, without what a shell or a reader of configuration would replace, and no empty part, no dots alone.
_PATH = re.compile(r"(?:/(?!\.{1,2}(?:/|$))(?:[A-Za-z0-9._~@:+,=-]|%[0-9A-Fa-f]{2})+)*")
HOME = "/etc/haversack"
"""Where the files of a client lie unless told otherwise, and always in a pod."""


@dataclass(frozen=True, slots=True)
class Served:
    """A snapshot, and where it is served.

    ``base`` is the URL without a slash at its end (see :func:`address`), ``home`` the absolute path of the
    folder in which the files will lie where they are used, ``ca`` whether :data:`CA` lies there too, ``by`` what
    ``haversack render`` is told to make.
    """

    snapshot: Snapshot
    name: str
    base: str
    home: str = HOME
    ca: bool = False
    by: str = "clients"

    @property
    def host(self) -> str:
        """Host and port; empty where the address is a folder."""
        return BASE_HOST if self.base == BASE_URL else urlsplit(self.base).netloc

    @property
    def hostname(self) -> str:
        """The host without its port."""
        return urlsplit(f"//{self.host}").hostname or ""

    @property
    def path(self) -> str:
        """What of the address follows the host: empty, or ``/mirror/@2026-11``."""
        return "" if self.base == BASE_URL else urlsplit(self.base).path

    @property
    def plain(self) -> bool:
        """Whether it is served without TLS."""
        return self.base.startswith("http:")

    @property
    def index(self) -> str:
        """The PyPI index, with the slash that saves each client a redirect."""
        return f"{self.base}/pypi/simple/"

    def head(self, *more: str) -> list[str]:
        """The first lines of a file: by what, of which snapshot, and more."""
        told = f"# Written by haversack render {self.by}, of snapshot {self.name} ({self.snapshot.id[:19]}…)."
        lines = [told, *(f"# {line}" for line in more)]
        if self.base == BASE_URL:
            lines.append(
                f"# Write the URL at which the folder of this export is served for {BASE_URL}, its host and port for"
                f" {BASE_HOST}."
            )
        return lines

    def at(self, file: str) -> str:
        """The path of a file of this folder where it is used."""
        return f"{self.home}/{file}"

    def channels(self) -> dict[str, str]:
        """Where each conda channel is served, by its canonical URL."""
        folders = Channels(self.snapshot).folders
        return {channel: f"{self.base}/{PREFIX}/{quote(folder)}" for channel, folder in folders.items()}

    def upstream(self) -> dict[str, str]:
        """Where the files of each web server are served, by ``https://host``: not those of conda channels."""
        found = set()
        for environment in self.snapshot.environments:
            for artifact in environment.artifacts:
                origin, channel = artifact.origin, artifact.facts.get("channel")
                server = "/".join(origin.split("/", 3)[:3])
                if not server.startswith(("https://", "http://")) or not is_plain(server):
                    continue
                if artifact.kind != "conda" or not origin.startswith(f"{channel}/"):
                    found.add(server)
        return {server: f"{self.base}/upstream/{quote(place_of(server)[0])}" for server in sorted(found)}

    def registries(self) -> dict[str, str]:
        """Where the images of each registry are, as the first part of their names, by its host (``docker.io``)."""
        hosts = {
            reference.partition("/")[0]
            for environment in self.snapshot.environments
            for artifact in environment.artifacts
            if artifact.kind == "image"
            for reference in _texts(artifact.facts.get("refs"))
        }
        return {host: host.replace(":", "_") for host in sorted(hosts) if _HOST.fullmatch(host)}

    def repositories(self) -> dict[str, str]:
        """Where each git project is served, by the URL that the declaration gives it."""
        found = {}
        for environment in self.snapshot.environments:
            git = environment.locked.settings.get("git") if environment.locked.kind == "project" else None
            url = git.get("url") if isinstance(git, Mapping) else None
            # A path is a place of the machine that locked.
            if isinstance(url, str) and re.match(r"[a-z+]+://|[^/]+@[^/:]+:", url):
                found[url] = f"{self.base}/projects/{quote(environment.locked.name)}.git"
        return dict(sorted(found.items()))


@dataclass(frozen=True, slots=True)
class Client:
    """A program: its files by name (a name may lie in a folder), and the variables that name them.

    ``variables`` may hold ``None``: a variable that would lead past the mirror, and is taken away.
    ``shell`` is what ``env.sh`` does besides, in lines that any POSIX shell reads.
    ``in_pods`` is false for what concerns the machine and not what runs in a pod.
    """

    files: Callable[[Served], Mapping[str, str]]
    variables: Callable[[Served], Mapping[str, str | None]] = lambda _: {}
    shell: Callable[[Served], list[str]] = lambda _: []
    in_pods: bool = True


@functools.cache
def clients() -> Mapping[str, Client]:
    """Every client, by the name of its module."""
    found: dict[str, Client] = {}
    for name in sorted(module.name for module in pkgutil.iter_modules(__path__)):
        client = getattr(importlib.import_module(f"{__name__}.{name}"), "CLIENT", None)
        if client is not None:
            found[name] = client
    return found


def programs(name: str) -> str:
    """The programs that a client is: what its module's documentation begins with."""
    return (importlib.import_module(f"{__name__}.{name}").__doc__ or "").partition(":")[0]


def address(url: str) -> str:
    """A base URL without the slash at its end.  Raises ``UsageError`` for what is none, or holds a secret."""
    try:
        plain = plain_url(url)
    except ValueError as problem:
        raise UsageError(f"the base URL {problem}", remedy="say https://HOST") from None
    if plain.casefold() != url.rstrip("/").casefold():
        raise UsageError(
            "the base URL holds more than a scheme, a host and a path; secrets go into no file",
            remedy="leave it out; env.sh says where passwords go",
        )
    if urlsplit(plain).scheme not in {"http", "https", "file"}:
        raise UsageError("the base URL is of a scheme that no client knows", remedy="say https://HOST")
    if urlsplit(plain).scheme != "file" and not is_authority(urlsplit(plain).netloc):
        raise UsageError("the base URL names no host and port that there can be", remedy="say https://HOST")
    if not _PATH.fullmatch(urlsplit(plain).path):
        raise UsageError(
            "the path of the base URL holds what no address does as it is: a brace, a quote, a $, an empty part, ..",
            remedy="write the path as it is served, other characters as %XX",
        )
    return plain


def text(lines: list[str]) -> str:
    """Lines as a file."""
    return "".join(f"{line}\n" for line in lines)


def _texts(value: Any) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list | tuple) else []
