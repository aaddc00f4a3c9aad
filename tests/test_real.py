"""Real packages of PyPI, for this machine and for one that is quite another."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from packaging.tags import parse_tag
from packaging.utils import parse_wheel_filename

from haversack.formats import lockfile
from haversack.model.artifact import Artifact
from haversack.model.lock import Lock
from haversack.ports import cage
from haversack.ports.machine import base_python
from haversack.ports.run import Programs
from tests.support import tiny
from tests.support.site import here

pytestmark = [pytest.mark.network, pytest.mark.slow]

WANTED = ("numpy", "pandas", "scikit-learn")
FOREIGN = "windows-amd64-py312"
OLD = "linux-x86_64-manylinux2014-py311"


@dataclass(frozen=True)
class Real:
    """A site of real packages, locked."""

    root: Path
    store: Path
    lock: Lock

    def of(self, ref: str) -> dict[str, Artifact]:
        """The artifacts of an environment by name."""
        return {artifact.name: artifact for artifact in self.lock.by_environment()[ref]}


def run(root: Path, *words: str | Path) -> Any:
    """What haversack says with --json; without a way to PyPI the test is skipped."""
    done = tiny.haversack(*words, "--json", store=root / "store", cwd=root)
    if done.returncode == 6:
        pytest.skip(f"PyPI cannot be reached: {done.stdout[-300:]}")
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def locked(root: Path, requirements: str, targets: list[str], more: str = "") -> Real:
    """Declare and lock."""
    (root / "requirements.txt").write_text(requirements)
    (root / "haversack.toml").write_text(
        f'[site]\nname = "real"\n{here()}\n[env.analysis]\nkind = "pip"\n'
        f'requirements = ["requirements.txt"]\ntargets = {json.dumps(targets)}\n{more}\n'
    )
    run(root, "lock")
    path = root / lockfile.FILENAME
    return Real(root, root / "store", lockfile.read(path.read_bytes(), str(path))[0])


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Real:
    """numpy, pandas and scikit-learn for this machine, for an old Linux and for Windows."""
    check = "check = \"python -c 'import numpy, pandas, sklearn'\""
    return locked(tmp_path_factory.mktemp("real"), "\n".join(WANTED) + "\n", ["here", OLD, FOREIGN], check)


@pytest.fixture(scope="module")
def bundle(real: Real) -> Path:
    """The bundle of it."""
    told = run(real.root, "pack", "-o", "bundle")
    results = {rehearsal["ref"]: rehearsal["result"] for rehearsal in told["rehearsals"]}
    expected = "skipped" if Programs().cage() else "passed"
    assert results["analysis/here"] == expected
    assert results[f"analysis/{FOREIGN}"] == "skipped"
    return real.root / "bundle"


def test_markers_are_the_targets(real: Real) -> None:
    """What real packages require of Windows alone is locked for Windows alone."""
    windows, linux = real.of("haversack/windows-amd64"), real.of("haversack/linux-x86_64")
    assert "colorama" in windows
    assert "colorama" not in linux
    for ref in ("analysis/here", f"analysis/{OLD}", f"analysis/{FOREIGN}"):
        assert set(WANTED) <= real.of(ref).keys()


def test_every_wheel_is_of_its_target(real: Real) -> None:
    """Each wheel of each target has a tag that this target accepts, and the old Linux gets old wheels."""
    for environment in real.lock.environments:
        accepted = set(real.lock.target(environment.target).tags())
        for artifact in real.of(environment.ref).values():
            _, _, _, tags = parse_wheel_filename(artifact.filename)
            assert tags & accepted, f"{artifact.filename} in {environment.ref}"
    assert real.of(f"analysis/{FOREIGN}")["numpy"].filename.endswith("cp312-cp312-win_amd64.whl")
    oldest = real.of(f"analysis/{OLD}")["numpy"].filename
    assert re.search(r"manylinux(2014|_2_17)_x86_64", oldest)
    assert not parse_tag("cp311-cp311-win_amd64") & parse_wheel_filename(oldest)[3]


def test_pip_agrees(real: Real) -> None:
    """For this machine pip itself, asked for the same, chooses the same files by the same digests."""
    argv = [
        sys.executable,
        "-I",
        "-m",
        "pip",
        "--isolated",
        "install",
        "--dry-run",
        "--quiet",
        "--report",
        "-",
    ]
    argv += ["--ignore-installed", "--only-binary", ":all:", *WANTED]
    env = tiny.environ(real.store) | {"PIP_CONFIG_FILE": "/dev/null"}
    done = subprocess.run(argv, capture_output=True, text=True, env=env, check=False)
    if done.returncode:
        pytest.skip(f"pip is not here, or PyPI is not: {done.stderr[-300:]}")
    theirs = {
        f"sha256:{item['download_info']['archive_info']['hashes']['sha256']}"
        for item in json.loads(done.stdout)["install"]
    }
    assert {artifact.digest for artifact in real.of("analysis/here").values()} == theirs


def test_locking_again_gives_equal_bytes(real: Real) -> None:
    """A second lock, and one without the first to keep to, are the same bytes."""
    path = real.root / lockfile.FILENAME
    data = path.read_bytes()
    assert run(real.root, "lock")["changed"] is False
    run(real.root, "lock", "--check", "--upgrade")
    assert path.read_bytes() == data


def test_it_works_behind_the_gap(real: Real, bundle: Path, tmp_path: Path) -> None:
    """Received and installed with no network, the real packages import, compute and are whole."""
    reason = Programs().cage()
    if reason:
        pytest.skip(reason)
    script = (
        "import numpy, pandas\nfrom sklearn.linear_model import LinearRegression\n"
        "frame = pandas.DataFrame({'x': numpy.arange(9.0), 'y': 3 * numpy.arange(9.0) + 1})\n"
        "model = LinearRegression().fit(frame[['x']], frame['y'])\nprint(round(model.coef_[0], 6))\n"
    )
    store = tmp_path / "inside"
    steps: list[list[str | Path]] = [
        [*tiny.command("verify", bundle)],
        [*tiny.command("receive", bundle)],
        [*tiny.command("install", "analysis", "--to", tmp_path / "env", "--check")],
        [*tiny.command("doctor", "--env", tmp_path / "env")],
        [tmp_path / "env" / "bin" / "python", "-I", "-c", script],
    ]
    for step in steps:
        argv = [base_python(), "-I", "-S", cage.__file__, *step]
        done = subprocess.run(argv, env=tiny.environ(store), capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{step}: {done.stdout}{done.stderr}"
    assert done.stdout == "3.0\n"


def test_next_month_costs_only_what_is_new(real: Real, bundle: Path, tmp_path: Path) -> None:
    """After a requirement more, the increment on the site's receipt holds the new files and no old one."""
    assert bundle.is_dir()
    taken = tiny.haversack("receive", bundle, store=tmp_path / "inside")
    assert taken.returncode == 0, taken.stderr
    receipt = tiny.haversack("receipt", store=tmp_path / "inside")
    (tmp_path / "site.receipt").write_text(receipt.stdout)
    before = (real.root / "requirements.txt").read_text()
    try:
        more = locked(real.root, before + "tabulate\n", ["here"])
        told = run(
            real.root, "pack", "-o", tmp_path / "more", "--base", tmp_path / "site.receipt", "--no-rehearse"
        )
    finally:
        (real.root / "requirements.txt").write_text(before)
    assert "tabulate" in more.of("analysis/here")
    assert told["bytes"] < 1_000_000
    assert tiny.haversack("receive", tmp_path / "more", store=tmp_path / "inside").returncode == 0


def test_a_real_source_distribution_is_built(tmp_path: Path) -> None:
    """A package that never had a wheel is built with real setuptools, whose version the lock tells, twice alike."""
    made = locked(tmp_path, "docopt==0.6.2\n", ["here", FOREIGN], "build = true")
    artifact = made.of("analysis/here")["docopt"]
    assert artifact == made.of(f"analysis/{FOREIGN}")["docopt"]
    assert artifact.origin.startswith("built:sha256:")
    assert "setuptools" in {tool["name"] for tool in artifact.facts["built"]["requires"]}
    data = (tmp_path / lockfile.FILENAME).read_bytes()
    (tmp_path / lockfile.FILENAME).unlink()
    (tmp_path / "store").rename(tmp_path / "other")
    run(tmp_path, "lock")
    assert (tmp_path / lockfile.FILENAME).read_bytes() == data
