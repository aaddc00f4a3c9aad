"""A snapshot in other people's protocols: what views show, what an export holds, and what its readers say."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import zstandard
from rattler import Channel, Gateway, LockFile, RepoDataRecord, Subdir, solve
from rattler.config import Config
from rattler.install import install
from rattler.networking import Client, MirrorMiddleware

from haversack.clients import BASE_URL, Served
from haversack.clients.together import render
from haversack.errors import IntegrityError, PrefixError, StoreError, UsageError
from haversack.formats import oci, repodata
from haversack.formats.canonical import canonical
from haversack.model.artifact import Artifact, digest_of, hex_of, is_digest, is_safe_filename
from haversack.model.lock import Lock, LockedEnvironment, merge_artifacts
from haversack.model.snapshot import Snapshot, SnapshotEnvironment
from haversack.model.target import Target
from haversack.ports import Inside
from haversack.verbs import holdings, serve
from haversack.views import Page, Union, View, listing, place_of, view_of, views
from haversack.views.channel import Channels
from haversack.views.upstream import Upstream
from tests.support import tiny
from tests.support.channel import ChannelServer
from tests.support.conda import Package, make_conda
from tests.support.viewing import stocked as shelved
from tests.support.viewing import wheel_of
from tests.support.wheels import make_wheel

FORGE = "https://conda.example.org/conda-forge"
NODE = Target("node", "linux-x86_64", "3.11")
LAPTOP = Target("laptop", "macos-arm64", "3.11")


def conda(package: Package, channel: str = FORGE, **changes: Any) -> Artifact:
    """The artifact of a package as a channel tells it, with some hotfixes to its record."""
    url = f"{channel}/{package.subdir}/{package.filename}"
    record = {**package.record, "fn": package.filename, "url": url, "channel": channel, **changes}
    found = repodata.artifact_of(record, "")
    assert isinstance(found, Artifact), str(found)
    return found


def wheel(path: Path, origin: str) -> Artifact:
    """The artifact of a wheel."""
    data = path.read_bytes()
    return Artifact("wheel", "demo", "1.0", path.name, digest_of(data), len(data), origin)


def snapshot(
    environments: Mapping[str, Sequence[Artifact]], targets: Sequence[Target] = (NODE,)
) -> tuple[Snapshot, dict[str, bytes]]:
    """A snapshot of environments by name, each on every target, and its metadata blobs.

    Their records may differ, as those of environments that were locked at different times do.
    """
    refs = {f"{name}/{target.name}": some for name, some in environments.items() for target in targets}
    locked = tuple(
        LockedEnvironment(name, target.name, "conda") for name in environments for target in targets
    )
    artifacts = merge_artifacts(replace(a, members=(ref,)) for ref, some in refs.items() for a in some)
    lock = Lock("lab", digest_of(b""), tuple(targets), locked, artifacts)
    made, metadata = oci.build(lock, {a.digest: (a.size or 0, {}) for a in artifacts})
    parts = tuple(replace(e, artifacts=tuple(refs[e.ref])) for e in made.environments)
    return replace(made, environments=parts), metadata


def read(view: View, path: str) -> Any:
    """The JSON of a page that must be there."""
    page = view.get(path)
    assert page is not None, path
    assert page.data is not None
    assert page.size == len(page.data)
    return json.loads(page.data)


@pytest.fixture
def tool(tmp_path: Path) -> Package:
    """A package with a program in it, whose own metadata wants a library that never was."""
    return make_conda(
        tmp_path / "made", "tool", "1.0", files={"bin/tool": (b"#!/bin/sh\n", 0o755)}, depends=["ghost >=9"]
    )


@pytest.fixture
def old(tmp_path: Path) -> Package:
    """A package of the older format, for every machine."""
    return make_conda(
        tmp_path / "made",
        *("data", "2.0"),
        files={"share/data": b"x" * 100_000},
        noarch="generic",
        suffix=".tar.bz2",
    )


# Views


def test_a_channel_has_its_packages_and_indexes_for_every_target(tool: Package, old: Package) -> None:
    """``noarch`` and the subdir of each target are there, with packages or without."""
    content, _ = snapshot({"geo": [conda(tool), conda(old)]}, [NODE, LAPTOP])
    view = Channels(content)
    base = "conda.example.org/conda-forge"
    indexes = ["current_repodata.json", "repodata.json", "repodata.json.zst"]
    files = {"linux-64": [tool.filename], "noarch": [old.filename], "osx-arm64": []}
    wanted = [
        f"{folder}/{subdir}/{name}"
        for folder in (base, "_merged")
        for subdir, own in files.items()
        for name in [*own, *indexes]
    ]
    assert list(view.paths()) == sorted(wanted)
    assert set(read(view, f"{base}/linux-64/repodata.json")["packages.conda"]) == {tool.filename}
    assert set(read(view, f"{base}/noarch/repodata.json")["packages"]) == {old.filename}
    assert read(view, f"{base}/osx-arm64/repodata.json")["packages.conda"] == {}
    page = view.get(f"{base}/linux-64/{tool.filename}")
    assert page == Page("application/octet-stream", tool.record["size"], blob=conda(tool).digest)


def every_kind(tool: Package, old: Package, path: Path) -> tuple[list[LockedEnvironment], list[Artifact]]:
    """Environments with something for each view to show."""

    def plain(kind: str, filename: str, ref: str, facts: dict[str, Any]) -> Artifact:
        digest = digest_of(filename.encode())
        return Artifact(kind, filename, "", filename, digest, 1, f"path:{filename}", (ref,), facts)

    layer = plain("image", "layer.tar", "images/any", {"role": "layer"})
    root = {
        "role": "manifest",
        "refs": ["h.example/a/b:1"],
        "media_type": oci.MANIFEST,
        "children": [layer.digest],
    }
    git = {
        "url": "https://git.example.org/x",
        "rev": "v1",
        "commit": "0" * 40,
        "head": "refs/heads/main",
        "refs": {},
    }
    environments = [
        LockedEnvironment("geo", "node", "conda"),
        LockedEnvironment("images", "any", "image"),
        LockedEnvironment("files", "any", "file"),
        LockedEnvironment("folder", "any", "project", settings={"links": {"ln": "src/x"}}),
        LockedEnvironment("repository", "any", "project", settings={"git": git}),
    ]
    artifacts = [
        *(replace(each, members=("geo/node",)) for each in (conda(tool), conda(old))),
        wheel_of(path, "geo/node", f"https://files.example.org/packages/ab/{path.name}"),
        *(layer, plain("image", "manifest.json", "images/any", root)),
        plain("file", "tool.deb", "files/any", {}),
        plain("file", "src-x", "folder/any", {"path": "src/x"}),
        *(plain("git", f"pack-{'0' * 40}.{end}", "repository/any", {}) for end in ("pack", "idx")),
    ]
    return environments, artifacts


def test_every_view_keeps_to_the_protocol(tmp_path: Path, tool: Package, old: Package) -> None:
    """Paths are sorted, safe and each has a page; what is not listed has none; nothing is ever opened."""
    made = make_wheel(tmp_path, "demo", "1.0")
    content, _ = shelved(tmp_path / "store", *every_kind(tool, old, made), [])
    assert set(views()) == {"conda", "files", "projects", "pypi", "upstream", "v2"}
    for view in (*(make(content) for make in views().values()), view_of(content)):
        paths = list(view.paths())
        assert paths
        assert paths == sorted(set(paths))
        for path in paths:
            page = view.get(path)
            assert page is not None
            assert (page.data is None) != (page.blob is None)
            assert page.data is None or page.size == len(page.data)
            # Only a digest has a colon.
            assert all(is_safe_filename(part) or is_digest(part) for part in path.split("/"))
        for wrong in (
            "",
            "/",
            "..",
            paths[0] + "/",
            "/" + paths[0],
            paths[0] + "x",
            paths[0].rpartition("/")[0],
        ):
            assert view.get(wrong) is None
        assert view.findings() == []


def test_what_lies_below_a_folder_is_found_by_its_edges() -> None:
    """Names directly below are given once each, folders with a slash, whatever sorts between them."""
    paths = sorted(["a-b/x", "a.txt", "a/b/c", "a/b/d", "a/e", "a0", "b", "a/b.txt", "a/b-c/x"])
    assert listing(paths, "") == ["a-b/", "a.txt", "a/", "a0", "b"]
    assert listing(paths, "a/") == ["b-c/", "b.txt", "b/", "e"]
    assert listing(paths, "a/b/") == ["c", "d"]
    assert listing(paths, "c/") == listing([], "") == listing(paths, "a/e/") == []


def test_views_of_a_big_site_are_made_at_once() -> None:
    """Twenty thousand wheels and packages are shown within a second or two, every path among them."""
    url = "https://conda.example.org/f"
    facts = {"channel": url, "subdir": "linux-64", "record": {}, "metadata_sha256": "0" * 64}
    artifacts = []
    for number in range(20_000):
        kind, end = ("wheel", "py3-none-any.whl") if number % 2 else ("conda", "0.conda")
        filename = f"pkg_{number}-1.0-{end}"
        digest = digest_of(filename.encode())
        artifacts.append(
            Artifact(kind, f"pkg-{number}", "1.0", filename, digest, 1, f"{url}/{filename}", (), facts)
        )
    locked = LockedEnvironment("big", "node", "conda")
    environment = SnapshotEnvironment(locked, NODE, tuple(artifacts), digest_of(b"manifest"))
    blobs = {artifact.digest: 1 for artifact in artifacts}
    content = Snapshot(digest_of(b"id"), digest_of(b"lock"), (environment,), (), blobs)
    begin = time.process_time()
    view = view_of(content)
    took = time.process_time() - begin
    assert took < 2.5
    assert len(list(view.paths())) > 70_000


def test_an_index_is_the_same_for_zstd_and_for_current(tool: Package) -> None:
    """The three indexes of a subdir say one thing; the compressed one is read by the zstd library."""
    view = Channels(snapshot({"geo": [conda(tool)]})[0])
    pages = {n: view.get(f"conda.example.org/conda-forge/linux-64/{n}") for n in ("repodata.json", "repodata.json.zst", "current_repodata.json")}  # fmt: skip
    plain, packed, current = (page.data or b"" for page in pages.values() if page)
    assert plain == current == zstandard.ZstdDecompressor().decompress(packed)


def test_shards_are_cleanly_absent(tool: Package) -> None:
    """A client that asks for shards finds none, and asks for the whole then."""
    view = Channels(snapshot({"geo": [conda(tool)]})[0])
    assert view.get("conda.example.org/conda-forge/linux-64/repodata_shards.msgpack.zst") is None
    assert not [path for path in view.paths() if "shard" in path]


def test_bytes_depend_on_nothing_but_records(tool: Package, old: Package) -> None:
    """Other names and orders of environments give the same channel, byte for byte."""
    some = [conda(tool), conda(old)]
    one = Channels(snapshot({"a": some})[0])
    other = Channels(snapshot({"z": some[::-1], "b": some[:1]})[0])
    assert list(one.paths()) == list(other.paths())
    assert [one.get(path) for path in one.paths()] == [other.get(path) for path in other.paths()]


def test_a_hotfix_is_kept(tool: Package) -> None:
    """The channel shows the record of the lock, not what the package says of itself."""
    view = Channels(snapshot({"geo": [conda(tool, depends=[])]})[0])
    table = read(view, "conda.example.org/conda-forge/linux-64/repodata.json")["packages.conda"]
    assert table[tool.filename]["depends"] == []
    assert table[tool.filename]["timestamp"] == tool.record["timestamp"]
    assert tool.record["depends"] == ["ghost >=9"]


def test_a_hotfix_between_two_locks_is_decided_the_same_way_everywhere(tool: Package) -> None:
    """Of two records of one file one is shown, whichever environment comes first; it is no fault."""
    before, after = conda(tool), conda(tool, depends=[], indexed_timestamp=1_800_000_000_000)
    for order in ({"a": [before], "b": [after]}, {"a": [after], "b": [before]}):
        view = Channels(snapshot(order)[0])
        table = read(view, "conda.example.org/conda-forge/linux-64/repodata.json")["packages.conda"]
        assert table[tool.filename]["depends"] == []
        assert view.findings() == []


def test_two_files_of_one_name_are_decided_and_told(tmp_path: Path, tool: Package) -> None:
    """The newer of two files that a channel had under one name is shown, and a finding names both."""
    newer = make_conda(tmp_path / "again", "tool", "1.0", timestamp=1_800_000_000_000)
    for order in ({"a": [conda(tool)], "b": [conda(newer)]}, {"a": [conda(newer)], "b": [conda(tool)]}):
        view = Channels(snapshot(order)[0])
        page = view.get(f"conda.example.org/conda-forge/linux-64/{tool.filename}")
        assert page is not None
        assert page.blob == conda(newer).digest
        (finding,) = view.findings()
        assert (finding.code, finding.blocking) == ("name-clash", False)
        assert conda(tool).digest in finding.message


def test_one_file_of_two_channels_is_in_both(tool: Package) -> None:
    """Each channel shows what came from it, though the blob is one."""
    other = "https://mirror.example.org/base/forge"
    view = Channels(snapshot({"a": [conda(tool)], "b": [conda(tool, other)]})[0])
    found = [path for path in view.paths() if path.endswith(".conda")]
    assert found == [
        f"_merged/linux-64/{tool.filename}",
        f"conda.example.org/conda-forge/linux-64/{tool.filename}",
        f"mirror.example.org/base/forge/linux-64/{tool.filename}",
    ]


def test_all_channels_are_one_too(tmp_path: Path, tool: Package, old: Package) -> None:
    """The merged channel has the packages of all; of one name in two that of the first by URL, which is told."""
    other = make_conda(tmp_path / "other", "tool", "1.0", files={"bin/tool": b"other"})
    second = "http://a.example.org/main"
    content, _ = snapshot({"a": [conda(other, second)], "b": [conda(tool), conda(old, second)]})
    view = Channels(content)
    page = view.get(f"_merged/linux-64/{tool.filename}")
    assert page is not None
    assert page.blob == conda(tool).digest
    records = read(view, "_merged/linux-64/repodata.json")["packages.conda"]
    assert records[tool.filename]["sha256"] == tool.record["sha256"]
    assert set(read(view, "_merged/noarch/repodata.json")["packages"]) == {old.filename}
    (finding,) = view.findings()
    assert (finding.code, finding.blocking) == ("name-clash", False)
    assert finding.subject == f"_merged/linux-64: {tool.filename}"
    assert Channels(snapshot({})[0]).get("_merged/noarch/repodata.json") is None


def test_channels_that_were_folders_lie_apart(tool: Package, old: Package) -> None:
    """A folder is called by its last part; two of one name, and one host by two schemes, stay two."""
    urls = ["file:///srv/one/forge", "file:///srv/two/forge", "http://h.example/c", "https://h.example/c"]
    content, _ = snapshot({f"e{n}": [conda(tool, url)] for n, url in enumerate(urls)})
    folders = Channels(content).folders
    assert len({folder.casefold() for folder in folders.values()}) == 4
    assert folders["file:///srv/one/forge"] == "local/forge"
    assert folders["file:///srv/two/forge"].startswith("local/forge-")
    assert folders["https://h.example/c"] == "h.example/c"
    assert Channels(content).folders == folders


def test_no_channel_leads_out_of_its_view(tool: Package) -> None:
    """Dots, slashes and devices in a channel's URL become names; a host's port is part of its folder."""
    made = conda(tool)
    bad = [
        "https://h.example:8443/../..",
        "https://h.example/a%2F..%2Fb/con",
        "https://h.example//x",
        "file:///..",
    ]
    for url in bad:
        changed = replace(made, facts={**made.facts, "channel": url})
        view = Channels(snapshot({"a": [changed]})[0])
        for path in view.paths():
            parts = path.split("/")
            assert not {"", ".", ".."} & set(parts)
            assert "con" not in parts
    assert place_of("https://h.example:8443/a%20b/c") == ("h.example_8443", "a b", "c")
    wrong = replace(made, facts={**made.facts, "subdir": "../../etc"})
    view = Channels(snapshot({"a": [wrong]})[0])
    assert not [path for path in view.paths() if ".." in path]


def test_a_channel_costs_only_itself(tool: Package) -> None:
    """Pages of one channel are made without a look at the records of another."""
    made = conda(tool, "https://other.example/c")
    broken = replace(made, facts={**made.facts, "record": "none"})
    view = Channels(snapshot({"a": [conda(tool)], "b": [broken]})[0])
    assert read(view, "conda.example.org/conda-forge/linux-64/repodata.json")
    with pytest.raises(IntegrityError, match=r"tool-1\.0-0\.conda"):
        view.get("other.example/c/linux-64/repodata.json")


def test_files_lie_where_upstream_had_them(tmp_path: Path, tool: Package) -> None:
    """Wheels stand under host and path; local files and conda packages of a channel do not, others do."""
    path = make_wheel(tmp_path, "demo", "1.0")
    origin = f"https://files.example.org:8443/packages/a%2Bb/{path.name}"
    apart = replace(conda(tool), origin=f"https://cdn.example.org/x/{tool.filename}")
    content, _ = snapshot(
        {"a": [wheel(path, origin), apart], "b": [wheel(path, f"path:{path.name}"), conda(tool)]}
    )
    view = Upstream(content)
    assert list(view.paths()) == [
        f"cdn.example.org/x/{tool.filename}",
        f"files.example.org_8443/packages/a+b/{path.name}",
    ]
    page = view.get(f"files.example.org_8443/packages/a+b/{path.name}")
    assert page is not None
    assert (page.media_type, page.size) == ("application/zip", path.stat().st_size)


def test_two_files_of_one_url_are_decided_and_told(tmp_path: Path) -> None:
    """Where a URL gave two files at two times, one is shown in any order, and a finding says so."""
    one, two = (
        make_wheel(tmp_path / "1", "demo", "1.0"),
        make_wheel(tmp_path / "2", "demo", "1.0", modules={}),
    )
    first, second = (wheel(path, "https://h.example/demo.whl") for path in (one, two))
    shown = []
    for order in ({"a": [first], "b": [second]}, {"a": [second], "b": [first]}):
        view = Upstream(snapshot(order)[0])
        shown.append(view.get("h.example/demo.whl"))
        assert [finding.code for finding in view.findings()] == ["name-clash"]
    assert shown[0] == shown[1]


def test_views_go_together() -> None:
    """A union sorts by whole paths and asks only the view that a path belongs to."""

    class Words:
        def __init__(self, *words: str) -> None:
            self._words = words

        def paths(self) -> Any:
            return iter(self._words)

        def get(self, path: str) -> Page | None:
            return Page("text/plain", len(path), path.encode()) if path in self._words else None

        def findings(self) -> list[Any]:
            return []

    view = Union({"a-b": Words("x"), "a": Words("y", "z/x")})
    assert list(view.paths()) == ["a-b/x", "a/y", "a/z/x"]
    assert view.get("a/z/x") == Page("text/plain", 3, b"z/x")
    assert view.get("a/x") is view.get("b/x") is view.get("a") is None


# Exports


def stocked(store: Path, environments: Mapping[str, Sequence[Artifact]], *files: Path) -> Inside:
    """A store that holds a snapshot of some environments as current, made of the files."""
    content, metadata = snapshot(environments)
    inside = tiny.inside(store)
    with inside.store.exclusive():
        for data in (*metadata.values(), *(path.read_bytes() for path in files)):
            inside.store.add(digest_of(data), [data])
        held = holdings.read(inside.store)
        size = content.blobs[content.id]
        after, _ = holdings.added(held, "2026-11", content, size, "2026-11-20T21:00:00Z")
        inside.store.publish(holdings.write(after, content.id))
    return inside


def acts(inside: Inside) -> list[str]:
    """What the ledger says was done."""
    return [line.entry.act for line in inside.ledger.lines() if line.entry]


def tree(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def site(tmp_path: Path, tool: Package, old: Package) -> Inside:
    """A store with two environments that share a package, whose record has a hotfix."""
    fixed = conda(tool, depends=["data >=2"])
    return stocked(
        tmp_path / "store", {"a": [fixed, conda(old)], "b": [fixed, conda(old)]}, tool.path, old.path
    )


def test_an_export_is_the_views_as_files(tmp_path: Path, site: Inside, tool: Package) -> None:
    """Every page is a file, each package once and as a hard link to its blob; the ledger says it."""
    done = serve.export(tmp_path / "www", site)
    content = holdings.current_snapshot(site.store)[1]
    view = view_of(content)
    files = tree(tmp_path / "www")
    assert set(files) == {
        *view.paths(),
        *("haversack-export.json", "content-types.json"),
        *("nginx.conf", "nginx/http.conf", "nginx/server.conf"),
        *(f"clients/{name}" for name in render(Served(content, done.snapshot, BASE_URL))),
    }
    for path in view.paths():
        page = view.get(path)
        assert page is not None
        assert (digest_of(files[path]) == page.blob) if page.blob else (files[path] == page.data)
    assert (
        files["haversack-export.json"] == canonical({"haversack-export": "1.0", "snapshot": done.id}) + b"\n"
    )
    assert (done.files, done.size) == (len(files), sum(map(len, files.values())))
    place = tmp_path / "www/conda/conda.example.org/conda-forge/linux-64" / tool.filename
    assert place.samefile(site.store.path(conda(tool).digest))
    assert done.shared > 100
    merged = tmp_path / "www/conda/_merged/linux-64" / tool.filename
    assert merged.samefile(place)
    assert len([path for path in files if path.endswith(tool.filename)]) == 2
    assert acts(site) == ["export"]
    assert [path.name for path in tmp_path.iterdir() if "haversack" in path.name] == []


def test_two_stores_export_the_same_bytes(tmp_path: Path, site: Inside, tool: Package, old: Package) -> None:
    """The same snapshot gives the same files wherever it is exported."""
    fixed = conda(tool, depends=["data >=2"])
    other = stocked(
        tmp_path / "else", {"a": [fixed, conda(old)], "b": [fixed, conda(old)]}, old.path, tool.path
    )
    serve.export(tmp_path / "one", site)
    serve.export(tmp_path / "two", other)
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


def test_the_same_again_changes_nothing(tmp_path: Path, site: Inside) -> None:
    """An export that is there already stays as it is, to the inode; what was changed in it is put right."""
    serve.export(tmp_path / "www", site)
    before = tree(tmp_path / "www")
    inode = (tmp_path / "www").stat().st_ino
    assert not serve.export(tmp_path / "www", site).changed
    assert (tmp_path / "www").stat().st_ino == inode
    assert acts(site) == ["export"]
    page = tmp_path / "www/conda/conda.example.org/conda-forge/noarch/repodata.json"

    def move_away() -> None:
        page.rename(tmp_path / "moved")
        page.symlink_to(tmp_path / "moved")

    for spoil in (
        lambda: page.write_bytes(b"{}"),
        lambda: page.unlink(),
        lambda: page.with_name("extra").write_bytes(b""),
        lambda: page.with_name("extra").symlink_to("/"),
        move_away,
    ):
        spoil()
        assert serve.export(tmp_path / "www", site).changed
        assert tree(tmp_path / "www") == before
        assert not page.is_symlink()


def test_copies_share_nothing(tmp_path: Path, site: Inside, tool: Package) -> None:
    """Without links, and where not everybody may read a blob, the export has bytes of its own."""
    done = serve.export(tmp_path / "www", site, link=False)
    assert done.shared == 0
    path = f"conda/conda.example.org/conda-forge/linux-64/{tool.filename}"
    blob = site.store.path(conda(tool).digest)
    assert not (tmp_path / "www" / path).samefile(blob)
    blob.chmod(0o400)
    serve.export(tmp_path / "linked", site)
    assert not (tmp_path / "linked" / path).samefile(blob)
    assert (tmp_path / "linked" / path).stat().st_mode & 0o444 == 0o444 & ~_umask()
    assert tree(tmp_path / "linked") == tree(tmp_path / "www")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.parametrize("link", [True, False])
def test_a_damaged_blob_is_not_exported(tmp_path: Path, site: Inside, tool: Package, link: bool) -> None:
    """Other bytes, or fewer, under a blob's name are named, and the export of before stays as it was."""
    serve.export(tmp_path / "www", site, link=False)
    before = tree(tmp_path / "www")
    blob = site.store.path(conda(tool).digest)
    blob.chmod(0o644)
    for spoilt in (tool.path.read_bytes()[:-100], tool.path.read_bytes()[:-1] + b"x"):
        blob.write_bytes(spoilt)
        with pytest.raises(StoreError, match="nothing was exported") as caught:
            serve.export(tmp_path / "www", site, link=link)
        assert [f.code for f in caught.value.findings] == ["store-damaged"]
        assert tool.filename in caught.value.findings[0].subject
    blob.unlink()
    with pytest.raises(StoreError) as caught:
        serve.export(tmp_path / "www", site, link=link)
    assert [f.code for f in caught.value.findings] == ["store-incomplete"]
    assert tree(tmp_path / "www") == before
    assert acts(site) == ["export"]
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".www")] == []


