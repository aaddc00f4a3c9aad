"""The ledger's chain: how one line follows from the one before, and what breaks it.

A line is canonical JSON that names the digest of the line before it (``previous``) and its own
(``digest``, taken over the line without that field).  An edited line fails its own digest; a dropped or
moved one breaks the numbering and the chain at a place that can be named; a cut-off tail is told by the
*head*, a small file beside the ledger that repeats the last number and digest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from haversack.model.artifact import Digest
from haversack.model.finding import Finding

GENESIS: Digest = "sha256:" + "0" * 64
"""What the first line names as its previous one."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One act: who did what to which thing, when and where.

    ``time`` is UTC in ISO 8601; ``subject`` the digest or name of what was acted upon; ``details`` JSON.
    """

    number: int
    time: str
    actor: str
    host: str
    act: str
    subject: str
    details: Mapping[str, Any]
    previous: Digest
    digest: Digest


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the file: its place (from 1), the entry in it or why there is none, and its true digest.

    ``cut`` says that the file ends within it.
    """

    place: int
    entry: Entry | None
    problem: str = ""
    digest: Digest = ""
    cut: bool = False


def stamp(moment: datetime) -> str:
    """A moment as the ledger writes it: UTC, to the second, ``2026-11-20T21:00:00Z``."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def check_chain(lines: Iterable[Line], head: tuple[int, Digest] | None) -> list[Finding]:
    """Every break of the chain, each named by its line.

    ``head`` is the number and digest that the head file holds, or ``None`` where there is no such file.
    One line more than the head is the mark of an act that was cut off between the two writes, and is sound;
    so is a half line at the end, of an act that was cut off within the first one and never happened.
    """
    findings: list[Finding] = []
    known = list(lines)
    if known and known[-1].cut and (head is None or head[1] != known[-1].digest):
        known.pop()
    numbers = {line.entry.number for line in known if line.entry}
    previous, expected, last_time = GENESIS, 1, ""
    for line in known:
        where = f"ledger line {line.place}"
        if line.entry is None:
            findings.append(
                Finding("ledger-unreadable", where, line.problem, "restore the ledger from a backup")
            )
            previous, expected = "", expected + 1
            continue
        entry = line.entry
        if entry.digest != line.digest:
            findings.append(
                Finding("ledger-edited", where, f"entry {entry.number} ({entry.act}) is not what its digest says", "restore the ledger from a backup and ask who changed it")
            )  # fmt: skip
        if entry.number != expected:
            # Not a list of what is gone: a forged number may be any.
            first, final = expected, entry.number - 1
            while first in numbers and first <= final:
                first += 1
            while final in numbers and final >= first:
                final -= 1
            if first <= final:
                findings.append(
                    Finding(
                        "ledger-dropped",
                        where,
                        f"{_span(first, final)} missing before it",
                        "restore the ledger from a backup",
                    )
                )
            else:
                findings.append(
                    Finding(
                        "ledger-reordered",
                        where,
                        f"holds entry {entry.number} where {expected} belongs",
                        "restore the ledger from a backup",
                    )
                )
        elif previous and entry.previous != previous:
            findings.append(
                Finding(
                    "ledger-edited",
                    where,
                    f"entry {entry.number} does not follow from the line before it",
                    "restore the ledger from a backup",
                )
            )
        elif entry.time < last_time and entry.act != "clock":
            findings.append(
                Finding(
                    "clock-backwards",
                    where,
                    f"entry {entry.number} is dated before the one above it",
                    "ask who set the clock",
                )
            )
        previous, expected, last_time = entry.digest, entry.number + 1, entry.time
    if head is None and len(known) > 1:
        findings.append(
            Finding(
                "ledger-dropped",
                "ledger head",
                "is gone: without it nobody can tell whether entries are missing at the end",
                "restore the ledger and its head from a backup",
            )
        )
    if head is not None:
        number, digest = head
        last = next((line.entry for line in reversed(known) if line.entry), None)
        have = last.number if last else 0
        if have < number:
            findings.append(
                Finding(
                    "ledger-dropped",
                    f"ledger line {len(known) + 1}",
                    f"{_span(have + 1, number)} missing at the end",
                    "restore the ledger from a backup",
                )
            )
        else:
            named = next((line.entry for line in known if line.entry and line.entry.number == number), None)
            if number and named and named.digest != digest:
                findings.append(
                    Finding(
                        "ledger-edited",
                        f"entry {number}",
                        "is not the one that the head names",
                        "restore the ledger from a backup and ask who changed it",
                    )
                )
            elif have > number + 1:
                findings.append(
                    Finding(
                        "ledger-edited",
                        f"entry {number + 2}",
                        "was appended without haversack: the head does not know it",
                        "ask who wrote it",
                    )
                )
    return findings


def _span(first: int, last: int) -> str:
    return f"entry {first} is" if first == last else f"entries {first} to {last} are"
