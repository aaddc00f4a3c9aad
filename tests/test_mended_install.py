"""Defects of installs, of the doctor's look at them, and of what they stand on, once mended."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import pytest

from haversack.errors import NotFoundError, ProofError, ToolError
from haversack.formats import wheel as wheels
from haversack.model.artifact import digest_of, hex_of
from haversack.model.target import Target
from haversack.verbs import doctor, snapshots
from haversack.verbs.install import install
from haversack.wheels import cache, interpreter
from tests.support import tiny
from tests.support.packed import artifacts_of, here, packed, received
from tests.support.wheels import make_wheel

LIB = f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"


def held(folder: Path, *files: Path, name: str = "2026-11") -> Path:
    """A store that received a bundle of these files; the folder of the store."""
    packed(folder, *files, rehearsing=False, name=name, out=name)
    received(folder, name)
    return folder / "inside"


def alpha(folder: Path, version: str = "1.0", **more: object) -> Path:
    """A wheel with a module, a program, a script and a file at the root of the prefix."""
    files = {
        f"alpha-{version}.data/scripts/alpha-sh": b"#!/bin/sh\necho alpha\n",
        f"alpha-{version}.data/data/share/alpha.txt": b"shared\n",
        f"alpha-{version}.data/purelib/beside.py": b"VALUE = 1\n",
    }
    return make_wheel(folder, "alpha", version, entry_points={"alpha": "alpha:main"}, extra_files=files)


@pytest.fixture
def env(tmp_path: Path) -> Path:
    """An installed environment; its store is in ``inside`` beside it."""
    install("lab", tmp_path / "env", tiny.inside(held(tmp_path, alpha(tmp_path))))
    return tmp_path / "env"


def found(env: Path) -> list[tuple[str, str]]:
    """Code and subject of everything that the doctor finds in an environment."""
    done = doctor.environment(env, tiny.inside(env.parent / "inside"))
    return [(finding.code, finding.subject) for finding in done.findings]


def rewrite(path: Path, data: bytes) -> None:
    """Another file under that name, so that nothing else that shares its bytes changes."""
    path.unlink(missing_ok=True)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("evil.pth", "evil.pth"),
        ("sitecustomize.py", "sitecustomize.py"),
        ("alpha/added.py", "alpha/added.py"),
        ("stranger/__init__.py", "stranger"),
        ("evil.pyc", "evil.pyc"),
    ],
)
def test_a_file_that_no_distribution_brought_is_found(env: Path, name: str, shown: str) -> None:
    """A file or package that somebody put beside the distributions is drift, named by its place."""
    rewrite(env / LIB / name, b"import os\n")
    assert found(env) == [("env-extra", f"{LIB}/{shown}")]


def test_a_line_in_a_record_makes_nothing_right(env: Path) -> None:
    """A stranger that an installed RECORD names is none the less found: the wheel does not bring it."""
    data = b"import os\n"
    rewrite(env / LIB / "evil.pth", data)
    record = env / LIB / "alpha-1.0.dist-info" / "RECORD"
    rewrite(record, record.read_bytes() + b"evil.pth,,\n")
    assert found(env) == [("env-extra", f"{LIB}/evil.pth")]


@pytest.mark.parametrize("name", ["alpha/__init__.py", "beside.py", "../../../share/alpha.txt"])
def test_an_edit_that_hides_in_the_record_is_found(env: Path, name: str) -> None:
    """A file that was edited together with its line in RECORD is held against the wheel in the store."""
    place = env / LIB / name
    record = env / LIB / "alpha-1.0.dist-info" / "RECORD"
    lines = record.read_bytes().splitlines(keepends=True)
    kept = [line for line in lines if not line.startswith(name.encode())]
    assert len(kept) < len(lines)
    rewrite(place, b"evil\n")
    rewrite(record, b"".join(kept))
    subject = os.path.relpath(os.path.normpath(place), env)
    assert found(env) == [("env-changed", subject)]


@pytest.mark.parametrize("tool", ["alpha", "alpha-sh"])
def test_a_script_that_a_record_no_longer_names(env: Path, tool: str) -> None:
    """A script has no other witness than RECORD: one that lost its line is a finding on RECORD."""
    record = env / LIB / "alpha-1.0.dist-info" / "RECORD"
    lines = record.read_text().splitlines(keepends=True)
    rewrite(record, "".join(line for line in lines if f"/bin/{tool}," not in line).encode())
    assert found(env) == [("env-changed", f"{LIB}/alpha-1.0.dist-info/RECORD")]


@pytest.mark.parametrize("data", [b"alpha\xff,,\n", b"six.py,foo=xx,1\n", b"six.py,shake_128=xx,x\n"])
def test_a_record_that_is_none_is_a_finding(env: Path, data: bytes) -> None:
    """A RECORD that cannot be read, or hashes by what is no hash, is drift and no crash."""
    record = env / LIB / "alpha-1.0.dist-info" / "RECORD"
    rewrite(record, record.read_bytes() + data)
    assert ("env-changed", f"{LIB}/alpha-1.0.dist-info/RECORD") in found(env)


def test_an_environment_without_its_snapshot_is_still_looked_at(env: Path) -> None:
    """After ``prune`` forgot the snapshot the RECORDs are compared, and a note says that they are all there is."""
    folder = env.parent
    held(folder, make_wheel(folder, "gamma", "1.0"), name="2026-12")
    snapshots.prune(tiny.inside(folder / "inside"), keep=1)
    assert [code for code, _ in found(env)] == ["store-incomplete"]
    rewrite(env / LIB / "alpha" / "__init__.py", b"evil\n")
    rewrite(env / LIB / "evil.pth", b"evil\n")
    assert {code for code, _ in found(env)} == {"store-incomplete", "env-changed", "env-extra"}


def module(prefix: Path) -> Path:
    """The module of alpha in an environment."""
    return prefix / LIB / "alpha" / "__init__.py"


def poison(prefix: Path, *, keep_date: bool) -> None:
    """Edit the module in place, and with it the cache that it is a link into."""
    before = module(prefix).stat()
    with module(prefix).open("a") as file:
        file.write("EVIL = 1\n")
    if keep_date:
        os.utime(module(prefix), ns=(before.st_atime_ns, before.st_mtime_ns))


def test_an_edit_that_keeps_the_date_does_not_reach_the_next(env: Path) -> None:
    """A file that was edited and given its old date again is not handed on to another environment."""
    poison(env, keep_date=True)
    install("lab", env.parent / "two", tiny.inside(env.parent / "inside"))
    assert "EVIL" not in module(env.parent / "two").read_text()


def test_a_cache_without_stamps_is_not_believed(env: Path) -> None:
    """What an install that was killed left in the cache, with no word on when, is hashed before it is used."""
    inside = tiny.inside(env.parent / "inside")
    module(env).write_text(module(env).read_text().replace("1.0", "6.6"))
    os.utime(module(env), (0, 0))
    for stamp in inside.cache.glob("wheels/*/.unpacked"):
        stamp.unlink()
    install("lab", env.parent / "two", inside)
    assert "6.6" not in module(env.parent / "two").read_text()


def test_a_first_install_hashes_nothing_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a new cache no installed file is hashed, and later only what the installer wrote itself."""
    asked: list[str] = []
    inside = tiny.inside(held(tmp_path, alpha(tmp_path)))
    monkeypatch.setattr(
        "haversack.wheels.drift._compare", lambda _, place, __: asked.append(os.path.normpath(place))
    )
    install("lab", tmp_path / "one", inside)
    assert asked == []
    install("lab", tmp_path / "two", inside)
    assert not [place for place in asked if "/bin/" not in place and ".dist-info/" not in place]


