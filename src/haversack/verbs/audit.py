"""``haversack audit show | verify | clock``: the ledger, read, proven and set right about the time."""

from __future__ import annotations

from haversack.errors import UsageError
from haversack.model.finding import Finding
from haversack.model.ledger import Entry, Line, check_chain
from haversack.ports import Ledger


def show(ledger: Ledger) -> list[Line]:
    """Every line of the ledger, oldest first."""
    return list(ledger.lines())


def verify(ledger: Ledger, *, acted: bool) -> tuple[int, list[Finding]]:
    """The number of lines, and every break of the chain.

    ``acted`` says that this ledger's store holds what only a recorded act can have put there, so that a
    ledger which is gone altogether is noticed too.
    """
    lines = list(ledger.lines())
    findings = check_chain(lines, ledger.head())
    if acted and not lines and not findings:
        message = "is empty, though the store holds what only a recorded act can have put there"
        findings.append(Finding("ledger-dropped", "ledger", message, "restore the ledger from a backup"))
    return len(lines), findings


def attest_clock(reason: str, ledger: Ledger) -> Entry:
    """Record that the clock is right although it runs behind the last act; acts go on from here."""
    if not reason.strip():
        raise UsageError("a reason is needed", remedy="say why the clock is right: --reason TEXT")
    return ledger.append("clock", "clock", {"reason": reason})
