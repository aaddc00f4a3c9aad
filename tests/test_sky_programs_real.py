"""The programs beside SkyPilot, with SkyPilot itself: its server, its client, and machines that it can reach.

The machines are records of moto's Amazon; what SkyPilot finds behind their addresses is a real sshd in the network
namespace of the test, with a home for each of them, in which SkyPilot's own code keeps what a skylet would read.
Ray is not there, and nobody stops machines: what is looked at is what was set.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from haversack.ports import cage
from haversack.ports.run import Programs
from tests.support.site import plain_environ
from tests.support.skypilot import AMI, PROGRAMS, ask, end

# An environment of a gigabyte and a server with many processes: minutes on a busy machine.
pytestmark = [pytest.mark.network, pytest.mark.slow, pytest.mark.timeout(1500)]

CLUSTERS = {
    "gone": {},
    "kept": {"autostop": [60, False]},
    "less": {"autostop": [10, True]},
    "pod": {"cloud": "kubernetes"},
    "sky-jobs-controller-1a2b3c4d": {},
    "spot": {"spot": True},
    "train": {},
    "fresh": {},
}
ADDRESS = {name: f"10.0.1.{number}" for number, name in enumerate(CLUSTERS, 10)}
# Records of SkyPilot's, and the machines that they are about.
_NODES = """\
import json, os, pathlib, subprocess, sys
import boto3, sky
from sky import clouds, global_user_state
from sky.backends import CloudVmRayResourceHandle
from sky.provision.common import ProvisionRuntimeMetadata
home, (clusters, address) = pathlib.Path.home(), json.loads(os.environ["CLUSTERS"])
ec2 = boto3.client("ec2")
vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.1.0/24", AvailabilityZone="us-west-2a")["Subnet"]["SubnetId"]
for name, told in clusters.items():
    ip, amazon = address[name], told.get("cloud") is None
    if amazon:
        (home / "nodes" / ip / ".sky").mkdir(parents=True)
        (home / "nodes" / ip / ".sky" / "python_path").write_text(sys.executable)
        subprocess.run(["ip", "addr", "add", f"{ip}/32", "dev", "lo"], check=True)
        tags = {"ray-cluster-name": name, "skypilot-cluster-name": name, "ray-node-type": "head",
                "skypilot-head-node": "1", "Name": f"sky-{name}-head"}
        ec2.run_instances(ImageId=os.environ["AMI"], MinCount=1, MaxCount=1, SubnetId=subnet, PrivateIpAddress=ip,
            InstanceType="m6i.large", TagSpecifications=[
                {"ResourceType": "instance", "Tags": [{"Key": k, "Value": v} for k, v in tags.items()]}])
        resources = sky.Resources(cloud=clouds.AWS(), region="us-west-2", zone="us-west-2a",
                                  instance_type="m6i.large", use_spot=told.get("spot", False))
        provider = {"module": "sky.provision.aws", "region": "us-west-2", "use_internal_ips": True}
    else:
        resources = sky.Resources(cloud=clouds.Kubernetes(), region="nowhere", instance_type="2CPU--8GB")
        provider = {"module": "sky.provision.kubernetes", "region": "kubernetes", "context": "nowhere"}
    text = json.dumps({"cluster_name": name, "provider": {"type": "external", **provider},
                       "auth": {"ssh_user": "root", "ssh_private_key": str(home / "key")}})
    path = home / ".sky" / "generated" / f"{name}.yml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    global_user_state.set_cluster_yaml(name, text)
    handle = CloudVmRayResourceHandle(
        cluster_name=name, cluster_name_on_cloud=name, cluster_yaml=str(path), launched_nodes=1,
        launched_resources=resources, stable_internal_external_ips=[(ip, ip)] if amazon else None,
        stable_ssh_ports=[22])
    handle.is_grpc_enabled = False
    handle.provision_runtime_metadata = ProvisionRuntimeMetadata(has_ray=False)
    global_user_state.add_or_update_cluster(name, handle, {resources}, ready=True)
    if "autostop" in told:
        global_user_state.set_cluster_autostop_value(name, *told["autostop"])
