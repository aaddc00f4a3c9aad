"""Set autostop on clusters that have none, or another: ``autostop.py --idle-minutes N [--state FILE] [--dry-run] …``

A oneshot for a timer.  Whatever it does, a cluster lives on for N minutes of idleness from then on: SkyPilot's
skylet counts idleness anew whenever autostop is set (sky/skylet/autostop_lib.py, ``set_autostop``).  For the same
reason an equal value is never set again, or no cluster would ever be idle for long enough.  It stops nothing and
tears nothing down itself.  What protects a cluster is in docs/spec/skypilot-service.md.

Exit codes: 0 done; 1 some cluster could not be set, or the file could not be written; 2 bad usage; 75 the API server
could not be asked.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from haversack.data.skypilot import asking, clusters
else:
    import asking
    import clusters

FORMAT = "skypilot-autostop-1"
QUIET = 1800.0
"""Seconds for which a cluster that never had a job is seen with nothing under way before it is told anything."""
_A_CLUSTER = 120.0
"""Seconds that one cluster may take, so that one that hangs leaves time for the others."""
_LOOKS = {
    "cluster_events", "cost_report", "download_logs", "endpoints", "hook_logs", "job_status", "logs", "queue",
    "status",
}  # fmt: skip
"""Requests that only look at a cluster (sky/server/requests/request_names.py); any other is at work on it."""


@dataclass(frozen=True)
class Change:
    """Autostop to set on a cluster: minutes of idleness, and whether it is torn down then instead of stopped."""

    cluster: str
    minutes: int
    down: bool
    why: str


def wanted(cluster: asking.Cluster, minutes: int) -> Change | None:
    """What is to be set on a cluster so that it stops after so many idle minutes, or None: leave it alone.

    Left alone is what is not UP (nothing runs, or SkyPilot is at work on it), what belongs to SkyPilot itself (its
    controllers, and the clusters that they manage), and what has that value already.  A cluster that somebody asked
    to be torn down is torn down still.
    """
    if cluster.status != "UP" or cluster.managed or asking.is_controller(cluster.name):
        return None
    if cluster.autostop == minutes:
        return None
    if cluster.autostop < 0:
        return Change(cluster.name, minutes, False, "it has none")
    return Change(cluster.name, minutes, cluster.to_down, f"it has {cluster.autostop} minutes")


def can(resources: Any, *features: str) -> bool:
    """Whether a cloud can do something with what was launched, as SkyPilot itself knows it.

    The same question that its server asks before it sets autostop (sky/core.py, ``autostop``).  Raises whatever
    SkyPilot does where that cannot be told, except that it is not supported.
    """
    from sky import clouds, exceptions

    known = clouds.CloudImplementationFeatures
    asked = {getattr(known, feature) for feature in features if hasattr(known, feature)}
    try:
        resources.cloud.check_features_are_supported(resources, asked)
    except exceptions.NotSupportedError:
        return False
    return True


def settled(change: Change, cluster: asking.Cluster) -> Change | None:
    """A change, torn down where the cloud cannot stop what was launched; None where it can do neither.

    Raises ``LookupError`` where SkyPilot does not tell what was launched: what cannot be known is not torn down.
    """
    resources = getattr(cluster.handle, "launched_resources", None)
    if getattr(resources, "cloud", None) is None:
        raise LookupError("SkyPilot does not tell what was launched")
    if not change.down and can(resources, "STOP", "AUTOSTOP"):
        return change
    return replace(change, down=True) if can(resources, "AUTODOWN") else None


def at_work(requests: Iterable[Any], name: str) -> str | None:
    """The request under way that is at work on a cluster, of those that ``sdk.api_status`` tells; None: there is none.

    SkyPilot says UP of a cluster as soon as it is provisioned, copies workdir and files to it only then, and sets
    the autostop of its task after that (sky/execution.py): to the skylet such copying is idleness.  A request that
    changes something and names no cluster may be at work on any.
    """
    for request in requests:
        word = str(asking.told(request, "name") or "").removeprefix("sky.")
        on = asking.told(request, "cluster_name")
        if word not in _LOOKS and (on == name or (on is None and word in {"", "launch", "exec", "start"})):
            return asking.plain(word or "something", 40)
    return None


def differs(before: asking.Cluster, now: asking.Cluster) -> bool:
    """Whether a cluster is another one than was listed, or was told something since."""

    def what(cluster: asking.Cluster) -> tuple[object, ...]:
        return (
            cluster.hash, cluster.status, cluster.autostop, cluster.to_down, cluster.managed, cluster.launched_at,
            cluster.cloud, cluster.region, cluster.instance_type, cluster.spot,
        )  # fmt: skip

    return what(before) != what(now)


@dataclass(frozen=True)
class Done:
    """What became of a cluster: a line for the log, empty where there is nothing to say, and whether it failed.

    ``quiet`` says that it never had a job and has nothing under way.
    """

    line: str = ""
    failed: bool = False
    quiet: bool = False


def put(
    asked: asking.Asked, cluster: asking.Cluster, minutes: int, dry: bool = False, quiet_for: float = 0.0
) -> Done:
    """Set what is wanted on one cluster, if it is still the one that was listed and nothing is under way on it.

    ``quiet_for`` are the seconds for which that was so of one that never had a job.
    """
    change = wanted(cluster, minutes)
    if change is None:
        return Done()
    try:
        with asking.within(min(_A_CLUSTER, asked.until - asking.now())):
            return _put(asked, cluster, change, dry, quiet_for)
    except asking.Late:
        return Done("not set, it took too long.", failed=True)
    except Exception as problem:
        kinds = {kind.__name__ for kind in type(problem).__mro__}
        if kinds & {"ClusterDoesNotExist", "ClusterNotUpError"}:
            return Done("left alone, it is gone or no longer up.")
        return Done(f"not set: {asking.plain(problem, 160)}", failed=True)


def _put(asked: asking.Asked, cluster: asking.Cluster, change: Change, dry: bool, quiet_for: float) -> Done:
    sdk = asked.sdk
    settle = settled(change, cluster)
    if settle is None:
        return Done("left alone, its cloud can neither stop it nor tear it down by itself.")
    if word := at_work(sdk.api_status(), cluster.name):
        return Done(f"left alone, {word} is under way.")
    ran = bool(list(asked.wait(sdk.queue(cluster.name, all_users=True))))
    if not ran and quiet_for < QUIET:
        return Done("left alone for now, it never had a job.", quiet=True)
    # As late as can be: what was listed may be another cluster by now, or one that somebody is at work on.  And of its
    # cloud: where that gave the address of a machine to another cluster, SkyPilot would tell that one.
    again = sdk.status([cluster.name], refresh=asking.forced(), all_users=True)
    found = [asking.cluster_of(one) for one in asked.wait(again)]
    if not found:
        return Done("left alone, it is gone or no longer up.")
    if len(found) > 1 or differs(cluster, found[0]):
        return Done("left alone, it has changed meanwhile.")
    if not asking.renewed(cluster, found[0]):
        return Done("not set, its cloud does not tell of it.", failed=True)
    if word := at_work(sdk.api_status(), cluster.name):
        return Done(f"left alone, {word} is under way.")
    if not dry:
        asked.wait(sdk.autostop(settle.cluster, settle.minutes, down=settle.down))
    what = f"{'torn down' if settle.down else 'stopped'} after {settle.minutes} idle minutes"
    return Done(f"{'would be' if dry else 'will be'} {what} ({settle.why}).")


def order(listed: Iterable[asking.Cluster], remembered: Mapping[str, Any]) -> list[asking.Cluster]:
    """Clusters by how often they failed in a row: those that hang take no time from the others twice."""

    def key(cluster: asking.Cluster) -> tuple[int, str]:
        return failures(remembered, cluster), cluster.name

    return sorted(listed, key=key)


def _of(remembered: Mapping[str, Any], cluster: asking.Cluster) -> Mapping[str, Any]:
    kept = remembered.get("clusters")
    one = kept.get(cluster.name) if isinstance(kept, dict) else None
    return one if isinstance(one, dict) and cluster.hash and one.get("hash") == cluster.hash else {}


def failures(remembered: Mapping[str, Any], cluster: asking.Cluster) -> int:
    """How often a cluster could not be set in a row, until now."""
    number = _of(remembered, cluster).get("failures")
    return number if isinstance(number, int) else 0


def quiet_since(
    remembered: Mapping[str, Any], cluster: asking.Cluster, machine: float, boot: str
) -> float | None:
    """Since when a cluster is seen without a job and with nothing under way, on the machine's clock; None: it is not.

    That clock (seconds since boot) is moved by nobody; of another boot nothing is known.
    """
    since = _of(remembered, cluster).get("quiet_since")
    if not boot or remembered.get("boot") != boot or not isinstance(since, (int, float)):
        return None
    return float(since) if since <= machine else None


def rounds(
    asked: asking.Asked, listed: Iterable[asking.Cluster], minutes: int, dry: bool, before: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """Tell the clusters, one after another as long as there is time, a line each.  Gives what to remember of them."""
    boot = clusters.boot()
    kept: dict[str, dict[str, Any]] = {}
    for cluster in order(listed, before):
        machine = time.clock_gettime(time.CLOCK_BOOTTIME)
        since, failed = quiet_since(before, cluster, machine, boot), failures(before, cluster)
        if wanted(cluster, minutes) is None:
            continue
        if asked.until - asking.now() < 1.0:
            done, number = (
                Done("not reached, the time was over.", failed=True, quiet=since is not None),
                failed,
            )
        else:
            done = put(asked, cluster, minutes, dry, 0.0 if since is None else machine - since)
            number = failed + 1 if done.failed else 0
        if done.line:
            say(f"{cluster.name}: {done.line}")
        quiet = (machine if since is None else since) if done.quiet else None
        if done.failed or quiet is not None:
            one = {"hash": cluster.hash, "failed": done.failed, "failures": number, "quiet_since": quiet}
            kept[cluster.name] = one
    return kept


def say(line: str) -> None:
    """One line to standard output, at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _positive(text: str) -> int:
    number = int(text)
    if not 0 < number <= 525_600:
        raise argparse.ArgumentTypeError(f"{text} is no number between 1 and 525600")
    return number


