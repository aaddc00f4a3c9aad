"""Answers: status, header fields and a body; and what of a page a request asks for (RFC 9110).

Pure: a file is only carried along, never read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Protocol

from haversack.serving.requests import Request

TEXT = "text/plain; charset=utf-8"
HTML = "text/html; charset=utf-8"
_FAR = 10**18
_RANGE = re.compile(r"bytes=[ \t]*([0-9]*)-([0-9]*)[ \t]*", re.IGNORECASE)


class Passage(Protocol):
    """Some bytes of a file, ``start`` to ``stop``, that are given away as far as they are proven."""

    start: int
    stop: int

    def fileno(self) -> int:
        """The open file."""
        ...

    async def released(self, position: int) -> int:
        """How far, beyond ``position``, bytes may leave; waits.  Raises ``IntegrityError`` instead of the end."""
        ...

    def close(self) -> None:
        """Let go of the file."""
        ...


@dataclass(slots=True)
class Answer:
    """What a request gets.  ``passage`` is the body where there is one, else ``body`` is.

    ``view`` and ``user`` are for the log.  ``lasting`` answers stay the same until the store or the rules
    change, or the moment ``until`` (of the event loop's clock) passes.
    """

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    passage: Passage | None = None
    view: str = ""
    user: str = ""
    lasting: bool = False
    until: float = float("inf")
    note: str = ""
    """Why it is an error, for the log alone."""
    worked: bool = False
    """Whether the client works hard on the bytes as they come, as one does that unpacks layers."""

    @property
    def length(self) -> int:
        """The bytes of the body."""
        return self.passage.stop - self.passage.start if self.passage else len(self.body)


def head_of(answer: Answer, date: bytes, *, keep: bool) -> bytes:
    """The head of an answer as it is sent; ``date`` is the value of its ``Date``."""
    lines = [f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}"]
    lines += [f"{name}: {value}" for name, value in answer.headers.items()]
    if answer.status != 304 and "Content-Length" not in answer.headers:
        lines.append(f"Content-Length: {answer.length}")
    lines += ["X-Content-Type-Options: nosniff", "Server: haversack"]
    lines.append(f"Connection: {'keep-alive' if keep else 'close'}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\nDate: " + date + b"\r\n\r\n"


def text(status: int, told: str, headers: Mapping[str, str] | None = None) -> Answer:
    """An answer for a person: one line."""
    return Answer(status, {"Content-Type": TEXT, **(headers or {})}, f"{told}\n".encode())


def oci_error(status: int, code: str, told: str) -> Answer:
    """An error as the OCI distribution specification has it ("Error Codes")."""
    body = json.dumps({"errors": [{"code": code, "message": told, "detail": {}}]}).encode()
    return Answer(status, {"Content-Type": "application/json"}, body)


def moved(place: str) -> Answer:
    """A permanent redirect to a path that is already percent-encoded."""
    return Answer(301, {"Location": place, "Content-Type": TEXT, "Cache-Control": "no-cache"}, b"moved\n")


def matches(header: str, etag: str) -> bool:
    """Whether an ``If-None-Match`` names an entity tag; the comparison is the weak one (RFC 9110 §13.1.2)."""
    return header.strip() == "*" or etag in {word.strip().removeprefix("W/") for word in header.split(",")}


def stands(header: str | None, etag: str) -> bool:
    """Whether an ``If-Match`` lets a page be given; the comparison is the strong one (RFC 9110 §13.1.1)."""
    return header is None or header.strip() == "*" or etag in {word.strip() for word in header.split(",")}


def early(request: Request, etag: str, headers: Mapping[str, str]) -> Answer | None:
    """The answer where the conditions of a request (RFC 9110 §13.2.2) are against the page; no page has a date."""
    if not stands(request.headers.get("if-match"), etag):
        return text(412, "the page is another one", {"ETag": etag})
    return Answer(304, dict(headers)) if matches(request.header("if-none-match"), etag) else None


def unsatisfiable(headers: Mapping[str, str], size: int) -> Answer:
    """The answer where a page has no such range; ``headers`` are those it would have."""
    kept = {name: headers[name] for name in ("ETag", "Accept-Ranges")}
    return text(416, "the page has no such range", {**kept, "Content-Range": f"bytes */{size}"})


def part(request: Request, etag: str, size: int) -> tuple[int, int] | None:
    """The bytes that a request wants: first and one after the last, or ``None`` for all of them.

    Several ranges, other units and what is no range are answered with everything, as RFC 9110 §14.2 allows.
    Raises ``ValueError`` for a range that the page does not have (416).
    """
    match = _RANGE.fullmatch(request.header("range"))
    if match is None or request.method != "GET" or request.headers.get("if-range", etag) != etag:
        return None
    first, last = match.groups()
    if first:
        start, stop = _number(first), min(_number(last) + 1 if last else size, size)
        if last and _number(last) < start:
            return None
    elif last:
        start, stop = max(0, size - _number(last)), size
    else:
        return None
    if start >= stop:
        raise ValueError("the page ends before")
    return start, stop


def _number(digits: str) -> int:
    """A number of any length; one that no page reaches is as good as another."""
    digits = digits.lstrip("0")
    return int(digits or "0") if len(digits) <= 18 else _FAR


def preferred(accept: str, offered: tuple[str, ...]) -> str:
    """The media type of some that an ``Accept`` likes best; the first where it likes none (RFC 9110 §12.5.1)."""
    weights: dict[str, float] = {}
    for item in accept.split(","):
        name, *parameters = (word.strip().lower() for word in item.split(";"))
        weight = next((word[2:] for word in parameters if word.startswith("q=")), "1")
        weights[name] = float(weight) if re.fullmatch(r"[01](\.[0-9]{0,3})?", weight) else 0.0

    def liking(offer: str) -> float:
        for name in (offer, f"{offer.partition('/')[0]}/*", "*/*"):
            if name in weights:
                return weights[name]
        return 0.0

    return max(offered, key=liking)


def accepts_gzip(header: str) -> bool:
    """Whether an ``Accept-Encoding`` takes gzip."""
    for item in header.lower().split(","):
        name, _, weight = item.partition(";")
        if name.strip() in {"gzip", "x-gzip"}:
            return re.fullmatch(r"\s*q=0(\.0*)?\s*", weight) is None
    return False
