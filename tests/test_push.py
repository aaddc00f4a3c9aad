"""Pushing to a real registry: what arrives, what is not sent twice, and what registries refuse."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from haversack.errors import FetchError, IntegrityError, NotFoundError, UsageError
from haversack.images.inside import repinned
from haversack.model.site import Credentials, Registry
from haversack.ports.registry import HttpPush
from haversack.verbs.holdings import current_snapshot
from haversack.verbs.push import Pushed, push
from tests.support import tiny
from tests.support.imagesite import HOST, ImageSite, told
from tests.support.registry import Front, Layout, RealRegistry, certificate, digest_of, skopeo

LOGIN = ("alice", "s3cret")
FILES: dict[str, bytes | str] = {"usr/bin/python3": b"x", "big": bytes(range(256)) * 1000}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> ImageSite:
    """A site that has received an image for two platforms, and one of two of which one travelled."""
    folder = tmp_path_factory.mktemp("site")
    layout = Layout(folder / "layout")
    layout.image("app", FILES, ("linux/amd64", "linux/arm64"))
    layout.image("half", {**FILES, "etc/half": b"half"}, ("linux/amd64", "linux/arm64"))
    made = ImageSite(folder, "http://127.0.0.1:1")
    made.declare(
        f'ref = "oci:{layout.root}:app"\nas = "{HOST}/team/app:1"',
        f'ref = "oci:{layout.root}:half"\nas = "{HOST}:5000/team/half:1"\nplatforms = ["linux/amd64"]',
    )
    made.pack(made.lock())
    return made


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[RealRegistry]:
    """An empty registry that asks a password."""
    with RealRegistry(tmp_path / "registry", login=LOGIN) as running:
        yield running


def pushed(site: ImageSite, registry: RealRegistry | Front, *only: str, dry_run: bool = False) -> Pushed:
    """Push to ``HOST/air`` of a registry."""
    there = [Registry("push", registry.url, registry.host)]
    port = HttpPush(there, lambda _: Credentials(*LOGIN), attempts=3, timeout=5, backoff=0.01)
    return push(f"{registry.host}/air", site.inside(), port, only=only, dry_run=dry_run)


def test_images_keep_name_and_digest(site: ImageSite, registry: RealRegistry) -> None:
    """What skopeo finds in the registry is what was locked, under the name that it had."""
    done = pushed(site, registry)
    references = dict(done.references)
    raw = registry.raw(f"air/{HOST}/team/app:1")
    assert references[f"{registry.host}/air/{HOST}/team/app:1"] == digest_of(raw)
    (root,) = [a for a in site.lock().artifacts if f"{HOST}/team/app:1" in a.facts.get("refs", ())]
    assert root.digest == digest_of(raw)
    copy = site.folder / "copy"
    skopeo(
        "copy",
        "-q",
        "--all",
        f"docker://{registry.host}/air/{HOST}/team/app:1",
        f"oci:{copy}:x",
        registry=registry,
    )


def test_a_list_without_all_of_its_platforms(site: ImageSite, registry: RealRegistry) -> None:
    """Registries refuse it: a list of what is there is made, and that is told; a port is part of the name."""
    done = pushed(site, registry)
    assert told(done.findings) == [("image-sparse", False)]
    name = f"air/{HOST}_5000/team/half:1"
    (entry,) = json.loads(registry.raw(name))["manifests"]
    assert entry["platform"]["architecture"] == "amd64"
    assert digest_of(registry.raw(name)) in done.findings[0].message
    # Whoever asks for it by the digest that it has outside is told so beforehand, and no other one.
    _, content = current_snapshot(site.inside().store, None)
    (half, whole) = (
        next(a for a in site.lock().artifacts if f"{HOST}{name}:1" in a.facts.get("refs", ()))
        for name in (":5000/team/half", "/team/app")
    )
    assert told(repinned(content, f"{HOST}:5000/team/half:1@{half.digest}", "x")) == [("image-sparse", False)]
    assert repinned(content, f"{HOST}/team/app:1@{whole.digest}", "x") == []
    assert repinned(content, f"{HOST}:5000/team/half:1", "x") == []


def test_the_snapshot_is_there_too(site: ImageSite, registry: RealRegistry) -> None:
    """The snapshot by its name and as `current`, and each environment by a tag, are the artifacts that they are."""
    done = pushed(site, registry)
    references = dict(done.references)
    own = f"{registry.host}/air/haversack/snapshot"
    assert references[f"{own}:2026-11"] == references[f"{own}:current"]
    assert digest_of(registry.raw("air/haversack/snapshot:2026-11")) == references[f"{own}:2026-11"]
    manifest = json.loads(registry.raw("air/haversack/snapshot:images__any"))
    assert manifest["artifactType"] == "application/vnd.haversack.environment.v1+json"
    entry = [line.entry for line in site.inside().ledger.lines()][-1]
    assert entry is not None
    assert entry.act == "push"
    assert LOGIN[1] not in json.dumps(entry.details)


def test_nothing_is_sent_twice(site: ImageSite, registry: RealRegistry) -> None:
    """A dry run sends nothing; a file goes once however many repositories want it; a second run sends nothing."""
    foreseen = pushed(site, registry, dry_run=True)
    with pytest.raises(AssertionError, match=r"unknown|not found"):
        registry.raw("air/haversack/snapshot:2026-11")
    first = pushed(site, registry)
    assert (first.blobs, first.size) == (foreseen.blobs, foreseen.size)
    assert first.present > 0
    assert pushed(site, registry).blobs == 0


def test_only_some(site: ImageSite, registry: RealRegistry) -> None:
    """Only the image that is named is pushed; a name that nothing has is refused, and the known ones are told."""
    done = pushed(site, registry, f"{HOST}/team/app:1")
    assert [name for name, _ in done.references] == [f"{registry.host}/air/{HOST}/team/app:1"]
    with pytest.raises(NotFoundError, match="nothing") as caught:
        pushed(site, registry, "nothing")
    assert f"{HOST}/team/app:1" in caught.value.remedy


def test_a_connection_that_breaks(site: ImageSite, tmp_path: Path) -> None:
    """An upload that is answered by an error that may pass is begun anew, and all of it arrives."""
    with RealRegistry(tmp_path / "open") as behind, Front(behind, tokens=True, login=LOGIN) as front:
        front.fail("/blobs/uploads/", method="PUT", status=503, times=2)
        front.fail("/manifests/", method="PUT", status=500)
        done = pushed(site, front)
        assert done.blobs > 0
        assert behind.raw(f"air/{HOST}/team/app:1")
        scopes = [token for token in front.issued if "push" in token]
        assert scopes


def test_no_way_in(site: ImageSite, registry: RealRegistry) -> None:
    """A wrong password is FetchError, and no part of it is repeated."""
    there = [Registry("push", registry.url, registry.host)]
    port = HttpPush(there, lambda _: Credentials("alice", "wr0ng"), attempts=1)
    with pytest.raises(FetchError, match="401") as caught:
        push(f"{registry.host}/air", site.inside(), port)
    assert "wr0ng" not in f"{caught.value} {caught.value.remedy}"
    assert "--auth" in caught.value.remedy


def test_a_blob_that_rotted(tmp_path: Path, registry: RealRegistry) -> None:
    """What is not what its name says is not pushed: it is hashed on its way out."""
    layout = Layout(tmp_path / "layout")
    layout.image("app", FILES)
    rotten = ImageSite(tmp_path, "http://127.0.0.1:1")
    rotten.declare(f'ref = "oci:{layout.root}:app"\nas = "{HOST}/team/app:1"')
    arrived = rotten.pack(rotten.lock())
    (layer, *_) = [a for a in arrived.artifacts if a.facts["role"] == "layer"]
    place = rotten.inside().store.path(layer.digest)
    data = place.read_bytes()
    place.unlink()
    place.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(IntegrityError, match="not what its name says"):
        pushed(rotten, registry)


def test_the_command(site: ImageSite, tmp_path: Path) -> None:
    """`haversack push` with TLS, and a login from the environment; plain http is only what http:// asks for."""
    tls = certificate(tmp_path / "tls")
    store = site.folder / "inside"
    with RealRegistry(tmp_path / "registry", tls=tls, login=LOGIN) as registry:
        env = {
            "SSL_CERT_FILE": str(tls[0]),
            "HAVERSACK_REGISTRY_PUSH_USERNAME": LOGIN[0],
            "HAVERSACK_REGISTRY_PUSH_PASSWORD": LOGIN[1],
        }
        done = tiny.haversack("push", f"{registry.host}/x", "--auth", "env", store=store, env=env)
        assert done.returncode == 0, done.stderr
        assert "image-sparse" in done.stderr + done.stdout
        assert registry.raw(f"x/{HOST}/team/app:1")
        wrong = tiny.haversack("push", f"http://{registry.host}/x", "--auth", "env", store=store, env=env)
        assert wrong.returncode != 0
        assert LOGIN[1] not in wrong.stderr
    bad = tiny.haversack("push", "https://alice:hunter2@host/x", store=store)
    assert bad.returncode == 2
    assert "hunter2" not in bad.stderr


def test_a_snapshot_called_like_the_tag_of_an_environment(tmp_path: Path, registry: RealRegistry) -> None:
    """`pack` gives no such name; one of before is not pushed over the environment's tag, its images alone are."""
    layout = Layout(tmp_path / "layout")
    layout.image("app", FILES)
    named = ImageSite(tmp_path, "http://127.0.0.1:1")
    named.declare(f'ref = "oci:{layout.root}:app"\nas = "{HOST}/team/app:1"')
    named.pack(named.lock(), name="images__any")
    with pytest.raises(UsageError, match="images__any") as caught:
        pushed(named, registry)
    assert "single underscores" in caught.value.remedy
    with pytest.raises(AssertionError, match=r"unknown|not found"):
        registry.raw("air/haversack/snapshot:images__any")
    assert dict(pushed(named, registry, "images").references)[
        f"{registry.host}/air/haversack/snapshot:images__any"
    ]
    words = ("pack", "--name", "images__any", "-o", tmp_path / "never")
    refused = tiny.haversack(*words, store=tmp_path / "store")
    assert (refused.returncode, "single underscores" in refused.stderr) == (UsageError.exit_code, True)
