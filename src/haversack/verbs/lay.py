"""``haversack install PROJECT``: a project and its environment side by side, and nobody's work replaced."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from haversack.errors import NotFoundError, PrefixError
from haversack.formats import prefixes
from haversack.formats.prefixes import MARKER, Marker
from haversack.kinds import kinds
from haversack.model.finding import Finding
from haversack.model.snapshot import Snapshot, SnapshotEnvironment
from haversack.model.target import ANY
from haversack.ports import Inside
from haversack.projects import record
from haversack.verbs import holdings
from haversack.verbs.aside import beside, clear_leftovers, swap
from haversack.verbs.install import Installed, read_marker

ENVIRONMENT = "env"
"""The folder of the environment, beside that of the project."""
_NAMED = 20
_NEW = "new"
_FRESH = f"{MARKER}.new"
"""The marker of an install that is about to end."""


@dataclass(frozen=True, slots=True)
class Laid:
    """What was laid (or would be, on a dry run).

    ``kept`` says that the folder was of this version already, and was left as it is.  ``environment`` is what
    was installed beside it; ``note`` says why nothing was, where there could be one.
    """

    ref: str
    folder: Path
    snapshot: str
    artifacts: int
    replaced: bool
    kept: bool
    environment: Installed | None = None
    note: str = ""


def project_of(content: Snapshot, name: str, target: str | None) -> SnapshotEnvironment | None:
    """The project of that name, unless a target other than ``any`` is named: then an environment is meant."""
    if target not in {None, ANY.name}:
        return None
    found = content.environment(name, ANY.name)
    return found if found and found.locked.kind == "project" else None


def lay(
    project: SnapshotEnvironment,
    prefix: Path,
    held: holdings.Held,
    environment: Callable[[str, Path], Installed],
    inside: Inside,
    *,
    dry_run: bool = False,
) -> Laid:
    """Lay a project at ``prefix/NAME``, and with ``environment(name, place)`` what it runs in at ``prefix/env``.

    The folder is built aside and swapped in one step.  One that is of this version is left as it is; an older one
    is replaced only if nobody edited it, which is looked at before anything is done and once more before the
    swap.  Raises ``PrefixError`` naming every path that was; then the folder is as it was.  What an install that
    was killed began is brought to its end.  Raises ``IntegrityError``, ``ToolError``, and whatever installing the
    environment raises.
    """
    prefix = prefix.absolute()
    place = prefix / project.locked.name
    marker = _marker(prefix, project)
    if marker is not None and not dry_run:
        _end_what_was_begun(prefix)
        marker = _marker(prefix, project)
    replaced = marker is not None and place.is_dir()
    kept = replaced and marker is not None and marker.manifest == project.manifest
    if replaced and not kept:
        _refuse_edited(prefix, place)
    beside_it = project.locked.settings.get("env")
    done = Laid(project.ref, place, held.name, len(project.artifacts), replaced, kept)
    if dry_run:
        return _with_environment(done, beside_it, prefix, environment)
    aside = beside(prefix)
    new, told = (
        aside / _NEW,
        prefixes.write(Marker(project.ref, project.manifest, held.snapshot, str(prefix))),
    )
    try:
        prefix.parent.mkdir(parents=True, exist_ok=True)
        clear_leftovers(prefix, _is_ours)
        aside.mkdir()
        if not kept:
            kind = kinds()[project.locked.kind]
            kind.install(project, new, None, inside, home=prefix, compile_bytecode=False)
        details = {"ref": project.ref, "prefix": str(prefix), "snapshot": held.snapshot}
        inside.ledger.append("install", project.manifest, details)
        if marker is None:
            (new / MARKER).write_bytes(told)
            swap(new, prefix, replaced=False)
            try:
                return _with_environment(done, beside_it, prefix, environment)
            except BaseException:
                prefix.rename(new)
                raise
        done = _with_environment(done, beside_it, prefix, environment)
        if not kept:
            if replaced:
                # Installing the environment takes minutes, in which people work.
                _refuse_edited(prefix, place)
            (new / record.RECORD).replace(prefix / record.NEXT)
        (aside / _FRESH).write_bytes(told)
        (aside / _FRESH).replace(prefix / _FRESH)
        if not kept:
            swap(new / place.name, place, replaced=place.is_dir())
        _take_over(prefix)
    except OSError as problem:
        raise PrefixError(f"cannot be installed to: {problem.strerror}", where=str(prefix)) from problem
    finally:
        if aside.exists():
            shutil.rmtree(aside)
    return done


def _with_environment(
    done: Laid, name: str | None, prefix: Path, environment: Callable[[str, Path], Installed]
) -> Laid:
    """The environment beside a project, if it has one that fits this machine."""
    if name is None:
        return done
    try:
        return replace(done, environment=environment(name, prefix / ENVIRONMENT))
    except NotFoundError as problem:
        return replace(done, note=str(problem))


def _marker(prefix: Path, project: SnapshotEnvironment) -> Marker | None:
    """What an earlier install of this project left, ``None`` where nothing is.  Raises ``PrefixError`` for all else."""
    if not os.path.lexists(prefix) or (prefix.is_dir() and not any(prefix.iterdir())):
        return None
    marker = read_marker(prefix)
    if marker is None or marker.ref != project.ref or not (prefix / record.RECORD).is_file():
        holds = f"holds {marker.ref}" if marker else "was not made by haversack"
        raise PrefixError(
            f"{holds}, and only what haversack made of {project.ref} is replaced by it",
            where=str(prefix),
            remedy="choose a folder that does not exist yet",
        )
    return marker


def _end_what_was_begun(prefix: Path) -> None:
    """Make record and marker those of the folder that stands there, wherever an install was killed.

    Both of the new folder are there before it is, and the record takes its place first: a new marker alone is of
    the folder that stands there.  Raises ``PrefixError``.
    """
    try:
        if (prefix / record.NEXT).exists() and not record.is_next(prefix):
            (prefix / _FRESH).unlink(missing_ok=True)
            (prefix / record.NEXT).unlink()
        _take_over(prefix)
    except OSError as problem:
        raise PrefixError(f"cannot be installed to: {problem.strerror}", where=str(prefix)) from problem


def _take_over(prefix: Path) -> None:
    """Give the new record and the new marker their places, as far as there are any."""
    for new, name in ((record.NEXT, record.RECORD), (_FRESH, MARKER)):
        with contextlib.suppress(FileNotFoundError):
            (prefix / new).replace(prefix / name)


def _is_ours(leftover: Path) -> bool:
    """Whether a folder holds nothing but what is put aside here; older versions laid the record there too."""
    held = {entry.name for entry in leftover.iterdir()} if leftover.is_dir() else {""}
    return held <= {_FRESH, _NEW} or record.RECORD in held


def _refuse_edited(prefix: Path, place: Path) -> None:
    """Raise ``PrefixError`` with all that people did in a project's folder since it was laid."""
    before = record.read(prefix)
    assert before is not None
    edits = list(record.changes(before, place))
    if not edits:
        return
    findings = [
        Finding(
            {"gone": "env-missing", "changed": "env-changed", "added": "env-extra"}[what],
            str(place / path),
            f"was {what} since it was installed",
        )
        for path, what in edits
    ]
    names = ", ".join(path for path, _ in edits[:_NAMED]) + (", …" if len(edits) > _NAMED else "")
    raise PrefixError(
        f"was worked on since it was installed, and is not replaced: {names}",
        where=str(place),
        remedy="install to another folder, or move the changes away first",
        findings=findings,
    )
