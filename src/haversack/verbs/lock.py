"""``haversack lock``: from a declaration to the exact files that answer it."""

from __future__ import annotations

import importlib.metadata
import posixpath
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from importlib import resources
from urllib.parse import unquote, urlsplit

from packaging.requirements import Requirement

from haversack.formats import lockfile, selfwheel
from haversack.kinds import Locked, kinds
from haversack.model.artifact import Artifact, digest_of, is_safe_filename
from haversack.model.finding import Finding, raise_blocking, worst_first
from haversack.model.lock import TOOL, Lock, LockedEnvironment, merge_artifacts
from haversack.model.site import Environment, Site
from haversack.model.target import ANY, Target
from haversack.ports import Outside
from haversack.verbs.needs import completed, faults
from haversack.wheels import resolve

# uv is busy with the network most of the time, and opens many connections: more of it at once makes name
# servers and indexes drop requests, each of which costs a time-out.
_AT_ONCE = 4
_TOOL_PYTHON = "3.11"


@dataclass(frozen=True, slots=True)
class Answer:
    """What ``lock`` found: the lock, whether it differs from the one before, and what to know about it.

    ``added`` says, a line each, what platforms need and the declaration did not name.
    """

    lock: Lock
    data: bytes
    changed: bool
    findings: tuple[Finding, ...]
    added: tuple[str, ...] = ()


def lock(site: Site, held: Lock | None, out: Outside, *, upgrade: bool = False) -> Answer:
    """Lock every environment of a site on each of its targets, all at the same time.

    Versions of ``held`` are kept where the declaration still allows them, unless ``upgrade``.  Raises the
    error of the worst finding, with all of them, when an environment cannot be locked.
    """
    kept = None if upgrade else held
    site, added, unmet = completed(site)
    site = site.on(out.machine)
    # Before an hour of fetching for what cannot be.
    unmet += faults(site)
    raise_blocking(worst_first(unmet), f"{site.name} cannot be locked", remedy="see the findings")
    jobs = [(environment, name) for environment in site.environments for name in environment.targets]
    tools = _tool_targets(
        [site.target(name) for _, name in jobs if name != ANY.name] or [*site.targets, out.machine]
    )
    with (
        out.store.exclusive(),
        out.progress("locking", len(jobs) + len(tools), "") as advance,
        ThreadPoolExecutor(_AT_ONCE) as pool,
    ):

        def one(job: tuple[Environment, str]) -> Locked:
            environment, name = job
            locked = kinds()[environment.kind].lock(site, environment, site.target(name), kept, out)
            advance(1)
            return locked

        pending = [pool.submit(one, job) for job in jobs]
        # Made while uv waits for the index.
        own = own_wheel(out)

        def tool(target: Target) -> Locked:
            locked = _tool(site, target, own, kept, out)
            advance(1)
            return locked

        # The tool's targets are few and share their resolution with nobody: they go in the same pool.
        pending += [pool.submit(tool, target) for target in tools]
        results = [future.result() for future in pending]
    findings = worst_first(dict.fromkeys([*unmet, *(f for result in results for f in result.findings)]))
    raise_blocking(findings, f"{site.name} cannot be locked", remedy="see the findings")
    targets = {site.target(name) for _, name in jobs} | set(tools)
    made = Lock(
        site=site.name,
        declaration=site.digest,
        targets=tuple(sorted(targets, key=lambda t: t.name)),
        environments=tuple(sorted((r.environment for r in results), key=lambda e: e.ref)),
        artifacts=merge_artifacts([*(a for r in results for a in r.artifacts), *_interpreters(site, jobs)]),
    )
    made = _with_known_sizes(made, held)
    data = lockfile.write(made)
    return Answer(made, data, held is None or lockfile.write(held) != data, tuple(findings), added)


def _with_known_sizes(made: Lock, held: Lock | None) -> Lock:
    """Keep the sizes that an earlier lock knew and an index does not tell."""
    known = {a.digest: a.size for a in held.artifacts if a.size is not None} if held else {}
    artifacts = tuple(
        replace(a, size=known[a.digest]) if a.size is None and a.digest in known else a
        for a in made.artifacts
    )
    return replace(made, artifacts=artifacts)


def _interpreters(site: Site, jobs: list[tuple[Environment, str]]) -> list[Artifact]:
    """The interpreter archives of targets, as artifacts of every environment on them."""
    found = []
    for target, interpreter in site.interpreters.items():
        members = tuple(f"{environment.name}/{name}" for environment, name in jobs if name == target)
        filename = posixpath.basename(unquote(urlsplit(interpreter.url.removeprefix("path:")).path))
        assert is_safe_filename(filename)
        python = site.target(target).python
        tools = tuple(f"{TOOL}/{t.name}" for t in _tool_targets([site.target(target)]))
        found.append(
            Artifact(
                "interpreter",
                "python",
                python,
                filename,
                interpreter.digest,
                None,
                interpreter.url,
                (*members, *tools),
            )
        )
    return found


def _tool_targets(targets: list[Target]) -> list[Target]:
    """One target for each platform that haversack itself must run on, with the oldest system library of it.

    Everything haversack needs is pure or abi-agnostic, so one environment serves any Python from 3.11 on.
    """
    oldest: dict[str, Target] = {}
    for target in targets:
        known = oldest.get(target.platform)
        if known is None or target.runs_on(known):
            oldest[target.platform] = target
    return [
        Target(name=platform, platform=platform, python=_TOOL_PYTHON, glibc=target.glibc, macos=target.macos)
        for platform, target in sorted(oldest.items())
    ]


def _tool(site: Site, target: Target, own: Artifact, held: Lock | None, out: Outside) -> Locked:
    """haversack itself as one more environment: its own wheel, and what that requires."""
    distribution = importlib.metadata.distribution("haversack")
    requires = [line for line in distribution.requires or () if "extra ==" not in line]
    environment = LockedEnvironment(TOOL, target.name, "pip", (f"haversack=={distribution.version}",))
    pins = [(a.name, a.version) for a in held.artifacts if environment.ref in a.members] if held else []
    question = resolve.Question(
        environment.ref,
        site.root,
        (),
        target,
        site.indexes,
        pins=tuple(pins),
        lines=tuple(str(Requirement(line)) for line in requires),
    )
    picks, findings = resolve.resolve(question, out)
    artifacts, more = resolve.to_artifacts(picks, environment.ref, site.root)
    mine = replace(own, members=(environment.ref,))
    return Locked(environment, (mine, *artifacts), (*findings, *more))


def own_wheel(out: Outside) -> Artifact:
    """haversack's own wheel, made from the installed package and put into the store."""
    distribution = importlib.metadata.distribution("haversack")
    metadata, entry_points = (distribution.read_text(name) or "" for name in ("METADATA", "entry_points.txt"))
    texts = [file for file in distribution.files or () if ".dist-info/licenses/" in file.as_posix()]
    licenses = {file.as_posix().partition("/licenses/")[2]: file.read_binary() for file in texts}
    filename, data = selfwheel.own_wheel(resources.files("haversack"), metadata, entry_points, licenses)
    digest = digest_of(data)
    out.store.add(digest, [data])
    return Artifact("wheel", "haversack", distribution.version, filename, digest, len(data), "self:haversack")
