"""``haversack serve``: what a snapshot holds, in the protocols of other people's tools.

``--export`` writes it as static files, for any web server or for a shared folder.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from haversack.clients import BASE_URL, Served, address
from haversack.clients.together import render as all_clients
from haversack.errors import (
    HaversackError,
    IntegrityError,
    NotFoundError,
    PrefixError,
)
from haversack.formats import nginx
from haversack.formats.canonical import Fields, canonical, parse
from haversack.model.artifact import Digest, hex_of
from haversack.model.finding import Finding, raise_blocking
from haversack.model.snapshot import Snapshot
from haversack.ports import Inside, Store
from haversack.verbs import holdings
from haversack.verbs.aside import beside, clear_leftovers, swap, unwritable
from haversack.verbs.pages import body
from haversack.views import Page, View, view_of

TYPES = "content-types.json"
"""The media types of the pages, for whatever serves them without the nginx configuration."""
TEXT = "text/plain; charset=utf-8"
MARKER = "haversack-export.json"
"""The file that says a folder is an export, and of what."""
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export did, or would do on a dry run.

    ``size`` counts the bytes of all ``files``, ``shared`` those that are one on disk with the store's.
    ``changed`` is false where the folder held just that already, so that it was left as it was.
    """

    folder: Path
    snapshot: str
    id: Digest
    files: int
    size: int
    shared: int
    changed: bool
    findings: tuple[Finding, ...]


def export(
    folder: Path,
    inside: Inside,
    snapshot: str | None = None,
    *,
    base_url: str | None = None,
    link: bool = True,
    dry_run: bool = False,
) -> Exported:
    """Write the views of a snapshot (the current one) to ``folder``: built aside, then swapped in one step.

    Only an absent or empty folder, or an earlier export, is taken.  Every blob is hashed.  With ``link`` it
    is then a hard link to the store where the system has them and everybody may read it, else a copy.
    ``base_url`` is where the folder will be served; it goes into the configuration for clients.

    Raises ``PrefixError``, ``NotFoundError``, ``SpaceError``, and with all findings ``IntegrityError`` or
    ``StoreError`` when the store is not whole.
    """
    base = BASE_URL if base_url is None else address(base_url)
    held, content = holdings.current_snapshot(inside.store, snapshot)
    folder = folder.absolute()
    replaced = _check_folder(folder, inside.store.path(content.id))
    view = view_of(content)
    parts = _sorted_out(view)
    pages = parts.pages
    for name, data in all_clients(Served(content, held.name, base)).items():
        pages[f"clients/{name}"], parts.types[f"clients/{name}"] = data, TEXT
    types = nginx.types_of(parts.types.items())
    pages |= nginx.configuration(held.name, types, parts.types)
    pages[TYPES] = canonical(types.to_json()) + b"\n"
    pages[MARKER] = canonical({"haversack-export": "1.0", "snapshot": content.id}) + b"\n"
    size = parts.size + sum(map(len, pages.values()))
    count = len(pages) + len(parts.made) + sum(map(len, parts.blobs.values()))
    done = Exported(folder, held.name, content.id, count, size, 0, True, tuple(view.findings()))
    if dry_run:
        return done
    aside = beside(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        clear_leftovers(folder, _is_export)
        # The marker comes first: it makes a leftover known for one.
        for path, data in reversed(pages.items()):
            place = aside / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)
        done = replace(done, shared=_fill(aside, parts, content, inside, link=link))
        if replaced and _same(aside, folder, {*pages, *parts.made}):
            return replace(done, changed=False)
        details = {"folder": str(folder), "name": held.name, "files": count}
        inside.ledger.append("export", content.id, details)
        swap(aside, folder, replaced=replaced)
    except OSError as problem:
        raise unwritable(problem, "exported to", folder) from problem
    finally:
        if aside.exists():
            shutil.rmtree(aside)
    return done


@dataclass(frozen=True, slots=True)
class _Parts:
    """What views are written from: bytes by path, pages made of a part of a blob, and the paths of each blob.

    ``types`` are the media types of all paths, ``size`` the bytes of all but ``pages``.
    """

    pages: dict[str, bytes]
    made: dict[str, Page]
    blobs: dict[Digest, list[str]]
    types: dict[str, str]
    size: int


def _sorted_out(view: View) -> _Parts:
    """The pages of a view.  Raises ``IntegrityError`` when a path is a file and a folder at once."""
    pages: dict[str, bytes] = {}
    made: dict[str, Page] = {}
    blobs: dict[Digest, list[str]] = {}
    types: dict[str, str] = {}
    paths, size = list(view.paths()), 0
    folders = {path[:end] for path in paths for end, letter in enumerate(path) if letter == "/"}
    told = "is a file and a folder at once"
    raise_blocking(
        [Finding("name-clash", path, told) for path in paths if path in folders],
        "the snapshot cannot be exported",
    )
    for path in paths:
        page = view.get(path)
        assert page is not None
        types[path] = page.media_type
        if page.blob is None:
            pages[path] = page.data or b""
            continue
        if page.metadata or page.start:
            made[path] = page
        else:
            blobs.setdefault(page.blob, []).append(path)
        size += page.size or 0
    return _Parts(pages, made, blobs, types, size)


