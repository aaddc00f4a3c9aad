"""The access log: one line of JSON for each answer, written in blocks; and errors, at once.

A line holds no query and no login: either may be a secret.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path
from typing import TextIO

from haversack.errors import UsageError
from haversack.serving.answers import Answer
from haversack.serving.remembering import Ready
from haversack.serving.requests import Request

_BLOCK = 256
_SELDOM = 60.0
"""Seconds between two lines that say that there is no room."""


class Journal:
    """Where answers are recorded: a file, or standard output without one.  Errors go to standard error."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._lines: list[str] = []
        self._writing = threading.Lock()
        self._crowded = -_SELDOM
        self._file: TextIO = sys.stdout
        self.reopen()

    def reopen(self) -> None:
        """Open the file anew, after somebody moved it away.  Raises ``UsageError`` where it cannot be."""
        self.flush()
        if self._path is None:
            return
        try:
            file = self._path.open("a", encoding="utf-8")
        except OSError as problem:
            raise UsageError(
                f"the log cannot be written: {problem.strerror}", where=str(self._path)
            ) from problem
        if self._file is not sys.stdout:
            self._file.close()
        self._file = file

    def record(self, peer: str, request: Request | None, answer: Answer, sent: int, seconds: float) -> None:
        """An answer that was given, as far as ``sent`` bytes of its body."""
        self._line(_opening(request, answer), peer, sent, seconds)

    def record_ready(self, peer: str, ready: Ready, seconds: float) -> None:
        """An answer from the memory."""
        if ready.logged is None:
            ready.logged = _opening(ready.request, ready.answer)
        self._line(str(ready.logged), peer, ready.answer.length, seconds)

    def _line(self, opening: str, peer: str, sent: int, seconds: float) -> None:
        moment = time.time()
        whole = int(moment)
        if whole != self._second[0]:
            self._second = whole, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole))
        self._lines.append(
            f'{{"time":"{self._second[1]}.{int((moment - whole) * 1000):03}Z","remote":"{peer}",{opening},'
            f'"bytes":{sent},"ms":{seconds * 1000:.2f}}}\n'
        )
        if len(self._lines) >= _BLOCK:
            self.flush()

    _second = (0, "")

    def flush(self) -> None:
        """Write what waits.  A log that cannot be written does not stop the server."""
        lines, self._lines = self._lines, []
        if not lines:
            return
        with self._writing:
            try:
                self._file.write("".join(lines))
                self._file.flush()
            except (OSError, ValueError) as problem:
                print(f"haversack: the access log cannot be written: {problem}", file=sys.stderr)

    def close(self) -> None:
        """Write what waits, and let go of the file."""
        self.flush()
        if self._file is not sys.stdout:
            self._file.close()

    def error(self, told: str) -> None:
        """Say at once what is wrong."""
        with self._writing:
            print(json.dumps({"level": "error", "error": told}), file=sys.stderr, flush=True)

    def crowded(self, told: str) -> None:
        """Say that there is no room for more clients, once a minute: it may be so thousands of times a second."""
        now = time.monotonic()
        if now - self._crowded >= _SELDOM:
            self._crowded = now
            self.error(told)


def _opening(request: Request | None, answer: Answer) -> str:
    """What of a line is the same each time the same is asked: without time, place, bytes and duration."""
    told = {
        "method": request.method if request else "",
        "path": request.path if request else "",
        "status": answer.status,
        "view": answer.view,
        "user": answer.user,
        "agent": request.header("user-agent") if request else "",
    }
    if answer.note:
        told["note"] = answer.note
    return json.dumps(told, ensure_ascii=True, separators=(",", ":"))[1:-1]
