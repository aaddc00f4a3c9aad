"""The keys of ``haversack.toml`` as data.

One table of keys drives both the strict parser (:mod:`haversack.formats.declaration`) and the published
JSON Schema, so that an editor and ``haversack lock`` cannot disagree about what may be written.  A kind
of environment brings its own :class:`KindKeys`; neither the parser nor this module knows any kind.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

from haversack.model.lock import TOOL
from haversack.model.target import PLATFORMS

KeyType: TypeAlias = Literal[
    "string", "strings", "boolean", "integer", "table",
    "date", "url", "location", "source", "file", "files", "folder", "folders", "place",
]  # fmt: skip
"""What a key holds: ``date`` is a day or an RFC 3339 timestamp with an offset, ``url`` an http(s) or file
URL, ``location`` such a URL or a file, ``source`` one of these or an object in S3 (``s3://bucket/key``); ``file``, ``files``, ``folder`` and ``folders`` are paths relative to
the declaration that must exist, every file below ``folders`` counting; ``place`` is a folder anywhere on this
machine.  Strings and arrays are never empty, and no item stands in an array twice.  ``table`` is a table of
anything that JSON can say, which somebody else reads."""

# The grammar of a component of an OCI reference, since these names become such; also safe on FAT.
NAME = r"[A-Za-z0-9]+(?:(?:--|[-._])[A-Za-z0-9]+)*"
NAME_SAYS = "letters and digits, joined by single - _ or ."
# A path that means the same on every machine that the declaration is copied to.
PATH = r"(?!/|[A-Za-z]:)[^\x00-\x1f\\]+"
PATH_SAYS = "a path relative to the file that names it, with / between folders"
_HOST = r"(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?"
# No user name, no password, no query: the URL is written to locks, manifests and messages.
URL = rf"(?:https?://{_HOST}(?:/[^?#\s]*)?|file://(?:localhost)?/[^?#\s]*)"
S3 = r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/[^?#\s]+"
DATE = (
    r"[0-9]{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])"
    r"(?:T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,6})?(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9]))?"
)


@dataclass(frozen=True, slots=True)
class Key:
    """One key: what it holds and what else it asks of the table it stands in.

    ``pattern`` must match a text (or every item) whole, and ``expects`` says in words what it matches;
    ``choices`` are all texts allowed.  ``default`` is the value of a key that is not written.  An integer is
    from ``least`` to ``most``.
    ``only_with`` names keys of which one must be written for this one to make sense, ``needs`` keys that
    must be written as well.  ``made_by`` is the command that writes the file.
    ``includes`` says that a file is a pip requirements file, whose ``-r`` and ``-c`` lines name more files, or
    finds the requirements files that another one names: of its bytes and its name, each with the place.
    ``holds`` names files that a folder must contain, and ``beside`` the file that must lie beside one of a
    certain name.  All of them count when the declaration is digested.
    """

    type: KeyType | KindKeys
    description: str
    required: bool = False
    default: bool | None = None
    choices: tuple[str, ...] = ()
    pattern: str = ""
    expects: str = ""
    only_with: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    includes: bool | Callable[[bytes, str], Sequence[tuple[str, str]]] = False
    holds: tuple[str, ...] = ()
    beside: Mapping[str, str] = field(default_factory=dict)
    made_by: str = ""
    least: int = 1
    most: int = (1 << 31) - 1


@dataclass(frozen=True, slots=True)
class KindKeys:
    """The keys of one kind of environment (or of any table), by the name they have in TOML.

    ``one_of`` are keys of which exactly one must be written.  ``stands`` says where a kind is declared:
    ``env`` as ``[env.NAME]`` with its ``kind``, ``named`` as ``[KIND.NAME]``, ``listed`` as ``[[KIND]]``, all of
    which make one environment called by the plural of the kind, and ``chosen`` as ``[KIND.NAME]`` where the
    name is one of ``choices``, each with keys of its own; its environment is called ``KIND.NAME``.
    """

    description: str
    keys: Mapping[str, Key]
    one_of: tuple[str, ...] = ()
    stands: Literal["env", "named", "listed", "chosen"] = "env"
    choices: Mapping[str, KindKeys] = field(default_factory=dict)


def _version(description: str, pattern: str, example: str) -> Key:
    return Key("string", description, pattern=pattern, expects=f"a version like {example}")


SITE = KindKeys(
    "The site.",
    {
        "name": Key("string", "Name of the site.", required=True, pattern=NAME, expects=NAME_SAYS),
        "exclude-newer": Key("date", "Ignore files that were uploaded to an index after this day or moment."),
    },
)

INDEX = KindKeys(
    "A package index.",
    {
        "url": Key("url", "Address of the index, without user name or password.", required=True),
        "default": Key("boolean", "Ask this index instead of PyPI.", default=False),
        "auth": Key(
            "string",
            "Where user name and password come from: none, env (HAVERSACK_INDEX_<NAME>_USERNAME and _PASSWORD), netrc or keyring.",
            choices=("none", "env", "netrc", "keyring"),
        ),
    },
)

CHANNEL = KindKeys(
    "A conda channel.",
    {
        "url": Key("url", "Address of the channel, without user name, password or token.", required=True),
        "auth": Key(
            "string",
            "Where user name and password come from: none, env (HAVERSACK_CHANNEL_<NAME>_USERNAME and _PASSWORD), netrc or keyring.",
            choices=("none", "env", "netrc", "keyring"),
        ),
    },
)

REGISTRY = KindKeys(
    "A container registry.",
    {
        "url": Key(
            "url",
            "Address of the registry or of a mirror, without /v2/ and without user name or password.",
            required=True,
        ),
        "host": Key(
            "string",
            "Its name in image references, where that is not the host of the URL.",
            pattern=r"[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?(?::[0-9]{1,5})?",
            expects="a host like docker.io",
        ),
        "auth": Key(
            "string",
            "Where user name and password come from: none, env (HAVERSACK_REGISTRY_<NAME>_USERNAME and _PASSWORD), netrc, keyring, or docker (what docker login and podman login wrote).",
            choices=("none", "env", "netrc", "keyring", "docker"),
        ),
    },
)

INTERPRETER = KindKeys(
    "A relocatable Python archive for machines that have none.",
    {
        "url": Key(
            "location", "Address of the archive, or its path relative to the declaration.", required=True
        ),
        "sha256": Key(
            "string",
            "SHA-256 of the archive.",
            required=True,
            pattern="[0-9a-f]{64}",
            expects="64 lower-case hexadecimal digits",
        ),
    },
)

_MACHINE: dict[str, Key] = {
    "python": _version("Version of Python on the machine.", r"3\.[0-9]+(?:\.[0-9]+)?", "3.11"),
    "glibc": _version("Version of the GNU C library (Linux).", r"[0-9]+\.[0-9]+", "2.28"),
    "macos": _version("Release of macOS.", r"[0-9]+\.[0-9]+", "14.0"),
    "cuda": _version("Version of CUDA that the driver offers.", r"[0-9]+(?:\.[0-9]+){0,2}", "12.4"),
    "kernel": _version("Release of the Linux kernel, for conda.", r"[0-9]+(?:\.[0-9]+){1,2}", "5.14"),
    "archspec": Key(
        "string",
        "Processor in conda's words, for packages that want a recent one.",
        pattern=r"[a-z0-9_]+",
        expects="a name like x86_64_v3",
    ),
}
_PLATFORM = Key("string", "System and processor.", choices=tuple(PLATFORMS), needs=("python",))

PROFILE = KindKeys(
    "A machine as `haversack probe` found it.",
    {"platform": replace(_PLATFORM, required=True), **_MACHINE},
)

TARGET = KindKeys(
    "A kind of machine inside: by hand (platform and the rest), by name, or by profile.",
    {
        "platform": _PLATFORM,
        **{name: replace(key, only_with=("platform",)) for name, key in _MACHINE.items()},
        "name": Key("string", "All in one word, as linux-x86_64-glibc2.28-py311."),
        "profile": Key("file", "File that `haversack probe` wrote on the machine."),
        "interpreter": Key(INTERPRETER, INTERPRETER.description),
    },
    one_of=("platform", "name", "profile"),
)


def environment_kinds(kinds: Mapping[str, KindKeys]) -> list[str]:
    """The kinds that are declared as ``[env.NAME]``."""
    return sorted(kind for kind, keys in kinds.items() if keys.stands == "env")


def environment_keys(kinds: Mapping[str, KindKeys], kind: str | None = None) -> KindKeys:
    """The keys that every environment has, and those of its kind once that is known."""
    common = {
        "kind": Key(
            "string", "Kind of the environment.", required=True, choices=tuple(environment_kinds(kinds))
        ),
        "targets": Key(
            "strings",
            "Targets to install on: names of [target] tables, or names like linux-x86_64-glibc2.28-py311.",
            required=True,
        ),
        "check": Key("string", "Command that succeeds in a good installation."),
    }
    if kind is None:
        return KindKeys("An environment.", common)
    own = kinds[kind]
    return KindKeys(own.description, {**common, **own.keys}, one_of=own.one_of)


def quoted(name: str) -> str:
    """A key as TOML wants it: in quotes unless it is of letters, digits, ``-`` and ``_`` alone."""
    if re.fullmatch(r"[A-Za-z0-9_-]+", name):
        return name
    return '"{}"'.format(name.replace("\\", "\\\\").replace('"', '\\"'))


def schema(kinds: Mapping[str, KindKeys]) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of ``haversack.toml`` with these kinds of environment.

    It says what can be said without looking at other files; dates are texts, as TOML editors show them.
    """
    in_environments = environment_kinds(kinds)
    environment = {
        "type": "object",
        "required": ["kind"],
        "properties": {"kind": {"enum": in_environments}},
        "allOf": [
            {
                "if": {"required": ["kind"], "properties": {"kind": {"const": kind}}},
                "then": {"$ref": f"#/$defs/env-{kind}"},
            }
            for kind in in_environments
        ],
    }
    own = {kind: _stands_alone(keys) for kind, keys in sorted(kinds.items()) if keys.stands != "env"}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:haversack:schema:declaration:1",
        "title": "haversack.toml",
        "description": "What a site behind an air gap needs.",
        "type": "object",
        "additionalProperties": False,
        "required": ["site"],
        "properties": {
            "site": _object(SITE),
            "index": _named("Package indexes, the first one asked first.", _object(INDEX)),
            "channel": _named("Conda channels, by the names that environments call them.", _object(CHANNEL)),
            "registry": _named("Container registries.", _object(REGISTRY)),
            "target": _named("Kinds of machine inside.", _object(TARGET)),
            "env": _named("Environments to install on targets.", environment, reserved=TOOL),
            **own,
        },
        "$defs": {f"env-{kind}": _object(environment_keys(kinds, kind)) for kind in in_environments},
    }


