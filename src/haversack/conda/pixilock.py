"""``pixi.lock``, versions 6 and 7, through rattler's own reader: what an environment has on a target."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rattler import LockFile
from rattler.exceptions import ParseCondaLockError
from rattler.lock import CondaLockedBinaryPackage, CondaLockedPackage, LockedPackage, PypiLockedPackage

from haversack.conda import engine
from haversack.errors import DeclarationError
from haversack.formats.pylock import Pick
from haversack.model.artifact import is_digest

_NEWER = re.compile(r"newer lockfile format version (\d+)")
_LOGIN = re.compile(r"(?P<scheme>[A-Za-z0-9+.-]{0,20})://(?P<user>[^/?#\s\"'<>]*)@")
_TOKEN = re.compile(r"https?://[^\s\"'<>]*?/t/[^/\s\"'<>]+[^\s\"'<>]*")
# A thread of a forum, as comments name them: its number, after its words or alone.
_THREAD = re.compile(r"/t/(?:[^/]+/)?[0-9]{1,9}(?:/[0-9]+)?[^A-Za-z0-9]*$")
_SDIST = (".tar.gz", ".zip", ".tar.bz2", ".tar.xz")


@dataclass(frozen=True, slots=True)
class PixiPackages:
    """What one environment of a lock has on one platform.

    ``records`` are full conda records, ``picks`` files of Python distributions (their locations relative to
    the lock, or URLs), ``sources`` the distributions that are folders of the project, by name, ``foreign``
    those that nobody can carry as they are, with the reason.
    """

    records: tuple[dict[str, Any], ...]
    picks: tuple[Pick, ...]
    sources: tuple[tuple[str, str], ...]
    foreign: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class PixiLock:
    """A lock that rattler has read; ``environments`` are their names."""

    environments: tuple[str, ...]
    _lock: LockFile

    def platforms(self, environment: str) -> tuple[str, ...]:
        """The platforms that an environment is locked for."""
        found = self._lock.environment(environment)
        return tuple(sorted(platform.name for platform in found.platforms())) if found else ()

    def packages(self, environment: str, platform: str) -> PixiPackages | None:
        """What an environment has for a platform of the lock or a subdir; ``None`` if it was not locked for it.

        Since version 7 a lock can have platforms of its own names; the one called like its subdir comes first.
        """
        found = self._lock.environment(environment)
        known = found.platforms() if found else []
        fitting = [p for p in known if platform in {p.name, str(p.subdir)}]
        for one in sorted(fitting, key=lambda p: (p.name != platform, p.name))[:1]:
            with engine.guarded("reading pixi.lock"):
                return _sorted_out((found.packages(one) if found else None) or [])
        return None


def refuse_secrets(data: bytes, where: str) -> None:
    """Raise ``DeclarationError`` naming the line where a file of a pixi project holds somebody's login.

    The files of a project cross byte for byte, comments too, so that nothing can be taken out of them.  A
    login is a password in a URL, a user where that may be a token, or a ``/t/<token>``.
    """
    for number, line in enumerate(data.decode(errors="replace").splitlines(), 1):
        if any(map(_is_login, _LOGIN.finditer(line))) or any(
            not _THREAD.search(found[0]) for found in _TOKEN.finditer(line)
        ):
            raise DeclarationError(
                "a URL in it holds a password or a token, which would cross with the file",
                where=f"{where}: line {number}",
                remedy="change the login where it was in use, take it out of the address in the manifest, "
                "give it to pixi's own store (pixi auth login), and run: pixi lock",
            )


def _is_login(found: re.Match[str]) -> bool:
    """Whether what stands before an ``@`` lets anybody in; ``git`` and the users of ssh do not."""
    user, _, password = found["user"].partition(":")
    return bool(password) or (user not in {"", "git"} and "ssh" not in found["scheme"])


def read(path: Path) -> PixiLock:
    """The lock in a file.  Raises ``DeclarationError``."""
    try:
        with engine.guarded("reading pixi.lock"):
            lock = LockFile.from_path(path)
            return PixiLock(tuple(sorted(name for name, _ in lock.environments())), lock)
    except ParseCondaLockError as problem:
        if newer := _NEWER.search(str(problem)):
            raise DeclarationError(
                f"is a pixi lock of version {newer[1]}, which this haversack does not read",
                where=str(path),
                remedy="update haversack, or lock with the pixi that it was made beside",
            ) from problem
        raise DeclarationError(
            f"is not a pixi lock: {problem}", where=str(path), remedy="run: pixi lock"
        ) from problem
    except OSError as problem:
        raise DeclarationError(
            f"cannot be read: {problem}", where=str(path), remedy="run: pixi lock"
        ) from problem


def _sorted_out(packages: list[LockedPackage]) -> PixiPackages:
    records: list[dict[str, Any]] = []
    picks: list[Pick] = []
    sources: list[tuple[str, str]] = []
    foreign: list[tuple[str, str]] = []
    for package in packages:
        if isinstance(package, CondaLockedBinaryPackage):
            records.append(engine.from_rattler(package.repo_data_record()))
        elif isinstance(package, CondaLockedPackage):
            foreign.append((package.name, "is built by pixi from its source"))
        elif isinstance(package, PypiLockedPackage):
            _place(package, picks, sources, foreign)
    return PixiPackages(tuple(records), tuple(picks), tuple(sources), tuple(foreign))


def _place(
    package: PypiLockedPackage,
    picks: list[Pick],
    sources: list[tuple[str, str]],
    foreign: list[tuple[str, str]],
) -> None:
    location = package.location.removeprefix("direct+").partition("#")[0]
    if location.startswith("git+"):
        foreign.append((package.name, "comes from a repository"))
    elif location.endswith((".whl", *_SDIST)):
        digest = _digest(package)
        filename = location.rpartition("/")[2]
        if is_digest(digest) or "://" in location:
            wheel = location.endswith(".whl")
            picks.append(Pick(package.name, package.version, filename, location, digest, None, wheel))
        else:
            foreign.append((package.name, "is a file without a sha256 in the lock"))
    elif "://" in location:
        foreign.append((package.name, "comes from an address that is no wheel"))
    else:
        sources.append((package.name, location))


def _digest(package: PypiLockedPackage) -> str:
    # The binding raises AttributeError where the lock names no sha256.
    digits = getattr(package.hashes, "sha256", None) if package.hashes else None
    return f"sha256:{digits.hex()}" if isinstance(digits, bytes) else ""
