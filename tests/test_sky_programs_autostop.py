"""Whom autostop leaves alone, and who is told first, with a SkyPilot of the test's own that does what a scene says.

The same with SkyPilot itself is in tests/test_sky_programs_real.py.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.skypilot import program
from tests.test_sky_programs import answer, cluster, run, stub

asking = program("asking")
autostop = program("autostop")
clusters = program("clusters")
monitor = program("monitor")
exposition = program("exposition")

# SkyPilot's client as far as autostop knows it: the n-th answer of a scene to the n-th question.
_SDK = """\
import json, os, time
from types import SimpleNamespace as S
from sky.exceptions import NotSupportedError
folder = os.environ["SCENE"]
with open(f"{folder}/scene.json") as file:
    scene = json.load(file)
class Cloud:
    def __str__(self): return "AWS"
    def check_features_are_supported(self, resources, features):
        if resources.use_spot and "STOP" in features: raise NotSupportedError()
def record(told):
    told = {"autostop": -1, "to_down": False, "status": "UP", "cluster_hash": "h", "launched_at": 5,
            "status_updated_at": 5, **told}
    of = S(cloud=Cloud(), region="r", instance_type="m", use_spot=told.pop("spot", False))
    return S(**told, handle=S(launched_resources=of))
def get(answer): return answer()
def status(names=None, refresh=None, all_users=False):
    assert all_users
    if names is None: return lambda: [record(told) for told in scene["listed"]]
    assert refresh == "FORCE"
    new = {} if "unknown" in scene else {"status_updated_at": time.time()}
    return lambda: [record({**told, **new}) for told in scene.get("then", scene["listed"]) if told["name"] in names]
def api_status():
    asked = scene.get("requests", [[]])
    return [S(**one) for one in (asked.pop(0) if len(asked) > 1 else asked[0])]
def queue(name, all_users=False):
    return lambda: time.sleep(99) if name.startswith("hung") else scene.get("jobs", {}).get(name, [{"job_id": 1}])
def autostop(name, minutes, down=False):
    def put():
        if name.startswith("slow"):
            time.sleep(99)
        with open(f"{folder}/told", "a") as file:
            file.write(f"{name} {minutes} {down}\\n")
    return put
def api_cancel(requests):
    with open(f"{folder}/told", "a") as file:
        file.write(f"cancelled {len(requests)}\\n")
