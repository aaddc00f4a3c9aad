"""Collecting 300 conda packages from a loopback server beside downloading them one after the other.

Ours is ``python -m bench.collecting``, a process of its own that does what ``pack`` does first; the peer is
one ``curl`` that takes the same files in turn over one kept connection, and ``sha256sum`` after it.  A second
pair of rows asks a server that answers each request after 20 ms, as one that is not on this machine would:
on loopback alone there is no wait that fetching at the same time could use.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.collecting import served
from bench.conda_files import make_package
from bench.lab import Lab
from bench.measure import Row, pairs, timed

PACKAGES, KIBS, WAIT = 300, 400, 0.02


def channel(folder: Path) -> tuple[list[dict[str, Any]], int]:
    """Write a channel of :data:`PACKAGES` packages of :data:`KIBS` KiB on average; records, bytes."""
    chance = random.Random(2)
    records = []
    for number in range(PACKAGES):
        files = {
            f"lib/p{number}/{n}.bin": chance.randbytes(chance.randrange(1, 2 * KIBS * 1024 // 20))
            for n in range(20)
        }
        records.append(make_package(folder, f"p{number:03}", files))
    table = {"packages.conda": {record.pop("fn"): record for record in map(dict, records)}}
    for subdir, kept in (("linux-64", table), ("noarch", {"packages.conda": {}})):
        (folder / subdir).mkdir(exist_ok=True)
        (folder / subdir / "repodata.json").write_text(
            json.dumps({"info": {"subdir": subdir}, "packages": {}, **kept})
        )
    return records, sum(record["size"] for record in records)


@contextmanager
def slow(lab: Lab, folder: Path) -> Iterator[str]:
    """A server that waits before each answer."""
    with served(lab, folder, wait=WAIT) as url:
        yield url


def conda_collect(lab: Lab) -> Iterator[Row]:
    """Fetch, hash and read, against fetching and hashing."""
    records, size = channel(lab.work / "packages" / "simple")
    sums = lab.work / "packages.sha256"
    sums.write_text("".join(f"{record['sha256']}  {record['fn']}\n" for record in records))
    for serve, words, limit in ((served, "", None), (slow, f", {WAIT * 1000:.0f} ms from here", 1 / 3)):
        with serve(lab, lab.work / "packages") as url:
            site = lab.work / f"conda-collect-{len(words)}"
            site.mkdir()
            places = [f"{url}linux-64/{record['fn']}" for record in records]
            lines = [
                f"{place}#sha256:{record['sha256']}" for place, record in zip(places, records, strict=True)
            ]
            (site / "spec.txt").write_text("\n".join(["@EXPLICIT", *lines]) + "\n")
            (site / "haversack.toml").write_text(
                '[site]\nname = "bench"\n[target.here]\nplatform = "linux-x86_64"\nglibc = "2.28"\npython = "3.11"\n'
                '[env.lab]\nkind = "conda"\nfile = "spec.txt"\ntargets = ["here"]\n'
            )
            # Without the tool's own environment, which would come from PyPI.
            with lab.fresh("conda-collect-lock") as store:
                lab.python("-m", "bench.conda_locking", "ours", site, store)
                (site / "haversack.lock").write_bytes((store / "haversack.lock").read_bytes())

            def ours(site: Path = site) -> float:
                with lab.fresh("conda-collect-store") as store:
                    return lab.python("-m", "bench.collecting", site, store).seconds

            def peer(places: list[str] = places) -> float:
                with lab.fresh("conda-collect-peer") as folder:
                    folder.mkdir()
                    start = time.perf_counter()
                    timed(
                        ["curl", "--silent", "--fail", "--remote-name-all", *places],
                        env=lab.environ(),
                        cwd=folder,
                    )
                    timed(
                        ["sha256sum", "--check", "--quiet", "--strict", sums], env=lab.environ(), cwd=folder
                    )
                    return time.perf_counter() - start

            yield Row(
                f"collect {PACKAGES} conda packages, {size >> 20} MiB{words}",
                "s",
                *pairs(ours, peer, lab.runs),
                "curl one by one, sha256sum",
                limit,
                note="ours reads every file in them too",
            )
