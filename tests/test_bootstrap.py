"""What a bundle needs of a machine that has neither haversack nor a network: a shell, coreutils, a Python."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from haversack.ports import cage
from haversack.ports.machine import base_python
from haversack.ports.run import Programs
from tests.support import tiny
from tests.support.packed import python_archive, tree
from tests.support.site import Lab
from tests.support.wheels import make_wheel

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="bootstrap.sh is run on Linux"),
]


@dataclass(frozen=True)
class Gap:
    """A machine behind the gap: a bundle, haversack as bootstrap.sh installed it, a store that received."""

    folder: Path
    bundle: Path
    tool: Path
    store: Path
    said: str


def caged(
    *words: str | Path, path: str, folder: Path, user: int | None = None, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run a program with no network and with nothing in its environment but ``env`` and a PATH."""
    argv: list[str | Path] = [base_python(), "-I", "-S", cage.__file__]
    if user is not None:
        argv += ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]
    argv += ["env", "-i", f"PATH={path}", f"HOME={folder}", *(f"{key}={value}" for key, value in env.items())]
    return subprocess.run([*argv, *words], cwd=folder, capture_output=True, text=True, check=False)


def system_path() -> str:
    """A PATH with the system's programs and a Python that bootstrap.sh may use."""
    code = "import sys, venv; sys.exit(sys.version_info < (3, 11))"
    done = subprocess.run(["/usr/bin/python3", "-I", "-c", code], capture_output=True, check=False)
    return "/usr/bin:/bin" if done.returncode == 0 else f"{base_python().parent}:/usr/bin:/bin"


@pytest.fixture(scope="module")
def gap() -> Iterator[Gap]:
    """Pack a bundle with the real uv and an interpreter, and bootstrap from it with no network."""
    reason = Programs().cage()
    if reason:
        pytest.skip(reason)
    # Other users must get there, which they may not in pytest's own folders.
    folder = Path(tempfile.mkdtemp(prefix="haversack-gap-"))
    folder.chmod(0o755)
    try:
        with Lab(folder / "lab", real_uv=True) as lab:
            make_wheel(
                lab.wheels,
                "demo",
                "1.0",
                modules={"demo/__init__.py": "def main():\n    print('hello from demo')\n"},
                entry_points={"demo-tool": "demo:main"},
            )
            archive = python_archive(lab.root / "python.tar", base_python())
            with archive.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            lab.declare("demo")
            text = (lab.root / "haversack.toml").read_text()
            interpreter = f'interpreter = {{ url = "python.tar", sha256 = "{sha256}" }}\n[env.lab]'
            (lab.root / "haversack.toml").write_text(text.replace("[env.lab]", interpreter))
            lab.told("lock")
            lab.told("pack", "-o", folder / "bundle")
        shutil.rmtree(folder / "lab")
        tool, store = folder / "opt" / "haversack", folder / "store"
        done = caged(
            "sh", folder / "bundle" / "volume-001" / "bootstrap.sh", tool, path=system_path(), folder=folder
        )
        assert done.returncode == 0, done.stdout + done.stderr
        yield Gap(folder, folder / "bundle", tool, store, done.stdout + done.stderr)
    finally:
        shutil.rmtree(folder)


