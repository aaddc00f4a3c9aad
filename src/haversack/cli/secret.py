"""``haversack render pull-secret``: the one thing that is rendered with a password in it, on standard output alone."""

from __future__ import annotations

import os
from pathlib import Path

import click

from haversack.cli.setting import common
from haversack.errors import NotFoundError, UsageError


@click.command("pull-secret")
@click.argument("name")
@click.option("--server", required=True, metavar="HOST", help="The registry, as images name it.")
@click.option("--username", required=True, help="Who pulls images.")
@click.option(
    "--password-file",
    "file",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A file that holds the password; one line end behind it does not count.",
)
@click.option("--password-env", "variable", metavar="NAME", help="A variable that holds the password.")
@click.option("--email", default="", help="An address, where the registry wants one.")
@click.option("-n", "--namespace", default="", metavar="NS", help="The namespace of the secret.")
@common
def pull_secret(
    name: str, server: str, username: str, file: Path | None, variable: str | None, email: str, namespace: str
) -> None:
    """Print a docker-registry secret, as kubectl makes it, from a password that stands nowhere else.

    \b
    haversack render pull-secret site-registry --server registry.example.org \\
        --username puller --password-file FILE -n clearml | kubectl apply -f -
    """
    from haversack.formats.pullsecret import write

    if (file is None) == (variable is None):
        raise UsageError("a password comes from one place", remedy="say --password-file or --password-env")
    manifest = write(name, namespace, server, username, _password(file, variable), email)
    # Nothing but what kubectl reads, whatever else was asked for; there is no other place for a password.
    click.echo(manifest, nl=False)


def _password(file: Path | None, variable: str | None) -> str:
    if file is None:
        password = os.environ.get(variable or "")
        if not password:
            raise NotFoundError(f"the variable {variable} holds nothing", remedy="set it, or give a file")
        return password
    try:
        text = file.read_bytes().decode("utf-8")
    except OSError as problem:
        raise NotFoundError(f"cannot be read: {problem.strerror}", where=str(file)) from problem
    except UnicodeDecodeError:
        # What it holds must not be told.
        raise UsageError("the password is not UTF-8 text", where=str(file)) from None
    password = text.removesuffix("\n").removesuffix("\r")
    if "\n" in password:
        raise UsageError("the file holds more than one line", where=str(file), remedy="the password alone")
    return password
