"""Slurm: what is rendered for it, and that a real one runs it, with nothing but a loopback."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from haversack.conda import activation
from haversack.conda.layout import Layout
from haversack.errors import PrefixError
from haversack.formats import prefixes, rendered
from haversack.verbs.packed import stale
from tests.support.site import Lab, plain_environ
from tests.support.slurm import Cluster
from tests.support.tiny import command, haversack
from tests.support.wheels import make_wheel

INIT = "/etc/profile.d/modules.sh"


@dataclass(frozen=True)
class Site:
    """A store inside with two snapshots, both installed, and the modulefiles of the second."""

    folder: Path

    @property
    def store(self) -> Path:
        """The store inside."""
        return self.folder / "inside"

    @property
    def modules(self) -> Path:
        """The folder that people `module use`."""
        return self.folder / "shared" / "modulefiles"

    def prefix(self, name: str, version: str) -> Path:
        """Where a version of an environment is installed."""
        return self.folder / "shared" / "envs" / name / version

    def __call__(self, *words: str | Path, **more: Any) -> subprocess.CompletedProcess[str]:
        """Run haversack inside."""
        return haversack(*words, store=self.store, **more)

    def must(self, *words: str | Path) -> str:
        """What haversack prints when it succeeds."""
        done = self(*words)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """From a declaration with a platform to rendered modulefiles, each step a process of its own."""
    folder = tmp_path_factory.mktemp("slurm")
    site = Site(folder)
    with Lab(folder / "outside") as lab:
        more = '[env.geo]\nkind = "pip"\nrequirements = ["requirements.txt"]\ntargets = ["here"]\n'
        more += f'[platform.slurm]\nmodules = "{site.modules}"\nenvs = ["lab", "geo"]\n'
        for name, version in (("2026-10", "1.0"), ("2026-11", "2.0")):
            make_wheel(lab.wheels, "demo", version)
            lab.declare(f"demo=={version}", more=more)
            for words in (("lock",), ("pack", "-o", folder / name, "--name", name)):
                done = lab(*words)
                assert done.returncode == 0, done.stdout + done.stderr
            site.must("receive", folder / name)
            for env in ("lab", "geo"):
                site.must("install", env, "--snapshot", name, "--to", site.prefix(env, name))
    site.must("render", "slurm", "-o", site.modules)
    return site


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A real Slurm of one node."""
    with Cluster(tmp_path_factory.mktemp("cluster") / "c") as cluster:
        yield cluster


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A real Slurm of two nodes, each with a disk of its own."""
    with Cluster(tmp_path_factory.mktemp("pair") / "c", nodes=2) as cluster:
        yield cluster


def shell(site: Site, script: str) -> subprocess.CompletedProcess[str]:
    """A login shell that uses the modules of the site."""
    text = f". {INIT}\nmodule use {site.modules}\n{script}"
    return subprocess.run(
        ["bash", "--norc", "--noprofile", "-c", text], env=plain_environ(), capture_output=True, text=True
    )


def test_a_platform_is_no_list_of_files(site: Site) -> None:
    """A bundle tells people without haversack of environments that have files, and only names a platform."""
    volume = site.folder / "2026-11" / "volume-001"
    assert not list((volume / "environments").glob("platform*"))
    assert "platform.slurm/any" in (volume / "README.txt").read_text()
    assert "environments/geo.here." in (volume / "README.txt").read_text()


# Modules


def test_a_module_of_each_installed_snapshot(site: Site) -> None:
    """Every environment and snapshot that is installed is a module, the current one by default."""
    done = shell(site, "module --json avail")
    told = json.loads(done.stdout + done.stderr)[str(site.modules)]
    assert sorted(name for name in told) == ["geo/2026-10", "geo/2026-11", "lab/2026-10", "lab/2026-11"]
    assert sorted(name for name, about in told.items() if "default" in about["symbols"]) == [
        "geo/2026-11",
        "lab/2026-11",
    ]


@pytest.mark.parametrize(
    ("module", "version"), [("lab/2026-10", "1.0"), ("lab/2026-11", "2.0"), ("lab", "2.0")]
)
def test_python_is_that_of_the_module(site: Site, module: str, version: str) -> None:
    """After `module load` the first python is the environment's, with the packages of that snapshot."""
    ask = "import importlib.metadata as m, sys; print(sys.prefix, m.version('demo'))"
    done = shell(site, f'module load {module} && python -c "{ask}" && echo "$VIRTUAL_ENV"')
    name = "2026-10" if version == "1.0" else "2026-11"
    prefix = str(site.prefix("lab", name))
    assert done.stdout.split() == [prefix, version, prefix], done.stderr


@pytest.mark.parametrize("second", ["lab/2026-11", "geo/2026-10"])
def test_two_environments_are_not_loaded_at_once(site: Site, second: str) -> None:
    """A second snapshot of an environment, or a second environment, is a conflict; the first one stays."""
    done = shell(
        site, f"module load lab/2026-10; module load {second}; module -t list 2>&1; command -v python"
    )
    assert "conflict" in done.stderr.lower()
    assert second not in done.stdout
    assert done.stdout.splitlines()[-1] == f"{site.prefix('lab', '2026-10')}/bin/python"


