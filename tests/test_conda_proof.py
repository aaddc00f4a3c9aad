"""Whether conda packages, and wheels beside them, are all that an environment needs on its target."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from haversack.conda.distributions import provided
from haversack.conda.proof import prove
from haversack.model.target import Target
from haversack.ports import Inside
from tests.support import tiny
from tests.support.conda import Package, make_conda
from tests.support.linked import environment, packages, target
from tests.support.stack import real_stack
from tests.support.wheels import make_wheel


@pytest.fixture(scope="module")
def channel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real stack."""
    return real_stack(tmp_path_factory.mktemp("channel"))


@pytest.fixture
def inside(tmp_path: Path) -> Inside:
    """An empty store, and the ports around it."""
    return tiny.inside(tmp_path / "store")


def tool(folder: Path, name: str, *depends: str, **more: Any) -> Package:
    """A package of nothing but what it depends on."""
    return make_conda(folder, name, "1.0", noarch="generic", depends=depends, **more)


def test_the_real_stack_is_closed(channel: Path, inside: Inside) -> None:
    """All packages together, one of them hotfixed and one with a script that nobody allowed."""
    members = [p for p in packages(channel) if p.record["name"] != "needs-cuda"]
    (finding,) = prove(environment(inside, members))
    assert (finding.code, finding.blocking) == ("conda-script", False)
    assert finding.subject == "linked-1.0-0.conda in lab/here"
    assert prove(environment(inside, members, settings={"link_scripts": ["linked"]})) == []


def test_a_package_that_is_missing_is_named(channel: Path, inside: Inside) -> None:
    """Without one of its packages an environment cannot be solved, and the solver's reason names it."""
    (finding,) = prove(environment(inside, packages(channel, "tqdm")))
    assert finding.code == "closure-missing"
    assert finding.blocking
    assert "python >=3.8" in finding.message


def test_what_the_target_lacks_is_told_in_plain_words(channel: Path, inside: Inside) -> None:
    """A virtual package that the target does not say, or says too old, with the key that would say it."""
    members = packages(channel, "needs-cuda")
    (finding,) = prove(environment(inside, members))
    assert finding.code == "closure-missing"
    assert finding.message == (
        "needs-cuda-1.0-0.conda needs a CUDA driver (__cuda >=12), and its target says nothing of one"
    )
    assert "cuda in [target.here]" in finding.remedy
    (finding,) = prove(environment(inside, members, on=target(cuda="11.8")))
    assert finding.message.endswith("and its target says 11.8")
    assert prove(environment(inside, members, on=target(cuda="12.4"))) == []


def test_packages_that_contradict_each_other_are_told(tmp_path: Path, inside: Inside) -> None:
    """Also a ``constrains``, which nothing depends on."""
    members = [tool(tmp_path, "a", constrains=["b <1.0"]), tool(tmp_path, "b")]
    (finding,) = prove(environment(inside, members))
    assert finding.code == "closure-missing"
    assert "b" in finding.message


def test_packages_of_another_system_or_twice_are_told(tmp_path: Path, inside: Inside) -> None:
    """One for Windows on Linux, two builds of one name, and one whose record nobody kept."""
    members = [
        make_conda(tmp_path, "win", "1.0", subdir="win-64"),
        tool(tmp_path, "two"),
        tool(tmp_path, "two", build="1"),
    ]
    lab = environment(inside, members)
    assert [f.code for f in prove(lab)] == ["closure-tag", "name-clash"]
    lost = replace(lab.artifacts[1], facts={"channel": "https://conda.example.org/main", "subdir": "noarch"})
    (finding,) = prove(replace(lab, artifacts=(lost,)))
    assert (finding.code, finding.subject) == ("closure-missing", "two in lab/here")
    (finding,) = prove(replace(lab, artifacts=(replace(lost, facts={}),)))
    assert "malformed" in finding.message


def test_wheels_count_what_conda_packages_bring(channel: Path, inside: Inside, tmp_path: Path) -> None:
    """A requirement of a wheel is met by a conda package, at its version; and by nothing where there is none."""
    members = packages(channel, "python", "packaging")
    meets = make_wheel(tmp_path, "alpha", "1.0", requires=["packaging>=20", "beta; python_version<'3'"])
    assert prove(environment(inside, members, wheels=[meets])) == []
    wants = make_wheel(tmp_path, "beta", "1.0", requires=["packaging>=9999", "gamma"])
    found = {f.code: f.message for f in prove(environment(inside, members, wheels=[wants]))}
    assert found.keys() == {"closure-version", "closure-missing"}
    assert "the environment has" in found["closure-version"]


