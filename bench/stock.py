"""What servers are measured with: made-up wheels and images, and a store that holds them."""

from __future__ import annotations

import json
import random
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from bench.measure import MIB
from haversack.formats import oci
from haversack.formats.canonical import canonical
from haversack.model.artifact import Artifact, digest_of
from haversack.model.lock import Lock, LockedEnvironment, merge_artifacts
from haversack.model.target import ANY, Target
from haversack.ports.disk import DiskStore

_NODE = Target("node", "linux-x86_64", "3.11")


def wheel(folder: Path, name: str, version: str, size: int = 0) -> Path:
    """A wheel with ``size`` bytes of noise in it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}/__init__.py", f"version = {version!r}\n")
        for start in range(0, size, 50 * MIB):
            archive.writestr(f"{name}/{start}.bin", random.randbytes(min(50 * MIB, size - start)))
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        names = "".join(f"{member},,\n" for member in archive.namelist())
        archive.writestr(f"{info}/RECORD", f"{names}{info}/RECORD,,\n")
    return path


def place(path: Path) -> str:
    """Where our server has a wheel."""
    digits = digest_of(path.read_bytes()).removeprefix("sha256:")
    return f"/pypi/files/{digits[:2]}/{digits}/{path.name}"


def wheels_in(store: Path, wheels: Sequence[Path]) -> None:
    """A store with one snapshot of some wheels."""
    artifacts = []
    for path in wheels:
        name, version, *_ = path.name.split("-")
        digest = digest_of(path.read_bytes())
        origin = f"path:{path.name}"
        artifacts.append(
            Artifact("wheel", name, version, path.name, digest, path.stat().st_size, origin, ("all/node",))
        )
    lock = Lock(
        "bench",
        digest_of(b""),
        (_NODE,),
        (LockedEnvironment("all", "node", "pip"),),
        merge_artifacts(artifacts),
    )
    _publish(store, lock, wheels)


def image(layout: Path, tag: str, layers: int, size: int) -> None:
    """An OCI layout with an image of random layers, which nobody packs or unpacks on the way."""
    blobs = layout / "blobs/sha256"
    blobs.mkdir(parents=True)

    def add(data: bytes, media_type: str) -> dict[str, object]:
        digest = digest_of(data)
        (blobs / digest.removeprefix("sha256:")).write_bytes(data)
        return {"mediaType": media_type, "digest": digest, "size": len(data)}

    parts = [add(random.randbytes(size), "application/vnd.oci.image.layer.v1.tar") for _ in range(layers)]
    described = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}
    config = add(canonical(described), "application/vnd.oci.image.config.v1+json")
    body = {"schemaVersion": 2, "mediaType": oci.MANIFEST, "config": config, "layers": parts}
    named = {**add(canonical(body), oci.MANIFEST), "annotations": {oci.REF_NAME: tag}}
    (layout / "index.json").write_bytes(canonical({"schemaVersion": 2, "manifests": [named]}))
    (layout / "oci-layout").write_bytes(oci.LAYOUT_FILE)


def image_in(store: Path, layout: Path, ref: str) -> None:
    """A store with one snapshot of the image of a layout."""
    (root,) = json.loads((layout / "index.json").read_bytes())["manifests"]
    blobs = layout / "blobs/sha256"
    body = json.loads((blobs / root["digest"].removeprefix("sha256:")).read_bytes())
    parts = [body["config"], *body["layers"]]
    facts: dict[str, object] = {
        "role": "manifest",
        "refs": [ref],
        "children": [part["digest"] for part in parts],
    }
    artifacts = [_part(root, facts), _part(body["config"], {"role": "config"})]
    artifacts += [_part(layer, {"role": "layer"}) for layer in body["layers"]]
    lock = Lock(
        "bench",
        digest_of(b""),
        (ANY,),
        (LockedEnvironment("images", "any", "image"),),
        merge_artifacts(artifacts),
    )
    _publish(store, lock, blobs.iterdir())


def _part(described: dict[str, object], facts: dict[str, object]) -> Artifact:
    digest = str(described["digest"])
    name = f"{digest.removeprefix('sha256:')}.bin"
    told = {"media_type": described["mediaType"], **facts}
    size = int(str(described["size"]))
    return Artifact("image", "big", "", name, digest, size, "archive:x", ("images/any",), told)


def _publish(folder: Path, lock: Lock, files: Iterable[Path]) -> None:
    content, metadata = oci.build(lock, {a.digest: (a.size or 0, {}) for a in lock.artifacts})
    store = DiskStore(folder, create=True)
    with store.exclusive():
        for digest, data in metadata.items():
            store.add(digest, [data])
        for path in files:
            data = path.read_bytes()
            store.add(digest_of(data), [data])
        named = [oci.named(content.id, content.blobs[content.id], name) for name in ("2026-11", "current")]
        store.publish({**oci.empty_index(), "manifests": named})
