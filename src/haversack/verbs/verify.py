"""``haversack verify``: everything that is wrong with a bundle."""

from __future__ import annotations

from dataclasses import dataclass

from haversack.crossing import Examination, examine, only_hash
from haversack.formats import bundle as layout
from haversack.model.artifact import Digest
from haversack.model.bundle import Bundle
from haversack.model.finding import Finding, worst_first
from haversack.ports import Media, Progress, Store
from haversack.verbs import holdings


@dataclass(frozen=True, slots=True)
class Verification:
    """What ``verify`` found: the bundle (if its manifest was readable), good files and their bytes, findings,
    and a resend list."""

    id: Digest
    bundle: Bundle | None
    files: int
    size: int
    findings: tuple[Finding, ...]
    resend: bytes


def verify(media: Media, store: Store | None, progress: Progress) -> Verification:
    """Check every byte of a bundle and all that its parts say of each other.

    With a store, also whether the bundle could be received there: it is for that site, its base is held and nothing newer was received.
    """

    def admit(exam: Examination) -> None:
        assert exam.bundle is not None
        if store is not None:
            exam.findings += holdings.refusals(exam.bundle, exam.id, store, holdings.read(store))

    exam = examine(media, only_hash, admit, store=store, progress=progress)
    sizes = exam.bundle.sizes() if exam.bundle else {}
    return Verification(
        id=exam.id,
        bundle=exam.bundle,
        files=len(exam.good),
        size=sum(sizes[digest] for digest in exam.good),
        findings=tuple(worst_first(exam.findings)),
        resend=layout.write_resend(exam.id, exam.resend) if exam.id else b"",
    )
