"""A machine with both services; the wrong one would have its API server and its metrics at one port."""

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
[platform.systemd.skypilot]
package = "/opt/skypilot"
extraEnvironment = "export AWS_PROFILE=skypilot"
[platform.systemd.skypilot.webUI]
port = 18081
[platform.systemd.skypilot.cloudCredentials]
aws = "/nowhere/aws-credentials"
[platform.systemd.skypilot.monitoring]
enable = true
metricsPort = {port}
[platform.systemd.skypilot.config]
allowed_clouds = ["aws"]
[platform.systemd.skypilot.config.aws]
vpc_name = "private-vpc"
[platform.systemd.haversack]
package = "/opt/haversack"
port = 18082
"""


def sample(folder: Path) -> PlatformSample:
    """The sample."""
    (folder / "requirements.txt").write_text("demo\n")
    for name, port in (("haversack.toml", 18083), ("wrong.toml", 18081)):
        (folder / name).write_text(_DECLARATION.format(port=port))
    return PlatformSample(folder / "haversack.toml", folder / "wrong.toml", lambda _: None)
