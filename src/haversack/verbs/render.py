"""``haversack render``: what other programs read, made of a snapshot, kept in a folder.

:func:`keep` is the rule for all that is rendered: a file that a person edited since is shown, and stays.
"""

from __future__ import annotations

import contextlib
import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from haversack.clients import Served, address
from haversack.clients.together import render as all_clients
from haversack.errors import NotFoundError, PrefixError
from haversack.formats import rendered
from haversack.formats.rendered import MARKER, Kept
from haversack.model.artifact import digest_of
from haversack.model.finding import Finding, raise_blocking
from haversack.ports import Inside
from haversack.verbs import holdings
from haversack.verbs.aside import beside, unwritable

_LOGIN = re.compile(r"(?<=://)[^/\s\"']+@|\b(password|_authToken|token)\b.*", re.IGNORECASE)
_SHOWN = 40


@dataclass(frozen=True, slots=True)
class Rendered:
    """What was rendered, or would be on a dry run: names relative to ``folder``.

    ``written`` were not there or differed, ``removed`` had been rendered earlier and are of no use now.
    """

    folder: Path
    snapshot: str
    files: tuple[str, ...]
    written: tuple[str, ...]
    removed: tuple[str, ...]
    findings: tuple[Finding, ...] = ()


def clients(
    folder: Path,
    inside: Inside,
    base_url: str,
    *,
    only: str | None = None,
    snapshot: str | None = None,
    dated: bool = False,
    ca: Path | None = None,
    home: str | None = None,
    force: bool = False,
    dry_run: bool = False,
) -> Rendered:
    """Write the configuration of every client, or of ``only`` one, of what is served at ``base_url``.

    ``dated`` points at the place of this snapshot, which stays as it is, instead of at what is current.
    ``home`` is where the files will lie on the machines that use them (``folder`` itself).  Raises
    ``UsageError``, ``NotFoundError``, ``SpaceError``, and ``PrefixError`` for files that were edited since.
    """
    base = address(base_url)
    held, content = holdings.current_snapshot(inside.store, snapshot)
    folder = folder.absolute()
    if dated:
        base += f"/@{held.name}"
    pem = None
    if ca is not None:
        try:
            pem = ca.read_bytes()
        except OSError as problem:
            raise NotFoundError(f"cannot be read: {problem.strerror}", where=str(ca)) from problem
    served = Served(content, held.name, base, (home or str(folder)).rstrip("/"))
    files = all_clients(served, pem, only)
    findings = tuple(_left(served, files)) if only in {None, "containers", "docker"} else ()
    if not files:
        raise NotFoundError(
            "; ".join(finding.message for finding in findings)
            or f"snapshot {held.name} holds nothing of which {only} must be told",
            remedy="render another client, or another snapshot",
        )
    written, removed = keep(folder, {only or "clients": files}, force=force, dry_run=dry_run)
    return Rendered(folder, held.name, tuple(files), written, removed, findings)


def _left(served: Served, files: Mapping[str, bytes]) -> Iterable[Finding]:
    """What clients cannot be told."""
    if served.registries() and "registries.conf" not in files:
        where = "a path" if served.host else "a folder"
        told = f"podman and docker take no address with {where}; registries.conf and daemon.json are left out"
        yield Finding("client-address", served.base, told, "serve it at a host of its own", blocking=False)


