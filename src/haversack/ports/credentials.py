"""Credentials of indexes, channels and registries, from where the declaration says: environment, netrc, keyring, docker.

They are bound to the origin (scheme, host and port) of their index, and no error here repeats any part of
them: what a program or a parser says about the material it read stays unsaid.
"""

from __future__ import annotations

import base64
import importlib.util
import json
import netrc
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias
from urllib.parse import urlsplit

from haversack.errors import FetchError, NotFoundError
from haversack.model.site import Channel, Credentials, Index, Registry
from haversack.ports import dockerconfig

# A keyring may ask a person to unlock it; without an answer the run must still come to an end.
_KEYRING_SECONDS = 120.0
_PORTS = {"http": 80, "https": 443}
_Source: TypeAlias = Index | Channel | Registry


def origin(url: str) -> tuple[str, str, int] | None:
    """Scheme, host and port of an http(s) URL, in lower case; ``None`` for anything else."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in _PORTS or not parts.hostname:
        return None
    # Whoever dials may take another host from ``http://one\@other`` than this function does.
    if re.search(r"[\t\r\n]", url) or re.search(r"[\\ ]", parts.netloc):
        return None
    return parts.scheme, parts.hostname, _PORTS[parts.scheme] if port is None else port


class IndexCredentials:
    """Looks the credentials of each index, channel and registry up once, when first asked for.  Safe between threads."""

    def __init__(self, indexes: Sequence[_Source], environ: Mapping[str, str] | None = None) -> None:
        self._indexes = tuple(indexes)
        self._environ = os.environ if environ is None else environ
        self._known: dict[tuple[str, str], Credentials | None] = {}
        self._lock = threading.Lock()

    def by_index(self, name: str) -> Credentials | None:
        """What the index of that name wants, ``None`` if it wants none.

        Raises ``FetchError`` when the declared source has nothing for it, ``NotFoundError`` when there is no
        such index.
        """
        for index in self._indexes:
            if index.name == name and index.family == "index":
                return self._of(index)
        raise NotFoundError(f"no index is called {name!r}")

    def by_url(self, url: str) -> Credentials | None:
        """What the first index or channel with ``auth`` at the URL's origin wants, ``None`` if there is none."""
        return self._at(url, ("index", "channel"))

    def by_registry(self, url: str) -> Credentials | None:
        """What the first registry with ``auth`` at the URL's origin wants, ``None`` if there is none."""
        return self._at(url, ("registry",))

    def _at(self, url: str, families: tuple[str, ...]) -> Credentials | None:
        place = origin(url)
        for index in self._indexes:
            if index.family not in families:
                continue
            if place is not None and index.auth != "none" and origin(index.url) == place:
                return self._of(index)
        return None

    def _of(self, index: _Source) -> Credentials | None:
        # The lock is held while looking: a keyring that asks a person should ask once, not once a thread.
        with self._lock:
            key = index.family, index.name
            if key not in self._known:
                self._known[key] = _look_up(index, self._environ)
            return self._known[key]


def _look_up(index: _Source, environ: Mapping[str, str]) -> Credentials | None:
    match index.auth:
        case "none":
            return None
        case "env":
            return _from_environment(index, environ)
        case "netrc":
            return _from_netrc(index, environ)
        case "keyring":
            return _from_keyring(index, environ)
        case "docker":
            return _from_docker(index, environ)
    raise FetchError(f"unknown auth {index.auth!r}", where=_where(index))


def _where(index: _Source) -> str:
    return f"{index.family} {index.name}"


def _variable(index: _Source, suffix: str) -> str:
    return f"HAVERSACK_{index.family.upper()}_{re.sub('[^A-Za-z0-9]', '_', index.name).upper()}_{suffix}"


def _from_environment(index: _Source, environ: Mapping[str, str]) -> Credentials:
    username, password = _variable(index, "USERNAME"), _variable(index, "PASSWORD")
    missing = [name for name in (username, password) if name not in environ]
    if missing:
        raise FetchError(
            f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not set",
            where=_where(index),
            remedy=f"set the variables, or change `auth` of the {index.family} in haversack.toml",
        )
    return Credentials(environ[username], environ[password])


