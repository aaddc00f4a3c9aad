"""The package index as pips of several ages read it, from the live server and from nginx over an export."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from uv import find_uv_bin

from tests.support.mirror import BASE, SERVERS, Airgap, Crossed, crossed

PIPS = ("20.3.4", "22.2.2", "22.3.1", "23.0.1", "23.1.2", "")
"""HTML alone; JSON; JSON with ``dist-info-metadata`` and an error if that is an object (PEP 714), three of them, of
which Debian 12 has the second; the newest there is."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Crossed:
    """Everything that crosses, received."""
    return crossed(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module", params=SERVERS)
def gap(site: Crossed, request: pytest.FixtureRequest) -> Iterator[Airgap]:
    """Each server, in a network of its own."""
    with Airgap() as gap, SERVERS[request.param](site, gap):
        yield gap


@pytest.fixture(scope="module", params=PIPS, ids=lambda version: version or "newest")
def pip(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> tuple[str, Path]:
    """A version of pip, and the folder it is in."""
    folder = tmp_path_factory.mktemp("pip")
    wish = f"pip=={request.param}" if request.param else "pip"
    words = (find_uv_bin(), "pip", "install", "-q", "--no-config", "--no-deps", "--target", str(folder), wish)
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return request.param, folder


@pytest.mark.network
def test_pips_of_every_age_install(tmp_path: Path, gap: Airgap, pip: tuple[str, Path]) -> None:
    """Each finds a package and what it requires, and installs both."""
    version, folder = pip
    env = {
        "PYTHONPATH": str(folder),
        "PYTHONNOUSERSITE": "1",
        "HOME": str(tmp_path),
        "PIP_CONFIG_FILE": "/dev/null",
    }
    run = (sys.executable, "-W", "ignore", "-m", "pip")
    told = gap(*run, "--version", env=env)
    assert told.stdout.startswith(f"pip {version}"), told.stderr
    words = ("install", "--no-cache-dir", "--disable-pip-version-check", "--target", tmp_path / "to")
    done = gap(*run, *words, "--index-url", f"{BASE}/pypi/simple/", "demo", env=env, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {path.name for path in (tmp_path / "to").glob("*.dist-info")} == {
        "demo-1.0.dist-info",
        "base-2.0.dist-info",
    }
