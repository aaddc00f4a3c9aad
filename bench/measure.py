"""Run two programs in turn and say how they compare.

A machine that does something else at the same time slows one pair down, not one side: hence pairs, each
with its own ratio, and the median of the ratios instead of the ratio of two medians.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

MIB = 1 << 20


class BenchError(Exception):
    """A program that was to be measured failed: its time would mean nothing."""


@dataclass(frozen=True)
class Done:
    """A program that ended well: its seconds, and the peak memory of it and its children in bytes."""

    seconds: float
    peak: int


def timed(argv: Sequence[str | Path], *, env: Mapping[str, str], cwd: Path | None = None) -> Done:
    """Run a program to its end, with no input; raises ``BenchError`` with its last words when it fails."""
    words = [str(word) for word in argv]
    with tempfile.TemporaryFile() as said:
        start = time.perf_counter()
        process = subprocess.Popen(
            words, env=dict(env), cwd=cwd, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT
        )
        # wait4 tells the peak of this one child; RUSAGE_CHILDREN would tell that of the largest so far.
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            last = said.read()[-2000:].decode(errors="replace")
            raise BenchError(f"{' '.join(words[:6])} … exited with {process.returncode}: {last}")
    return Done(seconds, usage.ru_maxrss * 1024)


def settled() -> None:
    """Let the disk finish what one side wrote before the other begins."""
    os.sync()


def pairs(
    ours: Callable[[], float], peer: Callable[[], float], runs: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Measure both in turn: ours, the peer, ours, the peer …"""
    left: list[float] = []
    right: list[float] = []
    for _ in range(runs):
        settled()
        left.append(ours())
        settled()
        right.append(peer())
    return tuple(left), tuple(right)


@dataclass(frozen=True)
class Row:
    """One line of the table: what was measured, and the promise it is held against.

    With a peer the promise is about ``ours / peer``, pair by pair; without one it is about ``ours``
    itself, in ``unit``.  ``floor`` says that more is better.  A row without ``limit`` informs only.
    """

    name: str
    unit: str
    ours: tuple[float, ...]
    peer: tuple[float, ...] = ()
    against: str = ""
    limit: float | None = None
    floor: bool = False
    note: str = ""

    @property
    def ratios(self) -> tuple[float, ...]:
        """Ours over the peer's, pair by pair."""
        return tuple(a / b for a, b in zip(self.ours, self.peer, strict=True)) if self.peer else ()

    @property
    def met(self) -> bool | None:
        """Whether the median keeps the promise, or ``None`` where nothing was promised."""
        if self.limit is None:
            return None
        reached = statistics.median(self.ratios or self.ours)
        return reached >= self.limit if self.floor else reached <= self.limit

    @property
    def promise(self) -> str:
        """The promise in words."""
        if self.limit is None:
            return ""
        sign = ">=" if self.floor else "<="
        return f"{sign} {self.limit:.3g} x" if self.peer else f"{sign} {self.limit:g} {self.unit}"

    def to_json(self) -> dict[str, object]:
        """Everything, for scripts."""
        return {
            "name": self.name,
            "unit": self.unit,
            "ours": self.ours,
            "peer": self.peer,
            "against": self.against,
            "ratios": self.ratios,
            "promise": self.promise,
            "met": self.met,
            "note": self.note,
        }


_HEAD = ("what", "ours", "peer", "ratio (min-max)", "promise", "met", "peer is")


def table(rows: Sequence[Row]) -> str:
    """The rows as a table of Markdown, which reads in a terminal too."""
    lines = [_HEAD, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_HEAD))]
    lines.insert(1, tuple("-" * width for width in widths))
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
        for line in lines
    )


def _cells(row: Row) -> tuple[str, ...]:
    def median(values: tuple[float, ...]) -> str:
        return f"{statistics.median(values):.4g} {row.unit}" if values else "-"

    ratios = row.ratios
    spread = (
        f"{statistics.median(ratios):.3g} ({min(ratios):.3g}-{max(ratios):.3g})"
        if ratios
        else f"({min(row.ours):.4g}-{max(row.ours):.4g})"
    )
    met = {True: "yes", False: "NO", None: ""}[row.met]
    against = f"{row.against}; {row.note}" if row.against and row.note else row.against or row.note
    return row.name, median(row.ours), median(row.peer), spread, row.promise, met, against
