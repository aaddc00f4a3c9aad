"""The proof that an environment of conda packages works where it stands, and what its packages fight over."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from packaging.utils import canonicalize_name

from haversack.conda import activation
from haversack.conda.layout import Meta, layout_of, read_metas
from haversack.formats import uv
from haversack.model.artifact import Artifact
from haversack.model.finding import Finding
from haversack.model.snapshot import SnapshotEnvironment
from haversack.ports import Completed, Inside
from haversack.wheels import install as wheels_install

_NAMED = re.compile(r"`([^`]+)`")


def check(environment: SnapshotEnvironment, prefix: Path, inside: Inside, *, caged: bool) -> list[Finding]:
    """Prove an installed environment, activated as a person would: its check, or what it has of Python.

    Without a check of its own its Python has to start, the requirements of its wheels have to be met, and
    each module of them is imported.  Conda packages are believed to be closed: their metadata were solved, and
    what they say to pip is often less than true.  Paths that two packages hold are findings that do not block.
    """
    findings = list(clobbered(read_metas(prefix)[0]))
    layout = layout_of(environment.artifacts, environment.target)
    env = {
        "PATH": f"{prefix / layout.programs}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "CONDA_PREFIX": str(prefix),
    }
    subject, command = environment.ref, environment.locked.check
    if command is not None:
        # Activation scripts of packages set what their libraries look for.
        script = f'. "$0"\n{command}'
        shell = shutil.which("bash") or "sh"
        argv = [shell, "-c", script, str(prefix / activation.posix_script(prefix, layout))]
        return findings + wheels_install.check_command(argv, env, subject, inside, caged=caged)
    if layout.site is None:
        return findings
    python = prefix / layout.python
    started = wheels_install.check_command(
        [str(python), "-I", "-c", ""], env, f"{subject}: its Python", inside, caged=caged
    )
    wheels = [artifact for artifact in environment.artifacts if artifact.kind == "wheel"]
    if started or not wheels:
        return findings + started
    findings += _unmet(inside.run(uv.check_argv(python), caged=caged), wheels, subject)
    return findings + wheels_install.check_imports(wheels, python, env, subject, inside, caged=caged)


def _unmet(done: Completed, wheels: Sequence[Artifact], subject: str) -> Iterator[Finding]:
    """What ``uv pip check`` says of our wheels; conda packages were proven by their own records."""
    if not done.code:
        return
    ours = {canonicalize_name(wheel.name) for wheel in wheels}
    for line in (done.err + done.out).splitlines():
        named = _NAMED.search(line)
        if named and canonicalize_name(named[1]) in ours:
            yield wheels_install.failed(
                subject, f"pip check: {line.strip()}", "relax or add the requirement that it names"
            )


def clobbered(metas: Iterable[Meta]) -> Iterator[Finding]:
    """A finding for each path that two packages bring with other bytes; rattler keeps what lost aside.

    So it does where one brings a file and the other a folder of that name, and the file may then be missing.
    """
    held = {placed.path: (meta, placed) for meta in metas for placed in meta.paths}
    losers = [(meta, placed) for meta, placed in held.values() if placed.wanted != placed.path]
    if not losers:
        return
    folders = {above: meta for path, (meta, _) in held.items() for above in _above(path)}
    for meta, placed in sorted(losers, key=lambda pair: pair[1].path):
        mine = _of(meta)
        file = next((above for above in _above(placed.wanted) if above in held), None)
        if placed.wanted in held:
            winner, won = held[placed.wanted]
            if placed.sha256 != won.sha256:
                yield _fought(placed.wanted, f"is that of {_of(winner)}; {mine} brings another one")
        elif file is not None:
            yield _fought(
                placed.wanted,
                f"is brought by {mine}, and {_of(held[file][0])} brings a file {file}; either may be missing",
            )
        elif placed.wanted in folders:
            yield _fought(
                placed.wanted,
                f"is a folder of {_of(folders[placed.wanted])}; {mine} brings a file of that name",
            )


def _fought(path: str, message: str) -> Finding:
    remedy = "ask the channels to mend one of the packages, if the environment does not work as it is"
    return Finding("conda-clobber", path, message, remedy, blocking=False)


def _of(meta: Meta) -> str:
    return f"{meta.name} {meta.version}"


def _above(path: str) -> list[str]:
    """The folders that a path is in."""
    return [parent.as_posix() for parent in PurePosixPath(path).parents][:-1]
