"""What a service is made of: options, what must hold of them, units, and what lies around the units."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from haversack.services.terms import ALWAYS, Term, Test, When

OptionType: TypeAlias = Literal[
    "bool", "port", "positive", "word", "url", "path", "package", "lines", "words", "paths", "free", "enum"
]
"""``positive`` is an integer above zero and not above ``most``, ``word`` a text without blanks, ``url`` one with brackets
in it, ``path`` an absolute path, ``package`` the
prefix of what runs (a derivation of Nix or an absolute path), ``lines`` a text of lines, ``words`` a list of words,
``paths`` a table of absolute paths, ``free`` a table of anything."""


@dataclass(frozen=True, slots=True)
class Option:
    """An option of the service, as NixOS shows it.

    ``nullable`` ones are null by default.  ``choices`` are the texts of an ``enum``, or the keys of ``paths``.
    ``example`` stands in both documentations and is evaluated by their tests.  A path that is ``secret`` names a file
    that nobody but root may read: on NixOS it is refused in the store, which is everybody's to read.  ``most`` bounds
    what is ``positive``, where systemd or SkyPilot would refuse more.
    """

    type: OptionType
    description: str
    default: Any = None
    nullable: bool = False
    choices: tuple[str, ...] = ()
    example: Any = None
    secret: bool = False
    most: int = 525_600


@dataclass(frozen=True, slots=True)
class Assertion:
    """What must hold, and the sentence for whoever breaks it.  ``{path}`` in it is the value of an option.

    One that does not ``block`` is a warning.
    """

    test: Test
    message: str
    block: bool = True


@dataclass(frozen=True, slots=True)
class Unit:
    """A service of systemd, with its timer where it has one.

    ``service`` and ``timer`` hold directives; several terms mean one line each.  ``environment`` are variables of the
    process.  A unit with a timer is started by that alone.
    """

    name: str
    description: str
    when: Test = ALWAYS
    after: tuple[Term, ...] = ()
    wants: tuple[Term, ...] = ()
    environment: Mapping[str, Term] = field(default_factory=dict)
    unit: Mapping[str, Term] = field(default_factory=dict)
    service: Mapping[str, Term | tuple[Term, ...]] = field(default_factory=dict)
    timer: Mapping[str, Term] | None = None

    @property
    def files(self) -> tuple[str, ...]:
        """The names of its unit files."""
        return (f"{self.name}.service", *([] if self.timer is None else [f"{self.name}.timer"]))


@dataclass(frozen=True, slots=True)
class Listening:
    """A port of this machine that a unit (by its name without an end) listens at, under a condition.

    ``path`` is its option; null is no port.  ``host`` is the option with its address; without one it may be any.
    """

    path: str
    unit: str
    when: Test = ALWAYS
    host: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """A line of tmpfiles.d(5), under a condition."""

    term: Term
    when: Test = ALWAYS


@dataclass(frozen=True, slots=True)
class Config:
    """A file of configuration, in JSON: what ``option`` (a free table) holds, and ``added`` keys under conditions.

    ``foreign`` are keys that people write and that there are not, with what to do instead: NixOS refuses them.  The
    declaration knows every key (:mod:`haversack.skypilot.known`).
    """

    name: str
    option: str
    added: Mapping[str, When] = field(default_factory=dict)
    foreign: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Service:
    """A service: everything that is known of it.

    ``options`` are by their paths (``webUI.port``); ``tables`` describe what is before the dot.  The names of the
    options ``user`` and ``group`` are fixed; both are made where they are the default, with ``home``.  ``config`` is a
    file of its folder in ``/etc``, and ``variables`` names an option of lines that become an environment file there,
    ``environment``, which every unit reads.  ``listens`` are the ports of its units, none of which is one of ``beside``,
    a service that the same machine may have.  ``folders`` are options with folders that are its alone, none
    of them in or around one of ``beside``.  ``ports`` are options that the firewall of NixOS opens under a condition.
    ``logins`` are variables of every login.  ``programs`` is the folder of ``haversack/data`` with its small programs,
    ``commands`` what the package brings for people (on a machine without NixOS where there are ``logins``), ``tools``
    packages of nixpkgs on the path of each unit, and ``clouds`` those that are there under a condition.  ``extras``
    are a table by cloud and a free table: the clouds that they name are optional dependencies of the package.
    ``administrators`` is an option with the names of people who may start, stop and look at its units.
    """

    name: str
    description: str
    home: Term
    options: Mapping[str, Option]
    tables: Mapping[str, str]
    assertions: tuple[Assertion, ...]
    units: tuple[Unit, ...]
    tmpfiles: tuple[Line, ...] = ()
    config: Config | None = None
    variables: str = ""
    listens: tuple[Listening, ...] = ()
    beside: Service | None = None
    ports: tuple[tuple[str, Test], ...] = ()
    logins: Mapping[str, Term] = field(default_factory=dict)
    programs: str = ""
    folders: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()
    clouds: tuple[tuple[str, Test], ...] = ()
    extras: tuple[str, str] | None = None
    administrators: str = ""
