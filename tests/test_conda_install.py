"""Conda packages and wheels, linked aside and moved home."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from rattler import PrefixRecord

from haversack.conda import install, scripts
from haversack.errors import IntegrityError, PrefixError, ToolError
from haversack.model.artifact import digest_of, hex_of
from haversack.model.target import Target
from haversack.ports import Inside, cage
from tests.support import tiny
from tests.support.conda import PLACEHOLDER, make_conda
from tests.support.linked import CHANNEL, environment, packages, put
from tests.support.stack import SHORT, real_stack
from tests.support.wheels import make_wheel

SITE = f"lib/python{SHORT}/site-packages"


@pytest.fixture(scope="module")
def channel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real stack."""
    return real_stack(tmp_path_factory.mktemp("channel"))


@pytest.fixture
def inside(tmp_path: Path) -> Inside:
    """An empty store, and the ports around it."""
    return tiny.inside(tmp_path / "store")


def told(*argv: str | Path) -> str:
    """What a program prints, run with nothing of ours in its environment."""
    return subprocess.run(
        list(map(str, argv)), check=True, capture_output=True, text=True, env={"PATH": os.defpath}
    ).stdout.strip()


def program(folder: Path) -> Path:
    """A wheel with an entry point and a script."""
    files = {"alpha-1.0.data/scripts/alpha-py": b"#!python\nimport alpha\nprint('from a script')\n"}
    modules = {"alpha/__init__.py": "def main() -> None:\n    print('alpha runs')\n"}
    points = {"alpha": "alpha:main"}
    return make_wheel(folder, "alpha", "1.0", entry_points=points, modules=modules, extra_files=files)


def test_an_environment_works_at_home_and_nowhere_knows_where_it_was_made(
    channel: Path, inside: Inside, tmp_path: Path
) -> None:
    """Text, binaries, links and entry points name the home, and no file names the place aside."""
    lab = environment(inside, packages(channel, "python", "tqdm", "packaging", "where", "built"))
    home = put(lab, tmp_path / "envs" / "lab", inside)
    assert told(home / "bin/where") == told(home / "bin/where-link") == told(home / "bin/where-text")
    assert told(home / "bin/where") == str(home)
    assert (home / "etc/where.conf").read_text() == f"prefix={home}\n"
    assert told(home / "bin/python", "-c", "import sys, ssl; print(sys.prefix)") == str(home)
    assert told(home / "bin/tqdm", "--version")
    assert told(home / "bin/python", "-c", "import packaging; print(packaging.__file__)").startswith(
        str(home)
    )
    assert b".lab.aside" not in b"".join(p.read_bytes() for p in home.rglob("*") if p.is_file())


def test_conda_reads_what_was_installed(channel: Path, inside: Inside, tmp_path: Path) -> None:
    """``conda-meta`` has a record for each package that says its channel and its address there, and a history."""
    members = packages(channel, "python", "tqdm", "clobber-b")
    home = put(environment(inside, members), tmp_path / "home", inside)
    assert (home / "conda-meta/history").is_file()
    found = {}
    for path in (home / "conda-meta").glob("*.json"):
        record = PrefixRecord.from_path(path)
        found[record.file_name] = (record.url, record.channel, bytes(record.sha256 or b"").hex())
        assert str(inside.cache) not in json.loads(path.read_bytes())["url"]
    assert found == {
        m.filename: (f"{CHANNEL}/{m.subdir}/{m.filename}", f"{CHANNEL}/", m.record["sha256"]) for m in members
    }


_IN_A_CAGE = """
import sys
from pathlib import Path
from haversack.ports import cage
cage.close(); cage.prove()
from tests.support import tiny
from tests.support.linked import environment, packages, put
ports = tiny.inside(Path(sys.argv[2]))
put(environment(ports, packages(Path(sys.argv[1]), "python", "tqdm"), wheels=[Path(sys.argv[4])]), Path(sys.argv[3]), ports)
"""


