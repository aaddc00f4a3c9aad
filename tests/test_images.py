"""Images from registries and from disk: what is locked, what travels, and what is found wrong with it."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from haversack.errors import DeclarationError, HaversackError, IntegrityError
from haversack.images import layers
from haversack.images.dockerarchive import InArchive
from haversack.images.manifest import fits, read, suffix
from haversack.images.reference import Reference
from haversack.kinds import kinds
from haversack.model.site import Registry
from haversack.ports import Manifest
from haversack.ports.disk import DiskStore
from haversack.ports.registry import HttpPush
from haversack.verbs import holdings
from haversack.views import view_of
from tests.support import tiny
from tests.support.imagesite import HOST, ImageSite, told
from tests.support.registry import (
    OCI_CONFIG,
    OCI_INDEX,
    OCI_MANIFEST,
    Front,
    Layout,
    RealRegistry,
    digest_of,
    skopeo,
    tarred,
    unfolded,
)
from tests.support.site import Lab
from tests.support.viewing import ViewServer
from tests.support.wheels import make_wheel

PYTHON: dict[str, bytes | str] = {"usr/bin/python3.11": b"\x7fELF", "usr/bin/python3": "python3.11"}
BOTH = ("linux/amd64", "linux/arm64/v8")
NOISE = bytes(range(256)) * 64


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealRegistry]:
    """A registry that holds ``team/app:1`` for two platforms."""
    folder = tmp_path_factory.mktemp("registry")
    layout = Layout(folder / "layout")
    layout.image("app", PYTHON, BOTH)
    with RealRegistry(folder / "registry") as running:
        running.load(layout, "app", "team/app:1")
        yield running


@pytest.mark.parametrize(
    ("text", "repository", "name"),
    [
        ("docker.io/python", "docker.io/library/python", "docker.io/library/python:latest"),
        (
            "docker.io/library/python:3.11-slim",
            "docker.io/library/python",
            "docker.io/library/python:3.11-slim",
        ),
        ("localhost/a:1", "localhost/a", "localhost/a:1"),
        ("127.0.0.1:5000/team/app:1", "127.0.0.1:5000/team/app", "127.0.0.1:5000/team/app:1"),
        (f"a.example/b@sha256:{'0' * 64}", "a.example/b", f"a.example/b@sha256:{'0' * 64}"),
        (f"a.example/b:1@sha256:{'0' * 64}", "a.example/b", "a.example/b:1"),
    ],
)
def test_references(text: str, repository: str, name: str) -> None:
    """A reference has a host; docker's own short names are those below library/."""
    reference = Reference.parse(text)
    assert (reference.repository, reference.name) == (repository, name)


@pytest.mark.parametrize(
    "text", ["python:3.11", "library/python", "a.example/UPPER", "a.example/../b", "a.example/b:"]
)
def test_what_is_no_reference(text: str) -> None:
    """A name without a host means another image on every machine, and is none here."""
    with pytest.raises(ValueError, match="with its host"):
        Reference.parse(text)


@pytest.mark.parametrize(
    ("wanted", "found", "fit"),
    [
        ("linux/amd64", "linux/amd64", True),
        ("linux/arm64", "linux/arm64/v8", True),
        ("linux/arm64/v8", "linux/arm64", True),
        ("linux/arm", "linux/arm/v7", True),
        ("linux/arm/v6", "linux/arm/v7", False),
        ("linux/amd64", "windows/amd64", False),
    ],
)
def test_platforms(wanted: str, found: str, fit: bool) -> None:
    """A variant that nobody asked for may be any, and v8 is what arm64 is."""
    assert fits(wanted, found) is fit


def test_an_image_crosses_with_its_digests(registry: RealRegistry, tmp_path: Path) -> None:
    """What skopeo copies out of the installed layout is byte for byte what the registry served."""
    site = ImageSite(tmp_path, registry.url)
    site.declare(f'ref = "{HOST}/team/app:1"\nrequires = ["python3"]')
    locked = site.lock()
    assert locked.findings == ()
    arrived = site.pack(locked)
    prefix = site.install(arrived)
    reference = f"{HOST}/team/app:1"
    assert list(unfolded(prefix, reference)) == [digest_of(registry.raw("team/app:1"))]
    skopeo("copy", "-q", "--all", f"oci:{prefix}:{reference}", f"oci:{tmp_path / 'copy'}:x")
    assert skopeo("inspect", "--raw", f"oci:{tmp_path / 'copy'}:x") == registry.raw("team/app:1")
    assert kinds()["image"].drift(arrived, prefix, site.inside().store) == []


