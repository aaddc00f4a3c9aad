"""The live server over real stores: what clients get, what changes under it, and what never leaves it."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from haversack.formats import oci
from haversack.model.artifact import digest_of, hex_of
from haversack.ports.disk import DiskStore
from haversack.ports.run import Programs, scrubbed
from haversack.serving import routes
from haversack.serving.app import App
from haversack.serving.blobs import HELD_BACK
from haversack.serving.http import Patience
from haversack.serving.journal import Journal
from haversack.serving.requests import parse
from haversack.verbs import ca, snapshots
from haversack.views import view_of
from tests import test_view_v2 as registry
from tests.support.live import InThread, Live, ask
from tests.support.tiny import Tiny, command, environ, haversack, inside, tiny_bundle
from tests.support.viewing import stocked

JSON = "application/vnd.pypi.simple.v1+json"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """A store with a snapshot."""
    return tiny_bundle(tmp_path_factory.mktemp("store"), names=("alpha", "beta.two"), padding=300_000)


@pytest.fixture(scope="module")
def live(made: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A server over it."""
    with Live(made.store, tmp_path_factory.mktemp("live")) as server:
        yield server


def wheel_path(wheel: Path) -> str:
    """Where a wheel is served."""
    digits = hex_of(digest_of(wheel.read_bytes()))
    return f"pypi/files/{digits[:2]}/{digits}/{wheel.name}"


def alpha(made: Tiny) -> Path:
    """The first wheel."""
    return next(made.wheels.glob("alpha-*"))


def test_the_simple_index_comes_in_the_form_that_is_asked_for(live: Live) -> None:
    """HTML or JSON by Accept, HTML for whoever names neither; the form changes the entity tag, and Vary says so."""
    page = live.get("pypi/simple/alpha/")
    assert page.headers["content-type"].startswith("text/html")
    assert page.headers["vary"] == "Accept, Accept-Encoding"
    value = live.get("pypi/simple/alpha/", accept=f"{JSON}, text/html;q=0.1")
    assert value.headers["content-type"] == JSON
    assert json.loads(value.body)["name"] == "alpha"
    assert value.headers["etag"] != page.headers["etag"]
    form = "application/vnd.pypi.simple.v1+html"
    assert live.get("pypi/simple/", accept=form).headers["content-type"] == form
    assert live.get("pypi/simple/alpha/", accept="image/png").body == page.body
    latest = live.get("pypi/simple/alpha/", accept="application/vnd.pypi.simple.latest+json")
    assert (latest.headers["content-type"], latest.body) == (JSON, value.body)


def test_names_lead_to_their_normal_form(live: Live) -> None:
    """A name that PEP 503 spells otherwise, or a folder without its slash, is sent where the page is."""
    for path in ("pypi/simple/Beta.Two/", "pypi/simple/beta_two", "pypi/simple/beta-two"):
        found = live.get(path)
        assert (found.status, found.headers["location"]) == (301, "/pypi/simple/beta-two/")
    assert live.get("@2026-11/pypi/simple/Alpha").headers["location"] == "/@2026-11/pypi/simple/alpha/"
    assert live.get("pypi").headers["location"] == "/pypi/"
    assert live.get("@2026-11").headers["location"] == "/@2026-11/"
    assert live.get("pypi/simple/nobody/").status == 404


def test_pages_are_packed_and_not_sent_twice(tmp_path: Path) -> None:
    """A large page comes as gzip if the client takes it; with its entity tag it does not come again."""
    made = tiny_bundle(tmp_path, names=tuple(f"project-{number}" for number in range(40)))
    with Live(made.store, tmp_path / "live") as live:
        plain = live.get("pypi/simple/")
        for _ in range(2):
            packed = live.get("pypi/simple/", accept_encoding="gzip")
            assert packed.headers["content-encoding"] == "gzip"
            assert gzip.decompress(packed.body) == plain.body
            assert packed.headers["etag"] != plain.headers["etag"]
        again = live.get("pypi/simple/", if_none_match=plain.headers["etag"])
        assert (again.status, again.body) == (304, b"")
        part = live.get("pypi/simple/", range="bytes=1-9", accept_encoding="gzip")
        assert (part.status, part.body) == (206, plain.body[1:10])


