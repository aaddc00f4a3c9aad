"""Jupyter: what is rendered for it, read by jupyter_client, and a kernel that really runs."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from haversack.conda.entering import Entered
from haversack.formats import prefixes
from haversack.formats.prefixes import Marker
from haversack.hpc.installed import Installed
from haversack.model.artifact import digest_of
from haversack.model.lock import LockedEnvironment
from haversack.model.snapshot import Snapshot, SnapshotEnvironment
from haversack.model.target import ANY
from haversack.platforms import Order
from haversack.platforms.jupyter import PLATFORM, _kernel
from tests.support import tiny
from tests.support.site import Lab, plain_environ
from tests.support.tiny import haversack

# What Jupyter itself does with a kernel: find it, start it, ask it something.
_ASK = """\
import json, sys
from jupyter_client.manager import start_new_kernel
from jupyter_client.kernelspec import KernelSpecManager
manager, client = start_new_kernel(kernel_name=sys.argv[1], startup_timeout=120)
said = []
client.execute_interactive(
    "import os, shutil, sys; print(sys.prefix); print(shutil.which('python')); print(os.environ.get('VIRTUAL_ENV'))",
    timeout=120, output_hook=lambda message: said.append(message["content"].get("text", "")),
)
manager.shutdown_kernel(now=True)
client.stop_channels()
print(json.dumps([sorted(KernelSpecManager().find_kernel_specs()), "".join(said).split()]))
"""


@pytest.mark.network
@pytest.mark.slow
def test_jupyter_runs_what_is_rendered(tmp_path: Path) -> None:
    """From `[platform.jupyter]` to a kernel that jupyter_client finds and starts in the installed environment, with no network."""
    shared, store = tmp_path / "shared", tmp_path / "inside"
    with Lab(tmp_path / "outside") as lab:
        done = subprocess.run(
            [sys.executable, "-m", "pip", "download", "-q", "-d", lab.wheels, "ipykernel==6.29.5"],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        more = f'[platform.jupyter]\nkernels = "{shared}/share/jupyter/kernels"\nenvs = ["lab"]\n'
        more += f'prefixes = "{shared}/envs"\n'
        # Of what it needs, matplotlib_inline imports a package that it does not ask for.
        lab.declare("ipykernel==6.29.5", env='check = "python -m ipykernel_launcher --version"', more=more)
        for words in (("lock",), ("pack", "-o", tmp_path / "bundle", "--name", "2026-11")):
            done = lab(*words)
            assert done.returncode == 0, done.stdout + done.stderr

    def must(*words: str | Path) -> str:
        done = haversack(*words, store=store)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    must("receive", tmp_path / "bundle")
    prefix = shared / "envs" / "lab" / "2026-11"
    must("install", "lab", "--to", prefix)
    must("render", "jupyter", "-o", shared / "share" / "jupyter" / "kernels")
    found = json.loads(haversack("doctor", "jupyter", "--json", store=store).stdout)
    # Folders of tests are closed to others.
    told = [one["subject"] for one in found["findings"] if "is closed to others" not in one["message"]]
    assert told == ["Jupyter"]

    # The hub has a Python of its own, which only holds jupyter_client; here it borrows the environment's.
    env = {**plain_environ(), "JUPYTER_PATH": str(shared / "share" / "jupyter"), "HOME": str(tmp_path)}
    argv = [
        "unshare",
        "-n",
        "sh",
        "-c",
        'ip link set lo up && exec "$@"',
        "-",
        str(prefix / "bin" / "python"),
    ]
    done = subprocess.run([*argv, "-c", _ASK, "lab-2026-11"], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    kernels, said = json.loads(done.stdout.splitlines()[-1])
    assert {"lab", "lab-2026-11"} <= set(kernels)
    assert said == [str(prefix), str(prefix / "bin" / "python"), str(prefix)]

    # Without ipykernel the doctor says what would happen.
    shutil.rmtree(next(prefix.glob("lib/python*/site-packages/ipykernel")))
    found = json.loads(haversack("doctor", "jupyter", "--json", store=store).stdout)
    assert any("has no ipykernel" in finding["message"] for finding in found["findings"])


GOLDEN = Path(__file__).parent / "golden" / "jupyter"
ORIGIN = "Written by haversack render jupyter, of snapshot 2026-11 (sha256:2222…), declaration sha256:3333…."


def ordered(root: Path, envs: list[str], installed: list[tuple[str, str]], current: str) -> Order:
    """What is asked of a site below ``root`` that has these environments and versions installed."""
    for name, version in installed:
        prefix = root / "envs" / name / version
        prefix.mkdir(parents=True)
        (prefix / "pyvenv.cfg").touch()
        snapshot = digest_of(version.encode())
        marker = Marker(f"{name}/node", snapshot, snapshot, str(prefix))
        (prefix / prefixes.MARKER).write_bytes(prefixes.write(marker))
    settings = {"kernels": f"{root}/kernels", "envs": envs}
    locked = LockedEnvironment("platform.jupyter", ANY.name, "platform", settings=settings)
    digest = digest_of(current.encode())
    content = Snapshot(digest, digest, (SnapshotEnvironment(locked, ANY, (), digest),), (), {})
    names = {version: digest_of(version.encode()) for _, version in installed}
    return Order(settings, content, current, names, ORIGIN)


def test_kernels_are_the_golden_ones(tmp_path: Path) -> None:
    """A kernel of each installed snapshot, and one that follows the current snapshot, byte for byte."""
    order = ordered(tmp_path, ["lab"], [("lab", "2026-10"), ("lab", "2026-11")], "2026-11")
    made = PLATFORM.render(order, tiny.inside(tmp_path / "store"))
    assert made.findings == ()
    texts = {name: data.decode().replace(str(tmp_path), "/shared") for name, data in made.files.items()}
    assert texts == {
        path.relative_to(GOLDEN).as_posix(): path.read_text() for path in sorted(GOLDEN.rglob("*.json"))
    }


@pytest.mark.parametrize(
    ("envs", "installed", "kernel"),
    [
        (["lab", "lab-gpu"], [("lab", "gpu"), ("lab-gpu", "2026-11")], "lab-gpu"),
        (["lab", "Lab"], [("lab", "2026-10"), ("Lab", "2026-10")], "lab-2026-10"),
    ],
)
def test_two_kernels_of_one_name_are_refused(
    tmp_path: Path, envs: list[str], installed: list[tuple[str, str]], kernel: str
) -> None:
    """Where two would have one name, which Jupyter has in small letters, neither is silently the other."""
    order = ordered(tmp_path, envs, installed, "2026-11")
    found = PLATFORM.render(order, tiny.inside(tmp_path / "store")).findings
    blocking = [finding for finding in found if finding.blocking]
    assert [finding.subject for finding in blocking] == [kernel]
    assert all(str(tmp_path / "envs" / name / version) in blocking[0].remedy for name, version in installed)
    assert blocking[0] in PLATFORM.preflight(order, tiny.inside(tmp_path / "store"))


def test_a_kernel_that_others_may_not_read_is_told(tmp_path: Path) -> None:
    """What a umask closed, a kernel or its environment, is told with the command that opens it."""
    order = ordered(tmp_path, ["lab"], [("lab", "2026-11")], "2026-11")
    prefix, kernels = tmp_path / "envs" / "lab" / "2026-11", tmp_path / "kernels"
    for name, data in PLATFORM.render(order, tiny.inside(tmp_path / "store")).files.items():
        (kernels / name).parent.mkdir(parents=True, exist_ok=True)
        (kernels / name).write_bytes(data)
    for folder in (prefix, kernels / "lab"):
        folder.chmod(0o700)
    found = PLATFORM.preflight(order, tiny.inside(tmp_path / "store"))
    told = {one.subject: one.remedy for one in found if "is closed to others than" in one.message}
    for folder in (prefix, kernels):
        assert told[str(folder)] == f"chmod -R a+rX {folder}"


def test_folders_of_packages_keep_their_side_of_path() -> None:
    """What a package puts before or behind the programs of everybody stays there in a kernel; a dollar sign is none of Jupyter's."""
    lab = Path("/envs/lab/1")
    installed = Installed("lab", "1", lab, lab, Marker("lab/here", "sha256:0", "sha256:1", str(lab)))
    does = Entered(
        (("PATH", "/envs/lab/1/bin"), ("XDG_DATA_DIRS", "/a$b")), {"X": "$HOME"}, (("PATH", "/last"),)
    )
    order = Order({}, None, "1", {}, "Written by a test.")  # type: ignore[arg-type]
    kernel = json.loads(_kernel(order, installed, does, "lab"))
    assert kernel["env"]["PATH"] == "/envs/lab/1/bin:${PATH}:/last"
    assert kernel["env"]["XDG_DATA_DIRS"] == "/a$$b"
    assert kernel["env"]["X"] == "$$HOME"
