"""Look at an environment that exists only as a folder: what is in it, and what of it knows where it stands.

What can be made again stays behind: bytecode beside its source (unless a conda package brought it), so that
using an environment does not change what is packed; ``pkgs``, ``envs`` and ``conda-bld`` of a base
installation, which are caches and other environments; haversack's own marker; and the interpreter of a
virtual environment, which is the machine's.  Folders are writable for their owner, so that an environment
can be replaced.

Not looked for: the path in UTF-16, percent-encoded or within compressed data.  Bytecode is never rewritten:
Python compares it with its source and mends the path in it when it is imported.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import re
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from haversack.errors import PrefixError
from haversack.formats.prefixes import MARKER, META
from haversack.model.finding import Finding
from haversack.relocation import records
from haversack.relocation.manifest import Flavour, Manifest, fits
from haversack.relocation.spelling import Occurrence, measure, spans
from haversack.relocation.tape import CHUNK, Member, stays

_LEFT = {"conda": {"pkgs", "envs", "conda-bld", MARKER}, "venv": {MARKER}, "folder": {MARKER}}
_INTERPRETER = re.compile(r"bin/python(3(\.\d+)?)?")
_CACHED = re.compile(r"(?P<folder>(?:.*/)?)__pycache__/(?P<module>[^/]+?)\.[^./]+(?:\.opt-[^./]+)?\.pyc")
_LATEST_DATE = (1 << 33) - 1  # what a tar can say
_BATCH = 64
_NO_FOLLOW = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


@dataclass(frozen=True, slots=True)
class Scan:
    """A folder as it will travel: every member, sorted, and what is to be known of it.

    ``believed`` are files that were not read yet, since a package brought them for any folder: the SHA-256 (hex)
    that each must have, by its path.  Whoever reads them compares it.
    """

    root: Path
    manifest: Manifest
    members: tuple[Member, ...]
    findings: tuple[Finding, ...]
    believed: Mapping[str, str]

    @property
    def size(self) -> int:
        """The bytes of its files."""
        return sum(member.size for member in self.members)


class _Seen(NamedTuple):
    """What reading one file found out."""

    path: str
    occurrence: Occurrence | None = None
    altered: bool = False
    finding: Finding | None = None


def scan(
    root: Path,
    advance: Callable[[int], None] = lambda _: None,
    *,
    known_as: tuple[str, ...] = (),
    doubted: Collection[str] = (),
) -> Scan:
    """Look at a folder; ``known_as`` are paths that its files call it by, where they differ from its own.

    ``doubted`` are files not to be believed.  Files are read on all cores and ``advance`` is called with the
    bytes.  Raises ``PrefixError`` if there is no folder, or it cannot be an environment.
    """
    old = known_as or tuple(dict.fromkeys((os.path.normpath(root.absolute()), os.path.realpath(root))))
    if not root.is_dir():
        raise PrefixError(
            "is not a folder", where=str(root), remedy="name the folder of an environment on this machine"
        )
    odd = [path for path in old if not (path.isprintable() and fits(path))]
    if odd:
        raise PrefixError(
            "cannot be the folder of an environment: its scripts cannot hold that path as it is",
            where=odd[0] if odd[0].isprintable() else ascii(odd[0]),
            remedy="make it again at a path without quotes, backslashes, $ and control characters",
        )
    flavour = _flavour(root)
    members, findings = _walk(root, flavour, old)
    owned, more = records.owners(root) if flavour == "conda" else ({}, [])
    findings += more
    believed = {
        path: told.digest
        for path, told in owned.items()
        if path not in doubted and told.digest and _is_plain(told, members.get(path))
    }
    files = [m for m in members.values() if m.kind == "file" and m.path not in believed]
    seen = _read_all(root, files, owned, old, advance)
    findings += [one.finding for one in seen if one.finding]
    occurrences = {one.occurrence.path: one.occurrence for one in seen if one.occurrence}
    findings += records.differences(
        [(told.package, path) for path, told in owned.items() if _is_missing(path, told, members)],
        [(owned[one.path].package, one.path) for one in seen if one.altered],
    )
    findings += records.pointers(root, members, old)
    python = None
    if flavour == "venv":
        python, more = _borrowed(root)
        findings += more
    kept = _without_bytecode(members, owned, occurrences)
    manifest = Manifest(flavour, old, python, tuple(occurrences[path] for path in sorted(occurrences)))
    return Scan(root, manifest, tuple(kept[path] for path in sorted(kept)), tuple(findings), believed)


def _is_plain(told: records.Owned, member: Member | None) -> bool:
    """Whether a file seems to be as its package brought it, and then knows nothing of the folder."""
    return (
        member is not None
        and member.kind == "file"
        and told.copied
        and told.placeholder is None
        and told.size in (None, member.size)
        and not member.path.endswith(".pyc")
    )


def _flavour(root: Path) -> Flavour:
    if (root / META).is_dir():
        return "conda"
    return "venv" if (root / "pyvenv.cfg").is_file() else "folder"


def _walk(root: Path, flavour: Flavour, old: tuple[str, ...]) -> tuple[dict[str, Member], list[Finding]]:
    """Every member by its path, and a finding for each that cannot travel."""
    members = {"": Member("", "folder", root.stat().st_mode & 0o777 | stat.S_IRWXU)}
    linked: dict[tuple[int, int], list[str]] = {}
    findings: list[Finding] = []
    todo = [""]
    while todo:
        folder = todo.pop()
        try:
            with os.scandir(root / folder) as entries:
                found = list(entries)
        except OSError as problem:
            findings.append(_unmovable(folder, f"cannot be read: {problem.strerror}", "make it readable"))
            continue
        for entry in found:
            path = f"{folder}/{entry.name}" if folder else entry.name
            if not folder and path in _LEFT[flavour]:
                continue
            if flavour == "venv" and _INTERPRETER.fullmatch(path):
                continue
            try:
                status = entry.stat(follow_symlinks=False)
                member = _member(root, path, status, old)
            except OSError as problem:
                member = _unmovable(path, f"cannot be read: {problem.strerror}", "stop what removes it")
            if isinstance(member, Finding):
                findings.append(member)
                continue
            members[path] = member
            if member.kind == "folder":
                todo.append(path)
            elif member.kind == "file" and status.st_nlink > 1 and not path.endswith(".pyc"):
                # Bytecode may stay behind: nothing is to be a link to it.
                linked.setdefault((status.st_dev, status.st_ino), []).append(path)
    for paths in linked.values():
        first, *others = sorted(paths)
        for path in others:
            members[path] = Member(path, "hardlink", members[path].mode, target=first)
    return members, findings


def _member(root: Path, path: str, status: os.stat_result, old: tuple[str, ...]) -> Member | Finding:
    mode = status.st_mode & 0o777
    if not path.isascii():
        try:
            path.encode()
        except UnicodeEncodeError:
            return _unmovable(ascii(path), "has a name that is not UTF-8", "rename it, or remove it")
    if stat.S_ISREG(status.st_mode):
        return Member(path, "file", mode, status.st_size, date_of(status))
    if stat.S_ISDIR(status.st_mode):
        return Member(path, "folder", mode | stat.S_IRWXU)
    if stat.S_ISLNK(status.st_mode):
        target = _target(root, path, old)
        if target is None:
            told = os.fsencode((root / path).readlink()).decode(errors="replace")
            message = f"is a link to {told}, which is outside of the environment"
            return _unmovable(path, message, "put what it names in its place, or remove it")
        return Member(path, "symlink", 0o777, target=target)
    return _unmovable(path, "is a socket, a pipe or a device", "remove it")


def date_of(status: os.stat_result) -> int:
    """When a file was written, in whole seconds since the epoch, as bytecode and a tar can say it."""
    return min(max(int(status.st_mtime), 0), _LATEST_DATE)


def _target(root: Path, path: str, old: tuple[str, ...]) -> str | None:
    """What a symbolic link is to name, relative to itself; ``None`` for something outside of the folder."""
    told = os.fspath((root / path).readlink())
    folder = posixpath.dirname(path)
    try:
        told.encode()
    except UnicodeEncodeError:
        return None
    if told.startswith("/"):
        place = posixpath.normpath(told)
        inner = next((place[len(top) + 1 :] for top in old if f"{place}/".startswith(f"{top}/")), None)
        if inner is None:
            return None
        told = posixpath.relpath(inner or ".", folder or ".")
    elif re.search(r"(?:^|/)(?!\.\.?/)[^/]+/(?:.*/)?\.\.(?:/|$)", told):
        # It climbs out of what may be a link itself: only the system knows where to.
        parent, name = posixpath.split(told.rstrip("/"))
        there = os.path.realpath(root / folder / (told if name == ".." else parent))
        place = os.path.relpath(there, os.path.realpath(root / folder))
        told = place if name == ".." else posixpath.join(place, name)
    told = posixpath.normpath(told)
    return told if stays(path, told) else None


def _unmovable(path: str, message: str, remedy: str, *, blocking: bool = True) -> Finding:
    return Finding("prefix-unmovable", path if path.isprintable() else ascii(path), message, remedy, blocking)


def _read_all(
    root: Path,
    files: list[Member],
    owned: dict[str, records.Owned],
    old: tuple[str, ...],
    advance: Callable[[int], None],
) -> list[_Seen]:
    """Read every file that may know where it stands; what was found out of those that have something to tell."""
    words = tuple(path.encode() for path in old)
    top = os.fspath(root)

    def some(batch: list[Member]) -> list[_Seen]:
        seen = []
        for member in batch:
            one = _look(top, member, owned.get(member.path), words)
            if one:
                seen.append(one)
        advance(sum(member.size for member in batch))
        return seen

    # Bytecode is never rewritten, and Python may have written it anew.
    wanted = [member for member in files if not member.path.endswith(".pyc")]
    batches = [wanted[at : at + _BATCH] for at in range(0, len(wanted), _BATCH)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return [one for seen in pool.map(some, batches) for one in seen]


def _look(top: str, member: Member, told: records.Owned | None, words: tuple[bytes, ...]) -> _Seen | None:
    """What one file says of the folder; ``None`` for nothing."""
    place = f"{top}/{member.path}"
    try:
        found, digest = search(place, member.size, words, hashed=told is not None and told.digest is not None)
        altered = told is not None and told.digest != digest
        if not found:
            return _Seen(member.path, altered=True) if altered else None
        if told is not None and not altered and told.placeholder is None and told.copied:
            # As the package brought it, for any folder: what looks like a path of this one is none.
            return None
        occurrence, odd = _occurrence(place, member.path, None if altered else told, words)
    except OSError as problem:
        message = f"cannot be read: {problem.strerror}"
        return _Seen(member.path, finding=_unmovable(member.path, message, "make it readable"))
    message = "names the folder in a form that cannot be rewritten, and will name the old one"
    remedy = "see that nothing needs it"
    finding = _unmovable(member.path, message, remedy, blocking=False) if odd else None
    return _Seen(member.path, occurrence, altered, finding)


def search(place: str, size: int, words: tuple[bytes, ...], *, hashed: bool) -> tuple[bool, str | None]:
    """Whether a file holds one of some words, and its SHA-256 (hex) if that is wanted."""
    state = hashlib.sha256() if hashed else None
    found, tail, overlap = False, b"", max(map(len, words)) - 1
    for chunk in _chunks(place, size):
        if state:
            state.update(chunk)
        data = tail + chunk if tail else chunk
        found = found or any(word in data for word in words)
        if found and not state:
            break
        tail = data[-overlap:] if size > CHUNK else b""
    return found, state.hexdigest() if state else None


def _chunks(place: str, size: int) -> Iterator[bytes]:
    descriptor = os.open(place, _NO_FOLLOW)
    try:
        if size <= CHUNK:
            yield os.read(descriptor, size + 1)
        else:
            while chunk := os.read(descriptor, CHUNK):
                yield chunk
    finally:
        os.close(descriptor)


def _occurrence(
    place: str, path: str, told: records.Owned | None, words: tuple[bytes, ...]
) -> tuple[Occurrence | None, bool]:
    """How a file that holds the path is to be rewritten, and whether some of it cannot be."""
    size = os.stat(place).st_size
    vouched = told is not None and told.placeholder is not None
    binary = (
        told.mode == "binary" if told and vouched else any(b"\0" in chunk for chunk in _chunks(place, size))
    )
    if not binary:
        return Occurrence(path, "text", everywhere=vouched), False
    reading = measure(_chunks(place, size), words, told.placeholder if told else None)
    if reading.room is not None:
        return Occurrence(path, "binary", reading.room, vouched), reading.odd
    first = next(iter(_chunks(place, size)), b"").partition(b"\n")[0]
    if first.startswith(b"#!") and spans(first, words):
        return Occurrence(path, "shebang"), False
    return None, reading.odd


def _is_missing(path: str, told: records.Owned, members: dict[str, Member]) -> bool:
    return path not in members and told.copied and not path.endswith(".pyc")


def _without_bytecode(
    members: dict[str, Member], owned: dict[str, records.Owned], occurrences: Iterable[str]
) -> dict[str, Member]:
    """What is left without bytecode that Python makes again, and the folders that held nothing else."""
    rewritten = set(occurrences)
    kept = dict(members)
    folders: dict[str, int] = {}
    for path, member in members.items():
        match = _CACHED.fullmatch(path)
        if not match or member.kind == "folder":
            continue
        source = f"{match['folder']}{match['module']}.py"
        told = owned.get(path)
        if source in members and not (told and told.copied and source not in rewritten):
            del kept[path]
            folders[path.rpartition("/")[0]] = 0
    for path in kept:
        folder = path.rpartition("/")[0]
        if folder in folders:
            folders[folder] += 1
    for folder, count in folders.items():
        if not count:
            del kept[folder]
    return kept


def _borrowed(root: Path) -> tuple[str | None, list[Finding]]:
    """The minor version of the Python that a virtual environment borrows, and what else it borrows."""
    text = (root / "pyvenv.cfg").read_text(encoding="utf-8", errors="replace")
    pairs = [line.partition("=") for line in text.splitlines()]
    told = {key.strip().lower(): value.strip() for key, _, value in pairs}
    minor = re.match(r"3\.\d+", told.get("version_info") or told.get("version") or "")
    findings = []
    if minor is None:
        message = "does not say which Python it borrows"
        findings.append(_unmovable("pyvenv.cfg", message, "make the virtual environment again"))
    if told.get("include-system-site-packages") == "true":
        message = "lets the environment use packages of the machine's own Python, which do not travel"
        remedy = "see that it needs none of them: include-system-site-packages = false"
        findings.append(_unmovable("pyvenv.cfg", message, remedy, blocking=False))
    return (minor[0] if minor else "3.0"), findings
