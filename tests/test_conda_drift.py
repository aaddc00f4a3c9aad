"""Environments of conda packages, changed behind haversack's back."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from haversack.conda.drift import drift
from haversack.model.snapshot import SnapshotEnvironment
from haversack.ports import Inside
from tests.support import tiny
from tests.support.conda import make_conda
from tests.support.linked import environment, packages, put
from tests.support.stack import SHORT, real_stack
from tests.support.wheels import make_wheel

SITE = f"lib/python{SHORT}/site-packages"


@pytest.fixture(scope="module")
def channel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real stack."""
    return real_stack(tmp_path_factory.mktemp("channel"))


@pytest.fixture(scope="module")
def installed(
    channel: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[SnapshotEnvironment, Path, Inside]:
    """Everything that can be installed here, with wheels, as it came; not to be changed."""
    folder = tmp_path_factory.mktemp("drift")
    inside = tiny.inside(folder / "store")
    names = [p.record["name"] for p in packages(channel) if p.record["name"] != "needs-cuda"]
    wheel = make_wheel(
        folder,
        "alpha",
        "1.0",
        entry_points={"alpha": "alpha:main"},
        extra_files={"alpha-1.0.data/data/share/alpha.txt": b"x\n"},
    )
    lab = environment(inside, packages(channel, *names), wheels=[wheel], settings={"variables": {"A": "1"}})
    return lab, put(lab, folder / "home", inside), inside


def test_what_was_just_installed_has_not_drifted(installed: tuple[SnapshotEnvironment, Path, Inside]) -> None:
    """Prefixes in texts and binaries, entry points, links, clobbered files, wheels and our own files are all right."""
    lab, home, inside = installed
    (home / "haversack-environment.json").write_text("{}")
    assert drift(lab, home, inside.store) == []


def rewrite(path: Path, data: bytes = b"other\n") -> None:
    """Another file under that name: the cache stays as it is."""
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def relink(path: Path, to: str) -> None:
    """Another link under that name."""
    path.unlink()
    path.symlink_to(to)


Change = Callable[[Path], object]


@pytest.mark.parametrize(
    ("change", "code", "subject", "blocking"),
    [
        (lambda p: rewrite(p / SITE / "tqdm/std.py"), "env-changed", f"{SITE}/tqdm/std.py", True),
        (lambda p: (p / SITE / "tqdm/std.py").unlink(), "env-missing", f"{SITE}/tqdm/std.py", True),
        (lambda p: rewrite(p / "bin/tqdm"), "env-changed", "bin/tqdm", True),
        (lambda p: rewrite(p / "bin/where"), "env-changed", "bin/where", True),
        (lambda p: rewrite(p / "etc/where.conf"), "env-changed", "etc/where.conf", True),
        (lambda p: relink(p / "bin/where-link", "where-text"), "env-changed", "bin/where-link", True),
        (lambda p: relink(p / "bin/where-link", "/bin/sh"), "env-changed", "bin/where-link", False),
        (lambda p: rewrite(p / "bin/where-link"), "env-changed", "bin/where-link", True),
        (lambda p: relink(p / "share/clobber-a", "clobbered"), "env-changed", "share/clobber-a", True),
        (lambda p: rewrite(p / "share/clobbered"), "env-changed", "share/clobbered", True),
        (lambda p: rewrite(p / "__clobbers__/clobber-b/share/clobbered"), "env-changed", "__clobbers__/clobber-b/share/clobbered", True),
        (lambda p: rewrite(p / "bin/activate"), "env-changed", "bin/activate", True),
        (lambda p: (p / "bin/activate.fish").unlink(), "env-missing", "bin/activate.fish", True),
        (lambda p: rewrite(p / "conda-meta/state"), "env-changed", "conda-meta/state", True),
        (lambda p: rewrite(p / "bin/stranger"), "env-extra", "bin/stranger", True),
        (lambda p: rewrite(p / "etc/conda/activate.d/evil.sh"), "env-extra", "etc/conda/activate.d/evil.sh", True),
        (lambda p: rewrite(p / SITE / "stranger/__init__.py"), "env-extra", f"{SITE}/stranger", True),
        (lambda p: rewrite(p / SITE / "tqdm/added.py"), "env-extra", f"{SITE}/tqdm/added.py", True),
        (lambda p: (p / "lib/link").symlink_to("/etc"), "env-extra", "lib/link", True),
        (lambda p: rewrite(p / "var/log/it.log"), "env-extra", "var/log/it.log", False),
        (lambda p: rewrite(p / SITE / "alpha/__init__.py"), "env-changed", f"{SITE}/alpha/__init__.py", True),
        (lambda p: rewrite(p / "bin/alpha"), "env-changed", "bin/alpha", True),
        (lambda p: rewrite(p / "share/alpha.txt"), "env-changed", "share/alpha.txt", True),
        (lambda p: rewrite(p / "conda-meta/odd-1.0-0.json", b"{"), "env-changed", "conda-meta/odd-1.0-0.json", True),
    ],
)  # fmt: skip
def test_a_change_is_found_and_named(
    installed: tuple[SnapshotEnvironment, Path, Inside],
    tmp_path: Path,
    change: Change,
    code: str,
    subject: str,
    blocking: bool,
) -> None:
    """One change gives one finding, with its path."""
    lab, home, inside = installed
    before = drift(lab, home, inside.store)
    # The place is part of what is compared: changed where it is, and put back.
    shutil.copytree(home, tmp_path / "kept", symlinks=True)
    try:
        change(home)
        (finding,) = [f for f in drift(lab, home, inside.store) if f not in before]
        assert (finding.code, finding.subject, finding.blocking) == (code, subject, blocking)
    finally:
        shutil.rmtree(home)
        shutil.copytree(tmp_path / "kept", home, symlinks=True)


def test_a_line_in_conda_meta_excuses_nothing(
    installed: tuple[SnapshotEnvironment, Path, Inside], tmp_path: Path
) -> None:
    """A file that was changed together with its digest in ``conda-meta`` is found by the package in the store, and so
    is one that was only added to both."""
    lab, home, inside = installed
    shutil.copytree(home, tmp_path / "kept", symlinks=True)
    try:
        meta = next((home / "conda-meta").glob("built-*.json"))
        data = json.loads(meta.read_bytes())
        rewrite(home / "share/built.txt")
        rewrite(home / "bin/added")
        for row in data["paths_data"]["paths"]:
            row.pop("sha256")
        data["paths_data"]["paths"].append({"_path": "bin/added", "path_type": "hardlink"})
        meta.write_text(json.dumps(data))
        found = {(f.code, f.subject) for f in drift(lab, home, inside.store)}
        assert found == {("env-changed", "share/built.txt"), ("env-extra", "bin/added")}
    finally:
        shutil.rmtree(home)
        shutil.copytree(tmp_path / "kept", home, symlinks=True)


def marked(lab: SnapshotEnvironment, prefix: Path, **told: str) -> None:
    """A marker as ``haversack install`` leaves it, with ``home`` if that is told."""
    fields = {
        "haversack-environment": "1.0",
        "ref": "lab/here",
        "manifest": lab.manifest,
        "snapshot": lab.manifest,
    }
    (prefix / "haversack-environment.json").write_text(json.dumps({**fields, **told}))


def test_an_environment_is_the_same_by_whatever_name_it_is_called(
    channel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative path and a link lead to where it was installed; a marker from before ``home`` was in it is read."""
    inside = tiny.inside(tmp_path / "store")
    lab = environment(inside, packages(channel, "where", "built"), settings={"variables": {"A": "1"}})
    home = put(lab, tmp_path / "homes" / "lab", inside)
    (tmp_path / "link").symlink_to("homes")
    monkeypatch.chdir(tmp_path)
    relative = Path("homes/lab")
    assert drift(lab, relative, inside.store) == []
    marked(lab, home)
    assert drift(lab, relative, inside.store) == []
    marked(lab, home, home=str(home))
    for place in (home, relative, Path("link/lab"), tmp_path / "link" / "lab", home / ".." / "lab"):
        assert drift(lab, place, inside.store) == []
    monkeypatch.chdir(home)
    assert drift(lab, Path(), inside.store) == []


def test_an_environment_that_was_moved_is_told_once(channel: Path, tmp_path: Path) -> None:
    """One finding says where it was installed, whether anything stands there now or not; and nothing else is wrong."""
    inside = tiny.inside(tmp_path / "store")
    wheel = make_wheel(tmp_path, "alpha", "1.0", entry_points={"alpha": "alpha:main"})
    members = packages(channel, "python", "where", "tqdm")
    lab = environment(inside, members, wheels=[wheel], settings={"variables": {"A": "1"}})
    home = put(lab, tmp_path / "home", inside)
    marked(lab, home, home=str(home))
    for left in (True, False):
        place = tmp_path / f"moved-{left}"
        shutil.copytree(home, place, symlinks=True)
        if not left:
            shutil.rmtree(home)
        (finding,) = drift(lab, place, inside.store)
        assert (finding.code, finding.subject, finding.blocking) == ("env-changed", str(place), True)
        assert f"was installed at {home}" in finding.message
        assert "install the environment again" in finding.remedy


def test_packages_that_are_not_those_of_the_environment_are_named(channel: Path, tmp_path: Path) -> None:
    """One more, one less and one of another build, each by its name alone."""
    inside = tiny.inside(tmp_path / "store")
    old = make_conda(tmp_path, "tool", "1.0", noarch="generic", files={"share/tool": b"1\n"})
    new = make_conda(tmp_path, "tool", "1.0", noarch="generic", build="1", files={"share/tool": b"2\n"})
    lab = environment(inside, [*packages(channel, "built", "clobber-a"), old])
    home = put(lab, tmp_path / "home", inside)
    wanted = environment(inside, [*packages(channel, "built", "clobber-b"), new])
    found = {(f.code, f.subject) for f in drift(wanted, home, inside.store)}
    assert found == {("env-extra", "clobber-a 1.0"), ("env-absent", "clobber-b 1.0"), ("env-changed", "tool")}


def test_a_store_that_lost_the_packages_leaves_conda_meta_to_compare_with(
    channel: Path, tmp_path: Path
) -> None:
    """A finding that does not block says so, and changes are found all the same."""
    inside = tiny.inside(tmp_path / "store")
    lab = environment(inside, packages(channel, "built", "where"))
    home = put(lab, tmp_path / "home", inside)
    for artifact in lab.artifacts:
        inside.store.remove(artifact.digest)
    (finding,) = drift(lab, home, inside.store)
    assert (finding.code, finding.blocking) == ("store-incomplete", False)
    rewrite(home / "share/built.txt")
    assert "env-changed" in [f.code for f in drift(lab, home, inside.store)]


def test_a_package_in_the_store_that_cannot_be_read_is_told(channel: Path, tmp_path: Path) -> None:
    """A damaged blob does not keep the rest from being compared."""
    inside = tiny.inside(tmp_path / "store")
    lab = environment(inside, packages(channel, "built", "where"))
    home = put(lab, tmp_path / "home", inside)
    blob = inside.store.path(lab.artifacts[0].digest)
    data = blob.read_bytes()
    blob.chmod(0o644)
    blob.write_bytes(data[: len(data) // 2])
    (finding,) = drift(lab, home, inside.store)
    assert (finding.code, finding.blocking) == ("store-damaged", False)


def test_an_edited_file_is_found_where_it_is_and_not_in_the_next_environment(
    channel: Path, tmp_path: Path
) -> None:
    """Files are shared with the cache by links: the environment that was edited has drifted, a new one has not."""
    inside = tiny.inside(tmp_path / "store")
    lab = environment(inside, packages(channel, "python", "tqdm"))
    one = put(lab, tmp_path / "one", inside)
    (one / SITE / "tqdm/std.py").write_bytes(b"edited in place\n")
    two = put(lab, tmp_path / "two", inside)
    assert [f.subject for f in drift(lab, one, inside.store)] == [f"{SITE}/tqdm/std.py"]
    assert drift(lab, two, inside.store) == []


def test_what_link_scripts_may_have_made_does_not_block(channel: Path, tmp_path: Path) -> None:
    """Where scripts were allowed, a file that nobody brought is told, and no more."""
    inside = tiny.inside(tmp_path / "store")
    lab = environment(inside, packages(channel, "linked"), settings={"link_scripts": ["linked"]})
    home = put(lab, tmp_path / "home", inside)
    (finding,) = drift(lab, home, inside.store)
    assert (finding.code, finding.subject, finding.blocking) == ("env-extra", "share/post-link-ran", False)


def test_bytecode_and_compiled_environments_have_not_drifted(channel: Path, tmp_path: Path) -> None:
    """What Python writes into ``__pycache__`` is no drift, whoever had it written."""
    inside = tiny.inside(tmp_path / "store")
    lab = environment(inside, packages(channel, "python", "tqdm"))
    home = put(lab, tmp_path / "home", inside, compile_bytecode=True)
    assert drift(lab, home, inside.store) == []


def test_an_environment_with_its_own_activate_keeps_it(tmp_path: Path) -> None:
    """Where a package brings ``bin/activate``, as conda does, ours have another name, and both are as they should be."""
    inside = tiny.inside(tmp_path / "store")
    conda = make_conda(tmp_path, "conda", "1.0", noarch="generic", files={"bin/activate": b"# conda's\n"})
    lab = environment(inside, [conda])
    home = put(lab, tmp_path / "home", inside)
    assert (home / "bin/activate").read_bytes() == b"# conda's\n"
    assert (home / "bin/haversack-activate").is_file()
    assert drift(lab, home, inside.store) == []


def test_three_hundred_small_packages_are_compared_within_seconds(tmp_path: Path) -> None:
    """The doctor is quick: twice a second is the limit here, since others work on this machine too."""
    inside = tiny.inside(tmp_path / "store")
    made = [
        make_conda(
            tmp_path, f"p{n}", "1.0", noarch="generic", files={f"share/p{n}/{i}": os.urandom(500) for i in range(20)}
        )
        for n in range(300)
    ]  # fmt: skip
    lab = environment(inside, made)
    home = put(lab, tmp_path / "home", inside)
    start = time.monotonic()
    assert drift(lab, home, inside.store) == []
    assert time.monotonic() - start < 5
