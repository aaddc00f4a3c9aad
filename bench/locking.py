"""``lock`` beside ``uv pip compile``: one target, cold and warm, and three targets at once."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from uv import find_uv_bin

from bench.fixtures import MOMENT, declare
from bench.lab import Lab, discard
from bench.measure import Row, pairs, timed
from haversack.model.target import Target

_PEER = "uv pip compile --generate-hashes"


def lock(lab: Lab) -> Iterator[Row]:
    """Ours also locks the tool environment, which the peer has not; both ask PyPI."""
    one, three = lab.work / "lock-one", lab.work / "lock-three"
    declare(one, [lab.here])
    declare(
        three,
        [lab.here, replace(lab.here, name="next", python="3.12"), Target("windows", "windows-amd64", "3.12")],
    )

    def ours(site: Path, cache: Path) -> float:
        # A lock that is there would be kept to: the peer starts with nothing either.
        (site / "haversack.lock").unlink(missing_ok=True)
        return lab.haversack("lock", store=lab.work / "lock-store", cwd=site, XDG_CACHE_HOME=cache).seconds

    def peer(cache: Path) -> float:
        env = lab.environ(UV_CACHE_DIR=cache / "uv")
        argv: list[str | Path] = [
            *(
                find_uv_bin(),
                "pip",
                "compile",
                "requirements.txt",
                "--generate-hashes",
                "--quiet",
                "--no-header",
            ),
            *("--python", sys.executable, "--python-platform", lab.here.uv_platform()),
            *(
                "--python-version",
                lab.here.python,
                "--only-binary",
                ":all:",
                "--exclude-newer",
                f"{MOMENT}T00:00:00Z",
            ),
            *("--output-file", lab.work / "lock-peer.txt"),
        ]
        (lab.work / "lock-peer.txt").unlink(missing_ok=True)
        return timed(argv, env=env, cwd=one).seconds

    mine, theirs = lab.work / "cache-ours", lab.work / "cache-peer"

    def cold_ours() -> float:
        discard(mine)
        return ours(one, mine)

    def cold_peer() -> float:
        discard(theirs)
        return peer(theirs)

    yield Row("lock, one target, cold", "s", *pairs(cold_ours, cold_peer, lab.runs), _PEER, 1.3)
    warm = pairs(lambda: ours(one, mine), lambda: peer(theirs), lab.runs)
    yield Row("lock, one target, warm", "s", *warm, _PEER, 1.3)
    ours(three, mine)
    several = pairs(lambda: ours(three, mine), lambda: ours(one, mine), lab.runs)
    note = "3 x would be one after the other"
    yield Row("lock, three targets, warm", "s", *several, "haversack lock, one target", 3.0, note=note)
