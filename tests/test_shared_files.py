"""Environments share files by hard link; what is edited in one must not reach the next."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.tiny import haversack, tiny_bundle


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
