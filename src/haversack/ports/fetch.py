"""Files from elsewhere, over http(s) and from file URLs."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit
from urllib.request import url2pathname

import urllib3
from urllib3.exceptions import HTTPError

from haversack.errors import FetchError, IntegrityError
from haversack.model.artifact import Digest
from haversack.model.site import Credentials
from haversack.ports.http import BasicLogin, Hitch, Http, chunked, length_of, let_go, redact, via
from haversack.ports.partial import CHUNK, Partial, TooMuchError

__all__ = ["HttpFetch", "redact"]

# A host that trickles never runs into a read timeout; what is slower than this is as good as stalled.
_SLOWEST = 1024  # bytes a second
# What fits a processor's cache is hashed and written from there: with a mebibyte at a time the kernel's part
# of fetching grew by half, and with 64 KiB it did for the number of calls.
_READ = 1 << 18
_PACKED = (".gz", ".tgz", ".bz2", ".xz", ".zst", ".z", ".br")


class HttpFetch:
    """See :class:`haversack.ports.Fetch` for what each method promises.  Safe between threads.

    ``credentials`` is asked with a URL and answers for its origin; they are sent to that origin only, also
    when it redirects.  ``attempts`` counts tries without progress (a mebibyte more than ever before);
    ``timeout`` is in seconds, for connecting and for each read; ``backoff`` is the first pause between
    tries, which doubles up to ``longest_wait``, the bound of Retry-After too.  Proxies come from the
    environment (``https_proxy``, ``http_proxy``, ``all_proxy``, ``no_proxy``) at construction.  ``say``
    hears when a host asks for long patience.
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
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._http = Http(
            BasicLogin(credentials),
            attempts=attempts,
            timeout=timeout,
            backoff=backoff,
            longest_wait=longest_wait,
            connections=connections,
            say=say,
        )
        self._headers: Mapping[str, str] = {}

    @classmethod
    def over(cls, http: Http, headers: Mapping[str, str]) -> Self:
        """A fetch that makes its requests with ``http`` and sends these headers too."""
        made = cls.__new__(cls)
        made._http, made._headers = http, headers
        return made

    def size(self, url: str) -> int | None:
        """See the protocol."""
        if _is_file(url):
            return _local(url).stat().st_size
        answer, _ = self._http.patiently(url, lambda: self._http.open("HEAD", url, self._headers), lambda: 0)
        return length_of(answer) if answer.status == 200 else None

    def get(
        self, url: str, digest: Digest, dest: Path, on_bytes: Callable[[int], None], size: int | None = None
    ) -> int:
        """See the protocol.  The numbers that ``on_bytes`` gets add up to the size of ``dest``.

        They include what was there before, and a negative one when a transfer starts over.
        """
        problem = ""
        with Partial(dest, on_bytes, redact(url), size) as part:
            try:
                if part.digest != digest:
                    self._deliver(url, digest, part)
            except TooMuchError as much:
                problem = str(much)
                part.restart()
        if not problem and part.digest == digest:
            return part.size
        dest.unlink(missing_ok=True)
        raise IntegrityError(
            problem or f"{part.size} bytes arrived and their digest is {part.digest}, not {digest}",
            where=redact(url),
            remedy="if the host's file was meant to change, lock again; else find out who changed it",
        )

    def take(self, url: str, dest: Path, on_bytes: Callable[[int], None]) -> Digest:
        """See the protocol.  What broke off is gone on with where the host says that its file is still the same."""
        with Partial(dest, on_bytes, redact(url), None) as part:
            part.restart()
            if _is_file(url):
                _copy(url, part)
            else:
                version: list[str] = [""]
                self._http.patiently(url, lambda: self._whole(url, part, version), lambda: part.size)
        return part.digest

    def _whole(self, url: str, part: Partial, version: list[str]) -> None:
        """Fill ``part`` with one body; ``version`` is how the host calls the one that was begun (RFC 9110 §13.1.5)."""
        if not version[0]:
            part.restart()
        rest = {"Range": f"bytes={part.size}-", "If-Range": version[0]} if part.size else {}
        answer, here = self._http.open("GET", url, {**self._headers, **rest})
        with answer:
            if answer.status == 206 and _start(answer) == part.size and _version(answer) == version[0]:
                self._pour(url, here, answer, part)
                return
            version[0] = ""
            if answer.status in {206, 416} and part.size:
                let_go(answer)
                raise Hitch(f"its host has another file now{via(url, here)}")
            if answer.status != 200:
                raise self._http.refusal(answer, url, here)
            self._as_it_is(url, answer)
            part.restart()
            version[0] = _version(answer)
            self._pour(url, here, answer, part)

    def _as_it_is(self, url: str, answer: urllib3.BaseHTTPResponse) -> None:
        """Refuse a body that was packed for the way though nobody asked: whose bytes they are, no digest tells yet.

        Packed files whose name says so are called packed by many servers, and are themselves what is meant.
        """
        encoding = answer.headers.get("Content-Encoding", "").strip().lower()
        if encoding in {"", "identity"} or urlsplit(url).path.lower().endswith(_PACKED):
            return
        answer.close()
        raise FetchError(
            f"its host sent it packed with {encoding!r} though it was asked for the file as it is",
            where=redact(url),
            remedy="have its server send it as it is, or fetch it by other means and let `url` name the file",
        )

    def _deliver(self, url: str, digest: Digest, part: Partial) -> None:
        """Fill ``part``, a second time where the first body may be a mixture of two, or cut short."""
        if _is_file(url):
            _copy(url, part)
            return
        for again in (False, True):
            if again:
                part.restart()
            whole = self._http.patiently(url, lambda: self._fill(url, part), lambda: part.size)
            if whole or part.digest == digest:
                return

    def _fill(self, url: str, part: Partial) -> bool:
        """Fetch what ``part`` lacks; whether it is sure to be one whole body now."""
        rest = {"Range": f"bytes={part.size}-"} if part.size else {}
        answer, here = self._http.open("GET", url, {**self._headers, **rest})
        with answer:
            if answer.status == 200:
                part.restart()
                self._pour(url, here, answer, part)
                return length_of(answer) is not None or chunked(answer)
            if answer.status == 206 and _start(answer) == part.size:
                # More than the file has: what was there may be of another one. What nobody asked for is refused.
                with contextlib.suppress(TooMuchError) if rest else contextlib.nullcontext():
                    self._pour(url, here, answer, part)
                    return False
            elif not (part.size and answer.status in {206, 416}):
                raise self._http.refusal(answer, url, here)
            else:
                let_go(answer)
        # The host cannot go on from here: it has another file, or another idea of ranges.
        part.restart()
        return self._fill(url, part)

    def _pour(self, url: str, here: str, answer: urllib3.BaseHTTPResponse, part: Partial) -> None:
        """Move the body into ``part`` as it arrives; more than it takes is not asked for."""
        part.expect(length_of(answer))
        due, count = time.monotonic() + self._http.timeout, 0
        while True:
            try:
                # read1 passes on what has come; read would keep a broken connection's last bytes to itself.
                chunk = answer.read1(_READ, decode_content=False)
            except HTTPError as error:
                raise self._http.explained(error, url, here) from error
            if not chunk:
                return
            part.write(chunk)
            count += len(chunk)
            if (now := time.monotonic()) > due:
                if count < _SLOWEST * self._http.timeout:
                    raise Hitch(
                        f"its host sent only {count} bytes in {self._http.timeout:g} s{via(url, here)}"
                    )
                due, count = now + self._http.timeout, 0


def _start(answer: urllib3.BaseHTTPResponse) -> int | None:
    match = re.match(r"bytes ([0-9]+)-", answer.headers.get("Content-Range", ""))
    return int(match[1]) if match else None


def _version(answer: urllib3.BaseHTTPResponse) -> str:
    """What a host calls this version of a file: a strong ETag, else the moment of its last change, or nothing."""
    etag: str = answer.headers.get("ETag", "")
    return etag if etag.startswith('"') else answer.headers.get("Last-Modified", "")


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
            part.expect(os.fstat(file.fileno()).st_size)
            while chunk := file.read(CHUNK):
                part.write(chunk)
    except OSError as error:
        raise FetchError(f"cannot be read: {error.strerror}", where=redact(url)) from error
