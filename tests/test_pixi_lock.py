from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rattler import LockFile

from haversack.conda.proof import prove
from haversack.errors import DeclarationError
from haversack.formats.wheel import inspect
from haversack.model.artifact import digest_of
from haversack.model.snapshot import SnapshotEnvironment
from haversack.testing.contracts.refused import refused
from tests.support.conda import Package
from tests.support.wheels import make_wheel
from tests.test_conda_lock import CondaLab, only, packages, versions


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[CondaLab]:
    """A lab with a project of pixi's in it."""
    with CondaLab(tmp_path) as made, made.server:
        make_wheel(made.wheels, "extra", "1.0")
        made.write("pixi.toml", '[workspace]\nname = "lab"\nplatforms = ["linux-64"]\n')
        made.site_of('file = "pixi.lock"', kind="pixi")
        yield made


def project(
    lab: CondaLab, *pypi: dict[str, Any], version: int = 6, names: tuple[str, ...] = ("python", "words")
) -> Path:
    """A ``pixi.lock`` of those packages, as pixi writes it (all of YAML is JSON too)."""
    chosen = [
        p for p in packages(lab.channel) if p.record["name"] in names and p.record["version"] != "3.11.9"
    ]
    platforms: dict[str, list[dict[str, str]]] = {"linux-64": [], "osx-arm64": []}
    for package in chosen:
        for platform in platforms if package.subdir == "noarch" else (package.subdir,):
            platforms[platform].append({"conda": _url(lab, package)})
    platforms["linux-64"] += [{"pypi": one["pypi"]} for one in pypi]
    environments = {
        name: {"channels": [{"url": f"{lab.url}/"}], "indexes": [lab.index.url], "packages": kept}
        for name, kept in {"default": platforms, "gpu": {"linux-64": platforms["linux-64"][:1]}}.items()
    }
    told: dict[str, Any] = {"version": version}
    if version > 6:
        told["platforms"] = [{"name": name} for name in platforms]
    records = [
        {
            "conda": _url(lab, p),
            **{key: p.record[key] for key in ("sha256", "md5", "depends", "license", "size", "timestamp")},
        }
        for p in {_url(lab, p): p for p in chosen}.values()
    ]
    return lab.write(
        "pixi.lock", json.dumps({**told, "environments": environments, "packages": [*records, *pypi]})
    )


def _url(lab: CondaLab, package: Package) -> str:
    return f"{lab.url}/{package.subdir}/{package.filename}"


def wheel(lab: CondaLab, location: str = "") -> dict[str, Any]:
    """The wheel ``extra`` as an entry of the lock."""
    (path,) = lab.wheels.glob("extra-1.0-*.whl")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    place = location or f"{lab.index.url}extra/{path.name}"
    return {"pypi": place, "name": "extra", "version": "1.0", "sha256": digest}


@pytest.mark.parametrize("version", [6, 7])
def test_a_pixi_lock_is_taken_over(lab: CondaLab, version: int) -> None:
    """Conda packages and wheels of the environment on the target, and the project's own files, byte for byte."""
    path = project(lab, wheel(lab), version=version)
    locked = only(lab)
    assert versions(locked) == {
        "python": "3.12.4", "words": "2.0", "extra": "1.0", "pixi.lock": "", "pixi.toml": "",
    }  # fmt: skip
    files = {a.facts["path"]: a for a in locked.artifacts if a.kind == "file"}
    assert files["pixi.lock"].digest == f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
    record = next(a for a in locked.artifacts if a.name == "words").facts["record"]
    assert record["depends"] == ["python >=3.11"]
    assert LockFile.from_path(path).environment("default") is not None


