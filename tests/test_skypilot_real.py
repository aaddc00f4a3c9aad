"""SkyPilot itself, beside what is rendered for it: its schema, its merge of pods, and a launch with no network.

The environment with SkyPilot, moto and the schemas of Kubernetes is that of tests/support/skypilot.py.  What launches is
another one: that which ``[platform.skypilot]`` locked, and which was packed, received and installed.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from haversack.formats import prefixes
from haversack.model.artifact import digest_of
from haversack.platforms.skypilot import PLATFORM
from haversack.ports import cage
from haversack.ports.run import Programs
from haversack.skypilot import catalogs, config, known, schema, versions
from haversack.skypilot.carried import SERVER
from haversack.skypilot.machines import Mirror
from tests.support import tiny
from tests.support.site import Lab, here, plain_environ
from tests.support.skypilot import AMI, ask, end
from tests.test_platform_skypilot import CLOSED, GOLDEN, PODS_IMAGES, PROXY, QUOTAS, SSM, order

# An environment of a gigabyte and a server with many processes: minutes on a busy machine.
pytestmark = [pytest.mark.network, pytest.mark.slow, pytest.mark.timeout(1500)]

# What SkyPilot's catalog of machines has, with the one that a dry run takes.
VMS = (
    b"InstanceType,AcceleratorName,AcceleratorCount,vCPUs,MemoryGiB,GpuInfo,Price,SpotPrice,Region,AvailabilityZone,"
    b"Arch,LocalDiskType,NVMeSupported,LocalDiskSize,LocalDiskCount\n"
    b"m6i.large,,,2.0,8.0,,0.096,0.04,us-west-2,usw2-az1,x86_64,,,,\n"
    b"m6i.large,,,2.0,8.0,,0.107,0.04,eu-west-1,euw1-az1,x86_64,,,,\n"
)


DIGEST = digest_of(b"")
# Strictly: its own client lets through what it does not know of Kubernetes (sky/utils/schemas.py).
_SCHEMA = """\
import json, os, sys, yaml
from unittest import mock
from sky.server import plugins
from sky.utils import common_utils, schemas
with mock.patch.dict(os.environ, {"IS_SKYPILOT_SERVER": "true"}), mock.patch.object(plugins, "_plugins_loaded", True):
    schema = schemas.get_config_schema()
def check(text):
    try:
        common_utils.validate_schema(yaml.safe_load(text), schema, "config: ", skip_none=False)
    except ValueError as problem:
        return str(problem)
    return ""
print(json.dumps([[check(text) for text in json.load(sys.stdin)], sorted(schema["properties"])]))
"""


def test_its_own_schema_takes_what_is_rendered(sky: Path, tmp_path: Path) -> None:
    """Every golden configuration passes, strictly; one with a misspelt key, anywhere, does not."""
    good = [(GOLDEN / name / "config.yaml").read_text() for name in ("ssm", "proxy", "closed")]
    wrong = [
        good[0].replace("use_ssm", "use_ssmm"),
        good[1].replace("pod_config", "pod_confg"),
        good[2].replace("install_conda", "instal_conda"),
    ]
    told, _ = ask(sky, _SCHEMA, good + wrong, tmp_path)
    assert told[:3] == ["", "", ""]
    assert all(told[3:])


def test_what_is_rendered_is_held_to_the_skypilot_that_is_installed(
    sky: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own schema, strictly, by the interpreter that the ledger tells of; a configuration of its user's is not read."""
    (tmp_path / "mine.yaml").write_text("nothing: good\n")
    monkeypatch.setenv("SKYPILOT_GLOBAL_CONFIG", str(tmp_path / "mine.yaml"))
    inside = tiny.inside(tmp_path / "store")
    prefix, ref = tmp_path / "skypilot", f"{SERVER}/here"
    prefix.mkdir()
    for item in sky.parent.iterdir():
        (prefix / item.name).symlink_to(item)
    (prefix / prefixes.MARKER).write_bytes(prefixes.write(prefixes.Marker(ref, DIGEST, DIGEST)))
    good = config.config(PROXY, None)

    def told(content: Mapping[str, Any], version: str = "0.14.1") -> list[tuple[str, bool]]:
        found = schema.judge(content, version, SERVER, inside)
        return [(f"{finding.code}: {finding.message}", finding.blocking) for finding in found]

    ((said, blocking),) = told(good)
    assert ("not installed" in said, blocking) == (True, False)
    with inside.store.exclusive():
        inside.ledger.append("install", DIGEST, {"ref": ref, "prefix": str(prefix), "snapshot": DIGEST})
    assert told(good) == []
    ((said, blocking),) = told({**good, "kubernetes": {"pod_confg": {}}})
    assert ("platform-setting" in said, "pod_confg" in said, blocking) == (True, True, True)
    ((said, blocking),) = told(good, "0.13.0")
    assert ("0.14.1 is what is installed" in said, blocking) == (True, False)


