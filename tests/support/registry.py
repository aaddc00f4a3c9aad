"""Images made by hand, and the real ``docker-registry`` on loopback, alone or behind a front that misbehaves.

::

    layout = Layout(tmp_path / "layout")
    layout.image("app:1", {"usr/bin/python3": b"#!"}, platforms=("linux/amd64", "linux/arm64"))
    with RealRegistry(tmp_path / "registry") as registry:
        registry.load(layout, "app:1", "team/app:1")            # by skopeo
        with Front(registry, tokens=True) as front: ...         # wants Bearer tokens; front.fail(…) for chaos
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import hashlib
import http.client
import io
import json
import re
import socket
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from tests.support import tiny

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


def digest_of(data: bytes) -> str:
    """The digest of some bytes."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def tarred(files: Mapping[str, bytes | str]) -> bytes:
    """A tar of files; a text instead of bytes is where a symbolic link leads."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.mode = 0o755
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                archive.addfile(info)
            else:
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


class Layout:
    """An OCI image layout in a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "blobs" / "sha256").mkdir(parents=True)
        (root / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
        self._named: list[dict[str, Any]] = []
        self._index()

    def _index(self) -> None:
        told = {"schemaVersion": 2, "manifests": self._named}
        (self.root / "index.json").write_text(json.dumps(told))

    def place(self, digest: str) -> Path:
        """The file of a blob."""
        return self.root / "blobs" / "sha256" / digest.removeprefix("sha256:")

    def blob(self, data: bytes) -> str:
        """Add a blob."""
        self.place(digest_of(data)).write_bytes(data)
        return digest_of(data)

    def put(self, value: Mapping[str, Any], media_type: str, **more: Any) -> dict[str, Any]:
        """Add a JSON blob, and give its descriptor."""
        data = json.dumps(value).encode()
        return {"mediaType": media_type, "digest": self.blob(data), "size": len(data), **more}

    def manifest(
        self,
        platform: str,
        layers: Sequence[Mapping[str, bytes | str] | bytes],
        *,
        plain: bool = False,
        **more: Any,
    ) -> dict[str, Any]:
        """Add an image of one platform; layers are files, or the bytes of a layer as they are.

        ``plain`` leaves the media type out, as umoci does; ``more`` goes into the manifest.
        """
        system, architecture, *variant = platform.split("/")
        packed = [one if isinstance(one, bytes) else gzip.compress(tarred(one), mtime=0) for one in layers]
        spec = {"os": system, "architecture": architecture, **({"variant": variant[0]} if variant else {})}
        diff_ids = [digest_of(gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data) for data in packed]
        config = self.put(
            {**spec, "config": {}, "rootfs": {"type": "layers", "diff_ids": diff_ids}}, OCI_CONFIG
        )
        listed = [{"mediaType": OCI_LAYER, "digest": self.blob(d), "size": len(d)} for d in packed]
        told = {"schemaVersion": 2, "config": config, "layers": listed, **more}
        if not plain:
            told["mediaType"] = OCI_MANIFEST
        return self.put(told, OCI_MANIFEST, platform=spec)

    def index(self, entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Add a list of manifests."""
        return self.put({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": list(entries)}, OCI_INDEX)

    def name(self, name: str, entry: Mapping[str, Any]) -> str:
        """Give an image a name; its digest."""
        self._named = [
            e for e in self._named if e["annotations"]["org.opencontainers.image.ref.name"] != name
        ]
        self._named.append({**entry, "annotations": {"org.opencontainers.image.ref.name": name}})
        self._index()
        return str(entry["digest"])

    def image(
        self, name: str, files: Mapping[str, bytes | str], platforms: Sequence[str] = ("linux/amd64",)
    ) -> str:
        """Add an image: of one platform, or a list of several whose first layer they share; its digest."""
        base = {"etc/shared": b"shared by all of " + name.encode()}
        made = [self.manifest(p, [base, {**files, "etc/platform": p.encode()}]) for p in platforms]
        return self.name(name, made[0] if len(made) == 1 else self.index(made))


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class RealRegistry:
    """``docker-registry`` over a folder; with ``tls`` (certificate and key) https, with ``login`` htpasswd."""

    def __init__(
        self, folder: Path, *, tls: tuple[Path, Path] | None = None, login: tuple[str, str] | None = None
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.tls, self.login = folder, tls, login
        self.port = free_port()
        self.host = f"127.0.0.1:{self.port}"
        self.url = f"{'https' if tls else 'http'}://{self.host}"
        config: dict[str, Any] = {
            "version": 0.1,
            "log": {"level": "error", "accesslog": {"disabled": True}},
            "storage": {"filesystem": {"rootdirectory": str(folder / "data")}, "delete": {"enabled": True}},
            "http": {"addr": self.host},
        }
        if tls:
            config["http"]["tls"] = {"certificate": str(tls[0]), "key": str(tls[1])}
        if login:
            done = subprocess.run(["htpasswd", "-Bbn", *login], capture_output=True, check=True)
            (folder / "htpasswd").write_bytes(done.stdout)
            config["auth"] = {"htpasswd": {"realm": "test", "path": str(folder / "htpasswd")}}
        (folder / "config.yml").write_text(json.dumps(config))
        self._log = (folder / "log").open("wb")
        self._process = subprocess.Popen(
            ["docker-registry", "serve", folder / "config.yml"], stdout=self._log, stderr=self._log
        )
        until = time.monotonic() + 20
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            assert time.monotonic() < until, (folder / "log").read_text()
            time.sleep(0.02)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait()
        self._log.close()

    def blob(self, digest: str) -> Path:
        """The file in which the registry keeps a blob."""
        digits = digest.removeprefix("sha256:")
        return self.folder / "data/docker/registry/v2/blobs/sha256" / digits[:2] / digits / "data"

    def load(self, layout: Layout, name: str, into: str) -> None:
        """Copy an image of a layout into the registry, as it is."""
        skopeo(
            "copy", "-q", "--all", f"oci:{layout.root}:{name}", f"docker://{self.host}/{into}", registry=self
        )

    def delete(self, repository: str, digest: str) -> None:
        """Drop a manifest."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        with contextlib.closing(connection):
            connection.request("DELETE", f"/v2/{repository}/manifests/{digest}")
            assert connection.getresponse().status == 202

    def raw(self, name: str) -> bytes:
        """The bytes of a manifest, as skopeo sees them."""
        return skopeo("inspect", "--raw", f"docker://{self.host}/{name}", registry=self)


def skopeo(verb: str, *words: str | Path, registry: RealRegistry | None = None, whole: bool = True) -> bytes:
    """What skopeo says; raises where it fails.  ``registry`` tells how to get in.

    Without ``whole`` a copy may change digests, as one to an archive of docker does.
    """
    options: list[str] = []
    sides = ("",) if verb in {"inspect", "list-tags"} else ("src-", "dest-")
    for side in sides if registry else ():
        options.append(f"--{side}tls-verify=false")
        if registry and registry.login:
            options += [f"--{side}creds", ":".join(registry.login)]
    if verb == "copy" and whole:
        options.append("--preserve-digests")
    # A machine without /etc/containers/policy.json has none to break.
    argv = ["skopeo", "--insecure-policy", verb, *options, *map(str, words)]
    done = subprocess.run(argv, capture_output=True, env=tiny.environ(Path("none")))
    assert done.returncode == 0, f"{argv}: {done.stderr.decode()}"
    return done.stdout


@dataclass
class Trouble:
    """How answers to requests whose path contains ``path`` go wrong, so many ``times``."""

    path: str
    times: int = 1
    method: str = "GET"
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    cut_at: int | None = None
    flip: bool = False
    drop: Sequence[str] = ()
    """Headers that are left out."""
    redirect: str | None = None
    body: bytes = b"{}"
    """What is said with ``status``."""
    endless: bool = False
    """Send more and more, for as long as the client takes any."""


class Front:
    """A proxy before a registry, with Bearer tokens if asked for, and trouble.

    ``asked`` are the requests (method, path, Authorization) so far; ``issued`` the tokens; ``seconds`` is how
    long a token is good, and ``uses`` for how many requests; ``token`` is what the realm says in place of one.
    """

    def __init__(
        self, behind: RealRegistry, *, tokens: bool = False, login: tuple[str, str] | None = None
    ) -> None:
        self.behind, self.tokens, self.login = behind, tokens, login
        self.seconds, self.uses = 300, 10**9
        self.token: bytes | None = None
        self.asked: list[tuple[str, str, str]] = []
        self.issued: dict[str, int] = {}
        self.troubles: list[Trouble] = []
        self.lock = threading.Lock()
        front = self

        class Handler(_Handler):
            site = front

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self._server.server_address[1]}"
        self.url = f"http://{self.host}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def fail(self, path: str, **fields: Any) -> Trouble:
        """Misbehave from now on."""
        self.troubles.append(Trouble(path, **fields))
        return self.troubles[-1]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def admits(self, word: str) -> bool:
        """Whether a token lets a request in."""
        token = word.removeprefix("Bearer ")
        with self.lock:
            left = self.issued.get(token, 0)
            if left > 0:
                self.issued[token] = left - 1
            return left > 0


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    site: Front

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
        """Requests are recorded, not printed."""

    def _any(self) -> None:
        site, word = self.site, self.headers.get("Authorization", "")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with site.lock:
            site.asked.append((self.command, self.path, word))
        if self.path.startswith("/token"):
            self._token(word)
        elif site.tokens and not site.admits(word):
            scope = re.match(r"/v2/(.+)/(?:manifests|blobs|referrers|tags)/", self.path)
            realm = f'realm="{site.url}/token",service="front"'
            wanted = f',scope="repository:{scope[1]}:pull,push"' if scope else ""
            self._send(401, {"WWW-Authenticate": f"Bearer {realm}{wanted}"}, b"{}")
        else:
            self._answer(body)

    do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = _any  # noqa: N815 - the names are the base class's

    def _answer(self, body: bytes) -> None:
        """What the registry says, or trouble: only requests that were let in meet it."""
        site = self.site
        with site.lock:
            trouble = next(
                (
                    t
                    for t in site.troubles
                    if t.times > 0 and t.path in self.path and t.method == self.command
                ),
                None,
            )
            if trouble:
                trouble.times -= 1
        if trouble and trouble.redirect:
            self._send(307, {"Location": trouble.redirect + self.path}, b"")
        elif trouble and trouble.endless:
            self._endless()
        elif trouble and trouble.status:
            self._send(trouble.status, trouble.headers, trouble.body)
        else:
            self._pass(body, trouble)

    def _endless(self) -> None:
        self.close_connection = True
        self.send_response_only(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        with contextlib.suppress(OSError):
            while True:
                self.wfile.write(b"10000\r\n" + bytes(0x10000) + b"\r\n")

    def _token(self, word: str) -> None:
        site = self.site
        if site.login:
            right = "Basic " + base64.b64encode(":".join(site.login).encode()).decode()
            if word != right:
                self._send(401, {}, b"{}")
                return
        asked = parse_qs(urlsplit(self.path).query)
        with site.lock:
            token = f"token-{len(site.issued)}-{asked.get('scope', ['none'])[0]}"
            site.issued[token] = site.uses
        told = {"token": token, "expires_in": site.seconds}
        said = json.dumps(told).encode() if site.token is None else site.token
        self._send(200, {"Content-Type": "application/json"}, said)

    def _pass(self, body: bytes, trouble: Trouble | None) -> None:
        behind = self.site.behind
        connection = http.client.HTTPConnection("127.0.0.1", behind.port)
        kept = {
            k: v for k, v in self.headers.items() if k.lower() not in {"host", "authorization", "connection"}
        }
        try:
            connection.request(self.command, self.path, body, {**kept, "Host": self.site.host})
            answer = connection.getresponse()
            data = answer.read()
            headers = {k: v for k, v in answer.getheaders() if k.lower() not in {"connection", "date"}}
            status = answer.status
        finally:
            connection.close()
        headers = {k: v for k, v in headers.items() if not trouble or k.lower() not in trouble.drop}
        if trouble and trouble.flip:
            data = data[:-1] + bytes([data[-1] ^ 1])
        self._send(status, headers, data, trouble.cut_at if trouble else None)

    def _send(self, status: int, headers: Mapping[str, str], data: bytes, cut: int | None = None) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in {"content-length", "transfer-encoding"} or self.command == "HEAD":
                self.send_header(name, value)
        if self.command != "HEAD":
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data if cut is None else data[:cut])
        if cut is not None:
            self.close_connection = True


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that is its own authority, and its key."""
    folder.mkdir(parents=True, exist_ok=True)
    cert, key = folder / "cert.pem", folder / "key.pem"
    words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=127.0.0.1"
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)]
    subprocess.run(["openssl", *words.split(), *names], capture_output=True, check=True)
    return cert, key


def unfolded(layout: Path, name: str) -> Iterator[str]:
    """The digests that an index.json of a layout gives a name."""
    for entry in json.loads((layout / "index.json").read_bytes())["manifests"]:
        if entry.get("annotations", {}).get("org.opencontainers.image.ref.name") == name:
            yield entry["digest"]
