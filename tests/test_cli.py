"""The command line: words in, words or JSON out, and exit codes that scripts may rely on."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from haversack import __version__
from haversack.cli import cli
from haversack.console import Console
from haversack.errors import PrefixError, every_error
from haversack.model.finding import Finding
from tests.support import tiny
from tests.support.packed import packed, received
from tests.support.site import Lab
from tests.support.wheels import make_wheel


def every_command(group: click.Group = cli, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words of every command, groups among them."""
    for name, command in group.commands.items():
        yield (*path, name)
        if isinstance(command, click.Group):
            yield from every_command(command, (*path, name))


COMMANDS = sorted(every_command())


@pytest.fixture(scope="module")
def inside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a bundle, a store that received it, and an installed environment, not to be changed."""
    folder = tmp_path_factory.mktemp("cli")
    packed(folder, make_wheel(folder, "demo", "1.0"), rehearsing=False)
    received(folder)
    done = tiny.haversack("install", "lab", "--to", folder / "env", store=folder / "inside")
    assert done.returncode == 0, done.stderr
    return folder


def test_all_verbs_are_there() -> None:
    """The commands are those of the journey, and none slips away unnoticed."""
    assert {words[0] for words in COMMANDS} >= {
        "init", "lock", "pack", "verify", "receive", "install", "snapshots", "use", "prune", "diff",
        "receipt", "audit", "probe", "doctor", "demo", "completion",
    }  # fmt: skip


def test_a_name_that_holds_a_line_break_tells_no_lies(inside: Path, tmp_path: Path) -> None:
    """What a stranger called a file is one line, and a line that it would pretend to be is none."""
    shutil.copytree(inside / "bundle", tmp_path / "bundle")
    (volume,) = (tmp_path / "bundle").iterdir()
    (volume / "x\nnote: all is well\x1b[2J").write_bytes(b"")
    done = tiny.haversack("verify", tmp_path / "bundle", store=inside / "inside")
    assert done.returncode != 0
    assert "x\\nnote: all is well\\x1b[2J" in done.stderr
    assert "\nnote: all is well" not in done.stderr


def test_texts_of_several_lines_are_told_from_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """What programs said keeps its lines, indented; places, names, results and notes have none."""
    console = Console()
    said = "it said:\nerror: worse\x1b[31m"
    console.findings([Finding("rehearsal-failed", "lab\n/x", said, "see\nerror: more")])
    console.error(PrefixError(said, where="/a\nerror: b", remedy="do"))
    console.notes(["a\nerror: b"])
    console.lines(["a\nerror: c"])
    told = capsys.readouterr()
    assert [line for line in told.err.splitlines() if line.startswith("error:")] == [
        "error: lab\\n/x: it said:",
        "error: /a\\nerror: b: it said:",
    ]
    assert "\n      error: worse\\x1b[31m [rehearsal-failed]\n  remedy: see\n      error: more\n" in told.err
    assert "a\\nerror: b\n" in told.err
    assert told.out == "a\\nerror: c\n"


@pytest.mark.parametrize("words", [(), *COMMANDS], ids=lambda words: "-".join(words) or "haversack")
def test_every_command_has_help(words: tuple[str, ...]) -> None:
    """Every command and group says in a sentence what it does, and every option what it is for."""
    command: click.Command = cli
    for word in words:
        assert isinstance(command, click.Group)
        command = command.commands[word]
    assert command.help
    assert command.help.split("\n")[0].strip().endswith((".", ":"))
    for option in command.params:
        if isinstance(option, click.Option):
            assert option.help, option.name


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_is_printed(tmp_path: Path, flag: str) -> None:
    """Asking for help works before and behind a command, and makes no store."""
    for words in ([flag], ["pack", flag], ["audit", "show", flag]):
        done = tiny.haversack(*words, store=tmp_path / "store")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("Usage: ")
    assert not (tmp_path / "store").exists()


def test_version(tmp_path: Path) -> None:
    """--version says name and version."""
    done = tiny.haversack("--version", store=tmp_path)
    assert (done.returncode, done.stdout) == (0, f"haversack, version {__version__}\n")


@pytest.mark.parametrize(
    "words",
    [
        ["verify", "bundle"],
        ["receive", "bundle"],
        ["install", "lab", "--to", "env2", "--dry-run"],
        ["snapshots"],
        ["use", "2026-11"],
        ["prune", "--dry-run"],
        ["diff", "2026-11"],
        ["receipt"],
        ["audit", "show"],
        ["audit", "verify"],
        ["probe"],
        ["doctor"],
        ["doctor", "--env", "env"],
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_json_is_one_value(inside: Path, words: list[str]) -> None:
    """With --json, before the command or behind it, standard output is one JSON value and nothing else."""
    before = tiny.haversack("--json", *words, store=inside / "inside", cwd=inside)
    behind = tiny.haversack(*words, "--json", store=inside / "inside", cwd=inside)
    assert (before.returncode, behind.returncode) == (0, 0), before.stderr + behind.stderr
    assert (before.stderr, behind.stderr) == ("", "")
    values = [json.loads(done.stdout) for done in (before, behind)]
    assert type(values[0]) is type(values[1])
    if isinstance(values[0], dict):
        assert values[0].keys() == values[1].keys()


@pytest.mark.parametrize(
    ("words", "code", "title"),
    [
        (["frobnicate"], 2, "usage"),
        (["install", "lab"], 2, "usage"),
        (["pack"], 2, "usage"),
        (["lock", "--no-such-option"], 2, "usage"),
        (["prune", "--keep", "0"], 2, "usage"),
        (["pack", "-o", "x", "--volume-size", "huge"], 2, "usage"),
        (["lock"], 3, "declaration"),
        (["install", "nobody", "--to", "env3"], 18, "not found"),
        (["use", "1999-01"], 18, "not found"),
        (["verify", "nowhere"], 18, "not found"),
        (["snapshots", "--store", "nowhere"], 13, "store"),
        (["doctor", "--env", "bundle"], 15, "prefix"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_errors_have_codes_and_words(inside: Path, words: list[str], code: int, title: str) -> None:
    """An error has its exit code; for people a line and a remedy on stderr, for scripts JSON on stdout."""
    plain = tiny.haversack(*words, store=inside / "inside", cwd=inside)
    assert (plain.returncode, plain.stdout) == (code, "")
    assert "error: " in plain.stderr
    assert "Traceback" not in plain.stderr
    told = tiny.haversack(*words, "--json", store=inside / "inside", cwd=inside)
    assert (told.returncode, told.stderr) == (code, "")
    value = json.loads(told.stdout)
    assert (value["error"], value["exit_code"]) == (title, code)
    assert value["message"]
    assert value.keys() == {"error", "exit_code", "message", "where", "remedy", "findings"}


def test_exit_codes_are_unique() -> None:
    """No two classes of error share an exit code, and none takes those that shells use."""
    codes = [kind.exit_code for kind in every_error()]
    assert len(codes) == len(set(codes))
    assert all(1 <= code < 126 for code in codes)


def test_no_colours_in_a_pipe(inside: Path) -> None:
    """What goes into a file has no escape sequences, whatever the terminal is said to be."""
    env = {"TERM": "xterm-256color", "COLORTERM": "truecolor"}
    for words in (["use", "nope"], ["doctor"], ["snapshots"], ["--help"]):
        done = tiny.haversack(*words, store=inside / "inside", env=env)
        assert "\x1b" not in done.stdout + done.stderr


def test_strangers_do_not_steer_the_terminal(inside: Path) -> None:
    """Escape sequences in a name that a stranger chose are shown, not obeyed."""
    folder = inside / "evil\x1b]0;owned\x07"
    folder.mkdir(exist_ok=True)
    code, out = on_terminal(tiny.command("verify", str(folder)), tiny.environ(inside / "inside"), inside)
    assert code == 18
    assert "\x1b]0" not in out
    assert "evil" in out


def on_terminal(argv: list[str], env: dict[str, str], cwd: Path) -> tuple[int, str]:
    """Run a program whose output is a terminal, and return its exit code and all it wrote there."""
    pty = pytest.importorskip("pty")
    termios = pytest.importorskip("termios")
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (24, 80))
    process = subprocess.Popen(
        argv, env={**env, "TERM": "xterm"}, cwd=cwd, stdin=slave, stdout=slave, stderr=slave
    )
    os.close(slave)
    data = b""
    due = time.monotonic() + 60
    while time.monotonic() < due:
        ready, _, _ = select.select([master], [], [], 0.2)
        if ready:
            try:
                chunk = os.read(master, 65536)
            except OSError:  # how Linux says that nobody holds the other end any more
                break
            if not chunk:
                break
            data += chunk
        elif process.poll() is not None:
            break
    os.close(master)
    return process.wait(10), data.decode(errors="replace")


def test_colours_on_a_terminal(inside: Path) -> None:
    """On a terminal an error is red."""
    code, out = on_terminal(tiny.command("use", "nope"), tiny.environ(inside / "inside"), inside)
    assert code == 18
    assert "\x1b[31m" in out


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[Lab]:
    """A locked site whose index takes two seconds for a file."""
    with Lab(tmp_path / "lab", json_pages=True) as lab:
        make_wheel(lab.wheels, "demo", "1.0", extra_files={"demo/noise.bin": os.urandom(20_000)})
        lab.declare("demo")
        lab.lock()
        lab.index.fault("/files/demo", method="GET", delay=0.11)
        yield lab


def test_progress_on_a_terminal(slow: Lab) -> None:
    """Slow work shows a bar on a terminal, with --quiet none, and in a pipe none."""
    words = ("pack", "--no-rehearse", "-o")
    code, out = on_terminal(tiny.command(*words, str(slow.folder / "one")), slow.environ, slow.root)
    assert code == 0, out
    assert "collecting" in out
    assert "%" in out
    shutil.rmtree(slow.store)
    slow.lock()
    piped = slow(*words, slow.folder / "two")
    assert piped.returncode == 0
    assert "collecting" not in piped.stdout + piped.stderr
    shutil.rmtree(slow.store)
    slow.lock()
    quiet = tiny.command("--quiet", *words, str(slow.folder / "three"))
    code, out = on_terminal(quiet, slow.environ, slow.root)
    assert code == 0, out
    assert "collecting" not in out


def test_a_stream_on_standard_output_is_nothing_but_the_stream(tmp_path: Path) -> None:
    """pack -o - writes one tar to standard output and every word to standard error; receive - reads it."""
    with Lab(tmp_path / "lab") as lab:
        make_wheel(lab.wheels, "demo", "1.0")
        lab.declare("demo")
        lab.lock()
        argv = tiny.command("pack", "--no-rehearse", "-o", "-")
        done = subprocess.run(argv, cwd=lab.root, env=lab.environ, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
    assert b"wrote" in done.stderr
    env = tiny.environ(tmp_path / "inside")
    taken = subprocess.run(
        tiny.command("receive", "-"), input=done.stdout, env=env, capture_output=True, check=False
    )
    assert taken.returncode == 0, taken.stderr
    assert b"is now current" in taken.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(tmp_path: Path, shell: str) -> None:
    """For each shell there is a script, which the shell itself can read where it is here."""
    done = tiny.haversack("completion", shell, store=tmp_path)
    assert done.returncode == 0
    assert "_HAVERSACK_COMPLETE" in done.stdout
    if program := shutil.which(shell):
        script = tmp_path / "script"
        script.write_text(done.stdout)
        subprocess.run([program, "-n", script], check=True, capture_output=True)


def test_completion_completes(tmp_path: Path) -> None:
    """In bash, `haversack re` offers the commands that begin so, and `pack --vol` the option."""
    program = Path(sys.executable).with_name("haversack")
    bash = shutil.which("bash")
    if not bash or not program.exists():
        pytest.skip("needs bash and an installed haversack")
    script = (
        'eval "$(haversack completion bash)"\n'
        "COMP_WORDS=(haversack re); COMP_CWORD=1; _haversack_completion haversack\n"
        'echo "${COMPREPLY[@]}"\n'
        "COMPREPLY=(); COMP_WORDS=(haversack pack --vol); COMP_CWORD=2; _haversack_completion haversack\n"
        'echo "${COMPREPLY[@]}"\n'
    )
    env = {**tiny.environ(tmp_path), "PATH": f"{program.parent}:/usr/bin:/bin"}
    done = subprocess.run([bash, "-c", script], env=env, capture_output=True, text=True, check=False)
    commands, options = done.stdout.splitlines()
    assert {"receive", "receipt", "render"} == set(commands.split())
    assert options.split() == ["--volume-size"]


@pytest.mark.parametrize("words", [["snapshots"], ["probe"], ["--help"], []])
def test_a_reader_that_goes_away(inside: Path, words: list[str]) -> None:
    """When the reader of the output leaves, haversack ends quietly, as a program that the pipe ended."""
    read, write = os.pipe()
    os.close(read)
    process = subprocess.Popen(
        tiny.command(*words),
        env=tiny.environ(inside / "inside"),
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(write)
    _, err = process.communicate(timeout=30)
    assert err == ""
    assert process.returncode == 141


def test_help_is_quick(tmp_path: Path) -> None:
    """Help and completion load no port: no network library, no ledger, no store."""
    code = "import sys, haversack.cli; bad = {'urllib3', 'haversack.ports.disk', 'haversack.ports.fetch', 'tqdm', 'uv'} & set(sys.modules); print(sorted(bad))"
    done = subprocess.run(
        [sys.executable, "-c", code], env=tiny.environ(tmp_path), capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_nobody_waits_for_what_an_environment_does_not_need(tmp_path: Path) -> None:
    """The connected side of a site without conda loads no solver, and no event loop."""
    (tmp_path / "haversack.toml").write_text('[site]\nname = "here"\n')
    code = """
import sys
from pathlib import Path
from haversack.cli.setting import Setting
from haversack.formats.declaration import parse
from haversack.kinds import keys

site = parse(Path("haversack.toml"), keys())
Setting(Path("store").absolute(), as_json=False, quiet=True).outside(site)
print(sorted({"rattler", "asyncio"} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=tiny.environ(tmp_path),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "[]\n", done.stderr
