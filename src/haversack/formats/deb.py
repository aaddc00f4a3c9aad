"""Debian packages: what one says of itself (deb(5), deb-control(5)), read with bounds.

An ``ar`` archive of ``debian-binary``, ``control.tar`` and ``data.tar``, in this order; name, version and
architecture stand in the file ``control`` of the second.
"""

from __future__ import annotations

import io
import lzma
import re
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

from haversack.formats.tar import BrokenTarError, entries

MAGIC = b"!<arch>\n"
"""What every ar archive begins with."""
_PACKED = 16 << 20
_UNPACKED = 16 << 20
_CONTROL = 1 << 20
_FIELDS = {
    "Package": re.compile(r"[A-Za-z0-9][A-Za-z0-9+.-]*"),
    "Version": re.compile(r"[A-Za-z0-9][A-Za-z0-9.+:~-]*"),
    "Architecture": re.compile(r"[a-z0-9][a-z0-9-]*"),
}
_NAMED = re.compile(r"(?P<name>[^_]+)_(?P<version>[^_]+)_(?P<architecture>[^_]+)\.deb")


class BrokenDebError(Exception):
    """The file is no readable Debian package; the text says why."""


def named(filename: str) -> dict[str, str] | None:
    """What the name of a package says, ``code-server_4.96.2_amd64.deb``, or ``None``."""
    match = _NAMED.fullmatch(filename)
    if match is None:
        return None
    # dpkg leaves the epoch out of names; some servers write its colon as %3a.
    return {"format": "deb", **match.groupdict(), "version": match["version"].replace("%3a", ":")}


def read(file: BinaryIO) -> dict[str, str] | None:
    """Name, version and architecture, or ``None`` for a control archive that Python cannot unpack (zstd).

    Raises :class:`BrokenDebError`.
    """
    members = list(_members(file))
    names = [name for name, _, _ in members]
    if not names or names[0] != "debian-binary":
        raise BrokenDebError("it does not begin with a member debian-binary")
    if len(names) < 3 or not names[1].startswith("control.tar") or not names[2].startswith("data.tar"):
        raise BrokenDebError("it has not the members control.tar and data.tar")
    name, begin, size = members[1]
    if size > _PACKED:
        raise BrokenDebError(f"its {name} has {size} bytes")
    file.seek(begin)
    packed = file.read(size)
    if name.endswith(".zst"):
        return None
    fields = _fields(_control(name, packed))
    found = {key: fields.get(key, "") for key in _FIELDS}
    for key, pattern in _FIELDS.items():
        if not pattern.fullmatch(found[key]):
            raise BrokenDebError(f"its control file names no {key}, or one that none can be")
    return {
        "format": "deb",
        "name": found["Package"],
        "version": found["Version"],
        "architecture": found["Architecture"],
    }


def _members(file: BinaryIO) -> Iterator[tuple[str, int, int]]:
    """Name, first byte and size of the first members; all must lie within the file."""
    end = file.seek(0, io.SEEK_END)
    file.seek(0)
    if file.read(len(MAGIC)) != MAGIC:
        raise BrokenDebError("it is no ar archive")
    place = len(MAGIC)
    # Three members count; what may follow them (a signature) is skipped by dpkg too.
    for _ in range(8):
        if place >= end:
            return
        file.seek(place)
        header = file.read(60)
        digits = header[48:58].strip()
        if len(header) < 60 or header[58:] != b"`\n" or not digits.isdigit():
            raise BrokenDebError("it is cut short, or a member has no header")
        size = int(digits)
        if place + 60 + size > end:
            raise BrokenDebError("it is cut short")
        yield header[:16].decode("ascii", "replace").strip().rstrip("/"), place + 60, size
        place += 60 + size + size % 2


def _control(name: str, packed: bytes) -> str:
    """The text of the control file."""
    try:
        for entry in entries(io.BytesIO(_unpacked(name, packed))):
            if entry.name.removeprefix("./") == "control" and entry.kind == "file":
                if entry.size > _CONTROL:
                    raise BrokenDebError(f"its control file has {entry.size} bytes")
                return b"".join(entry.chunks()).decode("utf-8", "replace")
    except BrokenTarError as problem:
        raise BrokenDebError(f"its {name} cannot be read: {problem}") from problem
    raise BrokenDebError(f"its {name} holds no control file")


def _unpacked(name: str, packed: bytes) -> bytes:
    """A control archive without its compression, which may not make it larger than 16 MiB."""
    suffix = name.removeprefix("control.tar")
    inflater: Any
    if suffix == "":
        return packed
    if suffix == ".gz":
        inflater = zlib.decompressobj(zlib.MAX_WBITS | 16)
    elif suffix == ".xz":
        inflater = lzma.LZMADecompressor(memlimit=256 << 20)
    else:
        raise BrokenDebError(f"its {name} is packed in a way that dpkg does not know")
    try:
        data: bytes = inflater.decompress(packed, _UNPACKED)
    except (zlib.error, lzma.LZMAError, MemoryError) as problem:
        raise BrokenDebError(f"its {name} is damaged: {problem}") from problem
    if not inflater.eof:
        raise BrokenDebError(f"its {name} is cut short, or unpacks to more than {_UNPACKED} bytes")
    return data


def _fields(text: str) -> dict[str, str]:
    """The fields of the first paragraph."""
    found: dict[str, str] = {}
    for line in text.strip().split("\n\n", 1)[0].splitlines():
        name, mark, value = line.partition(":")
        if mark and not line.startswith((" ", "\t", "#")):
            found.setdefault(name, value.strip())
    return found
