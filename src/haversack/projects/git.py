"""Git repositories, by the git program: what a revision is, its history as one pack, and a checkout of it.

A pack is content: made with one thread and no reuse of what the host had, so that the same history gives the
same bytes from the same git.  Only what is fetched sees the settings of the person (credentials, proxies).
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from haversack.errors import DeclarationError, FetchError, ToolError
from haversack.ports import Completed, Run

_COMMIT = re.compile("[0-9a-f]{40}")
# No hook, no helper of the work tree, no other protocol: what a repository says is nobody's command.
_SAFE = (
    *(
        "-c",
        "core.hooksPath=/dev/null",
        "-c",
        "core.fsmonitor=false",
        "-c",
        "gc.auto=0",
        "-c",
        "maintenance.auto=false",
    ),
    *("-c", "protocol.allow=never", "-c", "protocol.file.allow=always", "-c", "protocol.ssh.allow=always"),
    *("-c", "protocol.http.allow=always", "-c", "protocol.https.allow=always", "-c", "safe.directory=*"),
    *("-c", "advice.detachedHead=false", "-c", "core.quotePath=false"),
)
_QUIET = {"GIT_TERMINAL_PROMPT": "0", "GIT_LFS_SKIP_SMUDGE": "1", "LC_ALL": "C"}
_ALONE = {
    **_QUIET,
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_SYSTEM": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
}
_PACKING = (
    *("-c", "pack.threads=1", "-c", "pack.compression=6", "-c", "pack.window=10", "-c", "pack.depth=50"),
    *("-c", "pack.writeReverseIndex=false", "-c", "repack.writeBitmaps=false", "-c", "pack.indexVersion=2"),
)


@dataclass(frozen=True, slots=True)
class Revision:
    """What crosses of a repository: a commit, the references to show, and the branch that is HEAD."""

    commit: str
    refs: Mapping[str, str]
    head: str


def mirror(url: str, folder: Path, run: Run) -> None:
    """Bring branches and tags of a repository into a bare one at ``folder``.  Raises ``FetchError``."""
    if not (folder / "HEAD").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        _must(run(["git", "init", "--quiet", "--bare", folder], env=_ALONE), "make a repository", str(folder))
    wanted = ["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"]
    argv = ["fetch", "--quiet", "--prune", "--no-write-fetch-head", "--no-recurse-submodules", url, *wanted]
    done = _git(folder, argv, run, _QUIET)
    if done.code:
        raise FetchError(
            f"cannot be cloned: {_said(done)}",
            where=url,
            remedy="check the address and the network; git finds logins by its own credential helpers",
        )


def default_branch(url: str, folder: Path, run: Run) -> str:
    """The branch that a clone would check out, as ``refs/heads/main``."""
    done = _git(folder, ["ls-remote", "--symref", url, "HEAD"], run, _QUIET)
    match = re.match(r"ref: (refs/heads/\S+)\tHEAD", done.out)
    return match[1] if match else "refs/heads/main"


def resolve(rev: str, url: str, folder: Path, run: Run) -> Revision | None:
    """What a tag, a branch or a commit of the mirror is, or ``None`` if there is none of that name.

    The tags that its history holds come along, for tools that read versions out of them.
    """
    for ref in (f"refs/tags/{rev}", f"refs/heads/{rev}", rev if re.fullmatch("[0-9a-f]{7,40}", rev) else ""):
        commit = _commit(ref, folder, run) if ref else None
        if commit is None and ref == rev and _COMMIT.fullmatch(rev):
            # A commit that no branch has any more; many hosts give it all the same.
            _git(folder, ["fetch", "--quiet", "--no-write-fetch-head", url, rev], run, _QUIET)
            commit = _commit(ref, folder, run)
        if commit is not None:
            head = ref if ref.startswith("refs/heads/") else default_branch(url, folder, run)
            return Revision(commit, {head: commit, **_tags(commit, folder, run)}, head)
    return None


def holds(revision: Revision, folder: Path, run: Run) -> bool:
    """Whether a mirror has all that a revision names."""
    return all(
        _git(folder, ["cat-file", "-e", sha], run, _ALONE).code == 0
        for sha in {revision.commit, *revision.refs.values()}
    )


def pack(revision: Revision, folder: Path, work: Path, run: Run) -> tuple[Path, Path]:
    """The history of a revision as a pack and its index, made in the empty folder ``work``.

    Raises ``ToolError`` naming what git said.
    """
    _must(run(["git", "init", "--quiet", "--bare", work], env=_ALONE), "make a repository", str(work))
    # Objects stay where they are; only the references of the revision decide what is packed.
    (work / "objects" / "info" / "alternates").write_text(f"{folder.absolute() / 'objects'}\n")
    lines = [f"{sha} {ref}\n" for ref, sha in sorted(revision.refs.items())]
    (work / "packed-refs").write_text("# pack-refs with: sorted \n" + "".join(lines))
    (work / "HEAD").write_text(f"ref: {revision.head}\n")
    _must(
        _git(work, ["repack", "-a", "-d", "-F", "-q"], run, _ALONE, _PACKING), "pack the history", str(folder)
    )
    (made,) = (work / "objects" / "pack").glob("pack-*.pack")
    return made, made.with_suffix(".idx")


def left_behind(revision: Revision, folder: Path, run: Run) -> list[tuple[str, str]]:
    """What of a revision does not travel with its history: submodules, files of git-LFS."""
    found = []
    if _git(folder, ["cat-file", "-e", f"{revision.commit}:.gitmodules"], run, _ALONE).code == 0:
        found.append(("submodules", "declare each of them as a project of its own"))
    places = ["--", ".gitattributes", "**/.gitattributes"]
    argv = ["grep", "-q", "filter=lfs", revision.commit, *places]
    if _git(folder, argv, run, _ALONE).code == 0:
        found.append(("files of git-LFS", "declare them under [[file]], or take the folder with `include`"))
    return found


def check_out(revision: Revision, url: str, packs: Sequence[Path], place: Path, run: Run) -> None:
    """A work tree with its history at ``place``: on the branch that is HEAD, with ``url`` as its origin if it is one.

    ``packs`` are the pack and its index, which are moved there.  Raises ``ToolError``.
    """
    branch = revision.head.removeprefix("refs/heads/")
    argv: list[str | Path] = ["git", "init", "--quiet", "--template=", f"--initial-branch={branch}", place]
    _must(run(argv, env=_ALONE), "make a repository", str(place))
    own = place / ".git"
    (own / "objects" / "pack").mkdir(parents=True, exist_ok=True)
    for file in packs:
        shutil.move(file, own / "objects" / "pack" / file.name)
    refs = dict(revision.refs)
    refs[f"refs/remotes/origin/{branch}"] = refs[revision.head]
    lines = [f"{sha} {ref}\n" for ref, sha in sorted(refs.items())]
    (own / "packed-refs").write_text("# pack-refs with: sorted \n" + "".join(lines))
    settings = {f"branch.{branch}.remote": "origin", f"branch.{branch}.merge": revision.head}
    if "://" in url or re.match(r"[\w.-]+@[\w.-]+:", url):
        settings |= {"remote.origin.url": url, "remote.origin.fetch": "+refs/heads/*:refs/remotes/origin/*"}
        for name, value in settings.items():
            _must(_git(own, ["config", name, value], run, _ALONE), "write its settings", str(place))
    done = run(["git", *_SAFE, "-C", place, "reset", "--quiet", "--hard", revision.commit], env=_ALONE)
    _must(done, "check it out", str(place))


def broken(place: Path, commit: str, run: Run) -> str:
    """Why a checkout is not whole, or an empty string: every object is read, and HEAD is the commit."""
    done = run(
        ["git", *_SAFE, "-C", place, "fsck", "--full", "--strict", "--no-dangling", "--no-progress"],
        env=_ALONE,
    )
    # A history may hold what git would not make today (exit code 1 with "warning"): objects must be there.
    problems = [
        line for line in (done.err + done.out).splitlines() if re.match("missing|broken|error: (?!in )", line)
    ]
    if problems:
        return "; ".join(problems[:3])
    head = run(["git", *_SAFE, "-C", place, "rev-parse", "HEAD"], env=_ALONE).out.strip()
    return "" if head == commit else f"HEAD is {head or 'nothing'}, not {commit}"


def wrong_pack(name: str, digest: str, head: bytes) -> str:
    """Why a file is no pack or index of a pack (gitformat-pack(5)), or an empty string.

    ``head`` are its first bytes, ``digest`` the SHA-1 over all but the last 20 and those, in hexadecimal.
    """
    magic = b"PACK" if name.endswith(".pack") else b"\xfftOc"
    if not head.startswith(magic):
        return f"it is no {'pack' if magic == b'PACK' else 'index of a pack'}"
    own, _, said = digest.partition(" ")
    return "" if own == said else "its check sum is wrong"


def sums(chunks: Iterable[bytes]) -> str:
    """SHA-1 over all but the last 20 bytes, and these, as :func:`wrong_pack` wants them."""
    hashed, tail = hashlib.sha1(usedforsecurity=False), b""
    for chunk in chunks:
        tail += chunk
        hashed.update(tail[:-20])
        tail = tail[-20:]
    return f"{hashed.hexdigest()} {tail.hex()}"


def _commit(ref: str, folder: Path, run: Run) -> str | None:
    done = _git(
        folder, ["rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}"], run, _ALONE
    )
    text = done.out.strip()
    return text if done.code == 0 and _COMMIT.fullmatch(text) else None


def _tags(commit: str, folder: Path, run: Run) -> dict[str, str]:
    argv = ["for-each-ref", f"--merged={commit}", "--format=%(objectname) %(refname)", "refs/tags"]
    done = _git(folder, argv, run, _ALONE)
    return {ref: sha for sha, _, ref in (line.partition(" ") for line in done.out.splitlines())}


def _git(
    folder: Path, argv: Sequence[str], run: Run, env: Mapping[str, str], settings: Sequence[str] = ()
) -> Completed:
    return run(["git", *_SAFE, *settings, f"--git-dir={folder}", *argv], env=env)


def _must(done: Completed, what: str, where: str) -> None:
    if done.code:
        raise ToolError(f"git could not {what}: {_said(done)}", where=where, remedy="see what git says")


def _said(done: Completed) -> str:
    """What git said, without the login that an address may have held."""
    text = re.sub(r"(://)[^/\s@']+@", r"\1", done.err.strip()[-1000:])
    return " ".join(text.split()) or f"it exited with {done.code}"


def unknown(rev: str, url: str, where: str) -> DeclarationError:
    """That a repository has no such revision."""
    return DeclarationError(f"{url} has no tag, branch or commit {rev}", where=where, remedy="correct `rev`")
