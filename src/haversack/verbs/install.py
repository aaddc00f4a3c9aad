"""``haversack install``: an environment of the snapshot into a folder that haversack made."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from haversack.errors import NotFoundError, PrefixError, ToolError, UsageError
from haversack.formats import prefixes
from haversack.formats.prefixes import META, Marker
from haversack.kinds import kinds
from haversack.model.finding import Finding, raise_blocking
from haversack.model.snapshot import Snapshot, SnapshotEnvironment
from haversack.model.target import ANY, Target
from haversack.ports import Inside
from haversack.projects import record
from haversack.verbs import holdings
from haversack.verbs.aside import beside, clear_leftovers, swap, swap_back, unwritable
from haversack.verbs.share import share
from haversack.wheels import interpreter

MARKER = prefixes.MARKER
"""The file that says a prefix is haversack's, and of what it was made."""
# One of these is in an environment from its first moment on.
_OURS = ("pyvenv.cfg", META, MARKER)


@dataclass(frozen=True, slots=True)
class Installed:
    """What ``install`` did (or would do, on a dry run)."""

    ref: str
    prefix: Path
    python: Path | None
    snapshot: str
    artifacts: int
    replaced: bool
    shared: int = 0
    """Bytes that are one on disk with those of another environment."""
    copied: Mapping[str, int] = field(default_factory=dict)
    """Bytes that are equal there and could not be shared, by the reason."""


def install(
    name: str,
    prefix: Path,
    inside: Inside,
    *,
    target: str | None = None,
    snapshot: str | None = None,
    python: Path | None = None,
    clone_of: Path | None = None,
    check: bool = False,
    compile_bytecode: bool = False,
    dry_run: bool = False,
    judge: Callable[[Path], object] | None = None,
) -> Installed:
    """Install an environment at ``prefix``: built aside, then swapped in one step.

    Only an absent or empty folder, or one that haversack made, is taken.  ``target`` is chosen by this
    machine where none is named.  Files that are in ``clone_of`` too, byte for byte, are shared with it.
    An environment that works only at home is checked there, and taken away again where the check fails.
    ``judge`` is told where the new one stands, before another is replaced for good; what it raises leaves that one there.
    Raises ``PrefixError``, ``NotFoundError``, ``IntegrityError``, ``ToolError``.
    """
    held, content = holdings.current_snapshot(inside.store, snapshot)
    environment = choose(content, name, target, inside)
    prefix = prefix.absolute()
    replaced = _check_prefix(prefix)
    chosen = _python(environment, python, inside)
    if clone_of is not None and read_marker(clone_of.absolute()) is None:
        raise PrefixError(
            "was not made by haversack", where=str(clone_of), remedy="name the prefix of an install"
        )
    done = Installed(environment.ref, prefix, chosen, held.name, len(environment.artifacts), replaced)
    if dry_run:
        return done
    aside = beside(prefix)
    kind = kinds()[environment.locked.kind]
    marker = Marker(environment.ref, environment.manifest, content.id, str(prefix))
    details = {"ref": environment.ref, "prefix": str(prefix), "snapshot": content.id}

    def prove(place: Path) -> None:
        """Check the environment where it stands and record it: an act that cannot be recorded does not happen."""
        if check:
            findings = kind.check(environment, place, inside, caged=False)
            raise_blocking(findings, f"{environment.ref} does not work on this machine; nothing was changed")
        if judge is not None:
            judge(place)
        inside.ledger.append("install", environment.manifest, details)

    try:
        prefix.parent.mkdir(parents=True, exist_ok=True)
        if not os.access(prefix.parent, os.W_OK):
            raise PrefixError(
                "may not be written to by you",
                where=str(prefix.parent),
                remedy="choose a folder of your own, or ask who owns this one",
            )
        clear_leftovers(prefix, _is_ours)
        kind.install(environment, aside, chosen, inside, home=prefix, compile_bytecode=compile_bytecode)
        if clone_of is not None:
            files = share(aside, clone_of.absolute())
            done = replace(done, shared=files.shared, copied=files.copied)
        (aside / MARKER).write_bytes(prefixes.write(marker))
        if kind.relocatable:
            prove(aside)
            swap(aside, prefix, replaced=replaced)
        else:
            swap(aside, prefix, replaced=replaced)
            try:
                kind.settle(environment, prefix, inside)
                prove(prefix)
            except BaseException:
                swap_back(aside, prefix, replaced=replaced)
                raise
    except OSError as problem:
        raise unwritable(problem, "installed to", prefix) from problem
    finally:
        if aside.exists():
            shutil.rmtree(aside)
    return done