def test_unloading_leaves_no_trace(site: Site) -> None:
    """The variables of a shell are the same before a module is loaded and after it is unloaded."""
    keep = "grep -zv '^\\(_\\|__MODULES.*\\|LOADEDMODULES\\|_LMFILES_\\|BASH_FUNC.*\\)=' | sort -z | tr '\\0' '\\n'"
    done = shell(site, f"env -0 | {keep}; echo ----; module load lab; module unload lab; env -0 | {keep}")
    before, after = done.stdout.split("----\n")
    assert before == after
    assert "PATH=" in before


def test_a_conda_environment_is_activated_whole(site: Site, tmp_path: Path) -> None:
    """Variables, and what packages bring to be sourced, are set by the module too, whatever their characters."""
    prefix = site.prefix("geo", "2026-09")
    (prefix / "conda-meta").mkdir(parents=True)
    scripts = prefix / "etc" / "conda" / "activate.d"
    scripts.mkdir(parents=True)
    odd = "a $b [c] {d \"e\" \\f 'g'"
    (scripts / "proj.sh").write_text(
        'export PROJ_DATA="$CONDA_PREFIX/share/proj"\nexport LD_LIBRARY_PATH="$CONDA_PREFIX/lib:$LD_LIBRARY_PATH"\n'
    )
    activation.write(prefix, Layout(False, None), prefix, {"ODD": odd})
    held = json.loads(site.must("snapshots", "--json"))[0]["id"]
    try:
        marker = prefixes.Marker("geo/here", held, held, str(prefix))
        (prefix / prefixes.MARKER).write_bytes(prefixes.write(marker))
        rendered = tmp_path / "modulefiles"
        site.must("render", "slurm", "-o", rendered)
    finally:
        shutil.rmtree(prefix)
    asked = 'printf "%s\\n" "$CONDA_PREFIX" "$PROJ_DATA" "$LD_LIBRARY_PATH" "$ODD" "${PATH%%:*}" "${VIRTUAL_ENV-none}"'
    done = shell(
        site,
        f"export LD_LIBRARY_PATH=/cuda; module use {rendered}; module load geo/2026-09; {asked}; module unload geo; {asked}",
    )
    lines = done.stdout.splitlines()
    here = str(prefix)
    assert lines[:6] == [here, f"{here}/share/proj", f"{here}/lib:/cuda", odd, f"{here}/bin", "none"], (
        done.stderr
    )
    assert lines[6:10] == ["", "", "/cuda", ""]


# Files that people touched


def test_a_module_name_that_is_taken_is_not_overwritten(site: Site, tmp_path: Path) -> None:
    """Somebody's modulefile of a name that ours wants is shown as a difference, and nothing is written."""
    theirs = tmp_path / "lab" / "2026-10"
    theirs.parent.mkdir()
    theirs.write_text("#%Module1.0\n# mine\n")
    done = site("render", "slurm", "-o", tmp_path)
    assert done.returncode == 15, done.stderr
    assert "# mine" in done.stderr
    assert "+setenv VIRTUAL_ENV" in done.stderr
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["2026-10"]
    assert theirs.read_text() == "#%Module1.0\n# mine\n"


@pytest.mark.parametrize(("name", "code"), [("geo", 20), ("geo.lua", 0)])
def test_a_name_that_a_module_without_versions_has_is_told(
    site: Site, tmp_path: Path, name: str, code: int
) -> None:
    """A file where a folder should be is an error; one that only Lmod reads is told, and stays."""
    theirs = tmp_path / name
    theirs.write_text("theirs\n")
    done = site("render", "slurm", "-o", tmp_path)
    assert (done.returncode, f"{theirs}: is a module geo already" in done.stderr) == (code, True), done.stderr
    assert theirs.read_text() == "theirs\n"
    assert (tmp_path / "lab").exists() == (code == 0)


def test_a_rendered_file_that_was_edited_stays(site: Site, tmp_path: Path) -> None:
    """An edit is shown and kept; `--force` replaces it; the same again writes nothing."""
    site.must("render", "slurm", "-o", tmp_path)
    assert "already" in site.must("render", "slurm", "-o", tmp_path)
    edited = tmp_path / "geo" / "2026-11"
    rendered = edited.read_bytes()
    edited.write_bytes(rendered + b"setenv OMP_NUM_THREADS 4\n")
    done = site("render", "slurm", "-o", tmp_path)
    assert done.returncode == 15
    assert "-setenv OMP_NUM_THREADS 4" in done.stderr
    assert edited.read_bytes() != rendered
    assert str(edited) in site.must("render", "slurm", "-o", tmp_path, "--force")
    assert edited.read_bytes() == rendered


def test_the_module_of_an_environment_that_went_goes_too(site: Site, tmp_path: Path) -> None:
    """Rendering again takes away the module of a folder that is gone; another rendered file beside it stays."""
    site.must("render", "slurm", "-o", tmp_path)
    gone = site.prefix("geo", "2026-10")
    gone.rename(tmp_path / "away")
    try:
        assert f"removed {tmp_path}/geo/2026-10" in site.must("render", "slurm", "-o", tmp_path)
    finally:
        (tmp_path / "away").rename(gone)
    assert sorted(path.name for path in (tmp_path / "geo").iterdir()) == [".version", "2026-11"]


def test_job_scripts_are_added_to_a_folder(site: Site, tmp_path: Path) -> None:
    """A second script takes nothing away, and an edited one is not overwritten."""
    order = ("render", "slurm", "--env", "lab", "-o", tmp_path, "--name")
    site.must(*order, "one", "--", "true")
    site.must(*order, "two", "--", "true")
    assert sorted(path.name for path in tmp_path.glob("*.sbatch")) == ["one.sbatch", "two.sbatch"]
    (tmp_path / "one.sbatch").write_text("mine\n")
    assert site(*order, "one", "--", "false").returncode == 15
    assert (tmp_path / "one.sbatch").read_text() == "mine\n"


