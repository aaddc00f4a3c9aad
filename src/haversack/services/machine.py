"""A machine that runs a service, or should: what will fail there, and what was changed.  Everything here only reads."""

from __future__ import annotations

import grp
import json
import os
import pwd
import re
import shutil
import stat
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from haversack.errors import ToolError
from haversack.model.finding import Finding, unknown, unready
from haversack.ports import Completed, Run
from haversack.services import lastruns, sockets
from haversack.services.belongings import folders, foreign, unreadable
from haversack.services.description import Service
from haversack.services.text import UNITS, units
from haversack.services.values import Values

# LoadCredential= and ProtectProc= came with 247, %d with 250 (systemd's NEWS).
_OLDEST, _CREDENTIALS = 247, 250
_LOW = 1 << 30
# What asks a server for its health lies beside the other programs; nothing is imported but them.
_HEALTH = (
    "import sys; sys.path.insert(0, sys.argv[1])\n"
    "import asking, json\n"
    "try: print(json.dumps(asking.health(sys.argv[2], 10)))\n"
    "except asking.Unanswered as problem: sys.exit(str(problem))\n"
)
_VERSION = (
    "import importlib.metadata as m, importlib.util as u; print(u.find_spec('sky') and m.version('skypilot'))"
)


def look(
    service: Service, found: Values, files: Mapping[str, bytes], version: str | None, run: Run, root: Path
) -> Iterator[Finding]:
    """Everything that is wrong around a service.

    ``files`` are what would be rendered now, by their paths below ``root``; ``version`` is that of the declared
    SkyPilot.
    """
    name = service.name
    if not found.options["enable"]:
        return
    yield from systemd(found, run)
    if not Path("/run/systemd/system").is_dir():
        yield unready("systemd", "does not run this machine", "look on the machine that will run the service")
    yield from credentials(name, found)
    yield from taken(service, found, run)
    yield from _room(name, found)
    # Two services have files of their own in one tree.
    laid = any((root / path).exists() for path in files)
    yield from unreadable(found, partial(asked, run), top=laid)
    if not laid:
        said, remedy = "is not installed on this machine", f"haversack install {name}-service"
        yield unready(f"{name}.service", said, remedy)
        return
    yield from _changed(name, files, root)
    yield from _folders(name, files, found)
    yield from foreign(name, files.get(f"etc/tmpfiles.d/{name}.conf", b""), found)
    yield from _links(name, files, root)
    for unit in units(service, found):
        yield from _unit(unit, Path(found.options["package"]), run)
    yield from lastruns.look(service, found, partial(asked, run), root)
    yield from _package(name, found, version, run)


def listens(service: Service, found: Values) -> dict[str, str]:
    """The options with the ports that a service listens at, each with its unit."""
    if not found.options["enable"]:
        return {}
    return {
        one.path: one.unit
        for one in service.listens
        if found.test(one.when) and found.options[one.path] is not None
    }


def endpoint(found: Values) -> str:
    """Where a client on this machine reaches the API server of SkyPilot."""
    host = "[::1]" if ":" in found.options["webUI.host"] else "127.0.0.1"
    return f"http://{host}:{found.options['webUI.port']}"


def health(found: Values, run: Run) -> dict[str, Any] | str:
    """What the API server of SkyPilot says of itself, or why it says nothing."""
    words = [found.places["python"], "-I", "-B", "-c", _HEALTH, found.places["programs"], endpoint(found)]
    done = asked(run, *words)
    if done is None or done.code:
        return done.err.strip().splitlines()[-1] if done and done.err.strip() else "it cannot be asked"
    told = json.loads(done.out)
    return told if isinstance(told, dict) else "it does not say"


def asked(run: Run, *words: str) -> Completed | None:
    """What a program says within a minute; ``None`` where it cannot be started."""
    try:
        return run(["timeout", "60", *words], env={"LC_ALL": "C"})
    except ToolError:
        return None


def is_active(unit: str, run: Run) -> bool:
    """Whether a unit runs."""
    done = asked(run, "systemctl", "is-active", unit)
    return done is not None and done.code == 0


def _unit(unit: str, package: Path, run: Run) -> Iterator[Finding]:
    """Whether a unit runs, runs what is there now, and starts with the machine."""
    if not is_active(unit, run):
        yield unready(unit, "does not run", f"systemctl status {unit}")
    elif is_outdated(unit, package, run):
        said = f"was started before {package} was changed, and may run what was there then"
        yield unready(unit, said, f"systemctl restart {unit}", blocking=False)
    done = asked(run, "systemctl", "is-enabled", unit)
    # One that has no file is told of with the files.
    told = done.out.strip() if done else ""
    if told not in {"", "enabled", "not-found"}:
        mask = f"systemctl unmask {unit}; " if told.startswith("masked") else ""
        said = f"does not start with the machine: it is {told}"
        yield unready(unit, said, f"{mask}systemctl enable {unit}")


