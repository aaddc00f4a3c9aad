"""The whole workflow: an environment, its project and a file cross together, and a command runs inside."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from haversack.ports import cage
from haversack.verbs.run import activated
from tests.support import tiny
from tests.support.packages import make_deb
from tests.support.repository import Repository, run_git
from tests.support.site import Lab
from tests.support.wheels import make_wheel

SCRIPT = """\
import os, sys, demo, socket
print(demo.SAID, open("data/a.csv").read().strip(), os.environ["VIRTUAL_ENV"], sys.prefix, os.getcwd())
try:
    socket.create_connection(("192.0.2.1", 80), 1)
except OSError:
    print("no network")
raise SystemExit(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
"""
TABLES = """\
[project.fraud]
include = ["scripts/", "data/"]
[project.library]
git = "{upstream}"
rev = "main"
[[file]]
url = "tool_1.2_amd64.deb"
"""


@dataclass(frozen=True)
class Inner:
    """The inside: a store that received a bundle, and a home of nobody's."""

    lab: Lab
    folder: Path

    @property
    def store(self) -> Path:
        """Where it holds what it received."""
        return self.folder / "store"

    def __call__(self, *words: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run haversack here, with no network at all."""
        argv = [sys.executable, "-I", "-S", cage.__file__, *tiny.command(*words)]
        return subprocess.run(argv, env=self.environ, cwd=cwd or self.folder, capture_output=True, text=True)

    @property
    def environ(self) -> dict[str, str]:
        """The variables of somebody's shell."""
        return {
            **tiny.environ(self.store),
            "XDG_DATA_HOME": str(self.folder / "data"),
            "PYTHONPATH": "/nowhere",
        }

    def receive(self, bundle: Path) -> None:
        """Take a bundle in."""
        done = self("receive", bundle)
        assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def inner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inner]:
    """Environment, project, repository and file declared together, packed together, received."""
    folder = tmp_path_factory.mktemp("run")
    with Lab(folder / "outside") as lab:
        make_wheel(lab.wheels, "demo", "1.0", modules={"demo/__init__.py": "SAID = 'demo one'\n"})
        lab.write("scripts/analysis.py", SCRIPT)
        lab.write("data/a.csv", "1,2,3\n")
        make_deb(lab.root / "tool_1.2_amd64.deb", "tool", "1.2")
        upstream = Repository(folder / "upstream")
        upstream.commit({"README": "hello\n"})
        lab.declare("demo", more=TABLES.format(upstream=f"file://{upstream.path}"))
        text = (lab.root / "haversack.toml").read_text().replace("[env.lab]", "[env.fraud]")
        lab.write("haversack.toml", text)
        assert lab("lock").returncode == 0, lab("lock").stderr
        done = lab("pack", "--name", "one", "-o", folder / "bundle")
        assert done.returncode == 0, done.stderr
        (folder / "inside").mkdir()
        made = Inner(lab, folder / "inside")
        made.receive(folder / "bundle")
        yield made


def test_the_whole_workflow_in_one_breath(inner: Inner) -> None:
    """Nothing is installed yet: run installs, then the script has its environment, its data, and no network."""
    done = inner("run", "fraud", "--", "python", "scripts/analysis.py")
    assert done.returncode == 0, done.stderr
    home = inner.folder / "data" / "haversack" / "projects" / "fraud"
    env = home / "env"
    assert done.stdout == f"demo one 1,2,3 {env} {env} {home / 'fraud'}\nno network\n"
    assert "installed" in done.stderr
    again = inner("run", "fraud", "--", "python", "scripts/analysis.py", "7")
    assert again.returncode == 7
    assert again.stderr == ""


def test_a_command_is_told_and_not_run(inner: Inner, tmp_path: Path) -> None:
    """A dry run installs nothing, and says what would be run and where."""
    done = inner("run", "fraud", "--dir", tmp_path / "x", "--dry-run", "--", "python", "-c", "1")
    assert done.returncode == 0
    assert "would be installed" in done.stderr
    assert not (tmp_path / "x").exists()
    assert inner("install", "fraud", "--to", tmp_path / "x").returncode == 0
    done = inner("run", "fraud", "--dir", tmp_path / "x", "--dry-run", "--json", "--", "python", "-c", "1")
    told = json.loads(done.stdout)
    assert told["argv"] == ["python", "-c", "1"]
    assert told["folder"] == str(tmp_path / "x" / "fraud")
    assert told["prefix"] == str(tmp_path / "x" / "env")


def test_signals_and_programs_that_are_not_there(inner: Inner, tmp_path: Path) -> None:
    """A signal ends the command and is its own end; a program that is missing is an error with its name."""
    place = tmp_path / "x"
    assert inner("install", "fraud", "--to", place).returncode == 0
    argv = tiny.command("run", "fraud", "--dir", place, "--", "sh", "-c", "echo $$; exec sleep 60")
    with subprocess.Popen(argv, env=inner.environ, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert int(process.stdout.readline()) == process.pid
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == -signal.SIGTERM
    done = inner("run", "fraud", "--dir", place, "--", "no-such-program")
    assert done.returncode not in {0, 1}
    assert "no-such-program: cannot be started" in done.stderr


def test_an_environment_alone_runs_where_you_are(inner: Inner, tmp_path: Path) -> None:
    """Named by its target it is the environment that is meant; the current folder stays the current one."""
    done = inner("install", "fraud", "--to", tmp_path / "env", "--target", "here")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "env" / "bin" / "python").exists()
    argv = ("run", "fraud", "--dir", tmp_path / "env", "--", "python", "-c")
    done = inner(*argv, "import os, demo; print(demo.SAID, os.getcwd())", cwd=tmp_path)
    assert done.stdout == f"demo one {tmp_path}\n", done.stderr
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "x").touch()
    done = inner("run", "fraud", "--dir", tmp_path / "mine", "--", "true")
    assert "was not made by haversack" in done.stderr
    done = inner("run", "library", "--dir", tmp_path / "env", "--", "true")
    assert "holds fraud/here, not library" in done.stderr


