"""``python -m bench``: measure haversack beside its peers and print how it stands to its promises."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.checking import memory, receive, verify
from bench.collecting import collect
from bench.conda_collecting import conda_collect
from bench.conda_installing import conda_install
from bench.conda_locking import conda_lock
from bench.images import images
from bench.installing import install
from bench.lab import Lab
from bench.locking import lock
from bench.measure import MIB, Row, table
from bench.packing import increment
from bench.relocating import relocate
from bench.scale import scale
from bench.serving import served
from bench.viewing import view

BENCHES: dict[str, Callable[[Lab], Iterator[Row]]] = {
    "lock": lock,
    "collect": collect,
    "verify": verify,
    "receive": receive,
    "install": install,
    "increment": increment,
    "scale": scale,
    "memory": memory,
    "conda-lock": conda_lock,
    "conda-collect": conda_collect,
    "conda-install": conda_install,
    "view": view,
    "relocate": relocate,
    "serve": served,
    "images": images,
}


def main() -> int:
    """Run what the command line asks for; 1 if a promise is not met."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "--only", choices=BENCHES, action="append", help="measure this (may stand several times)"
    )
    parser.add_argument("--runs", type=int, default=5, help="pairs to measure (default 5)")
    parser.add_argument("--size", type=int, default=2048, help="MiB of a made-up bundle (default 2048)")
    parser.add_argument(
        "--scratch", type=Path, default=_default_scratch(), help="where fetched wheels are kept"
    )
    parser.add_argument("--json", action="store_true", help="print JSON for scripts")
    options = parser.parse_args()
    options.scratch.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="run-", dir=options.scratch) as work:
        lab = Lab(options.scratch.absolute(), Path(work).absolute(), options.runs, options.size * MIB)
        for name in options.only or BENCHES:
            for row in BENCHES[name](lab):
                rows.append(row)
                print(f"measured: {row.name}", file=sys.stderr, flush=True)
    print(json.dumps([row.to_json() for row in rows], indent=1) if options.json else table(rows))
    return 1 if any(row.met is False for row in rows) else 0


def _default_scratch() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "haversack-bench"


if __name__ == "__main__":
    sys.exit(main())