"""


def scene(
    folder: Path, listed: list[dict[str, Any]], *more: object, minutes: int = 60, **told: Any
) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """A run of autostop in a scene, and what it told the machines."""
    (folder / "told").unlink(missing_ok=True)
    for name, text in {
        "__init__.py": "",
        "clouds.py": "class CloudImplementationFeatures:\n    STOP, AUTOSTOP, AUTODOWN = 'STOP', 'AUTOSTOP', 'AUTODOWN'\n",
        "exceptions.py": "class NotSupportedError(Exception):\n    pass\n",
        "server/common.py": "",
        "utils/common.py": "class StatusRefreshMode:\n    FORCE = 'FORCE'\n",
        "client/sdk.py": _SDK,
    }.items():
        (folder / "sky" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "sky" / name).write_text(text)
    (folder / "scene.json").write_text(json.dumps({"listed": listed, **told}))
    words = ("--idle-minutes", minutes, *more)
    with stub(answer('{"status": "healthy", "version": "0.14.1"}')) as server:
        done = run("autostop.py", *words, server=server.url, PYTHONPATH=str(folder), SCENE=str(folder))
    assert not done.stderr, done.stderr
    said = folder / "told"
    return done, said.read_text().splitlines() if said.exists() else []


# A launch that is under way

LAUNCH = {"name": "sky.launch", "cluster_name": "train", "status": "RUNNING"}


@pytest.mark.parametrize("word", ["launch", "exec", "start", "stop", "down", "autostop", "new in 2030"])
def test_a_cluster_at_which_a_request_is_at_work_is_left_alone(tmp_path: Path, word: str) -> None:
    """It is UP while its files are still being copied, which is idleness to the skylet; also one that had jobs."""
    done, told = scene(tmp_path, [{"name": "train"}], requests=[[{**LAUNCH, "name": f"sky.{word}"}]])
    assert (done.returncode, told) == (0, [])
    assert done.stdout == f"train: left alone, {word} is under way.\n"


def test_a_request_that_begins_meanwhile_is_seen(tmp_path: Path) -> None:
    """It is asked for again right before, after the jobs of the cluster, which take a while to be told."""
    done, told = scene(tmp_path, [{"name": "train"}], requests=[[], [LAUNCH]])
    assert (done.stdout, told) == ("train: left alone, launch is under way.\n", [])


def test_requests_that_only_look_and_those_at_others_keep_nobody_from_autostop(tmp_path: Path) -> None:
    """Somebody reads the logs of a job for days; somebody else launches another cluster."""
    requests = [
        {**LAUNCH, "name": "sky.logs"},
        {**LAUNCH, "cluster_name": "other"},
        {"name": "sky.check", "cluster_name": None},
    ]
    assert scene(tmp_path, [{"name": "train"}], requests=[requests])[1] == ["train 60 False"]


def test_a_launch_of_nobody_knows_what_is_at_work_on_any() -> None:
    """A server that does not say which cluster a launch is for: all are left alone."""
    assert autostop.at_work([{"name": "sky.launch", "cluster_name": None}], "train") == "launch"
    assert autostop.at_work([{"name": None}], "train") == "something"


def test_a_cluster_that_never_had_a_job_is_watched_first(tmp_path: Path) -> None:
    """It is told only when nothing was under way on it for half an hour of runs, counted by a clock nobody moves."""
    state = tmp_path / "autostop.json"
    listed = [{"name": "train"}]
    for _ in range(2):
        done, told = scene(tmp_path, listed, "--state", state, jobs={"train": []})
        assert (done.stdout, told) == ("train: left alone for now, it never had a job.\n", [])
        kept = json.loads(state.read_text())
        since = kept["clusters"]["train"]["quiet_since"]
    kept["clusters"]["train"]["quiet_since"] = since - autostop.QUIET
    # Of another cluster of that name, and of before a boot, nothing is known.
    for other in (
        {**kept, "boot": "another"},
        {**kept, "clusters": {"train": {**kept["clusters"]["train"], "hash": "another"}}},
    ):
        state.write_text(json.dumps(other))
        assert scene(tmp_path, listed, "--state", state, jobs={"train": []})[1] == []
    state.write_text(json.dumps(kept))
    # A launch begins: it is watched anew after that.
    assert scene(tmp_path, listed, "--state", state, requests=[[LAUNCH]])[1] == []
    assert scene(tmp_path, listed, "--state", state, jobs={"train": []})[1] == []
    state.write_text(json.dumps(kept))
    assert scene(tmp_path, listed, "--state", state, jobs={"train": []})[1] == ["train 60 False"]


def test_without_a_state_a_cluster_that_never_had_a_job_is_never_told(tmp_path: Path) -> None:
    """There is nothing that says for how long it was so."""
    assert scene(tmp_path, [{"name": "train"}], jobs={"train": []})[1] == []


# A cluster that is another by now


@pytest.mark.parametrize(
    "now",
    [{"cluster_hash": "new", "spot": False}, {"autostop": 10, "to_down": True}, {"status": "INIT"},
     {"spot": False}, {"launched_at": 9}, {"name": "gone"}],
    ids=["relaunched", "set", "starts", "resources", "again", "gone"],
)  # fmt: skip
def test_what_was_decided_of_one_cluster_is_not_done_to_another(tmp_path: Path, now: dict[str, Any]) -> None:
    """Between listing and telling it was launched anew under its name, or somebody set what he wanted."""
    listed = {"name": "train", "spot": True}
    done, told = scene(tmp_path, [listed], then=[{**listed, **now}])
    assert (done.returncode, told) == (0, [])
    assert re.fullmatch(
        r"train: left alone, it (has changed meanwhile|is gone or no longer up)\.\n", done.stdout
    )
    assert scene(tmp_path, [listed])[1] == ["train 60 True"]


def test_a_cluster_of_which_its_cloud_does_not_tell_is_told_nothing(tmp_path: Path) -> None:
    """SkyPilot gives what it knew, and its address may be another cluster's by now: the next run asks again."""
    # Also where the server's clock is ahead of ours.
    for updated in (5, 4_000_000_000):
        listed = {"name": "train", "status_updated_at": updated}
        done, told = scene(tmp_path, [listed], unknown=True)
        assert (done.returncode, done.stdout) == (1, "train: not set, its cloud does not tell of it.\n")
        assert told == []


# Clusters that hang


