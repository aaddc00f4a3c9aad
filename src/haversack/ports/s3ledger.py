"""The ledger of a store in a bucket: the same two files as on disk, as two objects."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from haversack.errors import LedgerError
from haversack.formats import ledgerline
from haversack.model.artifact import Digest
from haversack.model.ledger import Entry, Line
from haversack.ports import Clock
from haversack.ports.ledger import FileLedger
from haversack.ports.s3 import S3Store
from haversack.ports.s3lease import Lease

_LINES = "haversack/ledger.jsonl"
_HEAD = "haversack/ledger.jsonl.head"
# Acts of many machines come one after the other; each takes a moment.
_PATIENCE = 60.0  # seconds


class S3Ledger:
    """The ledger in the bucket of ``store``; see :class:`haversack.ports.Ledger`.

    An act is read, modified and written under a lease of the ledger's own, so that an install can be
    recorded while a bundle is received.  What a ledger in a file does, this one does with a copy of it.
    """

    def __init__(self, store: S3Store, clock: Clock) -> None:
        self._store, self._clock = store, clock
        self._lease = Lease(store.client, "ledger", f"{store}/{_LINES}", LedgerError)
        self._turn = threading.Lock()

    def lines(self) -> Iterator[Line]:
        """See the protocol."""
        data = self._read(_LINES)
        for place, line in enumerate(data.splitlines(keepends=True), 1):
            yield ledgerline.read(line, place)

    def head(self) -> tuple[int, Digest] | None:
        """See the protocol."""
        with tempfile.TemporaryDirectory(prefix="haversack-ledger-") as folder:
            return self._copy(Path(folder), _HEAD).head()

    def append(self, act: str, subject: str, details: Mapping[str, Any]) -> Entry:
        """See the protocol."""
        with (
            self._turn,
            self._lease.held(_PATIENCE),
            tempfile.TemporaryDirectory(prefix="haversack-ledger-") as folder,
        ):
            ledger = self._copy(Path(folder), _LINES, _HEAD)
            try:
                entry = ledger.append(act, subject, details)
            except LedgerError as problem:
                where = f"{self._store}/{_LINES}"
                raise LedgerError(problem.message, where=where, remedy=problem.remedy) from problem
            self._lease.confirm()
            # The head last: a line beyond it is an act whose end nobody heard of.
            for key in (_LINES, _HEAD):
                data = (Path(folder) / Path(key).name).read_bytes()
                self._store.write(key, data, "recording the act", LedgerError)
        return entry

    def _copy(self, folder: Path, *keys: str) -> FileLedger:
        for key in keys:
            if data := self._read(key):
                (folder / Path(key).name).write_bytes(data)
        return FileLedger(folder / Path(_LINES).name, self._clock)

    def _read(self, key: str) -> bytes:
        return self._store.read(key, "reading the ledger", LedgerError) or b""
