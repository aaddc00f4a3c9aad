"""Reading conda packages without believing them.

Every member is held against ``info/paths.json``, every name against what file systems make of it, and
``info/index.json`` against the record that the artifact was locked by; :mod:`haversack.conda.archive` does as
much for the archive itself.  A record may state other dependencies than the package does: channels correct
them that way (a *hotfix*), and the record wins.
"""

from __future__ import annotations

import json
import re
import shlex
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from haversack.conda.archive import Entry, read
from haversack.conda.halves import BrokenPackageError
from haversack.model.artifact import Artifact, is_safe_filename, unsafe_path
from haversack.model.finding import Finding

_OLD_PLACEHOLDER = "/opt/anaconda1anaconda2anaconda3"
"""What a line of ``has_prefix`` means that holds a path alone (conda's ``read_has_prefix``)."""
_KINDS = {"hardlink": "file", "softlink": "link", "directory": "folder"}
_SCRIPT = re.compile(r"(?:bin|Scripts)/\..+-(post-link|pre-link|pre-unlink)\.(?:sh|bat)", re.IGNORECASE)
_LINKS_DEEP = 40  # links that lead to links: where Linux gives up
_REMEDY = "fetch the package again; if it stays so, tell its channel and choose another build"


@dataclass(slots=True)
class _Report:
    """What is wrong with one package, in the order it was noticed."""

    filename: str
    findings: list[Finding] = field(default_factory=list)

    def add(self, code: str, message: str, member: str = "", *, blocking: bool = True) -> None:
        # A name may hold what moves a terminal's cursor.
        shown = member if member.isprintable() else ascii(member)[1:-1]
        subject = f"{self.filename}: {shown}" if member else self.filename
        self.findings.append(Finding(code, subject, message, _REMEDY if blocking else "", blocking))


@dataclass(frozen=True, slots=True)
class _Row:
    """What a package says of one of its files; ``None`` where it does not."""

    kind: str | None
    sha256: str | None
    size: int | None
    placeholder: str | None
    mode: str | None


def inspect(file: BinaryIO, artifact: Artifact) -> tuple[dict[str, Any], list[Finding]]:
    """Read a seekable package once, to its end: what its bytes say, and everything wrong with it.

    The facts are ``files`` (how many it installs), ``unpacked`` (bytes), ``placeholder`` (bytes of the shortest
    prefix that binaries in it have room for) and ``scripts`` (the link scripts in it); the last two are
    absent where there are none.  Raises ``SpaceError`` where the folder for temporary files is too small for a
    large package, and what ``file`` itself raises.
    """
    report = _Report(artifact.filename)
    if not is_safe_filename(artifact.filename) or not artifact.filename.endswith((".conda", ".tar.bz2")):
        report.add("conda-invalid", "a conda package cannot have this name")
        return {"files": 0, "unpacked": 0}, report.findings
    entries: list[Entry] = []
    whole = True
    try:
        read(file, artifact.filename, entries)
    except BrokenPackageError as error:
        report.add(error.code, str(error))
        whole = False
    payload = _payload(entries, report)
    _check_names(payload, artifact, report)
    texts = {entry.name: entry.text for entry in entries if entry.text is not None and entry.part != "pkg"}
    if whole or "info/index.json" in texts:
        _check_index(texts.get("info/index.json"), artifact, report)
    if any(entry.name == "info/link.json" for entry in entries):
        _check_programs(texts.get("info/link.json"), report)
    rows: dict[str, _Row] | None = None
    if whole or "info/paths.json" in texts:
        rows = _listed(texts, report)
    if rows is not None:
        _check_paths(rows, payload, report, whole=whole)
    facts: dict[str, Any] = {
        "files": sum(entry.kind != "folder" for entry in payload),
        "unpacked": sum(entry.size for entry in entries),
    }
    binary = [
        len(row.placeholder.encode())
        for row in (rows or {}).values()
        if row.placeholder and row.mode == "binary"
    ]
    if binary:
        facts["placeholder"] = min(binary)
    scripts = {match[1].lower() for entry in payload if (match := _SCRIPT.fullmatch(entry.name))}
    if scripts:
        facts["scripts"] = sorted(scripts)
    return facts, report.findings


def _payload(entries: Sequence[Entry], report: _Report) -> list[Entry]:
    """What the package installs; members in the wrong half of it are told."""
    payload = []
    seen: set[tuple[str, str]] = set()
    for entry in entries:
        if entry.kind != "folder" and (entry.part, entry.name) in seen:
            report.add("conda-invalid", "the package holds it twice", entry.name)
        seen.add((entry.part, entry.name))
        about = entry.name == "info" or entry.name.startswith("info/")
        if not about and entry.part == "info":
            report.add("conda-invalid", "a file stands among what describes the package", entry.name)
        elif not about:
            payload.append(entry)
        elif entry.part == "pkg":
            report.add("conda-invalid", "what describes the package stands among its files", entry.name)
        elif entry.kind not in {"file", "folder"}:
            report.add("conda-invalid", "what describes the package is no plain file", entry.name)
    return payload


