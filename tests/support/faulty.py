"""An HTTP/1.1 server on loopback that answers for a site and goes wrong as it is told."""

from __future__ import annotations

import re
import socket
import ssl
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol
from urllib.parse import urlsplit

_PIECE = 1024
_MORE = 1 << 16


@dataclass
class Fault:
    """How answers to requests whose path contains ``path`` go wrong.

    It lasts ``times`` requests, or for ever without; ``hits`` counts the requests it met.  Where several
    faults match a request, each field is taken from the first one that sets it.  Offsets of ``truncate_at``
    and ``stall_at`` count the bytes of the one answer, that of ``flip_at`` those of the file.  Pages are at
    ``/simple/<project>/`` and files at ``/files/<filename>``: ``/files/demo`` spares the page.
    """

    path: str = ""
    times: int | None = None
    method: str | None = None
    """Only requests of this method."""

    status: int | None = None
    """Answer with this status instead of the file."""
    headers: Mapping[str, str] | None = None
    """Send these too, with whatever is answered."""
    redirect: str | None = None
    """Answer 302 with this location, in which ``{path}`` stands for the path asked for."""
    hang_up: bool | None = None
    """Close the connection without an answer."""
    mute: bool | None = None
    """Take the request and never answer."""

    truncate_at: int | None = None
    """Promise the whole body, send this many bytes and close the connection."""
    stall_at: int | None = None
    """Promise the whole body, send this many bytes and no more, with the connection open."""
    flip_at: int | None = None
    """Change the byte of the file at this offset."""
    delay: float | None = None
    """Seconds to wait before each piece of the body."""
    piece: int | None = None
    """Bytes in a piece, 1024 without."""

    no_range: bool | None = None
    """Answer a Range request with 200 and the whole file."""
    range_from: int | None = None
    """Answer a Range request with 206 from this byte on, whatever was asked for."""
    no_size: bool | None = None
    """Send no Content-Length; the end of the connection ends the body."""
    chunked: bool | None = None
    """Send the body in chunks, without Content-Length."""
    endless: bool | None = None
    """Send what was asked for in chunks, and then more of them, for as long as the client takes any."""

    hits: int = 0

    def matches(self, method: str, path: str) -> bool:
        """Whether the fault meets a request, which is not counted yet."""
        return (
            self.path in path
            and self.method in {None, method}
            and (self.times is None or self.hits < self.times)
        )


@dataclass(frozen=True)
class Request:
    """A request as it came; names in ``headers`` are lower case.

    ``target`` is a whole URL where a proxy is meant; requests of one connection have the same ``port``.
    """

    method: str
    target: str
    headers: Mapping[str, str]
    port: int

    @property
    def path(self) -> str:
        """The path of the target, without a query."""
        return urlsplit(self.target).path

    @property
    def range(self) -> str | None:
        """The Range header."""
        return self.headers.get("range")

    @property
    def authorization(self) -> str | None:
        """The Authorization header."""
        return self.headers.get("authorization")


class Site(Protocol):
    """What the server asks of what it serves."""

    def note(self, request: Request) -> dict[str, Any]:
        """Record a request, and tell the fields of the faults that meet it."""
        ...

    def admits(self, request: Request) -> bool:
        """Whether a request brings the credentials asked for."""
        ...

    def answer(self, path: str, accept: str) -> tuple[str, bytes] | None:
        """Media type and body of a path, or ``None``."""
        ...


