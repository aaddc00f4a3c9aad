"""Conda packages as Python distributions: what an index need not bring, and for which Python it brings the rest."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from urllib.parse import unquote

from packaging.utils import canonicalize_name

from haversack.conda.layout import name_of, record
from haversack.model.artifact import Artifact
from haversack.model.target import Target

_PURL = re.compile(r"pkg:pypi/(?P<name>[^@?#]+)(?:@(?P<version>[^?#]+))?(?:[?#].*)?")
_SHORT = re.compile(r"3\.\d+(?:\.\d+)?")


def python_target(packages: Sequence[Artifact], target: Target) -> Target | None:
    """The target with the Python that the packages bring, ``None`` if they bring none."""
    python = next((package.version for package in packages if package.name == "python"), None)
    match = _SHORT.match(python or "")
    return replace(target, python=match[0]) if match else None


def provided(packages: Sequence[Artifact]) -> dict[str, str]:
    """The distributions that conda packages bring, as PyPI calls them, and their versions.

    A record says so by its ``purls``; without any, a package that depends on Python is taken for the
    distribution of its own name.
    """
    found: dict[str, str] = {}
    for package in packages:
        told = record(package)
        purls = [match for text in told.get("purls") or () if (match := _PURL.fullmatch(str(text)))]
        for match in purls:
            version = unquote(match["version"]) if match["version"] else package.version
            found[canonicalize_name(unquote(match["name"]))] = version
        needs = {name_of(str(spec)) for spec in told.get("depends") or ()}
        if told.get("purls") is None and (told.get("noarch") == "python" or "python" in needs):
            found.setdefault(canonicalize_name(package.name), package.version)
    return found
