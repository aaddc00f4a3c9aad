"""The command line: parse, wire, print.  What each command does is in :mod:`haversack.verbs`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from haversack import __version__
from haversack.cli import inside, leaving, outside, rendering, serving
from haversack.cli.setting import Setting, StorePlace
from haversack.console import Console
from haversack.errors import HaversackError, UsageError
from haversack.model.bucket import Bucket


class Commands(click.Group):
    """The commands in the order of the journey, not of the alphabet."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """As they were added."""
        return list(self.commands)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--store",
    type=StorePlace(),
    envvar="HAVERSACK_STORE",
    help="Where the store is: a folder or s3://BUCKET/PATH.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON value for scripts.")
@click.option("-q", "--quiet", is_flag=True, help="No progress bars.")
@click.version_option(__version__, prog_name="haversack")
@click.pass_context
def cli(context: click.Context, store: Path | Bucket | None, as_json: bool, quiet: bool) -> None:
    """Machine learning where there is no internet.

    \b
    Outside:  haversack init; haversack lock; haversack pack -o bundle/
    Inside:   haversack receive bundle/; haversack install NAME --to PREFIX
    """
    context.obj = Setting(store, as_json, quiet)


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print a completion script.

    \b
    eval "$(haversack completion bash)"
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(cli, {}, "haversack", "_HAVERSACK_COMPLETE").source())


for command in (
    *outside.COMMANDS,
    *inside.COMMANDS,
    *leaving.COMMANDS,
    *serving.COMMANDS,
    *rendering.COMMANDS,
    completion,
):
    cli.add_command(command)


def entry() -> None:
    """The entry point of a process: :func:`main`, and an end that nobody disturbs."""
    try:
        main()
    except SystemExit as end:
        if "rattler" in sys.modules:
            # Its threads may still hold on to Python while Python takes itself down, which aborts the process
            # (signal 6) after all is done: leave without taking anything down.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(end.code if isinstance(end.code, int) else 0)
        raise


def main() -> None:
    """Run a command, and exit with the code of what happened."""
    out = sys.stdout
    try:
        code = _run(Console(as_json="--json" in sys.argv[1:]))
    except (BrokenPipeError, SystemExit) as problem:
        # click answers a broken pipe with an exit of its own, after it has replaced standard output.
        if isinstance(problem, SystemExit) and sys.stdout is out:
            raise
        # The reader went away: nothing more can be said to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        code = 141
    sys.exit(code)


def _run(console: Console) -> int:
    """Run a command, and turn an error into one clear text and its exit code."""
    try:
        code = cli.main(standalone_mode=False)
    except click.exceptions.Abort:
        console.error(HaversackError("interrupted; run the same command again to go on"))
        return 130
    except click.exceptions.NoArgsIsHelpError as problem:
        click.echo(problem.format_message())
        return UsageError.exit_code
    except click.ClickException as problem:
        context = getattr(problem, "ctx", None)
        hint = f"see: {context.command_path} --help" if context else "see: haversack --help"
        console.error(UsageError(problem.format_message(), remedy=hint))
        return UsageError.exit_code
    except HaversackError as problem:
        console.error(problem)
        return problem.exit_code
    except KeyboardInterrupt:
        console.error(HaversackError("interrupted; run the same command again to go on"))
        return 130
    return code or 0
