"""``kind = "pip"``: environments of Python wheels."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

from packaging.requirements import Requirement

from haversack.errors import DeclarationError
from haversack.formats import pylock, requirements, uv, uvlock, wheel
from haversack.formats.pylock import Pick
from haversack.formats.schema import Key, KindKeys
from haversack.kinds import Locked
from haversack.model import closure
from haversack.model.artifact import Artifact, Facts
from haversack.model.finding import Finding, worst_first
from haversack.model.lock import Lock, LockedEnvironment
from haversack.model.site import Environment, Site
from haversack.model.snapshot import SnapshotEnvironment
from haversack.model.target import Target
from haversack.ports import Inside, Outside, Store
from haversack.wheels import answer, drift, install, interpreter, resolve

LINES = "lines"
"""The setting that holds requirements of an environment that a platform needs; no declaration can write it."""
OPTIONAL = "optional"
"""The setting that holds more of them, which are left out where they cannot be had together with the others."""


class Pip:
    """Wheels, resolved by uv for the target, proven from their own metadata, installed by uv."""

    name = "pip"
    artifacts = ("wheel",)
    relocatable = True
    keys = KindKeys(
        "An environment of Python wheels.",
        {
            "requirements": Key("files", "Requirements files, as pip reads them.", includes=True),
            "project": Key(
                "folder",
                "A folder with a pyproject.toml whose dependencies are wanted.",
                holds=("pyproject.toml",),
            ),
            "lock": Key(
                "file",
                "A uv.lock or pylock.toml to take over as it is.",
                pattern=r"(?:.*/)?(?:uv\.lock|pylock(?:\.[^./]+)?\.toml)",
                expects="a uv.lock, pylock.toml or pylock.NAME.toml",
                beside={"uv.lock": "pyproject.toml"},
            ),
            "extras": Key("strings", "Extras of the project or lock.", only_with=("project", "lock")),
            "groups": Key(
                "strings", "Dependency groups of the project or lock.", only_with=("project", "lock")
            ),
            "build": Key(
                "boolean", "Build a wheel from a source distribution where there is none.", default=False
            ),
            "exclude-newer": Key(
                "date", "Ignore files uploaded after this day or moment; overrides the site's."
            ),
        },
        one_of=("requirements", "project", "lock"),
    )

    def lock(
        self, site: Site, environment: Environment, target: Target, held: Lock | None, out: Outside
    ) -> Locked:
        """See :class:`haversack.kinds.Kind`."""
        settings = dict(environment.settings)
        optional = settings.pop(OPTIONAL, ())
        if not optional:
            return self._lock(site, environment, target, held, out)
        whole = replace(environment, settings={**settings, LINES: (*settings[LINES], *optional)})
        answered = self._lock(site, whole, target, held, out)
        failed = worst_first(finding for finding in answered.findings if finding.blocking)
        if not failed:
            return answered
        answered = self._lock(site, replace(environment, settings=settings), target, held, out)
        worst, names = failed[0], ", ".join(Requirement(line).name for line in optional)
        said = f"left out: {worst.subject}: {worst.message}"
        subject = f"{names} in {environment.name}/{target.name}"
        left = Finding(worst.code, subject, said, worst.remedy, blocking=False)
        return replace(answered, findings=(*answered.findings, left))

    def _lock(
        self, site: Site, environment: Environment, target: Target, held: Lock | None, out: Outside
    ) -> Locked:
        settings = environment.settings
        ref = f"{environment.name}/{target.name}"
        roots = _roots(site.root, settings)
        locked = LockedEnvironment(environment.name, target.name, self.name, roots, environment.check)
        if "lock" in settings:
            picks, findings = _take_over(site.root / settings["lock"], settings, target, ref, out)
        else:
            picks, findings = resolve.resolve(_question(site, environment, target, held, ref), out)
        newer = settings.get("exclude_newer", site.exclude_newer)
        who = answer.Answered(site, ref, target, newer, bool(settings.get("build")))
        artifacts, more = answer.wheels(picks, who, out)
        findings = [*findings, *more]
        findings += _refused(
            site.root, settings, [a for a in artifacts if not a.origin.startswith("built:")], ref
        )
        return Locked(locked, tuple(artifacts), tuple(findings))

    def inspect(self, artifact: Artifact, file: BinaryIO) -> tuple[Facts, list[Finding]]:
        """See :class:`haversack.kinds.Kind`."""
        return wheel.inspect(file, artifact.filename)

    def prove(self, environment: SnapshotEnvironment) -> list[Finding]:
        """See :class:`haversack.kinds.Kind`."""
        wheels = [artifact for artifact in environment.artifacts if artifact.kind == "wheel"]
        # Every locked package is a root: what uv chose must be there whole, not only what was asked for.
        roots = [f"{artifact.name}=={artifact.version}" for artifact in wheels]
        return closure.prove(
            [*environment.locked.roots, *roots], wheels, environment.target, ref=environment.ref
        )

    def borrows(self, environment: SnapshotEnvironment, inside: Inside) -> str | None:
        """See :class:`haversack.kinds.Kind`."""
        return interpreter.minor_for(environment, inside)

    def install(
        self,
        environment: SnapshotEnvironment,
        prefix: Path,
        python: Path | None,
        inside: Inside,
        *,
        home: Path,
        compile_bytecode: bool,
    ) -> None:
        """See :class:`haversack.kinds.Kind`."""
        assert python is not None
        install.install(environment.artifacts, prefix, python, inside, compile_bytecode=compile_bytecode)

    def settle(self, environment: SnapshotEnvironment, prefix: Path, inside: Inside) -> None:
        """See :class:`haversack.kinds.Kind`; a virtual environment is at home anywhere."""

    def check(
        self, environment: SnapshotEnvironment, prefix: Path, inside: Inside, *, caged: bool
    ) -> list[Finding]:
        """See :class:`haversack.kinds.Kind`."""
        command = environment.locked.check
        return install.check(environment.artifacts, prefix, command, environment.ref, inside, caged=caged)

    def drift(self, environment: SnapshotEnvironment, prefix: Path, store: Store) -> list[Finding]:
        """See :class:`haversack.kinds.Kind`."""
        return drift.drift(prefix, environment.artifacts, store)


def _roots(root: Path, settings: Any) -> tuple[str, ...]:
    """What people asked for, in their words; a lock that they had already says only what it resolved to."""
    found = requirements.plain(settings.get(LINES, ()))
    for name in settings.get("requirements", ()):
        found += requirements.of_file(name, lambda path: (root / path).read_bytes())
    if "project" in settings:
        project = tomllib.loads((root / settings["project"] / "pyproject.toml").read_text(encoding="utf-8"))
        found += requirements.of_project(project, settings.get("extras", ()), settings.get("groups", ()))
    return tuple(sorted(set(found)))


def _refused(root: Path, settings: Any, artifacts: Sequence[Artifact], ref: str) -> list[Finding]:
    """A finding for each file that is not among those whose hashes a requirements file names."""
    allowed: dict[str, set[str]] = {}
    for name in settings.get("requirements", ()):
        for project, digests in requirements.hashes_of_file(
            name, lambda path: (root / path).read_bytes()
        ).items():
            allowed.setdefault(project, set()).update(digests)
    return [
        Finding(
            "hash-refused",
            f"{artifact.filename} in {ref}",
            "is none of the files whose hashes the requirements file names",
            "ask why the index gives another file, or lock the requirements file again",
        )
        for artifact in artifacts
        if artifact.name in allowed and artifact.digest not in allowed[artifact.name]
    ]


def _question(
    site: Site, environment: Environment, target: Target, held: Lock | None, ref: str
) -> resolve.Question:
    """What to ask uv for requirements files or a project."""
    settings = environment.settings
    inputs: list[str] = list(settings.get("requirements", ()))
    if "project" in settings:
        project = f"{settings['project'].rstrip('/')}/pyproject.toml"
        inputs.append(project)
        for extra in settings.get("extras", ()):
            inputs += ["--extra", extra]
        for group in settings.get("groups", ()):
            inputs += ["--group", f"{project}:{group}"]
    pins = (
        [(a.name, a.version) for a in held.artifacts if ref in a.members and a.kind == "wheel"]
        if held
        else []
    )
    return resolve.Question(
        subject=ref,
        root=site.root,
        inputs=tuple(inputs),
        target=target,
        indexes=site.indexes,
        exclude_newer=settings.get("exclude_newer", site.exclude_newer),
        pins=tuple(pins),
        build=bool(settings.get("build")),
        lines=settings.get(LINES, ()),
    )


def _take_over(
    path: Path, settings: Any, target: Target, ref: str, out: Outside
) -> tuple[list[Pick], list[Finding]]:
    """What a lock that people already have gives the target; no version is resolved anew."""
    extras: Sequence[str] = settings.get("extras", ())
    groups: Sequence[str] = settings.get("groups", ())
    if path.name == "uv.lock":
        data = _exported(path, extras, groups, out)
        extras = groups = ()
    else:
        data = path.read_bytes()
    picks, findings = pylock.select(pylock.read(data, str(path)), target, ref, extras=extras, groups=groups)
    return [resolve.absolute(pick, path.parent) for pick in picks], findings


def _exported(path: Path, extras: Sequence[str], groups: Sequence[str], out: Outside) -> bytes:
    """A ``uv.lock`` as a pylock file, without the project itself and without resolving anything."""
    missing = uvlock.stale(path.read_bytes(), (path.parent / "pyproject.toml").read_bytes())
    if missing:
        raise DeclarationError(
            f"does not answer its pyproject.toml any more: {', '.join(missing)} differ",
            where=str(path),
            remedy="run: uv lock",
        )
    words = [f"--extra={extra}" for extra in extras] + [f"--group={group}" for group in groups]
    done = out.run(
        [
            *(
                "uv",
                "export",
                "--frozen",
                "--offline",
                "--format",
                "pylock.toml",
                "--no-header",
                "--quiet",
                "--no-config",
            ),
            *("--no-default-groups", "--no-emit-project", "--python", str(out.python), *words),
        ],
        cwd=path.parent,
    )
    if done.code:
        raise DeclarationError(
            f"uv cannot read it: {uv.redact(done.err.strip())}", where=str(path), remedy="run: uv lock"
        )
    try:
        tomllib.loads(done.out)
    except ValueError as problem:
        raise DeclarationError(f"uv exported something unreadable: {problem}", where=str(path)) from problem
    return done.out.encode()


KIND = Pip()
