"""What putting a service in place runs on the machine, step by step: every one can be done again."""

from __future__ import annotations

import itertools
import os
import pwd
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from haversack.errors import NotFoundError, ToolError, UsageError
from haversack.model.finding import Finding
from haversack.platforms.systemd import SERVICES
from haversack.ports import Inside
from haversack.services import machine, sockets
from haversack.verbs.aside import unwritable
from haversack.verbs.service_plan import SUFFIX, Plan

_HEALTHY_WITHIN = 180.0
"""Seconds that an API server has to say that it is healthy; on a machine with one slow disk it takes 60."""


def may(name: str, *, staged: bool, start: bool) -> None:
    """Raise where this person or this machine cannot have services."""
    if os.geteuid():
        raise UsageError(
            "only root puts services in place",
            remedy=f"sudo haversack install {name}{SUFFIX}, or see --dry-run",
        )
    if start and not staged and not Path("/run/systemd/system").is_dir():
        raise ToolError(
            "systemd does not run this machine",
            remedy="say --root DIR to lay the files for another one, or --no-start to start nothing",
        )


def check_sudoers(plan: Plan, inside: Inside) -> None:
    """Raise ``ToolError`` before a file is in place that sudo would not read: it would end sudo for everybody."""
    for path, data in plan.files.items():
        if not path.startswith("etc/sudoers.d/"):
            continue
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "sudoers")
            file.write_bytes(data)
            done = machine.asked(inside.run, "/usr/sbin/visudo", "-cf", str(file))
        # Without sudo nobody reads it.
        if done is not None and done.code not in {0, 126, 127}:
            raise ToolError(f"sudo would not read it: {done.err.strip()}", where=f"/{path}")


@contextmanager
def readable() -> Iterator[None]:
    """What is written here can be read by everybody: none of it is secret, and the service's user must."""
    before = os.umask(0o022)
    try:
        yield
    finally:
        os.umask(before)


class Steps:
    """Steps that were done, for whoever must go on after one that failed."""

    def __init__(self, inside: Inside, say: Callable[[str], object], lacking: Sequence[Finding]) -> None:
        self._inside, self._say, self._lacking = inside, say, lacking
        self._done: list[str] = []

    def did(self, what: str) -> None:
        """Note something that was done otherwise."""
        self._done.append(what)

    def run(self, what: str, *words: str) -> None:
        """Run a program.  Raises ``ToolError``."""
        self._say(" ".join(words))
        try:
            done = self._inside.run(list(words))
        except ToolError as problem:
            raise self._failed(what, problem.message, words) from problem
        if done.code:
            lines = [line for line in done.err.splitlines() if line.strip()]
            raise self._failed(what, "; ".join(lines[-3:]).rstrip(".") or f"exit code {done.code}", words)
        self.did(what)

    def _failed(self, what: str, why: str, words: Sequence[str]) -> ToolError:
        before = "; ".join(self._done) or "nothing"
        return ToolError(
            f"failed: {why}. Done before: {before}. Not done: {what}, and what comes after it",
            where=" ".join(words),
            remedy="mend that and install again: what is done already stays as it is",
            findings=self._lacking,
        )


def make_way(places: Sequence[Path], say: Callable[[str], object]) -> None:
    """Let links be made there: links and empty folders go, and anything else is kept beside, with a number.

    Raises ``PrefixError``.
    """
    for place in places:
        try:
            if place.is_symlink():
                place.unlink()
            elif place.is_dir() and not any(place.iterdir()):
                place.rmdir()
            else:
                others = (place.with_name(f"{place.name}.{number}") for number in itertools.count(1))
                aside = next(path for path in others if not os.path.lexists(path))
                place.rename(aside)
                say(f"{place} is kept as {aside}")
        except OSError as problem:
            raise unwritable(problem, "moved away", place) from problem


def set_up(plan: Plan, root: Path, steps: Steps, *, staged: bool) -> None:
    """Users, folders, and units known to systemd."""
    at = [f"--root={root.absolute()}"] if staged else []
    users, folders = f"etc/sysusers.d/{plan.name}.conf", plan.folders
    if users in plan.files:
        steps.run(
            "users are made",
            "systemd-sysusers",
            *at,
            str(root.absolute() / users),
        )
    if not staged and plan.units and not _has_user(plan.found.options["user"]):
        user = plan.found.options["user"]
        raise NotFoundError(f"there is no user {user}", remedy=f"useradd --system {user}, and install again")
    if folders in plan.files:
        steps.run(
            "folders are made",
            "systemd-tmpfiles",
            *at,
            "--create",
            str(root.absolute() / folders),
        )
    if not staged:
        steps.run("systemd has read the units", "systemctl", "daemon-reload")
    if plan.units:
        steps.run("the units are enabled", "systemctl", *at, "enable", *plan.units)


def start_units(plan: Plan, anew: Sequence[str], steps: Steps) -> None:
    """Start every unit, those of ``anew`` also where they run.  Raises ``ToolError``."""
    for unit in plan.units:
        steps.run(f"{unit} is started", "systemctl", "restart" if unit in anew else "start", unit)


def _has_user(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def wait(plan: Plan, inside: Inside, say: Callable[[str], object]) -> None:
    """Until all that listens does, and the API server says that it is healthy.

    Raises ``ToolError`` for what does not in time.
    """
    # The server's own metrics are part of the server.
    ports = {
        unit: plan.found.options[path] for path, unit in _listens(plan) if path != "monitoring.serverPort"
    }
    for unit, port in ports.items():
        say(f"waiting for {unit}.service")
        end = time.monotonic() + _HEALTHY_WITHIN
        while told := _lacking(plan, f"{unit}.service", port, inside):
            if time.monotonic() > end:
                raise ToolError(
                    f"does not answer after {_HEALTHY_WITHIN:.0f} s: {told}",
                    where=f"{unit}.service",
                    remedy=f"journalctl -u {unit}.service; everything is in place, and systemd goes on starting it",
                    findings=tuple(machine.taken(SERVICES[plan.name], plan.found, inside.run)),
                )
            time.sleep(1)


def _listens(plan: Plan) -> list[tuple[str, str]]:
    return list(machine.listens(SERVICES[plan.name], plan.found).items())


def _lacking(plan: Plan, unit: str, port: int, inside: Inside) -> str:
    """What is missing until a unit can be used; nothing where it can."""
    if not machine.is_active(unit, inside.run):
        return "it does not run"
    there = [one for one in sockets.listeners() if one.port == port]
    who = sockets.holders(there)
    if not there or (who and unit not in who):
        return f"it does not listen at port {port}"
    told = machine.health(plan.found, inside.run) if unit == "skypilot-web-ui.service" else {}
    return told if isinstance(told, str) else ""
