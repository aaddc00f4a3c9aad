"""What is kept of clusters whose clouds fail or hang, with a SkyPilot of the test's own that does what names say.

The same with SkyPilot itself is in tests/test_sky_programs_real.py.
"""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.skypilot import program
from tests.test_sky_programs import answer, run, stub

asking = program("asking")
clusters = program("clusters")
monitor = program("monitor")
exposition = program("exposition")

# SkyPilot's server as far as it matters here: clouds of clusters named bad… fail in a way that it does not expect,
# those of kept… in one that it does, those of hung… hang; what it found stands in its records all the same.  The server
# itself has gone once it was asked for fatal….
_SDK = """\
import json, os, time
from types import SimpleNamespace as S
folder = os.environ["SCENE"]
with open(f"{folder}/scene.json") as file:
    scene = json.load(file)
records = {told["name"]: {"status": "UP", "autostop": -1, "cluster_hash": told["name"], "launched_at": 5,
                          "status_updated_at": 5, **told} for told in scene["clusters"]}
def say(line):
    with open(f"{folder}/asked", "a") as file:
        file.write(f"{line}\\n")
def get(answer): return answer()
def status(names=None, refresh=None, all_users=False):
    assert all_users
    asked = list(records) if names is None else [name for name in names if name in records]
    if refresh is None:
        return lambda: [S(**records[name]) for name in asked]
    assert refresh == "FORCE"
    say(" ".join(names))
    def put():
        if scene.get("ill"): raise RuntimeError("nothing works")
        if any(name.startswith("fatal") for name in asked):
            os.environ["SKYPILOT_API_SERVER_ENDPOINT"] = "http://127.0.0.1:9"
            raise RuntimeError("connection refused")
        for name in asked:
            if name.startswith("hung") and scene.get("one by one"): time.sleep(99)
            if name.startswith("gone"): del records[name]
            elif not name.startswith(("bad", "kept", "hung")):
                status = "UP" if name.startswith("up") else "STOPPED"
                records[name].update(status=status, status_updated_at=time.time())
        if any(name.startswith("hung") for name in asked): time.sleep(99)
        if any(name.startswith("bad") for name in asked): raise RuntimeError("its cloud says no")
        return [S(**records[name]) for name in asked if name in records]
    return put
def cost_report():
    return lambda: [{"cluster_hash": name, "total_cost": cost} for name, cost in scene.get("costs", {}).items()]
def queue(name, all_users=False):
    say(f"jobs of {name}")
    return lambda: []
def api_cancel(requests):
    say("cancelled")
"""


def scene(
    folder: Path, *names: str, timeout: int = 20, **told: Any
) -> tuple[subprocess.CompletedProcess[str], dict[str, Any], list[str]]:
    """A look at clusters, what is kept of it, and what was asked for; records say UP, and clouds say STOPPED."""
    for name, text in {
        "__init__.py": "",
        "server/common.py": "",
        "utils/common.py": "class StatusRefreshMode:\n    FORCE = 'FORCE'\n",
        "client/sdk.py": _SDK,
    }.items():
        (folder / "sky" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "sky" / name).write_text(text)
    listed = told.pop("clusters", [{"name": name} for name in names])
    (folder / "scene.json").write_text(json.dumps({"clusters": listed, **told}))
    (folder / "asked").write_text("")
    words = ("--state", folder / "state.json", "--timeout", timeout)
    began = time.monotonic()
    with stub(answer('{"status": "healthy", "version": "0.14.1"}')) as server:
        done = run("clusters.py", *words, server=server.url, PYTHONPATH=str(folder), SCENE=str(folder))
    assert time.monotonic() - began < timeout + 5
    assert "Traceback" not in done.stderr
    state = json.loads((folder / "state.json").read_text())
    return done, state, (folder / "asked").read_text().splitlines()


def found(state: dict[str, Any]) -> dict[str, tuple[str, bool, str | None]]:
    """Status, whether it was refreshed, and why not, by name."""
    return {one["name"]: (one["status"], one["refreshed"], one["failure"]) for one in state["clusters"]}


NEW = ("STOPPED", True, None)