@pytest.mark.parametrize("there", [True, False])
def test_no_module_goes_while_the_environments_are_not_mounted(
    site: Site, tmp_path: Path, there: bool
) -> None:
    """A root that is gone, or an empty mount point, is an error that says so, also to the doctor; every module stays."""
    site.must("render", "slurm", "-o", tmp_path / "modules")
    before = sorted((tmp_path / "modules").rglob("*"))
    root = site.folder / "shared" / "envs"
    root.rename(tmp_path / "away")
    if there:
        root.mkdir()
    try:
        done = site("render", "slurm", "-o", tmp_path / "modules", "--force")
        asked = site("doctor", "slurm")
    finally:
        if there:
            root.rmdir()
        (tmp_path / "away").rename(root)
    assert done.returncode == asked.returncode == 20, done.stderr + asked.stderr
    for told in (done, asked):
        assert f"{root}: {'holds no environment' if there else 'cannot be looked into'}" in told.stderr
        assert "mount its file system" in told.stderr
    assert sorted((tmp_path / "modules").rglob("*")) == before


def test_what_else_was_rendered_into_a_folder_stays(site: Site, tmp_path: Path) -> None:
    """Modules, a job script and the configuration of clients lie in one folder, in whichever order they came."""
    mirror = ("--base-url", "https://mirror.example.org")
    orders = (
        ("render", "slurm", "--env", "lab", "-o", tmp_path, "--", "true"),
        ("render", "clients", "-o", tmp_path, *mirror),
        ("render", "slurm", "-o", tmp_path),
    )
    for order in orders * 2:
        assert "removed" not in site.must(*order)
    assert {"lab.sbatch", "pip.conf", "geo", "lab"} <= {path.name for path in tmp_path.iterdir()}


# Jobs


PRINT = """\
import importlib.metadata as m, json, os, sys
print(json.dumps([sys.argv[1:], sys.prefix, m.version("demo"), sorted(os.environ)]))
"""
WORDS = ["", "a b", "$HOME", "`id`", "it's", 'say "x"', "back\\slash", "*", "!!", "new\nline", "#", "~", "é"]


def job(site: Site, folder: Path, *words: str | Path) -> Path:
    """A job script that the command line printed, as a file."""
    script = folder / "job.sh"
    script.write_text(site.must("render", "slurm", "--env", "lab", *words))
    return script


@pytest.mark.parametrize("way", [(), ("--via", "activate"), ("--via", "run")])
def test_a_job_runs_in_its_environment(
    site: Site, cluster: Cluster, tmp_path: Path, way: tuple[str, ...]
) -> None:
    """The job has the environment of the snapshot it names, every word of its command, and nothing that steers it."""
    (tmp_path / "print.py").write_text(PRINT)
    script = job(
        site, tmp_path, "--snapshot", "2026-10", "--mem", "100M", "--time", "5", *way,
        "--", "python", "print.py", *WORDS,
    )  # fmt: skip
    assert cluster.run("sbatch", "--test-only", script).returncode == 0
    theirs = {
        "UV_PYTHON": "/usr/bin/python3", "PIP_INDEX_URL": "https://example.org", "CONDA_PREFIX": "/opt/conda",
        "PYTHONPATH": "/nowhere", "VIRTUAL_ENV": "/nowhere", "KEPT": "yes",
    }  # fmt: skip
    # Through `haversack run` it must be where the job is, and whoever submits has it.
    theirs["PATH"] = f"{Path(sys.executable).parent}:{cluster.environ['PATH']}"
    code = cluster.job(script, tmp_path, theirs)
    said = (tmp_path / "out").read_text()
    assert code == 0, said + cluster.log()
    argv, prefix, version, names = json.loads(said)
    assert argv == WORDS
    assert (prefix, version) == (str(site.prefix("lab", "2026-10")), "1.0")
    assert set(theirs) & set(names) == {"KEPT", "PATH", "VIRTUAL_ENV"}


def test_a_word_that_is_no_text_arrives_as_it_is(site: Site, tmp_path: Path) -> None:
    """A file's name in bytes that are no UTF-8 stands in the script, printed or written, and is what the command is given."""
    word = b"M\xfcller \xc3\xa9.csv"
    order = ("render", "slurm", "--env", "lab", "--via", "activate")
    env = {**plain_environ(), "HAVERSACK_STORE": str(site.store)}
    ways: list[tuple[str | Path, ...]] = [(), ("-o", tmp_path), ("--json",)]
    for more in ways:
        argv: list[str | bytes] = [*command(*order, *more), "--", "printf", "%s", word]
        done = subprocess.run(argv, env=env, capture_output=True)
        assert done.returncode == 0, done.stderr
        if not more:
            printed = done.stdout
    assert (tmp_path / "lab.sbatch").read_bytes() == printed
    assert "\udcfc" in json.loads(done.stdout)["shown"]
    assert subprocess.run(["bash"], input=printed, env=env, capture_output=True).stdout == word


def test_a_job_ends_as_its_command_did(site: Site, cluster: Cluster, tmp_path: Path) -> None:
    """The exit code of the command is that of the job."""
    script = job(site, tmp_path, "--mem", "100", "--", "python", "-c", "raise SystemExit(3)")
    assert cluster.run("sbatch", "--wait", "-o", "out", script, cwd=tmp_path).returncode == 3