def _fill(aside: Path, parts: _Parts, content: Snapshot, inside: Inside, *, link: bool) -> int:
    """Put every blob at its paths, and what is made of blobs, on all cores; return the bytes shared with the store."""
    every = [*parts.made, *(path for paths in parts.blobs.values() for path in paths)]
    for folder in {(aside / path).parent for path in every}:
        folder.mkdir(parents=True, exist_ok=True)

    def whole(item: tuple[Digest, Sequence[str]]) -> int:
        digest, paths = item
        shared = _put(inside.store, digest, [aside / path for path in paths], link=link)
        advance(content.blobs[digest])
        return content.blobs[digest] * len(paths) * shared

    def part(item: tuple[str, Page]) -> int:
        (aside / item[0]).write_bytes(body(item[1], inside.store))
        return 0

    def tried(work: Callable[[Any], int], item: Any, subject: str) -> tuple[int, Finding | None]:
        try:
            return work(item), None
        except (IntegrityError, NotFoundError) as problem:
            code = "store-damaged" if isinstance(problem, IntegrityError) else "store-incomplete"
            remedy = "receive a bundle that holds it again"
            return 0, Finding(code, subject, problem.message, remedy)

    total = sum(content.blobs[digest] for digest in parts.blobs)
    with inside.progress("exporting", total) as advance, ThreadPoolExecutor(os.cpu_count()) as pool:
        done = list(pool.map(lambda i: tried(whole, i, f"{i[0]} ({i[1][0]})"), parts.blobs.items()))
        done += pool.map(lambda i: tried(part, i, f"{i[1].blob} ({i[0]})"), parts.made.items())
    findings = {finding.subject.partition(" ")[0]: finding for _, finding in reversed(done) if finding}
    raise_blocking([*reversed(findings.values())], "the store is not whole; nothing was exported")
    return sum(shared for shared, _ in done)


def _put(store: Store, digest: Digest, places: Sequence[Path], *, link: bool) -> bool:
    """Put a blob at some places, hashed; whether it is the store's own file.

    What is hashed is the link: a name in the store could lead elsewhere a moment later.
    """
    first, *more = places
    # A copy of what lies elsewhere is no file of the store's, and to link it would keep it beyond the cache's limit.
    shared = link and store.copies() is None and _linked(store.path(digest), first)
    if shared:
        with first.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != hex_of(digest):
                raise IntegrityError("is not what its name says", where=str(store))
    else:
        with store.open(digest) as source, first.open("xb") as copy:
            shutil.copyfileobj(source, copy, _CHUNK)
    for place in more:
        if not _linked(first, place):
            shutil.copyfile(first, place)
    return shared


def _linked(file: Path, name: Path) -> bool:
    """Give a file one more name, if everybody may read it and the system can."""
    if file.stat().st_mode & 0o444 != 0o444:
        return False
    try:
        name.hardlink_to(file)
    except FileExistsError:
        raise
    except OSError:
        return False
    return True


def _check_folder(folder: Path, blob: Path) -> bool:
    """Whether an export is at ``folder``.  Raises ``PrefixError`` if something else is, or the store in it."""
    if not folder.exists() and not folder.is_symlink():
        return False
    if folder.is_symlink() or not folder.is_dir():
        raise PrefixError(
            "is not a folder", where=str(folder), remedy="choose a folder that does not exist yet"
        )
    if blob.resolve().is_relative_to(folder.resolve()):
        raise PrefixError("holds the store", where=str(folder), remedy="choose another folder")
    if _is_export(folder):
        return True
    if any(folder.iterdir()):
        raise PrefixError(
            "is no export of haversack's, and only what haversack made is ever replaced",
            where=str(folder),
            remedy="choose a folder that does not exist yet, or remove it yourself",
        )
    return False


def _is_export(folder: Path) -> bool:
    try:
        data = (folder / MARKER).read_bytes()
        Fields(parse(data, MARKER), MARKER).text("haversack-export")
    except (OSError, HaversackError):
        return False
    return True


def _same(aside: Path, folder: Path, written: Collection[str]) -> bool:
    """Whether ``folder`` holds the same names, each the same file on disk or, if written, of the same bytes."""
    mine, other = dict(_files(aside)), dict(_files(folder))
    if mine.keys() != other.keys():
        return False
    return all(
        os.path.samestat(status, other[path])
        if path not in written
        else other[path].st_mode == status.st_mode
        and (folder / path).read_bytes() == (aside / path).read_bytes()
        for path, status in mine.items()
    )


def _files(folder: os.PathLike[str], within: str = "") -> Iterator[tuple[str, os.stat_result]]:
    """Every file under a folder by its path within, links as themselves."""
    with os.scandir(folder) as entries:
        for entry in entries:
            path = within + entry.name
            if entry.is_dir(follow_symlinks=False):
                yield from _files(entry, f"{path}/")
            else:
                yield path, entry.stat(follow_symlinks=False)
