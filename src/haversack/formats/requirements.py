"""What people asked for: the requirements in pip's requirements files and in ``pyproject.toml``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from haversack.model.artifact import Digest

_HASH = re.compile(r"--hash[ =]sha256:([0-9a-f]{64})")
_INCLUDE = re.compile(r"(?:-r|--requirement)[ =]?\s*(\S+)")


def of_file(name: str, read: Callable[[str], bytes]) -> list[str]:
    """The PEP 508 requirements of a requirements file and of those it takes in with ``-r``.

    ``read`` gives the bytes of a file by its path relative to the first one's folder.  A line that names a
    file or a URL without a project is left out: what it resolves to is in the lock.
    """
    return plain(_asked(line) for line in _lines(name, read))


def hashes_of_file(name: str, read: Callable[[str], bytes]) -> dict[str, set[Digest]]:
    """The digests that a requirements file allows for a project, for projects for which it names any."""
    found: dict[str, set[Digest]] = {}
    for line in _lines(name, read):
        digests = {f"sha256:{digits}" for digits in _HASH.findall(line)}
        for requirement in plain([_asked(line)]) if "--hash" in line else ():
            found.setdefault(str(canonicalize_name(Requirement(requirement).name)), set()).update(digests)
    return found


def _asked(line: str) -> str:
    return re.split(r"\s--?\w", line)[0]


def _lines(name: str, read: Callable[[str], bytes]) -> Iterator[str]:
    """The lines of a requirements file that ask for something, continued ones joined."""
    seen: set[str] = set()
    pending = [name]
    while pending:
        path = pending.pop(0)
        if path in seen:
            continue
        seen.add(path)
        folder = path.rpartition("/")[0]
        text = re.sub(r"\\\r?\n", " ", read(path).decode("utf-8-sig", errors="replace"))
        for raw in text.splitlines():
            line = re.sub(r"(^|\s)#.*", "", raw).strip()
            if match := _INCLUDE.fullmatch(line):
                pending.append(f"{folder}/{match[1]}" if folder else match[1])
            elif line and not line.startswith("-"):
                yield line


def of_project(project: Mapping[str, Any], extras: Sequence[str], groups: Sequence[str]) -> list[str]:
    """The requirements of a ``pyproject.toml`` with some extras (PEP 621) and dependency groups (PEP 735)."""
    table = project.get("project", {})
    found = plain(table.get("dependencies", []))
    optional = {
        str(canonicalize_name(key)): lines for key, lines in table.get("optional-dependencies", {}).items()
    }
    for extra in extras:
        found += plain(optional.get(str(canonicalize_name(extra)), []))
    defined = {
        str(canonicalize_name(key)): lines for key, lines in project.get("dependency-groups", {}).items()
    }
    pending, seen = [str(canonicalize_name(group)) for group in groups], set[str]()
    while pending:
        group = pending.pop()
        if group in seen:
            continue
        seen.add(group)
        for line in defined.get(group, []):
            if isinstance(line, str):
                found += plain([line])
            elif isinstance(line, dict) and "include-group" in line:
                pending.append(str(canonicalize_name(line["include-group"])))
    return found


def plain(lines: Iterable[str]) -> list[str]:
    """Requirements without URLs, which may hold credentials and are not the lock's to tell."""
    found = []
    for line in lines:
        try:
            requirement = Requirement(line)
        except InvalidRequirement:
            continue
        requirement.url = None
        found.append(str(requirement))
    return found
