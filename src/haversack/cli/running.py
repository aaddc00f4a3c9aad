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
from haversack.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from haversack.ports import Inside
    from haversack.verbs.install import Installed
    from haversack.verbs.lay import Laid
    from haversack.verbs.service import Placed


@click.command()
@click.argument("name")
@click.option(
    "--to",
    "prefix",
    type=click.Path(path_type=Path),
    help="The prefix to make or replace; needed but for a service.",
)
@click.option("--target", help="The target (default: the one that fits this machine).")
@click.option("--snapshot", help="A snapshot other than the current one.")
@click.option(
    "--python", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="The interpreter to use."
)
@click.option(
    "--clone-of",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Share the files that this environment has too: as hard links, or blocks on disk.",
)
@click.option("--check", is_flag=True, help="Run the environment's check; nothing is replaced if it fails.")
@click.option(
    "--compile-bytecode", is_flag=True, help="Write .pyc files now, e.g. for a prefix that many will read."
)
@click.option(
    "--root",
    type=click.Path(path_type=Path, file_okay=False),
    help="Of a service: lay everything below this folder, for a machine that will start from it.",
)
@click.option("--no-start", is_flag=True, help="Of a service: start nothing.")
@click.option("--force", is_flag=True, help="Of a service: replace files that were edited since.")
@click.option("--base-url", help="Of a service: where the store is served, as `render systemd` takes it.")
@click.option("--ca", help="Of a service: file with the certificates that vouch for the server, in PEM.")
@click.option("--dry-run", is_flag=True, help="Say what would be done.")
@common
@pass_setting
def install(
    setting: Setting,
    name: str,
    prefix: Path | None,
    target: str | None,
    snapshot: str | None,
    python: Path | None,
    clone_of: Path | None,
    check: bool,
    compile_bytecode: bool,
    root: Path | None,
    no_start: bool,
    force: bool,
    base_url: str | None,
    ca: str | None,
    dry_run: bool,
) -> None:
    """Install an environment to a prefix, a project and its environment side by side, or a service.

    It is built aside and swapped in one step; only what haversack made is ever replaced, and of a project only what nobody has worked on since.

    \b
    haversack install analysis --to /srv/env/analysis
    haversack install skypilot-service
    """
    from haversack.verbs.install import install as verb

    inside = setting.inside()

    def environment(
        name: str,
        place: Path,
        target: str | None = None,
        *,
        compiled: bool = compile_bytecode,
        dry: bool = dry_run,
        judge: Callable[[Path], object] | None = None,
    ) -> Installed:
        return verb(
            name,
            place,
            inside,
            target=target,
            snapshot=snapshot,
            python=python,
            clone_of=clone_of,
            check=check,
            compile_bytecode=compiled,
            dry_run=dry,
            judge=judge,
        )

    from haversack.verbs import holdings
    from haversack.verbs.lay import lay, project_of

    held, content = holdings.current_snapshot(inside.store, snapshot)
    if _is_service(name) and not any(e.locked.name == name for e in content.environments):
        from haversack.verbs.service import install_service
        from haversack.verbs.service_plan import SUFFIX

        placed = install_service(
            name.removesuffix(SUFFIX),
            inside,
            # Its user may not write there, and would compile it all at each start.
            lambda one, place, dry, judge: environment(
                one, place, target, compiled=True, dry=dry, judge=judge
            ),
            prefix=prefix,
            root=root or Path("/"),
            target=target,
            snapshot=snapshot,
            asked={key: value for key, value in (("base_url", base_url), ("ca", ca)) if value},
            start=not no_start,
            force=force,
            dry_run=dry_run,
            say=lambda line: setting.console.notes([line]),
        )
        setting.console.findings(placed.findings)
        setting.console.report(placed, _placed(placed, no_start, dry_run))
        return
    if given := [word for word, value in _of_services(root, no_start, force, base_url, ca) if value]:
        raise UsageError(f"{given[0]} is for a service", remedy="leave it out")
    if prefix is None:
        raise UsageError("where to is not said", remedy="say --to PREFIX")
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
    told += [f"{human_size(size)} copied, since {why}" for why, size in done.copied.items()]
    return f"{verb} {done.prefix}: {', '.join(told)}"


def _is_service(name: str) -> bool:
    """Whether a name may be that of a service; what services there are is slow to load."""
    if not name.endswith("-service"):
        return False
    from haversack.verbs.service import is_service

    return is_service(name)


def _of_services(
    root: Path | None, no_start: bool, force: bool, base_url: str | None, ca: str | None
) -> list[tuple[str, object]]:
    return [
        *(("--root", root), ("--no-start", no_start), ("--force", force)),
        *(("--base-url", base_url), ("--ca", ca)),
    ]


def _placed(done: Placed, no_start: bool, dry_run: bool) -> list[str]:
    would = "would be " if dry_run else ""
    lines = [_installed(done.environment, None, dry_run)] if done.environment else []
    lines += [f"{would}written: {done.root / path}" for path in done.written]
    lines += [f"{would}removed: {done.root / path}" for path in done.removed]
    ended = "stopped" if done.root == Path("/") else "disabled"
    lines += [f"{would}{ended}: {unit}" for unit in done.stopped]
    quiet = no_start or done.root != Path("/")
    told = "not started" if quiet else f"{would}started"
    lines += [f"{told}: {unit}" for unit in done.started]
    lines = lines or [f"{done.service} is of snapshot {done.snapshot} already"]
    return [*lines, *([f"look at {done.address}"] if done.address and not quiet and not dry_run else [])]


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
