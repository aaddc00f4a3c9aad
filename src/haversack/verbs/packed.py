"""An environment as one tar beside what was rendered, kept by the rule of :func:`haversack.verbs.render.keep`.

A tar bears the time of the installation that it was packed of, in whole seconds, since not every file system has
finer ones: a later installation, and an edit, change that, so that the gigabytes of one that nobody touched need not
be read to know it.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from haversack.formats import rendered
from haversack.formats.prefixes import MARKER
from haversack.formats.rendered import Kept
from haversack.model.finding import Finding
from haversack.verbs.aside import beside, unwritable
from haversack.verbs.render import may_read, record, recorded


def stale(
    folder: Path, archives: Mapping[str, Path], *, force: bool = False, dry_run: bool = False
) -> tuple[tuple[str, ...], list[Finding]]:
    """Which ``archives`` (the prefix of each by its name in ``folder``) must be packed, and which of those somebody made.

    With ``force`` nobody asks who made one.  On a dry run one that may not be read counts as it was packed last.
    Raises ``PrefixError`` where that cannot be read.
    """
    marker = folder / rendered.MARKER
    try:
        before = recorded(marker)
    except OSError as problem:
        raise unwritable(problem, "read", marker) from problem
    wanted, findings = [], []
    for name, prefix in archives.items():
        file, kept = folder / name, before.get(name)
        try:
            if file.exists() and kept and int(file.stat().st_mtime) == _installed(prefix):
                continue
            wanted.append(name)
            if force or not file.exists() or (dry_run and not may_read(file)):
                continue
            # One that nobody packed need not be read.
            if not (kept and kept.is_as_rendered(_digest(file))):
                said = "was edited since it was packed, or is somebody else's"
                findings.append(Finding("rendered-edited", name, said, "move it away, or say --force"))
        except OSError as problem:
            raise unwritable(problem, "read", file) from problem
    return tuple(wanted), findings


def pack(folder: Path, name: str, prefix: Path, by: str) -> None:
    """Pack an environment into the tar ``name``, below ``environment/``; ``by`` is who rendered it.

    Raises ``PrefixError`` and ``SpaceError``; what stood there stays then.
    """
    file, marker = folder / name, folder / rendered.MARKER
    aside = beside(file)
    try:
        try:
            installed = _installed(prefix)
            with tarfile.open(aside, "w", format=tarfile.PAX_FORMAT) as tar:
                for path in _sorted(prefix):
                    inner = Path("environment") / path.relative_to(prefix)
                    tar.add(path, str(inner), recursive=False, filter=_anybodys)
            os.utime(aside, (installed, installed))
            before, made = recorded(marker), Kept(_digest(aside), by)
            # Said first: a tar that was put there before something failed is no edit.
            coming = replace(before[name], by=by, next=made.digest) if name in before else made
            record(marker, before | {name: coming})
            aside.replace(file)
            record(marker, before | {name: made})
        finally:
            aside.unlink(missing_ok=True)
    except OSError as problem:
        raise unwritable(problem, "written", file) from problem


def _installed(prefix: Path) -> int:
    """When an environment was installed, in whole seconds."""
    return int((prefix / MARKER).stat().st_mtime)


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return f"sha256:{hashlib.file_digest(opened, 'sha256').hexdigest()}"


def _sorted(folder: Path) -> Iterator[Path]:
    """A folder and everything below it, links as themselves, in the same order everywhere."""
    yield folder
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not path.is_symlink():
            yield from _sorted(path)
        else:
            yield path


def _anybodys(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """A member that says nothing of who packed it.

    Its time stays, in whole seconds: compiled modules (``.pyc``) are of no use beside sources of another time.
    """
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mtime = int(member.mtime)
    return member