def test_a_job_without_haversack_says_so(site: Site, cluster: Cluster, tmp_path: Path) -> None:
    """Through `haversack run` a node that lacks it ends the job before the command."""
    script = job(site, tmp_path, "--mem", "100", "--via", "run", "--", "touch", "ran")
    assert cluster.job(script, tmp_path) == 1
    assert "haversack is not on the PATH of this node" in (tmp_path / "out").read_text()
    assert not (tmp_path / "ran").exists()


def test_an_array_runs_every_task(site: Site, cluster: Cluster, tmp_path: Path) -> None:
    """Each task of an array is told its number."""
    code = "import os, pathlib; pathlib.Path(os.environ['SLURM_ARRAY_TASK_ID']).touch()"
    script = job(site, tmp_path, "--mem", "100", "--array", "0-4:2", "--", "python", "-c", code)
    assert cluster.job(script, tmp_path) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "2", "4", "job.sh", "out"]


def test_an_environment_is_sent_to_the_node_as_one_file(site: Site, cluster: Cluster, tmp_path: Path) -> None:
    """The job runs in a copy on the node's own disk, which is gone afterwards; the tar is packed once."""
    (tmp_path / "print.py").write_text(PRINT)
    order = ("render", "slurm", "--env", "lab", "--mem", "100", "--broadcast", "-o", tmp_path)
    words = ("--", "python", "print.py", "one")
    told = site.must(*order, *words)
    assert f"wrote {tmp_path}/lab-2026-11.tar" in told
    assert "lab-2026-11.tar" not in site.must(*order, "--force", *words)
    node = tmp_path / "node"
    node.mkdir()
    script = tmp_path / "lab.sbatch"
    code = cluster.job(script, tmp_path, {"TMPDIR": str(node)})
    said = (tmp_path / "out").read_text()
    assert code == 0, said + cluster.log()
    _, prefix, version, _ = json.loads(said)
    assert Path(prefix).is_relative_to(node)
    assert version == "2.0"
    assert list(node.iterdir()) == []


def test_a_file_where_the_tar_should_be_is_somebodys(site: Site, tmp_path: Path) -> None:
    """Older or newer than the environment, and ours that was edited: it stays, nothing is written, `--force` replaces it."""
    order = ("render", "slurm", "--env", "lab", "--broadcast", "-o", tmp_path)
    tar = tmp_path / "lab-2026-11.tar"

    def refused() -> None:
        before = sorted(tmp_path.iterdir())
        held = tar.read_bytes()
        done = site(*order, "--", "false")
        assert done.returncode == 15, done.stdout + done.stderr
        assert "lab-2026-11.tar: was edited since it was packed, or is somebody else's" in done.stderr
        assert tar.read_bytes() == held
        assert sorted(tmp_path.iterdir()) == before

    for moment in (None, (0, 0)):
        tar.write_text("my precious")
        if moment:
            os.utime(tar, moment)
        refused()
    assert f"would write {tar}" in site.must(*order, "--force", "--dry-run", "--", "true")
    assert tar.read_text() == "my precious"
    assert str(tar) in site.must(*order, "--force", "--", "true")
    packed = tar.read_bytes()
    # A file system without finer times than seconds gives the same one back.
    assert tar.stat().st_mtime_ns % 10**9 == 0
    assert "already" in site.must(*order, "--", "true")
    tar.write_bytes(packed + b"more")
    refused()
    script = (tmp_path / "lab.sbatch").read_text()
    (tmp_path / "lab.sbatch").write_text("mine\n")
    said = site(*order, "--", "true").stderr
    assert "lab-2026-11.tar: was edited" in said
    assert "lab.sbatch: was edited" in said
    (tmp_path / "lab.sbatch").write_text(script)
    # What was installed anew is packed anew, and what else is rendered leaves the tar in the list.
    tar.write_bytes(packed)
    site.must("render", "slurm", "--env", "geo", "-o", tmp_path, "--", "true")
    assert str(tar) in site.must(*order, "--", "true")
    assert str(tar) not in site.must(*order, "--", "true")


def test_a_dry_run_does_without_reading_a_tar() -> None:
    """One that a person may not read counts as packed last; with `--force` nobody reads it, and a list must be readable."""
    with tempfile.TemporaryDirectory(prefix="haversack-test-") as place:
        folder, prefix = Path(place), Path(place) / "env"
        folder.chmod(0o755)
        prefix.mkdir()
        (prefix / prefixes.MARKER).touch()
        tar, marker = folder / "lab.tar", folder / rendered.MARKER
        tar.write_bytes(b"x")
        os.utime(tar, (0, 0))
        marker.write_bytes(rendered.write({"lab.tar": rendered.Kept("sha256:0", "slurm lab.tar")}))
        assert [f.subject for f in stale(folder, {"lab.tar": prefix})[1]] == ["lab.tar"]
        tar.chmod(0)
        os.seteuid(65534)
        try:
            assert stale(folder, {"lab.tar": prefix}, dry_run=True) == (("lab.tar",), [])
            assert stale(folder, {"lab.tar": prefix}, force=True) == (("lab.tar",), [])
            with pytest.raises(PrefixError, match="Permission denied"):
                stale(folder, {"lab.tar": prefix})
            os.seteuid(0)
            marker.chmod(0)
            os.seteuid(65534)
            with pytest.raises(PrefixError, match="Permission denied"):
                stale(folder, {"lab.tar": prefix}, dry_run=True)
        finally:
            os.seteuid(0)


