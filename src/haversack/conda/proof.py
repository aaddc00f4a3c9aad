"""The closure proof of conda packages: nothing but them, and what the target says of itself, is solved for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache

from packaging.utils import canonicalize_name

from haversack.conda import engine
from haversack.conda.distributions import provided, python_target
from haversack.conda.layout import name_of, record
from haversack.conda.settling import allowed
from haversack.errors import IntegrityError, ResolutionError
from haversack.formats.repodata import record_of
from haversack.model import closure
from haversack.model.artifact import Artifact
from haversack.model.finding import Finding
from haversack.model.snapshot import SnapshotEnvironment

# What a virtual package means, and the key of a target that says it.
_VIRTUAL = {
    "__cuda": ("a CUDA driver", "cuda"),
    "__glibc": ("the GNU C library", "glibc"),
    "__linux": ("Linux", "kernel"),
    "__unix": ("a Unix", "platform"),
    "__osx": ("macOS", "macos"),
    "__win": ("Windows", "platform"),
    "__archspec": ("a processor", "archspec"),
}


def prove(environment: SnapshotEnvironment) -> list[Finding]:
    """Everything that keeps the packages of an environment from being whole on its target; empty if they are.

    Every record is a root, at its very build: the solver has to find each of them possible beside all others,
    with the virtual packages of the target and with nothing else.  Then wheels are walked through
    (:func:`haversack.model.closure.prove`), with what conda packages bring of Python's counted as present.
    Link scripts that nobody allowed are findings that do not block.
    """
    packages = [artifact for artifact in environment.artifacts if artifact.kind == "conda"]
    findings = list(_misfits(packages, environment))
    if not any(finding.blocking for finding in findings):
        findings += _solved(packages, environment)
    findings += _scripts(packages, environment)
    return findings + _wheels(packages, environment)


def _misfits(packages: Sequence[Artifact], environment: SnapshotEnvironment) -> Iterator[Finding]:
    """Packages that cannot be solved with: without a record, for another platform, or two of one name."""
    first: dict[str, Artifact] = {}
    for package in packages:
        subject = f"{package.name} in {environment.ref}"
        other = first.setdefault(package.name, package)
        if other is not package:
            told = f"{other.filename} and {package.filename} are both in the bundle; an environment holds one"
            yield Finding("name-clash", subject, told, closure.REMEDY)
        subdir = package.facts.get("subdir")
        if subdir not in (None, environment.target.subdir, "noarch"):
            told = f"{package.filename} is for {subdir}, not for {environment.target.subdir}"
            yield Finding("closure-tag", subject, told, closure.REMEDY)
        try:
            known = record_of(package)
        except IntegrityError as problem:
            yield Finding("closure-missing", subject, f"its record is malformed: {problem}", closure.REMEDY)
            continue
        if not isinstance(known.get("build"), str):
            told = f"nobody knows what the channel said of {package.filename}"
            yield Finding("closure-missing", subject, told, closure.REMEDY)


def _solved(packages: Sequence[Artifact], environment: SnapshotEnvironment) -> list[Finding]:
    """What the solver has against the packages."""
    records = [record_of(package) for package in packages]
    specs = [f"{one['name']}=={one['version']}={one['build']}" for one in records]
    if not specs:
        return []
    try:
        engine.solve(specs, records, environment.target.virtual_packages())
    except ResolutionError as problem:
        missing = list(_virtual(packages, environment))
        if missing:
            return missing
        told = f"the packages alone cannot be solved: {problem.message}"
        return [Finding("closure-missing", environment.ref, told, closure.REMEDY)]
    return []


def _virtual(packages: Sequence[Artifact], environment: SnapshotEnvironment) -> Iterator[Finding]:
    """Which package wants of the target what it does not say of itself, each asked on its own."""
    virtual = environment.target.virtual_packages()

    @cache
    def told_by_target(spec: str) -> bool:
        # Hundreds of packages want the same of their machine, and each solve reads files of its own.
        try:
            engine.solve([spec], [], virtual)
        except ResolutionError:
            return False
        return True

    for package in packages:
        wanted = [spec for spec in record(package).get("depends") or () if name_of(spec).startswith("__")]
        for spec in wanted:
            if not told_by_target(spec):
                name = name_of(spec)
                means, key = _VIRTUAL.get(name, ("what conda calls " + name, name.strip("_")))
                has = next((f"{v.version} {v.build}" for v in virtual if v.name == name), None)
                told = (
                    f"its target says {has.removesuffix(' 0')}" if has else "its target says nothing of one"
                )
                yield Finding(
                    "closure-missing",
                    f"{package.name} in {environment.ref}",
                    f"{package.filename} needs {means} ({spec}), and {told}",
                    f"declare {key} in [target.{environment.target.name}] as the machines have it, or choose "
                    "a build that does not need it",
                )


def _scripts(packages: Sequence[Artifact], environment: SnapshotEnvironment) -> Iterator[Finding]:
    """Link scripts that will not run, and names that were allowed for nothing."""
    names = set(allowed(environment))
    for package in packages:
        held = package.facts.get("scripts") or ()
        for kind in ("pre-link", "post-link"):
            if kind in held and not (kind == "post-link" and package.name in names):
                never = "; a pre-link script never runs, it would do so before anything is there"
                yield Finding(
                    "conda-script",
                    f"{package.filename} in {environment.ref}",
                    f"has a {kind} script that will not run" + (never if kind == "pre-link" else ""),
                    f'read it, then allow it: link-scripts = ["{package.name}"]'
                    if kind == "post-link"
                    else "",
                    blocking=False,
                )
    idle = names - {package.name for package in packages if "post-link" in package.facts.get("scripts", ())}
    for name in sorted(idle):
        told = "is allowed a post-link script, and no package of that name has one"
        yield Finding("conda-script", f"{name} in {environment.ref}", told, "", blocking=False)


def _wheels(packages: Sequence[Artifact], environment: SnapshotEnvironment) -> list[Finding]:
    """The closure of the wheels beside the packages."""
    wheels = [artifact for artifact in environment.artifacts if artifact.kind == "wheel"]
    if not wheels:
        return []
    target = python_target(packages, environment.target)
    if target is None:
        told = "wheels are locked for it, and no package brings a Python"
        return [Finding("closure-missing", f"python in {environment.ref}", told, closure.REMEDY)]
    present = provided(packages)
    findings = [
        Finding(
            "name-clash",
            f"{wheel.name} in {environment.ref}",
            f"{wheel.filename} would replace files of a conda package that is {wheel.name} too",
            "take one of them out, or depend on the conda package alone",
        )
        for wheel in wheels
        if canonicalize_name(wheel.name) in present
    ]
    roots = [f"{wheel.name}=={wheel.version}" for wheel in wheels]
    return findings + closure.prove(roots, wheels, target, ref=environment.ref, provided=present)