"""
# What machines were told, by the code of the skylet that would obey, in the home of each.
_TOLD = """\
import json, os, sys
from sky.skylet import autostop_lib
home = os.environ["HOME"]
for ip in os.listdir(f"{home}/nodes"):
    if not os.fork():
        os.environ["HOME"] = f"{home}/nodes/{ip}"
        config = autostop_lib.get_autostop_config()
        with open(f"{home}/{sys.argv[1]}.{ip}.json", "w") as file:
            json.dump([config.autostop_idle_minutes, config.down, autostop_lib.get_last_active_time()], file)
        sys.exit()
    os.wait()
"""
# Jobs on machines, by that code too: one that ended, and on one of them another that runs.  One never had any.
_JOBS = """\
import os, sys
from sky.skylet import job_lib
home = os.environ["HOME"]
with open(".sky/user_hash") as file:
    user = file.read().strip()
for number in (10, 11, 12, 15, 16):
    ip, runs = f"10.0.1.{number}", number == 11
    if not os.fork():
        os.environ["HOME"] = f"{home}/nodes/{ip}"
        for ends in (True, False) if runs else (True,):
            job, _ = job_lib.add_job("j", user, "sky-2026", "1x[CPU:1]", "{}")
            if ends:
                job_lib.set_status(job, job_lib.JobStatus.SUCCEEDED)
            else:
                job_lib.set_job_started(job)
        sys.exit()
    os.wait()
"""
# A cluster that is there when all are listed, and gone when autostop is set.
_VANISH = """\
import sys
import asking, autostop
asked = asking.ask(120)
(record,) = [r for r in asked.get(asked.sdk.status, all_users=True) if r["name"] == "gone"]
from sky import global_user_state
global_user_state.remove_cluster("gone", terminate=True)
done = autostop.put(asked, asking.cluster_of(record), 30)
print(done.line, done.failed)
"""
# Two that are others by then: one was launched anew under its name, of the other somebody set what he wanted.
_ANOTHER = """\
import asking, autostop
asked = asking.ask(120)
listed = {r["name"]: asking.cluster_of(r) for r in asked.get(asked.sdk.status, all_users=True)}
from sky import global_user_state
handle = listed["spot"].handle
global_user_state.remove_cluster("spot", terminate=True)
global_user_state.add_or_update_cluster("spot", handle, {handle.launched_resources}, ready=True)
global_user_state.set_cluster_autostop_value("less", 10, True)
for name in ("spot", "less"):
    done = autostop.put(asked, listed[name], 30)
    print(name, done.line, done.failed)
"""
# An API server of a version that SkyPilot's client does not take; and one that goes once it was found well.
_OTHER = """\
import http.server, json, sys
from sky.server import constants
old = sys.argv[1] == "old"
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({"status": "healthy", "version": "0.3.0", "api_version": "1", "commit": "c"}).encode()
        self.send_response(200)
        self.send_header(constants.API_VERSION_HEADER, "1" if old else str(constants.API_VERSION))
        self.send_header(constants.VERSION_HEADER, "0.3.0")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
with http.server.HTTPServer(("127.0.0.1", int(sys.argv[2])), Answer) as server:
    server.serve_forever() if old else server.handle_request()
"""
_SSHD = """\
HostKey %(home)s/hostkey
AuthorizedKeysFile %(home)s/key.pub
PermitRootLogin yes
StrictModes no
UsePAM no
PidFile none
ForceCommand set -- $SSH_CONNECTION; export HOME=%(home)s/nodes/$3; cd; \
case "$SSH_ORIGINAL_COMMAND" in rsync*) touch %(home)s/copies; while test -e %(home)s/hang; do sleep 1; done;; esac; \
while test -e %(home)s/hang.$3; do sleep 1; done; \
exec bash -c "$SSH_ORIGINAL_COMMAND"
"""
VMS = (
    "InstanceType,AcceleratorName,AcceleratorCount,vCPUs,MemoryGiB,GpuInfo,Price,SpotPrice,Region,AvailabilityZone,"
    "Arch,LocalDiskType,NVMeSupported,LocalDiskSize,LocalDiskCount\n"
    "m6i.large,,,2.0,8.0,,0.096,0.04,us-west-2,usw2-az1,x86_64,,,,\n"
    "m6i.large,,,2.0,8.0,,0.107,0.04,eu-west-1,euw1-az1,x86_64,,,,\n"
    "m6i.2xlarge,,,8.0,32.0,,0.428,0.16,eu-west-1,euw1-az1,x86_64,,,,\n"
    "m6i.2xlarge,,,8.0,32.0,,0.384,0.16,us-west-2,usw2-az1,x86_64,,,,\n"
)
# In a namespace with loopback alone; each step leaves what it said in a file.
_SCRIPT = """\
cd "$HOME"
readlink /proc/self/ns/net > namespace
ran() { name=$1; shift; "$@" > "$name.out" 2> "$name.err"; echo $? > "$name.code"; }
moto_server -H 127.0.0.1 -p 5555 > moto.log 2>&1 &
mkdir -p /run/sshd
ssh-keygen -q -t ed25519 -N '' -f key
ssh-keygen -q -t ed25519 -N '' -f hostkey
"$(command -v sshd)" -D -f sshd_config -E sshd.log &
for i in $(seq 300); do curl -so /dev/null "$AWS_ENDPOINT_URL/moto-api/" && break; sleep .3; done
ran nodes python -c "$NODES"
ran jobs python -c "$JOBS"

