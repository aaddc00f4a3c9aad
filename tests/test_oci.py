"""Stores and bundles as OCI image layouts: walked by a reader that knows only the specification, and by skopeo."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.gate import run, volumes
from tests.support.tiny import Tiny, tiny_bundle

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
EMPTY = "application/vnd.oci.empty.v1+json"
TITLE = "org.opencontainers.image.title"
REF = "org.opencontainers.image.ref.name"
# image-spec descriptor.md, "Digests" and "Properties"; media types are those of RFC 6838.
_DIGEST = re.compile(r"sha256:[a-f0-9]{64}")
_MEDIA_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}")
# annotations.md, "Pre-Defined Annotation Keys": what a reference name may be made of.
_REF = re.compile(r"[A-Za-z0-9]+([-._:@+]|--)?[A-Za-z0-9]*([-._:@+/][A-Za-z0-9]+)*")


@dataclass(frozen=True)
class Walk:
    """What a reader of the specification sees: descriptors by their digest, and files by environment."""

    seen: dict[str, dict[str, Any]]
    files: dict[str, dict[str, str]]


def _blob(layout: Path, descriptor: dict[str, Any], *, missing: frozenset[str] = frozenset()) -> bytes | None:
    """The bytes of a descriptor, checked as descriptor.md says a consumer should."""
    assert _DIGEST.fullmatch(descriptor["digest"])
    assert _MEDIA_TYPE.fullmatch(descriptor["mediaType"])
    assert isinstance(descriptor["size"], int)
    assert all(
        isinstance(k, str) and isinstance(v, str) for k, v in descriptor.get("annotations", {}).items()
    )
    path: Path = layout / "blobs" / "sha256" / descriptor["digest"][7:]
    if descriptor["digest"] in missing and not path.exists():
        return None
    data = path.read_bytes()
    assert len(data) == descriptor["size"]
    assert hashlib.sha256(data).hexdigest() == descriptor["digest"][7:]
    return data


def _walk(layout: Path, *, missing: frozenset[str] = frozenset()) -> Walk:
    """Follow image-layout.md from oci-layout to every blob."""
    assert json.loads((layout / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}
    seen: dict[str, dict[str, Any]] = {}
    files: dict[str, dict[str, str]] = {}

    def follow(descriptor: dict[str, Any]) -> None:
        data = _blob(layout, descriptor, missing=missing)
        seen[descriptor["digest"]] = descriptor
        if data is None or descriptor["mediaType"] not in {INDEX, MANIFEST}:
            return
        value = json.loads(data)
        assert value["schemaVersion"] == 2
        # image-index.md and manifest.md: the field must match the descriptor's when it is there.
        assert value["mediaType"] == descriptor["mediaType"]
        if descriptor["mediaType"] == INDEX:
            for inner in value["manifests"]:
                assert inner["mediaType"] in {INDEX, MANIFEST}
                follow(inner)
            return
        # manifest.md, "Guidelines for Artifact Usage": a type, an own or the empty config, at least one layer.
        assert _MEDIA_TYPE.fullmatch(value["artifactType"])
        assert descriptor["artifactType"] == value["artifactType"]
        assert value["layers"]
        for layer in (value["config"], *value["layers"]):
            follow(layer)
            if layer["mediaType"] == EMPTY:
                assert (layer["digest"][7:], layer["size"]) == (hashlib.sha256(b"{}").hexdigest(), 2)
        ref = descriptor["annotations"][REF]
        files[ref] = {layer["annotations"][TITLE]: layer["digest"] for layer in value["layers"]}
        if "platform" in descriptor:
            assert set(descriptor["platform"]) >= {"architecture", "os"}

    index = json.loads((layout / "index.json").read_bytes())
    assert (index["schemaVersion"], index["mediaType"]) == (2, INDEX)
    for descriptor in index["manifests"]:
        assert _REF.fullmatch(descriptor["annotations"][REF])
        follow(descriptor)
    return Walk(seen, files)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """A bundle of one volume."""
    return tiny_bundle(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def later(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """An increment on it."""
    folder = tmp_path_factory.mktemp("later")
    return tiny_bundle(folder, names=("alpha", "beta==1.1"), name="2026-12", base=tiny)


@pytest.fixture(scope="module")
def store(tiny: Tiny, later: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that received both."""
    folder = tmp_path_factory.mktemp("store") / "inside"
    for made in (tiny, later):
        assert run("receive", made.bundle, store=folder).code == 0
    return folder


def test_a_bundle_is_an_image_layout(tiny: Tiny) -> None:
    """A volume of a full bundle can be walked whole, and holds no blob that the walk does not meet."""
    (volume,) = volumes(tiny.bundle)
    walk = _walk(volume)
    assert {f"sha256:{p.name}" for p in (volume / "blobs" / "sha256").iterdir()} == walk.seen.keys()
    wheels = {artifact.filename: artifact.digest for artifact in tiny.lock.artifacts}
    assert walk.files["lab/here"] == wheels
    assert set(walk.files) == {"lab/here", "haversack.lock"}
    assert all(walk.seen[digest]["mediaType"] == "application/zip" for digest in wheels.values())


def test_a_split_bundle_is_one_layout_put_together(tmp_path: Path) -> None:
    """The volumes of a bundle, laid over each other, are the layout; no small file of theirs differs."""
    made = tiny_bundle(tmp_path / "tiny", padding=60_000, volume_size=65_536 + 65_000)
    merged = tmp_path / "merged"
    for volume in volumes(made.bundle):
        for name in ("oci-layout", "index.json"):
            if (merged / name).exists():
                assert (merged / name).read_bytes() == (volume / name).read_bytes()
        shutil.copytree(volume, merged, dirs_exist_ok=True)
    assert _walk(merged).files["lab/here"].keys() == {a.filename for a in made.lock.artifacts}


