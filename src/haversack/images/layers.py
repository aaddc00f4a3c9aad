"""What lies in layers, read from front to back in bounded memory: is Python there?

OCI image specification 1.1, *layer.md*: ``.wh.NAME`` hides what a lower layer has at ``NAME``, and
``.wh..wh..opq`` all that lower layers have in its folder.
"""

from __future__ import annotations

import gzip
import io
import re
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO

from haversack.formats import tar

PYTHON = "python3"
"""What an image may be asked for: an interpreter of that name, where base images put it."""
_BIN = r"(?:usr/|usr/local/|opt/(?:[^/]+/){1,3}|root/(?:[^/]+/){1,2}|venv/|\.venv/|app/(?:[^/]+/)?|nix/store/[^/]+/|)bin"
_PYTHON = re.compile(rf"{_BIN}/python3(?:\.[0-9]+)?")
_TOPS = ("usr", "opt", "root", "venv", ".venv", "app", "nix", "bin")
_ZSTD = b"\x28\xb5\x2f\xfd"
_GZIP = b"\x1f\x8b"
_MOST = 200
"""So many names of each sort are kept of a layer; more tell nothing more."""
# A layer that unpacks to more than this multiple, and more than a gibibyte, is made to fill disks.
_RATIO = 200


class UnreadableLayer(Exception):  # noqa: N818 - says what is wrong, for a finding
    """The layer is no tar, is cut short, or unpacks to far more than it should."""


class UnknownCompression(Exception):  # noqa: N818 - a reason not to look, no error
    """The layer is compressed in a way that nothing here can read."""


class _Bounded(io.RawIOBase):
    """What a stream gives, as long as it is not too much."""

    def __init__(self, file: BinaryIO, most: int) -> None:
        super().__init__()
        self._file, self._left = file, most

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise UnreadableLayer("unpacks to far more than its size allows")
        return data


def look(file: BinaryIO, size: int) -> dict[str, Any]:
    """What a layer of ``size`` bytes brings and hides, as facts: ``pythons`` and ``hides``, sorted.

    Raises :class:`UnreadableLayer` or :class:`UnknownCompression`.
    """
    head = file.read(4)
    file.seek(0)
    if head == _ZSTD:
        raise UnknownCompression("zstd")
    plain = gzip.GzipFile(fileobj=file) if head[:2] == _GZIP else file
    pythons: set[str] = set()
    hides: set[str] = set()
    try:
        for entry in tar.entries(_Bounded(plain, size * _RATIO + (1 << 30))):  # type: ignore[arg-type]
            path = entry.name.removeprefix("./").strip("/")
            folder, _, name = path.rpartition("/")
            if name == ".wh..wh..opq":
                hides.add(f"{folder}/" if folder else "/")
            elif name.startswith(".wh."):
                hides.add("/".join(filter(None, (folder, name.removeprefix(".wh.")))))
            elif entry.kind in {"file", "link"} and _PYTHON.fullmatch(path):
                pythons.add(path)
            elif entry.kind == "link" and path in (*_TOPS, "usr/bin"):
                hides.add(path)
    except (tar.BrokenTarError, OSError, EOFError, zlib.error) as problem:
        raise UnreadableLayer(f"is no readable archive: {problem}") from problem
    near = {path for path in hides if path == "/" or path.split("/")[0] in _TOPS}
    return {"pythons": sorted(pythons)[:_MOST], "hides": sorted(near)[:_MOST]}


def pythons(layers: Sequence[Mapping[str, Any]]) -> list[str]:
    """The interpreters that are there with all layers on top of each other, lowest first."""
    there: set[str] = set()
    for facts in layers:
        for hidden in facts.get("hides", ()):
            there = {path for path in there if not _hidden(path, hidden)}
        there |= set(facts.get("pythons", ()))
    return sorted(there)


def _hidden(path: str, hidden: str) -> bool:
    return hidden == "/" or path == hidden or path.startswith(hidden.rstrip("/") + "/")
