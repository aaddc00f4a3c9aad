"""The client of registries: logins, tokens, and registries that go wrong."""

from __future__ import annotations

import base64
import json
import re
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from haversack.errors import FetchError, IntegrityError, NotFoundError
from haversack.model.site import Credentials, Registry
from haversack.ports import Manifest
from haversack.ports.credentials import IndexCredentials
from haversack.ports.registry import HttpRegistries
from haversack.ports.tokens import challenges
from haversack.testing import MemoryRegistries
from haversack.testing.contracts import FetchBench, FetchContract, RegistriesBench, RegistriesContract
from haversack.testing.contracts.fetch import BODY
from haversack.verbs import collect
from tests.support import tiny
from tests.support.imagesite import HOST, ImageSite, told
from tests.support.registry import Front, Layout, RealRegistry, certificate, digest_of, skopeo

LOGIN = ("alice", "s3cret:with colon")
APP = f"{HOST}/team/app"
NOISE = bytes(range(256)) * 4096


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """An image with a layer of a mebibyte."""
    made = Layout(tmp_path_factory.mktemp("layout") / "layout")
    made.name("app", made.manifest("linux/amd64", [{"usr/bin/python3": b"x"}, NOISE]))
    made.blob(BODY)
    return made


@pytest.fixture(scope="module")
def plain(layout: Layout, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealRegistry]:
    """A registry that lets everybody in."""
    with RealRegistry(tmp_path_factory.mktemp("plain")) as running:
        running.load(layout, "app", "team/app:1")
        yield running


def client(url: str, credentials: Credentials | None = None, **options: Any) -> HttpRegistries:
    """A client of one registry, quick to give up."""
    quick = {"attempts": 4, "timeout": 5, "backoff": 0.01, "longest_wait": 0.5, **options}
    return HttpRegistries([Registry("main", url, HOST)], lambda _: credentials, **quick)


def origin(digest: str) -> str:
    """The origin of a blob."""
    return f"docker://{APP}/blobs/{digest}"


