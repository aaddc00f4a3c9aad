"""``conda-lock.yml``, version 1: what conda-lock 4 writes, and what it reads.

Packages of all platforms stand in one list.  Of a conda package it keeps URL, hashes and dependencies, but
not the whole record; of a wheel its URL and sha256.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from haversack.errors import DeclarationError, FormatError
from haversack.formats import yaml
from haversack.formats.canonical import Fields
from haversack.formats.repodata import plain_url
from haversack.model.artifact import Digest, is_digest

FILENAME = "conda-lock.yml"
_VERSION = 1
_REMEDY = "lock it again with conda-lock 4"
_MD5 = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class CondaLockPackage:
    """One package on one platform; ``manager`` is ``conda`` or ``pip``, ``platform`` a subdir of conda's.

    ``dependencies`` maps names to what is asked of them.  ``category`` is ``main`` for what an environment
    always has.
    """

    name: str
    version: str
    manager: str
    platform: str
    url: str
    md5: str | None
    sha256: Digest | None
    dependencies: Mapping[str, str] = field(default_factory=dict, hash=False)
    category: str = "main"
    build: str | None = None


@dataclass(frozen=True, slots=True)
class CondaLock:
    """A whole lock: channels as written (a URL or a plain name), platforms, packages in the file's order."""

    channels: tuple[str, ...]
    platforms: tuple[str, ...]
    packages: tuple[CondaLockPackage, ...]

    def on(self, platform: str, categories: Sequence[str] = ("main",)) -> tuple[CondaLockPackage, ...]:
        """The packages of a platform, each once.  ``KeyError`` for a platform that was not locked."""
        if platform not in self.platforms:
            raise KeyError(platform)
        found: dict[tuple[str, str], CondaLockPackage] = {}
        for package in self.packages:
            if package.platform == platform and package.category in categories:
                # What two categories need stands in the file once for each.
                found.setdefault((package.manager, package.url), package)
        return tuple(found.values())


def read(data: bytes, where: str) -> CondaLock:
    """The lock in some bytes.  Raises ``DeclarationError`` naming the place, ``FormatError`` for a newer one."""
    top = Fields(yaml.load(data, where), where, DeclarationError, _REMEDY)
    version = top.count("version")
    if version != _VERSION:
        raise FormatError(
            f"is of version {version}; this haversack reads {_VERSION}", where=where, remedy=_REMEDY
        )
    metadata = Fields(top.table("metadata"), f"{where}: metadata", DeclarationError, _REMEDY)
    channels = []
    for number, channel in enumerate(metadata.items("channels")):
        at = f"{where}: metadata.channels[{number}]"
        url = channel if isinstance(channel, str) else Fields(channel, at, DeclarationError).text("url")
        channels.append(_plain(url, at) if "://" in url else url)
    packages = tuple(
        _package(item, f"{where}: package[{number}]") for number, item in enumerate(top.items("package"))
    )
    platforms = metadata.texts("platforms")
    for package in packages:
        if package.platform not in platforms:
            raise top.wrong(f"{package.name} is for {package.platform}, which is not among its platforms")
    return CondaLock(tuple(channels), platforms, packages)


def _package(item: Any, where: str) -> CondaLockPackage:
    fields = Fields(item, where, DeclarationError, _REMEDY)
    manager = fields.text("manager")
    if manager not in {"conda", "pip"}:
        raise fields.wrong("'manager' is neither conda nor pip")
    told = Fields(fields.table("hash"), f"{where}: hash", DeclarationError, _REMEDY)
    md5, sha256 = (text and text.lower() for text in (told.text_or_none("md5"), told.text_or_none("sha256")))
    if md5 and not _MD5.fullmatch(md5):
        raise told.wrong("'md5' is not 32 hexadecimal digits")
    if sha256 and not is_digest(f"sha256:{sha256}"):
        raise told.wrong("'sha256' is not 64 hexadecimal digits")
    dependencies = fields.table("dependencies")
    if not all(isinstance(asked, str) for asked in dependencies.values()):
        raise fields.wrong("'dependencies' are not texts")
    return CondaLockPackage(
        name=fields.text("name"),
        version=fields.text("version"),
        manager=manager,
        platform=fields.text("platform"),
        url=_plain(fields.text("url"), where),
        md5=md5 or None,
        sha256=f"sha256:{sha256}" if sha256 else None,
        dependencies=dependencies,
        category=fields.text_or_none("category") or "main",
        build=fields.text_or_none("build"),
    )


def _plain(url: str, where: str) -> str:
    """A URL as it stands, less a fragment; one that holds a secret is refused and not repeated."""
    told = url.partition("#")[0].rstrip("/")
    try:
        plain = plain_url(told)
    except ValueError as problem:
        raise DeclarationError(f"'url' {problem}", where=where, remedy=_REMEDY) from problem
    if plain.casefold() != told.casefold():
        raise DeclarationError(
            "the URL holds a user name, a password, a token or a query",
            where=where,
            remedy="change it where it was in use, and lock again from a channel without it; "
            'haversack takes it from [channel.NAME] auth = "env", "netrc" or "keyring"',
        )
    return plain


def write(lock: CondaLock, content_hash: Mapping[str, str]) -> bytes:
    """The bytes of a lock that conda-lock reads; ``content_hash`` says by platform what was locked.

    conda-lock compares those sums to see whether a lock is old.  Raises ``ValueError`` for a conda package
    without an md5, for conda-lock asks for one.
    """
    packages = []
    for package in sorted(lock.packages, key=lambda p: (p.manager, p.name, p.platform, p.category)):
        if package.manager == "conda" and not package.md5:
            raise ValueError(f"nobody names the md5 of {package.name}, which conda-lock asks for")
        sums = {"md5": package.md5, "sha256": package.sha256 and package.sha256.removeprefix("sha256:")}
        packages.append(
            {
                "name": package.name,
                "version": package.version,
                "manager": package.manager,
                "platform": package.platform,
                "dependencies": dict(sorted(package.dependencies.items())),
                "url": package.url,
                "hash": {key: value for key, value in sums.items() if value},
                "category": package.category,
                "optional": package.category != "main",
                **({"build": package.build} if package.build else {}),
            }
        )
    metadata = {
        "content_hash": dict(sorted(content_hash.items())),
        "channels": [{"url": url, "used_env_vars": []} for url in lock.channels],
        "platforms": list(lock.platforms),
        "sources": [],
    }
    return yaml.dump({"version": _VERSION, "metadata": metadata, "package": packages})
