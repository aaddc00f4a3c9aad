"""SkyPilot: what is declared, what is locked for it, and what is rendered, held to golden files.

What SkyPilot itself says of it is in ``test_skypilot_real.py``.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from uv import find_uv_bin

from haversack.errors import DeclarationError, NotFoundError, UsageError
from haversack.formats import declaration, oci, prefixes, yaml
from haversack.kinds import keys
from haversack.model.artifact import Artifact, digest_of
from haversack.model.finding import Finding
from haversack.model.lock import Lock, LockedEnvironment
from haversack.model.site import Site
from haversack.model.target import ANY
from haversack.platforms import Order
from haversack.platforms.skypilot import PLATFORM
from haversack.ports import Inside
from haversack.skypilot import (
    amazon,
    asking,
    carried,
    catalogs,
    cluster,
    config,
    machines,
    proxies,
    pulls,
    secrets,
    settings,
    versions,
)
from haversack.skypilot.asking import Refused
from haversack.skypilot.carried import NODES, SERVER
from haversack.skypilot.machines import Mirror
from haversack.verbs.needs import completed
from haversack.verbs.platform import origin_of
from tests.support import tiny
from tests.support.registry import Layout, RealRegistry
from tests.support.services import COMMANDS
from tests.support.site import plain_environ

GOLDEN = Path(__file__).parent / "golden" / "skypilot"
IMAGE = "docker.io/site/skypilot:2026-11"
VMS = (
    b"InstanceType,AcceleratorName,AcceleratorCount,vCPUs,MemoryGiB,GpuInfo,Price,SpotPrice,Region,AvailabilityZone,Arch\n"
    b"m6i.large,,,2.0,8.0,,0.096,0.04,us-west-2,usw2-az1,x86_64\n"
    b"m6i.large,,,2.0,8.0,,0.107,0.04,eu-west-1,euw1-az1,x86_64\n"
)
QUOTAS = b"InstanceType,OnDemandInstanceCode,SpotInstanceCode\nm6i.large,L-1,L-2\n"
IMAGES = b"Tag,Region,OS,OSVersion,ImageId,CreationDate,BaseImageId\nskypilot:custom-cpu-ubuntu,us-west-2,ubuntu,22.04,ami-1,2,ami-1\n"
# As it is in SkyPilot's own catalog.
OWN = "us-docker.pkg.dev/sky-dev-465/skypilotk8s/skypilot"
PODS_IMAGES = f"""\
Tag,Region,OS,OSVersion,ImageId,CreationDate
skypilot:custom-cpu-ubuntu-2004,,ubuntu,20.04,{OWN}:20250909,20250909
skypilot:custom-gpu-ubuntu-2004,,ubuntu,20.04,{OWN}-gpu:20250909,20250909
skypilot:custom-cpu-ubuntu-2204,,ubuntu,22.04,{OWN}:202605150216,20260515
skypilot:custom-gpu-ubuntu-2204,,ubuntu,22.04,{OWN}-gpu:202605150216,20260515
skypilot:custom-cpu-ubuntu-2204-v1,,ubuntu,22.04,{OWN}:202607220236,20260722
skypilot:custom-gpu-ubuntu-2204-v1,,ubuntu,22.04,{OWN}-gpu:202607220236,20260722
""".encode()
TABLES = {
    "aws-vms": VMS,
    "aws-instance_quota_mapping": QUOTAS,
    "aws-images": IMAGES,
    "kubernetes-images": PODS_IMAGES,
}
SSM: dict[str, Any] = {
    "version": "0.14.1",
    "endpoint": "http://127.0.0.1:46580",
    "aws": {
        "regions": ["us-west-2"],
        "vpc_name": "private-vpc",
        "security_group_name": "private-sg",
        "use_internal_ips": True,
        "use_ssm": True,
        "remote_identity": "site-nodes",
        "mirror": False,
    },
}
PROXY: dict[str, Any] = {
    "version": "0.14.1",
    "kubernetes": {
        "contexts": ["site"],
        "proxy": "http://proxy-host:3128",
        "no_proxy": ["localhost", "127.0.0.1", "10.0.0.0/8", ".svc", ".cluster.local"],
        "image_pull_secrets": ["site-registry"],
        "mirror": False,
    },
}
CLOSED: dict[str, Any] = {
    "version": "0.13.0",
    "aws": {
        **SSM["aws"],
        "ami": "ami-0123456789abcdef0",
        "mirror": True,
        "apt_mirror": "https://mirror.example.org/ubuntu",
    },
    "kubernetes": {
        "proxy_secret": "site-proxy",
        "cidrs": ["10.96.0.0/12"],
        "api_server": "k8s.example.org",
        "image": IMAGE,
        "mirror": True,
    },
}
CERTIFICATE = "-----BEGIN CERTIFICATE-----\nc2l0ZQ==\n-----END CERTIFICATE-----\n"


def declared(folder: Path, text: str) -> Site:
    """A declaration with one target and the platform."""
    (folder / "haversack.toml").write_text(
        '[site]\nname = "lab"\n[target.server]\nname = "linux-x86_64-glibc2.28-py311"\n'
        f"[platform.skypilot]\n{text}"
    )
    return declaration.parse(folder / "haversack.toml", keys())


def problems(folder: Path, text: str) -> list[Finding]:
    """What the platform says of its declaration."""
    site = declared(folder, text)
    (platform,) = (e for e in site.environments if e.kind == "platform")
    return PLATFORM.validate(platform.settings, site)


@pytest.fixture
def inside(tmp_path: Path) -> Inside:
    """A store with the catalogs, and the ports around it."""
    made = tiny.inside(tmp_path / "store")
    with made.store.exclusive():
        for data in TABLES.values():
            made.store.add(digest_of(data), [data])
    return made


def order(settings: Mapping[str, Any], folder: Path | None = None, /, **asked: Any) -> Order:
    """An order for a snapshot that holds all that SkyPilot needs."""
    files = [
        Artifact("file", f"skypilot-{name}.csv", "1", f"skypilot-{name}.csv", digest_of(data), len(data),
                 "https://x.example/", ("files/any",))
        for name, data in TABLES.items()
    ]  # fmt: skip
    image = Artifact(
        "image", "i", "1", "i.json", digest_of(b"i"), 1, "docker://x", ("images/any",), {"refs": [IMAGE]}
    )
    kinds = {"files": "file", "images": "image", SERVER: "pip", NODES: "pip"}
    environments = tuple(LockedEnvironment(name, ANY.name, kind) for name, kind in sorted(kinds.items()))
    lock = Lock("lab", digest_of(b""), (ANY,), environments, (*files, image))
    snapshot, _ = oci.build(lock, {a.digest: (a.size or 1, a.facts) for a in (*files, image)})
    plain = json.loads(json.dumps(settings))
    origin = origin_of("skypilot", "2026-11", snapshot, lock)
    return Order(plain, snapshot, "2026-11", {}, origin, asked, folder=folder)


# What is declared


AWS = 'version = "0.14.1"\n[platform.skypilot.aws]\nremote_identity = "nodes"\n'
PODS = 'version = "0.14.1"\n[platform.skypilot.kubernetes]\n'


@pytest.mark.parametrize(
    ("text", "subject", "says"),
    [
        ('version = "0.14.1"\n', "", "no cloud"),
        (AWS.replace("0.14.1", "0.10.2") + "use_ssm = true\n", "aws.use_ssm", "0.10.3"),
        (AWS.replace("0.14.1", "0.10.5") + 'vpc_names = ["a"]\n', "aws.vpc_names", "0.11.2"),
        (AWS.replace("0.14.1", "0.12.0") + 'subnet_names = ["a"]\n', "aws.subnet_names", "0.12.1"),
        (AWS.replace("0.14.1", "0.9.3") + "mirror = true\n", "aws.mirror", "0.10.3"),
        (PODS.replace("0.14.1", "0.12.2") + 'apt_mirrors = ["a.example"]\n', "kubernetes.apt_mirrors", "0.12.3"),
        (AWS + 'use_ssm = true\nssh_proxy_command = "ssh -W %h:%p gate"\n', "aws.use_ssm", "ssh_proxy_command"),
        (AWS + 'vpc_name = "a"\nvpc_names = ["b"]\n', "aws.vpc_names", "vpc_name"),
        (AWS + 'ami = "ami-12345678"\n', "aws.ami", "regions"),
        (AWS + 'apt_mirror = "http://127.1/ubuntu"\n', "aws.apt_mirror", "itself"),
        (AWS.replace("0.14.1", "0.10.2") + 'apt_mirror = "http://m/ubuntu"\n', "aws.apt_mirror", "0.10.3"),
        (PODS + 'proxy = "http://proxy-host"\ncidrs = ["10.0.0.0/8"]\n', "kubernetes.proxy", "no port"),
        (PODS + 'proxy = "proxy-host:3128"\ncidrs = ["10.0.0.0/8"]\n', "kubernetes.proxy", "http://HOST:PORT"),
        (PODS + 'proxy = "http://p:99999"\ncidrs = ["10.0.0.0/8"]\n', "kubernetes.proxy", "http://HOST:PORT"),
        (PODS + 'proxy = "http://me:hunter2@p:1"\ncidrs = ["10.0.0.0/8"]\n', "kubernetes.proxy", "proxy_secret"),
        (PODS + 'proxy = "http://p:1"\n', "kubernetes.no_proxy", "API server"),
        (PODS + 'proxy = "http://p:1"\nno_proxy = ["127.0.0.0/8", ".svc"]\n', "kubernetes.no_proxy", "API server"),
        (PODS + 'proxy = "http://p:1"\ncidrs = ["10.0.0.0/80", "10.0.0.0/8"]\n', "kubernetes.no_proxy", "no network"),
        (PODS + 'proxy = "http://127.0.0.1:3128"\ncidrs = ["10.0.0.0/8"]\n', "kubernetes.proxy", "the pod itself"),
        (PODS + 'proxy = "http://127.1:3128"\ncidrs = ["10.0.0.0/8"]\n', "kubernetes.proxy", "the pod itself"),
        (PODS + 'proxy = "http://localhost:3128"\ncidrs = ["10.0.0.0/8"]\n', "kubernetes.proxy", "the pod itself"),
        (PODS + 'proxy = "http://p:0"\ncidrs = ["10.0.0.0/8"]\n', "kubernetes.proxy", "http://HOST:PORT"),
        (PODS + 'proxy = "http://a b:1"\ncidrs = ["10.0.0.0/8"]\n', "kubernetes.proxy", "http://HOST:PORT"),
        (PODS + 'proxy = "http://a\\n-b:1"\ncidrs = ["10.0.0.0/8"]\n', "kubernetes.proxy", "http://HOST:PORT"),
        (PODS + 'proxy = "http://a$(HOSTNAME):1"\ncidrs = ["10.0.0.0/8"]\n', "kubernetes.proxy", "http://HOST:PORT"),
        (PODS + 'proxy = "http://p:1"\nno_proxy = ["8.8.8.8"]\n', "kubernetes.no_proxy", "API server"),
        (PODS + 'proxy = "http://p:1"\nno_proxy = ["0.0.0.0"]\n', "kubernetes.no_proxy", "API server"),
        (PODS + 'proxy = "http://p:1"\napi_server = "127.0.0.1"\n', "kubernetes.api_server", "no host"),
        (PODS + 'proxy = "http://p:1"\napi_server = ":::"\n', "kubernetes.api_server", "no host"),
        (PODS + 'proxy = "http://p:1"\napi_server = "10.0.0.300"\n', "kubernetes.api_server", "no host"),
        (AWS + 'ssh_proxy_command = "ncat --proxy-auth me:hunter2 %h %p"\n', "aws.ssh_proxy_command", "password"),
        (PODS + 'proxy = "http://p:1"\nproxy_secret = "p"\ncidrs = ["10.0.0.0/8"]\n', "kubernetes.proxy_secret", "excludes"),
    ],
)  # fmt: skip
def test_bad_settings_are_found(tmp_path: Path, text: str, subject: str, says: str) -> None:
    """What contradicts itself, or is of another version, blocks; a password is repeated nowhere."""
    found = [finding for finding in problems(tmp_path, text) if finding.blocking]
    (finding,) = (f for f in found if f.subject == f"platform.skypilot.{subject}".rstrip("."))
    assert finding.code == "platform-setting"
    assert says in finding.message + finding.remedy
    assert "hunter2" not in f"{found}"


@pytest.mark.parametrize(
    "text",
    [
        AWS + "use_ssmm = true\n",
        AWS + 'vpc_name = "*"\n',
        AWS + 'apt_mirror = "http://me:x@m/ubuntu"\n',
        AWS + 'regions = ["us"]\n',
        PODS + 'no_proxy = [".svc"]\n',
        PODS + 'proxy = "http://p:1"\nno_proxy = ["a,b"]\n',
        PODS + 'proxy = "http://p:1"\napi_server = "k8s.example.org:6443"\n',
        PODS + 'proxy = "http://p:1"\napi_server = "10.0.0.1:6443"\n',
        PODS + 'image = "skypilot"\n',
        'version = "latest"\n',
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, text: str) -> None:
    """Misspelt keys and values that mean nothing are errors where they stand."""
    with pytest.raises(DeclarationError):
        declared(tmp_path, text)


def test_good_settings_raise_nothing(tmp_path: Path) -> None:
    """All of it together, with the API server named by its host; what is only doubtful is said."""
    text = (
        AWS
        + 'use_ssm = true\n[platform.skypilot.kubernetes]\nproxy = "http://p:1"\napi_server = "k8s.example.org"\n'
    )
    assert problems(tmp_path, text) == []
    for doubtful in (
        AWS.replace('remote_identity = "nodes"', "use_ssm = true"),
        AWS.replace("0.14.1", "0.15.0"),
        PODS.replace("0.14.1", "0.10.5") + "mirror = true\n",
    ):
        (finding,) = problems(tmp_path, doubtful)
        assert not finding.blocking


MORE = [
    ("env PROXY_PASS=hunter2 nc %h %p", True),
    ("PASS=hunter2 nc %h %p", True),
    ("connect -H me:hunter2@h:3128 %h %p", True),
    ("connect-proxy -S me:hunter2@h:1080 %h %p", True),
    ("tsocks -u me -p hunter2 nc %h %p", True),
    ("openssl s_client -pass pass:hunter2 -connect h:443", True),
    ("openssl s_client -passin=pass:hunter2 -connect h:443", True),
    ("API_KEY=hunter2 x", True),
    ("env PROXY_PASS=$SITE nc %h %p", False),
    ("connect -H me@h:3128 %h %p", False),
    ("connect -H h:3128 %h %p", False),
    ("connect -H me:$PASS@h:3128 %h %p", False),
    ("tsocks -u me nc -p 2222 %h %p", False),
    ("openssl s_client -pass env:SITE -connect h:443", False),
    ("openssl s_client -pass file:/run/secret -connect h:443", False),
    ('API_KEY="$(cat /run/key)" x', False),
    ("ssh -S /run/user/1:2@x -W %h:%p gate", False),
]


@pytest.mark.parametrize(("command", "hidden"), [*COMMANDS, *MORE])
def test_passwords_in_commands_are_known(command: str, hidden: bool) -> None:
    """Those that the usual programs take are refused; what the shell or a file gives when it runs is not."""
    assert secrets.in_command(command) is hidden


@pytest.mark.parametrize("base", ["https://127.1:8443", "http://2130706433:8080", "http://[::ffff:127.0.0.1]", "http://0x7f.1", "http://localhost."])  # fmt: skip
def test_every_spelling_of_this_machine_is_found(inside: Inside, base: str) -> None:
    """However loopback is written, as programs read it: nodes do not reach the mirror there."""
    made = PLATFORM.render(order(CLOSED, base_url=base), inside)
    assert [f.code for f in made.findings if f.blocking] == ["client-address"]


@pytest.mark.parametrize("base", ["http://m:0", "http://m:99999", "https://m:", "http://a$(b)", "http://a..b", "http://[::g]"])  # fmt: skip
def test_an_address_that_cannot_be_is_refused(inside: Inside, base: str) -> None:
    """No port 0, none that there is not, and no host that is none."""
    with pytest.raises(UsageError):
        PLATFORM.render(order(CLOSED, base_url=base), inside)


# What is locked


def test_what_it_needs_is_added(tmp_path: Path) -> None:
    """The server for the site's targets, the nodes' runtime for Python 3.10, the catalogs, and the image."""
    text = AWS + f'mirror = true\n[platform.skypilot.kubernetes]\nimage = "{IMAGE}"\n'
    site, _, findings = completed(declared(tmp_path, text))
    wanted = {environment.name: environment for environment in site.environments}
    assert wanted[SERVER].targets == ("server",)
    assert "skypilot[aws,kubernetes]==0.14.1" in wanted[SERVER].settings["lines"]
    assert wanted[NODES].targets == ("linux-x86_64-glibc2.31-py310",)
    assert {"ray[default]==2.9.3", "pydantic-core==2.41.1", "uv"} <= set(wanted[NODES].settings["lines"])
    urls = {item["name"]: item["url"] for item in wanted["files"].settings["items"]}
    assert set(urls) == {f"skypilot-{table}.csv" for table in TABLES if table.startswith("aws")}
    assert urls["skypilot-aws-vms.csv"].endswith("/catalogs/v8/aws/vms.csv")
    assert wanted["images"].settings["items"] == ({"ref": IMAGE},)
    assert findings == []


def test_no_more_is_added_than_is_needed(tmp_path: Path) -> None:
    """Pods behind a proxy need the catalog of pods; a site's own AMI or image none of images; others are asked there."""
    site, _, _ = completed(declared(tmp_path, PODS + 'proxy = "http://p:1"\ncidrs = ["10.0.0.0/8"]\n'))
    assert {e.name for e in site.environments} == {SERVER, "platform.skypilot", "files"}
    (item,) = next(e for e in site.environments if e.name == "files").settings["items"]
    assert item["name"] == "skypilot-kubernetes-images.csv"
    assert item["url"].endswith("/catalogs/v8/kubernetes/images.csv")
    site, _, _ = completed(declared(tmp_path, PODS + f'image = "{IMAGE}"\n'))
    assert "files" not in {e.name for e in site.environments}
    more = 'regions = ["us-west-2"]\nami = "ami-12345678"\n'
    text = AWS.replace("\n", '\ncatalogs = "https://files.example.org/sky/"\n', 1) + more
    site, _, _ = completed(declared(tmp_path, text))
    items = next(e for e in site.environments if e.name == "files").settings["items"]
    assert [item["url"].removeprefix("https://files.example.org/sky/") for item in items] == [
        "v8/aws/instance_quota_mapping.csv",
        "v8/aws/vms.csv",
    ]


