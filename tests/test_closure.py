"""The closure proof: what is closed proves so, and every hole in it is named."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haversack.model import closure
from haversack.model.artifact import Artifact
from haversack.model.finding import Finding
from haversack.model.target import Target

REF = "analysis/node"
LINUX = Target("node", "linux-x86_64", "3.11", glibc="2.28")
WINDOWS = Target("desk", "windows-amd64", "3.12")


def artifact(
    name: str, version: str = "1.0", *requires: str, tag: str = "py3-none-any", **facts: Any
) -> Artifact:
    """A wheel that requires some things."""
    return Artifact(
        kind="wheel",
        name=name,
        version=version,
        filename=f"{name.replace('-', '_')}-{version}-{tag}.whl",
        digest="sha256:" + "0" * 64,
        size=1,
        origin="path:wheels",
        facts={"requires_dist": list(requires), "requires_python": None, **facts},
    )


def prove(roots: Sequence[str], *artifacts: Artifact, target: Target = LINUX) -> list[Finding]:
    """The proof of some wheels."""
    return closure.prove(roots, artifacts, target, ref=REF)


def codes(roots: Sequence[str], *artifacts: Artifact, target: Target = LINUX) -> list[tuple[str, str]]:
    """Code and project of every blocking finding."""
    findings = prove(roots, *artifacts, target=target)
    return [(f.code, f.subject.removesuffix(f" in {REF}")) for f in findings if f.blocking]


def test_a_closed_set_has_no_finding() -> None:
    """Names in any spelling, cycles, and wheels that nothing needs are all in order."""
    found = prove(
        ["Pandas>=2"],
        artifact("pandas", "2.2.2", "NumPy>=1.26", "python_dateutil (>=2.8)"),
        artifact("numpy", "2.0.1"),
        artifact("Python.Dateutil", "2.9", "six", "pandas"),
        artifact("six", "1.16"),
        artifact("unneeded", "1.0", "not-here"),
    )
    assert found == []


def test_a_missing_package_is_named_with_who_needs_it_and_why() -> None:
    """The message leads from what a person asked for to what is not there, and says what to do."""
    (found,) = prove(
        ["app"],
        artifact("app", "1.0", "pandas", "six"),
        artifact("pandas", "2.2.2", "six>=1.5"),
        artifact("other"),
    )
    assert found.code == "closure-missing"
    assert found.subject == "six in analysis/node"
    assert found.message == "app 1.0 needs six (app → six), and so do 1 more; it is not in the bundle"
    assert "haversack lock" in found.remedy
    (deeper,) = prove(["app"], artifact("app", "1.0", "pandas"), artifact("pandas", "2.2.2", "six>=1.5"))
    assert deeper.message == "pandas 2.2.2 needs six>=1.5 (app → pandas → six); it is not in the bundle"


def test_a_missing_root_is_named() -> None:
    """What a person asked for must be there itself."""
    (found,) = prove(["torch[cuda]>=2"])
    assert (found.code, found.message) == (
        "closure-missing",
        "torch[cuda]>=2 is asked for; it is not in the bundle",
    )


def test_the_way_told_is_the_shortest() -> None:
    """Of several ways to a package a message tells the one with the fewest steps."""
    wheels = [artifact("app", "1.0", "a", "b"), artifact("a", "1.0", "lib"), artifact("b", "1.0", "a")]
    (found,) = prove(["app"], *wheels)
    assert "(app → a → lib)" in found.message


def test_a_long_way_is_told_in_short() -> None:
    """A message stays readable however deep the graph is."""
    chain = [artifact(f"p{n}", "1.0", f"p{n + 1}") for n in range(50)]
    (found,) = prove(["p0"], *chain)
    assert "(… → p45 → p46 → p47 → p48 → p49 → p50)" in found.message


@pytest.mark.parametrize(
    ("version", "specifier", "fits"),
    [
        ("1.26", ">=2", False),
        ("2.0.1", ">=2,<3", True),
        ("2.0rc1", ">=1.9", True),
        ("2.0.dev3", "", True),
        ("2.1.0+cpu", "==2.1.0", True),
        ("2.1.0", "==2.1.0+cpu", False),
        ("1.0", "===1.0", True),
    ],
)
def test_versions_must_be_allowed(version: str, specifier: str, *, fits: bool) -> None:
    """Every requirement that reaches a package has its say; a locked pre-release is meant."""
    found = codes(["app"], artifact("app", "1.0", f"numpy{specifier}"), artifact("numpy", version))
    assert found == ([] if fits else [("closure-version", "numpy")])


def test_each_requirement_that_a_version_breaks_is_told() -> None:
    """Two packages that want other versions are two findings."""
    found = prove(["a", "b"], artifact("a", "1", "c<1"), artifact("b", "2", "c>2"), artifact("c", "1.5"))
    assert [f.message for f in found] == [
        "a 1 needs c<1 (a → c); the bundle has 1.5",
        "b 2 needs c>2 (b → c); the bundle has 1.5",
    ]


@pytest.mark.parametrize(
    ("tag", "target", "fits"),
    [
        ("cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64", LINUX, True),
        ("cp38-abi3-manylinux_2_28_x86_64", LINUX, True),
        ("cp311-cp311-manylinux_2_34_x86_64", LINUX, False),
        ("cp312-cp312-manylinux_2_17_x86_64", LINUX, False),
        ("cp311-cp311-manylinux_2_17_aarch64", LINUX, False),
        ("cp311-cp311-musllinux_1_1_x86_64", LINUX, False),
        ("cp312-cp312-win_amd64", WINDOWS, True),
        ("cp312-cp312-win32", WINDOWS, False),
    ],
)
def test_tags_must_run_on_the_target(tag: str, target: Target, *, fits: bool) -> None:
    """A wheel for another Python, another machine or a newer system library is found here and not inside."""
    found = codes(["numpy"], artifact("numpy", tag=tag), target=target)
    assert found == ([] if fits else [("closure-tag", "numpy")])


@pytest.mark.parametrize(
    ("python", "wanted", "fits"),
    [
        ("3.11", ">=3.9", True),
        ("3.11", "", True),
        ("3.11", ">=3.12", False),
        ("3.11", "<3.11", False),
        ("3.11.2", ">=3.11.4", False),
        ("3.11.7", ">=3.11.4,!=3.11.5", True),
        ("3.11", ">=3.11.4", False),
    ],
)
def test_pythons_must_be_admitted(python: str, wanted: str, *, fits: bool) -> None:
    """Requires-Python is held against the target's whole version, which is X.Y.0 where nobody said more."""
    target = replace(LINUX, python=python)
    found = codes(["numpy"], artifact("numpy", requires_python=wanted), target=target)
    assert found == ([] if fits else [("closure-python", "numpy")])


