"""``haversack install skypilot-service`` on a booted machine: what it does once, again, and where a step fails.

The machine is real (tests/support/systemd.py), SkyPilot is not: a small server says that it is healthy, so that this
takes seconds.  With SkyPilot itself: ``test_systemd_real.py``.
"""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

import haversack
from tests.support import systemd
from tests.test_platform_systemd import python, store_of

_ONE: dict[str, Any] = {
    "enable": True,
    "administrators": ["alice"],
    "cluster": {"autoStop": 30},
    "monitoring": {"enable": True},
}
_TWO: dict[str, Any] = {"enable": True, "cluster": {"autoStop": 30}, "webUI": {"port": 18090}}
_PREFIX = "/opt/tool"
_MIRROR: dict[str, Any] = {"enable": True, "package": _PREFIX, "store": "/srv/mirror/store"}
_OTHER: dict[str, Any] = {**_TWO, "user": "sky"}
_THREE: dict[str, Any] = {**_TWO, "cloudCredentials": {"aws": "/etc/secrets/aws"}}

_DRIVER = """\
import json, os, shutil, socket, subprocess, time

PYTHON = {python!r}
env = {{"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8", "HAVERSACK_STORE": "/media/store"}}
seen = {{}}

def run(*words):
    done = subprocess.run(words, env=env, capture_output=True, text=True)
    return [done.returncode, done.stdout, done.stderr]

def haversack(*words):
    return run("env", "PYTHONPATH=/opt/source", "/opt/tests/bin/python", "-m", "haversack", *words)

def install(snapshot, *words):
    haversack("use", snapshot)
    return haversack("install", "skypilot-service", "--python", PYTHON, *words)

def since(unit):
    return run("systemctl", "show", "-p", "ActiveEnterTimestampMonotonic", "--value", unit)[1].strip()

def active(*units):
    return {{unit: run("systemctl", "is-active", unit)[1].strip() for unit in units}}

def tool(mark):
    # As bootstrap.sh puts it there: built beside, then renamed.
    os.makedirs("/opt/new/bin")
    with open("/opt/new/bin/haversack", "w") as file:
        file.write("#!/bin/sh\\nMARK=" + mark + " PYTHONPATH=/opt/source:{site} exec " + PYTHON + ' -m haversack "$@"\\n')
    os.chmod("/opt/new/bin/haversack", 0o755)
    shutil.rmtree("/opt/tool", ignore_errors=True)
    os.rename("/opt/new", "/opt/tool")

def mirror(*words):
    haversack("use", "mirror")
    return haversack("install", "haversack-service", *words)

def marks():
    number = run("systemctl", "show", "-p", "MainPID", "--value", "haversack.service")[1].strip()
    with open("/proc/" + number + "/environ") as file:
        return [one for one in file.read().split("\\0") if one.startswith("MARK=")]

WEB, MONITOR = "skypilot-web-ui.service", "skypilot-monitor.service"
TIMERS = ("skypilot-cluster-manager.timer", "skypilot-autostop.timer")
try:
    haversack("use", "one")
    os.mkdir("/run/old")
    with open("/run/old/systemctl", "w") as file:
        file.write("#!/bin/sh\\necho 'systemd 249 (249.11)'\\n")
    os.chmod("/run/old/systemctl", 0o755)
    path, env["PATH"] = env["PATH"], "/run/old:" + env["PATH"]
    seen["old"] = [*install("three"), os.path.exists("/opt/skypilot"), os.path.exists("/etc/skypilot")]
    env["PATH"] = path
    haversack("use", "one")
    seen["before"] = haversack("doctor", "systemd")
    seen["first"] = install("one")
    seen["active"] = active(WEB, MONITOR, *TIMERS)
    seen["enabled"] = run("systemctl", "is-enabled", WEB, MONITOR, *TIMERS)
    seen["health"] = run("curl", "-s", "http://127.0.0.1:8080/api/health")
    seen["folders"] = {{
        path: [oct(os.stat(path).st_mode & 0o7777), os.stat(path).st_uid == 0]
        for path in ("/var/lib/skypilot", "/var/log/skypilot", "/var/cache/skypilot", "/opt/skypilot")
    }}
    seen["sudo"] = run("sudo", "-l", "-U", "root")
    seen["well"] = haversack("doctor", "systemd")
    run("systemctl", "start", "skypilot-autostop.service")
    seen["lame"] = haversack("doctor", "systemd")
    run("systemctl", "reset-failed")
    # A monitor that fails two seconds after each start, and is active until then.
    loop = "/run/systemd/system/" + MONITOR + ".d"
    os.makedirs(loop)
    with open(loop + "/loop.conf", "w") as file:
        file.write("[Service]\\nExecStart=\\nExecStart=/bin/sh -c 'sleep 2; exit 1'\\nRestartSec=10ms\\nRestartSteps=0\\n")
    run("systemctl", "daemon-reload")
    run("systemctl", "restart", MONITOR)
    for _ in range(200):
        if run("systemctl", "show", "-p", "NRestarts", "--value", MONITOR)[1].strip() >= "3":
            break
        time.sleep(0.1)
    for _ in range(3):
        seen["loops"] = [active(MONITOR), *haversack("doctor", "systemd")]
        if "started again" in seen["loops"][-1]:
            break
    os.remove(loop + "/loop.conf")
    os.rmdir(loop)
    run("systemctl", "daemon-reload")
    run("systemctl", "restart", MONITOR)
    run("systemctl", "disable", TIMERS[0])
    seen["disabled"] = haversack("doctor", "systemd")
    then = since(WEB)
    seen["again"] = install("one")
    seen["kept"] = since(WEB) == then
    seen["second"] = install("two", "--no-start")
    seen["still"] = since(WEB) == then
    seen["started"] = install("two")
    seen["moved"] = run("curl", "-s", "http://127.0.0.1:18090/api/health")
    seen["gone"] = [active(MONITOR), os.path.exists("/etc/systemd/system/" + MONITOR)]
    with open("/etc/skypilot/environment", "a") as file:
        file.write("MINE=1\\n")
    then = since(WEB)
    seen["edited"] = [*install("two"), since(WEB) == then]
    seen["forced"] = install("two", "--force")
    run("systemctl", "stop", WEB)
    with socket.create_server(("127.0.0.1", 18090)):
        seen["taken"] = haversack("doctor", "systemd")
        seen["refused"] = install("three")
    seen["failed"] = install("three")
    os.mkdir("/etc/secrets")
    with open(os.open("/etc/secrets/aws", os.O_CREAT | os.O_WRONLY, 0o600), "w") as file:
        file.write("[default]\\n")
    seen["mended"] = install("three")
    os.chmod("/etc/secrets/aws", 0o644)
    seen["open"] = install("three")
    run("useradd", "--system", "sky")
    run("runuser", "-u", "skypilot", "--", "sh", "-c", "mkdir /var/lib/skypilot/.sky; touch /var/lib/skypilot/.sky/state.db")
    then = since(WEB)
    seen["other"] = [*install("other"), since(WEB) == then, os.stat("/var/lib/skypilot").st_uid]
    seen["foreign"] = haversack("doctor", "systemd")
    run("systemctl", "stop", "skypilot*")
    for folder in ("/var/lib/skypilot", "/var/cache/skypilot"):
        run("chown", "-R", "--from=skypilot", "sky:skypilot", folder)
    seen["handed"] = [*install("other"), run("systemctl", "show", "-p", "User", "--value", WEB)[1].strip()]
    tool("old")
    own = "umask 077; HAVERSACK_STORE=/srv/mirror/store PYTHONPATH=/opt/source exec "
    seen["received"] = run("sh", "-c", own + "/opt/tests/bin/python -m haversack receive /media/bundle")
    seen["private"] = [*mirror(), os.path.exists("/etc/systemd/system/haversack.service")]
    run("chmod", "a+x", "/srv/mirror")
    parts = ("", "/haversack", "/oci-layout", "/index.json", "/blobs", "/haversack/state")
    run("chmod", "-R", "a+rX", *("/srv/mirror/store" + part for part in parts[2:]))
    run("chmod", "a+rx", *("/srv/mirror/store" + part for part in parts[:2]))
    seen["served"] = [*mirror(), marks()]
    then = since("haversack.service")
    seen["same"] = [*mirror(), since("haversack.service") == then]
    os.chmod("/srv/mirror/store/blobs", 0o700)
    tool("new")
    seen["stale"] = haversack("doctor", "systemd")
    os.chmod("/srv/mirror/store/blobs", 0o755)
    seen["newer"] = [*mirror(), marks()]
    seen["off"] = install("off")
    seen["left"] = [
        active(WEB, *TIMERS),
        [name for name in os.listdir("/etc/systemd/system") if name.startswith("skypilot")],
        os.path.exists("/opt/skypilot/bin/python"),
    ]
finally:
    with open("/out/seen.json", "w") as file:
        json.dump(seen, file)
"""


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What happened on the machine, step by step: exit code, output and messages of each."""
    if reason := systemd.missing():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("installed")
    snapshots = {"one": _ONE, "two": _TWO, "three": _THREE, "other": _OTHER, "off": {"enable": False}}
    settings = {name: {"skypilot": table} for name, table in snapshots.items()}
    store = store_of(folder, **settings, mirror={"haversack": _MIRROR})
    # The machine has a /tmp of its own, where a checkout may lie.
    source = Path(haversack.__file__).parents[1]
    binds = {store: "/media/store", Path(sys.prefix): "/opt/tests", source: "/opt/source"}
    binds[folder / "mirror"] = "/media/bundle"
    site = Path("/opt/tests", Path(sysconfig.get_path("purelib")).relative_to(sys.prefix))
    driver = _DRIVER.format(python=str(python()), site=site)
    machine = systemd.boot(folder / "machine", driver, {}, binds, seconds=240)
    found: dict[str, Any] = machine.json("seen.json")
    return found


def test_an_old_systemd_ends_an_install_before_it_begins(seen: dict[str, Any]) -> None:
    """Its units would be taken, without what keeps credentials apart: nothing is written."""
    code, _, said, *there = seen["old"]
    assert code == 20
    assert "systemd: is 249, and the units need 250" in said
    assert "nothing was changed" in said
    assert there == [False, False]


def test_a_machine_without_the_service_is_told_so(seen: dict[str, Any]) -> None:
    """Doctor names the command that installs what is not there."""
    code, _, said = seen["before"]
    assert code == 20
    assert "haversack install skypilot-service" in said


def test_one_command_ends_with_a_healthy_server(seen: dict[str, Any]) -> None:
    """Environment, files, user and units are there, the units run and come back after a boot, and the server answers."""
    code, out, said = seen["first"]
    assert code == 0, said
    assert "look at http://127.0.0.1:8080/dashboard/" in out
    assert "waiting for skypilot-web-ui.service" in said
    assert set(seen["active"].values()) == {"active"}
    assert seen["enabled"][1].split() == ["enabled"] * 4
    assert '"healthy"' in seen["health"][1]
    assert seen["folders"] == {
        "/var/lib/skypilot": ["0o700", False],
        "/var/log/skypilot": ["0o750", False],
        "/var/cache/skypilot": ["0o750", False],
        "/opt/skypilot": ["0o755", True],
    }
    assert seen["sudo"][0] == 0, seen["sudo"]


def test_doctor_finds_nothing_on_a_good_machine(seen: dict[str, Any]) -> None:
    """What was installed is what doctor expects; it says what it did not look at."""
    code, out, said = seen["well"]
    assert code == 0, said
    assert "nothing that blocks" in out


def test_the_same_again_touches_no_unit(seen: dict[str, Any]) -> None:
    """A second install of the same snapshot says so, and the server that runs goes on."""
    code, out, said = seen["again"]
    assert code == 0, said
    assert "is of snapshot one already" in out
    assert seen["kept"]


def test_what_was_told_to_wait_starts_with_the_next_install(seen: dict[str, Any]) -> None:
    """``--no-start`` leaves the old server running; the next install starts the new one, although no file changes."""
    assert seen["second"][0] == 0, seen["second"][2]
    assert "not started: skypilot-web-ui.service" in seen["second"][1]
    assert seen["still"]
    assert "started: skypilot-web-ui.service" in seen["started"][1]
    assert '"healthy"' in seen["moved"][1]


def test_a_unit_that_a_boot_will_not_start_is_found(seen: dict[str, Any]) -> None:
    """It runs now, and nobody would start it again: doctor gives the command, and the next install does it."""
    code, _, said = seen["disabled"]
    assert code == 20
    assert "skypilot-cluster-manager.timer: does not start with the machine: it is disabled" in said
    assert "systemctl enable skypilot-cluster-manager.timer" in said


def test_state_of_another_user_is_told_before_anything_is_done(seen: dict[str, Any]) -> None:
    """The service would start and could not read it; handed over as is said, it is the new user's."""
    code, _, said, kept, owner = seen["other"]
    assert code == 20
    assert ".sky in it is of skypilot, and the service runs as sky" in said
    assert "systemctl stop 'skypilot*'; chown -R --from=skypilot sky:skypilot /var/lib/skypilot" in said, said
    assert "nothing was changed" in said
    assert kept
    assert owner
    assert ".sky in it is of skypilot" in seen["foreign"][2]
    code, _, said, user = seen["handed"]
    assert (code, user) == (0, "sky"), said