def test_any_environment_and_platform_of_a_lock(lab: CondaLab) -> None:
    """The environment named, the platform of each target; what is not in the lock is told with what is."""
    project(lab)
    lab.site_of('file = "pixi.lock"\nenvironment = "gpu"', kind="pixi")
    assert "words" not in versions(only(lab))
    lab.site_of('file = "pixi.lock"', targets='["gpu", "mac"]', kind="pixi")
    linux, mac = lab.lock_kind()
    assert {a.facts["subdir"] for a in mac.artifacts if a.kind == "conda"} == {"osx-arm64", "noarch"}
    assert versions(linux)["python"] == "3.12.4"
    lab.site_of('file = "pixi.lock"\nenvironment = "gpu"', targets='["mac"]', kind="pixi")
    (finding,) = only(lab).findings
    assert finding.code == "lock-platform"
    assert "linux-64" in finding.message
    assert "pixi lock" in finding.remedy
    lab.site_of('file = "pixi.lock"\nenvironment = "cpu"', kind="pixi")
    problem = refused(DeclarationError, lab.lock_kind)
    assert "default, gpu" in problem.message


def test_a_project_without_a_lock_is_told_to_lock(lab: CondaLab) -> None:
    """A pixi.toml alone is what people ask for and no answer."""
    assert refused(DeclarationError, lab.site).remedy == "run: pixi lock"
    lab.site_of('file = "pixi.toml"', kind="pixi")
    assert "pixi lock" in str(refused(DeclarationError, lab.site))


def test_a_lock_of_a_newer_version_is_refused(lab: CondaLab) -> None:
    """A version that is not read is named, and what is no lock is called so."""
    lab.write("pixi.lock", "version: 99\nenvironments: {}\npackages: []\n")
    assert "version 99" in refused(DeclarationError, lab.lock_kind).message
    lab.write("pixi.lock", "version: [")
    assert "not a pixi lock" in refused(DeclarationError, lab.lock_kind).message


def test_source_folders_cross_when_they_are_named(lab: CondaLab) -> None:
    """The project as an editable distribution blocks until its folder is named, and then its files cross."""
    project(lab, {"pypi": "./", "name": "lab", "version": "0.1", "sha256": "0" * 64, "editable": True})
    lab.write("src/lab/__init__.py", "")
    lab.write("src/lab/deep/__init__.py", "")
    lab.write("src/lab/__pycache__/x.pyc", "")
    (finding,) = only(lab).findings
    assert (finding.code, finding.blocking) == ("source-unsupported", True)
    lab.site_of('file = "pixi.lock"\nsources = ["src"]', kind="pixi")
    locked = only(lab)
    assert [f.blocking for f in locked.findings] == [False]
    paths = {a.facts["path"] for a in locked.artifacts if a.kind == "file"}
    assert paths == {"pixi.lock", "pixi.toml", "src/lab/__init__.py", "src/lab/deep/__init__.py"}
    assert len({a.filename for a in locked.artifacts}) == len(locked.artifacts)


def test_what_cannot_cross_is_told(lab: CondaLab) -> None:
    """A repository and a source distribution are findings, each by name; a package without sha256 too."""
    project(
        lab,
        {"pypi": "git+https://git.example.org/a.git?rev=1#" + "0" * 40, "name": "a", "version": "1"},
        {"pypi": f"{lab.index.url}b/b-1.0.tar.gz", "name": "b", "version": "1.0", "sha256": "0" * 64},
    )
    found = {(f.code, f.subject) for f in only(lab).findings}
    assert found == {("source-unsupported", "a in lab/gpu"), ("no-wheel", "b in lab/gpu")}
    path = project(lab)
    told = json.loads(path.read_text())
    for package in told["packages"]:
        package.pop("sha256")
    path.write_text(json.dumps(told))
    assert {f.code for f in only(lab).findings} == {"conda-unhashed"}


def test_a_purl_with_a_qualifier_names_its_distribution(lab: CondaLab) -> None:
    """pixi writes where it found a name, ``?source=hash-mapping``: a wheel that needs the package is whole."""
    make_wheel(lab.wheels, "extra", "1.0", requires=["words>=2"])
    path = project(lab, wheel(lab))
    told = json.loads(path.read_text())
    for package in told["packages"]:
        if "words" in package.get("conda", ""):
            package["purls"] = ["pkg:pypi/words?source=hash-mapping"]
    path.write_text(json.dumps(told))
    locked = only(lab)
    words = next(a for a in locked.artifacts if a.name == "words")
    assert words.facts["record"]["purls"] == ["pkg:pypi/words?source=hash-mapping"]
    artifacts = [a for a in locked.artifacts if a.kind != "file"]
    with next(lab.wheels.glob("extra-1.0-*.whl")).open("rb") as file:
        facts, _ = inspect(file, "extra-1.0-py3-none-any.whl")
    artifacts = [replace(a, facts={**a.facts, **facts}) if a.kind == "wheel" else a for a in artifacts]
    site = lab.site()
    known = SnapshotEnvironment(locked.environment, site.targets[0], tuple(artifacts), digest_of(b""))
    assert prove(known) == []


