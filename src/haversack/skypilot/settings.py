"""The keys of ``[platform.skypilot]``, and what of them contradicts each other or the version."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from haversack.formats import hosts
from haversack.formats.pullsecret import NAME as SECRET
from haversack.formats.pullsecret import NAME_SAYS as SECRET_SAYS
from haversack.formats.schema import URL, Key, KindKeys
from haversack.images.reference import PATTERN
from haversack.model.finding import Finding
from haversack.skypilot import amazon, proxies, secrets, versions
from haversack.skypilot.catalogs import SOURCE
from haversack.skypilot.config import mirrors, options

_NAME = r"[^\x00-\x1f\x7f*]+"
_TEXT = r"[^\x00-\x1f\x7f]+"
_REGION = r"[a-z]{2}(?:-[a-z]+)+-[0-9]"
_HOST = r"[A-Za-z0-9.-]+"
# What can be an address and no name.
_NUMBERS = re.compile(r"[0-9.]+|.*:.*")

AWS = KindKeys(
    "Virtual machines of AWS in a private network.",
    {
        "regions": Key("strings", "Regions to use; without the key all.", pattern=_REGION, expects="a region like us-west-2"),
        "vpc_name": Key("string", "Name tag of the VPC.", pattern=_NAME, expects="a name, without *"),
        "vpc_names": Key("strings", "Name tags of VPCs, tried in turn.", pattern=_NAME, expects="a name, without *"),
        "subnet_names": Key("strings", "Name tags of subnets to use of the VPC.", pattern=_NAME, expects="a name, without *"),
        "security_group_name": Key("string", "Name of the security group.", pattern=_NAME, expects="a name, without *"),
        "use_internal_ips": Key("boolean", "Machines have private addresses alone."),
        "use_ssm": Key("boolean", "Reach machines through Systems Manager."),
        "ssh_proxy_command": Key("string", "Reach machines through this command of ssh instead.", pattern=_TEXT, expects="one line"),
        "remote_identity": Key(
            "string",
            "Instance profile of machines; SkyPilot's own lets them do more than they need, and not use Systems Manager.",
            pattern=r"[A-Za-z0-9+=,.@_-]+",
            expects="the name of an instance profile",
        ),
        "disk_encrypted": Key("boolean", "Encrypt disks."),
        "ami": Key(
            "string", "Image of all machines (x86), in the one region; without the key SkyPilot's own.",
            pattern="ami-[0-9a-f]{8,17}", expects="an AMI like ami-0123456789abcdef0",
        ),
        "apt_mirror": Key(
            "string", "Mirror of Ubuntu's packages from which machines take them; without the key apt stays as the image has it.",
            pattern=rf"https?://(?:{hosts.NAME})(?::[0-9]{{1,5}})?(?:/[A-Za-z0-9._~/-]*)?", expects="an address like https://mirror.example.org/ubuntu",
        ),
        "mirror": Key("boolean", "Machines have no way out: all packages come from this site.", default=False),
    },
)  # fmt: skip

KUBERNETES = KindKeys(
    "Pods of Kubernetes.",
    {
        "contexts": Key("strings", "Contexts of kubectl to use.", pattern=_TEXT, expects="a context of kubectl"),
        "proxy": Key("string", "Proxy of pods, as http://HOST:PORT."),
        "proxy_secret": Key(
            "string", "Name of the Kubernetes secret whose key `proxy` is the URL of the proxy, where that holds a password.",
            pattern=SECRET, expects=SECRET_SAYS,
        ),
        "no_proxy": Key(
            "strings", "What pods reach without the proxy, beside what pods of SkyPilot always do.",
            pattern=proxies.ENTRY, expects=proxies.ENTRY_SAYS, only_with=("proxy", "proxy_secret"),
        ),
        "cidrs": Key(
            "strings", "Networks of the cluster's pods and services.",
            pattern=r"[0-9A-Fa-f:.]+/[0-9]{1,3}", expects="a network like 10.96.0.0/12", only_with=("proxy", "proxy_secret"),
        ),
        "api_server": Key(
            "string", "Host or address of the API server, as pods reach it.",
            pattern=rf"{hosts.NAME}|[0-9A-Fa-f]*:[0-9A-Fa-f]*:[0-9A-Fa-f:.]*", expects="a host or an address, without a port", only_with=("proxy", "proxy_secret"),
        ),
        "mirror": Key("boolean", "Pods have no way out: all packages come from this site.", default=False),
        "image": Key(
            "string", "Image of pods, with SkyPilot's runtime in it; it is carried. Without the key SkyPilot's own.",
            pattern=PATTERN, expects="the name of an image with its host",
        ),
        "image_pull_secrets": Key("strings", "Names of Kubernetes secrets with which images are pulled.", pattern=SECRET, expects=SECRET_SAYS),
        "apt_mirrors": Key(
            "strings", "Hosts of mirrors of Ubuntu's packages, for what an image lacks; with mirror there are none without the key.",
            pattern=_HOST, expects="the name of a host",
        ),
        "remote_identity": Key("string", "Service account of pods.", pattern=SECRET, expects="the name of a service account"),
    },
)  # fmt: skip

KEYS = KindKeys(
    "SkyPilot, on AWS and Kubernetes without a way to the internet.",
    {
        "version": Key(
            "string",
            "Version of SkyPilot.",
            required=True,
            pattern=r"[0-9]+\.[0-9]+\.[0-9]+(?:\.post[0-9]+)?",
            expects=f"a version like {versions.NEWEST}",
        ),
        "endpoint": Key("url", "Where clients reach the API server of SkyPilot."),
        "targets": Key(
            "strings",
            "Targets of the API server and of clients; without the key every target of the declaration.",
        ),
        "nodes": Key(
            "strings",
            "Targets of nodes, for which SkyPilot's runtime is locked; without the key linux-x86_64-glibc2.31-py310.",
        ),
        "catalogs": Key(
            "string",
            "Where the catalogs are fetched from; without the key the newest ones of SkyPilot's project.",
            pattern=URL,
            expects=f"an address without user name or password, like {SOURCE}",
        ),
        "aws": Key(AWS, AWS.description),
        "kubernetes": Key(KUBERNETES, KUBERNETES.description),
    },
)


def faults(settings: Mapping[str, Any]) -> Iterator[Finding]:
    """Everything that is wrong with the settings by themselves."""
    version = settings["version"]
    aws, kubernetes = settings.get("aws"), settings.get("kubernetes")
    if aws is None and kubernetes is None:
        yield fault("", "names no cloud", "add [platform.skypilot.aws] or [platform.skypilot.kubernetes]")
    if not versions.is_known(version):
        said = f"{version} is none of the versions {versions.OLDEST} to {versions.NEWEST} that are known here"
        yield fault("version", said, "look through what is rendered before you use it", blocking=False)
    for option, first in versions.lacking(version, options(settings)).items():
        cloud, _, key = option.partition(".")
        if key == "post_provision_runcmd":
            key = "mirror" if (aws or {}).get("mirror") else "apt_mirror"
        said = f"needs the option {option} of SkyPilot, which {version} does not have"
        yield fault(f"{cloud}.{key}", said, f"take SkyPilot {first} or later, or leave {key} out")
    yield from _aws(amazon.of(version, aws or {}))
    yield from _kubernetes(kubernetes or {})
    lacking = versions.lacking(version, ["provision.install_conda"])
    if mirrors(settings) and versions.installs_conda(version) and lacking:
        said = f"{version} fetches conda's installer on every node, and cannot be told not to"
        remedy = f"take SkyPilot {versions.OPTIONS['provision.install_conda']} or later"
        yield fault("version", said, remedy, blocking=False)


def _aws(aws: Mapping[str, Any]) -> Iterator[Finding]:
    if aws.get("use_ssm") and "ssh_proxy_command" in aws:
        yield fault(
            "aws.use_ssm",
            "excludes ssh_proxy_command: SkyPilot launches nothing with both",
            "leave one of them out",
        )
    if "apt_mirror" in aws and hosts.is_here(urlsplit(aws["apt_mirror"]).hostname or ""):
        said = "is the machine itself to a machine of AWS"
        yield fault("aws.apt_mirror", said, "write the name by which machines reach it")
    if secrets.in_command(aws.get("ssh_proxy_command", "")):
        said = "holds a password, and goes into locks, bundles and files"
        remedy = (
            "change that password, and let the command read it where the server runs: a file of ssh, or $NAME"
        )
        yield fault("aws.ssh_proxy_command", said, remedy)
    if "vpc_name" in aws and "vpc_names" in aws:
        yield fault("aws.vpc_names", "excludes vpc_name", "write one of them")
    if "ami" in aws and len(aws.get("regions", ())) != 1:
        yield fault("aws.ami", "is an image of one region", "name that one in regions")
    if amazon.through_ssm(aws) and amazon.profile(aws) is None:
        said = "names no instance profile, and the role that SkyPilot makes lacks AmazonSSMManagedInstanceCore: nobody reaches its machines through SSM"
        yield fault(
            "aws.remote_identity", said, "name an instance profile that has this policy", blocking=False
        )


def _kubernetes(kubernetes: Mapping[str, Any]) -> Iterator[Finding]:
    proxy, secret = kubernetes.get("proxy"), kubernetes.get("proxy_secret")
    if proxy is not None and secret is not None:
        yield fault("kubernetes.proxy_secret", "excludes proxy", "write one of them")
    if proxy is not None and (wrong := proxies.fault(proxy)):
        yield fault("kubernetes.proxy", *wrong)
    given = (*kubernetes.get("no_proxy", ()), *kubernetes.get("cidrs", ()))
    for entry in given:
        if re.fullmatch(r"[0-9A-Fa-f:.]+/[0-9]+", entry) and not proxies.is_network(entry):
            yield fault("kubernetes.no_proxy", f"{entry} is no network", "write one like 10.96.0.0/12")
    api = kubernetes.get("api_server")
    if api is not None and (hosts.is_here(api) or (not proxies.is_network(api) and _NUMBERS.fullmatch(api))):
        said = "is no host or address by which pods reach the API server"
        yield fault("kubernetes.api_server", said, "write it without a port, as k8s.example.org or 10.96.0.1")
    held = api is not None or any(map(proxies.is_of_cluster, kubernetes.get("no_proxy", ())))
    if (proxy or secret) and not held and not any(map(proxies.is_address, kubernetes.get("cidrs", ()))):
        said = "does not hold the API server of Kubernetes, which pods reach by an address of the services' network"
        remedy = 'write that network: cidrs = ["10.96.0.0/12"]; kubectl get service kubernetes -n default tells the address'
        yield fault("kubernetes.no_proxy", said, remedy)


def fault(key: str, said: str, remedy: str, *, blocking: bool = True) -> Finding:
    """A finding about a key."""
    subject = f"platform.skypilot.{key}".rstrip(".")
    return Finding("platform-setting", subject, said, remedy, blocking=blocking)