def main(arguments: Sequence[str]) -> int:
    """Look once at all clusters of all users.  Gives the exit code."""
    parser = argparse.ArgumentParser(prog="autostop.py", description="Set autostop where it is missing.")
    parser.add_argument("--idle-minutes", type=_positive, required=True)
    parser.add_argument("--state", type=Path, help="the file in which it keeps what it found")
    parser.add_argument("--dry-run", action="store_true", help="say what would be set, and set nothing")
    parser.add_argument("--timeout", type=_positive, default=300, help="seconds for all of it")
    given = parser.parse_args(arguments)
    before = clusters.read(given.state, FORMAT) if given.state else {}
    state = {
        "format": FORMAT,
        "ran_at": before.get("ran_at"),
        "failed_at": None,
        "failure": None,
        "boot": before.get("boot"),
        "clusters": before.get("clusters", {}),
    }
    try:
        asked = asking.ask(given.timeout)
        listed = [asking.cluster_of(one) for one in asked.get(asked.sdk.status, all_users=True)]
    except (Exception, asking.Late) as problem:
        unanswered = asking.why(problem, os.environ.get(asking.ENDPOINT, ""))
        sys.stderr.write(f"{unanswered}\n")
        state |= {"failed_at": time.time(), "failure": unanswered.failure}
        code = asking.TEMPFAIL
    else:
        kept = rounds(asked, listed, given.idle_minutes, given.dry_run, before)
        state |= {"ran_at": time.time(), "boot": clusters.boot(), "clusters": kept}
        code = int(any(one["failed"] for one in kept.values()))
    if given.state and not given.dry_run:
        try:
            clusters.write(given.state, state)
        except OSError as problem:
            sys.stderr.write(f"{given.state} could not be written, and is as it was: {problem.strerror}.\n")
            return code or 1
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
