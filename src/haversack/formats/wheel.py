"""Reading wheels without believing them.

Every member is inflated and held against ``RECORD``, every name against what file systems make of it,
``METADATA`` against the file name (:mod:`haversack.formats.zipped` does as much for the zip file itself).
Nothing is written, and no member is held whole except the few small texts of ``.dist-info``.
"""

from __future__ import annotations

import base64
import configparser
import csv
import email.parser
import hashlib
import io
import keyword
import re
import stat
import unicodedata
import zipfile
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from email.message import Message
from typing import Any, BinaryIO

from packaging.tags import Tag
from packaging.utils import canonicalize_name, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from haversack.formats.zipped import BrokenZipError, content, directory
from haversack.model.artifact import Facts, is_safe_filename, unsafe_path
from haversack.model.finding import Finding

TEXT_LIMIT = 32 * 1024 * 1024
"""Bytes a member that is held whole may have (``RECORD`` and its neighbours)."""
BOMB_RATIO = 200
"""Unpacked over packed size that no wheel needs: a large one has 3 to 5, test data seldom 50."""
BOMB_FLOOR = 512 * 1024 * 1024
"""Unpacked bytes below which no ratio hurts anybody."""

# The specification wants "sha256 or better" and forbids the rest by name.
_HASHES = {
    "sha256": hashlib.sha256,
    "sha384": hashlib.sha384,
    "sha512": hashlib.sha512,
    "sha3_256": hashlib.sha3_256,
    "sha3_384": hashlib.sha3_384,
    "sha3_512": hashlib.sha3_512,
}
# RECORD cannot hold its own hash, and signatures of it are made after it.
_UNRECORDED = ("RECORD", "RECORD.jws", "RECORD.p7s")
_TEXTS = ("METADATA", "RECORD", "WHEEL", "entry_points.txt")

_LIBRARY = re.compile(r"[^/]+\.data/(?:purelib|platlib)/")
# What the installer lays down before any wheel, and the file by which haversack knows its environments.
_FOUNDATION = re.compile(
    r"[^/]+\.data/(?:data/(?:pyvenv\.cfg|haversack-environment\.json|(?:bin|scripts)/pythonw?[\d.]*t?(?:\.exe)?)"
    r"|scripts/pythonw?[\d.]*t?(?:\.exe)?)",
    re.IGNORECASE,
)
_EXTENSION = re.compile(r"(?:cpython-[^/.]+|abi3)\.so|(?:[^/.]+\.)?pyd")
_REMEDY = "fetch the wheel again; if it stays so, tell its project and choose another version"


@dataclass
class _Report:
    """What is wrong with one wheel, in the order it was noticed."""

    filename: str
    findings: list[Finding] = field(default_factory=list)

    def add(self, code: str, message: str, member: str = "", *, blocking: bool = True) -> None:
        # A name may hold what moves a terminal's cursor.
        shown = member if member.isprintable() else ascii(member)[1:-1]
        subject = f"{self.filename}: {shown}" if member else self.filename
        self.findings.append(Finding(code, subject, message, _REMEDY if blocking else "", blocking))


def check_filename(filename: str) -> tuple[str, Version, frozenset[Tag]]:
    """Normalised name, version and tags that a wheel's file name says.  Raises :class:`ValueError`."""
    if not is_safe_filename(filename):
        raise ValueError(f"{filename!r} is not one plain file name")
    name, version, _, tags = parse_wheel_filename(filename)
    return name, version, tags


