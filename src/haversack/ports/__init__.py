"""Protocols: how the rest of haversack meets disk, network, programs and time.

Each has a real implementation in a module beside this one and an in-memory twin in
:mod:`haversack.testing`; ``tests/contract`` holds both to the docstrings here.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, Protocol, Self, TypeAlias

from haversack.model.artifact import Digest
from haversack.model.ledger import Entry, Line
from haversack.model.site import Credentials
from haversack.model.target import Target, VirtualPackage

UNKNOWN_ROOM = 1 << 62
"""What a store answers that cannot know how much room it has: more than anybody will ever add."""

Watch: TypeAlias = Callable[[int, int], None]
"""Told of a file that grows: its descriptor, and how many of its bytes are there and were hashed."""


@dataclass(frozen=True, slots=True)
class Seal:
    """How a file stood right after this process had hashed every byte of it.

    A file that still stands so has not been written since: it need not be hashed again.  ``size`` is in
    bytes, ``modified`` in nanoseconds since 1970.
    """

    device: int
    inode: int
    size: int
    modified: int

    @classmethod
    def of(cls, status: os.stat_result) -> Self:
        """A file as ``stat`` tells it."""
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


class Store(Protocol):
    """Blobs by digest, and one index that names snapshots.

    A blob is write-once: what :meth:`add` accepted is what its digest says, and stays so.  The index is
    replaced whole; a reader sees the old one or the new one.  Every method may raise
    :class:`~haversack.errors.StoreError`.
    """

    def size(self, digest: Digest) -> int | None:
        """The size of a blob in bytes, or ``None`` if the store does not hold it."""
        ...

    def path(self, digest: Digest, *, watch: Watch | None = None) -> Path:
        """A file with the blob's bytes, not to be written to.  Raises ``NotFoundError``.

        Where they must be brought here first, and hashed, ``watch`` is told how far that is; what it raises
        ends it.
        """
        ...

    def at_hand(self, digest: Digest) -> Path | None:
        """What :meth:`path` gives, if nothing must be brought here for it.  May raise ``NotFoundError``."""
        ...

    def copies(self) -> Iterable[Digest] | None:
        """Blobs that lie elsewhere and have a copy here; ``None`` where all blobs are the store's own files."""
        ...

    def forget(self, digest: Digest) -> bool:
        """Drop a blob's copy; false where blobs are the store's own files, which stay."""
        ...

    def peek(self, digest: Digest) -> BinaryIO:
        """The blob as a file to seek in, for small parts of it.  Raises ``NotFoundError``.

        Nobody has hashed what is read: it is for who has another digest for it.
        """
        ...

    def open(self, digest: Digest) -> BinaryIO:
        """The blob, hashed while it is read: the read that reaches the end of other bytes raises ``IntegrityError``."""
        ...

    def add(
        self,
        digest: Digest,
        chunks: Iterable[bytes],
        *,
        linkable: Path | None = None,
        seal: Seal | None = None,
    ) -> int:
        """Take a blob in and return its size; nothing is visible under its name before the end.

        The chunks are hashed as they arrive; other bytes raise ``IntegrityError`` and leave nothing.
        ``linkable`` is a file that holds exactly these bytes, for stores that can share it instead of
        copying.  ``seal`` is that of ``linkable``, whose bytes the caller has found to be these, in this
        process: a store that shares the file need not hash it again while the seal fits.  A blob that is
        already there is not read.
        """
        ...

    def remove(self, digest: Digest) -> int:
        """Drop a blob and return the bytes freed (0 if it was not there)."""
        ...

    def blobs(self) -> Iterator[tuple[Digest, int]]:
        """Every blob and its size, sorted by digest."""
        ...

    def free(self) -> int:
        """Bytes that can still be added; :data:`UNKNOWN_ROOM` where nobody can say."""
        ...

    def index(self) -> dict[str, Any]:
        """The store's ``index.json`` (an empty OCI index in a new store)."""
        ...

    def publish(self, index: Mapping[str, Any]) -> None:
        """Replace the index in one step, after making every blob added so far durable."""
        ...

    def read_state(self, name: str) -> bytes | None:
        """A small file of haversack's own (``bundles/<id>.json``), or ``None``."""
        ...

    def write_state(self, name: str, data: bytes) -> None:
        """Replace a small file of haversack's own in one step."""
        ...

    def exclusive(self) -> AbstractContextManager[None]:
        """Hold the store for one writer; a second one raises ``StoreError`` naming the first."""
        ...