_OPTIONS = """\
import json, sys
from sky.utils import schemas
schema = schemas.get_config_schema()["properties"]
def has(path):
    at = schema
    for word in path.split("."):
        at = at.get("properties", at).get(word) if isinstance(at, dict) else None
    return at is not None
print(json.dumps({path: has(path) for path in json.load(sys.stdin)}))
"""


def test_it_has_every_option_of_our_table(sky: Path, tmp_path: Path) -> None:
    """The newest version that is known knows every option that haversack writes."""
    told = ask(sky, _OPTIONS, list(versions.OPTIONS), tmp_path)
    assert [option for option, known in told.items() if not known] == []


_CLOSED = """\
import json, sys
from sky.utils import schemas
schema = schemas.get_config_schema()
tables = {name: schema["properties"][name] for name in json.load(sys.stdin)}
assert not schema["additionalProperties"] and not any(table["additionalProperties"] for table in tables.values())
print(json.dumps({"": sorted(schema["properties"]), **{name: sorted(tables[name]["properties"]) for name in tables}}))
"""


def test_its_closed_tables_have_the_keys_that_we_know(sky: Path, tmp_path: Path) -> None:
    """What is refused when it is declared is what SkyPilot refuses: the lists of keys are those of its schema."""
    told = ask(sky, _CLOSED, list(known.CLOSED), tmp_path)
    assert told == {"": sorted(known.TOP), **{name: sorted(keys) for name, keys in known.CLOSED.items()}}


def test_its_own_schema_takes_the_configuration_of_the_service(sky: Path, tmp_path: Path) -> None:
    """What is rendered for a machine with systemd, in JSON below a comment, passes as strictly."""
    services = GOLDEN.parent / "systemd"
    good = [(services / name / "etc/skypilot/config.yaml").read_text() for name in ("everything", "site")]
    told, _ = ask(sky, _SCHEMA, [*good, good[0].replace("allowed_clouds", "cloud")], tmp_path)
    assert told[:2] == ["", ""]
    assert told[2]


_MERGE = """\
import json, sys
import kubernetes_validate
from sky.provision.kubernetes.utils import check_pod_config
from sky.utils.config_utils import merge_k8s_configs
given = json.load(sys.stdin)
pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {"containers": [
    {"name": "ray-node", "image": "a", "env": [{"name": "SKYPILOT_POD_NAME", "value": "a"}], "volumeMounts": [
        {"name": "dshm", "mountPath": "/dev/shm"}]}], "volumes": [{"name": "dshm", "emptyDir": {"medium": "Memory"}}]}}
merge_k8s_configs(pod, given)
kubernetes_validate.validate(pod, "1.30", strict=True)
print(json.dumps([check_pod_config({k: pod[k] for k in ("metadata", "spec")}), pod]))
"""


