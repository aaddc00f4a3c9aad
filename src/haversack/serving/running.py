"""Run the server: addresses, TLS, signals, and an orderly end."""

from __future__ import annotations

import asyncio
import signal
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from haversack.errors import HaversackError, UsageError
from haversack.serving.answers import Answer, text
from haversack.serving.app import App
from haversack.serving.greeting import AT_ONCE, Door
from haversack.serving.http import Patience, Server
from haversack.serving.journal import Journal
from haversack.serving.listening import BACKLOG, drop_name, inherited, listening, url_of
from haversack.serving.remembering import Memory, Ready
from haversack.serving.requests import Request
from haversack.serving.room import Loss

_FLUSH_SECONDS = 0.2
_SPARE = 256
"""Descriptors that are not for clients: logs, threads, files of the store, and clients that are not looked at yet."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """A server certificate (with what is between it and its CA) and its key, both PEM files."""

    chain: Path
    key: Path

    def into(self, context: ssl.SSLContext) -> None:
        """Make a context use it.  Raises ``UsageError`` where the two are not readable, or not for each other."""
        try:
            context.load_cert_chain(self.chain, self.key, password=_no_password)
        except (OSError, ValueError) as problem:
            raise UsageError(
                f"is no certificate with this key: {getattr(problem, 'reason', None) or problem}",
                where=f"{self.chain}, {self.key}",
                remedy="haversack ca issue DIR HOST makes both",
            ) from problem


def _no_password() -> str:
    raise ValueError("the key is encrypted")


def serve(
    app: App,
    addresses: Sequence[str],
    journal: Journal,
    *,
    metrics: str | None = None,
    certificate: Certificate | None = None,
    reload: Callable[[], None] = lambda: None,
    ready: Callable[[list[str]], None],
) -> None:
    """Answer until SIGTERM or SIGINT; SIGHUP reads certificate and log anew, and calls ``reload``.

    ``ready`` is told the URLs once every address is listened at; ``metrics`` is an address for the numbers
    alone.  Raises ``UsageError`` for an address that cannot be had.
    """
    asyncio.run(_serve(app, addresses, journal, metrics, certificate, reload, ready))


async def _serve(
    app: App,
    addresses: Sequence[str],
    journal: Journal,
    metrics: str | None,
    certificate: Certificate | None,
    reload: Callable[[], None],
    ready: Callable[[list[str]], None],
) -> None:
    loop = asyncio.get_running_loop()
    context = _context(certificate) if certificate else None
    descriptors = _descriptors()
    server = Server(app, descriptors, Patience())

    def lost(loss: Loss) -> None:
        app.metrics.lost[loss] += 1
        journal.crowded(
            f"clients take all of the {descriptors} descriptors that there are for them: those who ask nothing are "
            "let go, others refused; a higher limit of open files (LimitNOFILE) is room for more"
        )

    server.room.on_loss = lost
    app.connections = lambda: (len(server.connections), server.accepted)
    given = inherited()
    sockets = given or [listening(address) for address in addresses]
    acceptors: list[Door | asyncio.Server] = [
        Door(one, server, context)
        if context
        else await loop.create_server(
            server.connection,
            sock=one,
            backlog=AT_ONCE,
        )
        for one in sockets
    ]
    for one in sockets:
        # asyncio has one number for how many may wait, and how many it accepts at once.
        one.listen(BACKLOG)
    urls = [url_of(one, context is not None) for one in sockets]
    numbers = Server(_Numbers(app), 64, Patience(drain=1)) if metrics else None
    if metrics and numbers:
        one = listening(metrics)
        acceptors.append(await loop.create_server(numbers.connection, sock=one))
        urls.append(url_of(one, False) + "metrics")
    ended = asyncio.Event()

    def hang_up() -> None:
        try:
            journal.reopen()
            if certificate and context:
                certificate.into(context)
            reload()
            app.memory.clear()
        except HaversackError as problem:
            journal.error(f"what was read before stays in use: {problem}")

    for number, act in (
        (signal.SIGTERM, ended.set),
        (signal.SIGINT, ended.set),
        (getattr(signal, "SIGHUP", None), hang_up),
    ):
        if number is not None:
            loop.add_signal_handler(number, act)
    flushing = loop.create_task(_flush(journal))
    ready(urls)
    try:
        await ended.wait()
        if not given:
            for one in sockets:
                drop_name(one)
        for acceptor in acceptors:
            acceptor.close()
        await server.drain()
        if numbers:
            await numbers.drain()
    finally:
        flushing.cancel()
        app.close()
        journal.close()


async def _flush(journal: Journal) -> None:
    while True:
        await asyncio.sleep(_FLUSH_SECONDS)
        journal.flush()


class _Numbers:
    """The application of an address that gives numbers and health alone."""

    def __init__(self, app: App) -> None:
        self._app = app
        self.memory = Memory(0)

    async def answer(self, request: Request) -> Answer:
        if request.path == "/metrics" and request.method in {"GET", "HEAD"}:
            return await self._app.numbers()
        if request.path == "/healthz":
            return await self._app.answer(request)
        return text(404, "here are /metrics and /healthz")

    def log(self, peer: str, request: Request | None, answer: Answer, sent: int, seconds: float) -> None:
        pass

    def log_ready(self, peer: str, ready: Ready, seconds: float) -> None:
        pass

    def fresh(self) -> bool:
        return False


def _context(certificate: Certificate) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    certificate.into(context)
    return context


def _descriptors() -> int:
    """How many descriptors clients may take, by the files that may be open."""
    try:
        import resource
    except ImportError:
        return 256
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return max(64, hard - _SPARE)
