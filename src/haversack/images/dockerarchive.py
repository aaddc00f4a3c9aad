"""Images in archives of ``docker save`` and ``podman save``: tars with a ``manifest.json`` of their own.

They hold configs and unpacked layers and no manifest that a registry would take, so one is made, byte for byte
as skopeo makes it (containers/image, *docker/internal/tarfile*): the same archive gives the same digest.
"""

from __future__ import annotations

import gzip
import json
import lzma
import posixpath
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from haversack.errors import DeclarationError, HaversackError, IntegrityError
from haversack.formats.canonical import parse
from haversack.images.manifest import DOCKER_CONFIG, DOCKER_LAYER, DOCKER_MANIFEST, Part
from haversack.images.sources import platform_of
from haversack.model.artifact import Digest, digest_of, is_digest
from haversack.ports import Manifest, Store

_CHUNK = 1 << 20
_LARGEST = 8 << 20
# What tarfile, and what unpacks for it, raise of files that are damaged or made to trip them.
_UNREADABLE = (tarfile.TarError, OSError, EOFError, zlib.error, lzma.LZMAError, ValueError, RecursionError)


class InArchive:
    """A :class:`haversack.images.gather.Source`: one image of an archive, whose parts are put into the store."""

    def __init__(self, path: Path, name: str | None, store: Store) -> None:
        try:
            with tarfile.open(path) as archive:
                self._config, self._data = _taken(archive, name, path, store)
        except _UNREADABLE as problem:
            raise DeclarationError(
                f"cannot be read as an archive of docker save: {problem}",
                where=str(path),
                remedy="write it with docker save or podman save --format docker-archive",
            ) from problem
        self._name = path.name

    def root(self) -> Manifest:
        """The manifest that was made."""
        return Manifest(DOCKER_MANIFEST, self._data)

    def manifest(self, digest: Digest) -> Manifest:
        """See the protocol."""
        return self.root()

    def platform(self, config: Part) -> str | None:
        """See the protocol."""
        return platform_of(self._config, self._name)

    def origin(self, part: Part) -> str:
        """See the protocol."""
        return f"archive:{self._name}"

    def about(self, digest: Digest) -> Sequence[tuple[str | None, Manifest | HaversackError]]:
        """See the protocol: such archives hold images alone."""
        return ()


def _taken(archive: tarfile.TarFile, name: str | None, path: Path, store: Store) -> tuple[bytes, bytes]:
    """The config and the manifest of an image, all of which is in the store then."""
    told = parse(_small(archive, "manifest.json", path), str(path))
    images = told if _sound(told) else []
    chosen = [image for image in images if name is None or name in (image.get("RepoTags") or ())]
    if len(chosen) != 1:
        had = ", ".join(tag for image in images for tag in image.get("RepoTags") or ()) or "no names"
        raise DeclarationError(
            f"holds {'no image' if name else 'several images, and none'} of that name; it has {had}",
            where=str(path),
            remedy="write ref = docker-archive:FILE:NAME with one of these names",
        )
    config = _small(archive, chosen[0]["Config"], path)
    said = parse(config, str(path))
    rootfs = said.get("rootfs") if isinstance(said, dict) else None
    diff_ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    files = chosen[0]["Layers"]
    if not isinstance(diff_ids, list) or len(diff_ids) != len(files) or not all(map(is_digest, diff_ids)):
        raise IntegrityError("its config and its list of layers contradict each other", where=str(path))
    layers = []
    for digest, file in zip(diff_ids, files, strict=True):
        try:
            size = store.add(digest, _plain(_member(archive, file, path)))
        except (gzip.BadGzipFile, EOFError, zlib.error) as problem:
            raise IntegrityError(
                f"its layer {file} cannot be unpacked: {problem}", where=str(path)
            ) from problem
        layers.append({"mediaType": DOCKER_LAYER, "size": size, "digest": digest})
    manifest = {
        "schemaVersion": 2,
        "mediaType": DOCKER_MANIFEST,
        "config": {"mediaType": DOCKER_CONFIG, "size": len(config), "digest": digest_of(config)},
        "layers": layers,
    }
    # The order of keys, and no space, are those of Go's encoder, which skopeo uses.
    data = json.dumps(manifest, separators=(",", ":")).encode()
    for blob in (config, data):
        store.add(digest_of(blob), [blob])
    return config, data


def _sound(images: Any) -> bool:
    """Whether a manifest.json is of the shape that docker gives it."""

    def texts(value: Any) -> bool:
        return isinstance(value, list) and all(isinstance(text, str) for text in value)

    return isinstance(images, list) and all(
        isinstance(image, dict)
        and isinstance(image.get("Config"), str)
        and texts(image.get("Layers"))
        and texts(image.get("RepoTags") or [])
        for image in images
    )


def _member(archive: tarfile.TarFile, name: str, path: Path) -> IO[bytes]:
    """A file of the archive; a link leads to another one in it, since docker stores a layer once."""
    try:
        info = archive.getmember(name)
        if info.issym():
            info = archive.getmember(
                posixpath.normpath(posixpath.join(posixpath.dirname(name), info.linkname))
            )
        file = archive.extractfile(info) if info.isfile() else None
    except KeyError:
        file = None
    if file is None:
        raise IntegrityError(f"lacks {name}, which its manifest.json names", where=str(path))
    return file


def _small(archive: tarfile.TarFile, name: str, path: Path) -> bytes:
    with _member(archive, name, path) as file:
        data = file.read(_LARGEST + 1)
    if len(data) > _LARGEST:
        raise IntegrityError(f"{name} is too large", where=str(path))
    return data


def _plain(file: IO[bytes]) -> Iterator[bytes]:
    """The bytes of a layer as they are unpacked, which is what its digest in the config is of."""
    with file:
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        source: IO[bytes] = gzip.GzipFile(fileobj=file) if packed else file  # type: ignore[assignment]
        while chunk := source.read(_CHUNK):
            yield chunk
