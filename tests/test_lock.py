"""Lock: only wheels, by the target's markers and tags, the same bytes every time."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from haversack.errors import DeclarationError, LockError, ResolutionError
from haversack.formats import lockfile
from haversack.model.lock import Lock
from tests.support.site import WINDOWS, Lab, again
from tests.support.wheels import make_sdist, make_wheel

GLIBC_17 = "linux-x86_64-glibc2.17-py311"
GLIBC_28 = "linux-x86_64-glibc2.28-py311"
MACOS = "macos-arm64-py311"


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """A site whose index tells sizes and upload times."""
    with Lab(tmp_path / "lab", json_pages=True) as made:
        yield made


def uv(*words: str, cwd: Path) -> None:
    """Run uv as a person would, away from this machine's own settings."""
    from uv import find_uv_bin

    env = {name: value for name, value in os.environ.items() if not name.startswith(("UV_", "PIP_"))}
    done = subprocess.run(
        [find_uv_bin(), *words, "--no-config"], cwd=cwd, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_markers_are_the_targets(lab: Lab) -> None:
    """A dependency of one platform is locked for the targets of that platform and for no other."""
    make_wheel(lab.wheels, "winonly", "1.0")
    make_wheel(lab.wheels, "posixonly", "1.0")
    make_wheel(lab.wheels, "armonly", "1.0")
    marked = [
        "winonly; sys_platform == 'win32'",
        "posixonly; os_name == 'posix'",
        "armonly; platform_machine == 'arm64'",
    ]
    make_wheel(lab.wheels, "demo", "1.0", requires=marked)
    lab.declare("demo", targets=(GLIBC_28, WINDOWS, MACOS))
    linux, windows, macos = lab.names()
    assert linux == ["demo-1.0-py3-none-any.whl", "posixonly-1.0-py3-none-any.whl"]
    assert windows == ["demo-1.0-py3-none-any.whl", "winonly-1.0-py3-none-any.whl"]
    assert macos == [
        "armonly-1.0-py3-none-any.whl",
        "demo-1.0-py3-none-any.whl",
        "posixonly-1.0-py3-none-any.whl",
    ]


def test_python_markers_are_the_targets(lab: Lab) -> None:
    """A backport is locked for the target whose Python needs it, and its patch number counts."""
    make_wheel(lab.wheels, "backport", "1.0")
    make_wheel(lab.wheels, "demo", "1.0", requires=["backport; python_full_version < '3.11.3'"])
    more = '[target.old]\nname = "linux-x86_64-py310"\n[target.patched]\nplatform = "linux-x86_64"\npython = "3.11.7"'
    lab.declare("demo", targets=("old", GLIBC_28, "patched"), more=more)
    old, unpatched, patched = lab.names()
    assert old == unpatched == ["backport-1.0-py3-none-any.whl", "demo-1.0-py3-none-any.whl"]
    assert patched == ["demo-1.0-py3-none-any.whl"]


def test_each_target_gets_the_wheel_of_its_glibc(lab: Lab) -> None:
    """The best wheel that the target's system library allows is chosen, not the best of the index."""
    for tag in ("manylinux_2_17_x86_64.manylinux2014_x86_64", "manylinux_2_28_x86_64", "win_amd64"):
        make_wheel(lab.wheels, "native", "1.0", tag=f"cp311-cp311-{tag}")
    make_wheel(lab.wheels, "native", "1.0", tag="cp312-cp312-manylinux_2_17_x86_64")
    lab.declare("native", targets=(GLIBC_17, GLIBC_28, WINDOWS))
    assert lab.names() == [
        ["native-1.0-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl"],
        ["native-1.0-cp311-cp311-manylinux_2_28_x86_64.whl"],
        ["native-1.0-cp311-cp311-win_amd64.whl"],
    ]


def test_an_older_version_with_a_wheel_beats_a_newer_without(lab: Lab) -> None:
    """A version that has no wheel for the target is passed over, target by target."""
    make_sdist(lab.wheels, "demo", "3.0")
    make_wheel(lab.wheels, "demo", "2.0", tag="cp311-cp311-win_amd64")
    make_wheel(lab.wheels, "demo", "1.0")
    lab.declare("demo", targets=(GLIBC_28, WINDOWS))
    assert lab.names() == [["demo-1.0-py3-none-any.whl"], ["demo-2.0-cp311-cp311-win_amd64.whl"]]


def test_no_wheel_names_the_newest_version_that_has_one(lab: Lab) -> None:
    """Where only a source distribution fits, locking fails with 5 and names the version to allow instead."""
    make_sdist(lab.wheels, "demo", "3.0")
    make_wheel(lab.wheels, "demo", "2.0")
    make_wheel(lab.wheels, "demo", "1.0")
    lab.declare("demo>=3")
    told = lab.told("lock", code=5)
    (finding,) = told["findings"]
    assert finding["code"] == "no-wheel"
    assert finding["subject"] == "demo in lab/here"
    assert "demo<=2.0" in finding["remedy"]
    assert "build = true" in finding["remedy"]
    assert not (lab.root / lockfile.FILENAME).exists()


def test_no_wheel_at_all_says_so(lab: Lab) -> None:
    """A package that never had a wheel for the target is named as such, through a dependency too."""
    make_sdist(lab.wheels, "inner", "1.0")
    make_wheel(lab.wheels, "demo", "1.0", requires=["inner"])
    lab.declare("demo", targets=(WINDOWS,))
    ((code, text),) = lab.findings()
    assert code == "no-wheel"
    assert "no version has one" in text
    assert "inner" in text


def test_all_environments_are_complained_of_at_once(lab: Lab) -> None:
    """Locking collects what is wrong on every target, never only the first."""
    make_wheel(lab.wheels, "demo", "1.0", tag="cp311-cp311-win_amd64")
    lab.declare("demo", targets=(GLIBC_28, WINDOWS, MACOS))
    with pytest.raises(ResolutionError) as caught:
        lab.lock()
    assert {finding.subject for finding in caught.value.findings} == {f"lab/{GLIBC_28}", f"lab/{MACOS}"}
    assert all("demo" in finding.message for finding in caught.value.findings)


def test_contradicting_requirements_are_no_solution(lab: Lab) -> None:
    """Requirements that exclude each other end with 5 and uv's explanation of which."""
    make_wheel(lab.wheels, "core", "1.0")
    make_wheel(lab.wheels, "core", "2.0")
    make_wheel(lab.wheels, "demo", "1.0", requires=["core>=2"])
    lab.declare("demo", "core<2")
    told = lab.told("lock", code=5)
    assert [finding["code"] for finding in told["findings"]] == ["no-solution"]
    assert "core" in told["findings"][0]["message"]


def test_an_unknown_package_is_no_solution(lab: Lab) -> None:
    """A name the index does not have is said to be missing, by its name."""
    lab.declare("nobody-has-this")
    ((code, text),) = lab.findings()
    assert code == "no-solution"
    assert "nobody-has-this" in text


def test_locking_twice_gives_equal_bytes(lab: Lab) -> None:
    """Unchanged input gives the same bytes, with and without the lock of before, on another day's cache."""
    make_wheel(lab.wheels, "core", "1.0")
    make_wheel(lab.wheels, "demo", "1.0", requires=["core"])
    lab.declare("demo", targets=("here", WINDOWS))
    first = lab.lock()
    assert first.changed
    again = lab.lock()
    assert (again.data, again.changed) == (first.data, False)
    (lab.root / lockfile.FILENAME).unlink()
    lab.environ["XDG_CACHE_HOME"] += "-other"
    assert lab.lock().data == first.data


def test_an_artifact_is_one_line(lab: Lab) -> None:
    """A new version of one package changes one line of the lock, so that a diff reads."""
    for name in ("alpha", "beta", "gamma"):
        make_wheel(lab.wheels, name, "1.0")
    lab.declare("alpha", "beta", "gamma")
    before = lab.lock().data.splitlines()
    make_wheel(lab.wheels, "beta", "1.1")
    lab.environ["XDG_CACHE_HOME"] += "-later"
    after = lab.lock(upgrade=True).data.splitlines()
    changed = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
    assert len(changed) == 1
    assert b"beta-1.1" in changed[0][1]


def versions(lock: Lock, ref: str = "lab/here") -> dict[str, str]:
    """Versions of an environment by name."""
    return {artifact.name: artifact.version for artifact in lock.by_environment()[ref]}


def test_pins_are_kept_until_upgrade(lab: Lab) -> None:
    """A newer version on the index changes nothing by itself, --check agrees, and --upgrade takes it."""
    make_wheel(lab.wheels, "demo", "1.0")
    lab.declare("demo")
    lab.told("lock")
    make_wheel(lab.wheels, "demo", "1.1")
    later = {"XDG_CACHE_HOME": str(lab.folder / "later")}
    assert lab.told("lock", env=later)["changed"] is False
    lab.told("lock", "--check", env=later)
    wrong = lab.told("lock", "--check", "--upgrade", code=4, env=later)
    assert "haversack lock" in wrong["remedy"]
    data = (lab.root / lockfile.FILENAME).read_bytes()
    assert versions(lockfile.read(data, "lock")[0])["demo"] == "1.0"
    assert lab.told("lock", "--upgrade", env=later)["changed"] is True
    data = (lab.root / lockfile.FILENAME).read_bytes()
    assert versions(lockfile.read(data, "lock")[0])["demo"] == "1.1"


def test_a_pin_that_is_no_longer_allowed_gives_way(lab: Lab) -> None:
    """When a requirement changes, only what it forbids moves; other pins stay."""
    for name in ("demo", "other"):
        make_wheel(lab.wheels, name, "1.0")
    lab.declare("demo", "other")
    lab.lock()
    for name in ("demo", "other"):
        make_wheel(lab.wheels, name, "2.0")
    lab.environ["XDG_CACHE_HOME"] += "-later"
    lab.declare("demo>1", "other")
    assert versions(lab.lock().lock) == {"demo": "2.0", "other": "1.0"}


def test_a_lock_of_another_declaration_is_not_packed(lab: Lab) -> None:
    """After a requirement changed, pack refuses with 4 and says to lock."""
    make_wheel(lab.wheels, "demo", "1.0")
    lab.declare("demo")
    lab.lock()
    lab.declare("demo>=1")
    assert "haversack lock" in lab.told("pack", "-o", lab.folder / "out", code=4)["remedy"]
    assert list((lab.folder / "out").rglob("*")) == []


def test_a_broken_lock_is_named_and_upgrade_replaces_it(lab: Lab) -> None:
    """A lock with merge marks in it ends with 4 naming the file; --upgrade makes a new one."""
    make_wheel(lab.wheels, "demo", "1.0")
    lab.declare("demo")
    path = lab.write(lockfile.FILENAME, "<<<<<<< HEAD\n")
    with pytest.raises(LockError, match=r"haversack\.lock"):
        lab.lock()
    assert path.name in lab.told("lock", code=4)["where"]
    assert lab.told("lock", "--upgrade")["changed"] is True


def day_lab(lab: Lab) -> None:
    """Three versions around the end of a day in UTC."""
    times = {"1.0": "2026-01-10T12:00:00Z", "1.1": "2026-01-15T23:30:00Z", "1.2": "2026-01-16T00:30:00Z"}
    for version, time in times.items():
        wheel = make_wheel(lab.wheels, "demo", version)
        lab.index.upload_times[wheel.name] = time


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "Pacific/Pago_Pago", "UTC"])
def test_exclude_newer_means_the_same_day_everywhere(lab: Lab, zone: str) -> None:
    """A day ends in UTC, whatever the time zone of the machine that locks."""
    day_lab(lab)
    lab.declare("demo", env="exclude-newer = 2026-01-15")
    assert lab.names({"TZ": zone}) == [["demo-1.1-py3-none-any.whl"]]


