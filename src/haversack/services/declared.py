"""A service as a table of ``haversack.toml``: its keys, the values of its options, and what is wrong with them.

The keys follow from the description, so that NixOS and the declaration cannot have other options.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from haversack.formats.schema import Key, KindKeys
from haversack.model.finding import Finding
from haversack.services.assertions import UNSEEN
from haversack.services.description import Option, Service
from haversack.services.terms import Clean
from haversack.services.text import places
from haversack.services.values import PATH, SAYS, URL, WORD, Values, fill, secrets

_PORT = 65535


def keys_of(service: Service) -> KindKeys:
    """The keys of a service; those with a dot in their names stand in tables of their own.

    A service whose table is written is wanted: ``enable`` is true unless it says otherwise.
    """
    keys: dict[str, Key] = {}
    for path, option in service.options.items():
        if "." not in path:
            keys[path] = _key(option, default=True if path == "enable" else None)
    for table, description in service.tables.items():
        inner = {
            path.removeprefix(f"{table}."): _key(option)
            for path, option in service.options.items()
            if path.startswith(f"{table}.")
        }
        keys[table] = Key(KindKeys(description, inner), description)
    return KindKeys(f"{service.description}, as a service of systemd.", keys)


def _key(option: Option, default: bool | None = None) -> Key:
    said = option.description
    match option.type:
        case "bool":
            return Key("boolean", said, default=default)
        case "port":
            return Key("integer", said, most=_PORT)
        case "positive":
            return Key("integer", said, most=option.most)
        case "word":
            return Key("string", said, pattern=WORD, expects=SAYS["word"])
        case "url":
            return Key("string", said, pattern=URL, expects=SAYS["url"])
        case "words":
            return Key("strings", said, pattern=WORD, expects=SAYS["word"])
        case "path" | "package":
            return Key("string", said, pattern=PATH, expects=SAYS["path"])
        case "paths":
            one = Key("string", "Its file.", pattern=PATH, expects=SAYS["path"])
            return Key(KindKeys(said, dict.fromkeys(option.choices, one)), said)
        case "enum":
            return Key("string", said, choices=option.choices)
        case "free":
            return Key("table", said)
        case "lines":
            return Key("string", said)


def values(service: Service, settings: Mapping[str, Any], package: str) -> Values:
    """The value of every option, where ``package`` is what the service runs unless its table names another."""
    options, _ = fill(service, settings)
    prefix = options["package"] or package
    return Values({**options, "package": prefix}, places(service, prefix))


def faults(service: Service, settings: Mapping[str, Any], subject: str, package: str) -> Iterator[Finding]:
    """Everything that is wrong with its table; ``subject`` is the table's name.

    No finding repeats a value that may hold a secret.
    """
    options, wrong = fill(service, settings)
    for path, said in wrong:
        yield _finding(f"{subject}.{path}", said, f"write what it takes: {_description(service, path)}")
    if wrong:
        return
    found = values(service, settings, package)
    for path, option in service.options.items():
        if option.type == "free":
            for place in secrets(options[path], path):
                said = "holds a secret, which everybody on the machine could read"
                yield _finding(
                    f"{subject}.{place}",
                    said,
                    "leave it out, or name a file with it where there is a key for one",
                )
    for assertion in service.assertions:
        # Secrets were told above, each with its place.
        if not isinstance(assertion.test, Clean) and not found.test(assertion.test):
            path = _about(service, assertion.message)
            said, _, remedy = assertion.message.partition(": ")
            yield _finding(
                f"{subject}.{path}".rstrip("."),
                _filled(said, found),
                _filled(remedy, found) or "correct it, or leave it out",
                blocking=assertion.block,
            )


def is_hidden(path: str) -> bool:
    """Whether a service that is shut in cannot see an absolute path."""
    return re.fullmatch(UNSEEN, path) is not None


def _about(service: Service, message: str) -> str:
    """The option that an assertion is about: the first that its sentence names."""
    known = {*service.options, *service.tables}
    words: list[str] = re.findall(r"[A-Za-z][A-Za-z0-9.]*", message)
    for word in words:
        path = word.rstrip(".")
        while path:
            if path in known and path != "enable":
                return path
            path = path.rpartition(".")[0]
    return ""


def _filled(message: str, found: Values) -> str:
    return re.sub(r"\{([^}]+)\}", lambda match: _shown(found.options[match[1]]), message)


def _shown(value: Any) -> str:
    """A value without what may be a user or a password in a URL."""
    return re.sub(r"(?<=://)[^/@\s]*@", "…@", str(value))


def _description(service: Service, path: str) -> str:
    option = service.options.get(path)
    return option.description if option else "one of its options"


def _finding(subject: str, said: str, remedy: str, *, blocking: bool = True) -> Finding:
    return Finding("platform-setting", subject, said, remedy, blocking=blocking)
