"""Where ``server.py`` lets SkyPilot write logs of requests, with a small server that does to its folder what it does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.registry import free_port

PROGRAM = Path(__file__).parent.parent / "src" / "haversack" / "data" / "skypilot" / "server.py"
# sky/server/requests/requests.py of 0.14.1: reset_db_and_logs, Request.log_path.
_SERVER = """\
import pathlib, shutil, sys
"--metrics-port"
folder = pathlib.Path("~/.sky/api_server/request_logs").expanduser()
shutil.rmtree(folder, ignore_errors=True)
folder.mkdir(parents=True, exist_ok=True)
(folder / "request.log").open("a").write("said\\n")
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home, beside a SkyPilot that only writes a log."""
    (tmp_path / "sky" / "server").mkdir(parents=True)
    for package in ("sky", "sky/server"):
        (tmp_path / package / "__init__.py").touch()
    (tmp_path / "sky" / "server" / "server.py").write_text(_SERVER)
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def start(home: Path, logs: Path) -> subprocess.CompletedProcess[str]:
    """Start the server, which ends when it has written its log."""
    words = ("--host", "127.0.0.1", "--port", str(free_port()), "--logs", logs)
    env = {"HOME": str(home), "PATH": os.environ["PATH"], "PYTHONPATH": str(home.parent)}
    return subprocess.run(
        [sys.executable, "-B", PROGRAM, *words], env=env, capture_output=True, text=True, check=False
    )


def test_logs_of_requests_lie_where_they_are_told_to(home: Path) -> None:
    """From a first start on, after one without ``--logs`` too; what is there already stays, and nothing lies in two places."""
    logs, own = home.parent / "log" / "requests", home / ".sky" / "api_server" / "request_logs"
    own.mkdir(parents=True)
    (own / "old.log").touch()
    for _ in range(2):
        done = start(home, logs)
        assert (done.returncode, done.stderr) == (0, "")
        assert own.readlink() == logs
        assert [path.name for path in logs.iterdir()] == ["request.log"]
    assert (logs / "request.log").read_text() == "said\nsaid\n"
    moved = home.parent / "other"
    assert start(home, moved).returncode == 0
    assert [path.name for path in moved.iterdir()] == ["request.log"]


def test_logs_that_cannot_be_written_keep_no_server_down(home: Path) -> None:
    """Where nothing can be written, as on a full disk, requests would fail: their logs stay in the home, until they can."""
    full, own = home.parent / "full", home / ".sky" / "api_server" / "request_logs"
    full.touch()
    for logs, reason in ((full / "requests", "Not a directory"), (full, "File exists")):
        done = start(home, logs)
        assert (done.returncode, done.stderr) == (
            0,
            f"Logs of requests stay in {home}/.sky: {logs}: {reason}.\n",
        )
        assert own.is_dir()
        assert not own.is_symlink()
        assert (own / "request.log").read_text() == "said\n"
    full.unlink()
    assert start(home, full).stderr == ""
    assert own.readlink() == full
    full.rename(home.parent / "away")
    full.touch()
    assert start(home, full).returncode == 0
    assert (own / "request.log").read_text() == "said\n"