@pytest.mark.parametrize(
    ("site", "env", "version"),
    [
        ("exclude-newer = 2026-01-12", "", "1.0"),
        ('exclude-newer = "2026-01-12"', "", "1.0"),
        ("exclude-newer = 2026-01-12", "exclude-newer = 2026-01-15T23:45:00Z", "1.1"),
        ("exclude-newer = 2026-01-12", "exclude-newer = 2026-01-16T02:45:00+02:00", "1.2"),
    ],
)
def test_exclude_newer_of_site_and_environment(lab: Lab, site: str, env: str, version: str) -> None:
    """The site's cut-off holds for an environment unless it has one of its own, a day or a moment."""
    day_lab(lab)
    wheel = make_wheel(lab.wheels, "demo", "1.3")
    lab.index.upload_times[wheel.name] = "2026-02-01T00:00:00Z"
    # The cut-off of a site holds for what haversack itself needs too, which was uploaded at some time.
    lab.declare("demo", site=site, env=env)
    assert lab.names() == [[f"demo-{version}-py3-none-any.whl"]]


PROJECT = """\
[project]
name = "thesis"
version = "0.1"
requires-python = ">=3.10"
dependencies = ["core", "winonly; sys_platform == 'win32'"]
[project.optional-dependencies]
plots = ["plots"]
[dependency-groups]
test = ["tester", {include-group = "lint"}]
lint = ["linter"]
"""


