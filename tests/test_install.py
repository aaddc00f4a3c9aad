"""Install: built aside, swapped in one step, and only where haversack may."""

from __future__ import annotations

import io
import json
import os
import platform
import shutil
import signal
import stat
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from haversack.errors import IntegrityError, NotFoundError, PrefixError, ToolError
from haversack.model.target import Target
from haversack.verbs.install import MARKER, install
from haversack.wheels import interpreter
from tests.support import tiny
from tests.support.packed import artifacts_of, here, packed, python_archive, received, tree
from tests.support.wheels import make_wheel

LIB = f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"


def held(folder: Path, *wheels: Path, command: str | None = None, name: str = "2026-11") -> Path:
    """A store that received a bundle of these wheels; the folder of the store."""
    packed(folder, *wheels, command=command, rehearsing=False, name=name, out=name)
    received(folder, name)
    return folder / "inside"


def demo(folder: Path, version: str = "1.0") -> Path:
    """A package with a program that says its version and where it runs."""
    source = f"import sys\nVERSION = {version!r}\ndef main():\n    print(VERSION, sys.prefix)\n"
    return make_wheel(
        folder,
        "demo",
        version,
        modules={"demo/__init__.py": source},
        entry_points={"demo-tool": "demo:main"},
    )


def said(prefix: Path) -> list[str]:
    """What the program of the environment prints."""
    done = subprocess.run([prefix / "bin" / "demo-tool"], capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store with the demo."""
    return held(tmp_path, demo(tmp_path))


def test_programs_run_where_they_ended_up(tmp_path: Path, store: Path) -> None:
    """Entry points and activation name the prefix, not the place where it was built."""
    prefix = tmp_path / "envs" / "demo env"
    done = install("lab", prefix, tiny.inside(store))
    assert (done.ref, done.prefix, done.replaced) == ("lab/here", prefix, False)
    assert said(prefix) == ["1.0", *str(prefix).split()]
    if bash := shutil.which("bash"):
        script = f". '{prefix}/bin/activate' && command -v demo-tool && echo $VIRTUAL_ENV"
        told = subprocess.run([bash, "-c", script], capture_output=True, text=True, check=True).stdout
        assert told.splitlines() == [f"{prefix}/bin/demo-tool", str(prefix)]
    assert [path.name for path in prefix.parent.iterdir()] == [prefix.name]


def test_an_install_replaces_what_haversack_made(tmp_path: Path, store: Path) -> None:
    """The next snapshot replaces the environment whole: nothing of the old one stays."""
    prefix = tmp_path / "env"
    install("lab", prefix, tiny.inside(store))
    (prefix / "stray.txt").write_text("mine")
    held(tmp_path, demo(tmp_path, "2.0"), name="2026-12")
    done = install("lab", prefix, tiny.inside(store))
    assert done.replaced
    assert said(prefix)[0] == "2.0"
    assert not (prefix / "stray.txt").exists()
    assert not list(prefix.glob(f"{LIB}/demo-1.0*"))


def test_a_program_that_runs_survives_the_swap(tmp_path: Path, store: Path) -> None:
    """A reader of the prefix finds the old environment or the new one, at every moment of ten swaps."""
    prefix = tmp_path / "env"
    install("lab", prefix, tiny.inside(store))
    watch = f"import os, time\nend = time.time() + 60\nbad = 0\nwhile not os.path.exists({str(tmp_path / 'stop')!r}) and time.time() < end:\n    bad += not os.path.exists({str(prefix / MARKER)!r})\nprint(bad)"
    process = subprocess.Popen([sys.executable, "-c", watch], stdout=subprocess.PIPE, text=True)
    for _ in range(5):
        install("lab", prefix, tiny.inside(store))
    (tmp_path / "stop").touch()
    out, _ = process.communicate(timeout=60)
    if sys.platform == "linux":
        assert out.strip() == "0"


@pytest.mark.parametrize("what", ["folder", "file", "link", "dangling", "venv"])
def test_a_prefix_that_is_not_ours_is_left_alone(tmp_path: Path, store: Path, what: str) -> None:
    """Whatever haversack did not make, it refuses with 15 and does not touch."""
    prefix = tmp_path / "mine" / "env"
    prefix.parent.mkdir()
    (tmp_path / "elsewhere").mkdir()
    match what:
        case "folder":
            prefix.mkdir()
            (prefix / "thesis.tex").write_text("years of work")
        case "file":
            prefix.write_text("a file")
        case "link":
            prefix.symlink_to(tmp_path / "elsewhere")
        case "dangling":
            prefix.symlink_to(tmp_path / "nowhere")
        case "venv":
            subprocess.run([sys.executable, "-m", "venv", "--without-pip", prefix], check=True)
    before = tree(tmp_path / "mine")
    done = tiny.haversack("install", "lab", "--to", prefix, "--json", store=store)
    assert (done.returncode, json.loads(done.stdout)["error"]) == (15, "prefix")
    assert str(prefix) in json.loads(done.stdout)["where"]
    assert tree(tmp_path / "mine") == before
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_link_to_our_own_prefix_is_refused(tmp_path: Path, store: Path) -> None:
    """A symbolic link is refused even where it leads to an environment of ours."""
    install("lab", tmp_path / "env", tiny.inside(store))
    (tmp_path / "link").symlink_to("env")
    with pytest.raises(PrefixError):
        install("lab", tmp_path / "link", tiny.inside(store))
    assert said(tmp_path / "env")[0] == "1.0"


@pytest.mark.parametrize("marker", ["", "{}", "not json", '{"haversack-environment": "1.0"}'])
def test_a_marker_that_says_nothing_is_none(tmp_path: Path, store: Path, marker: str) -> None:
    """A folder with a file of the marker's name that haversack did not write is not ours."""
    prefix = tmp_path / "env"
    prefix.mkdir()
    (prefix / MARKER).write_text(marker)
    with pytest.raises(PrefixError):
        install("lab", prefix, tiny.inside(store))
    assert (prefix / MARKER).read_text() == marker


def test_an_empty_folder_is_taken(tmp_path: Path, store: Path) -> None:
    """An empty folder, which an administrator may have made with its rights, is a good prefix."""
    (tmp_path / "env").mkdir()
    assert not install("lab", tmp_path / "env", tiny.inside(store)).replaced
    assert said(tmp_path / "env")[0] == "1.0"


def test_a_relative_prefix_is_meant_from_here(tmp_path: Path, store: Path) -> None:
    """A relative prefix is of the folder one stands in, and its programs work from everywhere."""
    done = tiny.haversack("install", "lab", "--to", "envs/one", store=store, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert said(tmp_path / "envs" / "one") == ["1.0", str(tmp_path / "envs" / "one")]


def test_a_killed_install_leaves_the_old_environment(tmp_path: Path) -> None:
    """After a kill -9 in the middle the old environment works, and the next install clears what was left."""
    prefix = tmp_path / "env"
    store = held(tmp_path, demo(tmp_path))
    install("lab", prefix, tiny.inside(store))
    held(tmp_path, demo(tmp_path, "2.0"), command=f"test -e {tmp_path}/go || sleep 60", name="2026-12")
    process = subprocess.Popen(
        tiny.command("install", "lab", "--to", prefix, "--check"),
        env=tiny.environ(store),
        start_new_session=True,
    )
    due = time.monotonic() + 30
    while not list(tmp_path.glob(f".env.haversack-*/{LIB}/demo-2.0*/RECORD")):
        assert time.monotonic() < due
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert said(prefix)[0] == "1.0"
    assert list(tmp_path.glob(".env.haversack-*"))
    (tmp_path / "go").touch()
    install("lab", prefix, tiny.inside(store), check=True)
    assert said(prefix)[0] == "2.0"
    assert not list(tmp_path.glob(".env*"))


def test_leftovers_of_living_installs_stay(tmp_path: Path, store: Path) -> None:
    """What another install of the same prefix is building just now is not cleared away."""
    other = tmp_path / f".env.haversack-{platform.node()}-{os.getppid()}"
    other.mkdir()
    foreign = tmp_path / ".env.haversack-some.other.host-1"
    foreign.mkdir()
    install("lab", tmp_path / "env", tiny.inside(store))
    assert other.is_dir()
    assert foreign.is_dir()


def test_a_second_environment_costs_no_bytes(tmp_path: Path, store: Path) -> None:
    """Two environments of one store share their files on disk."""
    for name in ("one", "two"):
        install("lab", tmp_path / name, tiny.inside(store))
    one, two = ((tmp_path / name / LIB / "demo" / "__init__.py").stat() for name in ("one", "two"))
    assert one.st_ino == two.st_ino
    assert said(tmp_path / "one") != said(tmp_path / "two")


def test_an_edit_in_one_environment_does_not_reach_the_next(tmp_path: Path, store: Path) -> None:
    """An installed file that somebody edited in place is not handed on to another environment."""
    install("lab", tmp_path / "one", tiny.inside(store))
    module = tmp_path / "one" / LIB / "demo" / "__init__.py"
    module.chmod(module.stat().st_mode | stat.S_IWUSR)
    time.sleep(0.01)
    with module.open("a") as file:
        file.write("VERSION = 'edited'\n")
    install("lab", tmp_path / "two", tiny.inside(store))
    assert said(tmp_path / "two")[0] == "1.0"


def test_a_damaged_blob_is_never_installed(tmp_path: Path, store: Path) -> None:
    """A blob that rotted in the store ends with 7, names the file, and leaves the environment as it was."""
    prefix = tmp_path / "env"
    install("lab", prefix, tiny.inside(store))
    (wheel,) = (artifact for artifact in artifacts_of([tmp_path / "demo-1.0-py3-none-any.whl"], "lab/here"))
    blob = store / "blobs" / "sha256" / wheel.digest[7:]
    blob.chmod(0o644)
    data = bytearray(blob.read_bytes())
    data[60] ^= 1
    blob.write_bytes(data)
    before = tree(prefix)
    with pytest.raises(IntegrityError) as caught:
        install("lab", prefix, tiny.inside(store))
    assert wheel.digest[7:] in caught.value.findings[0].subject
    assert tree(prefix) == before
    blob.unlink()
    done = tiny.haversack("install", "lab", "--to", prefix, "--json", store=store)
    assert done.returncode in {7, 13, 18}
    assert wheel.digest[7:] in done.stdout
    assert tree(prefix) == before
    assert [path.name for path in tmp_path.glob(".env*")] == []


def test_a_check_that_fails_changes_nothing(tmp_path: Path) -> None:
    """With --check an environment that does not work here never replaces one that does."""
    prefix = tmp_path / "env"
    store = held(tmp_path, demo(tmp_path))
    install("lab", prefix, tiny.inside(store))
    held(tmp_path, demo(tmp_path, "2.0"), command="echo no licence; exit 4", name="2026-12")
    done = tiny.haversack("install", "lab", "--to", prefix, "--check", "--json", store=store)
    told = json.loads(done.stdout)
    assert done.returncode == 12
    assert "no licence" in told["findings"][0]["message"]
    assert said(prefix)[0] == "1.0"
    assert not list(tmp_path.glob(".env*"))
    install("lab", prefix, tiny.inside(store))
    assert said(prefix)[0] == "2.0"


def test_an_older_snapshot_by_name(tmp_path: Path) -> None:
    """--snapshot installs what the site had then, without making it current."""
    held(tmp_path, demo(tmp_path))
    store = held(tmp_path, demo(tmp_path, "2.0"), name="2026-12")
    assert install("lab", tmp_path / "old", tiny.inside(store), snapshot="2026-11").snapshot == "2026-11"
    assert install("lab", tmp_path / "new", tiny.inside(store)).snapshot == "2026-12"
    assert (said(tmp_path / "old")[0], said(tmp_path / "new")[0]) == ("1.0", "2.0")
    with pytest.raises(NotFoundError, match="2026-10"):
        install("lab", tmp_path / "none", tiny.inside(store), snapshot="2026-10")


def test_a_dry_run_touches_nothing(tmp_path: Path, store: Path) -> None:
    """--dry-run says what would be done, in words and in JSON, and does none of it."""
    before = tree(store)
    done = tiny.haversack("install", "lab", "--to", tmp_path / "env", "--dry-run", "--json", store=store)
    assert done.returncode == 0
    assert json.loads(done.stdout)["prefix"] == str(tmp_path / "env")
    assert not (tmp_path / "env").exists()
    assert tree(store) == before


def test_bytecode_on_request(tmp_path: Path, store: Path) -> None:
    """--compile-bytecode writes it now, for a prefix whose readers may not."""
    install("lab", tmp_path / "plain", tiny.inside(store))
    install("lab", tmp_path / "compiled", tiny.inside(store), compile_bytecode=True)
    assert not list((tmp_path / "plain" / LIB / "demo").rglob("*.pyc"))
    assert list((tmp_path / "compiled" / LIB / "demo").rglob("*.pyc"))


def test_every_install_is_on_record(tmp_path: Path, store: Path) -> None:
    """The ledger tells what was installed where, and a failed one is not on it."""
    install("lab", tmp_path / "env", tiny.inside(store))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    with pytest.raises(PrefixError):
        install("lab", tmp_path / "full", tiny.inside(store))
    acts = [line.entry for line in tiny.inside(store).ledger.lines() if line.entry]
    assert [(entry.act, entry.details.get("prefix")) for entry in acts] == [
        ("receive", None),
        ("install", str(tmp_path / "env")),
    ]


def test_names_that_are_not_there(tmp_path: Path, store: Path) -> None:
    """An environment or target the snapshot lacks ends with 18 and names those it has."""
    with pytest.raises(NotFoundError, match="lab"):
        install("laboratory", tmp_path / "env", tiny.inside(store))
    with pytest.raises(NotFoundError, match="windows") as caught:
        install("lab", tmp_path / "env", tiny.inside(store), target="windows")
    assert "here" in caught.value.remedy


def test_the_best_target_is_chosen(tmp_path: Path) -> None:
    """Without --target the nearest one that runs here is taken; a named one is taken as it is."""
    old = Target("old", here().platform, here().python, "2.17" if here().glibc else None)
    foreign = Target("foreign", "windows-amd64", here().python)
    packed(tmp_path, demo(tmp_path), targets=[old, here(), foreign], rehearsing=False)
    received(tmp_path)
    inside = tiny.inside(tmp_path / "inside")
    assert install("lab", tmp_path / "a", inside, dry_run=True).ref == "lab/here"
    assert install("lab", tmp_path / "a", inside, target="old", dry_run=True).ref == "lab/old"


def test_a_machine_that_no_target_fits(tmp_path: Path) -> None:
    """Where no target runs here the error tells what they are and how to lock for this machine."""
    packed(tmp_path, demo(tmp_path), targets=[Target("w", "windows-amd64", "3.11")], rehearsing=False)
    received(tmp_path)
    with pytest.raises(NotFoundError) as caught:
        install("lab", tmp_path / "env", tiny.inside(tmp_path / "inside"))
    assert "haversack probe" in caught.value.remedy
    assert [finding.code for finding in caught.value.findings] == ["target-none"]


def another_python() -> tuple[str, Path]:
    """Another minor version of Python on this machine: one that stands beside ours, or on the PATH."""
    beside = sorted(Path(sys.base_prefix).parent.glob("*/bin/python3"))
    on_path = [shutil.which(f"python3.{n}") for n in range(10, 16)]
    for python in (*beside, *map(Path, filter(None, on_path))):
        code = "import sys, venv, ssl; print('%d.%d' % sys.version_info[:2])"
        done = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, check=False)
        minor = done.stdout.strip()
        if done.returncode == 0 and minor != here().python and tuple(map(int, minor.split("."))) >= (3, 8):
            return minor, python
    pytest.skip("there is no second Python on this machine")


def test_the_python_of_the_target_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A target with another Python than haversack's own gets that one, from the PATH or by --python."""
    minor, python = another_python()
    monkeypatch.setenv("PATH", f"{python.parent}{os.pathsep}/usr/bin{os.pathsep}/bin")
    packed(tmp_path, demo(tmp_path), targets=[here(python=minor)], rehearsing=False)
    received(tmp_path)
    inside = tiny.inside(tmp_path / "inside")
    for name, given in (("found", None), ("given", python)):
        install("lab", tmp_path / name, inside, python=given)
        argv = [str(tmp_path / name / "bin" / "python"), "-c", "import sys, demo; print(sys.version_info[1])"]
        done = subprocess.run(argv, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == minor.partition(".")[2]


@pytest.mark.parametrize("given", ["wrong", "dead", "no-python"])
def test_a_wrong_python_is_refused(tmp_path: Path, store: Path, given: str) -> None:
    """--python with another version, or with something that is no Python, ends with 20 and says which it wants."""
    python = tmp_path / "python3"
    if given == "wrong":
        _, python = another_python()
    else:
        python.write_text("#!/bin/sh\nexit 127\n" if given == "dead" else "hello")
        python.chmod(0o755)
    with pytest.raises(ToolError) as caught:
        install("lab", tmp_path / "env", tiny.inside(store), python=python)
    assert here().python in f"{caught.value} {caught.value.remedy}"
    assert not (tmp_path / "env").exists()


def no_such_python(tmp_path: Path) -> str:
    """A minor version of Python that is not on this machine."""
    inside = tiny.inside(tmp_path / "probe")
    return next(minor for minor in (f"3.{n}" for n in range(30, 40)) if not interpreter.find(minor, inside))


def test_no_python_is_an_error_with_a_way_out(tmp_path: Path) -> None:
    """Where the target's Python is missing, and none came along, the error says how to bring one."""
    packed(tmp_path, demo(tmp_path), targets=[here(python=no_such_python(tmp_path))], rehearsing=False)
    received(tmp_path)
    with pytest.raises(ToolError, match="no Python") as caught:
        install("lab", tmp_path / "env", tiny.inside(tmp_path / "inside"))
    assert "interpreter" in caught.value.remedy
    assert not (tmp_path / "env").exists()


def test_the_python_that_the_bundle_brought(tmp_path: Path) -> None:
    """On a machine without the target's Python the interpreter of the bundle is unpacked once and used."""
    minor, python = another_python()
    archive = python_archive(tmp_path / "python.tar", python)
    packed(tmp_path, demo(tmp_path), archive, targets=[here(python=minor)], rehearsing=False)
    received(tmp_path)
    env = {"PATH": "/nowhere"}
    for name in ("one", "two"):
        done = tiny.haversack("install", "lab", "--to", tmp_path / name, store=tmp_path / "inside", env=env)
        assert done.returncode == 0, done.stderr
    archive.unlink()
    argv = [
        str(tmp_path / "two" / "bin" / "python"),
        "-c",
        "import sys, demo, ssl; print(*sys.version_info[:2], sys.base_prefix)",
    ]
    told = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()
    assert told[:2] == minor.split(".")
    assert Path(told[2]).is_relative_to(tmp_path / "inside" / "haversack" / "pythons")
    assert len(list((tmp_path / "inside" / "haversack" / "pythons").iterdir())) == 1


@pytest.mark.parametrize("member", ["../outside", "/outside", "link"])
def test_an_interpreter_archive_that_leaves_its_folder(tmp_path: Path, member: str) -> None:
    """An archive with a way out of its folder is refused, and nothing of it stays."""
    archive = tmp_path / "python.tar"
    with tarfile.open(archive, "w") as tar:
        info = tarfile.TarInfo(
            "bin/link" if member == "link" else f"{tmp_path}/outside" if member[0] == "/" else member
        )
        if member == "link":
            info.type, info.linkname = tarfile.SYMTYPE, "../../../../etc/passwd"
        else:
            info.size = 3
        tar.addfile(info, io.BytesIO(b"bad"))
    (artifact,) = artifacts_of([archive], "lab/here")
    inside = tiny.inside(tmp_path / "inside")
    with inside.store.exclusive():
        inside.store.add(artifact.digest, [archive.read_bytes()])
    with pytest.raises((IntegrityError, ToolError)):
        interpreter.unpack(artifact, here().python, inside)
    assert not (tmp_path / "outside").exists()
    pythons = inside.cache.parent / "pythons"
    assert list(pythons.iterdir()) == []


def test_a_victim_is_not_touched(tmp_path: Path, store: Path) -> None:
    """Whatever UV_PYTHON and VIRTUAL_ENV name, an install leaves it as it was."""
    victim = tmp_path / "victim"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", victim], check=True)
    (victim / LIB / "thesis.py").write_text("years = 'of work'\n")
    before = tree(victim)
    env = {
        "UV_PYTHON": str(victim / "bin" / "python"),
        "VIRTUAL_ENV": str(victim),
        "UV_PROJECT_ENVIRONMENT": str(victim),
        "CONDA_PREFIX": str(victim),
        "UV_TARGET": str(victim / LIB),
        "PIP_TARGET": str(victim / LIB),
        "PIP_PREFIX": str(victim),
        "UV_CACHE_DIR": str(victim / "cache"),
        "UV_LINK_MODE": "symlink",
        "PYTHONPATH": str(victim / LIB),
        "PATH": f"{victim / 'bin'}:{os.environ['PATH']}",
    }
    done = tiny.haversack("install", "lab", "--to", tmp_path / "env", "--check", store=store, env=env)
    assert done.returncode == 0, done.stderr
    assert tree(victim) == before
    assert said(tmp_path / "env")[0] == "1.0"


def test_two_installs_at_once(tmp_path: Path, store: Path) -> None:
    """Two installs of different prefixes from one store at the same time both work."""
    processes = [
        subprocess.Popen(
            tiny.command("install", "lab", "--to", tmp_path / f"env{n}"),
            env=tiny.environ(store),
            stderr=subprocess.PIPE,
            text=True,
        )
        for n in range(3)
    ]
    for process in processes:
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
    assert [said(tmp_path / f"env{n}")[0] for n in range(3)] == ["1.0"] * 3
    done = tiny.haversack("audit", "verify", store=store)
    assert done.returncode == 0, done.stderr
