"""YAML, environment.yml and conda-lock.yml: read strictly, and written as other readers take them."""

from __future__ import annotations

import importlib
import warnings
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from haversack.errors import DeclarationError, FormatError
from haversack.formats import condalock, environmentyml, yaml
from haversack.formats.condalock import CondaLock, CondaLockPackage

# Untyped, like the rest of conda's own libraries; conda's own code in it warns of its own age.
with warnings.catch_warnings(action="ignore"):
    CONDA_LOCK: Any = importlib.import_module("conda_lock.lockfile")
PYYAML: Any = importlib.import_module("yaml")
CHANNEL = "https://conda.example.org/conda-forge"
MD5, SHA256 = "cd" * 16, "ab" * 32
TOOL = CondaLockPackage(
    "tool",
    "1.0",
    "conda",
    "linux-64",
    f"{CHANNEL}/linux-64/tool-1.0-12_0.conda",
    MD5,
    f"sha256:{SHA256}",
    {"python": ">=3.11", "__glibc": ""},
    build="12_0",
)
WHEEL = CondaLockPackage(
    "demo",
    "1.0",
    "pip",
    "linux-64",
    "https://files.example.org/demo-1.0-py3-none-any.whl",
    None,
    f"sha256:{SHA256}",
)
LOCK = CondaLock((CHANNEL,), ("linux-64", "osx-arm64"), (TOOL, WHEEL))
TEXT = condalock.write(LOCK, {"linux-64": "0" * 64, "osx-arm64": "1" * 64}).decode()


@pytest.mark.parametrize(
    "value",
    [
        {"a": [], "b": {}, "c": ["x", ["y", "z"], {"k": "v", "l": ["m", {"n": 1}]}], "d": None, "e": [True, 3]},
        {word: word for word in ("no", "y", "3.10", "1e5", "12_0", "2026-01-01", "1:20", "=", "~", "", "0x1f")},
        {"texts": ["é😀\u2028\x85\x07", "a: b", "- a", "#", ">=3,<4", "*x", "&x", "'", '"', "\\", "a\nb", " a"]},
    ],
)  # fmt: skip
def test_yaml_comes_back_from_every_reader(value: Any) -> None:
    """Readers of YAML 1.1 and of 1.2 take what we write for the same as we do."""
    data = yaml.dump(value)
    assert yaml.load(data, "x.yml") == value
    assert PYYAML.safe_load(data) == value
    assert YAML(typ="safe", pure=True).load(data) == value


@pytest.mark.parametrize(
    ("data", "at", "said"),
    [
        (b"a: 1\nb: &x [1]\nc: [*x, *x]", ": line 2", "anchor"),
        (b"a:\n- !!python/object:os.system x", ": line 2", "tag"),
        (b"a: !secret x", ": line 1", "tag"),
        (b"a: {<<: {b: 1}}", ": line 1", "tag"),
        (b"a: 1\nb: 2\na: 3", ": line 3", "'a' stands twice"),
        (b"a: 1\n b: 2", ": line 2", "is not YAML"),
        (b"a\n--- b", ": line 2", "is not YAML"),
        (b"1: a", ": line 1", "a key is not a text"),
        (b"a: .inf", ": line 1", "a number that cannot be read"),
        (b"a: 1\n\xff", ": line 2", "not UTF-8"),
        (b"a: \x00", "", "a character that no text has"),
        (b"[" * 9000, "", "nested too deeply"),
    ],
)
def test_yaml_that_is_more_than_data_is_refused(data: bytes, at: str, said: str) -> None:
    """Nothing expands, nothing is made but plain values, and the error names the line."""
    with pytest.raises(DeclarationError, match=said) as caught:
        yaml.load(data, "x.yml")
    assert caught.value.where == f"x.yml{at}"
    assert caught.value.remedy


def test_yaml_knows_a_number_from_a_text() -> None:
    """A version without quotes is a number; days, and words that were booleans once, are texts."""
    assert yaml.load(b"[3.10, '3.10', yes, 2026-01-01, 1_0, 0o10, true, ~]", "x.yml") == [
        *(3.1, "3.10", "yes", "2026-01-01", 10, 8, True, None)
    ]
    assert yaml.load(b"%YAML 1.1\n---\nyes", "x.yml") is True
    assert yaml.load(b"", "x.yml") is None


ENVIRONMENT = """\
name: geo
channels: [conda-forge, nodefaults]
dependencies:
  - python=3.11
  - conda-forge::numpy >=1  # [linux]
  - pip:
      - demo==1.0
      - -r more.txt
variables: {GDAL: "1"}
prefix: /opt/envs/geo
"""


def test_an_environment_file_is_what_people_asked_for() -> None:
    """Specs, channels in order without ``nodefaults``, the pip section, variables; the prefix is not heeded."""
    assert environmentyml.read(ENVIRONMENT.encode(), "environment.yml") == environmentyml.EnvironmentFile(
        "geo",
        ("conda-forge",),
        ("python=3.11", "conda-forge::numpy >=1"),
        ("demo==1.0", "-r more.txt"),
        {"GDAL": "1"},
    )
    assert environmentyml.read(b"{}", "e.yml") == environmentyml.EnvironmentFile(None, (), ())