def test_files_come_whole_or_in_part(live: Live, made: Tiny) -> None:
    """A wheel has its digest as entity tag, is kept by clients for ever, and is given in parts."""
    wheel = alpha(made)
    data, path = wheel.read_bytes(), wheel_path(wheel)
    whole = live.get(path)
    assert whole.body == data
    assert whole.headers["etag"] == f'"{digest_of(data)}"'
    assert "immutable" in whole.headers["cache-control"]
    assert whole.headers["x-content-type-options"] == "nosniff"
    for value, expected in (
        ("bytes=5-9", data[5:10]),
        ("bytes=-7", data[-7:]),
        ("bytes=0-99999999999999999999999", data),
        (f"bytes=-{'9' * 5000}", data),
        ("bytes=000000000000000000000000000005-9", data[5:10]),
        ("bytes=290000-", data[290000:]),
    ):
        part = live.get(path, range=value)
        assert (part.status, part.body) == (206, expected)
    for value in ("bytes=99999999999999999999999-", f"bytes={'9' * 30}-1{'0' * 30}"):
        assert live.get(path, range=value).status == 416
    assert part.headers["content-range"] == f"bytes 290000-{len(data) - 1}/{len(data)}"
    beyond = live.get(path, range=f"bytes={len(data)}-")
    assert (beyond.status, beyond.headers["content-range"]) == (416, f"bytes */{len(data)}")
    assert live.get(path, range="bytes=0-1,4-5").body == data
    assert live.get(path, range="bytes=0-1", if_range='"other"').body == data
    assert live.get(path, if_none_match=whole.headers["etag"]).status == 304


def test_what_a_client_holds_another_version_of_is_refused(live: Live, made: Tiny) -> None:
    """If-Match with another entity tag, or a weak one, gives 412 and no byte, for files, parts, pages and HEAD."""
    for path in (wheel_path(alpha(made)), "pypi/simple/alpha/"):
        right = live.get(path).headers["etag"]
        for value, status in (
            ('"other"', 412),
            (f"W/{right}", 412),
            (f'"other", {right}', 200),
            ("*", 200),
        ):
            assert live.get(path, if_match=value).status == status
            assert ask(live.url + path, method="HEAD", if_match=value).status == status
        assert live.get(path, if_match='"other"', if_none_match=right).status == 412
        assert live.get(path, if_match='"other"', range="bytes=0-1").status == 412
        assert live.get(path, if_match=right, range="bytes=0-1").status == 206
        # There is no date that a page could have been changed after (RFC 9110 §13.1.4).
        assert live.get(path, if_unmodified_since="Sat, 01 Jan 2000 00:00:00 GMT").status == 200


def test_the_numbers_have_no_labels_that_clients_make_up(live: Live) -> None:
    """A path that ends in a slash is a folder only where there is one; what is not there counts as other."""
    for path in ("made-up-1/", "made-up-2/x/", "made-up-3"):
        assert live.get(path).status == 404
    page = live.get("metrics").body.decode()
    assert "made-up" not in page
    assert 'haversack_http_requests_total{view="other",code="404"}' in page


def test_metadata_comes_beside_a_wheel(live: Live, made: Tiny) -> None:
    """The file of PEP 658 is what stands in the wheel."""
    found = live.get(wheel_path(alpha(made)) + ".metadata")
    assert found.status == 200
    assert b"Name: alpha" in found.body


def test_curl_goes_on_where_it_was_cut(live: Live, made: Tiny, tmp_path: Path) -> None:
    """A download that lies there in part is completed."""
    wheel, half = alpha(made), tmp_path / "half"
    half.write_bytes(wheel.read_bytes()[:1000])
    argv = ["curl", "-sS", "-f", "--noproxy", "*", "-C", "-", "-o", half, live.url + wheel_path(wheel)]
    subprocess.run(argv, check=True)
    assert half.read_bytes() == wheel.read_bytes()


