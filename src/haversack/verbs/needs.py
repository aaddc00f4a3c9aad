"""What platforms need, added to what people declared, before anything is locked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from haversack.images.reference import Reference
from haversack.kinds import kinds
from haversack.kinds.file import name_of
from haversack.model.finding import Finding
from haversack.model.site import Environment, Site
from haversack.model.target import ANY, Target
from haversack.platforms import KIND, platforms


def completed(site: Site) -> tuple[Site, tuple[str, ...], list[Finding]]:
    """The site with all that its platforms need, a line for each thing that was added, and what to know.

    What people declared is never replaced: their file, image or environment of the same name is taken, and a
    finding says so where it is another one.  Targets that only a platform names are added to the site's.
    """
    # A project may have the name of an environment.
    environments = {
        (_stands(environment), environment.name): environment for environment in site.environments
    }
    targets = {target.name: target for target in (*site.targets, ANY)}
    added: list[str] = []
    findings: list[Finding] = []
    for platform in [environment for environment in site.environments if environment.kind == KIND]:
        of = platforms()[platform.name.removeprefix(f"{KIND}.")]
        for wanted in of.needs(platform.settings, site):
            unknown = _add_targets(targets, wanted, platform.name)
            findings += unknown
            if unknown:
                continue
            merge, key = _listed if _stands(wanted) == "listed" else _whole, (_stands(wanted), wanted.name)
            merged, more, told = merge(platform.name, wanted, environments.get(key))
            environments[key] = merged
            findings += more
            added += [f"{platform.name} adds {line}" for line in told]
    known = tuple(target for target in targets.values() if target != ANY)
    return replace(site, environments=tuple(environments.values()), targets=known), tuple(added), findings


def faults(site: Site) -> list[Finding]:
    """What its platforms find wrong with a completed site; nothing is fetched for it."""
    declared = [environment for environment in site.environments if environment.kind == KIND]
    return [
        finding
        for platform in declared
        for finding in platforms()[platform.name.removeprefix(f"{KIND}.")].validate(platform.settings, site)
    ]


def _stands(environment: Environment) -> str:
    return kinds()[environment.kind].keys.stands


def _add_targets(targets: dict[str, Target], wanted: Environment, platform: str) -> list[Finding]:
    findings = []
    for name in wanted.targets:
        try:
            targets.setdefault(name, targets.get(name) or Target.from_name(name))
        except ValueError as problem:
            said = f"{name}: no target of that name is declared, and {problem}"
            remedy = f"declare [target.{name}], or correct the name"
            findings.append(Finding("platform-setting", f"{platform}.targets", said, remedy))
    return findings


def _whole(
    platform: str, wanted: Environment, held: Environment | None
) -> tuple[Environment, list[Finding], list[str]]:
    """An environment, or the one that people declared under its name."""
    if held is None:
        return wanted, [], [f"{wanted.name} for {', '.join(wanted.targets) or 'this machine'}"]
    said = f"is declared, and taken instead of what {platform} would add"
    remedy = "see that it holds what the platform needs, or give yours another name"
    told = Finding("platform-setting", f"env.{wanted.name}", said, remedy, blocking=False)
    return held, [told] if held != wanted else [], []


def _listed(
    platform: str, wanted: Environment, held: Environment | None
) -> tuple[Environment, list[Finding], list[str]]:
    """A list with what is wanted of it, and with what people wrote into it."""
    items = list(held.settings["items"]) if held else []
    known = {_called(wanted.kind, item).casefold(): item for item in items}
    findings, told = [], []
    for item in wanted.settings["items"]:
        name = _called(wanted.kind, item)
        theirs = known.setdefault(name.casefold(), item)
        if theirs is item:
            items.append(item)
            told.append(f"{wanted.kind} {name}")
        elif _spelt_out(_source(theirs)) != _spelt_out(_source(item)):
            said = f"is declared, and taken instead of what {platform} would add from {_source(item)}"
            remedy = "see that it is what the platform needs, or give yours another name"
            findings.append(
                Finding("platform-setting", f"{wanted.kind} {name}", said, remedy, blocking=False)
            )
    return replace(held or wanted, settings={"items": tuple(items)}), findings, told


def _called(kind: str, item: Mapping[str, Any]) -> str:
    """By what an item of a list is known inside."""
    if kind == "file":
        return name_of(item)
    named = _spelt_out(str(item.get("as", item.get("ref"))))
    return named.name if isinstance(named, Reference) else named


def _source(item: Mapping[str, Any]) -> str:
    return str(item.get("url", item.get("ref")))


def _spelt_out(source: str) -> Reference | str:
    """An image of a registry, the same however it is spelt; any other source as it is."""
    try:
        return Reference.parse(source)
    except ValueError:
        return source
