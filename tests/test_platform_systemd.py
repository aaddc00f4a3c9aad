"""Services of a machine with systemd: what is declared, what is rendered, and what is put in place.

What the services do once they run is in ``test_systemd_real.py``.
"""

from __future__ import annotations

import base64
import json
import os
import re
import socket
import stat
import subprocess
import tempfile
import time
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from haversack.errors import DeclarationError, UsageError
from haversack.formats import declaration, oci
from haversack.formats.canonical import canonical
from haversack.kinds import keys
from haversack.model.artifact import Artifact, digest_of
from haversack.model.finding import Finding
from haversack.model.lock import Lock, LockedEnvironment, merge_artifacts
from haversack.model.site import Site
from haversack.model.target import ANY, Target
from haversack.platforms import Order
from haversack.platforms.systemd import PLATFORM, SERVICES, completed, joined, refused, valued
from haversack.ports import Completed, Inside
from haversack.ports.machine import base_python, probe
from haversack.ports.media import FolderWriter
from haversack.ports.run import Programs
from haversack.services import machine, sockets
from haversack.services.belongings import foreign, unreadable
from haversack.services.declared import is_hidden
from haversack.skypilot import proxies
from haversack.verbs import pack
from tests.support import tiny
from tests.support.site import plain_environ
from tests.support.wheels import make_wheel

ROOT = Path(__file__).parent.parent
GOLDEN = Path(__file__).parent / "golden" / "systemd"
PROGRAMS = ROOT / "src" / "haversack" / "data" / "skypilot"
ORIGIN = "Written by haversack render systemd, of snapshot 2026-11."
HEAD = '[site]\nname = "lab"\n[target.server]\nname = "linux-x86_64-glibc2.28-py311"\n'
SKY = '[platform.skypilot]\nversion = "0.14.1"\n[platform.skypilot.aws]\nregions = ["us-west-2"]\nremote_identity = "n"\n'
OURS = '[platform.systemd.skypilot]\npackage = "/opt/skypilot"\n'
MIRROR = '[platform.systemd.haversack]\npackage = "/opt/haversack"\n'
CERTIFICATE = "-----BEGIN CERTIFICATE-----\nc2l0ZQ==\n-----END CERTIFICATE-----\n"
TABLES = {
    "images": b"Tag,Region\na,us-west-2\n",
    "instance_quota_mapping": b"InstanceType,Code\nm6i.large,L-1\n",
}
VMS = b"InstanceType,Price,Region\nm6i.large,0.1,us-west-2\nm6i.large,0.2,eu-west-1\n"
TABLES["vms"] = VMS

EVERYTHING: dict[str, Any] = {
    "skypilot": {
        "enable": True,
        "package": "/srv/skypilot",
        "user": "sky",
        "group": "sky",
        "stateDir": "/srv/sky/state",
        "configDir": "/srv/sky/config",
        "logsDir": "/srv/sky/logs",
        "logsKeepDays": 7,
        "cacheDir": "/srv/sky/cache",
        "config": {"allowed_clouds": ["aws"], "aws": {"vpc_name": "private-vpc", "use_internal_ips": True}},
        "cloudCredentials": {"aws": "/run/secrets/aws", "gcp": "/run/secrets/gcp.json", "azure": "/run/secrets/az"},
        "extraEnvironment": "# the site's\nexport AWS_PROFILE=skypilot\n",
        "mirror": "https://mirror.site.example",
        "caFile": "/etc/ssl/site-ca.pem",
        "proxy": "http://proxy.site.example:3128",
        "noProxy": "127.0.0.1,::1,10.0.0.0/8",
        "catalogs": "/etc/skypilot/catalogs",
        "administrators": ["alice", "bob"],
        "webUI": {"host": "::1", "port": 18080, "openFirewall": True},
        "cluster": {
            "refreshMinutes": 2, "autoStop": 60,
            "defaultInstanceType": "m5.large", "defaultRegion": "us-west-2",
        },
        "monitoring": {"enable": True, "metricsPort": 19090, "logLevel": "DEBUG"},
    },
    "haversack": {
        "enable": True,
        "package": "/opt/haversack",
        "store": "/srv/store",
        "host": "0.0.0.0",
        "tls": {"certificate": "/etc/ssl/mirror.pem", "key": "/run/secrets/mirror.key"},
        "auth": "/run/secrets/users.toml",
        "metrics": {"port": 9091},
        "openFirewall": True,
    },
}  # fmt: skip
MINIMAL: dict[str, Any] = {"skypilot": {"enable": True}}
BASE: dict[str, Any] = {
    "version": "0.14.1",
    "aws": {"regions": ["us-west-2"], "vpc_name": "private-vpc", "use_internal_ips": True, "mirror": True},
}
SITE: dict[str, Any] = {
    "skypilot": {"enable": True, "config": {"aws": {"vpc_name": "other-vpc", "labels": {"team": "ml"}}}}
}


def declared(folder: Path, text: str) -> Site:
    """A declaration with one target and these tables."""
    (folder / "haversack.toml").write_text(HEAD + text)
    return declaration.parse(folder / "haversack.toml", keys())


def problems(folder: Path, text: str) -> list[Finding]:
    """What the platform says of its declaration."""
    site = declared(folder, text)
    (platform,) = (e for e in site.environments if e.name == "platform.systemd")
    return PLATFORM.validate(platform.settings, site)


@pytest.fixture
def inside(tmp_path: Path) -> Inside:
    """A store with a catalog, and the ports around it."""
    made = tiny.inside(tmp_path / "store")
    with made.store.exclusive():
        for data in TABLES.values():
            made.store.add(digest_of(data), [data])
    return made


def order(settings: Mapping[str, Any], base: Mapping[str, Any] | None = None, /, **asked: Any) -> Order:
    """An order for a snapshot that holds the platform, and ``[platform.skypilot]`` where there is a base."""
    files = tuple(
        Artifact(*("file", name, "1", name, digest_of(data), len(data), "https://x.example/", ("files/any",)))
        for name, data in ((f"skypilot-aws-{table}.csv", data) for table, data in TABLES.items())
    )
    environments = [LockedEnvironment("platform.systemd", ANY.name, "platform", settings=settings)]
    if base is not None:
        environments += [
            LockedEnvironment("files", ANY.name, "file"),
            LockedEnvironment("platform.skypilot", ANY.name, "platform", settings=base),
            LockedEnvironment("skypilot", ANY.name, "pip"),
            LockedEnvironment("skypilot-nodes", ANY.name, "pip"),
        ]
    artifacts = files if base is not None else ()
    lock = Lock("lab", digest_of(b""), (ANY,), tuple(sorted(environments, key=lambda e: e.name)), artifacts)
    snapshot, _ = oci.build(lock, {a.digest: (a.size or 1, a.facts) for a in artifacts})
    return Order(json.loads(canonical(settings)), snapshot, "2026-11", {}, ORIGIN, asked)


# What is declared