def is_outdated(unit: str, package: Path, run: Run) -> bool:
    """Whether a unit's process was started before what is at its package was put there.

    What has a timer is started anew each time.  Names and dates of what an install or a pip changes are looked at, and
    not every file: of the package when it was moved there, of what is in it when it was written, since a mode or an owner
    is no reason to start anew.  A time that is still to come says nothing.
    """
    if not unit.endswith(".service"):
        return False
    stamp = "ExecMainStartTimestampMonotonic"
    told = lastruns.shown(unit, partial(asked, run), "MainPID", stamp)
    if told.get("MainPID", "0") == "0" or not told.get(stamp, "").isdigit():
        return False
    # By the clock of now: it may have jumped since the start, as at a boot without a network.
    now = time.time()
    started = now - (time.monotonic() - int(told[stamp]) / 1e6)
    programs = (package / "bin" / name for name in ("haversack", "sky", "python"))
    try:
        packages = list(package.glob("lib/python*/site-packages/*.dist-info"))
    except OSError:
        packages = []  # closed to whoever asks
    times = [_dates(package)[1], *(_dates(path)[0] for path in (*programs, *packages))]
    return any(started < at <= now for at in times)


def _dates(path: Path) -> tuple[float, float]:
    """When a name's file was written, and when it was changed or moved there, in seconds; 0 where there is none."""
    try:
        found = path.lstat()
    except OSError:
        return 0.0, 0.0
    return found.st_mtime, found.st_ctime


def systemd(found: Values, run: Run) -> Iterator[Finding]:
    """That there is no systemd, or an older one than the units need.  The unit files would be taken all the same."""
    done = asked(run, "systemctl", "--version")
    told = re.match(r"systemd ([0-9]+)", done.out) if done else None
    if told is None:
        yield unready("systemd", "is not on this machine", "use a machine with systemd, or NixOS")
        return
    version = int(told[1])
    least = _CREDENTIALS if any(path for _, path in _handed(found)) else _OLDEST
    if version < least:
        said = f"is {version}, and the units need {least} for what keeps credentials and processes apart"
        yield unready("systemd", said, "use a newer system: Debian 12, Ubuntu 24.04, RHEL 9")


def _handed(found: Values) -> list[tuple[str, str]]:
    """The files that systemd reads and hands over, by their options."""
    clouds = found.options.get("cloudCredentials") or {}
    one = [(path, found.options.get(path)) for path in ("tls.certificate", "tls.key", "auth")]
    return [*((f"cloudCredentials.{c}", clouds[c]) for c in sorted(clouds)), *((p, f) for p, f in one if f)]


def credentials(name: str, found: Values) -> Iterator[Finding]:
    """What is wrong with the files that systemd reads and hands over; their content is not looked at."""
    for path, file in _handed(found):
        subject = f"platform.systemd.{name}.{path}"
        try:
            told = os.stat(file)
        except FileNotFoundError:
            said = f"there is no {file}: the service will not start before it is there"
            yield unready(subject, said, "put it there, readable by root alone")
            continue
        except OSError as problem:
            yield unknown(subject, f"{file} cannot be looked at: {problem.strerror}", "look as root")
            continue
        if not stat.S_ISREG(told.st_mode):
            yield unready(subject, f"{file} is no file", "name a file")
        elif told.st_mode & 0o007 and path != "tls.certificate":
            yield unready(subject, f"{file} can be read by everybody", f"chmod 0600 {file}")
        elif not told.st_size:
            yield unready(subject, f"{file} is empty", "put the credentials into it")


def taken(service: Service, found: Values, run: Run) -> Iterator[Finding]:
    """Ports of a service that another program listens at."""
    mine = {name for unit in service.units for name in unit.files}
    every = sockets.listeners()
    hosts = {one.path: one.host for one in service.listens}
    for path, unit in listens(service, found).items():
        port, host = found.options[path], found.options.get(hosts[path])
        there = [one for one in every if one.port == port and one.is_in_the_way_of(host)]
        if not there:
            continue
        who = sockets.holders(there)
        if who & mine or (not who and is_active(f"{unit}.service", run)):
            continue
        said = f"{port} is taken: {', '.join(sorted(who)) or 'another program'} listens there"
        remedy = f"give it another port, or end that program: ss -ltnp 'sport = :{port}'"
        yield unready(f"platform.systemd.{service.name}.{path}", said, remedy)


def _room(name: str, found: Values) -> Iterator[Finding]:
    told: set[int] = set()
    for path in ("stateDir", "logsDir", "cacheDir", "store"):
        place = Path(found.options.get(path) or "/nowhere")
        if not place.exists() or (device := place.stat().st_dev) in told:
            continue
        told.add(device)
        room = shutil.disk_usage(place)
        if room.free < _LOW or room.free * 20 < room.total:
            said = f"has {room.free >> 20} MiB left on its disk"
            yield Finding("space-low", f"{name}: {place}", said, "make room", blocking=False)


def says_the_same(one: bytes, other: bytes) -> bool:
    """Whether two rendered files do; the line that names the snapshot does not count."""
    return _below(one) == _below(other)


def _below(data: bytes) -> tuple[bytes, bytes]:
    """What a file says beside where it comes from: that is its first line, in a script the one after ``#!``."""
    first, _, rest = data.partition(b"\n")
    return (first, rest.partition(b"\n")[2]) if first.startswith(b"#!") else (b"", rest)