def test_clusters_whose_clouds_answer_take_one_request(tmp_path: Path) -> None:
    """Two hundred of them: SkyPilot asks their clouds at once, and each request is work for its server."""
    names = [f"c{number:03}" for number in range(200)]
    done, state, asked = scene(tmp_path, *names)
    assert (done.returncode, done.stderr, asked) == (0, "", [" ".join(names)])
    assert found(state) == dict.fromkeys(names, NEW)
    assert abs(state["refreshed_at"] - time.time()) < 60
    assert all(abs(one["refreshed_at"] - time.time()) < 60 for one in state["clusters"])


@pytest.mark.parametrize("bad", ["bad", "hung", "kept"])
def test_one_cluster_whose_cloud_fails_or_hangs_hides_no_others(tmp_path: Path, bad: str) -> None:
    """It keeps what was known of it, and says why; the others are new, and the run is done."""
    done, state, _ = scene(tmp_path, "a", bad, "z", timeout=6)
    word = {"bad": "failed", "hung": "slow", "kept": "kept"}[bad]
    assert found(state) == {"a": NEW, bad: ("UP", False, word), "z": NEW}
    assert (done.returncode, state["failure"]) == (0, None)
    assert abs(state["refreshed_at"] - time.time()) < 60
    assert done.stderr.startswith(f"Not refreshed: {bad} ({word}")
    (one,) = (one for one in state["clusters"] if one["name"] == bad)
    assert (one["refreshed_at"], one["idle_minutes"]) == (5, None)


def test_where_the_server_asks_one_by_one_others_are_found_beside_one_that_hangs(tmp_path: Path) -> None:
    """What comes after it in its request was not asked for: it is, in another; what is late is taken back."""
    done, state, asked = scene(tmp_path, "a", "hung", "z", timeout=6, **{"one by one": True})
    assert (done.returncode, found(state)) == (0, {"a": NEW, "hung": ("UP", False, "slow"), "z": NEW})
    assert asked == ["a hung z", "cancelled", "hung", "z", "cancelled"]


def test_clusters_that_failed_are_asked_for_beside_the_others(tmp_path: Path) -> None:
    """From the next run on: those that are well are not kept waiting by them, and are asked for once."""
    names = ["a", "bad1", "bad2", "m", "z"]
    _, _, first = scene(tmp_path, *names)
    _, state, then = scene(tmp_path, *names)
    assert first[0] == "a bad1 bad2 m z"
    assert then[:2] == ["a m z", "bad1 bad2"]
    assert set(then[2:]) == {"bad1", "bad2"}
    assert found(state) == {
        "a": NEW,
        "m": NEW,
        "z": NEW,
        **dict.fromkeys(("bad1", "bad2"), ("UP", False, "failed")),
    }


def test_a_cluster_that_is_well_again_is_refreshed(tmp_path: Path) -> None:
    """What failed the last time is asked for each time."""
    scene(tmp_path, "a", "bad")
    known = {"name": "bad", "status": "UP", "refreshed": False}
    state = json.loads((tmp_path / "state.json").read_text())
    assert {**state["clusters"][1], **known} == state["clusters"][1]
    # Under this name its cloud answers.
    (tmp_path / "state.json").write_text(json.dumps(state).replace('"bad"', '"b"'))
    assert found(scene(tmp_path, "a", "b")[1]) == {"a": NEW, "b": NEW}


def test_a_cluster_that_is_gone_is_kept_no_more(tmp_path: Path) -> None:
    """Its cloud has none of that name: whether its request was answered, or failed of another cluster."""
    for others in (("a",), ("a", "bad")):
        assert set(found(scene(tmp_path, *others, "gone")[1])) == set(others)


@pytest.mark.parametrize(("what", "failure"), [({"ill": True}, "failed"), ({"one by one": True}, "slow")])
def test_where_nothing_can_be_refreshed_the_run_failed(
    tmp_path: Path, what: dict[str, Any], failure: str
) -> None:
    """Exit code 75 and the word for it; what SkyPilot knows of clusters is kept, with when that was."""
    names = ("hung1", "hung2")
    done, state, _ = scene(tmp_path, *names, timeout=4, **what)
    assert (done.returncode, state["failure"], state["refreshed_at"]) == (75, failure, None)
    assert found(state) == dict.fromkeys(names, ("UP", False, failure))
    assert done.stderr.splitlines()[-1].startswith("The API server at ")


