"""Requests over http(s): redirects, proxies, patience, logins.  What is fetched or pushed with them stands beside."""

from __future__ import annotations

import contextlib
import http
import random
import re
import ssl
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar
from urllib.parse import urljoin, urlsplit
from urllib.request import proxy_bypass

import urllib3
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    InvalidHeader,
    LocationValueError,
    NameResolutionError,
    NewConnectionError,
    ProxyError,
    ReadTimeoutError,
    SSLError,
)

from haversack.errors import FetchError
from haversack.model.site import Credentials
from haversack.ports.credentials import basic, origin
from haversack.ports.partial import CHUNK
from haversack.ports.pools import direct, proxied

_REDIRECTS = 10
_MOVED = {301, 302, 303, 307, 308}
_PASSING = {408, 425, 429}
_SECRET = {"authorization", "cookie"}
"""Headers, in lower case, that are for the origin of the URL asked for, and for none that it redirects to."""
# The distribution specification asks registries to take manifests of this size; tokens are shorter.
_MOST = 4 << 20
_LATER = "check the network and the *_proxy variables, then run this again: what has arrived is kept"
_LONG = 2
"""Seconds of waiting that are told; what is shorter nobody wonders about."""
_Result = TypeVar("_Result")


def redact(url: str) -> str:
    """The URL without user name, password, query and fragment, fit for an error text."""
    bare = re.split(r"[?#]", url, maxsplit=1)[0]
    scheme, mark, rest = bare.partition("://") if "://" in bare else ("", "", bare)
    authority, slash, path = rest.partition("/")
    host = authority.rpartition("@")[2]
    # A password with a bare "/", "?" or "#" cuts the authority short, and is then what follows the colon.
    if not re.fullmatch(r"(\[[^\]]*\]|[^:]*)(:\d*)?", host):
        return f"{scheme}{mark}…"
    return f"{scheme}{mark}{host}{slash}{path}"


class Login(Protocol):
    """How requests say who asks.  Safe between threads."""

    def header(self, method: str, url: str) -> str | None:
        """What ``Authorization`` says to the origin of a URL, and to no other; ``None`` for nothing."""
        ...

    def challenged(self, method: str, url: str, challenge: str, sent: str | None) -> bool:
        """Whether another try may be let in, after a 401 with this ``WWW-Authenticate``."""
        ...