def bootstrap(gap: Gap, bundle: Path, prefix: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the bootstrap.sh of some bundle."""
    script = bundle / "volume-001" / "bootstrap.sh"
    path = env.pop("PATH", system_path())
    return caged("sh", script, prefix, path=path, folder=gap.folder, user=None, **env)


def inside(gap: Gap, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the haversack that was bootstrapped."""
    program = gap.tool / "bin" / "haversack"
    return caged(program, "--store", gap.store, *words, path=system_path(), folder=gap.folder)


def linked(gap: Gap, tmp_path: Path) -> Path:
    """A copy of the bundle that shares its files, for a test that replaces some."""
    shutil.copytree(gap.bundle, tmp_path / "bundle", copy_function=os.link)
    return tmp_path / "bundle"


def test_it_installs_haversack_with_no_network(gap: Gap) -> None:
    """bootstrap.sh says what it did, leaves nothing beside the prefix, and the program runs."""
    assert "SHA256SUMS is right" in gap.said
    assert f"installed: {gap.tool}/bin/haversack" in gap.said
    assert [path.name for path in gap.tool.parent.iterdir()] == ["haversack"]
    assert inside(gap, "--version").stdout.startswith("haversack, version ")


def test_the_tool_carries_on_from_there(gap: Gap) -> None:
    """The haversack that came in the bundle verifies it, receives it, installs from it and keeps its record."""
    for words in (
        ["verify", gap.bundle],
        ["receive", gap.bundle],
        ["install", "lab", "--to", gap.folder / "env", "--check"],
        ["install", "haversack", "--to", gap.folder / "tool2"],
        ["doctor", "--env", gap.folder / "env"],
        ["doctor", "--read-all"],
        ["audit", "verify"],
    ):
        done = inside(gap, *words)
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    demo = subprocess.run(
        [gap.folder / "env" / "bin" / "demo-tool"], capture_output=True, text=True, check=True
    )
    assert demo.stdout == "hello from demo\n"
    second = caged(gap.folder / "tool2" / "bin" / "haversack", "--version", path="/bin", folder=gap.folder)
    assert second.returncode == 0, second.stderr


def test_a_second_run_replaces_the_first(gap: Gap, tmp_path: Path) -> None:
    """Bootstrapping again, from the next bundle, replaces an earlier haversack and nothing else."""
    prefix = tmp_path / "tool"
    for _ in range(2):
        done = bootstrap(gap, gap.bundle, prefix)
        assert done.returncode == 0, done.stderr
        assert not (prefix / "stray").exists()
        (prefix / "stray").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["tool"]


def test_the_machines_settings_do_not_steer_it(gap: Gap, tmp_path: Path) -> None:
    """Variables of uv, pip and Python that would lead it elsewhere are dropped, and a victim stays whole."""
    victim = tmp_path / "victim"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", victim], check=True)
    before = tree(victim)
    done = bootstrap(
        gap,
        gap.bundle,
        tmp_path / "a tool",
        UV_PYTHON=str(victim / "bin" / "python"),
        VIRTUAL_ENV=str(victim),
        UV_INDEX_URL="http://127.0.0.1:1/",
        UV_FIND_LINKS="/nowhere",
        PIP_INDEX_URL="http://127.0.0.1:1/",
        PYTHONPATH=str(victim),
        PYTHONHOME="/nowhere",
        UV_TARGET=str(victim),
    )
    assert done.returncode == 0, done.stderr
    assert tree(victim) == before
    assert (tmp_path / "a tool" / "bin" / "haversack").exists()


@pytest.mark.parametrize("what", ["folder", "file", "link"])
def test_a_foreign_prefix_is_left_alone(gap: Gap, tmp_path: Path, what: str) -> None:
    """A prefix with something in it that is no earlier haversack is refused and not touched."""
    prefix = tmp_path / "prefix"
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("years of work")
    if what == "folder":
        shutil.copytree(other, prefix)
    elif what == "file":
        prefix.write_text("a file")
    else:
        prefix.symlink_to(other)
    before = tree(tmp_path)
    done = bootstrap(gap, gap.bundle, prefix)
    assert done.returncode != 0
    assert f"bootstrap: {prefix} " in done.stderr
    assert tree(tmp_path) == before


def blob(bundle: Path, start: str) -> Path:
    """The blob of the tool's wheel whose file name begins so."""
    (table,) = bundle.glob("volume-001/environments/haversack.*.sha256")
    for line in table.read_text().splitlines():
        digest, name = line.split()
        if name.startswith(start):
            return bundle / "volume-001" / "blobs" / "sha256" / digest
    raise AssertionError(start)


@pytest.mark.parametrize("harm", ["wheel", "table", "script-beside", "missing"])
def test_a_damaged_volume_installs_nothing(gap: Gap, tmp_path: Path, harm: str) -> None:
    """One changed bit anywhere, or a file that is gone, and bootstrap.sh stops before it runs any of it."""
    bundle = linked(gap, tmp_path)
    place = blob(bundle, "click-")
    if harm == "table":
        (place,) = bundle.glob("volume-001/environments/haversack.*.requirements.txt")
    elif harm == "script-beside":
        place = bundle / "volume-001" / "README.txt"
    data = bytearray(place.read_bytes())
    data[len(data) // 2] ^= 1
    place.unlink()
    if harm != "missing":
        place.write_bytes(data)
    done = bootstrap(gap, bundle, tmp_path / "tool")
    assert done.returncode != 0
    assert "damaged" in done.stderr
    assert not (tmp_path / "tool").exists()


def test_a_damaged_wheel_on_another_volume(gap: Gap, tmp_path: Path) -> None:
    """A wheel that stands on a volume beside this one is checked too, though this one's sums do not name it."""
    bundle = linked(gap, tmp_path)
    place = blob(bundle, "click-")
    data = place.read_bytes()
    other = bundle / "volume-002" / "blobs" / "sha256"
    other.mkdir(parents=True)
    (other / place.name).write_bytes(data[:-1] + b"x")
    place.unlink()
    sums = bundle / "volume-001" / "SHA256SUMS"
    lines = [line for line in sums.read_text().splitlines() if place.name not in line]
    sums.unlink()
    sums.write_text("\n".join(lines) + "\n")
    done = bootstrap(gap, bundle, tmp_path / "tool")
    assert done.returncode != 0
    assert "damaged" in done.stderr
    assert not (tmp_path / "tool").exists()
    (other / place.name).write_bytes(data)
    assert bootstrap(gap, bundle, tmp_path / "tool").returncode == 0


def test_a_machine_without_python_uses_the_one_in_the_bundle(gap: Gap, tmp_path: Path) -> None:
    """Where there is no Python at all, the interpreter archive of the bundle is unpacked and used."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for folder in ("/usr/bin", "/bin"):
        for program in Path(folder).iterdir():
            link = programs / program.name
            if not program.name.startswith(("python", "pip", "perl")) and not link.is_symlink():
                link.symlink_to(program)
    done = bootstrap(gap, gap.bundle, tmp_path / "tool", PATH=str(programs))
    assert done.returncode == 0, done.stderr
    ran = caged(tmp_path / "tool" / "bin" / "haversack", "--version", path=str(programs), folder=tmp_path)
    assert ran.returncode == 0, ran.stderr


def recipe(readme: Path) -> str:
    """The commands of README.txt for people without haversack, word for word."""
    _, _, rest = readme.read_text().partition("Use it without haversack\n")
    lines = [line for line in rest.splitlines() if line.startswith("    ") or not line]
    return textwrap.dedent("\n".join(lines))


@pytest.fixture(scope="module")
def pip_path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A PATH whose python3 is of a fresh environment with pip."""
    venv = tmp_path_factory.mktemp("pip") / "venv"
    done = subprocess.run([sys.executable, "-m", "venv", venv], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("this Python has no ensurepip")
    yield f"{venv}/bin:/usr/bin:/bin"
    shutil.rmtree(venv)


def test_the_readme_is_true(gap: Gap, tmp_path: Path, pip_path: str) -> None:
    """The commands of README.txt, run word for word with pip and no network, install the environment."""
    for volume in gap.bundle.iterdir():
        (tmp_path / volume.name).symlink_to(volume)
    done = caged("sh", "-c", recipe(gap.bundle / "volume-001" / "README.txt"), path=pip_path, folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    ran = caged("demo-tool", path=pip_path, folder=tmp_path)
    assert ran.stdout == "hello from demo\n"


def test_the_readme_is_true_of_split_files(tmp_path: Path, pip_path: str) -> None:
    """The same commands put files together again that were cut over several volumes."""
    made = tiny.tiny_bundle(tmp_path / "tiny", volume_size=400_000, padding=1_500_000)
    volumes = sorted(made.bundle.iterdir())
    assert len(volumes) > 4
    assert any((volume / "parts").is_dir() for volume in volumes)
    done = caged("sh", "-c", recipe(volumes[0] / "README.txt"), path=pip_path, folder=made.bundle)
    assert done.returncode == 0, done.stdout + done.stderr
    ran = caged("python3", "-c", "import alpha, beta", path=pip_path, folder=tmp_path)
    assert ran.returncode == 0, ran.stderr


def test_the_readme_notices_a_damaged_file(tmp_path: Path, pip_path: str) -> None:
    """The commands of README.txt say which file is not what it should be."""
    made = tiny.tiny_bundle(tmp_path / "tiny", names=("gamma", "delta"))
    (wheel,) = (a for a in made.lock.artifacts if a.name == "gamma")
    (place,) = made.bundle.glob(f"volume-*/blobs/sha256/{wheel.digest[7:]}")
    data = place.read_bytes()
    place.unlink()
    place.write_bytes(data + b"x")
    readme = made.bundle / "volume-001" / "README.txt"
    done = caged("sh", "-c", recipe(readme), path=pip_path, folder=made.bundle)
    assert wheel.filename in done.stdout + done.stderr
    assert done.returncode != 0


def as_nobody(gap: Gap, *words: str | Path, home: Path) -> subprocess.CompletedProcess[str]:
    """Run the bootstrapped haversack as a user who owns nothing but ``home``."""
    if os.geteuid() != 0 or not shutil.which("setpriv") or system_path() != "/usr/bin:/bin":
        pytest.skip("needs root, setpriv and a Python that everybody may run")
    if not (gap.store / "oci-layout").exists():
        assert inside(gap, "receive", gap.bundle).returncode == 0
    home.mkdir(exist_ok=True)
    os.chown(home, 65534, 65534)
    words = (gap.tool / "bin" / "haversack", "--store", gap.store, *words)
    return caged(*words, path="/usr/bin:/bin", folder=home, user=65534, XDG_STATE_HOME=str(home / "state"))


def test_a_reader_of_a_shared_store_installs(gap: Gap) -> None:
    """A user who may only read the store installs from it; record and cache go to a folder of his own."""
    home = gap.folder / "home"
    assert as_nobody(gap, "snapshots", home=home).returncode == 0
    before = tree(gap.store)
    done = as_nobody(gap, "install", "lab", "--to", home / "env", "--check", home=home)
    assert done.returncode == 0, done.stderr
    ran = subprocess.run([home / "env" / "bin" / "demo-tool"], capture_output=True, text=True, check=True)
    assert ran.stdout == "hello from demo\n"
    assert tree(gap.store) == before
    assert (home / "state" / "haversack" / "ledger.jsonl").stat().st_uid == 65534
    assert (home / "state" / "haversack" / "cache").is_dir()
    doctor = as_nobody(gap, "doctor", "--env", home / "env", home=home)
    assert doctor.returncode == 0, doctor.stderr


def test_a_reader_cannot_change_a_shared_store(gap: Gap) -> None:
    """A user who may only read the store is told so when he wants to change it, and nothing changes."""
    home = gap.folder / "home"
    as_nobody(gap, "snapshots", home=home)
    before = tree(gap.store)
    for words in (["receive", gap.bundle], ["prune"], ["use", "current"], ["doctor", "--drop-damaged"]):
        done = as_nobody(gap, *words, home=home)
        assert "Traceback" not in done.stderr
        if words[0] in {"receive", "prune"}:
            assert done.returncode == 13, f"{words}: {done.stdout}{done.stderr}"
    assert tree(gap.store) == before


def test_a_store_that_may_not_even_be_read(gap: Gap) -> None:
    """A user who may not read the store gets an error that names it, no traceback."""
    home = gap.folder / "home"
    as_nobody(gap, "snapshots", home=home)
    gap.store.chmod(0o700)
    try:
        done = as_nobody(gap, "install", "lab", "--to", home / "env2", home=home)
    finally:
        gap.store.chmod(0o755)
    assert done.returncode in {2, 13}, done.stderr
    assert str(gap.store) in done.stderr
    assert "Traceback" not in done.stderr


def test_a_prefix_where_one_may_not_write(gap: Gap) -> None:
    """Installing where one may not write ends with 15 and names the folder."""
    home = gap.folder / "home"
    done = as_nobody(gap, "install", "lab", "--to", gap.folder / "opt" / "theirs", home=home)
    assert done.returncode == 15, done.stderr
    assert f"{gap.folder}/opt" in done.stderr
    assert "Traceback" not in done.stderr
