"""Wiring: what the options before a command say, and the ports that follow from it.

Ports are imported where they are made: ``haversack --help`` and completion stay quick.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from haversack.console import Console
from haversack.errors import NotFoundError, StoreError
from haversack.model.bucket import SCHEME, Bucket, bucket_of

if TYPE_CHECKING:
    from haversack.model.site import Site
    from haversack.ports import Inside, Ledger, Media, Outside, Push, Store
    from haversack.ports.s3 import S3Store

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


class StorePlace(click.Path):
    """Where a store is: a folder, or ``s3://bucket/path``."""

    def __init__(self) -> None:
        super().__init__(path_type=Path, file_okay=False)

    def convert(
        self,
        value: str | os.PathLike[str] | Bucket,
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Any:
        """An absolute path, or a bucket."""
        if isinstance(value, Bucket):
            return value
        if not str(value).lower().startswith(SCHEME):
            return Path(str(super().convert(value, param, ctx))).absolute()
        try:
            return bucket_of(str(value))
        except ValueError as problem:
            # The URL may hold a password that its writer thought belonged there.
            self.fail(f"the store's URL {problem}", param, ctx)


def default_store() -> Path:
    """``/var/lib/haversack/store`` for root, the user's data folder for anybody else."""
    if os.name != "nt" and os.geteuid() == 0:
        return Path("/var/lib/haversack/store")
    base = os.environ.get("XDG_DATA_HOME") or (os.environ.get("LOCALAPPDATA") if os.name == "nt" else None)
    return (Path(base) if base else Path.home() / ".local" / "share") / "haversack" / "store"


class Setting:
    """What the options before the command said."""

    def __init__(self, store: Path | Bucket | None, as_json: bool, quiet: bool) -> None:
        self.store = store or default_store().absolute()
        self.console = Console(as_json=as_json, quiet=quiet)
        self._opened: S3Store | None = None
        self._writable: bool | None = None

    def inside(self, *, create: bool = False) -> Inside:
        """The ports of the air-gapped side."""
        from haversack.ports import Inside

        return Inside(**self._common(create=create))

    def outside(self, site: Site) -> Outside:
        """The ports of the connected side."""
        from haversack.conda.late import LateChannels
        from haversack.ports import Outside
        from haversack.ports.credentials import IndexCredentials
        from haversack.ports.fetch import HttpFetch
        from haversack.ports.fetchers import ByScheme
        from haversack.ports.registry import HttpRegistries
        from haversack.ports.s3fetch import S3Fetch

        credentials = IndexCredentials((*site.indexes, *site.channels, *site.registries), os.environ)
        registries = HttpRegistries(site.registries, credentials.by_registry, say=self.console.note)
        common = self._common(create=True)
        http = HttpFetch(credentials=credentials.by_url, say=self.console.note)
        return Outside(
            **common,
            fetch=ByScheme(http, docker=registries, s3=S3Fetch(http, os.environ)),
            credentials=credentials.by_index,
            channels=LateChannels(common["cache"] / "channels", credentials.by_url),
            registries=registries,
        )

    def _common(self, *, create: bool) -> dict[str, Any]:
        from haversack.ports.ledger import FileLedger, SystemClock
        from haversack.ports.machine import base_python, probe
        from haversack.ports.run import Programs

        clock, user = SystemClock(), self._user_folder()
        store: Store
        if isinstance(self.store, Bucket):
            from haversack.ports.s3ledger import S3Ledger

            store, own = self._in_bucket(self.store, create=create), user
            ledger: Ledger = (
                S3Ledger(store, clock) if self.owns_ledger() else FileLedger(user / "ledger.jsonl", clock)
            )
        else:
            from haversack.ports.disk import DiskStore

            store = DiskStore(self.store, create=create)
            # A reader of a shared store keeps a record and a cache of his own.
            own = self.store / "haversack" if self.owns_ledger() else user
            ledger = FileLedger(own / "ledger.jsonl", clock)
        return {
            "store": store,
            "ledger": ledger,
            "run": Programs(),
            "clock": clock,
            "progress": self.console.progress,
            "machine": probe(),
            "cache": own / "cache",
            "python": base_python(),
        }

    def has_store(self) -> bool:
        """Whether there is a store that can be read."""
        if isinstance(self.store, Bucket):
            from haversack.ports.s3client import connect, explained, refused

            try:
                with explained(str(self.store), "opening the store"):
                    connect(self.store, os.environ).head("oci-layout")
            except FileNotFoundError:
                return False
            except StoreError as problem:
                if refused(problem):
                    return False
                raise
            return True
        return os.access(self.store / "oci-layout", os.R_OK)

    def owns_ledger(self) -> bool:
        """Whether acts are recorded beside the store, and not in a ledger of the user's own."""
        if isinstance(self.store, Bucket):
            if self._writable is None:
                self._writable = self._in_bucket(self.store, create=False).writable()
            return self._writable
        return os.access(self.store / "haversack", os.W_OK)

    def _in_bucket(self, bucket: Bucket, *, create: bool) -> S3Store:
        """The store in a bucket, with local copies of blobs in the user's cache folder."""
        if self._opened is None:
            from haversack.ports.blobcache import BlobCache
            from haversack.ports.s3 import S3Store

            said = os.environ.get("HAVERSACK_CACHE_SIZE") or "10GiB"
            base = os.environ.get("XDG_CACHE_HOME")
            folder = (Path(base) if base else Path.home() / ".cache") / "haversack" / "blobs"
            copies = BlobCache(folder, Size().convert(said, None, None))
            self._opened = S3Store(bucket, os.environ, copies, create=create)
        return self._opened

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


def registry_to_fill(text: str, auth: str, say: Callable[[str], None]) -> tuple[str, Push]:
    """The place that ``push`` was given, and the port to it; plain http where ``text`` begins with ``http://``.

    ``say`` hears when the registry asks for long patience.  Raises ``UsageError`` for what is no place in a registry.
    """
    import re

    from haversack.errors import FetchError, UsageError
    from haversack.model.site import Credentials, Registry
    from haversack.ports.credentials import IndexCredentials
    from haversack.ports.registry import HttpPush

    match = re.fullmatch(r"(?:(https?)://)?([A-Za-z0-9.-]+(?::[0-9]{1,5})?)((?:/[a-z0-9._-]+)*)/?", text)
    if match is None:
        # Not repeated: somebody may have written a password before the host.
        raise UsageError(
            "REGISTRY is no place in a registry", remedy="write it like harbor.example.org/airgap"
        )
    scheme, host, prefix = match.groups()
    there = Registry("push", f"{scheme or 'https'}://{host}", host, auth)
    credentials = IndexCredentials([there], os.environ)

    def login(url: str) -> Credentials | None:
        try:
            return credentials.by_registry(url)
        except FetchError:
            # Nobody logged in: the registry may let anybody in, and says so otherwise.
            if auth != "docker":
                raise
            return None

    return f"{host}{prefix}", HttpPush([there], login, say=say)


pass_setting = click.make_pass_decorator(Setting)


def common(command: Any) -> Any:
    """Let the options before the command stand behind it as well."""

    def set_json(context: click.Context, _: click.Parameter, value: bool) -> None:
        context.ensure_object(Setting).console.as_json |= value

    def set_quiet(context: click.Context, _: click.Parameter, value: bool) -> None:
        context.ensure_object(Setting).console.quiet |= value

    def set_store(context: click.Context, _: click.Parameter, value: Path | Bucket | None) -> None:
        if value:
            context.ensure_object(Setting).store = value

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
            "--store",
            type=StorePlace(),
            expose_value=False,
            callback=set_store,
            help="Where the store is: a folder or s3://BUCKET/PATH.",
        ),
    ):
        command = option(command)
    return command
