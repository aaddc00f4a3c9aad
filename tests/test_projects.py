"""Projects: which files of a folder cross, what of a repository, and how both are laid and replaced."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from haversack.errors import DeclarationError, IntegrityError, NotFoundError, PrefixError
from haversack.kinds import Locked
from haversack.kinds.project import KIND
from haversack.model.artifact import Artifact, digest_of
from haversack.model.lock import Lock, LockedEnvironment, merge_artifacts
from haversack.model.snapshot import SnapshotEnvironment
from haversack.model.target import ANY
from haversack.ports import Inside, Outside
from haversack.projects import folder, ignore, laid
from haversack.verbs import collect
from haversack.verbs.aside import swap
from haversack.verbs.holdings import Held
from haversack.verbs.install import Installed, install, read_marker
from haversack.verbs.lay import Laid, lay
from tests.support import tiny
from tests.support.repository import Repository, run_git
from tests.support.site import Lab


def declare(lab: Lab, table: str) -> None:
    """A site of one project."""
    lab.write(
        "haversack.toml",
        f'[site]\nname = "lab"\n[index.main]\nurl = "{lab.index.url}"\ndefault = true\n[project.fraud]\n{table}\n',
    )


def lock_of(locked: Locked) -> Lock:
    """A lock of one environment alone."""
    return Lock("lab", digest_of(b""), (ANY,), (locked.environment,), merge_artifacts(locked.artifacts))


def paths(locked: Locked) -> list[str]:
    """The paths of the files that cross."""
    return sorted(artifact.facts["path"] for artifact in locked.artifacts)


def codes(locked: Locked) -> list[tuple[str, str, bool]]:
    """Code, subject and severity of every finding."""
    return [
        (finding.code, finding.subject.partition(" in ")[0], finding.blocking) for finding in locked.findings
    ]


# Folders


def test_what_is_included_crosses_and_nothing_that_is_made_again(tmp_path: Path) -> None:
    """Files by their paths, programs stay programs, links stay links; caches and ignored files stay behind."""
    with Lab(tmp_path) as lab:
        for name in (
            "src/a.py",
            "src/__pycache__/a.pyc",
            "src/.git/HEAD",
            "src/out/x.log",
            "src/keep.log",
            "other.py",
        ):
            lab.write(name, name)
        lab.write("src/.gitignore", "*.log\n!keep.log\n/out/\n")
        lab.write("src/.haversackignore", "secret*\n")
        lab.write("src/secret.txt", "x")
        lab.write("run.sh", "#!/bin/sh\n").chmod(0o755)
        (lab.root / "src" / "latest").symlink_to("a.py")
        (lab.root / "src" / "empty").mkdir()
        declare(lab, 'include = ["src/", "run.sh"]')
        (locked,) = lab.lock_kind()
        assert codes(locked) == []
        assert paths(locked) == [
            "run.sh",
            "src/.gitignore",
            "src/.haversackignore",
            "src/a.py",
            "src/keep.log",
        ]
        assert locked.environment.settings == {"files": 5, "links": {"src/latest": "a.py"}}
        told = {artifact.facts["path"]: artifact for artifact in locked.artifacts}
        assert told["run.sh"].facts["executable"] is True
        assert told["src/a.py"].filename == "src%2Fa.py"
        assert told["src/a.py"].origin == "path:src/a.py"


def test_what_is_named_itself_crosses_whatever_ignores_it(tmp_path: Path) -> None:
    """A data folder that version control ignores is wanted all the same; `exclude` of the declaration wins over all."""
    with Lab(tmp_path) as lab:
        lab.write(".gitignore", "data/\n.venv/\n")
        lab.write("data/a.csv", "1")
        lab.write("data/old/b.csv", "2")
        lab.write("data/c.tmp", "3")
        lab.write(".venv/pyvenv.cfg", "x")
        declare(lab, 'include = ["data/", ".venv/"]\nexclude = ["*.tmp", "data/old/"]')
        (locked,) = lab.lock_kind()
        assert paths(locked) == [".venv/pyvenv.cfg", "data/a.csv"]


def test_what_is_not_there_or_outside_is_an_error(tmp_path: Path) -> None:
    """Each names the item of the list."""
    with Lab(tmp_path) as lab:
        for item, said in (
            ("absent/", "there is no absent/"),
            ("../x", "outside the folder"),
            ("a/../../x", "outside"),
        ):
            declare(lab, f'include = ["{item}"]')
            with pytest.raises(DeclarationError, match=said) as caught:
                lab.lock_kind()
            assert "include[0]" in caught.value.where


def test_names_and_links_that_no_system_should_be_given_are_found(tmp_path: Path) -> None:
    """Links out, two names of one on other systems, names with a colon: all of them at once."""
    with Lab(tmp_path) as lab:
        for name in ("src/A.py", "src/a.py", "src/12:00.csv", "src/Doc/x", "src/doc/y"):
            lab.write(name, name)
        (lab.root / "src" / "up").symlink_to("../../etc")
        (lab.root / "src" / "root").symlink_to("/etc/passwd")
        (lab.root / "src" / "deep" / "er").mkdir(parents=True)
        (lab.root / "src" / "deep" / "er" / "near").symlink_to("../..")
        (lab.root / "src" / "through").symlink_to("deep/er/near/../..")
        (lab.root / "src" / "loop").symlink_to("loop")
        os.mkfifo(lab.root / "src" / "pipe")
        (tmp_path / "elsewhere").mkdir()
        (lab.root / "far").symlink_to(tmp_path / "elsewhere")
        declare(lab, 'include = ["src", "far"]')
        found = codes(lab.lock_kind()[0])
        assert sorted(found) == [
            ("name-clash", "src/a.py", True),
            ("name-clash", "src/doc", True),
            ("path-unsafe", "far", True),
            ("path-unsafe", "src/12:00.csv", True),
            ("path-unsafe", "src/loop", True),
            ("path-unsafe", "src/pipe", False),
            ("path-unsafe", "src/root", True),
            ("path-unsafe", "src/through", True),
            ("path-unsafe", "src/up", True),
        ]


def test_what_looks_like_a_secret_is_told(tmp_path: Path) -> None:
    """By its name, or by a private key in it; a certificate is none, and neither is .env-config."""
    with Lab(tmp_path) as lab:
        for name in (".env", ".env-config", "id_ed25519", "x.pem"):
            lab.write(f"src/{name}", "-----BEGIN CERTIFICATE-----\n")
        lab.write("src/key.pem", "-----BEGIN PRIVATE KEY-----\n")
        declare(lab, 'include = ["src"]')
        found = codes(lab.lock_kind()[0])
        assert [(code, name, blocks) for code, name, blocks in found] == [
            ("project-secret", f"src/{name}", False) for name in (".env", "id_ed25519", "key.pem")
        ]


def test_an_unchanged_file_is_not_read_again(tmp_path: Path) -> None:
    """The store remembers size, times and inode of a file that settled; a change of any is noticed."""
    with Lab(tmp_path) as lab:
        file = lab.write("data/big.bin", "x" * 1000)
        declare(lab, 'include = ["data"]')
        (first,) = lab.lock_kind()
        out = lab.outside(lab.site())
        assert json.loads(out.store.read_state("projects/fraud.json") or b"") == {}
        told = file.stat()
        known = [told.st_size, told.st_mtime_ns, told.st_ctime_ns, told.st_ino, digest_of(b"not read")]
        out.store.write_state("projects/fraud.json", json.dumps({"data/big.bin": known}).encode())
        (again,) = lab.lock_kind()
        assert again.artifacts[0].digest == digest_of(b"not read")
        file.write_text("y" * 1000)
        (third,) = lab.lock_kind()
        assert third.artifacts[0].digest == digest_of(b"y" * 1000)
        assert first.artifacts[0].digest == digest_of(b"x" * 1000)


def test_a_file_that_changed_since_the_lock_does_not_cross(tmp_path: Path) -> None:
    """Pack says what to do: lock again."""
    with Lab(tmp_path) as lab:
        lab.write("src/a.py", "one")
        declare(lab, 'include = ["src"]')
        (locked,) = lab.lock_kind()
        lab.write("src/a.py", "two")
        site = lab.site()
        out = lab.outside(site)
        with pytest.raises(IntegrityError) as caught:
            collect.collect(lock_of(locked), site.root, collect.plan(lock_of(locked), out), out)
        (finding,) = caught.value.findings
        assert "changed since it was locked" in finding.message
        assert finding.remedy == "run: haversack lock"


@pytest.mark.parametrize(
    ("pattern", "path", "is_folder", "hit"),
    [
        ("*.log", "a/b.log", False, True),
        ("/x", "x", False, True),
        ("/x", "a/x", False, False),
        ("a/*.c", "a/b/c.c", False, False),
        ("a/**/c.c", "a/b/x/c.c", False, True),
        ("a/**/c.c", "a/c.c", False, True),
        ("**/d", "a/b/d", False, True),
        ("d/", "d", False, False),
        ("d/", "x/d", True, True),
        ("a/**", "a/b", False, True),
        ("[ab].c", "b.c", False, True),
        ("[!ab].c", "b.c", False, False),
        ("\\#x", "#x", False, True),
        ("?.c", "/.c", False, False),
        ("a b ", "a b", False, True),
        ("[", "[", False, False),
        ("a*b*c", "axbxbxc", False, True),
        ("*ab", "aab", False, True),
        ("a*?[bc]d", "xabd", False, False),
        ("a*?[bc]d", "axbd", False, True),
        ("x/a**b", "x/a/b", False, False),
        ("**/a/**/b", "x/a/y/z/b", False, True),
        ("a/**", "a", True, False),
        ("# x", "# x", False, False),
    ],
)
def test_patterns_are_those_of_git(
    tmp_path: Path, pattern: str, path: str, is_folder: bool, hit: bool
) -> None:
    """Each pattern decides as git itself does."""
    assert ignore.is_ignored(path, folder=is_folder, known=ignore.rules([pattern])) is hit
    if path.startswith("/"):
        return
    repository = Repository(tmp_path / "r")
    (repository.path / ".gitignore").write_text(f"{pattern}\n")
    place = repository.path / path
    place.parent.mkdir(parents=True, exist_ok=True)
    place.mkdir() if is_folder else place.write_text("x")
    said = subprocess.run(
        ["git", "check-ignore", "-q", path], cwd=repository.path, env={"PATH": os.environ["PATH"]}
    )
    assert (said.returncode == 0) is hit


def test_no_pattern_takes_long() -> None:
    """Many stars, folders of any number, and a line of blanks are done with at once."""
    lines = ["*a" * 60 + "b", "**/*a/" * 30 + "b", "x" + " " * 100_000 + "y"]
    begun = time.process_time()
    assert not ignore.is_ignored("a/" * 60 + "a" * 250, folder=False, known=ignore.rules(lines))
    assert time.process_time() - begun < 5


@pytest.mark.parametrize(
    ("files", "links"),
    [
        ({"../x": b"a"}, {}),
        ({"/x": b"a"}, {}),
        ({"a//x": b"a"}, {}),
        ({"a": b"a", "a/b": b"b"}, {}),
        ({"a/b": b"b"}, {"a": "../../etc"}),
        ({}, {"a": "/etc/passwd"}),
        ({}, {"a/b": "../../x"}),
        ({}, {"d1/d2/d3/L": "../../../x", "x/keep": "keep2", "M": "d1/d2/d3/L/../../.."}),
        ({}, {"a/b": "../c", "c": "d/e", "m": "a/b/../../.."}),
        ({}, {"a": "b", "b": "a"}),
        ({}, {"a": "a/a"}),
    ],
)
def test_nothing_is_laid_outside_its_folder(
    tmp_path: Path, files: dict[str, bytes], links: dict[str, str]
) -> None:
    """Paths and links of a forged snapshot are refused, and nothing appears beside the folder."""
    with Lab(tmp_path / "lab") as lab:
        out = outside(lab, tmp_path)
        artifacts = {path: stored(out, path, data) for path, data in files.items()}
        place = tmp_path / "deep" / "place"
        with pytest.raises(IntegrityError):
            laid.lay(artifacts, links, place, out)
        assert not [path for path in tmp_path.rglob("*") if path.name == "x"]
        assert folder.stays("a/b", "../c")
        assert folder.stays("m", "a/b/..", {"a/b": "../c", "c": "d/e/f"})


# Laid and replaced


def outside(lab: Lab, tmp_path: Path) -> Outside:
    """Ports over the store of a lab."""
    lab.write(
        "haversack.toml",
        '[site]\nname = "lab"\n[env.x]\nkind = "pip"\nrequirements = ["r"]\ntargets = ["linux-x86_64-py311"]\n',
    )
    lab.write("r", "x\n")
    return lab.outside(lab.site())


def stored(out: Inside, path: str, data: bytes) -> Artifact:
    """A file of a project that the store holds."""
    digest = digest_of(data)
    out.store.add(digest, [data])
    return Artifact(
        "file", path, "", path.replace("/", "%2F"), digest, len(data), f"path:{path}", (), {"path": path}
    )


def version(out: Inside, files: dict[str, str]) -> SnapshotEnvironment:
    """A folder project as a snapshot has it."""
    artifacts = tuple(stored(out, path, text.encode()) for path, text in files.items())
    locked = LockedEnvironment("fraud", "any", "project", ("src",), None, {"files": len(files), "links": {}})
    return SnapshotEnvironment(locked, ANY, artifacts, digest_of(json.dumps(files).encode()))


def laid_at(out: Inside, project: SnapshotEnvironment, prefix: Path) -> Laid:
    """Lay a project that has no environment."""
    held = Held("2026-11", digest_of(b"snapshot"), 0, "2026-11-20T00:00:00Z", current=True)
    return lay(project, prefix, held, lambda name, place: install(name, place, out), out)


def built(lab: Lab, out: Outside, manifest: bytes) -> SnapshotEnvironment:
    """The project of a lab's declaration, locked into the store of ``out`` and as a snapshot has it."""
    site = lab.site()
    locked = KIND.lock(site, site.environments[0], ANY, None, out)
    out.store.publish(out.store.index())
    return SnapshotEnvironment(locked.environment, ANY, locked.artifacts, digest_of(manifest))


