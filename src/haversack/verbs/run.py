"""``haversack run``: a command in an installed project or environment, as though it were activated."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from haversack.errors import HaversackError, PrefixError
from haversack.formats.prefixes import META, Marker
from haversack.ports import Inside
from haversack.projects import record
from haversack.verbs import holdings
from haversack.verbs.install import read_marker
from haversack.verbs.lay import ENVIRONMENT

# What would lead a Python or an activated environment of the person's shell into this one.
_FOREIGN = ("PYTHONHOME", "PYTHONPATH", "VIRTUAL_ENV", "VIRTUAL_ENV_PROMPT", "__PYVENV_LAUNCHER__")


@dataclass(frozen=True, slots=True)
class Prepared:
    """What to execute: ``argv`` with ``env`` in ``folder``; ``notes`` are for the person.

    On a dry run of what is not installed yet, ``prefix`` is where it would be.
    """

    ref: str
    argv: tuple[str, ...]
    folder: Path
    prefix: Path | None
    notes: tuple[str, ...]
    env: Mapping[str, str]


def run(
    name: str,
    argv: Sequence[str],
    place: Path,
    environ: Mapping[str, str],
    inside: Callable[[], Inside],
    install: Callable[[], object],
    *,
    dry_run: bool = False,
) -> Prepared:
    """Prepare a command in the project or environment ``name`` that is installed at ``place``.

    ``install`` is called where nothing is there yet.  A project's command runs in its folder, an environment's in
    the current one.  What is installed is not changed; a note says that the current snapshot has another version.
    Raises ``PrefixError`` where ``place`` is something else, and whatever ``install`` raises.
    """
    place = place.absolute()
    marker, notes = read_marker(place), []
    if marker is None and not dry_run:
        if place.exists() and any(place.iterdir()):
            raise PrefixError(
                "was not made by haversack", where=str(place), remedy="name the folder of an install: --dir"
            )
        install()
        marker = read_marker(place)
    if marker is None:
        told = (f"{name} would be installed to {place} first",)
        return Prepared(name, tuple(argv), place, place, told, dict(environ))
    if marker.ref.partition("/")[0] != name:
        raise PrefixError(
            f"holds {marker.ref}, not {name}", where=str(place), remedy="name its folder with --dir"
        )
    notes += _newer(name, marker, place, inside)
    laid = record.read(place)
    folder, prefix = (Path.cwd(), place) if laid is None else (place / laid.name, place / ENVIRONMENT)
    if read_marker(prefix) is None:
        notes.append(f"{name} has no environment here: the command runs with the programs of this machine")
        return Prepared(marker.ref, tuple(argv), folder, None, tuple(notes), dict(environ))
    words, env = activated(prefix, argv, environ)
    return Prepared(marker.ref, words, folder, prefix, tuple(notes), env)


def activated(
    prefix: Path, argv: Sequence[str], environ: Mapping[str, str]
) -> tuple[tuple[str, ...], dict[str, str]]:
    """A command and the variables to run it with, as though the environment at ``prefix`` were activated.

    The scripts that conda packages bring for activation are run by sh, which then becomes the command.
    """
    programs = prefix / ("Scripts" if os.name == "nt" else "bin")
    env = {
        key: value for key, value in environ.items() if key not in _FOREIGN and not key.startswith("CONDA_")
    }
    env["PATH"] = f"{programs}{os.pathsep}{environ.get('PATH', os.defpath)}"
    if not (prefix / META).is_dir():
        return tuple(argv), {**env, "VIRTUAL_ENV": str(prefix)}
    env["CONDA_PREFIX"] = env["CONDA_DEFAULT_ENV"] = str(prefix)
    script = next(
        (p for p in map(programs.joinpath, ("haversack-activate", "activate")) if _is_ours(p)), None
    )
    if script is None:
        return tuple(argv), env
    words = ("/bin/sh", "-c", '. "$0" && exec "$@"', str(script), *argv)
    return words, {**env, "PATH": environ.get("PATH", os.defpath)}


def _is_ours(script: Path) -> bool:
    """Whether an activation script is haversack's: conda's own, in a packed folder, needs conda."""
    if os.name == "nt" or not script.is_file():
        return False
    with script.open("rb") as file:
        return b"haversack" in file.read(200)


def _newer(name: str, marker: Marker, place: Path, inside: Callable[[], Inside]) -> list[str]:
    """A note if the current snapshot has another version of what is installed; a store is not needed to run."""
    try:
        held, content = holdings.current_snapshot(inside().store, None)
    except HaversackError:
        return []
    for environment in content.environments:
        if environment.ref == marker.ref and environment.manifest != marker.manifest:
            return [
                f"snapshot {held.name} has another {name}; take it with: haversack install {name} --to {place}"
            ]
    return []