# What is rendered


@pytest.mark.parametrize(
    ("name", "settings", "asked"),
    [
        ("ssm", SSM, {}),
        ("proxy", PROXY, {}),
        ("closed", CLOSED, {"base_url": "https://mirror.example.org", "dated": True, "registry": "registry.example.org:5000"}),
    ],
)  # fmt: skip
def test_files_are_the_golden_ones(
    inside: Inside, tmp_path: Path, name: str, settings: dict[str, Any], asked: dict[str, Any]
) -> None:
    """Every file of three kinds of site.  A missing one is written, for a person to look at, and fails."""
    if name == "closed":
        (tmp_path / "ca.pem").write_text(CERTIFICATE)
        asked = {**asked, "ca": str(tmp_path / "ca.pem")}
    made = PLATFORM.render(order(settings, Path("/srv/sky"), **asked), inside)
    assert [finding for finding in made.findings if finding.blocking] == []
    missing = [path for path in made.files if not (GOLDEN / name / path).exists()]
    for path in missing:
        (GOLDEN / name / path).parent.mkdir(parents=True, exist_ok=True)
        (GOLDEN / name / path).write_bytes(made.files[path])
    assert missing == []
    there = {p.relative_to(GOLDEN / name).as_posix(): p for p in (GOLDEN / name).rglob("*") if p.is_file()}
    assert {path: file.read_bytes() for path, file in there.items()} == dict(made.files)