def test_compiled_modules_are_of_use_on_a_node(site: Site, tmp_path: Path) -> None:
    """Python on the node takes the bytecode that was installed: its sources arrive with the time that it names."""
    prefix = site.prefix("lab", "2026-10")
    argv = [str(prefix / "bin" / "python"), "-m", "compileall", "-q", str(prefix / "lib")]
    assert subprocess.run(argv, env=plain_environ(), capture_output=True).returncode == 0
    order = ("render", "slurm", "--env", "lab", "--snapshot", "2026-10", "--broadcast", "-o", tmp_path)
    site.must(*order, "--", "true")
    assert subprocess.run(["tar", "-x", "-f", tmp_path / "lab-2026-10.tar", "-C", tmp_path]).returncode == 0
    python = tmp_path / "environment" / "bin" / "python"
    done = subprocess.run(
        [python, "-v", "-c", "import demo"], env=plain_environ(), capture_output=True, text=True
    )
    said = [line for line in done.stderr.splitlines() if str(tmp_path) in line]
    assert any("demo" in line and " matches " in line for line in said), done.stderr
    assert not [line for line in said if "stale" in line]


def test_each_node_installs_its_own(site: Site, cluster: Cluster, tmp_path: Path) -> None:
    """What cannot be sent is installed from the store to the node's own disk, and nothing of it is left."""
    (tmp_path / "print.py").write_text(PRINT)
    script = job(site, tmp_path, "--mem", "100", "--via", "install", "--", "python", "print.py", *WORDS)
    node = tmp_path / "node"
    node.mkdir()
    path = f"{Path(sys.executable).parent}:{cluster.environ['PATH']}"
    code = cluster.job(script, tmp_path, {"TMPDIR": str(node), "PATH": path})
    said = (tmp_path / "out").read_text()
    assert code == 0, said + cluster.log()
    argv, prefix, version, _ = json.loads(said.splitlines()[-1])
    assert (argv, version) == (WORDS, "2.0")
    assert Path(prefix).is_relative_to(node)
    assert list(node.iterdir()) == []


SAVES = """\
import os, pathlib, signal, sys, time
def save(*_):
    time.sleep(1)
    pathlib.Path("saved").write_text(str(os.path.isfile(sys.executable)))
    sys.exit(5)
signal.signal(signal.SIGTERM, save)
pathlib.Path("started").write_text(sys.prefix)
time.sleep(60)
"""


@pytest.mark.parametrize("way", ["--broadcast", "--via=install"])
def test_nothing_is_left_on_the_nodes_of_a_job_that_was_ended(
    site: Site, pair: Cluster, tmp_path: Path, way: str
) -> None:
    """Requeued, and cancelled when it ran again: it saves its work each time, and no node keeps anything."""
    (tmp_path / "saves.py").write_text(SAVES)
    site.must(
        "render", "slurm", "--env", "lab", "--mem", "100", way, "-o", tmp_path, "--", "python", "saves.py"
    )
    script = tmp_path / "lab.sbatch"
    script.write_text(script.read_text().replace("#SBATCH", "#SBATCH --nodes=2\n#SBATCH", 1))
    path = f"{Path(sys.executable).parent}:{pair.environ['PATH']}"
    job = pair.submit(script, tmp_path, {"TMPDIR": str(pair.disk), "PATH": path})
    for words, number in ((("scontrol", "requeue"), 0), (("scancel",), 1)):
        prefix = appears(tmp_path / "started", pair, tmp_path)
        folder = Path(prefix).relative_to(pair.disk).parts[0]
        assert folder == f"haversack-{job}-{number}"
        assert [[path.name for path in disk.iterdir()] for disk in pair.disks] == [[folder]] * 2
        pair.run(*words, job)
        assert appears(tmp_path / "saved", pair, tmp_path) == "True"
        until(lambda: not any(any(disk.iterdir()) for disk in pair.disks))
        if number == 0:
            until(lambda: "PENDING" in pair.run("squeue", "-h", "-o", "%T").stdout)
            # It would wait for two minutes.
            pair.run("scontrol", "update", f"jobid={job}", "starttime=now")
    pair.ended(job)


def test_a_job_that_does_not_end_leaves_nothing_either(site: Site, pair: Cluster, tmp_path: Path) -> None:
    """What ignores that it should end loses its environment before SIGKILL takes all that could remove it."""
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); open('started', 'w').write('!'); time.sleep(60)"
    site.must(
        "render",
        "slurm",
        "--env",
        "lab",
        "--mem",
        "100",
        "--broadcast",
        "-o",
        tmp_path,
        "--",
        "python",
        "-c",
        code,
    )
    job = pair.submit(tmp_path / "lab.sbatch", tmp_path, {"TMPDIR": str(pair.disk)})
    appears(tmp_path / "started", pair, tmp_path)
    pair.run("scancel", job)
    pair.ended(job)
    until(lambda: not any(any(disk.iterdir()) for disk in pair.disks))


ON_SIGNAL = """\
import pathlib, signal, time
def told(number, _):
    with open("told", "a") as file:
        print(signal.Signals(number).name, file=file)
    if number == signal.SIGINT:
        raise SystemExit(7)
for number in (signal.SIGUSR1, signal.SIGINT):
    assert signal.getsignal(number) != signal.SIG_IGN
    signal.signal(number, told)
pathlib.Path("started").write_text("!")
while True:
    time.sleep(0.1)
"""