def test_a_private_store_is_not_served(seen: dict[str, Any]) -> None:
    """Received with a umask of 077: the commands that open it are said, and nothing waits for a server that fails."""
    assert seen["received"][0] == 0, seen["received"]
    code, _, said, there = seen["private"]
    assert code == 20
    assert "chmod a+x /srv/mirror\n" in f"{said}\n"
    assert (
        "cd /srv/mirror/store && chmod a+rx . haversack && chmod -R a+rX oci-layout index.json blobs" in said
    )
    assert "nothing was changed" in said
    assert "waiting" not in said
    assert not there
    assert seen["served"][0] == 0, seen["served"][2]
    assert "/srv/mirror/store/blobs is closed to others" in seen["stale"][2]


def test_a_newer_program_is_started(seen: dict[str, Any]) -> None:
    """The same snapshot and a new haversack at its prefix: doctor says what runs, install starts it, and else leaves it."""
    assert seen["served"][3] == ["MARK=old"]
    assert seen["same"][3]
    assert "haversack.service: was started before /opt/tool was changed" in seen["stale"][2]
    code, out, said, marks = seen["newer"]
    assert (code, marks) == (0, ["MARK=new"]), said
    assert "started: haversack.service" in out


def test_a_unit_that_is_not_wanted_ends(seen: dict[str, Any]) -> None:
    """A snapshot without metrics stops the monitor and removes its unit."""
    assert "stopped: skypilot-monitor.service" in seen["second"][1]
    (told, there) = seen["gone"]
    assert told == {"skypilot-monitor.service": "inactive"}
    assert not there


