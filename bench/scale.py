"""Many artifacts: reading a lock, telling two snapshots apart, checking a manifest.

Every measurement is a process of its own (``python -m bench.scale FOLDER ACT``), so that what one keeps in
memory is no burden to the next.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

from bench.lab import Lab
from bench.measure import Row
from haversack.formats import bundle as layout
from haversack.formats import lockfile, oci
from haversack.model.artifact import Artifact, digest_of
from haversack.model.bundle import Bundle, Piece, Volume
from haversack.model.lock import Lock, LockedEnvironment
from haversack.model.snapshot import Snapshot, diff
from haversack.model.target import Target
from haversack.ports.disk import DiskStore
from haversack.verbs import holdings

_COUNTS = (2_000, 20_000, 100_000)
_PROMISED = 20_000
_ENVIRONMENTS = 20
_CHANGED = 10
_REQUIRES = (
    "numpy>=1.26",
    'tomli>=2; python_version < "3.11"',
    "typing-extensions>=4.8",
    'pytest; extra == "test"',
)
_TARGET = Target("node", "linux-x86_64", "3.11", "2.28")


def scale(lab: Lab) -> Iterator[Row]:
    """Synthetic locks; twenty environments, of which ten artifacts of one change from one snapshot to the next."""
    for count in _COUNTS:
        folder = lab.work / f"scale-{count}"
        build(folder, count)
        limit = 2.0 if count == _PROMISED else None
        for act, title in (
            ("lock", "read a lock"),
            ("manifest", "check a manifest"),
            ("diff", f"diff, {_CHANGED} changed"),
            ("diff-all", "diff, all changed"),
        ):
            seconds = tuple(_inside(lab, folder, act) for _ in range(lab.runs))
            yield Row(f"{title}, {count:,} artifacts", "s", seconds, limit=limit)
        argv = ("diff", "one", "ten")
        whole = tuple(lab.haversack(*argv, store=folder / "store").seconds for _ in range(lab.runs))
        yield Row(f"haversack diff, {count:,} artifacts", "s", whole, limit=limit, note="the whole command")


def _inside(lab: Lab, folder: Path, act: str) -> float:
    """The seconds of one act, as its own process tells them: starting Python is not what grows."""
    told = folder / "seconds"
    lab.python("-m", "bench.scale", folder, act)
    return float(told.read_text())


def build(folder: Path, count: int) -> None:
    """A store with three snapshots of ``count`` artifacts, without their blobs, and a lock and a manifest beside it."""
    folder.mkdir()
    store = DiskStore(folder / "store", create=True)
    known = holdings.Holdings((), "scale", 1, None)
    with store.exclusive():
        for name, changed in (("one", 0), ("ten", _CHANGED), ("all", count)):
            lock = _lock(count, changed)
            facts = {"requires_dist": list(_REQUIRES), "requires_python": ">=3.9", "modules": ["package"]}
            snapshot, metadata = oci.build(lock, {a.digest: (a.size or 0, facts) for a in lock.artifacts})
            for digest, data in metadata.items():
                store.add(digest, [data])
            known, _ = holdings.added(
                known, name, snapshot, snapshot.blobs[snapshot.id], "2026-11-20T00:00:00Z"
            )
            if name == "one":
                (folder / lockfile.FILENAME).write_bytes(lockfile.write(lock))
                (folder / layout.MANIFEST).write_bytes(layout.write(_bundle(snapshot)))
                current = snapshot.id
        store.publish(holdings.write(known, current))


def _lock(count: int, changed: int) -> Lock:
    environments = [LockedEnvironment(f"env{n:02d}", _TARGET.name, "pip") for n in range(_ENVIRONMENTS)]
    artifacts = []
    for number in range(count):
        # Whole environments in turn: what changes lies in as few of them as it can.
        ref = environments[number * _ENVIRONMENTS // count].ref
        version = "1.1" if number < changed else "1.0"
        name = f"package{number:06d}"
        filename = f"{name}-{version}-py3-none-any.whl"
        origin = f"https://index.example/packages/{filename}"
        digest = digest_of(filename.encode())
        artifacts.append(Artifact("wheel", name, version, filename, digest, 10_000 + number, origin, (ref,)))
    return Lock("scale", digest_of(b"scale"), (_TARGET,), tuple(environments), tuple(artifacts))


def _bundle(snapshot: Snapshot) -> Bundle:
    pieces = tuple(Piece(digest, digest, 0, size) for digest, size in snapshot.blobs.items())
    return Bundle(
        site="scale",
        sequence=1,
        name="one",
        snapshot=snapshot.id,
        base=None,
        requires=(),
        volumes=(Volume("volume-001", pieces),),
        metadata=snapshot.metadata,
        files={},
        rehearsals=(),
        created="2026-11-20T00:00:00Z",
        tool="bench",
    )


def act(folder: Path, what: str) -> float:
    """Do one thing once and return its seconds."""
    store = DiskStore(folder / "store")
    start = time.perf_counter()
    if what == "lock":
        lockfile.read((folder / lockfile.FILENAME).read_bytes())
    elif what == "manifest":
        bundle, _ = layout.read((folder / layout.MANIFEST).read_bytes())
        layout.expected(bundle, bundle.volumes[0], b"")
    else:
        known = holdings.read(store)
        old, new = (known.named(name).snapshot for name in ("one", "ten" if what == "diff" else "all"))
        left, right = holdings.load_both(store, old, new)
        start = time.perf_counter()
        diff(left, right)
    return time.perf_counter() - start


if __name__ == "__main__":
    place = Path(sys.argv[1])
    (place / "seconds").write_text(str(act(place, sys.argv[2])))
