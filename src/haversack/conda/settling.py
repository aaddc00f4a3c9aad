"""Link scripts: what a package wants to run at home once it is linked.  Only those allowed by name run.

What runs them and what they are told is conda's (``conda.core.link.run_script``): ``bin/.<name>-post-link.sh``
with ``PREFIX``, ``PKG_NAME``, ``PKG_VERSION`` and ``PKG_BUILDNUM``.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from haversack.conda.layout import Layout, by_need, record
from haversack.errors import ToolError
from haversack.model.artifact import Artifact
from haversack.model.snapshot import SnapshotEnvironment
from haversack.ports import Inside


def allowed(environment: SnapshotEnvironment) -> frozenset[str]:
    """The packages whose post-link script the declaration allows, by name."""
    return frozenset(environment.locked.settings.get("link_scripts", ()))


def script_of(name: str, layout: Layout) -> str:
    """Where the post-link script of a package is, relative to the prefix."""
    return f"{layout.programs}/.{name}-post-link.{'bat' if layout.windows else 'sh'}"


def run_scripts(environment: SnapshotEnvironment, layout: Layout, prefix: Path, inside: Inside) -> None:
    """Run the allowed post-link scripts, each after those of the packages that its own depends on.

    Raises ``ToolError`` with a script's words when it fails; the environment is then not to be used.
    """
    names = allowed(environment)
    if not names:
        return
    packages = [artifact for artifact in environment.artifacts if artifact.kind == "conda"]
    for package in by_need(packages):
        script = prefix / script_of(package.name, layout)
        if package.name in names and script.is_file():
            _run(package, script, layout, prefix, inside)


def _run(package: Artifact, script: Path, layout: Layout, prefix: Path, inside: Inside) -> None:
    programs = prefix / layout.programs
    env = {
        "PREFIX": str(prefix),
        "CONDA_PREFIX": str(prefix),
        "PKG_NAME": package.name,
        "PKG_VERSION": package.version,
        "PKG_BUILDNUM": str(record(package).get("build_number", 0)),
        "PATH": f"{programs}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
    }
    argv: list[str | Path] = (
        ["cmd.exe", "/d", "/c", script] if layout.windows else [shutil.which("bash") or "sh", script]
    )
    done = inside.run(argv, env=env, cwd=prefix)
    if done.code:
        # What a script has to tell a person stands here (conda shows it too).
        messages = prefix / ".messages.txt"
        told = messages.read_text(errors="replace") if messages.is_file() else ""
        said = (told + done.err + done.out).strip()[-2000:]
        raise ToolError(
            f"the post-link script of {package.filename} exited with {done.code}: {said}",
            where=str(script),
            remedy="mend what it says is missing, or take the package out of link-scripts",
        )