@pytest.mark.parametrize(
    ("text", "where", "says"),
    [
        (OURS + "[platform.systemd.skypilot.webUI]\nport = \"8080\"\n", "skypilot.webUI.port", "an integer"),
        (OURS + "[platform.systemd.skypilot.webUI]\nport = 0\n", "skypilot.webUI.port", "from 1 to 65535"),
        (OURS + "[platform.systemd.skypilot.webUI]\nport = 65536\n", "skypilot.webUI.port", "from 1 to 65535"),
        (OURS + "[platform.systemd.skypilot.webUI]\nport = true\n", "skypilot.webUI.port", "an integer"),
        (OURS + "[platform.systemd.skypilot.webUI]\nprot = 1\n", "skypilot.webUI.prot", "did you mean port?"),
        (OURS + '[platform.systemd.skypilot.webUI]\nhost = "sky.example.org"\n', "skypilot.webUI.host", "127.0.0.1"),
        (OURS + "[platform.systemd.skypilot.cluster]\nautoStop = 0\n", "skypilot.cluster.autoStop", "from 1"),
        (OURS + '[platform.systemd.skypilot.cluster]\nautoStop = "1h"\n', "skypilot.cluster.autoStop", "integer"),
        (OURS + "web_ui = 1\n", "skypilot.web_ui", "unknown key"),
        (OURS + 'stateDir = "state"\n', "skypilot.stateDir", "an absolute path"),
        (OURS + 'stateDir = "/var/lib/sky pilot"\n', "skypilot.stateDir", "an absolute path"),
        (OURS + 'stateDir = "/var/lib/../etc"\n', "skypilot.stateDir", "an absolute path"),
        (OURS + 'user = "a\\nExecStart=/bin/sh"\n', "skypilot.user", "a word"),
        (OURS + 'administrators = "alice"\n', "skypilot.administrators", "an array"),
        (OURS + '[platform.systemd.skypilot.cloudCredentials]\naws = "aws"\n', "skypilot.cloudCredentials.aws", "absolute"),
        (OURS + '[platform.systemd.skypilot.cloudCredentials]\noci = "/a"\n', "skypilot.cloudCredentials.oci", "unknown"),
        (OURS + "config = 1\n", "skypilot.config", "a table"),
        (OURS + "[platform.systemd.skypilot.config]\nsince = 2026-11-01\n", "skypilot.config.since", "in quotes"),
        (OURS + "[platform.systemd.skypilot.config.a]\nb = [inf]\n", "skypilot.config.a.b[0]", "no number"),
        ("[platform.systemd.skypliot]\n", "skypliot", "did you mean skypilot?"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(tmp_path: Path, text: str, where: str, says: str) -> None:
    """A wrong type, a misspelt key and a text that would be another line of a unit are errors where they stand."""
    with pytest.raises(DeclarationError) as caught:
        declared(tmp_path, text)
    assert caught.value.where == f"haversack.toml: platform.systemd.{where}"
    assert says in f"{caught.value.message} {caught.value.remedy}"


@pytest.mark.parametrize(
    ("text", "subject", "says"),
    [
        ("[platform.systemd]\n", "", "no service"),
        ("[platform.systemd.skypilot]\n", "skypilot.package", "[platform.skypilot]"),
        (OURS + 'user = "root"\n', "skypilot.user", "root"),
        (OURS.replace("/opt", "/home/me"), "skypilot.package", "sees neither"),
        (OURS + 'catalogs = "/tmp/catalogs"\n', "skypilot.catalogs", "sees neither"),
        (OURS + "enableWebUI = false\n", "skypilot.enableWebUI", "no API server"),
        (OURS + 'endpoint = "http://sky.example.org:8080"\n', "skypilot.endpoint", "leave one of them out"),
        (OURS + 'enableWebUI = false\nendpoint = "http://me:hunter2@sky.example.org"\n', "skypilot.endpoint", "without a user"),
        (OURS + 'mirror = "mirror.example.org"\n', "skypilot.mirror", "https://"),
        (OURS + 'extraEnvironment = "AWS_SECRET_ACCESS_KEY=hunter2"\n', "skypilot.extraEnvironment", "cloudCredentials"),
        (OURS + 'extraEnvironment = """\nexport A=b\nAWS_SECRET_ACCESS_KEY=hunter2\n"""\n', "skypilot.extraEnvironment", "cloudCredentials"),
        (OURS + 'extraEnvironment = "source /etc/x"\n', "skypilot.extraEnvironment", "no shell"),
        (OURS + "[platform.systemd.skypilot.monitoring]\nenable = true\nmetricsPort = 8080\n", "skypilot.webUI.port", "8080"),
        (OURS + MIRROR + "port = 8080\n", "haversack.port", "another port"),
        (OURS + '[platform.systemd.skypilot.config.docker]\npassword = "hunter2"\n', "skypilot.config.docker.password", "secret"),
        (OURS + '[platform.systemd.skypilot.config]\ndb = "postgres://u:hunter2@h/d"\n', "skypilot.config.db", "secret"),
        (OURS + '[platform.systemd.skypilot.config.cloud]\ndefault = "aws"\n', "skypilot.config.cloud", "allowed_clouds"),
        (OURS + "[platform.systemd.skypilot.config.spot]\nrecovery = true\n", "skypilot.config.spot", "use_spot"),
        (OURS + "[platform.systemd.skypilot.config.aws]\nuse_ssmm = true\n", "skypilot.config.aws.use_ssmm", "did you mean use_ssm?"),
        (OURS + "[platform.systemd.skypilot.config.api_server]\nport = 1\n", "skypilot.config.api_server.port", "is no key"),
        (OURS + '[platform.systemd.skypilot.config]\naws = "x"\n', "skypilot.config.aws", "no table"),
        (MIRROR + "[platform.systemd.haversack.tls]\nkey = \"/run/k\"\n", "haversack.tls.key", "tls.certificate"),
        (MIRROR + "port = 443\n", "haversack.port", "belong to root"),
    ],
)  # fmt: skip
def test_what_contradicts_itself_is_found(tmp_path: Path, text: str, subject: str, says: str) -> None:
    """Each names its key and what to do, before anything is locked; no secret is repeated."""
    found = [finding for finding in problems(tmp_path, text) if finding.blocking]
    mine = [f for f in found if f.subject == f"platform.systemd.{subject}".rstrip(".")]
    assert mine, found
    finding = mine[0]
    assert finding.code == "platform-setting"
    assert says in f"{finding.message} {finding.remedy}"
    assert "hunter2" not in f"{found} {[f.remedy for f in found]}"


def test_an_option_that_an_older_skypilot_lacks_is_found(tmp_path: Path) -> None:
    """Where the site declares its SkyPilot, keys of the configuration are held to that version."""
    older = SKY.replace("0.14.1", "0.10.2")
    text = f"{older}[platform.systemd.skypilot]\n[platform.systemd.skypilot.config.aws]\nuse_ssm = true\n"
    (finding,) = problems(tmp_path, text)
    assert (finding.subject, finding.blocking) == ("platform.systemd.skypilot.config.aws.use_ssm", True)
    assert "0.10.3" in finding.remedy


def test_good_settings_raise_nothing(tmp_path: Path) -> None:
    """A table by itself is a service; what is only doubtful is said and does not block."""
    assert problems(tmp_path, f"{SKY}[platform.systemd.skypilot]\n") == []
    assert problems(tmp_path, OURS + MIRROR) == []
    text = OURS + '[platform.systemd.skypilot.webUI]\nhost = "0.0.0.0"\n'
    (finding,) = problems(tmp_path, text)
    assert not finding.blocking
    assert "password" in f"{finding.message} {finding.remedy}"


def test_keys_are_the_options(tmp_path: Path) -> None:
    """Every option of a service can be written, and the reference lists just them."""
    page = (ROOT / "docs" / "reference" / "declaration.md").read_text()
    for name, service in SERVICES.items():
        table = PLATFORM.keys.keys[name].type
        found: set[str] = set()
        for key, told in table.keys.items():  # type: ignore[union-attr]
            inner = getattr(told.type, "keys", {}) if key in service.tables else {}
            found |= {f"{key}.{one}" for one in inner} if key in service.tables else {key}
        assert found == set(service.options)
        text = page.partition(f"### `[platform.systemd.{name}]`\n")[2].partition("\n#")[0]
        assert set(re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE)) == set(service.options)


def test_settings_travel_as_they_were_declared(tmp_path: Path) -> None:
    """Numbers stay numbers and tables tables; what is not written is not in the lock."""
    text = (
        OURS
        + "[platform.systemd.skypilot.webUI]\nport = 9\n[platform.systemd.skypilot.config.x]\ny = [1.5, {z = 1}]\n"
    )
    (platform,) = (e for e in declared(tmp_path, text).environments if e.kind == "platform")
    assert json.loads(canonical(platform.settings)) == {
        "skypilot": {
            "enable": True, "package": "/opt/skypilot", "webUI": {"port": 9}, "config": {"x": {"y": [1.5, {"z": 1}]}},
        }
    }  # fmt: skip


# What is rendered


def golden(name: str, files: Mapping[str, bytes]) -> None:
    """Compare with the golden files.  One that is missing is written, for a person to look at, and fails the test."""
    made = {path: data for path, data in files.items() if "/libexec/" not in path}
    missing = [path for path in made if not (GOLDEN / name / path).exists()]
    for path in missing:
        (GOLDEN / name / path).parent.mkdir(parents=True, exist_ok=True)
        (GOLDEN / name / path).write_bytes(made[path])
    assert missing == []
    there = {p.relative_to(GOLDEN / name).as_posix(): p for p in (GOLDEN / name).rglob("*") if p.is_file()}
    assert made == {path: file.read_bytes() for path, file in there.items()}


SETS: dict[str, tuple[dict[str, Any], dict[str, Any] | None, dict[str, Any]]] = {
    "minimal": (MINIMAL, None, {}),
    "everything": (EVERYTHING, None, {}),
    "site": (SITE, BASE, {"base_url": "https://mirror.site.example"}),
}


def rendered(name: str, folder: Path, inside: Inside) -> Mapping[str, bytes]:
    """The files of one of the sets."""
    settings, base, asked = SETS[name]
    if base is not None:
        (folder / "ca.pem").write_text(CERTIFICATE)
        asked = {**asked, "ca": str(folder / "ca.pem")}
    made = PLATFORM.render(order(settings, base, **asked), inside)
    assert not [finding for finding in made.findings if finding.blocking]
    return made.files


@pytest.mark.parametrize("name", SETS)
def test_files_are_the_golden_ones(name: str, tmp_path: Path, inside: Inside) -> None:
    """A tree that mirrors the machine, the same for the same snapshot."""
    files = rendered(name, tmp_path, inside)
    assert files == rendered(name, tmp_path, inside)
    golden(name, files)
    programs = {f"usr/local/libexec/skypilot/{path.name}": path for path in PROGRAMS.glob("*.py")}
    assert {path for path in files if "/libexec/" in path} == set(programs)
    for path, source in programs.items():
        assert files[path] == f"# {ORIGIN}\n".encode() + source.read_bytes()


def test_what_lock_refuses_of_skypilot_is_not_rendered(inside: Inside) -> None:
    """Of a declaration, before anything is locked: a password of `[platform.skypilot]` reaches no file."""
    base = {
        "version": "0.14.1",
        "aws": {"regions": ["us-west-2"], "use_ssm": True, "ssh_proxy_command": "nc %h %p"},
    }
    blocked = [f for f in completed(replace(order(MINIMAL, base), crossed=False), inside)[2] if f.blocking]
    assert [f.subject for f in blocked] == ["platform.skypilot.aws.use_ssm"]
    base = {
        "version": "0.14.1",
        "aws": {"regions": ["us-west-2"], "ssh_proxy_command": "sshpass -p hunter2 ssh %h"},
    }
    blocked = [f for f in completed(replace(order(MINIMAL, base), crossed=False), inside)[2] if f.blocking]
    assert {"platform.skypilot.aws.ssh_proxy_command"} < {f.subject for f in blocked}
    assert all("hunter2" not in f"{f.subject}{f.message}{f.remedy}" for f in blocked)


def test_what_skypilot_declares_is_in_the_configuration(tmp_path: Path, inside: Inside) -> None:
    """Keys of the service win one by one; nodes are told of the mirror; the catalog has the regions that are declared."""
    files = rendered("site", tmp_path, inside)
    told = json.loads(files["etc/skypilot/config.yaml"].partition(b"\n")[2])
    assert told["aws"]["vpc_name"] == "other-vpc"
    assert told["aws"]["use_internal_ips"] is True
    assert told["aws"]["post_provision_runcmd"]
    assert told["allowed_clouds"] == ["aws"]
    assert files["etc/skypilot/catalogs/v8/aws/vms.csv"] == VMS.replace(b"m6i.large,0.2,eu-west-1\n", b"")
    unit = files["etc/systemd/system/skypilot-web-ui.service"].decode()
    assert " --catalogs /etc/skypilot/catalogs" in unit
    assert 'Environment="SSL_CERT_FILE=/etc/skypilot/ca.pem"' in unit
    assert CERTIFICATE.encode() in files["etc/skypilot/ca.pem"]


def test_the_server_has_the_proxy_of_pods(inside: Inside) -> None:
    """Six variables with what pods reach without it; the service's own wins; one with a password is told how to be given."""
    pods = {"proxy": "http://proxy-host:3128", "no_proxy": ["10.0.0.0/8"]}

    def told(pods: Mapping[str, Any], **own: str) -> tuple[dict[str, str], list[str]]:
        made = PLATFORM.render(
            order({"skypilot": {"enable": True, **own}}, {"version": "0.14.1", "kubernetes": pods}), inside
        )
        unit = made.files["etc/systemd/system/skypilot-web-ui.service"].decode()
        lines = re.findall(r'^Environment="(\w+_(?:PROXY|proxy))=(.*)"$', unit, re.MULTILINE)
        return dict(lines), [f.remedy for f in made.findings if f.subject.endswith("skypilot.proxy")]

    found, _ = told(pods)
    assert set(found) == {*proxies.THROUGH, *proxies.PAST}
    assert {found[name] for name in proxies.THROUGH} == {"http://proxy-host:3128"}
    assert {found[name] for name in proxies.PAST} == {",".join(["10.0.0.0/8", *proxies.ALWAYS])}
    found, _ = told(pods, proxy="http://other:1")
    assert (found["https_proxy"], found["no_proxy"]) == ("http://other:1", ",".join(proxies.ALWAYS))
    assert told({})[0] == {}
    found, (remedy,) = told({"proxy_secret": "site-proxy", "cidrs": ["10.0.0.0/8"]})
    assert (found, "EnvironmentFile" in remedy) == ({}, True)


def test_nodes_without_a_mirror_are_not_rendered(inside: Inside) -> None:
    """Where nodes take everything from the site, its address is said or declared."""
    with pytest.raises(UsageError) as caught:
        PLATFORM.render(order(SITE, BASE), inside)
    assert "--base-url" in caught.value.remedy
    settings = {"skypilot": {**SITE["skypilot"], "mirror": "https://m.site.example"}}
    made = PLATFORM.render(order(settings, BASE), inside)
    assert b"m.site.example" in made.files["etc/skypilot/config.yaml"] or made.files
    assert b'UV_DEFAULT_INDEX=https://m.site.example/pypi/simple/"' in made.files[
        "etc/systemd/system/skypilot-web-ui.service"
    ]  # fmt: skip


def test_nodes_are_given_the_certificates_of_the_service(tmp_path: Path, inside: Inside) -> None:
    """Where the declared file is here, nodes that ask the mirror get what is in it; where it is not, that is said."""
    file = tmp_path / "ca.pem"
    table = {**SITE["skypilot"], "mirror": "https://m.site.example", "caFile": "/etc/ssl/site-ca.pem"}
    made = PLATFORM.render(order({"skypilot": table}, BASE), inside)
    assert ["--ca FILE" in f.remedy for f in made.findings if f.subject.endswith("caFile")] == [True]
    file.write_text(CERTIFICATE)
    effective, files, _ = completed(order({"skypilot": {**table, "caFile": str(file)}}, BASE), inside)
    assert CERTIFICATE.encode() in files["etc/skypilot/ca.pem"]
    commands = "\n".join(effective["skypilot"]["config"]["aws"]["post_provision_runcmd"])
    assert base64.b64encode(CERTIFICATE.encode()).decode() in commands


def test_tables_are_joined_key_by_key() -> None:
    """What is above wins; a list is taken whole, and a table takes the place of what is none."""
    below = {"a": {"b": 1, "c": {"d": [1]}}, "e": 1, "f": {"g": 1}}
    assert joined(below, {"a": {"b": 2, "c": {"d": [2]}}, "e": {"x": 1}, "f": 3}) == {
        "a": {"b": 2, "c": {"d": [2]}},
        "e": {"x": 1},
        "f": 3,
    }


def test_a_firewall_is_told_and_not_touched(inside: Inside) -> None:
    """A port that others shall reach is a finding with the commands of firewalls, which no file here is."""
    made = PLATFORM.render(order(EVERYTHING), inside)
    told = {f.subject: f.remedy for f in made.findings if "firewall-cmd" in f.remedy}
    assert (
        set(told)
        == {"platform.systemd.skypilot.webUI.openFirewall", "platform.systemd.haversack.openFirewall"}
        or told
    )
    assert any("ufw allow 18080/tcp" in remedy for remedy in told.values())
    assert not [f for f in made.findings if f.blocking]


def test_a_service_that_is_turned_off_has_no_files(inside: Inside) -> None:
    """``enable = false`` renders nothing of it, and ``systemdServices = false`` no units."""
    off = {"skypilot": {"enable": False}, "haversack": {"enable": False}}
    assert PLATFORM.render(order(off), inside).files == {}
    quiet = {"skypilot": {"enable": True, "systemdServices": False}}
    files = PLATFORM.render(order(quiet), inside).files
    assert not [path for path in files if path.startswith("etc/systemd/")]
    assert "etc/skypilot/config.yaml" in files


# What systemd, sudo and SkyPilot say of it


def laid(files: Mapping[str, bytes], folder: Path) -> Path:
    """The files below a folder."""
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return folder


def said(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """What a program says."""
    return subprocess.run(
        list(map(str, words)), env=plain_environ(), capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize("name", SETS)
def test_systemd_takes_the_units(name: str, tmp_path: Path, inside: Inside) -> None:
    """`systemd-analyze verify` has no word about them but of two directives that came with systemd 254."""
    tree = laid(rendered(name, tmp_path, inside), tmp_path / "tree")
    units = tree / "etc/systemd/system"
    for unit in units.iterdir():
        # The programs are not on this machine.
        text = re.sub(r"^(ExecStart)=\S+", r"\1=/bin/true", unit.read_text(), flags=re.MULTILINE)
        unit.write_text(text)
    done = said("systemd-analyze", "verify", "--man=no", *sorted(units.iterdir()))
    mine = [line for line in done.stderr.splitlines() if "skypilot" in line or "haversack" in line]
    assert [line for line in mine if not re.search("'(RestartSteps|RestartMaxDelaySec)'", line)] == []
    assert done.returncode == 0


def test_sudo_takes_the_rules(tmp_path: Path, inside: Inside) -> None:
    """`visudo` accepts the rules of administrators; where none are named there is no such file."""
    tree = laid(rendered("everything", tmp_path, inside), tmp_path / "tree")
    done = said("/usr/sbin/visudo", "-cf", tree / "etc/sudoers.d/skypilot")
    assert done.returncode == 0, done.stderr + done.stdout
    assert not [path for path in rendered("minimal", tmp_path, inside) if "sudoers" in path]


def test_users_and_folders_are_made(tmp_path: Path, inside: Inside) -> None:
    """`systemd-sysusers` makes user and group, and `systemd-tmpfiles` each folder with its mode and the link of the logs."""
    tree = laid(rendered("minimal", tmp_path, inside), tmp_path / "tree")
    for words in (
        ("systemd-sysusers", f"--root={tree}", tree / "etc/sysusers.d/skypilot.conf"),
        ("systemd-tmpfiles", f"--root={tree}", "--create", tree / "etc/tmpfiles.d/skypilot.conf"),
    ):
        done = said(*words)
        assert done.returncode == 0, done.stderr
    (user,) = (
        line.split(":") for line in (tree / "etc/passwd").read_text().splitlines() if "skypilot" in line
    )
    assert user[5] == "/var/lib/skypilot"
    modes = {
        path: oct(stat.S_IMODE((tree / path).stat().st_mode))
        for path in ("var/lib/skypilot", "var/lib/skypilot/config", "var/log/skypilot", "var/cache/skypilot")
    }
    assert modes == dict.fromkeys(modes, "0o750") | {"var/lib/skypilot": "0o700"}
    assert {(tree / path).stat().st_uid for path in modes} == {int(user[2])}
    assert (tree / "var/lib/skypilot/sky_logs").readlink() == Path("/var/log/skypilot")
    assert (tree / "var/lib/skypilot/config/config.yaml").readlink() == Path("/etc/skypilot/config.yaml")


# What is put in place


SERVER = """\
# --metrics-port
import argparse, http.server, json
parser = argparse.ArgumentParser()
for word in ("host", "port", "metrics-port"):
    parser.add_argument(f"--{word}", type=int if "port" in word else str)
given = parser.parse_args()
class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        told = b'{"status": "healthy", "version": "0.14.1"}' if self.path == "/api/health" else b"dashboard"
        self.send_response(200)
        self.send_header("Content-Length", str(len(told)))
        self.end_headers()
        self.wfile.write(told)
http.server.ThreadingHTTPServer((given.host, given.port), Answers).serve_forever()
"""
"""What stands in for SkyPilot where no way leads to PyPI: a server that says it is healthy."""


def store_of(folder: Path, **snapshots: dict[str, Any]) -> Path:
    """A store with snapshots of these names, the last one current; each has an environment ``skypilot``."""
    here = probe()
    target = Target("here", here.platform, here.python_short, here.glibc, here.macos)
    modules = {"sky/__init__.py": "", "sky/server/__init__.py": "", "sky/server/server.py": SERVER}
    wheel = make_wheel(folder / "wheels", "skypilot", "0.14.1", modules=modules)
    data = wheel.read_bytes()
    environment = LockedEnvironment("skypilot", target.name, "pip", ("skypilot==0.14.1",))
    origin = f"path:wheels/{wheel.name}"
    artifact = Artifact(
        *("wheel", "skypilot", "0.14.1", wheel.name, digest_of(data), len(data), origin, (environment.ref,))
    )
    out = tiny.outside(folder / "outside")
    for name, settings in snapshots.items():
        platform = LockedEnvironment("platform.systemd", ANY.name, "platform", settings=settings)
        declared = digest_of(canonical(settings))
        lock = Lock("lab", declared, (target, ANY), (platform, environment), merge_artifacts([artifact]))
        pack.pack(lock, folder, out, FolderWriter(folder / name), name=name, rehearsing=False)
        done = tiny.haversack("receive", folder / name, store=folder / "inside")
        assert done.returncode == 0, done.stderr
    return folder / "inside"


def python() -> Path:
    """A Python of this version where services see it; the tests' own may be in a home."""
    found = (Path(f"/usr/bin/python{probe().python_short}"), base_python())
    return next(path for path in found if path.exists() and not is_hidden(str(path.resolve())))


def test_a_service_is_laid_for_another_machine(tmp_path: Path) -> None:
    """``--root`` lays environment, files, users, folders and the links of enabled units; again it changes nothing."""
    settings = {"skypilot": {"enable": True, "monitoring": {"enable": True}, "administrators": ["alice"]}}
    store = store_of(tmp_path, one=settings)
    root = tmp_path / "root"
    root.mkdir()
    words = ("install", "skypilot-service", "--root", root, "--python", python())
    planned = tiny.haversack(*words, "--dry-run", store=store)
    assert planned.returncode == 0, planned.stderr
    assert f"would be written: {root}/etc/systemd/system/skypilot-web-ui.service" in planned.stdout
    assert list(root.iterdir()) == []
    done = tiny.haversack(*words, store=store, env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})
    assert done.returncode == 0, done.stdout + done.stderr
    units = root / "etc/systemd/system"
    assert {path.name for path in (units / "multi-user.target.wants").iterdir()} == {
        "skypilot-web-ui.service",
        "skypilot-monitor.service",
    }
    assert {path.name for path in (units / "timers.target.wants").iterdir()} == {
        "skypilot-cluster-manager.timer"
    }
    assert (root / "opt/skypilot/bin/python").exists()
    assert stat.S_IMODE((root / "etc/sudoers.d/skypilot").stat().st_mode) == 0o440
    assert stat.S_IMODE((root / "usr/local/bin/sky").stat().st_mode) == 0o755
    assert stat.S_IMODE((root / "etc/skypilot/config.yaml").stat().st_mode) == 0o644
    assert (root / "var/lib/skypilot").is_dir()
    before = {path: path.lstat().st_mtime_ns for path in root.rglob("*")}
    again = tiny.haversack(*words, store=store, env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})
    assert "skypilot is of snapshot one already" in again.stdout
    changed = {path for path, then in before.items() if path.lstat().st_mtime_ns != then and path.is_file()}
    assert {
        path for path in changed if not path.name.endswith(("passwd", "group", "shadow", "lock", "-"))
    } == set()


def test_edited_files_are_shown_and_stay(tmp_path: Path) -> None:
    """Somebody's line in a unit is shown before anything is done; ``--force`` replaces it, and what is unwanted goes."""
    settings: dict[str, Any] = {"skypilot": {"enable": True, "monitoring": {"enable": True}}}
    store = store_of(tmp_path, one=settings, two={"skypilot": {"enable": True}})
    root = tmp_path / "root"
    root.mkdir()
    words = ("install", "skypilot-service", "--root", root, "--python", python())
    done = tiny.haversack(*words, "--snapshot", "one", store=store)
    assert done.returncode == 0, done.stderr
    unit = root / "etc/systemd/system/skypilot-web-ui.service"
    unit.write_text(f"{unit.read_text()}# mine\n")
    refused = tiny.haversack(*words, store=store)
    assert refused.returncode == 15
    assert "-# mine" in refused.stderr
    assert (root / "etc/systemd/system/skypilot-monitor.service").exists()
    forced = tiny.haversack(*words, "--force", store=store)
    assert forced.returncode == 0, forced.stderr
    assert "# mine" not in unit.read_text()
    assert not (root / "etc/systemd/system/skypilot-monitor.service").exists()


@pytest.mark.parametrize("link", ["opt", "etc/profile.d", "etc/skypilot/config.yaml", "var/lib"])
def test_a_link_out_of_the_root_is_refused(link: str, tmp_path: Path) -> None:
    """An absolute link below ``--root`` would lead to the machine that lays it: nothing is written, there or here."""
    store = store_of(tmp_path, one=MINIMAL)
    root, host = tmp_path / "root", tmp_path / "host"
    host.mkdir()
    (root / link).parent.mkdir(parents=True)
    (root / link).symlink_to(host)
    before = sorted(root.rglob("*"))
    words = ("install", "skypilot-service", "--root", root, "--python", python())
    done = tiny.haversack(*words, store=store)
    assert done.returncode == 15, done.stdout
    assert f"{root / link}: leads to {host}, out of {root}" in done.stderr
    assert sorted(root.rglob("*")) == before
    assert list(host.iterdir()) == []
    (root / link).unlink()
    (root / link).symlink_to(Path(link).name)
    done = tiny.haversack(*words, store=store)
    assert done.returncode == 15, done.stdout
    assert "Traceback" not in done.stderr
    # One that stays within is followed, as on the machine itself.
    (root / link).unlink()
    if link == "opt":
        (root / "usr/opt").mkdir(parents=True)
        (root / link).symlink_to("usr/opt")
        assert tiny.haversack(*words, store=store).returncode == 0
        assert (root / "usr/opt/skypilot/bin/python").exists()


def test_what_lies_where_a_link_belongs_is_kept(tmp_path: Path) -> None:
    """Logs and a configuration of a SkyPilot that ran there before end nothing but the install; ``--force`` keeps them beside."""
    store = store_of(tmp_path, one=MINIMAL, two={"skypilot": {"enable": True, "logsDir": "/var/log/sky"}})
    root = tmp_path / "root"
    logs, config = root / "var/lib/skypilot/sky_logs", root / "var/lib/skypilot/config/config.yaml"
    (logs / "sky-2026").mkdir(parents=True)
    (logs / "sky-2026" / "run.log").write_text("old")
    config.parent.mkdir()
    config.write_text("mine: 1")
    words = ("install", "skypilot-service", "--root", root, "--python", python())
    before = sorted(root.rglob("*"))
    for more in ((), ("--dry-run",)):
        done = tiny.haversack(*words, *more, "--snapshot", "one", store=store)
        assert done.returncode == 15, done.stdout
        assert f"{logs}: lies where a link to /var/log/skypilot belongs" in done.stderr
        assert str(config) in done.stderr
        assert sorted(root.rglob("*")) == before
    done = tiny.haversack(*words, "--snapshot", "one", "--force", "--dry-run", store=store)
    assert done.returncode == 0, done.stderr
    assert f"{logs} would make way" in done.stderr
    assert sorted(root.rglob("*")) == before
    done = tiny.haversack(*words, "--snapshot", "one", "--force", store=store)
    assert done.returncode == 0, done.stderr
    assert f"{logs} is kept as {logs}.1" in done.stderr
    assert (root / "var/lib/skypilot/sky_logs.1/sky-2026/run.log").read_text() == "old"
    assert config.with_name("config.yaml.1").read_text() == "mine: 1"
    assert logs.readlink() == Path("/var/log/skypilot")
    assert config.readlink() == Path("/etc/skypilot/config.yaml")
    # A link that the service made itself follows the declaration.
    done = tiny.haversack(*words, store=store)
    assert done.returncode == 0, done.stderr
    assert logs.readlink() == Path("/var/log/sky")


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("--to", "/root/skypilot"), 3, "sees neither"),
        (("--to", "/tmp/skypilot"), 3, "sees neither"),
        (("--base-url", "mirror"), 2, "https://HOST"),
        (("--ca", "/nowhere.pem"), 2, "--base-url"),
        (("--snapshot", "none"), 18, "no snapshot"),
    ],
)  # fmt: skip
def test_what_cannot_be_put_in_place_is_refused(
    words: tuple[str, ...], code: int, says: str, tmp_path: Path
) -> None:
    """A place that the service could not see, or a mirror that is none, is refused before anything is done."""
    store = store_of(tmp_path, one=MINIMAL)
    root = tmp_path / "root"
    root.mkdir()
    done = tiny.haversack(
        "install", "skypilot-service", "--root", root, "--python", python(), *words, store=store
    )
    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert list(root.iterdir()) == []


