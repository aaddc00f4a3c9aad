"""``haversack doctor``: what is wrong with this machine, this store, an environment, and what to do."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from haversack.errors import HaversackError, NotFoundError, PrefixError, StoreError
from haversack.kinds import kinds
from haversack.model.artifact import Digest, hex_of
from haversack.model.finding import Finding, worst_first
from haversack.model.ledger import check_chain
from haversack.model.lock import TOOL
from haversack.ports import UNKNOWN_ROOM, Inside
from haversack.verbs import holdings
from haversack.verbs.install import MARKER, read_marker
from haversack.wheels import drift, interpreter
from haversack.wheels.install import damaged

_LOW = 1 << 30
_STEERING = ("PIP_", "UV_", "CONDA_", "MAMBA_", "PIXI_", "RATTLER_")
_FILES = (
    "~/.config/pip/pip.conf",
    "~/.pip/pip.conf",
    "/etc/pip.conf",
    "~/.config/uv/uv.toml",
    "/etc/uv/uv.toml",
    "~/.condarc",
    "~/.mambarc",
    "~/.pixi/config.toml",
    "~/.config/pixi/config.toml",
)


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What was looked at, and what was found."""

    looked: tuple[str, ...]
    findings: tuple[Finding, ...]


def machine(inside: Inside, environ: Mapping[str, str]) -> Diagnosis:
    """This machine: its programs, its cage, and the settings that steer other tools."""
    findings = []
    try:
        said = inside.run(["uv", "--version"])
        looked = [f"uv: {said.out.strip()}"]
    except HaversackError as problem:
        looked = ["uv: missing"]
        findings.append(Finding("tool-missing", "uv", problem.message, problem.remedy))
    here = inside.machine
    looked.append(
        f"machine: {here.platform}, glibc {here.glibc}, Python {here.python}, CUDA {here.cuda or 'none'}"
    )
    cage = inside.run.cage()
    looked.append(f"network namespace: {cage or 'can be closed'}")
    if cage:
        findings.append(
            Finding(
                "tool-missing",
                "network namespace",
                cage,
                "rehearsals need one on the connected side",
                blocking=False,
            )
        )
    steering = [n for n in sorted(environ) if n.startswith(_STEERING) or n == "VIRTUAL_ENV"]
    steering += [text for text in _FILES if Path(text).expanduser().exists()]
    findings += [
        Finding(
            "ambient-config",
            name,
            "steers pip, uv, conda or pixi; haversack ignores it",
            "remove it if they behave oddly",
            blocking=False,
        )
        for name in steering
    ]
    return Diagnosis(tuple(looked), tuple(worst_first(findings)))


def store(inside: Inside, *, read_all: bool = False, drop_damaged: bool = False) -> Diagnosis:
    """The store: its snapshots, blobs and ledger.

    ``read_all`` hashes every blob.  With ``drop_damaged`` the damaged ones are removed, so that the next
    ``receive`` of a bundle that holds them brings them again.
    """
    findings: list[Finding] = []
    looked = [f"store: {inside.store}"]
    held = holdings.read(inside.store)
    for snapshot in held.held:
        try:
            content = holdings.load(inside.store, snapshot.snapshot)
        except HaversackError as problem:
            findings.append(
                Finding(
                    "store-incomplete",
                    f"snapshot {snapshot.name}",
                    problem.message,
                    "receive a bundle that holds it again",
                )
            )
            continue
        sizes = {digest: inside.store.size(digest) for digest in content.blobs}
        for digest, size in content.blobs.items():
            if sizes[digest] is None:
                findings.append(
                    Finding(
                        "store-incomplete",
                        f"snapshot {snapshot.name}",
                        f"blob {digest} is gone",
                        "receive a bundle that holds it again",
                    )
                )
            elif sizes[digest] != size:
                findings.append(
                    Finding(
                        "store-damaged",
                        digest,
                        f"has {sizes[digest]} bytes instead of {size}",
                        "haversack doctor --drop-damaged, then receive again",
                    )
                )
    looked.append(f"snapshots: {len(held.held)}, current {held.current.name if held.current else 'none'}")
    if held.held and held.current is None:
        findings.append(Finding("store-layout", "index.json", "no snapshot is current", "haversack use NAME"))
    if read_all or drop_damaged:
        findings += _read_all(inside, drop=drop_damaged)
        looked.append("blobs: every one was read")
        findings += _copies(inside, drop=drop_damaged)
    if (copies := inside.store.copies()) is not None:
        looked.append(f"copies here of blobs that lie elsewhere: {len(list(copies))}")
    lines = list(inside.ledger.lines())
    findings += check_chain(lines, inside.ledger.head())
    looked.append(f"ledger: {len(lines)} entries")
    free = inside.store.free()
    looked.append("free: the storage does not say" if free == UNKNOWN_ROOM else f"free: {free} bytes")
    if free < _LOW:
        findings.append(
            Finding(
                "space-low",
                str(inside.store),
                f"{free} bytes are free",
                "haversack prune --keep 2",
                blocking=False,
            )
        )
    if not _has_hardlinks(inside.cache):
        findings.append(
            Finding(
                "store-hardlinks",
                str(inside.cache),
                "has no hard links; every install is a copy",
                "put the store on a file system that has them",
                blocking=False,
            )
        )
    return Diagnosis(tuple(looked), tuple(worst_first(findings)))


