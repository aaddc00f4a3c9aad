"""Requests of HTTP/1.1 as they arrive: strict, so that no two readers take one for different things.

RFC 9112 lets a server be lenient in some places; each of them has been used to smuggle a request past a
proxy (section 11.2).  Here everything that the grammar does not say is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote_to_bytes

HEAD_LIMIT = 16 << 10
"""The bytes that a request line and its header fields may have together."""
TARGET_LIMIT = 8 << 10
FIELDS_LIMIT = 100
END = b"\r\n\r\n"
_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([\x21-\x7e]+) HTTP/([0-9])\.([0-9])")
# Blanks around a value are taken off afterwards: in the expression, each could belong to three parts of it.
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):([^\x00-\x08\x0a-\x1f\x7f]*)")
_HOST = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=%-]*(:[0-9]*)?|\[[0-9A-Fa-f:.]+\](:[0-9]*)?")
_SINGLE = {"host", "content-length", "transfer-encoding", "authorization", "range", "if-range"}
"""Fields whose second line would contradict the first."""


class RefusedError(Exception):
    """A request that is none, or none that is answered: ``status`` and what is wrong with it, for its sender."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Request:
    """One request.  ``path`` is decoded and begins with ``/``; ``raw`` is the path as it was sent.

    ``host`` is the host that is asked, with a port where one was named, in lower case; empty in HTTP/1.0 without.
    Header names are in lower case.  ``body`` says that bytes of a body would follow.
    """

    method: str
    path: str
    raw: str
    host: str = ""
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    keep: bool = True
    body: bool = False

    def header(self, name: str) -> str:
        """A header field's value, or an empty string."""
        return self.headers.get(name, "")


def parse(head: bytes) -> Request:
    """The request of a head, the empty line at its end included.  Raises :class:`RefusedError`."""
    lines = head.removesuffix(END).split(b"\r\n")
    match = _LINE.fullmatch(lines[0])
    if match is None:
        raise RefusedError(400, "the request line is none")
    if match[3] != b"1":
        raise RefusedError(505, "only HTTP/1.1 and 1.0 are spoken here")
    if len(match[2]) > TARGET_LIMIT:
        raise RefusedError(414, "the address is too long")
    if len(lines) > FIELDS_LIMIT + 1:
        raise RefusedError(431, "there are too many header fields")
    headers = _fields(lines[1:])
    modern = match[4] != b"0"
    if _HOST.fullmatch(headers.get("host", "" if not modern else "/")) is None:
        raise RefusedError(400, "there is no Host, or it is none")
    length = headers.get("content-length", "0")
    if not (length.isascii() and length.isdigit()) or ("transfer-encoding" in headers and length != "0"):
        raise RefusedError(400, "the length of the body is unclear")
    options = {word.strip().lower() for word in headers.get("connection", "").split(",")}
    host, raw, path, query = _target(match[2].decode())
    return Request(
        method=match[1].decode(),
        path=path,
        raw=raw,
        host=(host or headers.get("host", "")).lower(),
        query=query,
        headers=headers,
        keep="close" not in options if modern else "keep-alive" in options,
        body="transfer-encoding" in headers or int(length[:20]) > 0,
    )


def _fields(lines: list[bytes]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in lines:
        match = _FIELD.fullmatch(line)
        if match is None:
            raise RefusedError(400, "a header field is none")
        name, value = match[1].decode().lower(), match[2].strip(b" \t").decode("latin-1")
        if name not in headers:
            headers[name] = value
        elif name in _SINGLE:
            raise RefusedError(400, f"there is more than one {name}")
        else:
            headers[name] += f", {value}"
    return headers


def _target(target: str) -> tuple[str, str, str, dict[str, str]]:
    """The host where one is named, the path as sent, the path decoded, and the query."""
    host = ""
    if not target.startswith("/"):
        # A proxy is asked by the whole address, which then counts instead of the Host (RFC 9112, section 3.2.2).
        scheme, mark, rest = target.partition("://")
        if not mark or scheme.lower() not in {"http", "https"}:
            raise RefusedError(400, "the address is no path")
        host, slash, rest = rest.partition("/")
        if not host or _HOST.fullmatch(host) is None:
            raise RefusedError(400, "the host of the address is none")
        target = f"/{rest}" if slash else "/"
    raw, _, query = target.partition("#")[0].partition("?")
    return host, raw, decoded(raw), _query(query)


def decoded(raw: str) -> str:
    """A path without percent-encoding.  Raises :class:`RefusedError` for one that could mean another place.

    A separator that arrives encoded is refused: whoever stands in front of this server may not have seen it.
    """
    if re.search(r"%(?![0-9A-Fa-f]{2})|%2[fF]|%5[cC]", raw):
        raise RefusedError(400, "the path holds an encoded separator, or a percent sign that encodes nothing")
    try:
        path = unquote_to_bytes(raw).decode()
    except UnicodeDecodeError:
        raise RefusedError(400, "the path is not UTF-8") from None
    if re.search(r"[\x00-\x1f\x7f\\]", path):
        raise RefusedError(400, "the path holds a character that no path has here")
    if any(part in {".", ".."} for part in path.split("/")):
        raise RefusedError(400, "the path leads through another folder")
    return path


def _query(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for pair in text.split("&"):
        name, _, value = pair.partition("=")
        if name:
            found.setdefault(_plain(name), _plain(value))
    return found


def _plain(text: str) -> str:
    return unquote_to_bytes(text.replace("+", " ")).decode(errors="replace")