def test_an_export_touches_only_exports(tmp_path: Path, site: Inside) -> None:
    """A folder with anything else in it, a file, a link, and a folder that holds the store are refused."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("years of work")
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "mine")
    for name in ("mine", "file", "link", "store", "."):
        with pytest.raises(PrefixError) as caught:
            serve.export(tmp_path / name, site)
        assert caught.value.remedy
    assert tree(tmp_path / "mine") == {"thesis.txt": b"years of work"}
    # Nor does the marker of an export help a folder that holds the store.
    serve.export(tmp_path / "www", site)
    (tmp_path / "haversack-export.json").write_bytes((tmp_path / "www/haversack-export.json").read_bytes())
    with pytest.raises(PrefixError, match="holds the store"):
        serve.export(tmp_path, site)
    (tmp_path / "empty").mkdir()
    assert serve.export(tmp_path / "empty", site).changed


def test_leftovers_of_a_killed_export_go(tmp_path: Path, site: Inside) -> None:
    """What a killed export left is removed by the next; what only has such a name is not."""
    node = os.uname().nodename
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left, kept = (tmp_path / f".www.haversack-{node}-{pid}" for pid in (ended.pid, 1))
    for folder in (left, kept):
        folder.mkdir()
        (folder / "haversack-export.json").write_text('{"haversack-export": "1.0"}')
    mine = tmp_path / f".www.haversack-{node}-{ended.pid}0000"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    serve.export(tmp_path / "www", site)
    assert not left.exists()
    assert kept.exists()
    assert mine.exists()


def test_a_dry_run_writes_nothing(tmp_path: Path, site: Inside) -> None:
    """It tells what would be written, and refuses what would be refused."""
    told = serve.export(tmp_path / "deep/www", site, dry_run=True)
    assert not (tmp_path / "deep").exists()
    done = serve.export(tmp_path / "deep/www", site)
    assert (told.files, told.size, told.id) == (done.files, done.size, done.id)
    (tmp_path / "file").write_text("")
    with pytest.raises(PrefixError):
        serve.export(tmp_path / "file", site, dry_run=True)


def test_a_path_cannot_be_a_file_and_a_folder(tmp_path: Path) -> None:
    """Origins that contradict each other on a file system are refused by name, and nothing is written."""
    path = make_wheel(tmp_path, "demo", "1.0")
    some = [
        wheel(path, "https://h.example/a"),
        replace(wheel(path, "https://h.example/a/b"), filename="b.whl"),
    ]
    inside = stocked(tmp_path / "store", {"a": some}, path)
    with pytest.raises(IntegrityError) as caught:
        serve.export(tmp_path / "www", inside)
    assert [f.subject for f in caught.value.findings] == ["upstream/h.example/a"]
    assert not (tmp_path / "www").exists()


@pytest.mark.parametrize(
    "url", ["http://me:hunter2@h.example/", "http://h.example/?key=hunter2", "h.example"]
)
def test_no_secret_goes_into_a_configuration(tmp_path: Path, site: Inside, url: str) -> None:
    """A base URL with more than a host and a path is refused, and not repeated."""
    with pytest.raises(UsageError) as caught:
        serve.export(tmp_path / "www", site, base_url=url)
    assert "hunter2" not in str(caught.value)


# What the specification shows

EXAMPLES = Path(__file__).parents[1] / "docs" / "spec" / "examples"


def documented() -> dict[str, bytes]:
    """The files that docs/spec/views.md shows, of a channel with one package, by name."""
    record = {
        "build": "py313h1234567_0",
        "build_number": 0,
        "depends": ["python >=3.13,<3.14.0a0"],
        "license": "BSD-3-Clause",
        "md5": "5e" * 16,
        "name": "tiles",
        "sha256": "3b" * 32,
        "size": 71_204,
        "subdir": "linux-64",
        "timestamp": 1_763_700_000_000,
        "version": "2.1",
        "channel": FORGE,
        "url": f"{FORGE}/linux-64/tiles-2.1-py313h1234567_0.conda",
    }
    made = repodata.artifact_of(record, "geo/node")
    assert isinstance(made, Artifact)
    content, _ = snapshot({"geo": [made]})
    page = Channels(content).get("conda.example.org/conda-forge/linux-64/repodata.json")
    assert page is not None
    assert page.data is not None
    marker = {"haversack-export": "1.0", "snapshot": content.id}
    return {
        "repodata.json": page.data,
        "haversack-export.json": canonical(marker) + b"\n",
    }


@pytest.mark.parametrize("name", documented())
def test_the_specification_shows_real_output(name: str) -> None:
    """The examples of docs/spec/views.md are what the code writes, byte for byte."""
    assert (EXAMPLES / name).read_bytes() == documented()[name]


# Readers


def told(*words: str | Path, env: Mapping[str, str | Path] | None = None) -> Any:
    """The JSON that a Python program of its own prints."""
    extra = {name: str(value) for name, value in (env or {}).items()}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", *map(str, words)],
        env={**os.environ, **extra},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


async def solved(channel: str, gateway: Gateway) -> list[RepoDataRecord]:
    """What rattler solves ``tool`` to for a Linux machine."""
    return await solve([Channel(channel)], ["tool"], gateway=gateway, platforms=["linux-64", "noarch"])


async def installed(records: list[RepoDataRecord], client: Client, folder: Path) -> None:
    """Let rattler install records at ``folder/prefix``, with a cache of its own."""
    await install(
        records,
        target_prefix=folder / "prefix",
        cache_dir=folder / "packages",
        platform=Subdir("linux-64"),
        client=client,
        config=Config.from_toml("allow-hard-links = false"),
        show_progress=False,
    )


def test_rattler_solves_from_the_folder(tmp_path: Path, site: Inside) -> None:
    """With a file URL the hotfixed record is solved, not the one in the package."""
    serve.export(tmp_path / "www", site)
    channel = (tmp_path / "www/conda/conda.example.org/conda-forge").as_uri()
    records = asyncio.run(solved(channel, Gateway(cache_dir=tmp_path / "cache")))
    assert sorted(record.file_name for record in records) == ["data-2.0-0.tar.bz2", "tool-1.0-0.conda"]


def test_rattler_solves_and_installs_from_all_channels_as_one(
    tmp_path: Path, tool: Package, old: Package
) -> None:
    """A client that knows the merged channel alone finds packages of two channels there, indexes and files."""
    environments = {"a": [conda(tool, depends=["data >=2"]), conda(old, "https://other.example.org/main")]}
    inside = stocked(tmp_path / "store", environments, tool.path, old.path)
    with ChannelServer(tmp_path / "www") as server:
        serve.export(tmp_path / "www", inside, base_url=server.url)

        async def go() -> None:
            client = Client()
            records = await solved(
                f"{server.url}conda/_merged", Gateway(cache_dir=tmp_path / "cache", client=client)
            )
            await installed(records, client, tmp_path)

        asyncio.run(go())
    assert (tmp_path / "prefix/bin/tool").read_bytes() == b"#!/bin/sh\n"
    assert (tmp_path / "prefix/conda-meta/data-2.0-0.json").exists()


def test_rattler_installs_from_the_served_folder_by_canonical_names(tmp_path: Path, site: Inside) -> None:
    """With the mirrors of our configuration a client never learns that upstream is not there.

    This is how pixi's ``[mirrors]`` works: the URLs in a lock, and in the prefix, stay upstream's.
    """
    with ChannelServer(tmp_path / "www") as server:
        serve.export(tmp_path / "www", site, base_url=server.url)
        mirrors = tomllib.loads((tmp_path / "www/clients/pixi-config.toml").read_text())["mirrors"]
        assert mirrors[FORGE] == [f"{server.url}conda/conda.example.org/conda-forge"]

        async def go() -> None:
            client = Client([MirrorMiddleware(mirrors)])
            records = await solved(FORGE, Gateway(cache_dir=tmp_path / "cache", client=client))
            await installed(records, client, tmp_path)

        asyncio.run(go())
        assert server.asked("repodata.json.zst")
        assert server.asked("tool-1.0-0.conda")
    assert (tmp_path / "prefix/bin/tool").read_bytes() == b"#!/bin/sh\n"
    meta = json.loads((tmp_path / "prefix/conda-meta/tool-1.0-0.json").read_text())
    assert meta["url"] == f"{FORGE}/linux-64/tool-1.0-0.conda"
    assert meta["depends"] == ["data >=2"]


def test_a_pixi_lock_installs_without_a_byte_changed(tmp_path: Path, site: Inside, tool: Package) -> None:
    """The records of a ``pixi.lock`` that names upstream alone are fetched from the export, hashes checked."""
    url = f"{FORGE}/linux-64/{tool.filename}"
    (tmp_path / "pixi.lock").write_text(
        f"version: 6\nenvironments:\n  default:\n    channels:\n    - url: {FORGE}/\n"
        f"    packages:\n      linux-64:\n      - conda: {url}\n"
        f"packages:\n- conda: {url}\n  sha256: {tool.record['sha256']}\n  md5: {tool.record['md5']}\n"
        f"  depends: []\n  size: {tool.record['size']}\n"
    )
    environment = LockFile.from_path(tmp_path / "pixi.lock").default_environment()
    assert environment is not None
    (platform,) = environment.platforms()
    records = environment.conda_repodata_records_for_platform(platform)
    assert records is not None
    assert [record.url for record in records] == [url]
    with ChannelServer(tmp_path / "www") as server:
        serve.export(tmp_path / "www", site, base_url=server.url)
        mirrors = tomllib.loads((tmp_path / "www/clients/pixi-config.toml").read_text())["mirrors"]
        asyncio.run(installed(records, Client([MirrorMiddleware(mirrors)]), tmp_path))
        assert len(server.asked(tool.filename)) == 1
    assert (tmp_path / "prefix/bin/tool").is_file()


# conda itself is not on PyPI; conda-lock brings a copy of it.
_CONDA = """
import json
from conda_lock._vendor.conda.base.context import reset_context
import os, sys
reset_context([os.environ["CONDARC"]])
from conda_lock._vendor.conda.core.subdir_data import SubdirData
found = SubdirData.query_all("*", channels=sys.argv[1:], subdirs=["linux-64", "noarch"])
print(json.dumps([[r.fn, r.url, r.sha256, list(r.depends)] for r in found]))
"""


def test_conda_reads_the_channel_by_its_old_name(tmp_path: Path, site: Inside) -> None:
    """With our condarc ``-c conda-forge`` means the export, over http and from the folder alike."""
    with ChannelServer(tmp_path / "www") as server:
        for base in (server.url.rstrip("/"), (tmp_path / "www").as_uri()):
            serve.export(tmp_path / "www", site, base_url=base)
            env: dict[str, str | Path] = {
                "CONDARC": tmp_path / "www/clients/condarc",
                "CONDA_PKGS_DIRS": tmp_path / "pkgs",
                "HOME": tmp_path,
                "no_proxy": "127.0.0.1",
            }
            found = told(_CONDA, "conda-forge", env=env)
            assert sorted(row[0] for row in found) == ["data-2.0-0.tar.bz2", "tool-1.0-0.conda"]
            assert all(row[1].startswith(f"{base}/conda/conda.example.org/conda-forge/") for row in found)
            assert ["data >=2"] in [row[3] for row in found]


_INDEX = """
import json, sys
import conda_lock._vendor.conda as conda
sys.modules["conda"] = conda
from conda_index.index import ChannelIndex
from pathlib import Path
ChannelIndex(sys.argv[1], "c", threads=1, write_bz2=False, update_only=False).index(patch_generator=None)
print(json.dumps({s: json.loads((Path(sys.argv[1]) / s / "repodata.json").read_text()) for s in ("linux-64", "noarch")}))
"""


def test_conda_index_says_the_same_but_for_hotfixes(tmp_path: Path, site: Inside) -> None:
    """Indexing our channel anew brings back the dependency that the channel had taken out, and nothing else."""
    serve.export(tmp_path / "www", site, link=False)
    channel = tmp_path / "www/conda/conda.example.org/conda-forge"
    ours = {s: json.loads((channel / s / "repodata.json").read_bytes()) for s in ("linux-64", "noarch")}
    theirs = told(_INDEX, channel, env={"HOME": tmp_path})
    for subdir, group, name in (
        ("linux-64", "packages.conda", "tool-1.0-0.conda"),
        ("noarch", "packages", "data-2.0-0.tar.bz2"),
    ):
        assert set(theirs[subdir][group]) == set(ours[subdir][group]) == {name}
        mine, other = ours[subdir][group][name], theirs[subdir][group][name]
        differing = {key for key in mine if mine[key] != other.get(key)}
        assert differing == ({"depends"} if subdir == "linux-64" else set())
    assert theirs["linux-64"]["packages.conda"]["tool-1.0-0.conda"]["depends"] == ["ghost >=9"]


_RATTLER_INDEX = """
import asyncio, sys
from rattler.index import index_fs
asyncio.run(index_fs(sys.argv[1]))
print("fine")
"""


def test_a_truncated_package_spoils_no_index(tmp_path: Path, tool: Package) -> None:
    """Rattler's own indexing gives up at a package that is cut off; ours does not read packages at all."""
    artifact = conda(tool)
    cut = tool.path.read_bytes()[:200]
    tool.path.write_bytes(cut)
    for subdir in ("linux-64", "noarch"):
        (tool.path.parents[1] / subdir).mkdir(exist_ok=True)
    # In a process of its own: what is left of rattler after a panic can take its process down with it.
    words = [sys.executable, "-c", _RATTLER_INDEX, str(tool.path.parents[1])]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode
    assert "fine" not in done.stdout
    view = Channels(snapshot({"geo": [artifact]})[0])
    assert (
        tool.filename in read(view, "conda.example.org/conda-forge/linux-64/repodata.json")["packages.conda"]
    )


