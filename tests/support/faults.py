"""Faults for real processes: calls that fail or kill, mounts of their own, and what a store is afterwards.

:func:`shim` compiles ``faults.c`` and :func:`sweep` tries it everywhere; :func:`sound` says what is left of a
store; :class:`Room` is a mount namespace, so that whatever a test mounts is gone with it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from haversack.model.artifact import Digest
from haversack.model.ledger import check_chain
from haversack.ports.disk import DiskStore
from haversack.ports.ledger import FileLedger, SystemClock
from haversack.verbs import holdings
from tests.support.tiny import haversack

SOURCE = Path(__file__).with_suffix(".c")


@dataclass(frozen=True)
class Shim:
    """A library that lets one call of a process go wrong."""

    library: Path

    def environ(
        self,
        under: Path,
        *,
        at: int = 0,
        mode: str = "k",
        only: str = "",
        where: str = "",
        log: Path | None = None,
    ) -> dict[str, str]:
        """What to add to the environment of a process so that its call number ``at`` goes wrong.

        Only calls count that change files ``under`` a folder, and with ``only`` those of that name, with
        ``where`` those on a path that holds that text.  ``mode`` is ``k`` (SIGKILL), ``s`` (SIGSTOP), ``e`` (EIO) or ``n`` (ENOSPC).  ``log`` gets a line for each.
        """
        added = {
            "LD_PRELOAD": str(self.library),
            "WF_UNDER": str(under),
            "WF_AT": str(at),
            "WF_MODE": mode,
            "WF_ONLY": only,
            "WF_WHERE": where,
        }
        return added | ({"WF_LOG": str(log)} if log else {})


def shim(folder: Path) -> Shim:
    """Compile the library; skips the test where there is no compiler for it."""
    if shutil.which("gcc") is None:
        pytest.skip("there is no gcc to compile the faults with")
    library = folder / "faults.so"
    subprocess.run(
        ["gcc", "-Wall", "-Werror", "-O1", "-shared", "-fPIC", "-o", library, SOURCE, "-ldl"], check=True
    )
    return Shim(library)


def points(log: Path) -> list[tuple[str, str]]:
    """The calls that a log tells, as (name, path)."""
    if not log.exists():
        return []
    parts = (line.split(" ", 2) for line in log.read_text().splitlines())
    return [(name, path) for _, name, path in parts]


def sound(root: Path) -> Digest | None:
    """The snapshot that a store serves (``None`` where there is none), after proving all of it sound.

    No file under a blob's name holds other bytes, every blob of every snapshot is there, and the ledger's
    chain holds.
    """
    if not (root / "oci-layout").exists():
        return None
    for blob in (root / "blobs" / "sha256").iterdir():
        assert hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name, f"{blob} is not what its name says"
    store = DiskStore(root)
    held = holdings.read(store)
    for one in held.held:
        wanted = holdings.load(store, one.snapshot).blobs
        assert {digest: store.size(digest) for digest in wanted} == wanted, (
            f"snapshot {one.name} is not whole"
        )
    ledger = FileLedger(root / "haversack" / "ledger.jsonl", SystemClock())
    findings = check_chain(ledger.lines(), ledger.head())
    assert findings == [], (findings, ledger.head(), ledger.path.read_bytes()[-500:])
    return held.current.snapshot if held.current else None


def sweep(
    faults: Shim,
    folder: Path,
    start: Path | None,
    words: Sequence[str | Path],
    *,
    mode: str,
    check: Callable[[str, str, Path, int], None],
    finish: Callable[[Path], None],
    only: Collection[str] = (),
) -> int:
    """Run a command once for every point at which it changes a store, with a fault at that point.

    Each run has a copy of the store ``start`` (``None``: none yet).  ``check`` gets the name and path of the
    call, the store and the exit code; ``finish`` brings the store to where the command should have, and
    proves it.  ``only`` names the calls to try.  Returns the number of points; a fault beyond the last of
    them must change nothing.
    """

    def one(at: int) -> bool:
        own = folder / f"point-{at}"
        own.mkdir()
        store = own / "store"
        if start is not None:
            shutil.copytree(start, store)
        added = faults.environ(store, at=at, mode=mode, log=own / "log")
        done = haversack(*words, store=store, env=added)
        calls = points(own / "log")
        assert "Traceback" not in done.stderr, done.stderr
        reached = at <= len(calls)
        if reached:
            try:
                check(*calls[at - 1], store, done.returncode)
            except AssertionError as problem:
                where = f"point {at}, {' '.join(calls[at - 1])}"
                raise AssertionError(f"{where}: {problem} {done.stderr}") from problem
        else:
            assert done.returncode == 0, done.stderr
        finish(store)
        if reached:
            shutil.rmtree(own)
        return reached

    beyond = 10**6
    assert not one(beyond)
    calls = points(folder / f"point-{beyond}" / "log")
    wanted = [at for at, (name, _) in enumerate(calls, 1) if not only or name in only]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        reached = sum(pool.map(one, wanted))
    # Threads may make a call more or less; a sweep that misses more than that proves nothing.
    assert reached >= len(wanted) - 2
    return reached


class Room:
    """A mount namespace of its own, held by a process that waits."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._holder = subprocess.Popen(
            ["unshare", "-m", "sh", "-c", "echo ready; exec cat"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._holder.stdout is not None
        assert self._holder.stderr is not None
        if self._holder.stdout.readline() != "ready\n":
            said = self._holder.stderr.read().strip()
            self.close()
            pytest.skip(f"mounts are not possible here: {said}")

    def words(self, argv: Sequence[str | Path]) -> list[str]:
        """The argv that runs some other argv in here."""
        return ["nsenter", "-t", str(self._holder.pid), "-m", "--", *map(str, argv)]

    def run(
        self, *argv: str | Path, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a program in here; the exit code is for the caller to read."""
        return subprocess.run(self.words(argv), env=env, capture_output=True, text=True)

    def mount(self, *words: str | Path) -> None:
        """``mount``; skips the test where that is not allowed."""
        done = self.run("mount", *words)
        if done.returncode:
            pytest.skip(f"mounts are not possible here: {done.stderr.strip()}")

    def tmpfs(self, name: str, options: str) -> Path:
        """A new folder with a file system in memory of its own."""
        place = self.folder / name
        place.mkdir(exist_ok=True)
        self.mount("-t", "tmpfs", "-o", options, name, place)
        return place

    def see(self, path: Path) -> Path:
        """A path in here, as the test itself can read and write it."""
        return Path(f"/proc/{self._holder.pid}/root{path}")

    def close(self) -> None:
        """End; the mounts go with it."""
        self._holder.communicate()


@contextmanager
def stopped(argv: Sequence[str], env: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A process that has stopped itself (mode ``s``); it is killed in the end if it still runs."""
    process = subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 20
        while Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
            assert process.poll() is None, "it ended before it stopped"
            assert time.monotonic() < deadline, "it did not stop"
            time.sleep(0.01)
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.communicate()