def inspect(file: BinaryIO, filename: str) -> tuple[Facts, list[Finding]]:
    """Read a seekable wheel once, to its end: what views print of it, and everything wrong with it.

    The facts always have all their keys and are empty where a finding says that their source is broken;
    ``unpacked`` counts bytes.  Raises only what ``file`` itself raises.
    """
    report = _Report(filename)
    facts: dict[str, Any] = {
        "entry_points": [],
        "license": None,
        "metadata_sha256": None,
        "modules": [],
        "provides_extra": [],
        "requires_dist": [],
        "requires_python": None,
        "summary": None,
        "tags": [],
        "unpacked": 0,
    }
    name, version, tags = "", None, frozenset[Tag]()
    try:
        name, version, tags = check_filename(filename)
    except ValueError as error:
        report.add("wheel-invalid", f"a wheel cannot have this name: {error}")
    facts["tags"] = sorted(map(str, tags))
    try:
        spans, size = directory(file)
    except BrokenZipError as error:
        report.add(error.code, str(error))
        return facts, report.findings
    members = [member for member, _ in spans]
    names = [member.orig_filename for member in members]
    _check_names(names, {tag.platform for tag in tags}, report)
    _check_modes(members, report)
    facts["modules"] = _modules(names)
    info = _info_folder(names, name, report)
    declared = sum(member.file_size for member in members)
    if declared > BOMB_FLOOR and declared > BOMB_RATIO * size:
        # No member is inflated beyond the size it declares, so this bounds the work whatever is true.
        report.add("wheel-bomb", f"{size} bytes unpack to {declared}")
        return facts, report.findings
    texts, facts["unpacked"] = _read_members(file, spans, info, report)
    if (data := texts.get("METADATA")) is not None:
        facts["metadata_sha256"] = hashlib.sha256(data).hexdigest()
        _read_metadata(_headers(data), name, version, facts, report)
    if (data := texts.get("WHEEL")) is not None:
        written = _headers(data).get("Wheel-Version", "")
        if not re.fullmatch(r"1\.\d+", written.strip()):
            report.add("wheel-invalid", f"Wheel-Version is {written!r}, not 1.x", f"{info}/WHEEL")
    if (data := texts.get("entry_points.txt")) is not None:
        facts["entry_points"] = _scripts(data, f"{info}/entry_points.txt", report)
    return facts, report.findings


# The members


def _read_members(
    file: BinaryIO, spans: list[tuple[zipfile.ZipInfo, int]], info: str, report: _Report
) -> tuple[dict[str, bytes], int]:
    """Inflate every member once and hold it against RECORD: the texts of ``info`` and all bytes there were."""
    if spans and spans[0][0].header_offset > 0:
        report.add("wheel-invalid", "bytes that no member owns stand before the first")
    unrecorded = {f"{info}/{short}" for short in _UNRECORDED}
    wanted = {f"{info}/{short}": short for short in _TEXTS} if info else {}
    record = f"{info}/RECORD"
    texts: dict[str, bytes] = {}
    rows: dict[str, tuple[str, str]] | None = None
    total = 0
    # RECORD first: it says by which function each of the others is to be hashed.
    for member, limit in sorted(spans, key=lambda span: span[0].orig_filename != record):
        name = member.orig_filename
        if name in wanted and member.file_size > TEXT_LIMIT:
            report.add("wheel-invalid", f"it has {member.file_size} bytes, too many for a text", name)
            continue
        kept = bytearray() if name in wanted else None
        row = rows.pop(name, None) if rows is not None else None
        algorithm, _, expected = row[0].partition("=") if row else ("", "", "")
        hasher = _HASHES[algorithm]() if algorithm in _HASHES else None
        size = 0
        try:
            for chunk in content(file, member, limit):
                size += len(chunk)
                if hasher:
                    hasher.update(chunk)
                if kept is not None:
                    kept += chunk
        except BrokenZipError as error:
            report.add(error.code, str(error), name)
            continue
        finally:
            total += size
        if kept is not None:
            texts.setdefault(wanted[name], bytes(kept))
        if name == record and rows is None:
            rows = _rows(texts["RECORD"], name, report)
        if rows is None or name.endswith("/") or name in unrecorded:
            continue
        if row is None:
            report.add("wheel-record", "RECORD does not list it", name)
        elif hasher is None:
            wrong = f"by {algorithm}, which is too weak or unknown" if algorithm else "by no function at all"
            report.add("wheel-record", f"RECORD hashes it {wrong}", name)
        elif not _same(hasher.digest(), expected):
            report.add("wheel-record", "it is not what RECORD says: another hash", name)
        elif row[1] and row[1] != str(size):
            report.add("wheel-record", f"it has {size} bytes, RECORD says {row[1]}", name)
    for name in rows or ():
        if not name.endswith("/") and name not in unrecorded:
            report.add("wheel-record", "RECORD lists it, the wheel does not hold it", name)
    return texts, total


