"""Records of conda packages: what a lock keeps of one, and the ``repodata.json`` of a channel again.

A channel may correct a package after it was built by changing its record alone (a hotfix), so that a record
is never made again from the package.  Formats: CEP 12 and 15 for ``repodata.json``, CEP 26 for names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from haversack.errors import HaversackError
from haversack.formats.canonical import Fields, canonical
from haversack.model.artifact import Artifact, hex_of, is_digest, is_safe_filename
from haversack.model.finding import Finding

SUFFIXES = (".conda", ".tar.bz2")
"""What the name of a conda package ends with."""
_OUTSIDE = frozenset({"name", "version", "subdir", "sha256", "size", "fn", "url", "channel"})
"""Keys of a full record that stand on the artifact, or beside its record."""
_BESIDE = frozenset({"fn", "url", "channel"})
"""Keys of a full record that no ``repodata.json`` repeats."""
_SUBDIR = re.compile(r"[a-z0-9]+(?:[-_][a-z0-9]+)*")
_TOKEN = re.compile(r"/t/[^/]+(?=/|$)")
_NOT_IN_URL = re.compile(r"[\s\\\x00-\x1f\x7f]")


def plain_url(url: str) -> str:
    """A URL without user, password, query, fragment, ``/t/<token>`` and trailing slash.

    Raises ``ValueError``, which does not repeat the URL, for what is none.
    """
    if _NOT_IN_URL.search(url):
        raise ValueError("is not a URL: it holds a blank, a backslash or a control character")
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ValueError("is not a URL") from None
    if not parts.scheme or not (parts.netloc or parts.path.startswith("/")):
        raise ValueError("is not a URL")
    path = parts.path
    if parts.scheme != "file":
        # Where conda looks for a token too: anywhere in the path, once.
        path = _TOKEN.sub("", path, count=1)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2].lower(), path.rstrip("/"), "", ""))


def is_plain(url: str) -> bool:
    """Whether a URL is one that :func:`plain_url` takes nothing from but a slash at its end."""
    try:
        # A host is the same in any case.
        return plain_url(url).casefold() == url.rstrip("/").casefold()
    except ValueError:
        return False


def facts_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """The facts that a lock keeps of a full record: ``channel``, ``subdir``, ``record``.

    The record is kept as the channel gave it, less what stands elsewhere.  Without a channel, or with one
    that is only a name, it is the folder above the subdir of the record's URL.  Raises ``IntegrityError``.
    """
    fields = Fields(dict(record), "record")
    subdir = _subdir(fields)
    channel = fields.text_or_none("channel") or ""
    try:
        if "://" not in channel:
            channel = plain_url(fields.text("url")).rpartition("/")[0].removesuffix(f"/{subdir}")
        channel = plain_url(channel)
    except ValueError as problem:
        raise fields.wrong(f"'channel' {problem}") from None
    return {"channel": channel, "subdir": subdir, "record": _without(record, _OUTSIDE)}


def artifact_of(record: Mapping[str, Any], ref: str) -> Artifact | Finding:
    """The artifact of a full record in the environment ``ref``, or why there can be none.

    ``conda-unhashed`` where nobody names a sha256, ``conda-invalid`` for a record that is malformed or
    contradicts its own file name.
    """
    subject = f"{record.get('name') or record.get('fn') or 'a package'} in {ref}"
    try:
        return _artifact(record, ref, subject)
    except HaversackError as problem:
        remedy = "tell whoever keeps the channel, or choose another version"
        return Finding("conda-invalid", subject, f"its record is malformed: {problem.message}", remedy)


def _artifact(record: Mapping[str, Any], ref: str, subject: str) -> Artifact | Finding:
    fields = Fields(dict(record), "record")
    name, version = fields.text("name"), fields.text("version")
    try:
        origin = plain_url(fields.text("url"))
    except ValueError as problem:
        raise fields.wrong(f"'url' {problem}") from None
    filename = fields.text_or_none("fn") or unquote(origin.rpartition("/")[2])
    suffix = _suffix(filename)
    if suffix is None or not is_safe_filename(filename):
        raise fields.wrong(f"{filename!r} is not the plain name of a conda package")
    stem = f"{name}-{version}-{fields.text('build')}"
    # Names have no case (CEP 26); a few old files are written with capitals all the same.
    if filename.removesuffix(suffix).casefold() != stem.casefold():
        raise fields.wrong(f"its file is called {filename!r}, not {stem + suffix!r}")
    _check(record, fields)
    sha256 = (fields.text_or_none("sha256") or "").lower()
    if not sha256:
        told = "names no sha256"
        if fields.text_or_none("md5"):
            told += "; it has an md5, for which a second file can be made, and that is not enough"
        return Finding("conda-unhashed", subject, told, "use a channel or a lock that names the sha256")
    digest = f"sha256:{sha256}"
    if not is_digest(digest):
        raise fields.wrong("'sha256' is not 64 hexadecimal digits")
    size = fields.count_or_none("size")
    return Artifact("conda", name, version, filename, digest, size, origin, (ref,), facts_of(record))


def record_of(artifact: Artifact) -> dict[str, Any]:
    """The full record of an artifact, put together again.  Raises ``IntegrityError`` naming its file."""
    facts = Fields(dict(artifact.facts), artifact.filename)
    record = {
        **facts.table("record"),
        "name": artifact.name,
        "version": artifact.version,
        "subdir": _subdir(facts),
        "sha256": hex_of(artifact.digest),
        "fn": artifact.filename,
        "url": artifact.origin,
        "channel": facts.text("channel"),
    }
    if artifact.size is not None:
        record["size"] = artifact.size
    if _suffix(artifact.filename) is None:
        raise facts.wrong("is not the name of a conda package")
    return record


def write(subdir: str, records: Iterable[Mapping[str, Any]]) -> bytes:
    """The ``repodata.json`` of some full records: equal records in any order, equal bytes.

    Canonical JSON, without a newline at its end.  Raises ``ValueError`` when two records of one file differ
    or one is of another subdir.
    """
    tables: dict[str, dict[str, Any]] = {"packages": {}, "packages.conda": {}}
    for record in records:
        filename, kept = record["fn"], _without(record, _BESIDE)
        if record["subdir"] != subdir:
            raise ValueError(f"{filename} is for {record['subdir']}, not for {subdir}")
        # Until 2019 all packages were .tar.bz2; readers of then know only "packages" (CEP 12).
        table = tables["packages.conda" if filename.endswith(".conda") else "packages"]
        if table.setdefault(filename, kept) != kept:
            raise ValueError(f"two records of {filename} differ")
    return canonical({"info": {"subdir": subdir}, **tables, "removed": [], "repodata_version": 1})


_BLOCK = 1 << 17
"""Bytes in a block: the most that RFC 8878 §3.1.1.2.3 allows."""
_RAW, _RLE = 0, 1


def zstd_stored(data: bytes) -> bytes:
    """A Zstandard frame (RFC 8878) that holds ``data`` uncompressed.

    Clients ask for ``repodata.json.zst`` before they ask for ``repodata.json``.  A compressor would be one
    more dependency, and its bytes change with its version; these are the same on every machine, and a
    channel of one site is small.  Blocks are raw, or one byte and a length where all bytes are equal.  The
    window is one block, so that a reader needs no more memory for a large channel than for a small one.
    """
    # Magic number; descriptor: content size in 8 bytes, window told, no checksum, no dictionary; window 2^17.
    parts = [b"\x28\xb5\x2f\xfd", b"\xc0", b"\x38", len(data).to_bytes(8, "little")]
    for start in range(0, len(data) or 1, _BLOCK):
        block = data[start : start + _BLOCK]
        last = start + _BLOCK >= len(data)
        same = len(block) > 1 and block == block[:1] * len(block)
        header = len(block) << 3 | (_RLE if same else _RAW) << 1 | last
        parts += [header.to_bytes(3, "little"), block[:1] if same else block]
    return b"".join(parts)


def _suffix(filename: str) -> str | None:
    return next((suffix for suffix in SUFFIXES if filename.endswith(suffix)), None)


def _without(record: Mapping[str, Any], keys: frozenset[str]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in keys}


def _subdir(fields: Fields) -> str:
    """The subdir of a record; it becomes a folder, so that nothing else may stand there."""
    subdir = fields.text("subdir")
    if not _SUBDIR.fullmatch(subdir):
        raise fields.wrong("'subdir' is not one of conda's")
    return subdir


def _check(record: Mapping[str, Any], fields: Fields) -> None:
    """What a solver reads of a record must be of the type it expects.  Raises ``IntegrityError``."""
    fields.count("build_number")
    for key in ("depends", "constrains"):
        if record.get(key) is not None:
            fields.texts(key)
    for key in ("timestamp", "indexed_timestamp"):
        fields.count_or_none(key)