def test_a_folder_is_replaced_only_where_nobody_worked(tmp_path: Path) -> None:
    """A newer version takes the place of an untouched one; edits, additions and removals are all named and kept."""
    with Lab(tmp_path / "lab") as lab:
        out = outside(lab, tmp_path)
        one = version(out, {"src/a.py": "one", "src/b.py": "b", "c.txt": "c"})
        two = version(out, {"src/a.py": "two", "src/b.py": "b", "d.txt": "d"})
        prefix = tmp_path / "work"
        done = laid_at(out, one, prefix)
        assert (done.replaced, done.kept) == (False, False)
        assert (prefix / "fraud" / "src" / "a.py").read_text() == "one"
        (prefix / "fraud" / "src" / "__pycache__").mkdir()
        (prefix / "fraud" / "src" / "__pycache__" / "a.pyc").write_bytes(b"made")
        # Touched, not changed.
        os.utime(prefix / "fraud" / "c.txt", (1, 1))
        done = laid_at(out, two, prefix)
        assert (done.replaced, done.kept) == (True, False)
        assert sorted(p.name for p in (prefix / "fraud").rglob("*") if p.is_file()) == [
            "a.py",
            "b.py",
            "d.txt",
        ]
        (prefix / "fraud" / "src" / "a.py").write_text("mine")
        (prefix / "fraud" / "results.csv").write_text("1")
        (prefix / "fraud" / "d.txt").unlink()
        assert laid_at(out, two, prefix).kept
        with pytest.raises(PrefixError) as caught:
            laid_at(out, one, prefix)
        assert sorted((f.code, Path(f.subject).name) for f in caught.value.findings) == [
            ("env-changed", "a.py"),
            ("env-extra", "results.csv"),
            ("env-missing", "d.txt"),
        ]
        assert "results.csv" in caught.value.message
        assert (prefix / "fraud" / "src" / "a.py").read_text() == "mine"
        assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_what_is_not_of_the_project_is_not_taken(tmp_path: Path) -> None:
    """A folder of somebody's, and another project's; and no environment takes a project's place."""
    with Lab(tmp_path / "lab") as lab:
        out = outside(lab, tmp_path)
        one = version(out, {"a.py": "one"})
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "thesis.tex").write_text("x")
        with pytest.raises(PrefixError, match="was not made by haversack"):
            laid_at(out, one, tmp_path / "mine")
        laid_at(out, one, tmp_path / "work")
        marker = tmp_path / "work" / "haversack-environment.json"
        marker.write_bytes(marker.read_bytes().replace(b"fraud/any", b"other/any"))
        with pytest.raises(PrefixError, match="holds other/any"):
            laid_at(out, one, tmp_path / "work")


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_an_install_that_is_killed_is_ended_by_the_next(tmp_path: Path) -> None:
    """Whichever step it was killed before: the same command, or that of the old version, lays the project whole."""
    out = tiny.inside(tmp_path / "store")
    one = version(out, {"src/a.py": "one", "src/b.py": "b", "c.txt": "c"})
    two = version(out, {"src/a.py": "two", "src/b.py": "b", "d.txt": "d"})
    prefix, step, killed = tmp_path / "work", 0, True
    while killed:
        step += 1
        for again in (two, one):
            laid_at(out, one, prefix)
            killed = dies(step, lambda: laid_at(out, two, prefix))
            assert not [found for found in KIND.drift(one, prefix, out.store) if found.code == "env-extra"], (
                step
            )
            laid_at(out, again, prefix)
            assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == [], step
            assert KIND.drift(again, prefix, out.store) == []
            wanted = {"a.py", "b.py", "c.txt"} if again is one else {"a.py", "b.py", "d.txt"}
            assert {p.name for p in (prefix / "fraud").rglob("*") if p.is_file()} == wanted, step
            assert len(list(prefix.iterdir())) == 3
            marker = read_marker(prefix)
            assert marker is not None
            assert marker.manifest == again.manifest
    assert step > 10


