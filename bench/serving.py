"""The live server beside other people's: all on this machine, one worker each, in one run.

Loads are made by ``wrk`` and ``curl``, which share the cores with the servers: for fast ones the rate is a
lower bound, and the CPU that a server used says more.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from uv import find_uv_bin

from bench import scale
from bench.lab import Lab, discard
from bench.measure import MIB, BenchError, Row, pairs, timed
from haversack.formats import oci
from haversack.formats.canonical import canonical
from haversack.model.artifact import Artifact, digest_of
from haversack.model.lock import Lock, LockedEnvironment, merge_artifacts
from haversack.model.target import ANY, Target
from haversack.ports.disk import DiskStore

_LINKS, _LARGE, _CLIENTS, _WHEELS = 300, 200 * MIB, 64, 100
_NODE = Target("node", "linux-x86_64", "3.11")
_PEERS = ("pypiserver==2.4.2", "simple-repository-server==0.10.0")
_NGINX = """\
daemon off; worker_processes 1; pid {0}/nginx.pid; error_log {0}/nginx.err; events {{ worker_connections 2048; }}
http {{ access_log off; sendfile on; client_body_temp_path {0}/t; proxy_temp_path {0}/t; fastcgi_temp_path {0}/t;
  uwsgi_temp_path {0}/t; scgi_temp_path {0}/t; keepalive_requests 100000000;
  server {{ listen 127.0.0.1:{1}; root {2}; index index.html; }} }}
"""


@dataclass(frozen=True)
class Running:
    """A server that answers: its address, and its process."""

    port: int
    process: subprocess.Popen[bytes]

    def cpu(self) -> float:
        """Seconds of CPU that it and its children have used."""
        found = 0.0
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                pid, parent, times = _stat(stat)
                if self.process.pid in {pid, parent}:
                    found += times
        return found

    def resident(self) -> int:
        """Bytes of memory that it has had at most."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.findall(r"VmHWM:\s+(\d+)", status)[0]) * 1024


def _stat(path: Path) -> tuple[int, int, float]:
    fields = path.read_text().rpartition(")")[2].split()
    ticks = os.sysconf("SC_CLK_TCK")
    return int(path.parent.name), int(fields[1]), (int(fields[11]) + int(fields[12])) / ticks


@contextlib.contextmanager
def running(
    lab: Lab, argv: Callable[[int], Sequence[str | Path]], path: str, **env: str | Path
) -> Iterator[Running]:
    """A server at a free port, once it answers at ``path``; ended afterwards."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    with (lab.work / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [str(word) for word in argv(port)], env=lab.environ(**env), stdout=log, stderr=log
        )
        try:
            for _ in range(1000):
                if process.poll() is not None:
                    raise BenchError((lab.work / "server.log").read_text()[-2000:])
                with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}{path}"):
                    break
                time.sleep(0.02)
            else:
                raise BenchError(f"nobody answers at {path}")
            yield Running(port, process)
        finally:
            process.terminate()
            process.wait(40)


def ours(lab: Lab, store: Path) -> Callable[[int], Sequence[str | Path]]:
    """The argv of our server over a store."""
    words = ("--access-log", lab.work / "access.log", "--store", store)
    return lambda port: [sys.executable, "-m", "haversack", "serve", "--listen", f"127.0.0.1:{port}", *words]


def nginx(lab: Lab, root: Path) -> Callable[[int], Sequence[str | Path]]:
    """The argv of nginx over a folder."""

    def argv(port: int) -> Sequence[str | Path]:
        folder = lab.work / "nginx"
        folder.mkdir(exist_ok=True)
        user = "user root;\n" if os.geteuid() == 0 else ""
        (folder / "conf").write_text(user + _NGINX.format(folder, port, root))
        return ["nginx", "-p", folder, "-c", folder / "conf"]

    return argv


def stocked(folder: Path, wheels: Sequence[Path]) -> None:
    """A store with one snapshot of some wheels."""
    artifacts = []
    for path in wheels:
        name, version, *_ = path.name.split("-")
        digest = digest_of(path.read_bytes())
        origin = f"path:{path.name}"
        artifacts.append(
            Artifact("wheel", name, version, path.name, digest, path.stat().st_size, origin, ("all/node",))
        )
    merged = merge_artifacts(artifacts)
    lock = Lock("bench", digest_of(b""), (_NODE,), (LockedEnvironment("all", "node", "pip"),), merged)
    content, metadata = oci.build(lock, {a.digest: (a.size or 0, {}) for a in merged})
    store = DiskStore(folder, create=True)
    with store.exclusive():
        for data in (*metadata.values(), *(path.read_bytes() for path in wheels)):
            store.add(digest_of(data), [data])
        named = [oci.named(content.id, content.blobs[content.id], name) for name in ("2026-11", "current")]
        store.publish({**oci.empty_index(), "manifests": named})


def wheel(folder: Path, name: str, version: str, size: int = 0) -> Path:
    """A wheel with some noise in it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}/__init__.py", f"version = {version!r}\n")
        for start in range(0, size, 50 * MIB):
            archive.writestr(f"{name}/{start}.bin", random.randbytes(min(50 * MIB, size - start)))
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        names = "".join(f"{member},,\n" for member in archive.namelist())
        archive.writestr(f"{info}/RECORD", f"{names}{info}/RECORD,,\n")
    return path