def _changed(name: str, files: Mapping[str, bytes], root: Path) -> Iterator[Finding]:
    """Files that are not what would be rendered now; the line that names the snapshot may differ."""
    remedy = f"haversack install {name}-service shows the difference, and puts them in place"
    for path, data in files.items():
        try:
            held = (root / path).read_bytes()
        except FileNotFoundError:
            yield unready(f"/{path}", "is not there", remedy)
            continue
        except OSError as problem:
            yield unknown(f"/{path}", f"cannot be read: {problem.strerror}", "look as root")
            continue
        if not says_the_same(held, data):
            said = "is not what is rendered now: it was edited, or is of another snapshot"
            yield Finding("rendered-edited", f"/{path}", said, remedy, blocking=False)
        elif path.startswith(UNITS) and (root / f"{path}.d").is_dir():
            said, more = "is changed by files beside it", f"systemctl cat {Path(path).name} shows what holds"
            yield Finding("rendered-edited", f"/{path}.d", said, more, blocking=False)


def _folders(name: str, files: Mapping[str, bytes], found: Values) -> Iterator[Finding]:
    """User, group and folders as sysusers.d and tmpfiles.d make them."""
    user, group = found.options["user"], found.options["group"]
    try:
        uid, gid = pwd.getpwnam(user).pw_uid, grp.getgrnam(group).gr_gid
    except KeyError:
        said = f"there is no user {user} or no group {group}"
        yield unready(f"platform.systemd.{name}.user", said, "systemd-sysusers")
        return
    for path, (mode, owner) in folders(files.get(f"etc/tmpfiles.d/{name}.conf", b"")).items():
        place = Path(path)
        try:
            told = place.stat()
        except OSError:
            yield unready(str(place), "is not there", "systemd-tmpfiles --create")
            continue
        wanted = int(mode, 8) if mode != "-" else None
        if wanted is not None and stat.S_IMODE(told.st_mode) & ~wanted:
            said = f"has the mode {stat.S_IMODE(told.st_mode):04o}, more than {mode}"
            yield unready(str(place), said, f"chmod {mode} {place}")
        if owner != "-" and (told.st_uid, told.st_gid) != (uid, gid):
            yield unready(str(place), f"is not of {user} and {group}", f"chown -R {user}:{group} {place}")


def links(lines: bytes) -> dict[str, str]:
    """The links that a file of tmpfiles.d(5) makes, each with what it leads to."""
    return dict(re.findall(r"^L\+? '([^']+)' - - - - (.+)$", lines.decode(), re.MULTILINE))


def _links(name: str, files: Mapping[str, bytes], root: Path) -> Iterator[Finding]:
    """What lies where links of the service belong, and is none: tmpfiles.d leaves it, and SkyPilot uses it."""
    for place, target in links(files.get(f"etc/tmpfiles.d/{name}.conf", b"")).items():
        try:
            held = str((root / place.removeprefix("/")).readlink())
        except FileNotFoundError:
            yield unready(place, f"is not there: a link to {target}", "systemd-tmpfiles --create")
            continue
        except PermissionError as problem:
            yield unknown(place, f"cannot be looked at: {problem.strerror}", "look as root")
            continue
        except OSError:
            held = ""
        if held != target:
            said = f"is no link to {target}, and what is written to one is not found in the other"
            remedy = f"move it away; then haversack install {name}-service"
            yield Finding("rendered-edited", place, said, remedy, blocking=False)


def _package(name: str, found: Values, version: str | None, run: Run) -> Iterator[Finding]:
    """Whether the service's user can run it, and whether what runs is what is installed and declared."""
    subject, user, group = f"platform.systemd.{name}.package", found.options["user"], found.options["group"]
    package = found.options["package"]
    own = (
        [f"{package}/bin/haversack", "--version"]
        if name == "haversack"
        else [found.places["python"], "-I", "-B", "-c", _VERSION]
    )
    if os.geteuid():
        yield unknown(subject, f"is not tried as {user}", "look as root")
        return
    done = asked(run, "setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups", *own)
    if done is None or done.code or not done.out.strip():
        why = done.err.strip().splitlines()[-1] if done and done.err.strip() else "it does not start"
        yield unready(
            subject, f"{package} cannot be run by {user}: {why}", f"haversack install {name}-service"
        )
        return
    installed = done.out.strip()
    if name == "haversack":
        return
    if version is not None and installed != version:
        said = f"{package} is SkyPilot {installed}, and {version} is declared"
        yield unready(subject, said, "haversack install skypilot-service")
    if is_active("skypilot-web-ui.service", run):
        told = health(found, run)
        if isinstance(told, str):
            remedy = "journalctl -u skypilot-web-ui"
            yield unready(
                "skypilot-web-ui.service", f"runs, and its API server is not healthy: {told}", remedy
            )
        elif told.get("version") != installed:
            said = f"runs SkyPilot {told.get('version')}, and {installed} is installed"
            yield unready("skypilot-web-ui.service", said, "systemctl restart skypilot-web-ui")