def test_layers_are_shared_and_platforms_chosen(registry: RealRegistry, tmp_path: Path) -> None:
    """A list stays as it is; of it the platforms wanted travel, and a layer of several images travels once."""
    site = ImageSite(tmp_path, registry.url)
    site.declare(f'ref = "{HOST}/team/app:1"\nplatforms = ["linux/arm64"]')
    locked = site.lock()
    (root,) = [a for a in locked.artifacts if "refs" in a.facts]
    assert root.facts["sparse"]
    assert root.facts["platforms"] == ["linux/arm64/v8"]
    assert sorted(a.facts["role"] for a in locked.artifacts) == [
        "config",
        "index",
        "layer",
        "layer",
        "manifest",
    ]
    site.declare(f'ref = "{HOST}/team/app:1"', f'ref = "{HOST}/team/app@{root.digest}"')
    roles = [a.facts["role"] for a in site.lock().artifacts]
    # Both platforms, a shared layer, and each once although two names mean them.
    assert sorted(roles) == ["config"] * 2 + ["index"] + ["layer"] * 3 + ["manifest"] * 2


def test_the_site_s_targets_say_which_platforms(registry: RealRegistry, tmp_path: Path) -> None:
    """Without `platforms` those of the site's Linux targets are wanted."""
    site = ImageSite(tmp_path, registry.url)
    site.declare(f'ref = "{HOST}/team/app:1"', more='[target.gpu]\nname = "linux-x86_64-py311"\n')
    (root,) = [a for a in site.lock().artifacts if "refs" in a.facts]
    assert root.facts["platforms"] == ["linux/amd64"]


def test_a_platform_that_is_not_there(registry: RealRegistry, tmp_path: Path) -> None:
    """It blocks, and the finding names those that exist."""
    site = ImageSite(tmp_path, registry.url)
    site.declare(f'ref = "{HOST}/team/app:1"\nplatforms = ["linux/s390x"]')
    (finding,) = site.lock().findings
    assert (finding.code, finding.blocking) == ("image-platform", True)
    assert "linux/amd64, linux/arm64/v8" in finding.message


def test_a_single_image_of_another_platform(registry: RealRegistry, tmp_path: Path) -> None:
    """An image that is no list tells its platform in its config."""
    layout = Layout(tmp_path / "layout")
    layout.image("one", PYTHON, ("linux/arm64",))
    registry.load(layout, "one", "team/one:1")
    site = ImageSite(tmp_path, registry.url)
    site.declare(f'ref = "{HOST}/team/one:1"\nplatforms = ["linux/amd64"]')
    (finding,) = site.lock().findings
    assert (finding.code, "linux/arm64" in finding.message) == ("image-platform", True)


def test_a_tag_that_moved(registry: RealRegistry, tmp_path: Path) -> None:
    """The lock keeps what it resolved and says so; without what was held the tag is taken as it is."""
    layout = Layout(tmp_path / "layout")
    old = layout.image("moving", PYTHON)
    registry.load(layout, "moving", "team/moving:1")
    site = ImageSite(tmp_path, registry.url)
    site.declare(f'ref = "{HOST}/team/moving:1"')
    held = site.lock()
    assert site.lock(held) == held
    new = layout.image("moving", {**PYTHON, "etc/new": b"new"})
    registry.load(layout, "moving", "team/moving:1")
    again = site.lock(held)
    assert again.artifacts == held.artifacts
    (finding,) = again.findings
    assert (finding.code, finding.blocking) == ("image-moved", False)
    assert old in finding.message
    assert new in finding.message
    assert new in {a.digest for a in site.lock().artifacts}


