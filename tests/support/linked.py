"""An environment of conda packages as a snapshot has it, and its installation as the verb does it.

::

    ports = tiny.inside(tmp_path / "store")
    lab = environment(ports, [*packages(channel, "python", "tqdm")], wheels=[wheel])
    put(lab, tmp_path / "home", ports)
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from haversack.conda import install, package
from haversack.formats import repodata, wheel
from haversack.model.artifact import Artifact, digest_of
from haversack.model.lock import LockedEnvironment
from haversack.model.snapshot import SnapshotEnvironment
from haversack.model.target import Target
from haversack.ports import Inside
from haversack.ports.machine import probe
from tests.support.conda import Package

CHANNEL = "https://conda.example.org/main"


def packages(channel: Path, *names: str) -> list[Package]:
    """The packages of a channel on disk, all or those of some names, with what the channel says of them."""
    found = []
    for place in sorted(channel.glob("*/repodata.json")):
        data = json.loads(place.read_text())
        for filename, record in {**data["packages"], **data["packages.conda"]}.items():
            if not names or record["name"] in names:
                found.append(Package(place.parent / filename, record))
    return found


def target(**more: Any) -> Target:
    """This machine as a target."""
    here = probe()
    return Target("here", here.platform, here.python_short, here.glibc, **more)


def environment(
    inside: Inside,
    members: Sequence[Package],
    *,
    wheels: Sequence[Path] = (),
    check: str | None = None,
    settings: Mapping[str, Any] | None = None,
    on: Target | None = None,
) -> SnapshotEnvironment:
    """An environment of packages and wheels, whose bytes are put into the store."""
    on = on or target()
    locked = LockedEnvironment("lab", on.name, "conda", (), check, settings or {})
    artifacts = [_package(member, locked.ref) for member in members]
    artifacts += [_wheel(path, locked.ref) for path in wheels]
    for path in (*(member.path for member in members), *wheels):
        data = path.read_bytes()
        inside.store.add(digest_of(data), [data])
    inside.store.publish(inside.store.index())
    return SnapshotEnvironment(locked, on, tuple(artifacts), digest_of(b"manifest"))


def _package(member: Package, ref: str) -> Artifact:
    url = f"{CHANNEL}/{member.subdir}/{member.filename}"
    record = {**member.record, "fn": member.filename, "url": url, "channel": CHANNEL}
    artifact = repodata.artifact_of(record, ref)
    assert isinstance(artifact, Artifact)
    with member.path.open("rb") as file:
        facts, _ = package.inspect(file, artifact)
    return Artifact(
        artifact.kind,
        artifact.name,
        artifact.version,
        artifact.filename,
        artifact.digest,
        artifact.size,
        artifact.origin,
        (ref,),
        {**artifact.facts, **facts},
    )


def _wheel(path: Path, ref: str) -> Artifact:
    name, version = path.name.split("-")[:2]
    data = path.read_bytes()
    with path.open("rb") as file:
        facts, _ = wheel.inspect(file, path.name)
    name = name.replace("_", "-")
    return Artifact(
        "wheel", name, version, path.name, digest_of(data), len(data), f"path:{path.name}", (ref,), facts
    )


def put(known: SnapshotEnvironment, home: Path, inside: Inside, *, compile_bytecode: bool = False) -> Path:
    """Install aside, put the result in the place of ``home`` and settle it there, as ``verbs/install`` does."""
    aside = home.parent / f".{home.name}.aside"
    home.parent.mkdir(parents=True, exist_ok=True)
    install.install(known, aside, inside, home=home, compile_bytecode=compile_bytecode)
    if home.exists():
        shutil.rmtree(home)
    aside.rename(home)
    install.settle(known, home, inside)
    return home