@pytest.mark.parametrize("settings", [PROXY, CLOSED], ids=["proxy", "closed"])
def test_pods_are_good_after_its_own_merge(sky: Path, tmp_path: Path, settings: Mapping[str, Any]) -> None:
    """One container, with its own variables and ours, which SkyPilot and the schema of Kubernetes take."""
    mirror = Mirror("mirror.example.org", {"UV_DEFAULT_INDEX": "https://m/"}, {}, "pem")
    (good, said), pod = ask(
        sky, _MERGE, config.config(settings, mirror)["kubernetes"]["pod_config"], tmp_path
    )
    assert good, said
    (container,) = pod["spec"]["containers"]
    names = [entry["name"] for entry in container["env"]]
    assert {"SKYPILOT_POD_NAME", "HTTP_PROXY", "no_proxy"} <= set(names)
    assert len(names) == len(set(names))
    assert {"dshm"} <= {volume["name"] for volume in pod["spec"]["volumes"]}
    assert {"dshm"} <= {mount["name"] for mount in container["volumeMounts"]}


_WANTS = """\
from sky.provision.kubernetes import utils
said = utils.check_port_forward_mode_dependencies(False) or ()
print([word for word in ("socat", "nc") if any(f"`{word}`" in line for line in said)])
"""


@pytest.mark.parametrize(
    ("socat", "nc"),
    [(None, None), ("exit 0", "exit 0"), ("exit 0", '[ "$1" != -h ]')],
    ids=["none", "both", "other nc"],
)
def test_it_lacks_the_programs_that_preflight_finds_lacking(
    sky: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, socat: str | None, nc: str | None
) -> None:
    """Before Kubernetes is enabled it starts socat and nc, and takes an nc that knows no ``-h`` for none: so does preflight."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("sh", "timeout", "env"):
        (programs / name).symlink_to(shutil.which(name) or name)
    for name, does in (("socat", socat), ("nc", nc)):
        if does is not None:
            (programs / name).write_text(f"#!/bin/sh\n{does}\n")
            (programs / name).chmod(0o755)
    env = {**plain_environ(), "PATH": str(programs), "HOME": str(tmp_path)}
    argv = [str(sky / "python"), "-W", "ignore", "-c", _WANTS]
    done = subprocess.run(argv, capture_output=True, text=True, env=env, cwd=tmp_path, check=True)
    monkeypatch.setenv("PATH", str(programs))
    inside = tiny.inside(tmp_path / "store")
    with inside.store.exclusive():
        inside.store.add(digest_of(PODS_IMAGES), [PODS_IMAGES])
    found = PLATFORM.preflight(order(PROXY), inside)
    lacking = [name for name in ("socat", "nc") if name in {finding.subject for finding in found}]
    assert done.stdout.splitlines()[-1] == str(lacking)
    assert lacking == ([] if nc == "exit 0" else ["socat", "nc"] if nc is None else ["nc"])


_POD_IMAGES = """\
import json, pathlib, sys
import requests
from sky import catalog
def get(*words, **more):
    raise SystemExit("asked the internet")
requests.get = get
tables = json.load(sys.stdin)
for name, text in tables.items():
    path = pathlib.Path.home() / ".sky/catalogs/v8" / name
    path.parent.mkdir(parents=True)
    path.write_text(text)
tags = [f"skypilot:custom-{kind}-ubuntu-2204-v1" for kind in ("cpu", "gpu")]
print(json.dumps([catalog.get_image_id_from_tag(tag, clouds="kubernetes") for tag in tags]))
"""


def test_it_finds_the_images_of_pods_in_the_catalog_that_crossed(carried: Carried, tmp_path: Path) -> None:
    """The server that was carried asks nothing of the internet, and the images are those of the site's registry."""
    made, names = catalogs.of_pods(PODS_IMAGES, "0.14.1", "registry.example.org")
    told = ask(carried.prefix / "bin", _POD_IMAGES, {"kubernetes/images.csv": made.decode()}, tmp_path)
    assert told == [f"registry.example.org/{name}" for name in names]


_ACCELERATORS = """\
import json, pathlib, sys
import requests
def get(*words, **more):
    raise SystemExit("asked the internet")
requests.get = get
path = pathlib.Path.home() / ".sky/catalogs/v8/common/accelerators.csv"
path.parent.mkdir(parents=True, exist_ok=True)
table, names = json.load(sys.stdin)
path.write_text(table)
from sky.utils.accelerator_registry import canonicalize_accelerator_name as canonical
print(json.dumps([canonical(name, None) for name in names]))
"""