@pytest.mark.parametrize(
    "path",
    [
        "%2e%2e/%2e%2e/etc/passwd",
        "../../etc/passwd",
        "pypi/..%2f..%2findex.json",
        "pypi/simple/..%5c..%5cx/",
        "pypi/%252e%252e/%252e%252e/index.json",
        "upstream//etc/passwd",
        "//etc/passwd",
        "pypi/simple/alpha%00/",
        "@../index.json",
        "@%2e%2e/x",
        "@2026-11/../../index.json",
        "v2/../../index.json",
        "v2/a/blobs/../../../index.json",
        "blobs/sha256/",
        "index.json",
        "oci-layout",
        "haversack/ledger.jsonl",
    ],
)
def test_nothing_beside_the_views_is_given_away(live: Live, path: str) -> None:
    """Whatever way a path takes, what is no page is not there."""
    answer = live.raw(f"GET /{path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
    assert answer.split(b" ")[1] in {b"400", b"404"}
    assert b"root:" not in answer


def test_folders_are_pages_for_people(live: Live, made: Tiny) -> None:
    """A folder lists names, sizes and digests with links that hold; the first page names snapshot and views."""
    digits = hex_of(digest_of(alpha(made).read_bytes()))
    page = live.get(f"pypi/files/{digits[:2]}/{digits}/").body.decode()
    assert digits in page
    assert 'href="alpha-1.0-py3-none-any.whl"' in page
    home = live.get("").body.decode()
    assert "2026-11" in home
    assert 'href="pypi/"' in home
    assert "<script" not in home + page


def test_snapshots_have_addresses_of_their_own(live: Live) -> None:
    """The views of a snapshot lie below its name; of an unknown one the known are told."""
    assert live.get("@2026-11/pypi/simple/alpha/").body == live.get("pypi/simple/alpha/").body
    unknown = live.get("@2020-01/pypi/simple/alpha/")
    assert unknown.status == 404
    assert b"2026-11" in unknown.body


def test_pip_and_uv_install_from_it(live: Live, tmp_path: Path) -> None:
    """An installer that knows nothing but the address finds what requires what, and installs it."""
    url = f"{live.url}pypi/simple/"
    env = scrubbed(os.environ) | {"HOME": str(tmp_path), "no_proxy": "*"}
    pip = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--index-url", url]
    subprocess.run([*pip, "-d", tmp_path / "got", "beta.two"], check=True, env=env)
    assert sorted(p.name for p in (tmp_path / "got").iterdir()) == [
        "alpha-1.0-py3-none-any.whl",
        "beta_two-1.0-py3-none-any.whl",
    ]
    done = Programs()(["uv", "pip", "install", "--target", tmp_path / "to", "--index-url", url, "beta-two"])
    assert done.code == 0, done.err
    assert (tmp_path / "to" / "alpha").is_dir()


def test_the_log_says_who_asked_for_what(live: Live) -> None:
    """One line of JSON an answer; what stood behind the question mark, or in a login, is nowhere in it."""
    live.get("pypi/simple/alpha/?token=geheim", user_agent='a "b"', authorization="Bearer geheim")
    for _ in range(100):
        text = live.log.read_text()
        if 'a \\"b\\"' in text:
            break
        time.sleep(0.05)
    lines = [json.loads(line) for line in text.splitlines()]
    entry = next(line for line in lines if line["agent"] == 'a "b"')
    assert (entry["method"], entry["path"], entry["status"]) == ("GET", "/pypi/simple/alpha/", 200)
    assert entry["bytes"] > 0
    assert entry["remote"] == "127.0.0.1"
    assert "geheim" not in text


def test_prometheus_likes_the_numbers(live: Live) -> None:
    """The page of numbers passes promtool, counts by view and status, and names the snapshot."""
    live.get("pypi/simple/alpha/")
    page = live.get("metrics").body
    subprocess.run(["promtool", "check", "metrics"], input=page, check=True)
    assert b'haversack_http_requests_total{view="pypi",code="200"}' in page
    assert b'haversack_snapshot_info{name="2026-11"' in page
    assert b"haversack_blobs_damaged 0" in page


def test_prometheus_scrapes_them(live: Live, tmp_path: Path) -> None:
    """A real Prometheus finds the target up and keeps its numbers."""
    live.get("pypi/simple/alpha/")
    target = live.url.removeprefix("http://").strip("/")
    jobs = {"job_name": "haversack", "static_configs": [{"targets": [target]}]}
    config = {"global": {"scrape_interval": "1s", "scrape_timeout": "1s"}, "scrape_configs": [jobs]}
    (tmp_path / "prometheus.yml").write_text(json.dumps(config))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        here = f"127.0.0.1:{free.getsockname()[1]}"
    words = ("--config.file", "prometheus.yml", "--storage.tsdb.path", "data", "--web.listen-address", here)
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(["prometheus", *words], cwd=tmp_path, stdout=log, stderr=log)

    def value(query: str) -> str:
        try:
            body = ask(f"http://{here}/api/v1/query?query={query}").body
        except OSError:
            return ""
        found = json.loads(body).get("data", {}).get("result", [])
        return str(found[0]["value"][1]) if found else ""

    try:
        for _ in range(600):
            if value("up") == "1" and value('haversack_http_requests_total{view="pypi",code="200"}'):
                break
            assert process.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.1)
        assert value("up") == "1", (tmp_path / "log").read_text()
        assert int(value('haversack_http_requests_total{view="pypi",code="200"}')) >= 1
        assert value("haversack_blobs_damaged") == "0"
    finally:
        process.terminate()
        process.wait(30)


