"""Modulefiles and job scripts as texts: golden files, and programs that read them back."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from haversack.conda import activation
from haversack.conda.layout import Layout
from haversack.errors import PrefixError, UsageError
from haversack.formats import modulefile, prefixes, sbatch
from haversack.model.artifact import digest_of
from haversack.model.finding import Finding
from haversack.model.lock import LockedEnvironment
from haversack.model.snapshot import Snapshot, SnapshotEnvironment
from haversack.model.target import ANY
from haversack.platforms import Order
from haversack.platforms.slurm import PLATFORM
from haversack.ports import Inside
from tests.support import tiny
from tests.support.site import plain_environ

GOLDEN = Path(__file__).parent / "golden" / "slurm"
ORIGIN = "Written by haversack render slurm, of snapshot 2026-11 (sha256:2222…), declaration sha256:3333…."
OLD, NEW = digest_of(b"2026-10"), digest_of(b"2026-11")
# What is odd in Tcl and in sh, as far as a variable may hold it at all.
ODD = [
    "it's",
    'say "x"',
    "$HOME",
    "[exit]",
    "{",
    "}",
    "a;b",
    "#",
    "\\",
    "\\n",
    "a b",
    "`id`",
    "$(id)",
    "é",
    "*",
]


def order(root: Path, **more: Any) -> Order:
    """What is asked of a site below ``root`` whose current snapshot is 2026-11."""
    settings = {"modules": f"{root}/modulefiles", "envs": ["analysis", "geo"], "account": "lab"}
    locked = LockedEnvironment("platform.slurm", ANY.name, "platform", settings=settings)
    content = Snapshot(NEW, NEW, (SnapshotEnvironment(locked, ANY, (), NEW),), (), {})
    return Order(settings, content, "2026-11", {"2026-10": OLD, "2026-11": NEW}, ORIGIN, **more)


def put(root: Path, name: str, version: str, snapshot: str, *, ref: str = "") -> Path:
    """A virtual environment where a module can name it, as far as anything is read of it."""
    prefix = root / "envs" / name / version
    prefix.mkdir(parents=True)
    (prefix / "pyvenv.cfg").touch()
    marker = prefixes.Marker(ref or f"{name}/node", OLD, snapshot, str(prefix))
    (prefix / prefixes.MARKER).write_bytes(prefixes.write(marker))
    return prefix


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The shared file system of a cluster, with three environments."""
    put(tmp_path, "analysis", "2026-10", OLD)
    put(tmp_path, "analysis", "2026-11", NEW)
    put(tmp_path, "geo", "2026-11", NEW)
    return tmp_path


@pytest.fixture
def inside(tmp_path: Path) -> Inside:
    """An empty store, and the ports around it."""
    return tiny.inside(tmp_path / "store")


def golden(files: Mapping[str, bytes], root: Path) -> None:
    """Compare with the golden files.  One that is missing is written, for a person to look at, and fails the test."""
    made = {name: data.decode().replace(str(root), "/shared") for name, data in files.items()}
    missing = [name for name in made if not (GOLDEN / name).exists()]
    for name in missing:
        (GOLDEN / name).parent.mkdir(parents=True, exist_ok=True)
        (GOLDEN / name).write_text(made[name])
    assert missing == []
    assert made == {name: (GOLDEN / name).read_text() for name in made}


