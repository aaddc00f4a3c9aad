"""``haversack install skypilot-service``: what a snapshot declares of a service, put in place and started.

Every step can be done again: what is as it should be already is left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from haversack.errors import NotFoundError, UsageError
from haversack.kinds import kinds
from haversack.model.finding import Finding, raise_blocking
from haversack.platforms.systemd import SERVER, SERVICES, refused
from haversack.ports import Inside
from haversack.services import machine, text
from haversack.verbs.install import Installed, choose, read_marker
from haversack.verbs.platform import order_of
from haversack.verbs.render import keep
from haversack.verbs.service_plan import (
    SUFFIX,
    address_of,
    ahead,
    check_place,
    check_within,
    differs,
    in_the_way,
    is_ours,
    left_behind,
    marker_of,
    plan_of,
    to_start,
    unread,
)
from haversack.verbs.service_steps import (
    Steps,
    check_sudoers,
    make_way,
    may,
    readable,
    set_up,
    start_units,
    wait,
)

_PLATFORM = "systemd"
_PENDING = "/run/haversack-{name}-pending"
"""The units that must be started anew; after a boot all are."""
_MODES = {"etc/sudoers.d/": 0o440, f"{text.COMMANDS}/": 0o755}


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


def is_service(name: str) -> bool:
    """Whether a name that ``install`` was given is that of a service."""
    return name.endswith(SUFFIX) and name.removesuffix(SUFFIX) in SERVICES


def install_service(
    name: str,
    inside: Inside,
    environment: Callable[[str, Path, bool, Callable[[Path], object] | None], Installed],
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

    ``environment(name, prefix, dry, judge)`` installs an environment that ``judge`` lets pass; ``prefix`` is where (the declared package, or
    ``/opt/skypilot``).  With a ``root`` other than ``/`` all is laid there for a machine that will start from it, and
    nothing is started.  ``say`` hears of each step.  Raises ``UsageError``, ``NotFoundError``, ``PrefixError`` for files
    that were edited, and ``ToolError`` for a step that failed, naming what was done before it and what was not.
    """
    staged = root.absolute() != Path("/")
    if not dry_run:
        may(name, staged=staged, start=start)
    order = order_of(_PLATFORM, inside, snapshot, None, asked or {}, ())[1]
    if name not in order.settings:
        table = f"[platform.systemd.{name}]"
        there = (root / marker_of(name)).exists()
        off = f"; to take it away from here, one with {table} and enable = false" if there else ""
        raise NotFoundError(
            f"snapshot {order.name} declares no service {name!r}",
            remedy=f"declare {table}, and bring a snapshot that has it{off}",
        )
    plan = plan_of(name, order, inside, prefix)
    if staged:
        check_within(plan, root.absolute())
    package = Path(plan.found.options["package"])
    place = root / package.relative_to("/")
    installs = name == "skypilot" and plan.found.options["enable"] and is_ours(plan, place, prefix)
    planned = environment(SERVER, place, True, None) if installs else None
    if planned is not None:
        check_place(package, planned, root.absolute())
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
    kept, in_way = in_the_way(plan, root)
    if not force:
        raise_blocking(kept, f"{root} holds what is not the service's; nothing was changed")
    changed = {path for path in written if differs(root / path, plan.files[path])}
    # What an install that failed, or was told to start nothing, left to be started.
    pending = Path(_PENDING.format(name=name))
    left = set(pending.read_text().split()) if pending.exists() and not staged else set()
    anew = to_start(plan, changed, anew=planned is not None, run=None if staged else inside.run)
    started = tuple(unit for unit in plan.units if unit in {*anew, *left})
    stopped = tuple(Path(path).name for path in removed if path.startswith(text.UNITS))
    # What another machine has is not known here.
    lacking = () if staged else tuple(machine.credentials(name, plan.found))
    ports = () if staged else tuple(machine.taken(SERVICES[name], plan.found, inside.run))
    wrong = () if staged else tuple(ahead(plan, inside, root))
    if not dry_run:
        raise_blocking(wrong, "it could not run here; nothing was changed")
    if start and not dry_run:
        raise_blocking(ports, "it could not listen; nothing was changed")
    done = Placed(
        *(name, order.name, root, str(package), planned, written, removed, started, stopped),
        address=address_of(plan),
        findings=(
            *plan.findings,
            *left_behind(plan, root),
            *unread(plan, root),
            *(replace(one, blocking=False) for one in (*lacking, *ports, *wrong)),
        ),
    )
    if dry_run:
        for one in kept:
            say(f"{one.subject} would make way for a link, and what is no link would be kept beside")
        return done
    check_sudoers(plan, inside)
    steps = Steps(inside, say, lacking)
    judged: list[Finding] = []

    def judge(where: Path) -> None:
        """Let the SkyPilot that is to read it say what it thinks of its configuration, before anything is changed."""
        if installs or (name == "skypilot" and not staged):
            judged.extend(refused(order, plan.found, inside, where / "bin" / "python"))
        raise_blocking(judged, "SkyPilot refuses its configuration; nothing was changed")
        if not staged:
            pending.write_text(" ".join(started))

    with readable():
        if planned is not None:
            say(f"installing {SERVER} to {place}")
            done = replace(done, environment=environment(SERVER, place, False, judge))
            steps.did(f"{SERVER} is installed to {place}")
        else:
            judge(place)
        done = replace(done, findings=(*done.findings, *judged))
        # Units are told of before their files go, and only when the others are there.
        keep(root, plan.rendered, force=force, marker=plan.marker, removing=False)
        for path in plan.files:
            for folder, mode in _MODES.items():
                if path.startswith(folder):
                    (root / path).chmod(mode)
        steps.did(f"{len(plan.files)} files are in place")
        if stopped:
            at = [f"--root={root.absolute()}", "disable"] if staged else ["disable", "--now"]
            steps.run("the units that are no longer wanted are disabled", "systemctl", *at, *stopped)
        keep(root, plan.rendered, force=force, marker=plan.marker)
        make_way(in_way, say)
        set_up(plan, root, steps, staged=staged)
        if not staged and start:
            start_units(plan, started, steps)
            pending.unlink()
    if start and not staged and plan.units:
        wait(plan, inside, say)
    return done
