"""An increment of a site that did not change, beside the full bundle."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from bench.fixtures import real
from bench.lab import Lab, folder_bytes
from bench.measure import Row, pairs


def increment(lab: Lab) -> Iterator[Row]:
    """The base is the snapshot that was packed before; rehearsals that passed are not repeated."""
    known = real(lab)
    sizes: dict[str, list[float]] = {"full": [], "increment": []}

    def pack(kind: str, *base: str) -> float:
        with lab.fresh(f"bundle-{kind}") as out:
            words: tuple[str | Path, ...] = ("pack", "-o", out, "--name", f"{lab.label}-{kind}", *base)
            seconds = lab.haversack(*words, store=known.store, cwd=known.site).seconds
            sizes[kind].append(folder_bytes(out) / 1e6)
            return seconds

    # The first pack of an environment rehearses it; what is promised is about one that did not change.
    pack("full")
    sizes["full"].clear()
    times = pairs(lambda: pack("increment", "--base", lab.label), lambda: pack("full"), lab.runs)
    yield Row("increment of an unchanged site: time", "s", times[0], limit=2)
    yield Row("increment of an unchanged site: bytes", "MB", tuple(sizes["increment"]), limit=1)
    yield Row("increment, time beside the full pack", "s", *times, "full pack")
    both = tuple(sizes["increment"]), tuple(sizes["full"])
    yield Row("increment, bytes beside the full pack", "MB", *both, "full pack")