def served(lab: Lab) -> Iterator[Row]:
    """Every row about the live server."""
    yield from _index_page(lab)
    yield from _large_file(lab)
    yield from _start(lab)
    yield from _many_clients(lab)
    yield from _image(lab)


def _rate(url: str) -> float:
    """Requests a second that ``wrk`` gets answered."""
    said = subprocess.run(
        ["wrk", "-t1", "-c16", "-d3s", "--timeout", "20s", url], capture_output=True, text=True, check=True
    ).stdout
    if "Non-2xx" in said:
        raise BenchError(said)
    return float(re.findall(r"Requests/sec:\s+([\d.]+)", said)[0])


def _index_page(lab: Lab) -> Iterator[Row]:
    """One page of 300 links."""
    folder = lab.work / "page"
    wheels = [wheel(folder / "wheels/demo", "demo", f"1.{number}") for number in range(_LINKS)]
    stocked(folder / "store", wheels)
    peers = lab.scratch / "serving-peers"
    if not (peers / "bin/pypi-server").exists():
        python = peers / "bin/python"
        timed([find_uv_bin(), "venv", "--quiet", "--python", sys.executable, peers], env=lab.environ())
        timed([find_uv_bin(), "pip", "install", "--quiet", "--python", python, *_PEERS], env=lab.environ())
    with running(lab, ours(lab, folder / "store"), "/pypi/simple/demo/") as server:
        page = urllib.request.urlopen(f"http://127.0.0.1:{server.port}/pypi/simple/demo/").read()
        (folder / "static/simple/demo").mkdir(parents=True)
        (folder / "static/simple/demo/index.html").write_bytes(page)
        rivals: list[tuple[str, Callable[[int], Sequence[str | Path]], str, float]] = [
            ("nginx", nginx(lab, folder / "static"), "/simple/demo/", 1 / 4),
            (
                "pypiserver",
                lambda port: [
                    peers / "bin/pypi-server",
                    "run",
                    "-i",
                    "127.0.0.1",
                    "-p",
                    str(port),
                    folder / "wheels",
                ],
                "/simple/demo/",
                50.0,
            ),
            (
                "simple-repository-server",
                lambda port: [peers / "bin/simple-repository-server", "--port", str(port), folder / "wheels"],
                "/simple/demo/",
                50.0,
            ),
        ]
        for name, argv, path, limit in rivals:
            with running(lab, argv, path) as peer:
                left, right = [], []
                for _ in range(lab.runs):
                    left.append(_rate(f"http://127.0.0.1:{server.port}/pypi/simple/demo/"))
                    right.append(_rate(f"http://127.0.0.1:{peer.port}{path}"))
            yield Row(
                f"index page of {_LINKS} links", "/s", tuple(left), tuple(right), name, limit, floor=True
            )


