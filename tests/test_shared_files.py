"""Environments share files by hard link; what is edited in one must not reach the next."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.site import plain_environ
from tests.support.tiny import command, haversack, tiny_bundle


def _module(prefix: Path) -> Path:
    (found,) = prefix.glob("lib/python3.*/site-packages/alpha/__init__.py")
    return found


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store that has received a tiny bundle."""
    tiny = tiny_bundle(tmp_path / "tiny")
    assert haversack("receive", tiny.bundle, store=tmp_path / "store").returncode == 0
    return tmp_path / "store"


def test_second_install_shares_every_file_with_the_first(store: Path, tmp_path: Path) -> None:
    """A second environment of the same wheels holds the very files of the first."""
    for name in ("one", "two"):
        assert haversack("install", "lab", "--to", tmp_path / name, store=store).returncode == 0
    assert _module(tmp_path / "one").samefile(_module(tmp_path / "two"))


def test_an_edit_in_one_environment_does_not_reach_the_next(store: Path, tmp_path: Path) -> None:
    """After an in-place edit the next install gets the true bytes, and doctor names the edited file."""
    assert haversack("install", "lab", "--to", tmp_path / "one", store=store).returncode == 0
    truth = _module(tmp_path / "one").read_bytes()
    with _module(tmp_path / "one").open("ab") as file:
        file.write(b"\nevil = True\n")

    assert haversack("install", "lab", "--to", tmp_path / "two", store=store).returncode == 0

    assert _module(tmp_path / "two").read_bytes() == truth
    told = haversack("doctor", "--env", tmp_path / "one", "--json", store=store)
    assert told.returncode == 19
    assert [f["subject"].rsplit("/", 2)[-2:] for f in json.loads(told.stdout)["findings"]] == [
        ["alpha", "__init__.py"]
    ]
    assert haversack("doctor", "--env", tmp_path / "two", store=store).returncode == 0


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that everybody may enter, which those of tests are not."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def as_nobody(store: Path, base: Path, place: Path) -> dict[str, Any]:
    """Clone an environment as a user who owns nothing; this Python may lie where only root looks."""
    who = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    who += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    words = ("install", "lab", "--to", place / "mine", "--clone-of", base, "--json")
    home = {name: str(place / "home") for name in ("HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME")}
    env = {**plain_environ(), "HAVERSACK_STORE": str(store), **home}
    done = subprocess.run([*who, *command(*words)], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def test_a_clone_of_somebody_elses_files_says_what_was_not_shared(tmp_path: Path, public: Path) -> None:
    """Linux links nobody's files but their owner's: they are copied, the answer says so, and the clone works."""
    store, base, place = (public / name for name in ("store", "base", "place"))
    assert haversack("receive", tiny_bundle(tmp_path / "tiny").bundle, store=store).returncode == 0
    assert haversack("install", "lab", "--to", base, store=store).returncode == 0
    place.mkdir()
    os.chown(place, 65534, 65534)
    told = as_nobody(store, base, place)
    module = _module(place / "mine")
    assert module.read_bytes() == _module(base).read_bytes()
    if Path("/proc/sys/fs/protected_hardlinks").read_text() == "0\n":
        assert module.samefile(_module(base))
        return
    ((why, size),) = told["copied"].items() or [("shared blocks", told["shared"])]
    assert "fs.protected_hardlinks" in why or why == "shared blocks"
    assert size > 1000
    assert not module.samefile(_module(base))


def test_a_clone_on_another_file_system_says_so(store: Path, tmp_path: Path) -> None:
    """What cannot be shared is a copy; whoever shares with a folder of their own is told what was shared."""
    assert haversack("install", "lab", "--to", tmp_path / "base", store=store).returncode == 0
    words = ("install", "lab", "--clone-of", tmp_path / "base", "--to")
    here = haversack(*words, tmp_path / "here", store=store)
    assert "shared with" in here.stdout
    assert "copied" not in here.stdout
    other = tmp_path / "other"
    other.mkdir()
    script = 'mount -t tmpfs tmpfs "$1" && shift && exec "$@"'
    argv = ["unshare", "--mount", "sh", "-c", script, "-", str(other), *command(*words, other / "lab")]
    env = {**plain_environ(), "HAVERSACK_STORE": str(store)}
    there = subprocess.run(argv, env=env, capture_output=True, text=True)
    assert there.returncode == 0, there.stderr
    assert "0 B shared with" in there.stdout
    assert "copied, since they lie on another file system" in there.stdout
