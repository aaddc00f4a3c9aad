"""Refresh what SkyPilot knows of all clusters, and keep it: ``clusters.py --state FILE [--timeout SECONDS]``.

A oneshot for a timer; it talks to the API server that the environment names and never starts one.  The file is
described in docs/spec/skypilot-service.md.

Exit codes: 0 done; 1 the file could not be written; 2 bad usage; 75 the API server could not be asked, which the
file says beside the clusters of the last time.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from haversack.data.skypilot import asking
else:
    import asking

FORMAT = "skypilot-clusters-1"
MOST = 2000
"""Clusters that are kept: some 600 bytes each."""
LIMIT = 4 << 20
"""Bytes of a state file that are read back."""
_JOBS = 30.0
"""Seconds that the jobs of one cluster may take to be told."""
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


def kept(cluster: asking.Cluster, idle: float | None, cost: float | None) -> dict[str, Any]:
    """A cluster as it stands in the state file."""
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
        "idle_minutes": idle,
        "cost_dollars": cost,
    }


def costs(asked: asking.Asked) -> dict[str, float]:
    """Dollars so far by the hash of a cluster, as far as SkyPilot's catalog knows prices; nothing where it fails."""
    try:
        report = asked.get(asked.sdk.cost_report, most=_COSTS)
    except (Exception, asking.Late):
        return {}
    return {
        record["cluster_hash"]: round(float(record["total_cost"]), 4)
        for record in report
        if record.get("cluster_hash") and isinstance(record.get("total_cost"), (int, float))
    }


def look(asked: asking.Asked, remembered: Mapping[str, Any]) -> tuple[list[dict[str, Any]], int]:
    """All clusters of all users, as their clouds tell of them now, and how many there is no room for.

    Raises what SkyPilot raises, and `Late`.
    """
    from sky.utils.common import StatusRefreshMode

    records = asked.get(asked.sdk.status, refresh=StatusRefreshMode.FORCE, all_users=True)
    clusters = sorted(map(asking.cluster_of, records), key=lambda cluster: cluster.name)
    dollars = costs(asked) if clusters else {}
    found = []
    for cluster in clusters[:MOST]:
        idle = None
        if cluster.status == "UP" and not asking.is_controller(cluster.name):
            with suppress(Exception, asking.Late):
                queue = asked.get(asked.sdk.queue, cluster.name, all_users=True, most=_JOBS)
                steady = remembered["steady_since"]
                idle = idle_minutes(cluster.launched_at, jobs_of(queue), time.time(), steady)
        found.append(kept(cluster, idle, dollars.get(cluster.hash or "")))
    return found, len(clusters) - len(found)


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
    wall, machine = time.time(), time.clock_gettime(time.CLOCK_BOOTTIME)
    state = {
        "format": FORMAT,
        "refreshed_at": before.get("refreshed_at"),
        "clusters": before.get("clusters", []),
        "left_out": before.get("left_out", 0),
        "failed_at": None,
        "failure": None,
        "server_version": before.get("server_version"),
        "clock": clock(before.get("clock"), wall, machine, boot()),
    }
    code = 0
    try:
        asked = asking.ask(given.timeout)
        clusters, left_out = look(asked, state["clock"])
        state |= {"refreshed_at": time.time(), "clusters": clusters, "left_out": left_out}
        state["server_version"] = asked.version
    except (Exception, asking.Late) as problem:
        unanswered = asking.why(problem, os.environ.get(asking.ENDPOINT, ""))
        sys.stderr.write(f"{unanswered}\n")
        state |= {"failed_at": time.time(), "failure": unanswered.failure}
        code = asking.TEMPFAIL
    try:
        write(given.state, state)
    except OSError as problem:
        sys.stderr.write(f"{given.state} could not be written, and is as it was: {problem.strerror}.\n")
        return 1
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