ran down python "$PROGRAMS/clusters.py" --state down.json
python -c "$OTHER" old 46901 & other=$!
ran ready sh -c 'for i in $(seq 300); do curl -sf http://127.0.0.1:46901/api/health && break; sleep .3; done'
SKYPILOT_API_SERVER_ENDPOINT=http://127.0.0.1:46901 ran other python "$PROGRAMS/clusters.py" --state other.json
kill $other
python -c "$OTHER" once 46902 & sleep 5
for i in $(seq 300); do ss -Hltn 'sport = 46902' | grep -q . && break; sleep .3; done
SKYPILOT_DISABLE_LOCAL_API_SERVER= SKYPILOT_API_SERVER_LOCAL_PORT=46902 \\
    SKYPILOT_API_SERVER_ENDPOINT=http://127.0.0.1:46902 ran went python "$PROGRAMS/clusters.py" --state went.json
servers() { for p in /proc/[0-9]*; do
    [ "$(readlink "$p/ns/net")" = "$(cat namespace)" ] && tr '\\0' ' ' < "$p/cmdline" | grep -e '-m sky[.]server'
done; true; }
ran hidden servers

SKYPILOT_GLOBAL_CONFIG="$HOME/site.yaml" PYTHONPATH="$PROGRAMS" SITE_DEFAULT_REGION=eu-west-1 \\
    SITE_DEFAULT_INSTANCE_TYPE=m6i.2xlarge \\
    python "$PROGRAMS/server.py" --host 127.0.0.1 --port 46997 --metrics-port 46998 > server.log 2>&1 & server=$!
for i in $(seq 600); do curl -sf "$SKYPILOT_API_SERVER_ENDPOINT/api/health" > health.json && break; sleep .5; done
ran dry python "$PROGRAMS/autostop.py" --idle-minutes 60 --dry-run --timeout 600
python -c "$TOLD" dry
mkdir workdir
touch hang workdir/file
ran exec sky exec --async fresh --workdir workdir 'echo hi'
for i in $(seq 300); do test -e copies && break; sleep .3; done
ran first python "$PROGRAMS/autostop.py" --idle-minutes 60 --timeout 600 --state autostop.json
python -c "$TOLD" first
rm hang
for i in $(seq 300); do sky api status | grep -q exec || break; sleep .3; done
ran second python "$PROGRAMS/autostop.py" --idle-minutes 60 --timeout 600
python -c "$TOLD" second
ran clusters python "$PROGRAMS/clusters.py" --state state.json
cp state.json good.json
touch hang.10.0.1.11
ran hung python "$PROGRAMS/clusters.py" --state hung.json --timeout 120
rm hang.10.0.1.11
kill -STOP $server
ran slow python "$PROGRAMS/clusters.py" --state state.json --timeout 4
kill -CONT $server
PYTHONPATH="$PROGRAMS" ran vanish python -c "$VANISH"
PYTHONPATH="$PROGRAMS" ran another python -c "$ANOTHER"
python -c "$TOLD" another
ran nothing sky launch -y --dryrun 'echo hi'
ran region sky launch -y --dryrun --infra aws/us-west-2 'echo hi'
ran size sky launch -y --dryrun --cpus 2 'echo hi'
ran existing sky launch -y --dryrun -c train 'echo hi'
python "$PROGRAMS/monitor.py" --host 127.0.0.1 --port 46999 --state good.json --server "$SKYPILOT_API_SERVER_ENDPOINT" \\
    --server-metrics http://127.0.0.1:46998/metrics --disk "$HOME" 2> monitor.log &
