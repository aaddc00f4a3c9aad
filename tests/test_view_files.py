"""Declared files by name, with their check sums, as curl and sha256sum take them."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from haversack.model.artifact import Artifact, digest_of, hex_of
from haversack.model.lock import LockedEnvironment
from haversack.model.snapshot import Snapshot
from haversack.ports.disk import DiskStore
from haversack.views import view_of
from haversack.views.files import Files
from tests.support.live import Live
from tests.support.mirror import BASE, SERVERS, Airgap, Crossed
from tests.support.viewing import ViewServer, stocked

FILES = LockedEnvironment("files", "any", "file")
PIXI = LockedEnvironment("geo", "node", "pixi")


def artifact(name: str, data: bytes, ref: str = "files/any") -> Artifact:
    """A declared file."""
    return Artifact("file", name, "", name, digest_of(data), len(data), f"path:{name}", (ref,))


def site(folder: Path, **files: bytes) -> tuple[Snapshot, DiskStore]:
    """A site of these files (``_`` is a dot), and one that belongs to a project."""
    named = {name.replace("_", "."): data for name, data in files.items()}
    own = [artifact(name, data) for name, data in named.items()]
    other = artifact("pixi.toml", b"[project]\n", "geo/node")
    return stocked(folder / "store", [FILES, PIXI], [*own, other], [*named.values(), b"[project]\n"])


def test_every_declared_file_has_its_sum_beside(tmp_path: Path) -> None:
    """Files lie under their names; sums are of one, and of all; a project's own files are not here."""
    content, _ = site(tmp_path, b_deb=b"two", a_vsix=b"one")
    view = Files(content)
    assert list(view.paths()) == ["SHA256SUMS", "a.vsix", "a.vsix.sha256", "b.deb", "b.deb.sha256"]
    page, sums, every = view.get("a.vsix"), view.get("a.vsix.sha256"), view.get("SHA256SUMS")
    assert page is not None
    assert sums is not None
    assert every is not None
    one, two = (
        f"{hex_of(digest_of(data))}  {name}\n" for name, data in (("a.vsix", b"one"), ("b.deb", b"two"))
    )
    assert (page.blob, page.size) == (digest_of(b"one"), 3)
    assert (sums.data, every.data) == (one.encode(), (one + two).encode())
    assert view.get("pixi.toml") is view.get("pixi.toml.sha256") is view.get("x") is None


def test_a_site_without_files_has_no_sums(tmp_path: Path) -> None:
    """No page says that there is nothing."""
    view = Files(site(tmp_path)[0])
    assert list(view.paths()) == []
    assert view.get("SHA256SUMS") is None


def test_a_file_called_like_a_sum_is_shown_itself(tmp_path: Path) -> None:
    """What a site declares wins over what is made of it, and each path is there once."""
    view = Files(site(tmp_path, a_deb=b"one", a_deb_sha256=b"mine", SHA256SUMS=b"too")[0])
    assert list(view.paths()) == [
        "SHA256SUMS",
        "SHA256SUMS.sha256",
        "a.deb",
        "a.deb.sha256",
        "a.deb.sha256.sha256",
    ]
    for path, data in (("a.deb.sha256", b"mine"), ("SHA256SUMS", b"too")):
        page = view.get(path)
        assert page is not None
        assert page.blob == digest_of(data)


def test_curl_takes_files_and_ranges_and_sha256sum_agrees(tmp_path: Path) -> None:
    """A file with spaces and letters beyond ASCII is fetched, continued, and checked against the sums."""
    name, data = "Größe 1+2%.bin", bytes(range(256)) * 100
    content, store = stocked(tmp_path / "store", [FILES], [artifact(name, data)], [data])
    with ViewServer(view_of(content), store) as server:
        curl = ("curl", "-sSf", "--noproxy", "*")
        url = f"{server.url}files/Gr%C3%B6%C3%9Fe%201%2B2%25.bin"
        begun = tmp_path / name
        begun.write_bytes(data[:1000])
        subprocess.run([*curl, "-C", "-", "-o", begun, url], check=True)
        last = subprocess.run([*curl, "-r", "-5", url], check=True, capture_output=True)
        subprocess.run([*curl, "-o", tmp_path / "SHA256SUMS", f"{server.url}files/SHA256SUMS"], check=True)
        subprocess.run([*curl, "-o", tmp_path / "one", f"{url}.sha256"], check=True)
    assert begun.read_bytes() == data
    assert last.stdout == data[-5:]
    for sums in ("SHA256SUMS", "one"):
        done = subprocess.run(["sha256sum", "-c", "--strict", sums], cwd=tmp_path, capture_output=True)
        assert done.returncode == 0


@pytest.mark.parametrize("server", SERVERS)
def test_a_file_called_index_html_hides_no_list(tmp_path: Path, server: str) -> None:
    """The folder is the list of its files; the file is there under its own name, and no browser runs it."""
    page = b"<script>alert(1)</script>"
    site(tmp_path, index_html=page, b_deb=b"two")
    with Airgap() as gap, SERVERS[server](Crossed(tmp_path, tmp_path / "store", "", "", {}), gap):
        for start in (BASE, f"{BASE}/@2026-11"):
            listed = gap("curl", "-sfi", f"{start}/files/").stdout
            assert 'href="b.deb"' in listed
            assert 'href="index.html"' in listed
            assert "alert" not in listed
            head, _, body = gap("curl", "-sfi", f"{start}/files/index.html").stdout.partition("\n\n")
            assert body == page.decode()
            assert "content-type: application/octet-stream" in head.lower()
            assert "x-content-type-options: nosniff" in head.lower()


def test_the_list_tells_which_package_a_file_is(tmp_path: Path) -> None:
    """Name, architecture and version stand beside a package's file name, as `diff` tells them, and escaped."""
    facts = {"package": {"format": "deb", "name": "code-<b>", "version": "4.96.2", "architecture": "amd64"}}
    package = replace(artifact("editor.deb", b"deb"), facts=facts)
    plain = artifact("model.bin", b"bin")
    stocked(tmp_path / "store", [FILES], [package, plain], [b"deb", b"bin"])
    with Live(tmp_path / "store", tmp_path / "live") as live:
        page = live.get("files/").body.decode()
    assert '<a href="editor.deb">editor.deb</a><br>code-&lt;b&gt;:amd64 4.96.2</td>' in page
    assert '<a href="model.bin">model.bin</a></td>' in page
