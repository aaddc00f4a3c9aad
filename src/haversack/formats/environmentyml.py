"""conda's ``environment.yml``: what people ask for.  It is no lock."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from haversack.errors import DeclarationError, HaversackError
from haversack.formats import yaml
from haversack.formats.repodata import is_plain
from haversack.formats.strict import includes, near

KEYS = ("name", "channels", "dependencies", "variables", "prefix")
"""The keys that conda knows."""
_CONDA_LOCK = ("platforms", "category", "pip-repositories")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_INCLUDING = re.compile(rb"(?:^|[\s,\[\"'])(?:-[rc]|--requirement|--constraint)", re.MULTILINE)
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s;,'\"]+")


@dataclass(frozen=True, slots=True)
class EnvironmentFile:
    """What stands in one.

    ``channels`` are names or URLs in their order, ``specs`` match specifications, ``pip`` the lines of the
    pip section as pip reads them, ``variables`` what activation sets.  Where the file lists ``nodefaults``,
    which only takes conda's own default channels away, it is left out.
    """

    name: str | None
    channels: tuple[str, ...]
    specs: tuple[str, ...]
    pip: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict, hash=False)


def read(data: bytes, where: str, error: type[HaversackError] = DeclarationError) -> EnvironmentFile:
    """The environment in some bytes.  Raises ``error`` naming the place, and never repeats a URL."""

    def wrong(at: str, message: str, remedy: str) -> HaversackError:
        return error(message, where=f"{where}: {at}" if at else where, remedy=remedy)

    raw = yaml.load(data, where, error)
    if not isinstance(raw, dict):
        raise wrong("", "is not a table of keys", "write it as conda env export does")
    for key in raw:
        if key in _CONDA_LOCK:
            remedy = "remove it; targets and channels are declared in haversack.toml"
            raise wrong(key, "is a key of conda-lock's, which would go unheeded here", remedy)
        if key not in KEYS:
            raise wrong(key, "is an unknown key", near(key, KEYS) or f"known are {', '.join(KEYS)}")

    def text(item: Any, at: str) -> str:
        if not isinstance(item, str) or not item.strip():
            raise wrong(at, "is not a text", "write it in quotes (3.10 without them is the number 3.1)")
        if not all(map(_is_plain, _URL.findall(item))):
            remedy = "remove it, change it where it was in use, and declare the channel or index"
            raise wrong(at, "a URL in it holds a user name, a password or a token", remedy)
        return item.strip()

    def items(value: Any, at: str) -> list[Any]:
        if value is not None and not isinstance(value, list):
            raise wrong(at, "is not a list", "write each item on a line of its own, after a dash")
        return value or []

    def texts(value: Any, at: str) -> list[str]:
        return [text(item, f"{at}[{number}]") for number, item in enumerate(items(value, at))]

    specs: list[str] = []
    pip: list[str] = []
    for number, item in enumerate(items(raw.get("dependencies"), "dependencies")):
        at = f"dependencies[{number}]"
        if not isinstance(item, dict):
            specs.append(text(item, at))
        elif set(item) != {"pip"}:
            raise wrong(at, "is a table of another manager than pip", "conda knows only pip there")
        elif pip:
            raise wrong(at, "is a second pip section", "write one")
        else:
            pip = texts(item["pip"], f"{at}.pip")
    name = raw.get("name")
    if name is not None and not isinstance(name, str):
        raise wrong("name", "is not a text", "write it in quotes")
    channels = [channel for channel in texts(raw.get("channels"), "channels") if channel != "nodefaults"]
    variables = raw.get("variables") or {}
    if not isinstance(variables, dict):
        raise wrong("variables", "is not a table", "write each as NAME: value")
    for key, value in variables.items():
        if not _VARIABLE.fullmatch(key) or not isinstance(value, str):
            raise wrong(f"variables.{key}", "is not a text under a plain name", "write the value in quotes")
    return EnvironmentFile(name, tuple(channels), tuple(specs), tuple(pip), variables)


def included(data: bytes, where: str) -> list[tuple[str, str]]:
    """Every requirements file that the pip section takes in with ``-r`` or ``-c``, after its place.

    Paths are as written, relative to the file.  What is no ``environment.yml`` takes in none, and whoever
    locks it tells why.  Raises ``DeclarationError`` for a line with quotation marks left open.
    """
    # A declaration is read for every command, and YAML slowly; most files need not be.
    if not _INCLUDING.search(data):
        return []
    try:
        raw = yaml.load(data, where)
    except DeclarationError:
        return []
    found: list[tuple[str, str]] = []
    for number, item in enumerate(_list(raw, "dependencies")):
        for line, text in enumerate(_list(item, "pip")):
            at = f"dependencies[{number}].pip[{line}]"
            found += [(at, path) for _, path in includes(str(text).encode(), f"{where}: {at}")]
    return found


def _list(table: Any, key: str) -> list[Any]:
    """The list under a key, empty where there is none."""
    found = table.get(key) if isinstance(table, dict) else None
    return found if isinstance(found, list) else []


def _is_plain(url: str) -> bool:
    """Whether a URL holds neither user nor token; ``git+https://git@…`` names a user too."""
    return is_plain(url.partition("#")[0].partition("?")[0])