def project_lab(lab: Lab, folder: str = ".") -> None:
    """A project with an extra, groups and a dependency of Windows alone."""
    for name in ("core", "winonly", "plots", "tester", "linter"):
        make_wheel(lab.wheels, name, "1.0")
    lab.write(f"{folder}/pyproject.toml", PROJECT)


def names_of(found: list[list[str]]) -> list[list[str]]:
    """Project names of file names."""
    return [[filename.split("-")[0] for filename in names] for names in found]


@pytest.mark.parametrize(
    ("keys", "wanted"),
    [
        ("", ["core"]),
        ('extras = ["plots"]', ["core", "plots"]),
        ('groups = ["test"]', ["core", "linter", "tester"]),
        ('extras = ["plots"]\ngroups = ["lint"]', ["core", "linter", "plots"]),
    ],
)
def test_a_project_with_extras_and_groups(lab: Lab, keys: str, wanted: list[str]) -> None:
    """A pyproject gives its dependencies and the extras and groups that were asked for, not itself."""
    project_lab(lab, "code")
    lab.declare(env=f'project = "code"\n{keys}', targets=("here", WINDOWS))
    here, windows = names_of(lab.names())
    assert here == wanted
    assert windows == sorted([*wanted, "winonly"])


def test_an_unknown_extra_is_said(lab: Lab) -> None:
    """An extra the project does not have is an error, not an empty answer."""
    project_lab(lab)
    lab.declare(env='project = "."\nextras = ["nope"]')
    ((code, text),) = lab.findings()
    assert code == "no-solution"
    assert "nope" in text