# Names


def _check_names(payload: Sequence[Entry], artifact: Artifact, report: _Report) -> None:
    """Names that leave their folder, that pass through a link, or that some file system takes for another."""
    subdir = str(artifact.facts.get("subdir", ""))
    links = {entry.name: entry.target for entry in payload if entry.kind == "link"}
    files: set[str] = set()
    folded: dict[str, Entry] = {}
    for entry in payload:
        name = entry.name
        if reason := unsafe_path(name):
            report.add("path-unsafe", reason, name)
            continue
        if entry.kind != "folder" and name.split("/")[0].casefold() == "conda-meta":
            report.add("path-unsafe", "it lies where conda keeps what it knows of the environment", name)
        if subdir.startswith("win-") and not all(map(is_safe_filename, name.split("/"))):
            report.add("path-unsafe", "Windows cannot hold a file of this name", name)
        if link := next((above for above in _above(name) if above in links), ""):
            report.add("path-unsafe", f"it would be written through the link {link!r}", name)
        if entry.kind == "link" and (reason := _leaves(name, links)):
            report.add("path-unsafe", reason, name)
        elif entry.kind == "hardlink" and entry.target.removeprefix("./") not in files:
            report.add(
                "path-unsafe", f"it is a hard link to {entry.target!r}, which is no file before it", name
            )
        elif entry.kind == "other":
            report.add("path-unsafe", "it is a device or a pipe", name)
        if entry.kind in {"file", "hardlink"}:
            files.add(name)
        # Packages for Linux alone hold such names (terminfo does), and may; what else is lost where case is
        # ignored is told, and blocks where that is usual and the bytes differ.
        if entry.kind != "folder" and not subdir.startswith("linux-"):
            same = unicodedata.normalize("NFC", name.casefold())
            other = folded.setdefault(same, entry)
            if other.name != name:
                differs = (entry.kind, entry.sha256, entry.target) != (other.kind, other.sha256, other.target)
                report.add(
                    "name-clash",
                    f"it and {other.name!r} are one file where case is ignored",
                    name,
                    blocking=differs and subdir.startswith(("win-", "osx-")),
                )


def _above(name: str) -> list[str]:
    """The folders that a name is in, the outermost first."""
    parts = name.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


def _leaves(name: str, links: Mapping[str, str]) -> str:
    """Why a link leads out of the package, however many links of it are followed on the way, or nothing."""
    at = name.split("/")[:-1]
    ahead = _steps(links[name])
    followed = 1
    if not links[name]:
        return "it is a link to nothing"
    if links[name].startswith("/") or "\\" in links[name] or re.match(r"[A-Za-z]:", links[name]):
        return f"it is a link to {links[name]!r}, which is no path within the package"
    while ahead:
        step = ahead.pop()
        if step == "..":
            if not at:
                return f"it is a link to {links[name]!r}, which is out of the package"
            at.pop()
            continue
        at.append(step)
        target = links.get("/".join(at))
        if target is not None:
            followed += 1
            if followed > _LINKS_DEEP:
                return "it is a link that leads round in a circle"
            if target.startswith("/"):
                return f"it leads to {target!r}, which is out of the package"
            at.pop()
            ahead += _steps(target)
    return ""


def _steps(target: str) -> list[str]:
    """The parts of a link's target, the first one last."""
    return [part for part in reversed(target.split("/")) if part not in {"", "."}]


# What the package says of itself


def _loaded(data: bytes | None, name: str, report: _Report) -> dict[str, Any] | None:
    if data is None:
        report.add("conda-invalid", "the package does not hold it", name)
        return None
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        report.add("conda-invalid", f"it cannot be read: {error}", name)
        return None
    if not isinstance(found, dict):
        report.add("conda-invalid", "it is not a JSON object", name)
        return None
    return found


def _check_index(data: bytes | None, artifact: Artifact, report: _Report) -> None:
    """Whether the package is the one that the record names; that they differ in dependencies is no error."""
    index = _loaded(data, "info/index.json", report)
    if index is None:
        return
    wanted = {
        "name": artifact.name,
        "version": artifact.version,
        "build": artifact.facts.get("record", {}).get("build"),
        "subdir": artifact.facts.get("subdir"),
    }
    for key, value in wanted.items():
        # Packages of before 2015 do not say their subdir.
        if value is not None and index.get(key) != value and (key != "subdir" or key in index):
            said = index.get(key)
            report.add(
                "conda-invalid", f"its {key} is {said!r}, its record says {value!r}", "info/index.json"
            )