def dies(step: int, act: Callable[[], object]) -> bool:
    """Whether an act has as many steps: a process of its own does it, and is killed before that one."""
    child = os.fork()
    if child == 0:
        seen = 0

        def audit(event: str, told: tuple[Any, ...]) -> None:
            nonlocal seen
            if event in _CHANGES:
                seen += 1
                if seen == step:
                    os.kill(os.getpid(), signal.SIGKILL)

        code = 1
        try:
            sys.addaudithook(audit)
            act()
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


# What is built aside matters only as a whole; to exchange two names, the C library is loaded first.
_CHANGES = {"os.rename", "os.rmdir", "ctypes.dlopen"}


def test_work_done_while_the_environment_is_installed_is_kept(tmp_path: Path) -> None:
    """That takes minutes, so edits are looked for once more right before the folder is swapped."""
    out = tiny.inside(tmp_path / "store")
    one, two = version(out, {"a.py": "one"}), version(out, {"a.py": "two"})
    two = replace(two, locked=replace(two.locked, settings={**two.locked.settings, "env": "fraud"}))
    prefix = tmp_path / "work"
    laid_at(out, one, prefix)

    def meanwhile(name: str, place: Path) -> Installed:
        (prefix / "fraud" / "a.py").write_text("mine")
        raise NotFoundError("no environment for this machine")

    held = Held("2026-11", digest_of(b"snapshot"), 0, "2026-11-20T00:00:00Z", current=True)
    with pytest.raises(PrefixError, match="was worked on"):
        lay(two, prefix, held, meanwhile, out)
    assert (prefix / "fraud" / "a.py").read_text() == "mine"
    assert len(list(prefix.iterdir())) == 3


