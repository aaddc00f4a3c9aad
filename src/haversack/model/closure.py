"""The closure proof: whether some wheels are all that an environment needs on its target.

Nothing is resolved and nothing is asked of the machine this runs on: from the root requirements the proof
walks through what each wheel says of itself, with the markers, the tags and the Python of the target.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import cast

from packaging.markers import Marker
from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.tags import Tag
from packaging.utils import canonicalize_name, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from haversack.model.artifact import Artifact
from haversack.model.finding import Finding
from haversack.model.target import Target

REMEDY = "run: haversack lock, then pack again"
CHAIN = 6
"""Packages that a message names at most on the way from a root to what is needed."""

# A URL may hold a semicolon, but it ends at a space; nothing else before the marker may hold either.
_HALVES = re.compile(r"([^;@]*(?:@\s*\S+)?)\s*(?:;(.*))?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class _Need:
    """A requirement, and the project that has it (``None``: a root)."""

    requirement: Requirement
    by: str | None

    @property
    def name(self) -> str:
        return canonicalize_name(self.requirement.name)


@dataclass(slots=True)
class _Proof:
    """What one walk goes by, and how far it has come."""

    ref: str
    target: Target
    tags: AbstractSet[Tag]
    findings: list[Finding] = field(default_factory=list)
    # Version of each wheel that was reached, None where its file name says none.
    versions: dict[str, Version | None] = field(default_factory=dict)
    # The project through which each one was reached first, so that a message can say why it is here.
    through: dict[str, str | None] = field(default_factory=dict)
    # Parsing costs more than walking, and wheels repeat each other: every text is parsed once.
    markers: dict[str, Marker] = field(default_factory=dict)
    verdicts: dict[tuple[str, str], bool] = field(default_factory=dict)
    parsed: dict[str, Requirement] = field(default_factory=dict)
    invalid: set[tuple[str | None, str]] = field(default_factory=set)

    def add(self, code: str, name: str, message: str, *, blocking: bool = True) -> None:
        subject = f"{name} in {self.ref}"
        self.findings.append(Finding(code, subject, message, REMEDY if blocking else "", blocking))


def prove(
    roots: Sequence[str],
    artifacts: Sequence[Artifact],
    target: Target,
    *,
    ref: str,
    provided: Mapping[str, str] | None = None,
) -> list[Finding]:
    """Everything that keeps ``artifacts`` from being closed under ``roots`` on ``target``; empty if they are.

    ``roots`` are PEP 508 requirements, with extras and markers; one with a URL is met by a wheel of that
    name.  Each project that is reached needs exactly one wheel, of an allowed version (a pre-release too,
    since somebody locked it), with a tag and a ``Requires-Python`` that admit the target.  Wheels that
    nothing reaches do no harm.  A ``Requires-Dist`` or ``Requires-Python`` that is not valid, as some old
    wheels have them, is a finding that does not block: uv read it its own way when it locked, and an
    installation from the lock does not read it again.

    ``provided`` are the versions of what is there beside the wheels, by canonical name: it meets requirements,
    with any extra, and what it requires itself is for others to prove.  A version that is none by PEP 440
    meets all.
    """
    proof = _Proof(ref, target, frozenset(target.tags()))
    held = _by_name(artifacts, proof)
    there = provided or {}
    queue = deque(_needs(roots, "", None, proof))
    missing: dict[str, list[_Need]] = {}
    expanded: set[tuple[str, str]] = set()
    while queue:
        need = queue.popleft()
        name = need.name
        proof.through.setdefault(name, need.by)
        if name not in held and name in there:
            if not _meets(there[name], need.requirement):
                proof.add("closure-version", name, f"{_told(need, proof)}; the environment has {there[name]}")
            continue
        if name not in held:
            missing.setdefault(name, []).append(need)
            continue
        wheel = held[name]
        if name not in proof.versions:
            proof.versions[name] = _check(name, wheel, proof)
        version = proof.versions[name]
        if version and not need.requirement.specifier.contains(version, prereleases=True):
            proof.add("closure-version", name, f"{_told(need, proof)}; the bundle has {version}")
        for extra in ("", *sorted(map(canonicalize_name, need.requirement.extras))):
            if (name, extra) not in expanded:
                expanded.add((name, extra))
                queue.extend(_needs(wheel.facts.get("requires_dist", ()), extra, name, proof))
    for name, needs in missing.items():
        more = f", and so do {len(needs) - 1} more" if len(needs) > 1 else ""
        proof.add("closure-missing", name, f"{_told(needs[0], proof)}{more}; it is not in the bundle")
    return proof.findings


def _meets(version: str, requirement: Requirement) -> bool:
    try:
        return requirement.specifier.contains(Version(version), prereleases=True)
    except InvalidVersion:
        return True


def _by_name(artifacts: Sequence[Artifact], proof: _Proof) -> dict[str, Artifact]:
    """The wheel of each project; a second one of a project is a finding."""
    held: dict[str, Artifact] = {}
    for artifact in artifacts:
        if artifact.kind == "wheel":
            name = canonicalize_name(artifact.name)
            first = held.setdefault(name, artifact)
            if first is not artifact:
                message = f"{first.filename} and {artifact.filename} are both in the bundle; an environment holds one"
                proof.add("name-clash", name, message)
    return held


def _needs(texts: Sequence[str], extra: str, by: str | None, proof: _Proof) -> Iterator[_Need]:
    """What the requirements of a project, or the roots, ask of the target with that extra or none."""
    for text in texts:
        try:
            head, marker = _halves(text)
            if not _applies(marker, extra, proof):
                continue
            if head not in proof.parsed:
                proof.parsed[head] = Requirement(head)
        except ValueError:
            if (by, text) not in proof.invalid:
                proof.invalid.add((by, text))
                _add_invalid(texts, text, by, proof)
            continue
        yield _Need(proof.parsed[head], by)


def _halves(text: str) -> tuple[str, str]:
    """A requirement without its marker, and the marker.  Raises :class:`ValueError`."""
    match = _HALVES.fullmatch(text)
    if match is None:
        raise InvalidRequirement("neither a name nor a name and a URL")
    return match[1], (match[2] or "").strip()


def _applies(marker: str, extra: str, proof: _Proof) -> bool:
    """Whether a marker lets the target through, with that extra or none.  Raises :class:`ValueError`."""
    if not marker:
        return extra == ""  # whoever asks for an extra has been through the package without it
    if (marker, extra) not in proof.verdicts:
        if marker not in proof.markers:
            proof.markers[marker] = Marker(marker)
        environment = cast("dict[str, str]", {**proof.target.markers(), "extra": extra})
        proof.verdicts[marker, extra] = proof.markers[marker].evaluate(environment)
    return proof.verdicts[marker, extra]


def _add_invalid(texts: Sequence[str], text: str, by: str | None, proof: _Proof) -> None:
    """A requirement that is none; what may be a URL, and hold a password, stays out of the message."""
    if by is None:
        message = "it is no requirement, so nothing can be proven of it"
        proof.add("closure-missing", f"root {texts.index(text) + 1}", message)
    else:
        begin = re.match(r"\s*[\w.-]*", text)
        message = f"its Requires-Dist beginning with {begin[0] if begin else ''!r} is not valid"
        proof.add("wheel-invalid", by, message, blocking=False)


def _check(name: str, artifact: Artifact, proof: _Proof) -> Version | None:
    """Hold a wheel against the target, and say its version if its file name does."""
    version: Version | None = None
    try:
        said, version, _, tags = parse_wheel_filename(artifact.filename)
        if (said, version) != (name, Version(artifact.version)):
            message = f"{artifact.filename} is not of {artifact.name} {artifact.version}"
            proof.add("wheel-invalid", name, message)
        if proof.tags.isdisjoint(tags):
            message = f"{artifact.filename} does not run on {_machine(proof.target)}"
            proof.add("closure-tag", name, message)
    except ValueError as error:
        proof.add("wheel-invalid", name, f"its name or version cannot be read: {error}")
    python = proof.target.markers()["python_full_version"]
    wanted = artifact.facts.get("requires_python") or ""
    try:
        if not SpecifierSet(wanted).contains(python, prereleases=True):
            proof.add("closure-python", name, f"{artifact.filename} needs Python {wanted}, not {python}")
    except InvalidSpecifier:
        message = f"its Requires-Python {wanted!r} is not valid"
        proof.add("wheel-invalid", name, message, blocking=False)
    if "requires_dist" not in artifact.facts:
        proof.add("closure-missing", name, f"nobody has read what {artifact.filename} requires")
    return version


def _told(need: _Need, proof: _Proof) -> str:
    """``pandas 2.2.2 needs python-dateutil>=2.8 (app → pandas → python-dateutil)``, never with a URL."""
    requirement = need.requirement
    extras = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
    wanted = f"{requirement.name}{extras}{requirement.specifier}"
    if need.by is None:
        return f"{wanted} is asked for"
    chain = [need.name]
    step: str | None = need.by
    while step is not None and len(chain) < CHAIN:
        chain.append(step)
        step = proof.through[step]
    if step is not None:
        chain.append("…")
    version = proof.versions[need.by]
    whose = f"{need.by} {version}" if version else need.by
    return f"{whose} needs {wanted} ({' → '.join(reversed(chain))})"


def _machine(target: Target) -> str:
    libc = f" glibc {target.glibc}" if target.glibc else ""
    return f"{target.name} ({target.platform}{libc}, Python {target.python})"
