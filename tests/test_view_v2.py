"""Images and the snapshot as a registry: the pages by the specification, and skopeo as the judge."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from haversack.formats import oci
from haversack.model.artifact import Artifact, digest_of, hex_of
from haversack.model.lock import LockedEnvironment
from haversack.model.snapshot import Snapshot
from haversack.ports.disk import DiskStore
from haversack.verbs import holdings
from haversack.views import View, view_of
from haversack.views.v2 import Registry
from tests.support.site import Lab
from tests.support.viewing import ViewServer, stocked, wheel_of
from tests.support.wheels import make_wheel

IMAGES = LockedEnvironment("images", "any", "image")
LAB = LockedEnvironment("lab", "node", "pip")
NAME = "docker.io/team/multi"
SIGNATURE = "application/vnd.example.signature.v1"


@dataclass(frozen=True)
class Layout:
    """An OCI image layout on disk, as buildah and umoci leave one."""

    folder: Path

    def blob(self, digest: str) -> bytes:
        """The bytes of a blob."""
        return (self.folder / "blobs/sha256" / hex_of(digest)).read_bytes()

    def add(self, data: bytes) -> dict[str, Any]:
        """Put a blob in; digest and size of its descriptor."""
        (self.folder / "blobs/sha256" / hex_of(digest_of(data))).write_bytes(data)
        return {"digest": digest_of(data), "size": len(data)}

    def artifacts(self, root: str, media_type: str, *refs: str) -> Iterator[Artifact]:
        """An image as the kind of images locks it: facts tell what a registry must say unopened."""
        body = json.loads(self.blob(root))
        parts = [*body.get("manifests", []), *body.get("layers", []), *filter(None, [body.get("config")])]
        facts: dict[str, Any] = {
            "role": "index" if "manifests" in body else "manifest",
            "media_type": media_type,
            "children": [part["digest"] for part in parts],
        }
        facts |= {"refs": list(refs)} if refs else {}
        facts |= {"subject": body["subject"]["digest"]} if "subject" in body else {}
        facts |= {"artifact_type": body["artifactType"]} if "artifactType" in body else {}
        yield self._artifact(root, facts)
        for part in parts:
            if not (self.folder / "blobs/sha256" / hex_of(part["digest"])).exists():
                continue
            if part in body.get("manifests", []):
                yield from self.artifacts(part["digest"], part["mediaType"])
            else:
                role = "config" if part == body.get("config") else "layer"
                yield self._artifact(part["digest"], {"role": role, "media_type": part["mediaType"]})

    def _artifact(self, digest: str, facts: Mapping[str, Any]) -> Artifact:
        data = self.blob(digest)
        return Artifact(
            "image", "x", "", f"{hex_of(digest)}.bin", digest, len(data), "archive:x", ("images/any",), facts
        )


def made(folder: Path) -> tuple[Layout, str]:
    """A layout with a multi-arch image by hand: two platforms that share a layer, and a signature of the index."""
    (folder / "blobs/sha256").mkdir(parents=True)
    layout = Layout(folder)
    layer = {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", **layout.add(b"a layer")}
    manifests = []
    for architecture in ("amd64", "arm64"):
        config = {"architecture": architecture, "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}
        described = {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            **layout.add(json.dumps(config).encode()),
        }
        # As umoci writes them: no media type within.
        manifest = layout.add(
            json.dumps({"schemaVersion": 2, "config": described, "layers": [layer]}).encode()
        )
        platform = {"architecture": architecture, "os": "linux"}
        manifests.append({"mediaType": oci.MANIFEST, **manifest, "platform": platform})
    absent = {"mediaType": oci.MANIFEST, "digest": digest_of(b"not chosen"), "size": 10, "platform": {"architecture": "s390x", "os": "linux"}}  # fmt: skip
    index = {"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": [*manifests, absent]}
    return layout, str(layout.add(json.dumps(index).encode())["digest"])


def signed(layout: Layout, subject: str) -> str:
    """A signature in the layout: a manifest with a subject."""
    empty = {"mediaType": oci.EMPTY, **layout.add(b"{}")}
    described = {"mediaType": oci.INDEX, "digest": subject, "size": len(layout.blob(subject))}
    body = {"schemaVersion": 2, "mediaType": oci.MANIFEST, "artifactType": SIGNATURE, "config": empty, "layers": [empty], "subject": described}  # fmt: skip
    return str(layout.add(json.dumps(body).encode())["digest"])


def site(folder: Path, layout: Layout, artifacts: list[Artifact]) -> tuple[Snapshot, DiskStore]:
    """A site of these images and one wheel."""
    wheel = make_wheel(folder / "made", "demo", "1.0")
    blobs = [layout.blob(a.digest) for a in artifacts] + [wheel.read_bytes()]
    return stocked(folder / "store", [IMAGES, LAB], [*artifacts, wheel_of(wheel)], blobs)


def read(view: View, path: str) -> Any:
    """The JSON of a page that must be there."""
    page = view.get(path)
    assert page is not None, path
    assert page.data is not None
    return json.loads(page.data)


# The pages


def test_an_image_lies_under_each_of_its_names(tmp_path: Path) -> None:
    """Tags and digests lead to manifests with their media types; what was not chosen is not there."""
    layout, root = made(tmp_path / "layout")
    refs = [
        f"{NAME}:1",
        f"{NAME}:latest@{root}",
        "registry.example.org:5000/mirror/multi:1",
        f"{NAME}@{root}",
    ]
    content, _ = site(tmp_path, layout, list(layout.artifacts(root, oci.INDEX, *refs)))
    view = Registry(content)
    below = [p.removeprefix(f"{NAME}/") for p in view.paths() if p.startswith(f"{NAME}/")]
    children = [m["digest"] for m in json.loads(layout.blob(root))["manifests"]][:2]
    wanted = {root, *children}
    assert {p.partition("/")[2] for p in below if p.startswith("manifests/")} == wanted | {"1", "latest"}
    assert {p.partition("/")[2] for p in below if p.startswith("referrers/")} == wanted
    assert len([p for p in below if p.startswith("blobs/")]) == 3
    assert view.get(f"{NAME}/manifests/1") == view.get(f"{NAME}/manifests/{root}")
    for name in (root, *children):
        page = view.get(f"{NAME}/manifests/{name}")
        assert page is not None
        assert (page.blob, page.size) == (name, len(layout.blob(name)))
        assert page.media_type == (oci.INDEX if name == root else oci.MANIFEST)
    assert read(view, f"{NAME}/tags/list") == {"name": NAME, "tags": ["1", "latest"]}
    assert read(view, "registry.example.org_5000/mirror/multi/tags/list")["tags"] == ["1"]
    assert read(view, "_catalog")["repositories"] == [
        NAME,
        "haversack/snapshot",
        "registry.example.org_5000/mirror/multi",
    ]
    for wrong in (
        f"{NAME}/manifests/{digest_of(b'not chosen')}",
        f"{NAME}/blobs/{root}",
        f"{NAME}/manifests",
        "docker.io/team/tags/list",
    ):
        assert view.get(wrong) is None
    assert view.findings() == []


def test_signatures_travel_and_are_named(tmp_path: Path) -> None:
    """What refers to a manifest is in its repository, and in an index of referrers that may be empty."""
    layout, root = made(tmp_path / "layout")
    signature = signed(layout, root)
    artifacts = [*layout.artifacts(root, oci.INDEX, f"{NAME}:1"), *layout.artifacts(signature, oci.MANIFEST)]
    view = Registry(site(tmp_path, layout, artifacts)[0])
    index = read(view, f"{NAME}/referrers/{root}")
    assert index["mediaType"] == oci.INDEX
    (entry,) = index["manifests"]
    size = len(layout.blob(signature))
    assert entry == {"mediaType": oci.MANIFEST, "digest": signature, "size": size, "artifactType": SIGNATURE}
    assert read(view, f"{NAME}/referrers/{signature}")["manifests"] == []
    page = view.get(f"{NAME}/referrers/{root}")
    assert page is not None
    assert page.media_type == oci.INDEX


def test_one_tag_of_two_images_is_told(tmp_path: Path) -> None:
    """Two roots that claim one tag: one is shown, in any order, and a finding names both."""
    layout, root = made(tmp_path / "layout")
    child = json.loads(layout.blob(root))["manifests"][0]
    one, *rest = layout.artifacts(root, oci.INDEX, f"{NAME}:1")
    other = next(layout.artifacts(child["digest"], oci.MANIFEST, f"{NAME}:1"))
    rest = [a for a in rest if a.digest != other.digest]
    view = Registry(site(tmp_path, layout, [one, other, *rest])[0])
    (finding,) = view.findings()
    assert (finding.code, finding.subject) == ("name-clash", f"{NAME}:1")
    assert root in finding.message
    assert child["digest"] in finding.message


# Clients


def skopeo(*words: str | Path, fails: bool = False) -> str:
    """What skopeo prints."""
    argv = ["skopeo", "--insecure-policy", *map(str, words)]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert (done.returncode != 0) == fails, done.stderr
    return done.stderr if fails else done.stdout


def built(folder: Path) -> Layout:
    """A real image, made by umoci: its manifest tells no media type."""
    folder.mkdir()
    (folder / "root").mkdir()
    (folder / "root/hello").write_text("hello\n")
    layout, ref = folder / "layout", f"{folder / 'layout'}:tiny"
    for words in (
        ["init", "--layout", layout],
        ["new", "--image", ref],
        ["insert", "--rootless", "--image", ref, folder / "root", "/data"],
    ):
        subprocess.run(["umoci", *map(str, words)], check=True, capture_output=True)
    return Layout(layout)


def test_skopeo_copies_a_real_image_with_its_digest(tmp_path: Path) -> None:
    """A manifest that tells no media type is told by the page's; tags are listed; the copy is the original."""
    layout = built(tmp_path / "built")
    (described,) = json.loads((layout.folder / "index.json").read_text())["manifests"]
    root = described["digest"]
    assert "mediaType" not in json.loads(layout.blob(root))
    artifacts = list(layout.artifacts(root, described["mediaType"], "docker.io/team/tiny:1"))
    content, store = site(tmp_path, layout, artifacts)
    with ViewServer(view_of(content), store) as server:
        ref = f"docker://{server.address}/docker.io/team/tiny"
        skopeo("copy", "--src-tls-verify=false", f"{ref}:1", f"oci:{tmp_path / 'out'}:1")
        listed = json.loads(skopeo("list-tags", "--tls-verify=false", ref))
        assert listed["Tags"] == ["1"]
        said = json.loads(skopeo("inspect", "--tls-verify=false", f"{ref}@{root}"))
        assert said["Digest"] == root
        skopeo("inspect", "--tls-verify=false", f"{ref}:2", fails=True)
    (copied,) = json.loads((tmp_path / "out/index.json").read_text())["manifests"]
    assert copied["digest"] == root


