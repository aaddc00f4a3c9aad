"""The list of what was rendered into a folder: the digest of each file, and who rendered it (docs/spec/clients.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from haversack.errors import HaversackError
from haversack.formats.canonical import Fields, canonical, parse

MARKER = "haversack-rendered.json"
"""Its name."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A file as it was rendered; ``by`` is ``None`` in lists that do not say by whom (before 1.1)."""

    digest: str
    by: str | None


def read(data: bytes | None) -> dict[str, Kept]:
    """What was rendered, by name; nothing where there is no list, or none that can be read."""
    if data is None:
        return {}
    try:
        told = parse(data, MARKER)
        fields = Fields(told, MARKER)
        fields.text("haversack-rendered")
        files = fields.table("files")
        by = fields.table("by") if "by" in told else {}
    except HaversackError:
        return {}
    return {
        name: Kept(digest, who if isinstance(who := by.get(name), str) else None)
        for name, digest in files.items()
        if isinstance(digest, str) and _is_within(name)
    }


def write(kept: Mapping[str, Kept]) -> bytes:
    """The bytes of a list."""
    files = {name: one.digest for name, one in kept.items()}
    by = {name: one.by for name, one in kept.items() if one.by}
    return canonical({"haversack-rendered": "1.1", "files": files, "by": by}) + b"\n"


def _is_within(name: str) -> bool:
    return not name.startswith("/") and ".." not in name.split("/")
