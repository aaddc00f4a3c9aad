"""A ledger in a file, with its head beside it."""

from __future__ import annotations

import getpass
import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from haversack.errors import ClockError, LedgerError
from haversack.formats import ledgerline
from haversack.formats.canonical import Fields, canonical, parse
from haversack.model.artifact import Digest
from haversack.model.ledger import GENESIS, Entry, Line, stamp
from haversack.ports import Clock
from haversack.ports.durable import drop_unfinished, explained, replace, sync_folder

try:
    import fcntl
except ImportError:  # Windows, where the outside may run
    fcntl = None  # type: ignore[assignment]

# Network time steps a clock by seconds; a person who sets it, by more.
_TOLERANCE = timedelta(seconds=60)
CLOCK_ACT = "clock"


def actor() -> str:
    """Who acts: the login name, and the one behind ``sudo``."""
    name = getpass.getuser()
    behind = os.environ.get("SUDO_USER")
    return f"{behind} as {name}" if behind and behind != name else name


class FileLedger:
    """The ledger at ``path``; see :class:`haversack.ports.Ledger`."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self.path = path
        self._head = path.with_name(path.name + ".head")
        self._clock = clock

    def lines(self) -> Iterator[Line]:
        """See the protocol."""
        if not self.path.exists():
            return
        with explained(self.path, "reading the ledger", LedgerError), self.path.open("rb") as file:
            for place, line in enumerate(file, 1):
                yield ledgerline.read(line, place)

    def head(self) -> tuple[int, Digest] | None:
        """See the protocol."""
        if not self._head.exists():
            return None
        with explained(self._head, "reading the ledger's head", LedgerError):
            fields = Fields(
                parse(self._head.read_bytes(), str(self._head), LedgerError), str(self._head), LedgerError
            )
        return fields.count("number"), fields.digest("digest")

    def append(self, act: str, subject: str, details: Mapping[str, Any]) -> Entry:
        """See the protocol."""
        with explained(self.path, "recording the act", LedgerError), self._locked():
            last = self._last()
            if last is not None and self.head() != (last.number, last.digest):
                # A crash came between line and head; after a second one two lines would be ahead of it.
                self._write_head(last)
            entry = self._entry(last, act, subject, details)
            data = ledgerline.write(entry)
            written = ledgerline.read(data, entry.number).entry
            assert written is not None
            with self.path.open("ab") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            sync_folder(self.path.parent)
            self._write_head(written)
        return written

    def _write_head(self, entry: Entry) -> None:
        replace(self._head, canonical({"number": entry.number, "digest": entry.digest}))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.with_name(self.path.name + ".lock").open("ab") as file:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX)
            drop_unfinished(self.path.parent)
            yield

    def _last(self) -> Entry | None:
        """The last entry, after mending a line that a crash cut off.

        Only the end is read, so that the cost of an act does not grow with the ledger.
        """
        head = self.head()
        tail = self._tail()
        half = tail.pop() if tail and not tail[-1].endswith(b"\n") else b""
        if head is not None and half and ledgerline.read(half, 0).digest == head[1]:
            raise self._broken("its last line has lost its end")
        last = self._known_to(head, tail)
        if half:
            # The head is written after the line: a half line beyond it was never an act.
            with self.path.open("r+b") as file:
                file.truncate(self.path.stat().st_size - len(half))
        return last

    def _known_to(self, head: tuple[int, Digest] | None, tail: list[bytes]) -> Entry | None:
        """The entry of the last whole line, which must be the one that the head names, or follow from it."""
        if not tail:
            if head is not None:
                raise self._broken("is empty, but its head names an entry")
            return None
        line = ledgerline.read(tail[-1], 0)
        if line.entry is None or line.entry.digest != line.digest:
            raise self._broken("its last line is damaged")
        if head is None and line.entry.number > 1:
            raise self._broken("its head is gone")
        if head is not None and not (
            head == (line.entry.number, line.entry.digest)
            or (head[0] + 1 == line.entry.number and head[1] == line.entry.previous)
        ):
            raise self._broken("its last line is not the one that its head names")
        return line.entry

    def _tail(self) -> list[bytes]:
        """The last line or two of the file."""
        if not self.path.exists():
            return []
        with self.path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            reach = 4096
            while True:
                file.seek(max(0, size - reach))
                lines = file.read().splitlines(keepends=True)
                if reach >= size:
                    return lines
                if len(lines) > 2:
                    return lines[1:]
                reach *= 4

    def _broken(self, message: str) -> LedgerError:
        return LedgerError(message, where=str(self.path), remedy="see what is wrong: haversack audit verify")

    def _entry(self, last: Entry | None, act: str, subject: str, details: Mapping[str, Any]) -> Entry:
        now = self._clock.now()
        if last is not None and act != CLOCK_ACT:
            then = datetime.fromisoformat(last.time)
            if now < then - _TOLERANCE:
                raise ClockError(
                    f"this machine's clock says {stamp(now)}, but the last recorded act was at {last.time}",
                    where=str(self.path),
                    remedy="set the clock; if the earlier time was the wrong one: haversack audit clock --reason TEXT",
                )
            now = max(now, then)
        return Entry(
            number=last.number + 1 if last else 1,
            time=stamp(now),
            actor=actor(),
            host=platform.node(),
            act=act,
            subject=subject,
            details=details,
            previous=last.digest if last else GENESIS,
            digest=GENESIS,
        )


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """See :class:`haversack.ports.Clock`."""
        return datetime.now(UTC).replace(microsecond=0)
