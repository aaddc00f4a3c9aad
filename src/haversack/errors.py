"""The errors a caller sees: what happened, where, and what to do about it.

Each class owns one exit code that scripts may rely on; ``docs/reference/errors.md`` lists them and a
test keeps that list complete.  An error is for the person at the keyboard; whatever is *data* about a
site, a bundle or an environment is a :class:`haversack.model.finding.Finding` and rides along in
``findings``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from haversack.model.finding import Finding


class HaversackError(Exception):
    """Root of the tree: something haversack can name went wrong."""

    exit_code: ClassVar[int] = 1
    title: ClassVar[str] = "error"

    def __init__(
        self, message: str, *, where: str = "", remedy: str = "", findings: Sequence[Finding] = ()
    ) -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.remedy = remedy
        self.findings = tuple(findings)

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        return f"{place}{self.message}"


class UsageError(HaversackError):
    """The command line itself cannot be understood."""

    exit_code = 2
    title = "usage"


class DeclarationError(HaversackError):
    """``haversack.toml`` (or a file it names) is wrong."""

    exit_code = 3
    title = "declaration"


class LockError(HaversackError):
    """``haversack.lock`` is absent, unreadable, or older than the declaration."""

    exit_code = 4
    title = "lock"


class ResolutionError(HaversackError):
    """No set of wheels satisfies an environment on a target."""

    exit_code = 5
    title = "resolution"


class FetchError(HaversackError):
    """An index or a file host did not deliver."""

    exit_code = 6
    title = "fetch"


class IntegrityError(HaversackError):
    """Bytes are not what their digest says, or a file is where none belongs."""

    exit_code = 7
    title = "integrity"


class IncompleteError(HaversackError):
    """A bundle lacks volumes or blobs; the rest of it may be fine."""

    exit_code = 8
    title = "incomplete"


class BaseMissingError(HaversackError):
    """An increment arrived where the snapshot it builds on is not held."""

    exit_code = 9
    title = "base missing"


class FormatError(HaversackError):
    """A file is of a newer major format than this haversack reads, or of none at all."""

    exit_code = 10
    title = "format"


class RollbackError(HaversackError):
    """A bundle is older than one this site already received."""

    exit_code = 11
    title = "rollback"


class ProofError(HaversackError):
    """The closure proof or the rehearsal failed: the bundle would not install inside."""

    exit_code = 12
    title = "proof"


class StoreError(HaversackError):
    """The store cannot be used: absent, read-only, busy, or of another layout."""

    exit_code = 13
    title = "store"


class SpaceError(StoreError):
    """There is not enough room on the disk."""

    exit_code = 14
    title = "space"


class PrefixError(HaversackError):
    """The folder to install into is not one haversack made."""

    exit_code = 15
    title = "prefix"


class LedgerError(HaversackError):
    """The ledger is broken or cannot be written, so the act does not happen."""

    exit_code = 16
    title = "ledger"


class ClockError(HaversackError):
    """The clock runs behind the last recorded act."""

    exit_code = 17
    title = "clock"


class NotFoundError(HaversackError):
    """No environment, snapshot, target or volume has that name."""

    exit_code = 18
    title = "not found"


class DriftError(HaversackError):
    """An installed environment, or this machine, is not as it should be."""

    exit_code = 19
    title = "drift"


class ToolError(HaversackError):
    """A program haversack drives is missing or failed in a way that has no better name."""

    exit_code = 20
    title = "tool"


def every_error() -> list[type[HaversackError]]:
    """All classes of the tree in order of their exit code."""
    found: list[type[HaversackError]] = []
    stack: list[type[HaversackError]] = [HaversackError]
    while stack:
        kind = stack.pop()
        found.append(kind)
        stack.extend(kind.__subclasses__())
    return sorted(found, key=lambda kind: kind.exit_code)