def test_tls_and_a_password(layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A registry with its own certificate and htpasswd gives the manifest that was pushed, with `docker login`'s file."""
    tls = certificate(tmp_path / "tls")
    (tmp_path / "docker").mkdir()
    with RealRegistry(tmp_path / "registry", tls=tls, login=LOGIN) as registry:
        registry.load(layout, "app", "team/app:1")
        word = base64.b64encode(":".join(LOGIN).encode()).decode()
        config = {"auths": {f"https://{registry.host}": {"auth": word}}}
        (tmp_path / "docker" / "config.json").write_text(json.dumps(config))
        environ = {"DOCKER_CONFIG": str(tmp_path / "docker"), "HOME": str(tmp_path), "XDG_RUNTIME_DIR": ""}
        declared = [Registry("main", registry.url, HOST, "docker")]
        credentials = IndexCredentials(declared, environ)
        untrusting = HttpRegistries(declared, credentials.by_registry, attempts=1)
        with pytest.raises(FetchError, match="certificate is not trusted"):
            untrusting.manifest(APP, "1")
        monkeypatch.setenv("SSL_CERT_FILE", str(tls[0]))
        registries = HttpRegistries(declared, credentials.by_registry, attempts=1)
        assert registries.manifest(APP, "1").data == registry.raw("team/app:1")
        wrong = HttpRegistries(declared, lambda _: Credentials("alice", "wr0ng"), attempts=1)
        with pytest.raises(FetchError, match="401") as caught:
            wrong.manifest(APP, "1")
        assert "wr0ng" not in f"{caught.value} {caught.value.remedy} {caught.value.__cause__}"
        with pytest.raises(FetchError, match="401"):
            HttpRegistries(declared, lambda _: None, attempts=1).manifest(APP, "1")


@pytest.mark.parametrize("auth", ["helper", "missing", "broken"])
def test_logins_of_docker(auth: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A credential helper is asked; where nobody is logged in, that is told without a word of the file."""
    program = tmp_path / "bin" / "docker-credential-test"
    program.parent.mkdir()
    program.write_text(
        '#!/bin/sh\nread host\necho "{\\"Username\\": \\"bob\\", \\"Secret\\": \\"of $host\\"}"\n'
    )
    program.chmod(0o755)
    text = {
        "helper": json.dumps({"credHelpers": {"hub.example": "test"}}),
        "missing": json.dumps({"auths": {"other.example": {"auth": "c2VjcmV0"}}}),
        "broken": '{"auths": {"hub.example": {"auth": "c2VjcmV0"',
    }[auth]
    (tmp_path / "config.json").write_text(text)
    environ = {
        "DOCKER_CONFIG": str(tmp_path), "HOME": str(tmp_path), "PATH": f"{program.parent}:/usr/bin:/bin",
    }  # fmt: skip
    registry = Registry("main", "https://mirror.example", "hub.example", "docker")
    credentials = IndexCredentials([registry], environ)
    if auth == "helper":
        found = credentials.by_registry("https://mirror.example/v2/")
        assert found is not None
        assert (found.username, found.password) == ("bob", "of hub.example")
        assert credentials.by_url("https://mirror.example/") is None
    else:
        with pytest.raises(FetchError, match=r"podman login|nobody is logged in|not a file") as caught:
            credentials.by_registry("https://mirror.example/v2/")
        assert "c2VjcmV0" not in f"{caught.value} {caught.value.remedy}"


def test_challenges_are_read() -> None:
    """Schemes, quoted values with commas, and several challenges in one header."""
    text = 'Bearer realm="https://a/t",service="x",scope="repository:a/b:pull,push", Basic realm="y"'
    bearer, basic = challenges(text)
    assert (bearer.scheme, bearer.get("scope")) == ("bearer", "repository:a/b:pull,push")
    assert (basic.scheme, basic.get("realm")) == ("basic", "y")
    assert challenges("Negotiate") == []


def test_tokens(plain: RealRegistry, layout: Layout) -> None:
    """The realm is asked once for many requests, with the login, which the registry itself never sees."""
    with Front(plain, tokens=True, login=LOGIN) as front:
        registries = client(front.url, Credentials(*LOGIN))
        assert registries.manifest(APP, "1").data == plain.raw("team/app:1")
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: registries.manifest(APP, "1"), range(16)))
        assert len(front.issued) == 1
        basic = [path for _, path, word in front.asked if word.startswith("Basic")]
        assert basic
        assert all(path.startswith("/token") for path in basic)
    with Front(plain, tokens=True, login=LOGIN) as front, pytest.raises(FetchError, match="401"):
        client(front.url, Credentials("alice", "wrong")).manifest(APP, "1")


def test_tokens_for_nobody(plain: RealRegistry) -> None:
    """A realm that asks no login gives a token all the same."""
    with Front(plain, tokens=True) as front:
        assert client(front.url).manifest(APP, "1").data == plain.raw("team/app:1")


def test_a_token_that_runs_out_in_the_middle(plain: RealRegistry, tmp_path: Path) -> None:
    """A transfer that breaks off goes on with a new token, from where it was."""
    digest = digest_of(NOISE)
    with Front(plain, tokens=True) as front:
        front.uses = 1
        front.fail("/blobs/", cut_at=500_000)
        size = client(front.url).get(origin(digest), digest, tmp_path / "file", lambda _: None)
        assert size == len(NOISE)
        assert (tmp_path / "file").read_bytes() == NOISE
        assert len(front.issued) >= 2


def test_patience(plain: RealRegistry, layout: Layout, tmp_path: Path) -> None:
    """429 with Retry-After, 503 and connections that break are waited out, for manifests and for layers."""
    digest = digest_of(NOISE)
    with Front(plain) as front:
        front.fail("/manifests/", status=429, headers={"Retry-After": "0"}, times=2)
        front.fail("/blobs/", status=503)
        front.fail("/blobs/", cut_at=100)
        front.fail("/manifests/", cut_at=10)
        registries = client(front.url)
        assert registries.manifest(APP, "1").data == plain.raw("team/app:1")
        assert registries.get(origin(digest), digest, tmp_path / "file", lambda _: None) == len(NOISE)
        front.fail("/manifests/", status=429, times=100)
        with pytest.raises(FetchError, match="429"):
            registries.manifest(APP, "1")


def test_waiting_is_told(plain: RealRegistry, tmp_path: Path) -> None:
    """lock, pack and push name a registry that asks for patience while they wait for it."""
    bundle = tmp_path / "bundle"
    with Front(plain) as front:
        site = ImageSite(tmp_path, front.url)
        site.declare(f'ref = "{APP}:1"')

        def told(path: str, *words: str | Path, method: str = "GET") -> str:
            front.fail(path, method=method, status=429, headers={"Retry-After": "2"})
            done = tiny.haversack(*words, store=tmp_path / "store", cwd=site.root)
            assert done.returncode == 0, done.stdout + done.stderr
            return done.stderr

        line = f"waiting 2 s: {front.host} asks for patience\n"
        assert told("/manifests/1", "lock") == line
        assert told(f"/blobs/{digest_of(NOISE)}", "pack", "-o", bundle, "--no-rehearse").count(line) == 1
        done = tiny.haversack("receive", bundle, store=tmp_path / "inside")
        assert done.returncode == 0, done.stderr
        front.fail("/v2/", method="HEAD", status=429, headers={"Retry-After": "2"})
        done = tiny.haversack("push", front.url, store=tmp_path / "inside")
        assert (done.returncode, done.stderr.count(line)) == (0, 1), done.stderr


def test_redirects_get_no_login(plain: RealRegistry, tmp_path: Path) -> None:
    """Layers lie elsewhere at many registries: no token and no password goes there."""
    digest = digest_of(NOISE)
    with Front(plain) as storage, Front(plain, tokens=True, login=LOGIN) as front:
        front.fail("/blobs/", redirect=storage.url)
        client(front.url, Credentials(*LOGIN)).get(origin(digest), digest, tmp_path / "f", lambda _: None)
        assert [word for _, _, word in storage.asked] == [""]


def test_lies(plain: RealRegistry, tmp_path: Path) -> None:
    """A layer, or a manifest by digest or by tag, that is not what it is called is refused and named."""
    digest = digest_of(NOISE)
    root = digest_of(plain.raw("team/app:1"))
    with Front(plain) as front:
        front.fail("/", flip=True, times=100)
        registries = client(front.url)
        with pytest.raises(IntegrityError, match=digest):
            registries.get(origin(digest), digest, tmp_path / "f", lambda _: None)
        for reference in ("1", root):
            with pytest.raises(IntegrityError, match="app"):
                registries.manifest(APP, reference)


def test_registries_without_an_end(plain: RealRegistry, tmp_path: Path) -> None:
    """A layer, a config and a manifest are bounded: by what the manifest says, and by what a manifest may be."""
    site = ImageSite(tmp_path, plain.url)
    site.declare(f'ref = "{APP}:1"')
    locked = site.lock()
    with Front(plain) as front:
        partial = tmp_path / "outside" / "haversack" / "cache" / "partial"
        site = ImageSite(tmp_path, front.url)
        site.declare(f'ref = "{APP}:1"')
        for left in partial.iterdir():
            left.unlink()
        front.fail("/blobs/", endless=True, times=1000)
        (finding,) = site.lock().findings
        assert finding.code == "image-invalid"
        assert re.search("more than the [0-9]{2,4} bytes", finding.message)
        out, lock = site.outside(), site.lock_of(locked)
        with pytest.raises(IntegrityError) as caught:
            collect.collect(lock, tmp_path, collect.plan(lock, out), out)
        assert {finding.code for finding in caught.value.findings} == {"blob-damaged"}
        assert any(f"more than the {len(NOISE)} bytes" in str(found) for found in caught.value.findings)
        assert [left.stat().st_size for left in partial.iterdir()] == []
        front.fail("/manifests/", endless=True, times=1000)
        with pytest.raises(FetchError, match=r"sent more than [0-9]+ bytes"):
            client(front.url).manifest(APP, "1")


def test_what_is_not_there(plain: RealRegistry) -> None:
    """A tag or a digest that the registry has not is NotFoundError, naming it."""
    for reference in ("nine", digest_of(b"nothing")):
        with pytest.raises(NotFoundError, match="team/app"):
            client(plain.url).manifest(APP, reference)
    assert client(plain.url).referrers(APP, digest_of(b"nothing")) == ()


def test_referrers_by_tag(plain: RealRegistry, layout: Layout) -> None:
    """Where a registry has no list of referrers, the tag that stands in for it is read."""
    subject = digest_of(b"subject")
    entry = layout.manifest("unknown/unknown", [{"a": b"b"}])
    layout.name("about", layout.index([entry]))
    plain.load(layout, "about", f"team/app:{subject.replace(':', '-')}")
    assert client(plain.url).referrers(APP, subject) == (entry["digest"],)


def test_a_realm_that_is_no_place_for_passwords(plain: RealRegistry) -> None:
    """A realm that is no URL is refused; so is a token that would begin another header."""
    with Front(plain) as front:
        challenge = {"WWW-Authenticate": 'Bearer realm="ftp://a.example/t"'}
        front.fail("/manifests/", status=401, headers=challenge, times=9)
        with pytest.raises(FetchError, match="no https URL"):
            client(front.url).manifest(APP, "1")


def test_signatures_that_cannot_be_asked_for(plain: RealRegistry, tmp_path: Path) -> None:
    """A registry that has no list of them has none; one that fails is told of, and the image crosses all the same."""
    with Front(plain) as front:
        site = ImageSite(tmp_path, front.url)
        site.declare(f'ref = "{APP}:1"')
        for status in (404, 405):
            front.fail("/referrers/", status=status)
            assert told(site.lock().findings) == []
        for path in ("/referrers/", ".sig"):
            trouble = front.fail(path, status=500, times=9)
            locked = site.lock()
            assert told(locked.findings) == [("image-signatures", False)]
            assert "500" in locked.findings[0].message
            assert locked.artifacts
            trouble.times = 0


def test_answers_that_nobody_can_read(plain: RealRegistry) -> None:
    """Lists of any depth and of other things than lists are errors that name the repository."""
    digest = digest_of(b"subject")
    with Front(plain) as front:
        for body in (b"[" * 200_000, b"[]", b'{"manifests": 5}'):
            front.fail("/referrers/", status=200, body=body)
            with pytest.raises(FetchError, match="team/app"):
                client(front.url).referrers(APP, digest)
        for body, there in ((b'{"manifests": null}', ()), (b'{"manifests": [5, {"digest": 5}]}', ())):
            front.fail("/referrers/", status=200, body=body)
            assert client(front.url).referrers(APP, digest) == there
    for body in (b"[" * 200_000, b'{"token": "a", "expires_in": 1' + b"0" * 400 + b"}"):
        with Front(plain, tokens=True) as front:
            front.token = body
            with pytest.raises(FetchError, match="no token that can be read"):
                client(front.url, attempts=1).manifest(APP, "1")


@pytest.mark.parametrize("tls", [False, True])
def test_a_realm_that_redirects_gets_the_password_alone(
    plain: RealRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tls: bool
) -> None:
    """Where a realm redirects to, no password goes; and from https nothing goes to plain http at all."""
    with Front(plain) as thief, Front(plain) as front, elsewhere(f"{thief.url}/token") as realm:
        if tls:
            cert, key = certificate(tmp_path / "tls")
            monkeypatch.setenv("SSL_CERT_FILE", str(cert))
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(cert, key)
            realm.socket = context.wrap_socket(realm.socket, server_side=True)
        scheme = "https" if tls else "http"
        where = f'Bearer realm="{scheme}://127.0.0.1:{realm.server_port}/token"'
        front.fail("/manifests/", status=401, headers={"WWW-Authenticate": where}, times=1)
        registries = client(front.url, Credentials(*LOGIN), attempts=1)
        if tls:
            with pytest.raises(FetchError, match="from https to plain http"):
                registries.manifest(APP, "1")
            assert thief.asked == []
        else:
            assert registries.manifest(APP, "1").data == plain.raw("team/app:1")
            assert [word for _, _, word in thief.asked] == [""]


@contextmanager
def elsewhere(place: str) -> Iterator[ThreadingHTTPServer]:
    """A server that redirects every request to one place."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
            """Say nothing."""

        def do_GET(self) -> None:
            self.send_response(302)
            self.send_header("Location", place)
            self.send_header("Content-Length", "0")
            self.end_headers()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_lock_survives_a_bad_day(plain: RealRegistry, tmp_path: Path) -> None:
    """Lock and pack through a registry that wants tokens, answers 429 and breaks off give the same image."""
    with Front(plain, tokens=True, login=LOGIN) as front:
        front.uses = 5
        front.fail("/manifests/", status=429, headers={"Retry-After": "0"})
        front.fail("/blobs/", cut_at=1000, times=2)
        environ = {"HAVERSACK_REGISTRY_MAIN_USERNAME": LOGIN[0], "HAVERSACK_REGISTRY_MAIN_PASSWORD": LOGIN[1]}
        site = ImageSite(tmp_path, front.url, auth="env", environ=environ)
        site.declare(f'ref = "{APP}:1"')
        locked = site.lock()
        assert told(locked.findings) == []
        prefix = site.install(site.pack(locked))
    assert skopeo("inspect", "--raw", f"oci:{prefix}:{APP}:1") == plain.raw("team/app:1")
    written = "".join(path.read_text() for path in tmp_path.rglob("*.json*"))
    assert LOGIN[1] not in written
    assert "token-" not in written


class TestHttpRegistries(RegistriesContract):
    """A real registry."""

    @pytest.fixture
    def bench(self, plain: RealRegistry) -> RegistriesBench:
        """The image of the other tests."""
        return RegistriesBench(client(plain.url), APP, "1", digest_of(plain.raw("team/app:1")))


class TestMemoryRegistries(RegistriesContract):
    """The twin in memory."""

    @pytest.fixture
    def bench(self) -> RegistriesBench:
        """One image."""
        manifest = Manifest("application/vnd.oci.image.manifest.v1+json", b"{}")
        return RegistriesBench(MemoryRegistries({f"{APP}:1": manifest}), APP, "1", digest_of(b"{}"))


class TestImagesAreFetched(FetchContract):
    """A registry as a fetch: parts of images by their origins."""

    @pytest.fixture
    def bench(self, plain: RealRegistry, layout: Layout) -> FetchBench:
        """A blob that is there, and one that is not."""
        layout.name("body", layout.manifest("linux/amd64", [BODY]))
        plain.load(layout, "body", "team/app:body")
        absent = origin(digest_of(b"absent"))
        return FetchBench(client(plain.url, attempts=1), origin(digest_of(BODY)), absent)
