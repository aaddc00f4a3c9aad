"""Wiring: what the options before a command say, and the ports that follow from it.

Ports are imported where they are made: ``haversack --help`` and completion stay quick.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from haversack.console import Console
from haversack.errors import NotFoundError

if TYPE_CHECKING:
    from haversack.model.site import Site
    from haversack.ports import Inside, Media, Outside

_SIZES = {
    "": 1,
    "B": 1,
    "K": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "KI": 2**10,
    "MI": 2**20,
    "GI": 2**30,
    "TI": 2**40,
}


class Size(click.ParamType[int]):
    """A number of bytes as people write it: ``4GB``, ``700MiB``, ``123456``."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Bytes."""
        if isinstance(value, int):
            return value
        text = str(value).strip().upper().removesuffix("B")
        digits = text.rstrip("KMGTI ")
        unit = text[len(digits) :].strip()
        try:
            return int(float(digits) * _SIZES[unit])
        except (ValueError, KeyError, OverflowError):
            self.fail(f"{value!r} is not a size like 4GB or 700MiB", param, ctx)


def default_store() -> Path:
    """``/var/lib/haversack/store`` for root, the user's data folder for anybody else."""
    if os.name != "nt" and os.geteuid() == 0:
        return Path("/var/lib/haversack/store")
    base = os.environ.get("XDG_DATA_HOME") or (os.environ.get("LOCALAPPDATA") if os.name == "nt" else None)
    return (Path(base) if base else Path.home() / ".local" / "share") / "haversack" / "store"


class Setting:
    """What the options before the command said."""

    def __init__(self, store: Path | None, as_json: bool, quiet: bool) -> None:
        self.store = (store or default_store()).absolute()
        self.console = Console(as_json=as_json, quiet=quiet)

    def inside(self, *, create: bool = False) -> Inside:
        """The ports of the air-gapped side."""
        from haversack.ports import Inside

        return Inside(**self._common(create=create))

    def outside(self, site: Site) -> Outside:
        """The ports of the connected side."""
        from haversack.conda.channels import RattlerChannels
        from haversack.ports import Outside
        from haversack.ports.credentials import IndexCredentials
        from haversack.ports.fetch import HttpFetch
        from haversack.ports.fetchers import ByScheme
        from haversack.ports.registry import HttpRegistries

        credentials = IndexCredentials((*site.indexes, *site.channels, *site.registries), os.environ)
        registries = HttpRegistries(site.registries, credentials.by_registry)
        common = self._common(create=True)
        return Outside(
            **common,
            fetch=ByScheme(HttpFetch(credentials=credentials.by_url), docker=registries),
            credentials=credentials.by_index,
            channels=RattlerChannels(common["cache"] / "channels", credentials.by_url),
            registries=registries,
        )

    def _common(self, *, create: bool) -> dict[str, Any]:
        from haversack.ports.disk import DiskStore
        from haversack.ports.ledger import FileLedger, SystemClock
        from haversack.ports.machine import base_python, probe
        from haversack.ports.run import Programs

        clock = SystemClock()
        store = DiskStore(self.store, create=create)
        # A reader of a shared store keeps a record and a cache of his own.
        own = self.store / "haversack" if self.owns_ledger() else self._user_folder()
        return {
            "store": store,
            "ledger": FileLedger(own / "ledger.jsonl", clock),
            "run": Programs(),
            "clock": clock,
            "progress": self.console.progress,
            "machine": probe(),
            "cache": own / "cache",
            "python": base_python(),
        }

    def owns_ledger(self) -> bool:
        """Whether acts are recorded beside the store, and not in a ledger of the user's own."""
        return os.access(self.store / "haversack", os.W_OK)

    def _user_folder(self) -> Path:
        base = os.environ.get("XDG_STATE_HOME")
        return (Path(base) if base else Path.home() / ".local" / "state") / "haversack"

    def media(self, paths: tuple[str, ...]) -> Media:
        """The bundle that some paths name: folders, one tar, or ``-`` for standard input."""
        from haversack.ports.durable import explained
        from haversack.ports.media import Folders, TarStream

        if paths == ("-",):
            return TarStream(sys.stdin.buffer)
        if len(paths) == 1 and Path(paths[0]).is_file():
            with explained(Path(paths[0]), "opening the bundle", NotFoundError):
                file = click.get_current_context().with_resource(Path(paths[0]).open("rb"))  # noqa: SIM115 - closed with the command
            return TarStream(file, paths[0])
        return Folders([Path(path) for path in paths])


pass_setting = click.make_pass_decorator(Setting)


def common(command: Any) -> Any:
    """Let the options before the command stand behind it as well."""

    def set_json(context: click.Context, _: click.Parameter, value: bool) -> None:
        context.ensure_object(Setting).console.as_json |= value

    def set_quiet(context: click.Context, _: click.Parameter, value: bool) -> None:
        context.ensure_object(Setting).console.quiet |= value

    def set_store(context: click.Context, _: click.Parameter, value: Path | None) -> None:
        if value:
            context.ensure_object(Setting).store = value.absolute()

    path = click.Path(path_type=Path, file_okay=False)
    for option in (
        click.option(
            "-q", "--quiet", is_flag=True, expose_value=False, callback=set_quiet, help="No progress bars."
        ),
        click.option(
            "--json",
            is_flag=True,
            expose_value=False,
            callback=set_json,
            help="Print one JSON value for scripts.",
        ),
        click.option(
            "--store", type=path, expose_value=False, callback=set_store, help="Where the store is."
        ),
    ):
        command = option(command)
    return command
