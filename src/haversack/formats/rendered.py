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
    """A file as it was rendered; ``by`` is ``None`` in lists that do not say by whom (before 1.1).

    ``next`` is what was being written there when the list was: the file is one or the other.
    """

    digest: str
    by: str | None
    next: str | None = None

    def is_as_rendered(self, digest: str) -> bool:
        """Whether nobody else wrote what has this digest."""
        return digest in {self.digest, self.next}


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
        later = fields.table("next")
    except HaversackError:
        return {}
    return {
        name: Kept(digest, *(told if isinstance(told := of.get(name), str) else None for of in (by, later)))
        for name, digest in files.items()
        if isinstance(digest, str) and _is_within(name)
    }


def write(kept: Mapping[str, Kept]) -> bytes:
    """The bytes of a list."""
    files = {name: one.digest for name, one in kept.items()}
    by = {name: one.by for name, one in kept.items() if one.by}
    later = {name: one.next for name, one in kept.items() if one.next}
    told = {"haversack-rendered": "1.1", "files": files, "by": by}
    return canonical({**told, "next": later} if later else told) + b"\n"


def _is_within(name: str) -> bool:
    return not name.startswith("/") and ".." not in name.split("/")
