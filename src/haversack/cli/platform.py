"""``haversack render PLATFORM``: one command for each platform, with the options that the platform asks for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click

from haversack.cli.setting import Setting, common, pass_setting
from haversack.errors import UsageError

if TYPE_CHECKING:
    from haversack.formats.schema import Key
    from haversack.ports import Inside
    from haversack.verbs.platform import Written
    from haversack.verbs.render import Rendered


class Renders(click.Group):
    """What can be rendered: the commands that were added, and every platform."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Platforms come last."""
        from haversack.platforms import platforms

        return [*self.commands, *platforms()]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Made when it is asked for."""
        from haversack.platforms import platforms

        if cmd_name in self.commands or cmd_name not in platforms():
            return super().get_command(ctx, cmd_name)
        return _command(cmd_name)


def _command(name: str) -> click.Command:
    """The command that renders a platform."""
    from haversack.platforms import platforms

    @click.command(name, help=(platforms()[name].__doc__ or "").partition("\n\n")[0])
    @click.option(
        "-o",
        "--to",
        "folder",
        metavar="DIR",
        type=click.Path(path_type=Path, file_okay=False),
        help="The folder to write to; what else lies there stays. A single file is printed without it.",
    )
    @click.option("--snapshot", help="A snapshot other than the current one.")
    @click.option(
        "--from",
        "source",
        metavar="NAME",
        help="A snapshot, or a declaration (a file, or the folder that holds haversack.toml) before anything is locked.",
    )
    @click.option("--force", is_flag=True, help="Replace files that were edited since.")
    @click.option("--dry-run", is_flag=True, help="Say what would be done.")
    @click.argument("command", nargs=-1, type=click.UNPROCESSED)
    @common
    @pass_setting
    def command(
        setting: Setting,
        /,
        folder: Path | None,
        snapshot: str | None,
        source: str | None,
        force: bool,
        dry_run: bool,
        command: tuple[str, ...],
        **asked: Any,
    ) -> None:
        from haversack.verbs.platform import render

        if source is not None and snapshot is not None:
            raise UsageError("--snapshot and --from say the same", remedy="leave one of them out")
        declared = _declared(source) if source is not None else None
        with _inside(setting, of_store=declared is None) as inside:
            done = render(
                name,
                folder,
                inside,
                snapshot=snapshot if declared or source is None else source,
                declared=declared,
                asked=asked,
                command=command,
                force=force,
                dry_run=dry_run,
            )
        setting.console.findings(done.findings)
        if done.shown is not None and not setting.console.as_json:
            # A file, byte for byte, and no text that a terminal must be saved from.
            click.echo(done.shown.encode(errors="surrogateescape"), nl=False)
            return
        setting.console.report(done, told(done, dry_run))

    for option, key in platforms()[name].asks.items():
        command.params.append(_option(option, key))
    return command


def _declared(source: str) -> Path | None:
    """The declaration that is meant, where it is no name of a snapshot."""
    from haversack.formats.declaration import FILENAME

    path = Path(source)
    if (path / FILENAME).is_file():
        return path / FILENAME
    return path if path.is_file() else None


@contextmanager
def _inside(setting: Setting, *, of_store: bool) -> Iterator[Inside]:
    """The ports inside; over an empty store where nothing of the site's is needed."""
    if of_store:
        yield setting.inside()
        return
    with TemporaryDirectory(prefix="haversack-") as folder:
        yield Setting(Path(folder), setting.console.as_json, setting.console.quiet).inside(create=True)


def told(done: Written | Rendered, dry_run: bool) -> list[str]:
    """What was rendered, line by line."""
    lines = [f"{'would write' if dry_run else 'wrote'} {done.folder}/{name}" for name in done.written]
    lines += [f"{'would remove' if dry_run else 'removed'} {done.folder}/{name}" for name in done.removed]
    return lines or [f"{done.folder} is of snapshot {done.snapshot} already, {len(done.files)} files"]


def _option(name: str, key: Key) -> click.Option:
    """One thing that a platform asks for; what it may be is checked where it is used."""
    word = f"--{name.replace('_', '-')}"
    if key.type == "boolean":
        return click.Option([word], is_flag=True, help=key.description)
    metavar = "|".join(key.choices) or "TEXT"
    return click.Option([word], metavar=metavar, help=key.description)
