"""SkyPilot itself, and the programs that haversack lays beside it.

::

    def test_something(sky: Path) -> None: ...              # its environment: a fixture of every module
    clusters = program("clusters")                          # one of our programs, as a module
"""

from __future__ import annotations

import fcntl
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from uv import find_uv_bin

import haversack
from tests.support.site import plain_environ

PROGRAMS = Path(haversack.__file__).parent / "data" / "skypilot"
WANTED = (
    "skypilot[aws,kubernetes]==0.14.1",
    "moto[server,ec2,ssm,iam]==5.2.5",
    "kubernetes-validate==1.37.0",
)


@pytest.fixture(scope="session")
def sky(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of an environment with SkyPilot and moto, made once a run, from PyPI.

    A gigabyte and a minute: workers of one run share it.  Skipped without a way to PyPI.
    """
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    folder = shared / "skypilot-oracle"
    python = folder / "bin" / "python"
    with (shared / "skypilot-oracle.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "READY").exists():
            for words in (
                ("venv", "-q", "--clear", "--python", sys.executable, folder),
                # It builds a wheel of itself with pip, and asks no index for what is there.
                ("pip", "install", "-q", "--python", python, *WANTED, "pip", "setuptools", "wheel"),
            ):
                done = subprocess.run([find_uv_bin(), *words], capture_output=True, text=True)
                if done.returncode:
                    pytest.skip(f"PyPI cannot be reached: {done.stderr[-300:]}")
            (folder / "READY").touch()
    return python.parent


def ask(sky: Path, script: str, given: Any, home: Path) -> Any:
    """What a script says as JSON in its last line, given something as JSON."""
    argv = [str(sky / "python"), "-W", "ignore", "-c", script]
    env = {**plain_environ(), "HOME": str(home), "SKYPILOT_DISABLE_USAGE_COLLECTION": "1"}
    done = subprocess.run(argv, input=json.dumps(given), capture_output=True, text=True, env=env, cwd=home)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


AMI = """\
import json, boto3
from moto import mock_aws
with mock_aws():
    images = boto3.client("ec2", region_name="us-west-2").describe_images()["Images"]
print(json.dumps(next(i["ImageId"] for i in images if i.get("RootDeviceType") == "ebs" and i.get("RootDeviceName")
                      and "Linux" in i.get("PlatformDetails", "Linux"))))
"""
"""A script for `ask`: an image of machines that moto knows, of the kind that SkyPilot takes."""


def end(namespace: str) -> None:
    """End every process of a network namespace: those of SkyPilot's server are in sessions of their own.

    One that was just started by another is found in the next round.
    """
    assert namespace.startswith("net:[")
    assert namespace != str(Path("/proc/self/ns/net").readlink())
    for _ in range(20):
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if str((process / "ns" / "net").readlink()) == namespace:
                    found.append(int(process.name))
        for number in found:
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        if not found:
            return
        time.sleep(0.1)


def program(name: str) -> Any:
    """One of our programs as a module, found as it finds the others: in the folder where it lies."""
    sys.path.insert(0, str(PROGRAMS))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(PROGRAMS))
