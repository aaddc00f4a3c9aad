"""VS Code extensions: what a ``.vsix`` says of itself, read with bounds.

A zip file with ``extension/package.json`` (publisher, name, version) and ``extension.vsixmanifest``, whose
``Identity`` names the platform of an extension that is not for all.
"""

from __future__ import annotations

import json
import re
import zipfile
from typing import Any, BinaryIO

from haversack.formats.zipped import BrokenZipError, content, directory

_LARGEST = 8 << 20
_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
_NAMED = re.compile(
    r"(?P<name>[\w-]+\.[\w-]+)-(?P<version>[0-9]+\.[0-9]+\.[0-9]+)(?:@(?P<architecture>[\w-]+))?\.vsix"
)
# No character is looked at twice: a tag ends before the next one begins.
_IDENTITY = re.compile(rb"<Identity\b([^<>]*+)>")
_PLATFORM = re.compile(rb"\bTargetPlatform=\"([a-z0-9-]{1,40})\"")


class BrokenVsixError(Exception):
    """The file is no readable extension; the text says why."""


def named(filename: str) -> dict[str, str] | None:
    """What the name of an extension says, ``ms-python.python-2026.4.1.vsix``, or ``None``."""
    match = _NAMED.fullmatch(filename)
    if match is None:
        return None
    return {"format": "vsix", **{key: value or "" for key, value in match.groupdict().items()}}


def read(file: BinaryIO) -> dict[str, str]:
    """Name with its publisher, version, and platform (empty: all).  Raises :class:`BrokenVsixError`."""
    try:
        members, _ = directory(file)
        texts = {
            member.filename: _text(file, member, limit)
            for member, limit in members
            if member.filename in {"extension/package.json", "extension.vsixmanifest"}
        }
    except BrokenZipError as problem:
        raise BrokenVsixError(str(problem)) from problem
    if "extension/package.json" not in texts:
        raise BrokenVsixError("it holds no extension/package.json")
    try:
        told: Any = json.loads(texts["extension/package.json"].decode("utf-8-sig"))
    except (ValueError, RecursionError) as problem:
        raise BrokenVsixError(f"its package.json is not JSON: {problem}") from problem
    parts = [told.get(key) if isinstance(told, dict) else None for key in ("publisher", "name", "version")]
    if not all(isinstance(part, str) and _PART.fullmatch(part) for part in parts):
        raise BrokenVsixError("its package.json names no publisher, name and version")
    publisher, name, version = parts
    identity = _IDENTITY.search(texts.get("extension.vsixmanifest", b""))
    platform = _PLATFORM.search(identity[1]) if identity else None
    return {
        "format": "vsix",
        "name": f"{publisher}.{name}",
        "version": str(version),
        "architecture": platform[1].decode() if platform else "",
    }


def _text(file: BinaryIO, member: zipfile.ZipInfo, limit: int) -> bytes:
    """The bytes of a small member."""
    if member.file_size > _LARGEST:
        raise BrokenVsixError(f"its {member.filename} has {member.file_size} bytes")
    return b"".join(content(file, member, limit))