def test_a_wheel_beside_the_lock(lab: CondaLab) -> None:
    """A wheel that is a file of the project is one by its path."""
    (path,) = lab.wheels.glob("extra-1.0-*.whl")
    lab.root.joinpath("dist").mkdir()
    lab.root.joinpath("dist", path.name).write_bytes(path.read_bytes())
    project(lab, wheel(lab, f"./dist/{path.name}"))
    locked = only(lab)
    assert versions(locked)["extra"] == "1.0"
    assert next(a for a in locked.artifacts if a.name == "extra").origin == f"path:dist/{path.name}"


HIDDEN = "hunter2"


@pytest.mark.parametrize(
    "url",
    [
        f"http://me:{HIDDEN}@conda.example.org/main",
        f"https://conda.example.org/t/{HIDDEN}/main",
        f"https://conda.example.org/t/{HIDDEN}",
        f"https://{HIDDEN}@conda.example.org/main",
        f"git+https://me:{HIDDEN}@git.example.org/x.git",
        f"git+ssh://git:{HIDDEN}@git.example.org/x.git",
    ],
)
@pytest.mark.parametrize("file", ["pixi.lock", "pixi.toml", "pyproject.toml", "src/pixi.toml"])
def test_a_login_in_a_file_of_the_project_is_refused(lab: CondaLab, file: str, url: str) -> None:
    """The files cross as they are: the error names file and line, repeats nothing, and says where it belongs."""
    project(lab)
    lab.write("src/x.py", "")
    lab.site_of('file = "pixi.lock"\nsources = ["src"]', kind="pixi")
    path = lab.root / file
    before = path.read_text() if path.exists() else ""
    lab.write(file, f'{before.rstrip()}\n\n# "{url}"\n')
    problem = refused(DeclarationError, lab.lock_kind)
    assert problem.where == f"{file}: line {len(path.read_text().splitlines())}"
    assert HIDDEN not in f"{problem} {problem.remedy}"
    assert "pixi auth login" in (problem.remedy or "")


@pytest.mark.parametrize("place", ["conda", "channels", "indexes"])
def test_a_login_anywhere_in_the_lock_is_refused(lab: CondaLab, place: str) -> None:
    """Of a package, a channel or an index alike."""
    path = project(lab)
    told = json.loads(path.read_text())
    login = f"http://me:{HIDDEN}@conda.example.org/"
    default = told["environments"]["default"]
    if place == "conda":
        told["packages"][0]["conda"] = default["packages"]["linux-64"][0]["conda"] = (
            f"{login}linux-64/x-1-0.conda"
        )
    else:
        default[place] = [{"url": login}] if place == "channels" else [login]
    path.write_text(json.dumps(told))
    problem = refused(DeclarationError, lab.lock_kind)
    assert problem.where == "pixi.lock: line 1"
    assert HIDDEN not in str(problem)


def test_what_only_looks_like_a_login_may_cross(lab: CondaLab) -> None:
    """A user of ssh, an address of mail, and a thread of a forum let nobody in."""
    project(lab)
    lines = [
        "git+ssh://git@git.example.org/x.git", "ssh://ada@git.example.org/x.git", "https://git@git.example.org/x",
        "https://www.example.org/ ada@example.org", "https://forum.example.org/t/how-to-lock/123", "(https://forum.example.org/t/12/3).",
        "https://conda.example.org/t", "https://www.example.org/@ada",
    ]  # fmt: skip
    lab.write("pixi.toml", "".join(f"# {line}\n" for line in lines))
    assert "words" in versions(only(lab))
