"""Writing a channel of many packages: from the records of a lock, beside rattler's indexing of the files.

Every measurement is a process of its own (``python -m bench.viewing FOLDER ACT``) that tells its seconds, so
that neither side pays for starting Python and reading its libraries.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import random
import sys
import tarfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import zstandard

from bench.lab import Lab, discard
from bench.measure import BenchError, Row, pairs, settled
from haversack.console import Console
from haversack.formats import oci, repodata
from haversack.model.artifact import Artifact, digest_of
from haversack.model.lock import Lock, LockedEnvironment, merge_artifacts
from haversack.model.target import Target
from haversack.ports import Inside
from haversack.ports.disk import DiskStore
from haversack.ports.ledger import FileLedger, SystemClock
from haversack.ports.machine import probe
from haversack.ports.run import Programs
from haversack.verbs import holdings, serve
from haversack.views.channel import INDEXES, Channels

_COUNT = 10_000
_CHANNEL = "https://conda.example.org/forge"
_TARGET = Target("node", "linux-x86_64", "3.11", "2.28")


def view(lab: Lab) -> Iterator[Row]:
    """Small packages, so that reading them costs the peer as little as it can; it writes no zst and no shards."""
    folder = lab.work / "view"
    build(folder, _COUNT)
    told: set[str] = set()

    def ours() -> float:
        discard(folder / "written")
        seconds = _inside(lab, folder, "write")
        told.add(_digest(folder / "written"))
        return seconds

    def peer() -> float:
        return _inside(lab, folder, "index")

    both = pairs(ours, peer, lab.runs)
    if len(told) != 1:
        raise BenchError("the channel is not the same bytes every time")
    title = f"write the channel of {_COUNT:,} packages"
    yield Row(title, "s", *both, "rattler.index.index_fs", 0.2, note="same bytes each time")

    def export() -> float:
        discard(folder / "www")
        settled()
        return _inside(lab, folder, "export")

    first = pairs(export, peer, lab.runs)
    yield Row(f"export {_COUNT:,} packages, hashed and linked", "s", *first, "rattler.index.index_fs")
    again = tuple(_inside(lab, folder, "export") for _ in range(lab.runs))
    yield Row(f"export {_COUNT:,} packages again, unchanged", "s", again)


def _inside(lab: Lab, folder: Path, act: str) -> float:
    """The seconds of one act, as its own process tells them."""
    lab.python("-m", "bench.viewing", folder, act)
    return float((folder / "seconds").read_text())


def _digest(folder: Path) -> str:
    state = hashlib.sha256()
    for path in sorted(folder.rglob("*.*")):
        state.update(path.relative_to(folder).as_posix().encode() + b"\0")
        state.update(path.read_bytes() if path.is_file() else b"")
    return state.hexdigest()


def build(folder: Path, count: int) -> None:
    """A channel of ``count`` packages without an index, and a store that holds it as a snapshot."""
    folder.mkdir()
    store = DiskStore(folder / "store", create=True)
    environment = LockedEnvironment("geo", _TARGET.name, "conda")
    artifacts = []
    with store.exclusive():
        for number in range(count):
            index = _index(number)
            filename = "{name}-{version}-{build}.conda".format(**index)
            data = _package(filename.removesuffix(".conda"), index)
            place = folder / "files" / str(index["subdir"]) / filename
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)
            sums = {"sha256": digest_of(data).removeprefix("sha256:"), "size": len(data)}
            url = f"{_CHANNEL}/{index['subdir']}/{filename}"
            record = {**index, **sums, "fn": filename, "url": url, "channel": _CHANNEL}
            made = repodata.artifact_of(record, environment.ref)
            assert isinstance(made, Artifact), str(made)
            store.add(made.digest, [data])
            artifacts.append(made)
        lock = Lock("view", digest_of(b""), (_TARGET,), (environment,), merge_artifacts(artifacts))
        snapshot, metadata = oci.build(lock, {a.digest: (a.size or 0, {}) for a in artifacts})
        for digest, data in metadata.items():
            store.add(digest, [data])
        known = holdings.Holdings((), "view", 1, None)
        known, _ = holdings.added(known, "one", snapshot, snapshot.blobs[snapshot.id], "2026-11-20T00:00:00Z")
        store.publish(holdings.write(known, snapshot.id))


def _index(number: int) -> dict[str, Any]:
    """A record of the size that records of large channels have, without what the file itself tells."""
    noise = random.Random(number)
    return {
        "build": f"h{noise.randbytes(4).hex()[:7]}_0",
        "build_number": 0,
        "constrains": [f"package{noise.randrange(_COUNT):05d} <2"],
        "depends": [f"package{noise.randrange(_COUNT):05d} >=1.0,<2.0a0" for _ in range(6)],
        "license": "BSD-3-Clause",
        "license_family": "BSD",
        "name": f"package{number:05d}",
        "subdir": "linux-64" if number % 4 else "noarch",
        "timestamp": 1_700_000_000_000 + number,
        "version": f"1.{number % 10}.0",
        **({} if number % 4 else {"noarch": "generic"}),
    }


def _package(stem: str, index: dict[str, Any]) -> bytes:
    noise = random.Random(stem).randbytes(4096)
    name = f"share/{index['name']}"
    row = {"_path": name, "path_type": "hardlink", "sha256": hashlib.sha256(noise).hexdigest()}
    paths = {"paths": [{**row, "size_in_bytes": len(noise)}], "paths_version": 1}
    info = {
        "info/about.json": b"{}",
        "info/index.json": json.dumps(index).encode(),
        "info/paths.json": json.dumps(paths).encode(),
    }
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("metadata.json", b'{"conda_pkg_format_version": 2}')
        archive.writestr(f"pkg-{stem}.tar.zst", _tar({name: noise}))
        archive.writestr(f"info-{stem}.tar.zst", _tar(info))
    return raw.getvalue()


def _tar(members: dict[str, bytes]) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        for name, data in members.items():
            head = tarfile.TarInfo(name)
            head.size = len(data)
            archive.addfile(head, io.BytesIO(data))
    return zstandard.ZstdCompressor(level=3).compress(raw.getvalue())


def act(folder: Path, what: str) -> float:
    """Do one thing once and return its seconds."""
    if what == "index":
        from rattler.index import index_fs

        start = time.perf_counter()
        asyncio.run(index_fs(folder / "files", write_zst=False, write_shards=False, force=True))
        return time.perf_counter() - start
    store = DiskStore(folder / "store")
    clock = SystemClock()
    start = time.perf_counter()
    if what == "write":
        _, content = holdings.current_snapshot(store)
        channels = Channels(content)
        for path in channels.paths():
            if path.endswith(INDEXES):
                page = channels.get(path)
                assert page is not None
                place = folder / "written" / path
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(page.data or b"")
    else:
        quiet = Console(as_json=False, quiet=True).progress
        ledger = FileLedger(folder / "store" / "haversack" / "ledger.jsonl", clock)
        cache, python = folder / "cache", Path(sys.executable)
        inside = Inside(store, ledger, Programs(), clock, quiet, probe(), cache, python)
        serve.export(folder / "www", inside)
    return time.perf_counter() - start


if __name__ == "__main__":
    where = Path(sys.argv[1])
    (where / "seconds").write_text(str(act(where, sys.argv[2])))
