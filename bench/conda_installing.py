"""Installing 300 conda packages beside py-rattler's own installer, and a second time beside the first.

The packages are made up: text of a few thousand words, which compresses to a third as libraries do.  Ours
are whole commands; the peer is a process that imports py-rattler, reads the records of a channel on disk and
installs from it: it hashes nothing that comes from a file.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

from bench.conda_files import make_package
from bench.lab import Lab, discard
from bench.measure import Row, pairs, settled

PACKAGES, FILES, KIBS = 300, 40, 80  # files of each, and their KiB on average


def channel(folder: Path) -> None:
    """Write a channel of :data:`PACKAGES` packages, about 960 MB unpacked."""
    chance = random.Random(3)
    words = [chance.randbytes(chance.randint(1, 5)).hex() for _ in range(4000)]
    records = {}
    for number in range(PACKAGES):
        files = {
            f"lib/p{number}/{n}.txt": " ".join(
                chance.choices(words, k=chance.randrange(1, 2 * KIBS * 1024 // 7))
            ).encode()
            for n in range(FILES)
        }
        record = make_package(folder, f"p{number:03}", files)
        records[record.pop("fn")] = record
    for subdir, kept in (("linux-64", records), ("noarch", {})):
        (folder / subdir).mkdir(exist_ok=True)
        table = {"info": {"subdir": subdir}, "packages": {}, "packages.conda": kept}
        (folder / subdir / "repodata.json").write_text(json.dumps(table))


_BARE = """
import asyncio, sys, time
from pathlib import Path
from rattler import Channel, SparseRepoData, Subdir
from rattler.install import install
channel, cache, prefix = map(Path, sys.argv[1:])
data = SparseRepoData(Channel(channel.as_uri()), "linux-64", channel / "linux-64" / "repodata.json")
records = data.load_all_records()
work = install(records, prefix, cache, platform=Subdir("linux-64"), execute_link_scripts=False, show_progress=False)
asyncio.run(work)
# Threads of its runtime may still be about to speak to Python, which crashes where that ends first.
time.sleep(0.05)
"""


def conda_install(lab: Lab) -> Iterator[Row]:
    """Hashed, linked, recorded and put in place, beside linked; nothing cached, and everything."""
    known, store = lab.work / "conda-install", lab.work / "conda-install-store"
    channel(known / "channel")
    places = sorted((known / "channel" / "linux-64").glob("*.conda"))
    records = json.loads((known / "channel" / "linux-64" / "repodata.json").read_bytes())["packages.conda"]
    lines = [f"{place.as_uri()}#sha256:{records[place.name]['sha256']}" for place in places]
    (known / "spec.txt").write_text("\n".join(["@EXPLICIT", *lines]) + "\n")
    (known / "haversack.toml").write_text(
        f'[site]\nname = "bench"\n[target.here]\nplatform = "{lab.here.platform}"\n'
        f'glibc = "{lab.here.glibc}"\npython = "{lab.here.python}"\n'
        '[env.lab]\nkind = "conda"\nfile = "spec.txt"\ntargets = ["here"]\n'
    )
    outside, bundle = lab.work / "conda-install-outside", lab.work / "conda-install-bundle"
    lab.haversack("lock", store=outside, cwd=known)
    lab.haversack("pack", "-o", bundle, "--no-rehearse", store=outside, cwd=known)
    lab.haversack("receive", bundle, store=store)
    cache = lab.work / "conda-install-cache"

    def again() -> float:
        with lab.fresh("conda-prefix") as prefix:
            return lab.haversack("install", "lab", "--to", prefix, store=store).seconds

    def first() -> float:
        discard(store / "haversack" / "cache")
        settled()
        return again()

    def bare() -> float:
        discard(cache)
        settled()
        with lab.fresh("conda-prefix-bare") as prefix:
            return lab.python("-c", _BARE, known / "channel", cache, prefix).seconds

    ours = pairs(first, bare, lab.runs)
    yield Row("install 300 conda packages, nothing cached", "s", *ours, "py-rattler's install", 1.15)
    # The last run of the peer left our own cache as the last first run filled it.
    yield Row("install them again", "s", *pairs(again, first, lab.runs), "our own, nothing cached", 1 / 4)
