"""Refresh what SkyPilot knows of all clusters, and keep it: ``clusters.py --state FILE [--timeout SECONDS]``.

A oneshot for a timer; it talks to the API server that the environment names and never starts one.  The file is
described in docs/spec/skypilot-service.md.

Exit codes: 0 done, also where some clusters could not be refreshed, which the file says of each; 1 the file could not
be written; 2 bad usage; 75 the API server could not be asked, or not to the end, which the file says beside what is known.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from haversack.data.skypilot import asking, refreshing
else:
    import asking
    import refreshing

FORMAT = "skypilot-clusters-1"
MOST = 2000
"""Clusters that are kept: some 600 bytes each."""
LIMIT = 4 << 20
"""Bytes of a state file that are read back."""
_KNOWN = 30.0
"""Seconds that the list of clusters may take, without asking their clouds."""
_REFRESHING = 0.6
"""The part of the time in which clouds are asked; what is left is for costs and jobs."""
_JOBS = 60.0
"""Seconds that the jobs of clusters that are asked at once may take to be told."""
_JOBS_AT_ONCE = 4
_COSTS = 30.0
_JUMP = 120.0
"""Seconds by which the clock of the day may run apart from that of the machine between two times."""
_AHEAD = 300.0
"""Seconds by which the clock of a cluster may be ahead of ours."""
_ENDED = {"SUCCEEDED", "FAILED", "FAILED_SETUP", "FAILED_DRIVER", "CANCELLED"}
"""States of a job after which nothing runs (sky/skylet/job_lib.py, JobStatus, terminal ones)."""


def idle_minutes(
    launched_at: float | None, jobs: Iterable[Mapping[str, Any]], now: float, steady_since: float
) -> float | None:
    """Minutes since the last job of a cluster ended, or since its launch where it never had one.

    None where that is not known: a job that ended has no time, a time lies ahead of ours, or before our clock jumped
    (``steady_since``).  0 while a job runs or waits.  Logins by SSH are not seen.
    """
    since = launched_at or 0.0
    for job in jobs:
        if job["status"] not in _ENDED:
            return 0.0
        if job["end_at"] is None:
            return None
        since = max(since, job["end_at"])
    if launched_at is None or since < steady_since or since > now + _AHEAD:
        return None
    return round(max(now - since, 0.0) / 60, 1)


def clock(before: object, wall: float, machine: float, boot: str) -> dict[str, Any]:
    """What is remembered of the clock: the day's, the machine's (seconds since boot), and since when they agree.

    Where the two ran apart since the last time, the day's was moved: what happened before cannot be subtracted from
    now.  Across a boot that cannot be told, other than by a clock that went back.
    """
    steady = 0.0
    if isinstance(before, dict):
        with suppress(KeyError, TypeError, ValueError):
            old_wall, old_machine = float(before["wall"]), float(before["machine"])
            steady = float(before["steady_since"])
            booted = machine < old_machine or (boot and before["boot"] and boot != before["boot"])
            moved = wall - old_wall if booted else (wall - old_wall) - (machine - old_machine)
            if moved < -_JUMP or (moved > _JUMP and not booted):
                steady = wall
    return {"wall": wall, "machine": machine, "boot": boot, "steady_since": min(steady, wall)}


def jobs_of(queue: Iterable[Any]) -> list[dict[str, Any]]:
    """Status and end of the jobs that ``sdk.queue`` tells of (sky/schemas/api/responses.py, ClusterJobRecord)."""
    jobs = []
    for record in queue:
        status = record["status"]
        jobs.append({"status": str(getattr(status, "value", status)), "end_at": record["end_at"]})
    return jobs


def kept(
    cluster: asking.Cluster, idle: float | None, cost: float | None, failure: str | None = None
) -> dict[str, Any]:
    """A cluster as it stands in the state file; ``failure`` says why it is not refreshed."""
    return {
        "name": cluster.name[:128],
        "user": cluster.user,
        "status": cluster.status,
        "cloud": cluster.cloud,
        "region": cluster.region,
        "instance_type": cluster.instance_type,
        "spot": cluster.spot,
        "autostop_minutes": cluster.autostop if cluster.autostop >= 0 else -1,
        "to_down": cluster.to_down,
        "launched_at": cluster.launched_at,
        "last_use": cluster.last_use,
        "refreshed": failure is None,
        "refreshed_at": cluster.updated_at,
        "failure": failure,
        "idle_minutes": idle,
        "cost_dollars": cost,
    }


def cost_of(dollars: object) -> float | None:
    """A cost that SkyPilot tells, or None where it may not know the price.

    It tells 0.0 where it cannot find a price (sky/core.py, ``cost_report``), and where its catalog has none, as for
    Kubernetes: that is not told from what costs nothing.
    """
    if not isinstance(dollars, (int, float)) or not math.isfinite(dollars) or dollars <= 0:
        return None
    return round(float(dollars), 4)


def costs(asked: asking.Asked) -> dict[str, float | None]:
    """Dollars so far by the hash of a cluster, as far as SkyPilot's catalog knows prices; nothing where it fails."""
    try:
        report = asked.get(asked.sdk.cost_report, most=_COSTS)
    except (Exception, asking.Late):
        return {}
    return {
        record["cluster_hash"]: cost_of(record.get("total_cost"))
        for record in report
        if record.get("cluster_hash")
    }