for i in $(seq 100); do curl -sf http://127.0.0.1:46999/metrics > page.txt && break; sleep .3; done
curl -sf http://127.0.0.1:46998/metrics > own.txt
kill $server; wait $server; echo $? > server.code
"""


@dataclass(frozen=True, slots=True)
class Seen:
    """What the steps left in the home of the service."""

    home: Path

    def text(self, name: str) -> str:
        """One of the files."""
        return (self.home / name).read_text(errors="replace")

    def json(self, name: str) -> Any:
        """One of the files, as JSON."""
        return json.loads(self.text(name))

    def code(self, name: str) -> int:
        """The exit code of a step."""
        return int(self.text(f"{name}.code"))

    def set_on(self, step: str, name: str) -> list[Any]:
        """Minutes, tearing down, and the beginning of idleness that a machine had after a step."""
        found: list[Any] = self.json(f"{step}.{ADDRESS[name]}.json")
        return found


@pytest.fixture(scope="module")
def seen(sky: Path, tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """A service at work, with loopback alone and an Amazon of moto's."""
    if reason := Programs().cage():
        pytest.skip(reason)
    if os.geteuid():
        pytest.skip("only root may add addresses and start an sshd")
    home = tmp_path_factory.mktemp("sky-service")
    catalog = home / ".sky" / "catalogs" / "v8" / "aws"
    catalog.mkdir(parents=True)
    ami = ask(sky, AMI, None, tmp_path_factory.mktemp("ami"))
    (catalog / "vms.csv").write_text(VMS)
    (catalog / "images.csv").write_text(
        "Tag,Region,OS,OSVersion,ImageId,CreationDate,BaseImageId\n"
        + "".join(
            f"skypilot:custom-cpu-ubuntu,{r},ubuntu,22.04,{ami},20250101,{ami}\n"
            for r in ("us-west-2", "eu-west-1")
        )
    )
    (catalog / "instance_quota_mapping.csv").write_text(
        "InstanceType,OnDemandInstanceCode,SpotInstanceCode\nm6i.large,L-1,L-2\nm6i.2xlarge,L-1,L-2\n"
    )
    (home / "site.yaml").write_text("allowed_clouds: [aws]\nadmin_policy: site_defaults.SiteDefaults\n")
    (home / "sshd_config").write_text(_SSHD % {"home": home})
    env = {
        **plain_environ(),
        "PATH": f"{sky}:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": str(home),
        "AMI": ami,
        "CLUSTERS": json.dumps([CLUSTERS, ADDRESS]),
        "PROGRAMS": str(PROGRAMS),
        "NODES": _NODES,
        "TOLD": _TOLD,
        "JOBS": _JOBS,
        "VANISH": _VANISH,
        "ANOTHER": _ANOTHER,
        "OTHER": _OTHER,
        "SKYPILOT_API_SERVER_ENDPOINT": "http://127.0.0.1:46997",
        "SKYPILOT_DISABLE_USAGE_COLLECTION": "1",
        "SKYPILOT_DISABLE_LOCAL_API_SERVER": "1",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:5555",
        "AWS_ACCESS_KEY_ID": "t",
        "AWS_SECRET_ACCESS_KEY": "t",
        "AWS_DEFAULT_REGION": "us-west-2",
        "AWS_PAGER": "",
        # As the units have it: SkyPilot builds a wheel of itself, with what is there.
        "PIP_NO_BUILD_ISOLATION": "0",
    }
    argv = [sys.executable, "-I", "-S", cage.__file__, "bash", "-c", _SCRIPT]
    try:
        with (home / "script.log").open("wb") as log:
            subprocess.run(argv, env=env, stdout=log, stderr=log, stdin=subprocess.DEVNULL, timeout=1200)
    finally:
        # The script's first step; without it nothing else was started.
        if (home / "namespace").exists():
            end((home / "namespace").read_text().strip())
    assert (home / "nodes.code").read_text().strip() == "0", (home / "nodes.err").read_text()
    return Seen(home)


