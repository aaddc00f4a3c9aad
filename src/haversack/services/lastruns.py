"""Units that come and go: how fared what timers start, and what fails and comes back.  Everything here only reads.

systemd tells whether the last run ended well, and forgets it with a boot; what it could not do, and since when, stands in
the state file that its program writes (docs/spec/skypilot-service.md).
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from haversack.model.finding import Finding, unknown, unready
from haversack.ports import Completed
from haversack.services.description import Service, Unit
from haversack.services.values import Values

Ask: TypeAlias = Callable[..., Completed | None]
"""What a program says, given its words; ``None`` where it cannot be started."""

_RUNS = 3
_LONGEST = 300
"""Seconds that a run may take: ``TimeoutStartSec`` of what timers start."""
_YOUNG = 300
"""Seconds of running after which what failed before counts no more: no unit waits longer before it comes back."""
_AGAIN = 3
_LIMIT = 4 << 20
_SHOWN = 10
_SERVER = "skypilot-web-ui"
WORDS = {
    "down": ("nothing answers at its endpoint", f"systemctl status {_SERVER}"),
    "slow": ("the API server took longer than there was time for", f"journalctl -u {_SERVER}"),
    "broken": ("what answers is no API server", "ss -ltnp shows what listens there"),
    "refused": ("the API server wants a login, or is not healthy", f"journalctl -u {_SERVER}"),
    "version": ("the API server is of another version", f"systemctl restart {_SERVER}"),
    "failed": ("the API server could not do it", f"journalctl -u {_SERVER}"),
}
"""The words of the state files, what they mean, and what to do where the server is on this machine."""


def look(
    service: Service, found: Values, ask: Ask, root: Path, uptime: float | None = None
) -> Iterator[Finding]:
    """What is wrong with the last runs of a service's units; state files are below ``root``.

    ``uptime`` are the seconds on the machine's own clock, which systemd's monotonic times are of.
    """
    now = time.monotonic() if uptime is None else uptime
    for unit in service.units:
        if not found.test(unit.when):
            continue
        if unit.timer is None:
            yield from _restarts(f"{unit.name}.service", ask, now)
        else:
            here = any(one.name == _SERVER and found.test(one.when) for one in service.units)
            away = None if here else f"look at {found.options['endpoint']}"
            yield from _last_run(unit, found, ask, root, now, away)


def _restarts(unit: str, ask: Ask, now: float) -> Iterator[Finding]:
    """One that fails right after each start is active in between, whenever it is looked at."""
    told = shown(unit, ask, "NRestarts", "ActiveState", "ActiveEnterTimestampMonotonic")
    restarts, seconds = int(told.get("NRestarts") or 0), _active(told, now)
    if restarts and seconds is not None and seconds < _YOUNG:
        said = f"failed and was started again, {restarts} times until now; it runs for {seconds} seconds only"
        remedy = f"journalctl -u {unit} says why; if that is mended, look again after {_YOUNG // 60} minutes"
        yield unready(unit, said, remedy, blocking=restarts >= _AGAIN)


def _last_run(
    unit: Unit, found: Values, ask: Ask, root: Path, now: float, away: str | None
) -> Iterator[Finding]:
    """``away`` is what to do about a server that is another machine's."""
    name, state = f"{unit.name}.service", dict[str, Any]()
    if written := re.search(r" --state (\S+)", found.text(_one(unit.service["ExecStart"]))):
        told = _read(root / written[1].removeprefix("/"), name)
        if isinstance(told, Finding):
            yield told
            # Of what cannot be read nothing is known to be old.
            written = None
        else:
            state = told or {}
    ended = shown(name, ask, "Result", "ExecMainStatus")
    result, status, word = ended.get("Result", "success"), ended.get("ExecMainStatus"), state.get("failure")
    # One person's cluster that could not be set ends a run with 1, and keeps nothing from the others.
    if (result, status, word) == ("exit-code", "1", None) and _unset(state.get("clusters")):
        result = "success"
    why, mend = WORDS.get(word, ("", "")) if isinstance(word, str) else ("", "")
    mend = (away or mend) if mend else ""
    remedy = "; ".join(filter(None, (mend, f"journalctl -u {name} says why")))
    good = _number(state.get("refreshed_at", state.get("ran_at")))
    done = f"it was last done {_since(good)}" if good is not None else "it was never done"
    if result != "success" or word is not None:
        said = f"failed when it ran last: {result}, status {status}"
        said = said if result != "success" else "could not do its work when it ran last"
        yield unready(name, "; ".join(filter(None, (said, why, done if state else ""))), remedy)
    elif written and (period := _period(unit, found)) is not None:
        timer = shown(f"{unit.name}.timer", ask, "ActiveState", "ActiveEnterTimestampMonotonic")
        seconds = _active(timer, now)
        patience = _RUNS * (period + _LONGEST)
        # One that found nothing new ran all the same.
        clock = state.get("clock")
        ran = _number(clock.get("wall")) if isinstance(clock, dict) else None
        last = max((at for at in (good, ran) if at is not None), default=None)
        if seconds is not None and seconds > patience and (last is None or time.time() - last > patience):
            said = f"has not done its work for several of its turns: {done}"
            yield unready(name, said, f"systemctl list-timers {unit.name}.timer; {remedy}")
    yield from _clusters(name, state.get("clusters"))


