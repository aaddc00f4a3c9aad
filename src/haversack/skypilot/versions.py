"""Which version of SkyPilot has what.

Older versions refuse an option that they do not have, or ignore it without a word (everything below
``kubernetes``).  The table was read from ``sky/utils/schemas.py`` and ``sky/clouds`` of each wheel.
"""

from __future__ import annotations

from collections.abc import Iterable

from packaging.version import Version

OPTIONS = {
    "allowed_clouds": "0.9.3",
    "aws.disk_encrypted": "0.9.3",
    "aws.post_provision_runcmd": "0.10.3",
    "aws.remote_identity": "0.9.3",
    "aws.security_group_name": "0.9.3",
    "aws.ssh_proxy_command": "0.9.3",
    "aws.subnet_names": "0.12.1",
    "aws.use_internal_ips": "0.9.3",
    "aws.use_ssm": "0.10.3",
    "aws.vpc_name": "0.9.3",
    "aws.vpc_names": "0.11.2",
    "kubernetes.allowed_contexts": "0.9.3",
    "kubernetes.apt_mirrors": "0.12.3",
    "kubernetes.pod_config": "0.9.3",
    "kubernetes.remote_identity": "0.9.3",
    "provision.install_conda": "0.11.2",
}
"""The first version that has each option that haversack writes."""
OLDEST, NEWEST = "0.9.3", "0.14.1"
"""The versions between which that is known."""
RAY = "2.9.3"
"""What every one of them installs on its nodes (``sky/skylet/constants.py``)."""
CONTAINER = "ray-node"
"""What every one of them calls the container of a pod (``sky/templates/kubernetes-ray.yml.j2``)."""


def lacking(version: str, options: Iterable[str]) -> dict[str, str]:
    """The options that a version does not have, with the first version that does."""
    return {name: OPTIONS[name] for name in sorted(set(options)) if Version(version) < Version(OPTIONS[name])}


def is_known(version: str) -> bool:
    """Whether somebody has looked into this version: into each one between these two, and into none after them."""
    return Version(OLDEST) <= Version(version) <= Version(NEWEST)


def installs_conda(version: str) -> bool:
    """Whether a node fetches conda's installer from the internet unless it is told not to."""
    return Version(version) < Version("0.14.0")


def catalogs(version: str) -> str:
    """The folder of its catalogs, below ``~/.sky/catalogs``."""
    return "v8" if Version(version) >= Version("0.10.4") else "v7"


def pod_images(version: str) -> tuple[str, str]:
    """By what tags it asks its catalog for the image of a pod, without and with a GPU."""
    known = (("0.14.0", "2204-v1"), ("0.12.3", "2204"))
    system = next((name for first, name in known if Version(version) >= Version(first)), "2004")
    return f"skypilot:custom-cpu-ubuntu-{system}", f"skypilot:custom-gpu-ubuntu-{system}"


def machine_images(version: str) -> tuple[str, ...]:
    """By what tags it asks its catalog for the AMI of a virtual machine with an x86 processor.

    For ARM it has tags of its own since 0.10.4 (``sky/clouds/aws.py``), and an AMI is of one processor.
    """
    newer = ("skypilot:custom-gpu-ubuntu-cuda13",) if Version(version) >= Version("0.13.0") else ()
    plain = ("skypilot:custom-cpu-ubuntu", "skypilot:custom-gpu-ubuntu")
    return (*plain, *newer, "skypilot:k80-ubuntu-2004", "skypilot:neuron-ubuntu-2204")


def on_nodes(version: str) -> tuple[str, ...]:
    """What its setup installs on every node beside itself (``sky/skylet/constants.py``).

    ``uv venv --seed`` asks for pip, setuptools and wheel, its setup for older setuptools.
    """
    pinned = ("pydantic-core==2.41.1",) if Version(version) >= Version("0.10.4") else ()
    return ("uv", "pip", "wheel", "setuptools<70", "click<8.3.0", f"ray[default]=={RAY}", *pinned)
