"""``haversack render PLATFORM`` and ``haversack doctor PLATFORM``: what runs a site's jobs."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from haversack.errors import NotFoundError, UsageError
from haversack.formats import declaration, lockfile, oci
from haversack.formats.canonical import canonical
from haversack.formats.schema import Key, patterns_of
from haversack.kinds import keys, kinds
from haversack.model.finding import Finding, raise_blocking, worst_first
from haversack.model.lock import Lock, LockedEnvironment
from haversack.model.snapshot import Snapshot
from haversack.model.target import ANY
from haversack.platforms import KIND, Order, Platform, Rendered, platforms
from haversack.ports import Inside
from haversack.verbs import holdings
from haversack.verbs.doctor import Diagnosis
from haversack.verbs.packed import pack, stale
from haversack.verbs.render import keep


@dataclass(frozen=True, slots=True)
class Written:
    """What was rendered: names relative to ``folder``, or the one file where there is none.

    Bytes of it that are no text are in ``shown`` as in arguments (PEP 383).
    """

    platform: str
    snapshot: str
    folder: Path | None
    files: tuple[str, ...]
    written: tuple[str, ...]
    removed: tuple[str, ...]
    findings: tuple[Finding, ...]
    shown: str | None = None


def render(
    name: str,
    folder: Path | None,
    inside: Inside,
    *,
    snapshot: str | None = None,
    declared: Path | None = None,
    asked: Mapping[str, Any] | None = None,
    command: Sequence[str] = (),
    force: bool = False,
    dry_run: bool = False,
) -> Written:
    """Render a platform of a snapshot (the current one), or of a ``declared`` file, into ``folder``.

    Nothing has crossed of a declaration: what is rendered of packages and images is a finding then.
    What is rendered for a single question (a job script) stays until the same is asked again, and may be shown
    instead of written.  Raises ``UsageError``, ``NotFoundError``, ``SpaceError``, ``PrefixError`` for files
    that were edited since, and the class of the worst finding that blocks.
    """
    if declared is not None:
        platform, order = _of_declaration(name, declared, folder, asked or {}, command)
    else:
        platform, order = order_of(name, inside, snapshot, folder, asked or {}, command)
    made = platform.render(order, inside)
    findings = tuple(worst_first(made.findings))
    raise_blocking(findings, f"{name} cannot be rendered")
    files = tuple(sorted({*made.files, *made.archives}))
    if order.folder is None:
        if made.printable is None:
            raise UsageError("there is more than one file to write", remedy="say where: -o DIR")
        shown = made.files[made.printable].decode(errors="surrogateescape")
        return Written(name, order.name, None, files, (), (), findings, shown)
    archives, theirs = stale(order.folder, made.archives, force=force, dry_run=dry_run)
    written, removed = keep(order.folder, _by(name, made), edited=theirs, force=force, dry_run=dry_run)
    for path in archives if not dry_run else ():
        pack(order.folder, path, made.archives[path], f"{name} {path}")
    return Written(name, order.name, order.folder, files, (*written, *archives), removed, findings)


def _by(name: str, made: Rendered) -> dict[str, dict[str, bytes]]:
    """The files by who rendered them: each one of a single question is a renderer's of its own."""
    singles = {*made.singles, *filter(None, [made.printable])}
    of_all = {path: data for path, data in made.files.items() if path not in singles}
    by = {f"{name} {path}": {path: made.files[path]} for path in singles}
    return by if made.printable else by | {name: of_all}


def preflight(name: str, inside: Inside, asked: Mapping[str, Any] | None = None) -> Diagnosis:
    """Everything about a platform of the current snapshot that will fail here.

    Raises ``NotFoundError``, and ``UsageError`` for what the platform does not look at.
    """
    given = {key: value for key, value in (asked or {}).items() if value is not None}
    platform, order = order_of(name, inside, None, None, given, ())
    if foreign := sorted(given.keys() - platform.looks.keys()):
        raise UsageError(f"{name} does not take --{foreign[0].replace('_', '-')}", remedy="leave it out")
    told = f"platform: {name} of snapshot {order.name}"
    return Diagnosis((told,), tuple(worst_first(platform.preflight(order, inside))))