@pytest.mark.parametrize(
    ("text", "at", "said"),
    [
        ("[a]", "e.yml", "not a table"),
        ("platforms: [linux-64]", "e.yml: platforms", "conda-lock"),
        ("chanels: []", "e.yml: chanels", "unknown key"),
        ("name: 3", "e.yml: name", "not a text"),
        ("channels: forge", "e.yml: channels", "not a list"),
        ("dependencies: {a: 1}", "e.yml: dependencies", "not a list"),
        ("dependencies: [python, 3.10]", "e.yml: dependencies[1]", "not a text"),
        ("dependencies: [{npm: [a]}]", "e.yml: dependencies[0]", "another manager"),
        ("dependencies: [{pip: [a]}, {pip: [b]}]", "e.yml: dependencies[1]", "second pip section"),
        ("dependencies: [{pip: ['-i https://me:hunter2@i.example/s']}]", "e.yml: dependencies[0].pip[0]", "a password"),
        ("dependencies: ['https://c.example/t/hunter2/c::a']", "e.yml: dependencies[0]", "a token"),
        ("channels: ['https://me:hunter2@c.example']", "e.yml: channels[0]", "a password"),
        ("variables: {A: 1}", "e.yml: variables.A", "not a text"),
        ("variables: {'A;rm': x}", "e.yml: variables.A;rm", "plain name"),
    ],
)  # fmt: skip
def test_a_wrong_environment_file_names_the_place(text: str, at: str, said: str) -> None:
    """Nothing is passed over, every error has a remedy, and none repeats a secret."""
    with pytest.raises(DeclarationError, match=said) as caught:
        environmentyml.read(text.encode(), "e.yml")
    assert caught.value.where == at
    assert caught.value.remedy
    assert "hunter2" not in f"{caught.value} {caught.value.remedy}"


def test_a_conda_lock_comes_back() -> None:
    """What is written is what is read."""
    lock = condalock.read(TEXT.encode(), "conda-lock.yml")
    assert set(lock.packages) == {TOOL, WHEEL}
    assert lock == CondaLock(LOCK.channels, LOCK.platforms, lock.packages)
    (tool,) = (package for package in lock.packages if package.name == "tool")
    assert tool.dependencies == TOOL.dependencies


def test_conda_lock_reads_what_we_write_and_we_what_it_writes(tmp_path: Path) -> None:
    """Its own parser finds the same packages, and its own writer's file is ours again."""
    place = tmp_path / "conda-lock.yml"
    place.write_text(TEXT)
    theirs = CONDA_LOCK.parse_conda_lock_file(place)
    assert {(p.name, p.manager, p.platform, p.url, p.hash.sha256, p.build) for p in theirs.package} == {
        (p.name, p.manager, p.platform, p.url, SHA256, p.build) for p in LOCK.packages
    }
    CONDA_LOCK.write_conda_lock_file(theirs, place, metadata_choices=None)
    again = condalock.read(place.read_bytes(), "conda-lock.yml")
    assert set(again.packages) == set(LOCK.packages)
    assert (again.channels, again.platforms) == (LOCK.channels, LOCK.platforms)


def test_the_packages_of_a_platform_are_asked_for_by_category() -> None:
    """``main`` alone without more; a package of two categories counts once; a platform not locked is told."""
    lines = TEXT.replace("category: main\n  optional: false", "category: dev\n  optional: true")
    both = condalock.read((TEXT + lines[lines.index("- name: tool") :]).encode(), "l")
    assert [p.name for p in both.on("linux-64")] == ["tool", "demo"]
    assert [p.name for p in both.on("linux-64", ("main", "dev"))] == ["tool", "demo"]
    assert both.on("osx-arm64") == ()
    with pytest.raises(KeyError):
        both.on("win-64")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("manager: pip", "manager: npm", "neither conda nor pip"),
        (f"md5: {MD5}", "md5: xyz", "32 hexadecimal"),
        (SHA256, "xyz", "64 hexadecimal"),
        ("platform: linux-64", "platform: win-64", "not among its platforms"),
        ("version: 1\n", "version: '1'\n", "not a number"),
        ('python: ">=3.11"', "python: 3.11", "not texts"),
        (CHANNEL, "https://me:hunter2@conda.example.org/c", "a password"),
        ("https://files", "https://me:hunter2@files", "a password"),
    ],
)
def test_a_wrong_conda_lock_names_the_place(old: str, new: str, said: str) -> None:
    """Each is an error with a remedy that repeats no secret."""
    assert old in TEXT
    with pytest.raises(DeclarationError, match=said) as caught:
        condalock.read(TEXT.replace(old, new).encode(), "conda-lock.yml")
    assert caught.value.where.startswith("conda-lock.yml")
    assert caught.value.remedy
    assert "hunter2" not in f"{caught.value} {caught.value.remedy}"


def test_a_newer_conda_lock_is_refused() -> None:
    """Nobody guesses what a version means that did not exist yet."""
    with pytest.raises(FormatError, match="of version 2"):
        condalock.read(TEXT.replace("version: 1\n", "version: 2\n", 1).encode(), "conda-lock.yml")


def test_a_conda_package_without_md5_is_not_written() -> None:
    """conda-lock would refuse the file."""
    bare = CondaLockPackage("a", "1", "conda", "linux-64", f"{CHANNEL}/a-1-0.conda", None, f"sha256:{SHA256}")
    with pytest.raises(ValueError, match="md5 of a"):
        condalock.write(CondaLock((CHANNEL,), ("linux-64",), (bare,)), {})