@pytest.mark.parametrize("way", [("--broadcast",), ("--via", "install"), ("--via", "module")])
def test_the_command_hears_what_the_job_is_told(
    site: Site, cluster: Cluster, tmp_path: Path, way: tuple[str, ...]
) -> None:
    """A signal to the job's shell arrives at the command, one to its steps harms nobody, and its exit code is the job's."""
    (tmp_path / "job.py").write_text(ON_SIGNAL)
    site.must(
        "render", "slurm", "--env", "lab", "--mem", "100", *way, "-o", tmp_path, "--", "python", "job.py"
    )
    node = tmp_path / "node"
    node.mkdir()
    theirs = {"TMPDIR": str(node), "PATH": f"{Path(sys.executable).parent}:{cluster.environ['PATH']}"}
    job = cluster.submit(tmp_path / "lab.sbatch", tmp_path, theirs)
    appears(tmp_path / "started", cluster, tmp_path)
    if way != ("--via", "module"):
        cluster.run("scancel", "--signal=USR1", job)
    heard = tmp_path / "told"
    heard.touch()
    for number, sent in enumerate(("USR1", "USR1", "INT"), 1):
        assert any(node.iterdir()) == (way != ("--via", "module"))
        cluster.run("scancel", "--batch", f"--signal={sent}", job)
        until(partial(_lines, heard, number))
    assert heard.read_text().split() == ["SIGUSR1", "SIGUSR1", "SIGINT"]
    assert cluster.ended(job) == 7
    until(lambda: not any(node.iterdir()))


def appears(file: Path, cluster: Cluster, folder: Path) -> str:
    """What a job writes to a file, which is taken away."""

    def said() -> str:
        return (folder / "out").read_text() + cluster.log()

    until(lambda: file.is_file() and file.stat().st_size > 0, said)
    text = file.read_text()
    file.unlink()
    return text


def _lines(file: Path, number: int) -> bool:
    return len(file.read_text().splitlines()) == number


def until(holds: Callable[[], object], said: Callable[[], str] = str) -> None:
    """Wait until something holds."""
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end, said()
        time.sleep(0.1)


def test_more_memory_than_a_node_has_is_told(site: Site, cluster: Cluster, tmp_path: Path) -> None:
    """What sbatch would refuse is said before, with what the nodes have; where nobody can tell, that is said."""
    asked = ("--env", "lab", "--mem", "64G", "--", "true")
    here = haversack_within(cluster, site, "render", "slurm", *asked)
    assert here.returncode == 20
    assert "65536 MB, and no node of this cluster has more than 2000 MB" in here.stderr
    nowhere = site("render", "slurm", *asked, env={"SLURM_CONF": "/nonexistent"})
    assert nowhere.returncode == 0
    assert "platform-unknown" in nowhere.stderr
    (tmp_path / "job.sh").write_text(nowhere.stdout)
    refused = cluster.run("sbatch", "--test-only", tmp_path / "job.sh")
    assert (refused.returncode, "not available" in refused.stderr) == (1, True)


def test_what_no_node_has_is_told(site: Site, cluster: Cluster, tmp_path: Path) -> None:
    """More processors, GPUs, or another partition than there are: what sbatch refuses, and nothing that it takes."""
    for words, says in (
        (("--cpus", "512"), "asks for 512 processors, and no node of this cluster has more than"),
        (("--gpus", "1"), "asks for 1 GPUs, and the nodes of this cluster have 0"),
        (("--gpus", "a100:2"), "GPUs of type a100"),
        (("--partition", "debug,nosuch"), "--partition nosuch: is no partition of this cluster"),
        (("--partition", "debug", "--cpus", "1"), ""),
        (("--array", "0-1001"), "has a task 1001, and this cluster numbers tasks below 1001 (MaxArraySize)"),
        (("--array", "1001"), "MaxArraySize"),
        (("--array", "0-1001:1000"), "MaxArraySize"),
        (("--array", "0-1000%2"), ""),
    ):
        asked = ("--env", "lab", *words, "--", "true")
        here = haversack_within(cluster, site, "render", "slurm", *asked)
        assert here.returncode == (20 if says else 0), here.stderr
        assert says in here.stderr
        (tmp_path / "job.sh").write_text(site.must("render", "slurm", *asked))
        refused = cluster.run("sbatch", "--test-only", "--mem", "100", tmp_path / "job.sh")
        assert (refused.returncode != 0) == bool(says), refused.stderr


def haversack_within(cluster: Cluster, site: Site, *words: str) -> subprocess.CompletedProcess[str]:
    """Run haversack where the cluster answers."""
    return cluster.run(*command(*words), env={"HAVERSACK_STORE": str(site.store)})


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--env", "lab"), "no command"),
        (("--env", "other", "--", "true"), "lab, geo"),
        (("--env", "lab", "--time", "4h", "--", "true"), "--time"),
        (("--env", "lab", "--time", "1-25", "--", "true"), "--time"),
        (("--env", "lab", "--mem", "32GB", "--", "true"), "--mem"),
        (("--env", "lab", "--array", "0-9 --uid=0", "--", "true"), "--array"),
        (("--env", "lab", "--array", "0-9,5-1%2", "--", "true"), "5-1 ends before it begins"),
        (("--env", "lab", "--partition", "a\n#SBATCH --uid=0", "--", "true"), "--partition"),
        (("--env", "lab", "--via", "conda", "--", "true"), "--via"),
        (("--env", "lab", "--broadcast", "--", "true"), "-o DIR"),
        (
            (
                "--mem",
                "1G",
            ),
            "--env NAME",
        ),
        (("--", "true"), "--env NAME"),
        ((), "-o DIR"),
    ],
)
def test_what_cannot_be_a_job_is_refused(site: Site, words: tuple[str, ...], says: str) -> None:
    """An order that sbatch would refuse, or misread, makes no script and says what to write."""
    done = site("render", "slurm", *words)
    assert done.returncode == 2, done.stdout + done.stderr
    assert says in done.stderr
    assert done.stdout == ""