def test_clusters_that_hang_starve_no_others(tmp_path: Path) -> None:
    """The next run begins with those that did not fail, and says of each what became of it."""
    state = tmp_path / "autostop.json"
    listed = [{"name": "hung"}, {"name": "well"}]
    words = ("--timeout", 2, "--state", state)
    done, told = scene(tmp_path, listed, *words)
    assert (done.returncode, told) == (1, ["cancelled 1"])
    assert done.stdout == "hung: not set, it took too long.\nwell: not reached, the time was over.\n"
    kept = json.loads(state.read_text())["clusters"]
    assert {name: (one["failed"], one["failures"]) for name, one in kept.items()} == {
        "hung": (True, 1),
        "well": (True, 0),
    }
    done, told = scene(tmp_path, listed, *words)
    assert (done.returncode, told) == (1, ["well 60 False", "cancelled 1"])
    assert set(json.loads(state.read_text())["clusters"]) == {"hung"}


def test_what_took_too_long_is_not_done_later(tmp_path: Path) -> None:
    """A request that waits in the server's queue is taken back: the cluster may be another by then."""
    done, told = scene(tmp_path, [{"name": "slow"}], "--timeout", 2)
    assert (done.returncode, done.stdout) == (1, "slow: not set, it took too long.\n")
    assert told == ["cancelled 1"]


# What it keeps, and what the monitor tells of it


def test_a_dry_run_keeps_nothing(tmp_path: Path) -> None:
    """It says what would be, tells nobody, and writes no file."""
    done, told = scene(tmp_path, [{"name": "train"}], "--dry-run", "--state", tmp_path / "autostop.json")
    assert (done.stdout, told) == ("train: would be stopped after 60 idle minutes (it has none).\n", [])
    assert not (tmp_path / "autostop.json").exists()


def test_a_server_that_cannot_be_asked_stands_in_the_file(tmp_path: Path) -> None:
    """Beside what was known of clusters, which is not lost."""
    state = tmp_path / "autostop.json"
    scene(tmp_path, [{"name": "train"}], "--state", state, jobs={"train": []})
    before = json.loads(state.read_text())
    assert run("autostop.py", "--idle-minutes", 60, "--state", state).returncode == 75
    after = json.loads(state.read_text())
    assert (after["failure"], after["clusters"], after["boot"]) == (
        "down",
        before["clusters"],
        before["boot"],
    )
    assert abs(after["failed_at"] - time.time()) < 60


def test_a_file_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """Exit code 1 and a sentence; clusters are set all the same."""
    none = tmp_path / "none" / "autostop.json"
    with stub(answer("[]")) as server:
        done = run("autostop.py", "--idle-minutes", 60, "--state", none, server=server.url)
    assert done.returncode == 75
    assert done.stderr.endswith(
        f"{none} could not be written, and is as it was: No such file or directory.\n"
    )


def test_the_monitor_tells_how_autostop_fared(tmp_path: Path) -> None:
    """When it ran last, of what it failed, and at which clusters."""
    path = tmp_path / "autostop.json"
    source = monitor.Source(None, "http://127.0.0.1:9", None, [], path)
    assert "skypilot_autostop_state_readable 0.0\n" in source._gather()
    one = {"hash": "h", "failed": True, "failures": 1, "quiet_since": None}
    state = {
        "format": autostop.FORMAT, "ran_at": 1.5, "failed_at": None, "failure": None, "boot": "b",
        "clusters": {"hung": one, "new": {**one, "failed": False, "quiet_since": 5.0}},
    }  # fmt: skip
    for failed in ({}, {"failed_at": 2.5, "failure": "slow"}):
        path.write_text(json.dumps(state | failed))
        text = source._gather()
        exposition.names(text)
        for line in (
            "skypilot_autostop_state_readable 1.0",
            "skypilot_autostop_last_run_timestamp_seconds 1.5",
            "skypilot_autostop_failed_clusters 1.0",
            'skypilot_cluster_autostop_failed{cluster="hung"} 1.0',
            'skypilot_cluster_autostop_failed{cluster="new"} 0.0',
            f'skypilot_autostop_run_failed{{failure="slow"}} {float(bool(failed))}',
        ):
            assert f"\n{line}\n" in text, line
        assert ("skypilot_autostop_last_failure_timestamp_seconds 2.5" in text) is bool(failed)
        assert "skypilot_state_readable" not in text
    for rotten in ("{", "[]", '{"clusters": []}', '{"clusters": {"a": 5}, "failure": []}'):
        path.write_text(rotten)
        exposition.names(source._gather())


def test_what_is_compared_is_what_was_decided_on() -> None:
    """The last command alone changes with every ``sky queue``: it makes no other cluster."""
    assert not autostop.differs(cluster(last_use="sky queue"), cluster(last_use="sky logs"))
    assert autostop.differs(cluster(), cluster(region="elsewhere"))