def _large_file(lab: Lab) -> Iterator[Row]:
    """One wheel of 200 MB: its rate, and the CPU it costs."""
    folder = lab.work / "file"
    path = wheel(folder / "wheels", "large", "1.0", _LARGE)
    stocked(folder / "store", [path])
    digits = digest_of(path.read_bytes()).removeprefix("sha256:")
    place = f"/pypi/files/{digits[:2]}/{digits}/{path.name}"
    with (
        running(lab, ours(lab, folder / "store"), place) as server,
        running(lab, nginx(lab, folder / "wheels"), f"/{path.name}") as peer,
    ):
        for one, name in ((server, place), (peer, f"/{path.name}")):
            _speed(f"http://127.0.0.1:{one.port}{name}")
        rates: dict[int, list[float]] = {server.port: [], peer.port: []}
        costs: dict[int, list[float]] = {server.port: [], peer.port: []}
        for _ in range(lab.runs):
            for one, name in ((server, place), (peer, f"/{path.name}")):
                before, count = one.cpu(), 5
                speeds = [_speed(f"http://127.0.0.1:{one.port}{name}") for _ in range(count)]
                rates[one.port].append(statistics.median(speeds) / 1e9)
                costs[one.port].append((one.cpu() - before) / (count * path.stat().st_size / 1e9))
    both = tuple(rates[server.port]), tuple(rates[peer.port])
    yield Row("one 200 MB wheel", "GB/s", *both, "nginx, sendfile", 0.9, floor=True)
    both = tuple(costs[server.port]), tuple(max(cost, 1e-3) for cost in costs[peer.port])
    yield Row("CPU for it", "s/GB", *both, "nginx, sendfile", 1.5)


def _speed(url: str) -> float:
    argv = ["curl", "-sSf", "--noproxy", "*", "-o", os.devnull, "-w", "%{speed_download}", url]
    return float(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)


def _start(lab: Lab) -> Iterator[Row]:
    """From nothing to the first answer of a store with 20,000 artifacts."""
    folder = lab.work / "many"
    scale.build(folder, 20_000)
    ready, first, peaks = [], [], []
    for _ in range(lab.runs):
        begun = time.perf_counter()
        with running(lab, ours(lab, folder / "store"), "/v2/") as server:
            ready.append(time.perf_counter() - begun)
            urllib.request.urlopen(f"http://127.0.0.1:{server.port}/pypi/simple/").read()
            first.append(time.perf_counter() - begun)
            peaks.append(server.resident() / MIB)
    yield Row("start with 20,000 artifacts", "s", tuple(ready), limit=1.0)
    yield Row("and its first index page", "s", tuple(first))
    yield Row("memory with them", "MiB", tuple(peaks), limit=200)


def _many_clients(lab: Lab) -> Iterator[Row]:
    """64 clients, each downloading 100 wheels, beside the same by as many at once as keep the server busy."""
    folder = lab.work / "clients"
    wheels = [wheel(folder / "wheels", f"part{number}", "1.0", 300_000) for number in range(_WHEELS)]
    stocked(folder / "store", wheels)
    places = []
    for path in wheels:
        digits = digest_of(path.read_bytes()).removeprefix("sha256:")
        places += [
            f"/pypi/simple/{path.name.split('-')[0]}/",
            f"/pypi/files/{digits[:2]}/{digits}/{path.name}",
        ]
    with running(lab, ours(lab, folder / "store"), "/pypi/simple/part0/") as server:
        config = folder / "curl"
        lines = (f'url = "http://127.0.0.1:{server.port}{place}"\noutput = "/dev/null"\n' for place in places)
        config.write_text("".join(lines))
        curl: list[str | Path] = ["curl", "-sSf", "--noproxy", "*", "-K", config]

        def client(_: int) -> None:
            timed(curl, env=lab.environ())

        many, limit = [], []
        for _ in range(lab.runs):
            many.append(_clients(client, _CLIENTS, _CLIENTS))
            limit.append(_clients(client, os.cpu_count() or 2, _CLIENTS))
    discard(folder)
    note = "as many clients at once as there are cores"
    yield Row(
        f"{_CLIENTS} clients, {_WHEELS} wheels each",
        "wheels/s",
        tuple(many),
        tuple(limit),
        note,
        0.8,
        floor=True,
    )


_REGISTRY = """\
version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {0}/data}}}}
http: {{addr: "127.0.0.1:{1}"}}
"""


