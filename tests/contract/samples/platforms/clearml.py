"""An enterprise site with two queues, and a values file of somebody whose images are rewritten."""

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
[platform.clearml]
flavor = "{flavor}"
session = "0.17.0"
registry_secret = "site-registry"
queues = ["gpu", "cpu"]
deliver = ["helm", "agent-conf", "vault"]
"""


def sample(folder: Path) -> PlatformSample:
    """The sample."""
    (folder / "requirements.txt").write_text("demo\n")
    # A community server has no vault.
    for name, flavor in (("haversack.toml", "enterprise"), ("wrong.toml", "community")):
        (folder / name).write_text(_DECLARATION.format(flavor=flavor))
    values = folder / "values.yaml"
    values.write_text("agentk8sglue:\n  image:\n    repository: allegroai/agent\n    tag: '1.0'\n")
    return PlatformSample(
        folder / "haversack.toml",
        folder / "wrong.toml",
        lambda _: None,
        {"values": str(values)},
        always={"base_url": "https://mirror.example.org"},
    )