def order_of(
    name: str,
    inside: Inside,
    snapshot: str | None,
    folder: Path | None,
    asked: Mapping[str, Any],
    command: Sequence[str],
) -> tuple[Platform, Order]:
    """A platform of a snapshot (the current one) and what to render of it.

    Raises ``NotFoundError``, and ``UsageError`` for what was asked and is nothing.
    """
    held, content = holdings.current_snapshot(inside.store, snapshot)
    mine = content.environment(f"{KIND}.{name}", ANY.name)
    platform = platforms().get(name)
    if mine is None or platform is None:
        names = [e.locked.name for e in content.environments if e.locked.kind == KIND]
        known = ", ".join(name.removeprefix(f"{KIND}.") for name in names) or "none"
        raise NotFoundError(
            f"snapshot {held.name} has no platform {name!r}; it has {known}",
            remedy=f"declare [{KIND}.{name}], and bring a snapshot that has it",
        )
    with inside.store.open(content.lock) as file:
        lock, _ = lockfile.read(file.read())
    order = Order(
        settings=mine.locked.settings,
        content=content,
        name=held.name,
        names={one.name: one.snapshot for one in holdings.read(inside.store).held},
        origin=origin_of(name, held.name, content, lock),
        asked=_checked(platform.asks, asked),
        command=tuple(command),
        folder=folder.absolute() if folder else None,
        movable=frozenset(e.locked.name for e in content.environments if kinds()[e.locked.kind].relocatable),
    )
    return platform, order


def origin_of(platform: str, name: str, content: Snapshot, lock: Lock) -> str:
    """The line at the top of what is rendered: by what, of which snapshot, and from which declaration."""
    told = f"of snapshot {name} ({content.id[:19]}…), declaration {lock.declaration[:19]}…"
    return f"Written by haversack render {platform}, {told}."


def _of_declaration(
    name: str, path: Path, folder: Path | None, asked: Mapping[str, Any], command: Sequence[str]
) -> tuple[Platform, Order]:
    """A platform as it is declared, before anything is locked.  Raises ``DeclarationError``."""
    site = declaration.parse(path, keys())
    platform = platforms().get(name)
    mine = [environment for environment in site.environments if environment.kind == KIND]
    if platform is None or f"{KIND}.{name}" not in {environment.name for environment in mine}:
        raise NotFoundError(
            f"declares no platform {name!r}", where=str(path), remedy=f"add a table [{KIND}.{name}]"
        )
    locked = []
    for one in mine:
        # As JSON gives it back, from a snapshot.
        settings = json.loads(canonical(one.settings))
        locked.append(LockedEnvironment(one.name, ANY.name, KIND, settings=settings))
        if one.name == f"{KIND}.{name}":
            raise_blocking(platform.validate(one.settings, site), f"{name} cannot be rendered")
    lock = Lock(site.name, site.digest, (ANY,), tuple(locked), ())
    content, _ = oci.build(lock, {})
    order = Order(
        settings=next(one.settings for one in locked if one.name == f"{KIND}.{name}"),
        content=content,
        name=site.name,
        names={},
        origin=f"Written by haversack render {name}, of the declaration {site.digest[:19]}….",
        asked=_checked(platform.asks, asked),
        command=tuple(command),
        folder=folder.absolute() if folder else None,
        crossed=False,
    )
    return platform, order


def _checked(asks: Mapping[str, Key], asked: Mapping[str, Any]) -> dict[str, Any]:
    """The answers that were given.  Raises ``UsageError`` for one that is none."""
    found = {name: value for name, value in asked.items() if value not in (None, False)}
    for name, value in found.items():
        key = asks[name]
        if isinstance(value, bool):
            continue
        if key.choices and value not in key.choices:
            raise UsageError(f"--{name}: {value!r} is none of {', '.join(key.choices)}")
        if not value or not all(re.fullmatch(pattern, value) for pattern in patterns_of(key)):
            raise UsageError(f"--{name}: {value!r} is not {key.expects or 'a text'}")
    return found
