"""What rules guard in one view while another view shows it: found by digest, when a server starts.

The same bytes lie under several views: a wheel in ``pypi``, and where it came from in ``upstream``; and within
one, as a conda package in its channel and in the one of all.  Each path has a rule of its own, and what one guards
another may leave open.
"""

from __future__ import annotations

from haversack.model.artifact import Digest
from haversack.model.finding import Finding
from haversack.serving.auth import EVERYBODY, WHOLE, Rule, Rules
from haversack.views import Union


def ways_around(rules: Rules, view: Union) -> list[Finding]:
    """For each rule and each view that gives files it guards to people whom it does not let in, a finding.

    Looks at every page, which takes a moment; at none where no rule keeps anybody from anything.
    """
    if not rules.keeping():
        return []
    ways: dict[Digest, dict[Rule | None, str]] = {}
    for prefix, part in view.parts.items():
        for below in part.paths():
            path = f"/{prefix}/{below}"
            page = part.get(below)
            if page and page.blob and page.metadata is None and not path.startswith(WHOLE):
                ways.setdefault(page.blob, {}).setdefault(rules.ruling(path), path)
    found: dict[tuple[str, str], list[str]] = {}
    for rulings in ways.values():
        for guard in rulings:
            for other, path in rulings.items():
                if guard and guard.keeps() and _wider(other, guard):
                    _, prefix, folder, *_ = path.split("/")
                    # In the view that it guards a part of, the rule that lacks is one for another part.
                    place = f"{prefix}/{folder}" if guard.path.startswith(f"/{prefix}/") else prefix
                    found.setdefault((guard.path, place), []).append(path)
    return [
        Finding(
            "rule-around",
            path,
            f"guards {len(paths)} files that /{place}/ shows to others too, as {min(paths)}",
            f"write a rule for /{place}/ as well, if that is not meant",
            blocking=False,
        )
        for (path, place), paths in sorted(found.items())
    ]


def _wider(rule: Rule | None, guard: Rule) -> bool:
    """Whether a rule, or none, lets somebody in whom another does not."""
    return rule is None or EVERYBODY in rule.allow or not rule.allow <= guard.allow