def idleness(
    asked: asking.Asked, found: Iterable[refreshing.News], steady_since: float
) -> dict[str, float | None]:
    """Minutes of idleness by the names of clusters that are up, refreshed, and tell their jobs while there is time."""
    up = [
        one.cluster
        for one in found
        if one.cluster.status == "UP" and not one.failure and not asking.is_controller(one.cluster.name)
    ]
    idle: dict[str, float | None] = {}
    for start in range(0, len(up), _JOBS_AT_ONCE):
        if asked.until - asking.now() < 1.0:
            break
        some = up[start : start + _JOBS_AT_ONCE]
        queues = asked.gather(
            *(partial(asked.sdk.queue, cluster.name, all_users=True) for cluster in some), most=_JOBS
        )
        for cluster, queue in zip(some, queues, strict=True):
            # What is no list of jobs is told by nobody.
            with suppress(Exception):
                jobs = jobs_of(queue)
                idle[cluster.name] = idle_minutes(cluster.launched_at, jobs, time.time(), steady_since)
    return idle


@dataclass(frozen=True)
class Looked:
    """What a look gave: clusters as they are kept, how many there is no room for, and what ended it or failed of all."""

    clusters: list[dict[str, Any]]
    left_out: int
    problem: BaseException | None


def look(asked: asking.Asked, before: Iterable[object], steady_since: float) -> Looked:
    """All clusters of all users, as far as their clouds tell of them now; ``before`` are those of the last time.

    Raises what SkyPilot raises, and `Late`, where it does not even say what it knows.
    """
    known = asked.get(asked.sdk.status, all_users=True, most=_KNOWN)
    clusters = sorted(map(asking.cluster_of, known), key=lambda cluster: cluster.name)
    doubted = {
        str(one.get("name")) for one in before if isinstance(one, dict) and one.get("refreshed") is False
    }
    seconds = (asked.until - asking.now()) * _REFRESHING
    found = refreshing.refresh(asked, clusters[:MOST], doubted, seconds)
    news = [one for _, one in sorted(found.news.items())]
    refreshing.say(news)
    # Nobody waits for a server that is gone.
    here = not isinstance(found.problem, asking.Unanswered)
    dollars = costs(asked) if news and here else {}
    idle = idleness(asked, news, steady_since) if here else {}
    told = [
        kept(one.cluster, idle.get(one.cluster.name), dollars.get(one.cluster.hash or ""), one.failure)
        for one in news
    ]
    return Looked(told, len(clusters[MOST:]), found.problem)


def read(path: Path, kind: str = FORMAT) -> dict[str, Any]:
    """The state file of the last time; empty where there is none, where it is rotten or of another format."""
    try:
        with path.open("rb") as file:
            told = json.loads(file.read(LIMIT))
    except (OSError, ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) and told.get("format") == kind else {}


def write(path: Path, state: Mapping[str, Any]) -> None:
    """Put a state file in the place of the last one, or leave that one as it is.  Raises ``OSError``."""
    text = json.dumps(state, ensure_ascii=False, sort_keys=True) + "\n"
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", errors="replace") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o640)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def boot() -> str:
    """What the kernel calls the time since it was started; empty where it does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _seconds(text: str) -> int:
    number = int(text)
    if not 0 < number <= 86_400:
        raise argparse.ArgumentTypeError(f"{text} is no number of seconds between 1 and 86400")
    return number


def main(arguments: Sequence[str]) -> int:
    """Look once, and write what was found.  Gives the exit code."""
    parser = argparse.ArgumentParser(
        prog="clusters.py", description="Refresh and keep the state of clusters."
    )
    parser.add_argument("--state", type=Path, required=True, help="the file that is written")
    parser.add_argument("--timeout", type=_seconds, default=300, help="seconds for all of it")
    given = parser.parse_args(arguments)
    before = read(given.state)
    known = before.get("clusters")
    wall, machine = time.time(), time.clock_gettime(time.CLOCK_BOOTTIME)
    state = {
        "format": FORMAT,
        "refreshed_at": before.get("refreshed_at"),
        "clusters": known if isinstance(known, list) else [],
        "left_out": before.get("left_out", 0),
        "failed_at": None,
        "failure": None,
        "server_version": before.get("server_version"),
        "clock": clock(before.get("clock"), wall, machine, boot()),
    }
    code = 0
    problem: BaseException | None
    try:
        asked = asking.ask(given.timeout)
        looked = look(asked, state["clusters"], state["clock"]["steady_since"])
    except (Exception, asking.Late) as raised:
        problem = raised
    else:
        state |= {"clusters": looked.clusters, "left_out": looked.left_out, "server_version": asked.version}
        problem = looked.problem
        if not looked.clusters or any(one["refreshed"] for one in looked.clusters):
            state["refreshed_at"] = time.time()
    if problem is not None:
        unanswered = asking.why(problem, os.environ.get(asking.ENDPOINT, ""))
        sys.stderr.write(f"{unanswered}\n")
        state |= {"failed_at": time.time(), "failure": unanswered.failure}
        code = asking.TEMPFAIL
    try:
        write(given.state, state)
    except OSError as unwritten:
        sys.stderr.write(f"{given.state} could not be written, and is as it was: {unwritten.strerror}.\n")
        return 1
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
