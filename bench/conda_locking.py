"""Locking from a channel of 100,000 records beside ``rattler.solve`` called bare, and what memory it takes.

Ours is a process of its own (``python -m bench.conda_locking ours SITE STORE``) that reads the declaration,
locks its conda environment and writes the lock; the peer's (``peer URL CACHE``) only solves.  Both ask the
same server on loopback and begin without a cache.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.collecting import served
from bench.lab import Lab
from bench.measure import MIB, Row, settled

RECORDS, NAMES, WANTED = 100_000, 4_000, 40
_TARGET = '[target.here]\nplatform = "linux-x86_64"\nglibc = "2.28"\npython = "3.11"\n'


def channel(folder: Path) -> list[str]:
    """Write a channel of :data:`RECORDS` records and return what to ask of it.

    Every name has 25 versions and depends on up to seven names that come before it, at versions that bind;
    of what a solve asks for it reaches some hundred names.
    """
    chance = random.Random(1)
    packages: dict[str, dict[str, Any]] = {}
    versions = RECORDS // NAMES
    for number in range(NAMES):
        # Much is built on little: most dependencies are on names that stand near the beginning.
        some = {int(number * chance.random() ** 2) for _ in range(chance.randrange(8))} - {number}
        for minor in range(versions):
            depends = [f"p{n:04} >=1.{chance.randrange(versions // 2)},<2" for n in sorted(some)]
            name, version = f"p{number:04}", f"1.{minor}"
            filename = f"{name}-{version}-h{number:07x}_0.conda"
            digest = hashlib.sha256(filename.encode()).hexdigest()
            packages[filename] = {
                "build": f"h{number:07x}_0",
                "build_number": 0,
                "depends": [*depends, "__glibc >=2.17,<3.0.a0"],
                "constrains": [],
                "license": "BSD-3-Clause",
                "md5": digest[:32],
                "name": name,
                "sha256": digest,
                "size": 10_000 + minor,
                "subdir": "linux-64",
                "timestamp": 1_700_000_000_000 + minor * 86_400_000,
                "version": version,
            }
    for subdir, table in (("linux-64", packages), ("noarch", {})):
        place = folder / subdir
        place.mkdir(parents=True)
        told = {"info": {"subdir": subdir}, "packages": {}, "packages.conda": table, "repodata_version": 1}
        (place / "repodata.json").write_text(json.dumps(told))
    return [f"p{number:04}" for number in range(NAMES - WANTED, NAMES)]


def conda_lock(lab: Lab) -> Iterator[Row]:
    """Time and peak memory of a lock from nothing."""
    specs = channel(lab.work / "records" / "simple")
    site = lab.work / "conda-lock-site"
    site.mkdir()
    (site / "environment.yml").write_text("dependencies:\n" + "".join(f"- {spec}\n" for spec in specs))
    peaks: list[float] = []
    ours: list[float] = []
    peer: list[float] = []
    with served(lab, lab.work / "records") as url:
        (site / "haversack.toml").write_text(
            f'[site]\nname = "bench"\n{_TARGET}[env.lab]\nkind = "conda"\nfile = "environment.yml"\n'
            f'channels = ["{url.rstrip("/")}"]\ntargets = ["here"]\n'
        )
        for _ in range(lab.runs):
            settled()
            with lab.fresh("conda-lock-store") as store:
                done = lab.python("-m", "bench.conda_locking", "ours", site, store)
                ours.append(done.seconds)
                peaks.append(done.peak / MIB)
            settled()
            with lab.fresh("conda-lock-cache") as cache:
                peer.append(lab.python("-m", "bench.conda_locking", "peer", url, cache, *specs).seconds)
    name = f"lock one target from a channel of {RECORDS:,} records"
    yield Row(name, "s", tuple(ours), tuple(peer), "rattler.solve called bare", 1.2)
    yield Row(f"{name}: peak memory", "MiB", tuple(peaks), limit=400)


def _ours(folder: Path, place: Path) -> None:
    from haversack.cli.setting import Setting
    from haversack.formats import lockfile
    from haversack.formats.declaration import parse
    from haversack.kinds import keys, kinds
    from haversack.model.lock import Lock, merge_artifacts

    site = parse(folder / "haversack.toml", keys())
    out = Setting(place, as_json=False, quiet=True).outside(site)
    (environment,) = site.environments
    target = site.target("here")
    locked = kinds()[environment.kind].lock(site, environment, target, None, out)
    assert not locked.findings, locked.findings
    artifacts = merge_artifacts(locked.artifacts)
    lock = Lock(site.name, site.digest, (target,), (locked.environment,), artifacts)
    (place / "haversack.lock").write_bytes(lockfile.write(lock))


def _peer(url: str, cache: Path, specs: list[str]) -> None:
    from rattler import BuildString, Channel, Gateway, GenericVirtualPackage, PackageName, Version, solve

    glibc = GenericVirtualPackage(PackageName("__glibc"), Version("2.28"), BuildString("0"))
    work = solve(
        [Channel(url)],
        specs,
        gateway=Gateway(cache_dir=cache),
        platforms=["linux-64", "noarch"],
        virtual_packages=[glibc],
    )
    assert asyncio.run(work)


if __name__ == "__main__":
    if sys.argv[1] == "ours":
        _ours(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        _peer(sys.argv[2], Path(sys.argv[3]), sys.argv[4:])
