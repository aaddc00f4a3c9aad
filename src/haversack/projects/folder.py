"""A working folder: which of its files and links cross, and what a person should know of them."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from haversack.errors import DeclarationError
from haversack.model.artifact import flat_name, is_safe_filename
from haversack.model.finding import Finding
from haversack.projects import ignore

_SECRETS = re.compile(
    r"\.env|\.netrc|_netrc|\.pypirc|\.pgpass|\.git-credentials|\.htpasswd|credentials(\.json|\.csv)?"
    r"|id_(rsa|dsa|ecdsa|ed25519)|.*\.(kdbx|pfx|p12)",
    re.IGNORECASE,
)
_KEYS = (".pem", ".key")
_HOPS = 40
"""No system follows more links for one path."""


@dataclass(slots=True)
class Folder:
    """What crosses: files by their path in the project, links and where they lead, and what was found."""

    files: dict[str, Path] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)


def look(root: Path, include: Sequence[str], exclude: Sequence[str], ref: str) -> Folder:
    """What ``include`` names below ``root``, without what ``exclude`` and the ignore files in it keep back.

    Rules of a ``.gitignore`` count for the folder that holds it, and what is named in ``include`` itself is
    taken whatever they say.  Folders without a file are left out.  Raises ``DeclarationError``.
    """
    found = Folder()
    own = ignore.rules(exclude)
    for number, name in enumerate(include):
        plain = posixpath.normpath(name)
        place = root / plain
        where = f"haversack.toml: include[{number}] of {ref}"
        if plain.startswith("../") or plain == "..":
            raise DeclarationError(
                f"{name} lies outside the folder of the declaration",
                where=where,
                remedy="move the declaration to the folder that holds all of it",
            )
        if not os.path.lexists(place):
            raise DeclarationError(f"there is no {name}", where=where, remedy="correct it, or put it there")
        above = place.parent if place.is_symlink() else place
        if not above.resolve().is_relative_to(root.resolve()):
            found.findings.append(_unsafe(name, ref, "is reached by a link out of the project"))
        elif place.is_dir() and not place.is_symlink():
            for path in _below(place, "" if plain == "." else f"{plain}/", own):
                _take(found, root, path, ref)
        else:
            _take(found, root, plain, ref)
    outward = {path: where for path, where in found.links.items() if not stays(path, where, found.links)}
    for path, where in outward.items():
        found.findings.append(_unsafe(path, ref, f"is a link that leads out of the project, to {where}"))
        del found.links[path]
    _clashes(found, ref)
    return found


def _below(
    folder: Path, base: str, own: Sequence[ignore.Rule], gathered: Sequence[ignore.Rule] = ()
) -> Iterator[str]:
    """The paths below a folder, each with ``base`` before it, that no rule keeps back.

    ``own`` are the rules of the declaration, which are asked first; ``gathered`` those of ignore files above.
    """
    for name in ignore.FILES:
        if (folder / name).is_file():
            text = (folder / name).read_text(encoding="utf-8", errors="replace")
            gathered = [*gathered, *ignore.rules(text.splitlines(), base)]
    known = [*gathered, *own]
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as problem:
        raise DeclarationError(
            f"cannot be read: {problem.strerror}", where=str(folder), remedy="make it readable, or exclude it"
        ) from problem
    for entry in entries:
        path = f"{base}{entry.name}"
        is_folder = entry.is_dir(follow_symlinks=False)
        if entry.name in ignore.MADE or ignore.is_ignored(path, folder=is_folder, known=known):
            continue
        if is_folder:
            yield from _below(Path(entry.path), f"{path}/", own, gathered)
        else:
            yield path


def _take(found: Folder, root: Path, path: str, ref: str) -> None:
    """Add one path that is no folder."""
    place = root / path
    name = flat_name(path)
    if not is_safe_filename(name) or not all(map(is_safe_filename, path.split("/"))):
        found.findings.append(_unsafe(path, ref, "has a name that not every system takes"))
    elif place.is_symlink():
        found.links[path] = str(place.readlink())
    elif place.is_file():
        found.files[path] = place
        if _is_secret(place):
            message = "looks like a secret, and crosses with the project"
            remedy = "exclude it if it is one, and put it where it is needed by hand"
            found.findings.append(
                Finding("project-secret", f"{path} in {ref}", message, remedy, blocking=False)
            )
    else:
        message = "is neither a file nor a folder nor a link, and stays behind"
        found.findings.append(
            Finding("path-unsafe", f"{path} in {ref}", message, "exclude it", blocking=False)
        )


def stays(path: str, target: str, links: Mapping[str, str] | None = None) -> bool:
    """Whether a link at ``path`` that says ``target`` leads to something within the project.

    It is followed through the project's own ``links`` as a system follows it (path_resolution(7)), since ``..``
    after a link is where that one leads to; one that comes to no end counts as leading out.
    """
    if target.startswith("/") or "\\" in target or re.search(r"[\x00-\x1f]", target):
        return False
    at, ahead, hops = path.split("/")[:-1], target.split("/")[::-1], 0
    while ahead:
        name = ahead.pop()
        if name == "..":
            if not at:
                return False
            at.pop()
        elif name not in {"", "."}:
            at.append(name)
            onward = (links or {}).get("/".join(at))
            if onward is not None:
                hops += 1
                if hops > _HOPS or onward.startswith("/"):
                    return False
                at.pop()
                ahead += onward.split("/")[::-1]
    return True


def _is_secret(place: Path) -> bool:
    if _SECRETS.fullmatch(place.name):
        return True
    if place.suffix.lower() not in _KEYS:
        return False
    try:
        with place.open("rb") as file:
            return b"PRIVATE KEY-----" in file.read(4096)
    except OSError:
        return False


def _clashes(found: Folder, ref: str) -> None:
    """Paths, of folders too, that are one where case does not count."""
    seen: dict[str, str] = {}
    for path in sorted((*found.files, *found.links)):
        parts = path.split("/")
        for depth in range(1, len(parts) + 1):
            part = "/".join(parts[:depth])
            other = seen.setdefault(part.casefold(), part)
            if other != part:
                message = f"and {other} are one name where case does not count"
                remedy = "rename one of them, or exclude it"
                found.findings.append(Finding("name-clash", f"{part} in {ref}", message, remedy))
                break


def _unsafe(path: str, ref: str, message: str) -> Finding:
    return Finding(
        "path-unsafe", f"{path} in {ref}", message, "rename it, put the file itself there, or exclude it"
    )
