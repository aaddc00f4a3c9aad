"""Read ``haversack.toml`` strictly: what it declares, or an error that names the place.

Nothing is skipped: an unknown key, a value of another type, a file that is not there, two names that a
file system without case would mix up are all :class:`~haversack.errors.DeclarationError`, whose ``where``
is the place (``haversack.toml: env.analysis.requirements[1]``) and whose remedy says what to write.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from haversack.errors import DeclarationError
from haversack.formats.canonical import canonical
from haversack.formats.repodata import is_plain
from haversack.formats.schema import (
    CHANNEL,
    INDEX,
    NAME,
    NAME_SAYS,
    PROFILE,
    REGISTRY,
    SITE,
    TARGET,
    Key,
    KindKeys,
    environment_keys,
    quoted,
)
from haversack.formats.strict import (
    Place,
    is_table,
    load,
    missing,
    near,
    only_known,
    string_of,
    table_of,
    toml,
)
from haversack.formats.uv import env_name
from haversack.model.artifact import digest_of, is_safe_filename
from haversack.model.lock import TOOL
from haversack.model.site import Channel, Environment, Index, Interpreter, Registry, Site
from haversack.model.target import ANY, PLATFORMS, Target

__all__ = ["FILENAME", "Key", "KindKeys", "parse"]

FILENAME = "haversack.toml"
"""The name of a declaration."""

_TABLES = ("site", "index", "channel", "registry", "target", "env")
_RESERVED = (TOOL, "images", "files")
"""Names of environments that come by themselves: the tool, and what is declared in lists."""
_RESERVED_START = "platform."
"""How the names of platforms begin, among those of environments."""
_EXAMPLE_TARGET = "linux-x86_64-glibc2.28-py311"


def parse(path: Path, kinds: Mapping[str, KindKeys]) -> Site:
    """The site that a declaration describes, with the keys that these kinds of environment bring.

    Paths in :attr:`Environment.settings` stay as written, relative to :attr:`Site.root`; keys there are in
    snake_case, arrays are tuples.  Raises :class:`~haversack.errors.DeclarationError`.
    """
    if not path.exists():
        remedy = "run `haversack init` to write one, or go to the folder that has it"
        raise DeclarationError(f"there is no {path.name}", where=str(path), remedy=remedy)
    top = Place(path.absolute().parent, path.name)
    data = load(path.name, top)
    raw = toml(data, top)
    own = {kind: keys for kind, keys in kinds.items() if keys.stands != "env"}
    only_known(raw, (*_TABLES, *own), top)
    if "site" not in raw:
        raise top.error("the table [site] is missing", 'add it, with name = "the-name-of-your-site"')
    site = table_of(raw["site"], SITE, top.at("site"))
    indexes = [Index(name, **table_of(table, INDEX, at)) for name, table, at in _named(raw, "index", top)]
    _distinct(indexes, top.at("index"), env_name)
    for second in [index for index in indexes if index.default][1:]:
        place = top.at("index").at(second.name).at("default")
        raise place.error("another index is the default one already", "leave default = true to one index")
    channels = [_channel(name, table, at) for name, table, at in _named(raw, "channel", top)]
    _distinct(channels, top.at("channel"), env_name)
    registries = [_registry(name, table, at) for name, table, at in _named(raw, "registry", top)]
    _distinct(registries, top.at("registry"), env_name)
    targets: dict[str, Target] = {}
    interpreters: dict[str, Interpreter] = {}
    for name, table, at in _named(raw, "target", top):
        values = table_of(table, TARGET, at)
        if name in PLATFORMS or name == ANY.name:
            raise at.error("is the name of a platform, which haversack keeps", "choose another name")
        targets[name] = _target(name, values, at)
        if interpreter := values.get("interpreter"):
            interpreters[name] = Interpreter(interpreter["url"], f"sha256:{interpreter['sha256']}")
    environments = [
        _environment(name, table, kinds, targets, at) for name, table, at in _named(raw, "env", top)
    ]
    _distinct(environments, top.at("env"))
    for kind, kind_keys in own.items():
        read = {"listed": _listed, "named": _own, "chosen": _chosen}[kind_keys.stands]
        environments += read(kind, kind_keys, raw, top)
    _distinct(targets.values(), top.at("target"))
    return Site(
        name=site["name"],
        root=top.root,
        digest=digest_of(canonical({"declaration": digest_of(data), "files": top.seen})),
        targets=tuple(targets.values()),
        environments=tuple(environments),
        indexes=tuple(indexes),
        interpreters=interpreters,
        exclude_newer=site.get("exclude_newer"),
        channels=tuple(channels),
        registries=tuple(registries),
    )


def _registry(name: str, raw: Any, place: Place) -> Registry:
    """A declared registry; its name in references is the host of its URL unless it says another."""
    values = {"host": None, **table_of(raw, REGISTRY, place)}
    if values["url"].startswith("file:"):
        raise place.at("url").error(
            "is a file URL", "name an image on disk as oci:FOLDER in [[image]] instead"
        )
    return Registry(name, **{**values, "host": values["host"] or urlsplit(values["url"]).netloc})


def _own(kind: str, keys: KindKeys, raw: Mapping[str, Any], top: Place) -> list[Environment]:
    """The environments of a kind that has tables of its own, ``[KIND.NAME]``."""
    found = [
        Environment(name, kind, (ANY.name,), None, table_of(table, keys, at))
        for name, table, at in _named(raw, kind, top)
        if _may_be_called(name, at)
    ]
    _distinct(found, top.at(kind))
    return found


def _listed(kind: str, keys: KindKeys, raw: Mapping[str, Any], top: Place) -> list[Environment]:
    """The one environment of a kind that is a list of tables, ``[[KIND]]``."""
    tables, place = raw.get(kind, []), top.at(kind)
    if not isinstance(tables, list):
        raise place.error("must be a list of tables", f"write it under a line [[{kind}]]")
    items = tuple(table_of(table, keys, place.item(number)) for number, table in enumerate(tables))
    return [Environment(f"{kind}s", kind, (ANY.name,), None, {"items": items})] if items else []


def _chosen(kind: str, keys: KindKeys, raw: Mapping[str, Any], top: Place) -> list[Environment]:
    """The environments of a kind whose tables are named by what they choose, ``[KIND.CHOICE]``."""
    place = top.at(kind)
    tables = is_table(raw.get(kind, {}), place)
    only_known(tables, keys.choices, place)
    return [
        Environment(
            f"{kind}.{name}", kind, (ANY.name,), None, table_of(table, keys.choices[name], place.at(name))
        )
        for name, table in tables.items()
    ]


def _may_be_called(name: str, place: Place) -> bool:
    """True; raises ``DeclarationError`` for a name that haversack keeps for itself."""
    if name.casefold() in _RESERVED or name.casefold().startswith(_RESERVED_START):
        raise place.error(f"{name} is a name that haversack keeps", "give yours another name")
    return True


def _channel(name: str, raw: Any, place: Place) -> Channel:
    """A declared channel; a token in the path of its URL is a secret as much as a password is."""
    values = table_of(raw, CHANNEL, place)
    if not is_plain(values["url"]):
        raise place.at("url").error(
            "the URL holds a token (/t/…), or what no URL holds",
            "remove /t/ and the token, change it where it was in use, and let haversack find a login elsewhere: "
            'auth = "env", "netrc" or "keyring"',
        )
    return Channel(name, **values)


def _target(name: str, values: Mapping[str, Any], place: Place) -> Target:
    """A declared target, written in one of three ways."""
    if "profile" in values:
        place = Place(place.root, values["profile"])
        values = table_of(toml(load(place.file, place), place), PROFILE, place)
    try:
        if "name" in values:
            target = Target.from_name(values["name"], name=name)
        else:
            target = Target(name=name, **{key: values[key] for key in PROFILE.keys if key in values})
        # What nothing can be resolved for is an error where it is written.
        target.uv_platform()
    except ValueError as problem:
        raise place.error(str(problem), "correct it, or let `haversack probe` write a profile") from problem
    return target


def _environment(
    name: str, raw: Any, kinds: Mapping[str, KindKeys], targets: dict[str, Target], place: Place
) -> Environment:
    """An environment; targets that only it names are added to ``targets``."""
    _may_be_called(name, place)
    common = environment_keys(kinds).keys
    raw = is_table(raw, place)
    if "kind" not in raw:
        raise missing("kind", common["kind"], place)
    kind = string_of(common["kind"], raw["kind"], place.at("kind"))
    values = table_of(raw, environment_keys(kinds, kind), place)
    named = values.get("targets", ())
    for number, wanted in enumerate(named):
        if wanted in targets:
            continue
        try:
            targets[wanted] = Target.from_name(wanted)
        except ValueError as problem:
            at = place.at("targets").item(number)
            declare = f"declare [target.{quoted(wanted)}], or write a name like {_EXAMPLE_TARGET}"
            message = f"no target of that name is declared, and {problem}"
            raise at.error(message, near(wanted, targets) or declare) from problem
    settings = {key: value for key, value in values.items() if key not in common}
    return Environment(name, kind, named, values.get("check"), settings)


def _named(raw: Mapping[str, Any], family: str, top: Place) -> Iterator[tuple[str, Any, Place]]:
    """The tables of a family such as ``[target.NAME]``: name, table, place."""
    for name, table in is_table(raw.get(family, {}), top.at(family)).items():
        place = top.at(family).at(name)
        if not re.fullmatch(NAME, name) or not is_safe_filename(name):
            raise place.error(
                f"{name!r} cannot be a name", f"a name is of {NAME_SAYS}, and no device of Windows"
            )
        yield name, table, place


def _distinct(
    nouns: Iterable[Index | Channel | Registry | Target | Environment],
    place: Place,
    fold: Callable[[str], str] = str.casefold,
) -> None:
    """Refuse two names that would be one as a file name or (indexes) in an environment variable."""
    folded: dict[str, str] = {}
    for noun in nouns:
        other = folded.setdefault(fold(noun.name), noun.name)
        if other != noun.name:
            raise place.at(noun.name).error(
                f"{noun.name} and {other} are one name where case or punctuation does not count",
                "give one of them another name",
            )