def test_a_tag_that_moved_away_from_what_is_gone(tmp_path: Path) -> None:
    """Where the registry dropped what the lock keeps, both are told, and how to take the tag as it is."""
    layout = Layout(tmp_path / "layout")
    with RealRegistry(tmp_path / "registry") as registry:
        old = layout.image("moving", PYTHON)
        registry.load(layout, "moving", "team/moving:1")
        site = ImageSite(tmp_path, registry.url)
        site.declare(f'ref = "{HOST}/team/moving:1"')
        held = site.lock()
        new = layout.image("moving", {**PYTHON, "etc/new": b"new"})
        registry.load(layout, "moving", "team/moving:1")
        registry.delete("team/moving", old)
        (finding,) = site.lock(held).findings
        assert told([finding]) == [("fetch-failed", True)]
        assert f"the tag means {new} now" in finding.message
        assert f"{old}, which the lock keeps, is gone" in finding.message
        assert "haversack lock --upgrade" in finding.remedy
        registry.delete("team/moving", new)
        (finding,) = site.lock(held).findings
        assert "has the tag no more, and" in finding.message


def test_a_tag_that_is_not_there(registry: RealRegistry, tmp_path: Path) -> None:
    """It is told by its name, and blocks."""
    site = ImageSite(tmp_path, registry.url)
    site.declare(f'ref = "{HOST}/team/app:nine"')
    (finding,) = site.lock().findings
    assert told([finding]) == [("fetch-failed", True)]
    assert f"{HOST}/team/app:nine" in str(finding)


def test_a_manifest_without_a_media_type(registry: RealRegistry, tmp_path: Path) -> None:
    """umoci leaves it out, which the specification allows: such an image crosses unchanged."""
    root = tmp_path / "umoci"
    for words in (["init", "--layout", root], ["new", "--image", f"{root}:bare"]):
        subprocess.run(["umoci", *map(str, words)], check=True, capture_output=True)
    assert "mediaType" not in json.loads(skopeo("inspect", "--raw", f"oci:{root}:bare"))
    source, dest = f"oci:{root}:bare", f"docker://{registry.host}/team/bare:1"
    skopeo("copy", "-q", source, dest, registry=registry)
    site = ImageSite(tmp_path, registry.url)
    site.declare(f'ref = "{HOST}/team/bare:1"', f'ref = "oci:{root}:bare"\nas = "local.example/bare:1"')
    locked = site.lock()
    assert told(locked.findings) == []
    (root_artifact,) = [a for a in locked.artifacts if a.facts["role"] == "manifest"]
    assert root_artifact.facts["media_type"] == OCI_MANIFEST
    assert sorted(root_artifact.facts["refs"]) == ["local.example/bare:1", f"{HOST}/team/bare:1"]


def test_python_is_looked_for(registry: RealRegistry, tmp_path: Path) -> None:
    """An image for tasks without Python, or whose upper layer took it away, does not pack."""
    layout = Layout(tmp_path / "layout")
    layout.name("none", layout.manifest("linux/amd64", [{"bin/sh": b"sh"}]))
    gone: dict[str, bytes | str] = {"usr/bin/.wh.python3": b"", "usr/bin/.wh.python3.11": b""}
    layout.name("gone", layout.manifest("linux/amd64", [PYTHON, gone]))
    layout.name("opaque", layout.manifest("linux/amd64", [PYTHON, {"usr/bin/.wh..wh..opq": b""}]))
    layout.name("conda", layout.manifest("linux/amd64", [{"opt/conda/bin/python3": b"x"}]))
    site = ImageSite(tmp_path, registry.url)
    tables = [
        f'ref = "oci:{layout.root}:{name}"\nas = "local.example/{name}:1"\nrequires = ["python3"]'
        for name in ("none", "gone", "opaque", "conda")
    ]
    site.declare(*tables)
    with pytest.raises(HaversackError) as caught:
        site.pack(site.lock())
    said = sorted(f.subject for f in caught.value.findings if f.code == "image-python")
    assert said == ["local.example/gone:1", "local.example/none:1", "local.example/opaque:1"]
    # An image has no requirements to mend: what to do stands in each finding.
    assert "findings" in caught.value.remedy


