"""Receipts as JSON (docs/spec/bundle.md)."""

from __future__ import annotations

from haversack.errors import IntegrityError
from haversack.formats.canonical import Fields, canonical, check_version, parse
from haversack.model.artifact import digest_of, is_digest
from haversack.model.receipt import Receipt

VERSION = "1.0"
_REMEDY = "on the inside, run again: haversack receipt > FILE"


def write(receipt: Receipt) -> bytes:
    """The bytes of a receipt; ``digest`` covers the rest, so that a cut-off copy is noticed."""
    body = {
        "haversack-receipt": VERSION,
        "site": receipt.site,
        "snapshot": receipt.snapshot,
        "name": receipt.name,
        "sequence": receipt.sequence,
        "blobs": sorted(receipt.blobs),
        "ledger": receipt.ledger,
        "at": receipt.at,
    }
    return canonical(body | {"digest": digest_of(canonical(body))}) + b"\n"


def read(data: bytes, where: str) -> Receipt:
    """The receipt in some bytes.  Raises ``IntegrityError``, or ``FormatError`` for a newer major version."""
    try:
        value = parse(data, where)
    except IntegrityError as problem:
        raise IntegrityError(problem.message, where=where, remedy=_REMEDY) from problem
    fields = Fields(value, where, remedy=_REMEDY)
    check_version(fields.text("haversack-receipt"), VERSION, where)
    told = fields.digest("digest")
    if digest_of(canonical({key: item for key, item in value.items() if key != "digest"})) != told:
        raise IntegrityError("is not what its digest says", where=where, remedy=_REMEDY)
    blobs = fields.texts("blobs")
    if not all(map(is_digest, blobs)):
        raise fields.wrong("'blobs' is not a list of digests")
    return Receipt(
        site=fields.text("site"),
        snapshot=fields.digest("snapshot"),
        name=fields.text("name"),
        sequence=fields.count("sequence"),
        blobs=blobs,
        ledger=fields.digest("ledger"),
        at=fields.text("at"),
    )