def test_modulefiles_are_the_golden_ones(root: Path, inside: Inside) -> None:
    """One file for each environment and snapshot, and the default version of each module."""
    made = PLATFORM.render(order(root), inside)
    assert made.findings == ()
    assert sorted(made.files) == [
        "analysis/.version", "analysis/2026-10", "analysis/2026-11", "geo/.version", "geo/2026-11",
    ]  # fmt: skip
    golden(made.files, root)


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("module", {"time": "04:00:00"}),
        ("array", {"array": "0-9%2", "cpus": "4", "gpus": "a100:2", "partition": "gpu"}),
        ("broadcast", {"broadcast": True, "account": "other"}),
        ("install", {"via": "install"}),
        ("activate", {"via": "activate"}),
        ("run", {"via": "run"}),
    ],
)
def test_job_scripts_are_the_golden_ones(
    root: Path, inside: Inside, name: str, asked: dict[str, Any]
) -> None:
    """A job script by each way into the environment; a node's shell parses it."""
    script = root / "envs" / "analysis" / "2026-11" / "bin" / "activate"
    script.parent.mkdir()
    script.touch()
    made = PLATFORM.render(
        order(
            root,
            asked={"env": "analysis", "name": name, **asked},
            command=("python", "scripts/analysis.py", "it's"),
            folder=root / "jobs",
            movable=frozenset({"analysis"}),
        ),
        inside,
    )
    # Here no cluster answers to what is asked of it.
    asks = {"sinfo", "scontrol"} if name == "array" else set()
    assert {finding.subject for finding in made.findings} == asks
    assert list(made.files) == [made.printable] == [f"{name}.sbatch"]
    assert dict(made.archives) == (
        {"analysis-2026-11.tar": root / "envs" / "analysis" / "2026-11"} if "broadcast" in asked else {}
    )
    golden(
        {path: data.replace(str(inside.store).encode(), b"/store") for path, data in made.files.items()}, root
    )
    (root / "job").write_bytes(made.files[f"{name}.sbatch"])
    for checker in (["bash", "-n"], ["shellcheck", "--exclude=SC1090,SC1091"]):
        done = subprocess.run([*checker, root / "job"], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


LMOD = Path(sys.prefix) / "lmod/usr/share/lmod/lmod/libexec/lmod"
INITS = {"modules": ". /etc/profile.d/modules.sh", "lmod": f'module() {{ eval "$({LMOD} bash "$@")"; }}'}


def shell(init: str, script: str) -> subprocess.CompletedProcess[str]:
    """A shell with one of the two programs that read modulefiles."""
    argv = ["bash", "--norc", "--noprofile", "-c", f"{INITS[init]}; {script}"]
    return subprocess.run(argv, env=plain_environ(), capture_output=True, text=True)


@pytest.mark.parametrize("init", INITS)
def test_what_a_module_sets_is_what_was_meant(tmp_path: Path, init: str) -> None:
    """Values and folders of odd characters come through Tcl and the shell as they are, and are taken back."""
    (tmp_path / "odd").mkdir()
    # Lmod reads files as Latin-1 in any locale, and writes folders into Lua without escaping (its tcl2lua.tcl).
    texts = [text for text in ODD if init != "lmod" or text.isascii()]
    folders = [f"/x/{text}" for text in texts if init != "lmod" or not {'"', "\\"} & set(text)]
    variables = {f"ODD{number}": text for number, text in enumerate(texts)}
    paths = [("PATH", folder) for folder in folders]
    made = modulefile.module(
        "odd",
        "odd",
        conflicts=["odd"],
        paths=paths,
        variables=variables,
        behind=[("PATH", "/y"), ("PATH", "/z")],
    )
    (tmp_path / "odd" / "1").write_bytes(made)
    show = "python3 -c 'import json, os; print(json.dumps(dict(os.environ)))'"
    done = shell(init, f"module use {tmp_path}; {show}; module load odd; {show}; module unload odd; {show}")
    assert done.stderr == ""
    before, during, after = map(json.loads, done.stdout.splitlines())
    assert {name: during[name] for name in variables} == variables
    assert during["PATH"].split(":") == [
        *reversed(folders),
        *before["PATH"].split(":"),
        "/y",
        "/z",
    ]
    assert after["PATH"] == before["PATH"]
    assert not variables.keys() & after.keys()


@pytest.mark.parametrize("init", INITS)
def test_both_programs_load_and_unload_what_is_rendered(root: Path, inside: Inside, init: str) -> None:
    """The current snapshot is the default, a second environment is refused, unloading leaves no trace.

    A second snapshot is refused by the one, and by the other takes the place of the first.
    """
    for path, data in PLATFORM.render(order(root), inside).files.items():
        (root / "modulefiles" / path).parent.mkdir(parents=True, exist_ok=True)
        (root / "modulefiles" / path).write_bytes(data)
    # What each of them notes for itself is no trace.
    kept = "env -0 | grep -zv '^\\(_\\|_.*\\|LMOD.*\\|LOADEDMODULES\\|BASH_FUNC.*\\)=' | sort -z | tr '\\0' '\\n'; echo -"
    told = 'echo "${PATH%%:*} $VIRTUAL_ENV"; echo -'
    script = f"module use {root}/modulefiles; {kept}; module load analysis; {told}; "
    script += f"module load geo || :; {told}; module load analysis/2026-10 || :; {told}; module unload analysis; {kept}"
    done = shell(init, script)
    before, first, second, third, after, _ = done.stdout.split("-\n")
    old, new = (f"{root}/envs/analysis/{version}" for version in ("2026-10", "2026-11"))
    assert first == second == f"{new}/bin {new}\n", done.stderr
    assert third == (f"{old}/bin {old}\n" if init == "lmod" else first)
    assert before == after
    assert "geo" in done.stderr


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("geo/2026-11.lua", 'setenv("VIRTUAL_ENV", "theirs")\n'),
        ("analysis/default", "2026-10"),
        ("analysis/.modulerc", "#%Module1.0\nmodule-version analysis/2026-10 default\n"),
        ("analysis/.modulerc.lua", 'module_version("analysis/2026-10", "default")\n'),
        (".modulerc", "#%Module1.0\nmodule-alias analysis theirs/1\n"),
        (".modulerc", "#%Module1.0\nmodule-alias analysis-old theirs/1\n"),
    ],
)
def test_a_file_that_steers_a_name_is_told(
    root: Path, inside: Inside, init: str, path: str, text: str
) -> None:
    """Whatever makes a name something else than what is rendered, with either program, is named with its path; nothing else."""
    folder = root / "modulefiles"
    for name, data in PLATFORM.render(order(root), inside).files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    (folder / "theirs").mkdir()
    (folder / "theirs" / "1").write_text("#%Module1.0\nsetenv VIRTUAL_ENV theirs\n")
    name = "geo" if path.startswith("geo") else "analysis"
    if path.endswith("default"):
        (folder / path).symlink_to(text)
    else:
        (folder / path).write_text(text)
    done = shell(init, f'module use {folder}; module load {name}; echo "$VIRTUAL_ENV"')
    steered = done.stdout.strip() != f"{root}/envs/{name}/2026-11"
    assert steered == (init == "lmod" and "analysis-old" not in text), done.stderr
    rendered = PLATFORM.render(order(root), inside).findings
    assert [finding.subject for finding in rendered] == ([] if "-old" in text else [str(folder / path)])
    assert not any(finding.blocking for finding in rendered)
    assert set(rendered) <= set(PLATFORM.preflight(order(root), inside))


