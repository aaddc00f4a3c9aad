"""Real servers that speak S3, on loopback, ended by their own handles.

``moto`` knows conditions and parts and checks no signature; ``rclone serve s3`` checks signatures and ignores
conditions and ranges.  Together they hold a client to what all servers have in common.
"""

from __future__ import annotations

import contextlib
import http.server
import os
import secrets
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from obstore import sign

from haversack.model.bucket import Bucket
from haversack.ports.blobcache import BlobCache
from haversack.ports.s3 import S3Store
from haversack.ports.s3client import connect

KEY, SECRET = "AKIDEXAMPLE00000001", "SECRETEXAMPLE0000000000000000000000000001"
PROGRAMS = Path(sys.executable).parent


@dataclass(frozen=True)
class Server:
    """A server: where it answers, its process, and a folder of its own."""

    endpoint: str
    process: subprocess.Popen[bytes]
    folder: Path

    def bucket(self, path: str = "site/store") -> Bucket:
        """A new bucket, and a path in it."""
        name = f"b-{secrets.token_hex(8)}"
        url = sign(connect(Bucket(name, ""), self.environ()), "PUT", "", timedelta(minutes=1))
        with direct().open(urllib.request.Request(url, method="PUT"), timeout=10):
            """Made."""
        return Bucket(name, path)

    def environ(self, **changes: str) -> dict[str, str]:
        """What a client needs to know, and nothing of the machine's own."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "HOME": str(self.folder),
            **changes,
        }

    def store(self, bucket: Bucket, cache: Path, *, retries: int = 6, **changes: str) -> S3Store:
        """A handle on the store in a bucket, which is made if there is none."""
        copies = BlobCache(cache, 1 << 30)
        return S3Store(bucket, self.environ(**changes), copies, create=True, retries=retries)

    def object(self, bucket: Bucket, key: str) -> bytes:
        """The bytes of an object, by a client of its own."""
        return bytes(connect(bucket, self.environ()).get(key).bytes())

    def put(self, bucket: Bucket, key: str, data: bytes) -> None:
        """Replace an object behind everybody's back."""
        connect(bucket, self.environ()).put(key, data)


def scrub(patch: pytest.MonkeyPatch) -> None:
    """Take from this process what steers clients of S3 and proxies: obstore reads the real environment."""
    for name in list(os.environ):
        if name.startswith("AWS_") or name.lower().endswith("_proxy"):
            patch.delenv(name)


@contextlib.contextmanager
def moto(folder: Path) -> Iterator[Server]:
    """A server of moto's."""
    port = free_port()
    argv = [str(PROGRAMS / "moto_server"), "-H", "127.0.0.1", "-p", str(port)]
    with _running(argv, port, folder) as server:
        yield server


@contextlib.contextmanager
def rclone(folder: Path, *words: str | Path) -> Iterator[Server]:
    """A server of rclone's over ``folder/buckets``, whose folders are buckets; ``words`` are its options."""
    port = free_port()
    buckets = folder / "buckets"
    buckets.mkdir(parents=True, exist_ok=True)
    argv = [str(PROGRAMS / "rclone"), "serve", "s3", "--auth-key", f"{KEY},{SECRET}"]
    argv += [
        "--addr",
        f"127.0.0.1:{port}",
        "--config",
        str(folder / "rclone.conf"),
        str(buckets),
        *map(str, words),
    ]
    (folder / "rclone.conf").touch()
    with _running(argv, port, folder, "https" if "--cert" in words else "http") as server:
        yield server


@contextlib.contextmanager
def _running(argv: list[str], port: int, folder: Path, scheme: str = "http") -> Iterator[Server]:
    endpoint = f"{scheme}://127.0.0.1:{port}"
    environ = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "PYTHONWARNINGS": "ignore"}
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(argv, stdout=log, stderr=log, env=environ)
    try:
        _wait(endpoint, process)
        yield Server(endpoint, process, folder)
    finally:
        process.kill()
        process.wait()


def _wait(endpoint: str, process: subprocess.Popen[bytes]) -> None:
    due = time.monotonic() + 30
    while time.monotonic() < due and process.poll() is None:
        try:
            with direct().open(endpoint, timeout=5):
                return
        except urllib.error.HTTPError as problem:
            problem.close()
            return
        except OSError as problem:
            if isinstance(getattr(problem, "reason", None), ssl.SSLError):
                return
            time.sleep(0.05)
    raise AssertionError(f"{process.args!r} does not answer")


_REFUSED = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"


class _ForReaders(http.server.BaseHTTPRequestHandler):
    """Passes questions on and refuses whatever changes something, as keys of a reader are."""

    protocol_version = "HTTP/1.1"
    behind = ""

    def do_GET(self) -> None:
        request = urllib.request.Request(self.behind + self.path, method=self.command)
        for name in ("Authorization", "X-Amz-Date", "X-Amz-Content-Sha256"):
            if value := self.headers.get(name):
                request.add_header(name, value)
        try:
            with direct().open(request, timeout=20) as answer:
                self._answer(answer.status, dict(answer.headers), answer.read())
        except urllib.error.HTTPError as problem:
            with problem:
                self._answer(problem.code, dict(problem.headers), problem.read())

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer(403, {"Content-Length": str(len(_REFUSED))}, _REFUSED)

    def do_POST(self) -> None:
        self.do_PUT()

    def do_DELETE(self) -> None:
        self.do_PUT()

    def _answer(self, status: int, headers: dict[str, str], data: bytes) -> None:
        self.send_response(status)
        for name in ("Content-Length", "Content-Type", "ETag", "Last-Modified"):
            if found := next((v for n, v in headers.items() if n.lower() == name.lower()), None):
                self.send_header(name, found)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Silence."""


@contextlib.contextmanager
def for_readers(server: Server) -> Iterator[str]:
    """The endpoint of something in front of a server (of moto's) through which nothing can be changed."""
    handler = type("Handler", (_ForReaders,), {"behind": server.endpoint})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as front:
        front.daemon_threads = True
        threading.Thread(target=front.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{front.server_address[1]}"
        finally:
            front.shutdown()


def direct() -> urllib.request.OpenerDirector:
    """What opens URLs past any proxy."""
    return urllib.request.build_opener(urllib.request.ProxyHandler({}))


def free_port() -> int:
    """A port of loopback that nobody uses."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
