"""``haversack install skypilot-service``: what a snapshot declares of a service, put in place and started.

Every step can be done again: what is as it should be already is left alone.
"""

from __future__ import annotations

import os
import pwd
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from haversack.errors import NotFoundError, PrefixError, ToolError, UsageError
from haversack.kinds import kinds
from haversack.model.finding import Finding, raise_blocking, worst_first
from haversack.model.target import ANY
from haversack.platforms import Order
from haversack.platforms.systemd import PREFIX, SERVER, SERVICES, completed, refused, tree, valued
from haversack.ports import Inside
from haversack.services import machine, text
from haversack.services.declared import is_hidden
from haversack.services.values import Values
from haversack.verbs.install import Installed, choose, read_marker
from haversack.verbs.platform import order_of
from haversack.verbs.render import keep

SUFFIX = "-service"
"""How the names of services end, for ``haversack install``."""
_HEALTHY_WITHIN = 180.0
"""Seconds that an API server has to say that it is healthy; on a machine with one slow disk it takes 60."""
_PLATFORM = "systemd"
_PENDING = "/run/haversack-{name}-pending"
"""The units that must be started anew; after a boot all are."""


@dataclass(frozen=True, slots=True)
class Placed:
    """What was put in place, or would be on a dry run.

    ``written`` and ``removed`` are files below ``root``; ``started`` units run anew, ``stopped`` ones are gone.
    ``environment`` is what was installed, where it was not there already; ``address`` is where to look at it.
    """

    service: str
    snapshot: str
    root: Path
    package: str
    environment: Installed | None
    written: tuple[str, ...]
    removed: tuple[str, ...]
    started: tuple[str, ...]
    stopped: tuple[str, ...]
    address: str | None
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is to be in place: the files of a service, and what it is made of."""

    name: str
    order: Order
    found: Values
    files: Mapping[str, bytes]
    findings: tuple[Finding, ...]

    @property
    def marker(self) -> str:
        """The file that says what was rendered for it; `render clients` may have one in the same folder."""
        return f"etc/{self.name}/haversack-service.json"

    @property
    def rendered(self) -> dict[str, Mapping[str, bytes]]:
        """The files by who rendered them."""
        return {f"{self.name}{SUFFIX}": self.files}

    @property
    def units(self) -> tuple[str, ...]:
        """The units that start by themselves."""
        return tuple(text.units(SERVICES[self.name], self.found)) if self.found.options["enable"] else ()


def is_service(name: str) -> bool:
    """Whether a name that ``install`` was given is that of a service."""
    return name.endswith(SUFFIX) and name.removesuffix(SUFFIX) in SERVICES


def install_service(
    name: str,
    inside: Inside,
    environment: Callable[[str, Path, bool], Installed],
    *,
    prefix: Path | None = None,
    root: Path = Path("/"),
    target: str | None = None,
    snapshot: str | None = None,
    asked: Mapping[str, str] | None = None,
    start: bool = True,
    force: bool = False,
    dry_run: bool = False,
    say: Callable[[str], object] = lambda _: None,
) -> Placed:
    """Put a service (``skypilot``, ``haversack``) in place: its environment, its files, its units.

    ``environment(name, prefix, dry)`` installs an environment; ``prefix`` is where (the declared package, or
    ``/opt/skypilot``).  With a ``root`` other than ``/`` all is laid there for a machine that will start from it, and
    nothing is started.  ``say`` hears of each step.  Raises ``UsageError``, ``NotFoundError``, ``PrefixError`` for files
    that were edited, and ``ToolError`` for a step that failed, naming what was done before it and what was not.
    """
    staged = root.absolute() != Path("/")
    if not dry_run:
        _may(name, staged=staged, start=start)
    order = order_of(_PLATFORM, inside, snapshot, None, asked or {}, ())[1]
    if name not in order.settings:
        raise NotFoundError(
            f"snapshot {order.name} declares no service {name!r}",
            remedy=f"declare [platform.systemd.{name}], and bring a snapshot that has it",
        )
    plan = _plan(name, order, inside, prefix)
    package = Path(plan.found.options["package"])
    place = root / package.relative_to("/")
    installs = name == "skypilot" and plan.found.options["enable"] and _is_ours(plan, place, prefix)
    planned = environment(SERVER, place, True) if installs else None
    if planned is not None:
        _check_place(package, planned, root.absolute())
        carried = choose(order.content, SERVER, target, inside)
        if staged and not kinds()[carried.locked.kind].relocatable:
            said = "works only where it was installed to, and cannot be laid for another machine"
            raise UsageError(f"{carried.ref} {said}", remedy="install it on the machine itself")
        if (marker := read_marker(place)) and marker.manifest == carried.manifest:
            planned = None
    elif plan.found.options["enable"] and not staged and not (place / "bin").is_dir():
        remedy = "install it there, or leave package out of the table"
        raise NotFoundError("holds nothing that could be run", where=str(place), remedy=remedy)
    # Edited files are told before anything is done.
    written, removed = keep(root, plan.rendered, force=force, dry_run=True, marker=plan.marker)
    changed = {path for path in written if _differs(root / path, plan.files[path])}
    # What an install that failed, or was told to start nothing, left to be started.
    pending = Path(_PENDING.format(name=name))
    left = set(pending.read_text().split()) if pending.exists() and not staged else set()
    anew = _to_start(plan, changed, anew=planned is not None)
    started = tuple(unit for unit in plan.units if unit in {*anew, *left})
    stopped = tuple(Path(path).name for path in removed if path.startswith(text.UNITS))
    done = Placed(
        *(name, order.name, root, str(package), planned, written, removed, started, stopped),
        address=_address(plan),
        findings=plan.findings,
    )
    if dry_run:
        return done
    _check_sudoers(plan, inside)
    steps = _Steps(inside, say, () if staged else tuple(machine.credentials(name, plan.found)))
    with _readable():
        if not staged:
            pending.write_text(" ".join(started))
        if planned is not None:
            say(f"installing {SERVER} to {place}")
            done = replace(done, environment=environment(SERVER, place, False))
            steps.did(f"{SERVER} is installed to {place}")
        judged = refused(order, plan.found, inside) if installs else []
        raise_blocking(judged, f"SkyPilot refuses its configuration; its files in {root} are as they were")
        done = replace(done, findings=(*done.findings, *judged))
        if stopped and not staged:
            steps.run("the units that are no longer wanted stop", "systemctl", "disable", "--now", *stopped)
        keep(root, plan.rendered, force=force, marker=plan.marker)
        for path in plan.files:
            if path.startswith("etc/sudoers.d/"):
                (root / path).chmod(0o440)
        steps.did(f"{len(plan.files)} files are in place")
        _set_up(plan, root, steps, staged=staged)
        if not staged and start:
            _start(plan, started, steps)
            pending.unlink()
    if start and not staged and plan.units:
        _wait(plan, inside, say)
    return done


def _may(name: str, *, staged: bool, start: bool) -> None:
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


def _plan(name: str, order: Order, inside: Inside, prefix: Path | None) -> _Plan:
    settings = {key: dict(table) for key, table in order.settings.items()}
    if prefix is not None:
        if name != "skypilot":
            raise UsageError(
                "--to is for SkyPilot", remedy="install haversack by bootstrap.sh, or write package"
            )
        settings[name]["package"] = str(prefix.absolute())
    effective, more, findings = completed(replace(order, settings=settings), inside)
    raise_blocking(findings, f"{name} cannot be put in place")
    files = {**(more if name == "skypilot" else {}), **tree(name, effective, order.origin)}
    return _Plan(name, order, valued(name, effective), files, tuple(worst_first(findings)))


def _is_ours(plan: _Plan, place: Path, prefix: Path | None) -> bool:
    """Whether the environment of the snapshot belongs there, and not somebody's own SkyPilot."""
    carried = any(e.locked.name == SERVER and e.target != ANY for e in plan.order.content.environments)
    chosen = "package" in plan.order.settings[plan.name] and prefix is None
    somebodys = chosen and place.is_dir() and any(place.iterdir()) and read_marker(place) is None
    if not carried and not chosen:
        raise NotFoundError(
            f"snapshot {plan.order.name} has no environment {SERVER!r}",
            remedy="declare [platform.skypilot], or write package where SkyPilot is installed",
        )
    return carried and not somebodys