def _read_all(inside: Inside, *, drop: bool) -> list[Finding]:
    """Hash every blob; drop the damaged ones if told to."""
    digests = [digest for digest, _ in inside.store.blobs()]

    def one(digest: Digest) -> Finding | None:
        finding = damaged(digest, inside.store)
        advance(1)
        return finding

    with (
        inside.progress("reading the store", len(digests), "") as advance,
        ThreadPoolExecutor(os.cpu_count()) as pool,
    ):
        found = dict(zip(digests, pool.map(one, digests), strict=True))
    wrong = [digest for digest, finding in found.items() if finding]
    if drop and wrong:
        with inside.store.exclusive():
            inside.ledger.append("drop-damaged", "store", {"blobs": wrong})
            for digest in wrong:
                inside.store.remove(digest)
    return [finding for finding in found.values() if finding]


def _copies(inside: Inside, *, drop: bool) -> list[Finding]:
    """Hash local copies of blobs that lie elsewhere; a wrong one is no loss, and brought anew when it is asked for."""
    findings = []
    for digest in inside.store.copies() or ():
        with contextlib.suppress(FileNotFoundError):
            place = inside.store.at_hand(digest)
            if place is None:
                continue
            with place.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() == hex_of(digest):
                    continue
            if drop:
                inside.store.forget(digest)
            told, remedy = "is a damaged copy of a blob", "haversack doctor --drop-damaged; look at this disk"
            findings.append(Finding("store-damaged", str(place), told, remedy, blocking=False))
    return findings


def _has_hardlinks(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as trial:
            (Path(trial) / "a").touch()
            os.link(Path(trial) / "a", Path(trial) / "b")
    except OSError:
        return False
    return True


def environment(prefix: Path, inside: Inside) -> Diagnosis:
    """An installed environment, every file against its RECORD and every distribution against the snapshot.

    Once its snapshot is pruned only the RECORDs are left to compare with, and a finding says so.
    Raises ``PrefixError`` for a folder that haversack did not make.
    """
    marker = read_marker(prefix)
    if marker is None:
        raise PrefixError(
            "was not made by haversack",
            where=str(prefix),
            remedy=f"give the prefix of an install (it holds {MARKER})",
        )
    known, alone = None, False
    try:
        content = holdings.load(inside.store, marker.snapshot)
    except (NotFoundError, StoreError) as problem:
        gone = f"the snapshot of this environment is not in the store any more ({problem.message})"
        # Only a virtual environment says of all its files what they should be.
        alone = (prefix / "pyvenv.cfg").is_file()
        findings = [
            Finding(
                "store-incomplete",
                marker.snapshot,
                f"{gone}: its files were {'compared with their RECORDs alone' if alone else 'not compared'}",
                "receive a bundle that holds it again, or install from the current snapshot",
                blocking=False,
            ),
            *(drift.drift(prefix, None, inside.store) if alone else ()),
        ]
    else:
        known = next((e for e in content.environments if e.ref == marker.ref), None)
        if known is None:
            raise NotFoundError(f"the snapshot has no environment {marker.ref}", where=str(prefix / MARKER))
        findings = kinds()[known.locked.kind].drift(known, prefix, inside.store)
    python = prefix / "bin" / "python"
    told = interpreter.ask(python, inside) if os.name != "nt" else None
    borrowed = kinds()[known.locked.kind].borrows(known, inside) if known else "" if alone else None
    wanted = borrowed if known and known.locked.name != TOOL else ""
    if os.name != "nt" and borrowed is not None and (told is None or (wanted and told[0] != wanted)):
        findings.append(
            Finding(
                "env-python",
                str(python),
                f"is not a working Python {wanted}".rstrip(),
                "install the environment again",
            )
        )
    return Diagnosis((f"environment: {marker.ref} at {prefix}",), tuple(worst_first(findings)))