def test_a_server_is_not_told_of_another(inside: Inside, tmp_path: Path) -> None:
    """The server's variables name no endpoint, and take back a client's; those of clients do, and start no server."""
    made = PLATFORM.render(order({**SSM, "endpoint": "https://sky.example.org"}), inside)
    for name in ("env.sh", "client.sh"):
        (tmp_path / name).write_bytes(made.files[name])

    def told(*files: str) -> dict[str, str]:
        script = "; ".join([*(f". ./{file}" for file in files), "env"])
        done = subprocess.run(
            ["sh", "-euc", script],
            capture_output=True,
            text=True,
            check=True,
            cwd=tmp_path,
            env=plain_environ(),
        )
        return {
            n: v for n, _, v in (line.partition("=") for line in done.stdout.splitlines()) if "SKYPILOT" in n
        }

    quiet = {"SKYPILOT_DISABLE_USAGE_COLLECTION": "1"}
    assert told("client.sh", "env.sh") == quiet
    assert told("client.sh") == {
        **quiet,
        "SKYPILOT_API_SERVER_ENDPOINT": "https://sky.example.org",
        "SKYPILOT_DISABLE_LOCAL_API_SERVER": "1",
    }
    without = PLATFORM.render(order({k: v for k, v in SSM.items() if k != "endpoint"}), inside)
    (tmp_path / "client.sh").write_bytes(without.files["client.sh"])
    assert told("client.sh") == quiet


def test_the_server_has_the_proxy_of_pods(inside: Inside, tmp_path: Path) -> None:
    """Six variables with the same NO_PROXY; a URL with a password is in no file, but how to get it is."""

    def told(settings: dict[str, Any], edit: str) -> dict[str, str]:
        made = PLATFORM.render(order(settings, base_url="https://mirror.example.org"), inside)
        (tmp_path / "env.sh").write_bytes(made.files["env.sh"])
        (tmp_path / "kubectl").write_text(
            "#!/bin/sh\n[ \"$5\" = 'jsonpath={.data.proxy}' ] && printf aHR0cDovL21lOnBAcDox\n"
        )
        (tmp_path / "kubectl").chmod(0o755)
        script = f"{edit}; . ./env.sh; env"
        env = {**plain_environ(), "PATH": f"{tmp_path}:/usr/bin:/bin"}
        done = subprocess.run(
            ["sh", "-euc", script], capture_output=True, text=True, check=True, cwd=tmp_path, env=env
        )
        return {
            n: v
            for n, _, v in (line.partition("=") for line in done.stdout.splitlines())
            if "proxy" in n.lower()
        }

    with_url = told(PROXY, ":")
    assert set(with_url) == {*proxies.THROUGH, *proxies.PAST}
    assert {with_url[name] for name in proxies.THROUGH} == {"http://proxy-host:3128"}
    exempt = with_url["NO_PROXY"].split(",")
    assert {*PROXY["kubernetes"]["no_proxy"], *proxies.ALWAYS, "mirror.example.org"} == set(exempt)
    assert set(told(CLOSED, ":")) == set(proxies.PAST)
    read = told(CLOSED, "sed -i -E '/HTTPS?_PROXY|https?_proxy/s/^# //' env.sh")
    assert {read[name] for name in proxies.THROUGH} == {"http://me:p@p:1"}
    assert told({**SSM, "kubernetes": {}}, ":") == {}


def test_every_container_gets_all_six_spellings() -> None:
    """The same value in capitals and in small letters, and a NO_PROXY with all that pods reach."""
    made = config.config(PROXY, None)
    (container,) = made["kubernetes"]["pod_config"]["spec"]["containers"]
    told = {entry["name"]: entry["value"] for entry in container["env"]}
    assert set(told) == {"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"}
    assert all(told[name] == told[name.lower()] for name in told)
    exempt = told["NO_PROXY"].split(",")
    assert set(PROXY["kubernetes"]["no_proxy"]) | set(proxies.ALWAYS) == set(exempt)
    assert len(exempt) == len(set(exempt))
    assert proxies.covers(exempt, "10.96.0.1")
    assert not proxies.covers(exempt, "172.20.0.1")


def test_what_machines_run_first_is_one_line_of_yaml(tmp_path: Path) -> None:
    """SkyPilot pastes it unquoted into cloud-init: read back it is the same text, and writes the very files."""
    mirror = Mirror("m", {}, {f"{tmp_path}/etc/uv.toml": 'url = "https://m/"  # a: b\n'}, None)
    (command,) = machines.commands(mirror)
    assert yaml.load(f"runcmd:\n  - {command}\n".encode(), "x") == {"runcmd": [command]}
    subprocess.run(["sh", "-ec", command], check=True, env=plain_environ())
    assert (tmp_path / "etc" / "uv.toml").read_text() == 'url = "https://m/"  # a: b\n'


def test_apt_asks_the_mirror_and_nobody_else(tmp_path: Path) -> None:
    """The real apt, told by the command as cloud-init runs it: the release's suites, of this mirror; others stay."""
    lists = tmp_path / "etc/apt/sources.list.d"
    lists.mkdir(parents=True)
    (lists / "docker.list").write_text("deb https://download.example jammy stable\n")
    (lists / "ubuntu.sources").write_text(
        "Types: deb\nURIs: http://archive.example\nSuites: jammy\nComponents: main\n"
    )
    command = machines.apt("https://mirror.example.org/ubuntu/", str(tmp_path))
    assert yaml.load(f"runcmd:\n  - {command}\n".encode(), "x") == {"runcmd": [command]}

    def asked(system: str) -> set[str]:
        (tmp_path / "etc/os-release").write_text(f'ID={system}\nVERSION_CODENAME="jammy"\n')
        subprocess.run(["sh", "-ec", command], check=True, env=plain_environ())
        argv = ["apt-get", "update", "--print-uris", "-o", f"Dir::Etc={tmp_path}/etc/apt"]
        done = subprocess.run(argv, capture_output=True, text=True, check=True, env=plain_environ())
        return set(re.findall(r"'(\S+)/InRelease'", done.stdout))

    assert asked("debian") == {"http://archive.example/dists/jammy", "https://download.example/dists/jammy"}
    site = "https://mirror.example.org/ubuntu/dists/jammy"
    assert asked("ubuntu") == {site, f"{site}-updates", f"{site}-security"}
    assert asked("ubuntu") == {site, f"{site}-updates", f"{site}-security"}


def test_docker_keeps_its_runtimes(inside: Inside, tmp_path: Path) -> None:
    """The mirror is added to what the image's own configuration says, once; docker trusts the site's certificate."""
    (tmp_path / "ca.pem").write_text(CERTIFICATE)
    asked = {"base_url": "https://mirror.example.org:8443", "ca": str(tmp_path / "ca.pem")}
    made = PLATFORM.render(order(CLOSED, **asked), inside)
    commands = yaml.load(made.files["config.yaml"], "c")["aws"]["post_provision_runcmd"]
    (text,) = (m[1] for c in commands if (m := re.search(r"echo (\S+) \| base64 -d \| python3 -", c)))
    pasted = "runcmd:\n" + "".join(f"  - {command}\n" for command in commands)
    assert yaml.load(pasted.encode(), "x") == {"runcmd": commands}
    at = "/etc/docker/certs.d/mirror.example.org:8443"
    assert f"mkdir -p {at} && cp /etc/haversack/ca.pem {at}/ca.crt" in commands
    file = tmp_path / "docker" / "daemon.json"
    script = base64.b64decode(text).decode().replace("/etc/docker/daemon.json", str(file))

    def run() -> Any:
        subprocess.run([sys.executable, "-"], input=script, text=True, check=True)
        return json.loads(file.read_text())

    assert run() == {"registry-mirrors": ["https://mirror.example.org:8443"]}
    nvidia = {
        "runtimes": {"nvidia": {"path": "nvidia-container-runtime"}},
        "registry-mirrors": ["https://old.example"],
    }
    file.write_text(json.dumps(nvidia))
    both = {**nvidia, "registry-mirrors": ["https://mirror.example.org:8443", "https://old.example"]}
    assert run() == run() == both


def test_uv_reads_what_machines_are_given(inside: Inside, tmp_path: Path) -> None:
    """The real uv takes `uv.toml` as it is written to a machine."""
    (tmp_path / "ca.pem").write_text(CERTIFICATE)
    asked = {"base_url": "https://mirror.example.org", "ca": str(tmp_path / "ca.pem")}
    made = PLATFORM.render(order(CLOSED, **asked), inside)
    commands = yaml.load(made.files["config.yaml"], "c")["aws"]["post_provision_runcmd"]
    (text,) = (m[1] for c in commands if (m := re.search(r"echo (\S+) \| base64 -d > /etc/uv/uv.toml", c)))
    (tmp_path / "uv.toml").write_bytes(base64.b64decode(text))
    (tmp_path / "empty.txt").touch()
    argv: list[str | Path] = [
        find_uv_bin(),
        "pip",
        "compile",
        "--offline",
        "--config-file",
        tmp_path / "uv.toml",
        tmp_path / "empty.txt",
    ]
    done = subprocess.run(
        argv, capture_output=True, text=True, env={**plain_environ(), "HOME": str(tmp_path)}
    )
    assert done.returncode == 0, done.stderr
    assert "settings" not in done.stderr
    assert "deprecated" not in done.stderr


