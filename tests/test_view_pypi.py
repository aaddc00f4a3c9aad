"""Wheels as a package index: what its pages say, and what pip and uv of several ages make of them."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit
from zipfile import ZipFile

import pytest

from haversack.errors import IntegrityError, NotFoundError
from haversack.formats import oci, uv
from haversack.model.artifact import Artifact, digest_of, hex_of
from haversack.model.lock import LockedEnvironment
from haversack.ports.disk import DiskStore
from haversack.verbs import holdings
from haversack.verbs.pages import body
from haversack.views import View, view_of
from haversack.views.pypi import Index
from tests.support.site import Lab
from tests.support.viewing import ViewServer, stocked, wheel_of
from tests.support.wheels import make_wheel

LAB = LockedEnvironment("lab", "node", "pip")
OTHER = LockedEnvironment("other", "node", "conda")


@dataclass(frozen=True)
class Shelf:
    """A view of some wheels, the store they are in, and the wheels by file name."""

    view: View
    store: DiskStore
    wheels: Mapping[str, Path]


def shelf(folder: Path, wheels: Mapping[Path, Mapping[str, Any]]) -> Shelf:
    """A site of one environment with these wheels and what their index told of each."""
    artifacts = [wheel_of(path, **facts) for path, facts in wheels.items()]
    content, store = stocked(folder / "store", [LAB], artifacts, [path.read_bytes() for path in wheels])
    return Shelf(view_of(content), store, {path.name: path for path in wheels})


@pytest.fixture
def site(tmp_path: Path) -> Shelf:
    """Two versions of ``demo``, the first yanked and the second with a dependency, and one with an odd name."""
    made = tmp_path / "made"
    return shelf(
        tmp_path,
        {
            make_wheel(made, "demo", "1.0"): {
                "upload_time": "2020-01-01T00:00:00Z",
                "yanked": 'is "broken" & old',
            },
            make_wheel(made, "demo", "1.5", requires_python=">=3.8"): {"upload_time": "2021-01-01T00:00:00Z"},
            make_wheel(made, "demo", "2.0", requires=["My.Pkg>=1"]): {"upload_time": "2024-05-01T00:00:00Z"},
            make_wheel(made, "My.Pkg", "1.0+local.1"): {"upload_time": "2020-06-01T00:00:00Z"},
        },
    )


@pytest.fixture
def server(site: Shelf) -> Iterator[ViewServer]:
    """The site on loopback."""
    with ViewServer(site.view, site.store) as running:
        yield running


class Links(HTMLParser):
    """Every link of a page with its attributes, and the page's ``meta`` by name."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.links: list[dict[str, str | None]] = []
        self.meta: dict[str | None, str | None] = {}
        self.feed(page.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Remember what matters."""
        found = dict(attrs)
        if tag == "a":
            self.links.append(found)
        if tag == "meta" and "name" in found:
            self.meta[found["name"]] = found["content"]


def data(view: View, path: str) -> bytes:
    """The bytes of a page that holds them."""
    page = view.get(path)
    assert page is not None, path
    assert page.data is not None
    assert page.size == len(page.data)
    return page.data


def environ(folder: Path, **more: str) -> dict[str, str]:
    """An environment that steers neither pip nor uv."""
    home = {"HOME": str(folder), "PIP_CONFIG_FILE": os.devnull, "UV_CACHE_DIR": str(folder / "uv")}
    return {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", **home, **more}


def ran(*words: str | Path, folder: Path, fails: bool = False, **more: str) -> str:
    """What a program says on both channels; it must (not) succeed."""
    done = subprocess.run(
        [*map(str, words)], env=environ(folder, **more), cwd=folder, capture_output=True, text=True
    )
    assert (done.returncode != 0) == fails, done.stdout + done.stderr
    return done.stdout + done.stderr


# The pages


def test_both_forms_of_a_page_say_the_same(site: Shelf) -> None:
    """HTML and JSON name the same files with hashes, pythons, metadata, yanks and times, each as its standard says."""
    base = "http://h.example/pypi/simple/demo/"
    page = json.loads(data(site.view, "pypi/simple/demo/index.v1_json"))
    assert (page["meta"], page["name"]) == ({"api-version": "1.1"}, "demo")
    assert page["versions"] == ["1.0", "1.5", "2.0"]
    links = Links(data(site.view, "pypi/simple/demo/index.html"))
    assert links.meta == {"pypi:repository-version": "1.1"}
    assert len(links.links) == len(page["files"]) == 3
    for link, file in zip(links.links, page["files"], strict=True):
        path = site.wheels[file["filename"]]
        digits = hashlib.sha256(path.read_bytes()).hexdigest()
        url = urljoin(base, file["url"])
        assert urlsplit(url).path == f"/pypi/files/{digits[:2]}/{digits}/{path.name}"
        assert urljoin(base, link["href"]) == f"{url}#sha256={digits}"
        assert (file["hashes"], file["size"]) == ({"sha256": digits}, path.stat().st_size)
        assert file.get("requires-python") == link.get("data-requires-python")
        with ZipFile(path) as archive:
            metadata = archive.read(next(n for n in archive.namelist() if n.endswith("/METADATA")))
        told = hashlib.sha256(metadata).hexdigest()
        # PEP 714: pip 22.3 to 23.1 end with an error on JSON that has the old name.
        assert (file["core-metadata"], "dist-info-metadata" in file) == ({"sha256": told}, False)
        assert link["data-core-metadata"] == link["data-dist-info-metadata"] == f"sha256={told}"
        assert file["upload-time"] == link["data-upload-time"]
        side = site.view.get(f"{urlsplit(url).path[1:]}.metadata")
        assert side is not None
        assert body(side, site.store) == metadata
    assert [file["yanked"] for file in page["files"]] == ['is "broken" & old', False, False]
    assert [link.get("data-yanked") for link in links.links] == ['is "broken" & old', None, None]


def test_the_root_names_every_project_once(site: Shelf) -> None:
    """Projects stand under their normalised names, in both forms."""
    page = json.loads(data(site.view, "pypi/simple/index.v1_json"))
    assert page == {"meta": {"api-version": "1.1"}, "projects": [{"name": "demo"}, {"name": "my-pkg"}]}
    links = Links(data(site.view, "pypi/simple/index.html"))
    assert [link["href"] for link in links.links] == ["demo/", "my-pkg/"]
    assert site.view.get("pypi/simple/My.Pkg/index.html") is None
    assert site.view.get("pypi/simple/index") is site.view.get("pypi/demo/index.html") is None


def test_a_file_in_two_environments_is_one_and_the_better_told_is_shown(tmp_path: Path) -> None:
    """Whichever environment comes first, the time that one of two indexes told is on the page."""
    path = make_wheel(tmp_path, "demo", "1.0")
    told = wheel_of(path, "other/node", "https://a.example/demo.whl", upload_time="2020-01-01T00:00:00Z")
    untold = wheel_of(path, "lab/node", "https://b.example/demo.whl")
    content, _ = stocked(tmp_path / "store", [LAB, OTHER], [told, untold], [])
    (file,) = json.loads(data(Index(content), "simple/demo/index.v1_json"))["files"]
    assert file["upload-time"] == "2020-01-01T00:00:00Z"
    assert Index(content).findings() == []


def test_two_builds_of_one_name_are_both_there_and_told(tmp_path: Path) -> None:
    """Two wheels of one file name keep their own bytes and hashes; a finding names both digests."""
    one = make_wheel(tmp_path / "1", "demo", "1.0")
    two = make_wheel(tmp_path / "2", "demo", "1.0", modules={"demo.py": "built = 'again'\n"})
    artifacts = [wheel_of(one, "lab/node"), wheel_of(two, "other/node")]
    blobs = [one.read_bytes(), two.read_bytes()]
    content, store = stocked(tmp_path / "store", [LAB, OTHER], artifacts, blobs)
    view = view_of(content)
    files = json.loads(data(view, "pypi/simple/demo/index.v1_json"))["files"]
    for file in files:
        page = view.get(urljoin("pypi/simple/demo/", file["url"]))
        assert page is not None
        assert hashlib.sha256(body(page, store)).hexdigest() == file["hashes"]["sha256"]
    assert {file["hashes"]["sha256"] for file in files} == {hex_of(digest_of(blob)) for blob in blobs}
    (finding,) = view.findings()
    assert (finding.code, finding.blocking) == ("name-clash", False)
    assert all(digest_of(blob) in finding.message for blob in blobs)
    with ViewServer(view, store) as server:
        for number, path in enumerate((one, two)):
            wish = tmp_path / f"wish{number}.txt"
            wish.write_text(f"demo==1.0 --hash={digest_of(path.read_bytes())}\n")
            index = ("--index-url", f"{server.url}pypi/simple/", "-r", wish)
            to = tmp_path / f"to{number}"
            ran(sys.executable, "-m", "pip", "download", "--no-cache-dir", "-d", to, *index, folder=tmp_path)
            assert next(to.iterdir()).read_bytes() == path.read_bytes()
            uv = (
                "uv",
                "pip",
                "install",
                "--no-config",
                "--no-cache",
                "--require-hashes",
                "--target",
                f"{to}u",
            )
            ran(*uv, "--python", sys.executable, *index, folder=tmp_path)


# The bytes


def test_metadata_is_what_was_read_or_nothing(tmp_path: Path, site: Shelf) -> None:
    """The metadata of a damaged, absent or other wheel is refused, never shown."""
    path = next(p for p in site.view.paths() if p.endswith(".metadata"))
    page = site.view.get(path)
    assert page is not None
    assert page.blob is not None
    file = site.store.path(page.blob)
    before = file.read_bytes()
    at = before.index(b"METADATA") + 30
    file.chmod(0o644)
    for changed in (
        before[:at] + b"\xff" + before[at + 1 :],
        before[:-30],
        b"",
        make_wheel(tmp_path, "x", "1").read_bytes(),
    ):
        file.write_bytes(changed)
        with pytest.raises(IntegrityError):
            body(page, site.store)
    file.unlink()
    with pytest.raises(NotFoundError):
        body(page, site.store)


# Clients


def test_pip_installs_by_metadata(tmp_path: Path, server: ViewServer) -> None:
    """Today's pip reads JSON, resolves from ``.metadata`` and checks hashes; a yanked version is not chosen."""
    index = ("--index-url", f"{server.url}pypi/simple/")
    pip = (sys.executable, "-m", "pip", "install", "--no-cache-dir", "--target")
    ran(*pip, tmp_path / "to", *index, "demo", folder=tmp_path)
    assert (tmp_path / "to/demo-2.0.dist-info").is_dir()
    assert list((tmp_path / "to").glob("[mM]y*dist-info"))
    assert len(server.asked(".whl.metadata")) == 2
    told = [r.headers["accept"] for r in server.requests if r.path == "/pypi/simple/demo/"]
    assert "application/vnd.pypi.simple.v1+json" in told[0]
    ran(*pip, tmp_path / "old", *index, "demo<1.5", folder=tmp_path, fails=True)
    warned = ran(*pip, tmp_path / "old", *index, "demo==1.0", folder=tmp_path)
    assert 'is "broken" & old' in warned


@pytest.fixture(scope="session")
def old_pip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pip 20.3.4, which is from before PEP 658 and PEP 691; skipped without a way to PyPI."""
    folder = tmp_path_factory.mktemp("old-pip")
    words = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--target",
        str(folder),
        "pip==20.3.4",
    ]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"PyPI cannot be reached: {done.stderr[-300:]}")
    return folder


@pytest.mark.network
def test_an_old_pip_installs_from_the_html(tmp_path: Path, server: ViewServer, old_pip: Path) -> None:
    """A pip that knows neither JSON nor metadata reads the HTML, checks hashes, and passes by what is yanked."""
    ran(
        *(
            sys.executable,
            "-W",
            "ignore",
            "-m",
            "pip",
            "install",
            "--no-cache-dir",
            "--target",
            tmp_path / "to",
        ),
        *("--index-url", f"{server.url}pypi/simple/", "demo"),
        folder=tmp_path,
        PYTHONPATH=str(old_pip),
    )
    assert (tmp_path / "to/demo-2.0.dist-info").is_dir()
    assert server.asked(".metadata") == []
    told = ran(
        *(sys.executable, "-W", "ignore", "-m", "pip", "--version"), folder=tmp_path, PYTHONPATH=str(old_pip)
    )
    assert told.startswith("pip 20.3.4")


def test_uv_installs_and_goes_by_upload_times(tmp_path: Path, server: ViewServer) -> None:
    """uv resolves from metadata without reading a wheel, and ``--exclude-newer`` works inside as outside."""
    uv = ("uv", "pip", "install", "--no-config", "--python", sys.executable, "--target")
    index = ("--default-index", f"{server.url}pypi/simple/")
    ran(*uv, tmp_path / "to", *index, "demo", folder=tmp_path)
    assert (tmp_path / "to/demo-2.0.dist-info").is_dir()
    ran(*uv, tmp_path / "then", *index, "--exclude-newer", "2023-01-01T00:00:00Z", "demo", folder=tmp_path)
    assert (tmp_path / "then/demo-1.5.dist-info").is_dir()
    words = ("uv", "pip", "compile", "--no-config", "--no-cache", "--python", sys.executable, "--quiet", "-")
    server.requests.clear()
    done = subprocess.run(
        [*words, "--format", "pylock.toml", *index],
        input="demo\n",
        env=environ(tmp_path),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "upload-time = 2024-05-01" in done.stdout
    assert len(server.asked(".metadata")) == 2
    assert [path for path in server.asked(".whl") if not path.endswith(".metadata")] == []


def test_a_html_page_alone_is_enough_for_a_static_server(tmp_path: Path, site: Shelf) -> None:
    """Where a server knows nothing of forms, uv and pip take the HTML, relative links, times and all."""

    class Plain(ViewServer):
        def answer(self, path: str, accept: str) -> tuple[str, bytes] | None:
            return super().answer(path, "")

    with Plain(site.view, site.store) as server:
        index = ("--default-index", f"{server.url}pypi/simple/")
        uv = ("uv", "pip", "install", "--no-config", "--python", sys.executable, "--target")
        ran(
            *uv, tmp_path / "then", *index, "--exclude-newer", "2023-01-01T00:00:00Z", "demo", folder=tmp_path
        )
        assert (tmp_path / "then/demo-1.5.dist-info").is_dir()
        pip = (sys.executable, "-m", "pip", "install", "--no-cache-dir", "--target", tmp_path / "to")
        ran(*pip, "--index-url", f"{server.url}pypi/simple/", "demo", folder=tmp_path)
        assert server.asked(".metadata")


UV_LOCK = """version = 1
revision = 3
requires-python = ">=3.11"

[[package]]
name = "app"
version = "1"
source = {{ virtual = "." }}
dependencies = [{{ name = "demo" }}]

[package.metadata]
requires-dist = [{{ name = "demo" }}]

[[package]]
name = "demo"
version = "1.0"
source = {{ registry = "https://index.example.org/simple" }}
wheels = [
    {{ url = "{url}", hash = "{hash}", size = {size} }},
]
"""


@pytest.fixture
def project(tmp_path: Path) -> tuple[Path, Shelf, Artifact]:
    """A project with a ``uv.lock`` that names only upstream, and the site that holds its wheel."""
    path = make_wheel(tmp_path / "made", "demo", "1.0")
    artifact = wheel_of(path, origin=f"https://files.example.org/packages/ab/{path.name}")
    content, store = stocked(tmp_path / "store", [LAB], [artifact], [path.read_bytes()])
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "pyproject.toml").write_text(
        '[project]\nname = "app"\nversion = "1"\nrequires-python = ">=3.11"\ndependencies = ["demo"]\n'
    )
    lock = UV_LOCK.format(url=artifact.origin, hash=artifact.digest, size=artifact.size)
    (folder / "uv.lock").write_text(lock)
    return folder, Shelf(view_of(content), store, {path.name: path}), artifact


def test_an_unmodified_uv_lock_installs_by_its_hashes(
    tmp_path: Path, project: tuple[Path, Shelf, Artifact]
) -> None:
    """``uv export --frozen`` and ``uv pip sync`` take a lock as it is to the mirror, and its hashes are kept to."""
    folder, site, artifact = project
    before = (folder / "uv.lock").read_bytes()
    words = (
        "uv",
        "export",
        "--frozen",
        "--offline",
        "--no-config",
        "--no-emit-project",
        "--python",
        sys.executable,
    )
    with ViewServer(site.view, site.store) as server:
        index = ("--default-index", f"{server.url}pypi/simple/", "--no-config")
        ran(
            "uv",
            "venv",
            "--no-config",
            "--offline",
            "--python",
            sys.executable,
            folder / ".venv",
            folder=folder,
        )
        ran(*words, "-q", "-o", tmp_path / "locked.txt", folder=folder)
        sync = ("uv", "pip", "sync", "--require-hashes", "--python", folder / ".venv/bin/python", *index)
        ran(*sync, tmp_path / "locked.txt", folder=folder)
        assert list((folder / ".venv").rglob("demo/__init__.py"))
        wrong = (tmp_path / "locked.txt").read_text().replace(artifact.digest[-4:], "0000")
        (tmp_path / "wrong.txt").write_text(wrong)
        ran(*sync, "--reinstall", "--no-cache", tmp_path / "wrong.txt", folder=folder, fails=True)
    assert (folder / "uv.lock").read_bytes() == before


def test_uv_syncs_a_frozen_lock_with_one_prefix_before_every_url(
    tmp_path: Path, project: tuple[Path, Shelf, Artifact]
) -> None:
    """``sed s,https://,MIRROR/upstream/,`` over the whole lock is the rule, and hashes stay those of the lock."""
    folder, site, artifact = project
    with ViewServer(site.view, site.store) as server:
        lock = (folder / "uv.lock").read_text()
        (folder / "uv.lock").write_text(lock.replace("https://", f"{server.url}upstream/"))
        ran("uv", "sync", "--frozen", "--no-config", "--python", sys.executable, folder=folder)
        assert server.asked() == [f"/upstream/{artifact.origin.removeprefix('https://')}"] * len(
            server.asked()
        )
        assert list((folder / ".venv").rglob("demo/__init__.py"))
        (folder / "uv.lock").write_text(
            (folder / "uv.lock").read_text().replace(artifact.digest[-4:], "0000")
        )
        words = (
            "uv",
            "sync",
            "--frozen",
            "--no-config",
            "--reinstall",
            "--no-cache",
            "--python",
            sys.executable,
        )
        assert "ash mismatch" in ran(*words, folder=folder, fails=True)


# From the index outside to the view inside


def test_what_an_index_tells_of_a_file_reaches_the_inside(tmp_path: Path) -> None:
    """Upload times and yanks stand in the lock, and on the pages of a site that received it."""
    with Lab(tmp_path / "lab") as lab:
        path = make_wheel(lab.wheels, "demo", "1.0")
        other = make_wheel(lab.wheels, "plain", "1.0")
        lab.index.upload_times[path.name] = "2020-01-02T03:04:05Z"
        lab.declare("demo==1.0", "plain")
        whole = lab.index.answer

        def answer(url: str, accept: str) -> tuple[str, bytes] | None:
            found = whole(url, accept)
            if found and url == "/simple/demo/":
                return found[0], found[1].replace(b"<a ", b'<a data-yanked="lost &amp; `found`" ')
            return found

        lab.index.answer = answer  # type: ignore[method-assign,assignment]
        lab.told("lock")
        lock = json.loads((lab.root / "haversack.lock").read_text())
        facts = {a["filename"]: a.get("facts", {}) for a in lock["artifacts"]}
        told = {"upload_time": "2020-01-02T03:04:05Z", "yanked": "lost & `found`"}
        assert (facts[path.name], facts[other.name]) == (told, {})
        packed = lab.told("pack", "-o", lab.folder / "out", "--no-rehearse")
        store = DiskStore(lab.store)
        view = view_of(holdings.load(store, packed["snapshot"]))
        (file,) = json.loads(data(view, "pypi/simple/demo/index.v1_json"))["files"]
        assert (file["upload-time"], file["yanked"]) == tuple(told.values())
        projects = json.loads(data(view, "pypi/simple/index.v1_json"))["projects"]
        assert {"name": "haversack"} in projects


def test_warnings_of_yanked_packages_are_read() -> None:
    """With a reason, without one, and among other words; what only looks alike is none."""
    said = (
        'Resolved 3 packages in 2ms\nwarning: `a-b==1.0+cu1` is yanked (reason: "x (y) \\"z\\"")\n'
        "warning: `c==2` is yanked\nwarning: `d` is deprecated\n  warning: `e==1` is yanked\n"
    )
    assert uv.yanked(said) == {("a-b", "1.0+cu1"): 'x (y) \\"z\\"', ("c", "2"): ""}


EXAMPLES = Path(__file__).parents[1] / "docs" / "spec" / "examples"
SHOWN = {
    "simple-page.html": "pypi/simple/scoring-model/index.html",
    "simple-page.json": "pypi/simple/scoring-model/index.v1_json",
    "tags-list.json": "v2/haversack/snapshot/tags/list",
}


@pytest.mark.parametrize("name", SHOWN)
def test_the_specification_shows_real_pages(name: str) -> None:
    """The pages in docs/spec/views.md are those of the snapshot of the examples, byte for byte."""
    blobs = {digest_of(path.read_bytes()): path.read_bytes() for path in EXAMPLES.iterdir()}
    blobs[digest_of(b"{}")] = b"{}"
    snapshot = oci.read(digest_of((EXAMPLES / "snapshot.json").read_bytes()), lambda digest: blobs[digest])
    assert data(view_of(snapshot), SHOWN[name]) == (EXAMPLES / name).read_bytes()
