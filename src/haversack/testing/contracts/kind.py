"""What :class:`haversack.kinds.Kind` promises: a kind of environment through its whole journey."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from haversack.errors import HaversackError
from haversack.formats import declaration, oci
from haversack.formats.canonical import canonical
from haversack.kinds import Kind, Locked
from haversack.model.finding import Finding
from haversack.model.lock import Lock, merge_artifacts
from haversack.model.site import Environment, Site
from haversack.model.snapshot import SnapshotEnvironment
from haversack.model.target import Target
from haversack.ports import Outside
from haversack.testing.contracts.refused import refused
from haversack.verbs import collect


@dataclass(frozen=True, slots=True)
class Sample:
    """One environment of a kind, small and real.

    ``declaration`` is a ``haversack.toml`` that declares just it, for a target that runs on this machine;
    whatever it needs is within reach until the journey is over.  ``needed`` names an artifact without which
    the environment does not work, ``forged`` is another artifact of the same name that would install as well.
    ``spoil`` alters a file of an installed environment.
    """

    declaration: Path
    needed: str
    forged: bytes
    spoil: Callable[[Path], object]


@dataclass(frozen=True, slots=True)
class Journey:
    """A sample that has been locked, collected, built and installed to ``prefix``."""

    kind: Kind
    sample: Sample
    site: Site
    environment: Environment
    target: Target
    locked: Locked
    lock: Lock
    built: SnapshotEnvironment
    prefix: Path
    out: Outside


def travel(kind: Kind, sample: Sample, prefix: Path, out: Outside) -> Journey:
    """Take a sample all the way, once for all tests of its kind; ``prefix`` does not exist yet."""
    site = declaration.parse(sample.declaration, {kind.name: kind.keys})
    (environment,) = site.environments
    target = site.target(environment.targets[0])
    locked = kind.lock(site, environment, target, None, out)
    lock = Lock(site.name, site.digest, (target,), (locked.environment,), merge_artifacts(locked.artifacts))
    facts = collect.collect(lock, site.root, collect.plan(lock, out), out)
    (built,) = oci.build(lock, facts)[0].environments
    # A prefix is moved to its place after it was made: so it is here.
    aside = prefix.with_name(f"{prefix.name}.aside")
    kind.install(built, aside, out.python, out, home=prefix, compile_bytecode=False)
    aside.rename(prefix)
    kind.settle(built, prefix, out)
    return Journey(kind, sample, site, environment, target, locked, lock, built, prefix, out)


class KindContract:
    """Tests of a kind; they take a fixture ``journey`` (what :func:`travel` gave) and pytest's ``tmp_path``."""

    def test_it_locks_what_was_declared(self, journey: Journey) -> None:
        """The lock of an environment names it, its target and kind, and artifacts that all belong to it."""
        locked = journey.locked
        assert not [finding for finding in locked.findings if finding.blocking]
        assert locked.environment.ref == f"{journey.environment.name}/{journey.target.name}"
        assert locked.environment.kind == journey.kind.name == journey.environment.kind
        assert locked.artifacts
        for artifact in locked.artifacts:
            assert artifact.members == (locked.environment.ref,)
            assert artifact.kind in journey.kind.artifacts
            assert "@" not in artifact.origin

    def test_it_locks_the_same_again(self, journey: Journey) -> None:
        """Unchanged input gives an equal lock, with what was locked before in hand and without."""
        for held in (None, journey.lock):
            again = journey.kind.lock(journey.site, journey.environment, journey.target, held, journey.out)
            assert again.environment == journey.locked.environment
            assert sorted(again.artifacts, key=str) == sorted(journey.locked.artifacts, key=str)

    def test_it_reads_facts_out_of_bytes(self, journey: Journey) -> None:
        """The facts of a sound artifact are JSON, equal every time, and nothing is wrong with it."""
        for artifact in journey.built.artifacts:
            data = journey.out.store.path(artifact.digest).read_bytes()
            facts, findings = journey.kind.inspect(artifact, io.BytesIO(data))
            assert not [finding for finding in findings if finding.blocking]
            assert json.loads(canonical(facts)) == dict(facts)
            assert journey.kind.inspect(artifact, io.BytesIO(data)) == (facts, findings)

    def test_it_finds_what_is_wrong_with_bytes(self, journey: Journey) -> None:
        """An artifact that is cut short, empty or other than its kind is a blocking finding, never a crash."""
        artifact = journey.built.artifacts[0]
        data = journey.out.store.path(artifact.digest).read_bytes()
        for wrong in (b"", data[: len(data) // 2], b"no archive at all" * 100):
            _, findings = journey.kind.inspect(artifact, io.BytesIO(wrong))
            assert [finding for finding in findings if finding.blocking]
            assert all(finding.message for finding in findings)

    def test_it_proves_a_closed_environment(self, journey: Journey) -> None:
        """An environment that has all it needs is proven without a finding that blocks."""
        assert _blocking(journey.kind.prove(journey.built)) == []

    def test_it_finds_what_is_missing(self, journey: Journey) -> None:
        """Without an artifact that it needs the proof fails and names it."""
        rest = tuple(a for a in journey.built.artifacts if a.name != journey.sample.needed)
        assert len(rest) < len(journey.built.artifacts)
        findings = _blocking(journey.kind.prove(replace(journey.built, artifacts=rest)))
        assert any(journey.sample.needed in f"{f.subject} {f.message}" for f in findings)

    def test_what_it_installed_works_where_it_was_moved_to(self, journey: Journey) -> None:
        """The check passes, with the network taken away where this machine can do that."""
        caged = not journey.out.run.cage()
        assert journey.kind.check(journey.built, journey.prefix, journey.out, caged=caged) == []

    def test_a_check_that_fails_is_a_finding(self, journey: Journey) -> None:
        """An environment's own check command decides, and what it said is told."""
        locked = replace(journey.built.locked, check="echo it does not work; exit 3")
        failing = replace(journey.built, locked=locked)
        (finding,) = journey.kind.check(failing, journey.prefix, journey.out, caged=False)
        assert finding.blocking
        assert "it does not work" in finding.message

    def test_it_does_not_install_other_bytes(self, journey: Journey, tmp_path: Path) -> None:
        """An artifact that was exchanged in the store makes no environment, however sound it looks."""
        (artifact,) = (a for a in journey.built.artifacts if a.name == journey.sample.needed)
        place = journey.out.store.path(artifact.digest)
        right = place.read_bytes()
        prefix = tmp_path / "prefix"

        def install() -> None:
            journey.kind.install(
                journey.built,
                prefix,
                journey.out.python,
                journey.out,
                home=prefix,
                compile_bytecode=False,
            )

        _exchange(place, journey.sample.forged)
        try:
            assert refused(HaversackError, install).message
        finally:
            _exchange(place, right)
        shutil.rmtree(prefix, ignore_errors=True)
        install()
        assert journey.kind.drift(journey.built, prefix, journey.out.store) == []

    def test_it_sees_drift(self, journey: Journey) -> None:
        """What was just installed has not drifted; one altered file has."""
        assert journey.kind.drift(journey.built, journey.prefix, journey.out.store) == []
        journey.sample.spoil(journey.prefix)
        findings = journey.kind.drift(journey.built, journey.prefix, journey.out.store)
        assert findings
        assert all(finding.remedy for finding in findings)


def _exchange(place: Path, data: bytes) -> None:
    place.unlink()
    place.write_bytes(data)


def _blocking(findings: list[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.blocking]
