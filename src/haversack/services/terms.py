"""What stands in a unit and depends on options: a few terms that Python evaluates, and that are written as Nix too.

``text`` and ``nix`` interpret the same trees, so that what one of them says the other cannot forget.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Opt:
    """The value of an option, by its path: ``webUI.port``."""

    path: str


@dataclass(frozen=True, slots=True)
class Place:
    """A place that differs between the two worlds: ``package``, ``python``, ``programs``, ``etc`` or ``kill``.

    ``package`` is the prefix of what runs, ``python`` its interpreter, ``programs`` the folder of the small
    programs beside it, ``etc`` the folder of its rendered configuration, ``kill`` the program of kill(1).
    """

    name: str


@dataclass(frozen=True, slots=True)
class Join:
    """Terms as one text, numbers in decimal."""

    parts: tuple[Term, ...]


@dataclass(frozen=True, slots=True)
class Named:
    """A term that is meant in many places and written once, under a name."""

    name: str
    term: Term


@dataclass(frozen=True, slots=True)
class When:
    """A term under a condition; otherwise another, or nothing at all."""

    test: Test
    term: Term
    other: Term | None = None


@dataclass(frozen=True, slots=True)
class Each:
    """One text for each entry of an option that is a table or a list: ``before`` key ``between`` value ``after``.

    A list has no keys: ``between`` is not written then.  Keys come in their order, sorted.
    """

    path: str
    before: str = ""
    between: str = ""
    after: str = ""


@dataclass(frozen=True, slots=True)
class On:
    """Whether a boolean option is true."""

    path: str


@dataclass(frozen=True, slots=True)
class Given:
    """Whether an option is neither null nor empty."""

    path: str


@dataclass(frozen=True, slots=True)
class Has:
    """Whether a table has a key."""

    path: str
    key: str


@dataclass(frozen=True, slots=True)
class Same:
    """Whether two terms are equal."""

    one: Term
    other: Term


@dataclass(frozen=True, slots=True)
class Begins:
    """Whether the text of a term begins with that of another: a path below ``other`` and ``/``."""

    one: Term
    other: Term


@dataclass(frozen=True, slots=True)
class Below:
    """Whether a path, or one of a table of paths, lies below the folder of another option; null does not."""

    path: str
    folder: str


@dataclass(frozen=True, slots=True)
class Matches:
    """Whether a text option (or each item of a list, or each line of lines) matches a POSIX extended pattern whole.

    Null is matched as the empty text.  A pattern that is meant in many places has a ``name``.
    """

    path: str
    pattern: str
    name: str = ""


@dataclass(frozen=True, slots=True)
class Holds:
    """Whether one line of lines (or one item of a list) matches a POSIX extended pattern whole."""

    path: str
    pattern: str
    name: str = ""


@dataclass(frozen=True, slots=True)
class AtLeast:
    """Whether a number is not below another; null is none."""

    path: str
    number: int


@dataclass(frozen=True, slots=True)
class Clean:
    """Whether a free table, or lines, hold nothing that is called or looks like a secret, however deep it lies.

    The rules are :data:`HIDDEN_KEYS`, :data:`HIDDEN_TEXTS` and :data:`HIDDEN_WORDS`.
    """

    path: str


@dataclass(frozen=True, slots=True)
class Called:
    """A test that is meant in many places and written once, under a name."""

    name: str
    test: Test


@dataclass(frozen=True, slots=True)
class Not:
    """The contrary."""

    test: Test


@dataclass(frozen=True, slots=True)
class All:
    """Whether every test holds; without any it does."""

    tests: tuple[Test, ...] = ()


@dataclass(frozen=True, slots=True)
class Some:
    """Whether one of the tests holds."""

    tests: tuple[Test, ...]


Test: TypeAlias = (
    On | Given | Has | Same | Begins | Below | Matches | Holds | AtLeast | Clean | Called | Not | All | Some
)
Term: TypeAlias = str | int | Opt | Place | Join | Named | When | Each

ALWAYS = All()

_NAMES = "secret|password|passwd|passphrase|pass_phrase|sshpass|_pwd|npm(_config)?_+auth"
_KEYS = "(private|access|api|storage|account|shared)[_-]?key"
HIDDEN_KEYS = f"(.*({_NAMES}|{_KEYS}|token)|(.*([_-]|pg|db))?pass)(_?(key|id|value))?s?"
"""Keys of what is secret, in lower case.  Those that go on (``secretName``, ``token_file``) name where one lies."""
COUNTED = ".*tokens=[0-9]+"
"""A key and its value, with ``=`` between, that is a number of tokens and no secret."""
# What a shell puts there when the command runs ($NAME, a command in backquotes) is no secret.
_GIVEN = """["']?[^"'$` """
# Before a word of the same command, which ends at |, ; and &, unless they are quoted.
_BEFORE = r"""(("[^"]*"|'[^']*'|\\.|[^|;&"'\\])* )?"""
HIDDEN_TEXTS = (
    ".*-----BEGIN [A-Z ]*PRIVATE KEY.*",
    ".*(AKIA|ASIA)[0-9A-Z]{16}.*",
    # Tokens of Hugging Face, GitHub and GitLab.
    ".*(hf_|gh[pousr]_)[A-Za-z0-9]{30}.*",
    ".*(github_pat_|glpat-)[A-Za-z0-9_-]{20}.*",
    # curl, registries, proxytunnel, sshpass
    f".*curl {_BEFORE}-[A-Za-z]*u *[\"']?[^ :$`]+:{_GIVEN}].*",
    f".*(docker|podman|nerdctl|buildah|skopeo|oras|registry|auth|az) login {_BEFORE}-p *{_GIVEN}@].*",
    f"(.* )?-[PU] *[\"']?[^ :$`/]+:{_GIVEN}%/].*",
    f".*sshpass +(-[^ p][^ ]* +)*-p *{_GIVEN}].*",
)
"""Texts that are one, whatever their key; line breaks and tabs are blanks.  Most of them are commands, as in
:mod:`haversack.skypilot.secrets`, whose patterns Nix does not have."""
HIDDEN_WORDS = (
    ".*[a-z][a-z0-9+.-]*://[^/@: ]*:[^/@ ]+@.*",
    # ncat, curl, socat, plink
    f".*--?(proxy-auth|proxyauth|remproxyauth|proxy-user)( +|=)[\"']?[^ :$`]+:{_GIVEN}].*",
    f".*curl {_BEFORE}--user( +|=)[\"']?[^ :$`]+:{_GIVEN}].*",
    f".*proxyauth=[^ :,$`]+:{_GIVEN},].*",
    f"(.* )?-pw +{_GIVEN}].*",
    f".*--?(password|passwd)( +|=){_GIVEN}].*",
    # Headers of HTTP.
    f".*authorization[\"']?: *[\"']?(bearer|basic|token) +{_GIVEN}].*",
    # Variables of any program, and connection strings; a path is of a file.
    f"(.*[^$a-z0-9_])?[a-z0-9_]*(password|passwd|sshpass|_pwd|secret|token|{_KEYS}|secret_key)(_id)?={_GIVEN};&|/~].*",
    f"(.*[^$a-z0-9_])?([a-z0-9_]*_|pg|db)?(pass|npm(_config)?_+auth)={_GIVEN};&|/~].*",
)
"""The same of texts in lower case."""


def join(*parts: Term) -> Join:
    """Terms as one text."""
    return Join(parts)


def both(*tests: Test) -> All:
    """Whether every test holds."""
    return All(tests)
