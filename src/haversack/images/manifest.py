"""Manifests and indexes of images, and the platforms they are for.

OCI image specification 1.1 (*manifest.md*, *image-index.md*, *config.md*) and docker's schema 2 of the same shape.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from haversack.errors import IntegrityError
from haversack.formats.canonical import Fields, parse
from haversack.model.artifact import Digest, digest_of
from haversack.ports import Manifest

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
CONFIGS = {"application/vnd.oci.image.config.v1+json", DOCKER_CONFIG}
INDEXES = {OCI_INDEX, DOCKER_LIST}
_MANIFESTS = {OCI_MANIFEST, DOCKER_MANIFEST}
_OLD = "application/vnd.docker.distribution.manifest.v1"
# What buildkit says of an attestation in an index, and of which manifest it speaks.
_ATTESTS = "vnd.docker.reference.digest"
PLATFORM = r"[a-z0-9]+/[a-z0-9_]+(?:/[a-z0-9.]+)?"
"""A platform as people write it: ``linux/amd64``, ``linux/arm/v7``."""


@dataclass(frozen=True, slots=True)
class Part:
    """What a manifest or an index names: its ``role`` is ``index``, ``manifest``, ``config`` or ``layer``.

    ``size`` is in bytes, ``platform`` as in :data:`PLATFORM`; ``attests`` is the manifest that this one only
    says something about; ``url`` is where a layer is that registries may not keep.
    """

    role: str
    digest: Digest
    size: int
    media_type: str
    platform: str | None = None
    attests: Digest | None = None
    url: str | None = None


@dataclass(frozen=True, slots=True)
class Described:
    """What a manifest or index says: config and layers in order, or manifests."""

    media_type: str
    digest: Digest
    size: int
    parts: tuple[Part, ...]
    subject: Digest | None
    artifact_type: str | None

    @property
    def is_index(self) -> bool:
        """Whether it is a list of manifests."""
        return self.media_type in INDEXES

    @property
    def config(self) -> Part | None:
        """The config of a manifest."""
        return next((part for part in self.parts if part.role == "config"), None)


def read(manifest: Manifest, where: str) -> Described:
    """What a manifest says; ``media_type`` is believed only where the bytes do not tell theirs.

    Raises ``IntegrityError`` naming ``where``; so do docker's manifests of schema 1, which nobody can check.
    """
    fields = Fields(parse(manifest.data, where), where)
    told = fields.text_or_none("mediaType") or manifest.media_type
    if told.startswith(_OLD) or fields.count_or_none("schemaVersion") == 1:
        raise IntegrityError(
            "is a docker manifest of schema 1, whose layers no digest protects",
            where=where,
            remedy="push the image again with a newer client, or name another tag",
        )
    value: dict[str, Any] = parse(manifest.data, where)
    if told not in INDEXES | _MANIFESTS:
        # umoci and others leave the type out, and a plain web server tells another one.
        told = OCI_INDEX if "manifests" in value else OCI_MANIFEST
    if (told in INDEXES) != ("manifests" in value) or ("manifests" in value and "layers" in value):
        raise IntegrityError("is a manifest and an index at once", where=where)
    if told in INDEXES:
        parts = [_part(entry, None, where) for entry in fields.items("manifests")]
    else:
        parts = [_part(fields.table("config"), "config", where)]
        parts += [_part(entry, "layer", where) for entry in fields.items("layers")]
    subject = Fields(fields.table("subject"), where).digest("digest") if fields.table("subject") else None
    kind = fields.text_or_none("artifactType") or None
    return Described(told, digest_of(manifest.data), len(manifest.data), tuple(parts), subject, kind)


def _part(entry: object, role: str | None, where: str) -> Part:
    fields = Fields(entry, where)
    media_type = fields.text("mediaType")
    if media_type.startswith(_OLD):
        raise IntegrityError("names a docker manifest of schema 1", where=where)
    notes, platform = fields.table("annotations"), fields.table("platform")
    attests = notes.get(_ATTESTS)
    urls = entry.get("urls") if isinstance(entry, dict) and role == "layer" else None
    return Part(
        role or ("index" if media_type in INDEXES else "manifest"),
        fields.digest("digest"),
        fields.count("size"),
        media_type,
        None if attests or not platform else spelled(platform),
        attests if isinstance(attests, str) else None,
        next(
            (
                url
                for url in (urls if isinstance(urls, list) else ())
                if isinstance(url, str) and re.fullmatch(r"https?://[^@?#\s]+", url)
            ),
            None,
        ),
    )


def spelled(told: dict[str, Any]) -> str | None:
    """A platform in one word, from the fields of a descriptor or a config; ``None`` where they tell none."""
    parts = [told.get("os"), told.get("architecture"), told.get("variant") or None]
    text = "/".join(part for part in parts if isinstance(part, str))
    return text if re.fullmatch(PLATFORM, text) and "unknown" not in text else None


def fits(wanted: str, found: str) -> bool:
    """Whether a platform is the one that people asked for; a variant that they left out may be any.

    ``linux/arm64`` and ``linux/arm64/v8`` are one (image-index.md, *Platform Variants*).
    """
    short = (wanted.removesuffix("/v8") if "/arm64/" in wanted else wanted).split("/")
    long = (found.removesuffix("/v8") if "/arm64/" in found else found).split("/")
    return long[:2] == short[:2] and (len(short) < 3 or short[2:] == long[2:])


def lacking(wanted: Sequence[str], found: Iterable[str]) -> list[str]:
    """The platforms asked for that none of those found is."""
    there = list(found)
    return [one for one in wanted if not any(fits(one, other) for other in there)]


def suffix(media_type: str) -> str:
    """How the name of a file with a part of that type ends."""
    if "tar" in media_type and media_type.endswith(("+gzip", ".gzip")):
        return ".tar.gz"
    if "tar" in media_type and media_type.endswith(("+zstd", ".zstd")):
        return ".tar.zst"
    if media_type.endswith(".tar"):
        return ".tar"
    return ".json" if media_type.endswith("json") else ".bin"
