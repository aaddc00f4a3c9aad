"""``haversack init``: what it declares for the files of a folder, and what it leaves alone."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from haversack.errors import DeclarationError, UsageError
from haversack.formats.declaration import parse
from haversack.formats.schema import schema
from haversack.kinds import keys
from haversack.model.target import Target
from haversack.verbs.init import InitReport, init
from tests.test_declaration import KINDS

PROJECT = """\
[project]
name = "Tissue_Segmenter"
version = "1"
dependencies = ["numpy"]
requires-python = ">=3.12"
[project.optional-dependencies]
gpu = []
[dependency-groups]
dev = []
"""
UV_LOCK = 'version = 1\nrequires-python = ">=3.12"\n'
PYLOCK = 'lock-version = "1.0"\ncreated-by = "x"\npackages = []\n'

Fill = Callable[..., Path]


@pytest.fixture
def fill(tmp_path: Path) -> Fill:
    """A folder ``My Lab`` with these files."""

    def write(**files: str) -> Path:
        folder = tmp_path / "My Lab"
        folder.mkdir()
        for name, content in files.items():
            (folder / name).write_text(content)
        return folder

    return write


def sources(report: InitReport) -> dict[str, dict[str, Any]]:
    """The environments of the declaration, parsed strictly: settings by name."""
    site = parse(report.path, KINDS)
    jsonschema.Draft202012Validator(schema(KINDS)).validate(tomllib.loads(report.path.read_text()))
    assert report.environments == tuple(environment.name for environment in site.environments)
    found = {environment.name: dict(environment.settings) for environment in site.environments}
    for settings in found.values():
        assert settings.pop("build") is False
    return found


def test_prefers_the_most_exact_description(fill: Fill) -> None:
    """With everything there, uv.lock is declared; each time it goes, the next most exact one is."""
    folder = fill(
        **{"uv.lock": UV_LOCK, "pylock.toml": PYLOCK, "pyproject.toml": PROJECT, "requirements.txt": "six\n"}
    )
    report = init(folder)
    assert sources(report) == {"tissue-segmenter": {"lock": "uv.lock"}}
    assert "pylock.toml, pyproject.toml, requirements.txt: not declared" in report.notes[0]
    (folder / "uv.lock").unlink()
    assert sources(init(folder, force=True)) == {"tissue-segmenter": {"lock": "pylock.toml"}}
    (folder / "pylock.toml").unlink()
    assert sources(init(folder, force=True)) == {"tissue-segmenter": {"project": "."}}
    (folder / "pyproject.toml").write_text("[tool.ruff]\n")
    report = init(folder, force=True)
    assert sources(report) == {"my-lab": {"requirements": ("requirements.txt",)}}
    assert not any("not declared" in note for note in report.notes)


def test_every_lock_and_every_list_is_an_environment(fill: Fill) -> None:
    """Files of one family are named by what tells them apart; a part of another list is none."""
    folder = fill(
        **{
            "requirements.txt": "-r requirements-base.txt\n",
            "requirements-base.txt": "six\n",
            "requirements-dev.txt": "-r requirements.txt\npytest\n",
            "requirements_dev.txt": "pytest\n",
            "requirements.haversack.txt": "six\n",
            "pylock.cpu.toml": PYLOCK,
            "pylock.gpu.toml": PYLOCK,
        }
    )
    assert sources(init(folder)) == {"cpu": {"lock": "pylock.cpu.toml"}, "gpu": {"lock": "pylock.gpu.toml"}}
    (folder / "pylock.cpu.toml").unlink()
    (folder / "pylock.gpu.toml").unlink()
    assert sources(init(folder, force=True)) == {
        "my-lab": {"requirements": ("requirements.txt",)},
        "my-lab.2": {"requirements": ("requirements.haversack.txt",)},
        "dev": {"requirements": ("requirements-dev.txt",)},
        "dev.2": {"requirements": ("requirements_dev.txt",)},
    }


def test_an_empty_folder_gets_an_example_to_fill_in(fill: Fill) -> None:
    """Nothing is declared and no other file appears; the example parses once its comment signs are gone."""
    folder = fill()
    report = init(folder)
    assert sources(report) == {}
    assert "nothing to lock" in report.notes[0]
    assert [entry.name for entry in folder.iterdir()] == ["haversack.toml"]
    text = report.path.read_text().replace("YYYY-MM-DD", "2026-11-01")
    told = [
        line.removeprefix("# ") for line in text.splitlines() if "=" in line or line.startswith(("[", "# ["))
    ]
    report.path.write_text("\n".join(told))
    (folder / "requirements.txt").write_text("")
    site = parse(report.path, KINDS)
    assert site.exclude_newer == "2026-11-01"
    assert [index.auth for index in site.indexes] == ["netrc"]
    assert [(e.check is None, dict(e.settings)) for e in site.environments] == [
        (False, {"requirements": ("requirements.txt",), "build": True})
    ]


def test_the_options_offered_can_be_taken(fill: Fill) -> None:
    """Extras and groups of the project stand as comments, which are right once they are none."""
    report = init(fill(**{"pyproject.toml": PROJECT}))
    text = report.path.read_text()
    report.path.write_text(text.replace("# extras", "extras").replace("# groups", "groups"))
    settings = parse(report.path, KINDS).environments[0].settings
    assert (settings["extras"], settings["groups"]) == (("gpu",), ("dev",))


def test_the_target_is_this_machine_or_a_guess_that_fits(fill: Fill) -> None:
    """A machine is written as it is; without one the Python is one that the project allows."""
    folder = fill(**{"pyproject.toml": PROJECT})
    report = init(folder)
    assert parse(report.path, KINDS).targets == (Target("inside", "linux-x86_64", "3.12"),)
    assert report.notes == ("the target inside is a guess; correct it",)
    machine = Target("linux-x86_64-glibc2.36-py311", "linux-x86_64", "3.11.7", glibc="2.36", cuda="12.4")
    report = init(folder, force=True, machine=machine)
    site = parse(report.path, KINDS)
    assert site.targets == (machine,)
    assert site.environments[0].targets == (machine.name,)
    assert "this machine" in report.notes[0]
    assert report.notes[1] == "pyproject.toml wants Python >=3.12, the target has 3.11.7"
    (folder / "pyproject.toml").write_text(PROJECT.replace(">=3.12", "<3"))
    assert "wants Python <3, the target has 3.11" in init(folder, force=True).notes[1]


def test_notes_say_what_the_lock_cannot_see(fill: Fill) -> None:
    """A lock without its project and dependencies that come from elsewhere are told."""
    folder = fill(**{"uv.lock": UV_LOCK})
    report = init(folder)
    assert sources(report) == {}
    assert "uv.lock: not declared" in report.notes[0]
    (folder / "pyproject.toml").write_text('[project]\nname = "x"\ndynamic = ["version", "dependencies"]\n')
    (folder / "uv.lock").unlink()
    assert "goes unnoticed" in init(folder, force=True).notes[-1]


def test_refuses_to_overwrite_without_force(fill: Fill) -> None:
    """A declaration that somebody wrote stays as it is until it is to be replaced."""
    folder = fill(**{"haversack.toml": "mine"})
    with pytest.raises(UsageError) as caught:
        init(folder)
    assert "--force" in caught.value.remedy
    assert (folder / "haversack.toml").read_text() == "mine"
    init(folder, force=True)
    assert (folder / "haversack.toml").read_text() != "mine"


def test_writes_one_file_in_one_step_with_the_usual_mode(fill: Fill) -> None:
    """A reader of the old declaration keeps it, nothing is left beside, and others may read the new one."""
    folder = fill(**{"haversack.toml": "mine"})
    with (folder / "haversack.toml").open() as old:
        init(folder, force=True)
        assert old.read() == "mine"
    assert [entry.name for entry in folder.iterdir()] == ["haversack.toml"]
    (folder / "plain").touch()
    assert (folder / "haversack.toml").stat().st_mode == (folder / "plain").stat().st_mode


def test_a_failed_write_leaves_nothing(fill: Fill) -> None:
    """Where the declaration cannot be put in place, the error says so and no other file stays."""
    folder = fill()
    (folder / "haversack.toml").mkdir()
    with pytest.raises(DeclarationError, match="cannot be written"):
        init(folder, force=True)
    assert [entry.name for entry in folder.iterdir()] == ["haversack.toml"]


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    """The name of a folder that does not exist is a mistake on the command line."""
    with pytest.raises(UsageError, match="no such folder"):
        init(tmp_path / "gone")


@pytest.mark.parametrize(
    ("file", "content", "where"),
    [
        ("pyproject.toml", "[project\n", "pyproject.toml: line 1, column 9"),
        ("pyproject.toml", '[project]\nname = "x"\nrequires-python = "new"\n', "pyproject.toml"),
        ("pyproject.toml", '[project]\nname = "x"\nrequires-python = 3\n', "pyproject.toml"),
        ("requirements.txt", "-r 'open\n", "requirements.txt: line 1"),
    ],
)
def test_what_cannot_be_read_is_named(fill: Fill, file: str, content: str, where: str) -> None:
    """A broken project file stops the command before anything is written."""
    folder = fill(**{file: content})
    with pytest.raises(DeclarationError) as caught:
        init(folder)
    assert caught.value.where == where
    assert not (folder / "haversack.toml").exists()


@pytest.mark.parametrize("name", ["haversack", "con", "###", "Ünïcode lab"])
def test_the_name_of_any_folder_gives_names_that_parse(tmp_path: Path, name: str) -> None:
    """A folder whose name is reserved or no name at all does no harm."""
    folder = tmp_path / name
    folder.mkdir()
    (folder / "requirements.txt").write_text("six\n")
    assert len(sources(init(folder))) == 1


def test_conda_and_pixi_projects_are_declared(fill: Fill) -> None:
    """Every environment of a pixi.lock, an environment.yml with the channels it lacks, and the more exact first."""
    lock = (
        "version: 6\nenvironments:\n"
        + "".join(
            f"  {name}:\n    channels:\n    - url: https://conda.example.org/main/\n    packages: {{}}\n"
            for name in ("default", "gpu")
        )
        + "packages: []\n"
    )
    folder = fill(**{"pixi.lock": lock, "environment.yml": "channels: [main]\ndependencies: []\n"})
    site = parse(init(folder).path, keys())
    assert [(e.name, e.kind, e.settings.get("environment")) for e in site.environments] == [
        ("my-lab", "pixi", None),
        ("gpu", "pixi", "gpu"),
    ]
    (folder / "pixi.lock").unlink()
    (folder / "pixi.toml").write_text("")
    report = init(folder, force=True)
    (environment,) = parse(report.path, keys()).environments
    assert (environment.kind, "channels" in environment.settings) == ("conda", False)
    assert any("run: pixi lock" in note for note in report.notes)
    (folder / "environment.yml").write_text("dependencies: [python]\n")
    (environment,) = parse(init(folder, force=True).path, keys()).environments
    assert environment.settings["channels"] == ("conda-forge",)