def test_nothing_is_dialled(channel: Path, tmp_path: Path) -> None:
    """Conda packages and wheels install where there is no network at all."""
    assert cage.OPEN
    wheel = make_wheel(tmp_path, "alpha", "1.0")
    argv: list[str | Path] = [
        sys.executable,
        "-c",
        _IN_A_CAGE,
        channel,
        tmp_path / "store",
        tmp_path / "home",
        wheel,
    ]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=Path(__file__).parent.parent)
    assert done.returncode == 0, done.stderr
    assert told(tmp_path / "home/bin/python", "-c", "import alpha, tqdm; print('works')") == "works"


def test_an_environment_without_packages_is_one_of_condas(inside: Inside, tmp_path: Path) -> None:
    """Nothing to install gives an empty prefix that conda knows."""
    home = put(environment(inside, []), tmp_path / "home", inside)
    assert (home / "conda-meta/history").is_file()


@pytest.mark.parametrize("how", ["tampered", "truncated"])
def test_a_blob_that_is_not_what_it_should_be_is_refused(
    channel: Path, inside: Inside, tmp_path: Path, how: str
) -> None:
    """Rattler believes files; we hash every package first, name all that are wrong and write nothing."""
    lab = environment(inside, packages(channel, "packaging", "tqdm"))
    for artifact in lab.artifacts:
        blob = inside.store.path(artifact.digest)
        data = blob.read_bytes()
        blob.chmod(0o644)
        blob.write_bytes(data[:-10] if how == "truncated" else data[:-1] + b"!")
    with pytest.raises(IntegrityError) as caught:
        put(lab, tmp_path / "home", inside)
    assert [finding.code for finding in caught.value.findings] == ["store-damaged"] * 2
    assert [path.name for path in tmp_path.iterdir()] == ["store"]
    assert not (inside.cache / "conda" / "pkgs").exists()


def test_a_damaged_blob_is_refused_when_its_package_was_unpacked_before(
    channel: Path, inside: Inside, tmp_path: Path
) -> None:
    """What the cache has does not make up for what the store lost."""
    lab = environment(inside, packages(channel, "built"))
    put(lab, tmp_path / "one", inside)
    blob = inside.store.path(lab.artifacts[0].digest)
    blob.chmod(0o644)
    blob.write_bytes(b"other bytes")
    with pytest.raises(IntegrityError):
        put(lab, tmp_path / "two", inside)


def test_an_edited_file_does_not_reach_the_next_environment(
    channel: Path, inside: Inside, tmp_path: Path
) -> None:
    """Installed files are links into the cache: one edited in place is unpacked anew for others, and stays where it was."""
    lab = environment(inside, packages(channel, "python", "tqdm"))
    one = put(lab, tmp_path / "one", inside)
    edited = one / SITE / "tqdm/std.py"
    assert edited.stat().st_nlink > 1
    status = edited.stat()
    original = edited.read_bytes()
    edited.write_bytes(b"#" * status.st_size)
    # Neither its size nor its date tells.
    os.utime(edited, ns=(status.st_atime_ns, status.st_mtime_ns))
    two = put(lab, tmp_path / "two", inside)
    assert (two / SITE / "tqdm/std.py").read_bytes() == original
    assert edited.read_bytes() == b"#" * status.st_size


def test_a_damaged_cache_is_mended(channel: Path, inside: Inside, tmp_path: Path) -> None:
    """A file of the cache that is gone, or other, is there again in the next environment."""
    lab = environment(inside, packages(channel, "python", "built", "packaging"))
    put(lab, tmp_path / "one", inside)
    for path in (inside.cache / "conda" / "pkgs").rglob("built.txt"):
        path.unlink()
    for path in (inside.cache / "conda" / "pkgs").glob("packaging*/site-packages/packaging/version.py"):
        path.unlink()
        path.write_bytes(b"other")
    shutil.rmtree(tmp_path / "one")
    home = put(lab, tmp_path / "two", inside)
    assert (home / "share/built.txt").read_bytes() == b"built by rattler-build\n"
    assert b"other" not in [path.read_bytes() for path in home.rglob("packaging/version.py")]


