"""What a request gets: a page of a view, an index page, health, numbers, or why not.

Nothing slow is done in the event loop: views, files and passwords are looked at in threads.
"""

from __future__ import annotations

import asyncio
import gzip
import re
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import quote

from haversack.errors import HaversackError, IntegrityError, NotFoundError, StoreError
from haversack.model.artifact import Digest, digest_of, hex_of
from haversack.ports import Store
from haversack.serving import folders
from haversack.serving.answers import (
    HTML,
    Answer,
    accepts_gzip,
    early,
    moved,
    oci_error,
    part,
    text,
    unsatisfiable,
)
from haversack.serving.auth import BASIC, CHALLENGE, NOBODY, DeniedError, Login, Rules
from haversack.serving.blobs import Blobs
from haversack.serving.catalog import Catalog, Shown
from haversack.serving.journal import Journal
from haversack.serving.logins import Logins
from haversack.serving.metrics import MEDIA_TYPE, Metrics
from haversack.serving.remembering import Memory, Ready
from haversack.serving.requests import Request
from haversack.serving.routes import REGISTRY, Found, as_host, find, names_of
from haversack.verbs import pages
from haversack.views import Page, listing

FOREVER = "max-age=31536000, immutable"
NOW = "no-cache"
_ALLOW = {"Allow": "GET, HEAD"}
_VERSION = "Docker-Distribution-Api-Version"
_REGISTRY = re.compile(r"(/@[^/]*)?/v2/")
_SMALL = 1 << 10
_PAGES = 64 << 20
_UNKNOWN = {"BLOB_UNKNOWN", "MANIFEST_UNKNOWN", "NAME_UNKNOWN"}


@dataclass(frozen=True, slots=True)
class _Body:
    """A page of bytes as it is sent: plain, and smaller where that pays."""

    plain: bytes
    packed: bytes
    digest: Digest