def test_only_what_is_declared_is_a_service(tmp_path: Path) -> None:
    """A service that no table declares is not found, options of services are none of environments, and a prefix is needed."""
    store = store_of(tmp_path, one=MINIMAL)
    for words, code, says in (
        (("haversack-service", "--root", tmp_path), 18, "[platform.systemd.haversack]"),
        (("nothing-service", "--to", tmp_path / "x"), 18, "no environment"),
        (("skypilot", "--to", tmp_path / "x", "--force"), 2, "for a service"),
        (("skypilot",), 2, "--to PREFIX"),
        (("skypilot-service", "--to", "/usr/bin"), 15, "was not made by haversack"),
    ):
        done = tiny.haversack("install", *words, "--dry-run", store=store)
        assert done.returncode == code, f"{words}: {done.stdout}{done.stderr}"
        assert says in done.stderr


@pytest.fixture
def everybodys() -> Iterator[Path]:
    """A folder that everybody may look into; those of pytest are root's alone."""
    with tempfile.TemporaryDirectory(prefix="haversack-test-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_nobody_but_root_puts_services_in_place(everybodys: Path) -> None:
    """Somebody else is told so, and what would be done all the same."""
    store = store_of(everybodys, one=MINIMAL)
    # Not root, and yet able to run a Python that lies in root's home.
    cap = "+dac_override"
    nobody = ["setpriv", "--reuid=65534", "--clear-groups", f"--inh-caps={cap}", f"--ambient-caps={cap}"]
    words = tiny.command("install", "skypilot-service", "--root", everybodys, "--python", python())
    for more, code, says in (([], 2, "only root"), (["--dry-run"], 0, "would be written")):
        done = subprocess.run(
            [*nobody, *words, *more],
            env={
                **tiny.environ(store),
                "HOME": str(everybodys / "home"),
                "XDG_DATA_HOME": str(everybodys / "data"),
            },
            capture_output=True,
            text=True,
        )
        assert done.returncode == code, done.stderr
        assert says in done.stdout + done.stderr


JUDGE = """\
def validate_schema(content, schema, message, skip_none=False):
    if content.get("allowed_clouds") == "aws":
        raise ValueError("allowed_clouds: 'aws' is not of type 'array'")
    if sky.__version__ == "0.14.1" and "vpc_name" in content.get("aws", {}):
        raise ValueError("aws.vpc_name is gone")
"""
"""What stands in for SkyPilot's schema: a list is wanted, and one version lacks a key."""


def sky_of(folder: Path, version: str) -> Path:
    """A wheel of a SkyPilot that says what it thinks of a configuration."""
    modules = {
        "sky/__init__.py": f"__version__ = {version!r}\n",
        "sky/server/__init__.py": "",
        "sky/server/plugins.py": "",
        "sky/utils/__init__.py": "",
        "sky/utils/schemas.py": "def get_config_schema(): return {}\n",
        "sky/utils/common_utils.py": f"import sky\n{JUDGE}",
    }
    return make_wheel(folder / version, "skypilot", version, modules=modules)


def test_what_the_new_skypilot_refuses_changes_nothing(tmp_path: Path) -> None:
    """It is asked before it takes the place of the one that serves: environment, files and ledger stay as they were."""
    here, out = probe(), tiny.outside(tmp_path / "outside")
    target = Target("here", here.platform, here.python_short, here.glibc, here.macos)
    for version in ("0.14.0", "0.14.1"):
        data = (wheel := sky_of(tmp_path, version)).read_bytes()
        sky = LockedEnvironment("skypilot", target.name, "pip", (f"skypilot=={version}",))
        origin = f"path:{version}/{wheel.name}"
        one = Artifact(
            *("wheel", "skypilot", version, wheel.name, digest_of(data), len(data), origin, (sky.ref,))
        )
        config = {"aws": {"vpc_name": "private"}, "allowed_clouds": ["aws"]}
        settings = {"skypilot": {"enable": True, "config": config}}
        platform = LockedEnvironment("platform.systemd", ANY.name, "platform", settings=settings)
        lock = Lock("lab", digest_of(data), (target, ANY), (platform, sky), merge_artifacts([one]))
        pack.pack(lock, tmp_path, out, FolderWriter(tmp_path / f"b{version}"), name=version, rehearsing=False)
        done = tiny.haversack("receive", tmp_path / f"b{version}", store=tmp_path / "inside")
        assert done.returncode == 0, done.stderr
    root = tmp_path / "root"
    root.mkdir()
    words = ("install", "skypilot-service", "--root", root, "--python", python())
    done = tiny.haversack(*words, "--snapshot", "0.14.0", store=tmp_path / "inside")
    assert done.returncode == 0, done.stderr
    before = {path: path.lstat().st_mtime_ns for path in root.rglob("*")}
    ledger = (tmp_path / "inside/haversack/ledger.jsonl").read_bytes()
    done = tiny.haversack(*words, "--snapshot", "0.14.1", store=tmp_path / "inside")
    assert done.returncode == 3, done.stderr
    assert "aws.vpc_name is gone" in done.stderr
    assert "nothing was changed" in done.stderr
    now = {path: path.lstat().st_mtime_ns for path in root.rglob("*")}
    assert {path for path in before.keys() | now.keys() if before.get(path) != now.get(path)} <= {
        root / "opt"
    }
    assert (
        said(root / "opt/skypilot/bin/python", "-c", "import sky; print(sky.__version__)").stdout
        == "0.14.0\n"
    )
    assert (tmp_path / "inside/haversack/ledger.jsonl").read_bytes() == ledger


@pytest.fixture
def somebodys(everybodys: Path) -> Path:
    """The prefix of a SkyPilot 0.13.0 that is not root's; it writes into ``who`` as whom it was run."""
    prefix = everybodys / "sky"
    (prefix / "bin").mkdir(parents=True)
    with zipfile.ZipFile(sky_of(everybodys, "0.13.0")) as wheel:
        wheel.extractall(prefix)
    runs = prefix / "bin/python"
    runs.write_text(f'#!/bin/sh\nid -u >{prefix}/who\nshift\nPYTHONPATH={prefix} exec {python()} "$@"\n')
    runs.chmod(0o755)
    for path in (prefix, *prefix.rglob("*")):
        os.chown(path, 65534, 65534)
    return prefix


def judged(prefix: Path, clouds: Any, inside: Inside, base: Mapping[str, Any] | None = None) -> list[Finding]:
    """What the SkyPilot of a prefix says against a configuration."""
    settings = {"skypilot": {"enable": True, "package": str(prefix), "config": {"allowed_clouds": clouds}}}
    return refused(order(settings, base), valued("skypilot", settings), inside)


@pytest.mark.parametrize("base", [None, {"version": "0.14.1"}], ids=["alone", "beside another"])
def test_somebodys_own_skypilot_is_asked(
    somebodys: Path, inside: Inside, base: Mapping[str, Any] | None
) -> None:
    """The SkyPilot at ``package`` judges its configuration, whatever version is locked, run as whom it belongs to."""
    (finding,) = judged(somebodys, "aws", inside, base)
    assert finding.blocking
    assert "is refused by SkyPilot 0.13.0: allowed_clouds: 'aws' is not of type 'array'" in finding.message
    assert finding.remedy == "correct [platform.systemd.skypilot.config]"
    assert (somebodys / "who").read_text() == "65534\n"
    assert judged(somebodys, ["aws"], inside, base) == []


@pytest.mark.parametrize("whose", ["file", "link"])
def test_root_runs_nothing_that_its_prefix_links_to(
    everybodys: Path, somebodys: Path, inside: Inside, whose: str
) -> None:
    """A prefix of root's whose interpreter lies with somebody, or is found by somebody's link, is run as that one."""
    ours, theirs = everybodys / "ours", somebodys / "bin/python"
    (ours / "bin").mkdir(parents=True)
    (ours / "bin/python").symlink_to(theirs)
    if whose == "link":
        theirs.rename(everybodys / "runs")
        os.chown(everybodys / "runs", 0, 0)
        theirs.symlink_to("../../runs")
        os.chown(theirs, 65534, 65534, follow_symlinks=False)
    assert judged(ours, ["aws"], inside) == []
    assert (somebodys / "who").read_text() == "65534\n"


# A declaration, before anything is locked


def test_a_declaration_is_rendered_without_a_store(tmp_path: Path) -> None:
    """``--from`` takes the folder of a declaration, its file, or a snapshot by its name; there is no store, and none is made."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "haversack.toml").write_text(HEAD + OURS)
    for source in ("site", "site/haversack.toml"):
        done = tiny.haversack(
            *("render", "systemd", "--from", source, "-o", "out"), store=tmp_path / "none", cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr
    head = (tmp_path / "out/etc/systemd/system/skypilot-web-ui.service").read_text().partition("\n")[0]
    assert "of the declaration sha256:" in head
    assert not (tmp_path / "none").exists()
    store = store_of(tmp_path / "packed", one=MINIMAL)
    done = tiny.haversack("render", "systemd", "--from", "one", "-o", tmp_path / "two", store=store)
    assert done.returncode == 0, done.stderr
    done = tiny.haversack(
        *("render", "systemd", "--from", "one", "--snapshot", "one", "-o", tmp_path / "two"), store=store
    )
    assert done.returncode == 2


def test_a_wrong_declaration_is_not_rendered(tmp_path: Path) -> None:
    """What could not be locked is told, and nothing is written."""
    (tmp_path / "haversack.toml").write_text(f'{HEAD}{OURS}user = "root"\n')
    done = tiny.haversack(
        "render", "systemd", "--from", tmp_path, "-o", tmp_path / "out", store=tmp_path / "none"
    )
    assert done.returncode == 3
    assert not (tmp_path / "out").exists()


# A machine that is looked at


def looked(settings: Mapping[str, Any], inside: Inside) -> dict[str, Finding]:
    """What doctor finds, by subject."""
    return {finding.subject: finding for finding in PLATFORM.preflight(order(settings), inside)}


def test_credentials_are_looked_at_and_not_read(tmp_path: Path, inside: Inside) -> None:
    """A file that is missing, empty, no file or readable by everybody is found; one for root alone is not."""
    names = ("aws", "gcp", "azure")
    settings = {"skypilot": {"enable": True, "cloudCredentials": {n: str(tmp_path / n) for n in names}}}
    subjects = {n: f"platform.systemd.skypilot.cloudCredentials.{n}" for n in names}
    (tmp_path / "gcp").write_text("secret")
    (tmp_path / "gcp").chmod(0o644)
    (tmp_path / "azure").mkdir()
    found = looked(settings, inside)
    assert "there is no" in found[subjects["aws"]].message
    assert found[subjects["gcp"]].remedy == f"chmod 0600 {tmp_path / 'gcp'}"
    assert "is no file" in found[subjects["azure"]].message
    assert "secret" not in f"{found}"
    (tmp_path / "gcp").chmod(0o600)
    (tmp_path / "aws").touch(0o600)
    found = looked(settings, inside)
    assert "is empty" in found[subjects["aws"]].message
    assert subjects["gcp"] not in found


def test_a_port_that_is_taken_is_found(inside: Inside) -> None:
    """Another program at a port of the service is found by looking, and by nothing that would touch it."""
    for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        with socket.create_server((address, 0), family=family) as listener:
            port = listener.getsockname()[1]
            found = looked({"skypilot": {"enable": True, "webUI": {"host": address, "port": port}}}, inside)
            assert "is taken: " in found["platform.systemd.skypilot.webUI.port"].message
    assert "platform.systemd.skypilot.webUI.port" not in looked(
        {"skypilot": {"enable": True, "webUI": {"port": port}}}, inside
    )


def test_a_port_at_another_address_is_free(inside: Inside) -> None:
    """Each port is looked for at the address that it is listened at; the description has one for each."""
    for service in SERVICES.values():
        assert all(service.options[one.host].type in {"word", "enum"} for one in service.listens)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        for host, taken in (("127.0.0.1", True), ("127.0.0.2", False)):
            table = {"enable": True, "package": "/opt/h", "metrics": {"host": host, "port": port}}
            found = looked({"haversack": table}, inside)
            assert ("platform.systemd.haversack.metrics.port" in found) is taken


def test_what_a_unit_runs_is_outdated_where_it_was_written_or_moved_there_since(tmp_path: Path) -> None:
    """Not where its mode or owner was changed, nor by times that are still to come."""
    package = tmp_path / "package"
    site = package / "lib/python3.11/site-packages"
    for folder in (package / "bin", site / "one-1.dist-info"):
        folder.mkdir(parents=True)
    python, sky = package / "bin/python", package / "bin/sky"
    for program in (python, sky):
        program.touch()
    time.sleep(0.05)
    stamp = int(time.monotonic() * 1e6)
    time.sleep(0.05)

    systemctl = tmp_path / "programs/systemctl"
    systemctl.parent.mkdir()
    systemctl.write_text(f"#!/bin/sh\necho MainPID=1\necho ExecMainStartTimestampMonotonic={stamp}\n")
    systemctl.chmod(0o755)
    run = Programs({"PATH": f"{systemctl.parent}:{os.environ['PATH']}"})

    def outdated() -> bool:
        return machine.is_outdated("haversack.service", package, run)

    assert not outdated()
    python.chmod(0o755)
    os.chown(site / "one-1.dist-info", 1, 1)
    os.utime(sky, (4_000_000_000, 4_000_000_000))
    assert not outdated()
    (site / "two-1.dist-info").mkdir()
    assert outdated()
    (site / "two-1.dist-info").rmdir()
    assert not outdated()
    python.write_text("new")
    assert outdated()
    os.utime(python, (0, 0))
    assert not outdated()
    package.rename(tmp_path / "other")
    (tmp_path / "other").rename(package)
    assert outdated()


def test_what_was_changed_is_found(tmp_path: Path, inside: Inside) -> None:
    """A file that was edited, one that is gone, and a file beside a unit that changes it; a newer snapshot alone is none."""
    root = laid(rendered("minimal", tmp_path, inside), tmp_path / "root")
    found = valued("skypilot", MINIMAL)
    files = {
        path: data.replace(b"2026-11", b"2026-12")
        for path, data in rendered("minimal", tmp_path, inside).items()
    }

    def edited() -> dict[str, str]:
        told = machine.look(SERVICES["skypilot"], found, files, None, inside.run, root)
        return {
            f.subject: f.message for f in told if f.subject.startswith("/etc") or f.subject.startswith("/usr")
        }

    assert edited() == {}
    (root / "etc/skypilot/config.yaml").write_text("# head\n{}\n# mine\n")
    (root / "usr/local/libexec/skypilot/autostop.py").unlink()
    (root / "etc/systemd/system/skypilot-web-ui.service.d").mkdir()
    assert set(edited()) == {
        "/etc/skypilot/config.yaml",
        "/usr/local/libexec/skypilot/autostop.py",
        "/etc/systemd/system/skypilot-web-ui.service.d",
    }


def test_a_private_store_is_found(everybodys: Path, inside: Inside) -> None:
    """A folder on the way, one in the store or a blob that is closed to the service's user; nothing where all is open."""
    store = tiny.tiny_bundle(everybodys / "outside").store
    ask = partial(machine.asked, inside.run)

    def found(top: bool = True) -> dict[str, str]:
        user = {"user": "nobody", "group": "nogroup"}
        values = valued("haversack", {"haversack": {"enable": True, "store": str(store), **user}})
        return {f.subject: f"{f.message} {f.remedy}" for f in unreadable(values, ask, top=top)}

    assert found() == {}
    blob = next((store / "blobs/sha256").iterdir())
    for path, mode in ((store / "blobs/sha256", 0o700), (blob, 0o400), (store / "haversack", 0o750)):
        before = stat.S_IMODE(path.stat().st_mode)
        path.chmod(mode)
        told = found()[str(store)]
        assert f"{path} is closed to others" in told
        assert (
            f"cd {store} && chmod a+rx . haversack && chmod -R a+rX oci-layout index.json blobs haversack/state"
            in told
        )
        path.chmod(before)
    # What is said to do is enough, and leaves alone what is its writers'.
    ledger = store / "haversack/ledger.jsonl"
    ledger.touch()
    for path in (store / "blobs/sha256", store / "haversack/state", store / "haversack", ledger):
        path.chmod(0o700 if path.is_dir() else 0o600)
    (said,) = found().values()
    subprocess.run(said.partition("closed to others ")[2], shell=True, check=True)
    assert found() == {}
    assert stat.S_IMODE(ledger.stat().st_mode) == 0o600
    store.chmod(0o700)
    assert set(found()) == {str(store)}
    # An install sets the mode of the store's own folder.
    assert found(top=False) == {}
    store.chmod(0o755)
    everybodys.chmod(0o700)
    assert found()[str(everybodys)].endswith(f"chmod a+x {everybodys}")


def test_a_store_that_is_pruned_meanwhile_is_looked_at_to_the_end(everybodys: Path, inside: Inside) -> None:
    """What was there when its folder was read, and is taken away before its turn, is nobody's to read."""
    store = tiny.tiny_bundle(everybodys / "outside").store
    blobs = list((store / "blobs/sha256").iterdir())
    for blob in blobs:
        blob.chmod(0o400)

    def ask(*words: str) -> Completed:
        for blob in blobs:
            blob.unlink(missing_ok=True)
        return Completed(words, 0, "", "")

    values = valued("haversack", {"haversack": {"enable": True, "store": str(store)}})
    assert list(unreadable(values, ask, top=True)) == []
    assert blobs
    assert not any(blob.exists() for blob in blobs)


def test_a_folder_that_may_be_something_elses_is_found(tmp_path: Path) -> None:
    """What lies in it is root's, and no install made it; one that is empty, or was made before, is the service's."""
    (state := tmp_path / "state").mkdir()
    values = valued("skypilot", {"skypilot": {"enable": True, "stateDir": str(state), "user": "nobody"}})
    lines = f"d '{state}' 0700 nobody skypilot -\nL '{state}/sky_logs' - - - - /var/log/skypilot\n".encode()

    def found(*known: str) -> list[str]:
        return [f"{one.message}; {one.remedy}" for one in foreign("skypilot", lines, values, known)]

    (state / "sky_logs").symlink_to("/var/log/skypilot")
    (state / "lost+found").mkdir()
    assert found() == []
    (state / "wal").touch()
    (said,) = found()
    assert "wal in it is of root" in said
    assert f"chown -R --from=root nobody:skypilot {state}; if not, name another folder" in said
    assert found(str(state)) == []
    assert list(foreign("skypilot", lines, values)) == []
    os.chown(state / "wal", 65534, 65534)
    assert found() == []


def test_a_link_that_is_none_is_found(tmp_path: Path, inside: Inside) -> None:
    """A folder where the link of the logs belongs, or a link elsewhere, is found; the right link is not."""
    files = rendered("minimal", tmp_path, inside)
    root = laid(files, tmp_path / "root")
    home = root / "var/lib/skypilot"
    (home / "sky_logs").mkdir(parents=True)
    (home / "config").mkdir()
    (home / "config/config.yaml").symlink_to("/etc/skypilot/config.yaml")

    def found() -> dict[str, str]:
        told = machine.look(SERVICES["skypilot"], valued("skypilot", MINIMAL), files, None, inside.run, root)
        return {f.subject: f.message for f in told if f.code == "rendered-edited"}

    assert "is no link to /var/log/skypilot" in found().pop("/var/lib/skypilot/sky_logs")
    assert len(found()) == 1
    (home / "sky_logs").rmdir()
    (home / "sky_logs").symlink_to("/var/log/skypilot")
    (home / "config/config.yaml").unlink()
    (home / "config/config.yaml").symlink_to("/etc/other.yaml")
    assert set(found()) == {"/var/lib/skypilot/config/config.yaml"}


def test_sockets_are_read_as_the_kernel_writes_them() -> None:
    """Only what listens counts, of either protocol."""
    head = "  sl  local_address rem_address   st tx_queue rx_queue\n"
    rest = "00000000:00000000 00:00000000 00000000 0 0 4711 1\n"
    four = f"{head}   0: 0100007F:1F90 00000000:0000 0A {rest}   1: 0100007F:1F91 0100007F:0016 01 {rest}"
    six = f"{head}   0: 00000000000000000000000001000000:2382 00000000000000000000000000000000:0000 0A {rest}"
    found = sockets.parsed([four, six, ""])
    assert [(str(one.address), one.port) for one in found] == [("127.0.0.1", 8080), ("::1", 9090)]


@pytest.mark.parametrize(
    ("address", "host", "taken"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "10.0.0.5", False),
        ("127.0.0.1", "0.0.0.0", True),
        ("0.0.0.0", "10.0.0.5", True),
        ("0.0.0.0", "::1", False),
        ("::", "10.0.0.5", True),
        ("127.0.0.1", "::", True),
        ("127.0.0.1", "localhost", True),
        ("127.0.0.1", None, True),
    ],
)
def test_a_port_is_taken_where_both_would_listen(address: str, host: str | None, taken: bool) -> None:
    """Another address of the machine is another port; all addresses are each of them."""
    assert sockets.Listener(ip_address(address), 8080, "1").is_in_the_way_of(host) is taken


def test_doctor_without_the_mirrors_address_says_so(inside: Inside) -> None:
    """What was said to ``install`` alone is in no snapshot: doctor tells what it cannot compare."""
    found = {f.subject: f for f in PLATFORM.preflight(order(SITE, BASE), inside)}
    assert found["platform.systemd.skypilot.mirror"].code == "platform-unknown"