def test_two_packages_of_one_name_and_build_are_kept_apart(inside: Inside, tmp_path: Path) -> None:
    """A package of the same file name with other bytes, from another channel, is not taken from the cache."""
    for data in (b"one\n", b"two\n", b"one\n"):
        made = make_conda(
            tmp_path / data.decode().strip(), "tool", "1.0", noarch="generic", files={"x": data}
        )
        home = put(environment(inside, [made]), tmp_path / "home", inside)
        assert (home / "x").read_bytes() == data


def test_a_prefix_that_is_too_long_is_refused_before_anything_is_written(
    channel: Path, inside: Inside, tmp_path: Path
) -> None:
    """The packages without room are named with their room; those of text alone have no limit."""
    lab = environment(inside, packages(channel, "where", "python"))
    home = tmp_path / ("x" * 120) / ("y" * (len(PLACEHOLDER) + 1 - len(str(tmp_path)) - 122))
    assert len(str(home)) == len(PLACEHOLDER) + 1
    with pytest.raises(PrefixError) as caught:
        install.install(lab, tmp_path / "aside", inside, home=home, compile_bytecode=False)
    assert [(f.code, f.subject) for f in caught.value.findings] == [("prefix-long", "where-1.0-h1_0.conda")]
    assert "255 bytes" in caught.value.findings[0].message
    assert not (tmp_path / "aside").exists()
    fitting = home.with_name(home.name[:-1])
    assert told(put(lab, fitting, inside) / "bin/where") == str(fitting)


def test_a_prefix_too_long_for_the_kernel_still_runs_programs(
    channel: Path, inside: Inside, tmp_path: Path
) -> None:
    """A ``#!`` line that the kernel would cut, or that holds a blank, becomes one that works: of conda and of wheels."""
    lab = environment(inside, packages(channel, "python", "tqdm"), wheels=[program(tmp_path)])
    home = put(lab, tmp_path / ("deep " * 5) / ("x" * 100) / "lab", inside)
    assert told(home / "bin/tqdm", "--version")
    assert told(home / "bin/alpha") == "alpha runs"


def test_wheels_stand_beside_conda_packages(channel: Path, inside: Inside, tmp_path: Path) -> None:
    """Wheels are added and nothing of conda's is removed; their programs name the interpreter at home."""
    members = packages(channel, "python", "tqdm", "packaging")
    lab = environment(inside, members, wheels=[program(tmp_path)])
    home = put(lab, tmp_path / "home", inside)
    assert told(home / "bin/alpha-py") == "from a script"
    assert told(home / "bin/alpha") == "alpha runs"
    assert (home / "bin/alpha").read_text().startswith(f"#!{home}/bin/python\n")
    assert told(home / "bin/python", "-c", "import tqdm, packaging, alpha; print('all')") == "all"
    assert install.check(lab, home, inside, caged=True) == []


def test_a_python_that_says_it_is_managed_takes_our_wheels(
    inside: Inside, channel: Path, tmp_path: Path
) -> None:
    """``EXTERNALLY-MANAGED`` (PEP 668) is for others: we are the manager."""
    mark = make_conda(
        tmp_path, "mark", "1.0", noarch="generic", files={f"lib/python{SHORT}/EXTERNALLY-MANAGED": b""}
    )
    wheel = make_wheel(tmp_path, "alpha", "1.0")
    lab = environment(inside, [*packages(channel, "python"), mark], wheels=[wheel])
    assert (put(lab, tmp_path / "home", inside) / SITE / "alpha").is_dir()