class App:
    """The answers of one server over a store; ``rules`` say who may read what, everybody without them.

    ``stamp`` is what :class:`Catalog` says.  ``with_metrics`` is false where the numbers have an address of
    their own.
    """

    def __init__(
        self,
        store: Store,
        journal: Journal,
        *,
        rules: Rules | None = None,
        stamp: Callable[[], object] | None = None,
        with_metrics: bool = True,
    ) -> None:
        self._store, self._journal = store, journal
        self.rules = rules
        self._with_metrics = with_metrics
        self.metrics, self.memory = Metrics(), Memory()
        self._logins = Logins()
        self.blobs = Blobs(store, self._damaged)
        self.catalog = Catalog(store, self.blobs.opening, stamp, self.memory.clear)
        self._bodies: OrderedDict[tuple[Digest, str], _Body] = OrderedDict()
        self._bodies_size = 0
        self.connections: Callable[[], tuple[int, int]] = lambda: (0, 0)
        """Open connections, and how many were accepted: told by the server."""

    # What the sockets call

    def fresh(self) -> bool:
        """See :class:`haversack.serving.application.Application`."""
        return self.catalog.fresh()

    def log(self, peer: str, request: Request | None, answer: Answer, sent: int, seconds: float) -> None:
        """See :class:`haversack.serving.application.Application`."""
        self.metrics.count(answer.view or "other", answer.status, sent, seconds)
        self._journal.record(peer, request, answer, sent, seconds)

    def log_ready(self, peer: str, ready: Ready, seconds: float) -> None:
        """See :class:`haversack.serving.application.Application`."""
        answer = ready.answer
        self.metrics.count(answer.view or "other", answer.status, answer.length, seconds)
        self._journal.record_ready(peer, ready, seconds)

    async def answer(self, request: Request) -> Answer:
        """The answer to a request."""
        self.metrics.in_flight += 1
        # What is new since the last request is taken notice of before anything is remembered.
        self.catalog.fresh()
        try:
            answer = await self._answer(request)
        except DeniedError as problem:
            self.metrics.refused[str(problem.status)] += 1
            answer = _refused(request, problem)
        except NotFoundError as problem:
            told = str(problem.message)
            answer = oci_error(404, "NAME_UNKNOWN", told) if _of_registry(request) else text(404, told)
        except HaversackError as problem:
            answer = _failed(request, problem)
        except OSError as problem:
            # No descriptor is left, mostly, or the disk of the store does not answer.
            answer = _failed(request, StoreError(problem.strerror or str(problem)))
        finally:
            self.metrics.in_flight -= 1
        if _of_registry(request):
            answer.headers.setdefault(_VERSION, "registry/2.0")
        return answer

    async def _answer(self, request: Request) -> Answer:
        if request.method not in {"GET", "HEAD"}:
            if _of_registry(request):
                answer = oci_error(405, "UNSUPPORTED", "this registry is read only")
                answer.headers |= _ALLOW
                return answer
            return text(405, "nothing can be written here", _ALLOW)
        if request.body:
            return text(413, "a request has no body here")
        login = await self._login(request)
        own = {"/healthz": self._health, "/metrics": self._numbers}.get(request.path)
        if own and (own != self._numbers or self._with_metrics):
            self._check(login, request.path)
            answer = await own()
        else:
            answer = await self._page(request, login)
        answer.user = login.name
        if answer.until > (left := login.expires - time.time()):
            answer.until = asyncio.get_running_loop().time() + left
        return answer

    async def _login(self, request: Request) -> Login:
        header = request.header("authorization")
        if self.rules is None or not header:
            return NOBODY
        return await self._logins.login(self.rules, header)

    def _check(self, login: Login, path: str) -> None:
        if self.rules is not None:
            self.rules.check(login, path)

    async def _threaded(self, call: Callable[..., Any], *words: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self.blobs.opening, partial(call, *words))

    def _damaged(self, digest: Digest) -> None:
        """A blob is not what its name says; called in a thread."""
        self.metrics.damaged.add(digest)
        self._journal.error(
            f"blob {digest} is damaged and is not given away; haversack doctor --drop-damaged"
        )

    def close(self) -> None:
        """End the threads."""
        self._logins.close()
        self.blobs.close()

    # The server's own pages

    async def _health(self) -> Answer:
        try:
            await self._threaded(self._store.index)
            await self.catalog.shown(None)
        except (HaversackError, OSError) as problem:
            return text(503, str(problem), {"Cache-Control": "no-store"})
        return text(200, "ok", {"Cache-Control": "no-store"})

    async def _numbers(self) -> Answer:
        return await self.numbers()

    async def numbers(self) -> Answer:
        """The page of numbers for Prometheus."""
        try:
            current = (await self.catalog.holdings()).current
        except HaversackError:
            current = None
        connections, accepted = self.connections()
        page = self.metrics.page(
            connections=connections,
            accepted=accepted,
            remembered=self.memory.size,
            snapshot=(current.name, current.snapshot) if current else ("", ""),
        )
        return Answer(200, {"Content-Type": MEDIA_TYPE, "Cache-Control": "no-store"}, page)

    # The pages of snapshots

    async def _page(self, request: Request, login: Login) -> Answer:
        if hosted := await self._hosted(request):
            place = hosted[1].path
            self._check(login, f"/{place}")
            return await self._at(request, *hosted, place, "/")
        path, base, name = request.path[1:], "/", None
        if path.startswith("@"):
            name, slash, path = path[1:].partition("/")
            base = f"/@{quote(name)}/"
            if not slash:
                return moved(base)
        if path == REGISTRY:
            # A client sends its login later only if it is asked for one here.
            if self.rules and not login.name and self.rules.guards(f"/{REGISTRY}"):
                raise DeniedError(401, "some of the images are for users with a login")
            return Answer(200, {"Content-Type": "application/json"}, b"{}", view="v2", lasting=True)
        self._check(login, f"/{path}")
        shown = await self.catalog.shown(name)
        found: Found = await self._threaded(find, shown.view, path, request)
        self._check(login, f"/{found.path}")
        return await self._at(request, shown, found, path, base)

    async def _hosted(self, request: Request) -> tuple[Shown, Found] | None:
        """A file of the host that the request names, if that is one that files of the snapshot came from."""
        names = names_of(request.host)
        if not names or request.path.endswith("/"):
            return None
        try:
            shown = await self.catalog.shown(None)
        except HaversackError:
            # Whether that matters is for the path to say: it may name another snapshot.
            return None
        if shown.hosts.isdisjoint(names):
            return None
        found: Found | None = await self._threaded(as_host, shown.view, names, request)
        return (shown, found) if found else None

    async def _at(self, request: Request, shown: Shown, found: Found, path: str, base: str) -> Answer:
        """The answer for what was found at a path; ``base`` is the address of the snapshot."""
        # A label of the numbers, so none that clients make up.
        view = path.partition("/")[0] if path.partition("/")[0] in shown.view.parts else ""
        if found.moved:
            answer = moved(base + quote(found.moved))
        elif found.page:
            answer = await self._of_page(request, shown, found, found.page)
        elif found.code:
            status = 404 if found.code in _UNKNOWN else 400 if found.code.endswith("_INVALID") else 404
            answer = oci_error(status, found.code, f"{path} is not here")
        else:
            answer = await self._folder(request, shown, found, base)
        if base != "/" and (link := answer.headers.get("Link")):
            answer.headers["Link"] = link.replace("</", f"<{base}", 1)
        answer.view = answer.view or view
        # Under a rule, or with a login, an answer is for one client; its head is the key, so it may be kept.
        answer.lasting = answer.status in {200, 301, 304} and answer.passage is None
        return answer

    async def _folder(self, request: Request, shown: Shown, found: Found, base: str) -> Answer:
        """A folder's page, the way there, or that nothing is there."""
        known = await self.catalog.holdings()

        def made() -> bytes | None:
            if not found.path:
                held = shown.held
                return folders.home(shown.view, shown.paths, known, held.name, held.snapshot, base)
            if found.folder:
                return folders.folder(shown.view, shown.paths, found.path, base)
            return b"" if listing(shown.paths, found.path + "/") else None

        data = await self._threaded(made)
        if data is None:
            return text(404, f"there is no {request.path} in snapshot {shown.held.name}")
        if not found.folder:
            return moved(base + quote(found.path) + "/")
        return self._sent(request, HTML, await self._threaded(_packed, HTML, data), {})

    async def _of_page(self, request: Request, shown: Shown, found: Found, page: Page) -> Answer:
        headers = dict(found.headers)
        media = headers.pop("Content-Type", page.media_type)
        if page.blob is None or page.metadata is not None:
            return self._sent(request, media, await self._body(shown, found, page), headers)
        digits = hex_of(page.blob)
        etag = f'"{page.blob}{f"@{page.start}" if page.start else ""}"'
        headers = {"Content-Type": media, "ETag": etag, "Accept-Ranges": "bytes", **headers}
        headers["Cache-Control"] = FOREVER if digits in found.path else NOW
        if sooner := early(request, etag, headers):
            return sooner
        size = page.size if page.size is not None else 0
        try:
            wanted = part(request, etag, size)
        except ValueError:
            return unsatisfiable(headers, size)
        start, stop = wanted or (0, size)
        begin = page.start
        passage = await self.blobs.passage(page.blob, begin + start, begin + stop, whole=wanted is not None)
        if wanted:
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
        layer = found.path.startswith(REGISTRY)
        return Answer(206 if wanted else 200, headers, passage=passage, worked=layer)

    async def _body(self, shown: Shown, found: Found, page: Page) -> _Body:
        """The bytes of a page, kept for the next one who asks for it in other words."""
        key = (shown.held.snapshot, found.path)
        if found.path.startswith(REGISTRY):
            # Lists are cut to what a client asks for.
            key = (digest_of(page.data or b""), found.path)
        body = self._bodies.get(key)
        if body is None:
            try:
                data = await self._threaded(pages.body, page, self._store)
            except IntegrityError:
                if page.blob:
                    # The blob may be damaged: then that is counted and logged.
                    await self.blobs.doubt(page.blob)
                raise
            body = await self._threaded(_packed, page.media_type, data)
            if key in self._bodies:
                # Somebody else made it meanwhile.
                return self._bodies[key]
            self._bodies[key] = body
            self._bodies_size += len(body.plain) + len(body.packed)
            while self._bodies_size > _PAGES and len(self._bodies) > 1:
                _, old = self._bodies.popitem(last=False)
                self._bodies_size -= len(old.plain) + len(old.packed)
        return body

    def _sent(self, request: Request, media: str, body: _Body, headers: dict[str, str]) -> Answer:
        """A page of bytes, packed if the client takes it so, or the part of it that is asked for."""
        packed = bool(body.packed) and accepts_gzip(request.header("accept-encoding"))
        packed = packed and "range" not in request.headers
        etag = f'"{body.digest}{"-gzip" if packed else ""}"'
        headers = {"Content-Type": media, "ETag": etag, "Cache-Control": NOW, **headers}
        if body.packed:
            headers.setdefault("Vary", "Accept-Encoding")
        if sooner := early(request, etag, headers):
            return sooner
        if packed:
            return Answer(200, {**headers, "Content-Encoding": "gzip"}, body.packed)
        headers["Accept-Ranges"] = "bytes"
        size = len(body.plain)
        try:
            wanted = part(request, etag, size)
        except ValueError:
            return unsatisfiable(headers, size)
        if wanted is None:
            return Answer(200, headers, body.plain)
        headers["Content-Range"] = f"bytes {wanted[0]}-{wanted[1] - 1}/{size}"
        return Answer(206, headers, body.plain[slice(*wanted)])