def _stands_alone(keys: KindKeys) -> dict[str, Any]:
    """A kind that has tables of its own, beside ``[env]``."""
    if keys.stands == "named":
        return _named(keys.description, _object(keys), reserved=TOOL)
    if keys.stands == "listed":
        return {"description": keys.description, "type": "array", "minItems": 1, "items": _object(keys)}
    choices = {name: _object(table) for name, table in sorted(keys.choices.items())}
    return {
        "description": keys.description,
        "type": "object",
        "additionalProperties": False,
        "properties": choices,
    }


def _named(description: str, table: dict[str, Any], *, reserved: str | None = None) -> dict[str, Any]:
    names: dict[str, Any] = {"pattern": f"^(?:{NAME})$"}
    if reserved is not None:
        names["not"] = {"const": reserved}
    return {
        "description": description,
        "type": "object",
        "propertyNames": names,
        "additionalProperties": table,
    }


def _object(table: KindKeys) -> dict[str, Any]:
    keys = table.keys
    parts: dict[str, Any] = {
        "description": table.description,
        "type": "object",
        "additionalProperties": False,
        "properties": {name: {"description": key.description, **_value(key)} for name, key in keys.items()},
        "required": [name for name, key in keys.items() if key.required],
        "oneOf": [{"required": [name]} for name in table.one_of],
        "dependentRequired": {name: list(key.needs) for name, key in keys.items() if key.needs},
        "dependentSchemas": {
            name: {"anyOf": [{"required": [other]} for other in key.only_with]}
            for name, key in keys.items()
            if key.only_with
        },
    }
    return {name: part for name, part in parts.items() if part or name == "additionalProperties"}