def _clusters(unit: str, kept: object) -> Iterator[Finding]:
    """Clusters that were not refreshed, or could not be told; one that is being launched is neither."""
    why = f"journalctl -u {unit} says why"
    if isinstance(kept, list):
        listed = [one for one in kept if isinstance(one, dict) and one.get("refreshed") is False]
        old = [c for c in listed if (c.get("status"), c.get("failure")) != ("INIT", "kept")]
        if old:
            names = _names(f"{c.get('name')} ({c.get('failure')})" for c in old)
            said = f"could not refresh {names}: what is known of them may be old"
            yield unready(unit, said, f"sky status --refresh NAME; {why}", blocking=False)
    if bad := _unset(kept):
        said = f"could not set autostop on {_names(iter(bad))}: they run on"
        yield unready(unit, said, why, blocking=False)


def _unset(kept: object) -> list[str]:
    """The clusters on which autostop could not be set."""
    if not isinstance(kept, dict):
        return []
    return sorted(name for name, one in kept.items() if isinstance(one, dict) and one.get("failed") is True)


def _names(names: Iterator[str]) -> str:
    plain = ["".join(c if c.isprintable() else "?" for c in name)[:80] for name in names]
    more = f" and {len(plain) - _SHOWN} more" if len(plain) > _SHOWN else ""
    return f"{', '.join(plain[:_SHOWN])}{more}"


def _read(path: Path, unit: str) -> dict[str, Any] | Finding | None:
    """A state file, ``None`` where there is none yet, or what is wrong with it."""
    try:
        with path.open("rb") as file:
            told = json.loads(file.read(_LIMIT))
    except FileNotFoundError:
        return None
    except PermissionError as problem:
        return unknown(str(path), f"cannot be read: {problem.strerror}", "look as root")
    except (OSError, ValueError, RecursionError):
        told = None
    if isinstance(told, dict):
        return told
    said, remedy = "is no state file", f"it is written anew by the next run: systemctl start {unit}"
    return unready(str(path), said, remedy, blocking=False)


def _period(unit: Unit, found: Values) -> int | None:
    """The seconds between two runs."""
    every = re.fullmatch(r"(\d+)min", found.text((unit.timer or {}).get("OnUnitInactiveSec", "")))
    return int(every[1]) * 60 if every else None


def _one(term: Any) -> Any:
    return term[0] if isinstance(term, tuple) else term


def shown(unit: str, ask: Ask, *names: str) -> Mapping[str, str]:
    """Properties of a unit as systemd tells them, by their names; those that it does not tell are left out."""
    done = ask("systemctl", "show", "-p", ",".join(names), unit)
    return dict(line.split("=", 1) for line in done.out.splitlines() if "=" in line) if done else {}


def _active(shown: Mapping[str, str], now: float) -> int | None:
    """For how many seconds a unit is active; ``None`` where it is not."""
    entered = shown.get("ActiveEnterTimestampMonotonic", "")
    if shown.get("ActiveState") != "active" or not entered.isdigit():
        return None
    return max(int(now - int(entered) / 1e6), 0)


def _number(told: object) -> float | None:
    return float(told) if isinstance(told, (int, float)) and not isinstance(told, bool) else None


def _since(moment: float) -> str:
    minutes = int(max(time.time() - moment, 0) // 60)
    return f"{minutes} minutes ago" if minutes < 600 else f"{minutes // 60} hours ago"
