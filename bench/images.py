"""An image out of a real ``docker-registry`` into the store, beside ``skopeo copy``; both hash what arrives.

Ours is a process of its own (``python -m bench.images SITE STORE``) that resolves the tag, as skopeo does, and
then does what ``pack`` does first.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.lab import Lab
from bench.measure import MIB, BenchError, Row, pairs, timed
from haversack.cli.setting import Setting
from haversack.formats.declaration import parse
from haversack.kinds import keys, kinds
from haversack.model.lock import Lock, merge_artifacts
from haversack.model.target import ANY
from haversack.verbs import collect as collecting

_LAYERS, _SIZE = 5, 200 * MIB
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@contextmanager
def registry(lab: Lab, folder: Path) -> Iterator[str]:
    """The host of a ``docker-registry`` without TLS over a folder."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{found.getsockname()[1]}"
    folder.mkdir(parents=True)
    config = {
        "version": 0.1,
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
        "http": {"addr": host},
    }
    (folder / "config.yml").write_text(json.dumps(config))
    with (folder / "log").open("wb") as log:
        argv = ["docker-registry", "serve", str(folder / "config.yml")]
        with subprocess.Popen(argv, env=lab.environ(), stdout=log, stderr=log) as process:
            try:
                _wait(host)
                yield host
            finally:
                process.terminate()


def _wait(host: str) -> None:
    name, _, port = host.partition(":")
    for _ in range(500):
        try:
            socket.create_connection((name, int(port)), 1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise BenchError("docker-registry did not start")


def made(folder: Path) -> Path:
    """An OCI layout with one image of random layers, named ``big``."""
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def keep(data: bytes, media_type: str) -> dict[str, object]:
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}

    def text(value: object) -> bytes:
        return json.dumps(value).encode()

    # Whoever looks for a compression finds that of the media type, and nothing inflates them here.
    layers = [keep(b"\x1f\x8b\x08" + os.urandom(_SIZE - 3), _LAYER) for _ in range(_LAYERS)]
    spec = {
        "os": "linux",
        "architecture": "amd64",
        "rootfs": {"type": "layers", "diff_ids": []},
        "config": {},
    }
    config = keep(text(spec), _CONFIG)
    manifest = {"schemaVersion": 2, "mediaType": _MANIFEST, "config": config, "layers": layers}
    named = {"org.opencontainers.image.ref.name": "big"}
    entry = {**keep(text(manifest), _MANIFEST), "annotations": named}
    (folder / "index.json").write_bytes(text({"schemaVersion": 2, "manifests": [entry]}))
    (folder / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    return folder


def images(lab: Lab) -> Iterator[Row]:
    """A gigabyte in five layers; nothing of it is known on either side before."""
    with registry(lab, lab.work / "registry") as host:
        with lab.fresh("image-layout") as folder:
            source = f"oci:{made(folder)}:big"
            push = ["skopeo", "--insecure-policy", "copy", "-q", "--dest-tls-verify=false", source]
            timed([*push, f"docker://{host}/team/big:1"], env=lab.environ())
        site = lab.work / "image-site"
        site.mkdir()
        table = f'[registry.here]\nurl = "http://{host}"\n[[image]]\nref = "{host}/team/big:1"\n'
        (site / "haversack.toml").write_text(f'[site]\nname = "big"\n{table}')

        def ours() -> float:
            with lab.fresh("image-store") as store:
                return lab.python("-m", "bench.images", site, store).seconds

        def peer() -> float:
            with lab.fresh("image-copy") as folder:
                copy = ["skopeo", "--insecure-policy", "copy", "-q", "--src-tls-verify=false"]
                done = timed([*copy, f"docker://{host}/team/big:1", f"oci:{folder}:big"], env=lab.environ())
                return done.seconds

        both = pairs(ours, peer, lab.runs)
    name = f"copy an image of {_LAYERS} layers, {_LAYERS * _SIZE // MIB} MiB, into the store"
    yield Row(name, "s", *both, "skopeo copy to an OCI layout, not synced", 0.8)


def _copy(folder: Path, place: Path) -> None:
    """Lock the images of a site and collect them into a new store."""
    site = parse(folder / "haversack.toml", keys())
    (environment,) = site.environments
    out = Setting(place, as_json=False, quiet=True).outside(site)
    with out.store.exclusive():
        locked = kinds()[environment.kind].lock(site, environment, ANY, None, out)
        lock = Lock(site.name, site.digest, (ANY,), (locked.environment,), merge_artifacts(locked.artifacts))
        collecting.collect(lock, site.root, collecting.plan(lock, out), out)


if __name__ == "__main__":
    _copy(Path(sys.argv[1]), Path(sys.argv[2]))