def _value(key: Key) -> dict[str, Any]:
    if isinstance(key.type, KindKeys):
        return _object(key.type)
    if key.type == "boolean":
        return {"type": "boolean"} if key.default is None else {"type": "boolean", "default": key.default}
    if key.type == "integer":
        return {"type": "integer", "minimum": key.least, "maximum": key.most}
    if key.type == "table":
        return {"type": "object"}
    patterns = [f"^(?:{pattern})$" for pattern in patterns_of(key)]
    text: dict[str, Any] = {"type": "string", "minLength": 1}
    if key.choices:
        text = {"enum": list(key.choices)}
    elif len(patterns) == 1:
        text["pattern"] = patterns[0]
    elif patterns:
        text["allOf"] = [{"pattern": pattern} for pattern in patterns]
    if key.type in {"strings", "files", "folders"}:
        return {"type": "array", "minItems": 1, "uniqueItems": True, "items": text}
    return text


def patterns_of(key: Key) -> tuple[str, ...]:
    """The patterns that a text under this key must match whole: the type's and the key's own."""
    by_type = {
        "date": DATE,
        "url": URL,
        "location": f"(?:{URL}|(?!/)[^:\\x00-\\x1f\\\\]+)",
        "source": f"(?:{URL}|{S3}|(?!/)[^:\\x00-\\x1f\\\\]+)",
        "file": PATH,
        "files": PATH,
        "folder": PATH,
        "folders": PATH,
    }
    own = by_type.get(key.type, "") if isinstance(key.type, str) else ""
    return tuple(pattern for pattern in (own, key.pattern) if pattern)