def _same(digest: bytes, stated: str) -> bool:
    """Whether RECORD states this digest: in URL-safe base 64, as it should, or in hexadecimal (gmsh does)."""
    text = base64.urlsafe_b64encode(digest).decode("ascii").rstrip("=")
    return stated.rstrip("=") == text or stated == digest.hex()


def _rows(data: bytes, member: str, report: _Report) -> dict[str, tuple[str, str]] | None:
    """Hash and size by path, as RECORD says them."""
    rows: dict[str, tuple[str, str]] = {}
    try:
        # Not splitlines: a path may hold what Unicode calls a line separator.
        for row in csv.reader(io.StringIO(data.decode("utf-8"), newline="")):
            if not row:
                continue
            if len(row) != 3:
                report.add("wheel-record", f"a line has {len(row)} fields, not 3: {row[0]!r}", member)
                continue
            # Wheels made on Windows once wrote backslashes here, and installers read them as slashes.
            path, stated = row[0].replace("\\", "/"), (row[1], row[2])
            if rows.setdefault(path, stated) != stated:
                report.add("wheel-record", "RECORD lists it twice, and differently", path)
    except (csv.Error, UnicodeDecodeError) as error:
        report.add("wheel-record", f"it cannot be read: {error}", member)
        return None
    return rows


# Names


def _check_names(names: list[str], platforms: Collection[str], report: _Report) -> None:
    """Names that leave their folder, or that some file system takes for one."""
    windows = any(platform.startswith("win") for platform in platforms)
    linux = bool(platforms) and all("linux" in platform for platform in platforms)
    files: dict[str, str] = {}
    folders: dict[str, str] = {}
    seen: set[str] = set()
    for name in names:
        if name in seen:
            report.add("wheel-invalid", "the wheel holds it twice", name)
            continue
        seen.add(name)
        if reason := unsafe_path(name.removesuffix("/") or name):
            report.add("path-unsafe", reason, name)
        elif _FOUNDATION.fullmatch(name):
            report.add("path-unsafe", "it would replace what makes an environment one", name)
        elif not all(map(is_safe_filename, name.removesuffix("/").split("/"))):
            report.add("path-unsafe", "Windows cannot hold a file of this name", name, blocking=windows)
        # Both library folders of a wheel are emptied into the one that its other files go to.
        place = _LIBRARY.sub("", name, count=1)
        folded = unicodedata.normalize("NFC", place.casefold())
        parent = folded.rstrip("/") if name.endswith("/") else folded.rpartition("/")[0]
        while parent and parent not in folders:
            folders[parent] = name
            parent = parent.rpartition("/")[0]
        if not name.endswith("/"):
            other = files.setdefault(folded, name)
            if other != name:
                same = _LIBRARY.sub("", other, count=1) == place
                report.add("name-clash", f"it and {other!r} are one file", name, blocking=same or not linux)
    for folded in sorted(files.keys() & folders.keys()):
        report.add("name-clash", f"it is a file and, for {folders[folded]!r}, a folder", files[folded])


def _check_modes(members: Iterable[zipfile.ZipInfo], report: _Report) -> None:
    """Members that are no files: links, devices, pipes, and folders with a content."""
    for member in members:
        kind = stat.S_IFMT(member.external_attr >> 16)
        if kind == stat.S_IFLNK:
            report.add("path-unsafe", "it is a symbolic link", member.orig_filename)
        elif kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            report.add("path-unsafe", "it is a device or a pipe", member.orig_filename)
        elif member.orig_filename.endswith("/") and member.file_size:
            report.add("wheel-invalid", "it is a folder and has a content", member.orig_filename)