def _check_programs(data: bytes | None, report: _Report) -> None:
    """Whether the programs that an installation makes for a Python package have names of programs.

    A line is ``name = module:function``, as rattler reads it.
    """
    where = "info/link.json"
    if data is None:
        report.add("conda-invalid", "it is too large", where)
        return
    noarch = (_loaded(data, where, report) or {}).get("noarch")
    lines = noarch.get("entry_points") if isinstance(noarch, dict) else None
    if lines is not None and not isinstance(lines, list):
        report.add("conda-invalid", "its entry points are no list", where)
        return
    for line in lines or ():
        name, _, function = str(line).partition("=")
        if ":" not in function:
            report.add("conda-invalid", f"an entry point is of no known form: {line!r:.80}", where)
        elif not is_safe_filename(name := name.strip()):
            report.add("path-unsafe", f"a program cannot be called {name!r:.80}", where)


def _listed(texts: Mapping[str, bytes], report: _Report) -> dict[str, _Row] | None:
    """What the package says of each of its files, or ``None`` where it does not say it readably."""
    if "info/paths.json" not in texts:
        return _listed_of_old(texts, report)
    found = _loaded(texts["info/paths.json"], "info/paths.json", report)
    if found is None:
        return None
    paths = found.get("paths")
    if not isinstance(paths, list):
        report.add("conda-invalid", "it has no list of paths", "info/paths.json")
        return None
    rows: dict[str, _Row] = {}
    for number, path in enumerate(paths):
        row = _row(path)
        if row is None:
            report.add("conda-invalid", f"its path {number} is of no known form", "info/paths.json")
        elif rows.setdefault(path["_path"], row) is not row:
            report.add("conda-paths", "paths.json lists it twice", path["_path"])
    return rows


def _row(path: Any) -> _Row | None:
    if not isinstance(path, dict) or not isinstance(path.get("_path"), str):
        return None
    kind = _KINDS.get(str(path.get("path_type", "hardlink")))
    sha256, size = path.get("sha256"), path.get("size_in_bytes")
    placeholder, mode = path.get("prefix_placeholder"), path.get("file_mode")
    sound = (
        kind is not None
        and (sha256 is None or (isinstance(sha256, str) and re.fullmatch(r"[0-9a-fA-F]{64}", sha256)))
        and (size is None or (isinstance(size, int) and not isinstance(size, bool)))
        and (placeholder is None or (isinstance(placeholder, str) and placeholder.isascii()))
        and (mode in {"text", "binary"} if placeholder else mode in {None, "text", "binary"})
    )
    return _Row(kind, sha256 and sha256.lower(), size, placeholder, mode) if sound else None


def _listed_of_old(texts: Mapping[str, bytes], report: _Report) -> dict[str, _Row] | None:
    """The same from ``info/files`` and ``info/has_prefix``, as packages of before 2017 have it."""
    if "info/files" not in texts:
        report.add("conda-invalid", "the package does not hold it", "info/paths.json")
        return None
    prefixed: dict[str, tuple[str | None, str | None]] = {}
    for line in texts.get("info/has_prefix", b"").decode(errors="replace").splitlines():
        try:
            parts = [part.strip("\"'") for part in shlex.split(line, posix=False)]
        except ValueError:
            parts = []
        match parts:
            case [path]:
                prefixed[path] = (_OLD_PLACEHOLDER, "text")
            case [placeholder, "text" | "binary" as mode, path]:
                prefixed[path] = (placeholder, mode)
            case _ if line.strip():
                report.add("conda-invalid", f"a line of it is of no known form: {line!r}", "info/has_prefix")
    rows = {}
    for line in texts["info/files"].decode(errors="replace").split("\n"):
        if name := line.strip():
            prefix, how = prefixed.get(name, (None, None))
            rows[name] = _Row(None, None, None, prefix, how)
    return rows


def _check_paths(rows: Mapping[str, _Row], payload: Sequence[Entry], report: _Report, *, whole: bool) -> None:
    """Hold what is there against what the package says is there; of half a package, only what was read."""
    held = {entry.name: entry for entry in payload if entry.kind in {"file", "link"}}
    for entry in payload:
        if entry.kind == "hardlink" and (first := held.get(entry.target.removeprefix("./"))):
            held[entry.name] = first
    for name, entry in held.items():
        row = rows.get(name)
        if row is None:
            report.add("conda-paths", "it is in the package, and the package does not list it", name)
        elif row.kind is not None and row.kind != entry.kind:
            report.add("conda-paths", f"it is listed as a {row.kind} and is a {entry.kind}", name)
        elif entry.kind == "file" and row.size is not None and row.size != entry.size:
            report.add("conda-paths", f"it has {entry.size} bytes, {row.size} are listed", name)
        elif entry.kind == "file" and row.sha256 is not None and row.sha256 != entry.sha256:
            report.add("conda-paths", "its sha256 is not the one that is listed", name)
    folders = {entry.name for entry in payload if entry.kind == "folder"}
    folders |= {above for entry in payload for above in _above(entry.name)}
    for name, row in rows.items():
        if whole and name not in (folders if row.kind == "folder" else held):
            report.add("conda-paths", "it is listed, and not in the package", name)
