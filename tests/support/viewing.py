"""A view on loopback for real clients: what a plain server adds to pages, and nothing more.

::

    content, store = stocked(tmp_path / "store", [wheels_environment], artifacts, blobs)
    with ViewServer(view_of(content), store) as server:
        server.url                          # http://127.0.0.1:PORT/
        assert server.asked("pypi/simple/")
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote

from haversack.formats import oci, wheel
from haversack.model.artifact import Artifact, digest_of
from haversack.model.lock import Lock, LockedEnvironment, merge_artifacts
from haversack.model.snapshot import Snapshot
from haversack.model.target import ANY, Target
from haversack.ports.disk import DiskStore
from haversack.verbs.pages import body
from haversack.views import View
from haversack.views.pypi import SIMPLE
from tests.support.faulty import Request, Server

NODE = Target("node", "linux-x86_64", "3.11")


def stocked(
    folder: Path,
    environments: Sequence[LockedEnvironment],
    artifacts: Iterable[Artifact],
    blobs: Iterable[bytes],
) -> tuple[Snapshot, DiskStore]:
    """A snapshot of environments (on ``node`` or ``any``) and a store at ``folder`` that holds it."""
    merged = merge_artifacts(artifacts)
    lock = Lock("lab", digest_of(b""), (ANY, NODE), tuple(environments), merged)
    content, metadata = oci.build(lock, {a.digest: (a.size or 0, {}) for a in merged})
    store = DiskStore(folder, create=True)
    with store.exclusive():
        for data in (*metadata.values(), *blobs):
            store.add(digest_of(data), [data])
        named = [oci.named(content.id, content.blobs[content.id], name) for name in ("2026-11", "current")]
        store.publish({**oci.empty_index(), "manifests": named})
    return content, store


def wheel_of(path: Path, ref: str = "lab/node", origin: str = "", **facts: Any) -> Artifact:
    """The artifact of a wheel with the facts that collecting finds in it, and some that an index told."""
    name, version, *_ = path.name.split("-")
    with path.open("rb") as file:
        found, _ = wheel.inspect(file, path.name)
    data = path.read_bytes()
    made = Artifact(
        "wheel", name.replace("_", "-"), version, path.name, digest_of(data), len(data), origin, (ref,)
    )
    return replace(made, origin=origin or f"path:{path.name}", facts={**found, **facts})


class ViewServer:
    """Serves a view: a folder is its ``index``, in the form that is asked for, and ``/v2/`` is there."""

    def __init__(self, view: View, store: DiskStore) -> None:
        self._view, self._store = view, store
        self.requests: list[Request] = []
        self.admits_all = True
        self._problems: list[BaseException] = []
        self._server = Server(("127.0.0.1", 0), self, None, self._problems)

    @property
    def address(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self._server.server_address[1]}"

    @property
    def url(self) -> str:
        """The address as a URL that ends in a slash."""
        return f"http://{self.address}/"

    def asked(self, path: str = "") -> list[str]:
        """The paths asked for so far that contain ``path``."""
        return [request.path for request in self.requests if path in request.path]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.stop()
        if self._problems and error is None:
            raise self._problems[0]

    def note(self, request: Request) -> dict[str, Any]:
        """See :class:`tests.support.faulty.Site`."""
        self.requests.append(request)
        return {}

    def admits(self, request: Request) -> bool:
        """See :class:`tests.support.faulty.Site`."""
        return self.admits_all

    def answer(self, path: str, accept: str) -> tuple[str, bytes] | None:
        """See :class:`tests.support.faulty.Site`."""
        path = unquote(path).removeprefix("/")
        if path == "v2/":
            return "application/json", b"{}"
        if path.endswith("/"):
            path += "index.v1_json" if SIMPLE in accept else "index.html"
        page = self._view.get(path)
        return (page.media_type, body(page, self._store)) if page else None