def _info_folder(names: list[str], project: str, report: _Report) -> str:
    """The one ``.dist-info`` folder, or an empty string."""
    found = sorted({name.split("/")[0] for name in names if ".dist-info/" in name})
    found = [folder for folder in found if folder.endswith(".dist-info")]
    if len(found) != 1:
        report.add("wheel-invalid", f"it has {len(found)} .dist-info folders, not one: {', '.join(found)}")
        return ""
    folder = found[0]
    if project and canonicalize_name(folder.removesuffix(".dist-info").rpartition("-")[0]) != project:
        report.add("wheel-invalid", f"its .dist-info folder is of another project than {project}", folder)
    held = set(names)
    for short in ("METADATA", "WHEEL", "RECORD"):
        if f"{folder}/{short}" not in held:
            report.add("wheel-invalid", "the wheel does not hold it", f"{folder}/{short}")
    return folder


def _modules(names: Iterable[str]) -> list[str]:
    """Top-level packages and modules that can be imported once the wheel is installed."""
    found = set()
    for name in names:
        first, *rest = _LIBRARY.sub("", name, count=1).split("/")
        stem, _, suffix = first.partition(".")
        if len(rest) == 1 and not suffix:
            inner, _, suffix = rest[0].partition(".")
            importable = inner == "__init__"
        else:
            importable = not rest
        if importable and (suffix == "py" or _EXTENSION.fullmatch(suffix)) and not stem.startswith("__"):
            found.add(stem)
    return sorted(stem for stem in found if stem.isidentifier() and not keyword.iskeyword(stem))


# The texts


def _headers(data: bytes) -> Message:
    """The headers of METADATA or WHEEL; what is not UTF-8 in them stands as a replacement character."""
    return email.parser.HeaderParser().parsestr(data.decode("utf-8", "replace"))


def _read_metadata(
    headers: Message, name: str, version: Version | None, facts: dict[str, Any], report: _Report
) -> None:
    """Fill the facts, and hold name and version against the file name."""

    def values(key: str) -> list[str]:
        return [" ".join(str(value).split()) for value in headers.get_all(key, [])]

    def line(key: str) -> str | None:
        found = next(iter(values(key)), "")
        return found if found not in ("", "UNKNOWN") and len(found) <= 200 else None

    names, versions = values("Name"), values("Version")
    if version is not None and [canonicalize_name(found) for found in names] != [name]:
        report.add("wheel-invalid", f"METADATA names {names}, the file name {name!r}")
    if version is not None and [_version(found) for found in versions] != [version]:
        report.add("wheel-invalid", f"METADATA is of version {versions}, the file name of {str(version)!r}")
    facts["requires_dist"] = values("Requires-Dist")
    facts["provides_extra"] = values("Provides-Extra")
    facts["requires_python"] = line("Requires-Python")
    facts["summary"] = line("Summary")
    approved = (
        value.rpartition(" :: ")[2] for value in values("Classifier") if value.startswith("License ::")
    )
    facts["license"] = line("License-Expression") or line("License") or next(approved, None)


def _version(text: str) -> Version | None:
    try:
        return Version(text)
    except InvalidVersion:
        return None


class _EntryPoints(configparser.ConfigParser):
    """entry_points.txt: names keep their case, values their percent signs."""

    def __init__(self) -> None:
        super().__init__(delimiters=("=",), interpolation=None, strict=False)

    def optionxform(self, optionstr: str) -> str:
        return optionstr


def _scripts(data: bytes, member: str, report: _Report) -> list[str]:
    """Names of the console scripts."""
    parser = _EntryPoints()
    try:
        parser.read_string(data.decode("utf-8"))
        return sorted(parser["console_scripts"]) if "console_scripts" in parser else []
    except (configparser.Error, UnicodeDecodeError) as error:
        report.add("wheel-invalid", f"it cannot be read: {error}", member)
        return []
