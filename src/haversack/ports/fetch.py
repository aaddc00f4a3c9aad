"""Files from elsewhere, over http(s) and from file URLs.  Nothing else in haversack dials."""

from __future__ import annotations

import base64
import http
import random
import re
import ssl
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote, urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass, url2pathname

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

from haversack.errors import FetchError, IntegrityError
from haversack.model.artifact import Digest
from haversack.model.site import Credentials
from haversack.ports.credentials import origin
from haversack.ports.partial import CHUNK, Partial

_REDIRECTS = 10
_MOVED = {301, 302, 303, 307, 308}
_PASSING = {408, 425, 429}
# A host that trickles never runs into a read timeout; what is slower than this is as good as stalled.
_SLOWEST = 1024  # bytes a second

_LATER = "check the network and the *_proxy variables, then run this again: what has arrived is kept"
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


class HttpFetch:
    """See :class:`haversack.ports.Fetch` for what each method promises.  Safe between threads.

    ``credentials`` is asked with a URL and answers for its origin; they are sent to that origin only, also
    when it redirects.  ``attempts`` counts tries without progress (a mebibyte more than ever before);
    ``timeout`` is in seconds, for connecting and for each read; ``backoff`` is the first pause between
    tries, which doubles up to ``longest_wait``, the bound of Retry-After too.  Proxies come from the
    environment (``https_proxy``, ``http_proxy``, ``all_proxy``, ``no_proxy``) at construction.
    """

    def __init__(
        self,
        credentials: Callable[[str], Credentials | None],
        *,
        attempts: int = 5,
        timeout: float = 30.0,
        backoff: float = 0.5,
        longest_wait: float = 60.0,
        connections: int = 32,
    ) -> None:
        self._credentials = credentials
        self._attempts, self._timeout = attempts, timeout
        self._backoff, self._longest_wait = backoff, longest_wait
        # Its default roots are those of OpenSSL, so that SSL_CERT_FILE brings in a company's own.
        context = ssl.create_default_context()
        self._direct = urllib3.PoolManager(num_pools=connections, maxsize=connections, ssl_context=context)
        self._proxies = _proxies(context, connections)

    def size(self, url: str) -> int | None:
        """See the protocol."""
        if _is_file(url):
            return _local(url).stat().st_size
        answer, _ = self._patiently(url, lambda: self._open("HEAD", url, {}), lambda: 0)
        return _length(answer) if answer.status == 200 else None

    def get(self, url: str, digest: Digest, dest: Path, on_bytes: Callable[[int], None]) -> int:
        """See the protocol.  The numbers that ``on_bytes`` gets add up to the size of ``dest``.

        They include what was there before, and a negative one when a transfer starts over.
        """
        with Partial(dest, on_bytes) as part:
            if part.digest != digest:
                self._deliver(url, digest, part)
        if part.digest == digest:
            return part.size
        dest.unlink(missing_ok=True)
        raise IntegrityError(
            f"{part.size} bytes arrived and their digest is {part.digest}, not {digest}",
            where=redact(url),
            remedy="if the host's file was meant to change, lock again; else find out who changed it",
        )

    def _deliver(self, url: str, digest: Digest, part: Partial) -> None:
        """Fill ``part``, a second time where the first body may be a mixture of two, or cut short."""
        if _is_file(url):
            _copy(url, part)
            return
        for again in (False, True):
            if again:
                part.restart()
            whole = self._patiently(url, lambda: self._fill(url, part), lambda: part.size)
            if whole or part.digest == digest:
                return

    def _patiently(self, url: str, act: Callable[[], _Result], reached: Callable[[], int]) -> _Result:
        """Try until it works, or until ``attempts`` tries in a row brought nothing new."""
        tries, mark = 0, reached()
        while True:
            try:
                return act()
            except _Hitch as hitch:
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
                time.sleep(max(pause, min(hitch.wait, self._longest_wait)))

    def _fill(self, url: str, part: Partial) -> bool:
        """Fetch what ``part`` lacks; whether it is sure to be one whole body now."""
        answer, here = self._open("GET", url, {"Range": f"bytes={part.size}-"} if part.size else {})
        with answer:
            if answer.status == 200:
                part.restart()
                self._pour(url, here, answer, part)
                return _length(answer) is not None or _chunked(answer)
            if answer.status == 206 and _start(answer) == part.size:
                self._pour(url, here, answer, part)
                return False
            if not (part.size and answer.status in {206, 416}):
                raise _refusal(answer, url, here)
            _let_go(answer)
        # The host cannot go on from here: it has another file, or another idea of ranges.
        part.restart()
        return self._fill(url, part)

    def _pour(self, url: str, here: str, answer: urllib3.BaseHTTPResponse, part: Partial) -> None:
        """Move the body into ``part`` as it arrives."""
        due, count = time.monotonic() + self._timeout, 0
        while True:
            try:
                # read1 passes on what has come; read would keep a broken connection's last bytes to itself.
                chunk = answer.read1(CHUNK, decode_content=False)
            except HTTPError as error:
                raise self._explained(error, url, here) from error
            if not chunk:
                return
            part.write(chunk)
            count += len(chunk)
            if (now := time.monotonic()) > due:
                if count < _SLOWEST * self._timeout:
                    raise _Hitch(f"its host sent only {count} bytes in {self._timeout:g} s{_via(url, here)}")
                due, count = now + self._timeout, 0

    def _open(
        self, method: str, url: str, headers: Mapping[str, str]
    ) -> tuple[urllib3.BaseHTTPResponse, str]:
        """The answer to a request once redirects are followed, and the URL that gave it."""
        home, here, login = origin(url), url, self._credentials(url)
        for _ in range(_REDIRECTS + 1):
            place = origin(here)
            if place is None:
                raise FetchError(f"is not an http, https or file URL{_via(url, here)}", where=redact(url))
            # Compressed on the way, the bytes would not be those of the digest.
            sent = {"Accept-Encoding": "identity", "User-Agent": "haversack", **headers}
            if login and place == home:
                sent["Authorization"] = _basic(login)
            answer = self._send(method, url, here, sent)
            location = answer.headers.get("Location")
            if answer.status not in _MOVED or not location:
                return answer, here
            _let_go(answer)
            try:
                here = urljoin(here, location)
            except ValueError:
                here = location  # no URL at all, which the next round says
        raise FetchError(f"is redirected more than {_REDIRECTS} times", where=redact(url))

    def _send(self, method: str, url: str, here: str, headers: Mapping[str, str]) -> urllib3.BaseHTTPResponse:
        manager: urllib3.PoolManager = self._direct
        parts = urlsplit(here)
        if parts.scheme in self._proxies and not proxy_bypass(parts.netloc.rpartition("@")[2]):
            manager = self._proxies[parts.scheme]
        try:
            return manager.request(
                method,
                here,
                headers=headers,
                redirect=False,
                retries=False,
                preload_content=method == "HEAD",
                timeout=urllib3.Timeout(connect=self._timeout, read=self._timeout),
            )
        except LocationValueError:
            problem = "is not an http, https or file URL"
        except HTTPError as error:
            raise self._explained(error, url, here) from error
        # Raised out here: urllib3's own error repeats the URL with all that is in it.
        raise FetchError(problem + _via(url, here), where=redact(url))

    def _explained(self, error: HTTPError, url: str, here: str) -> Exception:
        """What a failed request or read means."""
        match error:
            case SSLError(args=(ssl.SSLCertVerificationError() as reason, *_)):
                return FetchError(
                    f"its host's certificate is not trusted: {reason.verify_message}{_via(url, here)}",
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
                text = f"its host did not answer within {self._timeout:g} s"
            case ReadTimeoutError():
                text = f"its host sent nothing for {self._timeout:g} s"
            case _:
                text = "the connection broke off"
        return _Hitch(text + _via(url, here))


class _Hitch(Exception):  # noqa: N818 - not an error yet
    """Something that may pass, after ``wait`` seconds at least."""

    def __init__(self, message: str, *, wait: float = 0.0) -> None:
        super().__init__(message)
        self.wait = wait


def _refusal(answer: urllib3.BaseHTTPResponse, url: str, here: str) -> Exception:
    """What a status that brings no file means."""
    status = answer.status
    phrase = next((known.phrase for known in http.HTTPStatus if known == status), "")
    text = " ".join(filter(None, ["its host answered", str(status), phrase])) + _via(url, here)
    wait = _retry_after(answer)
    _let_go(answer)
    if status >= 500 or status in _PASSING:
        return _Hitch(text, wait=wait)
    remedy = ""
    if status in {401, 403}:
        remedy = "set `auth` of the index in haversack.toml, and check the credentials it names"
    elif status in {404, 410}:
        remedy = "the file is gone or was never there: lock again"
    elif status == 407:
        remedy = "put the proxy's user name and password into the *_proxy variable"
    return FetchError(text, where=redact(url), remedy=remedy)


def _via(url: str, here: str) -> str:
    return "" if here == url else f" (redirected to {redact(here)})"


def _basic(login: Credentials) -> str:
    return "Basic " + base64.b64encode(f"{login.username}:{login.password}".encode()).decode()


def _chunked(answer: urllib3.BaseHTTPResponse) -> bool:
    return "chunked" in answer.headers.get("Transfer-Encoding", "").lower()


def _length(answer: urllib3.BaseHTTPResponse) -> int | None:
    text = answer.headers.get("Content-Length", "")
    return int(text) if re.fullmatch("[0-9]+", text) and not _chunked(answer) else None


def _start(answer: urllib3.BaseHTTPResponse) -> int | None:
    match = re.match(r"bytes ([0-9]+)-", answer.headers.get("Content-Range", ""))
    return int(match[1]) if match else None


def _retry_after(answer: urllib3.BaseHTTPResponse) -> float:
    """Seconds the host asks for; 0 if it does not ask, or in no form that HTTP knows."""
    try:
        return urllib3.Retry().get_retry_after(answer) or 0.0
    except InvalidHeader:
        return 0.0


def _let_go(answer: urllib3.BaseHTTPResponse) -> None:
    """End with an answer; a short one is read to its end, which keeps the connection."""
    length = _length(answer)
    if length is not None and length < CHUNK:
        answer.drain_conn()
    answer.close()


def _is_file(url: str) -> bool:
    return url.lower().startswith("file:")


def _local(url: str) -> Path:
    """The file that a file URL means."""
    try:
        parts = urlsplit(url)
        path = Path(url2pathname(parts.path))
        # Another host in a file URL would be dialled on Windows, past every rule here.
        if parts.netloc in {"", "localhost"} and path.is_file():
            return path
    except ValueError:
        pass
    raise FetchError("there is no such file on this machine", where=redact(url))


def _copy(url: str, part: Partial) -> None:
    part.restart()
    try:
        with _local(url).open("rb") as file:
            while chunk := file.read(CHUNK):
                part.write(chunk)
    except OSError as error:
        raise FetchError(f"cannot be read: {error.strerror}", where=redact(url)) from error


def _proxies(context: ssl.SSLContext, connections: int) -> dict[str, urllib3.ProxyManager]:
    """A pool for each scheme that the environment gives a proxy for."""
    declared = getproxies()
    found: dict[str, urllib3.ProxyManager] = {}
    for scheme in ("http", "https"):
        address = declared.get(scheme) or declared.get("all")
        if not address:
            continue
        if "://" not in address:
            address = f"http://{address}"
        if origin(address) is None:
            raise FetchError(
                f"the {scheme} proxy of the environment is not an http proxy",
                remedy=f"set {scheme}_proxy to http://HOST:PORT",
            )
        parts = urlsplit(address)
        login = Credentials(unquote(parts.username or ""), unquote(parts.password or ""))
        found[scheme] = urllib3.ProxyManager(
            f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}",
            num_pools=connections,
            maxsize=connections,
            proxy_headers={"Proxy-Authorization": _basic(login)} if parts.username else None,
            proxy_ssl_context=context,
            ssl_context=context,
        )
    return found
