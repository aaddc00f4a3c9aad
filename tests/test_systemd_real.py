"""The services of a control machine for real: from a packed bundle, under systemd, with loopback alone.

One machine is booted (tests/support/systemd.py), one script drives it (tests/support/driving.py) and writes down what
it saw; each test here holds one claim against that.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from haversack.ports.machine import base_python
from haversack.services.declared import is_hidden
from tests.support import driving, systemd, tiny
from tests.support.driving import MANAGER, MONITOR, SERVER, STOPPER
from tests.support.site import here
from tests.support.skypilot import AMI
from tests.test_platform_skypilot import QUOTAS
from tests.test_sky_programs_real import _NODES, _SSHD
from tests.test_skypilot_real import VMS

# A gigabyte is installed, and a server of many processes started three times: minutes on a busy machine.
pytestmark = [pytest.mark.network, pytest.mark.slow, pytest.mark.timeout(1500)]

BIG = random.Random(6).randbytes(32 << 20)
_SITE = """\
[site]
name = "control"
{here}
[env.skypilot]
kind = "pip"
requirements = ["skypilot.txt"]
targets = ["here"]
[env.amazon]
kind = "pip"
requirements = ["amazon.txt"]
targets = ["here"]
[[file]]
url = "vms.csv"
name = "skypilot-aws-vms.csv"
[[file]]
url = "instance_quota_mapping.csv"
name = "skypilot-aws-instance_quota_mapping.csv"
[[file]]
url = "big.bin"
[platform.skypilot]
version = "0.14.1"
endpoint = "http://127.0.0.1:8080"
[platform.skypilot.aws]
regions = ["us-west-2"]
vpc_name = "private-vpc"
security_group_name = "private-sg"
use_internal_ips = true
use_ssm = true
ami = "ami-03cf127a"
mirror = false
[platform.systemd.skypilot]
administrators = ["alice"]
cloudCredentials = {{ aws = "/etc/secrets/aws" }}
cluster = {{ autoStop = 30 }}
monitoring = {{ enable = true }}
mirror = "https://127.0.0.1:8090"
caFile = "/etc/ssl/site-ca.pem"
extraEnvironment = \"\"\"
export AWS_ENDPOINT_URL=http://127.0.0.1:5555
export AWS_DEFAULT_REGION=us-west-2
\"\"\"
[platform.systemd.haversack]
tls = {{ certificate = "/etc/secrets/mirror.pem", key = "/etc/secrets/mirror.key" }}
auth = "/etc/secrets/users.toml"
metrics = {{ port = 9091 }}
"""


def _python() -> Path:
    """A Python of this version that services can see; skipped without one."""
    system = Path(f"/usr/bin/python3.{sys.version_info.minor}")
    for python in (base_python(), system):
        if python.exists() and not is_hidden(str(python.resolve())):
            return python
    pytest.skip("this Python lies in a home, and the system has none of its version")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SkyPilot, moto and the site's declaration, locked and packed; skipped without a way to PyPI."""
    root = tmp_path_factory.mktemp("control")
    (root / "haversack.toml").write_text(_SITE.format(here=here()))
    # It builds a wheel of itself with pip, and asks no index for what is there.
    (root / "skypilot.txt").write_text("skypilot[aws]==0.14.1\npip\nsetuptools\nwheel\n")
    (root / "amazon.txt").write_text("moto[server,ec2,iam]==5.2.5\n")
    (root / "vms.csv").write_bytes(VMS)
    (root / "instance_quota_mapping.csv").write_bytes(QUOTAS)
    (root / "big.bin").write_bytes(BIG)
    for words in (("lock",), ("pack", "-o", "bundle", "--no-rehearse")):
        done = tiny.haversack(*words, store=root / "store", cwd=root)
        if done.returncode == 6:
            pytest.skip(f"PyPI cannot be reached: {done.stdout[-300:]}")
        assert done.returncode == 0, done.stdout + done.stderr
    return root / "bundle"


