"""What the live server is told, and the commands that prepare for it: a CA, and users."""

from __future__ import annotations

import os
import platform
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from haversack.cli.setting import Setting, common, pass_setting

if TYPE_CHECKING:
    from haversack.model.finding import Finding
    from haversack.ports import Store
    from haversack.serving.auth import Rules

DEFAULT = "127.0.0.1:8080"
_FILE = click.Path(path_type=Path, dir_okay=False)
_FOLDER = click.Path(path_type=Path, file_okay=False)


def live_options(command: Any) -> Any:
    """The options of ``haversack serve`` that are about the live server alone."""
    for option in reversed(
        (
            click.option(
                "--tls-cert", type=_FILE, help="Speak TLS with this certificate (PEM, with its chain)."
            ),
            click.option("--tls-key", type=_FILE, help="The key of the certificate (PEM)."),
            click.option(
                "--tls-ca", type=_FOLDER, help="Speak TLS with a certificate made now from this site CA."
            ),
            click.option("--auth", type=_FILE, help="Users and who may read what (TOML)."),
            click.option(
                "--access-log", type=_FILE, help="Write the access log here, not to standard output."
            ),
            click.option(
                "--metrics-listen",
                metavar="ADDRESS",
                help="Give /metrics and /healthz at an address of their own; /metrics there alone.",
            ),
        )
    ):
        command = option(command)
    return command


def serve_live(
    setting: Setting,
    listen: tuple[str, ...],
    tls_cert: Path | None,
    tls_key: Path | None,
    tls_ca: Path | None,
    auth: Path | None,
    access_log: Path | None,
    metrics_listen: str | None,
) -> None:
    """Serve until somebody ends it."""
    from haversack.serving import auth as access
    from haversack.serving.app import App
    from haversack.serving.journal import Journal
    from haversack.serving.running import Certificate, serve

    if (tls_cert is None) != (tls_key is None) or (tls_cert and tls_ca):
        raise click.UsageError("TLS needs --tls-cert and --tls-key, or --tls-ca")
    inside = setting.inside()
    addresses = listen or (DEFAULT,)
    certificate = Certificate(tls_cert, tls_key) if tls_cert and tls_key else None
    if tls_ca:
        from haversack.verbs.ca import issue

        made = issue(tls_ca, _names(addresses), tls_ca / "servers", inside.run)
        certificate = Certificate(made.certificate, made.key)
    journal = Journal(access_log)
    index = getattr(inside.store, "root", None)
    rules = access.read(auth, time.time) if auth else None
    if rules and rules.keeping():
        setting.console.findings(_around(rules, inside.store))
    app = App(
        inside.store,
        journal,
        rules=rules,
        stamp=_stamp(index / "index.json") if isinstance(index, Path) else None,
        with_metrics=metrics_listen is None,
    )

    def reload() -> None:
        if auth:
            app.rules = access.read(auth, time.time)

    def ready(urls: list[str]) -> None:
        told = " ".join(urls)
        click.echo(f"haversack: serving {inside.store} at {told}", err=True)

    serve(
        app,
        addresses,
        journal,
        metrics=metrics_listen,
        certificate=certificate,
        reload=reload,
        ready=ready,
    )


def _around(rules: Rules, store: Store) -> list[Finding]:
    """What rules guard of the current snapshot in one view and not in another."""
    from haversack.errors import HaversackError
    from haversack.serving.around import ways_around
    from haversack.verbs import holdings
    from haversack.views import view_of

    try:
        _, content = holdings.current_snapshot(store)
    except HaversackError:
        # There is none yet, or whoever asks for it is told why it cannot be read.
        return []
    return ways_around(rules, view_of(content))


def _stamp(index: Path) -> Any:
    """A quick look at whether a file is still the one that was read: every publishing makes another one."""

    def look() -> tuple[int, int, int]:
        status = os.stat(index)
        return status.st_ino, status.st_size, status.st_mtime_ns

    return look


