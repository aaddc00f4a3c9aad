"""The live server for tests: as the command, in a process of its own, or in a thread with other patience."""

from __future__ import annotations

import asyncio
import re
import signal
import socket
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from haversack.ports import Store
from haversack.serving.app import App
from haversack.serving.http import Patience, Server
from haversack.serving.journal import Journal
from tests.support import tiny


@dataclass(frozen=True)
class Reply:
    """An answer: status, header fields by their names in lower case, body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def ask(url: str, *, method: str = "GET", data: bytes | None = None, **headers: str) -> Reply:
    """Ask once, follow nothing; words like ``if_none_match`` are header fields."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(url, method=method, data=data, headers=named)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _Staying)
    try:
        with opener.open(request, timeout=20) as answer:
            return Reply(answer.status, {k.lower(): v for k, v in answer.headers.items()}, answer.read())
    except urllib.error.HTTPError as answer:
        with answer:
            return Reply(answer.code, {k.lower(): v for k, v in answer.headers.items()}, answer.read())


class _Staying(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object, **__: object) -> None:
        return None


class Live:
    """``haversack serve`` over a store, at a port of its own; ended, and its exit code checked, on leaving.

    ``url`` ends in a slash.  ``log`` is the file of the access log.  ``files`` is how many files it may have open.
    """

    def __init__(
        self, store: Path, folder: Path, *words: str | Path, listen: str = "127.0.0.1:0", files: int = 0
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.log, self.errors = folder / "access.log", folder / "errors.log"
        argv = tiny.command("serve", "--listen", listen, "--access-log", self.log, *words)
        if files:
            argv = ["sh", "-c", f'ulimit -n {files}; exec "$@"', "sh", *argv]
        with self.errors.open("wb") as errors:
            self.process = subprocess.Popen(argv, env=tiny.environ(store), stderr=errors)
        for _ in range(1000):
            text = self.errors.read_text()
            if match := re.search(r" at (\S+)(?: (\S+))?\n", text):
                break
            if self.process.poll() is not None:
                raise AssertionError(text)
            threading.Event().wait(0.01)
        else:
            raise AssertionError("the server did not start")
        self.url, self.metrics = match[1], match[2] or ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        code = self.end()
        if kind is None:
            assert code == 0, self.errors.read_text()
            assert "Traceback" not in self.errors.read_text()

    def end(self) -> int:
        """Ask it to end, and wait; its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(40)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise

    def get(self, path: str, **headers: str) -> Reply:
        """Ask for a path without its first slash."""
        return ask(self.url + path, data=None, **headers)

    def raw(self, data: bytes, *, until_closed: bool = True) -> bytes:
        """Send bytes and read to the end of the connection."""
        host, port = self.url.removeprefix("http://").strip("/").rsplit(":", 1)
        with socket.create_connection((host, int(port)), timeout=15) as one:
            one.sendall(data)
            found = b""
            while chunk := one.recv(65536):
                found += chunk
                if not until_closed:
                    break
            return found


class InThread:
    """The server in a thread of this process, with a patience of the test's."""

    def __init__(self, store: Store, folder: Path, patience: Patience, limit: int = 1000) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self.journal = Journal(folder / "access.log")

        async def begin() -> tuple[App, Server, asyncio.Server]:
            app = App(store, self.journal)
            server = Server(app, limit, patience)
            return (
                app,
                server,
                await self._loop.create_server(server.connection, "127.0.0.1", 0, backlog=4096),
            )

        self.app, self.server, self._acceptor = asyncio.run_coroutine_threadsafe(begin(), self._loop).result()
        self.place: tuple[str, int] = self._acceptor.sockets[0].getsockname()

    def connect(self) -> socket.socket:
        """A client."""
        return socket.create_connection(self.place, timeout=20)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        async def end() -> None:
            self._acceptor.close()
            await self.server.drain()

        asyncio.run_coroutine_threadsafe(end(), self._loop).result()
        self.app.close()
        self.app.blobs.opening.shutdown()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()
        self.journal.close()
