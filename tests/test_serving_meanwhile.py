"""What happens to the live server while an answer is being made: a switch, other rules, the same question again."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Self

import pytest

from haversack.cli.serving import _stamp
from haversack.ports.disk import DiskStore
from haversack.serving import app as answering
from haversack.serving.app import App
from haversack.serving.auth import Rule, Rules
from haversack.serving.http import Patience, Server
from haversack.serving.journal import Journal
from haversack.verbs import snapshots
from tests.support.tiny import Tiny, inside, tiny_bundle

HEAD = b"GET /%s HTTP/1.1\r\nHost: a\r\n\r\n"


class Held:
    """The making of page bodies, which waits in its thread until it is let go."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.free, self.begun = threading.Event(), threading.Event()
        real = answering._packed

        def packed(media: str, data: bytes) -> answering._Body:
            self.begun.set()
            assert self.free.wait(10)
            return real(media, data)

        patch.setattr(answering, "_packed", packed)


class Running:
    """The server over a store, in the event loop of the test."""

    def __init__(self, made: Tiny, folder: Path, rules: Rules | None = None) -> None:
        self._journal = Journal(folder / "log")
        stamp = _stamp(made.store / "index.json")
        self.app = App(DiskStore(made.store), self._journal, rules=rules, stamp=stamp)

    async def __aenter__(self) -> Self:
        self._server = Server(self.app, 100, Patience())
        loop = asyncio.get_running_loop()
        self._acceptor = await loop.create_server(self._server.connection, "127.0.0.1", 0)
        await self.status("healthz")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._acceptor.close()
        await self._server.drain()
        self.app.close()
        self._journal.close()

    async def status(self, path: str) -> int:
        """Ask on a connection of its own; the status."""
        reader, writer = await asyncio.open_connection(*self._acceptor.sockets[0].getsockname())
        writer.write(HEAD % path.encode())
        line = await reader.readline()
        writer.close()
        await writer.wait_closed()
        return int(line.split()[1])


@pytest.fixture
def made(tmp_path: Path) -> Tiny:
    """A store with two snapshots, the second one current."""
    old = tiny_bundle(tmp_path / "old", names=("alpha",))
    tiny_bundle(tmp_path / "new", names=("beta",), base=old, name="2026-12")
    return old


async def while_held(live: Running, held: Held, path: str, change: Callable[[], object]) -> int:
    """Change something while an answer is being made; the status of that answer."""
    first = asyncio.create_task(live.status(path))
    await asyncio.to_thread(held.begun.wait, 10)
    await asyncio.to_thread(change)
    await asyncio.sleep(0.3)
    await live.status("healthz")
    held.free.set()
    return await first


def test_an_answer_of_before_a_switch_is_not_remembered(
    made: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who asked before the switch gets the old page; nobody gets it afterwards."""
    held = Held(monkeypatch)

    async def run() -> None:
        async with Running(made, tmp_path) as live:
            switch = partial(snapshots.use, "2026-11", inside(made.store))
            assert await while_held(live, held, "pypi/simple/beta/", switch) == 200
            assert await live.status("pypi/simple/beta/") == 404
            assert await live.status("pypi/simple/alpha/") == 200
            assert live.app.memory.get(HEAD % b"pypi/simple/alpha/") is not None

    asyncio.run(run())


def test_a_right_that_is_taken_away_is_not_remembered(
    made: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was allowed when it was asked for is not given to the next one, who may not read it."""
    held = Held(monkeypatch)

    async def run() -> None:
        async with Running(made, tmp_path, Rules((), (), time.time)) as live:

            def change() -> None:
                live.app.rules = Rules((), (Rule("/pypi/", frozenset({"alice"})),), time.time)
                live.app.memory.clear()

            assert await while_held(live, held, "pypi/simple/beta/", change) == 200
            assert await live.status("pypi/simple/beta/") == 401

    asyncio.run(run())


def test_an_index_that_changes_while_it_is_read_is_read_again(
    made: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was read of the index before a switch does not count after it, whenever that reading ends."""
    free, begun = threading.Event(), threading.Event()

    async def run() -> None:
        async with Running(made, tmp_path) as live:
            catalog = live.app.catalog
            real = catalog._from_store

            def slow() -> object:
                found = real()
                begun.set()
                assert free.wait(10)
                return found

            catalog._holdings = None
            monkeypatch.setattr(catalog, "_from_store", slow)
            first = asyncio.create_task(catalog.holdings())
            await asyncio.to_thread(begun.wait, 10)
            monkeypatch.setattr(catalog, "_from_store", real)
            await asyncio.to_thread(snapshots.use, "2026-11", inside(made.store))
            await asyncio.sleep(0.3)
            second = asyncio.create_task(catalog.holdings())
            await asyncio.sleep(0.1)
            free.set()
            await first
            for holdings in (await second, await catalog.holdings()):
                assert holdings.current is not None
                assert holdings.current.name == "2026-11"

    asyncio.run(run())


def test_a_page_that_several_ask_for_at_once_is_counted_once(
    made: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bytes of kept pages are those that are kept."""
    held = Held(monkeypatch)

    async def run() -> None:
        async with Running(made, tmp_path) as live:
            many = [asyncio.create_task(live.status("pypi/simple/beta/")) for _ in range(3)]
            await asyncio.to_thread(held.begun.wait, 10)
            await asyncio.sleep(0.2)
            held.free.set()
            assert set(await asyncio.gather(*many)) == {200}
            kept = sum(len(body.plain) + len(body.packed) for body in live.app._bodies.values())
            assert live.app._bodies_size == kept

    asyncio.run(run())