def keep(
    folder: Path,
    made: Mapping[str, Mapping[str, bytes]],
    *,
    edited: Sequence[Finding] = (),
    force: bool = False,
    dry_run: bool = False,
    marker: str = MARKER,
    removing: bool = True,
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Make ``folder`` hold just what these renderers made, beside whatever else lies there.

    ``made`` holds the files of each by its name.  What another one rendered there stays, and so does what a list
    without names tells of.  ``marker`` is the file in the folder that says what was rendered, and by whom.
    Returns the names that were written and those that were removed.  A file that is not as it was rendered
    last, or that nobody rendered, is never replaced nor removed unless ``force``: all of them are shown as
    differences in one ``PrefixError``, and nothing is written; a file that another renderer wants too is never
    replaced.  Each file is replaced in one step, and after a write that failed the same call, or any other, goes on.
    What would be removed stays for another call unless ``removing``.  On a dry run a file that may not be read
    counts as it was rendered last.  ``edited`` is what somebody else found of files beside these, told with the rest.
    """
    try:
        return _keep(folder, made, folder / marker, edited, force=force, dry_run=dry_run, removing=removing)
    except OSError as problem:
        place = Path(problem.filename) if isinstance(problem.filename, str) else folder
        raise unwritable(problem, "rendered", place) from problem


def _keep(
    folder: Path,
    made: Mapping[str, Mapping[str, bytes]],
    marker: Path,
    edited: Sequence[Finding],
    *,
    force: bool,
    dry_run: bool,
    removing: bool,
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    before = recorded(marker)
    files = {name: data for of_one in made.values() for name, data in of_one.items()}
    now = {name: Kept(digest_of(data), who) for who in made for name, data in made[who].items()}
    stays = {name: kept for name, kept in before.items() if name not in files and kept.by not in made}
    # What stays is not looked at: an environment that was packed there has gigabytes.
    looked = {*files, *before} - stays.keys()
    unread = {name for name in looked if dry_run and not may_read(folder / name)}
    held = {name: None if name in unread else _read(folder / name) for name in looked}
    for name in unread & before.keys():
        same = name in now and before[name].is_as_rendered(now[name].digest)
        held[name] = files[name] if same else b""
    for name, kept in now.items():
        other = before[name].by if name in before and held[name] is not None else None
        if other not in {None, kept.by}:
            raise PrefixError(
                f"was rendered by {other}, and {kept.by} would write another one there",
                where=str(folder / name),
                remedy="render each into a folder of its own",
            )
    written = tuple(sorted(name for name, data in files.items() if held[name] != data))
    removed = tuple(sorted(n for n in before if n not in files and n not in stays and held[n] is not None))
    findings = [
        Finding("rendered-edited", name, difference(name, data, files.get(name)), "keep it, or say --force")
        for name in (*written, *removed)
        if name not in unread
        and (data := held[name]) is not None
        and (name not in before or not before[name].is_as_rendered(digest_of(data)))
    ]
    if not force:
        raise_blocking(
            [*edited, *findings], f"{folder} holds files that were edited since; nothing was written"
        )
    if not dry_run:
        coming = {n: replace(before[n], next=now[n].digest) if n in before else now[n] for n in written}
        # Said first: a file that was written before something failed is no edit.
        record(marker, before | coming)
        for name in written:
            _write(folder / name, files[name])
        for name in removed if removing else ():
            (folder / name).unlink()
        left = {} if removing else {name: before[name] for name in removed}
        record(marker, stays | left | now)
    return written, removed


def difference(name: str, held: bytes, made: bytes | None) -> str:
    """How what lies there differs from what would be rendered, without logins."""
    found = difflib.unified_diff(
        held.decode("utf-8", "replace").splitlines(),
        (made or b"").decode("utf-8", "replace").splitlines(),
        f"{name} (there)",
        f"{name} (rendered)",
        lineterm="",
        n=1,
    )
    lines = [_LOGIN.sub("***", line) for line in found]
    more = [f"… and {len(lines) - _SHOWN} lines more"] if len(lines) > _SHOWN else []
    return "\n".join(["was edited since it was rendered, or is somebody else's", *lines[:_SHOWN], *more])


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def may_read(path: Path) -> bool:
    """Whether nobody forbids it."""
    try:
        path.open("rb").close()
    except PermissionError:
        return False
    except OSError:
        """There is none, or it cannot be read by anybody."""
    return True


def recorded(marker: Path) -> dict[str, Kept]:
    """What the list says of the files beside it; nothing where there is none.  Raises ``OSError``."""
    return rendered.read(_read(marker))


def record(marker: Path, kept: Mapping[str, Kept]) -> None:
    """Write the list; where nothing is kept, there is none."""
    if not kept:
        marker.unlink(missing_ok=True)
    elif _read(marker) != (told := rendered.write(kept)):
        _write(marker, told)


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = beside(path)
    try:
        aside.write_bytes(data)
        aside.replace(path)
    except OSError as problem:
        with contextlib.suppress(OSError):
            aside.unlink()
        problem.filename = str(path)
        raise
