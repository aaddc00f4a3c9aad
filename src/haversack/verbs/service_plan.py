"""What is to be in place for a service of systemd: its files, where it runs from, and what must start anew."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from haversack.errors import NotFoundError, PrefixError, UsageError
from haversack.model.finding import Finding, raise_blocking, unknown, unready, worst_first
from haversack.model.target import ANY
from haversack.platforms import Order
from haversack.platforms.systemd import PREFIX, SERVER, SERVICES, completed, tree, valued
from haversack.ports import Inside, Run
from haversack.services import machine, text
from haversack.services.belongings import folders, foreign, unreadable
from haversack.services.declared import is_hidden
from haversack.services.values import Values
from haversack.verbs.install import Installed, read_marker

SUFFIX = "-service"
"""How the names of services end, for ``haversack install``."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be in place: the files of a service, and what it is made of."""

    name: str
    order: Order
    found: Values
    files: Mapping[str, bytes]
    findings: tuple[Finding, ...]

    @property
    def marker(self) -> str:
        """The file that says what was rendered for it; `render clients` may have one in the same folder."""
        return marker_of(self.name)

    @property
    def rendered(self) -> dict[str, Mapping[str, bytes]]:
        """The files by who rendered them."""
        return {f"{self.name}{SUFFIX}": self.files}

    @property
    def folders(self) -> str:
        """The file that says which folders and links it needs."""
        return f"etc/tmpfiles.d/{self.name}.conf"

    @property
    def units(self) -> tuple[str, ...]:
        """The units that start by themselves."""
        return tuple(text.units(SERVICES[self.name], self.found)) if self.found.options["enable"] else ()


def marker_of(name: str) -> str:
    """Where :attr:`Plan.marker` of a service lies, below ``/``."""
    return f"etc/{name}/haversack-service.json"


def plan_of(name: str, order: Order, inside: Inside, prefix: Path | None) -> Plan:
    """What a snapshot declares of a service, to be run from ``prefix`` where one is given.

    Raises ``UsageError``, and for what cannot be put in place the error of the worst finding.
    """
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
    return Plan(name, order, valued(name, effective), files, tuple(worst_first(findings)))


def is_ours(plan: Plan, place: Path, prefix: Path | None) -> bool:
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


def check_place(package: Path, planned: Installed, root: Path) -> None:
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


def differs(path: Path, data: bytes) -> bool:
    """Whether a file says something else; the line that names the snapshot does not count."""
    try:
        return not machine.says_the_same(path.read_bytes(), data)
    except (FileNotFoundError, PermissionError):
        return True


def to_start(plan: Plan, changed: set[str], *, anew: bool, run: Run | None) -> tuple[str, ...]:
    """The units that must start anew: those that changed, and all where what they run or read did.

    ``run`` asks the units of this machine since when they run; of another machine nobody is asked.
    """
    people = ("etc/profile.d/", "etc/sudoers.d/", f"{text.COMMANDS}/")
    shared = {path for path in changed if not path.startswith(("etc/systemd/", *people))}
    every = anew or bool(shared)
    package = Path(plan.found.options["package"])

    def must(unit: str) -> bool:
        if f"{text.UNITS}/{unit}" in changed or (every and unit.endswith(".service")):
            return True
        return run is not None and machine.is_outdated(unit, package, run)

    return tuple(filter(must, plan.units))


def ahead(plan: Plan, inside: Inside, root: Path) -> list[Finding]:
    """What on this machine would end an install half way, leave a service that cannot run, or break another."""
    if not plan.found.options["enable"]:
        return []
    return [
        *machine.systemd(plan.found, inside.run),
        *unreadable(plan.found, partial(machine.asked, inside.run), top=False),
        *foreign(plan.name, plan.files.get(plan.folders, b""), plan.found, _earlier(plan, root)),
    ]


def address_of(plan: Plan) -> str | None:
    """Where to look at it on this machine; ``None`` where nothing answers."""
    if "skypilot-web-ui.service" in plan.units:
        return f"{machine.endpoint(plan.found)}/dashboard/"
    if "haversack.service" in plan.units:
        scheme = "https" if plan.found.options["tls.certificate"] else "http"
        host = plan.found.options["host"]
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{plan.found.options['port']}/"
    return None


def unread(plan: Plan, root: Path) -> Iterator[Finding]:
    """Files in place that this person may not read, of which a dry run cannot say whether somebody edited them."""
    for path in plan.files:
        try:
            (root / path).open("rb").close()
        except PermissionError as problem:
            said = f"cannot be read, nor told from what was rendered last: {problem.strerror}"
            yield unknown(str(root / path), said, "look as root")
        except OSError:
            """There is none, or the install says why not."""


def check_within(plan: Plan, root: Path) -> None:
    """Raise ``PrefixError`` for a link that leads out of ``root``, which what is laid there would follow.

    An absolute one is right on the machine that will start from there, and leads elsewhere on this one.
    """
    links = machine.links(plan.files.get(plan.folders, b""))
    laid = [
        plan.marker,
        *plan.files,
        plan.found.options["package"],
        *(str(Path(link).parent) for link in links),
    ]
    real = root.resolve()
    for place in (root / path.lstrip("/") for path in laid):
        if not _leads_out(place, real):
            continue
        below = (path for path in (*reversed(place.parents), place) if root in path.parents)
        link = next(path for path in below if _leads_out(path, real))
        raise PrefixError(
            f"leads to {link.readlink()}, out of {root}",
            where=str(link),
            remedy="let the link be a relative one, within that folder; nothing was changed",
        )


def _leads_out(path: Path, real: Path) -> bool:
    try:
        return not path.resolve().is_relative_to(real)
    except (OSError, RuntimeError):
        return True  # links in a circle


def _earlier(plan: Plan, root: Path) -> Mapping[str, tuple[str, str]]:
    """The folders that an install before this one had made."""
    try:
        return folders((root / plan.folders).read_bytes())
    except OSError:
        return {}


def left_behind(plan: Plan, root: Path) -> Iterator[Finding]:
    """Folders that an earlier snapshot had made and this one no longer names: nobody moves what is in them."""
    earlier, now = _earlier(plan, root), folders(plan.files.get(plan.folders, b""))
    for folder in sorted(earlier.keys() - now.keys() if now else ()):
        said = "stays as it is, and the service uses another folder now"
        remedy = "stop the service, and move what is needed of it; or remove it"
        yield unready(str(root / folder.lstrip("/")), said, remedy, blocking=False)


def in_the_way(plan: Plan, root: Path) -> tuple[list[Finding], list[Path]]:
    """What lies where links of the service belong: findings of what may be a person's, and all that must go.

    A link that an earlier snapshot asked for, and a folder with nothing in it, are no person's.
    """
    try:
        earlier = machine.links((root / plan.folders).read_bytes())
    except OSError:
        earlier = {}
    findings, places = list[Finding](), list[Path]()
    for link, target in machine.links(plan.files.get(plan.folders, b"")).items():
        place = root / link.removeprefix("/")
        if not os.path.lexists(place) or (place.is_symlink() and str(place.readlink()) == target):
            continue
        places.append(place)
        known = str(place.readlink()) == earlier.get(link) if place.is_symlink() else _is_empty(place)
        if not known:
            said = f"lies where a link to {target} belongs"
            findings.append(
                Finding(
                    "rendered-edited", str(place), said, "move it away, or say --force, which keeps it beside"
                )
            )
    return findings, places


def _is_empty(place: Path) -> bool:
    return place.is_dir() and not any(place.iterdir())
