"""What the packages in a folder say of its files: conda's records, and Python's pointers to other folders."""

from __future__ import annotations

import json
import os
import posixpath
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from haversack.formats import repodata
from haversack.formats.prefixes import META
from haversack.model.finding import Finding
from haversack.relocation.spelling import Mode


class Owned(NamedTuple):
    """What a record says of one file of a package.

    ``digest`` is the SHA-256 (hex) that the file has where it was installed, ``size`` its bytes as packed,
    ``placeholder`` the length in bytes of what the package had in the place of a path
    (conda/core/path_actions.py, ``prefix_placeholder``).  ``copied`` says that the package holds the file as it
    is; what an installer writes is not.
    """

    package: str
    digest: str | None
    size: int | None
    placeholder: int | None
    mode: Mode
    copied: bool


def owners(root: Path) -> tuple[dict[str, Owned], list[Finding]]:
    """Every file that a record in ``conda-meta`` names, by its path; a record that is none is a finding."""
    found: dict[str, Owned] = {}
    findings: list[Finding] = []
    for place in sorted((root / META).glob("*.json")):
        try:
            record = json.loads(place.read_bytes())
            package = f"{record['name']} {record['version']}"
            addresses = [record[key] for key in ("url", "channel") if isinstance(record.get(key), str)]
            if not all("://" not in address or repodata.is_plain(address) for address in addresses):
                findings.append(_login(place.name))
            for row in (record.get("paths_data") or {}).get("paths") or ():
                found[_text(row["_path"])] = _owned(package, row)
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as problem:
            message = f"is not the record of a package: {problem}"
            remedy = "repair the environment with conda, or go on without"
            findings.append(Finding("prefix-changed", f"{META}/{place.name}", message, remedy, False))
    return found, findings


def _login(name: str) -> Finding:
    message = "an address in it holds a user name, a password or a token, which would cross with the folder"
    remedy = "change the login where it was in use, and take it out of the record (url, channel)"
    return Finding("secret-found", f"{META}/{name}", message, remedy)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("a path of it is not text")
    return value


def _owned(package: str, row: Mapping[str, Any]) -> Owned:
    placeholder = row.get("prefix_placeholder")
    return Owned(
        package,
        row.get("sha256_in_prefix") or row.get("sha256"),
        row.get("size_in_bytes"),
        len(placeholder.encode()) if placeholder else None,
        "binary" if row.get("file_mode") == "binary" else "text",
        row.get("path_type", "hardlink") in ("hardlink", "softlink", "directory"),
    )


def differences(missing: Iterable[tuple[str, str]], changed: Iterable[tuple[str, str]]) -> list[Finding]:
    """A finding for each package whose files are gone or were altered; pairs of package and path.

    It is not blocking: pip alters what conda installed, and the environment works, or does not, as before.
    """
    told: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for word, pairs in (("gone", missing), ("altered", changed)):
        for package, path in pairs:
            told[package][word].append(path)
    return [
        Finding(
            "prefix-changed",
            package,
            "; ".join(
                f"{len(paths)} {_files(paths)} {word}: {_some(paths)}" for word, paths in words.items()
            ),
            "install the package again with conda, or carry the environment as it is",
            blocking=False,
        )
        for package, words in sorted(told.items())
    ]


def _files(paths: list[str]) -> str:
    return "file is" if len(paths) == 1 else "files are"


def _some(paths: list[str]) -> str:
    """The first of some paths."""
    shown = ", ".join(sorted(paths)[:3])
    return f"{shown}, …" if len(paths) > 3 else shown


def pointers(root: Path, paths: Iterable[str], old: tuple[str, ...]) -> list[Finding]:
    """A blocking finding for each distribution that Python would look for outside of the folder.

    Those are lines of ``.pth`` and ``.egg-link`` files, and editable installations (PEP 610, ``direct_url.json``).
    """
    findings = []
    for path in paths:
        folder, _, name = path.rpartition("/")
        if name.endswith((".pth", ".egg-link")) and _holds_packages(folder):
            targets = _lines(root / path)
        elif name == "direct_url.json" and folder.endswith(".dist-info"):
            targets = _editable(root / path)
        else:
            continue
        for target in targets:
            place = posixpath.normpath(posixpath.join(old[0], folder, target))
            if not any(place == top or place.startswith(f"{top}/") for top in old):
                message = f"points at {place}, which does not travel with the environment"
                remedy = "install that project itself, not a link to it: pip install without -e"
                findings.append(Finding("prefix-unmovable", path, message, remedy))
                break
    return findings


def _holds_packages(folder: str) -> bool:
    return folder.rpartition("/")[2] in ("site-packages", "dist-packages")


def _lines(place: Path) -> list[str]:
    """The folders that a ``.pth`` or ``.egg-link`` file names (docs.python.org, module ``site``)."""
    try:
        lines = place.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return []
    if place.suffix == ".egg-link":
        # The second line is relative to the first one.
        lines = lines[:1]
    return [
        line.strip() for line in lines if line.strip() and not line.startswith(("#", "import ", "import\t"))
    ]


def _editable(place: Path) -> list[str]:
    try:
        told = json.loads(place.read_bytes())
        if (told.get("dir_info") or {}).get("editable") is not True:
            return []
        return [os.fspath(unquote(urlsplit(told["url"]).path))]
    except (OSError, ValueError, LookupError, AttributeError, TypeError, RecursionError):
        return []