class BasicLogin:
    """User name and password as ``credentials`` tells them for a URL."""

    def __init__(self, credentials: Callable[[str], Credentials | None]) -> None:
        self._credentials = credentials

    def header(self, method: str, url: str) -> str | None:
        """See the protocol."""
        login = self._credentials(url)
        return basic(login) if login else None

    def challenged(self, method: str, url: str, challenge: str, sent: str | None) -> bool:
        """See the protocol: what was refused once is refused again."""
        return False


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer: its status, headers, bytes, and the URL that gave it once redirects were followed."""

    status: int
    headers: Mapping[str, str]
    data: bytes
    url: str

    def header(self, name: str) -> str:
        """A header by its name in any case, empty where it was not sent."""
        return next((value for key, value in self.headers.items() if key.lower() == name.lower()), "")


class Http:
    """Requests by one login.  Safe between threads.

    ``attempts`` counts tries without progress (a mebibyte more than ever before); ``timeout`` is in seconds,
    for connecting and for each read; ``backoff`` is the first pause between tries, which doubles up to
    ``longest_wait``, the bound of Retry-After too.  Proxies come from the environment (``https_proxy``,
    ``http_proxy``, ``all_proxy``, ``no_proxy``) at construction.  ``login_remedy`` is what to do when a login is
    refused; ``say`` hears a line when a host asks for so much patience that work seems to have stopped.
    """

    def __init__(
        self,
        login: Login,
        *,
        attempts: int = 5,
        timeout: float = 30.0,
        backoff: float = 0.5,
        longest_wait: float = 60.0,
        connections: int = 32,
        login_remedy: str = "set `auth` of the index in haversack.toml, and check the credentials it names",
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._say, self._telling = say, threading.Lock()
        self._patient: dict[str, float] = {}
        self._login, self._login_remedy = login, login_remedy
        self._attempts, self.timeout = attempts, timeout
        self._backoff, self._longest_wait = backoff, longest_wait
        self._direct, self._proxies = direct(connections), proxied(connections)

    def patiently(self, url: str, act: Callable[[], _Result], reached: Callable[[], int]) -> _Result:
        """Try until it works, or until ``attempts`` tries in a row brought nothing new."""
        tries, mark = 0, reached()
        while True:
            try:
                return act()
            except Hitch as hitch:
                if reached() >= mark + CHUNK:
                    tries, mark = 0, reached()
                tries += 1
                if tries >= self._attempts:
                    raise FetchError(
                        f"{hitch} ({self._attempts} attempts)", where=redact(url), remedy=_LATER
                    ) from hitch
                pause = min(self._backoff * 2 ** (tries - 1), self._longest_wait)
                # Jitter, so that the threads of one run do not come back all at once.
                pause *= random.uniform(0.5, 1)  # noqa: S311
                asked = min(hitch.wait, self._longest_wait)
                if asked >= _LONG:
                    self._tell(urlsplit(redact(url)).netloc, asked)
                time.sleep(max(pause, asked))

    def _tell(self, host: str, seconds: float) -> None:
        """Say that a host is waited for; once, where several threads wait for one."""
        now = time.monotonic()
        with self._telling:
            if self._patient.get(host, now) > now:
                return
            self._patient[host] = now + seconds
        self._say(f"waiting {seconds:.0f} s: {host} asks for patience")

    def open(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: Callable[[], Iterable[bytes]] | None = None,
    ) -> tuple[urllib3.BaseHTTPResponse, str]:
        """The answer to a request once redirects are followed, and the URL that gave it.

        ``body`` makes what is sent, anew for each try.  Logins among ``headers`` go to the URL's own origin alone,
        and from https a redirect to http is not followed: what it gives would be anybody's.  Raises
        ``FetchError``, or :class:`Hitch` for what may pass.
        """
        home, here, challenged, hops = origin(url), url, 0, 0
        while True:
            place = origin(here)
            if place is None:
                raise FetchError(f"is not an http, https or file URL{via(url, here)}", where=redact(url))
            if home and home[0] == "https" and place[0] != "https":
                raise FetchError(f"leads from https to plain http{via(url, here)}", where=redact(url))
            # Compressed on the way, the bytes would not be those of the digest.
            sent = {"Accept-Encoding": "identity", "User-Agent": "haversack"}
            sent |= {k: v for k, v in headers.items() if place == home or k.lower() not in _SECRET}
            word = self._login.header(method, url) if place == home else None
            if word:
                sent["Authorization"] = word
            answer = self._send(method, url, here, sent, body)
            challenge = answer.headers.get("WWW-Authenticate", "")
            # A token may have run out between the answer to one challenge and the next request.
            if answer.status == 401 and place == home and challenged < 2:
                challenged += 1
                if self._login.challenged(method, url, challenge, word):
                    let_go(answer)
                    continue
            location = answer.headers.get("Location")
            if answer.status not in _MOVED or not location:
                return answer, here
            let_go(answer)
            hops += 1
            if hops > _REDIRECTS:
                raise FetchError(f"is redirected more than {_REDIRECTS} times", where=redact(url))
            try:
                here = urljoin(here, location)
            except ValueError:
                here = location  # no URL at all, which the next round says

    def read(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: Callable[[], Iterable[bytes]] | None = None,
        *,
        expected: Collection[int] = (200,),
    ) -> Answer:
        """The answer to a request as a whole, tried patiently.  Raises ``FetchError`` for any status but those."""
        return self.patiently(
            url, lambda: self.once(method, url, headers, body, expected=expected), lambda: 0
        )

    def once(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: Callable[[], Iterable[bytes]] | None = None,
        *,
        expected: Collection[int] = (200,),
    ) -> Answer:
        """The same by one try; what may pass raises :class:`Hitch`."""
        answer, here = self.open(method, url, headers, body)
        # What answers HEAD is closed already, and may be closed again but not entered.
        with contextlib.closing(answer):
            if answer.status not in expected:
                raise self.refusal(answer, url, here)
            try:
                data = answer.read(_MOST + 1, decode_content=False)
            except HTTPError as error:
                raise self.explained(error, url, here) from error
            if len(data) > _MOST:
                raise FetchError(f"its host sent more than {_MOST} bytes", where=redact(url))
            if method != "HEAD" and length_of(answer) not in {None, len(data)}:
                raise Hitch("the connection broke off" + via(url, here))
        return Answer(answer.status, dict(answer.headers.items()), data, here)

    def _send(
        self,
        method: str,
        url: str,
        here: str,
        headers: Mapping[str, str],
        body: Callable[[], Iterable[bytes]] | None,
    ) -> urllib3.BaseHTTPResponse:
        manager: urllib3.PoolManager = self._direct
        parts = urlsplit(here)
        if parts.scheme in self._proxies and not proxy_bypass(parts.netloc.rpartition("@")[2]):
            manager = self._proxies[parts.scheme]
        try:
            return manager.request(
                method,
                here,
                body=None if body is None else body(),
                headers=headers,
                redirect=False,
                retries=False,
                preload_content=method == "HEAD",
                timeout=urllib3.Timeout(connect=self.timeout, read=self.timeout),
            )
        except LocationValueError:
            problem = "is not an http, https or file URL"
        except HTTPError as error:
            raise self.explained(error, url, here) from error
        # Raised out here: urllib3's own error repeats the URL with all that is in it.
        raise FetchError(problem + via(url, here), where=redact(url))

    def explained(self, error: HTTPError, url: str, here: str) -> Exception:
        """What a failed request or read means."""
        match error:
            case SSLError(args=(ssl.SSLCertVerificationError() as reason, *_)):
                return FetchError(
                    f"its host's certificate is not trusted: {reason.verify_message}{via(url, here)}",
                    where=redact(url),
                    remedy="let SSL_CERT_FILE name a file with your organisation's root certificates",
                )
            case ProxyError(original_error=OSError() as reason):
                text = f"the proxy does not let it through: {reason}"
            case ProxyError():
                text = "the proxy cannot be reached"
            case NameResolutionError():
                text = "its host's name cannot be resolved"
            case NewConnectionError():
                text = "its host cannot be connected to"
            case ConnectTimeoutError():
                text = f"its host did not answer within {self.timeout:g} s"
            case ReadTimeoutError():
                text = f"its host sent nothing for {self.timeout:g} s"
            case _:
                text = "the connection broke off"
        return Hitch(text + via(url, here))

    def refusal(self, answer: urllib3.BaseHTTPResponse, url: str, here: str) -> Exception:
        """What a status that brings no file means."""
        status = answer.status
        phrase = next((known.phrase for known in http.HTTPStatus if known == status), "")
        text = " ".join(filter(None, ["its host answered", str(status), phrase])) + via(url, here)
        wait = _retry_after(answer)
        let_go(answer)
        if status >= 500 or status in _PASSING:
            return Hitch(text, wait=wait)
        remedy = ""
        if status in {401, 403}:
            remedy = self._login_remedy
        elif status in {404, 410}:
            remedy = "the file is gone or was never there: lock again"
        elif status == 407:
            remedy = "put the proxy's user name and password into the *_proxy variable"
        return FetchError(text, where=redact(url), remedy=remedy)


class Hitch(Exception):  # noqa: N818 - not an error yet
    """Something that may pass, after ``wait`` seconds at least."""

    def __init__(self, message: str, *, wait: float = 0.0) -> None:
        super().__init__(message)
        self.wait = wait


def via(url: str, here: str) -> str:
    """Where a URL was redirected to, for the end of a text."""
    return "" if here == url else f" (redirected to {redact(here)})"


def length_of(answer: urllib3.BaseHTTPResponse) -> int | None:
    """The size of the body that was promised, in bytes, if one was."""
    text = answer.headers.get("Content-Length", "")
    return int(text) if re.fullmatch("[0-9]+", text) and not chunked(answer) else None


def chunked(answer: urllib3.BaseHTTPResponse) -> bool:
    """Whether the body comes in chunks, which tell its end."""
    return "chunked" in answer.headers.get("Transfer-Encoding", "").lower()


def _retry_after(answer: urllib3.BaseHTTPResponse) -> float:
    """Seconds the host asks for; 0 if it does not ask, or in no form that HTTP knows."""
    try:
        return urllib3.Retry().get_retry_after(answer) or 0.0
    except InvalidHeader:
        return 0.0


def let_go(answer: urllib3.BaseHTTPResponse) -> None:
    """End with an answer; a short one is read to its end, which keeps the connection."""
    length = length_of(answer)
    if length is not None and length < CHUNK:
        answer.drain_conn()
    answer.close()