def test_markers_are_those_of_the_target() -> None:
    """What only Windows needs is needed on Windows, whatever this test runs on."""
    wheels = [artifact("tqdm", "4.6", "colorama; sys_platform == 'win32'", 'pexpect ; os_name=="posix"')]
    assert codes(["tqdm"], *wheels, target=WINDOWS) == [("closure-missing", "colorama")]
    assert codes(["tqdm"], *wheels, target=LINUX) == [("closure-missing", "pexpect")]
    assert codes(["tomli; python_version < '3.11'"], target=LINUX) == []
    assert codes(["tomli; python_version >= '3.11'"], target=LINUX) == [("closure-missing", "tomli")]


def test_extras_bring_what_they_need_and_nothing_else() -> None:
    """An extra counts where it is asked for, in any spelling, together with its other markers."""
    wheel = artifact(
        "pkg",
        "1.0",
        "base",
        "fast-lib ; extra == 'fast_io'",
        "slow-lib; extra == 'slow'",
        "win-lib; extra == 'fast-io' and sys_platform == 'win32'",
    )
    base = artifact("base")
    assert codes(["pkg"], wheel, base) == []
    assert codes(["pkg[Fast.IO]"], wheel, base) == [("closure-missing", "fast-lib")]
    assert codes(["pkg[fast-io,slow]"], wheel) == [
        ("closure-missing", "base"),
        ("closure-missing", "fast-lib"),
        ("closure-missing", "slow-lib"),
    ]
    assert codes(["pkg[nobody-provides-it]"], wheel, base) == []


def test_an_extra_that_is_asked_for_later_is_walked_later() -> None:
    """A package reached plainly first, and with an extra from deeper down, needs both."""
    pkg = artifact("pkg", "1.0", "lib; extra == 'x'", "user")
    assert codes(["pkg"], pkg, artifact("user", "1.0", "pkg[x]")) == [("closure-missing", "lib")]


def test_an_extra_may_ask_for_extras_of_its_own_package() -> None:
    """``pkg[all]`` is commonly said as ``pkg[a,b]``."""
    pkg = artifact("pkg", "1.0", "pkg[a,b]; extra == 'all'", "lib-a; extra == 'a'", "lib-b; extra == 'b'")
    assert codes(["pkg[all]"], pkg, artifact("lib-a")) == [("closure-missing", "lib-b")]
    assert codes(["pkg[all]"], pkg, artifact("lib-a"), artifact("lib-b")) == []


def test_a_url_is_met_by_a_wheel_of_that_name() -> None:
    """A requirement with a URL is satisfied by name, with its marker and a semicolon in the URL all the same."""
    url = "https://user:secret@example.org/a;b/pkg.whl"
    app = artifact("app", "1.0", f"pkg @ {url} ; sys_platform == 'linux'", f"other@{url} ; os_name == 'nt'")
    assert codes(["app"], app, artifact("pkg")) == []
    assert codes(["app", f"root[x] @ {url}"], app) == [
        ("closure-missing", "root"),
        ("closure-missing", "pkg"),
    ]