class Ledger(Protocol):
    """The record of acts.  Appending is durable before it returns, or raises ``LedgerError``."""

    def append(self, act: str, subject: str, details: Mapping[str, Any]) -> Entry:
        """Record an act.  Raises ``ClockError`` when now is before the last entry."""
        ...

    def lines(self) -> Iterator[Line]:
        """Every line as it stands, readable or not."""
        ...

    def head(self) -> tuple[int, Digest] | None:
        """Number and digest of the last entry as the head file tells them."""
        ...


@dataclass(frozen=True, slots=True)
class Completed:
    """A finished program; ``out`` and ``err`` are its whole output, decoded leniently."""

    argv: tuple[str, ...]
    code: int
    out: str
    err: str


class Run(Protocol):
    """Programs, always with an argv list and a scrubbed environment."""

    def __call__(
        self,
        argv: Sequence[str | Path],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        caged: bool = False,
    ) -> Completed:
        """Run to the end.  ``env`` is added to the scrubbed environment; ``caged`` takes the network away.

        Raises ``ToolError`` when the program is missing or the cage cannot be closed.
        """
        ...

    def cage(self) -> str:
        """Why programs cannot be caged here, or an empty string when a cage was closed and proven."""
        ...


class Clock(Protocol):
    """Time."""

    def now(self) -> datetime:
        """Now, in UTC, to the second."""
        ...


class Fetch(Protocol):
    """Files from elsewhere.  Only the outside has it.

    URLs are http(s) and file URLs; ``s3://bucket/key``; and what an image is made of, as an artifact's origin
    names it: ``docker://host/repository/manifests/<digest>`` and ``…/blobs/<digest>``.
    """

    def size(self, url: str) -> int | None:
        """What the host says the file's size is, in bytes, or ``None`` if it does not say."""
        ...

    def get(
        self, url: str, digest: Digest, dest: Path, on_bytes: Callable[[int], None], size: int | None = None
    ) -> int:
        """Fetch into ``dest`` and return the size.

        Resumes what ``dest`` already holds, retries with backoff what may pass, hashes every byte against
        ``digest``; takes no more than ``size`` bytes, or leaves some room where nobody knows it.  Raises
        ``FetchError``, ``IntegrityError`` (other bytes, more) or ``SpaceError``; no text has credentials.
        """
        ...

    def take(self, url: str, dest: Path, on_bytes: Callable[[int], None]) -> Digest:
        """Fetch a file whose digest nobody knows yet into ``dest``, and return the digest of what came.

        What ``dest`` held is thrown away.  Retries as :meth:`get` does, and never joins two versions of a
        file where the host tells them apart.  Raises ``FetchError`` or ``SpaceError``.
        """
        ...


@dataclass(frozen=True, slots=True)
class Wish:
    """What to solve from conda channels, first channel first.

    ``specs`` are match specifications, each possibly with its channel before ``::``; ``held`` are records to
    keep where the specs allow; ``exclude_newer`` is a day or moment (RFC 3339).  With ``strict`` a package is
    taken only from the first channel that has it.
    """

    channels: tuple[str, ...]
    subdir: str
    specs: tuple[str, ...]
    virtual_packages: tuple[VirtualPackage, ...]
    held: tuple[Mapping[str, Any], ...] = ()
    exclude_newer: str | None = None
    strict: bool = True