def _packed(media: str, data: bytes) -> _Body:
    """A page's bytes, with a smaller form where that is one that clients unpack again."""
    packs = media.startswith("text/") or "json" in media
    packed = b""
    if packs and len(data) >= _SMALL:
        packed = gzip.compress(data, 6 if len(data) < 1 << 20 else 1, mtime=0)
    return _Body(data, packed if len(packed) < len(data) else b"", digest_of(data))


def _of_registry(request: Request) -> bool:
    """Whether a client of registries asks, of whichever snapshot."""
    return _REGISTRY.match(request.path) is not None


def _refused(request: Request, problem: DeniedError) -> Answer:
    if _of_registry(request):
        code = {401: "UNAUTHORIZED", 403: "DENIED"}.get(problem.status, "TOOMANYREQUESTS")
        answer = oci_error(problem.status, code, problem.reason)
    else:
        answer = text(problem.status, problem.reason)
    if problem.status == 401:
        answer.headers["WWW-Authenticate"] = BASIC if _of_registry(request) else CHALLENGE
    if problem.status == 503:
        answer.headers["Retry-After"] = "1"
    answer.headers["Cache-Control"] = "no-store"
    answer.note = problem.reason
    return answer


def _failed(request: Request, problem: HaversackError) -> Answer:
    """The store is not as it should be; where it is, a client is not told."""
    told = problem.message if isinstance(problem, IntegrityError) else "the store cannot be read"
    registry = _of_registry(request)
    answer = oci_error(500, "UNKNOWN", told) if registry else text(500, told)
    answer.headers["Cache-Control"] = "no-store"
    answer.note = str(problem)
    return answer
