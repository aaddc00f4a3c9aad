"""``haversack render``: what other programs read, made of a snapshot."""

from __future__ import annotations

from pathlib import Path

import click

from haversack.cli.platform import Renders, told
from haversack.cli.secret import pull_secret
from haversack.cli.setting import Setting, common, pass_setting


class _Group(Renders):
    """What can be rendered, with a command for each client."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Clients come after what was added, platforms last."""
        from haversack.clients import clients

        names = super().list_commands(ctx)
        return [*self.commands, *clients(), *names[len(self.commands) :]]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Made when it is asked for."""
        found = super().get_command(ctx, cmd_name)
        if found is not None:
            return found
        from haversack.clients import clients, programs

        if cmd_name not in clients():
            return None
        says = f"Write the configuration of {programs(cmd_name)} alone, as `render clients` does."
        return _clients(cmd_name, says, only=cmd_name)


@click.group(cls=_Group)
def render() -> None:
    """Write what other programs read, made of a snapshot.

    A file that a person edited since it was rendered is shown as a difference, and stays.
    """


def _clients(name: str, says: str, only: str | None = None) -> click.Command:
    """The command that renders all clients, or ``only`` one."""

    @click.command(name, help=says)
    @click.option(
        "-o",
        "--to",
        "folder",
        required=True,
        metavar="DIR",
        type=click.Path(path_type=Path, file_okay=False),
        help="The folder to write to; what else lies there stays.",
    )
    @click.option("--base-url", required=True, help="Where the store, or an export of it, is served.")
    @click.option("--snapshot", help="A snapshot other than the current one.")
    @click.option(
        "--dated", is_flag=True, help="Point at /@NAME/ of the snapshot instead of at what is current."
    )
    @click.option(
        "--ca",
        metavar="FILE",
        type=click.Path(path_type=Path, dir_okay=False),
        help="Certificates in PEM that vouch for the server: the site's CA.",
    )
    @click.option("--home", help="Where the files will lie on the machines that use them (default: DIR).")
    @click.option("--force", is_flag=True, help="Replace files that were edited since.")
    @click.option("--dry-run", is_flag=True, help="Say what would be done.")
    @common
    @pass_setting
    def command(
        setting: Setting,
        folder: Path,
        base_url: str,
        snapshot: str | None,
        dated: bool,
        ca: Path | None,
        home: str | None,
        force: bool,
        dry_run: bool,
    ) -> None:
        from haversack.verbs.render import clients as run

        done = run(
            folder,
            setting.inside(),
            base_url,
            only=only,
            snapshot=snapshot,
            dated=dated,
            ca=ca,
            home=home,
            force=force,
            dry_run=dry_run,
        )
        setting.console.findings(done.findings)
        setting.console.report(done, told(done, dry_run))

    return command


render.add_command(
    _clients(
        "clients",
        """Write the configuration of pip, uv, conda, pixi, podman, containerd, docker and git for a mirror.

        \b
        haversack render clients -o /etc/haversack --base-url https://mirror.example.org --ca ca.pem
        . /etc/haversack/env.sh
        kubectl apply -f /etc/haversack/configmap.yaml
        """,
    )
)
render.add_command(pull_secret)

COMMANDS = (render,)