def test_folders_are_swapped_where_names_cannot_be_exchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NFS and other systems have no such call: the old folder gives way to the new one whatever both are called."""
    monkeypatch.setattr(sys, "platform", "other")
    for path in ("aside/fraud/new", "work/fraud/old"):
        (tmp_path / path).mkdir(parents=True)
    swap(tmp_path / "aside" / "fraud", tmp_path / "work" / "fraud", replaced=True)
    assert sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.glob("*/*/*")) == [
        "aside/fraud/old",
        "work/fraud/new",
    ]


# Repositories


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """A repository with two commits, an annotated and a plain tag, and a branch."""
    made = Repository(tmp_path / "upstream")
    made.commit({"a.py": "one\n", "run.sh": "#!/bin/sh\n"})
    made.git("tag", "plain")
    made.git("branch", "old")
    made.commit({"a.py": "two\n", "sub/b.py": "b\n"})
    made.git("tag", "-m", "the first", "v1")
    return made


def test_a_repository_crosses_with_its_history_as_one_pack(tmp_path: Path, repository: Repository) -> None:
    """The lock names commit, branch and the tags of the history; the pack holds them and is the same every time."""
    with Lab(tmp_path / "lab") as lab:
        declare(lab, f'git = "file://{repository.path}"\nrev = "v1"')
        (locked,) = lab.lock_kind()
        assert codes(locked) == []
        commit = repository.git("rev-parse", "HEAD")
        git = locked.environment.settings["git"]
        assert (git["commit"], git["head"], git["rev"]) == (commit, "refs/heads/main", "v1")
        assert git["refs"] == {
            "refs/heads/main": commit,
            "refs/tags/plain": repository.git("rev-parse", "plain"),
            "refs/tags/v1": repository.git("rev-parse", "v1"),
        }
        names = sorted(artifact.filename for artifact in locked.artifacts)
        assert [Path(name).suffix for name in names] == [".idx", ".pack"]
        shutil.rmtree(lab.store)
        assert sorted(a.digest for a in lab.lock_kind()[0].artifacts) == sorted(
            a.digest for a in locked.artifacts
        )


def test_a_path_a_branch_and_a_commit_are_revisions_too(tmp_path: Path, repository: Repository) -> None:
    """A branch is HEAD itself; a commit in short form is found; what is none is an error that names it."""
    with Lab(tmp_path / "lab") as lab:
        relative = os.path.relpath(repository.path, lab.root)
        declare(lab, f'git = "{relative}"\nrev = "old"')
        old = lab.lock_kind()[0].environment.settings["git"]
        assert old["head"] == "refs/heads/old"
        assert set(old["refs"]) == {"refs/heads/old", "refs/tags/plain"}
        declare(lab, f'git = "{relative}"\nrev = "{old["commit"][:10]}"')
        git = lab.lock_kind()[0].environment.settings["git"]
        assert (git["commit"], git["head"]) == (old["commit"], "refs/heads/main")
        declare(lab, f'git = "{relative}"\nrev = "v7"')
        with pytest.raises(DeclarationError, match="no tag, branch or commit v7"):
            lab.lock_kind()


@pytest.mark.parametrize(
    "url",
    [
        "https://ada:hunter2@h.example/x.git",
        "ext::sh -c true",
        "-oops:x",
        "https://h.example/x?token=hunter2",
    ],
)
def test_addresses_with_secrets_or_commands_are_refused(tmp_path: Path, url: str) -> None:
    """No password reaches an error, and no address is a command."""
    with Lab(tmp_path) as lab:
        declare(lab, f'git = "{url}"\nrev = "v1"')
        with pytest.raises(DeclarationError) as caught:
            lab.lock_kind()
        assert "hunter2" not in f"{caught.value} {caught.value.remedy}"


def test_a_tag_that_moved_is_told_and_the_lock_is_kept(tmp_path: Path, repository: Repository) -> None:
    """Commit, references and pack stay those of the lock, until it is upgraded."""
    with Lab(tmp_path / "lab") as lab:
        declare(lab, f'git = "file://{repository.path}"\nrev = "v1"')
        (first,) = lab.lock_kind()
        moved = repository.commit({"a.py": "three\n"})
        repository.git("tag", "-f", "-m", "moved", "v1")
        (again,) = lab.lock_kind(lock_of(first))
        assert again.environment == first.environment
        assert again.artifacts == first.artifacts
        ((code, _, blocking),) = codes(again)
        assert (code, blocking) == ("project-moved", False)
        assert moved in again.findings[0].message
        (upgraded,) = lab.lock_kind()
        assert upgraded.environment.settings["git"]["commit"] == moved
        # What the host has no more is still here; what is nowhere any more is told.
        repository.git("tag", "-d", "v1")
        assert lab.lock_kind(lock_of(first))[0].artifacts == first.artifacts
        shutil.rmtree(lab.store)
        repository.git("reset", "-q", "--hard", "plain")
        repository.git("reflog", "expire", "--expire=now", "--all")
        repository.git("gc", "-q", "--prune=now")
        ((code, _, blocking),) = [found for found in codes(lab.lock_kind(lock_of(first))[0]) if found[2]]
        assert code == "fetch-failed"


def test_a_host_that_does_not_answer_is_a_finding(tmp_path: Path) -> None:
    """git's own words are told, and nobody is asked for a password."""
    with Lab(tmp_path) as lab:
        declare(lab, 'git = "http://127.0.0.1:9/x.git"\nrev = "v1"')
        ((code, text),) = lab.findings()
        assert code == "fetch-failed"
        assert "cannot be cloned" in text