def test_it_knows_accelerators_without_the_internet(sky: Path, tmp_path: Path) -> None:
    """Every task with a GPU needs their names; one that nobody has told of stays what it is called."""
    machines = b"InstanceType,AcceleratorName\ng5.x,A10G\np4d.x,A100\np4de.x,A100-80GB\n"
    for made, names, wanted in (
        (catalogs.accelerators(machines), ["a10g", "A100", "A10", "X1"], ["A10G", "A100", "A10", "X1"]),
        (catalogs.accelerators(None), ["A100", "a10g"], ["A100", "a10g"]),
    ):
        assert ask(sky, _ACCELERATORS, [made.decode(), names], tmp_path) == wanted


# A launch with no network


# A site that lacks what Systems Manager needs, and the rest of it.
_SITE = """\
import sys, boto3
ec2, iam = boto3.client("ec2"), boto3.client("iam")
named = lambda kind, name: [{"ResourceType": kind, "Tags": [{"Key": "Name", "Value": name}]}]
if sys.argv[1] == "begin":
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16", TagSpecifications=named("vpc", "private-vpc"))["Vpc"]["VpcId"]
    ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.1.0/24", AvailabilityZone="us-west-2a")
    ec2.create_security_group(GroupName="private-sg", Description="x", VpcId=vpc)
else:
    vpc = ec2.describe_vpcs(Filters=[{"Name": "tag:Name", "Values": ["private-vpc"]}])["Vpcs"][0]["VpcId"]
    subnet = ec2.describe_subnets(Filters=[{"Name": "vpc-id", "Values": [vpc]}])["Subnets"][0]["SubnetId"]
    group = ec2.create_security_group(GroupName="endpoints", Description="x", VpcId=vpc)["GroupId"]
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[
        {"IpProtocol": "tcp", "FromPort": 443, "ToPort": 443, "IpRanges": [{"CidrIp": "10.0.0.0/16"}]}])
    own = ec2.describe_security_groups(GroupNames=["private-sg"])["SecurityGroups"][0]["GroupId"]
    ec2.authorize_security_group_ingress(GroupId=own, IpPermissions=[
        {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": own}]}])
    ec2.modify_vpc_attribute(VpcId=vpc, EnableDnsHostnames={"Value": True})
    for service in ("ssm", "ssmmessages", "ec2", "ec2messages", "sts"):
        ec2.create_vpc_endpoint(VpcId=vpc, ServiceName=f"com.amazonaws.us-west-2.{service}", SubnetIds=[subnet],
                                VpcEndpointType="Interface", SecurityGroupIds=[group], PrivateDnsEnabled=True)
    ec2.create_vpc_endpoint(VpcId=vpc, ServiceName="com.amazonaws.us-west-2.s3", VpcEndpointType="Gateway")
    iam.create_role(RoleName="nodes", AssumeRolePolicyDocument="{}")
    iam.attach_role_policy(RoleName="nodes", PolicyArn="arn:aws:iam::aws:policy/AmazonSSMManagedInstanceCore")
    iam.create_instance_profile(InstanceProfileName="site-nodes")
    iam.add_role_to_instance_profile(InstanceProfileName="site-nodes", RoleName="nodes")
"""
PAGE = Path(__file__).parents[1] / "docs" / "platforms" / "skypilot.md"
# In a namespace with loopback alone; each step leaves what it said in a file.  Nothing of the environment with moto is
# on PATH.
_BEGIN = """\
cd "$HOME"
readlink /proc/self/ns/net > namespace
"$ORACLE/moto_server" -H 127.0.0.1 -p 5555 > moto.log 2>&1 &
for i in $(seq 300); do curl -so /dev/null "$AWS_ENDPOINT_URL/moto-api/" && break; sleep .3; done
"$ORACLE/python" -c "$SITE" begin
"$PYTHON" -m haversack doctor skypilot --json > lacking.json
"$ORACLE/python" -c "$SITE" rest
"$PYTHON" -m haversack doctor skypilot --json > ready.json
"""
_END = """\
curl -s "$SKYPILOT_API_SERVER_ENDPOINT/api/health" > health.json
curl -sL -o dashboard.html -w '%{http_code}' "$SKYPILOT_API_SERVER_ENDPOINT/" > dashboard.code
command -v aws > aws.txt
cat .sky/generated/*.yml.tmp > cluster.yaml
"""


