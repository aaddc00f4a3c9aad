"""``haversack export ENV --as DOOR``: an environment in the format of another tool."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from haversack.doors import Door, doors
from haversack.errors import NotFoundError, PrefixError, UsageError
from haversack.model.snapshot import Snapshot, SnapshotEnvironment
from haversack.ports import Inside
from haversack.verbs import holdings
from haversack.verbs.aside import beside, clear_leftovers, unwritable
from haversack.verbs.install import choose


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export did, or would do on a dry run, where ``files`` is empty.

    ``files`` are relative to ``dest`` where that is a folder; ``size`` counts their bytes.  ``left`` are the
    file names of artifacts that the format has no place for.
    """

    refs: tuple[str, ...]
    door: str
    dest: Path
    snapshot: str
    files: tuple[str, ...]
    size: int
    left: tuple[str, ...]


def export(
    name: str,
    door: str,
    dest: Path,
    inside: Inside,
    *,
    target: str | None = None,
    snapshot: str | None = None,
    force: bool = False,
    dry_run: bool = False,
) -> Exported:
    """Write an environment to ``dest`` through a door: built aside, then renamed in one step.

    A folder must not exist, or be empty; a file must not exist unless ``force``.  Without ``target`` a door
    that takes all targets gets all, another the one that fits this machine, or the only one.  Raises
    ``UsageError`` for what cannot leave that way, ``NotFoundError``, ``PrefixError``, ``SpaceError``,
    ``IntegrityError``.
    """
    way = doors().get(door)
    if way is None:
        raise UsageError(f"there is no door {door!r}", remedy=f"choose one of {', '.join(doors())}")
    held, content = holdings.current_snapshot(inside.store, snapshot)
    environments = _chosen(content, name, way, target, inside)
    _admit(environments, way)
    dest = dest.absolute()
    _check(dest, way, force=force)
    refs = tuple(environment.ref for environment in environments)
    left = {a.filename for e in environments for a in e.artifacts if a.kind not in way.carries}
    done = Exported(refs, door, dest, held.name, (), 0, tuple(sorted(left)))
    if dry_run:
        return done
    aside = beside(dest)
    try:
        dest.parent.mkdir(parents=True, exist_ok=True)
        # Nothing in another tool's format can say that it is ours; the name does, with machine and process.
        clear_leftovers(dest, lambda _: True)
        files = way.write(environments, inside.store, aside)
        size = sum((aside / file).stat().st_size if way.folder else aside.stat().st_size for file in files)
        details = {"refs": list(refs), "door": door, "dest": str(dest), "snapshot": content.id}
        inside.ledger.append("export", environments[0].manifest, details)
        aside.replace(dest)
    except OSError as problem:
        raise unwritable(problem, "exported to", dest) from problem
    finally:
        _remove(aside)
    return replace(done, files=tuple(files) if way.folder else (dest.name,), size=size)


def _chosen(
    content: Snapshot, name: str, way: Door, target: str | None, inside: Inside
) -> list[SnapshotEnvironment]:
    """The environments to write: for whatever machine, since it is another tool that will install them."""
    mine = [e for e in content.environments if e.locked.name == name]
    if not mine:
        known = ", ".join(sorted({e.locked.name for e in content.environments})) or "none"
        raise NotFoundError(f"no environment {name!r} in the snapshot; it has {known}")
    if target is not None:
        named = [e for e in mine if e.target.name == target]
        if not named:
            choice = ", ".join(e.target.name for e in mine)
            raise NotFoundError(f"{name} is not for target {target!r}", remedy=f"choose one of {choice}")
        return named
    if way.together or len(mine) == 1:
        return mine
    try:
        return [choose(content, name, None, inside)]
    except NotFoundError as problem:
        choice = ", ".join(e.target.name for e in mine)
        raise NotFoundError(problem.message, remedy=f"say for which machine: --target {choice}") from problem


def _admit(environments: Sequence[SnapshotEnvironment], way: Door) -> None:
    """Raise ``UsageError`` naming why an environment cannot leave this way."""
    for environment in environments:
        if reason := way.refuses(environment):
            raise UsageError(
                f"{environment.ref} cannot leave as {way.name}: {reason}",
                remedy=f"ways out: {', '.join(ways(environment)) or 'none but haversack install'}",
            )


def ways(environment: SnapshotEnvironment) -> list[str]:
    """The names of all doors through which an environment can leave."""
    return [name for name, door in doors().items() if door.refuses(environment) is None]


def _check(dest: Path, way: Door, *, force: bool) -> None:
    if not dest.exists() and not dest.is_symlink():
        return
    if way.folder:
        if dest.is_symlink() or not dest.is_dir() or any(dest.iterdir()):
            raise PrefixError(
                "is there already", where=str(dest), remedy="choose a folder that does not exist yet"
            )
    elif dest.is_dir():
        raise PrefixError("is a folder", where=str(dest), remedy=f"name the file, as {dest / way.name}")
    elif not force:
        raise PrefixError("is there already", where=str(dest), remedy="choose another name, or give --force")


def _remove(aside: Path) -> None:
    if aside.is_dir() and not aside.is_symlink():
        shutil.rmtree(aside)
    else:
        aside.unlink(missing_ok=True)