@pytest.fixture(scope="module")
def seen(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the driver saw, step by step."""
    if reason := systemd.missing():
        pytest.skip(reason)
    program = Path(driving.__file__).read_text()
    path = f"{_python().parent}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    folder = tmp_path_factory.mktemp("machine")
    tree = {
        "opt/test/ami.py": AMI,
        "opt/test/nodes.py": _NODES,
        "opt/test/sshd_config": _SSHD % {"home": driving.HOME},
    }
    machine = systemd.boot(
        folder, program, tree, {bundle: "/media/bundle"}, path=path, gone=driving.MADE, seconds=900
    )
    found: dict[str, Any] = machine.json("seen.json")
    return found


def failures(metrics: str) -> dict[str, float]:
    """What the metrics say of the last look at clusters, by what it failed of."""
    found = re.findall(r'^skypilot_refresh_failed\{failure="(\w+)"\} ([0-9.]+)$', metrics, re.MULTILINE)
    return {name: float(value) for name, value in found}


def samples(metrics: str) -> dict[str, float]:
    """The samples of our own families without labels, or with a path."""
    found = re.findall(r"^(skypilot_\S+) (\S+)$", metrics, re.MULTILINE)
    return {name: float(value) for name, value in found}


# Installed from the bundle


def test_every_step_was_driven_to_its_end(seen: dict[str, Any]) -> None:
    """No step of the driver broke; the other tests say what each one saw."""
    broken = {
        name: found["broken"] for name, found in seen.items() if isinstance(found, dict) and "broken" in found
    }
    assert broken == {}
    assert "ended" in seen


def test_users_and_folders_are_made(seen: dict[str, Any]) -> None:
    """A system user without a shell, whose folders nobody else looks into."""
    installed = seen["installed"]
    assert installed["user"].split(":")[5:] == ["/var/lib/skypilot", "/usr/sbin/nologin\n"]
    assert installed["modes"] == {
        "/var/lib/skypilot": "0700 skypilot",
        "/var/lib/skypilot/config": "0750 skypilot",
        "/var/cache/skypilot": "0750 skypilot",
        "/var/log/skypilot": "0750 skypilot",
    }


def test_an_install_goes_on_where_the_last_one_failed(seen: dict[str, Any]) -> None:
    """With all in place a second install starts the rest, and a third one changes and restarts nothing."""
    installed = seen["installed"]
    assert [installed[word][0] for word in ("first", "again")] == [0, 0], installed
    assert not installed["restarted"]
    assert "already" in installed["again"][1]
    assert set(installed["units"].values()) == {"enabled"}
    assert set(installed["active"].values()) == {"active"}


def test_a_missing_credential_is_told(seen: dict[str, Any]) -> None:
    """The unit fails and tries again, the install says which step failed, and doctor which file is not there."""
    missing = seen["credential_missing"]
    assert missing["installed"][0] == 20
    assert f"systemctl restart {SERVER}: failed" in missing["installed"][1]
    assert missing["failed"]["ExecMainStatus"] == "243"
    assert "Failed to set up credentials" in missing["said"]
    found = {finding["subject"]: finding["message"] for finding in json.loads(missing["doctor"])["findings"]}
    assert "there is no /etc/secrets/aws" in found["platform.systemd.skypilot.cloudCredentials.aws"]


def test_a_credential_that_appears_is_taken(seen: dict[str, Any]) -> None:
    """Nobody starts the unit again: it comes by itself."""
    assert seen["credential_appears"]["healthy"] >= 0
    assert seen["credential_appears"]["unit"]["ActiveState"] == "active"


# The API server


def test_the_server_is_healthy_and_shows_its_dashboard(seen: dict[str, Any]) -> None:
    """It says so, sends nothing home, and answers 200 with a page."""
    answers = seen["answers"]
    assert answers["health"]["status"] == "healthy"
    assert answers["health"]["version"] == "0.14.1"
    assert answers["health"]["telemetry_enabled"] is False
    assert answers["dashboard"] == 200
    assert answers["html"]


def test_logs_of_requests_lie_with_the_other_logs(seen: dict[str, Any]) -> None:
    """SkyPilot writes those of its own daemons too where it is led by a link."""
    folder, files = seen["answers"]["logs"]
    assert folder == "/var/log/skypilot/requests"
    assert files > 0


def test_nothing_listens_beyond_this_machine(seen: dict[str, Any]) -> None:
    """Every port of every service is at loopback, and there is none that nobody asked for."""
    addresses = {line.split()[3] for line in seen["answers"]["listening"] if line}
    assert {address.rpartition(":")[0] for address in addresses} == {"127.0.0.1"}
    ports = {int(address.rpartition(":")[2]) for address in addresses}
    # moto's, and SkyPilot's own queue between its processes.
    assert ports - {5555, 51511} == {8080, 8090, 9090, 9091, 46581}


def test_credentials_are_the_service_s_alone(seen: dict[str, Any]) -> None:
    """Its user cannot read root's file, nobody else its copy, and it is written nowhere."""
    private = seen["credential_is_private"]
    assert private["source"] == {"skypilot": 1, "bob": 1}
    assert private["copy"] == {"skypilot": 0, "bob": 1}
    assert private["elsewhere"].split() == ["/etc/secrets/aws"]
    assert private["environment"] is False


def test_somebody_else_uses_sky(seen: dict[str, Any]) -> None:
    """`sky status` of an ordinary login finds the server, and `sky check aws` enables AWS with the credential."""
    people = seen["people"]
    assert people["status"][0] == 0, people["status"][1]
    assert "No existing clusters" in people["status"][1]
    assert people["check"][0] == 0, people["check"][1]
    assert re.search(r"AWS: enabled \[[^]]*compute", re.sub(r"\x1b\[[0-9;]*m", "", people["check"][1]))
    assert set(people["servers"]) == {SERVER}
    assert people["state"] != 0


def test_an_administrator_has_what_is_listed_and_nothing_else(seen: dict[str, Any]) -> None:
    """sudo without a password for these verbs and units; nothing beside them, and nothing for others."""
    people = seen["people"]
    allowed = [line for line, code in people["sudo"].items() if code == 0]
    assert allowed == [f"status --no-pager {MONITOR}", f"restart {MONITOR}", f"stop {MANAGER}"]
    assert len(people["sudo"]) == 6
    assert people["bob"] != 0


def test_a_killed_server_comes_back(seen: dict[str, Any]) -> None:
    """After SIGKILL nothing of the old one is left, and a new one is healthy."""
    killed = seen["killed"]
    assert killed["healthy"] >= 0
    assert killed["old"] == []
    assert int(killed["after"]["NRestarts"]) == int(killed["before"]["NRestarts"]) + 1


def test_a_full_disk_of_logs_is_a_metric_and_no_crash(seen: dict[str, Any]) -> None:
    """The server starts on it, the clusters are looked at, and Prometheus hears that nothing is free."""
    killed = seen["killed"]
    assert killed["free"] == 0
    # The unit sees that disk, and not what lay below it.
    assert killed["seen"] == ["Avail", "0"]
    assert samples(killed["metrics"])['skypilot_disk_free_bytes{path="/var/log/skypilot"}'] == 0
    assert samples(killed["metrics"])['skypilot_disk_free_bytes{path="/var/lib/skypilot"}'] > 0
    assert killed["manager"]["ExecMainStatus"] == "0", killed["manager"]["said"]
    assert killed["monitor"]["ActiveState"] == "active"
    # Requests would fail with their logs.
    assert killed["logs"][0] == "/var/lib/skypilot/.sky/api_server/request_logs"
    assert "Logs of requests stay in /var/lib/skypilot/.sky" in killed["said"]


def test_a_stop_is_clean(seen: dict[str, Any]) -> None:
    """Within a minute, with success, though a request hangs; no process is left, and the log is small."""
    stopped = seen["stopped"]
    assert stopped["under way"] > 1, stopped["said"]
    assert "cancelling all on-going requests" in stopped["said"]
    assert stopped["code"] == 0
    assert stopped["took"] < 60
    assert (stopped["ActiveState"], stopped["Result"]) == ("inactive", "success")
    assert stopped["group"] == []
    assert stopped["servers"] == {}
    assert stopped["journal"] < 1 << 20
    assert "BrokenPipe" not in stopped["said"]


def test_a_port_that_is_taken_is_told(seen: dict[str, Any]) -> None:
    """One sentence in the journal; when it is free the server comes by itself."""
    taken = seen["port_taken"]
    assert taken["failed"]["ExecMainStatus"] == "1"
    assert "Port 8080 of 127.0.0.1 is taken." in taken["said"]
    assert taken["status"] == 404
    assert taken["healthy"] >= 0


# Metrics and timers


def test_metrics_are_prometheus_s(seen: dict[str, Any]) -> None:
    """promtool finds nothing to say of them, and the server's own are among them."""
    assert seen["monitor"]["code"] == 0, seen["monitor"]["said"]
    assert seen["monitor"]["said"] == ""
    assert "\nsky_apiserver_" in seen["monitor"]["text"]
    assert samples(seen["monitor"]["text"])["skypilot_up"] == 1


def test_the_timers_do_their_work(seen: dict[str, Any]) -> None:
    """The state of clusters is kept, 0640, and autostop has found nothing to set; both ended well."""
    timers = seen["timers"]
    assert timers["state"]["failure"] is None
    assert timers["state"]["clusters"] == []
    assert timers["state"]["server_version"] == "0.14.1"
    assert timers["mode"] == "0640 skypilot"
    for unit in (MANAGER, STOPPER):
        assert f"Finished {unit}" in timers["said"][unit]


def test_the_timers_act_on_a_cluster(seen: dict[str, Any]) -> None:
    """From within its unit the server reaches a machine by SSH, and sets autostop on it as the site wants it."""
    cluster = seen["cluster"]
    (train,) = cluster["state"]["clusters"]
    assert (train["name"], train["status"], train["autostop_minutes"]) == ("train", "UP", -1)
    assert "train: will be stopped after 30 idle minutes (it has none)." in cluster["set"]["said"]
    assert json.loads(cluster["told"])[:2] == [30, False]
    assert cluster["kept"]["clusters"][0]["autostop_minutes"] == 30
    assert samples(cluster["metrics"])['skypilot_cluster_autostop_seconds{cluster="train"}'] == 1800
    assert samples(cluster["metrics"])['skypilot_clusters{status="UP"}'] == 1
    assert {cluster[step]["ExecMainStatus"] for step in ("before", "set", "again", "after")} == {"0"}


def test_autostop_resets_no_idle_clock_and_stops_nothing(seen: dict[str, Any]) -> None:
    """Once it is set it is not set again: idleness counts on, and the machine runs."""
    cluster = seen["cluster"]
    assert "train" not in cluster["again"]["said"]
    assert cluster["told again"] == cluster["told"]
    assert cluster["machines"] == ["running"]
    assert set(cluster["servers"]) == {SERVER}


def test_no_timer_starts_a_server(seen: dict[str, Any]) -> None:
    """There is one server at most, in its own unit: after the timers, and whatever they met at its address."""
    assert set(seen["timers"]["servers"]) == {SERVER}
    for step in ("down", "slow", "other_version"):
        assert seen[step]["servers"] == {}, step
        assert seen[step][MANAGER]["group"] == []


def test_timers_go_by_no_clock_of_the_day(seen: dict[str, Any]) -> None:
    """They are monotonic, and have a next time."""
    for told in seen["timers"]["timers"].values():
        assert "TimersCalendar={" not in told
        assert "OnUnitInactiveUSec=5min" in told
        assert "NextElapseUSecMonotonic=infinity" not in told


def test_a_clock_that_jumps_leaves_a_good_state(seen: dict[str, Any]) -> None:
    """A day ahead and a day behind, for the one program that compares times: it ends well, and remembers the jump."""
    for moved in ("ahead", "behind"):
        found = seen["clock"][moved]
        assert found["ExecMainStatus"] == "0", found["said"]
        assert found["state"]["failure"] is None
        assert found["state"]["clock"]["steady_since"] == found["state"]["clock"]["wall"]
        assert all(value >= 0 for value in samples(found["metrics"]).values())
    ahead, behind = (seen["clock"][moved]["state"]["clock"]["wall"] for moved in ("ahead", "behind"))
    assert ahead - behind > 86_400


@pytest.mark.parametrize(
    ("step", "failure", "sentence"),
    [
        ("down", "down", "No API server answers at http://127.0.0.1:8080: Connection refused."),
        ("slow", "slow", "The API server at http://127.0.0.1:8080 did not answer within 20 seconds."),
        ("other_version", "version", "The API server at http://127.0.0.1:8080 is of another version"),
    ],
)
def test_a_server_that_cannot_be_asked(seen: dict[str, Any], step: str, failure: str, sentence: str) -> None:
    """The unit fails with 75 and a sentence; the state keeps what was known, and the metrics say why."""
    found = seen[step]
    units = [unit for unit in (MANAGER, STOPPER) if unit in found]
    for unit in units:
        assert found[unit]["ExecMainStatus"] == "75", found[unit]["said"]
        assert sentence in found[unit]["said"]
    assert found["state"]["failure"] == failure
    assert found["state"]["refreshed_at"] is not None
    assert [cluster["name"] for cluster in found["state"]["clusters"]] == ["train"]
    assert {name for name, value in failures(found["metrics"]).items() if value} == {failure}
    assert samples(found["metrics"])["skypilot_up"] == 0


def test_nothing_is_left_in_the_end(seen: dict[str, Any]) -> None:
    """All units stopped with success, no process of their user is there, and the journal is small."""
    ended = seen["ended"]
    assert ended["code"] == 0, ended["said"]
    assert ended["took"] < 60
    assert ended["left"] == []
    assert {unit: found["Result"] for unit, found in ended["units"].items()} == dict.fromkeys(
        ended["units"], "success"
    )
    assert max(ended["journal"].values()) < 1 << 20


# The mirror


def test_the_mirror_serves_with_tls_and_logins(seen: dict[str, Any]) -> None:
    """A received store, as its own user: open pages for everybody, guarded files for who has a login."""
    mirror = seen["mirror"]
    assert mirror["installed"][0] == 0, mirror["installed"][1]
    assert mirror["unit"]["ActiveState"] == "active"
    assert mirror["owner"].endswith(" haversack")
    assert (mirror["page"], mirror["stranger"], mirror["metrics"]) == (200, 401, 200)
    assert mirror["alice"] == hashlib.sha256(BIG).hexdigest()


def test_the_mirror_writes_nothing_and_reads_no_secret_of_root_s(seen: dict[str, Any]) -> None:
    """Its store is read-only, and as it was; its key is a copy that nobody else reads."""
    mirror = seen["mirror"]
    assert mirror["writes"][0] != 0
    assert "Read-only file system" in mirror["writes"][1]
    assert mirror["reads"][0] != 0
    assert mirror["copies"] == {"haversack": 0, "bob": 1}
    assert mirror["store"]


def test_a_reload_of_the_mirror_keeps_connections(seen: dict[str, Any]) -> None:
    """The same process goes on, and a download under way comes to its right end."""
    reloads = seen["mirror_reloads"]
    assert reloads["reload"] == 0
    assert reloads["pid"]
    assert reloads["reloaded"] == hashlib.sha256(BIG).hexdigest()


def test_a_renewed_certificate_is_shown_after_a_restart(seen: dict[str, Any]) -> None:
    """systemd copies credentials when a unit starts (252): a reload alone shows the old one."""
    assert seen["mirror_reloads"]["renewed"]


def test_a_stop_of_the_mirror_lets_downloads_end(seen: dict[str, Any]) -> None:
    """What is under way has its time; then nothing is left."""
    reloads = seen["mirror_reloads"]
    assert reloads["stopped"] == hashlib.sha256(BIG).hexdigest()
    assert reloads["stop"] == 0
    assert reloads["took"] < 45
    assert (reloads["unit"]["ActiveState"], reloads["unit"]["Result"]) == ("inactive", "success")
    assert reloads["group"] == []


def test_skypilot_takes_packages_from_the_mirror(seen: dict[str, Any]) -> None:
    """With nothing but the API server's own variables, pip asks the mirror alone, and trusts it."""
    served = seen["mirror_serves_skypilot"]
    assert served["env"]["UV_DEFAULT_INDEX"] == "https://127.0.0.1:8090/pypi/simple/"
    assert served["pip"][0] == 0, served["pip"][1]
    assert "Looking in indexes: https://127.0.0.1:8090/pypi/simple/" in served["pip"][1]
