"""Targets: what a wheel, a marker and uv are told about a machine that is not this one."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
from packaging import tags
from packaging.markers import Marker

from haversack.formats.declaration import parse
from haversack.formats.lockfile import target_from_json
from haversack.kinds import keys
from haversack.model.target import ANY, PLATFORMS, Target
from haversack.ports.machine import base_python, probe
from tests.support.tiny import haversack

LINUX = sys.platform == "linux"


def target(machine: str, python: str = "3.11", **fields: str) -> Target:
    """A target of a platform, with its defaults."""
    return Target("t", machine, python, **fields)


def holds(marker: str, target: Target) -> bool:
    """Whether a marker is true on a target."""
    return Marker(marker).evaluate({name: str(value) for name, value in target.markers().items()})


@pytest.mark.parametrize(
    ("text", "platform", "python", "release"),
    [
        ("linux-x86_64-glibc2.28-py311", "linux-x86_64", "3.11", "2.28"),
        ("linux-x86_64-glibc2.28-py3.11", "linux-x86_64", "3.11", "2.28"),
        ("linux-aarch64-manylinux2014-py312", "linux-aarch64", "3.12", "2.17"),
        ("linux-aarch64-py313", "linux-aarch64", "3.13", "2.28"),
        ("macos-arm64-py311", "macos-arm64", "3.11", "14.0"),
        ("macos-arm64-macos13-py311", "macos-arm64", "3.11", "13.0"),
        ("macos-x86_64-macos12.3-py310", "macos-x86_64", "3.10", "12.3"),
        ("windows-amd64-py311", "windows-amd64", "3.11", None),
        ("windows-arm64-py314", "windows-arm64", "3.14", None),
    ],
)
def test_a_name_says_the_whole_target(text: str, platform: str, python: str, release: str | None) -> None:
    """Every form of target name gives platform, Python and system library."""
    found = Target.from_name(text)
    assert (found.name, found.platform, found.python) == (text, platform, python)
    assert (found.glibc or found.macos) == release
    assert Target.from_name(text, name="gpu").name == "gpu"


@pytest.mark.parametrize(
    "text",
    [
        "linux-x86_64",
        "linux-x86_64-py2.7",
        "linux-riscv64-py311",
        "linux-x86_64-musl-py311",
        "windows-amd64-glibc2.28-py311",
        "macos-arm64-glibc2.28-py311",
        "linux-x86_64-macos14-py311",
        "linux-x86_64-glibc2-py311",
        "freebsd-amd64-py311",
        "linux-x86_64-glibc2.28-py311 ",
        "",
    ],
)
def test_a_name_that_is_none_is_refused(text: str) -> None:
    """A name that says no known machine, or mixes two systems, is refused rather than guessed at."""
    with pytest.raises(ValueError, match=r"target name|platform|belongs to"):
        Target.from_name(text)


@pytest.mark.parametrize(
    ("platform", "said"),
    [
        ("linux-x86_64", ("linux", "Linux", "x86_64", "posix")),
        ("linux-aarch64", ("linux", "Linux", "aarch64", "posix")),
        ("macos-arm64", ("darwin", "Darwin", "arm64", "posix")),
        ("macos-x86_64", ("darwin", "Darwin", "x86_64", "posix")),
        ("windows-amd64", ("win32", "Windows", "AMD64", "nt")),
        ("windows-arm64", ("win32", "Windows", "ARM64", "nt")),
    ],
)
def test_markers_are_those_of_a_python_there(platform: str, said: tuple[str, str, str, str]) -> None:
    """Markers have the words that CPython itself uses on that platform, and evaluate with them."""
    found = target(platform, "3.12").markers()
    assert (
        found["sys_platform"],
        found["platform_system"],
        found["platform_machine"],
        found["os_name"],
    ) == said
    assert holds(f"sys_platform == '{said[0]}' and python_version >= '3.12'", target(platform, "3.12"))
    assert not holds("python_full_version < '3.12'", target(platform, "3.12"))
    assert set(PLATFORMS) >= {platform}


def test_a_patch_number_reaches_the_markers() -> None:
    """A target with a patch number is told apart by python_full_version; without one it counts as .0."""
    marker = "python_full_version >= '3.11.4'"
    assert holds(marker, target("linux-x86_64", "3.11.7"))
    assert not holds(marker, target("linux-x86_64", "3.11"))


@pytest.mark.parametrize(
    ("platform", "fields", "platforms"),
    [
        ("windows-amd64", {}, ["win_amd64"]),
        ("windows-arm64", {}, ["win_arm64"]),
        (
            "linux-aarch64",
            {"glibc": "2.18"},
            ["manylinux_2_18_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64"],
        ),
        (
            "linux-x86_64",
            {"glibc": "2.13"},
            [
                "manylinux_2_13_x86_64",
                "manylinux_2_12_x86_64",
                "manylinux2010_x86_64",
                "manylinux_2_11_x86_64",
            ],
        ),
        (
            "macos-arm64",
            {"macos": "12.0"},
            ["macosx_12_0_arm64", "macosx_12_0_universal2", "macosx_11_0_arm64"],
        ),
    ],
)
def test_platform_tags_go_down_the_ladder(
    platform: str, fields: dict[str, str], platforms: list[str]
) -> None:
    """A wheel for an older system library is taken too, and the newest is preferred."""
    assert target(platform, **fields).platform_tags()[: len(platforms)] == platforms


def test_tags_of_this_machine_are_packagings_own() -> None:
    """For this very interpreter the target accepts every tag that an installer here would, and no other."""
    mine, real = list(map(str, probe().tags())), list(map(str, tags.sys_tags()))
    assert set(mine) == set(real)
    # Where the tag of a wheel built here, linux_x86_64, stands among them differs between releases.
    plain = f"-linux_{platform.machine()}"
    assert [tag for tag in mine if not tag.endswith(plain)] == [
        tag for tag in real if not tag.endswith(plain)
    ]


@pytest.mark.skipif(not LINUX, reason="asks pip on Linux")
def test_tags_of_this_machine_are_pips_own() -> None:
    """pip's own list of compatible tags is the list of the target, manylinux in the same order.

    Where the plain ``linux`` tags stand among them changed between versions of pip.
    """
    code = "from pip._internal.utils.compatibility_tags import get_supported as g; print(*g(), sep='\\n')"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("pip is not here")
    mine, pips = list(map(str, probe().tags())), done.stdout.split()
    assert set(mine) == set(pips)
    plain = f"-linux_{platform.machine()}"
    assert [tag for tag in mine if not tag.endswith(plain)] == [
        tag for tag in pips if not tag.endswith(plain)
    ]


def test_an_abi3_wheel_of_an_older_python_fits() -> None:
    """The stable ABI carries wheels of older Pythons over, never those of newer ones or of other ABIs."""
    known = {str(tag) for tag in target("linux-x86_64", "3.12").tags()}
    assert "cp39-abi3-manylinux_2_17_x86_64" in known
    assert "py3-none-any" in known
    assert not {"cp313-abi3-manylinux_2_17_x86_64", "cp311-cp311-manylinux_2_17_x86_64"} & known
    assert "cp312-cp312-musllinux_1_2_x86_64" not in known
    assert "cp312-cp312-manylinux_2_34_x86_64" not in known


@pytest.mark.parametrize(
    ("platform", "fields", "said"),
    [
        ("linux-x86_64", {"glibc": "2.17"}, "x86_64-manylinux_2_17"),
        ("linux-x86_64", {"glibc": "2.28"}, "x86_64-manylinux_2_28"),
        ("linux-x86_64", {"glibc": "2.30"}, "x86_64-manylinux_2_28"),
        ("linux-aarch64", {"glibc": "2.34"}, "aarch64-manylinux_2_34"),
        ("linux-aarch64", {"glibc": "2.99"}, "aarch64-manylinux_2_40"),
        ("macos-arm64", {}, "aarch64-apple-darwin"),
        ("macos-x86_64", {}, "x86_64-apple-darwin"),
        ("windows-amd64", {}, "x86_64-pc-windows-msvc"),
        ("windows-arm64", {}, "aarch64-pc-windows-msvc"),
    ],
)
def test_uv_is_told_the_nearest_platform_it_knows(platform: str, fields: dict[str, str], said: str) -> None:
    """uv gets a platform name it has, never of a newer system library than the target's."""
    from uv import find_uv_bin

    found = target(platform, **fields).uv_platform()
    assert found == said
    argv = [find_uv_bin(), "pip", "compile", "-", "--no-config", "--offline", "--quiet", "--no-index"]
    argv += ["--python", str(base_python()), "--python-platform", found]
    env = {name: value for name, value in os.environ.items() if not name.startswith("UV_")}
    done = subprocess.run(argv, input="", capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr


def test_a_glibc_older_than_any_wheel_is_refused() -> None:
    """Below glibc 2.17 uv has no platform; saying so is better than resolving for a newer one."""
    with pytest.raises(ValueError, match=r"2\.17"):
        target("linux-x86_64", glibc="2.12").uv_platform()


@pytest.mark.parametrize(
    ("made", "machine", "runs"),
    [
        (target("linux-x86_64", glibc="2.17"), target("linux-x86_64", glibc="2.28"), True),
        (target("linux-x86_64", glibc="2.28"), target("linux-x86_64", glibc="2.28"), True),
        (target("linux-x86_64", glibc="2.28"), target("linux-x86_64", glibc="2.9"), False),
        (target("linux-x86_64"), target("linux-aarch64"), False),
        (target("macos-arm64", macos="13.0"), target("macos-arm64", macos="14.1"), True),
        (target("macos-arm64", macos="14.0"), target("macos-arm64", macos="13.6"), False),
        (target("windows-amd64"), target("windows-amd64"), True),
        (target("windows-amd64"), target("linux-x86_64"), False),
    ],
)
def test_runs_on_compares_numbers_not_texts(made: Target, machine: Target, runs: bool) -> None:
    """What was made for an older system library runs on a newer one of the same platform, and only so."""
    assert made.runs_on(machine) is runs


def test_what_probe_prints_is_a_profile(tmp_path: Path) -> None:
    """The words of `haversack probe` are a target profile that a declaration reads back as this machine."""
    done = haversack("probe", store=tmp_path / "store")
    assert done.returncode == 0, done.stderr
    (tmp_path / "gpu.target.toml").write_text(done.stdout)
    (tmp_path / "requirements.txt").write_text("demo\n")
    (tmp_path / "haversack.toml").write_text(
        '[site]\nname = "s"\n[target.gpu]\nprofile = "gpu.target.toml"\n'
        '[env.e]\nkind = "pip"\nrequirements = ["requirements.txt"]\ntargets = ["gpu"]\n'
    )
    found = parse(tmp_path / "haversack.toml", keys()).target("gpu")
    assert found == probe("gpu")
    assert not (tmp_path / "store").exists()


def test_markers_of_this_machine_are_the_interpreters_own() -> None:
    """For this machine the target's markers decide every requirement as the running interpreter does."""
    from packaging.markers import default_environment

    mine, real = probe().markers(), default_environment()
    loose = {"platform_release", "platform_version"}
    assert {k: v for k, v in mine.items() if k not in loose} == {
        k: v for k, v in real.items() if k not in loose
    }


def test_any_is_for_every_machine() -> None:
    """What is for no machine in particular runs on each, lies in `noarch`, and survives a lock's JSON."""
    assert all(ANY.runs_on(Target(name, name, "3.11")) for name in PLATFORMS)
    assert (ANY.subdir, ANY.oci_platform) == ("noarch", {})
    assert target_from_json("any", ANY.to_json(), "lock") == ANY
    with pytest.raises(ValueError, match="unknown platform"):
        Target("gpu", "any", "any")
