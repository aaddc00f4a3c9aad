"""What an image is made of, as artifacts: the manifests of the platforms wanted, and all that these name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from haversack.errors import HaversackError, IntegrityError
from haversack.images.manifest import Described, Part, fits, lacking, read, suffix
from haversack.images.reference import Reference
from haversack.model.artifact import Artifact, Digest, hex_of
from haversack.model.finding import Finding
from haversack.ports import Manifest

_DEEPEST = 4
"""An index may name indexes; nobody's tools go deeper."""
_MOST = 1000
"""Manifests of one image, those about it too, and entries of one index: no image has as many."""
_SAID = 2000


class Source(Protocol):
    """Where an image is: a registry, or a folder or archive on disk."""

    def manifest(self, digest: Digest) -> Manifest:
        """A manifest by its digest, checked against it."""
        ...

    def platform(self, config: Part) -> str | None:
        """The platform that a config names."""
        ...

    def origin(self, part: Part) -> str:
        """Where a part can be fetched from, as an artifact says it."""
        ...

    def about(self, digest: Digest) -> Iterable[tuple[str | None, Manifest | HaversackError]]:
        """Manifests about another one (signatures, attestations), as far as known, each with its tag if it has one.

        In the place of what is there or could be, and could not be had, stands why.
        """
        ...


@dataclass(frozen=True, slots=True)
class Wish:
    """An image that a site wants: its name inside, platforms (all where there are none), and what must be in it."""

    reference: Reference
    platforms: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()


@dataclass(slots=True)
class _Walk:
    wish: Wish
    source: Source
    ref: str
    parts: dict[Digest, Artifact] = field(default_factory=dict)
    platforms: list[str] = field(default_factory=list)
    known: dict[Digest, Manifest] = field(default_factory=dict)

    def manifest(self, digest: Digest) -> Manifest:
        """A manifest by its digest, asked for once.  Raises ``IntegrityError`` where there are too many."""
        if digest not in self.known:
            if len(self.known) >= _MOST:
                raise IntegrityError(f"names more than {_MOST} manifests", where=self.wish.reference.name)
            self.known[digest] = self.source.manifest(digest)
        return self.known[digest]


def gather(wish: Wish, root: Manifest, source: Source, ref: str) -> tuple[list[Artifact], list[Finding]]:
    """The artifacts of an image for the environment ``ref``, its root first, and what a person should know of it.

    Raises ``IntegrityError`` for what is no image, ``FetchError`` for what cannot be asked for.
    """
    name = wish.reference.name
    described = read(root, name)
    walk = _Walk(wish, source, ref)
    exists = _platforms(described, walk, set())
    if missing := lacking(wish.platforms, exists):
        had = ", ".join(dict.fromkeys(exists)) or "none that it names"
        remedy = "change `platforms`, or name an image that is made for them"
        message = f"is not made for {', '.join(missing)}; it is for {had}"
        return [], [Finding("image-platform", name, message, remedy)]
    _take(walk, root, described, None, 0)
    facts: dict[str, Any] = {"refs": [name], "platforms": list(dict.fromkeys(walk.platforms))}
    if wish.requires:
        facts |= {"requires": list(wish.requires), "required_by": [name]}
    _amend(walk, described.digest, facts)
    missed: list[str] = []
    count = 0
    for digest in [
        a.digest for a in walk.parts.values() if a.digest == described.digest or "platform" in a.facts
    ]:
        for tag, manifest in source.about(digest):
            count += 1
            if count > _MOST:
                raise IntegrityError(f"has more than {_MOST} manifests about it", where=name)
            if isinstance(manifest, HaversackError):
                missed.append(str(manifest))
                continue
            told = read(manifest, f"{name} ({tag or 'referrer'})")
            _take(walk, manifest, told, None, 0)
            if tag:
                _amend(walk, told.digest, {"refs": [f"{wish.reference.repository}:{tag}"]})
    first = walk.parts.pop(described.digest)
    findings = []
    if missed:
        message = f"signatures and attestations may be missing: {'; '.join(dict.fromkeys(missed))[:_SAID]}"
        findings.append(Finding("image-signatures", name, message, "lock again later", blocking=False))
    return [first, *walk.parts.values()], findings


def _platforms(told: Described, walk: _Walk, seen: set[Digest], depth: int = 0) -> list[str]:
    """The platforms that an image is for; ``seen`` are the indexes within that were looked into already."""
    _bounded(told, walk, depth)
    if not told.is_index:
        alone = walk.source.platform(told.config) if told.config else None
        return [alone] if alone else []
    found = []
    for part in told.parts:
        if part.role == "index" and part.digest not in seen:
            seen.add(part.digest)
            below = read(walk.manifest(part.digest), walk.wish.reference.name)
            found += _platforms(below, walk, seen, depth + 1)
        elif part.platform:
            found.append(part.platform)
    return found


