"""A real bundle of tiny wheels, packed by the real verbs, with no network and in a fraction of a second.

::

    tiny = tiny_bundle(tmp_path / "tiny")                       # alpha 1.0, beta 1.0 (which requires alpha)
    more = tiny_bundle(tmp_path / "more", names=("alpha==1.1", "beta"), base=tiny)      # an increment on it
    haversack("receive", tiny.bundle, store=tmp_path / "inside")                        # a real process
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from haversack.conda.channels import RattlerChannels
from haversack.console import Console
from haversack.model.artifact import Artifact, digest_of
from haversack.model.lock import Lock, LockedEnvironment, merge_artifacts
from haversack.model.target import Target
from haversack.ports import Inside, Outside
from haversack.ports.disk import DiskStore
from haversack.ports.fetch import HttpFetch
from haversack.ports.fetchers import ByScheme
from haversack.ports.ledger import FileLedger, SystemClock
from haversack.ports.machine import base_python, probe
from haversack.ports.media import FolderWriter
from haversack.ports.registry import HttpRegistries
from haversack.ports.run import Programs
from haversack.verbs import pack
from tests.support.wheels import make_wheel

SITE = "tiny"
ENVIRONMENT = "lab"


@dataclass(frozen=True)
class Tiny:
    """A bundle and where it came from: the folder of its volumes, the store it was packed from, its wheels."""

    bundle: Path
    store: Path
    wheels: Path
    lock: Lock
    packed: pack.Packed

    @property
    def ref(self) -> str:
        """The one environment, as ``lab/here``."""
        return self.lock.environments[0].ref


def tiny_bundle(
    folder: Path,
    *,
    names: tuple[str, ...] = ("alpha", "beta"),
    name: str = "2026-11",
    base: Tiny | None = None,
    volume_size: int | None = None,
    padding: int = 0,
    check: str | None = None,
    site: str = SITE,
    rehearsing: bool = False,
) -> Tiny:
    """Pack a bundle for this machine into ``folder/bundle``.

    ``names`` are projects, or ``project==version`` (``1.0`` where none is said); each one requires the one
    before it.  ``padding`` makes every wheel larger by that many bytes that do not compress.  With ``base``
    it is an increment, packed from the base's store.
    """
    target = _target()
    wheels = folder / "wheels"
    environment = LockedEnvironment(ENVIRONMENT, target.name, "pip", tuple(map(_pin, names)), check)
    artifacts = []
    for number, pin in enumerate(map(_pin, names)):
        project, _, version = pin.partition("==")
        noise = random.Random(pin).randbytes(padding)
        wheel = make_wheel(
            wheels,
            project,
            version,
            requires=[names[number - 1]] if number else [],
            extra_files={f"{project}/noise.bin": noise} if padding else None,
        )
        data = wheel.read_bytes()
        origin = f"path:wheels/{wheel.name}"
        artifacts.append(
            Artifact(
                "wheel", project, version, wheel.name, digest_of(data), len(data), origin, (environment.ref,)
            )
        )
    lock = Lock(site, digest_of(site.encode()), (target,), (environment,), merge_artifacts(artifacts))
    store = base.store if base else folder / "outside"
    out = outside(store)
    packed = pack.pack(
        lock,
        folder,
        out,
        FolderWriter(folder / "bundle"),
        base=pack.base_of_snapshot(out.store, base.packed.bundle.name) if base else None,
        name=name,
        volume_size=volume_size,
        rehearsing=rehearsing,
    )
    return Tiny(folder / "bundle", store, wheels, lock, packed)


def _pin(name: str) -> str:
    return name if "==" in name else f"{name}==1.0"


def _target() -> Target:
    here = probe()
    return Target("here", here.platform, here.python_short, here.glibc, here.macos)


def inside(store: Path) -> Inside:
    """The real ports of the air-gapped side, over a store that is made if there is none."""
    return Inside(**_ports(store))


def outside(store: Path) -> Outside:
    """The real ports of the connected side, over a store that is made if there is none."""
    ports = _ports(store)
    channels = RattlerChannels(ports["cache"] / "channels", _nobody, attempts=1, timeout=5)
    registries = HttpRegistries((), _nobody, attempts=1, timeout=5)
    fetch = ByScheme(HttpFetch(credentials=_nobody), docker=registries)
    return Outside(**ports, fetch=fetch, credentials=_nobody, channels=channels, registries=registries)


def _nobody(_: str) -> None:
    return None


def _ports(store: Path) -> dict[str, Any]:
    clock = SystemClock()
    return {
        "store": DiskStore(store, create=True),
        "ledger": FileLedger(store / "haversack" / "ledger.jsonl", clock),
        "run": Programs(),
        "clock": clock,
        "progress": Console(as_json=False, quiet=True).progress,
        "machine": probe(),
        "cache": store / "haversack" / "cache",
        "python": base_python(),
    }


def haversack(
    *words: str | Path, store: Path, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command line as a process of its own, over a store; the exit code is for the caller to read."""
    return subprocess.run(
        command(*words), env={**environ(store), **(env or {})}, cwd=cwd, capture_output=True, text=True
    )


def command(*words: str | Path) -> list[str]:
    """The argv that runs haversack with some words."""
    return [sys.executable, "-m", "haversack", *map(str, words)]


def environ(store: Path) -> dict[str, str]:
    """An environment in which ``store`` is the store and nothing steers pip, uv or Python."""
    kept = {n: v for n, v in os.environ.items() if not n.startswith(("UV_", "PIP_", "PYTHON", "HAVERSACK_"))}
    return {**kept, "HAVERSACK_STORE": str(store)}