def test_a_repository_without_an_environment_runs_with_what_is_there(inner: Inner, tmp_path: Path) -> None:
    """Its history is there, and a note says that no environment is."""
    done = inner("run", "library", "--dir", tmp_path / "x", "--", "git", "log", "--format=%s")
    assert done.stdout == "change\n", done.stderr
    assert "no environment here" in done.stderr


def test_a_project_beside_others_work_is_refused(inner: Inner, tmp_path: Path) -> None:
    """No environment is put over a project, and no project over an environment."""
    assert inner("install", "fraud", "--to", tmp_path / "x").returncode == 0
    done = inner("install", "fraud", "--to", tmp_path / "x", "--target", "here")
    assert "holds a project" in done.stderr
    assert (tmp_path / "x" / "fraud" / "scripts" / "analysis.py").exists()
    assert inner("install", "files", "--to", tmp_path / "files").returncode == 0
    done = inner("install", "fraud", "--to", tmp_path / "files")
    assert "holds files/any" in done.stderr
    assert inner("doctor", "--env", tmp_path / "x").returncode == 0


def test_a_newer_snapshot_is_told_and_taken_where_nobody_worked(inner: Inner, tmp_path: Path) -> None:
    """Run changes nothing; install takes the new version, of both, unless somebody worked in the folder."""
    kept, edited = tmp_path / "kept", tmp_path / "edited"
    for place in (kept, edited):
        assert inner("install", "fraud", "--to", place).returncode == 0
    lab = inner.lab
    lab.write("data/a.csv", "4,5,6\n")
    make_wheel(lab.wheels, "demo", "2.0", modules={"demo/__init__.py": "SAID = 'demo two'\n"})
    make_deb(lab.root / "tool_1.2_amd64.deb", "tool", "1.3")
    assert lab("lock", "--upgrade").returncode == 0
    assert lab("pack", "--name", "two", "-o", tmp_path / "bundle").returncode == 0
    inner.receive(tmp_path / "bundle")
    changed = inner("diff", "one", "two").stdout
    assert "files/any: tool:amd64 1.2 -> 1.3\n" in changed
    assert "fraud/any: data/a.csv " in changed
    assert "fraud/here: demo 1.0 -> 2.0\n" in changed
    done = inner("run", "fraud", "--dir", kept, "--", "python", "scripts/analysis.py")
    assert done.stdout.startswith("demo one 1,2,3")
    assert "snapshot two has another fraud" in done.stderr
    done = inner("install", "fraud", "--to", kept)
    assert done.returncode == 0, done.stderr
    done = inner("run", "fraud", "--dir", kept, "--", "python", "scripts/analysis.py")
    assert done.stdout.startswith("demo two 4,5,6")
    assert done.stderr == ""
    (edited / "fraud" / "notes.md").write_text("mine\n")
    done = inner("install", "fraud", "--to", edited)
    assert done.returncode not in {0, 1}
    assert "notes.md" in done.stderr
    done = inner("run", "fraud", "--dir", edited, "--", "python", "scripts/analysis.py")
    assert done.stdout.startswith("demo one 1,2,3")


def test_what_steers_another_python_is_dropped(tmp_path: Path) -> None:
    """A virtual environment and one of conda's: their variables, their programs first, and nobody else's."""
    ambient = {
        "PATH": "/usr/bin",
        "PYTHONHOME": "/x",
        "PYTHONPATH": "/x",
        "VIRTUAL_ENV": "/x",
        "CONDA_PREFIX": "/x",
    }
    words, env = activated(tmp_path / "venv", ["python"], {**ambient, "TERM": "dumb"})
    assert words == ("python",)
    assert env == {
        "PATH": f"{tmp_path / 'venv' / 'bin'}:/usr/bin",
        "VIRTUAL_ENV": str(tmp_path / "venv"),
        "TERM": "dumb",
    }
    prefix = tmp_path / "conda"
    (prefix / "conda-meta").mkdir(parents=True)
    (prefix / "bin").mkdir()
    (prefix / "bin" / "activate").write_text("conda's own, which needs conda\n")
    words, env = activated(prefix, ["python"], ambient)
    assert words == ("python",)
    assert env == {
        "PATH": f"{prefix / 'bin'}:/usr/bin",
        "CONDA_PREFIX": str(prefix),
        "CONDA_DEFAULT_ENV": str(prefix),
    }
    (prefix / "bin" / "haversack-activate").write_text(
        "# Made by haversack\nexport FROM_PACKAGE=yes\nPATH=/conda:$PATH\nexport PATH\n"
    )
    words, env = activated(
        prefix, ["sh", "-c", 'echo "$FROM_PACKAGE $1"; exit 3', "x", "a b"], dict(os.environ)
    )
    done = subprocess.run(words, env=env, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (3, "yes a b\n")
    assert run_git("--version").startswith("git version")