class Channels(Protocol):
    """Conda channels, by their URLs.  Only the outside has them.

    Records are JSON as channels give it (CEP 36's repodata), with ``fn``, ``url`` and ``channel`` beside.
    Both methods raise ``FetchError`` naming a channel that does not answer; no text holds a password.
    """

    def solve(self, wish: Wish) -> tuple[Mapping[str, Any], ...]:
        """The records that answer a wish, by name.  Raises ``ResolutionError`` with the solver's reason."""
        ...

    def records(
        self, channels: Sequence[str], subdirs: Sequence[str], names: Sequence[str]
    ) -> tuple[Mapping[str, Any], ...]:
        """Every record of packages of these names."""
        ...


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest or an index of an image, byte for byte, and its media type."""

    media_type: str
    data: bytes


class Registries(Protocol):
    """Container registries (OCI distribution specification 1.1) by the hosts that references name.

    A ``repository`` is that host and the name there: ``docker.io/library/python``.  Every method raises
    ``FetchError`` naming the repository when its registry does not answer or refuses; no text holds a
    password or a token.
    """

    def manifest(self, repository: str, reference: str) -> Manifest:
        """What a tag or a digest means.  Bytes of another digest raise ``IntegrityError``.

        What the registry does not have raises ``NotFoundError``.
        """
        ...

    def referrers(self, repository: str, digest: Digest) -> tuple[Digest, ...]:
        """Manifests that have this one as their subject (signatures, attestations), as far as the registry knows."""
        ...


class Push(Protocol):
    """A container registry to fill; repositories are as for :class:`Registries`.  Given to one verb by hand.

    Every method raises ``FetchError`` naming the repository.
    """

    def has(self, repository: str, digest: Digest, *, manifest: bool = False) -> bool:
        """Whether a repository holds a blob, or a manifest of that digest."""
        ...

    def blob(
        self,
        repository: str,
        digest: Digest,
        size: int,
        read: Callable[[], BinaryIO],
        elsewhere: Sequence[str] = (),
    ) -> bool:
        """Put a blob there; false where the registry took it over from a repository of ``elsewhere``.

        ``read`` opens it anew for each try; what it raises goes to the caller, and nothing is there then.
        """
        ...

    def manifest(self, repository: str, reference: str, manifest: Manifest) -> None:
        """Put a manifest there, under a tag or its digest, after all that it names."""
        ...


class Progress(Protocol):
    """Where long work says how far it is."""

    def __call__(
        self, label: str, total: int, unit: str = "B"
    ) -> AbstractContextManager[Callable[[int], None]]:
        """A task of ``total`` bytes (or other units); calling the value advances it.  Safe between threads."""
        ...


@dataclass(frozen=True, slots=True)
class Inside:
    """What a verb on the air-gapped side may use: no fetch, by type."""

    store: Store
    ledger: Ledger
    run: Run
    clock: Clock
    progress: Progress
    machine: Target
    """This machine, as a target; its name is ``here``."""
    cache: Path
    """A folder for what can be made again: unpacked wheels, link farms."""
    python: Path
    """The interpreter that runs haversack, outside any environment."""


@dataclass(frozen=True, slots=True)
class Outside(Inside):
    """What a verb on the connected side may use."""

    fetch: Fetch
    credentials: Callable[[str], Credentials | None]
    """Credentials of an index by its name, resolved when first asked for."""
    channels: Channels
    registries: Registries


@dataclass(frozen=True, slots=True)
class Member:
    """A file of a medium: ``place`` names the volume folder it stands in, ``path`` its name therein.

    ``chunks`` reads it (once, and in turn, on a stream); ``file`` is where it lies, if it lies anywhere;
    ``problem`` says why it is none that a volume may hold (a link, a device, a name that leaves its folder).
    """

    place: str
    path: str
    size: int
    chunks: Callable[[], Iterator[bytes]]
    file: Path | None = None
    problem: str = ""


class Media(Protocol):
    """A bundle as it arrived: folders or a tar stream.  Never written to."""

    streamed: bool
    """Whether members can only be read in turn."""

    def members(self) -> Iterator[Member]:
        """Every file.  A stream that ends too early ends the iteration after a member with a ``problem``."""
        ...


class MediaWriter(Protocol):
    """Where a bundle is written to."""

    def free(self) -> int | None:
        """Bytes that can be written, or ``None`` if nobody knows (a stream)."""
        ...

    def write(self, volume: str, path: str, size: int, chunks: Iterable[bytes]) -> None:
        """Write one file of a volume.  Raises ``SpaceError``."""
        ...

    def finish(self) -> None:
        """Make everything durable and visible; before it a folder holds nothing that looks like a bundle."""
        ...