def test_the_server_starts_and_stops(seen: Seen) -> None:
    """It is healthy without a network, has no telemetry, and ends on SIGTERM to its main process."""
    health = seen.json("health.json")
    assert (health["status"], health["telemetry_enabled"]) == ("healthy", False), seen.text("server.log")[
        -2000:
    ]
    assert seen.text("server.code").strip() in {"0", "143"}


def test_a_dry_run_says_what_would_be_set_and_sets_nothing(seen: Seen) -> None:
    """One line a cluster; no machine was told anything."""
    said = seen.text("dry.out")
    assert "train: would be stopped after 60 idle minutes (it has none)." in said
    assert "spot: would be torn down after 60 idle minutes" in said
    assert "less: would be torn down after 60 idle minutes (it has 10 minutes)." in said
    assert "kept" not in said
    assert "controller" not in said
    assert "fresh: left alone for now, it never had a job." in said
    for name in ("fresh", "gone", "kept", "less", "spot", "train"):
        assert seen.set_on("dry", name)[0] == -1


def test_autostop_reaches_the_machines(seen: Seen) -> None:
    """Stopped where that can be, torn down where it cannot or where somebody wanted it so."""
    found = {name: seen.set_on("first", name)[:2] for name in ("gone", "less", "spot", "train")}
    assert found == {"gone": [60, False], "less": [60, True], "spot": [60, True], "train": [60, False]}
    # SkyPilot's database said 60 of this one: it was not told again, and controllers are told nothing.
    for name in ("kept", "sky-jobs-controller-1a2b3c4d"):
        assert seen.set_on("first", name)[0] == -1


def test_an_idle_clock_that_runs_is_not_reset(seen: Seen) -> None:
    """The second time nothing is set, and idleness counts from where it did."""
    for name in ("gone", "less", "spot", "train"):
        assert seen.set_on("first", name)[2] > 0
        assert seen.set_on("first", name) == seen.set_on("second", name)
    assert not re.search("^(gone|kept|less|spot|train):", seen.text("second.out"), re.MULTILINE)


def test_a_cluster_to_which_files_are_copied_is_left_alone(seen: Seen) -> None:
    """It is UP, has no job yet and no autostop, and SkyPilot's own rsync hangs: the server says what is under way."""
    assert seen.code("exec") == 0, seen.text("exec.err")
    assert (seen.home / "copies").exists()
    assert "fresh: left alone, exec is under way." in seen.text("first.out")
    assert seen.set_on("first", "fresh")[0] == -1
    assert "fresh" not in seen.json("autostop.json")["clusters"]


def test_a_cluster_that_is_another_by_now_is_told_nothing(seen: Seen) -> None:
    """Launched anew under its name, or set by somebody, between being listed and being told."""
    said = seen.text("another.out").splitlines()
    assert said == [f"{name} left alone, it has changed meanwhile. False" for name in ("spot", "less")]
    for name in ("spot", "less"):
        assert seen.set_on("another", name) == seen.set_on("second", name)


def test_one_cluster_that_fails_keeps_no_other_from_its_autostop(seen: Seen) -> None:
    """Of a Kubernetes that cannot be reached one line tells, and the exit code."""
    assert seen.code("first") == 1
    assert re.search("^pod: not set: .*kube", seen.text("first.out"), re.MULTILINE | re.IGNORECASE)


def test_a_cluster_that_vanishes_is_passed_over(seen: Seen) -> None:
    """Between being listed and being set: a line, no failure."""
    assert seen.text("vanish.out").splitlines() == ["left alone, it is gone or no longer up. False"]