def test_an_edited_file_stops_everything(seen: dict[str, Any]) -> None:
    """The edit is shown, and no unit is touched; with ``--force`` the server starts with the file as it should be."""
    code, _, said, kept = seen["edited"]
    assert code == 15
    assert "-MINE=1" in said
    assert kept
    assert "started: skypilot-web-ui.service" in seen["forced"][1], seen["forced"]


def test_a_taken_port_is_found_while_the_server_is_down(seen: dict[str, Any]) -> None:
    """Doctor names the port, and the unit that does not run."""
    code, _, said = seen["taken"]
    assert code == 20
    assert "18090 is taken" in said
    assert "skypilot-web-ui.service: does not run" in said


def test_a_taken_port_ends_an_install_before_it_begins(seen: dict[str, Any]) -> None:
    """Nothing is written for a server that could not listen, and nobody waits for it."""
    code, _, said = seen["refused"]
    assert code == 20
    assert "18090 is taken: " in said
    assert "nothing was changed" in said
    assert "systemctl" not in said


def test_a_timer_whose_program_fails_is_found(seen: dict[str, Any]) -> None:
    """The timer runs, and what it starts does not: doctor says which, and where to look."""
    code, _, said = seen["lame"]
    assert code == 20
    assert "skypilot-autostop.service: failed when it ran last: exit-code, status " in said
    assert "journalctl -u skypilot-autostop.service" in said