def _bounded(told: Described, walk: _Walk, depth: int) -> None:
    """Raise ``IntegrityError`` for what goes on and on."""
    name = walk.wish.reference.name
    if depth > _DEEPEST:
        raise IntegrityError("names indexes within indexes without end", where=name)
    if told.is_index and len(told.parts) > _MOST:
        raise IntegrityError(f"is an index of more than {_MOST} entries", where=name)


def _take(walk: _Walk, manifest: Manifest, told: Described, platform: str | None, depth: int) -> None:
    """Add a manifest or index, and of what it names all that travels."""
    if told.digest in walk.parts:
        return
    _bounded(told, walk, depth)
    chosen = _chosen(told, walk.wish.platforms)
    role = "index" if told.is_index else "manifest"
    facts: dict[str, Any] = {"role": role, "media_type": told.media_type}
    facts["children"] = [part.digest for part in chosen]
    if len(chosen) < len(told.parts):
        facts["sparse"] = True
    if told.subject:
        facts["subject"] = told.subject
    if told.artifact_type:
        facts["artifact_type"] = told.artifact_type
    if role == "manifest" and depth == 0 and told.subject is None and told.config:
        platform = walk.source.platform(told.config)
    if platform:
        facts["platform"] = platform
        walk.platforms.append(platform)
    own = Part(role, told.digest, told.size, told.media_type)
    walk.parts[told.digest] = _artifact(walk, own, facts)
    for part in chosen:
        where = f"{walk.wish.reference.name}: {part.digest}"
        if part.role in {"index", "manifest"}:
            inner = walk.manifest(part.digest)
            if len(inner.data) != part.size:
                raise IntegrityError(f"is {len(inner.data)} bytes long, not {part.size}", where=where)
            if part.digest not in walk.parts:
                below = read(Manifest(inner.media_type or part.media_type, inner.data), where)
                _take(walk, inner, below, part.platform, depth + 1)
        else:
            more: dict[str, Any] = {"role": part.role, "media_type": part.media_type}
            if walk.wish.requires and platform and part.role == "layer":
                more["requires"] = list(walk.wish.requires)
            walk.parts.setdefault(part.digest, _artifact(walk, part, more))


def _chosen(told: Described, wanted: Sequence[str]) -> list[Part]:
    """What travels of that which a manifest or index names."""
    if not told.is_index or not wanted:
        return list(told.parts)
    plain = [
        p
        for p in told.parts
        if not p.attests and (not p.platform or any(fits(w, p.platform) for w in wanted))
    ]
    digests = {part.digest for part in plain}
    return [part for part in told.parts if part in plain or part.attests in digests]


def _artifact(walk: _Walk, part: Part, facts: dict[str, Any]) -> Artifact:
    short = hex_of(part.digest)[:12]
    end = ".json" if part.role in {"index", "manifest"} else suffix(part.media_type)
    return Artifact(
        "image",
        f"{part.role}-{short}",
        short,
        hex_of(part.digest) + end,
        part.digest,
        part.size,
        walk.source.origin(part),
        (walk.ref,),
        facts,
    )


def _amend(walk: _Walk, digest: Digest, facts: dict[str, Any]) -> None:
    """Say more of an artifact; one that has a reference is called by it."""
    walk.parts[digest] = amended(walk.parts[digest], facts)


def amended(artifact: Artifact, facts: dict[str, Any]) -> Artifact:
    """An artifact with more facts: lists are joined, and one that has a reference is called by it."""
    joined = dict(artifact.facts)
    for key, value in facts.items():
        held = joined.get(key)
        joined[key] = list(dict.fromkeys([*held, *value])) if isinstance(held, list) else value
    name = joined["refs"][0] if joined.get("refs") else artifact.name
    a = artifact
    return Artifact(a.kind, name, a.version, a.filename, a.digest, a.size, a.origin, a.members, joined)


def merged(images: Sequence[Sequence[Artifact]]) -> list[Artifact]:
    """One artifact for each digest of several images: an environment holds no file name twice."""
    found: dict[Digest, Artifact] = {}
    for artifact in (artifact for image in images for artifact in image):
        held = found.get(artifact.digest)
        extra = {
            k: v for k, v in artifact.facts.items() if held is None or k in _JOINED or k not in held.facts
        }
        found[artifact.digest] = amended(held, extra) if held else artifact
    return sorted(found.values(), key=lambda a: (a.name, a.filename))


_JOINED = ("refs", "platforms", "requires", "required_by", "children")