def test_the_numbers_may_have_an_address_of_their_own(made: Tiny, tmp_path: Path) -> None:
    """With --metrics-listen the numbers are there, and not where everybody asks."""
    with Live(made.store, tmp_path, "--metrics-listen", "127.0.0.1:0") as live:
        assert live.get("metrics").status == 404
        assert b"haversack_connections" in ask(live.metrics).body
        assert ask(live.metrics.replace("metrics", "healthz")).body == b"ok\n"
        assert ask(live.metrics.replace("metrics", "pypi/")).status == 404


# What changes under it


def test_a_switch_of_snapshots_disturbs_no_download(tmp_path: Path) -> None:
    """Whoever downloads gets what they began; whoever asks afterwards sees the other snapshot."""
    old = tiny_bundle(tmp_path / "old", names=("alpha",), padding=24_000_000)
    tiny_bundle(tmp_path / "new", names=("beta",), base=old, name="2026-12")
    haversack("use", "2026-11", store=old.store)
    path = wheel_path(alpha(old))
    with Live(old.store, tmp_path / "live") as live:
        assert live.get("pypi/simple/alpha/").status == 200
        host, port = live.url.removeprefix("http://").strip("/").split(":")
        with socket.create_connection((host, int(port)), timeout=20) as one:
            one.sendall(f"GET /{path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
            found = one.recv(1000)
            snapshots.use("2026-12", inside(old.store))
            time.sleep(0.25)
            assert [live.get(f"pypi/simple/{name}/").status for name in ("alpha", "beta")] == [404, 200]
            assert live.get(path).status == 404
            assert live.get("@2026-11/pypi/simple/alpha/").status == 200
            while chunk := one.recv(1 << 20):
                found += chunk
        assert found.partition(b"\r\n\r\n")[2] == alpha(old).read_bytes()


def test_a_second_server_is_just_started(made: Tiny, live: Live, tmp_path: Path) -> None:
    """Two servers over one store know nothing of each other, and neither writes to it."""
    before = sorted((str(p), p.lstat().st_mtime_ns) for p in made.store.rglob("*"))
    with Live(made.store, tmp_path) as second:
        assert second.get("pypi/simple/alpha/").body == live.get("pypi/simple/alpha/").body
        assert second.get(wheel_path(alpha(made))).status == live.get(wheel_path(alpha(made))).status == 200
    assert sorted((str(p), p.lstat().st_mtime_ns) for p in made.store.rglob("*")) == before


def test_a_store_that_is_gone_is_told(tmp_path: Path) -> None:
    """Health is an error with its reason while the store cannot be read, and well again afterwards."""
    made = tiny_bundle(tmp_path / "site")
    with Live(made.store, tmp_path / "live") as live:
        assert live.get("healthz").body == b"ok\n"
        made.store.rename(tmp_path / "away")
        time.sleep(0.3)
        ill = live.get("healthz")
        assert (ill.status, b"index.json" in ill.body) == (503, True)
        assert live.get("pypi/simple/").status == 500
        (tmp_path / "away").rename(made.store)
        time.sleep(0.3)
        assert live.get("healthz").status == live.get("pypi/simple/").status == 200


def test_an_empty_store_says_so(tmp_path: Path) -> None:
    """A store that received nothing yet is served all the same; health says what is missing."""
    DiskStore(tmp_path / "store", create=True)
    with Live(tmp_path / "store", tmp_path / "live") as live:
        assert live.get("pypi/simple/").status == 404
        assert b"no snapshot yet" in live.get("healthz").body
        assert live.get("v2/").status == 200


# What never leaves it


def flip(path: Path, at: int) -> None:
    """Flip a bit of a file, as a bad disk does; its times stay."""
    status = path.stat()
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def rotten(tmp_path: Path, padding: int) -> tuple[Tiny, Path, str]:
    """A store, the blob of its one wheel, and where that is served."""
    made = tiny_bundle(tmp_path / "site", names=("alpha",), padding=padding)
    path = wheel_path(alpha(made))
    return made, made.store / "blobs/sha256" / path.split("/")[3], path


def test_a_rotten_blob_is_an_error_at_once(tmp_path: Path) -> None:
    """A small blob whose bytes changed gives no byte away: an error, a line in the log, a number; healed, it is back."""
    made, blob, path = rotten(tmp_path, 1000)
    flip(blob, 500)
    with Live(made.store, tmp_path / "live") as live:
        for headers in ({}, {"range": "bytes=0-9"}, {}):
            found = live.get(path, **headers)
            assert (found.status, b"damaged" in found.body) == (500, True)
        assert b"haversack_blobs_damaged 1" in live.get("metrics").body
        assert blob.name in live.errors.read_text()
        flip(blob, 500)
        assert live.get(path).status == 200


def test_a_large_rotten_blob_never_ends(tmp_path: Path) -> None:
    """What was hashed may leave, but not the last bytes: the connection breaks, and the next is told at once."""
    made, blob, path = rotten(tmp_path, 60_000_000)
    flip(blob, 59_999_000)
    with Live(made.store, tmp_path / "live") as live:
        text = _broken(live, path)
        size = blob.stat().st_size
        assert not text or (b" 500 " in text[:40]) or len(text.partition(b"\r\n\r\n")[2]) <= size - HELD_BACK
        assert live.get(path).status == 500


def _broken(live: Live, path: str) -> bytes:
    host, port = live.url.removeprefix("http://").strip("/").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as one:
        one.sendall(f"GET /{path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
        found = b""
        try:
            while chunk := one.recv(1 << 20):
                found += chunk
        except ConnectionResetError:
            pass
        return found


def test_a_blob_that_rots_under_a_download_never_ends(tmp_path: Path) -> None:
    """A blob that was right, and changes while it is sent, is not completed; a link to it does not disturb."""
    made, blob, path = rotten(tmp_path, 24_000_000)
    store = DiskStore(made.store)
    with InThread(store, tmp_path / "live", Patience()) as server:
        for harm in (False, True):
            with server.connect() as one:
                one.sendall(f"GET /{path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
                found = len(one.recv(1000))
                if harm:
                    flip(blob, 20)
                else:
                    (tmp_path / "link").hardlink_to(blob)
                try:
                    while chunk := one.recv(1 << 20):
                        found += len(chunk)
                except ConnectionResetError:
                    pass
            assert (found > blob.stat().st_size) is not harm


def test_a_blob_that_is_gone_is_no_page(tmp_path: Path) -> None:
    """A blob that the store lost is not there; the server goes on."""
    made, blob, path = rotten(tmp_path, 1000)
    blob.unlink()
    with Live(made.store, tmp_path / "live") as live:
        assert live.get(path).status == 404
        assert live.get("pypi/simple/").status == 200


# Images


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Live, registry.Layout, str]]:
    """A server over a store with an image of two platforms."""
    folder = tmp_path_factory.mktemp("images")
    layout, root = registry.made(folder / "layout")
    index = json.loads(layout.blob(root))
    index["manifests"].pop()
    root = str(layout.add(json.dumps(index).encode())["digest"])
    artifacts = list(layout.artifacts(root, oci.INDEX, f"{registry.NAME}:1", "docker.io/library/tiny:2"))
    blobs = [layout.blob(artifact.digest) for artifact in artifacts]
    stocked(folder / "store", [registry.IMAGES], artifacts, blobs)
    with Live(folder / "store", folder / "live") as server:
        yield server, layout, root


def test_a_registry_answers_as_the_specification_says(images: tuple[Live, registry.Layout, str]) -> None:
    """Manifests by tag and digest, blobs, tags in portions, referrers, and errors in their form."""
    live, layout, root = images
    assert live.get("v2/").body == b"{}"
    assert live.get("v2/").headers["docker-distribution-api-version"] == "registry/2.0"
    found = live.get("v2/docker.io/team/multi/manifests/1")
    assert found.body == layout.blob(root)
    assert found.headers["docker-content-digest"] == root
    assert found.headers["content-type"] == oci.INDEX
    assert live.get(f"v2/docker.io/team/multi/manifests/{root}").body == found.body
    child = json.loads(found.body)["manifests"][0]["digest"]
    config = json.loads(live.get(f"v2/docker.io/team/multi/manifests/{child}").body)["config"]["digest"]
    blob = live.get(f"v2/docker.io/team/multi/blobs/{config}")
    assert digest_of(blob.body) == blob.headers["docker-content-digest"] == config
    listed = live.get("v2/docker.io/team/multi/tags/list?n=1")
    assert json.loads(listed.body)["tags"] == ["1"]
    catalog = live.get("v2/_catalog?n=1&last=docker.io/library/tiny")
    assert json.loads(catalog.body)["repositories"] == ["docker.io/team/multi"]
    assert catalog.headers["link"] == '</v2/_catalog?n=1&last=docker.io%2Fteam%2Fmulti>; rel="next"'
    below = live.get("@2026-11/v2/_catalog?n=1").headers["link"]
    assert below.startswith("</@2026-11/v2/_catalog?n=1&last=")
    for path in (
        "@2026-11/v2/docker.io/team/nobody/manifests/1",
        "@2020-01/v2/docker.io/team/multi/manifests/1",
    ):
        unknown = live.get(path)
        assert (unknown.status, json.loads(unknown.body)["errors"][0]["code"]) == (404, "NAME_UNKNOWN")
        assert unknown.headers["docker-distribution-api-version"] == "registry/2.0"
    assert live.get("@/").status == 404
    assert live.get("v2/docker.io/team/multi/referrers/" + child).headers["content-type"] == oci.INDEX
    filtered = live.get(f"v2/docker.io/team/multi/referrers/{root}?artifactType=none")
    assert json.loads(filtered.body)["manifests"] == []
    for path, status, code in (
        ("docker.io/team/multi/manifests/9", 404, "MANIFEST_UNKNOWN"),
        (f"docker.io/team/multi/blobs/sha256:{'0' * 64}", 404, "BLOB_UNKNOWN"),
        ("docker.io/team/nobody/manifests/1", 404, "NAME_UNKNOWN"),
        ("docker.io/team/multi/blobs/sha256:0", 400, "DIGEST_INVALID"),
        ("docker.io/Team/multi/manifests/1", 400, "NAME_INVALID"),
    ):
        wrong = live.get(f"v2/{path}")
        assert (wrong.status, json.loads(wrong.body)["errors"][0]["code"]) == (status, code)
    for method in ("PUT", "POST", "PATCH", "DELETE"):
        refused = ask(live.url + "v2/a/b/blobs/uploads/", method=method)
        assert (refused.status, json.loads(refused.body)["errors"][0]["code"]) == (405, "UNSUPPORTED")


def test_names_mean_what_a_mirror_is_asked_for(images: tuple[Live, registry.Layout, str]) -> None:
    """containerd names the host beside, Docker means its own, and a name of one word is in ``library``."""
    live, layout, root = images
    for path in (
        "team/multi/manifests/1?ns=docker.io",
        "team/multi/manifests/1",
        "library/tiny/manifests/2",
        "tiny/manifests/2",
        "docker.io/tiny/manifests/2",
        "docker.io/library/tiny/manifests/2?ns=mirror.example:5000",
    ):
        assert live.get(f"v2/{path}").body == layout.blob(root), path


def test_skopeo_copies_an_image_from_it(images: tuple[Live, registry.Layout, str], tmp_path: Path) -> None:
    """All platforms arrive with their digests; the list of tags is read."""
    live, _, root = images
    place = live.url.removeprefix("http://") + "docker.io/team/multi"
    copy = [
        "skopeo",
        "--insecure-policy",
        "copy",
        "-q",
        "--all",
        "--preserve-digests",
        "--src-tls-verify=false",
    ]
    subprocess.run([*copy, f"docker://{place}:1", f"oci:{tmp_path}/out:1"], check=True)
    index = json.loads((tmp_path / "out/index.json").read_text())
    assert index["manifests"][0]["digest"] == root
    tags = ["skopeo", "list-tags", "--tls-verify=false", f"docker://{place}"]
    assert json.loads(subprocess.run(tags, check=True, capture_output=True).stdout)["Tags"] == ["1"]


async def is_worked_on(store: Path, path: str, log: Path) -> bool:
    """Whether the server takes who asks for a path for a client that works on the bytes as they come."""
    journal = Journal(log)
    app = App(DiskStore(store), journal)
    answer = await app.answer(parse(f"GET /{path} HTTP/1.1\r\nHost: a\r\n\r\n".encode()))
    assert answer.status == 200
    assert answer.passage is not None
    answer.passage.close()
    app.close()
    journal.close()
    return answer.worked


def test_layers_reach_clients_of_any_speed(made: Tiny, tmp_path: Path) -> None:
    """Two pull layers at once, one of them by sips; each gets its own, byte for byte.

    Who pulls a layer unpacks it as it comes; who downloads a wheel writes it to a disk.
    """
    (tmp_path / "layout/blobs/sha256").mkdir(parents=True)
    layout = registry.Layout(tmp_path / "layout")
    layers = [random.Random(number).randbytes(9_000_000 + number) for number in range(2)]
    listed = [
        {"mediaType": "application/vnd.oci.image.layer.v1.tar", **layout.add(layer)} for layer in layers
    ]
    body = {"schemaVersion": 2, "mediaType": oci.MANIFEST, "config": listed[0], "layers": listed[1:]}
    root = str(layout.add(json.dumps(body).encode())["digest"])
    artifacts = list(layout.artifacts(root, oci.MANIFEST, f"{registry.NAME}:1"))
    stocked(tmp_path / "store", [registry.IMAGES], artifacts, [layout.blob(a.digest) for a in artifacts])

    def pull(number: int, sip: int) -> bool:
        """Whether a layer came as it is, by so many bytes at a time."""
        place, found = f"v2/{registry.NAME}/blobs/{listed[number]['digest']}", b""
        with socket.create_connection((host, int(port)), timeout=20) as one:
            one.sendall(f"GET /{place} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
            while chunk := one.recv(sip):
                found += chunk
        return found.partition(b"\r\n\r\n")[2] == layers[number]

    with Live(tmp_path / "store", tmp_path / "live") as live, ThreadPoolExecutor() as pool:
        host, port = live.url.removeprefix("http://").strip("/").split(":")
        assert list(pool.map(pull, (0, 1, 1), (1 << 20, 7_001, 1 << 16))) == [True, True, True]
    layer, wheel = f"v2/{registry.NAME}/blobs/{listed[1]['digest']}", wheel_path(alpha(made))
    assert asyncio.run(is_worked_on(tmp_path / "store", layer, tmp_path / "log"))
    assert not asyncio.run(is_worked_on(made.store, wheel, tmp_path / "log"))


def test_repositories_are_tried_likeliest_first() -> None:
    """What ``?ns=`` names comes before the name as it is, and that before Docker's own registry."""
    assert list(routes.repositories("x", "quay.example")) == [
        "quay.example/x",
        "x",
        "docker.io/x",
        "docker.io/library/x",
    ]
    assert list(routes.repositories("a/b", "../x")) == ["a/b", "docker.io/a/b"]


# Addresses and ends


def test_it_listens_at_a_name_of_the_file_system(made: Tiny, tmp_path: Path) -> None:
    """A socket of a name is made, taken over from a server that was killed, and removed at the end."""
    name = tmp_path / "s"
    argv = ["curl", "-sf", "--unix-socket", str(name), "http://mirror.example/healthz"]
    killed = Live(made.store, tmp_path / "killed", listen=f"unix:{name}")
    killed.process.kill()
    killed.process.wait()
    assert name.exists()
    with Live(made.store, tmp_path / "live", listen=f"unix:{name}"):
        assert subprocess.run(argv, check=True, capture_output=True).stdout == b"ok\n"
        taken = haversack("serve", "--listen", f"unix:{name}", store=made.store)
        assert taken.returncode == 2
    assert not name.exists()


def test_systemd_may_open_its_socket(made: Tiny, tmp_path: Path) -> None:
    """A socket that was opened before is used instead of an address."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        one.listen(5)
        port = one.getsockname()[1]
        errors = tmp_path / "errors"
        script = f'dup2({one.fileno()}, 3); environ["LISTEN_PID"] = str(getpid()); execv(argv[1], argv[1:])'
        argv = [sys.executable, "-c", f"from os import *; from sys import argv; {script}"]
        with errors.open("wb") as file:
            process = subprocess.Popen(
                [*argv, *command("serve", "--access-log", tmp_path / "log")],
                env={**environ(made.store), "LISTEN_FDS": "1"},
                pass_fds=[one.fileno(), 3] if one.fileno() != 3 else [3],
                stderr=file,
            )
        try:
            assert ask(f"http://127.0.0.1:{port}/healthz").body == b"ok\n"
        finally:
            process.terminate()
            assert process.wait(20) == 0, errors.read_text()


def test_it_ends_after_the_downloads(tmp_path: Path) -> None:
    """Told to end, it takes no new client, finishes what is under way, and exits with 0."""
    made, blob, path = rotten(tmp_path, 24_000_000)
    with Live(made.store, tmp_path / "live") as live:
        host, port = live.url.removeprefix("http://").strip("/").split(":")
        with socket.create_connection((host, int(port)), timeout=20) as one:
            one.sendall(f"GET /{path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            found = len(one.recv(1000))
            live.process.send_signal(signal.SIGTERM)
            time.sleep(0.3)
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection((host, int(port)), timeout=5)
            while chunk := one.recv(1 << 20):
                found += len(chunk)
            assert found > blob.stat().st_size
        # Leaving would ask a second time, perhaps just when its handler of signals is gone.
        live.process.wait(40)


@pytest.mark.parametrize("address", ["nowhere", "127.0.0.1:99999", "192.0.2.1:80", "unix:/nowhere/here"])
def test_an_address_that_cannot_be_had_is_told(made: Tiny, address: str) -> None:
    """The error names the address."""
    done = haversack("serve", "--listen", address, store=made.store)
    assert done.returncode == 2
    assert address in done.stderr


def test_options_of_one_way_do_not_go_with_the_other(made: Tiny, tmp_path: Path) -> None:
    """What is about an export is refused of a live server, and the other way round."""
    for words in (("--dry-run",), ("--export", tmp_path, "--listen", "x:1"), ("--tls-cert", tmp_path / "x")):
        assert haversack("serve", *words, store=made.store).returncode == 2


# TLS


def test_a_site_ca_makes_certificates_that_clients_accept(made: Tiny, tmp_path: Path) -> None:
    """With the CA a client is served, without it not; openssl finds the chain in order and the keys private."""
    folder = tmp_path / "ca"
    assert haversack("ca", "create", folder, "--name", "Lab CA", store=made.store).returncode == 0
    assert haversack("ca", "create", folder, store=made.store).returncode != 0
    words = ("ca", "issue", folder, "mirror.example", "127.0.0.1", "::1", "-o", tmp_path / "out")
    assert haversack(*words, store=made.store).returncode == 0
    assert haversack("ca", "issue", folder, "no host", store=made.store).returncode == 2
    certificate, key = tmp_path / "out/mirror.example.pem", tmp_path / "out/mirror.example.key"
    assert key.stat().st_mode & 0o777 == (folder / ca.CA_KEY).stat().st_mode & 0o777 == 0o600
    verify: list[str | Path] = [
        "openssl",
        "verify",
        "-x509_strict",
        "-purpose",
        "sslserver",
        "-CAfile",
        folder / ca.CA,
    ]
    subprocess.run([*verify, "-verify_hostname", "mirror.example", certificate], check=True)
    subprocess.run([*verify, "-verify_ip", "::1", certificate], check=True)
    with Live(made.store, tmp_path / "live", "--tls-cert", certificate, "--tls-key", key) as live:
        assert live.url.startswith("https://")
        url = live.url + wheel_path(alpha(made))
        curl: list[str | Path] = ["curl", "-sS", "-f", "--noproxy", "*"]
        got = subprocess.run([*curl, "--cacert", folder / ca.CA, url], check=True, capture_output=True)
        assert got.stdout == alpha(made).read_bytes()
        unknown = subprocess.run([*curl, url], capture_output=True, env={"PATH": os.environ["PATH"]})
        assert unknown.returncode == 60
        old: list[str | Path] = ["--tls-max", "1.1", "--ciphers", "DEFAULT@SECLEVEL=0"]
        assert (
            subprocess.run([*curl, *old, "--cacert", folder / ca.CA, url], capture_output=True).returncode
            == 35
        )
        # A certificate that is made anew is taken without a restart.
        first = _serial(live)
        assert haversack(*words, store=made.store).returncode == 0
        live.process.send_signal(signal.SIGHUP)
        for _ in range(100):
            if _serial(live) != first:
                break
            time.sleep(0.05)
        else:
            raise AssertionError("the old certificate is still in use")
        shutil.copy(folder / ca.CA_KEY, key)
        live.process.send_signal(signal.SIGHUP)
        time.sleep(0.3)
        subprocess.run([*curl, "--cacert", folder / ca.CA, live.url + "healthz"], check=True)
        assert "stays in use" in live.errors.read_text()


def _serial(live: Live) -> str:
    place = live.url.removeprefix("https://").strip("/")
    shown = subprocess.run(["openssl", "s_client", "-connect", place], input=b"", capture_output=True)
    argv = ["openssl", "x509", "-noout", "-serial"]
    return subprocess.run(argv, input=shown.stdout, capture_output=True, check=True).stdout.decode()


def test_a_site_ca_is_enough_to_begin(made: Tiny, tmp_path: Path) -> None:
    """With --tls-ca the server makes its certificate itself, for this machine."""
    assert haversack("ca", "create", tmp_path / "ca", store=made.store).returncode == 0
    with Live(made.store, tmp_path / "live", "--tls-ca", tmp_path / "ca") as live:
        argv = ["curl", "-sSf", "--noproxy", "*", "--cacert", tmp_path / "ca" / ca.CA, live.url + "healthz"]
        assert subprocess.run(argv, check=True, capture_output=True).stdout == b"ok\n"


def test_the_log_is_opened_anew(made: Tiny, tmp_path: Path) -> None:
    """After SIGHUP a log that was moved away is written under its name again."""
    with Live(made.store, tmp_path) as live:
        live.get("healthz")
        live.log.rename(tmp_path / "old")
        live.process.send_signal(signal.SIGHUP)
        for _ in range(100):
            live.get("healthz")
            if live.log.exists() and live.log.read_text():
                break
            time.sleep(0.05)
        else:
            raise AssertionError("the log is not there")


def test_the_view_is_the_one_of_the_export(made: Tiny, live: Live) -> None:
    """Every path of the snapshot's views is served, with the very bytes that an export writes."""
    from haversack.verbs import holdings, pages

    store = DiskStore(made.store)
    _, content = holdings.current_snapshot(store)
    view = view_of(content)
    for path in view.paths():
        page = view.get(path)
        assert page is not None
        assert live.get(path).body == pages.body(page, store), path