def test_a_uv_lock_works_with_the_host_replaced(tmp_path: Path) -> None:
    """uv syncs from a lock in which only what stands before the host was replaced, hashes and all."""
    path = make_wheel(tmp_path, "demo", "1.0")
    origin = f"https://files.example.org/packages/ab/cd/{path.name}"
    inside = stocked(tmp_path / "store", {"a": [wheel(path, origin)]}, path)
    serve.export(tmp_path / "www", inside)
    project = tmp_path / "project"
    project.mkdir()
    (project / "pyproject.toml").write_text(
        '[project]\nname = "app"\nversion = "1"\nrequires-python = ">=3.11"\ndependencies = ["demo"]\n'
    )
    lock = (
        'version = 1\nrevision = 3\nrequires-python = ">=3.11"\n'
        '[[package]]\nname = "app"\nversion = "1"\nsource = { virtual = "." }\ndependencies = [{ name = "demo" }]\n'
        '[package.metadata]\nrequires-dist = [{ name = "demo" }]\n'
        '[[package]]\nname = "demo"\nversion = "1.0"\nsource = { registry = "https://index.example.org/simple" }\n'
        f'wheels = [{{ url = "{origin}", hash = "sha256:{hex_of(digest_of(path.read_bytes()))}" }}]\n'
    )
    with ChannelServer(tmp_path / "www") as server:
        (project / "uv.lock").write_text(lock.replace("https://files", f"{server.url}upstream/files"))
        done = subprocess.run(
            ["uv", "sync", "--frozen", "--no-config", "--python", sys.executable, "--cache-dir", tmp_path / "uv"],
            cwd=project,
            env={"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(tmp_path), "no_proxy": "127.0.0.1"},
            capture_output=True,
            text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert server.asked(f"upstream/files.example.org/packages/ab/cd/{path.name}")
    assert list((project / ".venv").rglob("demo/__init__.py"))