def test_an_increment_is_a_layout_with_blobs_elsewhere(tiny: Tiny, later: Tiny) -> None:
    """What an increment lacks is exactly what its base holds, as image-layout.md lets blobs be missing."""
    (volume,), (base,) = volumes(later.bundle), volumes(tiny.bundle)
    requires = frozenset(json.loads((volume / "bundle.json").read_bytes())["requires"])
    walk = _walk(volume, missing=requires)
    assert requires <= walk.seen.keys()
    held = {f"sha256:{path.name}" for path in (base / "blobs" / "sha256").iterdir()}
    assert requires <= held
    absent = {d for d in walk.seen if not (volume / "blobs" / "sha256" / d[7:]).exists()}
    assert absent == requires


def test_a_store_is_an_image_layout(store: Path, tiny: Tiny, later: Tiny) -> None:
    """Each snapshot has its name, `current` is one more name of one, and every blob is reached."""
    walk = _walk(store)
    index = json.loads((store / "index.json").read_bytes())
    names = {m["annotations"][REF]: m["digest"] for m in index["manifests"]}
    ids = [made.packed.bundle.snapshot for made in (tiny, later)]
    assert names == {"2026-11": ids[0], "2026-12": ids[1], "current": ids[1]}
    assert {f"sha256:{p.name}" for p in (store / "blobs" / "sha256").iterdir()} == walk.seen.keys()


def test_the_digest_of_a_snapshot_covers_everything(store: Path) -> None:
    """A change of any blob but a wheel's bytes changes the snapshot's id: all are named from it by digest."""
    text = b"".join(
        path.read_bytes() for path in (store / "blobs" / "sha256").iterdir() if path.stat().st_size < 5000
    )
    index = json.loads((store / "index.json").read_bytes())
    roots = {m["digest"] for m in index["manifests"]}
    for path in (store / "blobs" / "sha256").iterdir():
        assert f"sha256:{path.name}" in roots or path.name.encode() in text


@pytest.fixture(scope="module")
def skopeo() -> Callable[..., subprocess.CompletedProcess[str]]:
    """The program of others that reads layouts."""
    program = shutil.which("skopeo")
    if program is None:
        pytest.skip("skopeo is not installed")

    def call(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([program, *words], capture_output=True, text=True)

    return call


def test_skopeo_reads_a_bundle_and_a_store(
    skopeo: Callable[..., subprocess.CompletedProcess[str]], tiny: Tiny, store: Path
) -> None:
    """`skopeo inspect --raw` prints the very bytes of the snapshot that its id is the digest of."""
    (volume,) = volumes(tiny.bundle)
    for layout, name in ((volume, "2026-11"), (store, "2026-11"), (store, "2026-12"), (store, "current")):
        done = skopeo("inspect", "--raw", f"oci:{layout}:{name}")
        assert done.returncode == 0, done.stderr
        value = json.loads(done.stdout)
        assert value["mediaType"] == INDEX
        digest = "sha256:" + hashlib.sha256(done.stdout.encode()).hexdigest()
        index = json.loads((layout / "index.json").read_bytes())
        assert digest in {m["digest"] for m in index["manifests"] if m["annotations"][REF] == name}


def test_skopeo_copies_all_that_a_snapshot_names(
    skopeo: Callable[..., subprocess.CompletedProcess[str]], tiny: Tiny, tmp_path: Path
) -> None:
    """`skopeo copy --all` carries each manifest, config and wheel unchanged, under its own digest.

    Only the index above them is written anew: skopeo 1.9 knows no `artifactType` and has its own order of keys.
    """
    (volume,) = volumes(tiny.bundle)
    done = skopeo("--insecure-policy", "copy", "--all", f"oci:{volume}:2026-11", f"oci:{tmp_path}/copy:x")
    assert done.returncode == 0, done.stderr
    copied = {path.name: path.read_bytes() for path in (tmp_path / "copy" / "blobs" / "sha256").iterdir()}
    ours = {path.name: path.read_bytes() for path in (volume / "blobs" / "sha256").iterdir()}
    index = json.loads(ours.pop(tiny.packed.bundle.snapshot[7:]))
    assert ours.items() <= copied.items()
    (root,) = json.loads((tmp_path / "copy" / "index.json").read_bytes())["manifests"]
    theirs = json.loads(copied[root["digest"][7:]])["manifests"]
    assert [m["digest"] for m in theirs] == [m["digest"] for m in index["manifests"]]


def test_skopeo_notices_a_damaged_wheel(
    skopeo: Callable[..., subprocess.CompletedProcess[str]], tiny: Tiny, tmp_path: Path
) -> None:
    """A program that knows nothing of haversack refuses a changed layer too: the digests are where it looks."""
    layout = tmp_path / "layout"
    shutil.copytree(volumes(tiny.bundle)[0], layout)
    wheel = layout / "blobs" / "sha256" / tiny.lock.artifacts[0].digest[7:]
    data = wheel.read_bytes()
    wheel.unlink()
    wheel.write_bytes(data[:-1] + b"?")
    done = skopeo("--insecure-policy", "copy", "--all", f"oci:{layout}:2026-11", f"oci:{tmp_path}/copy:x")
    assert done.returncode != 0
