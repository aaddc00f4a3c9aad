"""What in a prefix says whose it is: haversack's marker (docs/spec/snapshot.md), and conda's folder."""

from __future__ import annotations

from dataclasses import dataclass

from haversack.errors import PrefixError
from haversack.formats.canonical import Fields, canonical, parse
from haversack.model.artifact import Digest

MARKER = "haversack-environment.json"
"""The file that says a prefix is haversack's, and of what it was made."""
META = "conda-meta"
"""The folder that makes a prefix one of conda's."""


@dataclass(frozen=True, slots=True)
class Marker:
    """What a prefix says of itself; ``home`` is the path that it was installed to, ``None`` where it does not say."""

    ref: str
    manifest: Digest
    snapshot: Digest
    home: str | None = None


def read(data: bytes, where: str) -> Marker:
    """The marker in a file.  Raises ``PrefixError``."""
    fields = Fields(parse(data, where, PrefixError), where, PrefixError)
    return Marker(
        fields.text("ref"),
        fields.digest("manifest"),
        fields.digest("snapshot"),
        fields.text_or_none("home") or None,
    )


def write(marker: Marker) -> bytes:
    """The bytes of a marker."""
    told = {
        "haversack-environment": "1.0",
        "ref": marker.ref,
        "manifest": marker.manifest,
        "snapshot": marker.snapshot,
    }
    return canonical(told | ({"home": marker.home} if marker.home else {})) + b"\n"