def test_submodules_and_large_files_are_told(tmp_path: Path, repository: Repository) -> None:
    """Both stay behind, and a finding says so."""
    repository.commit({".gitmodules": "[submodule]\n", "data/.gitattributes": "*.bin filter=lfs -text\n"})
    with Lab(tmp_path / "lab") as lab:
        declare(lab, f'git = "file://{repository.path}"\nrev = "main"')
        (locked,) = lab.lock_kind()
        assert codes(locked) == [("project-partial", "fraud/any", False)] * 2
        said = " ".join(finding.message for finding in locked.findings)
        assert "submodules" in said
        assert "git-LFS" in said


def test_a_repository_is_laid_as_a_clone_of_its_origin(tmp_path: Path, repository: Repository) -> None:
    """The work tree is clean and on its branch, the history and tags are there, nothing of hooks or filters ran."""
    repository.commit({".gitattributes": "*.py filter=evil\n", "c.py": "c\n"})
    with Lab(tmp_path / "lab") as lab:
        declare(lab, f'git = "file://{repository.path}"\nrev = "main"')
        out = lab.outside(lab.site())
        project = built(lab, out, b"one")
        prefix = tmp_path / "work"
        laid_at(out, project, prefix)
        place = prefix / "fraud"
        assert run_git("-C", str(place), "status", "--porcelain", "--branch") == "## main...origin/main\n"
        assert run_git("-C", str(place), "log", "--format=%s", "--all").count("change") == 3
        assert run_git("-C", str(place), "describe", "--tags").startswith("v1-1-g")
        assert run_git("-C", str(place), "remote", "get-url", "origin").strip() == f"file://{repository.path}"
        assert run_git("-C", str(place), "pull").strip() == "Already up to date."
        assert os.access(place / "run.sh", os.R_OK)
        assert KIND.check(project, prefix, out, caged=False) == []
        assert KIND.drift(project, prefix, out.store) == []


