"""Receipts: what the inside holds, the base of the next pack."""

from __future__ import annotations

from dataclasses import dataclass

from haversack.model.artifact import Digest


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a site holds now.

    ``snapshot`` is the current one and ``sequence`` that of the newest bundle received; ``blobs`` is every
    blob in the store, ``ledger`` the digest of the last line of the ledger.
    """

    site: str
    snapshot: Digest
    name: str
    sequence: int
    blobs: tuple[Digest, ...]
    ledger: Digest
    at: str
