"""What was laid at a place, so that nobody's work in it is ever replaced: ``haversack-project.json``."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from haversack.errors import PrefixError
from haversack.formats.canonical import Fields, canonical, parse
from haversack.projects import ignore
from haversack.projects.digests import digest_of_file

RECORD = "haversack-project.json"
"""The file beside the project's folder."""
NEXT = f"{RECORD}.next"
"""The same of a folder that is about to stand there: while both are there, an install was not brought to its end."""


@dataclass(frozen=True, slots=True)
class Record:
    """What haversack laid: each path of the folder ``name`` with what was there.

    That is ``link:`` and a target, or a digest, the size in bytes and the time of change (ns), since a file with
    the same size and time is not read again.  Of a repository it is ``ref:`` and what HEAD, each branch, tag and
    stash means: git writes the other files whenever it looks.
    """

    name: str
    entries: Mapping[str, str]


def taken(name: str, folder: Path) -> Record:
    """The record of a folder as it is now."""
    return Record(name, {path: _told(place) for path, place in _walk(folder)} | _refs(folder / ".git"))


def write(record: Record) -> bytes:
    """The bytes of a record."""
    told = {"haversack-project": "1.0", "name": record.name, "entries": dict(record.entries)}
    return canonical(told) + b"\n"


def read(prefix: Path) -> Record | None:
    """The record of the folder that stands at a prefix, or ``None`` where no project was laid.

    An install that was killed leaves two: the one from which the folder differs less is its own.  Raises
    ``PrefixError``.
    """
    before, after = _in(prefix / RECORD), _in(prefix / NEXT)
    return after if before and after and _is_of(after, before, prefix) else before


def is_next(prefix: Path) -> bool:
    """Whether the folder at a prefix is already the one that :data:`NEXT` tells of.  Raises ``PrefixError``."""
    before, after = _in(prefix / RECORD), _in(prefix / NEXT)
    return before is not None and after is not None and _is_of(after, before, prefix)


def _is_of(one: Record, other: Record, prefix: Path) -> bool:
    """Whether a folder differs less from one record than from another."""
    differ = [sum(1 for _ in changes(record, prefix / record.name)) for record in (one, other)]
    return differ[0] < differ[1]


def _in(place: Path) -> Record | None:
    """The record in a file.  Raises ``PrefixError``."""
    if not place.is_file():
        return None
    fields = Fields(parse(place.read_bytes(), str(place), PrefixError), str(place), PrefixError)
    return Record(fields.text("name"), {str(k): str(v) for k, v in fields.table("entries").items()})


def changes(record: Record, folder: Path) -> Iterator[tuple[str, str]]:
    """Every path that is not as it was laid, and whether it is ``gone``, ``changed`` or ``added``."""
    now, refs = dict(_walk(folder)), _refs(folder / ".git")
    for path, told in sorted(record.entries.items()):
        if path not in now and path not in refs:
            yield path, "gone"
        elif refs[path] != told if path in refs else not _is_still(now[path], told):
            yield path, "changed"
    for path in sorted((now.keys() | refs.keys()) - record.entries.keys()):
        yield path, "added"


def _told(place: Path) -> str:
    if place.is_symlink():
        return f"link:{place.readlink()}"
    told = place.lstat()
    return f"{digest_of_file(place)} {told.st_size} {told.st_mtime_ns}"


def _is_still(place: Path, told: str) -> bool:
    if place.is_symlink() or told.startswith("link:") or not place.is_file():
        return place.is_symlink() and told == f"link:{place.readlink()}"
    digest, size, changed = told.split(" ")
    now = place.lstat()
    if (str(now.st_size), str(now.st_mtime_ns)) == (size, changed):
        return True
    return str(now.st_size) == size and digest_of_file(place) == digest


def _walk(folder: Path, base: str = "") -> Iterator[tuple[str, Path]]:
    """Every file and link below a folder but what programs make by themselves, with its path."""
    if not folder.is_dir():
        return
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        path, place = f"{base}{entry.name}", Path(entry.path)
        if entry.name in ignore.MADE:
            continue
        elif entry.is_dir(follow_symlinks=False):
            yield from _walk(place, f"{path}/")
        else:
            yield path, place


def _refs(own: Path) -> dict[str, str]:
    """What a repository's HEAD and references mean, loose or packed (gitrepository-layout(5)), by their paths.

    What it knows of its remotes is nobody's work.
    """
    if not (own / "HEAD").is_file():
        return {}
    found = {"HEAD": (own / "HEAD").read_text(errors="replace")}
    packed = own / "packed-refs"
    for line in packed.read_text(errors="replace").splitlines() if packed.is_file() else ():
        if not line.startswith(("#", "^")):
            sha, _, ref = line.partition(" ")
            found[ref] = sha
    for place in (own / "refs").rglob("*"):
        if place.is_file():
            found[place.relative_to(own).as_posix()] = place.read_text(errors="replace")
    return {
        f".git/{ref}": f"ref:{told.strip()}"
        for ref, told in sorted(found.items())
        if not ref.startswith("refs/remotes/")
    }
