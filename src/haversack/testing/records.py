"""A ledger, a clock and a progress in memory."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from haversack.errors import ClockError, LedgerError
from haversack.formats import ledgerline
from haversack.model.artifact import Digest
from haversack.model.ledger import GENESIS, Entry, Line, stamp
from haversack.ports import Clock

_TOLERANCE = timedelta(seconds=60)


class FixedClock:
    """A :class:`haversack.ports.Clock` that stands until it is told to move."""

    def __init__(self, moment: datetime = datetime(2026, 11, 20, 21, 0, 0, tzinfo=UTC)) -> None:
        self._moment = moment

    def now(self) -> datetime:
        """See the protocol."""
        return self._moment.replace(microsecond=0)

    def move(self, seconds: float) -> None:
        """Let time pass, or run back."""
        self._moment += timedelta(seconds=seconds)


class MemoryLedger:
    """A :class:`haversack.ports.Ledger` in memory, of the same lines as one in a file."""

    def __init__(self, clock: Clock, *, actor: str = "nobody", host: str = "memory") -> None:
        self._clock, self._actor, self._host = clock, actor, host
        self._written: list[bytes] = []
        self._lock = threading.Lock()

    def append(self, act: str, subject: str, details: Mapping[str, Any]) -> Entry:
        """See the protocol."""
        with self._lock:
            last = self._last()
            now = self._clock.now()
            if last is not None and act != "clock":
                then = datetime.fromisoformat(last.time)
                if now < then - _TOLERANCE:
                    raise ClockError(f"the clock says {stamp(now)}, but the last act was at {last.time}")
                now = max(now, then)
            number, previous = (last.number + 1, last.digest) if last else (1, GENESIS)
            data = ledgerline.write(
                Entry(number, stamp(now), self._actor, self._host, act, subject, details, previous, GENESIS)
            )
            entry = ledgerline.read(data, number).entry
            assert entry is not None
            self._written.append(data)
            return entry

    def lines(self) -> Iterator[Line]:
        """See the protocol."""
        for place, data in enumerate(self._written, 1):
            yield ledgerline.read(data, place)

    def head(self) -> tuple[int, Digest] | None:
        """See the protocol."""
        last = self._last() if self._written else None
        return (last.number, last.digest) if last else None

    def damage(self) -> None:
        """Alter the last line, as somebody with an editor does."""
        self._written[-1] = self._written[-1].replace(b'"act":"', b'"act":"un')

    def _last(self) -> Entry | None:
        if not self._written:
            return None
        line = ledgerline.read(self._written[-1], len(self._written))
        if line.entry is None or line.entry.digest != line.digest:
            raise LedgerError("its last line is damaged", where="memory")
        return line.entry


class SteppingProgress:
    """A :class:`haversack.ports.Progress` that remembers: ``tasks`` are (label, total, done, unit)."""

    def __init__(self) -> None:
        self.tasks: list[tuple[str, int, int, str]] = []
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def __call__(self, label: str, total: int, unit: str = "B") -> Iterator[Callable[[int], None]]:
        """See the protocol."""
        with self._lock:
            place = len(self.tasks)
            self.tasks.append((label, total, 0, unit))

        def advance(count: int) -> None:
            with self._lock:
                name, of, done, measure = self.tasks[place]
                self.tasks[place] = (name, of, done + count, measure)

        yield advance