@pytest.mark.parametrize("source", ["uv.lock", "pylock.toml"])
@pytest.mark.parametrize(
    ("keys", "wanted"),
    [
        ("", ["core"]),
        ('extras = ["plots"]\ngroups = ["test"]', ["core", "linter", "plots", "tester"]),
    ],
)
def test_a_lock_that_is_there_is_taken_over(lab: Lab, source: str, keys: str, wanted: list[str]) -> None:
    """A uv.lock or pylock.toml gives each target its own part, at the versions it says and no newer."""
    project_lab(lab)
    uv("lock", "--default-index", lab.index.url, cwd=lab.root)
    if source == "pylock.toml":
        words = ["--no-default-groups", "--no-emit-project", "--no-header", "--quiet", "-o", source]
        words += ["--all-extras", "--all-groups"] if keys else []
        uv("export", "--format", "pylock.toml", *words, cwd=lab.root)
        keys = ""
    for name in ("core", "plots"):
        make_wheel(lab.wheels, name, "2.0")
    lab.declare(env=f'lock = "{source}"\n{keys}', targets=("here", WINDOWS))
    here, windows = lab.names()
    assert names_of([here, windows]) == [wanted, sorted([*wanted, "winonly"])]
    assert all("-1.0-" in filename for filename in here)


def test_a_lock_without_a_wheel_for_the_target(lab: Lab) -> None:
    """A lock that has only a source distribution for a target says so; nothing is resolved anew."""
    make_wheel(lab.wheels, "demo", "1.0", tag="cp311-cp311-manylinux_2_17_x86_64")
    make_sdist(lab.wheels, "demo", "1.0")
    lab.write("pyproject.toml", PROJECT.replace('["core", ', '["demo", '))
    make_wheel(lab.wheels, "winonly", "1.0")
    for name in ("plots", "tester", "linter"):
        make_wheel(lab.wheels, name, "1.0")
    uv("lock", "--default-index", lab.index.url, cwd=lab.root)
    lab.declare(env='lock = "uv.lock"', targets=(GLIBC_17, WINDOWS))
    assert [code for code, _ in lab.findings()] == ["no-wheel"]
    assert "demo 1.0" in lab.findings()[0][1]


@pytest.mark.parametrize("text", ["not toml at all [", 'lock-version = "9.0"\n', "version = 1\n"])
@pytest.mark.parametrize("source", ["uv.lock", "pylock.toml"])
def test_a_lock_that_is_none_is_named(lab: Lab, source: str, text: str) -> None:
    """A broken lock of somebody else's is an error of the declaration that names the file."""
    project_lab(lab)
    lab.write(source, text)
    lab.declare(env=f'lock = "{source}"')
    with pytest.raises(DeclarationError, match=source.replace(".", r"\.")):
        lab.lock_kind()


def test_two_spellings_are_one_project(lab: Lab) -> None:
    """Foo_Bar and foo-bar in two files are one requirement and one wheel under its normalised name."""
    make_wheel(lab.wheels, "Foo_Bar", "1.0")
    make_wheel(lab.wheels, "foo.bar", "2.0")
    lab.write("more.txt", "foo-bar<2\n")
    lab.write("requirements.txt", "Foo_Bar\nFOO.bar>=1\n")
    lab.declare(env='requirements = ["requirements.txt", "more.txt"]')
    (locked,) = lab.lock_kind()
    assert [(artifact.name, artifact.version) for artifact in locked.artifacts] == [("foo-bar", "1.0")]


