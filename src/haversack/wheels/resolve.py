"""From requirements to wheels for a target, with ``uv``."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from packaging.utils import canonicalize_name

from haversack.formats import pylock, uv
from haversack.model.artifact import Artifact, is_digest
from haversack.model.finding import Finding
from haversack.model.site import Index
from haversack.model.target import Target
from haversack.ports import Completed, Outside


@dataclass(frozen=True, slots=True)
class Question:
    """What to resolve: ``inputs`` are the words that name requirements to ``uv pip compile``, read in ``root``.

    ``lines`` are requirements that stand in no file.  ``pins`` are names and versions to keep to where that is
    possible; ``build`` allows source distributions for packages that have no wheel.  ``subject`` names the
    environment in findings.
    """

    subject: str
    root: Path
    inputs: tuple[str, ...]
    target: Target
    indexes: tuple[Index, ...] = ()
    exclude_newer: str | None = None
    pins: tuple[tuple[str, str], ...] = ()
    build: bool = False
    lines: tuple[str, ...] = ()


def resolve(question: Question, out: Outside) -> tuple[list[pylock.Pick], list[Finding]]:
    """The files that answer a question (with ``build``, source distributions among them), or why there are none."""
    building: list[str] = []
    with tempfile.TemporaryDirectory(prefix="haversack-lock-") as folder:
        output = Path(folder) / "pylock.toml"
        if question.lines:
            wish = Path(folder) / "requirements.txt"
            wish.write_text("".join(f"{line}\n" for line in question.lines))
            question = replace(question, inputs=(*question.inputs, str(wish)))
        while True:
            if question.pins:
                output.write_bytes(pylock.preferences(question.pins))
            done = _compile(question, output, building, out)
            if not done.code:
                break
            lacking = [name for name in uv.needs_wheel(done.err) if name not in building]
            if not lacking:
                return [], [uv.failure(done.err, question.subject)]
            if not question.build:
                return [], [_no_wheel(name, question, out) for name in lacking]
            building += lacking
        where = f"the resolution of {question.subject}"
        picks, findings = pylock.select(
            pylock.read(output.read_bytes(), where), question.target, question.subject
        )
        yanked = uv.yanked(done.err)
        picks = [replace(pick, yanked=yanked.get((pick.name, pick.version))) for pick in picks]
        return [_sized(absolute(pick, Path(folder)), out) for pick in picks], findings


def _compile(
    question: Question, output: Path, building: Sequence[str], out: Outside, *, deps: bool = True
) -> Completed:
    """Run ``uv pip compile``."""
    argv = uv.compile_argv(
        question.inputs,
        output,
        question.target,
        str(out.python),
        indexes=question.indexes,
        exclude_newer=question.exclude_newer,
        build=building,
        deps=deps,
    )
    env = uv.index_env(question.indexes, out.credentials) | uv.target_env(question.target)
    return out.run(argv, env=env, cwd=question.root)


def _no_wheel(name: str, question: Question, out: Outside) -> Finding:
    """The finding for a package without a wheel, with the newest version that has one."""
    target = question.target
    message = f"has no wheel for {target.name} ({target.uv_platform()}, Python {target.python_short}) at the versions asked for"
    with tempfile.TemporaryDirectory(prefix="haversack-lock-") as folder:
        output, wish = Path(folder) / "pylock.toml", Path(folder) / "requirement.txt"
        wish.write_text(f"{name}\n")
        alone = Question(
            question.subject, Path(folder), (str(wish),), target, question.indexes, question.exclude_newer
        )
        if not _compile(alone, output, (), out, deps=False).code:
            (package,) = pylock.read(output.read_bytes(), name).packages
            newest = f"the newest version that has one is {package.version}: allow {name}<={package.version}"
        else:
            newest = "no version has one"
    remedy = f"{newest}, or set build = true to build a wheel from its source distribution"
    return Finding("no-wheel", f"{name} in {question.subject}", message, remedy)


def _sized(pick: pylock.Pick, out: Outside) -> pylock.Pick:
    """A pick with its size where its index should have told it.

    An index that tells when files were uploaded must tell their sizes too (PEP 700); behind some caches one gets
    lost now and then, and two locks of the same day would differ.
    """
    if pick.size is not None or pick.uploaded is None or "://" not in pick.location:
        return pick
    return replace(pick, size=out.fetch.size(pick.location))


def absolute(pick: pylock.Pick, folder: Path) -> pylock.Pick:
    """A pick whose path, if it has one, no longer depends on where uv wrote its answer."""
    if "://" in pick.location:
        return pick
    place = str((folder / pick.location).resolve())
    return replace(pick, location=place)


def to_artifacts(picks: Iterable[pylock.Pick], ref: str, root: Path) -> tuple[list[Artifact], list[Finding]]:
    """Wheels as artifacts of the environment ``ref``; a file whose digest nobody gave is a finding."""
    artifacts: list[Artifact] = []
    findings: list[Finding] = []
    for pick in picks:
        if not is_digest(pick.digest):
            findings.append(
                Finding(
                    "fetch-failed",
                    f"{pick.filename} in {ref}",
                    "the index names no sha256 for it",
                    "use an index that does",
                )
            )
            continue
        origin = origin_of(pick.location, root)
        name = str(canonicalize_name(pick.name))
        told = {"upload_time": pick.uploaded, "yanked": pick.yanked}
        facts = {fact: value for fact, value in told.items() if value is not None}
        artifacts.append(
            Artifact(
                "wheel", name, pick.version, pick.filename, pick.digest, pick.size, origin, (ref,), facts
            )
        )
    return artifacts, findings


def origin_of(location: str, root: Path) -> str:
    """Where a file came from, fit for a lock: no credentials, no machine's own folders where avoidable."""
    if re.match(r"[a-z][a-z0-9+.-]*://", location):
        parts = urlsplit(location)
        host = parts.netloc.rpartition("@")[2]
        return urlunsplit((parts.scheme, host, parts.path, "", ""))
    place = Path(location)
    return f"path:{place.relative_to(root).as_posix() if place.is_relative_to(root) else place.as_posix()}"