def test_what_fails_again_and_again_is_found(seen: dict[str, Any]) -> None:
    """systemd starts it anew each time, and calls it active until it fails; doctor says how often that was."""
    active, code, _, said = seen["loops"]
    assert active["skypilot-monitor.service"] in {"active", "activating"}
    assert code == 20
    assert "skypilot-monitor.service: failed and was started again, " in said
    assert "journalctl -u skypilot-monitor.service says why" in said


def test_a_step_that_fails_says_how_far_it_came(seen: dict[str, Any]) -> None:
    """Without its credentials the server does not start: the error names what is done and what is not; then it goes on."""
    code, _, said = seen["failed"]
    assert code == 20
    for words in (
        "Done before: ",
        "files are in place",
        "Not done: skypilot-web-ui.service is started",
        "install again",
    ):
        assert words in said
    assert "there is no /etc/secrets/aws" in said
    assert seen["mended"][0] == 0, seen["mended"][2]
    assert "started: skypilot-web-ui.service" in seen["mended"][1]


def test_credentials_that_everybody_can_read_are_told(seen: dict[str, Any]) -> None:
    """The service runs with them all the same, and the command that mends it is said."""
    code, out, said = seen["open"]
    assert code == 0, said
    assert "is of snapshot three already" in out
    assert "/etc/secrets/aws can be read by everybody" in said
    assert "chmod 0600 /etc/secrets/aws" in said


def test_a_service_that_is_turned_off_ends(seen: dict[str, Any]) -> None:
    """``enable = false`` stops and removes its units and files; what was installed and its state stay."""
    assert seen["off"][0] == 0, seen["off"][2]
    states, units, environment = seen["left"]
    assert set(states.values()) == {"inactive"}
    assert units == []
    assert environment
