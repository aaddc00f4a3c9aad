"""Ledgers, held to what `haversack.ports.Ledger` promises; and what a crash leaves of one in a file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from haversack.errors import LedgerError
from haversack.model.ledger import check_chain
from haversack.ports import Ledger
from haversack.ports.ledger import FileLedger
from haversack.testing import FixedClock, MemoryLedger
from haversack.testing.contracts import LedgerBench, LedgerContract


class TestFileLedger(LedgerContract):
    """The ledger in a file."""

    @pytest.fixture
    def bench(self, tmp_path: Path) -> LedgerBench:
        """A ledger in a folder that does not exist yet."""
        clock = FixedClock()
        path = tmp_path / "own" / "ledger.jsonl"

        def damage(_: Ledger) -> None:
            path.write_bytes(path.read_bytes().replace(b'"subject":"two"', b'"subject":"2"'))

        return LedgerBench(FileLedger(path, clock), clock, damage)


class TestMemoryLedger(LedgerContract):
    """The twin in memory."""

    @pytest.fixture
    def bench(self) -> LedgerBench:
        """A ledger that nobody else has."""
        clock = FixedClock()
        ledger = MemoryLedger(clock)
        return LedgerBench(ledger, clock, lambda _: ledger.damage())


def ledger_of(path: Path, *acts: str) -> FileLedger:
    """A ledger with some acts."""
    ledger = FileLedger(path, FixedClock())
    for act in acts:
        ledger.append(act, "subject", {"n": len(act)})
    return ledger


def test_a_line_that_a_crash_cut_off_is_mended(tmp_path: Path) -> None:
    """Wherever a crash cut the last line, the next act drops the half line and the chain is sound."""
    path = tmp_path / "ledger.jsonl"
    ledger_of(path, "one", "two")
    whole = path.read_bytes()
    head = path.with_name("ledger.jsonl.head").read_bytes()
    ledger_of(path, "three")
    third = path.read_bytes()[len(whole) :]
    for cut in (1, len(third) // 2, len(third) - 1):
        path.write_bytes(whole + third[:cut])
        path.with_name("ledger.jsonl.head").write_bytes(head)
        ledger = ledger_of(path, "four")
        assert [line.entry.act for line in ledger.lines() if line.entry] == ["one", "two", "four"]
        assert check_chain(ledger.lines(), ledger.head()) == []


def test_a_line_whose_head_did_not_follow_is_an_act(tmp_path: Path) -> None:
    """A crash between line and head loses neither the act nor the chain."""
    path = tmp_path / "ledger.jsonl"
    ledger_of(path, "one")
    head = path.with_name("ledger.jsonl.head").read_bytes()
    ledger_of(path, "two")
    path.with_name("ledger.jsonl.head").write_bytes(head)
    ledger = ledger_of(path)
    assert check_chain(ledger.lines(), ledger.head()) == []
    ledger.append("three", "subject", {})
    assert check_chain(ledger.lines(), ledger.head()) == []
    assert [line.entry.number for line in ledger.lines() if line.entry] == [1, 2, 3]


def test_a_cut_tail_is_noticed(tmp_path: Path) -> None:
    """Entries that were taken off the end are missed by the head, and no act is recorded over the gap."""
    path = tmp_path / "ledger.jsonl"
    ledger = ledger_of(path, "one", "two", "three")
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0])
    (finding,) = check_chain(ledger.lines(), ledger.head())
    assert finding.code == "ledger-dropped"
    with pytest.raises(LedgerError, match="head"):
        ledger.append("four", "subject", {})
    path.write_bytes(b"")
    with pytest.raises(LedgerError, match="empty"):
        ledger.append("four", "subject", {})


def test_entries_of_any_length_are_read_back(tmp_path: Path) -> None:
    """An act longer than what is read of the end at once does not break the chain."""
    ledger = ledger_of(tmp_path / "ledger.jsonl", "one")
    for size in (10, 5000, 100_000, 3):
        ledger.append("two", "subject", {"text": "x" * size})
    assert check_chain(ledger.lines(), ledger.head()) == []


def test_the_cost_of_an_act_does_not_grow(tmp_path: Path) -> None:
    """The last of many entries is found from the end: an unreadable beginning does not matter to `append`."""
    ledger = ledger_of(tmp_path / "ledger.jsonl", *(["act"] * 30))
    data = ledger.path.read_bytes()
    ledger.path.write_bytes(b"#" + data[1:])
    ledger.append("act", "subject", {})
    assert [finding.code for finding in check_chain(ledger.lines(), ledger.head())][:1] == [
        "ledger-unreadable"
    ]


_APPEND = """
import sys
from pathlib import Path
from haversack.ports.ledger import FileLedger, SystemClock
for _ in range(5):
    FileLedger(Path(sys.argv[1]), SystemClock()).append("use", sys.argv[2], {})
"""


def test_processes_append_at_the_same_time(tmp_path: Path) -> None:
    """Acts of two processes come one after the other, none lost."""
    path = tmp_path / "ledger.jsonl"
    both = [subprocess.Popen([sys.executable, "-c", _APPEND, path, name]) for name in ("a", "b")]
    assert [process.wait() for process in both] == [0, 0]
    ledger = ledger_of(path)
    assert len(list(ledger.lines())) == 10
    assert check_chain(ledger.lines(), ledger.head()) == []


def test_an_act_that_cannot_be_recorded_is_an_error(tmp_path: Path) -> None:
    """A ledger that cannot be written raises, and says what it was doing."""
    path = tmp_path / "ledger.jsonl"
    path.mkdir()
    with pytest.raises(LedgerError, match="recording the act failed"):
        ledger_of(path, "one")


def test_a_cut_line_is_no_break_of_the_chain(tmp_path: Path) -> None:
    """Until the next act mends it, a half line at the end is the mark of a crash, not of an edit."""
    path = tmp_path / "ledger.jsonl"
    ledger = ledger_of(path, "one", "two")
    whole = path.read_bytes()
    for cut in (1, 50, len(whole) // 2 - 1):
        path.write_bytes(whole + whole[:cut])
        assert check_chain(ledger.lines(), ledger.head()) == []
    # An entry that the head names did happen: cutting it is noticed, and it is not thrown away.
    for cut in (1, 50):
        path.write_bytes(whole[:-cut])
        with pytest.raises(LedgerError):
            ledger.append("three", "subject", {})
    path.write_bytes(whole[:-50])
    assert [finding.code for finding in check_chain(ledger.lines(), ledger.head())] == ["ledger-dropped"]
