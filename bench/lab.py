"""Where measuring happens: scratch folders, a haversack that holds still, environments without surprises."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path

from bench.measure import Done, timed
from haversack.model.target import Target
from haversack.ports.machine import probe

# What would steer a peer, or us, behind our back.
_STEERING = ("PIP_", "UV_", "PYTHON", "HAVERSACK_", "VIRTUAL_ENV", "CONDA_", "XDG_")


@dataclass(frozen=True)
class Lab:
    """One run of the benchmarks.

    ``scratch`` is kept from run to run (what was fetched from PyPI), ``work`` is removed at the end of this
    one.  ``runs`` is how often each pair is measured, ``size`` the bytes of a made-up bundle.
    """

    scratch: Path
    work: Path
    runs: int
    size: int

    @property
    def label(self) -> str:
        """A word for this run, fit to name a snapshot in the store that is kept."""
        return self.work.name.replace("_", "x")

    @cached_property
    def frozen(self) -> Path:
        """A copy of the package: whoever edits the checkout meanwhile does not change what is measured.

        It also keeps haversack's own wheel, which travels in every bundle, the same from lock to pack.
        """
        place = self.work / "frozen"
        with resources.as_file(resources.files("haversack")) as package:
            shutil.copytree(package, place / "haversack", ignore=shutil.ignore_patterns("__pycache__"))
        # Installed packages are compiled; a first run that compiles would be slower than any user's.
        timed([sys.executable, "-m", "compileall", "-q", place], env=self.environ())
        return place

    @cached_property
    def here(self) -> Target:
        """This machine as a target."""
        machine = probe()
        return Target("here", machine.platform, machine.python_short, machine.glibc, machine.macos)

    def environ(self, **more: str | Path) -> dict[str, str]:
        """The environment of every program measured, ours and theirs: nothing of the user's settings."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(_STEERING)}
        quiet = {
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "UV_NO_CONFIG": "1",
            "UV_PYTHON_DOWNLOADS": "never",
            "no_proxy": "127.0.0.1",
        }
        return {**kept, **quiet, **{key: str(value) for key, value in more.items()}}

    def haversack(self, *words: str | Path, store: Path, cwd: Path | None = None, **more: str | Path) -> Done:
        """Run a command of haversack over a store."""
        return self.python("-m", "haversack", *words, cwd=cwd, HAVERSACK_STORE=store, **more)

    def python(self, *words: str | Path, cwd: Path | None = None, **more: str | Path) -> Done:
        """Run Python with the frozen haversack and these benchmarks in its path."""
        path = f"{self.frozen}{os.pathsep}{Path(__file__).parents[1]}"
        return timed([sys.executable, *words], env=self.environ(PYTHONPATH=path, **more), cwd=cwd)

    @contextmanager
    def in_memory(self, needed: int) -> Iterator[Path]:
        """A folder in memory if ``needed`` bytes fit there, or else in ``work``: for what clients only keep."""
        memory = Path("/dev/shm")
        fits = memory.is_dir() and shutil.disk_usage(memory).free > 2 * needed
        with self.fresh(f"haversack-bench-{os.getpid()}", memory if fits else None) as place:
            place.mkdir()
            yield place

    @contextmanager
    def fresh(self, name: str, within: Path | None = None) -> Iterator[Path]:
        """A name for a folder that does not exist, and is gone afterwards."""
        place = (within or self.work) / name
        discard(place)
        try:
            yield place
        finally:
            discard(place)


def discard(place: Path) -> None:
    """Remove a folder, blobs that nobody may write to included."""
    if place.exists():
        shutil.rmtree(place)


def folder_bytes(*places: Path) -> int:
    """What folders take up on the disk, as ``du`` counts: allocated blocks, a file of two names once."""
    seen: dict[tuple[int, int], int] = {}
    for place in places:
        for folder, names, files in os.walk(place):
            for name in (*names, *files):
                status = (Path(folder) / name).lstat()
                seen[status.st_dev, status.st_ino] = status.st_blocks * 512
    return sum(seen.values())