def _names(addresses: tuple[str, ...]) -> list[str]:
    """What clients may call this machine."""
    hosts = [
        address.rpartition(":")[0].strip("[]") for address in addresses if not address.startswith("unix:")
    ]
    named = [host for host in hosts if host and host not in {"0.0.0.0", "::", "localhost"}]  # noqa: S104
    own = [platform.node(), "localhost", "127.0.0.1", "::1"]
    return list(dict.fromkeys([*named, *own]))


@click.group()
def ca() -> None:
    """Certificates for a site that has no CA of its own (openssl makes them)."""


@ca.command("create")
@click.argument("folder", type=_FOLDER)
@click.option("--name", default="Site CA", help="What the CA is called (Site CA).")
@common
@pass_setting
def ca_create(setting: Setting, folder: Path, name: str) -> None:
    """Make a CA in FOLDER: ca.pem for every client, ca.key for nobody.

    \b
    haversack ca create /etc/haversack/ca --name "Lab CA"
    haversack serve --listen 0.0.0.0:8443 --tls-ca /etc/haversack/ca
    """
    from haversack.ports.run import Programs
    from haversack.verbs.ca import create

    made = create(folder, name, Programs())
    setting.console.report(made, [f"made {made.certificate}, for clients; keep {made.key}"])


@ca.command("issue")
@click.argument("folder", type=_FOLDER)
@click.argument("hosts", nargs=-1, required=True)
@click.option("-o", "--output", type=_FOLDER, default=".", help="Where the files go (.).")
@common
@pass_setting
def ca_issue(setting: Setting, folder: Path, hosts: tuple[str, ...], output: Path) -> None:
    """Make a certificate of the CA in FOLDER for a server: names and addresses, the first names the files."""
    from haversack.ports.run import Programs
    from haversack.verbs.ca import issue

    made = issue(folder, hosts, output, Programs())
    setting.console.report(made, [f"made {made.certificate} and {made.key}"])


@click.group()
def user() -> None:
    """Who may read from `haversack serve --auth FILE`."""


@user.command("add")
@click.argument("file", type=_FILE)
@click.argument("name")
@click.option(
    "--token", is_flag=True, help="Make a token and print it once, alone, instead of asking for a password."
)
@click.option(
    "--password-stdin", is_flag=True, help="Read the password from standard input, not from a terminal."
)
@click.option(
    "--expires", type=click.DateTime(["%Y-%m-%d"]), help="The first day on which it is no longer right."
)
@common
@pass_setting
def user_add(
    setting: Setting, file: Path, name: str, token: bool, password_stdin: bool, expires: datetime | None
) -> None:
    """Put a user into FILE, which only its owner may read.  No secret stands there, only what proves it.

    \b
    haversack user add users.toml alice
    haversack user add users.toml ci --token --expires 2027-01-01
    """
    import secrets

    from haversack.serving.auth import hashed_password, hashed_token
    from haversack.serving.users import add

    if expires and expires.replace(tzinfo=UTC).timestamp() <= time.time():
        raise click.UsageError("--expires names a day that has come already: nobody could log in")
    given = secrets.token_urlsafe(32) if token else ""
    if token:
        stored = hashed_token(given)
    else:
        password = sys.stdin.readline().rstrip("\n") if password_stdin else _asked()
        if not password:
            raise click.UsageError("the password is empty")
        stored = hashed_password(password)
    add(file, name, stored, token=token, expires=expires.date() if expires else None)
    told = {"file": file, "name": name, **({"token": given} if token else {})}
    added = f"added {name} to {file}"
    if token:
        # Alone on standard output, a token can be given on: TOKEN=$(haversack user add … --token).
        setting.console.notes([added])
    setting.console.report(told, [given if token else added])


def _asked() -> str:
    password: str = click.prompt("password", hide_input=True, confirmation_prompt=True, err=True)
    return password


COMMANDS = (ca, user)
