"""The site: what people declared in ``haversack.toml``, checked and typed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from haversack.model.artifact import Digest
from haversack.model.target import Target


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
    """A named set to install on targets; ``settings`` are the keys that belong to its kind."""

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

    def target(self, name: str) -> Target:
        """The target of that name (:class:`KeyError` if there is none)."""
        for target in self.targets:
            if target.name == name:
                return target
        raise KeyError(name)
