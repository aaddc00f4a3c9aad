"""Environments that are installed side by side for everybody: at ``<root>/<environment>/<snapshot>``.

``haversack install`` puts them there; what stands in a prefix's marker is believed, and not its name.
"""

from __future__ import annotations

import posixpath
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from haversack.errors import PrefixError
from haversack.formats import prefixes
from haversack.formats.prefixes import MARKER, Marker
from haversack.model.artifact import Digest
from haversack.model.finding import Finding, unready
from haversack.model.target import ANY

# What a list in a variable cannot hold: a colon; what nobody can read in a path: control characters.
ABSOLUTE = r"(?:/(?!\.{1,2}(?:/|$))[^/:\x00-\x1f\x7f]+)+"
ABSOLUTE_SAYS = "an absolute path without . and .. and without a colon"
_BESIDE = "env"


@dataclass(frozen=True, slots=True)
class Installed:
    """An environment where others can name it; ``version`` is the name of its folder.

    Of a project ``folder`` is where it was installed, and ``prefix`` the environment beside it.
    """

    name: str
    version: str
    folder: Path
    prefix: Path
    marker: Marker


def look(
    root: Path, envs: Sequence[str], current: str, names: Mapping[str, Digest]
) -> tuple[list[Installed], list[Finding]]:
    """Every one of these environments that is installed below ``root``, and what is wrong there.

    ``current`` is the snapshot that should be there; ``names`` are all that the store holds.  A root that holds
    nothing blocks: whoever took each environment for removed would take away what people load.
    """
    found, findings = [], []
    try:
        empty = not any(root.iterdir())
    except OSError as problem:
        findings.append(_unmounted(root, f"cannot be looked into: {problem.strerror}"))
    else:
        findings += [_unmounted(root, "holds no environment")] if empty else []
    for name in envs:
        for folder in sorted(root.joinpath(name).glob("*")):
            try:
                marker = prefixes.read((folder / MARKER).read_bytes(), str(folder / MARKER))
            except OSError:
                continue  # nobody's, or being built
            except PrefixError as problem:
                findings.append(note(str(folder), problem.message, "install it again"))
                continue
            called = names.get(folder.name)
            if marker.ref.partition("/")[0] != name or (called and called != marker.snapshot):
                said = f"holds {marker.ref} of {marker.snapshot}, and not {name} of {folder.name}"
                findings.append(note(str(folder), said, install(name, folder.name, folder)))
                continue
            prefix = folder / _BESIDE if marker.ref.endswith(f"/{ANY.name}") else folder
            if not (prefix / MARKER).is_file():
                remedy = f"declare an environment for it, or take {name} out of envs"
                findings.append(note(str(folder), "is a project without an environment", remedy))
                continue
            found.append(Installed(name, folder.name, folder, prefix, marker))
        if not any(one.name == name and one.version == current for one in found):
            here = root / name / current
            remedy = install(name, current, here)
            findings.append(note(str(here), f"{name} of {current} is not installed there", remedy))
    return found, findings


def _unmounted(root: Path, said: str) -> Finding:
    remedy = "mount its file system, or install an environment there first"
    return note(str(root), said, remedy, blocking=True)


def root_of(settings: Mapping[str, Any], folder: str) -> Path:
    """Where environments lie: at ``prefixes``, or at ``envs`` beside the folder that the key ``folder`` names."""
    return Path(settings.get("prefixes") or posixpath.join(posixpath.dirname(settings[folder]), "envs"))


def install(name: str, version: str, prefix: Path) -> str:
    """The command that puts one there."""
    return f"haversack install {name} --snapshot {version} --to {shlex.quote(str(prefix))}"


def note(subject: str, message: str, remedy: str, *, blocking: bool = False) -> Finding:
    """A finding for what is missing or wrong at the site; people go on working beside most of it."""
    return unready(subject, message, remedy, blocking=blocking)