def test_skopeo_copies_both_platforms_byte_for_byte(tmp_path: Path) -> None:
    """An index of two platforms crosses whole with ``--all``, layers, configs and digests as they were."""
    layout, root = made(tmp_path / "layout")
    index = json.loads(layout.blob(root))
    index["manifests"].pop()
    whole = str(layout.add(json.dumps(index).encode())["digest"])
    content, store = site(tmp_path, layout, list(layout.artifacts(whole, oci.INDEX, f"{NAME}:1")))
    with ViewServer(view_of(content), store) as server:
        source = f"docker://{server.address}/{NAME}:1"
        words = ("copy", "-q", "--all", "--preserve-digests", "--src-tls-verify=false")
        skopeo(*words, source, f"oci:{tmp_path / 'out'}:1")
        raw = skopeo("inspect", "--raw", "--tls-verify=false", source)
    assert digest_of(raw.encode()) == whole
    for path in (tmp_path / "out/blobs/sha256").iterdir():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name
        assert layout.blob(f"sha256:{path.name}") == path.read_bytes()


def test_skopeo_pulls_the_snapshot_and_one_environment(tmp_path: Path) -> None:
    """A wheelhouse is an artifact: an environment by ``NAME__TARGET``, the whole as ``current``, lock and all."""
    layout, root = made(tmp_path / "layout")
    content, store = site(tmp_path, layout, list(layout.artifacts(root, oci.INDEX, f"{NAME}:1")))
    view = view_of(content)
    assert read(view, "v2/haversack/snapshot/tags/list")["tags"] == ["current", "images__any", "lab__node"]
    with ViewServer(view, store) as server:
        base = f"docker://{server.address}/haversack/snapshot"
        words = ("copy", "-q", "--src-tls-verify=false")
        skopeo(*words, f"{base}:lab__node", f"oci:{tmp_path / 'lab'}:1")
        skopeo(*words, "--all", f"{base}:current", f"oci:{tmp_path / 'all'}:1")
        raw = skopeo("inspect", "--raw", "--tls-verify=false", f"{base}@{content.id}")
    (lab,) = (e for e in content.environments if e.ref == "lab/node")
    (wheel,) = lab.artifacts
    assert (tmp_path / "lab/blobs/sha256" / hex_of(wheel.digest)).read_bytes() == store.path(
        wheel.digest
    ).read_bytes()
    # skopeo writes the index anew in its own order of keys; everything below it is as it was.
    copied = {f"sha256:{path.name}" for path in (tmp_path / "all/blobs/sha256").iterdir()}
    images = {a.digest for e in content.environments if e.locked.kind == "image" for a in e.artifacts}
    assert set(content.blobs) - {content.id} <= copied
    assert images <= copied
    assert digest_of(raw.encode()) == content.id