def test_a_job_for_what_is_not_installed_is_refused(site: Site, tmp_path: Path) -> None:
    """Without the environment in its place there is no script, but the command that puts it there."""
    prefix = site.prefix("lab", "2026-11")
    prefix.rename(tmp_path / "away")
    try:
        done = site("render", "slurm", "--env", "lab", "--", "true")
    finally:
        (tmp_path / "away").rename(prefix)
    assert done.returncode == 15
    assert f"haversack install lab --snapshot 2026-11 --to {prefix}" in done.stderr


# Before a job fails


def test_doctor_says_that_the_cluster_runs_jobs(site: Site, cluster: Cluster) -> None:
    """Where all is in place nothing is found, but what only the nodes can tell is said to be unknown."""
    done = haversack_within(cluster, site, "doctor", "slurm", "--json")
    assert done.returncode == 0, done.stderr
    python = (site.prefix("lab", "2026-11") / "bin" / "python").resolve()
    # Folders of tests are closed to others, and perhaps the one that the Python of this machine lies in.
    told = {
        finding["subject"]: finding
        for finding in json.loads(done.stdout)["findings"]
        if "is closed to others" not in finding["message"]
    }
    assert sorted(told) == sorted([str(python), "nodes"])
    assert {finding["code"] for finding in told.values()} == {"platform-unknown"}
    assert "lab/2026-10, lab/2026-11, geo/2026-10, geo/2026-11" in told[str(python)]["message"]


def test_doctor_finds_a_cluster_that_runs_none(site: Site, cluster: Cluster) -> None:
    """When every node is drained, that blocks; when the controller does not answer, it is unknown."""
    host = cluster.run("sinfo", "-h", "-o", "%n").stdout.strip()
    cluster.run("scontrol", "update", f"nodename={host}", "state=drain", "reason=test")
    try:
        done = haversack_within(cluster, site, "doctor", "slurm")
    finally:
        cluster.run("scontrol", "update", f"nodename={host}", "state=resume")
        cluster.until("sinfo", "-h", "-o", "%t", says="idle\n")
    assert done.returncode == 20
    assert "no node can run a job; their states: drained" in done.stderr
    nowhere = site("doctor", "slurm", env={"SLURM_CONF": "/nonexistent"})
    assert nowhere.returncode == 0
    assert "the cluster is not known" in nowhere.stderr


def test_doctor_finds_another_module_of_the_name(site: Site, cluster: Cluster, tmp_path: Path) -> None:
    """A module of the same name in another folder of MODULEPATH is told, with its folder."""
    for name in ("geo", "lab.lua"):
        folder = tmp_path / f"with-{name}"
        folder.mkdir()
        (folder / name).touch()
        env = {"HAVERSACK_STORE": str(site.store), "MODULEPATH": f"{site.modules}:{folder}"}
        done = cluster.run(*command("doctor", "slurm"), env=env)
        assert done.returncode == 0
        told = [line for line in done.stderr.splitlines() if "is a module of" in line]
        assert [f"{name.removesuffix('.lua')}: is a module of {folder} too" in line for line in told] == [
            True
        ]


def test_doctor_reads_the_modules(site: Site, tmp_path: Path) -> None:
    """A stale, an edited and a foreign module are told apart, and nobody is told to remove somebody's own one."""
    kept = tmp_path / "kept"
    shutil.copytree(site.modules, kept)

    def told() -> dict[str, tuple[str, str]]:
        found = json.loads(site("doctor", "slurm", "--json").stdout)["findings"]
        of_modules = [one for one in found if Path(one["subject"]).is_relative_to(site.modules)]
        return {
            str(Path(one["subject"]).relative_to(site.modules)): (one["message"], one["remedy"])
            for one in of_modules
        }

    gone = site.prefix("geo", "2026-10")
    try:
        site.must("render", "slurm", "-o", site.modules, "--snapshot", "2026-10")
        (site.modules / "lab" / "2026-11").write_text("#%Module1.0\n# mine\n")
        (site.modules / "lab" / "9.9").write_text("#%Module1.0\n# mine\n")
        stale = told()
        assert set(stale) == {
            "geo/.version",
            "geo/2026-10",
            "geo/2026-11",
            "lab/.version",
            "lab/2026-10",
            "lab/2026-11",
        }
        assert stale["geo/2026-11"] == (
            "is not what would be rendered now",
            f"haversack render slurm -o {site.modules}",
        )
        assert stale["lab/2026-11"][0] == "was edited since it was rendered"
        assert "--force" in stale["lab/2026-11"][1]
        site.must("render", "slurm", "-o", site.modules, "--force")
        assert told() == {}
        gone.rename(tmp_path / "gone")
        assert "no environment" in told()["geo/2026-10"][0]
        (site.modules / "haversack-rendered.json").unlink()
        (site.modules / "lab" / "2026-11").write_text("#%Module1.0\n# mine\n")
        assert told()["lab/2026-11"][0] == "was not rendered; it is root's"
        assert set(told()) == {"lab/2026-11", "geo/2026-10"}
    finally:
        if not gone.exists():
            (tmp_path / "gone").rename(gone)
        shutil.rmtree(site.modules)
        kept.rename(site.modules)
    assert told() == {}