def test_python_is_missed_under_the_name_that_needs_it(registry: RealRegistry, tmp_path: Path) -> None:
    """Of two entries with one digest, that one is named which requires Python, and only its platforms are looked at."""
    layout = Layout(tmp_path / "layout")
    made = [layout.manifest(f"linux/{arch}", [{"bin/sh": arch.encode()}]) for arch in ("amd64", "arm64")]
    layout.name("both", layout.index(made))
    site = ImageSite(tmp_path, registry.url)
    source = f'ref = "oci:{layout.root}:both"'
    site.declare(
        f'{source}\nas = "local.example/a-plain:1"\nplatforms = ["linux/amd64"]',
        f'{source}\nas = "local.example/task:1"\nplatforms = ["linux/arm64"]\nrequires = ["python3"]',
    )
    with pytest.raises(HaversackError) as caught:
        site.pack(site.lock())
    (finding,) = [f for f in caught.value.findings if f.code == "image-python"]
    assert finding.subject == "local.example/task:1"
    assert "linux/arm64" in finding.message
    assert "instead of local.example/task:1" in finding.remedy


def test_a_layer_that_nobody_can_read(registry: RealRegistry, tmp_path: Path) -> None:
    """zstd is told and does not block; a damaged archive blocks."""
    layout = Layout(tmp_path / "layout")
    layout.name("zstd", layout.manifest("linux/amd64", [b"\x28\xb5\x2f\xfd" + bytes(100)]))
    site = ImageSite(tmp_path, registry.url)
    site.declare(f'ref = "oci:{layout.root}:zstd"\nas = "local.example/zstd:1"\nrequires = ["python3"]')
    locked = site.lock()
    (layer,) = [a for a in locked.artifacts if a.facts["role"] == "layer"]
    image = kinds()["image"]
    facts, findings = image.inspect(layer, io.BytesIO(b"\x28\xb5\x2f\xfd" + bytes(100)))
    assert (facts, told(findings)) == ({"unread": True}, [("image-unread", False)])
    facts, findings = image.inspect(layer, io.BytesIO(b"\x1f\x8b" + bytes(102)))
    assert told(findings) == [("image-invalid", True)]
    site.pack(locked)


def test_layers_on_top_of_each_other() -> None:
    """What an upper layer brings again is there, whatever hid it in between."""
    base = layers.look(io.BytesIO(tarred(PYTHON)), 100)
    hides = layers.look(io.BytesIO(tarred({".wh.usr": b""})), 100)
    assert layers.pythons([base]) == ["usr/bin/python3", "usr/bin/python3.11"]
    assert layers.pythons([base, hides]) == []
    assert layers.pythons([base, hides, base]) == layers.pythons([base])