def test_catalogs_hold_the_regions_and_images_of_the_site(inside: Inside) -> None:
    """Rows of other regions are left out; the site's AMI and image answer to every tag that SkyPilot asks for."""
    made = PLATFORM.render(order(CLOSED, base_url="https://mirror.example.org/m"), inside)
    vms = list(csv.DictReader(made.files["catalogs/v8/aws/vms.csv"].decode().splitlines()))
    assert [row["Region"] for row in vms] == ["us-west-2"]
    machines = list(csv.DictReader(made.files["catalogs/v8/aws/images.csv"].decode().splitlines()))
    assert {row["Tag"]: row["ImageId"] for row in machines} == dict.fromkeys(
        versions.machine_images("0.13.0"), CLOSED["aws"]["ami"]
    )
    pods = list(csv.DictReader(made.files["catalogs/v8/kubernetes/images.csv"].decode().splitlines()))
    assert {row["ImageId"] for row in pods} == {"mirror.example.org/docker.io/site/skypilot:2026-11"}


def test_accelerators_have_the_names_that_machines_have() -> None:
    """Of all regions, each once; a shorter name of what AWS has not stays what it is; without machines there are none."""
    machines = b"InstanceType,AcceleratorName,Region\ng5.x,A10G,a\ng5.x,A10G,b\nm6i.x,,a\np4d.x,A100,b\n"
    made = csv.DictReader(catalogs.accelerators(machines).decode().splitlines())
    found = {row["AcceleratorName"]: row["Clouds"] for row in made}
    assert found == {"A10": "[]", "A100": "['AWS']", "A10G": "['AWS']", "H20": "[]", "L40": "[]"}
    for none in (None, b"InstanceType,Region\nm6i.x,a\n", b"InstanceType,AcceleratorName\nm6i.x,\n"):
        assert catalogs.accelerators(none) == b"AcceleratorName,Clouds\n"


@pytest.mark.parametrize(
    ("version", "known"), [("0.9.3", True), ("0.11.1", True), ("0.14.2", False), ("0.9.2", False)]
)
def test_a_version_that_nobody_looked_into_is_told(version: str, known: bool) -> None:
    """Also one of the newest minor release: it does not block, and says which versions are known."""
    told = [f for f in settings.faults({"version": version, "kubernetes": {}}) if "known here" in f.message]
    assert [f.blocking for f in told] == ([] if known else [False])


def test_a_region_that_no_catalog_knows_is_found(inside: Inside) -> None:
    """Instead of tables without rows there is an error that names it, and what it is written like."""
    aws = {**SSM["aws"], "regions": ["us-west-2", "us-wset-2", "mars"], "mirror": False}
    found = PLATFORM.render(order({**SSM, "aws": aws}), inside).findings
    told = {
        (f.subject, f.blocking, f.message.partition(" ")[0], "us-west-2" in f.remedy)
        for f in found
        if f.blocking
    }
    assert told == {
        ("platform.skypilot.aws.regions", True, "us-wset-2", True),
        ("platform.skypilot.aws.regions", True, "mars", False),
    }
    every = {**SSM["aws"], "regions": ["us-west-2"], "mirror": False}
    assert not [f for f in PLATFORM.render(order({**SSM, "aws": every}), inside).findings if f.blocking]


def test_every_tag_of_a_version_is_known() -> None:
    """The folder of its catalogs and the tags by which it asks for an x86 machine, as each wheel has them."""
    assert {v: versions.catalogs(v) for v in ("0.10.3.post1", "0.10.4", "0.10.5", "0.14.1")} == {
        "0.10.3.post1": "v7", "0.10.4": "v8", "0.10.5": "v8", "0.14.1": "v8",
    }  # fmt: skip
    assert [v for v in ("0.10.3.post2", "0.10.4", "0.11.0") if "pydantic-core==2.41.1" in versions.on_nodes(v)] == [
        "0.10.4", "0.11.0",
    ]  # fmt: skip
    tags = {"custom-cpu-ubuntu", "custom-gpu-ubuntu", "k80-ubuntu-2004", "neuron-ubuntu-2204"}
    assert {tag.removeprefix("skypilot:") for tag in versions.machine_images("0.12.3")} == tags
    assert {tag.removeprefix("skypilot:") for tag in versions.machine_images("0.14.1")} == {
        *tags,
        "custom-gpu-ubuntu-cuda13",
    }


def test_pods_without_an_image_of_the_site_have_skypilots_own(inside: Inside) -> None:
    """The rows of the version alone; of the site's registry where pods have no way out, and then it must be there."""
    way_out = {"version": "0.14.1", "kubernetes": {"mirror": False}}
    made = PLATFORM.render(order(way_out), inside)
    table = made.files["catalogs/v8/kubernetes/images.csv"].decode()
    assert [line.split(",")[0] for line in table.splitlines()[1:]] == [*versions.pod_images("0.14.1")]
    assert f",{OWN}:202607220236," in table
    assert [f.subject for f in made.findings] == ["config.yaml"]
    none = {"version": "0.13.0", "kubernetes": {"mirror": True}}
    made = PLATFORM.render(order(none, base_url="https://mirror.example.org"), inside)
    table = made.files["catalogs/v8/kubernetes/images.csv"].decode()
    assert f",mirror.example.org/{OWN}:202605150216," in table
    assert f",mirror.example.org/{OWN}-gpu:202605150216," in table
    assert {(f.subject, f.blocking) for f in made.findings} == {
        ("config.yaml", False),
        (f"{OWN}:202605150216", False), (f"{OWN}-gpu:202605150216", False),
    }  # fmt: skip
    assert all("declare [[image]]" in f.remedy for f in made.findings if OWN in f.subject)


@pytest.mark.parametrize(
    "page", [b"<html>", b"Tag,Image\na,b\n", b"Tag,ImageId\nskypilot:other,b\n", b"\xff,\n"]
)
def test_a_catalog_of_pods_that_is_none_is_found(page: bytes) -> None:
    """A page, another table, and one without the rows of the version are refused."""
    with pytest.raises(ValueError, match=r"table|columns|row"):
        catalogs.of_pods(page, "0.14.1", None)


def test_a_catalog_that_is_none_is_found(inside: Inside) -> None:
    """A page that was taken for a table blocks, with its name."""
    page = b"<html>sign in</html>"
    with inside.store.exclusive():
        inside.store.add(digest_of(page), [page])
    file = Artifact(
        "file", "v", "1", "skypilot-aws-vms.csv", digest_of(page), len(page), "https://x/", ("files/any",)
    )
    lock = Lock("lab", digest_of(b""), (ANY,), (LockedEnvironment("files", ANY.name, "file"),), (file,))
    snapshot, _ = oci.build(lock, {file.digest: (len(page), {})})
    made = PLATFORM.render(Order(SSM, snapshot, "2026-11", {}, "x"), inside)
    assert any(
        f.subject == "skypilot-aws-vms.csv" and "table" in f.message for f in made.findings if f.blocking
    )


def test_seeding_replaces_nothing_that_somebody_edited(inside: Inside, tmp_path: Path) -> None:
    """The first time and again it is put in place; an edited configuration stays, and the difference is shown."""
    made = PLATFORM.render(order(SSM), inside)
    for path, data in made.files.items():
        (tmp_path / "out" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / path).write_bytes(data)
    home = tmp_path / "home"
    digest = home / ".sky/catalogs/v8/.meta/aws/vms.csv.md5"
    digest.parent.mkdir(parents=True)
    digest.touch()

    def seed() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", tmp_path / "out" / "seed.sh"],
            capture_output=True,
            text=True,
            env={**os.environ, "HOME": str(home)},
        )

    assert seed().returncode == 0
    assert (home / ".sky/config.yaml").read_bytes() == made.files["config.yaml"]
    assert (home / ".sky/catalogs/v8/aws/vms.csv").read_bytes() == made.files["catalogs/v8/aws/vms.csv"]
    assert not digest.exists()
    (tmp_path / "out" / "config.yaml").write_text("allowed_clouds: [aws]\n")
    assert seed().returncode == 0
    (home / ".sky/config.yaml").write_text("# mine\n")
    done = seed()
    assert done.returncode == 1
    assert "-# mine" in done.stderr
    assert (home / ".sky/config.yaml").read_text() == "# mine\n"


def test_seeding_replaces_no_catalog_that_somebody_edited(inside: Inside, tmp_path: Path) -> None:
    """One that SkyPilot fetched, or that was put there before, is replaced; another stays, and so does all else."""
    for path, data in PLATFORM.render(order(SSM), inside).files.items():
        (tmp_path / "out" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / path).write_bytes(data)
    new, held = tmp_path / "out/catalogs/v8/aws/vms.csv", tmp_path / "home/.sky/catalogs/v8/aws/vms.csv"
    config_ = tmp_path / "home/.sky/config.yaml"
    meta = held.parents[1] / ".meta/aws/vms.csv.md5"

    def seed() -> str:
        argv = ["sh", str(tmp_path / "out/seed.sh")]
        env = {**plain_environ(), "HOME": str(tmp_path / "home")}
        done = subprocess.run(argv, capture_output=True, text=True, env=env)
        assert done.returncode == (1 if done.stderr else 0)
        return done.stderr

    held.parent.mkdir(parents=True)
    held.write_text("mine\n")
    assert "-mine" in seed()
    assert (held.read_text(), config_.exists()) == ("mine\n", False)
    meta.parent.mkdir(parents=True)
    # As SkyPilot writes it, without a line's end.
    meta.write_text(hashlib.md5(b"mine\n").hexdigest())
    assert seed() == ""
    assert (held.read_bytes(), meta.exists()) == (new.read_bytes(), False)
    new.write_text("newer\n")
    assert seed() == ""
    held.write_text("newer\nand mine\n")
    assert f"{held} was edited" in seed()
    new.write_bytes(held.read_bytes())
    assert seed() == ""


