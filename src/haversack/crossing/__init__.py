"""Look at a bundle as it arrived: everything wrong with it, and every good blob handed on.

``verify`` hands blobs to nobody, ``receive`` to the store; folders are read on all cores, a stream from
front to back.  Nothing is believed that the manifest does not say, and the manifest's digest is the
bundle's id.
"""

from __future__ import annotations

from collections.abc import Callable

from haversack.crossing.examination import Examination, Take, only_hash
from haversack.crossing.folders import folders
from haversack.crossing.stream import stream
from haversack.errors import FormatError, HaversackError, IntegrityError, NotFoundError
from haversack.formats import bundle as layout
from haversack.formats import oci
from haversack.model.artifact import Digest
from haversack.model.bundle import Bundle
from haversack.ports import Media, Progress, Store

__all__ = ["Examination", "Take", "examine", "only_hash"]


def examine(
    media: Media, take: Take, admit: Callable[[Examination], None], *, store: Store | None, progress: Progress
) -> Examination:
    """Examine a bundle; ``admit`` sees the manifest before the first blob is taken and may raise."""
    exam = Examination()
    if media.streamed:
        stream(media, exam, take, admit, progress)
    else:
        folders(media, exam, take, admit, progress)
    if exam.bundle:
        _check_snapshot(exam, exam.bundle, store)
    return exam


def _check_snapshot(exam: Examination, bundle: Bundle, store: Store | None) -> None:
    """The snapshot that the manifest names must be readable, and need exactly what travels or is required."""
    lacking = [d for d in bundle.metadata if d not in exam.metadata]
    if lacking:
        return

    def blob(digest: Digest) -> bytes:
        if digest in exam.metadata:
            return exam.metadata[digest]
        if digest not in bundle.requires:
            raise IntegrityError("is not among the metadata that the manifest names", where=digest)
        if store is None:
            raise NotFoundError(f"{digest} is in the base")
        with store.open(digest) as file:
            return file.read()

    try:
        snapshot = oci.read(bundle.snapshot, blob)
    except NotFoundError:
        return
    except FormatError as problem:
        exam.blame("format-newer", problem.where, problem.message, remedy=problem.remedy)
        return
    except HaversackError as problem:
        exam.blame(
            "manifest-damaged",
            problem.where or bundle.snapshot,
            problem.message,
            remedy="pack the bundle again",
        )
        return
    travelling = bundle.sizes()
    told = travelling.keys() | set(bundle.requires)
    wrong = [d for d, size in snapshot.blobs.items() if d not in told or travelling.get(d, size) != size]
    if wrong or len(told) != len(snapshot.blobs):
        exam.blame(
            "manifest-damaged",
            layout.MANIFEST,
            "names other files than its snapshot needs",
            remedy="pack the bundle again",
        )
        return
    if set(bundle.metadata) != set(snapshot.metadata) - set(bundle.requires):
        exam.blame(
            "manifest-damaged",
            layout.MANIFEST,
            "names other metadata than its snapshot has",
            remedy="pack the bundle again",
        )
        return
    exam.snapshot = snapshot