def test_what_is_not_as_it_should_be_is_found(root: Path, inside: Inside) -> None:
    """A folder of another snapshot or environment makes no module; one that is missing is told with its command."""
    shutil.rmtree(root / "envs" / "geo" / "2026-11")
    put(root, "geo", "2026-10", NEW)
    put(root, "geo", "mine", OLD, ref="other/node")
    (put(root, "geo", "broken", OLD) / prefixes.MARKER).write_text("{")
    (root / "envs" / "geo" / "theirs").mkdir()
    # A snapshot that the store has forgotten is still what its folder says.
    put(root, "geo", "2025-01", digest_of(b"pruned"))
    made = PLATFORM.render(order(root), inside)
    assert [path for path in made.files if path.startswith("geo")] == ["geo/2025-01"]
    told = {Path(finding.subject).name: finding.remedy for finding in made.findings}
    assert sorted(told) == ["2026-10", "2026-11", "broken", "mine"]
    assert told["2026-11"] == f"haversack install geo --snapshot 2026-11 --to {root}/envs/geo/2026-11"
    assert not any(finding.blocking for finding in made.findings)


def test_a_project_is_offered_by_the_environment_beside_it(root: Path, inside: Inside) -> None:
    """Of a project that was installed the module is the environment in it; one that has none is told."""
    folder = put(root, "analysis", "2026-09", OLD, ref="analysis/any")
    (folder / "pyvenv.cfg").rename(folder / "README")
    told = {
        Path(finding.subject).name: finding.message
        for finding in PLATFORM.render(order(root), inside).findings
    }
    assert told == {"2026-09": "is a project without an environment"}
    shutil.copytree(root / "envs" / "analysis" / "2026-11", folder / "env")
    made = PLATFORM.render(order(root), inside)
    assert made.findings == ()
    assert f"setenv VIRTUAL_ENV {folder}/env\n" in made.files["analysis/2026-09"].decode()


