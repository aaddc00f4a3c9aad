"""From what a resolution or a lock picked to wheels: those that there are, and those that are built."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from haversack.formats.pylock import Pick
from haversack.model.artifact import Artifact
from haversack.model.finding import Finding
from haversack.model.site import Site
from haversack.model.target import Target
from haversack.ports import Outside
from haversack.wheels import build, interpreter, resolve


@dataclass(frozen=True, slots=True)
class Answered:
    """Who asked: the environment ``ref`` of a site on a target, and whether wheels may be built for it."""

    site: Site
    ref: str
    target: Target
    exclude_newer: str | None
    build: bool


def wheels(picks: Sequence[Pick], who: Answered, out: Outside) -> tuple[list[Artifact], list[Finding]]:
    """The wheels that answer, source distributions built where that is allowed, and what is wrong."""
    artifacts, findings = resolve.to_artifacts([pick for pick in picks if pick.wheel], who.ref, who.site.root)
    for pick in (pick for pick in picks if not pick.wheel):
        if not who.build:
            message = (
                f"{pick.name} {pick.version} has only a source distribution for {who.target.name} in the lock"
            )
            remedy = "set build = true to build a wheel of it, or lock a version that has a wheel"
            findings.append(Finding("no-wheel", f"{pick.name} in {who.ref}", message, remedy))
            continue
        python = interpreter.find(who.target.python_short, out) or out.python
        order = build.Order(
            pick, who.ref, who.target, who.site.root, python, who.site.indexes, who.exclude_newer
        )
        built, more = build.build(order, out)
        artifacts += [built] if built else []
        findings += more
    return artifacts, findings
