"""``verify`` beside the machine's own SHA-256, ``receive`` beside ``cp``, and the memory all of it takes."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.fixtures import Noise, noise
from bench.lab import Lab, folder_bytes
from bench.measure import MIB, BenchError, Row, pairs, settled, timed

_CORES = os.cpu_count() or 1
_CLONE_NEWNS = 0x20000  # linux/sched.h
# Bare hashlib on all cores: no import but what hashing needs, the largest file first.
_POOL = """
import hashlib, multiprocessing, os, sys
def one(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
files = [os.path.join(top, name) for top, _, names in os.walk(sys.argv[1]) for name in names]
with multiprocessing.Pool(os.cpu_count()) as pool:
    pool.map(one, sorted(files, key=os.path.getsize, reverse=True), chunksize=1)
"""
_OPENSSL = 'find "$1" -type f -size +0 -print0 | xargs -0 -P "$2" -n 4 openssl dgst -sha256'


def verify(lab: Lab) -> Iterator[Row]:
    """The peer of a pair is the faster of two ways to hash every file of the bundle on all cores."""
    made = noise(lab, lab.size)
    rate = made.size / 1e6

    def ours() -> float:
        return rate / lab.haversack("verify", made.bundle, store=lab.work / "none").seconds

    def peer() -> float:
        env = lab.environ()
        ways: list[list[str | Path]] = [[sys.executable, "-I", "-S", "-c", _POOL, made.bundle]]
        if shutil.which("openssl"):
            ways.append(["sh", "-c", _OPENSSL, "sh", made.bundle, str(_CORES)])
        return rate / min(timed(argv, env=env).seconds for argv in ways)

    both = pairs(ours, peer, lab.runs)
    name = f"verify {made.size // MIB} MiB in {made.files} files"
    yield Row(name, "MB/s", *both, "best of openssl and hashlib on all cores", 0.9, floor=True)


def receive(lab: Lab) -> Iterator[Row]:
    """Into a store on another file system, where bytes must be copied, and on the same one, where they must not."""
    made = noise(lab, lab.size)
    memory = Path("/dev/shm")
    if memory.is_dir() and shutil.disk_usage(memory).free > 3 * made.size:
        with lab.fresh(f"haversack-bench-{os.getpid()}", memory) as place:
            place.mkdir()
            yield from _receive(lab, made, place, "tmpfs")
    with _mounted(lab, made.size) as place:
        if place is not None:
            yield from _receive(lab, made, place, "another ext4")
    yield _same_filesystem(lab, made)


def _receive(lab: Lab, made: Noise, place: Path, kind: str) -> Iterator[Row]:
    rate = made.size / 1e6

    def ours() -> float:
        with lab.fresh("store", place) as store:
            return rate / lab.haversack("receive", made.bundle, store=store).seconds

    def copy(command: str) -> Callable[[], float]:
        def run() -> float:
            with lab.fresh("copy", place) as folder:
                argv: list[str | Path] = ["sh", "-c", command, "sh", made.bundle, folder]
                return rate / timed(argv, env=lab.environ()).seconds

        return run

    for command, title in (
        ('cp -r "$1" "$2"', "cp -r"),
        ('cp -r "$1" "$2" && sync -f "$2"', "cp -r; sync -f"),
    ):
        both = pairs(ours, copy(command), lab.runs)
        yield Row(f"receive onto {kind}", "MB/s", *both, title, 0.8, floor=True)


@contextmanager
def _mounted(lab: Lab, size: int) -> Iterator[Path | None]:
    """An ext4 of its own, in a mount namespace that ends with this process; ``None`` where that is not allowed."""
    image, place = lab.work / "ext4.img", lab.work / "ext4"
    libc = ctypes.CDLL(None, use_errno=True)
    if sys.platform != "linux" or os.geteuid() or not shutil.which("mkfs.ext4") or libc.unshare(_CLONE_NEWNS):
        yield None
        return
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(3 * size + 256 * MIB)
    try:
        steps: list[list[str | Path]] = [
            ["mount", "--make-rprivate", "/"],
            ["mkfs.ext4", "-q", image],
            ["mount", "-o", "loop", image, place],
        ]
        for argv in steps:
            timed(argv, env=lab.environ())
    except BenchError:
        yield None
        return
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)
        image.unlink()


def _same_filesystem(lab: Lab, made: Noise) -> Row:
    shares = []
    for _ in range(lab.runs):
        with lab.fresh("same-store") as store:
            before = folder_bytes(made.bundle)
            lab.haversack("receive", made.bundle, store=store)
            shares.append(100 * (folder_bytes(made.bundle, store) - before) / before)
    return Row("receive on the same file system: more disk", "%", tuple(shares), limit=1)


def memory(lab: Lab) -> Iterator[Row]:
    """The largest resident set of a whole command, on a bundle and on one an eighth of its size."""
    for size in (lab.size // 8, lab.size):
        made = noise(lab, size)
        label = f"{size // MIB} MiB"

        def pack(made: Noise = made) -> float:
            with lab.fresh("memory-bundle") as out:
                argv = ("pack", "-o", out, "--no-rehearse")
                return lab.haversack(*argv, store=made.store, cwd=made.site).peak / MIB

        def check(made: Noise = made) -> float:
            return lab.haversack("verify", made.bundle, store=lab.work / "none").peak / MIB

        def take(made: Noise = made) -> float:
            with lab.fresh("memory-store") as store:
                return lab.haversack("receive", "--copy", made.bundle, store=store).peak / MIB

        for title, command in (("pack", pack), ("verify", check), ("receive --copy", take)):
            peaks = []
            for _ in range(lab.runs):
                settled()
                peaks.append(command())
            yield Row(f"peak memory of {title}, {label}", "MiB", tuple(peaks), limit=200)
