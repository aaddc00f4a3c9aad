"""Commands that give what a snapshot holds to other tools."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from haversack.cli.serving import live_options, serve_live
from haversack.cli.setting import Setting, common, pass_setting
from haversack.console import human_size


@click.command()
@click.option(
    "--listen",
    multiple=True,
    metavar="ADDRESS",
    help="Serve live at HOST:PORT, [ADDRESS]:PORT or unix:PATH (may stand several times; 127.0.0.1:8080).",
)
@click.option(
    "--export",
    "folder",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write static files to this folder, for any web server or a shared file system.",
)
@click.option("--snapshot", help="Export a snapshot other than the current one.")
@click.option("--base-url", help="Where the folder will be served; goes into the configuration of clients.")
@click.option("--copy", is_flag=True, help="Never share a file on disk with the store.")
@click.option("--dry-run", is_flag=True, help="Say what would be exported.")
@live_options
@common
@pass_setting
def serve(
    setting: Setting,
    /,
    listen: tuple[str, ...],
    folder: Path | None,
    snapshot: str | None,
    base_url: str | None,
    copy: bool,
    dry_run: bool,
    **live: Any,
) -> None:
    """Give snapshots to everybody's clients in their own protocols: live, or as static files.

    \b
    haversack serve --listen 0.0.0.0:8080
    pip install --index-url http://HOST:8080/pypi/simple/ NAME
    haversack serve --export /srv/mirror
    """
    if folder is None:
        if snapshot or base_url or copy or dry_run:
            raise click.UsageError("--snapshot, --base-url, --copy and --dry-run belong to --export")
        serve_live(setting, listen, **live)
        return
    if listen or any(live.values()):
        raise click.UsageError("--export writes files and ends; it listens at nothing")
    from haversack.verbs.serve import export as run

    done = run(folder, setting.inside(), snapshot, base_url=base_url, link=not copy, dry_run=dry_run)
    setting.console.findings(done.findings)
    verb = "would export" if dry_run else "exported" if done.changed else "was exported already:"
    shared = f", {human_size(done.shared)} of it shared with the store" if done.shared else ""
    setting.console.report(
        done,
        [
            f"{verb} {done.folder}: snapshot {done.snapshot}, {done.files} files, {human_size(done.size)}{shared}"
        ],
    )


def _doors(context: click.Context, parameter: click.Parameter, value: str) -> str:
    """The door of that name; the doors are loaded when somebody names one, not for every --help."""
    from haversack.doors import doors

    if value not in doors():
        told = "\n".join(f"  {door.name:<15}{door.doc}" for door in doors().values())
        raise click.BadParameter(f"{value!r} is none of\n{told}", context, parameter)
    return value


def _complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[Any]:
    from click.shell_completion import CompletionItem

    from haversack.doors import doors

    return [CompletionItem(d.name, help=d.doc) for d in doors().values() if d.name.startswith(incomplete)]


@click.command()
@click.argument("name")
@click.option(
    "--as",
    "door",
    required=True,
    metavar="FORMAT",
    callback=_doors,
    shell_complete=_complete,
    help="pixi-pack, explicit, explicit-md5, conda-lock, wheelhouse, pylock, package-cache or project.",
)
@click.option(
    "--to",
    "dest",
    required=True,
    type=click.Path(path_type=Path),
    help="The file or folder to write; a folder must not exist or be empty.",
)
@click.option("--target", help="The target (default: all where the format takes them, else what fits here).")
@click.option("--snapshot", help="A snapshot other than the current one.")
@click.option("--force", is_flag=True, help="Replace a file that is there.")
@click.option("--dry-run", is_flag=True, help="Say what would be done.")
@common
@pass_setting
def export(
    setting: Setting,
    name: str,
    door: str,
    dest: Path,
    target: str | None,
    snapshot: str | None,
    force: bool,
    dry_run: bool,
) -> None:
    """Write an environment in the format of another tool.

    \b
    haversack export geo --as pixi-pack --to environment.tar
    haversack export geo --as explicit --to geo.txt
    haversack export lab --as wheelhouse --to wheels/
    """
    from haversack.verbs.export import export as run

    done = run(
        name,
        door,
        dest,
        setting.inside(),
        target=target,
        snapshot=snapshot,
        force=force,
        dry_run=dry_run,
    )
    verb = "would write" if dry_run else "wrote"
    lines = [f"{verb} {done.dest}: {', '.join(done.refs)} of {done.snapshot} as {done.door}"]
    if not dry_run:
        lines[0] += f", {len(done.files)} files, {human_size(done.size)}"
    if done.left:
        lines.append(f"not in it, since the format has no place for them: {', '.join(done.left)}")
    setting.console.report(done, lines)


@click.command()
@click.argument("registry")
@click.option("--snapshot", help="A snapshot other than the current one.")
@click.option(
    "--only", multiple=True, metavar="NAME", help="Only this environment or image (may stand several times)."
)
@click.option(
    "--auth",
    type=click.Choice(["none", "env", "netrc", "keyring", "docker"]),
    default="docker",
    show_default=True,
    help="Where the login comes from; docker is what docker login or podman login wrote, if they did.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be sent.")
@common
@pass_setting
def push(
    setting: Setting,
    registry: str,
    snapshot: str | None,
    only: tuple[str, ...],
    auth: str,
    dry_run: bool,
) -> None:
    """Put a snapshot, its environments and its images into an OCI registry.

    REGISTRY is a host, and what shall stand before every name there.  Images keep their names and digests below it.

    \b
    haversack push harbor.example.org/airgap
    podman pull harbor.example.org/airgap/docker.io/library/python:3.11-slim
    """
    from haversack.cli.setting import registry_to_fill
    from haversack.verbs.push import push as run

    place, port = registry_to_fill(registry, auth, setting.console.note)
    done = run(place, setting.inside(), port, snapshot=snapshot, only=only, dry_run=dry_run)
    setting.console.findings(done.findings)
    verb = "would push" if dry_run else "pushed"
    lines = [
        f"{verb} {done.snapshot} to {done.registry}: {done.blobs} files, {human_size(done.size)}; {done.present} were there",
        *(f"    {name} {digest}" for name, digest in done.references),
    ]
    setting.console.report(done, lines)


COMMANDS = (serve, export, push)
