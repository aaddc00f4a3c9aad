"""Collecting from a loopback index beside ``pip download --require-hashes``.

Ours is a process of its own (``python -m bench.collecting SITE STORE``) that does what ``pack`` does first.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path

from bench.fixtures import declare, pip, real
from bench.lab import Lab
from bench.measure import Row, pairs, timed
from bench.server import publish
from haversack.cli.setting import Setting
from haversack.formats import lockfile
from haversack.formats.declaration import parse
from haversack.kinds import keys
from haversack.verbs import collect as collecting


@contextmanager
def served(lab: Lab, folder: Path, wait: float = 0.0) -> Iterator[str]:
    """The URL of a static server over ``folder`` that answers after ``wait`` seconds, in a process of its own."""
    with subprocess.Popen(
        [sys.executable, "-m", "bench.server", folder, str(wait)],
        cwd=Path(__file__).parents[1],
        env=lab.environ(),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}/simple/"
        finally:
            process.terminate()


def collect(lab: Lab) -> Iterator[Row]:
    """Ours fetches and hashes, as pip does, and then also inflates every member and holds it against RECORD."""
    known = real(lab)
    publish(known.wheels, lab.work / "index")
    with served(lab, lab.work / "index") as url:
        site = lab.work / "collect-site"
        declare(site, [lab.here], url)
        lab.haversack("lock", store=lab.work / "collect-lock", cwd=site)

        fetched: list[float] = []

        def ours() -> float:
            with lab.fresh("collect-store") as store:
                seconds = lab.python("-m", "bench.collecting", site, store).seconds
                fetched.append(seconds - float((store / "reading").read_text()))
                return seconds

        def peer() -> float:
            with lab.fresh("collect-peer") as folder:
                argv: list[str | Path] = [
                    *(
                        pip(lab),
                        "download",
                        "--quiet",
                        "--require-hashes",
                        "--no-cache-dir",
                        "--index-url",
                        url,
                    ),
                    *("-r", known.pins, "-d", folder),
                ]
                return timed(argv, env=lab.environ()).seconds

        both = pairs(ours, peer, lab.runs)
    name, against = f"collect {known.count} wheels", "pip download --require-hashes"
    yield Row(name, "s", *both, against, 1 / 3)
    yield Row(
        f"{name}: fetch and hash", "s", tuple(fetched), both[1], against, 1 / 3, note="as much as pip does"
    )


def _collect(folder: Path, place: Path) -> None:
    """Collect a locked site into a new store; leaves in ``reading`` how long it looked into the files."""
    site = parse(folder / "haversack.toml", keys())
    lock, _ = lockfile.read((folder / lockfile.FILENAME).read_bytes())
    out = Setting(place, as_json=False, quiet=True).outside(site)
    began = [0.0]

    def noted(label: str, total: int, unit: str = "B") -> AbstractContextManager[Callable[[int], None]]:
        began[0] = time.perf_counter()
        return out.progress(label, total, unit)

    watched = replace(out, progress=noted)
    with out.store.exclusive():
        collecting.collect(lock, site.root, collecting.plan(lock, watched), watched)
        # The last thing that reports progress is the reading.
        reading = time.perf_counter() - began[0]
    (place / "reading").write_text(str(reading))


if __name__ == "__main__":
    _collect(Path(sys.argv[1]), Path(sys.argv[2]))
