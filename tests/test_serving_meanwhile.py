"""What happens to the live server while an answer is being made: a switch, other rules, the same question again."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import threading
import time
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Self

import pytest

from haversack.cli.serving import _stamp
from haversack.model.artifact import digest_of, hex_of
from haversack.ports.disk import DiskStore
from haversack.serving import app as answering
from haversack.serving import running
from haversack.serving.app import App
from haversack.serving.auth import Rule, Rules
from haversack.serving.catalog import Shown
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
        return int(line.split()[1]) if line else 0


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


def test_a_blob_is_given_after_there_was_no_descriptor_for_it(
    made: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While no file can be opened an answer is an error, and nobody waits afterwards for what was never begun."""
    wheel = next(made.wheels.glob("alpha-*"))
    digits = hex_of(digest_of(wheel.read_bytes()))
    path = f"@2026-11/pypi/files/{digits[:2]}/{digits}/{wheel.name}"
    real = os.dup

    def none_left(_: int) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    async def run() -> None:
        async with Running(made, tmp_path) as live:
            monkeypatch.setattr(os, "dup", none_left)
            assert await asyncio.wait_for(live.status(path), 10) == 500
            monkeypatch.setattr(os, "dup", real)
            assert await asyncio.wait_for(live.status(path), 10) == 200

    asyncio.run(run())


def test_a_snapshot_that_could_not_be_opened_once_is_opened_the_next_time(
    made: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever went wrong is not remembered: no descriptor, a disk that did not answer."""

    def none_left(_: object) -> Shown:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    async def run() -> None:
        async with Running(made, tmp_path) as live:
            catalog = live.app.catalog
            catalog._open.clear()
            real = catalog._load
            monkeypatch.setattr(catalog, "_load", none_left)
            assert [await live.status(path) for path in ("healthz", "pypi/simple/")] == [503, 500]
            monkeypatch.setattr(catalog, "_load", real)
            assert [await live.status(path) for path in ("healthz", "pypi/simple/")] == [200, 200]

    asyncio.run(run())


def test_clients_have_nearly_all_descriptors() -> None:
    """All that the process may have, but for some that it needs itself."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        assert hard // 2 < running._descriptors() < hard
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == hard
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("seen", [False, True])
def test_a_wheel_whose_metadata_is_rotten_is_told(made: Tiny, tmp_path: Path, seen: bool) -> None:
    """Who asks for the metadata alone gets an error, and the blob is counted and logged as any damaged one."""
    wheel = next(made.wheels.glob("alpha-*"))
    digits = hex_of(digest_of(wheel.read_bytes()))
    path = f"@2026-11/pypi/files/{digits[:2]}/{digits}/{wheel.name}"
    blob = made.store / "blobs/sha256" / digits

    async def run() -> None:
        async with Running(made, tmp_path) as live:
            if seen:
                assert await live.status(path) == 200
            data = bytearray(blob.read_bytes())
            with zipfile.ZipFile(blob) as file:
                member = next(one for one in file.infolist() if one.filename.endswith("/METADATA"))
            for at in range(member.header_offset + 30 + len(member.filename), len(data)):
                data[at] ^= 1
                if at > member.header_offset + 40 + len(member.filename):
                    break
            blob.chmod(0o644)
            blob.write_bytes(data)
            for _ in range(2):
                assert await live.status(path + ".metadata") == 500
            assert live.app.metrics.damaged == {f"sha256:{digits}"}

    asyncio.run(run())