def test_a_layer_that_fills_disks() -> None:
    """A layer that unpacks to far more than its size allows is refused, in bounded memory."""
    bomb = gzip.compress(tarred({"zeros": bytes(1 << 20)}))
    with pytest.raises(layers.UnreadableLayer, match="far more"):
        layers.look(io.BytesIO(bomb), -(1 << 30) // layers._RATIO)


def test_an_archive_of_docker_save(registry: RealRegistry, tmp_path: Path) -> None:
    """The manifest made for it is the one that skopeo makes, and what is installed is the image."""
    layout = Layout(tmp_path / "layout")
    layout.image("app", PYTHON)
    site = ImageSite(tmp_path, registry.url)
    skopeo(
        "copy",
        "-q",
        f"oci:{layout.root}:app",
        f"docker-archive:{site.root / 'app.tar'}:team/app:1",
        whole=False,
    )
    site.declare('ref = "docker-archive:app.tar"\nas = "local.example/app:1"\nrequires = ["python3"]')
    locked = site.lock()
    right = skopeo("inspect", "--raw", f"docker-archive:{site.root / 'app.tar'}")
    (root,) = [a for a in locked.artifacts if "refs" in a.facts]
    assert root.digest == digest_of(right)
    assert site.lock() == locked
    prefix = site.install(site.pack(locked))
    # skopeo finds no manifest of docker's by name in a layout: it stands in a list there, and is unchanged.
    skopeo("copy", "-q", f"oci:{prefix}:local.example/app:1", f"dir:{tmp_path / 'out'}")
    assert (tmp_path / "out" / "manifest.json").read_bytes() == right


def test_an_archive_that_is_none(registry: RealRegistry, tmp_path: Path) -> None:
    """Neither a file of something else nor a tar of something else ends in a traceback."""
    site = ImageSite(tmp_path, registry.url)
    (site.root / "a.tar").write_bytes(b"nothing")
    (site.root / "b.tar").write_bytes(tarred({"manifest.json": b'[{"Config": "c", "Layers": ["l"]}]'}))
    site.declare('ref = "docker-archive:a.tar"\nas = "local.example/a:1"')
    with pytest.raises(DeclarationError, match="cannot be read"):
        site.lock()
    site.declare('ref = "docker-archive:b.tar"\nas = "local.example/b:1"')
    assert told(site.lock().findings) == [("image-invalid", True)]


LAYER = "sha256:" + "0" * 64
ONE = b'[{"Config": "c", "Layers": ["l"]}]'


@pytest.mark.parametrize(
    "members",
    [
        {"manifest.json": b"[" * 300_000},
        {"manifest.json": b'[{"Config": "c", "Layers": [5]}]'},
        {"manifest.json": b'[{"Config": "c", "Layers": [], "RepoTags": 5}]'},
        {"manifest.json": ONE, "c": b"[" * 300_000},
        {"manifest.json": ONE, "c": b'{"rootfs": [1]}', "l": b"x"},
        {
            "manifest.json": ONE,
            "c": json.dumps({"rootfs": {"diff_ids": [LAYER]}}).encode(),
            "l": b"\x1f\x8bno",
        },
        {
            "manifest.json": ONE,
            "c": json.dumps({"rootfs": {"diff_ids": [LAYER]}}).encode(),
            "l": gzip.compress(NOISE)[:-9],
        },
        {
            "manifest.json": ONE,
            "c": json.dumps({"rootfs": {"diff_ids": [LAYER]}}).encode(),
            "l": b"\x1f\x8b\x08\0\0\0\0\0\0\0\xff\xff\xff",
        },
    ],
)
def test_an_archive_that_lies(tmp_path: Path, members: dict[str, bytes | str]) -> None:
    """Whatever stands where something else belongs is an error that says so, and never a traceback."""
    archive = tmp_path / "a.tar"
    archive.write_bytes(tarred(members))
    with pytest.raises((DeclarationError, IntegrityError)):
        InArchive(archive, None, DiskStore(tmp_path / "store", create=True))


def test_an_archive_that_is_packed_wrongly(tmp_path: Path) -> None:
    """An archive whose own gzip is damaged cannot be read, which is said."""
    archive = tmp_path / "a.tar"
    packed = bytearray(gzip.compress(tarred({"manifest.json": b" " * 50_000 + ONE, "l": NOISE}), mtime=0))
    packed[len(packed) // 2 :] = b"\xff" * (len(packed) // 2)
    archive.write_bytes(packed)
    with pytest.raises(DeclarationError, match="cannot be read as an archive"):
        InArchive(archive, None, DiskStore(tmp_path / "store", create=True))


def test_a_layout_that_lists_anything(registry: RealRegistry, tmp_path: Path) -> None:
    """What stands beside an image in a layout, and is no JSON object, is nothing about it."""
    layout = Layout(tmp_path / "layout")
    entry = layout.manifest("linux/amd64", [PYTHON], annotations={})
    for data in (b"not JSON", b"[1]", b"[" * 300_000, b'{"subject": 5}'):
        layout.name(f"x{len(data)}", {"mediaType": "x/y", "digest": layout.blob(data), "size": len(data)})
    layout.name("app", entry)
    site = ImageSite(tmp_path, registry.url)
    site.declare(f'ref = "oci:{layout.root}:app"\nas = "local.example/app:1"')
    assert told(site.lock().findings) == []
    part = {"mediaType": OCI_CONFIG, "digest": LAYER, "size": 1}
    odd = {"schemaVersion": 2, "config": part, "layers": [{**part, "urls": 5}]}
    assert [one.url for one in read(Manifest(OCI_MANIFEST, json.dumps(odd).encode()), "here").parts] == [
        None
    ] * 2


def test_a_layout_whose_manifest_was_changed(registry: RealRegistry, tmp_path: Path) -> None:
    """skopeo copies a changed manifest of a layout; here it is refused."""
    layout = Layout(tmp_path / "layout")
    digest = layout.image("app", PYTHON)
    place = layout.place(digest)
    place.write_bytes(place.read_bytes() + b"\n")
    site = ImageSite(tmp_path, registry.url)
    site.declare(f'ref = "oci:{layout.root}:app"\nas = "local.example/app:1"')
    (finding,) = site.lock().findings
    assert (finding.code, "somebody changed it" in finding.message) == ("image-invalid", True)


def test_attestations_and_signatures_travel(registry: RealRegistry, tmp_path: Path) -> None:
    """An attestation in a list travels with the manifest that it is about, a signature by tag with its image."""
    layout = Layout(tmp_path / "layout")
    amd, arm = (layout.manifest(p, [PYTHON]) for p in ("linux/amd64", "linux/arm64"))
    unknown = {"os": "unknown", "architecture": "unknown"}

    def attestation(of: str) -> dict[str, object]:
        entry = layout.manifest("unknown/unknown", [{"in-toto": of.encode()}])
        notes = {"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": of}
        return {**entry, "platform": unknown, "annotations": notes}

    about = [attestation(str(entry["digest"])) for entry in (amd, arm)]
    root = layout.name("app", layout.index([amd, arm, *about]))
    layout.name("sig", layout.manifest("unknown/unknown", [{"payload": b"signature"}]))
    registry.load(layout, "app", "team/signed:1")
    registry.load(layout, "sig", f"team/signed:{root.replace(':', '-')}.sig")
    site = ImageSite(tmp_path, registry.url)
    site.declare(f'ref = "{HOST}/team/signed:1"\nplatforms = ["linux/amd64"]')
    locked = site.lock()
    there = {a.digest for a in locked.artifacts}
    assert amd["digest"] in there
    assert arm["digest"] not in there
    assert [entry["digest"] in there for entry in about] == [True, False]
    refs = {name for a in locked.artifacts for name in a.facts.get("refs", ())}
    assert refs == {f"{HOST}/team/signed:1", f"{HOST}/team/signed:{root.replace(':', '-')}.sig"}
    site.pack(locked)


def test_an_index_that_multiplies_itself(registry: RealRegistry, tmp_path: Path) -> None:
    """Entries that say the same again and again are asked for once; too many others, and too deep ones, are refused."""
    layout = Layout(tmp_path / "layout")
    entry = layout.manifest("linux/amd64", [PYTHON])
    indexes = [layout.index([entry])]
    for _ in range(5):
        indexes.append(layout.index([indexes[-1]] * 12))
    many = [{**entry, "annotations": {"n": str(n)}} for n in range(1001)]
    layout.name("deep", indexes[5])
    layout.name("wide", layout.index(many))
    layout.name("one", entry)
    registry.load(layout, "one", "team/right:one")
    # No program copies indexes within indexes.
    push = HttpPush([Registry("main", registry.url, HOST)], lambda _: None)
    for index in indexes[:4]:
        data = layout.place(index["digest"]).read_bytes()
        push.manifest(f"{HOST}/team/right", "1", Manifest(OCI_INDEX, data))
    with Front(registry) as front:
        site = ImageSite(tmp_path / "a", front.url)
        site.declare(f'ref = "{HOST}/team/right:1"\nplatforms = ["linux/amd64"]')
        assert told(site.lock().findings) == []
        assert len([path for _, path, _ in front.asked if "/manifests/sha256:" in path]) == 4
    for name, said in (("deep", "without end"), ("wide", "more than 1000 entries")):
        site = ImageSite(tmp_path / name, registry.url)
        site.declare(f'ref = "oci:{layout.root}:{name}"\nas = "local.example/{name}:1"')
        (finding,) = site.lock().findings
        assert (finding.code, said in finding.message) == ("image-invalid", True)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "JSON"),
        (b"[]", "object"),
        (b'{"schemaVersion": 1, "fsLayers": []}', "schema 1"),
        (b'{"schemaVersion": 2, "manifests": [], "layers": [], "config": {}}', "at once"),
        (b'{"schemaVersion": 2, "manifests": [{"mediaType": "x", "digest": "md5:1", "size": 1}]}', "digest"),
        (b'{"schemaVersion": 2, "layers": []}', "mediaType"),
        (b"[" * 300_000, "JSON"),
    ],
)
def test_manifests_that_are_none(data: bytes, why: str) -> None:
    """Each is an IntegrityError that says why, never a traceback."""
    with pytest.raises(IntegrityError, match=why):
        read(Manifest(OCI_INDEX if b"manifests" in data else OCI_MANIFEST, data), "here")