def test_wheels_are_for_the_python_of_the_packages(channel: Path, inside: Inside, tmp_path: Path) -> None:
    """Not for the one that the target names; and without any there is nothing to run them."""
    wheel = make_wheel(tmp_path, "alpha", "1.0", tag="cp310-cp310-linux_x86_64", requires_python="<3.11")
    on = replace(target(), python="3.10")
    found = prove(environment(inside, packages(channel, "python"), wheels=[wheel], on=on))
    assert {f.code for f in found} == {"closure-tag", "closure-python"}
    (finding,) = prove(environment(inside, [], wheels=[wheel]))
    assert (finding.code, finding.subject) == ("closure-missing", "python in lab/here")


def test_a_wheel_that_would_replace_a_conda_package_is_told(
    channel: Path, inside: Inside, tmp_path: Path
) -> None:
    """One distribution cannot come both ways: the wheel would remove what conda linked."""
    wheel = make_wheel(tmp_path, "Packaging", "99.0")
    (finding,) = prove(environment(inside, packages(channel, "python", "packaging"), wheels=[wheel]))
    assert finding.code == "name-clash"


def test_names_on_pypi_are_those_that_records_tell(tmp_path: Path, inside: Inside) -> None:
    """``purls`` win, also an empty list; without any a package that depends on Python has its own name."""
    members = [
        tool(tmp_path, "pytorch", "python", purls=["pkg:pypi/torch@2.1.0"]),
        tool(tmp_path, "library", "python", purls=[]),
        tool(tmp_path, "my_tool", "python >=3.8"),
        tool(tmp_path, "other", "conda-forge::python 3.11.*"),
        tool(tmp_path, "plain"),
    ]
    lab = environment(inside, members)
    assert provided(lab.artifacts) == {"torch": "2.1.0", "my-tool": "1.0", "other": "1.0"}


def test_a_purl_may_say_where_it_was_found(channel: Path, tmp_path: Path, inside: Inside) -> None:
    """What follows ``?`` and ``#`` in one (purl specification) is neither name nor version; pixi writes a ``source``."""
    members = [
        tool(tmp_path, "pytorch", "python", purls=["pkg:pypi/torch@2.1.0?source=hash-mapping"]),
        tool(tmp_path, "numpy", "python", purls=["pkg:pypi/numpy?source=hash-mapping#numpy"]),
    ]
    wheel = make_wheel(tmp_path, "alpha", "1.0", requires=["numpy==1.0", "torch>2"])
    lab = environment(inside, [*packages(channel, "python"), *members], wheels=[wheel])
    found = provided(lab.artifacts)
    assert (found["torch"], found["numpy"]) == ("2.1.0", "1.0")
    assert prove(lab) == []


def test_what_many_packages_lack_is_asked_once(tmp_path: Path, inside: Inside) -> None:
    """Each package is told, and a thousand of them within a second: nothing is solved for each anew."""
    (first,) = environment(inside, [tool(tmp_path, "p0", "__cuda >=12", "__glibc >=2.17")]).artifacts
    lab = environment(inside, [])
    members = [
        replace(first, name=f"p{n}", filename=f"p{n}-1.0-0.conda", origin=first.origin.replace("p0", f"p{n}"))
        for n in range(1000)
    ]
    start = time.monotonic()
    assert len(prove(replace(lab, artifacts=tuple(members)))) == 1000
    assert time.monotonic() - start < 1


def test_a_permission_for_nothing_is_told(tmp_path: Path, inside: Inside) -> None:
    """A name in ``link-scripts`` that no package answers to was perhaps misspelt."""
    (finding,) = prove(environment(inside, [tool(tmp_path, "a")], settings={"link_scripts": ["aa"]}))
    assert (finding.code, finding.subject, finding.blocking) == ("conda-script", "aa in lab/here", False)


def test_a_foreign_target_is_proven_with_its_own_virtual_packages(tmp_path: Path, inside: Inside) -> None:
    """macOS has ``__osx`` and no ``__glibc``, wherever the proof is done."""
    on = Target("mac", "macos-arm64", "3.11", macos="13.0")
    members = [make_conda(tmp_path, "a", "1.0", subdir="osx-arm64", depends=["__osx >=11.0", "__unix"])]
    assert prove(environment(inside, members, on=on)) == []
    members = [make_conda(tmp_path, "b", "1.0", subdir="osx-arm64", depends=["__glibc >=2.17"])]
    (finding,) = prove(environment(inside, members, on=on))
    assert "the GNU C library" in finding.message
