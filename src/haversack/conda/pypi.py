"""Python wheels beside conda packages: what conda provides already, and what is left for an index."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from haversack.conda.distributions import provided, python_target
from haversack.model.artifact import Artifact
from haversack.model.finding import Finding
from haversack.ports import Outside
from haversack.wheels import answer, resolve


def wheels(
    lines: Sequence[str],
    folder: Path,
    packages: Sequence[Artifact],
    pins: Iterable[Artifact],
    who: answer.Answered,
    out: Outside,
) -> tuple[list[Artifact], list[Finding]]:
    """The wheels that the lines of a ``pip:`` section want on top of conda packages.

    ``folder`` is what their paths are relative to.  A distribution that conda provides is kept at its
    version and not brought a second time, as pip would find it installed.
    """
    target = python_target(packages, who.target)
    if target is None:
        message = "has a pip section, and no python among its packages"
        return [], [Finding("no-solution", who.ref, message, "add python to the dependencies")]
    have = provided(packages)
    with tempfile.TemporaryDirectory(prefix="haversack-pip-") as place:
        asked, kept = Path(place) / "requirements.txt", Path(place) / "constraints.txt"
        asked.write_text("".join(f"{_absolute(line, folder)}\n" for line in lines))
        kept.write_text(
            "".join(f"{name}=={have[name]}\n" for name in sorted(have) if _is_version(have[name]))
        )
        question = resolve.Question(
            subject=who.ref,
            root=folder,
            inputs=(str(asked), "--constraint", str(kept)),
            target=target,
            indexes=who.site.indexes,
            exclude_newer=who.exclude_newer,
            pins=tuple((a.name, a.version) for a in pins),
            build=who.build,
        )
        picks, findings = resolve.resolve(question, out)
    left = [pick for pick in picks if str(canonicalize_name(pick.name)) not in have]
    artifacts, more = answer.wheels(left, replace(who, target=target), out)
    return artifacts, [*findings, *more]


def _is_version(text: str) -> bool:
    """Whether a version of conda's is one of Python's too (PEP 440): ``2024a`` is none, and bounds nothing."""
    try:
        Version(text)
    except InvalidVersion:
        return False
    return True


def _absolute(line: str, folder: Path) -> str:
    """A line whose file, if it names one, no longer depends on where the line stands."""
    if match := re.fullmatch(r"(-r|--requirement|-c|--constraint)[ =]?\s*(\S+)", line.strip()):
        return f"{match[1]} {folder / match[2]}"
    if match := re.fullmatch(r"(\.{1,2}/\S*)", line.strip()):
        return str(folder / match[1])
    return line