def test_files_are_called_by_what_they_are() -> None:
    """The name of a layer's file tells how it is packed."""
    ends = ["layer.v1.tar+gzip", "layer.v1.tar", "layer.v1.tar+zstd", "layer.nondistributable.v1.tar+gzip"]
    assert [suffix(f"application/vnd.oci.image.{end}") for end in ends] == [
        ".tar.gz",
        ".tar",
        ".tar.zst",
        ".tar.gz",
    ]
    assert [suffix(OCI_CONFIG), suffix("application/octet-stream")] == [".json", ".bin"]


def test_two_images_of_one_name(registry: RealRegistry, tmp_path: Path) -> None:
    """Inside one name means one image; who declares two is told which."""
    site = ImageSite(tmp_path, registry.url)
    site.declare(f'ref = "{HOST}/team/app:1"', f'ref = "{HOST}/team/other:1"\nas = "{HOST}/team/app:1"')
    with pytest.raises(DeclarationError, match="name of another image"):
        site.lock()


def test_podman_takes_what_was_installed(registry: RealRegistry, tmp_path: Path) -> None:
    """podman takes the image out of the layout into its own storage."""
    site = ImageSite(tmp_path, registry.url)
    site.declare(f'ref = "{HOST}/team/app:1"\nplatforms = ["linux/amd64"]')
    prefix = site.install(site.pack(site.lock()))
    policy = tmp_path / "policy.json"
    policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    words = ["pull", "-q", "--signature-policy", str(policy), f"oci:{prefix}:{HOST}/team/app:1"]
    # podman takes no longer path than 50 characters for its state.
    with tempfile.TemporaryDirectory(prefix="hs-", dir="/tmp") as state:
        root = ["podman", "--root", f"{state}/s", "--runroot", f"{state}/r", "--storage-driver", "vfs"]
        done = subprocess.run([*root, *words], capture_output=True, text=True, env=tiny.environ(tmp_path))
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.strip()) == 64


