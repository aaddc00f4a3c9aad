"""Findings: what a person should know, as data.

A verb collects all findings, never only the first.  :data:`CODES` is the registry: it gives each code
its class of error (hence its exit code), its severity among others, and the sentence the reference
manual prints.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from haversack import errors

# code -> (error class that a blocking finding of it raises, what it means)
CODES: dict[str, tuple[type[errors.HaversackError], str]] = {
    # The order is the order of severity: with several blocking findings the first one here names the exit code.
    "format-newer": (errors.FormatError, "a file is of a newer major format than this haversack reads"),
    "format-newer-minor": (errors.FormatError, "a file is of a newer minor format; what is new in it is ignored"),
    "manifest-damaged": (errors.IntegrityError, "a bundle, snapshot or environment manifest is not what its digest says, or contradicts itself"),
    "path-unsafe": (errors.IntegrityError, "a name leaves its folder, is absolute, or is a link"),
    "name-clash": (errors.IntegrityError, "two names are one on a file system that ignores case, or after normalisation"),
    "blob-damaged": (errors.IntegrityError, "the bytes of a file are not those its digest names"),
    "file-damaged": (errors.IntegrityError, "a file of a volume differs from SHA256SUMS"),
    "file-extra": (errors.IntegrityError, "a file is in a volume that the manifest does not know"),
    "volume-foreign": (errors.IntegrityError, "a volume belongs to another bundle"),
    "hash-refused": (errors.IntegrityError, "an index gives another file than those whose hashes a requirements file names"),
    "wheel-invalid": (errors.IntegrityError, "a wheel is not a readable wheel, or its metadata contradicts its name"),
    "wheel-record": (errors.IntegrityError, "a wheel's RECORD disagrees with the files in it"),
    "wheel-bomb": (errors.IntegrityError, "a wheel unpacks to far more than its size allows"),
    "conda-invalid": (errors.IntegrityError, "a conda package is not a readable one, or its metadata contradicts its record"),
    "conda-paths": (errors.IntegrityError, "the files in a conda package disagree with its own list of them"),
    "conda-bomb": (errors.IntegrityError, "a conda package unpacks to far more than its size allows"),
    "file-invalid": (errors.IntegrityError, "a declared file is not of the type that its name says"),
    "file-name": (errors.DeclarationError, "a declared file has a name by which its consumer will not know it"),
    "prefix-invalid": (errors.IntegrityError, "the packed folder of an environment contradicts itself, or leads out of its folder"),
    "image-invalid": (errors.IntegrityError, "an image's manifest, config or layer is no readable one, or contradicts what names it"),
    "volume-missing": (errors.IncompleteError, "a volume of the bundle was not given"),
    "volume-duplicate": (errors.IncompleteError, "the same volume was given twice; one copy is enough"),
    "blob-missing": (errors.IncompleteError, "a file that the manifest names is not there"),
    "base-missing": (errors.BaseMissingError, "the increment needs a blob that this store does not hold"),
    "site-other": (errors.StoreError, "the bundle is for another site than the store holds"),
    "bundle-older": (errors.RollbackError, "this site has already received a newer bundle"),
    "no-wheel": (errors.ResolutionError, "a package has no wheel for the target, only a source distribution"),
    "no-solution": (errors.ResolutionError, "the requirements of an environment contradict each other on the target"),
    "source-unsupported": (errors.ResolutionError, "a requirement points at a folder or a repository, which cannot cross as it is"),
    "build-foreign": (errors.ResolutionError, "a wheel built here would not run on the target"),
    "build-failed": (errors.ResolutionError, "a wheel could not be built from its source distribution"),
    "conda-unhashed": (errors.ResolutionError, "nobody names a sha256 for a conda package; an md5 alone protects nothing"),
    "lock-platform": (errors.ResolutionError, "a lock that people brought has nothing for the target"),
    "image-platform": (errors.ResolutionError, "an image is not made for a platform that is wanted"),
    "image-moved": (errors.ResolutionError, "the tag of an image means another digest than when it was locked"),
    "fetch-failed": (errors.FetchError, "a file could not be fetched"),
    "closure-missing": (errors.ProofError, "a dependency that the target needs is not in the bundle"),
    "closure-version": (errors.ProofError, "a dependency is in the bundle at a version that is not allowed"),
    "closure-tag": (errors.ProofError, "a wheel in the bundle does not run on the target"),
    "closure-python": (errors.ProofError, "a wheel refuses the target's Python"),
    "rehearsal-failed": (errors.ProofError, "the environment did not install or its check failed with no network"),
    "rehearsal-skipped": (errors.ProofError, "the environment was not rehearsed, and why"),
    "image-python": (errors.ProofError, "an image that must have Python 3 has none"),
    "image-unread": (errors.ProofError, "a layer of an image is compressed in a way that haversack cannot read"),
    "image-signatures": (errors.ProofError, "signatures of an image could not be asked for, and may be missing"),
    "image-sparse": (errors.ProofError, "an image is pushed as a list of the platforms that travelled, under another digest"),
    "secret-found": (errors.DeclarationError, "a file that would cross holds a login or a token"),
    "project-secret": (errors.DeclarationError, "a file of a project looks like a secret"),
    "project-partial": (errors.ProofError, "something of a repository does not travel with its history"),
    "project-moved": (errors.ResolutionError, "a branch or tag is another commit than the lock says; the lock's is kept"),
    "prefix-unmovable": (errors.ProofError, "something in an existing prefix cannot be moved to another place"),
    "prefix-changed": (errors.ProofError, "a file of an existing prefix is not what its package brought"),
    "rendered-edited": (errors.PrefixError, "a rendered file was edited since, or another file is in its place"),
    "client-address": (errors.UsageError, "a client cannot be told of such an address"),
    "prefix-long": (errors.PrefixError, "the prefix is longer than a package has room for in its binaries"),
    "conda-clobber": (errors.ProofError, "two conda packages hold the same path with other bytes; one of them wins"),
    "conda-script": (errors.ProofError, "a conda package has a link script that nobody allowed, so it is not run"),
    "store-damaged": (errors.StoreError, "a blob in the store is not what its name says"),
    "store-incomplete": (errors.StoreError, "a snapshot in the store lacks a blob"),
    "store-layout": (errors.StoreError, "the store's own files are not as they should be"),
    "store-hardlinks": (errors.StoreError, "the store's file system has no hard links: installs are copies"),
    "space-low": (errors.SpaceError, "the disk has little room left"),
    "ledger-edited": (errors.LedgerError, "a line of the ledger was changed"),
    "ledger-dropped": (errors.LedgerError, "a line of the ledger is gone"),
    "ledger-reordered": (errors.LedgerError, "lines of the ledger stand in another order"),
    "ledger-unreadable": (errors.LedgerError, "a line of the ledger is not a ledger line"),
    "clock-backwards": (errors.ClockError, "the clock runs behind the last recorded act"),
    "env-missing": (errors.DriftError, "a file of an installed environment is gone"),
    "env-changed": (errors.DriftError, "a file of an installed environment was changed"),
    "env-extra": (errors.DriftError, "a distribution or a file is installed that the environment does not name"),
    "env-absent": (errors.DriftError, "a distribution of the environment is not installed"),
    "env-python": (errors.DriftError, "the interpreter of an environment is gone or of another version"),
    "ambient-config": (errors.DriftError, "the machine's own pip or uv configuration is set; haversack ignores it, others do not"),
    "rule-around": (errors.DeclarationError, "a rule of a server guards files that another view shows to others"),
    "platform-setting": (errors.DeclarationError, "the settings of a platform name what is not declared, or contradict each other"),
    "values-key": (errors.DeclarationError, "a values file of helm has a key that its chart ignores, or a value that it cannot take"),
    "values-image": (errors.DeclarationError, "a values file of helm names an image that the site does not have, or asks another registry for it"),
    "platform-refuses": (errors.ToolError, "the platform would refuse what it is asked for"),
    "platform-unready": (errors.ToolError, "something that a platform needs at this site is not as it should be"),
    "platform-unknown": (errors.ToolError, "something that a platform needs at this site could not be found out"),
    "tool-missing": (errors.ToolError, "a program that haversack drives is not on this machine"),
    "target-none": (errors.NotFoundError, "no target of the environment fits this machine"),
}  # fmt: skip

_RANK = {code: rank for rank, code in enumerate(CODES)}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing a person should know.

    ``subject`` names the place (a file, a package, ``env.analysis.requirements[1]``), ``remedy`` what to
    do.  A finding that is not ``blocking`` is printed and changes no exit code.
    """

    code: str
    subject: str
    message: str
    remedy: str = ""
    blocking: bool = True

    def __post_init__(self) -> None:
        if self.code not in CODES:
            raise ValueError(f"unknown finding code {self.code!r}")

    def __str__(self) -> str:
        return f"{self.subject}: {self.message} [{self.code}]"


def unready(subject: str, message: str, remedy: str, *, blocking: bool = True) -> Finding:
    """The finding for what a platform needs at this site and is missing or wrong."""
    return Finding("platform-unready", subject, message, remedy, blocking=blocking)


def unknown(subject: str, message: str, remedy: str) -> Finding:
    """The finding for what could not be found out at this site."""
    return Finding("platform-unknown", subject, message, remedy, blocking=False)


def worst_first(findings: Iterable[Finding]) -> list[Finding]:
    """Blocking before not, then by severity, then by subject."""
    return sorted(findings, key=lambda f: (not f.blocking, _RANK[f.code], f.subject))


def raise_blocking(findings: Sequence[Finding], message: str, *, remedy: str = "") -> None:
    """Raise the error class of the worst blocking finding, carrying all findings; do nothing without one."""
    ordered = worst_first(findings)
    if not ordered or not ordered[0].blocking:
        return
    raise CODES[ordered[0].code][0](message, remedy=remedy, findings=ordered)