def test_an_image_is_the_one_that_the_lock_names(inside: Inside) -> None:
    """What a short name leaves out is in the lock, and a digest beside a tag is what crossed under that tag."""
    for said, name in (
        ("docker.io/library/python", "docker.io/library/python:latest"),
        ("docker.io/python:3.11", "docker.io/library/python:3.11"),
        (f"docker.io/site/sky:1@{digest_of(b'x')}", "docker.io/site/sky:1"),
        (f"docker.io/site/sky@{digest_of(b'x')}", f"docker.io/site/sky@{digest_of(b'x')}"),
    ):
        facts = {"refs": [name], "role": "manifest"}
        image = Artifact("image", "x", "1", "x", digest_of(b"x"), 1, "https://x/", ("images/any",), facts)
        images = LockedEnvironment("images", ANY.name, "image")
        snapshot, _ = oci.build(
            Lock("lab", digest_of(b""), (ANY,), (images,), (image,)), {image.digest: (1, {})}
        )
        for pods, crossed in (
            ({"image": said}, True),
            ({"image": "docker.io/site/other:1"}, False),
            ({"image": f"docker.io/site/sky:1@{digest_of(b'another')}"}, False),
        ):
            absent = carried.missing({"version": "0.14.1", "kubernetes": pods}, snapshot)
            assert (pods["image"] not in {f.subject for f in absent}) is crossed


def test_an_image_of_pods_keeps_what_pins_it(inside: Inside) -> None:
    """Pods ask the site's registry for the digest that was declared: a tag may be moved there."""
    pin = f"{IMAGE}@{digest_of(b'i')}"
    pods = {"version": "0.14.1", "kubernetes": {"image": pin}}
    made = PLATFORM.render(order(pods, base_url="https://mirror.example.org"), inside)
    assert [f for f in made.findings if f.blocking] == []
    assert f",mirror.example.org/{pin},".encode() in made.files["catalogs/v8/kubernetes/images.csv"]
    (finding,) = pulls.judge("mirror.example.org", {pin: 401})
    name = IMAGE.rpartition(":")[0]
    assert finding.remedy == f"skopeo inspect docker://mirror.example.org/{name}@{digest_of(b'i')}"


@pytest.mark.parametrize("base", ["http://localhost:8080", "http://127.0.0.1:8080"])
def test_a_registry_that_nodes_cannot_reach_is_found(inside: Inside, base: str) -> None:
    """An image is asked of the host of the base URL, or of the registry: neither may be the node itself."""
    pods = {"version": "0.14.1", "kubernetes": {"image": IMAGE}}

    def told(settings: dict[str, Any], **asked: str) -> list[tuple[str, bool]]:
        made = PLATFORM.render(order(settings, **asked), inside)
        return [(f.subject, f.blocking) for f in made.findings if f.code == "client-address"]

    assert told(pods, base_url=base) == [("--base-url", True)]
    assert told(pods, base_url=base, registry="registry.example.org") == []
    assert told(pods, base_url="https://mirror.example.org", registry="localhost:5000") == [
        ("--registry", True)
    ]
    assert told(pods, base_url="https://mirror.example.org", registry="169.254.0.1:5000") == [
        ("--registry", True)
    ]
    assert told(pods, base_url="https://mirror.example.org/lab") == [("--registry", False)]
    assert told(pods, base_url="https://mirror.example.org/lab", registry="registry.example.org/x") == []
    assert told(PROXY, base_url="https://mirror.example.org/lab", registry="localhost") == []
    found = PLATFORM.preflight(order(pods, base_url=base), inside)
    assert [f.blocking for f in found if f.code == "client-address"] == [True]


def test_certificates_for_pods_behind_a_proxy_are_told(inside: Inside, tmp_path: Path) -> None:
    """Pods trust them alone, also where the proxy leads: those of public hosts may stand beside, and have room."""
    (tmp_path / "ca.pem").write_text(CERTIFICATE * 999)
    pods: dict[str, Any] = {"mirror": True, "proxy": "http://proxy-host:3128", "cidrs": ["10.96.0.0/12"]}
    asked = {"base_url": "https://mirror.example.org", "ca": str(tmp_path / "ca.pem")}

    def told(**kubernetes: Any) -> list[Finding]:
        made = PLATFORM.render(order({"version": "0.14.1", "kubernetes": kubernetes}, **asked), inside)
        return [finding for finding in made.findings if finding.subject == "certificates of --ca"]

    (finding,) = told(**pods)
    assert (finding.code, "/etc/ssl/certs/ca-certificates.crt" in finding.remedy) == (
        "platform-unknown",
        True,
    )
    assert told(mirror=True) == []


@pytest.mark.parametrize(
    ("settings", "asked", "says"),
    [
        (CLOSED, {}, "served"),
        (SSM, {"ca": "x"}, "address"),
        (CLOSED, {"base_url": "https://me:hunter2@mirror.example.org"}, "secret"),
        (CLOSED, {"base_url": "http://mirror.example.org", "ca": "ca.pem"}, "TLS"),
        (CLOSED, {"base_url": "https://mirror.example.org", "ca": "key.pem"}, "private key"),
        (CLOSED, {"base_url": "https://mirror.example.org", "ca": "long.pem"}, "bytes"),
        (CLOSED, {"base_url": "https://mirror.example.org", "ca": "none.pem"}, "cannot be read"),
    ],
)
def test_orders_that_mean_nothing_are_refused(
    inside: Inside, tmp_path: Path, settings: dict[str, Any], asked: dict[str, str], says: str
) -> None:
    """What nodes must be told is asked for; keys, and certificates that no machine has room for, go into no file."""
    for name, text in (
        ("ca", CERTIFICATE),
        ("key", f"{CERTIFICATE}-----BEGIN PRIVATE KEY-----"),
        ("long", CERTIFICATE * 99),
    ):
        (tmp_path / f"{name}.pem").write_text(text)
    if "ca" in asked:
        asked = {**asked, "ca": str(tmp_path / asked["ca"])}
    with pytest.raises((UsageError, NotFoundError)) as caught:
        PLATFORM.render(order(settings, **asked), inside)
    assert says in str(caught.value)
    assert "hunter2" not in f"{caught.value} {caught.value.remedy}"


def test_a_mirror_that_nodes_cannot_reach_is_found(inside: Inside) -> None:
    """An address of this machine alone blocks."""
    made = PLATFORM.render(order(CLOSED, base_url="http://127.0.0.1:8080"), inside)
    assert [f.code for f in made.findings if f.blocking] == ["client-address"]


def test_what_did_not_cross_is_found(inside: Inside) -> None:
    """Catalogs and the image block; the environments may be there by other ways, and are said."""
    snapshot, _ = oci.build(Lock("lab", digest_of(b""), (ANY,), (), ()), {})
    made = PLATFORM.render(Order(CLOSED, snapshot, "x", {}, "x", {"base_url": "https://m.example"}), inside)
    told = {f.subject: f.blocking for f in made.findings if f.code == "platform-unready"}
    assert told == {
        SERVER: False,
        NODES: False,
        "skypilot-aws-vms.csv": True,
        "skypilot-aws-instance_quota_mapping.csv": True,
        IMAGE: True,
    }


# Preflight


ENDPOINTS = ("ssm", "ssmmessages", "ec2", "ec2messages", "sts", "s3")


NO_ENDPOINTS: dict[str, Any] = {"describe-vpc-endpoints": {"VpcEndpoints": []}}
ALL = {"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}], "UserIdGroupPairs": []}
ITSELF = {"IpProtocol": "tcp", "FromPort": 1024, "ToPort": 65535, "UserIdGroupPairs": [{"GroupId": "sg-1"}]}
LOCAL = {"GatewayId": "local", "DestinationCidrBlock": "10.0.0.0/16", "State": "active"}


def route(state: str = "active", to: str = "0.0.0.0/0", **way: str) -> dict[str, Any]:
    """What AWS answers about route tables: the one of the subnet with one more route."""
    key = "DestinationIpv6CidrBlock" if ":" in to else "DestinationCidrBlock"
    table = {"Associations": [{"SubnetId": "subnet-1"}], "Routes": [LOCAL, {**way, key: to, "State": state}]}
    return {"describe-route-tables": {"RouteTables": [table]}}


def attached(name: str, account: str = "aws") -> dict[str, Any]:
    """What AWS answers of a role with one policy: Amazon's own, or an account's."""
    policy = {"PolicyName": name, "PolicyArn": f"arn:aws:iam::{account}:policy/{name}"}
    return {"list-attached-role-policies": {"AttachedPolicies": [policy]}}


def amazon_says(**other: Any) -> dict[str, Any]:
    """What AWS answers of a site where all is as it should be, and what it says otherwise."""
    tag = [{"Key": "Name", "Value": "private-a"}]
    rule = {
        "IpProtocol": "tcp",
        "FromPort": 443,
        "ToPort": 443,
        "IpRanges": [{"CidrIp": "10.0.0.0/16"}],
        "UserIdGroupPairs": [],
    }
    return {
        "describe-vpcs": {"Vpcs": [{"VpcId": "vpc-1"}]},
        "describe-subnets": {"Subnets": [{"SubnetId": "subnet-1", "State": "available", "MapPublicIpOnLaunch": False,
                                          "CidrBlock": "10.0.1.0/24", "Tags": tag}]},
        "describe-route-tables": {"RouteTables": [{"Associations": [{"Main": True}], "Routes": [LOCAL]}]},
        "describe-vpc-endpoints": {"VpcEndpoints": [
            {"ServiceName": f"com.amazonaws.us-west-2.{name}", "State": "available", "PrivateDnsEnabled": True,
             "VpcEndpointType": "Gateway" if name == "s3" else "Interface", "Groups": [{"GroupId": "sg-1"}],
             "SubnetIds": [] if name == "s3" else ["subnet-1"]}
            for name in ENDPOINTS]},
        "describe-security-groups": {"SecurityGroups": [
            {"GroupId": "sg-1", "GroupName": "private-sg", "IpPermissions": [rule, ITSELF],
             "IpPermissionsEgress": [ALL]}]},
        "enableDnsSupport": {"EnableDnsSupport": {"Value": True}},
        "enableDnsHostnames": {"EnableDnsHostnames": {"Value": True}},
        "get-instance-profile": {"InstanceProfile": {"Roles": [{"RoleName": "nodes"}]}},
        **attached(amazon.POLICY),
        "list-role-policies": {"PolicyNames": []},
        **other,
    }  # fmt: skip


def of_amazon(settings: Mapping[str, Any], answers: Mapping[str, Any]) -> list[Finding]:
    """What is found where AWS answers like this."""

    def ask(*words: str) -> Any:
        return answers.get(words[-1], answers.get(words[1]))

    return list(amazon.judge(settings, "us-west-2", amazon.look(settings, ask)))


def test_a_site_that_is_ready_raises_nothing() -> None:
    """All of AWS is as it should be; with a NAT no endpoint is needed."""
    assert of_amazon(SSM["aws"], amazon_says()) == []
    answers = amazon_says(**route(NatGatewayId="nat-1"), **NO_ENDPOINTS)
    assert of_amazon(SSM["aws"], answers) == []


def changed(question: str, key: str, **fields: Any) -> dict[str, Any]:
    """An answer whose things have other fields."""
    return {question: {key: [{**thing, **fields} for thing in amazon_says()[question][key]]}}


ELSEWHERE = {"IpProtocol": "tcp", "FromPort": 443, "ToPort": 443, "IpRanges": [{"CidrIp": "10.9.0.0/16"}]}
UDP = {"IpProtocol": "udp", "FromPort": 443, "ToPort": 443, "IpRanges": [{"CidrIp": "10.0.0.0/16"}]}
SSH = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "10.0.0.0/8"}]}