def test_bytecode_is_compiled_when_asked_for(channel: Path, inside: Inside, tmp_path: Path) -> None:
    """Modules of ``noarch`` packages and wheels get bytecode that names its source at home."""
    lab = environment(inside, packages(channel, "python", "tqdm"))
    home = put(lab, tmp_path / "home", inside)
    assert not list((home / SITE).rglob("*.pyc"))
    home = put(lab, tmp_path / "home", inside, compile_bytecode=True)
    compiled = next((home / SITE / "tqdm/__pycache__").glob("std.*.pyc"))
    assert str(home / SITE / "tqdm/std.py").encode() in compiled.read_bytes()
    assert b".home.aside" not in compiled.read_bytes()


def test_link_scripts_run_only_where_they_are_allowed(channel: Path, inside: Inside, tmp_path: Path) -> None:
    """A post-link script of a package that nobody named does not run; of one that is named it runs at home."""
    members = packages(channel, "linked")
    silent = put(environment(inside, members), tmp_path / "silent", inside)
    assert not (silent / "share/post-link-ran").exists()
    lab = environment(inside, members, settings={"link_scripts": ["linked"]})
    home = put(lab, tmp_path / "home", inside)
    assert (home / "share/post-link-ran").read_text() == "post-link ran\n"


def test_a_link_script_is_told_what_conda_tells_it(inside: Inside, tmp_path: Path) -> None:
    """Scripts run in the order of dependencies, in the prefix, and know the package; others' words stay out."""
    script = (
        b'#!/bin/sh\necho "$PKG_NAME $PKG_VERSION $PKG_BUILDNUM $(pwd) $(command -v sh)" >> "$PREFIX/log"\n'
    )

    def made(name: str, *depends: str) -> object:
        files = {f"bin/.{name}-post-link.sh": (script, 0o755), "bin/sh": (b"#!/bin/sh\n", 0o755)}
        files = files if name == "b" else {k: v for k, v in files.items() if k != "bin/sh"}
        return make_conda(
            tmp_path, name, "1.0", noarch="generic", depends=depends, files=files, build_number=3
        )

    members = [made("a", "b"), made("b", "c >=1"), made("c")]
    lab = environment(inside, members, settings={"link_scripts": ["c", "b", "a"]})  # type: ignore[arg-type]
    home = put(lab, tmp_path / "home", inside)
    assert (home / "log").read_text() == "".join(f"{name} 1.0 3 {home} {home}/bin/sh\n" for name in "cba")


def test_a_link_script_that_fails_fails_the_install(inside: Inside, tmp_path: Path) -> None:
    """Its exit code, what it printed and what it left for a person are in the error."""
    script = b'#!/bin/sh\necho "no GPU here" > "$PREFIX/.messages.txt"\necho oops >&2\nexit 3\n'
    made = make_conda(
        tmp_path, "bad", "1.0", noarch="generic", files={"bin/.bad-post-link.sh": (script, 0o755)}
    )
    lab = environment(inside, [made], settings={"link_scripts": ["bad"]})
    with pytest.raises(ToolError, match=r"(?s)exited with 3: no GPU here.*oops"):
        put(lab, tmp_path / "home", inside)


def test_menus_do_nothing(inside: Inside, tmp_path: Path) -> None:
    """A package with menu items is linked like any other: the file is there and nothing else happens."""
    menu = json.dumps({"menu_name": "Tool", "menu_items": [{"name": "Tool", "command": ["touch", "/tmp/x"]}]})
    made = make_conda(tmp_path, "tool", "1.0", noarch="generic", files={"Menu/tool.json": menu.encode()})
    home = put(environment(inside, [made]), tmp_path / "home", inside)
    assert (home / "Menu/tool.json").read_text() == menu


