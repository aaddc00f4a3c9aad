"""A site with machines of AWS behind Systems Manager and pods behind a proxy; the wrong one has a version without it."""

from __future__ import annotations

from pathlib import Path

from haversack.testing.contracts import PlatformSample

_DECLARATION = """\
[site]
name = "sample"
[env.lab]
kind = "pip"
requirements = ["requirements.txt"]
targets = ["linux-x86_64-py311"]
[platform.skypilot]
version = "{version}"
[platform.skypilot.aws]
vpc_name = "private-vpc"
security_group_name = "private-sg"
use_internal_ips = true
use_ssm = true
remote_identity = "site-nodes"
[platform.skypilot.kubernetes]
proxy = "http://proxy-host:3128"
no_proxy = ["localhost", "127.0.0.1", "10.0.0.0/8", ".svc", ".cluster.local"]
mirror = true
"""


def sample(folder: Path) -> PlatformSample:
    """The sample."""
    (folder / "requirements.txt").write_text("demo\n")
    for name, version in (("haversack.toml", "0.14.1"), ("wrong.toml", "0.10.2")):
        (folder / name).write_text(_DECLARATION.format(version=version))
    return PlatformSample(
        folder / "haversack.toml",
        folder / "wrong.toml",
        lambda _: None,
        always={"base_url": "https://mirror.example.org"},
    )