def test_work_in_a_repository_is_never_replaced(tmp_path: Path, repository: Repository) -> None:
    """A commit of somebody's, a stash, a branch or a file each keeps the folder where it is."""
    with Lab(tmp_path / "lab") as lab:
        declare(lab, f'git = "file://{repository.path}"\nrev = "main"')
        out = lab.outside(lab.site())
        one = built(lab, out, b"one")
        repository.commit({"a.py": "three\n"})
        two = built(lab, out, b"two")
        for number, words in enumerate(
            (
                ["branch", "mine"],
                ["commit", "--allow-empty", "-qm", "mine"],
                ["checkout", "-q", "--detach"],
                ["stash"],
            )
        ):
            prefix = tmp_path / f"work{number}"
            laid_at(out, one, prefix)
            (prefix / "fraud" / "a.py").write_text("mine\n" if words == ["stash"] else "two\n")
            run_git("-C", str(prefix / "fraud"), *words)
            with pytest.raises(PrefixError, match="was worked on") as caught:
                laid_at(out, two, prefix)
            assert any(".git" in finding.subject for finding in caught.value.findings), words
        prefix = tmp_path / "untouched"
        laid_at(out, one, prefix)
        run_git("-C", str(prefix / "fraud"), "status")
        run_git("-C", str(prefix / "fraud"), "fetch")
        run_git("-C", str(prefix / "fraud"), "gc")
        assert laid_at(out, two, prefix).replaced
        assert (prefix / "fraud" / "a.py").read_text() == "three\n"


