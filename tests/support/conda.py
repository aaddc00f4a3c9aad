"""Conda packages and channels made by hand, the same bytes every time and without a network.

::

    tool = make_conda(folder, "tool", "1.0", files={"bin/tool": (b"#!/bin/sh\\n", 0o755)}, depends=["lib"])
    write_channel(folder, [tool])                     # folder/linux-64/repodata.json, folder/noarch/repodata.json
    tool.path, tool.record["sha256"]

A test that wants a package wrong takes it apart: :func:`conda_parts` gives the members of both halves as
:func:`make_conda` would pack them, :func:`pack_conda` packs whatever members it is given.
:mod:`tests.support.stack` has a real Python and packages on top of it.
"""

from __future__ import annotations

import bz2
import hashlib
import io
import json
import posixpath
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import zstandard

PLACEHOLDER = "/opt/haversack_build_prefix" + "_placehold" * 22 + "_placeho"
"""The prefix that packages are built for: 255 bytes, the length that conda-build uses."""
Mode = Literal["text", "binary"]
Content = bytes | tuple[bytes, int]
"""What a file holds, or that and its permissions (0o644 without)."""

assert len(PLACEHOLDER) == 255


@dataclass(frozen=True, slots=True)
class Member:
    """One member of a tar: a file, or a link where ``link`` says to what."""

    name: str
    data: bytes = b""
    mode: int = 0o644
    link: str | None = None
    kind: bytes | None = None
    """A ``tarfile`` type, for what is neither a plain file nor a symbolic link."""


@dataclass(frozen=True, slots=True)
class Package:
    """A package on disk and what a channel says of it."""

    path: Path
    record: dict[str, Any]

    @property
    def filename(self) -> str:
        """As in ``tool-1.0-0.conda``."""
        return self.path.name

    @property
    def subdir(self) -> str:
        """As in ``linux-64``."""
        subdir: str = self.record["subdir"]
        return subdir


def make_conda(
    folder: Path,
    name: str,
    version: str,
    *,
    files: Mapping[str, Content] | None = None,
    links: Mapping[str, str] | None = None,
    build: str = "0",
    build_number: int = 0,
    subdir: str = "linux-64",
    depends: Sequence[str] = (),
    constrains: Sequence[str] = (),
    noarch: Literal["python", "generic"] | None = None,
    prefixed: Mapping[str, Mode] | None = None,
    entry_points: Sequence[str] = (),
    suffix: str = ".conda",
    timestamp: int = 1_700_000_000_000,
    legacy: bool = False,
    level: int = 3,
    **extra: Any,
) -> Package:
    """Write ``folder/<subdir>/<name>-<version>-<build><suffix>``; with ``noarch`` the subdir is that.

    ``links`` maps symbolic links to their targets, ``prefixed`` files that hold :data:`PLACEHOLDER` to how
    it is replaced, ``entry_points`` are ``tool = module:function`` of a ``noarch: python`` package, whose
    files are in ``site-packages/`` and ``python-scripts/``.  A ``legacy`` package has no ``paths.json``, as
    before 2017.  ``extra`` are further keys of ``index.json``; ``timestamp`` counts milliseconds.
    """
    index: dict[str, Any] = {
        "build": build,
        "build_number": build_number,
        "constrains": list(constrains),
        "depends": list(depends),
        "license": "MIT",
        "name": name,
        "subdir": "noarch" if noarch else subdir,
        "timestamp": timestamp,
        "version": version,
        **({"noarch": noarch} if noarch else {}),
        **extra,
    }
    info, payload = conda_parts(
        index, files or {}, links or {}, prefixed=prefixed or {}, entry_points=entry_points, legacy=legacy
    )
    path = folder / index["subdir"] / f"{name}-{version}-{build}{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pack_conda(path.name, info, payload, level=level))
    return Package(path, record_of(path, index))


def record_of(path: Path, index: Mapping[str, Any]) -> dict[str, Any]:
    """What a channel says of a package with that ``index.json``."""
    data = path.read_bytes()
    sums = {"md5": hashlib.md5(data).hexdigest(), "sha256": hashlib.sha256(data).hexdigest()}
    return {**index, **sums, "size": len(data)}


def conda_parts(
    index: Mapping[str, Any],
    files: Mapping[str, Content],
    links: Mapping[str, str] | None = None,
    *,
    prefixed: Mapping[str, Mode] | None = None,
    entry_points: Sequence[str] = (),
    legacy: bool = False,
) -> tuple[list[Member], list[Member]]:
    """The members of a package: those of ``info/``, and those that are installed, each sorted by name."""
    prefixed, links = prefixed or {}, links or {}
    members = [_file(name, content) for name, content in files.items()]
    payload = sorted(
        [*members, *(Member(name, mode=0o777, link=target) for name, target in links.items())],
        key=lambda member: member.name,
    )
    texts = {"about.json": "{}", "index.json": _json(index), "files": "".join(f"{m.name}\n" for m in payload)}
    if not legacy:
        contents = {member.name: member.data for member in members}
        rows = [_row(member, contents, prefixed.get(member.name)) for member in payload]
        texts["paths.json"] = _json({"paths": rows, "paths_version": 1})
    if prefixed:
        texts["has_prefix"] = "".join(
            f"{PLACEHOLDER} {mode} {path}\n" for path, mode in sorted(prefixed.items())
        )
    if index.get("noarch") == "python":
        noarch = {"type": "python", "entry_points": list(entry_points)}
        texts["link.json"] = _json({"noarch": noarch, "package_metadata_version": 1})
    info = [Member(f"info/{name}", text.encode()) for name, text in sorted(texts.items())]
    return info, payload