def test_a_module_says_of_which_snapshot_it_is(site: Site) -> None:
    """The first lines of each name its own snapshot, and the one whose declaration was rendered."""
    for version in ("2026-10", "2026-11"):
        origin = (site.modules / "lab" / version).read_text().splitlines()[1]
        assert ", of snapshot 2026-11 (sha256:" in origin
        assert (", for snapshot 2026-10 (sha256:" in origin) == (version == "2026-10")


def test_doctor_changes_nothing(site: Site) -> None:
    """Looking writes neither into the modules nor beside the environments."""
    shared = site.folder / "shared"
    before = {path: path.lstat().st_mtime_ns for path in shared.rglob("*")}
    site("doctor", "slurm")
    assert {path: path.lstat().st_mtime_ns for path in shared.rglob("*")} == before


# Shared environments


def test_a_user_clones_the_shared_environment(site: Site, tmp_path: Path) -> None:
    """A person's own copy of a shared environment shares its files on disk, and works."""
    mine = tmp_path / "mine"
    site.must("install", "lab", "--to", mine, "--clone-of", site.prefix("lab", "2026-11"))
    (module,) = mine.glob("lib/python3*/site-packages/demo/__init__.py")
    assert module.stat().st_nlink > 1
    done = subprocess.run([mine / "bin" / "python", "-c", "import demo"], env=plain_environ())
    assert done.returncode == 0


def within_mounts(
    site: Site, folder: Path, options: str, *words: str | Path
) -> subprocess.CompletedProcess[str]:
    """Run haversack where ``folder`` is a file system of its own, which nobody else sees."""
    script = 'mount -t tmpfs -o "$1" tmpfs "$2" && shift 2 && exec "$@"'
    argv = ["unshare", "--mount", "sh", "-c", script, "-", options, str(folder), *command(*words)]
    env = {**plain_environ(), "HAVERSACK_STORE": str(site.store)}
    return subprocess.run(argv, env=env, capture_output=True, text=True)


def test_a_full_disk_is_told_as_one(site: Site, tmp_path: Path) -> None:
    """Where there is no room, for bytes or for files, the error is of space, says what to do, and nothing is recorded."""
    before = site.must("audit", "show", "--json")
    install = ("install", "lab", "--to", tmp_path / "lab")
    for options, words in (
        ("size=16k", install),
        ("size=40k", install),
        ("nr_inodes=30", install),
        ("nr_inodes=3", ("render", "slurm", "-o", tmp_path)),
    ):
        done = within_mounts(site, tmp_path, options, *words)
        assert done.returncode == 14, done.stdout + done.stderr
        assert "No space left" in done.stderr
        assert "ask for a larger quota" in done.stderr
    assert site.must("audit", "show", "--json") == before


def test_what_is_in_the_way_elsewhere_is_named(site: Site, tmp_path: Path) -> None:
    """Where it is not the place itself that cannot be written to, the error says which file it is."""
    script = 'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" && shift && exec "$@"'
    argv = ["unshare", "--mount", "sh", "-c", script, "-", str(site.store)]
    argv += command("install", "lab", "--to", tmp_path / "lab")
    env = {**plain_environ(), "HAVERSACK_STORE": str(site.store)}
    done = subprocess.run(argv, env=env, capture_output=True, text=True)
    assert done.returncode == 15, done.stdout + done.stderr
    assert f"Not a directory: {os.devnull}/" in done.stderr
    assert list(tmp_path.iterdir()) == []
    # A store on a share that may only be read is enough, where one's own folder can be written to.
    done = subprocess.run(argv, env={**env, "HOME": str(tmp_path / "home")}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_share_that_may_only_be_read_is_told_as_one(site: Site, tmp_path: Path) -> None:
    """Neither an environment nor a module is written there; what is installed there can be looked at and cloned."""
    for words in (("install", "lab", "--to", tmp_path / "lab"), ("render", "slurm", "-o", tmp_path / "m")):
        done = within_mounts(site, tmp_path, "ro,size=1m", *words)
        assert done.returncode == 15, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
    shared = site.folder / "shared"
    before = {path: path.lstat().st_mtime_ns for path in shared.rglob("*")}
    script = 'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" && shift && exec "$@"'
    orders: list[tuple[tuple[str | Path, ...], int, str]] = [
        (("install", "lab", "--to", shared / "envs" / "lab" / "2026-11"), 15, "may not be written to"),
        (("render", "slurm", "--force", "-o", shared / "new"), 15, "Read-only file system"),
        (("doctor", "--env", site.prefix("lab", "2026-11")), 0, ""),
        (("install", "lab", "--to", tmp_path / "mine", "--clone-of", site.prefix("lab", "2026-11")), 0, ""),
    ]
    for order, code, says in orders:
        argv = ["unshare", "--mount", "sh", "-c", script, "-", str(shared), *command(*order)]
        env = {**plain_environ(), "HAVERSACK_STORE": str(site.store)}
        done = subprocess.run(argv, env=env, capture_output=True, text=True)
        assert (done.returncode, says in done.stderr) == (code, True), done.stdout + done.stderr
    assert {path: path.lstat().st_mtime_ns for path in shared.rglob("*")} == before
