"""Whether a ``uv.lock`` still answers the ``pyproject.toml`` beside it.

``uv export --frozen`` takes a stale lock as it is, and asking uv itself would need the index.  The lock
repeats what the project asked for (``[package.metadata] requires-dist`` and ``requires-dev``), which is
compared by project names.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name


def stale(lock: bytes, project: bytes) -> list[str]:
    """What the project asks for and the lock does not know, or the other way round; empty for a fresh lock."""
    try:
        wanted, known = tomllib.loads(project.decode()), tomllib.loads(lock.decode())
    except ValueError:
        # Neither fresh nor stale but broken: uv, asked next, names the file and the line.
        return []
    table = wanted.get("project", {})
    if "dependencies" in table.get("dynamic", ()):
        return []
    locked = [p for p in known.get("package", ()) if _is_project(p, table.get("name", ""))]
    if len(locked) != 1:
        return []
    metadata: dict[str, Any] = locked[0].get("metadata", {})
    told = {str(canonicalize_name(entry["name"])) for entry in metadata.get("requires-dist", ())}
    asked = _names(table.get("dependencies", ()))
    for lines in table.get("optional-dependencies", {}).values():
        asked |= _names(lines)
    for entries in metadata.get("requires-dev", {}).values():
        told |= {str(canonicalize_name(entry["name"])) for entry in entries}
    for lines in wanted.get("dependency-groups", {}).values():
        asked |= _names(line for line in lines if isinstance(line, str))
    asked |= _names(wanted.get("tool", {}).get("uv", {}).get("dev-dependencies", ()))
    return sorted(asked ^ told)


def _is_project(package: dict[str, Any], name: str) -> bool:
    source = package.get("source", {})
    here = source.get("editable") == "." or source.get("virtual") == "."
    return here and canonicalize_name(package.get("name", "")) == canonicalize_name(name)


def _names(lines: Iterable[str]) -> set[str]:
    found = set()
    for line in lines:
        try:
            found.add(str(canonicalize_name(Requirement(line).name)))
        except InvalidRequirement:
            continue
    return found
