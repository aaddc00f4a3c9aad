"""Commands that lay environments and projects, and run what was laid."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from haversack.cli.setting import Setting, common, pass_setting
from haversack.console import human_size

if TYPE_CHECKING:
    from haversack.ports import Inside
    from haversack.verbs.install import Installed
    from haversack.verbs.lay import Laid


@click.command()
@click.argument("name")
@click.option(
    "--to",
    "prefix",
    required=True,
    type=click.Path(path_type=Path),
    help="The prefix to make or replace.",
)
@click.option("--target", help="The target (default: the one that fits this machine).")
@click.option("--snapshot", help="A snapshot other than the current one.")
@click.option(
    "--python", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="The interpreter to use."
)
@click.option(
    "--clone-of",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Hard-link the files that this environment has too.",
)
@click.option("--check", is_flag=True, help="Run the environment's check; nothing is replaced if it fails.")
@click.option(
    "--compile-bytecode", is_flag=True, help="Write .pyc files now, e.g. for a prefix that many will read."
)
@click.option("--dry-run", is_flag=True, help="Say what would be done.")
@common
@pass_setting
def install(
    setting: Setting,
    name: str,
    prefix: Path,
    target: str | None,
    snapshot: str | None,
    python: Path | None,
    clone_of: Path | None,
    check: bool,
    compile_bytecode: bool,
    dry_run: bool,
) -> None:
    """Install an environment to a prefix, or a project and its environment side by side.

    It is built aside and swapped in one step; only what haversack made is ever replaced, and of a project only what nobody has worked on since.
    """
    from haversack.verbs.install import install as verb

    inside = setting.inside()

    def environment(name: str, place: Path, target: str | None = None) -> Installed:
        return verb(
            name,
            place,
            inside,
            target=target,
            snapshot=snapshot,
            python=python,
            clone_of=clone_of,
            check=check,
            compile_bytecode=compile_bytecode,
            dry_run=dry_run,
        )

    from haversack.verbs import holdings
    from haversack.verbs.lay import lay, project_of

    held, content = holdings.current_snapshot(inside.store, snapshot)
    project = project_of(content, name, target)
    if project is None:
        done = environment(name, prefix, target)
        setting.console.report(done, [_installed(done, clone_of, dry_run)])
        return
    laid = lay(project, prefix, held, environment, inside, dry_run=dry_run)
    lines = [_laid(laid, dry_run)]
    lines += [_installed(laid.environment, clone_of, dry_run)] if laid.environment else []
    lines += [laid.note] if laid.note else []
    setting.console.report(laid, lines)


def _installed(done: Installed, clone_of: Path | None, dry_run: bool) -> str:
    verb = "would install" if dry_run else ("replaced" if done.replaced else "installed")
    told = [f"{done.ref} of {done.snapshot}", f"{done.artifacts} files"]
    told += [str(done.python)] if done.python else []
    told += [f"{human_size(done.shared)} shared with {clone_of}"] if clone_of and not dry_run else []
    return f"{verb} {done.prefix}: {', '.join(told)}"


def _laid(done: Laid, dry_run: bool) -> str:
    told = f"{done.ref} of {done.snapshot}"
    if done.kept:
        return f"kept {done.folder}: {told} is there already"
    verb = "would install" if dry_run else ("replaced" if done.replaced else "installed")
    return f"{verb} {done.folder}: {told}, {done.artifacts} files"


@click.command()
@click.argument("name")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option(
    "--dir",
    "place",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where it is installed, or will be (default: haversack/projects/NAME in the user's data folder).",
)
@click.option("--dry-run", is_flag=True, help="Say what would be run.")
@common
@pass_setting
def run(setting: Setting, name: str, command: tuple[str, ...], place: Path | None, dry_run: bool) -> None:
    """Run a command in a project, with its environment active.

    What is not installed yet is installed first.  The command takes the place of haversack: signals and its exit code are its own.

    \b
    haversack run fraud -- python scripts/analysis.py
    """
    from haversack.errors import ToolError
    from haversack.verbs.run import run as verb

    home = place or _home() / name

    def inside() -> Inside:
        return setting.inside()

    def first() -> None:
        from haversack.verbs import holdings
        from haversack.verbs.install import install as plain
        from haversack.verbs.lay import lay, project_of

        ports = inside()
        held, content = holdings.current_snapshot(ports.store, None)
        project = project_of(content, name, None)
        if project is None:
            setting.console.notes([_installed(plain(name, home, ports), None, False)])
        else:
            laid = lay(project, home, held, lambda env, at: plain(env, at, ports), ports)
            beside = [_installed(laid.environment, None, False)] if laid.environment else []
            setting.console.notes([_laid(laid, False), *beside])

    done = verb(name, command, home, os.environ, inside, first, dry_run=dry_run)
    setting.console.notes([f"note: {note}" for note in done.notes])
    if dry_run:
        told = {"ref": done.ref, "argv": done.argv, "folder": done.folder, "prefix": done.prefix}
        setting.console.report(told, [f"in {done.folder}: {shlex.join(done.argv)}"])
        return
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.chdir(done.folder)
        os.execvpe(done.argv[0], list(done.argv), dict(done.env))  # noqa: S606 - the person's own command
    except OSError as problem:
        raise ToolError(
            f"cannot be started: {problem.strerror}", where=done.argv[0], remedy="see whether it is installed"
        ) from problem


def _home() -> Path:
    """Where projects go that nobody said a folder for."""
    base = os.environ.get("XDG_DATA_HOME") or (os.environ.get("LOCALAPPDATA") if os.name == "nt" else None)
    return (Path(base) if base else Path.home() / ".local" / "share") / "haversack" / "projects"
