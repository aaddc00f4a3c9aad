"""``kind = "pixi"``: an environment of a pixi project, as its ``pixi.lock`` has it, and the project's own files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from haversack.conda.linked import Linked
from haversack.errors import DeclarationError
from haversack.formats.schema import Key, KindKeys
from haversack.formats.strict import Place, files_below
from haversack.kinds import Locked
from haversack.model.artifact import Artifact, digest_of, flat_name, is_safe_filename
from haversack.model.finding import Finding
from haversack.model.lock import Lock, LockedEnvironment
from haversack.model.site import Environment, Site
from haversack.model.target import Target
from haversack.ports import Outside

_MANIFESTS = ("pixi.toml", "pyproject.toml", "mojoproject.toml")


class Pixi(Linked):
    """What pixi locked, taken over as it is: nothing is solved anew."""

    name = "pixi"
    artifacts = ("conda", "wheel", "file")
    keys = KindKeys(
        "An environment of a pixi project.",
        {
            "file": Key(
                "file",
                "The project's pixi.lock.",
                pattern=r"(?:.*/)?pixi\.lock",
                expects="a pixi.lock (without one, run: pixi lock)",
                made_by="pixi lock",
            ),
            "environment": Key("string", "Name of the environment in the lock; default without this key."),
            "platform": Key(
                "string", "Name of the platform in the lock, where it has several for one system."
            ),
            "sources": Key("folders", "Folders of the project that cross with its pixi.toml and pixi.lock."),
            "link-scripts": Key(
                "strings", "Packages whose post-link script may run when the environment is installed."
            ),
            "build": Key(
                "boolean", "Build a wheel from a source distribution where there is none.", default=False
            ),
        },
        one_of=("file",),
    )

    def lock(
        self, site: Site, environment: Environment, target: Target, held: Lock | None, out: Outside
    ) -> Locked:
        """See :class:`haversack.kinds.Kind`."""
        from haversack.conda import asking, distributions, locking, pixilock
        from haversack.wheels import answer, resolve

        settings = environment.settings
        order = locking.Order(site, environment, target, held)
        ref, path = order.ref, site.root / settings["file"]
        locked = LockedEnvironment(
            environment.name, target.name, self.name, (), environment.check, locking.kept(settings, {})
        )
        names = _names(site.root, settings)
        for name in names:
            if PurePosixPath(name).name in {path.name, *_MANIFESTS}:
                pixilock.refuse_secrets((site.root / name).read_bytes(), name)
        lock = pixilock.read(path)
        wanted = settings.get("environment", "default")
        if wanted not in lock.environments:
            raise DeclarationError(
                f"has no environment {wanted!r}; it has {', '.join(lock.environments)}",
                where=settings["file"],
                remedy="correct `environment`, or run: pixi lock",
            )
        platform = settings.get("platform", target.subdir)
        packages = lock.packages(wanted, platform)
        if packages is None:
            known = ", ".join(lock.platforms(wanted)) or "no platform"
            message = f"{settings['file']} locks {wanted} for {known}, not for {platform}"
            remedy = f'add "{target.subdir}" to platforms in pixi.toml and run: pixi lock'
            return Locked(locked, (), (Finding("lock-platform", ref, message, remedy),))
        artifacts, findings = asking.to_artifacts(packages.records, ref)
        who = replace(order.who, target=distributions.python_target(artifacts, target) or target)
        picks = [resolve.absolute(pick, path.parent) for pick in packages.picks]
        wheels, more = answer.wheels(picks, who, out)
        findings += [*more, *_left(packages, settings, ref)]
        files, more = _project(site.root, names, settings, ref)
        return Locked(locked, (*artifacts, *wheels, *files), (*findings, *more))


def _left(packages: Any, settings: Mapping[str, Any], ref: str) -> Iterator[Finding]:
    """What is in the lock and cannot be installed from files alone."""
    for name, reason in packages.foreign:
        remedy = "publish a wheel or a package of it, and lock that"
        yield Finding("source-unsupported", f"{name} in {ref}", reason, remedy)
    sources = settings.get("sources", ())
    project = PurePosixPath(settings["file"]).parent
    for name, location in packages.sources:
        place = (project / location).as_posix()
        if any(PurePosixPath(place).is_relative_to(folder) for folder in sources) or (
            sources and place == project.as_posix()
        ):
            message = (
                f"is the project's own folder {place}: it crosses as source, and pixi installs it from there"
            )
            remedy = "install it with pixi from the exported project, or publish a wheel of it"
            yield Finding("source-unsupported", f"{name} in {ref}", message, remedy, blocking=False)
        else:
            message = f"is the folder {place}, which no key `sources` names"
            remedy = f'add sources = ["{place}"], so that it crosses with the project'
            yield Finding("source-unsupported", f"{name} in {ref}", message, remedy)


def _names(root: Path, settings: Mapping[str, Any]) -> list[str]:
    """The paths of the project's own files, relative to the declaration: lock, manifest, source folders."""
    lock = PurePosixPath(settings["file"])
    names = [settings["file"]]
    names += [name for m in _MANIFESTS if (root / (name := (lock.parent / m).as_posix())).is_file()]
    for folder in settings.get("sources", ()):
        names += files_below(root, folder, Place(root, "haversack.toml"))
    return list(dict.fromkeys(names))


def _project(
    root: Path, names: Iterable[str], settings: Mapping[str, Any], ref: str
) -> tuple[list[Artifact], list[Finding]]:
    """The project's own files, by their path within the project."""
    lock = PurePosixPath(settings["file"])
    artifacts: list[Artifact] = []
    findings: list[Finding] = []
    for name in names:
        path = PurePosixPath(name)
        inner = path.relative_to(lock.parent).as_posix() if path.is_relative_to(lock.parent) else None
        # Every path is one plain name, and no two paths the same one.
        filename = flat_name(inner or "")
        if inner is None or not is_safe_filename(filename):
            message = (
                "lies outside the project" if inner is None else "has a name that not every system takes"
            )
            remedy = "name only folders beside pixi.lock, with plain names in them"
            findings.append(Finding("path-unsafe", f"{name} in {ref}", message, remedy))
            continue
        data = (root / name).read_bytes()
        facts = {"path": inner} | ({"executable": True} if (root / name).stat().st_mode & 0o111 else {})
        artifacts.append(
            Artifact("file", inner, "", filename, digest_of(data), len(data), f"path:{name}", (ref,), facts)
        )
    return artifacts, findings


KIND = Pixi()
