"""Platforms: what runs a site's jobs, each one module of this folder that holds a ``PLATFORM``.

The folder is the registry.  A platform is declared as ``[platform.NAME]``; what stands there travels in the
lock, so that the inside can render its configuration from a snapshot alone.  A platform knows nothing of
another; ``tests/contract/test_platforms.py`` holds each to the protocol below, and fails until a new one
brings its sample.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from haversack.formats import hosts
from haversack.formats.schema import Key, KindKeys
from haversack.model.artifact import Digest
from haversack.model.finding import Finding
from haversack.model.site import Environment, Site
from haversack.model.snapshot import Snapshot
from haversack.model.target import ANY
from haversack.ports import Inside

KIND = "platform"
"""The kind of the environment that a platform is in a lock, and how its name begins: ``platform.slurm``."""


@dataclass(frozen=True, slots=True)
class Order:
    """What to render of a platform: its ``settings`` as they stand in a snapshot, and what was asked for.

    ``name`` is what the store calls the snapshot, ``names`` what it calls every one that it holds.
    ``origin`` says in one line by what, from which snapshot and from which declaration.  ``asked`` holds
    the values of the platform's :attr:`Platform.asks`, ``command`` the words after ``--``.  ``folder`` is the
    absolute path of where the files will lie, if they will; ``movable`` are the environments that work
    wherever they are moved to.
    ``crossed`` says that it is of a snapshot, and not of a declaration of which nothing is locked.
    """

    settings: Mapping[str, Any]
    content: Snapshot
    name: str
    names: Mapping[str, Digest]
    origin: str
    asked: Mapping[str, Any] = field(default_factory=dict)
    command: tuple[str, ...] = ()
    folder: Path | None = None
    movable: frozenset[str] = frozenset()
    crossed: bool = True

    def origin_for(self, name: str, snapshot: Digest) -> str:
        """The ``origin`` of what is made of another snapshot than this one, with the settings of this one."""
        if name == self.name:
            return self.origin
        return f"{self.origin.removesuffix('.')}, for snapshot {name} ({snapshot[:19]}…)."


@dataclass(frozen=True, slots=True)
class Rendered:
    """Files by their path, and what to know about them.

    ``archives`` are folders to write as one tar each, by the path of the tar.  ``printable`` names the one
    file that is made, and is shown where nobody says where to write.  ``singles`` names files that only the
    question that was asked makes, beside all others: they stay when another one is asked.
    """

    files: Mapping[str, bytes]
    findings: tuple[Finding, ...] = ()
    archives: Mapping[str, Path] = field(default_factory=dict)
    printable: str | None = None
    singles: frozenset[str] = frozenset()


class Platform(Protocol):
    """A platform, from its declaration to the files that configure it."""

    name: str
    """What stands in ``[platform.NAME]`` and behind ``haversack render``."""
    keys: KindKeys
    """The keys of its table; nested tables are :class:`KindKeys` of their own."""
    asks: Mapping[str, Key]
    """What ``haversack render NAME`` takes as options, beside those that it always takes."""

    looks: Mapping[str, Key]
    """What ``haversack doctor NAME`` takes as options: some of ``values``, ``chart``, ``registry`` and
    ``base_url``."""

    def validate(self, settings: Mapping[str, Any], site: Site) -> list[Finding]:
        """Everything in its table that is wrong with respect to the rest of the declaration; pure."""
        ...

    def needs(self, settings: Mapping[str, Any], site: Site) -> tuple[Environment, ...]:
        """What must be locked for it; pure, and the same for the same declaration.

        What stands in lists (``files``, ``images``) is added to what people listed, an environment of another
        kind to theirs.  Where people declared something of the same name, theirs is taken
        (``haversack.verbs.needs``).
        """
        ...

    def render(self, order: Order, inside: Inside) -> Rendered:
        """The files: the same for the same order and the same installed environments.

        The first line that is a person's to read says :attr:`Order.origin`; a table (``.csv``) has room for no such
        line, and a file beside it that says it names the table or its folder.  No file holds a secret.  Raises
        ``UsageError`` for an order that means nothing, and the class of its worst finding where that blocks.
        """
        ...

    def preflight(self, order: Order, inside: Inside) -> list[Finding]:
        """Everything that will fail at this site; only reads.

        What cannot be found out is a finding ``platform-unknown``, never silence.
        """
        ...


@functools.cache
def platforms() -> Mapping[str, Platform]:
    """Every platform by its name."""
    found: dict[str, Platform] = {}
    for module in sorted(pkgutil.iter_modules(__path__), key=lambda module: module.name):
        platform: Platform = importlib.import_module(f"{__name__}.{module.name}").PLATFORM
        found[platform.name] = platform
    return found


def unreachable(base: str) -> list[Finding]:
    """A finding for an address that means another machine on a node or in a pod, or none."""
    host = urlsplit(base).hostname or ""
    if not _is_here(host):
        return []
    said = f"{base} means the pod itself to a pod, and cannot be reached" if host else f"{base} is in no pod"
    return [
        Finding("client-address", "--base-url", said, "say the name by which other machines reach the mirror")
    ]


def of_registry(asked: Mapping[str, Any]) -> list[Finding]:
    """A finding for a registry that is each node itself, and one for a base URL whose path images would lose.

    ``asked`` is :attr:`Order.asked`, whose ``base_url`` is asked for images where it has no ``registry``.
    """
    registry, base = asked.get("registry"), urlsplit(asked.get("base_url", ""))
    if registry and _is_here(urlsplit(f"//{registry}").hostname or ""):
        said = f"{registry} means each node itself to the nodes, which pull the images"
        remedy = "say the name by which other machines reach the registry"
        return [Finding("client-address", "--registry", said, remedy)]
    if base.path.strip("/") and not registry:
        said = (
            f"images are asked of {base.netloc}, since their names have no place for the path of the base URL"
        )
        remedy = "say --registry, if the registry is elsewhere"
        return [Finding("client-address", "--registry", said, remedy, blocking=False)]
    return []


def _is_here(host: str) -> bool:
    """Whether a host means another machine on every machine, or none."""
    number = hosts.number(host)
    return hosts.is_here(host) or (number is not None and number.is_link_local)


def undeclared(names: Sequence[str], site: Site, subject: str) -> list[Finding]:
    """A finding for every name that is neither a declared environment nor a project."""
    known = {e.name for e in site.environments if e.targets != (ANY.name,) or e.kind == "project"}
    return [
        Finding(
            "platform-setting",
            subject,
            f"{name} is no environment of this declaration",
            f"declare [env.{name}], or write one of {', '.join(sorted(known)) or '(none)'}",
        )
        for name in names
        if name not in known
    ]
