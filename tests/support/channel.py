"""A conda channel on loopback, served from a folder, that misbehaves on request.

::

    with ChannelServer(folder, username="me", password="secret") as server:
        server.url                                              # http://127.0.0.1:PORT/
        server.fail(r"/tool-1\\.0", "truncate", times=2)
        ...
        assert server.asked("noarch/repodata.json")

The folder is read anew for every request, and only what is in it is found: a channel without
``repodata_shards`` answers 404 for them, as real ones without shards do.
"""

from __future__ import annotations

import base64
import hashlib
import re
import threading
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import unquote

from tests.support.faulty import Request, Server

Wrong = int | Literal["drop", "truncate"]
"""A status to answer with, ``drop`` to close the connection without an answer, ``truncate`` to do so after half."""


@dataclass
class Failure:
    """What goes wrong for paths that ``pattern`` finds; for ever without ``times``, ``hits`` counts."""

    pattern: re.Pattern[str]
    wrong: Wrong
    times: int | None
    hits: int = 0


class ChannelServer:
    """Serves the files of ``folder`` with Range, ETag and If-None-Match, behind basic authentication if asked."""

    def __init__(self, folder: Path, *, username: str | None = None, password: str | None = None) -> None:
        self.folder = folder.resolve()
        self.requests: list[Request] = []
        word = base64.b64encode(f"{username}:{password}".encode()).decode()
        self._authorization = None if username is None else f"Basic {word}"
        self._failures: list[Failure] = []
        self._lock = threading.Lock()
        self._problems: list[BaseException] = []
        self._server = Server(("127.0.0.1", 0), self, None, self._problems)

    @property
    def url(self) -> str:
        """Where the folder is served, with a slash at its end."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/"

    def fail(self, pattern: str, status: Wrong = 503, *, times: int | None = None) -> Failure:
        """Misbehave from now on for paths in which ``pattern`` is found."""
        failure = Failure(re.compile(pattern), status, times)
        with self._lock:
            self._failures.append(failure)
        return failure

    def heal(self) -> None:
        """Forget all failures."""
        with self._lock:
            self._failures.clear()

    def asked(self, path: str = "", method: str = "GET") -> list[Request]:
        """The requests so far of one method whose path contains ``path``."""
        with self._lock:
            return [request for request in self.requests if request.method == method and path in request.path]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.stop()
        if self._problems and error is None:
            raise self._problems[0]

    def note(self, request: Request) -> dict[str, Any]:
        """See :class:`tests.support.faulty.Site`."""
        with self._lock:
            self.requests.append(request)
            for failure in self._failures:
                if failure.pattern.search(request.path) and failure.times != failure.hits:
                    failure.hits += 1
                    return self._gone_wrong(failure.wrong, request.path)
        found = self.answer(request.path, "")
        if found is None or not self.admits(request):
            return {}
        tag = f'"{hashlib.sha256(found[1]).hexdigest()[:32]}"'
        if request.headers.get("if-none-match") == tag:
            # A 304 has no body: nothing of it is sent, and the connection is closed.
            return {"status": 304, "truncate_at": 0, "headers": {"ETag": tag, "Connection": "close"}}
        return {"headers": {"ETag": tag}}

    def _gone_wrong(self, wrong: Wrong, path: str) -> dict[str, Any]:
        if wrong == "drop":
            return {"hang_up": True}
        if wrong == "truncate":
            found = self.answer(path, "")
            return {"truncate_at": len(found[1]) // 2 if found else 0}
        return {"status": wrong}

    def admits(self, request: Request) -> bool:
        """See :class:`tests.support.faulty.Site`."""
        return self._authorization is None or request.authorization == self._authorization

    def answer(self, path: str, accept: str) -> tuple[str, bytes] | None:
        """See :class:`tests.support.faulty.Site`."""
        place = (self.folder / unquote(path).lstrip("/")).resolve()
        if not place.is_relative_to(self.folder) or not place.is_file():
            return None
        return "application/json" if place.suffix == ".json" else "application/octet-stream", (
            place.read_bytes()
        )