def test_no_message_shows_a_url() -> None:
    """A URL may hold a password, in a root and in a wheel, valid or not."""
    url = "https://user:secret@example.org/pkg.whl"
    roots = [f"pkg @ {url}", url, f"pkg @ {url} ;;", f"-e {url}", "app"]
    app = artifact("app", "1.0", f"lib @ {url}", url, f"lib ~ {url}", f"lib @ {url} ; nonsense")
    found = prove(roots, app)
    assert len(found) == 8
    assert not [f for f in found if "secret" in str(f)]


def test_two_wheels_of_one_project_are_one_too_many() -> None:
    """An environment holds one version of a project; names that differ only in spelling are one."""
    found = prove(["a-b"], artifact("a-b", "1.0"), artifact("A_B", "2.0"))
    assert [(f.code, f.subject) for f in found] == [("name-clash", "a-b in analysis/node")]
    assert "a_b-1.0-py3-none-any.whl and A_B-2.0-py3-none-any.whl" in found[0].message


def test_only_wheels_count() -> None:
    """An archive of an interpreter that happens to be called like a package is none."""
    interpreter = replace(artifact("numpy"), kind="python")
    assert codes(["numpy"], interpreter) == [("closure-missing", "numpy")]
    assert codes(["numpy"], artifact("numpy"), interpreter) == []


@pytest.mark.parametrize(
    "filename", ["other-1.0-py3-none-any.whl", "numpy-2.0-py3-none-any.whl", "numpy.whl"]
)
def test_a_file_of_another_name_or_version_is_noticed(filename: str) -> None:
    """Installers go by the file name, so it must say what the lock says."""
    assert codes(["numpy"], replace(artifact("numpy"), filename=filename)) == [("wheel-invalid", "numpy")]


def test_a_wheel_that_nobody_has_read_proves_nothing() -> None:
    """Without its requirements a wheel cannot be called closed."""
    unread = replace(artifact("numpy"), facts={})
    assert codes(["numpy"], unread) == [("closure-missing", "numpy")]


def test_what_old_wheels_got_wrong_is_told_and_does_not_block() -> None:
    """Invalid metadata has been read by uv when it locked; a person is told, once, and goes on."""
    old = artifact(
        "old",
        "1.0",
        "six (>=1.*.x)",
        "nose; python_ver < '3'",
        "lib; extra == 'x'",
        requires_python=">=3.6.*",
    )
    found = prove(["old", "old[x,y]"], old, artifact("lib"))
    assert [(f.code, f.blocking) for f in found] == [("wheel-invalid", False)] * 3
    assert [name in f.message for f, name in zip(found, (">=3.6.*", "six", "nose"), strict=True)] == [
        True
    ] * 3


def test_a_root_that_is_no_requirement_blocks() -> None:
    """What cannot be read cannot be proven."""
    assert codes(["numpy", "not a requirement"], artifact("numpy")) == [("closure-missing", "root 2")]


GRAPHS = st.integers(1, 12).flatmap(
    lambda count: st.tuples(
        st.just(count),
        st.lists(st.tuples(st.integers(0, count - 1), st.integers(0, count - 1), st.booleans()), max_size=40),
        st.sets(st.integers(0, count - 1), min_size=1, max_size=3),
    )
)


@settings(max_examples=150, deadline=None)
@given(graph=GRAPHS, data=st.data())
def test_taking_a_needed_wheel_away_is_always_noticed(
    graph: tuple[int, list[tuple[int, int, bool]], set[int]], data: st.DataObject
) -> None:
    """A closed set of any shape proves, and without any one reachable wheel it names just that one."""
    count, edges, roots = graph
    names = [f"pkg-{n}" for n in range(count)]
    wheels = {
        n: artifact(
            names[n],
            f"{n}.0",
            # An edge of an extra is followed only where the extra is asked for; here it never is.
            *(f"Pkg_{b}>={b}" + ("; extra == 'no'" if extra else "") for a, b, extra in edges if a == n),
        )
        for n in range(count)
    }
    wanted = [f"{names[n]}=={n}.0" for n in sorted(roots)]
    assert prove(wanted, *wheels.values()) == []
    reachable, frontier = set(roots), set(roots)
    while frontier:
        frontier = {b for a, b, extra in edges if a in frontier and not extra} - reachable
        reachable |= frontier
    gone = data.draw(st.sampled_from(range(count)))
    left = [wheel for n, wheel in wheels.items() if n != gone]
    assert codes(wanted, *left) == ([("closure-missing", names[gone])] if gone in reachable else [])


def test_cost_grows_with_the_wheels_and_not_faster() -> None:
    """Eight times as many wheels take about eight times as long and not sixty-four, so that 20,000 take seconds."""

    def seconds(count: int) -> float:
        wheels = [
            artifact(f"p{n}", "1.0", f"p{n + 1}>=1", f"p{n * 7 % count}", "x; extra == 'x'")
            for n in range(count)
        ]
        roots = [f"p{n}==1.0" for n in range(count)]
        begin = time.process_time()
        assert codes(roots, *wheels) == [("closure-missing", f"p{count}")]
        return time.process_time() - begin

    seconds(100)
    assert min(seconds(4000) for _ in range(2)) < 30 * seconds(500)
