"""What an export holds beside its pages, and that nginx serves each page as the views have it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from haversack.formats import nginx
from haversack.formats.nginx import DEFAULT, Types, types_of
from haversack.ports.disk import DiskStore
from haversack.verbs import holdings
from haversack.verbs.pages import body
from haversack.views import view_of
from tests.support import tiny
from tests.support.mirror import BASE, HOST, Airgap, Crossed, Nginx, crossed

SIMPLE = "application/vnd.pypi.simple.v1+json"
_ASK = """
import hashlib, http.client, json, sys
asked = http.client.HTTPConnection("127.0.0.1", 8080)
found = []
for path, headers in json.load(sys.stdin):
    asked.request("GET", path, headers=headers)
    answer = asked.getresponse()
    found.append([answer.status, answer.headers["Content-Type"], hashlib.sha256(answer.read()).hexdigest()])
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Crossed:
    """Everything that crosses, received."""
    return crossed(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def gap(site: Crossed) -> Iterator[Airgap]:
    """nginx over the export, in a network of its own."""
    with Airgap() as gap, Nginx(site, gap):
        yield gap


def ask(gap: Airgap, *requests: tuple[str, dict[str, str]]) -> list[tuple[int, str, str]]:
    """Status, type and SHA-256 of what nginx answers to each path, as it is written, with these fields."""
    done = gap(sys.executable, "-c", _ASK, stdin=json.dumps(requests))
    assert done.returncode == 0, done.stderr
    return [(status, kind, digest) for status, kind, digest in json.loads(done.stdout)]


def test_nginx_serves_every_page_of_every_view(site: Crossed, gap: Airgap) -> None:
    """Each path has the bytes and the media type of its page, and so has its place below the snapshot's name."""
    store = DiskStore(site.store)
    held, content = holdings.current_snapshot(store)
    view = view_of(content)
    paths = list(view.paths())
    assert {path.partition("/")[0] for path in paths} == {
        "conda",
        "files",
        "projects",
        "pypi",
        "upstream",
        "v2",
    }
    wanted = []
    for path in paths:
        page = view.get(path)
        assert page is not None
        wanted.append((200, page.media_type, hashlib.sha256(body(page, store)).hexdigest()))
    for start in ("/", f"/@{held.name}/"):
        assert ask(gap, *((start + quote(path, safe="/:@"), {}) for path in paths)) == wanted


def test_an_index_page_comes_in_the_form_that_is_asked_for(gap: Airgap) -> None:
    """JSON for pip and uv, HTML for browsers and for whoever refuses JSON (PEP 691)."""
    for accept, kind in {
        f"{SIMPLE}, application/vnd.pypi.simple.v1+html; q=0.1, text/html; q=0.01": SIMPLE,
        "application/vnd.pypi.simple.latest+json": SIMPLE,
        f"{SIMPLE};q=0, text/html": "text/html; charset=utf-8",
        f"text/html, {SIMPLE}; q=0.0": "text/html; charset=utf-8",
        "text/html": "text/html; charset=utf-8",
        "*/*": "text/html; charset=utf-8",
    }.items():
        assert [(s, t) for s, t, _ in ask(gap, ("/pypi/simple/demo/", {"Accept": accept}))] == [(200, kind)]
    (answer,) = ask(gap, ("/pypi/simple/demo", {}))
    assert answer[0] == 301
    head = gap("curl", "-sI", f"{BASE}/pypi/simple/demo/").stdout
    assert "Vary: Accept" in head


def test_no_path_leads_out(gap: Airgap) -> None:
    """Dots, encoded ones, doubly encoded ones, NUL and a registry that is none find nothing."""
    paths = (
        *(
            "/../../etc/passwd",
            "/pypi/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
            "/pypi/..%2f..%2f..%2f..%2fetc/passwd",
        ),
        *(
            "/%252e%252e/etc/passwd",
            "/files/x%00.txt",
            "/-/type0/files/code.txt",
            "/pypi/\\..\\..\\etc\\passwd",
        ),
        *(
            "/v2/library/tiny/manifests/1?ns=../../../../etc",
            "/v2/a/b?ns=%2e%2e%2f%2e%2e",
            "/@../files/code.txt",
        ),
    )
    passwd = hashlib.sha256(Path("/etc/passwd").read_bytes()).hexdigest()
    for path, (status, _, digest) in zip(paths, ask(gap, *((path, {}) for path in paths)), strict=True):
        assert digest != passwd
        # The strange registry counts as none at all: Docker Hub is meant.
        assert status in {400, 404} or path.startswith("/v2/library/"), path


def test_nothing_can_be_written(gap: Airgap) -> None:
    """nginx reads: other methods are refused."""
    for method in ("PUT", "POST", "DELETE", "PATCH"):
        done = gap(
            "curl", "-s", "-o", os.devnull, "-w", "%{http_code}", "-X", method, f"{BASE}/files/code.txt"
        )
        assert done.stdout == "405"


def test_the_configuration_works_for_somebody_else_than_root(site: Crossed, tmp_path: Path) -> None:
    """A user of no rights starts nginx over an export that everybody may read."""
    # pytest's own folders let root alone in.
    done = subprocess.run(
        ["mktemp", "-d", "/tmp/haversack-test-XXXXXX"], capture_output=True, text=True, check=True
    )
    home = Path(done.stdout.strip())
    try:
        home.chmod(0o755)
        assert tiny.haversack("serve", "--export", home / "www", "--copy", store=site.store).returncode == 0
        (home / "run").mkdir()
        os.chown(home / "run", 65534, 65534)
        nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
        with Airgap() as gap:
            server = subprocess.Popen(
                gap.argv(*nobody, "nginx", "-e", "stderr", "-p", f"{home}/www/", "-c", "nginx.conf"),
                stderr=subprocess.PIPE,
                cwd=home / "run",
            )
            try:
                done = gap(
                    "curl",
                    "-sf",
                    "--retry",
                    "50",
                    "--retry-connrefused",
                    "--retry-delay",
                    "0",
                    "--retry-max-time",
                    "9",
                    f"{BASE}/files/code.txt",
                )
                assert done.stdout == "0123456789" * 100
                assert (home / "run" / "nginx.pid").exists()
            finally:
                server.terminate()
                _, told = server.communicate(timeout=20)
            assert b"[emerg]" not in told
            assert b"[alert]" not in told
            # Two at once on one machine do not meet, and nobody else can lay out what they write to.
            assert "/tmp" not in (home / "www" / "nginx.conf").read_text()
    finally:
        subprocess.run(["rm", "-rf", home], check=True)


def test_an_export_says_its_types_and_stays_as_it_is(site: Crossed, tmp_path: Path) -> None:
    """``content-types.json`` gives each page its type by the rules it states; a second export changes nothing."""
    words = ("serve", "--export", tmp_path / "www", "--json")
    first = json.loads(tiny.haversack(*words, store=site.store).stdout)
    assert first["changed"]
    types = json.loads((tmp_path / "www" / "content-types.json").read_bytes())
    _, content = holdings.current_snapshot(DiskStore(site.store))
    view = view_of(content)
    for path in view.paths():
        page = view.get(path)
        assert page is not None
        suffixes = types["suffixes"].get(path.partition("/")[0], {})
        told = types["paths"].get(path) or suffixes.get(path.rpartition(".")[2].lower()) or types["default"]
        assert told == page.media_type, path
    again = json.loads(tiny.haversack(*words, store=site.store).stdout)
    assert not again["changed"]
    for name in ("nginx.conf", "nginx/http.conf", "nginx/server.conf"):
        assert re.match(
            "# Written by haversack serve --export, of snapshot ", (tmp_path / "www" / name).read_text()
        )


def test_a_wheel_that_rotted_in_the_store_is_told_once(site: Crossed, tmp_path: Path) -> None:
    """It has a page of its own and one of its metadata: one finding, and nothing is exported."""
    copy = tmp_path / "store"
    subprocess.run(["cp", "-a", site.store, copy], check=True)
    store = DiskStore(copy)
    _, content = holdings.current_snapshot(store)
    (wheel,) = (a for e in content.environments for a in e.artifacts if a.filename.startswith("demo-1.0"))
    path = store.path(wheel.digest)
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data[:40] + bytes([data[40] ^ 1]) + data[41:])
    done = tiny.haversack("serve", "--export", tmp_path / "www", "--json", store=copy)
    told = json.loads(done.stdout)
    assert told["exit_code"] == done.returncode != 0
    assert [f["code"] for f in told["findings"]] == ["store-damaged"]
    assert wheel.digest in told["findings"][0]["subject"]
    assert not (tmp_path / "www").exists()