@pytest.mark.parametrize(
    ("other", "subject", "says"),
    [
        ({"describe-vpcs": {"Vpcs": []}}, "VPC private-vpc", "none of this name"),
        ({"describe-vpcs": {"Vpcs": [{"VpcId": "vpc-1"}, {"VpcId": "vpc-2"}]}}, "VPC private-vpc", "2 VPCs"),
        (changed("describe-subnets", "Subnets", MapPublicIpOnLaunch=True), "VPC", "no subnet"),
        (changed("describe-subnets", "Subnets", State="pending"), "VPC", "no subnet"),
        (route(GatewayId="igw-1"), "VPC", "no subnet"),
        ({**route(NatGatewayId="nat-1", state="blackhole"), **NO_ENDPOINTS}, "endpoint ssm", "other way out"),
        ({**route(NatGatewayId="nat-1", to="10.0.0.0/8"), **NO_ENDPOINTS}, "endpoint ssm", "other way out"),
        ({**route(TransitGatewayId="tgw-1", to="10.0.0.0/8"), **NO_ENDPOINTS}, "endpoint ssm", "other way out"),
        (changed("describe-security-groups", "SecurityGroups", IpPermissions=[UDP]), "endpoint ssm", "443"),
        (changed("describe-vpc-endpoints", "VpcEndpoints", State="pending"), "endpoint ssm", "other way out"),
        (changed("describe-vpc-endpoints", "VpcEndpoints", PrivateDnsEnabled=False), "endpoint ssm", "no name"),
        (changed("describe-security-groups", "SecurityGroups", IpPermissions=[ELSEWHERE]), "endpoint ssm", "443"),
        (changed("describe-security-groups", "SecurityGroups", IpPermissions=[SSH]), "endpoint ssmmessages", "443"),
        (changed("describe-security-groups", "SecurityGroups", GroupName="other"), "private-sg", "no security group"),
        ({"enableDnsHostnames": {"EnableDnsHostnames": {"Value": False}}}, "enableDnsHostnames", "off"),
        ({"get-instance-profile": Refused("An error occurred (NoSuchEntity)")}, "site-nodes", "not in this account"),
        (attached("AmazonEC2FullAccess"), "site-nodes", "no role"),
    ],
)  # fmt: skip
def test_what_will_fail_on_aws_is_found(other: dict[str, Any], subject: str, says: str) -> None:
    """Each thing that keeps machines from starting, or people from reaching them, is a finding with a remedy."""
    found = of_amazon(SSM["aws"], amazon_says(**other))
    (finding,) = [finding for finding in found if finding.subject.endswith(subject)]
    assert (finding.code, says in finding.message) == ("platform-unready", True)
    assert all(finding.remedy for finding in found)


@pytest.mark.parametrize(
    "other",
    [
        {**attached("AmazonEC2FullAccess"), "list-role-policies": {"PolicyNames": ["ours"]}},
        attached("ours", "123456789012"),
        attached("AmazonSSMManagedEC2InstanceDefaultPolicy"),
        {**attached("AmazonEC2FullAccess"), "list-role-policies": Refused("AccessDenied")},
    ],
    ids=["inline", "customer", "wide", "refused"],
)
def test_a_role_with_policies_that_nobody_read_is_unknown(other: dict[str, Any]) -> None:
    """An account's own policy, in the role or beside it, may let Systems Manager in: nobody says that it does not."""
    (finding,) = of_amazon(SSM["aws"], amazon_says(**other))
    assert (finding.code, finding.blocking) == ("platform-unknown", False)


def test_a_way_that_leads_on_is_unknown() -> None:
    """A transit gateway may lead out or not; so may a network of IPv6 alone: nobody says that it is well."""
    for answers in (
        route(TransitGatewayId="tgw-1"),
        route(EgressOnlyInternetGatewayId="eigw-1", to="::/0"),
    ):
        found = of_amazon(SSM["aws"], amazon_says(**answers, **NO_ENDPOINTS))
        assert {finding.code for finding in found} == {"platform-unknown"}
        assert any(finding.subject.endswith("endpoint ssm") for finding in found)


def test_an_endpoint_without_names_is_passed_by() -> None:
    """Where the way leads on, machines go where names lead, and one without takes nothing away."""
    nameless = changed("describe-vpc-endpoints", "VpcEndpoints", PrivateDnsEnabled=False)
    found = of_amazon(SSM["aws"], amazon_says(**route(TransitGatewayId="tgw-1"), **nameless))
    assert {finding.code for finding in found} == {"platform-unknown"}
    (finding,) = [finding for finding in found if finding.subject.endswith("endpoint ssm")]
    assert finding.message.startswith("answers to no name")
    assert "private DNS names" in finding.remedy


@pytest.mark.parametrize(
    ("services", "way", "blocks"),
    [
        ((), "tgw", False),
        (("s3",), "tgw", False),
        (("ec2", "sts"), "tgw", False),
        (ENDPOINTS, "tgw", True),
        ((), "", True),
    ],
)
def test_names_of_hosts_are_wanted_for_endpoints(services: tuple[str, ...], way: str, blocks: bool) -> None:
    """Without the VPC's own names nobody is kept out where none of its endpoints is what machines are reached by."""
    every = amazon_says()["describe-vpc-endpoints"]["VpcEndpoints"]
    there = [e for e in every if e["ServiceName"].rpartition(".")[2] in services]
    answers = {
        **(route(TransitGatewayId="tgw-1") if way else {}),
        "describe-vpc-endpoints": {"VpcEndpoints": there},
        "enableDnsHostnames": {"EnableDnsHostnames": {"Value": False}},
    }
    found = of_amazon(SSM["aws"], amazon_says(**answers))
    (finding,) = [finding for finding in found if finding.subject.endswith("enableDnsHostnames")]
    assert (finding.code, finding.blocking) == (
        "platform-unready" if blocks else "platform-unknown",
        blocks,
    )


def test_every_vpc_is_looked_at() -> None:
    """Of several each is told by its name; SkyPilot goes on to the next, and what that lacks blocks nothing."""
    several = {key: value for key, value in SSM["aws"].items() if key != "vpc_name"}
    several["vpc_names"] = ["one", "two"]

    def of(*vpcs: str) -> list[Finding]:
        def ask(*words: str) -> Any:
            answers = amazon_says()
            if words[1] == "describe-vpcs":
                (name,) = json.loads(words[-1])[0]["Values"]
                return {"Vpcs": [{"VpcId": f"vpc-{name}"}]}
            lacks = any(f"vpc-{name}" in word for name in vpcs for word in words)
            answers |= NO_ENDPOINTS if lacks else {}
            return answers.get(words[-1], answers.get(words[1]))

        return list(amazon.judge(several, "us-west-2", amazon.look(several, ask)))

    assert of() == []
    blocking = {f.subject for f in of("one") if f.blocking}
    assert blocking == {"us-west-2: one: endpoint ssm", "us-west-2: one: endpoint ssmmessages"}
    found = of("two")
    assert "us-west-2: two: endpoint ssm" in {f.subject for f in found}
    assert not any(f.blocking for f in found)


def test_an_endpoint_open_to_groups_alone_is_unknown() -> None:
    """Whether machines are in another group is not known; in their own group they are."""
    rule = {"IpProtocol": "tcp", "FromPort": 443, "ToPort": 443, "UserIdGroupPairs": [{"GroupId": "sg-9"}]}
    endpoints = changed("describe-security-groups", "SecurityGroups", IpPermissions=[rule, ITSELF])
    found = of_amazon(SSM["aws"], amazon_says(**endpoints))
    assert {(finding.code, "other groups" in finding.message) for finding in found} == {
        ("platform-unknown", True)
    }
    (group,) = endpoints["describe-security-groups"]["SecurityGroups"]
    machines = {
        "GroupId": "sg-9",
        "GroupName": "private-sg",
        "IpPermissions": [{**ITSELF, "UserIdGroupPairs": [{"GroupId": "sg-9"}]}],
        "IpPermissionsEgress": [ALL],
    }
    both = {"describe-security-groups": {"SecurityGroups": [{**group, "GroupName": "endpoints"}, machines]}}
    assert of_amazon(SSM["aws"], amazon_says(**both)) == []


def test_systems_manager_is_looked_at_where_it_is_implied(tmp_path: Path) -> None:
    """With private addresses and nothing else SkyPilot takes it, from the first version that has it."""
    implied = {key: value for key, value in SSM["aws"].items() if key != "use_ssm"}
    found = of_amazon(implied, amazon_says(**NO_ENDPOINTS))
    assert [f.subject for f in found if f.blocking] == [
        "us-west-2: endpoint ssm", "us-west-2: endpoint ssmmessages",
    ]  # fmt: skip
    assert of_amazon({**implied, "ssh_proxy_command": "x"}, amazon_says(**NO_ENDPOINTS)) == []
    assert of_amazon({**implied, "use_ssm": False}, amazon_says(**NO_ENDPOINTS)) == []
    text = AWS.replace('remote_identity = "nodes"', "use_internal_ips = true")
    (finding,) = problems(tmp_path, text)
    assert "AmazonSSMManagedInstanceCore" in finding.message
    assert problems(tmp_path, text.replace("0.14.1", "0.10.2")) == []


