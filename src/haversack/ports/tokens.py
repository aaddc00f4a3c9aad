"""How a registry lets somebody in: Basic, or Bearer tokens from the realm that its challenge names.

The token flow of the distribution project (*Token Authentication Specification*): a 401 names a realm, a service
and a scope; the realm, asked with the registry's login or with none, gives a token that lasts ``expires_in``
seconds (60 where it does not say).
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from haversack.errors import FetchError
from haversack.model.site import Credentials
from haversack.ports.credentials import basic, origin
from haversack.ports.http import Http, redact

_SECONDS = 60
# A token that is about to run out would be refused when it arrives.
_MARGIN = 5
_PARAMETER = re.compile(r'([A-Za-z_]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')


@dataclass(frozen=True, slots=True)
class Challenge:
    """One scheme of a ``WWW-Authenticate`` header (RFC 9110 §11.6.1), in lower case, and its parameters."""

    scheme: str
    parameters: tuple[tuple[str, str], ...]

    def get(self, name: str) -> str:
        """A parameter, empty where it is not there."""
        return next((value for key, value in self.parameters if key == name), "")


def challenges(text: str) -> list[Challenge]:
    """Every challenge in a ``WWW-Authenticate`` header; what is none is left out."""
    marks = list(re.finditer(r"(?:^|,)\s*(Basic|Bearer)\b\s*", text, re.IGNORECASE))
    ends = [*(mark.start() for mark in marks), len(text)][1:]
    found = []
    for mark, end in zip(marks, ends, strict=True):
        pairs = _PARAMETER.findall(text[mark.end() : end])
        parameters = tuple(
            (name.lower(), re.sub(r"\\(.)", r"\1", quoted) or bare) for name, quoted, bare in pairs
        )
        found.append(Challenge(mark[1].lower(), parameters))
    return found


class _Nobody:
    """The login of a realm, whose requests bring their own headers."""

    def header(self, method: str, url: str) -> None:
        return None

    def challenged(self, method: str, url: str, challenge: str, sent: str | None) -> bool:
        return False


class TokenLogin:
    """The :class:`haversack.ports.http.Login` of registries.

    Passwords go to the registry's own origin, and to a realm that it names on its own host or over https; a
    token goes to the registry that it is for.  ``options`` are those of :class:`~haversack.ports.http.Http`.
    """

    def __init__(self, credentials: Callable[[str], Credentials | None], **options: Any) -> None:
        self._credentials = credentials
        self._http = Http(_Nobody(), **options)
        self._known: dict[tuple[object, str, bool], tuple[str, float]] = {}
        self._lock = threading.Lock()

    def header(self, method: str, url: str) -> str | None:
        """See the protocol: what the last challenge about the same repository was answered with."""
        word, until = self._known.get(_key(method, url), ("", 0.0))
        return word if word and time.monotonic() < until else None

    def challenged(self, method: str, url: str, challenge: str, sent: str | None) -> bool:
        """See the protocol."""
        # One thread asks the realm; the others find its answer.
        with self._lock:
            known = self.header(method, url)
            if known is not None and known != sent:
                return True
            told = {one.scheme: one for one in reversed(challenges(challenge))}
            login = self._credentials(url)
            if "bearer" in told:
                word, seconds = self._token(url, told["bearer"], login)
            elif "basic" in told and login is not None and sent is None:
                word, seconds = basic(login), float("inf")
            else:
                return False
            self._known[_key(method, url)] = word, time.monotonic() + seconds
            return True

    def _token(self, url: str, challenge: Challenge, login: Credentials | None) -> tuple[str, float]:
        """A new token as ``Authorization`` says it, and the seconds that it lasts."""
        realm = challenge.get("realm")
        place, home = origin(realm), origin(url)
        if place is None or home is None or (place[0] != "https" and home[0] == "https"):
            raise FetchError(
                "it sends us for a token to a place that is no https URL",
                where=redact(url),
                remedy="ask who runs the registry to give its realm an https URL",
            )
        scopes = [value for key, value in challenge.parameters if key == "scope"]
        query = [("service", challenge.get("service")), *(("scope", scope) for scope in scopes)]
        asked = f"{realm}{'&' if '?' in realm else '?'}{urlencode([(k, v) for k, v in query if v])}"
        trusted = place[0] == "https" or place[1] == home[1]
        headers = {"Authorization": basic(login)} if login and trusted else {}
        answer = self._http.read("GET", asked, headers)
        try:
            told = json.loads(answer.data)
            token = str(told.get("token") or told["access_token"])
            seconds = float(told.get("expires_in") or _SECONDS)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError):
            token, seconds = "", 0.0
        # A line break in it would begin another header.
        if not re.fullmatch(r"[\x21-\x7e]+", token):
            raise FetchError("gives no token that can be read", where=redact(realm))
        return f"Bearer {token}", max(seconds - _MARGIN, seconds / 2)


def _key(method: str, url: str) -> tuple[object, str, bool]:
    """What a token is for: the registry, the repository there, and whether it is to be written to."""
    repository = re.search(r"/v2/(.+)/(?:manifests|blobs|referrers|tags)/", url)
    return origin(url), repository[1] if repository else "", method not in {"GET", "HEAD"}