def _image(lab: Lab) -> Iterator[Row]:
    """skopeo pulls an image of five layers of 200 MB, which none of the servers packs or unpacks."""
    folder = lab.work / "image"
    (folder / "layout/blobs/sha256").mkdir(parents=True)

    def add(data: bytes, media_type: str) -> dict[str, object]:
        digest = digest_of(data)
        (folder / "layout/blobs/sha256" / digest.removeprefix("sha256:")).write_bytes(data)
        return {"mediaType": media_type, "digest": digest, "size": len(data)}

    layers = [add(random.randbytes(_LARGE), "application/vnd.oci.image.layer.v1.tar") for _ in range(5)]
    described = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}
    config = add(canonical(described), "application/vnd.oci.image.config.v1+json")
    body = {"schemaVersion": 2, "mediaType": oci.MANIFEST, "config": config, "layers": layers}
    root = add(canonical(body), oci.MANIFEST)
    named = {**root, "annotations": {oci.REF_NAME: "big"}}
    (folder / "layout/index.json").write_bytes(canonical({"schemaVersion": 2, "manifests": [named]}))
    (folder / "layout/oci-layout").write_bytes(oci.LAYOUT_FILE)
    facts: dict[str, object] = {
        "role": "manifest",
        "refs": ["registry.example.org/team/big:1"],
        "children": [str(part["digest"]) for part in (*layers, config)],
    }
    artifacts = [_part(root, facts), _part(config, {"role": "config"})]
    artifacts += [_part(layer, {"role": "layer"}) for layer in layers]
    lock = Lock(
        "bench",
        digest_of(b""),
        (ANY,),
        (LockedEnvironment("images", "any", "image"),),
        merge_artifacts(artifacts),
    )
    content, metadata = oci.build(lock, {a.digest: (a.size or 0, {}) for a in artifacts})
    store = DiskStore(folder / "store", create=True)
    with store.exclusive():
        for digest, data in metadata.items():
            store.add(digest, [data])
        for path in (folder / "layout/blobs/sha256").iterdir():
            store.add(f"sha256:{path.name}", [path.read_bytes()])
        names = [oci.named(content.id, content.blobs[content.id], name) for name in ("2026-11", "current")]
        store.publish({**oci.empty_index(), "manifests": names})

    def registry(port: int) -> Sequence[str | Path]:
        (folder / "registry.yml").write_text(_REGISTRY.format(folder, port))
        return ["docker-registry", "serve", folder / "registry.yml"]

    skopeo = ["skopeo", "--insecure-policy", "copy", "-q"]

    def pull(place: str) -> float:
        with lab.fresh("pulled") as pulled:
            words = [*skopeo, "--src-tls-verify=false", f"docker://{place}", f"dir:{pulled}"]
            return timed(words, env=lab.environ()).seconds

    with (
        running(lab, ours(lab, folder / "store"), "/v2/") as server,
        running(lab, registry, "/v2/") as peer,
    ):
        push = [*skopeo, "--dest-tls-verify=false", f"oci:{folder}/layout:big"]
        timed([*push, f"docker://127.0.0.1:{peer.port}/team/big:1"], env=lab.environ())
        # The first pull pays for the hashing of every blob, which the peer does never.
        first = pull(f"127.0.0.1:{server.port}/registry.example.org/team/big:1")
        pull(f"127.0.0.1:{peer.port}/team/big:1")
        both = pairs(
            lambda: pull(f"127.0.0.1:{server.port}/registry.example.org/team/big:1"),
            lambda: pull(f"127.0.0.1:{peer.port}/team/big:1"),
            lab.runs,
        )
    discard(folder)
    yield Row("first pull of a 1 GB image", "s", (first,))
    yield Row("pull of a 1 GB image", "s", *both, "docker-registry", 1.0)


def _part(described: dict[str, object], facts: dict[str, object]) -> Artifact:
    digest = str(described["digest"])
    name = f"{digest.removeprefix('sha256:')}.bin"
    told = {"media_type": described["mediaType"], **facts}
    size = int(str(described["size"]))
    return Artifact("image", "big", "", name, digest, size, "archive:x", ("images/any",), told)


def _clients(client: Callable[[int], None], at_once: int, count: int) -> float:
    begun = time.perf_counter()
    with ThreadPoolExecutor(at_once) as pool:
        list(pool.map(client, range(count)))
    return count * _WHEELS / (time.perf_counter() - begun)
