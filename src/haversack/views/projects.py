"""The projects of a snapshot: folders as they are, repositories as ``git clone`` takes them from any web server.

A repository is a pack with its index and four small files, which is git's "dumb" protocol (gitprotocol-http(5)):
it needs no program on the server.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping

from haversack.formats.canonical import Fields
from haversack.model.artifact import Artifact
from haversack.model.finding import Finding
from haversack.model.snapshot import Snapshot, SnapshotEnvironment
from haversack.views import FILE, Page, safe

PREFIX = "projects"
TEXT = "text/plain; charset=utf-8"
_PACKS = {".pack": "application/x-git-packed-objects", ".idx": "application/x-git-packed-objects-toc"}
_LONGEST_CHAIN = 40
"""As many links as Linux follows one after the other."""


class Projects:
    """``<name>/<path>`` for a folder, ``<name>.git/…`` for a repository."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._pages: dict[str, Page] = {}
        self._findings: list[Finding] = []
        for environment in snapshot.environments:
            if environment.locked.kind != "project":
                continue
            settings = Fields(dict(environment.locked.settings), f"environment {environment.ref}")
            git = settings.table("git")
            name = environment.locked.name
            folder, pages = (
                (f"{name}.git", _repository(environment, git)) if git else (name, _folder(environment))
            )
            if not git:
                pages |= self._links(environment.ref, pages, settings.table("links"))
            if any(path.startswith(f"{folder}/") for path in self._pages):
                told = "another project is shown there"
                self._findings.append(
                    Finding("name-clash", folder, told, "rename one of them", blocking=False)
                )
                continue
            self._pages |= {f"{folder}/{path}": page for path, page in pages.items()}
        self._pages = dict(sorted(self._pages.items()))

    def _links(self, ref: str, pages: Mapping[str, Page], links: Mapping[str, object]) -> dict[str, Page]:
        """Links of a folder: what they lead to, for HTTP has none; those that lead to no file are left out."""
        found: dict[str, Page] = {}
        for link in links:
            place: str | None = link
            for _ in range(_LONGEST_CHAIN):
                target = links.get(place) if place else None
                if not isinstance(target, str):
                    break
                place = posixpath.normpath(posixpath.join(posixpath.dirname(place or ""), target))
            if page := pages.get(place or ""):
                found["/".join(map(safe, link.split("/")))] = page
            else:
                told = "is a link to no file of the project, and is not shown: a web server has no links"
                self._findings.append(Finding("path-unsafe", f"{ref}: {link}", told, blocking=False))
        return found

    def paths(self) -> Iterator[str]:
        """See the protocol."""
        yield from self._pages

    def get(self, path: str) -> Page | None:
        """See the protocol."""
        return self._pages.get(path)

    def findings(self) -> list[Finding]:
        """See the protocol."""
        return self._findings


def _folder(environment: SnapshotEnvironment) -> dict[str, Page]:
    """The files of a folder at their paths.  Everything is bytes: a site's own server runs nobody's HTML."""
    return {
        "/".join(map(safe, _path(artifact).split("/"))): _blob(artifact, FILE)
        for artifact in environment.artifacts
        if artifact.kind == "file"
    }


def _path(artifact: Artifact) -> str:
    path = artifact.facts.get("path")
    return path if isinstance(path, str) else artifact.filename


def _repository(environment: SnapshotEnvironment, git: Mapping[str, object]) -> dict[str, Page]:
    """A repository as ``git update-server-info`` leaves one (gitrepository-layout(5))."""
    settings = Fields(dict(git), f"environment {environment.ref}")
    refs = {name: str(commit) for name, commit in settings.table("refs").items()}
    head = settings.text_or_none("head") or ""
    pages = {
        "HEAD": _text(f"ref: {head}\n" if head.startswith("refs/") else f"{settings.text('commit')}\n"),
        "info/refs": _text("".join(f"{refs[name]}\t{name}\n" for name in sorted(refs))),
    }
    packs = []
    for artifact in environment.artifacts:
        media_type = _PACKS.get(posixpath.splitext(artifact.filename)[1])
        if artifact.kind == "git" and media_type:
            pages[f"objects/pack/{artifact.filename}"] = _blob(artifact, media_type)
            packs += [artifact.filename] if artifact.filename.endswith(".pack") else []
    pages["objects/info/packs"] = _text("".join(f"P {name}\n" for name in sorted(packs)) + "\n")
    return pages


def _text(text: str) -> Page:
    data = text.encode()
    return Page(TEXT, len(data), data)


def _blob(artifact: Artifact, media_type: str) -> Page:
    return Page(media_type, artifact.size or 0, blob=artifact.digest)


VIEW = Projects