def steps() -> list[str]:
    """What our page says to run inside, from the first script on."""
    block = PAGE.read_text().partition("## Inside")[2].partition("```console\n")[2].partition("```")[0]
    lines = [line.removeprefix("$ ") for line in block.splitlines()]
    return lines[lines.index("sh /srv/sky-config/seed.sh") :]


def script(lines: list[str], config: Path) -> str:
    """The steps as the page has them, but for the folder, and for a launch that is a dry run."""
    found = []
    for line in lines:
        name = "-".join(line.split()[:3]).replace("/", "_")
        told = line.replace("/srv/sky-config", str(config)).replace("sky launch", "sky launch -y --dryrun")
        found.append(f"{told} > {name}.txt 2>&1; echo $? > {name}.code\n")
    return _BEGIN + "".join(found) + _END


@dataclass(frozen=True, slots=True)
class Launch:
    """What was left in the home of somebody who launched."""

    home: Path

    def text(self, name: str) -> str:
        """One of the files."""
        return (self.home / name).read_text(errors="replace")


@dataclass(frozen=True, slots=True)
class Carried:
    """A site behind the gap: its store, the installed environment, and what was rendered."""

    store: Path
    prefix: Path
    config: Path


@pytest.fixture(scope="module")
def carried(sky: Path, tmp_path_factory: pytest.TempPathFactory) -> Carried:
    """What ``[platform.skypilot]`` locks from PyPI by itself, packed, rehearsed, received, installed and rendered."""
    folder = tmp_path_factory.mktemp("skypilot-site")
    ami = ask(sky, AMI, None, folder)
    aws = "".join(f"{key} = {json.dumps(value)}\n" for key, value in SSM["aws"].items())
    # Where SkyPilot keeps its catalogs may be out of reach where tests run.
    files = "".join(
        f'[[file]]\nurl = "{t}.csv"\nname = "skypilot-aws-{t}.csv"\n'
        for t in ("vms", "instance_quota_mapping")
    )
    platform = (
        f'[platform.skypilot]\nversion = "0.14.1"\nendpoint = "http://127.0.0.1:46580"\n'
        f'[platform.skypilot.aws]\n{aws}ami = "{ami}"\n'
    )
    made = Carried(folder / "inside", folder / "opt" / "skypilot", folder / "sky-config")
    with Lab(folder / "lab") as lab:
        lab.write("haversack.toml", f'[site]\nname = "cloud"\n{here()}\n{platform}{files}')
        lab.write("vms.csv", VMS.decode())
        lab.write("instance_quota_mapping.csv", QUOTAS.decode())
        lab.told("lock")
        lab.told("pack", "-o", folder / "bundle", "--name", "2026-11")
        inside = {"HAVERSACK_STORE": str(made.store)}
        lab.told("receive", folder / "bundle", env=inside)
        lab.told("install", SERVER, "--to", made.prefix, env=inside)
        lab.told("render", "skypilot", "-o", made.config, env=inside)
    return made


