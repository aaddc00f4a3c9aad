"""Python wheels beside conda packages: what conda provides already, and what is left for an index."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

from packaging.utils import canonicalize_name

from haversack.model.artifact import Artifact
from haversack.model.finding import Finding
from haversack.model.target import Target
from haversack.ports import Outside
from haversack.wheels import answer, resolve


def provided(packages: Iterable[Artifact]) -> dict[str, str]:
    """Name and version of the Python distributions that conda packages bring.

    A record says them in its ``purls``; where it says nothing, a package that needs Python and is no part
    of it is taken for the distribution of its own name, as pixi and conda-lock do.
    """
    found: dict[str, str] = {}
    for package in packages:
        record: Mapping[str, object] = package.facts.get("record", {})
        purls = record.get("purls")
        if isinstance(purls, list):
            names = [m[1] for purl in purls if (m := re.match(r"pkg:pypi/([^@?#]+)", str(purl)))]
            found.update({str(canonicalize_name(unquote(name))): package.version for name in names})
        elif record.get("noarch") == "python" or _needs_python(record.get("depends")):
            found[str(canonicalize_name(package.name))] = package.version
    return found


def _needs_python(depends: object) -> bool:
    specs = depends if isinstance(depends, list) else []
    return any(str(spec).split()[:1] == ["python"] for spec in specs)


def python_of(packages: Iterable[Artifact], target: Target) -> Target | None:
    """The target with the Python that is among the packages; ``None`` if there is none."""
    for package in packages:
        if package.kind == "conda" and package.name == "python":
            return replace(target, python=".".join(package.version.split(".")[:3]))
    return None


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
    target = python_of(packages, who.target)
    if target is None:
        message = "has a pip section, and no python among its packages"
        return [], [Finding("no-solution", who.ref, message, "add python to the dependencies")]
    have = provided(packages)
    with tempfile.TemporaryDirectory(prefix="haversack-pip-") as place:
        asked, kept = Path(place) / "requirements.txt", Path(place) / "constraints.txt"
        asked.write_text("".join(f"{_absolute(line, folder)}\n" for line in lines))
        kept.write_text("".join(f"{name}=={version}\n" for name, version in sorted(have.items())))
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


def _absolute(line: str, folder: Path) -> str:
    """A line whose file, if it names one, no longer depends on where the line stands."""
    if match := re.fullmatch(r"(-r|--requirement|-c|--constraint)[ =]?\s*(\S+)", line.strip()):
        return f"{match[1]} {folder / match[2]}"
    if match := re.fullmatch(r"(\.{1,2}/\S*)", line.strip()):
        return str(folder / match[1])
    return line