def test_clusters_are_refreshed_and_kept(seen: Seen) -> None:
    """What stands in the state file of each, with idleness from its jobs."""
    assert seen.code("clusters") == 0, seen.text("clusters.err")
    told = seen.json("good.json")
    assert (told["failure"], told["server_version"]) == (None, "0.14.1")
    found = {one["name"]: one for one in told["clusters"]}
    assert set(found) == set(CLUSTERS)
    train = found["train"]
    expected = {
        "status": "UP", "cloud": "aws", "region": "us-west-2", "instance_type": "m6i.large", "spot": False,
        "autostop_minutes": 60, "to_down": False, "last_use": "-c",
    }  # fmt: skip
    assert {key: train[key] for key in expected} == expected
    assert 0 <= train["idle_minutes"] < 20
    # SkyPilot tells 0.0: these tables have no price for the zone of the machine.
    assert train["cost_dollars"] is None
    assert found["kept"]["idle_minutes"] == 0
    assert found["spot"]["spot"] is True
    assert found["less"]["to_down"] is True
    assert found["pod"]["idle_minutes"] is None
    assert found["sky-jobs-controller-1a2b3c4d"]["idle_minutes"] is None
    # Of a Kubernetes that cannot be reached SkyPilot gives what it knew, and does not say so.
    assert {name: one["failure"] for name, one in found.items() if not one["refreshed"]} == {"pod": "kept"}
    assert seen.text("clusters.err") == "Not refreshed: pod (kept).\n"


def test_a_cluster_that_hangs_hides_no_others(seen: Seen) -> None:
    """Its machine takes a connection and says nothing: SkyPilot does not answer, and what it found is kept all the same."""
    assert seen.code("hung") == 0, seen.text("hung.err")
    found = {one["name"]: one for one in seen.json("hung.json")["clusters"]}
    assert set(found) == set(CLUSTERS)
    assert {name for name, one in found.items() if not one["refreshed"]} == {"kept", "pod"}
    assert found["kept"]["failure"] in {"slow", "kept"}
    assert found["kept"]["idle_minutes"] is None
    assert found["train"]["idle_minutes"] is not None


@pytest.mark.parametrize(
    ("step", "state", "failure"),
    [
        ("down", "down.json", "down"),
        ("other", "other.json", "version"),
        ("went", "went.json", "down"),
        ("slow", "state.json", "slow"),
    ],
)
def test_a_server_that_cannot_be_asked_is_told(seen: Seen, step: str, state: str, failure: str) -> None:
    """Down, of another version, gone once it was found well, or stopped: 75, a sentence, and a word."""
    assert seen.code(step) == 75, seen.text(f"{step}.err")
    assert seen.json(state)["failure"] == failure
    assert seen.text(f"{step}.err").strip().splitlines()[-1].startswith(("No API server", "The API server"))


def test_what_was_known_outlives_a_failure(seen: Seen) -> None:
    """The clusters of the last time that went well, and when that was."""
    before, after = seen.json("good.json"), seen.json("state.json")
    assert (after["clusters"], after["refreshed_at"]) == (before["clusters"], before["refreshed_at"])


def test_no_server_is_ever_started_by_a_client(seen: Seen) -> None:
    """Also where nothing but our own guard keeps it from that, as in versions before 0.14."""
    assert (seen.code("hidden"), seen.text("hidden.out")) == (0, "")


def test_the_sites_defaults_are_for_tasks_that_say_nothing(seen: Seen) -> None:
    """Region and machine are given alone or together, and a cluster that there is stays what it is."""
    for step in ("nothing", "region", "size", "existing"):
        assert seen.code(step) == 0, seen.text(f"{step}.out") + seen.text(f"{step}.err")
    said = {
        step: seen.text(f"{step}.out") + seen.text(f"{step}.err") for step in ("nothing", "region", "size")
    }
    assert "eu-west-1" in said["nothing"]
    assert "m6i.2xlarge" in said["nothing"]
    assert "us-west-2" in said["region"]
    assert "m6i.2xlarge" in said["region"]
    assert "eu-west-1" in said["size"]
    assert "m6i.large" in said["size"]


def test_its_own_metrics_and_ours_are_one_good_page(seen: Seen) -> None:
    """By Prometheus' rules; of ours promtool has nothing to say."""
    page = seen.text("page.txt")
    assert "skypilot_server_metrics_up 1.0" in page
    assert 'skypilot_server_info{version="0.14.1"} 1.0' in page
    assert 'skypilot_clusters{status="UP"} 8.0' in page
    assert "\nsky_" in page
    done = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True, text=True)
    assert done.returncode in {0, 3}
    assert not re.search("^skypilot_", done.stdout + done.stderr, re.MULTILINE)
