"""Installing beside uv (nothing cached) and beside pip (a second time)."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from uv import find_uv_bin

from bench.fixtures import ENVIRONMENT, real
from bench.lab import Lab, discard
from bench.measure import Row, pairs, settled, timed


def install(lab: Lab) -> Iterator[Row]:
    """Ours hashes every wheel in the store first; the peers hash what they are given."""
    known = real(lab)
    store = lab.work / "install-store"
    lab.haversack("receive", known.bundle, store=store)
    env = lab.environ(UV_CACHE_DIR=lab.work / "install-cache")

    def again() -> float:
        with lab.fresh("prefix") as prefix:
            return lab.haversack("install", ENVIRONMENT, "--to", prefix, store=store).seconds

    def first() -> float:
        discard(store / "haversack" / "cache")
        # What was removed is freed when the journal is written: that must not happen in the measured time.
        settled()
        return again()

    def uv() -> float:
        discard(lab.work / "install-cache")
        settled()
        with lab.fresh("prefix-uv") as prefix:
            made = timed([find_uv_bin(), "venv", "--quiet", "--python", sys.executable, prefix], env=env)
            argv: list[str | Path] = [
                *(find_uv_bin(), "pip", "install", "--quiet", "--offline", "--no-index", "--require-hashes"),
                *("--find-links", known.wheels, "-r", known.pins, "--python", prefix / "bin" / "python"),
            ]
            return made.seconds + timed(argv, env=env).seconds

    def by_pip() -> float:
        with lab.fresh("prefix-pip") as prefix:
            timed([sys.executable, "-m", "venv", prefix], env=lab.environ())
            settled()
            argv: list[str | Path] = [
                prefix / "bin" / "pip",
                "install",
                "--quiet",
                "--no-index",
                "--find-links",
                known.wheels,
            ]
            return timed([*argv, "--require-hashes", "-r", known.pins], env=lab.environ()).seconds

    first_both = pairs(first, uv, lab.runs)
    yield Row(
        "install, nothing cached", "s", *first_both, "uv venv; uv pip install --offline --require-hashes", 1.1
    )
    # Half a minute a pair, and a ratio far from its limit: a few pairs are enough.
    again_both = pairs(again, by_pip, min(lab.runs, 3))
    yield Row("install again", "s", *again_both, "pip install --no-index --require-hashes", 1 / 20)
