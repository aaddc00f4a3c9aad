"""What :class:`haversack.ports.Ledger` promises."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from haversack.errors import ClockError, LedgerError
from haversack.model.ledger import GENESIS, check_chain, stamp
from haversack.ports import Ledger
from haversack.testing.contracts.refused import refused
from haversack.testing.records import FixedClock


@dataclass(frozen=True, slots=True)
class LedgerBench:
    """A ledger under test and the clock it goes by; ``damage`` alters its last line behind its back."""

    ledger: Ledger
    clock: FixedClock
    damage: Callable[[Ledger], None]


class LedgerContract:
    """Tests of a ledger; they take a fixture ``bench`` (a :class:`LedgerBench`)."""

    def test_a_new_ledger_is_empty(self, bench: LedgerBench) -> None:
        """Before the first act there is no line and no head."""
        assert list(bench.ledger.lines()) == []
        assert bench.ledger.head() is None

    def test_an_act_is_told_as_it_was_recorded(self, bench: LedgerBench) -> None:
        """What ``append`` returns is what stands there: act, subject, details, time, number, who and where."""
        details = {"name": "2026-11", "sequence": 3, "base": None, "words": ["ä", "b"]}
        entry = bench.ledger.append("receive", "sha256:subject", details)
        (line,) = bench.ledger.lines()
        assert line.entry == entry
        assert line.digest == entry.digest
        assert (entry.act, entry.subject, dict(entry.details)) == ("receive", "sha256:subject", details)
        assert (entry.number, entry.previous, entry.time) == (1, GENESIS, stamp(bench.clock.now()))
        assert entry.actor
        assert entry.host

    def test_acts_form_a_chain(self, bench: LedgerBench) -> None:
        """Every entry names the one before; the head names the last; the chain proves sound."""
        entries = []
        for number in range(5):
            bench.clock.move(1)
            entries.append(bench.ledger.append("use", f"subject {number}", {}))
            assert bench.ledger.head() == (number + 1, entries[-1].digest)
        assert [entry.previous for entry in entries] == [GENESIS, *(e.digest for e in entries[:-1])]
        assert check_chain(bench.ledger.lines(), bench.ledger.head()) == []

    def test_a_clock_behind_the_last_act_is_refused(self, bench: LedgerBench) -> None:
        """An act before the last one raises ``ClockError`` and is not recorded; an attestation lets acts go on."""
        bench.ledger.append("receive", "one", {})
        bench.clock.move(-3600)
        refused(ClockError, lambda: bench.ledger.append("receive", "two", {}))
        assert len(list(bench.ledger.lines())) == 1
        bench.ledger.append("clock", "clock", {"reason": "it was set wrong before"})
        bench.ledger.append("receive", "two", {})
        assert check_chain(bench.ledger.lines(), bench.ledger.head()) == []

    def test_a_clock_that_was_stepped_back_a_little_is_borne(self, bench: LedgerBench) -> None:
        """Seconds, as network time steps, stop nobody, and no entry is dated before the one above it."""
        first = bench.ledger.append("receive", "one", {})
        bench.clock.move(-5)
        assert bench.ledger.append("receive", "two", {}).time >= first.time
        assert check_chain(bench.ledger.lines(), bench.ledger.head()) == []

    def test_an_altered_ledger_takes_no_more(self, bench: LedgerBench) -> None:
        """After its last line was altered, the chain names the line and ``append`` raises ``LedgerError``."""
        bench.ledger.append("receive", "one", {})
        bench.ledger.append("receive", "two", {})
        bench.damage(bench.ledger)
        findings = check_chain(bench.ledger.lines(), (2, "sha256:" + "1" * 64))
        assert any("line 2" in finding.subject for finding in findings)
        refused(LedgerError, lambda: bench.ledger.append("receive", "three", {}))
        assert len(list(bench.ledger.lines())) == 2

    def test_details_that_are_no_json_are_not_recorded(self, bench: LedgerBench) -> None:
        """An act that cannot be written leaves the ledger as it was."""
        bench.ledger.append("receive", "one", {})
        refused(Exception, lambda: bench.ledger.append("receive", "two", {"what": object()}))
        bench.ledger.append("receive", "three", {})
        assert check_chain(bench.ledger.lines(), bench.ledger.head()) == []
        assert [line.entry.subject for line in bench.ledger.lines() if line.entry] == ["one", "three"]

    def test_threads_append_at_the_same_time(self, bench: LedgerBench) -> None:
        """Acts of several threads come one after the other, none lost."""
        problems: list[BaseException] = []

        def work(name: int) -> None:
            try:
                for number in range(3):
                    bench.ledger.append("use", f"{name}.{number}", {})
            except BaseException as problem:
                problems.append(problem)

        threads = [threading.Thread(target=work, args=(name,)) for name in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not problems, problems
        assert len(list(bench.ledger.lines())) == 9
        assert check_chain(bench.ledger.lines(), bench.ledger.head()) == []
