"""The site: what people declared in ``haversack.toml``, checked and typed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from haversack.model.artifact import Digest
from haversack.model.target import ANY, Target


@dataclass(frozen=True, slots=True)
class Index:
    """A package index.

    ``auth`` says where credentials come from: ``none``, ``env`` (``HAVERSACK_INDEX_<NAME>_USERNAME`` and
    ``_PASSWORD``), ``netrc`` or ``keyring``.  The URL itself never holds any.
    """

    name: str
    url: str
    default: bool = False
    auth: str = "none"
    family: ClassVar[str] = "index"


@dataclass(frozen=True, slots=True)
class Channel:
    """A conda channel; ``auth`` is as for an :class:`Index`, with ``HAVERSACK_CHANNEL_<NAME>_…``."""

    name: str
    url: str
    auth: str = "none"
    family: ClassVar[str] = "channel"


@dataclass(frozen=True, slots=True)
class Registry:
    """A container registry: ``host`` as image references name it, ``url`` where it (or a mirror of it) is.

    ``auth`` is as for an :class:`Index`, with ``HAVERSACK_REGISTRY_<NAME>_…``, or ``docker``: what
    ``docker login`` and ``podman login`` wrote.
    """

    name: str
    url: str
    host: str
    auth: str = "none"
    family: ClassVar[str] = "registry"


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user name and a password; ``repr`` shows neither."""

    username: str = field(repr=False)
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A relocatable Python archive for machines that have none."""

    url: str
    digest: Digest


@dataclass(frozen=True, slots=True)
class Environment:
    """A named set to install on targets; ``settings`` are the keys that belong to its kind.

    Without targets it is for the machine that it is locked on.  What is declared in a list (``[[image]]``)
    is one environment, ``images``, whose setting ``items`` holds the keys of each.
    """

    name: str
    kind: str
    targets: tuple[str, ...]
    check: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Site:
    """Everything a site declared.

    ``root`` is the folder of the declaration, against which its paths are meant; ``digest`` covers the
    declaration and every file it names.
    """

    name: str
    root: Path
    digest: Digest
    targets: tuple[Target, ...]
    environments: tuple[Environment, ...]
    indexes: tuple[Index, ...] = ()
    interpreters: Mapping[str, Interpreter] = field(default_factory=dict, hash=False)
    exclude_newer: str | None = None
    channels: tuple[Channel, ...] = ()
    registries: tuple[Registry, ...] = ()

    def target(self, name: str) -> Target:
        """The target of that name (:class:`KeyError` if there is none)."""
        for target in (*self.targets, ANY):
            if target.name == name:
                return target
        raise KeyError(name)

    def on(self, machine: Target) -> Site:
        """The same site, with ``machine`` as the target of every environment that names none."""
        here = replace(machine, name=machine.long_name)
        environments = tuple(e if e.targets else replace(e, targets=(here.name,)) for e in self.environments)
        if environments == self.environments or any(t.name == here.name for t in self.targets):
            return replace(self, environments=environments)
        return replace(self, environments=environments, targets=(*self.targets, here))
