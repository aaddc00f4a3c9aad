"""Where the files of conda packages lie in a prefix, and what ``conda-meta/`` says of them.

The layout is the target's, not that of the machine this runs on.  Format of ``conda-meta/*.json``: conda's
``PrefixRecord``, with rattler's ``original_path`` for a file that lost its place to another package's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from haversack.errors import PrefixError
from haversack.formats.canonical import canonical
from haversack.formats.prefixes import META
from haversack.model.artifact import Artifact
from haversack.model.target import Target


@dataclass(frozen=True, slots=True)
class Layout:
    """Folders of a prefix, relative to it; ``site`` is ``None`` where there is no Python."""

    windows: bool
    site: str | None

    @property
    def programs(self) -> str:
        """Where entry points are."""
        return "Scripts" if self.windows else "bin"

    @property
    def python(self) -> str:
        """The interpreter."""
        return "python.exe" if self.windows else "bin/python"

    def placed(self, path: str, *, noarch: bool) -> str:
        """Where a file of a package is linked to; one that is ``noarch: python`` leaves that to the prefix."""
        if noarch and self.site is not None and path.startswith("site-packages/"):
            return self.site + path.removeprefix("site-packages")
        if noarch and path.startswith("python-scripts/"):
            return self.programs + path.removeprefix("python-scripts")
        return path


def layout_of(artifacts: Iterable[Artifact], target: Target) -> Layout:
    """The layout of an environment of these artifacts: its ``python`` says where packages go (CEP 17)."""
    windows = target.subdir.startswith("win-")
    python = next((a for a in artifacts if a.kind == "conda" and a.name == "python"), None)
    if python is None:
        return Layout(windows, None)
    told = record(python).get("python_site_packages_path")
    short = ".".join(python.version.split(".")[:2])
    usual = "Lib/site-packages" if windows else f"lib/python{short}/site-packages"
    return Layout(windows, told if isinstance(told, str) and told else usual)


def record(artifact: Artifact) -> Mapping[str, Any]:
    """What the channel said of a package, empty where nobody knows."""
    found: Mapping[str, Any] = artifact.facts.get("record") or {}
    return found


def by_need(packages: Sequence[Artifact]) -> list[Artifact]:
    """Packages, each after those that it depends on; where they depend on each other, by name."""
    names = {package.name: package for package in sorted(packages, key=lambda a: a.name)}
    found: list[Artifact] = []
    seen: set[str] = set()
    # Not by recursion: a chain of packages may be longer than Python's stack.
    stack = [(package, False) for package in reversed(names.values())]
    while stack:
        package, done = stack.pop()
        if done:
            found.append(package)
        elif package.name not in seen:
            seen.add(package.name)
            needs = {name_of(str(spec)) for spec in record(package).get("depends") or ()}
            stack.append((package, True))
            stack += [(names[name], False) for name in sorted(needs & names.keys(), reverse=True)]
    return found


def name_of(spec: str) -> str:
    """The name that a match specification of a record begins with."""
    return re.split(r"[\s=<>!~\[]", spec.strip(), maxsplit=1)[0].rpartition("::")[2]


def state_of(variables: Mapping[str, str]) -> bytes:
    """``conda-meta/state`` of an environment with variables of its own, which ``conda activate`` sets."""
    return canonical({"env_vars": dict(variables), "version": 1}) + b"\n"


@dataclass(frozen=True, slots=True)
class Placed:
    """A file as ``conda-meta/`` has it: its path, the one that its package wanted, its digests in hexadecimal.

    ``sha256`` is that of the package, ``in_prefix`` that of the file after its prefix was written into it.
    """

    path: str
    wanted: str
    kind: str
    sha256: str | None
    in_prefix: str | None


@dataclass(frozen=True, slots=True)
class Meta:
    """One package of a prefix, as ``conda-meta/<file>`` has it."""

    file: str
    name: str
    version: str
    build: str
    paths: tuple[Placed, ...]


def load_meta(path: Path) -> dict[str, Any]:
    """What a file of ``conda-meta/`` says, whatever that is.  Raises ``PrefixError``."""
    try:
        # Not the strict reader of what crosses: this is only compared, and large environments have much of it.
        told = json.loads(path.read_bytes())
    except OSError as problem:
        raise PrefixError(f"cannot be read: {problem.strerror}", where=str(path)) from problem
    except (ValueError, RecursionError) as problem:
        raise PrefixError(f"is no record of conda's: {problem}", where=str(path)) from problem
    if not isinstance(told, dict):
        raise PrefixError("is no record of conda's: it is not an object", where=str(path))
    return told


def read_meta(path: Path) -> Meta:
    """Read a file of ``conda-meta/``.  Raises ``PrefixError``."""
    told = load_meta(path)
    try:
        name, version, build = _texts(told["name"], told["version"], told["build"])
        rows = tuple(_placed(row) for row in told["paths_data"]["paths"])
    except (LookupError, TypeError, AttributeError) as problem:
        raise PrefixError(f"is no record of conda's: {problem}", where=str(path)) from problem
    return Meta(path.name, name, version, build, rows)


def _placed(row: Mapping[str, Any]) -> Placed:
    path = row["_path"]
    _texts(path, wanted := row.get("original_path") or path, kind := row.get("path_type") or "hardlink")
    return Placed(path, wanted, kind, row.get("sha256"), row.get("sha256_in_prefix"))


def _texts(*values: object) -> list[str]:
    found = [value for value in values if isinstance(value, str)]
    if len(found) < len(values):
        raise TypeError("a name, version, build or path of it is not text")
    return found


def read_metas(prefix: Path) -> tuple[list[Meta], list[tuple[str, str]]]:
    """Everything that ``conda-meta/`` says, and (file, why) of what in it cannot be read."""
    metas: list[Meta] = []
    wrong: list[tuple[str, str]] = []
    for path in sorted((prefix / META).glob("*.json")):
        try:
            metas.append(read_meta(path))
        except PrefixError as problem:
            wrong.append((path.name, problem.message))
    return metas, wrong