def test_many_installs_at_once_after_an_edit(env: Path) -> None:
    """Installs that find the cache edited at the same moment all work, and none gets the edit."""
    poison(env, keep_date=False)
    store = env.parent / "inside"
    prefixes = [env.parent / f"env{number}" for number in range(6)]
    running = [
        subprocess.Popen(
            tiny.command("install", "lab", "--to", prefix),
            env=tiny.environ(store),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for prefix in prefixes
    ]
    for process in running:
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
    assert not [prefix for prefix in prefixes if "EVIL" in module(prefix).read_text()]


def test_the_cache_is_not_removed_under_an_install(env: Path) -> None:
    """Who finds the cache edited waits until nobody installs from it, then unpacks everything anew."""
    poison(env, keep_date=False)
    inside = tiny.inside(env.parent / "inside")
    unpacked = module(env).stat().st_ino
    argv = tiny.command("install", "lab", "--to", env.parent / "two")
    with cache.held(inside.cache, alone=False):
        process = subprocess.Popen(argv, env=tiny.environ(env.parent / "inside"))
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=2)
        inodes = {path.stat().st_ino for path in (inside.cache / "uv").rglob("__init__.py")}
        assert unpacked in inodes
    assert process.wait(timeout=60) == 0
    assert "EVIL" not in module(env.parent / "two").read_text()