def test_what_was_refreshed_before_the_server_went_is_kept(tmp_path: Path) -> None:
    """The run failed, and its word says of what; nobody is asked for any more, neither again nor for jobs."""
    before = {"format": clusters.FORMAT, "clusters": [{"name": "fatal", "refreshed": False}]}
    (tmp_path / "state.json").write_text(json.dumps(before))
    done, state, asked = scene(tmp_path, "fatal", "up")
    assert (done.returncode, state["failure"]) == (75, "down")
    assert found(state) == {"fatal": ("UP", False, "failed"), "up": ("UP", True, None)}
    assert abs(state["refreshed_at"] - time.time()) < 60
    assert asked == ["up", "fatal"]
    # In one request with it nothing is known to be new: what was known of clusters stands.
    (tmp_path / "state.json").unlink()
    done, after, asked = scene(tmp_path, "fatal", "up")
    assert (done.returncode, after["failure"], after["refreshed_at"]) == (75, "down", None)
    assert (after["clusters"], asked) == ([], ["fatal up"])


def test_where_all_is_as_it_was_nothing_was_refreshed(tmp_path: Path) -> None:
    """The run is done, and the time of the last one that brought news stands; also where the server's clock is ahead."""
    for told in ({}, {"status_updated_at": 4_000_000_000}):
        done, state, _ = scene(tmp_path, clusters=[{"name": "kept", **told}])
        assert (done.returncode, state["failure"], state["refreshed_at"]) == (0, None, None)
        assert found(state) == {"kept": ("UP", False, "kept")}


def test_no_cluster_at_all_is_no_failure(tmp_path: Path) -> None:
    """There is nobody to ask."""
    done, state, asked = scene(tmp_path)
    assert (done.returncode, state["clusters"], state["failure"], asked) == (0, [], None, [])
    assert abs(state["refreshed_at"] - time.time()) < 60


def test_jobs_are_asked_for_of_clusters_that_are_up_and_refreshed(tmp_path: Path) -> None:
    """What cannot be asked by its cloud would only keep the others waiting."""
    _, state, asked = scene(tmp_path, "a", "kept", *(f"up{number}" for number in range(6)))
    assert [line for line in asked if line.startswith("jobs")] == [f"jobs of up{n}" for n in range(6)]
    assert [one["idle_minutes"] is None for one in state["clusters"]] == [True] * 2 + [False] * 6


def test_a_state_of_the_last_time_that_is_odd_breaks_nothing(tmp_path: Path) -> None:
    """Whatever stands where clusters do."""
    odds: tuple[object, ...] = (5, {}, None, "x", [5, [], {"name": []}, {"name": {}, "refreshed": False}])
    for odd in odds:
        (tmp_path / "state.json").write_text(json.dumps({"format": clusters.FORMAT, "clusters": odd}))
        assert found(scene(tmp_path, "a")[1]) == {"a": NEW}


@pytest.mark.parametrize(
    ("told", "kept"),
    [
        (0.0, None),
        (0, None),
        (None, None),
        ("1", None),
        (float("nan"), None),
        (-1.0, None),
        (0.5, 0.5),
        (1e-9, 0.0),
    ],
)
def test_a_cost_that_may_not_be_known_is_null(told: object, kept: float | None) -> None:
    """SkyPilot tells 0.0 where it finds no price, and where there is none."""
    assert clusters.cost_of(told) == kept


def test_costs_are_kept_of_each_cluster(tmp_path: Path) -> None:
    """By its hash, also where the price of another is not known."""
    _, state, _ = scene(tmp_path, "a", "b", "c", costs={"a": 1.25, "b": 0.0})
    assert [one["cost_dollars"] for one in state["clusters"]] == [1.25, None, None]


def test_the_monitor_tells_which_clusters_are_not_refreshed(tmp_path: Path) -> None:
    """By name, with since when their status stands; a file of before says nothing of it."""
    _, state, _ = scene(tmp_path, "a", "bad")
    text = exposition.written(monitor.of_clusters(state))
    for line in (
        'skypilot_cluster_refreshed{cluster="a"} 1.0',
        'skypilot_cluster_refreshed{cluster="bad"} 0.0',
        'skypilot_cluster_refresh_timestamp_seconds{cluster="bad"} 5.0',
    ):
        assert f"\n{line}\n" in text, line
    old = {"clusters": [{"name": "a", "status": "UP"}]}
    assert "skypilot_cluster_refresh" not in exposition.written(monitor.of_clusters(old))