def test_types_are_told_by_suffix_where_that_is_true() -> None:
    """One suffix of several types, no suffix, or the default's: only what no rule gives stands by its path."""
    pages = {
        "a/x.html": "text/html",
        "a/y.HTML": "text/html",
        "a/z.json": "application/json",
        "a/w.json": DEFAULT,
        "a/none": "text/plain",
        "b/x.html": DEFAULT,
        "b/y": DEFAULT,
    }
    assert types_of(pages.items()) == Types(
        ("a", "b"), {"a": {"html": "text/html"}}, {"a/none": "text/plain", "a/z.json": "application/json"}
    )


def test_names_that_differ_in_case_keep_their_types(tmp_path: Path) -> None:
    """nginx's maps ignore case; two paths of one name in another case, quotes and blanks are told apart all the same."""
    pages = {
        "v2/a.example/manifests/Tag": "application/one",
        "v2/a.example/manifests/tag": "application/two",
        "v2/a.example/manifests/TAG": DEFAULT,
        'v2/a.example/manifests/a "b" $c {d}; ~e\\f': "application/one",
        "v2/a.example/" + "long" * 60: "application/two",
    }
    for path in pages:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(path)
    for name, data in nginx.configuration("2026-11", types_of(pages.items()), pages).items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    with Airgap() as gap:
        server = subprocess.Popen(
            gap.argv("nginx", "-e", "stderr", "-p", f"{tmp_path}/", "-c", "nginx.conf", "-g", "user root;"),
            stderr=subprocess.PIPE,
            cwd=tmp_path,
        )
        try:
            assert (
                gap(
                    "curl",
                    "-sf",
                    "--retry",
                    "50",
                    "--retry-connrefused",
                    "--retry-delay",
                    "0",
                    "--retry-max-time",
                    "9",
                    f"http://{HOST}/healthz",
                ).stdout
                == "ok\n"
            )
            found = ask(gap, *((f"/{quote(path)}", {}) for path in pages))
        finally:
            server.terminate()
            server.communicate(timeout=20)
    assert [(status, kind) for status, kind, _ in found] == [(200, kind) for kind in pages.values()]