def test_packages_that_clobber_each_other_are_told(channel: Path, inside: Inside, tmp_path: Path) -> None:
    """One of them wins, the other's file is kept aside, and a finding that does not block names both."""
    lab = environment(inside, packages(channel, "clobber-a", "clobber-b"))
    home = put(lab, tmp_path / "home", inside)
    (finding,) = install.check(lab, home, inside, caged=False)
    assert (finding.code, finding.subject, finding.blocking) == ("conda-clobber", "share/clobbered", False)
    assert "clobber-a" in finding.message
    assert "clobber-b" in finding.message


def test_packages_that_bring_the_same_bytes_clobber_nothing(inside: Inside, tmp_path: Path) -> None:
    """Two packages may hold one file."""
    made = [
        make_conda(tmp_path, n, "1.0", noarch="generic", files={"share/x": b"same\n"}) for n in ("a", "b")
    ]
    lab = environment(inside, made)
    assert install.check(lab, put(lab, tmp_path / "home", inside), inside, caged=False) == []


def test_a_check_runs_in_the_activated_environment(channel: Path, inside: Inside, tmp_path: Path) -> None:
    """The check finds the programs of the environment, what its activation scripts set, and no network."""
    hook = make_conda(
        tmp_path,
        "hook",
        "1.0",
        noarch="generic",
        files={"etc/conda/activate.d/hook.sh": b"export HOOKED=yes\n"},
    )
    command = 'test "$HOOKED" = yes && python -c "import sys, os; assert sys.prefix == os.environ[\'CONDA_PREFIX\']"'
    lab = environment(inside, [*packages(channel, "python"), hook], check=command)
    home = put(lab, tmp_path / "home", inside)
    assert install.check(lab, home, inside, caged=True) == []
    lab = replace(lab, locked=replace(lab.locked, check="echo no good >&2; exit 4"))
    (finding,) = install.check(lab, home, inside, caged=True)
    assert finding.code == "rehearsal-failed"
    assert "exited with 4: no good" in finding.message


def test_what_wheels_miss_is_told_and_what_conda_packages_say_to_pip_is_not(
    channel: Path, inside: Inside, tmp_path: Path
) -> None:
    """A wheel's requirement that nothing meets blocks; one that a conda package's metadata claims does not."""
    info = {
        f"site-packages/loose-1.0.dist-info/{name}": text
        for name, text in {
            "METADATA": b"Metadata-Version: 2.1\nName: loose\nVersion: 1.0\nRequires-Dist: nowhere\n",
            "INSTALLER": b"conda\n",
        }.items()
    }
    loose = make_conda(tmp_path, "loose", "1.0", noarch="python", files=info, depends=["python"])
    fine = make_wheel(tmp_path, "alpha", "1.0")
    wanting = make_wheel(tmp_path, "beta", "1.0", requires=["gamma>=2"])
    lab = environment(inside, [*packages(channel, "python"), loose], wheels=[fine])
    home = put(lab, tmp_path / "home", inside)
    assert install.check(lab, home, inside, caged=False) == []
    lab = environment(inside, [*packages(channel, "python"), loose], wheels=[fine, wanting])
    (finding,) = install.check(lab, put(lab, tmp_path / "two", inside), inside, caged=False)
    assert "gamma" in finding.message
    assert finding.code == "rehearsal-failed"


def test_a_python_that_does_not_start_is_told(channel: Path, inside: Inside, tmp_path: Path) -> None:
    """Without a check of its own, an environment with a Python has to start it."""
    lab = environment(inside, packages(channel, "python"))
    home = put(lab, tmp_path / "home", inside)
    (home / f"lib/python{SHORT}/encodings/__init__.py").unlink()
    (finding,) = install.check(lab, home, inside, caged=False)
    assert (finding.code, finding.subject) == ("rehearsal-failed", "lab/here: its Python")