def choose(content: Snapshot, name: str, target: str | None, inside: Inside) -> SnapshotEnvironment:
    """The environment of that name, on the target named or the one that fits this machine best.

    What is for no machine in particular (a project) is meant only where no environment has the name, or its target
    is named.
    """
    mine = [e for e in content.environments if e.locked.name == name]
    if target is None and any(e.target != ANY for e in mine):
        mine = [e for e in mine if e.target != ANY]
    if not mine:
        known = ", ".join(sorted({e.locked.name for e in content.environments})) or "none"
        raise NotFoundError(f"no environment {name!r} in the snapshot; it has {known}")
    if target is not None:
        for environment in mine:
            if environment.target.name == target:
                if not environment.target.runs_on(inside.machine):
                    raise NotFoundError(
                        f"{environment.ref} is for {_system(environment.target)}, which does not run on this "
                        f"machine ({_system(inside.machine)})",
                        remedy="leave --target out, or lock for this machine: haversack probe",
                    )
                return environment
        raise NotFoundError(
            f"{name} is not for target {target!r}",
            remedy=f"choose one of {', '.join(e.target.name for e in mine)}",
        )
    fitting = [e for e in mine if e.target.runs_on(inside.machine)]
    if not fitting:
        raise NotFoundError(
            f"no target of {name} fits this machine ({_system(inside.machine)})",
            remedy="carry its profile out and lock for it: haversack probe",
            findings=[Finding("target-none", e.ref, f"is for {e.target.to_json()}") for e in mine],
        )
    if len(fitting) == 1:
        return fitting[0]
    # The nearest below this machine; among equals one whose Python is already here.
    here_first = [e for e in fitting if interpreter.find(e.target.python_short, inside)] or fitting
    return max(
        here_first, key=lambda e: (_release(e.target.glibc), _release(e.target.macos), e.target.python_minor)
    )


def _system(target: Target) -> str:
    """What a target needs of a machine, or what a machine has of it."""
    library = {"glibc": target.glibc, "macOS": target.macos}
    return ", ".join([target.platform, *(f"{key} {told}" for key, told in library.items() if told)])


def _release(text: str | None) -> tuple[int, ...]:
    return tuple(map(int, (text or "0").split(".")))


def _python(environment: SnapshotEnvironment, python: Path | None, inside: Inside) -> Path | None:
    """The interpreter to borrow: the one named, one of this machine, or the one the bundle brought."""
    wanted = kinds()[environment.locked.kind].borrows(environment, inside)
    if wanted is None:
        if python is not None:
            raise UsageError(f"{environment.ref} brings its own Python", remedy="leave --python out")
        return None
    if python is not None:
        told = interpreter.ask(python, inside)
        if told is None or told[0] != wanted:
            said = f"is Python {told[0]}" if told else "is not a Python"
            raise ToolError(
                f"{said}, and {environment.ref} is for {wanted}",
                where=str(python),
                remedy=f"give --python a Python {wanted}",
            )
        return told[1]
    found = interpreter.find(wanted, inside)
    if found is None:
        for artifact in environment.artifacts:
            if artifact.kind == "interpreter":
                return interpreter.unpack(artifact, wanted, inside)
        raise ToolError(
            f"there is no Python {wanted} on this machine, which {environment.ref} is for",
            remedy="give --python, or declare [target.X] interpreter so that a bundle brings one",
        )
    return found


def read_marker(prefix: Path) -> Marker | None:
    """What a prefix says of itself, or ``None`` if haversack did not make it."""
    try:
        data = (prefix / MARKER).read_bytes()
    except OSError:
        return None
    try:
        return prefixes.read(data, str(prefix / MARKER))
    except PrefixError:
        return None


def _check_prefix(prefix: Path) -> bool:
    """Whether an environment of ours is at ``prefix``.  Raises ``PrefixError`` if something else is."""
    if not prefix.exists() and not prefix.is_symlink():
        return False
    if prefix.is_symlink() or not prefix.is_dir():
        raise PrefixError(
            "is not a folder", where=str(prefix), remedy="choose a folder that does not exist yet"
        )
    if (prefix / record.RECORD).exists():
        raise PrefixError(
            "holds a project, which people may have worked on",
            where=str(prefix),
            remedy="install the project anew by its own name, or choose another folder",
        )
    if read_marker(prefix) is not None:
        return True
    if any(prefix.iterdir()):
        raise PrefixError(
            "was not made by haversack, and only what haversack made is ever replaced",
            where=str(prefix),
            remedy="choose a folder that does not exist yet, or remove it yourself",
        )
    return False


def _is_ours(leftover: Path) -> bool:
    """Whether a folder is an environment, finished or not, or empty."""
    if not leftover.is_dir():
        return False
    return any((leftover / name).exists() for name in _OURS) or not any(leftover.iterdir())
