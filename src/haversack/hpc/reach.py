"""Whether everybody may read what lies on a shared file system, by the modes of files; only reads.

Whoever installs with a umask of 077 makes folders that nobody else may enter.  Access lists are not asked.
"""

from __future__ import annotations

import shlex
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from haversack.hpc.installed import Installed, note
from haversack.model.finding import Finding


def closed(tops: Mapping[Path, Iterable[Path]]) -> list[Finding]:
    """A finding for each folder that others may not pass on the way to a top, and for each top they may not read.

    A top is as closed as what is given for it, which lies below.
    """
    findings: list[Finding] = []
    passed: set[Path] = set()
    for top, below in tops.items():
        for folder in sorted({*top.parents, *top.resolve().parents} - passed):
            passed.add(folder)
            if mode := _lacks(folder, stat.S_IXOTH):
                said = f"{mode}, and is on the way to {top}"
                remedy = f"chmod a+x {shlex.quote(str(folder))}, or put elsewhere what others should use"
                findings.append(note(str(folder), said, remedy))
        for path in (top, *below):
            if mode := _lacks(path, stat.S_IROTH, stat.S_IROTH | stat.S_IXOTH):
                said = mode if path == top else f"has {path.relative_to(top)}, which {mode}"
                findings.append(note(str(top), said, f"chmod -R a+rX {shlex.quote(str(top))}"))
                break
    return findings


def placed(folder: Path, files: Iterable[str]) -> dict[Path, Iterable[Path]]:
    """A folder with what was rendered into it, as a top of :func:`closed`."""
    paths = {folder / part for name in files for part in (Path(name).parent, Path(name))}
    return {folder: sorted(paths - {folder})}


def environments(found: Iterable[Installed]) -> dict[Path, Iterable[Path]]:
    """Installed environments and their interpreters, as tops of :func:`closed`.

    Looked at is what every umask would close alike: the folders, the programs and what the packages are.  Tens
    of thousands of files are not.
    """
    tops: dict[Path, Iterable[Path]] = {}
    for one in found:
        tops[one.folder] = _parts(one.prefix)
        tops |= {one.prefix / "bin" / "python": ()} if (one.prefix / "bin" / "python").exists() else {}
    return tops


def _parts(prefix: Path) -> Iterator[Path]:
    yield prefix
    for pattern in ("*", "bin/*", "lib/python*", "lib/python*/site-packages", "lib/python*/site-packages/*"):
        # What a tool keeps for itself, as uv its lock, is nobody's to read.
        yield from (path for path in sorted(prefix.glob(pattern)) if not path.name.startswith("."))


def _lacks(path: Path, needed: int, of_folder: int = 0) -> str:
    """How a file or folder is closed to others, empty where it is open; ``of_folder`` is what a folder needs, if it is more."""
    try:
        status = path.stat()
        mode = stat.S_IMODE(status.st_mode)
        if not (needed | (of_folder if stat.S_ISDIR(status.st_mode) else 0)) & ~mode:
            return ""
        owner, group = _name(path.owner, status.st_uid), _name(path.group, status.st_gid)
    except OSError:
        return ""  # gone, or on a way that is told already
    whose = f"{owner} and the group {group}" if mode & stat.S_IRWXG else owner
    return f"is closed to others than {whose} (mode {mode:04o})"


def _name(ask: Callable[[], str], number: int) -> str:
    """A name, or the number of whoever has none here."""
    try:
        return ask()
    except KeyError:
        return str(number)
