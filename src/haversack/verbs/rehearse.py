"""The rehearsal: install from what will cross, with no network, and run the check."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable
from pathlib import Path

from haversack.errors import HaversackError
from haversack.formats.canonical import canonical
from haversack.kinds import kinds
from haversack.model.artifact import hex_of
from haversack.model.bundle import Rehearsal
from haversack.model.finding import Finding
from haversack.model.ledger import stamp
from haversack.model.lock import TOOL
from haversack.model.snapshot import SnapshotEnvironment
from haversack.ports import Outside
from haversack.wheels import interpreter


def rehearse(
    environments: Iterable[SnapshotEnvironment], out: Outside
) -> tuple[list[Rehearsal], list[Finding]]:
    """Rehearse every environment that can run on this machine.

    An environment that passed before, with the same manifest and the same interpreter, is not rehearsed
    twice; the manifest then says when it passed.
    """
    rehearsals: list[Rehearsal] = []
    findings: list[Finding] = []
    cage = out.run.cage()
    for environment in environments:
        if not kinds()[environment.locked.kind].artifacts:
            continue  # settings alone: there is nothing to install
        now = stamp(out.clock.now())
        try:
            reason, python = _able(environment, cage, out)
        except HaversackError as problem:
            findings.append(_failed(environment, problem))
            continue
        if reason:
            rehearsals.append(Rehearsal(environment.ref, "skipped", reason, now))
            if environment.locked.name != TOOL:
                findings.append(_skipped(environment, reason))
            continue
        memo = f"rehearsals/{hex_of(environment.manifest)}.json"
        held = out.store.read_state(memo)
        how = f"with {python.name if python else 'its own programs'}"
        if held and json.loads(held)["python"] == str(python):
            rehearsals.append(Rehearsal(environment.ref, "passed", how, json.loads(held)["at"]))
            continue
        found = _one(environment, python, out)
        findings += found
        if skipped := [finding for finding in found if finding.code == "rehearsal-skipped"]:
            rehearsals.append(Rehearsal(environment.ref, "skipped", skipped[0].message, now))
            continue
        if not any(finding.blocking for finding in found):
            rehearsals.append(Rehearsal(environment.ref, "passed", how, now))
            # What somebody should know is told each time: only a rehearsal without a word is not repeated.
            if not found:
                out.store.write_state(memo, canonical({"python": str(python), "at": now}))
    return rehearsals, findings


def _able(environment: SnapshotEnvironment, cage: str, out: Outside) -> tuple[str, Path | None]:
    """Why an environment cannot be rehearsed here, or the interpreter to do it with if it borrows one.

    Raises ``ToolError`` or ``IntegrityError`` for an interpreter archive that is of no use on its target.
    """
    target = environment.target
    if not target.runs_on(out.machine):
        here = f"{out.machine.platform} {out.machine.glibc or out.machine.macos or ''}".strip()
        return f"{target.name} does not run on this machine ({here})", None
    if cage:
        return f"the network cannot be taken away here: {cage}", None
    minor = kinds()[environment.locked.kind].borrows(environment, out)
    if minor is None:
        return "", None
    python = interpreter.find(minor, out)
    for archive in (a for a in environment.artifacts if a.kind == "interpreter"):
        # Unpacked even where it is not needed: a machine inside may have nothing else.
        brought = interpreter.unpack(archive, minor, out)
        python = python or brought
    if python is None:
        return f"there is no Python {minor} on this machine", None
    return "", python


def _one(environment: SnapshotEnvironment, python: Path | None, out: Outside) -> list[Finding]:
    kind = kinds()[environment.locked.kind]
    # Short: some environments have hardly room for a longer path than that of the place they came from.
    with tempfile.TemporaryDirectory(prefix="hs-") as folder:
        prefix = Path(folder) / "e"
        try:
            kind.install(environment, prefix, python, out, home=prefix, compile_bytecode=False)
            kind.settle(environment, prefix, out)
            return kind.check(environment, prefix, out, caged=True)
        except HaversackError as problem:
            if any(finding.code == "prefix-long" for finding in problem.findings):
                return [_skipped(environment, f"it has no room for a path as long as {prefix}")]
            return [_failed(environment, problem), *problem.findings]


def _skipped(environment: SnapshotEnvironment, reason: str) -> Finding:
    remedy = "rehearse on a machine like the target"
    return Finding("rehearsal-skipped", environment.ref, reason, remedy, blocking=False)


def _failed(environment: SnapshotEnvironment, problem: HaversackError) -> Finding:
    return Finding(
        "rehearsal-failed",
        environment.ref,
        str(problem),
        problem.remedy or "see what it says, and mend the environment",
    )