def test_conda_is_not_needed_to_enter_what_conda_packed(root: Path, inside: Inside) -> None:
    """The activation script that conda-pack left in a folder asks for conda, and is left alone."""
    prefix = root / "envs" / "geo" / "2026-11"
    (prefix / "conda-meta").mkdir()
    (prefix / "bin").mkdir()
    (prefix / "bin" / "activate").write_text("conda activate\n")
    made = PLATFORM.render(order(root), inside)
    assert made.findings == ()
    assert f"setenv CONDA_PREFIX {prefix}\n" in made.files["geo/2026-11"].decode()


@pytest.mark.parametrize("via", ["module", "activate"])
def test_folders_before_and_behind_the_programs_keep_their_order(
    root: Path, inside: Inside, via: str
) -> None:
    """Where a conda package puts a folder of its own before or behind, modules and jobs do as its script does."""
    prefix = root / "envs" / "geo" / "2026-11"
    scripts = prefix / "etc" / "conda" / "activate.d"
    scripts.mkdir(parents=True)
    (prefix / "conda-meta").mkdir()
    own = 'PATH="$CONDA_PREFIX/.cargo/bin:$PATH:$CONDA_PREFIX/extra"'
    (scripts / "rust.sh").write_text(f"export {own}\n")
    activation.write(prefix, Layout(False, None), prefix, {})
    made = PLATFORM.render(order(root), inside)
    assert made.findings == ()
    for path, data in made.files.items():
        (root / "modulefiles" / path).parent.mkdir(parents=True, exist_ok=True)
        (root / "modulefiles" / path).write_bytes(data)
    asked = order(root, asked={"env": "geo", "via": via}, command=("bash", "-c", 'echo "$PATH"'))
    script = PLATFORM.render(asked, inside).files["geo.sbatch"]
    environ = {**plain_environ(), "PATH": "/usr/local/bin:/usr/bin:/bin"}
    done = subprocess.run(["bash"], input=script, env=environ, capture_output=True)
    folders = f"{prefix}/.cargo/bin:{prefix}/bin:/usr/local/bin:/usr/bin:/bin:{prefix}/extra"
    assert done.stdout.decode().splitlines() == [folders], done.stderr.decode()


def test_what_a_module_cannot_set_is_told(root: Path, inside: Inside) -> None:
    """A variable with a line break is left out, and an activation that fails makes no module."""
    activate = root / "envs" / "geo" / "2026-11" / "bin" / "activate"
    (activate.parent.parent / "conda-meta").mkdir()
    activate.parent.mkdir()
    enter = f"# haversack\nexport PATH={activate.parent}:$PATH\n"
    activate.write_text(f"{enter}export TWO='a\nb' ONE=1\n")
    made = PLATFORM.render(order(root), inside)
    assert [finding.message for finding in made.findings] == [
        "TWO holds a line break, which no module can set"
    ]
    assert "setenv ONE 1\n" in made.files["geo/2026-11"].decode()
    activate.write_text(f"{enter}echo it broke >&2; return 3\n")
    made = PLATFORM.render(order(root), inside)
    assert ["it broke" in finding.message for finding in made.findings] == [True]
    assert "geo/2026-11" not in made.files


def test_an_environment_that_cannot_be_moved_is_not_sent(root: Path, inside: Inside) -> None:
    """What works only where it was installed is not broadcast; the reason and the way are told."""
    asked = {"env": "geo", "broadcast": True}
    with pytest.raises(UsageError, match="only where it was installed") as caught:
        PLATFORM.render(order(root, asked=asked, command=("true",), folder=root), inside)
    assert "--via install" in caught.value.remedy


def test_the_folder_of_environments_can_be_named(root: Path, inside: Inside, tmp_path: Path) -> None:
    """With the key `prefixes` environments lie where it says."""
    (root / "envs").rename(root / "opt")
    asked = order(root)
    assert PLATFORM.render(asked, inside).files == {}
    settings = {**asked.settings, "prefixes": str(root / "opt")}
    moved = Order(settings, asked.content, asked.name, asked.names, asked.origin)
    assert "analysis/2026-11" in PLATFORM.render(moved, inside).files


