"""A hub with one environment, whose place on the shared file system is a virtual environment's."""

from __future__ import annotations

from pathlib import Path

from haversack.formats import prefixes
from haversack.model.snapshot import Snapshot
from haversack.testing.contracts import PlatformSample

_DECLARATION = """\
[site]
name = "sample"
[env.lab]
kind = "pip"
requirements = ["requirements.txt"]
targets = ["linux-x86_64-py311"]
[platform.jupyter]
kernels = "{folder}/shared/kernels"
envs = ["{env}"]
"""


def sample(folder: Path) -> PlatformSample:
    """The sample."""
    (folder / "requirements.txt").write_text("demo\n")
    for name, env in (("haversack.toml", "lab"), ("wrong.toml", "lap")):
        # What is declared is a place inside, and not one of the machine that locks.
        (folder / name).write_text(_DECLARATION.format(folder=folder.parent, env=env))

    def prepare(snapshot: Snapshot) -> None:
        prefix = folder.parent / "shared" / "envs" / "lab" / "2026-11"
        prefix.mkdir(parents=True)
        (prefix / "pyvenv.cfg").touch()
        marker = prefixes.Marker("lab/here", snapshot.lock, snapshot.id, str(prefix))
        (prefix / prefixes.MARKER).write_bytes(prefixes.write(marker))
        (folder.parent / "shared" / "kernels").mkdir()

    return PlatformSample(folder / "haversack.toml", folder / "wrong.toml", prepare)