@pytest.mark.parametrize("word", amazon.WORDS)
def test_a_word_is_no_instance_profile(tmp_path: Path, word: str) -> None:
    """With SkyPilot's own words machines get the profile that it makes, and nobody looks for one of that name."""
    asked = []

    def ask(*words: str) -> Any:
        asked.append(words)
        return amazon_says().get(words[-1], amazon_says().get(words[1]))

    amazon.look({**SSM["aws"], "remote_identity": word}, ask)
    assert ("iam", "get-instance-profile", "--instance-profile-name", "skypilot-v1") in asked
    (finding,) = problems(tmp_path, AWS.replace('"nodes"', f'"{word}"') + "use_ssm = true\n")
    assert finding.subject == "platform.skypilot.aws.remote_identity"


def test_a_comma_in_a_name_begins_no_other() -> None:
    """The name of a VPC is asked for whole, in the form that has no commas of its own."""
    asked = []

    def ask(*words: str) -> Refused:
        asked.append(words)
        return Refused("no")

    amazon.look({"vpc_name": 'a,"b'}, ask)
    (filters,) = (words[-1] for words in asked if words[1] == "describe-vpcs")
    assert json.loads(filters) == [{"Name": "tag:Name", "Values": ['a,"b']}]


@pytest.mark.parametrize("question", [name for name in amazon_says() if name != "list-role-policies"])
def test_what_aws_does_not_tell_is_unknown(question: str) -> None:
    """A question that may not be asked is never taken for a good answer, nor for a bad one."""
    found = of_amazon(SSM["aws"], amazon_says(**{question: Refused("An error occurred (AccessDenied)")}))
    assert found
    assert {finding.code for finding in found} == {"platform-unknown"}
    assert all("AccessDenied" in finding.message for finding in found)


def test_the_role_that_skypilot_makes_is_found() -> None:
    """Without an instance profile of the site's, nobody would get to the machines; without Systems Manager they would."""
    settings = {key: value for key, value in SSM["aws"].items() if key != "remote_identity"}
    answers = amazon_says(**{"get-instance-profile": Refused("An error occurred (NoSuchEntity)")})
    (finding,) = of_amazon(settings, answers)
    assert (finding.blocking, "without AmazonSSM" in finding.message) == (True, True)
    assert of_amazon({**settings, "use_ssm": False}, answers) == []
    (finding,) = of_amazon({"ssh_proxy_command": "x", "remote_identity": "nodes"}, answers | amazon_says())
    assert finding.code == "platform-unknown"


def test_subnets_are_found_by_their_names() -> None:
    """Those that are named are looked at, and no others."""
    assert of_amazon({**SSM["aws"], "subnet_names": ["private-a"]}, amazon_says()) == []
    (finding,) = of_amazon({**SSM["aws"], "subnet_names": ["private-b"]}, amazon_says())
    assert (finding.subject.endswith("subnet private-b"), finding.blocking) == (True, True)
    # SkyPilot takes those that it finds.
    both = {**SSM["aws"], "subnet_names": ["private-a", "private-b"]}
    (finding,) = of_amazon(both, amazon_says())
    assert (finding.subject.endswith("subnet private-b"), finding.blocking) == (True, False)


PRIVATE = amazon_says()["describe-subnets"]["Subnets"][0]
OTHER = {
    **PRIVATE,
    "SubnetId": "subnet-2",
    "CidrBlock": "10.0.9.0/24",
    "Tags": [{"Key": "Name", "Value": "b"}],
}
OPEN = {
    "Associations": [{"SubnetId": "subnet-2"}],
    "Routes": [LOCAL, {"GatewayId": "igw-1", "DestinationCidrBlock": "0.0.0.0/0", "State": "active"}],
}
TWO: dict[str, Any] = {
    "describe-subnets": {"Subnets": [PRIVATE, OTHER]},
    "describe-route-tables": {"RouteTables": [{"Associations": [{"Main": True}], "Routes": [LOCAL]}, OPEN]},
}


def test_only_the_subnets_that_skypilot_takes_count() -> None:
    """Without `use_internal_ips` it takes public ones alone: none there blocks, and an isolated one beside does not."""
    public = {key: value for key, value in SSM["aws"].items() if key != "use_internal_ips"}
    (finding,) = of_amazon(public, amazon_says())
    assert (finding.subject, finding.blocking) == ("us-west-2: VPC", True)
    assert "use_internal_ips = true" in finding.remedy
    assert of_amazon(public, amazon_says(**TWO, **NO_ENDPOINTS)) == []
    assert of_amazon(SSM["aws"], amazon_says(**TWO)) == []


def test_subnets_that_are_named_are_taken_all_or_none() -> None:
    """A public one among them, or one of that name in another VPC of the region, and SkyPilot launches nothing."""
    named = {**SSM["aws"], "subnet_names": ["private-a", "b"]}
    (finding,) = of_amazon(named, amazon_says(**TWO))
    assert (finding.subject, finding.blocking) == ("us-west-2: subnet b (subnet-2)", True)
    closed = amazon_says(**{"describe-subnets": TWO["describe-subnets"]})
    assert of_amazon(named, closed) == []
    asked = json.dumps([{"Name": "tag:Name", "Values": ["private-a", "b"]}])
    elsewhere = {asked: {"Subnets": [PRIVATE, OTHER, {**OTHER, "SubnetId": "subnet-3", "VpcId": "vpc-2"}]}}
    (finding,) = of_amazon(named, closed | elsewhere)
    assert (finding.subject, finding.blocking, "subnet-3" in finding.message) == (
        "us-west-2: subnet b",
        True,
        True,
    )
    (finding,) = of_amazon(named, closed | {asked: Refused("AccessDenied")})
    assert finding.code == "platform-unknown"


@pytest.mark.parametrize("service", ["ssm", "s3"])
def test_one_endpoint_that_is_well_is_enough(service: str) -> None:
    """A second one of the same service, without the names that machines know, takes nothing away."""
    endpoints = amazon_says()["describe-vpc-endpoints"]["VpcEndpoints"]
    second = {
        **endpoints[0],
        "ServiceName": f"com.amazonaws.us-west-2.{service}",
        "PrivateDnsEnabled": False,
        "Groups": [],
    }
    for order_ in ([*endpoints, second], [second, *endpoints]):
        assert (
            of_amazon(SSM["aws"], amazon_says(**{"describe-vpc-endpoints": {"VpcEndpoints": order_}})) == []
        )
    alone = [e for e in endpoints if not e["ServiceName"].endswith(f".{service}")]
    found = of_amazon(
        SSM["aws"], amazon_says(**{"describe-vpc-endpoints": {"VpcEndpoints": [*alone, second]}})
    )
    assert {f.blocking for f in found} == {service == "ssm"}


def test_names_are_looked_at_where_there_is_a_way_out_too() -> None:
    """Without Amazon's DNS machines behind a NAT find no name, unless another server is named to them."""
    off = {"enableDnsSupport": {"EnableDnsSupport": {"Value": False}}}
    (finding,) = of_amazon(SSM["aws"], amazon_says(**route(NatGatewayId="nat-1"), **off))
    assert (finding.subject, finding.code) == ("us-west-2: enableDnsSupport", "platform-unknown")