@pytest.fixture(scope="module")
def launch(sky: Path, carried: Carried, tmp_path_factory: pytest.TempPathFactory) -> Launch:
    """Our page, step by step, with loopback alone and an Amazon of moto's."""
    if reason := Programs().cage():
        pytest.skip(reason)
    home = tmp_path_factory.mktemp("skypilot-home")
    env = {
        **plain_environ(),
        "PATH": "/usr/sbin:/usr/bin:/bin",
        "HOME": str(home),
        "SITE": _SITE,
        "ORACLE": str(sky),
        "PYTHON": sys.executable,
        "HAVERSACK_STORE": str(carried.store),
        "MOTO_IAM_LOAD_MANAGED_POLICIES": "true",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:5555",
        "AWS_ACCESS_KEY_ID": "t",
        "AWS_SECRET_ACCESS_KEY": "t",
        "AWS_DEFAULT_REGION": "us-west-2",
        "AWS_PAGER": "",
    }
    told = script(steps(), carried.config)
    argv = [sys.executable, "-I", "-S", cage.__file__, "bash", "-c", told]
    try:
        with (home / "script.log").open("wb") as log:
            subprocess.run(argv, env=env, stdout=log, stderr=log, stdin=subprocess.DEVNULL, timeout=1200)
    finally:
        # The script's first step; without it nothing else was started.
        if (home / "namespace").exists():
            end((home / "namespace").read_text().strip())
    return Launch(home)


def findings(told: str) -> dict[str, list[str]]:
    """What `doctor --json` found, by code."""
    found: dict[str, list[str]] = {}
    for finding in json.loads(told)["findings"]:
        found.setdefault(finding["code"], []).append(finding["subject"])
    return found


def test_preflight_finds_what_the_site_lacks(launch: Launch) -> None:
    """Of a site without endpoints and without the role both are found; with them AWS is as it should be."""
    lacking = findings(launch.text("lacking.json"))["platform-unready"]
    wanted = ("endpoint ssm", "endpoint ssmmessages", "endpoint s3", "enableDnsHostnames", "private-sg")
    assert {f"us-west-2: {name}" for name in wanted} <= set(lacking)
    assert "instance profile site-nodes" in lacking
    ready = findings(launch.text("ready.json"))
    assert ready["platform-unready"] == ["session-manager-plugin"]
    # Its configuration is held to the schema of the one that is installed.
    assert set(ready["platform-unknown"]) == {"Systems Manager", "nodes"}


def test_what_launches_is_what_was_carried(launch: Launch, carried: Carried) -> None:
    """Every step of the page ends well, and SkyPilot finds the `aws` of its own environment."""
    codes = {file.stem: file.read_text().strip() for file in launch.home.glob("*.code")}
    assert {name: code for name, code in codes.items() if name != "dashboard"} == dict.fromkeys(
        ("sh-_srv_sky-config_seed.sh", ".-_srv_sky-config_env.sh", "sky-api-start",
         ".-_srv_sky-config_client.sh", "sky-check-aws", "sky-launch---infra"), "0"
    ), launch.text("script.log")  # fmt: skip
    assert launch.text("aws.txt").strip() == str(carried.prefix / "bin" / "aws")


def test_its_server_is_healthy_without_a_network(launch: Launch) -> None:
    """The API server says so, has no telemetry, and shows its dashboard."""
    health = json.loads(launch.text("health.json") or "{}")
    assert health["status"] == "healthy", launch.text("sky-api-start.txt")[-2000:]
    assert health["version"] == "0.14.1"
    assert health["telemetry_enabled"] is False
    assert launch.text("dashboard.code") == "200"
    assert "<html" in launch.text("dashboard.html")


def test_aws_is_enabled_with_the_catalogs_that_crossed(launch: Launch) -> None:
    """`sky check aws` enables compute; nothing was asked of the internet."""
    said = re.sub(r"\x1b\[[0-9;]*m", "", launch.text("sky-check-aws.txt"))
    assert re.search(r"AWS: enabled \[[^]]*compute", said), said


def test_a_dry_run_reaches_machines_through_ssm(launch: Launch) -> None:
    """`sky launch --dryrun` ends well, and the cluster is in our VPC, our group, and behind Systems Manager."""
    told = launch.text("sky-launch---infra.txt")
    assert "Dryrun finished." in told, told
    cluster = launch.text("cluster.yaml")
    assert "aws ssm start-session" in cluster
    assert "AWS-StartSSHSession" in cluster
    assert "vpc_name: private-vpc" in cluster
    assert "GroupName: private-sg" in cluster
    assert "ManagedBySkyPilot: false" in cluster
    assert "Name: site-nodes" in cluster
