"""Activation scripts, run by the shells that they are for."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from haversack.conda import activation
from haversack.conda.layout import Layout
from haversack.ports import Inside
from tests.support import tiny
from tests.support.conda import Content, make_conda
from tests.support.linked import environment, put

SHELLS = {
    "sh": ("activate", ["sh", "-c"]),
    "bash": ("activate", ["bash", "--norc", "-c"]),
    "bash-strict": ("activate", ["bash", "--norc", "-euc"]),
    "zsh": ("activate", ["zsh", "-f", "-c"]),
    "fish": ("activate.fish", ["fish", "--no-config", "-c"]),
    "tcsh": ("activate.csh", ["tcsh", "-f", "-c"]),
}
ODD = 'it\'s $HOME; "two  blanks" \\ `x` %!'
SHOW = "env; echo =; "


def hooks() -> dict[str, bytes]:
    """Scripts of packages that write down, in the language of each shell, in which order they ran."""
    files = {}
    for when in ("activate", "deactivate"):
        for name in ("a", "b c"):
            word = f"{when}-{name[0]}"
            folder = f"etc/conda/{when}.d"
            files[f"{folder}/{name}.sh"] = f'export ORDER="${{ORDER-}} {word}"; set -- changed\n'
            files[f"{folder}/{name}.fish"] = f'set -gx ORDER "$ORDER {word}"\n'
            files[f"{folder}/{name}.csh"] = f'if (! $?ORDER) setenv ORDER ""\nsetenv ORDER "$ORDER {word}"\n'
    return {path: text.encode() for path, text in files.items()}


@pytest.fixture
def inside(tmp_path: Path) -> Inside:
    """An empty store, and the ports around it."""
    return tiny.inside(tmp_path / "store")


@pytest.fixture
def home(inside: Inside, tmp_path: Path) -> Path:
    """An environment with a program, scripts and variables of packages, and variables of its own."""
    files: dict[str, Content] = {
        "bin/tool": (b"#!/bin/sh\necho tool runs\n", 0o755),
        **hooks(),
        "etc/conda/env_vars.d/one.json": json.dumps({"ONE": "1", "BOTH": "package"}).encode(),
    }
    made = make_conda(tmp_path, "tool", "1.0", noarch="generic", files=files)
    settings = {"variables": {"BOTH": "own", "ODD": ODD}}
    return put(environment(inside, [made], settings=settings), tmp_path / "en v" / "the lab", inside)


def ran(shell: str, *lines: str, **more: str) -> list[dict[str, str]]:
    """The variables at each ``SHOW``, in a shell that starts with little."""
    argv = [*SHELLS[shell][1], "\n".join(lines)]
    env = {"PATH": os.defpath, "HOME": "/nonexistent", "TERM": "dumb", **more}
    done = subprocess.run(argv, capture_output=True, text=True, env=env, cwd="/")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    found = []
    for block in done.stdout.split("\n=\n")[:-1]:
        pairs = (line.partition("=") for line in block.splitlines())
        found.append({name: value for name, _, value in pairs})
    return found


def source(shell: str, home: Path) -> str:
    """The line by which a person activates."""
    word = "." if shell in ("sh", "bash-strict") else "source"
    return f'{word} "{home}/bin/{SHELLS[shell][0]}"'


@pytest.mark.parametrize("shell", SHELLS)
def test_activating_sets_what_conda_sets_and_deactivating_takes_it_back(shell: str, home: Path) -> None:
    """``PATH``, prefix, variables and scripts in their order; afterwards everything is as before."""
    before, on, after = ran(
        shell, SHOW, source(shell, home), SHOW, "deactivate", SHOW, ONE="mine", CONDA_PREFIX="/opt/base"
    )
    assert on["PATH"].split(":")[0] == f"{home}/bin"
    assert on["CONDA_PREFIX"] == on["CONDA_DEFAULT_ENV"] == str(home)
    assert (on["ONE"], on["BOTH"], on["ODD"]) == ("1", "own", ODD)
    assert on["CONDA_SHLVL"] == "1"
    assert on["ORDER"].split() == ["activate-a", "activate-b"]
    assert after["ORDER"].split() == ["activate-a", "activate-b", "deactivate-b", "deactivate-a"]
    assert before["CONDA_PREFIX"] == "/opt/base"
    del after["ORDER"]
    assert {k: v for k, v in after.items() if k != "_"} == {k: v for k, v in before.items() if k != "_"}


@pytest.mark.parametrize("shell", SHELLS)
def test_an_activated_environment_runs_its_programs(shell: str, home: Path) -> None:
    """A program of the environment is found by its name, and activating twice is activating once."""
    line = source(shell, home)
    once, twice, after = ran(shell, line, SHOW, line, SHOW, "deactivate", SHOW)
    assert once["PATH"] == twice["PATH"] == f"{home}/bin:{after['PATH']}"
    argv = [*SHELLS[shell][1], f"{line}\ntool"]
    done = subprocess.run(
        argv, capture_output=True, text=True, env={"PATH": os.defpath, "HOME": "/nonexistent"}
    )
    assert done.stdout == "tool runs\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_copy_finds_itself(shell: str, home: Path, tmp_path: Path) -> None:
    """Shells that say which file they read activate the copy, not the home that is written in the script."""
    copy = tmp_path / "copy"
    shutil.copytree(home, copy, symlinks=True)
    (on,) = ran(shell, source(shell, copy), SHOW)
    assert on["CONDA_PREFIX"] == str(copy)
    assert on["PATH"].startswith(f"{copy}/bin:")


@pytest.mark.parametrize("shell", SHELLS)
def test_without_scripts_of_packages_nothing_is_missing(shell: str, inside: Inside, tmp_path: Path) -> None:
    """No folder of scripts, no variable, no PS1: nothing is said and nothing fails."""
    home = put(environment(inside, []), tmp_path / "bare", inside)
    on, after = ran(shell, source(shell, home), SHOW, "deactivate", SHOW)
    assert on["CONDA_PREFIX"] == str(home)
    assert "CONDA_PREFIX" not in after


def test_the_prompt_names_the_environment_and_is_given_back(home: Path) -> None:
    """In an interactive shell; not where a person switched that off as for virtual environments."""
    line = source("bash", home)
    script = f'PS1="old> "; {line}; echo "$PS1"; deactivate; echo "$PS1"; VIRTUAL_ENV_DISABLE_PROMPT=1; {line}; echo "$PS1"'
    done = subprocess.run(["bash", "--norc", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["(the lab) old> ", "old> ", "old> "]


def test_scripts_are_the_same_whenever_they_are_derived(home: Path) -> None:
    """What is written can be derived again from the environment and its home."""
    layout = Layout(windows=False, site=None)
    wanted = activation.files(home, layout, home, {"BOTH": "own", "ODD": ODD}, [])
    assert {path: (home / path).read_bytes() for path in wanted} == wanted


def test_the_powershell_script_has_the_folders_of_windows(tmp_path: Path) -> None:
    """No PowerShell runs here: quotes and folders are looked at as text."""
    layout = Layout(windows=True, site="Lib/site-packages")
    (data,) = activation.files(tmp_path, layout, tmp_path / "it's", {"A": "x'y", "no-name": "1"}, []).values()
    text = data.decode()
    assert "it''s'" in text
    assert "@('', 'Library/mingw-w64/bin', 'Library/usr/bin', 'Library/bin', 'Scripts', 'bin')" in text
    assert "_HaversackSet A 'x''y'" in text
    assert "no-name" not in text
    assert text.count("{") == text.count("}")


def test_powershell_takes_no_typographic_quote_for_the_end(tmp_path: Path) -> None:
    """PowerShell ends a string at any of them (its specification, *verbatim string literals*), and doubled it is itself."""
    layout = Layout(windows=True, site=None)
    value = "it\u2018s; a\u2019; b\u201a; c\u201b; d'"
    home = tmp_path / "x\u2019; calc; \u2019"
    (data,) = activation.files(tmp_path, layout, home, {"A": value}, []).values()
    text = data.decode()
    doubled = "it\u2018\u2018s; a\u2019\u2019; b\u201a\u201a; c\u201b\u201b; d''"
    assert f"_HaversackSet A '{doubled}'\n" in text
    assert f"'{tmp_path}/x\u2019\u2019; calc; \u2019\u2019'" in text


def test_a_variable_of_a_package_that_is_no_text_is_left_out(tmp_path: Path) -> None:
    """Half a character, which JSON can say and a file cannot hold, fails nothing."""
    place = tmp_path / "etc" / "conda" / "env_vars.d" / "odd.json"
    place.parent.mkdir(parents=True)
    place.write_text('{"HALF": "\\ud800", "WHOLE": "\\ud83d\\ude00"}')
    layout = Layout(windows=False, site=None)
    text = activation.files(tmp_path, layout, tmp_path, {}, [])["bin/activate"].decode()
    assert "HALF" not in text
    assert "_haversack_set WHOLE '\U0001f600'" in text
