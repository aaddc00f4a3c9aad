"""Set autostop on clusters that have none, or another: ``autostop.py --idle-minutes N [--dry-run] [--timeout S]``.

A oneshot for a timer.  Whatever it does, a cluster lives on for N minutes of idleness from then on: SkyPilot's
skylet counts idleness anew whenever autostop is set (sky/skylet/autostop_lib.py, ``set_autostop``).  For the same
reason an equal value is never set again, or no cluster would ever be idle for long enough.  It stops nothing and
tears nothing down itself.

Exit codes: 0 done; 1 some cluster could not be set; 2 bad usage; 75 the API server could not be asked.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from haversack.data.skypilot import asking
else:
    import asking

_A_CLUSTER = 60.0
"""Seconds that one cluster may take, so that one that hangs leaves time for the others."""


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


def put(asked: asking.Asked, cluster: asking.Cluster, minutes: int, dry: bool) -> bool:
    """Set what is wanted on one cluster, and say so in a line.  False when it could not be set."""
    change = wanted(cluster, minutes)
    if change is None:
        return True
    try:
        with asking.within(min(_A_CLUSTER, asked.until - asking.now())):
            change = settled(change, cluster)
            if change is None:
                say(f"{cluster.name}: left alone, its cloud can neither stop it nor tear it down by itself.")
                return True
            what = f"{'torn down' if change.down else 'stopped'} after {change.minutes} idle minutes"
            if not dry:
                request = asked.sdk.autostop(change.cluster, change.minutes, down=change.down)
                asked.sdk.get(request)
    except asking.Late:
        say(f"{cluster.name}: not set, it took too long.")
        return False
    except Exception as problem:
        kinds = {kind.__name__ for kind in type(problem).__mro__}
        if kinds & {"ClusterDoesNotExist", "ClusterNotUpError"}:
            say(f"{cluster.name}: left alone, it is gone or no longer up.")
            return True
        say(f"{cluster.name}: not set: {asking.plain(problem, 160)}")
        return False
    say(f"{cluster.name}: {'would be' if dry else 'will be'} {what} ({change.why}).")
    return True


def say(line: str) -> None:
    """One line to standard output, at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _positive(text: str) -> int:
    number = int(text)
    if not 0 < number <= 525_600:
        raise argparse.ArgumentTypeError(f"{text} is no number of minutes between 1 and 525600")
    return number


def main(arguments: Sequence[str]) -> int:
    """Look once at all clusters of all users.  Gives the exit code."""
    parser = argparse.ArgumentParser(prog="autostop.py", description="Set autostop where it is missing.")
    parser.add_argument("--idle-minutes", type=_positive, required=True)
    parser.add_argument("--dry-run", action="store_true", help="say what would be set, and set nothing")
    parser.add_argument("--timeout", type=_positive, default=300, help="seconds for all of it")
    given = parser.parse_args(arguments)
    endpoint = os.environ.get(asking.ENDPOINT, "")
    try:
        asked = asking.ask(given.timeout)
        records = asked.get(asked.sdk.status, all_users=True)
    except (Exception, asking.Late) as problem:
        sys.stderr.write(f"{asking.why(problem, endpoint)}\n")
        return asking.TEMPFAIL
    good = [put(asked, asking.cluster_of(record), given.idle_minutes, given.dry_run) for record in records]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