def test_an_environment_that_is_absent_makes_no_script(root: Path, inside: Inside) -> None:
    """A job script names a place that is there."""
    shutil.rmtree(root / "envs")
    with pytest.raises(PrefixError, match="not installed"):
        PLATFORM.render(order(root, asked={"env": "geo"}, command=("true",)), inside)


@pytest.mark.parametrize(
    ("text", "megabytes"), [("1", 1), ("1K", 1), ("1025K", 2), ("32G", 32768), ("2T", 2097152), ("500M", 500)]
)
def test_memory_is_counted_as_sbatch_does(text: str, megabytes: int) -> None:
    """Without a letter megabytes, rounded up."""
    assert sbatch.megabytes(text) == megabytes


@pytest.mark.parametrize(
    ("array", "last"), [("7", 7), ("0-9", 9), ("0-99:1000%5", 99), ("5,3-4", 5), ("1,0-12:3,2%1", 12)]
)
def test_the_last_task_of_an_array(array: str, last: int) -> None:
    """Of steps and of how many run at once nothing is counted."""
    assert sbatch.last_task(array) == last


def test_preflight_finds_what_keeps_modules_from_loading(root: Path, inside: Inside) -> None:
    """No folder; then files that are missing, and one that names what is gone."""

    def subjects() -> dict[str, Finding]:
        found = PLATFORM.preflight(order(root), inside)
        # Folders of tests are closed to others.
        return {one.subject: one for one in found if "is closed to others" not in one.message}

    folder = root / "modulefiles"
    assert f"render slurm -o {folder}" in subjects()[str(folder)].remedy
    for path, data in PLATFORM.render(order(root), inside).files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    assert not [subject for subject in subjects() if subject.startswith("/")]
    (folder / "geo" / "2026-11").unlink()
    shutil.rmtree(root / "envs" / "analysis" / "2026-10")
    found = subjects()
    assert found[str(folder / "geo" / "2026-11")].message == "is not there"
    assert "no environment that is installed" in found[str(folder / "analysis" / "2026-10")].message
    assert {found["sinfo"].code, found["nodes"].code} == {"platform-unknown"}


def test_what_others_may_not_read_is_told(root: Path, inside: Inside) -> None:
    """Folders and files that a umask closed are told once each, with the command that opens them, and nothing is then."""
    modules, prefix = root / "modulefiles", root / "envs" / "geo" / "2026-11"
    for path, data in PLATFORM.render(order(root), inside).files.items():
        (modules / path).parent.mkdir(parents=True, exist_ok=True)
        (modules / path).write_bytes(data)
    (prefix / "lib" / "python3.11" / "site-packages" / "demo").mkdir(parents=True)

    def told() -> dict[str, str]:
        found = PLATFORM.preflight(order(root), inside)
        mine = [one for one in found if Path(one.subject).is_relative_to(root / "envs")]
        mine += [one for one in found if one.subject == str(modules)]
        return {
            one.subject: f"{one.message}; {one.remedy}" for one in mine if "closed to others" in one.message
        }

    assert told() == {}
    (modules / "geo" / "2026-11").chmod(0o600)
    prefix.parent.chmod(0o700)
    (prefix / "lib" / "python3.11" / "site-packages" / "demo").chmod(0o750)
    found = told()
    assert set(found) == {str(modules), str(prefix.parent), str(prefix)}
    said = f"has geo/2026-11, which is closed to others than root (mode 0600); chmod -R a+rX {modules}"
    assert found[str(modules)] == said
    assert (
        f"(mode 0700), and is on the way to {prefix}; chmod a+x {prefix.parent}" in found[str(prefix.parent)]
    )
    assert "site-packages/demo, which is closed to others than root and the group root" in found[str(prefix)]
    for line in (f"chmod -R a+rX {modules} {prefix}", f"chmod a+x {prefix.parent}"):
        assert subprocess.run(line.split()).returncode == 0
    assert told() == {}