def test_requirements_include_and_constrain(lab: Lab) -> None:
    """Nested requirements and constraints files count as they do for pip, relative to the file they stand in."""
    for version in ("1.0", "2.0"):
        make_wheel(lab.wheels, "demo", version)
    make_wheel(lab.wheels, "other", "1.0")
    lab.write("req/all.txt", "-r inner/more.txt\n-c inner/limits.txt\ndemo\n")
    lab.write("req/inner/more.txt", "other\n")
    lab.write("req/inner/limits.txt", "demo<2\nnever-asked-for==1\n")
    lab.declare(env='requirements = ["req/all.txt"]')
    assert lab.names() == [["demo-1.0-py3-none-any.whl", "other-1.0-py3-none-any.whl"]]


def test_a_wheel_beside_the_declaration(lab: Lab) -> None:
    """A requirement that is a wheel's path is locked relative to the declaration, and crosses."""
    make_wheel(lab.wheels, "core", "1.0")
    make_wheel(lab.root / "local", "mine", "1.0", requires=["core"])
    lab.declare("./local/mine-1.0-py3-none-any.whl")
    (locked,) = lab.lock_kind()
    assert locked.findings == ()
    assert {artifact.name: artifact.origin for artifact in locked.artifacts} == {
        "core": lab.index.file_url("core-1.0-py3-none-any.whl"),
        "mine": "path:local/mine-1.0-py3-none-any.whl",
    }


@pytest.mark.parametrize("fragment", [True, False])
def test_a_wheel_at_a_url(lab: Lab, fragment: bool) -> None:
    """A requirement that is a wheel's URL is locked with the digest of its bytes."""
    wheel = make_wheel(lab.folder, "mine", "1.0")
    (lab.wheels / wheel.name).write_bytes(wheel.read_bytes())
    sha256 = hashlib.sha256(wheel.read_bytes()).hexdigest()
    lab.declare(f"mine @ {lab.index.file_url(wheel.name)}" + (f"#sha256={sha256}" if fragment else ""))
    (locked,) = lab.lock_kind()
    (artifact,) = locked.artifacts
    assert (artifact.digest, artifact.origin) == (f"sha256:{sha256}", lab.index.file_url(wheel.name))


@pytest.mark.parametrize("requirement", ["./pkg", "-e ./pkg", "pkg @ file:pkg"])
def test_a_folder_cannot_cross(lab: Lab, requirement: str) -> None:
    """A requirement that is a folder of sources is a finding with a way out, not a stack of uv's words."""
    lab.write("pkg/pyproject.toml", '[project]\nname = "pkg"\nversion = "1"\n')
    lab.declare(requirement)
    ((code, text),) = lab.findings()
    assert code == "source-unsupported"
    assert "pkg" in text
    assert "wheel of it" in text


def test_a_folder_is_not_even_run(lab: Lab) -> None:
    """A folder whose metadata only its own code can tell is refused without running that code."""
    proof = lab.folder / "ran"
    lab.write("pkg/setup.py", f"open({str(proof)!r}, 'w')\nfrom setuptools import setup\nsetup(name='pkg')\n")
    again("setuptools", lab.wheels)
    lab.declare("./pkg")
    assert [code for code, _ in lab.findings()] == ["source-unsupported"]
    assert not proof.exists()


def test_a_repository_cannot_cross(lab: Lab) -> None:
    """A requirement that is a repository is a finding with a way out."""
    lab.write("repo/pyproject.toml", '[project]\nname = "pkg"\nversion = "1"\n')
    repo = str(lab.root / "repo")
    who = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    for words in (["init", "-q"], ["add", "."], [*who, "commit", "-q", "-m", "one"]):
        subprocess.run(["git", "-C", repo, *words], check=True, capture_output=True)
    lab.declare(f"pkg @ git+file://{repo}")
    ((code, text),) = lab.findings()
    assert code == "source-unsupported"
    assert "pkg" in text


def test_a_ledger_line_for_each_lock_that_changed(lab: Lab) -> None:
    """Writing a lock is an act on record; finding it unchanged is none."""
    make_wheel(lab.wheels, "demo", "1.0")
    lab.declare("demo")
    lab.told("lock")
    lab.told("lock")
    acts: list[Any] = lab.told("audit", "show")
    assert [entry["act"] for entry in acts] == ["lock"]