def _from_netrc(index: _Source, environ: Mapping[str, str]) -> Credentials:
    default = Path.home() / ("_netrc" if os.name == "nt" else ".netrc")
    path = Path(environ["NETRC"]) if environ.get("NETRC") else default
    host = urlsplit(index.url).hostname or ""
    found, problem = None, ""
    try:
        found = netrc.netrc(path).authenticators(host)
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
    except netrc.NetrcParseError as error:
        problem = f"is not a netrc file: see line {error.lineno}"
    except UnicodeDecodeError:
        problem = "is not a netrc file: it is not text"
    # Raised out here: chained to the parser's errors, which quote the word they stumbled over, it would
    # carry a password into a traceback.
    if not problem and not (found and found[2]):
        problem = f"has no login and password for {host}"
    if problem or not found:
        raise FetchError(
            f"{path} {problem}",
            where=_where(index),
            remedy=f"give it a line `machine {host} login NAME password WORD`, or set NETRC to another file",
        )
    login, account, password = found
    return Credentials(login or account or "", password or "")


def _from_keyring(index: _Source, environ: Mapping[str, str]) -> Credentials:
    username = environ.get(_variable(index, "USERNAME"))
    program = _keyring(environ)
    if program is None:
        raise FetchError(
            "there is no keyring program",
            where=_where(index),
            remedy=f"install `keyring` beside haversack or on the PATH, or change `auth` of the {index.family}",
        )
    # With a name every keyring tells the password; without one it takes a newer one that tells both.
    if username is None:
        words = ["--mode", "creds", "--output", "json", "get", index.url]
    else:
        words = ["get", index.url, username]
    found, problem = None, ""
    try:
        done = subprocess.run(
            [*program, *words],
            env={**environ, "PYTHONIOENCODING": "utf-8"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_KEYRING_SECONDS,
            check=False,
        )
    except OSError as error:
        problem = f"the keyring program cannot be started: {error.strerror}"
    except subprocess.TimeoutExpired:
        problem = f"the keyring did not answer within {_KEYRING_SECONDS:.0f} s"
    else:
        found = _answer(done.stdout, username) if done.returncode == 0 else None
        problem = f"the keyring gave nothing for {index.url}"
    if found is None:
        variable = _variable(index, "USERNAME")
        raise FetchError(
            problem,
            where=_where(index),
            remedy=f"set {variable} to the user name; `keyring get {index.url} NAME` must print the password",
        )
    return found


def _from_docker(index: _Source, environ: Mapping[str, str]) -> Credentials:
    host = urlsplit(index.url).netloc
    names = tuple(dict.fromkeys([getattr(index, "host", host), host]))
    found, problem = dockerconfig.find(names, environ)
    if found is None:
        remedy = f"run: podman login {names[0]} (or docker login), or let DOCKER_CONFIG name the folder of config.json"
        raise FetchError(problem, where=_where(index), remedy=remedy)
    return found


def _keyring(environ: Mapping[str, str]) -> list[str] | None:
    """How to start the keyring: haversack's own Python first, then the PATH."""
    if importlib.util.find_spec("keyring"):
        # -P: no module of the folder we happen to stand in may pass for the keyring.
        return [sys.executable, "-P", "-m", "keyring"]
    program = shutil.which("keyring", path=environ.get("PATH"))
    return [program] if program else None


def _answer(out: bytes, username: str | None) -> Credentials | None:
    """Credentials in what a keyring printed, ``None`` if there are none."""
    try:
        text = out.decode()
        if username is not None:
            password = text.removesuffix("\n").removesuffix("\r")
            return Credentials(username, password) if password else None
        found = json.loads(text)
        return Credentials(str(found["username"]), str(found["password"]))
    except (ValueError, KeyError, TypeError):
        return None


def basic(login: Credentials) -> str:
    """What ``Authorization`` says of a user name and a password (RFC 7617)."""
    return "Basic " + base64.b64encode(f"{login.username}:{login.password}".encode()).decode()