@pytest.mark.parametrize(
    ("platform", "site", "program"),
    [
        ("windows-amd64", "Lib/site-packages", "Scripts/tool-script.py"),
        ("macos-arm64", "lib/python3.12/site-packages", "bin/tool"),
    ],
)
def test_the_layout_is_the_targets(
    inside: Inside, tmp_path: Path, platform: str, site: str, program: str
) -> None:
    """Packages for another system are laid out as that system wants them."""
    on = Target("there", platform, "3.12")
    files = {"python.exe" if "windows" in platform else "bin/python3.12": b"not run"}
    python = make_conda(tmp_path, "python", "3.12.1", subdir=on.subdir, files=files)
    tool = make_conda(
        tmp_path, "tool", "1.0", noarch="python", files={"site-packages/tool.py": b"x = 1\n"},
        entry_points=["tool = tool:main"], depends=["python"],
    )  # fmt: skip
    home = put(environment(inside, [python, tool], on=on), tmp_path / "home", inside, compile_bytecode=True)
    assert (home / site / "tool.py").is_file()
    assert (home / program).is_file()
    assert (home / ("Scripts" if "windows" in platform else "bin") / "Activate.ps1").is_file()
    assert (home / "bin/activate").exists() == ("windows" not in platform)


def test_an_older_package_without_a_list_of_its_files_is_linked(inside: Inside, tmp_path: Path) -> None:
    """A ``.tar.bz2`` from before ``paths.json``, with its prefix in a text."""
    made = make_conda(
        tmp_path, "old", "1.0", noarch="generic", suffix=".tar.bz2", legacy=True,
        files={"etc/old.conf": f"at {PLACEHOLDER}\n".encode()}, prefixed={"etc/old.conf": "text"},
    )  # fmt: skip
    home = put(environment(inside, [made]), tmp_path / "home", inside)
    assert (home / "etc/old.conf").read_text() == f"at {home}\n"


def test_the_variables_of_an_environment_are_where_conda_looks(inside: Inside, tmp_path: Path) -> None:
    """``variables`` become conda's own state, so that ``conda activate`` sets them too."""
    lab = environment(inside, [], settings={"variables": {"OMP_NUM_THREADS": "4"}})
    home = put(lab, tmp_path / "home", inside)
    state = json.loads((home / "conda-meta/state").read_bytes())
    assert state == {"version": 1, "env_vars": {"OMP_NUM_THREADS": "4"}}


def test_a_package_that_the_store_lost_is_named(channel: Path, inside: Inside, tmp_path: Path) -> None:
    """A blob that is not there is an error of ours, and nothing is written."""
    lab = environment(inside, packages(channel, "packaging"))
    inside.store.remove(lab.artifacts[0].digest)
    with pytest.raises(Exception, match=hex_of(lab.artifacts[0].digest)):
        put(lab, tmp_path / "home", inside)
    assert not (tmp_path / ".home.aside").exists()
    assert digest_of(b"") != lab.artifacts[0].digest


@pytest.mark.parametrize(
    ("script", "wanted"),
    [
        (b"#!/old/bin/python\nx\n", b"#!/new/bin/python\nx\n"),
        (b"#!/old/bin/python3.11\n", b"#!/new/bin/python3.11\n"),
        (b"#!/bin/sh\n'''exec' /old/bin/python \"$0\" \"$@\"\n' '''\nx\n", b"#!/new/bin/python\nx\n"),
        (b"#!/bin/sh\n'''exec' '/old' it\nx\n", None),
        (b"#!/bin/sh\n'''exec' \"unfinished\nx\n", None),
        (b"#!/bin/sh\n'''exec' \n' '''\nx\n", None),
        (b"#!/older/bin/python\n", None),
        (b"#!/bin/sh\necho /old/bin\n", None),
        (b"\x7fELF /old/bin", None),
        (b"", None),
    ],
)
def test_only_the_interpreter_of_a_script_is_led_home(script: bytes, wanted: bytes | None) -> None:
    """The first line changes where it names our interpreter, and nothing else of a file ever does."""
    assert scripts.with_home(script, b"/old", b"/new") == wanted
