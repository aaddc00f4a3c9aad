"""A small real package index on loopback that misbehaves on request.

::

    with Index(tmp_path / "wheels") as index:          # or {"demo-1.0-py3-none-any.whl": b"..."}
        index.url                                      # http://127.0.0.1:PORT/simple/
        index.file_url("demo-1.0-py3-none-any.whl")    # http://127.0.0.1:PORT/files/demo-1.0-py3-none-any.whl
        fault = index.fault("demo", status=503, times=3)
        ...
        assert fault.hits == 3
        assert index.requests[-1].range == "bytes=100-"

The folder is read anew for every request, so that wheels can be added while the index is up.
"""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
import re
import ssl
import tarfile
import threading
import zipfile
from collections.abc import Mapping, Sequence
from email import message_from_bytes
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, unquote

from tests.support.faulty import Fault, Request, Server

__all__ = ["Fault", "Index", "Request"]

_JSON = "application/vnd.pypi.simple.v1+json"


class Index:
    """PEP 503 pages, PEP 691 ones too with ``json_pages``, and the files they list.

    ``files`` is a folder of wheels and source distributions, or their bytes by name.  ``auth`` is a user and
    a password that every request must bring; ``files_at`` is where the pages say the files are (another
    index's ``files_url``), and ``upload_times`` maps file names to ISO 8601 times that the pages print.
    A file whose name is in ``lie_about`` gets a wrong sha256 on the pages.  ``json_pages`` and ``auth`` may
    be changed at any time.  With ``tls`` the index speaks https.
    """

    def __init__(
        self,
        files: Path | Mapping[str, bytes],
        *,
        json_pages: bool = False,
        auth: tuple[str, str] | None = None,
        files_at: str | None = None,
        upload_times: Mapping[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._source = files
        self.json_pages = json_pages
        self.auth = auth
        self.upload_times = dict(upload_times or {})
        self.lie_about: set[str] = set()
        self.requests: list[Request] = []
        self._faults: list[Fault] = []
        self._lock = threading.Lock()
        self._tls = tls
        self._server: Server | None = None
        self._port = 0
        self._problems: list[BaseException] = []
        self.up()
        self.files_url = f"{self.origin}/files/"
        self._files_at = files_at or "../../files/"

    @property
    def origin(self) -> str:
        """``http://127.0.0.1:PORT``; the port outlives :meth:`down`."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self._port}"

    @property
    def url(self) -> str:
        """What ``--index-url`` takes."""
        return f"{self.origin}/simple/"

    def file_url(self, filename: str) -> str:
        """Where a file is served."""
        return f"{self.files_url}{quote(filename)}"

    def fault(self, path: str = "", **fields: Any) -> Fault:
        """Misbehave from now on as the fields of :class:`Fault` say."""
        fault = Fault(path, **fields)
        with self._lock:
            self._faults.append(fault)
        return fault

    def heal(self) -> None:
        """Forget all faults."""
        with self._lock:
            self._faults.clear()

    def asked(self, path: str = "", method: str = "GET") -> list[Request]:
        """The requests so far of one method whose path contains ``path``."""
        with self._lock:
            return [request for request in self.requests if request.method == method and path in request.path]

    def down(self) -> None:
        """Refuse connections and cut those that are open."""
        if self._server:
            self._server.stop()
            self._server = None

    def up(self) -> None:
        """Serve (again), on the same port as before."""
        if not self._server:
            self._server = Server(("127.0.0.1", self._port), self, self._tls, self._problems)
            self._port = self._server.server_address[1]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()
        if self._problems and error is None:
            raise self._problems[0]

    def note(self, request: Request) -> dict[str, Any]:
        """See :class:`tests.support.faulty.Site`."""
        wrong: dict[str, Any] = {}
        with self._lock:
            self.requests.append(request)
            for fault in self._faults:
                if fault.matches(request.method, request.path):
                    fault.hits += 1
                    wrong = {**{k: v for k, v in vars(fault).items() if v is not None}, **wrong}
        return wrong

    def admits(self, request: Request) -> bool:
        """See :class:`tests.support.faulty.Site`."""
        if self.auth is None:
            return True
        word = base64.b64encode(":".join(self.auth).encode()).decode()
        return request.authorization == f"Basic {word}"

    def answer(self, path: str, accept: str) -> tuple[str, bytes] | None:
        """See :class:`tests.support.faulty.Site`."""
        match path.split("/")[1:]:
            case ["simple", ""]:
                return self._page({name: name + "/" for name in self._projects()}, "Simple index")
            case ["simple", project, ""] if project in self._projects():
                names = self._projects()[project]
                return (
                    self._json(project, names) if self.json_pages and _JSON in accept else self._html(names)
                )
            case ["files", name]:
                data = self._read(unquote(name))
                return None if data is None else ("application/octet-stream", data)
        return None

    def _names(self) -> list[str]:
        if isinstance(self._source, Path):
            return sorted(path.name for path in self._source.iterdir() if path.is_file())
        return sorted(self._source)

    def _read(self, name: str) -> bytes | None:
        if name not in self._names():
            return None
        return (self._source / name).read_bytes() if isinstance(self._source, Path) else self._source[name]

    def _projects(self) -> dict[str, list[str]]:
        """File names by normalised project name."""
        found: dict[str, list[str]] = {}
        for name in self._names():
            stem = name.split("-")[0] if name.endswith(".whl") else name.rpartition("-")[0]
            found.setdefault(re.sub(r"[-_.]+", "-", stem).lower(), []).append(name)
        return found

    def _facts(self, name: str) -> tuple[str, int, str | None, str | None]:
        """sha256 (or a lie), size, Requires-Python and upload time of a file."""
        data = self._read(name) or b""
        said = b"a lie" if name in self.lie_about else data
        return (
            hashlib.sha256(said).hexdigest(),
            len(data),
            _requires_python(name, data),
            self.upload_times.get(name),
        )

    def _html(self, names: Sequence[str]) -> tuple[str, bytes]:
        links, attributes = {}, {}
        for name in names:
            sha256, _, python, uploaded = self._facts(name)
            links[name] = f"{self._files_at}{quote(name)}#sha256={sha256}"
            attributes[name] = "".join(
                f' {key}="{html.escape(value)}"'
                for key, value in {"data-requires-python": python, "data-upload-time": uploaded}.items()
                if value
            )
        return self._page(links, "Links", attributes)

    def _page(
        self, links: Mapping[str, str], title: str, attributes: Mapping[str, str] | None = None
    ) -> tuple[str, bytes]:
        body = "".join(
            f'<a href="{html.escape(href)}"{(attributes or {}).get(text, "")}>{html.escape(text)}</a><br>\n'
            for text, href in links.items()
        )
        page = f"<!DOCTYPE html>\n<html><head><title>{title}</title></head><body>\n{body}</body></html>\n"
        return "text/html; charset=utf-8", page.encode()

    def _json(self, project: str, names: Sequence[str]) -> tuple[str, bytes]:
        files = []
        for name in names:
            sha256, size, python, uploaded = self._facts(name)
            entry = {
                "filename": name,
                "url": f"{self._files_at}{quote(name)}",
                "hashes": {"sha256": sha256},
                "size": size,
                "requires-python": python,
                "upload-time": uploaded,
            }
            files.append({key: value for key, value in entry.items() if value is not None})
        versions = sorted({_version(name) for name in names})
        page = {"meta": {"api-version": "1.1"}, "name": project, "versions": versions, "files": files}
        return _JSON, json.dumps(page).encode()


def _version(name: str) -> str:
    if name.endswith(".whl"):
        return name.split("-")[1]
    return name.removesuffix(".tar.gz").removesuffix(".zip").rpartition("-")[2]


def _requires_python(name: str, data: bytes) -> str | None:
    """What the file's own metadata says; ``None`` for bytes that are no wheel and no sdist."""
    text = b""
    if zipfile.is_zipfile(io.BytesIO(data)):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for member in archive.namelist():
                if re.fullmatch(r"[^/]+\.dist-info/METADATA", member):
                    text = archive.read(member)
    elif name.endswith(".tar.gz"):
        try:
            with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as sdist:
                for info in sdist:
                    if re.fullmatch(r"[^/]+/PKG-INFO", info.name) and (file := sdist.extractfile(info)):
                        text = file.read()
        except (tarfile.TarError, OSError, EOFError):
            return None
    value = message_from_bytes(text)["Requires-Python"]
    return None if value is None else str(value)