def pack_conda(filename: str, info: Sequence[Member], payload: Sequence[Member], *, level: int = 3) -> bytes:
    """The bytes of a ``.conda`` or ``.tar.bz2`` with those members in that order."""
    if filename.endswith(".tar.bz2"):
        return bz2.compress(tar_of([*info, *payload]))
    stem = filename.removesuffix(".conda")
    return zip_of(
        {
            "metadata.json": b'{"conda_pkg_format_version": 2}',
            f"pkg-{stem}.tar.zst": zst_of(payload, level=level),
            f"info-{stem}.tar.zst": zst_of(info, level=level),
        }
    )


def zst_of(members: Iterable[Member], *, level: int = 3) -> bytes:
    """A ``.tar.zst`` of some members."""
    return zstandard.ZstdCompressor(level=level).compress(tar_of(members))


def zip_of(members: Mapping[str, bytes], *, method: int = zipfile.ZIP_STORED) -> bytes:
    """A zip file of some members, in that order."""
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w", method) as archive:
        for name, data in members.items():
            member = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            member.compress_type = method
            member.external_attr = 0o100644 << 16
            archive.writestr(member, data)
    return raw.getvalue()


def tar_of(members: Iterable[Member]) -> bytes:
    """A tar of some members, in that order, with nothing of this machine in it."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for member in members:
            head = tarfile.TarInfo(member.name)
            head.size, head.mode, head.mtime = len(member.data), member.mode, 0
            if member.link is not None:
                head.type, head.linkname = tarfile.SYMTYPE, member.link
            head.type = member.kind or head.type
            archive.addfile(head, io.BytesIO(member.data))
    return raw.getvalue()


def write_channel(
    folder: Path,
    packages: Iterable[Package],
    *,
    patch: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
    removed: Iterable[Package] = (),
    zst: bool = False,
) -> Path:
    """Write ``<subdir>/repodata.json`` for some packages, ``noarch`` always, and return ``folder``.

    A package that lies elsewhere is copied in.  ``patch`` gives each record as the channel should say it:
    what it changes is a hotfix.  The files of ``removed`` packages are there too, but their records are
    not: they were yanked.  With ``zst`` there is a ``repodata.json.zst`` beside.
    """
    tables: dict[str, dict[str, Any]] = {}
    for package, yanked in [*((p, False) for p in packages), *((p, True) for p in removed)]:
        place = folder / package.subdir / package.filename
        if place != package.path:
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(package.path, place)
        table = tables.setdefault(package.subdir, _empty(package.subdir))
        if yanked:
            table["removed"].append(package.filename)
        else:
            group = "packages.conda" if package.filename.endswith(".conda") else "packages"
            record = json.loads(json.dumps(package.record))
            table[group][package.filename] = patch(record) if patch else record
    for subdir, table in {"noarch": _empty("noarch"), **tables}.items():
        body = json.dumps(table, indent=1, sort_keys=True).encode()
        (folder / subdir).mkdir(parents=True, exist_ok=True)
        (folder / subdir / "repodata.json").write_bytes(body)
        if zst:
            packed = zstandard.ZstdCompressor(level=3).compress(body)
            (folder / subdir / "repodata.json.zst").write_bytes(packed)
    return folder


def _empty(subdir: str) -> dict[str, Any]:
    return {
        "info": {"subdir": subdir},
        "packages": {},
        "packages.conda": {},
        "removed": [],
        "repodata_version": 1,
    }


def _file(name: str, content: Content) -> Member:
    member = Member(name)
    if isinstance(content, tuple):
        return replace(member, data=content[0], mode=content[1])
    return replace(member, data=content)


def _row(member: Member, contents: Mapping[str, bytes], mode: Mode | None) -> dict[str, Any]:
    """What ``paths.json`` says of a member; of a link, what it leads to, as conda-build does."""
    data = member.data
    if member.link is not None:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(member.name), member.link))
        data = contents.get(target, b"")
    return {
        "_path": member.name,
        "path_type": "hardlink" if member.link is None else "softlink",
        "sha256": hashlib.sha256(data).hexdigest(),
        "size_in_bytes": len(data),
        **({"prefix_placeholder": PLACEHOLDER, "file_mode": mode} if mode else {}),
    }


def _json(data: Any) -> str:
    return json.dumps(data, indent=2, sort_keys=True)