def _check_place(package: Path, planned: Installed, root: Path) -> None:
    """Raise ``PrefixError`` for a place that the service's user could not read, or that would not stay."""
    tool = Path(sys.prefix)
    if package == tool or tool in package.parents:
        said = f"lies in haversack's own folder {tool}, which bootstrap.sh replaces as a whole"
        raise PrefixError(said, where=str(package), remedy=f"choose another, as {PREFIX}")
    base = planned.python.resolve() if planned.python else None
    if base is not None and is_hidden(str(base)):
        raise PrefixError(
            "is a Python in a home or a folder for what passes, which the service cannot see",
            where=str(base),
            remedy="give --python one of the system, or declare [target.X] interpreter so that a bundle brings one",
        )
    for folder in planned.prefix.parents:
        if folder.is_relative_to(root) and folder.is_dir() and not folder.stat().st_mode & 0o001:
            raise PrefixError(
                "cannot be entered by the service's user", where=str(folder), remedy=f"chmod a+x {folder}"
            )


def _differs(path: Path, data: bytes) -> bool:
    """Whether a file says something else; its first line, which names the snapshot, does not count."""
    try:
        return path.read_bytes().partition(b"\n")[2] != data.partition(b"\n")[2]
    except FileNotFoundError:
        return True


def _to_start(plan: _Plan, changed: set[str], *, anew: bool) -> tuple[str, ...]:
    """The units that must start anew: those that changed, and all where what they run or read did."""
    shared = {
        path for path in changed if not path.startswith(("etc/systemd/", "etc/profile.d/", "etc/sudoers.d/"))
    }
    every = anew or bool(shared)
    return tuple(
        u for u in plan.units if f"{text.UNITS}/{u}" in changed or (every and u.endswith(".service"))
    )


