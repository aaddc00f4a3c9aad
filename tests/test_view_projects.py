"""Projects on a web server: folders as they were packed, and repositories that git clones."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from haversack.model.artifact import Artifact, digest_of
from haversack.model.lock import LockedEnvironment
from haversack.model.snapshot import Snapshot
from haversack.ports.disk import DiskStore
from haversack.verbs import holdings
from haversack.verbs.pages import body
from haversack.views import view_of
from haversack.views.projects import Projects
from tests.support.site import Lab
from tests.support.viewing import ViewServer, stocked


def git(*words: str | Path, cwd: Path) -> str:
    """What git prints, asked by nobody in particular and with nobody's configuration."""
    who = {f"GIT_{role}_{what}": value for role in ("AUTHOR", "COMMITTER") for what, value in (("NAME", "Ana"), ("EMAIL", "ana@lab.example"))}  # fmt: skip
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(cwd),
        "GIT_CONFIG_NOSYSTEM": "1",
        "no_proxy": "127.0.0.1",
        **who,
    }
    argv = ["git", "-c", "init.defaultBranch=trunk", *map(str, words)]
    done = subprocess.run(argv, cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def packed(lab: Lab) -> tuple[Snapshot, DiskStore]:
    """The site locked and packed, as it stands in the store."""
    lab.told("lock")
    done = lab.told("pack", "-o", lab.folder / "out", "--no-rehearse")
    store = DiskStore(lab.store)
    return holdings.load(store, done["snapshot"]), store


def folder_of(links: dict[str, str], **files: bytes) -> tuple[LockedEnvironment, list[Artifact]]:
    """A project ``code`` of some files (``__`` is a slash) and links."""
    locked = LockedEnvironment("code", "any", "project", settings={"links": links, "files": len(files)})
    made = []
    for name, data in files.items():
        path = name.replace("__", "/")
        origin = f"path:{path}"
        made.append(
            Artifact(
                "file", path, "", name, digest_of(data), len(data), origin, ("code/any",), {"path": path}
            )
        )
    return locked, made


# Pages


def test_links_are_what_they_lead_to(tmp_path: Path) -> None:
    """A link to a file is that file, through other links too; one that leads to none is told and not shown."""
    links = {
        "docs/a": "../src/main",
        "b": "docs/a",
        "round": "round",
        "away": "../../etc/passwd",
        "dir": "src",
    }
    locked, artifacts = folder_of(links, src__main=b"main", readme=b"read")
    view = Projects(stocked(tmp_path / "store", [locked], artifacts, [])[0])
    assert list(view.paths()) == ["code/b", "code/docs/a", "code/readme", "code/src/main"]
    assert view.get("code/b") == view.get("code/docs/a") == view.get("code/src/main")
    found = {finding.subject: finding for finding in view.findings()}
    assert set(found) == {"code/any: away", "code/any: dir", "code/any: round"}
    assert not any(finding.blocking for finding in found.values())


def test_no_path_leaves_the_view(tmp_path: Path) -> None:
    """Whatever a lock calls a file, its path here has no part that leads elsewhere, and it is bytes."""
    locked, (made, *_) = folder_of({}, x=b"x")
    evil = Artifact(
        made.kind, "x", "", "x", made.digest, 1, made.origin, made.members, {"path": "../../etc/./con"}
    )
    view = Projects(stocked(tmp_path / "store", [locked], [evil], [])[0])
    (path,) = view.paths()
    assert path.startswith("code/x-")
    assert not {"..", ".", "con"} & set(path.split("/"))
    page = view.get(path)
    assert page is not None
    assert page.media_type == "application/octet-stream"


def test_a_folder_that_wants_to_be_a_repository_is_told(tmp_path: Path) -> None:
    """``code.git`` cannot be two projects at once: the one that is called so is shown."""
    told = {"url": "https://git.example.org/code", "rev": "v1", "commit": "0" * 40, "head": "refs/heads/main"}
    repository = LockedEnvironment("code", "any", "project", settings={"git": {**told, "refs": {}}})
    folder, artifacts = folder_of({}, x=b"x")
    other = LockedEnvironment("code.git", "any", "project", settings=folder.settings)
    moved = [Artifact(a.kind, a.name, "", a.filename, a.digest, 1, a.origin, ("code.git/any",), a.facts) for a in artifacts]  # fmt: skip
    view = Projects(stocked(tmp_path / "store", [repository, other], moved, [])[0])
    assert list(view.paths()) == ["code.git/x"]
    assert [finding.code for finding in view.findings()] == ["name-clash"]


# From the declaration to the client


@pytest.fixture
def upstream(tmp_path: Path) -> Path:
    """A repository with two commits, a tag on the first, another branch, and a note that is not on it."""
    folder = tmp_path / "upstream"
    folder.mkdir()
    git("init", "-q", cwd=folder)
    (folder / "main.py").write_text("print('one')\n")
    git("add", ".", cwd=folder)
    git("commit", "-qm", "One", cwd=folder)
    git("tag", "-am", "first", "v1", cwd=folder)
    (folder / "main.py").write_text("print('two')\n")
    git("commit", "-qam", "Two", cwd=folder)
    return folder


def test_git_clones_a_project_from_a_plain_web_server(tmp_path: Path, upstream: Path) -> None:
    """History, tags and commits are upstream's; the branch is checked out, and the clone is sound."""
    with Lab(tmp_path / "lab") as lab:
        lab.declare(
            env='requirements = ["none.txt"]',
            more=f'[project.fraud]\ngit = "{upstream.as_uri()}"\nrev = "trunk"\n',
        )
        lab.write("none.txt", "")
        content, store = packed(lab)
    with ViewServer(view_of(content), store) as server:
        git("clone", "-q", f"{server.url}projects/fraud.git", "clone", cwd=tmp_path)
        told = git("ls-remote", f"{server.url}projects/fraud.git", cwd=tmp_path)
    clone = tmp_path / "clone"
    git("fsck", "--full", "--strict", cwd=clone)
    assert git("rev-parse", "HEAD", "v1", cwd=clone) == git("rev-parse", "HEAD", "v1", cwd=upstream)
    assert git("log", "--format=%H %s", cwd=clone) == git("log", "--format=%H %s", cwd=upstream)
    assert git("symbolic-ref", "HEAD", cwd=clone) == "refs/heads/trunk\n"
    assert (clone / "main.py").read_text() == "print('two')\n"
    assert {line.split("\t")[1] for line in told.splitlines()} >= {"HEAD", "refs/heads/trunk", "refs/tags/v1"}


def test_a_folder_project_is_there_file_by_file(tmp_path: Path) -> None:
    """Every file that was packed is at its path, byte for byte."""
    with Lab(tmp_path / "lab") as lab:
        lab.write("src/app/main.py", "print()\n")
        lab.write("notebooks/a b.ipynb", "{}\n")
        lab.write("none.txt", "")
        lab.declare(
            env='requirements = ["none.txt"]', more='[project.fraud]\ninclude = ["src/", "notebooks/"]\n'
        )
        content, store = packed(lab)
    view = view_of(content)
    paths = [path for path in view.paths() if path.startswith("projects/")]
    assert paths == ["projects/fraud/notebooks/a b.ipynb", "projects/fraud/src/app/main.py"]
    pages = [view.get(path) for path in paths]
    assert [body(page, store) for page in pages if page] == [b"{}\n", b"print()\n"]