def test_installs_run_beside_each_other(env: Path) -> None:
    """An install goes on while another one holds the cache together with it."""
    inside = tiny.inside(env.parent / "inside")
    argv = tiny.command("install", "lab", "--to", env.parent / "two")
    with cache.held(inside.cache, alone=False):
        done = subprocess.run(argv, env=tiny.environ(env.parent / "inside"), timeout=60, check=False)
    assert done.returncode == 0


def test_the_cache_of_what_was_pruned_goes(env: Path) -> None:
    """``prune`` removes what the cache keeps for wheels that went; what stays installed and installs goes on."""
    folder = env.parent
    store = held(folder, make_wheel(folder, "gamma", "1.0"), name="2026-12")
    inside = tiny.inside(store)
    install("lab", folder / "two", inside)
    assert len(list((inside.cache / "wheels").iterdir())) == 2
    snapshots.prune(inside, keep=1, dry_run=True)
    assert len(list((inside.cache / "wheels").iterdir())) == 2
    snapshots.prune(inside, keep=1)
    (left,) = (inside.cache / "wheels").iterdir()
    assert left.name == hex_of(digest_of((folder / "gamma-1.0-py3-none-any.whl").read_bytes()))
    assert not (inside.cache / "uv").exists()
    assert module(env).exists()
    install("lab", folder / "three", inside)
    assert found(folder / "three") == []


def test_only_leftovers_of_ours_are_cleared(tmp_path: Path) -> None:
    """A folder whose name merely looks like a leftover is kept, as is one that is no environment."""
    inside = tiny.inside(held(tmp_path, alpha(tmp_path)))
    node = platform.node()
    dead = subprocess.Popen(["true"])
    dead.wait()
    kept = [
        tmp_path / f".q.haversack-{node}-backup",
        tmp_path / f".x.haversack-{node}-{dead.pid}",
        tmp_path / f".[x]*.haversack-{node}-{dead.pid}",
        tmp_path / f".q.haversack-{node}-other-{dead.pid}",
    ]
    ours = tmp_path / f".q.haversack-{node}-{dead.pid}"
    for folder in (*kept, ours):
        folder.mkdir()
        (folder / "thesis.tex").write_text("years of work")
    (ours / "pyvenv.cfg").touch()
    for name in ("q", "[x]*"):
        install("lab", tmp_path / name, inside)
    assert [folder for folder in kept if not (folder / "thesis.tex").exists()] == []
    assert not ours.exists()


def archive_of(path: Path, program: str) -> Path:
    """An archive whose ``bin/python3`` is a shell script."""
    (path.parent / "python3").write_text(program)
    (path.parent / "python3").chmod(0o755)
    with tarfile.open(path, "w") as tar:
        tar.add(path.parent / "python3", "python/bin/python3")
    return path


def says(minor: str, base: Path) -> str:
    """A program that answers as a Python of that minor version would and otherwise is ours."""
    return f'#!/bin/sh\ncase "$*" in *_base_executable*) echo {minor}; echo {base};; *) exec {base} "$@";; esac\n'


@pytest.mark.parametrize(
    ("program", "words"),
    [("#!/nowhere/python\n", "does not run here"), (says("3.1", Path("x")), "is Python 3.1, not")],
)
def test_an_interpreter_archive_of_no_use_is_named(tmp_path: Path, program: str, words: str) -> None:
    """An archive whose Python does not run, or is another one, is refused by its name and leaves nothing."""
    archive = archive_of(tmp_path / "cpython.tar", program)
    (artifact,) = artifacts_of([archive], "lab/here")
    inside = tiny.inside(tmp_path / "inside")
    with inside.store.exclusive():
        inside.store.add(artifact.digest, [archive.read_bytes()])
    with pytest.raises(ToolError, match=words) as caught:
        interpreter.unpack(artifact, here().python, inside)
    assert caught.value.where == "cpython.tar"
    assert list((inside.cache.parent / "pythons").iterdir()) == []


def test_the_rehearsal_uses_the_interpreter_of_the_bundle(tmp_path: Path) -> None:
    """Where this machine lacks the target's Python the archive of the bundle is rehearsed with, or fails."""
    out = tiny.outside(tmp_path / "outside")
    if reason := out.run.cage():
        pytest.skip(reason)
    minor = next(m for m in (f"3.{n}" for n in range(30, 40)) if not interpreter.find(m, out))
    demo = make_wheel(tmp_path, "demo", "1.0")
    good = archive_of(tmp_path / "good.tar", says(minor, out.python))
    done = packed(tmp_path, demo, good, targets=[here(python=minor)], command="true")
    assert [r.result for r in done.bundle.rehearsals] == ["passed"]
    bad = archive_of(tmp_path / "bad.tar", "#!/nowhere/python\n")
    with pytest.raises(ProofError) as caught:
        packed(tmp_path, demo, bad, out="other", command="true")
    (finding,) = caught.value.findings
    assert (finding.code, "bad.tar" in finding.message) == ("rehearsal-failed", True)


