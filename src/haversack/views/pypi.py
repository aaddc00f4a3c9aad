"""The wheels of a snapshot as a package index: ``simple/`` in both forms, and the files.

The pages are those of the simple repository API (PEP 503, 592, 629, 658, 691, 700, 714).  Their links are
relative: the same bytes are right under any address, live or exported.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from haversack.formats.canonical import canonical
from haversack.model.artifact import Artifact, Digest, hex_of
from haversack.model.finding import Finding
from haversack.model.snapshot import Snapshot
from haversack.views import Page, clash

PREFIX = "pypi"
WHEEL = "application/zip"
METADATA = "text/plain; charset=utf-8"
HTML = "text/html; charset=utf-8"
SIMPLE = "application/vnd.pypi.simple.v1+json"
PAGES = {"index.html": HTML, "index.v1_json": SIMPLE}
"""The two forms of a page by file name; a server gives the one that is asked for at the folder itself."""
_SUFFIX = ".metadata"
_API = "1.1"


class Index:
    """Every wheel of the snapshot, of all environments together, under its normalised project.

    A file lies at ``files/<two digits>/<sha256>/<file name>``: two builds of one file name are both there.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        self._files: dict[str, Artifact] = {}
        for environment in snapshot.environments:
            for artifact in environment.artifacts:
                if artifact.kind != "wheel":
                    continue
                path = _path(artifact)
                held = self._files.setdefault(path, artifact)
                if held is not artifact and held.facts != artifact.facts:
                    self._files[path] = max(held, artifact, key=_knowing)
        projects: dict[str, list[Artifact]] = {}
        for artifact in self._files.values():
            projects.setdefault(canonicalize_name(artifact.name), []).append(artifact)
        self._projects = dict(sorted(projects.items()))

    def paths(self) -> Iterator[str]:
        """See the protocol."""
        sides = (path + _SUFFIX for path, wheel in self._files.items() if _metadata(wheel))
        yield from sorted([*self._files, *sides])
        pages = (f"simple/{name}/{page}" for name in self._projects for page in PAGES)
        yield from sorted([*pages, *(f"simple/{page}" for page in PAGES)])

    def get(self, path: str) -> Page | None:
        """See the protocol."""
        if wheel := self._files.get(path):
            return Page(WHEEL, wheel.size or 0, blob=wheel.digest)
        if (wheel := self._files.get(path.removesuffix(_SUFFIX))) and (metadata := _metadata(wheel)):
            return Page(METADATA, None, blob=wheel.digest, metadata=metadata)
        folder, _, name = path.rpartition("/")
        project = folder.removeprefix("simple/")
        if name not in PAGES:
            return None
        if folder == "simple":
            data = _root_html(self._projects) if PAGES[name] == HTML else _root_json(self._projects)
        elif project != folder and project in self._projects:
            wheels = sorted(self._projects[project], key=_order)
            data = _html(project, wheels) if PAGES[name] == HTML else _json(project, wheels)
        else:
            return None
        return Page(PAGES[name], len(data), data)

    def findings(self) -> list[Finding]:
        """See the protocol."""
        named: dict[str, list[Artifact]] = {}
        for artifact in self._files.values():
            named.setdefault(artifact.filename, []).append(artifact)
        shown = "both are listed, and an installer that knows no hash takes either"
        return [clash(name, some, shown) for name, some in sorted(named.items()) if len(some) > 1]


def _path(wheel: Artifact) -> str:
    digits = hex_of(wheel.digest)
    return f"files/{digits[:2]}/{digits}/{wheel.filename}"


def _metadata(wheel: Artifact) -> Digest | None:
    """The digest of the ``METADATA`` of a wheel, as it was read when the wheel was collected."""
    digits = wheel.facts.get("metadata_sha256")
    return f"sha256:{digits}" if isinstance(digits, str) else None


def _text(wheel: Artifact, fact: str) -> str:
    value = wheel.facts.get(fact)
    return value if isinstance(value, str) else ""


def _knowing(wheel: Artifact) -> tuple[str, bytes]:
    """What is greater for the one of two artifacts of one file whose index told more of it."""
    return _text(wheel, "upload_time"), canonical(dict(wheel.facts))


def _order(wheel: Artifact) -> tuple[Version, str, Digest]:
    try:
        version = Version(wheel.version)
    except InvalidVersion:
        version = Version("0")
    return version, wheel.filename, wheel.digest


# The pages


def _root_html(projects: Mapping[str, Sequence[Artifact]]) -> bytes:
    return _document(
        "Simple index", (f'<a href="{name}/">{name}</a><br/>' for name in map(html.escape, projects))
    )


def _root_json(projects: Mapping[str, Sequence[Artifact]]) -> bytes:
    return _dumped({"meta": {"api-version": _API}, "projects": [{"name": name} for name in projects]})


def _html(project: str, wheels: Sequence[Artifact]) -> bytes:
    """PEP 503 with what came since; PEP 714 wants the old name of core metadata beside the new one."""
    lines = []
    for wheel in wheels:
        metadata = (_metadata(wheel) or "").replace(":", "=")
        # PEP 592: the reason may be empty.  The upload time is no standard here; uv reads it.
        attributes = {
            "data-requires-python": _text(wheel, "requires_python"),
            "data-core-metadata": metadata,
            "data-dist-info-metadata": metadata,
            "data-upload-time": _text(wheel, "upload_time"),
        }
        words = [f' {key}="{html.escape(value)}"' for key, value in attributes.items() if value]
        if "yanked" in wheel.facts:
            words.append(f' data-yanked="{html.escape(_text(wheel, "yanked"))}"')
        link = html.escape(f"../../{quote(_path(wheel))}#{wheel.digest.replace(':', '=')}")
        lines.append(f'<a href="{link}"{"".join(words)}>{html.escape(wheel.filename)}</a><br/>')
    return _document(f"Links for {project}", lines)


def _document(title: str, lines: Iterator[str] | Sequence[str]) -> bytes:
    shown = html.escape(title)
    body = "".join(f"{line}\n" for line in lines)
    return (
        f'<!DOCTYPE html>\n<html>\n<head>\n<meta charset="utf-8"/>\n'
        f'<meta name="pypi:repository-version" content="{_API}"/>\n<title>{shown}</title>\n</head>\n'
        f"<body>\n<h1>{shown}</h1>\n{body}</body>\n</html>\n"
    ).encode()


def _json(project: str, wheels: Sequence[Artifact]) -> bytes:
    """PEP 691 with ``versions``, ``size`` and ``upload-time`` of PEP 700.

    Core metadata has its new name alone, as PEP 714 asks of JSON: pip 22.3 to 23.1 end with an error on a
    page where ``dist-info-metadata`` is an object.
    """
    files = []
    for wheel in wheels:
        entry: dict[str, Any] = {
            "filename": wheel.filename,
            "url": f"../../{quote(_path(wheel))}",
            "hashes": {"sha256": hex_of(wheel.digest)},
            "size": wheel.size or 0,
            # PEP 691: the reason, or true where there is none.
            "yanked": "yanked" in wheel.facts and (_text(wheel, "yanked") or True),
        }
        if python := _text(wheel, "requires_python"):
            entry["requires-python"] = python
        if moment := _text(wheel, "upload_time"):
            entry["upload-time"] = moment
        if metadata := _metadata(wheel):
            entry["core-metadata"] = {"sha256": hex_of(metadata)}
        files.append(entry)
    versions = list(dict.fromkeys(wheel.version for wheel in wheels))
    return _dumped({"meta": {"api-version": _API}, "name": project, "versions": versions, "files": files})


def _dumped(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


VIEW = Index