def test_a_layer_that_lies_is_noticed(tmp_path: Path) -> None:
    """What a server sends under another digest is refused by the client: nothing in between can change an image."""
    layout = built(tmp_path / "built")
    (described,) = json.loads((layout.folder / "index.json").read_text())["manifests"]
    artifacts = list(layout.artifacts(described["digest"], described["mediaType"], f"{NAME}:1"))
    content, store = site(tmp_path, layout, artifacts)
    layer = next(a for a in artifacts if a.facts["role"] == "layer")

    class Liar(ViewServer):
        def answer(self, path: str, accept: str) -> tuple[str, bytes] | None:
            found = super().answer(path, accept)
            return (found[0], b"\0" * len(found[1])) if found and path.endswith(layer.digest) else found

    with Liar(view_of(content), store) as server:
        source = f"docker://{server.address}/{NAME}:1"
        told = skopeo("copy", "--src-tls-verify=false", source, f"oci:{tmp_path / 'out'}:1", fails=True)
    assert "Digest did not match" in told


def test_ranges_of_a_layer(tmp_path: Path) -> None:
    """A blob is bytes at a fixed address, of which a client takes as many as it wants."""
    layout, root = made(tmp_path / "layout")
    content, store = site(tmp_path, layout, list(layout.artifacts(root, oci.INDEX, f"{NAME}:1")))
    with ViewServer(view_of(content), store) as server:
        url = f"{server.url}v2/{NAME}/blobs/{digest_of(b'a layer')}"
        done = subprocess.run(["curl", "-sf", "--noproxy", "*", "--range", "2-6", url], capture_output=True)
    assert done.stdout == b"layer"


# From the declaration to the client


def test_a_declared_image_is_pulled_by_its_name(tmp_path: Path) -> None:
    """An image from a layout on disk is locked, packed, and pulled under the name it was given, digest and all."""
    layout = built(tmp_path / "built")
    (described,) = json.loads((layout.folder / "index.json").read_text())["manifests"]
    with Lab(tmp_path / "lab") as lab:
        image = f'[[image]]\nref = "oci:{layout.folder}:tiny"\nas = "docker.io/team/tiny:1"\n'
        lab.write("none.txt", "")
        lab.declare(env='requirements = ["none.txt"]', more=image)
        lab.told("lock")
        done = lab.told("pack", "-o", lab.folder / "out", "--no-rehearse")
        store = DiskStore(lab.store)
        with ViewServer(view_of(holdings.load(store, done["snapshot"])), store) as server:
            ref = f"docker://{server.address}/docker.io/team/tiny:1"
            told = json.loads(skopeo("inspect", "--tls-verify=false", ref))
            skopeo("copy", "-q", "--src-tls-verify=false", ref, f"oci:{tmp_path / 'out'}:1")
    assert told["Digest"] == described["digest"]