def test_the_python_of_a_bundle_is_no_cache(tmp_path: Path) -> None:
    """Removing the cache, as its documentation allows, leaves the Python that environments stand on."""
    base = interpreter.find(here().python, tiny.inside(tmp_path / "inside"))
    assert base is not None
    archive = archive_of(tmp_path / "cpython.tar", says(here().python, base))
    (artifact,) = artifacts_of([archive], "lab/here")
    inside = tiny.inside(tmp_path / "inside")
    with inside.store.exclusive():
        inside.store.add(artifact.digest, [archive.read_bytes()])
    python = interpreter.unpack(artifact, here().python, inside)
    shutil.rmtree(inside.cache, ignore_errors=True)
    assert python.is_file()
    # Whoever shares the store may use it too.
    assert (inside.cache.parent / "pythons" / hex_of(artifact.digest)).stat().st_mode & 0o055 == 0o055


def bootstrap(folder: Path, *words: str, **env: str) -> str:
    """What bootstrap.sh says when it stops, run from a folder that is no volume."""
    script = folder / "bootstrap.sh"
    script.write_bytes((resources.files("haversack") / "data" / "bootstrap.sh").read_bytes())
    argv = ["env", "-i", f"PATH={os.environ['PATH']}", *(f"{key}={value}" for key, value in env.items())]
    done = subprocess.run(
        [*argv, "sh", script, *words], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    return done.stderr


def test_bootstrap_knows_what_a_prefix_is(tmp_path: Path) -> None:
    """A link, the root and a missing HOME are refused in words; a slash at the end is none of the name."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    for word in ("link", "link/"):
        assert "is a symbolic link" in bootstrap(tmp_path, word)
    assert "HOME is not set" in bootstrap(tmp_path)
    for word in ("/", "real/.", "..", "."):
        assert "is no name of a folder" in bootstrap(tmp_path, word)
    (tmp_path / "real" / "mine").touch()
    assert f"{tmp_path}/real exists and is not an earlier" in bootstrap(tmp_path, "real//")
    assert list((tmp_path / "real").iterdir()) == [tmp_path / "real" / "mine"]


@pytest.mark.parametrize(
    "member",
    [
        "data/pyvenv.cfg",
        "data/PYVENV.cfg",
        "data/haversack-environment.json",
        "scripts/python3.11",
        "data/bin/python",
    ],
)
def test_a_wheel_may_not_replace_the_foundation(tmp_path: Path, member: str) -> None:
    """A wheel that would overwrite pyvenv.cfg, haversack's marker or the interpreter is refused."""
    name = f"demo-1.0.data/{member}"
    path = make_wheel(tmp_path, "demo", "1.0", extra_files={name: b"x"})
    with path.open("rb") as file:
        _, findings = wheels.inspect(file, path.name)
    assert [(f.code, f.blocking, name in f.subject) for f in findings] == [("path-unsafe", True, True)]


def test_a_wheel_may_bring_programs_about_python(tmp_path: Path) -> None:
    """A script whose name only starts with that of the interpreter is like any other (argcomplete has one)."""
    files = {
        "demo-1.0.data/scripts/python-argcomplete-check": b"x",
        "demo-1.0.data/data/share/pyvenv.cfg": b"x",
    }
    path = make_wheel(tmp_path, "demo", "1.0", extra_files=files)
    with path.open("rb") as file:
        assert wheels.inspect(file, path.name)[1] == []


def newer(target: Target) -> Target:
    """A target whose system library is newer than this machine's."""
    return Target("newer", target.platform, target.python, target.glibc and "2.99", target.macos and "99.0")


@pytest.mark.parametrize("other", [lambda t: Target("w", "windows-amd64", t.python), newer])
def test_a_target_that_does_not_run_here_is_refused(
    tmp_path: Path, other: Callable[[Target], Target]
) -> None:
    """``--target`` names only what this machine can run; another one ends with 18 and both are told."""
    target = other(here())
    packed(tmp_path, alpha(tmp_path), targets=[here(), target], rehearsing=False)
    received(tmp_path)
    with pytest.raises(NotFoundError, match="does not run on this machine") as caught:
        install("lab", tmp_path / "env", tiny.inside(tmp_path / "inside"), target=target.name)
    assert target.platform in caught.value.message
    assert not (tmp_path / "env").exists()
