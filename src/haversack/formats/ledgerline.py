"""Lines of the ledger (docs/spec/ledger.md)."""

from __future__ import annotations

from datetime import UTC, datetime

from haversack.errors import LedgerError
from haversack.formats.canonical import Fields, canonical, parse
from haversack.model.artifact import digest_of
from haversack.model.ledger import Entry, Line, stamp


def write(entry: Entry) -> bytes:
    """The line of an entry, whose ``digest`` is worked out here and not taken from it."""
    body = {
        "number": entry.number,
        "time": entry.time,
        "actor": entry.actor,
        "host": entry.host,
        "act": entry.act,
        "subject": entry.subject,
        "details": dict(entry.details),
        "previous": entry.previous,
    }
    return canonical(body | {"digest": digest_of(canonical(body))}) + b"\n"


def read(data: bytes, place: int) -> Line:
    """What stands on a line, readable or not, with the digest its content truly has."""
    where = f"ledger line {place}"
    cut = not data.endswith(b"\n")
    try:
        value = parse(data, where, LedgerError)
        fields = Fields(value, where, LedgerError)
        _check_time(fields)
        entry = Entry(
            number=fields.count("number"),
            time=fields.text("time"),
            actor=fields.text("actor"),
            host=fields.text("host"),
            act=fields.text("act"),
            subject=fields.text("subject"),
            details=fields.table("details"),
            previous=fields.digest("previous"),
            digest=fields.digest("digest"),
        )
    except LedgerError as problem:
        return Line(place, None, problem.message, cut=cut)
    truth = digest_of(canonical({key: item for key, item in value.items() if key != "digest"}))
    # A line may say the same in other bytes; then it was not haversack that wrote it.
    if canonical(value) != data.rstrip(b"\n"):
        truth = digest_of(data)
    return Line(place, entry, digest=truth, cut=cut)


def _check_time(fields: Fields) -> None:
    """A time must be one that ``stamp`` writes: the next act is compared with it."""
    try:
        moment = datetime.strptime(fields.text("time"), "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError:
        moment = None
    if moment is None or stamp(moment) != fields.text("time"):
        raise fields.wrong("'time' is not a moment like 2026-11-20T21:00:00Z")
