"""Explicit specification files of conda: a URL a line, with a hash, for one platform; nothing is solved.

What they are is what conda writes with ``conda list --explicit`` and reads with ``conda create --file``:
the line ``@EXPLICIT``, comments, and URLs with ``#<md5>``, ``#<sha256>`` or ``#sha256:<sha256>``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from haversack.errors import DeclarationError
from haversack.formats.repodata import SUFFIXES, plain_url
from haversack.model.artifact import Digest, is_safe_filename

MARK = "@EXPLICIT"
"""The line that says what the file is."""
_MD5 = re.compile(r"[0-9a-f]{32}")
_SHA256 = re.compile(r"(?:sha256:)?([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class ExplicitEntry:
    """A package by its URL, without credentials, and what the file says of its bytes: often only an md5."""

    url: str
    md5: str | None = None
    sha256: Digest | None = None


def read(data: bytes, where: str) -> tuple[ExplicitEntry, ...]:
    """The packages of an explicit file, in its order.  Raises ``DeclarationError`` naming the line."""
    try:
        lines = data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as problem:
        raise DeclarationError(
            "is not UTF-8 text", where=where, remedy="write it again: conda list --explicit --sha256"
        ) from problem
    found: dict[str, ExplicitEntry] = {}
    marked = False
    for number, raw in enumerate(lines, 1):
        line = raw.strip()
        if line == MARK:
            marked = True
        elif line and not line.startswith("#"):
            entry = _entry(line, f"{where}: line {number}")
            if entry.url in found:
                raise DeclarationError(
                    f"{entry.url} stands twice", where=f"{where}: line {number}", remedy="remove one of them"
                )
            found[entry.url] = entry
    if not marked:
        raise DeclarationError(
            f"has no line {MARK}", where=where, remedy="write it again: conda list --explicit --sha256"
        )
    return tuple(found.values())


def _entry(line: str, where: str) -> ExplicitEntry:
    """One line; no error repeats it, for a URL may hold a password."""
    location, _, told = line.partition("#")
    if not location.startswith(("https://", "http://", "file://")):
        remedy = "name packages by http, https or file URLs: conda list --explicit --sha256"
        raise DeclarationError("is not the URL of a package", where=where, remedy=remedy)
    try:
        url = plain_url(location)
        # Compared as the reader of it would: conda takes a host for the same in any case.
        secret = url.casefold() != location.rstrip("/").casefold()
    except ValueError as problem:
        raise DeclarationError(str(problem), where=where, remedy="correct the line") from problem
    if secret:
        raise DeclarationError(
            "the URL holds a user name, a password, a token or a query",
            where=where,
            remedy="remove it, change it where it was in use, and declare the channel: "
            '[channel.NAME] url = "https://…", auth = "env", "netrc" or "keyring"',
        )
    name = unquote(urlsplit(url).path.rpartition("/")[2])
    if not name.endswith(SUFFIXES) or not is_safe_filename(name):
        remedy = f"name files that end in {' or '.join(SUFFIXES)}"
        raise DeclarationError("is not the URL of a conda package", where=where, remedy=remedy)
    told = told.lower()
    if _MD5.fullmatch(told):
        return ExplicitEntry(url, md5=told)
    if match := _SHA256.fullmatch(told):
        return ExplicitEntry(url, sha256=f"sha256:{match[1]}")
    if told:
        remedy = "write #sha256: and 64 hexadecimal digits after the URL"
        raise DeclarationError("what follows # is neither an md5 nor a sha256", where=where, remedy=remedy)
    return ExplicitEntry(url)


def write(subdir: str, records: Iterable[Mapping[str, Any]], hashed: Literal["sha256", "md5"]) -> bytes:
    """The explicit file of some full records, which stand in it in the order given.

    Raises ``ValueError`` naming a record that has no md5 where that is asked for.
    """
    lines = ["# This file may be used to create an environment using:",
             "# $ conda create --name <env> --file <this file>",
             f"# platform: {subdir}", MARK]  # fmt: skip
    for record in records:
        digits = record.get(hashed)
        if not digits:
            raise ValueError(f"nobody names the {hashed} of {record['fn']}")
        lines.append(f"{record['url']}#{'sha256:' if hashed == 'sha256' else ''}{digits}")
    return ("\n".join(lines) + "\n").encode()