def _address(plan: _Plan) -> str | None:
    if "skypilot-web-ui.service" in plan.units:
        return f"{machine.endpoint(plan.found)}/dashboard/"
    if "haversack.service" in plan.units:
        scheme = "https" if plan.found.options["tls.certificate"] else "http"
        host = plan.found.options["host"]
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{plan.found.options['port']}/"
    return None


def _check_sudoers(plan: _Plan, inside: Inside) -> None:
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
def _readable() -> Iterator[None]:
    """What is written here can be read by everybody: none of it is secret, and the service's user must."""
    before = os.umask(0o022)
    try:
        yield
    finally:
        os.umask(before)


class _Steps:
    """Steps that were done, for whoever must go on after one that failed."""

    def __init__(self, inside: Inside, say: Callable[[str], object], lacking: Sequence[Finding]) -> None:
        self._inside, self._say, self._lacking = inside, say, lacking
        self._done: list[str] = []

    def did(self, what: str) -> None:
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


def _set_up(plan: _Plan, root: Path, steps: _Steps, *, staged: bool) -> None:
    """Users, folders, and units known to systemd."""
    at = [f"--root={root.absolute()}"] if staged else []
    users, folders = f"etc/sysusers.d/{plan.name}.conf", f"etc/tmpfiles.d/{plan.name}.conf"
    if users in plan.files:
        steps.run(
            "users are made",
            "systemd-sysusers",
            *at,
            f"/{users}" if not staged else str(root.absolute() / users),
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
            f"/{folders}" if not staged else str(root.absolute() / folders),
        )
    if not staged:
        steps.run("systemd has read the units", "systemctl", "daemon-reload")
    if plan.units:
        steps.run("the units are enabled", "systemctl", *at, "enable", *plan.units)


def _start(plan: _Plan, anew: Sequence[str], steps: _Steps) -> None:
    for unit in plan.units:
        steps.run(f"{unit} is started", "systemctl", "restart" if unit in anew else "start", unit)


def _has_user(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def _wait(plan: _Plan, inside: Inside, say: Callable[[str], object]) -> None:
    """Until the server answers.  Raises ``ToolError`` for one that does not in time."""
    (unit,) = [u for u in plan.units if u in {"skypilot-web-ui.service", "haversack.service"}] or [""]
    if not unit:
        return
    say(f"waiting for {unit}")
    end = time.monotonic() + _HEALTHY_WITHIN
    told: object = "it does not run"
    while time.monotonic() < end:
        if machine.is_active(unit, inside.run):
            told = machine.health(plan.found, inside.run) if plan.name == "skypilot" else _listening(plan)
            if isinstance(told, Mapping):
                return
        time.sleep(1)
    raise ToolError(
        f"does not answer after {_HEALTHY_WITHIN:.0f} s: {told}",
        where=unit,
        remedy=f"journalctl -u {unit}; everything is in place, and systemd goes on starting it",
    )


def _listening(plan: _Plan) -> Mapping[str, object] | str:
    port = plan.found.options["port"]
    return {"port": port} if port in machine.listening() else f"nobody listens at port {port}"
