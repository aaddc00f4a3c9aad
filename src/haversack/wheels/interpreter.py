"""Which Python an environment is made with: always named by its path, never whatever happens to win."""

from __future__ import annotations

import os
import posixpath
import shutil
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from haversack.errors import IntegrityError, ToolError
from haversack.model.artifact import Artifact, hex_of
from haversack.model.lock import TOOL
from haversack.model.snapshot import SnapshotEnvironment
from haversack.ports import Inside

_ASK = "import sys; print('%d.%d' % sys.version_info[:2]); print(getattr(sys, '_base_executable', None) or sys.executable)"


def ask(python: str | Path, inside: Inside) -> tuple[str, Path] | None:
    """Minor version and base executable of an interpreter, or ``None`` if it is none (a dead shim, say)."""
    try:
        done = inside.run([python, "-I", "-c", _ASK])
    except ToolError:
        return None
    lines = done.out.splitlines()
    return (lines[0], Path(lines[1])) if done.code == 0 and len(lines) == 2 else None


def find(minor: str, inside: Inside) -> Path | None:
    """A Python of that minor version (``"3.11"``) on this machine: our own, or one on PATH."""
    names = [f"python{minor}", "python3", "python"]
    places = [inside.python, *(shutil.which(name) for name in names)]
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        # A version manager's shim answers first and may refuse; the real one can stand further on.
        candidate = Path(folder) / f"python{minor}"
        # Whether we may run it: a link into a folder of somebody else's is none for us.
        if folder and os.access(candidate, os.X_OK) and str(candidate) not in map(str, places):
            places.append(candidate)
    for place in places:
        told = ask(place, inside) if place else None
        if told and told[0] == minor:
            return told[1]
    return None


def minor_for(environment: SnapshotEnvironment, inside: Inside) -> str:
    """The Python that an environment needs: its target's, but haversack itself runs on whichever is here."""
    if environment.locked.name == TOOL:
        return inside.machine.python_short
    return environment.target.python_short


def unpack(archive: Artifact, minor: str, inside: Inside) -> Path:
    """The interpreter in a relocatable archive of the snapshot, unpacked once beside the cache.

    Not in the cache: environments go on using it, and what is in the cache may be removed at any time.
    Raises ``IntegrityError`` for an archive that would leave its folder, ``ToolError`` for one without a
    Python of that minor version that runs here.
    """
    place = inside.cache.parent / "pythons" / hex_of(archive.digest)
    if not place.is_dir():
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".new-", dir=place.parent) as folder:
            with inside.store.open(archive.digest) as blob, tarfile.open(fileobj=blob, mode="r|*") as tar:
                try:
                    for member in tar:
                        _stays(member)
                        tar.extract(member, folder, **_FILTER)
                except (tarfile.TarError, OSError) as problem:
                    raise IntegrityError(
                        f"cannot be unpacked: {problem}", where=archive.filename
                    ) from problem
                while blob.read(1 << 20):
                    """To the end, where the digest is compared."""
            _python_in(Path(folder), archive, minor, inside)
            # Whoever may use the environments may use what they stand on; folders for a while are private.
            Path(folder).chmod(0o755)
            Path(folder).rename(place)
            Path(folder).mkdir()
    return _python_in(place, archive, minor, inside)


# Debian 12's Python 3.11.2 is older than the filters of PEP 706; from 3.12 on one must be named.
_FILTER: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}


def _stays(member: tarfile.TarInfo) -> None:
    """Raise ``TarError`` for a member that is no plain file, folder or link, or that leads out of the archive."""
    if not (member.isreg() or member.isdir() or member.issym() or member.islnk()):
        raise tarfile.TarError(f"{member.name} is a device")
    names = [member.name]
    if member.issym():
        names.append(posixpath.join(posixpath.dirname(member.name), member.linkname))
    elif member.islnk():
        names.append(member.linkname)
    for name in names:
        if name.startswith("/") or posixpath.normpath(name).split("/")[0] == "..":
            raise tarfile.TarError(f"{member.name} leads out of the archive")


def _python_in(folder: Path, archive: Artifact, minor: str, inside: Inside) -> Path:
    """The interpreter of an unpacked archive, once it has said which one it is."""
    remedy = f"declare a relocatable archive of Python {minor} for the target's platform"
    for pattern in ("*/bin/python3", "bin/python3", "*/python.exe", "python.exe"):
        for python in sorted(folder.glob(pattern)):
            told = ask(python, inside)
            if told is None:
                raise ToolError(f"its {python.name} does not run here", where=archive.filename, remedy=remedy)
            if told[0] != minor:
                raise ToolError(f"is Python {told[0]}, not {minor}", where=archive.filename, remedy=remedy)
            return python
    raise ToolError("holds no bin/python3", where=archive.filename, remedy=remedy)