def test_a_group_that_lets_nobody_out_is_found() -> None:
    """Its rules outward count too: SkyPilot adds none to a group that it finds."""

    def told(*rules: Mapping[str, Any]) -> list[tuple[str, str]]:
        answers = amazon_says(
            **changed("describe-security-groups", "SecurityGroups", IpPermissionsEgress=rules)
        )
        return [(finding.subject, finding.code) for finding in of_amazon(SSM["aws"], answers)]

    near = {**UDP, "IpProtocol": "tcp"}
    group = {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": "sg-1"}]}
    assert told() == told(SSH) == told(UDP) == [("us-west-2: private-sg", "platform-unready")]
    assert told(near) == told(group) == told(ALL) == []
    assert told(ELSEWHERE) == [("us-west-2: private-sg", "platform-unknown")]
    nat = amazon_says(
        **route(NatGatewayId="nat-1"),
        **changed("describe-security-groups", "SecurityGroups", IpPermissionsEgress=[near]),
    )
    assert [finding.code for finding in of_amazon(SSM["aws"], nat)] == ["platform-unknown"]


def test_what_a_group_lets_in_is_found() -> None:
    """SkyPilot adds its rules to a group without any, and to no other: nodes of a cluster must reach each other."""

    def told(*rules: Mapping[str, Any], **settings: Any) -> list[Finding]:
        answers = changed("describe-security-groups", "SecurityGroups", IpPermissions=rules)
        nat = route(NatGatewayId="nat-1")
        return of_amazon({**SSM["aws"], **settings}, amazon_says(**nat, **answers))

    near = {**ITSELF, "UserIdGroupPairs": [], "IpRanges": [{"CidrIp": "10.0.0.0/16"}]}
    assert told(ITSELF) == told(near) == told(ALL) == told(SSH, near) == []
    other = {**ITSELF, "UserIdGroupPairs": [{"GroupId": "sg-9"}]}
    for rules in ([SSH], [other], [UDP], [{**near, "IpRanges": ELSEWHERE["IpRanges"]}]):
        (finding,) = told(*rules)
        assert (finding.subject, finding.code, finding.blocking) == (
            "us-west-2: private-sg",
            "platform-unready",
            False,
        )
        assert "6380" in finding.message
    (finding,) = told({**other, "PrefixListIds": [{"PrefixListId": "pl-1"}]})
    assert finding.code == "platform-unknown"
    (finding,) = told()
    assert (finding.blocking, "everywhere at port 22" in finding.message) == (False, True)
    assert "port 22" not in finding.remedy
    (finding,) = told(use_ssm=False)
    assert "port 22" in finding.remedy


def of_cluster(settings: Mapping[str, Any], answers: Mapping[str, Any]) -> list[Finding]:
    """What is found where kubectl answers like this."""

    def ask(*words: str) -> str | Refused:
        said = next(
            (answer for key, answer in answers.items() if key in " ".join(words)), Refused("no answer")
        )
        return said if isinstance(said, str | Refused) else json.dumps(said)

    exempt = config.exempt(settings, None)
    return list(cluster.judge(settings, exempt, cluster.look(settings, ask)))


def test_what_will_fail_in_a_cluster_is_found() -> None:
    """Contexts, secrets, and an API server that pods would ask the proxy for."""
    settings = PROXY["kubernetes"]
    good = {
        "get-contexts": "site\nother\n",
        "get service kubernetes": {"spec": {"clusterIP": "10.96.0.1"}},
        "get secret site-registry": "secret/site-registry\n",
        "config view --minify": {"clusters": [{"cluster": {"server": "https://10.9.0.1:6443"}}]},
    }
    assert of_cluster(settings, good) == []
    far = {**good, "get service kubernetes": {"spec": {"clusterIP": "172.20.0.1"}}}
    (finding,) = of_cluster(settings, far)
    assert "172.20.0.1, which NO_PROXY does not hold" in finding.message
    named = {"clusters": [{"cluster": {"server": "https://k8s.example.org:6443"}}]}
    (finding,) = of_cluster(settings, {**good, "config view --minify": named})
    assert (finding.code, "k8s.example.org here" in finding.message) == ("platform-unknown", True)
    for entry in ("k8s.example.org", ".example.org"):
        exempt = {**settings, "no_proxy": [*settings["no_proxy"], entry]}
        assert of_cluster(exempt, {**good, "config view --minify": named}) == []
    gone = {
        **good,
        "get secret site-registry": Refused(
            'Error from server (NotFound): secrets "site-registry" not found'
        ),
    }
    assert [(f.code, f.subject) for f in of_cluster(settings, gone)] == [
        ("platform-unready", "site: secret site-registry")
    ]
    (finding,) = of_cluster(settings, {**good, "get-contexts": "other\n"})
    assert (finding.code, finding.subject) == ("platform-unready", "context site")
    (finding,) = of_cluster(settings, {})
    assert finding.code == "platform-unknown"
    mine = {key: value for key, value in settings.items() if key != "contexts"}
    assert of_cluster(mine, {**good, "current-context": "other\n"}) == []
    (finding,) = of_cluster(mine, good)
    assert finding.subject == "contexts"


NOT_FOUND = Refused('Error from server (NotFound): "x" not found')


def test_what_pods_are_told_to_use_is_asked_for() -> None:
    """A service account that is not there blocks; whether pods mount certificates is not known here."""
    settings = {"contexts": ["site"], "mirror": True, "remote_identity": "jobs"}
    good = {
        "get-contexts": "site\n",
        "get service kubernetes": {"spec": {"clusterIP": "10.96.0.1"}},
        "get serviceaccount jobs": "serviceaccount/jobs\n",
        "get configmap haversack": "configmap/haversack\n",
        "config view --minify": {"clusters": []},
    }
    assert of_cluster(settings, good) == []
    (finding,) = of_cluster(settings, {**good, "get serviceaccount jobs": NOT_FOUND})
    assert (finding.subject, finding.blocking) == ("site: service account jobs", True)
    (finding,) = of_cluster(settings, {**good, "get configmap haversack": NOT_FOUND})
    assert (finding.subject, finding.code) == ("site: ConfigMap haversack", "platform-unknown")


@pytest.mark.parametrize("context", ["2026", "my site", "null", "[1]"])
@pytest.mark.parametrize("before", ["", "logging in ...\n"])
def test_what_kubectl_says_is_taken_as_it_stands(
    tmp_path: Path, inside: Inside, context: str, before: str
) -> None:
    """A context may be called like a number or have a blank, and a program may write a line before its answer."""
    stub = tmp_path / "bin" / "kubectl"
    stub.parent.mkdir()
    says = {
        "config get-contexts": context,
        "config current-context": context,
        "get service": json.dumps({"spec": {"clusterIP": "10.96.0.1"}}, indent=1),
        "config view": json.dumps({"clusters": None}),
    }
    lines = "".join(f"*'{words}'*) echo '{said}';;\n" for words, said in says.items())
    stub.write_text(f"#!/bin/sh\nprintf '{before}'\ncase \"$*\" in\n{lines}*) exit 1;;\nesac\n")
    stub.chmod(0o755)
    settings = {
        key: value
        for key, value in PROXY["kubernetes"].items()
        if key not in {"contexts", "image_pull_secrets"}
    }
    seen = cluster.look(settings, lambda *words: asking.say(inside.run, [str(stub), *words]))
    assert seen["contexts"] == {context: {"service": "10.96.0.1", "its address": []}}
    assert list(cluster.judge(settings, config.exempt(settings, None), seen)) == []
    seen = cluster.look(settings, lambda *words: words[-1] if "json" in words else context)
    assert {f.code for f in cluster.judge(settings, (), seen)} == {"platform-unknown"}


def answers(program: str) -> bool:
    """Whether SkyPilot would find one of the programs by which it forwards ports."""
    word = {"socat": "-V", "nc": "-h"}[program]
    return (
        shutil.which(program) is not None
        and not subprocess.run([program, word], capture_output=True).returncode
    )


def test_a_server_finds_the_programs_that_were_installed_with_it(inside: Inside, tmp_path: Path) -> None:
    """Its `aws` stands in the environment: the variables put that folder first, and the doctor asks that one."""
    prefix, ref = tmp_path / "opt sky", f"{SERVER}/server"
    (prefix / "bin").mkdir(parents=True)
    for name, does in (("python", "exit 1"), ("aws", 'echo "$@" >> "$0.asked"; exit 1')):
        (prefix / "bin" / name).write_text(f"#!/bin/sh\n{does}\n")
        (prefix / "bin" / name).chmod(0o755)
    marker = prefixes.Marker(ref, digest_of(b""), digest_of(b""))
    (prefix / prefixes.MARKER).write_bytes(prefixes.write(marker))
    before = PLATFORM.render(order(SSM), inside).files["env.sh"].decode()
    assert "first on PATH: it was not installed" in before
    details = {"ref": ref, "prefix": str(prefix), "snapshot": digest_of(b"")}
    with inside.store.exclusive():
        inside.ledger.append("install", digest_of(b""), details)
    made = PLATFORM.render(order(SSM), inside)
    for name in ("env.sh", "client.sh"):
        (tmp_path / name).write_bytes(made.files[name])
        argv = ["sh", "-euc", f". ./{name}; command -v aws"]
        done = subprocess.run(argv, capture_output=True, text=True, cwd=tmp_path, env=plain_environ())
        assert done.stdout == f"{prefix}/bin/aws\n", name
    PLATFORM.preflight(order(SSM), inside)
    asked = (prefix / "bin" / "aws.asked").read_text().splitlines()
    # The host of the region, which an endpoint of a VPC serves.
    assert asked[0].startswith("sts get-caller-identity --region us-west-2 ")


def test_preflight_asks_the_real_programs(
    inside: Inside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without credentials and a cluster everything is unknown or not ready, and nothing is said to be well."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "KUBE"))]:
        monkeypatch.delenv(name)
    # Nothing of who runs this, and no question to the machine of a cloud.
    for name, value in {
        **plain_environ(),
        "AWS_EC2_METADATA_DISABLED": "true",
        "HOME": str(tmp_path),
    }.items():
        monkeypatch.setenv(name, value)
    found = PLATFORM.preflight(order({**SSM, **PROXY}), inside)
    told = {(finding.code, finding.subject) for finding in found}
    assert ("platform-unready", "session-manager-plugin") in told
    # As SkyPilot asks them: there is an nc that knows no -h.
    lacking = {program for program in ("socat", "nc") if not answers(program)}
    assert lacking == {subject for _, subject in told} & {"socat", "nc"}
    assert ("platform-unknown", "nodes") in told
    assert ("platform-unknown", "AWS") in told
    assert all(finding.remedy for finding in found)


def test_images_of_pods_are_asked_of_the_real_registry(inside: Inside, tmp_path: Path) -> None:
    """One that it has is well by whatever way it came; one that it has not will be missed; a login leaves it open."""
    none = {"version": "0.14.1", "kubernetes": {"mirror": True}}
    layout = Layout(tmp_path / "layout")
    layout.image("pods:1", {"etc/a": b"a"})

    def found(settings: dict[str, Any], **asked: str) -> dict[str, tuple[str, bool]]:
        told = PLATFORM.preflight(order(settings, **asked), inside)
        return {
            f.subject: (f.code, f.blocking)
            for f in told
            if "skypilot" in f.subject or f.subject == "images of pods"
        }

    with RealRegistry(tmp_path / "registry") as registry:
        registry.load(layout, "pods:1", f"{OWN}:202607220236")
        at = f"image {registry.host}/{OWN}"
        assert found(none, base_url=registry.url) == {
            f"{at}-gpu:202607220236": ("platform-unready", True),
            f"{OWN}-gpu:202607220236": ("platform-unready", False),
        }
        away = found({"version": "0.14.1", "kubernetes": {"image": IMAGE}}, registry=registry.host)
        # It speaks no TLS.
        assert away == {f"image {registry.host}/{IMAGE}": ("platform-unknown", False)}
    with RealRegistry(tmp_path / "other", login=("me", "x")) as registry:
        told = found({"version": "0.14.1", "kubernetes": {"image": IMAGE}}, base_url=registry.url)
        assert told == {f"image {registry.host}/{IMAGE}": ("platform-unknown", False)}
    told = found(none)
    assert told["images of pods"] == ("platform-unknown", False)