def test_a_repository_is_taken_over_http(tmp_path: Path, repository: Repository) -> None:
    """A host that is nothing but files (git's dumb protocol) is enough."""
    bare = tmp_path / "srv" / "x.git"
    run_git("clone", "-q", "--bare", str(repository.path), str(bare))
    run_git("-C", str(bare), "update-server-info")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(tmp_path / "srv")))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        with Lab(tmp_path / "lab") as lab:
            url = f"http://127.0.0.1:{server.server_port}/x.git"
            declare(lab, f'git = "{url}"\nrev = "v1"')
            (locked,) = lab.lock_kind()
            assert [finding.code for finding in locked.findings] == []
            assert locked.environment.settings["git"]["url"] == url
            assert locked.environment.settings["git"]["head"] == "refs/heads/main"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Quiet(SimpleHTTPRequestHandler):
    """Files, without a word on standard error."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


def test_an_environment_that_nobody_declared_is_an_error(tmp_path: Path) -> None:
    """`env` names an environment of the site; `env` is no name for a project."""
    with Lab(tmp_path) as lab:
        lab.write("a.py", "x")
        declare(lab, 'include = ["a.py"]\nenv = "frod"')
        with pytest.raises(DeclarationError, match="no environment is called frod"):
            lab.lock_kind()


def test_a_lock_with_a_finding_that_blocks_is_not_written(tmp_path: Path) -> None:
    """The verb raises the class of the worst of them."""
    with Lab(tmp_path) as lab:
        lab.write("src/a.py", "x")
        (lab.root / "src" / "up").symlink_to("../../x")
        declare(lab, 'include = ["src"]')
        with pytest.raises(IntegrityError) as caught:
            lab.lock()
        assert [finding.code for finding in caught.value.findings] == ["path-unsafe"]
        assert not (lab.root / "haversack.lock").exists()