def test_by_commands_alone(registry: RealRegistry, tmp_path: Path) -> None:
    """An environment and an image, declared together, are locked, packed with a rehearsal, received and installed."""
    with Lab(tmp_path) as lab:
        make_wheel(lab.wheels, "demo", "1.0")
        where = f'[registry.main]\nurl = "{registry.url}"\nhost = "{HOST}"\n'
        lab.declare("demo", more=f'{where}[[image]]\nref = "{HOST}/team/app:1"\nrequires = ["python3"]\n')
        assert lab("lock").returncode == 0
        first = (lab.root / "haversack.lock").read_bytes()
        assert lab("lock").returncode == 0
        assert (lab.root / "haversack.lock").read_bytes() == first
        told = lab.told("pack", "-o", "bundle")
        assert not [finding for finding in told.get("findings", []) if finding["blocking"]]
        inside = {"HAVERSACK_STORE": str(tmp_path / "inside")}
        assert lab("receive", "bundle", env=inside).returncode == 0
        done = lab("install", "images", "--to", tmp_path / "images", "--check", env=inside)
        assert done.returncode == 0, done.stderr
        (digest,) = unfolded(tmp_path / "images", f"{HOST}/team/app:1")
        assert digest == digest_of(registry.raw("team/app:1"))
        doctor = lab("doctor", "--env", tmp_path / "images", env=inside)
        assert doctor.returncode == 0, doctor.stdout + doctor.stderr


def test_what_crossed_is_served(registry: RealRegistry, tmp_path: Path) -> None:
    """skopeo pulls the image from the view of the snapshot, by its own name, with the digest that it always had."""
    site = ImageSite(tmp_path, registry.url)
    site.declare(f'ref = "{HOST}/team/app:1"')
    site.pack(site.lock())
    inside = site.inside()
    _, content = holdings.current_snapshot(inside.store, None)
    assert isinstance(inside.store, DiskStore)
    with ViewServer(view_of(content), inside.store) as server:
        source = f"docker://{server.url.partition('://')[2].rstrip('/')}/{HOST}/team/app:1"
        argv = ["skopeo", "--insecure-policy", "inspect", "--raw", "--tls-verify=false", source]
        done = subprocess.run(argv, capture_output=True, env=tiny.environ(tmp_path))
        assert done.stdout == registry.raw("team/app:1"), done.stderr
