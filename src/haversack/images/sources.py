"""Where images come from: registries, and OCI layouts on disk."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from haversack.errors import DeclarationError, FetchError, HaversackError, IntegrityError, NotFoundError
from haversack.formats.canonical import Fields, parse
from haversack.images.manifest import CONFIGS, Part, spelled
from haversack.model.artifact import Digest, digest_of, hex_of
from haversack.ports import Manifest, Outside

REF_NAME = "org.opencontainers.image.ref.name"
# A config says how to run an image; one of megabytes is none.
_LARGEST = 8 << 20
_SIGNED = ("sig", "att", "sbom")
"""What cosign hangs on an image by tags ``sha256-<hex>.<word>`` where a registry has no list of referrers."""


def platform_of(data: bytes, where: str) -> str | None:
    """The platform that a config names.  Raises ``IntegrityError`` for what is no config."""
    told = parse(data, where)
    if not isinstance(told, dict):
        raise IntegrityError("is no config of an image", where=where)
    return spelled(told)


class InRegistry:
    """A :class:`haversack.images.gather.Source`: a repository, such as ``docker.io/library/python``."""

    def __init__(self, repository: str, out: Outside) -> None:
        self._repository, self._out = repository, out

    def manifest(self, digest: Digest) -> Manifest:
        """See the protocol."""
        return self._out.registries.manifest(self._repository, digest)

    def platform(self, config: Part) -> str | None:
        """See the protocol; the file lies where collecting finds it."""
        if config.media_type not in CONFIGS or config.size > _LARGEST:
            return None
        folder = self._out.cache / "partial"
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / hex_of(config.digest)
        if self._out.store.size(config.digest) is not None:
            file = self._out.store.path(config.digest)
        else:
            self._out.fetch.get(self.origin(config), config.digest, file, lambda _: None, size=config.size)
        return platform_of(file.read_bytes(), f"{self._repository}: {config.digest}")

    def origin(self, part: Part) -> str:
        """See the protocol."""
        if part.url and ("foreign" in part.media_type or "nondistributable" in part.media_type):
            return part.url
        folder = "manifests" if part.role in {"index", "manifest"} else "blobs"
        return f"docker://{self._repository}/{folder}/{part.digest}"

    def about(self, digest: Digest) -> Iterator[tuple[str | None, Manifest | HaversackError]]:
        """See the protocol: a registry that lists nothing, or cannot, has nothing; one that fails may have more."""
        registries = self._out.registries
        listed: Sequence[Digest] = ()
        try:
            listed = registries.referrers(self._repository, digest)
        except FetchError as problem:
            yield None, problem
        for one in listed:
            try:
                yield None, self.manifest(one)
            except (FetchError, NotFoundError) as problem:
                yield None, problem
        for word in _SIGNED:
            tag = f"sha256-{hex_of(digest)}.{word}"
            try:
                yield tag, registries.manifest(self._repository, tag)
            except NotFoundError:
                continue
            except FetchError as problem:
                yield tag, problem


class InLayout:
    """A :class:`haversack.images.gather.Source`: an OCI image layout in a folder, as the declaration names it.

    Its digests are checked here: ``skopeo`` copies a changed manifest of a layout under another digest.
    """

    def __init__(self, root: Path, folder: str) -> None:
        self._root, self._folder = root / folder, folder.rstrip("/")
        index = self._root / "index.json"
        try:
            told = parse(index.read_bytes(), str(index))
            self._named = [Fields(entry, str(index)) for entry in Fields(told, str(index)).items("manifests")]
        except OSError as problem:
            raise DeclarationError(
                "is no OCI image layout: it has no index.json that can be read",
                where=str(self._root),
                remedy="name the folder that holds oci-layout, index.json and blobs",
            ) from problem

    def root(self, tag: str | None) -> Manifest:
        """The image of a tag, or the only one.  Raises ``DeclarationError``."""
        names = [
            Fields(entry.table("annotations"), entry.where).text_or_none(REF_NAME) for entry in self._named
        ]
        found = [e for e, name in zip(self._named, names, strict=True) if tag is None or name == tag]
        if len({entry.digest("digest") for entry in found}) != 1:
            had = ", ".join(sorted(name for name in names if name)) or "no names"
            raise DeclarationError(
                f"has {'no image' if tag else 'several images, and none'} of that name; it has {had}",
                where=f"{self._root}{f':{tag}' if tag else ''}",
                remedy="write ref = oci:FOLDER:NAME with one of these names",
            )
        data = self.manifest(found[0].digest("digest")).data
        return Manifest(found[0].text_or_none("mediaType") or "", data)

    def manifest(self, digest: Digest) -> Manifest:
        """See the protocol."""
        return Manifest("", self._read(digest))

    def platform(self, config: Part) -> str | None:
        """See the protocol."""
        if config.media_type not in CONFIGS or config.size > _LARGEST:
            return None
        return platform_of(self._read(config.digest), f"{self._folder}: {config.digest}")

    def origin(self, part: Part) -> str:
        """See the protocol."""
        return f"path:{self._folder}/blobs/sha256/{hex_of(part.digest)}"

    def about(self, digest: Digest) -> Iterator[tuple[str | None, Manifest | HaversackError]]:
        """See the protocol: what the layout lists beside the images and that has this one as its subject."""
        for entry in self._named:
            with contextlib.suppress(IntegrityError, NotFoundError):
                manifest = self.manifest(entry.digest("digest"))
                told = Fields(parse(manifest.data, entry.where), entry.where)
                if told.table("subject").get("digest") == digest:
                    yield None, manifest

    def _read(self, digest: Digest) -> bytes:
        place = self._root / "blobs" / "sha256" / hex_of(digest)
        try:
            if place.stat().st_size > _LARGEST:
                raise IntegrityError("is too large for a manifest or a config", where=str(place))
            data = place.read_bytes()
        except OSError as problem:
            raise NotFoundError(f"is not in the layout: {problem.strerror}", where=str(place)) from problem
        if digest_of(data) != digest:
            raise IntegrityError(
                f"is {digest_of(data)}: somebody changed it",
                where=str(place),
                remedy="copy the image there again",
            )
        return data
