"""What each way of asking for conda packages comes to on a target."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from packaging.utils import parse_wheel_filename

from haversack.conda import asking, pypi, taking
from haversack.errors import DeclarationError
from haversack.formats import condalock, environmentyml, explicit, pixipack, yaml
from haversack.formats.pylock import Pick
from haversack.model.artifact import Artifact, hex_of
from haversack.model.finding import Finding
from haversack.model.lock import Lock
from haversack.model.site import Environment, Site
from haversack.model.target import Target
from haversack.ports import Outside
from haversack.wheels import answer


@dataclass(frozen=True, slots=True)
class Order:
    """An environment of a site to be locked on a target, and the lock that there was."""

    site: Site
    environment: Environment
    target: Target
    held: Lock | None

    @property
    def ref(self) -> str:
        """``name/target``."""
        return f"{self.environment.name}/{self.target.name}"

    @property
    def who(self) -> answer.Answered:
        """Who asks for wheels."""
        settings = self.environment.settings
        newer = settings.get("exclude_newer", self.site.exclude_newer)
        return answer.Answered(self.site, self.ref, self.target, newer, bool(settings.get("build")))


@dataclass(slots=True)
class Found:
    """The packages of an environment, what was asked for in its own words, and what is wrong."""

    roots: tuple[str, ...] = ()
    artifacts: list[Artifact] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    variables: Mapping[str, str] = field(default_factory=dict)

    def take(self, found: tuple[Sequence[Artifact], Sequence[Finding]]) -> None:
        """Add some packages, and what is wrong with others."""
        self.artifacts += found[0]
        self.findings += found[1]


def kept(settings: Mapping[str, Any], variables: Mapping[str, str]) -> dict[str, Any]:
    """What an installation inside has to know of the declaration."""
    found: dict[str, Any] = {}
    if "link_scripts" in settings:
        found["link_scripts"] = sorted(settings["link_scripts"])
    if variables:
        found["variables"] = dict(variables)
    return found


def from_file(name: str, order: Order, out: Outside) -> Found:
    """An ``environment.yml``, an ``@EXPLICIT`` file or a ``conda-lock.yml``, whichever the file is."""
    data = (order.site.root / name).read_bytes()
    if re.search(rb"^@EXPLICIT\s*$", data, re.MULTILINE):
        return _from_explicit(data, name, order, out)
    if _is_conda_lock(data, name):
        return _from_conda_lock(data, name, order, out)
    return _from_environment(data, name, order, out)


def _is_conda_lock(data: bytes, name: str) -> bool:
    """Whether YAML is a ``conda-lock.yml`` rather than an ``environment.yml``, by its keys."""
    keys = ("metadata", "package")
    # A lock is long, and YAML read slowly: mostly its keys stand at the margin.
    if all(re.search(rb"^%b:" % key.encode(), data, re.MULTILINE) for key in keys):
        return True
    if not all(key.encode() in data for key in keys):
        return False
    raw = yaml.load(data, name)
    return isinstance(raw, dict) and all(key in raw for key in keys)


def _from_environment(data: bytes, name: str, order: Order, out: Outside) -> Found:
    told = environmentyml.read(data, name)
    settings = order.environment.settings
    called = settings.get("channels") or told.channels
    if not called:
        raise DeclarationError(
            "names no channel", where=name, remedy="write channels: in it, or channels = [...] in [env.X]"
        )
    urls = dict.fromkeys(asking.channel_url(channel, order.site, name) for channel in called)
    specs = [_spelled(spec, order.site, name) for spec in told.specs]
    held = asking.held_by(order.held, order.ref)
    found = Found(roots=_roots(told), variables=told.variables)
    question = asking.wish(order.site, tuple(urls), specs, order.target, held, settings)
    found.take(asking.solve(question, order.target, order.ref, out))
    if told.pip and not found.findings:
        folder = (order.site.root / name).parent
        pins = [
            a
            for a in (order.held.artifacts if order.held else ())
            if a.kind == "wheel" and order.ref in a.members
        ]
        found.take(pypi.wheels(told.pip, folder, found.artifacts, pins, order.who, out))
    return found


def _roots(told: environmentyml.EnvironmentFile) -> tuple[str, ...]:
    """What people asked for, in their words."""
    return tuple(sorted({*told.specs, *(f"pip: {line}" for line in told.pip)}))


def _spelled(spec: str, site: Site, where: str) -> str:
    """A specification whose channel, if it names one, is an address.

    Raises ``DeclarationError`` for one that is or holds an address, which may hold a secret: it is not repeated.
    """
    channel, mark, rest = spec.rpartition("::")
    if "://" in rest:
        raise DeclarationError(
            "a dependency names a package or a channel by its address",
            where=where,
            remedy="declare the channel and write NAME::package, or name packages by address in an @EXPLICIT file",
        )
    return f"{asking.channel_url(channel, site, where)}::{rest}" if mark else spec


def _from_explicit(data: bytes, name: str, order: Order, out: Outside) -> Found:
    entries = explicit.read(data, name)
    chosen = [taking.Chosen(entry.url, entry.md5, entry.sha256) for entry in entries]
    found = Found()
    found.take(taking.by_address(chosen, order.target, order.ref, out))
    return found


def _from_conda_lock(data: bytes, name: str, order: Order, out: Outside) -> Found:
    lock = condalock.read(data, name)
    found = Found()
    subdir = order.target.subdir
    if subdir not in lock.platforms:
        message = f"{name} has nothing for {subdir}; it has {', '.join(lock.platforms) or 'no platform'}"
        remedy = f"run: conda-lock lock --platform {subdir}"
        found.findings.append(Finding("lock-platform", order.ref, message, remedy))
        return found
    mine = lock.on(subdir, order.environment.settings.get("categories", ("main",)))
    conda = [taking.Chosen(p.url, p.md5, p.sha256) for p in mine if p.manager == "conda"]
    found.take(taking.by_address(conda, order.target, order.ref, out))
    picks = [_pick(p.name, p.version, p.url, p.sha256 or "") for p in mine if p.manager == "pip"]
    found.take(answer.wheels(picks, order.who, out))
    return found


def _pick(name: str, version: str, url: str, digest: str) -> Pick:
    filename = posixpath.basename(url)
    return Pick(name, version, filename, url, digest, None, filename.endswith(".whl"))


def from_prefix(prefix: Path, order: Order, out: Outside) -> Found:
    """The packages of an environment on this machine, and its wheels at their very versions."""
    found = Found()
    found.take(taking.installed(prefix, order.target, order.ref, out))
    lines = taking.installed_wheels(prefix)
    if lines and not found.findings:
        found.take(pypi.wheels(lines, order.site.root, found.artifacts, (), order.who, out))
    return found


def from_archive(name: str, order: Order, out: Outside) -> Found:
    """What pixi-pack packed: its files go into the store at once, since nobody wrote down where they came from."""
    path = order.site.root / name
    with path.open("rb") as file:
        pack = pixipack.read(file, name)
        found = Found(roots=_roots(pack.environment))
        if pack.platform != order.target.subdir:
            message = (
                f"{name} is for {pack.platform}, and the target {order.target.name} is {order.target.subdir}"
            )
            remedy = f"make one for it too: pixi-pack --platform {order.target.subdir}"
            found.findings.append(Finding("lock-platform", order.ref, message, remedy))
            return found
        wanted = {one.path: one for one in (*pack.packages, *pack.wheels)}
        file.seek(0)
        for member, _, chunks in pixipack.members(file, name):
            if member in wanted:
                out.store.add(wanted[member].digest, chunks())
    # A channel that nobody can ask: the archive kept no address of the real one.
    channel = f"file:///pixi-pack/{order.environment.name}"
    records = [
        {
            **one.record,
            "channel": channel,
            "url": f"{channel}/{one.record['subdir']}/{one.filename}",
            "sha256": hex_of(one.digest),
            "size": one.size,
        }
        for one in pack.packages
        if one.record is not None
    ]
    found.take(asking.to_artifacts(records, order.ref))
    found.artifacts = [replace(artifact, origin=f"archive:{name}") for artifact in found.artifacts]
    for one in pack.wheels:
        project, version, *_ = parse_wheel_filename(one.filename)
        found.artifacts.append(
            Artifact(
                "wheel",
                project,
                str(version),
                one.filename,
                one.digest,
                one.size,
                f"archive:{name}",
                (order.ref,),
            )
        )
    return found
