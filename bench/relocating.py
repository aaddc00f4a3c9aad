"""An environment of 50,000 files that exists only as a folder: packed and unpacked beside the conda-pack library."""

from __future__ import annotations

import hashlib
import itertools
import json
import random
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from bench.lab import Lab
from bench.measure import MIB, Row, pairs, settled

FILES = 50_000
_PER_FOLDER = 25
_PER_PACKAGE = 100
_MENTIONS = 40  # one file of so many names the prefix: scripts, configuration, a few libraries
_PLACEHOLDER = "/opt/bench" + "_placehold" * 24 + "_plac"

# Scan and write the archive, into a store or not; check its digest, unpack it and rewrite what names the prefix.
_OURS = """
import io, sys
from pathlib import Path
from haversack.ports.disk import Checked, DiskStore, read_chunks
from haversack.relocation import archive, restore, scan
way, prefix, work, home = sys.argv[1], *map(Path, sys.argv[2:])
place = work / "packed.tar"
if prefix.name != "-":
    with place.open("wb", buffering=0) as file:
        digest = archive.write(scan.scan(prefix), file).digest
    (work / "digest").write_text(digest)
    if way == "store":
        place.chmod(0o444)
        store = DiskStore(work / "store", create=True)
        with store.exclusive():
            store.add(digest, read_chunks(place), linkable=place)
            store.publish(store.index())
        place.unlink()
else:
    digest = (work / "digest").read_text()
    if way == "store":
        blob = DiskStore(work / "store").open(digest)
    else:
        blob = io.BufferedReader(Checked(place.open("rb", buffering=0), digest, "packed.tar"), 1 << 20)
    with blob:
        restore.restore(blob, home, home)
"""
_PACK = """
import sys, warnings
import conda_pack
warnings.simplefilter("ignore")
conda_pack.CondaEnv.from_prefix(sys.argv[1]).pack(output=sys.argv[2], n_threads=-1)
"""
_EXTRACT = "import sys, tarfile; tarfile.open(sys.argv[1]).extractall(sys.argv[2])"


@cache
def legacy(lab: Lab) -> Path:
    """A conda environment of made-up packages: text and noise, sizes as they are in site-packages.

    Its records say what conda's say, and the package cache is there, hard-linked as conda does it: without that
    conda-pack has to search every file, and takes longer.
    """
    prefix, cached, chance = lab.work / "legacy", lab.work / "pkgs", random.Random(1)
    noise = chance.randbytes(8 * MIB)
    text = b"def function(argument):\n    return argument  # like a line of source\n" * 120_000
    (prefix / "conda-meta").mkdir(parents=True)
    for first in range(0, FILES, _PER_PACKAGE):
        package = cached / f"p{first}"
        (package / "info").mkdir(parents=True)
        rows = []
        for number in range(first, first + _PER_PACKAGE):
            path = f"lib/python3.11/site-packages/p{first}/s{number // _PER_FOLDER}/m{number}.py"
            if number % _PER_FOLDER == 0:
                (prefix / path).parent.mkdir(parents=True)
                (package / path).parent.mkdir(parents=True)
            size = min(int(chance.lognormvariate(8.3, 1.6)), 8 * MIB)
            data = (text if number % 3 else noise)[:size]
            row: dict[str, object] = {"_path": path, "path_type": "hardlink", "size_in_bytes": size}
            if number % _MENTIONS == 0:
                binary = number % (4 * _MENTIONS) == 0
                row |= {"prefix_placeholder": _PLACEHOLDER, "file_mode": "binary" if binary else "text"}
                (package / path).write_bytes(_mention(_PLACEHOLDER, binary) + data)
                data = _mention(str(prefix), binary) + data
                (prefix / path).write_bytes(data)
                row["sha256_in_prefix"] = hashlib.sha256(data).hexdigest()
            else:
                (package / path).write_bytes(data)
                (prefix / path).hardlink_to(package / path)
            row["sha256"] = hashlib.sha256((package / path).read_bytes()).hexdigest()
            rows.append(row)
        (package / "info" / "paths.json").write_text(json.dumps({"paths": rows, "paths_version": 1}))
        record = {
            "name": f"p{first}",
            "version": "1.0",
            "build": "0",
            "build_number": 0,
            "url": f"https://conda.example.org/noarch/p{first}-1.0-0.conda",
            "files": [row["_path"] for row in rows],
            "link": {"source": str(package), "type": 1},
            "paths_data": {"paths_version": 1, "paths": rows},
        }
        (prefix / "conda-meta" / f"p{first}-1.0-0.json").write_text(json.dumps(record, indent=2))
    (prefix / "conda-meta" / "history").touch()
    return prefix


def _mention(prefix: str, binary: bool) -> bytes:
    """How a file begins that names its prefix."""
    if not binary:
        return f"# made for {prefix}/bin/python\n".encode()
    return b"\x7fELF\0" + f"{prefix}/lib".encode() + b"\0" * (len(_PLACEHOLDER) - len(prefix) + 1)


def relocate(lab: Lab) -> Iterator[Row]:
    """Ours hashes what it packs, and checks that while it unpacks it; the peer has no digests.

    The peer is measured as it comes (``.tar.gz``) and at its fastest (``.tar``), with all its threads; the
    promise is held against the faster, file against file.  The time of both is that of packing and of unpacking
    together.  The store hashes once more what it takes in, and waits until that is on the disk.
    """
    prefix = legacy(lab)
    count = itertools.count()
    peaks: list[float] = []

    def home() -> Path:
        # Kept until all is measured: ext4 looks at every inode that was freed in the last minutes before it
        # gives a new file one, so that whoever creates files after a removal measures that removal.
        return lab.work / f"home-{next(count)}"

    def ours(way: str) -> float:
        place = home()
        with lab.fresh("ours") as work:
            work.mkdir()
            packing = lab.python("-c", _OURS, way, prefix, work, place)
            settled()
            unpacking = lab.python("-c", _OURS, way, "-", work, place)
        peaks.append(max(packing.peak, unpacking.peak) / MIB)
        return packing.seconds + unpacking.seconds

    def peer(suffix: str) -> float:
        place = home()
        with lab.fresh("theirs") as work:
            work.mkdir()
            seconds = lab.python("-c", _PACK, prefix, work / f"packed{suffix}").seconds
            settled()
            seconds += lab.python("-c", _EXTRACT, work / f"packed{suffix}", place).seconds
        return seconds + lab.python(place / "bin" / "conda-unpack").seconds

    name = f"pack and unpack a prefix of {FILES} files"
    both = pairs(lambda: ours("file"), lambda: peer(".tar"), min(lab.runs, 3))
    yield Row(name, "s", *both, "conda-pack, .tar", 0.5)
    both = pairs(lambda: ours("store"), lambda: peer(".tar.gz"), 1)
    yield Row(f"{name}, through a store", "s", *both, "conda-pack, .tar.gz, all cores")
    yield Row("peak memory of packing and unpacking it", "MiB", tuple(peaks), limit=400)
