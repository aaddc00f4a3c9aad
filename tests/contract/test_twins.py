"""The remaining ports and their twins: fetch, run, clock, progress; and a whole crossing with twins alone."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC
from pathlib import Path

import pytest

from haversack.console import Console
from haversack.errors import SpaceError
from haversack.model.bundle import Bundle
from haversack.ports import Clock, Progress
from haversack.ports.fetch import HttpFetch
from haversack.ports.ledger import SystemClock
from haversack.ports.run import Programs
from haversack.testing import (
    FixedClock,
    MemoryFetch,
    MemoryLedger,
    MemoryMedia,
    MemoryStore,
    MemoryWriter,
    ScriptedRun,
    SteppingProgress,
)
from haversack.testing.contracts import FetchBench, FetchContract, RunBench, RunContract
from haversack.testing.contracts.fetch import BODY
from haversack.testing.contracts.run import SPEAK
from haversack.verbs import holdings, pack
from haversack.verbs.receive import receive
from tests.support.index import Index
from tests.support.tiny import inside, outside, tiny_bundle


class TestHttpFetch(FetchContract):
    """Over http, from an index on loopback."""

    @pytest.fixture
    def bench(self) -> Iterator[FetchBench]:
        """The index is up for one test."""
        with Index({"a-1.0-py3-none-any.whl": BODY}) as index:
            fetch = HttpFetch(credentials=lambda _: None, attempts=1)
            yield FetchBench(fetch, index.file_url("a-1.0-py3-none-any.whl"), index.file_url("b.whl"))


class TestFileFetch(FetchContract):
    """From a file URL."""

    @pytest.fixture
    def bench(self, tmp_path: Path) -> FetchBench:
        """A file beside one that is not there."""
        (tmp_path / "a.whl").write_bytes(BODY)
        fetch = HttpFetch(credentials=lambda _: None, attempts=1)
        return FetchBench(fetch, (tmp_path / "a.whl").as_uri(), (tmp_path / "b.whl").as_uri())


class TestMemoryFetch(FetchContract):
    """The twin in memory."""

    @pytest.fixture
    def bench(self) -> FetchBench:
        """One file on a host that does not exist."""
        fetch = MemoryFetch({"https://host.invalid/a.whl": BODY})
        return FetchBench(fetch, "https://host.invalid/a.whl", "https://host.invalid/b.whl")


class TestPrograms(RunContract):
    """Programs of this machine."""

    @pytest.fixture
    def bench(self) -> RunBench:
        """As the command line makes it."""
        return RunBench(Programs())


class TestScriptedRun(RunContract):
    """The twin that answers from a script, with a cage and without one."""

    @pytest.fixture(params=["", "there are no network namespaces"])
    def bench(self, request: pytest.FixtureRequest) -> RunBench:
        """It knows the one program of the contract."""
        script: dict[tuple[str, ...], tuple[int, str, str]] = {
            (sys.executable, "-c", SPEAK): (3, "out\n", "err\n")
        }
        return RunBench(ScriptedRun(script, cage=request.param))


def test_a_scripted_run_hands_on_what_it_does_not_know() -> None:
    """The longest match answers; what none matches goes to the run behind it; all of it is remembered."""
    run = ScriptedRun({("uv",): (0, "any", ""), ("uv", "pip"): (1, "", "pip")}, otherwise=Programs())
    assert run(["uv", "lock"]).out == "any"
    assert run(["uv", "pip", "sync"]).err == "pip"
    assert run([sys.executable, "-c", SPEAK], caged=False).code == 3
    assert [argv[:2] for argv, _ in run.calls] == [("uv", "lock"), ("uv", "pip"), (sys.executable, "-c")]


@pytest.mark.parametrize("clock", [SystemClock(), FixedClock()])
def test_a_clock_tells_utc_to_the_second(clock: Clock) -> None:
    """Now is in UTC and has no fraction of a second, whichever clock tells it."""
    assert clock.now().tzinfo is UTC
    assert clock.now().microsecond == 0


def test_a_fixed_clock_moves_when_told() -> None:
    """Time stands still until it is moved."""
    clock = FixedClock()
    before = clock.now()
    clock.move(90)
    assert (clock.now() - before).total_seconds() == 90
    assert clock.now() == clock.now()


@pytest.mark.parametrize("progress", [Console(quiet=True).progress, SteppingProgress()])
def test_progress_can_be_advanced(progress: Progress) -> None:
    """Calling what a progress gives is all that long work has to do."""
    with progress("reading", 10) as advance:
        advance(4)
        advance(6)
    if isinstance(progress, SteppingProgress):
        assert progress.tasks == [("reading", 10, 10, "B")]


def test_a_store_in_memory_has_room_for_so_much() -> None:
    """The twin of a full disk raises ``SpaceError`` and keeps what it had."""
    store = MemoryStore(capacity=10)
    with pytest.raises(SpaceError):
        store.add("sha256:" + "0" * 64, [b"x" * 11])
    assert list(store.blobs()) == []


def test_a_writer_in_memory_has_room_for_so_much() -> None:
    """The twin of a full stick raises ``SpaceError``."""
    writer = MemoryWriter(capacity=10)
    with pytest.raises(SpaceError):
        writer.write("volume-001", "x", 11, [b"x" * 11])


@pytest.mark.parametrize("streamed", [False, True])
def test_a_crossing_with_twins_alone(tmp_path: Path, streamed: bool) -> None:
    """Pack and receive work through the protocols: store, ledger, clock, medium and progress in memory."""
    tiny = tiny_bundle(tmp_path)
    clock, progress = FixedClock(), SteppingProgress()
    out = replace(
        outside(tmp_path / "unused"), store=MemoryStore(), ledger=MemoryLedger(clock), clock=clock,
        run=ScriptedRun({}), progress=progress, fetch=MemoryFetch({}),
    )  # fmt: skip
    writer = MemoryWriter()
    packed = pack.pack(tiny.lock, tmp_path, out, writer, rehearsing=False)
    assert packed.bundle.snapshot == tiny.packed.bundle.snapshot
    assert isinstance(packed.bundle, Bundle)
    into = replace(
        inside(tmp_path / "unused"), store=MemoryStore(), ledger=MemoryLedger(clock), clock=clock,
        run=ScriptedRun({}), progress=progress,
    )  # fmt: skip
    received = receive(MemoryMedia(writer.content, streamed=streamed), into)
    assert received.changed
    assert holdings.read(into.store).current is not None
    assert [line.entry.act for line in into.ledger.lines() if line.entry] == ["receive"]
    assert {label for label, *_ in progress.tasks} >= {"packing"}