class Server(ThreadingHTTPServer):
    """Serves ``site`` from its own thread until :meth:`stop`; what went wrong in it goes to ``problems``."""

    # Ending waits for the handlers, so that no thread outlives its test.
    daemon_threads = False
    request_queue_size = 128

    def __init__(
        self,
        address: tuple[str, int],
        site: Site,
        tls: ssl.SSLContext | None,
        problems: list[BaseException],
    ) -> None:
        super().__init__(address, _Handler)
        self.site = site
        self.stopping = threading.Event()
        self._problems = problems
        self._connections: set[Any] = set()
        self._guard = threading.Lock()
        if tls:
            # The handshake waits for the client, hence it belongs to the handler's thread.
            self.socket = tls.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def stop(self) -> None:
        """Refuse connections, cut those that are open, and wait for the last handler."""
        self.stopping.set()
        self.shutdown()
        self._thread.join()
        with self._guard:
            for connection in self._connections:
                _cut(connection)
        self.server_close()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Remember the connection, for :meth:`stop`."""
        with self._guard:
            self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Forget the connection."""
        with self._guard:
            self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that leaves is what tests are about; anything else is a defect of this server."""
        error = sys.exception()
        if error is not None and not isinstance(error, OSError):
            self._problems.append(error)


def _cut(connection: Any) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # the client was faster


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Head and body are two writes: with Nagle's algorithm each answer would wait for a delayed ACK.
    disable_nagle_algorithm = True
    server: Server
    wrong: dict[str, Any]

    def do_GET(self) -> None:
        """Answer."""
        self._serve()

    def do_HEAD(self) -> None:
        """Answer."""
        self._serve()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Requests are recorded, not printed."""

    def _serve(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, self.path, headers, self.client_address[1])
        site = self.server.site
        self.wrong = wrong = site.note(request)
        if wrong.get("hang_up"):
            self.close_connection = True
        elif wrong.get("mute"):
            self.server.stopping.wait()
            self.close_connection = True
        elif "status" in wrong:
            self._send(wrong["status"], "text/plain", b"as you wish\n")
        elif not site.admits(request):
            self._send(401, "text/plain", b"who are you?\n", {"WWW-Authenticate": 'Basic realm="test"'})
        elif "redirect" in wrong:
            location = wrong["redirect"].replace("{path}", request.path)
            self._send(302, "text/plain", b"over there\n", {"Location": location})
        elif (found := site.answer(request.path, request.headers.get("accept", ""))) is None:
            self._send(404, "text/plain", b"no such thing\n")
        else:
            self._file(request, *found)

    def _file(self, request: Request, media_type: str, data: bytes) -> None:
        flip = self.wrong.get("flip_at")
        if flip is not None:
            data = data[:flip] + bytes([data[flip] ^ 0xFF]) + data[flip + 1 :]
        match = re.fullmatch(r"bytes=(\d*)-(\d*)", request.range or "")
        if not match or match[0] == "bytes=-" or self.wrong.get("no_range"):
            self._send(200, media_type, data, {"Accept-Ranges": "bytes"})
            return
        if match[1]:
            start, end = int(match[1]), min(int(match[2] or len(data)), len(data) - 1)
        else:
            start, end = max(len(data) - int(match[2]), 0), len(data) - 1
        start = self.wrong.get("range_from", start)
        if start > end:
            self._send(416, "text/plain", b"past the end\n", {"Content-Range": f"bytes */{len(data)}"})
        else:
            place = {"Content-Range": f"bytes {start}-{end}/{len(data)}"}
            self._send(206, media_type, data[start : end + 1], place)

    def _send(
        self, status: int, media_type: str, body: bytes, headers: Mapping[str, str] | None = None
    ) -> None:
        wrong = self.wrong
        chunked = wrong.get("chunked") or wrong.get("endless")
        self.send_response(status)
        self.send_header("Content-Type", media_type)
        if chunked:
            self.send_header("Transfer-Encoding", "chunked")
        elif wrong.get("no_size"):
            self.send_header("Connection", "close")
        else:
            self.send_header("Content-Length", str(len(body)))
        for name, value in {**(headers or {}), **(wrong.get("headers") or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        cut, stall = wrong.get("truncate_at"), wrong.get("stall_at")
        stops = [at for at in (cut, stall) if at is not None and at < len(body)]
        sent = body[: min(stops)] if stops else body
        delay, piece = wrong.get("delay"), wrong.get("piece", _PIECE)
        # One write unless the pace matters: a request of many megabytes should not take many calls.
        step = piece if delay or chunked else max(len(sent), 1)
        for start in range(0, len(sent), step):
            if delay and self.server.stopping.wait(delay):
                break
            part = sent[start : start + step]
            self.wfile.write(b"%x\r\n%b\r\n" % (len(part), part) if chunked else part)
        if stops and stall is not None and min(stops) == stall:
            self.server.stopping.wait()
        while wrong.get("endless") and not self.server.stopping.is_set():
            self.wfile.write(b"%x\r\n%b\r\n" % (_MORE, bytes(_MORE)))
        if stops:
            self.close_connection = True
        elif chunked:
            self.wfile.write(b"0\r\n\r\n")
