"""Bundles of wheels that a test made itself, packed and received by the real verbs with no index."""

from __future__ import annotations

import tarfile
from collections.abc import Sequence
from pathlib import Path

from haversack.model.artifact import Artifact, digest_of
from haversack.model.lock import Lock, LockedEnvironment, merge_artifacts
from haversack.model.target import Target
from haversack.ports.machine import probe
from haversack.ports.media import Folders, FolderWriter
from haversack.verbs import pack
from haversack.verbs.receive import Received, receive
from tests.support import tiny


def here(name: str = "here", python: str | None = None) -> Target:
    """This machine as a target, with its own Python or another."""
    machine = probe()
    return Target(name, machine.platform, python or machine.python_short, machine.glibc, machine.macos)


def artifacts_of(files: Sequence[Path], *refs: str) -> list[Artifact]:
    """Wheels (or one interpreter archive) as artifacts that lie beside the declaration."""
    found = []
    for file in files:
        data = file.read_bytes()
        kind, name, version = "interpreter", "python", "3"
        if file.suffix == ".whl":
            kind, (name, version) = "wheel", file.name.split("-")[:2]
        origin = f"path:{file.name}"
        found.append(
            Artifact(
                kind, name.replace("_", "-"), version, file.name, digest_of(data), len(data), origin, refs
            )
        )
    return found


def packed(
    folder: Path,
    *files: Path,
    command: str | None = None,
    targets: Sequence[Target] = (),
    rehearsing: bool = True,
    name: str = "2026-11",
    out: str = "bundle",
) -> pack.Packed:
    """Pack files that lie in ``folder`` as environment ``lab`` of each target into ``folder/bundle``."""
    targets = targets or (here(),)
    environments = tuple(LockedEnvironment("lab", target.name, "pip", (), command) for target in targets)
    artifacts = merge_artifacts(artifacts_of(files, *(environment.ref for environment in environments)))
    lock = Lock("s", digest_of(b"s"), tuple(targets), environments, artifacts)
    ports = tiny.outside(folder / "outside")
    return pack.pack(lock, folder, ports, FolderWriter(folder / out), rehearsing=rehearsing, name=name)


def received(folder: Path, bundle: str = "bundle") -> Received:
    """Receive ``folder/bundle`` into ``folder/inside``."""
    return receive(Folders([folder / bundle]), tiny.inside(folder / "inside"))


def python_archive(path: Path, python: Path) -> Path:
    """A relocatable archive of an interpreter: what venv and imports need of it."""
    base = python.resolve().parent.parent
    minor = next(p.name for p in sorted((base / "lib").glob("python3.*")) if p.name == python.resolve().name)
    skipped = {"site-packages", "test", "tests", "__pycache__", "idlelib", "tkinter", "ensurepip", "lib2to3"}

    def wanted(info: tarfile.TarInfo) -> tarfile.TarInfo | None:
        unwanted = skipped & set(info.name.split("/")) or info.name.endswith((".a", ".o"))
        return None if unwanted or info.issym() else info

    with tarfile.open(path, "w") as archive:
        archive.add(base / "bin" / minor, f"python/bin/{minor}")
        link = tarfile.TarInfo("python/bin/python3")
        link.type, link.linkname = tarfile.SYMTYPE, minor
        archive.addfile(link)
        archive.add(base / "lib" / minor, f"python/lib/{minor}", filter=wanted)
        for library in sorted((base / "lib").glob("libpython3*.so*")):
            archive.add(library, f"python/lib/{library.name}")
    return path


def tree(folder: Path) -> dict[str, str]:
    """Every name below a folder with what it is, to tell whether anything changed."""
    found = {}
    for path in sorted(folder.rglob("*")):
        what = f"-> {path.readlink()}" if path.is_symlink() else "folder"
        if path.is_file() and not path.is_symlink():
            what = f"{path.stat().st_mtime_ns} {digest_of(path.read_bytes())}"
        found[str(path.relative_to(folder))] = what
    return found
