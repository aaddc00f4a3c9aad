"""Views: a snapshot in somebody's protocol, as paths and what lies there.

A view is pure: it is made of facts, never opens a blob, and gives the same for the same snapshot on any
machine.  The same view is exported as files, served, and read in tests.  Each is one module of this folder
that holds a ``PREFIX``, where its paths lie, and a ``VIEW``, which makes it of a snapshot; the folder is
the registry, and a view knows nothing of another.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import pkgutil
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import unquote, urlsplit

from haversack.model.artifact import Artifact, Digest, is_safe_filename
from haversack.model.finding import Finding
from haversack.model.snapshot import Snapshot

FILE = "application/octet-stream"
JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Page:
    """What lies at a path: ``data``, or the blob of that digest; ``size`` in bytes.

    Of a blob it is what begins at the byte ``start``; with ``metadata`` it is the ``METADATA`` file within
    the wheel that the blob is (PEP 658): of that digest, and of a size that nobody has counted (``None``).
    ``haversack.verbs.pages.body`` gives the bytes of what is not simply a blob.  ``told`` is what people want
    to know of it beside its name, for lists.
    """

    media_type: str
    size: int | None
    data: bytes | None = None
    blob: Digest | None = None
    start: int = 0
    metadata: Digest | None = None
    told: str = ""


class View(Protocol):
    """Paths and pages.

    A path is relative and POSIX, as ``conda-forge/noarch/repodata.json``, and not percent-encoded; each of
    its parts is a file name that every file system can hold.  Only digests (``sha256:…``) keep their colon:
    OCI clients ask for nothing else, and FAT and NTFS hold no such name.
    """

    def paths(self) -> Iterator[str]:
        """Every path there is, sorted.  Cheap: no page is made for it."""
        ...

    def get(self, path: str) -> Page | None:
        """The page at a path, or ``None``; only what it needs is made."""
        ...

    def findings(self) -> list[Finding]:
        """What of the snapshot cannot be shown in this protocol, and why."""
        ...


class Union:
    """Several views as one, each under the first part of a path."""

    def __init__(self, views: Mapping[str, View]) -> None:
        self.parts: Mapping[str, View] = dict(sorted(views.items(), key=lambda item: f"{item[0]}/"))

    def paths(self) -> Iterator[str]:
        """See the protocol."""
        return (f"{prefix}/{path}" for prefix, view in self.parts.items() for path in view.paths())

    def get(self, path: str) -> Page | None:
        """See the protocol."""
        prefix, _, rest = path.partition("/")
        view = self.parts.get(prefix)
        return view.get(rest) if view else None

    def findings(self) -> list[Finding]:
        """See the protocol."""
        return [finding for view in self.parts.values() for finding in view.findings()]


@functools.cache
def views() -> Mapping[str, Callable[[Snapshot], View]]:
    """What makes each view of a snapshot, by its prefix."""
    found: dict[str, Callable[[Snapshot], View]] = {}
    for name in sorted(module.name for module in pkgutil.iter_modules(__path__)):
        module = importlib.import_module(f"{__name__}.{name}")
        found[module.PREFIX] = module.VIEW
    return found


def view_of(snapshot: Snapshot) -> Union:
    """Every view of a snapshot."""
    return Union({prefix: make(snapshot) for prefix, make in views().items()})


def listing(paths: Sequence[str], folder: str) -> list[str]:
    """What lies directly below a folder (``""``, or a path that ends in ``/``); folders end in ``/``.

    ``paths`` are sorted.  Looks at one path for each name found, not at all that lie below.
    """
    found: list[str] = []
    at = bisect_left(paths, folder)
    while at < len(paths) and paths[at].startswith(folder):
        name, slash, _ = paths[at].removeprefix(folder).partition("/")
        found.append(name + slash)
        # Whatever lies below a folder stands before the folder's name and the character after the slash.
        at = bisect_left(paths, f"{folder}{name}0", at) if slash else at + 1
    return found


def clash(path: str, artifacts: Sequence[Artifact], shown: str) -> Finding:
    """The finding for several files that want to be at one path; ``shown`` says what is done about it."""
    digests = " and ".join(sorted({artifact.digest for artifact in artifacts}))
    told = f"is {digests} in different environments; {shown}"
    return Finding("name-clash", path, told, "lock them again, so that they agree", blocking=False)


def place_of(url: str) -> tuple[str, ...]:
    """Where an http(s) URL lies in a view: its host (``host_8443`` with a port) and the parts of its path.

    A part that is no file name everywhere is replaced by one made of its digest: it cannot lead out of the
    view, and is the same on every machine.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        # An address that is none (a bracket without its other half) comes from a record, and has a place all the same.
        return (safe(url),)
    named = [parts.netloc.rpartition("@")[2].lower().replace(":", "_")]
    named += [unquote(part) for part in parts.path.strip("/").split("/")] if parts.path.strip("/") else []
    return tuple(map(safe, named))


def safe(part: str) -> str:
    """A part of a path as a name that every file system can hold."""
    if is_safe_filename(part):
        return part
    return "x-" + hashlib.sha256(part.encode("utf-8", "replace")).hexdigest()[:16]
