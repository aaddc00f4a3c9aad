"""``doctor systemd`` and the last runs: what systemd tells, and what stands in state files."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from haversack.model.finding import Finding
from haversack.platforms.systemd import SERVICES, valued
from haversack.ports import Completed
from haversack.services import lastruns
from tests.support.skypilot import program

asking = program("asking")

MANAGER, STOPPER, MONITOR = (
    f"skypilot-{name}.service" for name in ("cluster-manager", "autostop", "monitor")
)
SETTINGS: dict[str, Any] = {
    "skypilot": {
        "enable": True,
        "package": "/opt/skypilot",
        "cluster": {"autoStop": 60, "refreshMinutes": 10},
        "monitoring": {"enable": True},
    }
}
DAY = 86_400.0


UPTIME = 2 * DAY


def ago(seconds: float) -> str:
    """A moment on the clock of systemd, in microseconds."""
    return str(int((UPTIME - seconds) * 1e6))


class Machine:
    """What ``systemctl show`` says of units, and the state files below a root."""

    def __init__(self, root: Path) -> None:
        self.root, self.units = root, dict[str, dict[str, str]]()
        self.states = root / "var/cache/skypilot"
        self.states.mkdir(parents=True)

    def ask(self, *words: str) -> Completed:
        """What systemctl says, of what it is asked for alone."""
        program, verb, _, names, unit = words
        assert (program, verb) == ("systemctl", "show")
        told = self.units.get(unit, {})
        lines = "".join(f"{name}={told[name]}\n" for name in names.split(",") if name in told)
        return Completed(words, 0, lines, "")

    def write(self, name: str, **told: Any) -> None:
        """A state file."""
        (self.states / name).write_text(json.dumps(told))

    def all(self, **more: Any) -> list[Finding]:
        """What is found, with more settings."""
        found = valued("skypilot", {"skypilot": {**SETTINGS["skypilot"], **more}})
        return list(lastruns.look(SERVICES["skypilot"], found, self.ask, self.root, UPTIME))

    def found(self, **more: Any) -> dict[str, Finding]:
        """The same by subject; of one that is found twice the last."""
        return {finding.subject: finding for finding in self.all(**more)}


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """One whose timers have been active for a day, and whose runs were well a minute ago."""
    one = Machine(tmp_path)
    for name in (MANAGER, STOPPER):
        one.units[name] = {"Result": "success", "ExecMainStatus": "0"}
        timer = f"{name.partition('.')[0]}.timer"
        one.units[timer] = {"ActiveState": "active", "ActiveEnterTimestampMonotonic": ago(DAY)}
    one.units[MONITOR] = {"ActiveState": "active", "NRestarts": "0", "ActiveEnterTimestampMonotonic": ago(1)}
    one.write("clusters.json", refreshed_at=time.time() - 60, failure=None, clusters=[])
    one.write("autostop.json", ran_at=time.time() - 60, failure=None, clusters={})
    return one


def test_nothing_is_found_where_all_is_well(machine: Machine) -> None:
    """Runs of a minute ago, and a monitor that was just started by somebody."""
    assert machine.found() == {}


def test_what_a_run_could_not_do_is_told_with_its_remedy(machine: Machine) -> None:
    """The word of the state file, as a sentence, and since when nothing is done; also where systemd forgot it."""
    machine.write("clusters.json", refreshed_at=time.time() - 3700, failure="slow", clusters=[])
    found = machine.found()[MANAGER]
    assert found.blocking
    assert found.message == (
        "could not do its work when it ran last; the API server took longer than there was time for; "
        "it was last done 61 minutes ago"
    )
    assert found.remedy == f"journalctl -u skypilot-web-ui; journalctl -u {MANAGER} says why"
    machine.write("autostop.json", ran_at=None, failure="version", clusters={})
    machine.units[STOPPER] = {"Result": "exit-code", "ExecMainStatus": "75"}
    found = machine.found()[STOPPER]
    assert found.message == (
        "failed when it ran last: exit-code, status 75; the API server is of another version; it was never done"
    )
    assert "systemctl restart skypilot-web-ui" in found.remedy


def test_every_word_of_the_programs_is_known() -> None:
    """What they write is what is read here, and nothing more."""
    assert set(lastruns.WORDS) == set(asking.FAILURES)


def test_of_another_machines_server_nothing_is_looked_for_here(machine: Machine) -> None:
    """Its unit is not here: the remedy says where it is."""
    away = {"enableWebUI": False, "endpoint": "http://sky.example:8080"}
    for word in asking.FAILURES:
        machine.write("clusters.json", refreshed_at=time.time(), failure=word, clusters=[])
        remedy = machine.found(**away)[MANAGER].remedy
        assert remedy == f"look at http://sky.example:8080; journalctl -u {MANAGER} says why"
    machine.write("clusters.json", refreshed_at=time.time(), failure="new in 2030", clusters=[])
    assert machine.found(**away)[MANAGER].remedy == f"journalctl -u {MANAGER} says why"


def test_a_run_that_failed_otherwise_is_told(machine: Machine) -> None:
    """A state file that could not be written, or a unit that was killed: what systemd knows."""
    machine.units[MANAGER] = {"Result": "timeout", "ExecMainStatus": "15"}
    assert machine.found()[MANAGER].message.startswith(
        "failed when it ran last: timeout, status 15; it was last"
    )


def test_a_state_that_is_older_than_several_turns_is_told(machine: Machine) -> None:
    """Each has its own: ten minutes here, and five; a file that was never written is old too."""
    machine.write("clusters.json", refreshed_at=time.time() - 2600, failure=None, clusters=[])
    (machine.states / "autostop.json").unlink()
    assert set(machine.found()) == {STOPPER}
    machine.write("clusters.json", refreshed_at=time.time() - 2800, failure=None, clusters=[])
    found = machine.found()
    assert "several of its turns: it was last done 46 minutes ago" in found[MANAGER].message
    assert "it was never done" in found[STOPPER].message
    assert "systemctl list-timers skypilot-autostop.timer" in found[STOPPER].remedy
    # It ran, and no cloud told anything new.
    machine.write("clusters.json", refreshed_at=5.0, clock={"wall": time.time() - 60}, clusters=[])
    assert set(machine.found()) == {STOPPER}


def test_after_a_boot_an_old_state_is_none(machine: Machine) -> None:
    """The machine was off for a day: the timer has not come to its turn yet."""
    machine.write("clusters.json", refreshed_at=time.time() - DAY, failure=None, clusters=[])
    machine.units["skypilot-cluster-manager.timer"]["ActiveEnterTimestampMonotonic"] = ago(60)
    assert machine.found() == {}


def test_clusters_that_are_not_refreshed_are_named(machine: Machine) -> None:
    """Not one that is being launched; the rest of the service is well."""
    bad = {"name": "bad\n", "status": "UP", "refreshed": False, "failure": "kept"}
    launching = {**bad, "name": "new", "status": "INIT"}
    machine.write(
        "clusters.json", refreshed_at=time.time(), failure=None, clusters=[bad, launching, {"name": "a"}, 5]
    )
    machine.write(
        "autostop.json", ran_at=time.time(), failure=None, clusters={"b": {"failed": True}, "c": {}}
    )
    # One that could not be set makes its exit code 1.
    machine.units[STOPPER] = {"Result": "exit-code", "ExecMainStatus": "1"}
    found = machine.found()
    assert found[MANAGER].message == "could not refresh bad? (kept): what is known of them may be old"
    assert found[STOPPER].message == "could not set autostop on b: they run on"
    assert not any(finding.blocking for finding in found.values())
    # Without such a cluster it is another failure, and so is an old file, which it may not have been able to write.
    machine.write("autostop.json", ran_at=time.time(), failure=None, clusters={"c": {}})
    assert "exit-code, status 1" in machine.found()[STOPPER].message
    machine.write("autostop.json", ran_at=time.time() - DAY, failure=None, clusters={"b": {"failed": True}})
    assert any(f.blocking for f in machine.all())


@pytest.mark.parametrize("rotten", ["", "[]", "{", "[" * 100_000])
def test_a_rotten_state_file_is_told(machine: Machine, rotten: str) -> None:
    """The next run writes it anew."""
    path = machine.states / "clusters.json"
    path.write_text(rotten)
    found = machine.found()
    assert found[str(path)].remedy.endswith(f"systemctl start {MANAGER}")
    assert not found[str(path)].blocking


@pytest.mark.parametrize(
    "odd", [{"clusters": 5, "failure": [], "refreshed_at": "x"}, {}, {"clusters": [{"name": []}]}]
)
def test_an_odd_state_file_breaks_nothing(machine: Machine, odd: dict[str, Any]) -> None:
    """Whatever stands in it."""
    machine.write("clusters.json", **odd)
    machine.found()


@pytest.mark.skipif(bool(os.geteuid()), reason="only root may become another")
def test_who_may_not_read_a_state_file_is_told_so(machine: Machine) -> None:
    """It is the service's and its group's."""
    (machine.states / "clusters.json").chmod(0o600)
    (machine.states / "autostop.json").chmod(0o600)
    for folder in (machine.root, *machine.root.parents[:3]):
        folder.chmod(0o755)
    os.seteuid(65534)
    try:
        codes = [finding.code for finding in machine.found().values()]
    finally:
        os.seteuid(0)
    assert codes == ["platform-unknown"] * 2


def test_a_unit_that_fails_again_and_again_is_found_while_it_runs(machine: Machine) -> None:
    """Between two failures systemd calls it active; one that came back for good is not told of."""
    machine.units[MONITOR] |= {"NRestarts": "7", "ActiveEnterTimestampMonotonic": ago(2)}
    found = machine.found()[MONITOR]
    assert found.blocking
    assert "failed and was started again, 7 times until now" in found.message
    assert f"journalctl -u {MONITOR}" in found.remedy
    machine.units[MONITOR]["NRestarts"] = "1"
    assert not machine.found()[MONITOR].blocking
    machine.units[MONITOR]["ActiveState"] = "activating"
    assert machine.found() == {}
