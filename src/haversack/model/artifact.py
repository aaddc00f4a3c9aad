"""Artifacts: the files a site needs, named by their digest, never holding bytes."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

Digest: TypeAlias = str
"""``sha256:`` and 64 lower-case hexadecimal digits, the form of the OCI image specification."""

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
# Names that every file system of every target can hold: no separator, no drive, no control character,
# no trailing dot or space, and none of the characters FAT and NTFS refuse.
_FILENAME = re.compile(r"[^\x00-\x1f<>:\"/\\|?*]{1,255}")
_DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)

Facts: TypeAlias = Mapping[str, Any]
"""What a view must print of an artifact (JSON values): ``requires_python``, ``requires_dist`` …"""


def is_digest(text: object) -> bool:
    """Whether ``text`` is a digest as :data:`Digest` says."""
    return isinstance(text, str) and _DIGEST.fullmatch(text) is not None


def digest_of(data: bytes) -> Digest:
    """The digest of some bytes."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def hex_of(digest: Digest) -> str:
    """The 64 digits of a digest."""
    return digest.removeprefix("sha256:")


def is_safe_filename(name: str) -> bool:
    """Whether ``name`` is one plain file name on Linux, macOS, Windows and FAT alike."""
    return (
        _FILENAME.fullmatch(name) is not None
        and name not in {".", ".."}
        and name[-1] not in " ."
        and _DEVICE.fullmatch(name) is None
    )


def flat_name(path: str) -> str:
    """A path within a project as one plain file name: no two paths are the same one."""
    return path.replace("%", "%25").replace("/", "%2F")


def unsafe_path(name: str) -> str:
    """Why no file system may be given this path of an archive's member, or an empty string."""
    parts = name.split("/")
    if ".." in parts:
        return "it leaves its folder"
    if name.startswith("/") or re.match(r"[A-Za-z]:", name):
        return "it is absolute"
    if "\\" in name:
        return "it holds a backslash, which is a separator elsewhere"
    if "" in parts or "." in parts:
        return "it has an empty part"
    if re.search(r"[\x00-\x1f\x7f]", name):
        return "it holds control characters"
    if any(len(part.encode("utf-8", "surrogatepass")) > 255 for part in parts):
        return "a part of it is longer than 255 bytes"
    return ""


@dataclass(frozen=True, slots=True)
class Artifact:
    """One file: what it is, how it is named, where it came from.

    ``size`` is in bytes, or ``None`` while no index said it and no byte was seen.  ``origin`` is a URL
    without credentials, ``path:`` and a path relative to the declaration, or ``built:`` and the digest of
    the source distribution.  ``members`` are the environments it belongs to, as ``analysis/gpu-node``.
    """

    kind: str
    name: str
    version: str
    filename: str
    digest: Digest
    size: int | None
    origin: str
    members: tuple[str, ...] = ()
    facts: Facts = field(default_factory=dict, hash=False)


def described(artifact: Artifact) -> tuple[str, str]:
    """Name and version as people know them: those of the package in a file, where it is one."""
    package = artifact.facts.get("package")
    if not isinstance(package, Mapping) or not {"name", "version", "architecture"} <= package.keys():
        return artifact.name, artifact.version
    architecture = f":{package['architecture']}" if package["architecture"] else ""
    return f"{package['name']}{architecture}", str(package["version"])
