"""The options of a service with their values: types, defaults, and the terms that depend on them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from haversack.services.description import Option, OptionType, Service
from haversack.services.terms import (
    HIDDEN_KEYS,
    HIDDEN_TEXTS,
    All,
    Clean,
    Each,
    Given,
    Has,
    Holds,
    Join,
    Matches,
    Not,
    On,
    Opt,
    Place,
    Same,
    Some,
    Term,
    Test,
    When,
)

# What needs no quotes in a unit, and means nothing to systemd: no blank, quote, %, $ or backslash.
PATH = r"/[A-Za-z0-9_@:=,.+/-]*"
WORD = r"[A-Za-z0-9_@:=,.+/~-]+"

_SAYS: Mapping[OptionType, str] = {
    "bool": "true or false",
    "port": "a port, 1 to 65535",
    "positive": "a whole number above 0",
    "string": "a text",
    "word": "a word of letters, digits and _@:=,.+/~-",
    "path": "an absolute path of letters, digits and _@:=,.+-",
    "package": "an absolute path of letters, digits and _@:=,.+-",
    "lines": "a text of lines",
    "words": "a list of words",
    "paths": "a table of absolute paths",
    "free": "a table",
}


@dataclass(frozen=True, slots=True)
class Values:
    """What every option of a service is, by its path; ``places`` are what :class:`Place` means here."""

    options: Mapping[str, Any]
    places: Mapping[str, str] = field(default_factory=dict)

    def test(self, test: Test) -> bool:
        """Whether it holds."""
        match test:
            case On(path):
                return self.options[path] is True
            case Given(path):
                return self.options[path] not in (None, "", (), [], {})
            case Has(path, key):
                return key in self.options[path]
            case Same(one, other):
                return self.text(one) == self.text(other)
            case Matches(path, pattern):
                return all(re.fullmatch(pattern, item) for item in _items(self.options[path]))
            case Holds(path, pattern):
                return any(re.fullmatch(pattern, item) for item in _items(self.options[path]))
            case Clean(path):
                return not list(secrets(self.options[path], path))
            case Not(inner):
                return not self.test(inner)
            case All(tests):
                return all(map(self.test, tests))
            case Some(tests):
                return any(map(self.test, tests))

    def texts(self, term: Term) -> tuple[str, ...]:
        """The texts of a term: none where its condition does not hold, many for :class:`Each`."""
        match term:
            case str() | int():
                return (str(term),)
            case Opt(path):
                value = self.options[path]
                return () if value is None else (str(value),)
            case Place(name):
                return (self.places[name],)
            case Join(parts):
                return ("".join(text for part in parts for text in self.texts(part)),)
            case When(test, inner):
                return self.texts(inner) if self.test(test) else ()
            case Each(path, before, between, after):
                value = self.options[path]
                if isinstance(value, Mapping):
                    return tuple(f"{before}{key}{between}{value[key]}{after}" for key in sorted(value))
                return tuple(f"{before}{item}{after}" for item in value)

    def text(self, term: Term) -> str:
        """The one text of a term; empty where its condition does not hold."""
        return "".join(self.texts(term))


def fill(service: Service, given: Mapping[str, Any]) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """Every option with its value or default, and what is wrong with what was given: path and sentence."""
    flat = dict(_flat(given, service, ""))
    wrong = [(path, "is no option") for path in flat if path not in service.options]
    found: dict[str, Any] = {}
    for path, option in service.options.items():
        value = flat.get(path, option.default)
        if path in flat and not (value is None and option.nullable) and (said := fault(option, value)):
            wrong.append((path, said))
        found[path] = value
    return found, wrong


def _flat(given: Mapping[str, Any], service: Service, before: str) -> Iterator[tuple[str, Any]]:
    for key, value in given.items():
        path = f"{before}{key}"
        if path in service.tables and isinstance(value, Mapping):
            yield from _flat(value, service, f"{path}.")
        else:
            yield path, value


def fault(option: Option, value: Any) -> str:
    """What is wrong with a value of an option; empty if nothing is."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    match option.type:
        case "bool":
            good = isinstance(value, bool)
        case "port":
            good = whole and 0 < value < 65536
        case "positive":
            good = whole and value > 0
        case "string" | "lines":
            good = isinstance(value, str)
        case "word":
            good = isinstance(value, str) and bool(re.fullmatch(WORD, value))
        case "path" | "package":
            good = isinstance(value, str) and bool(re.fullmatch(PATH, value))
        case "words":
            good = isinstance(value, (list, tuple)) and all(
                isinstance(item, str) and re.fullmatch(WORD, item) for item in value
            )
        case "enum":
            good = value in option.choices
        case "paths":
            if isinstance(value, Mapping) and (foreign := [k for k in value if k not in option.choices]):
                return f"has {foreign[0]!r}, which is none of {', '.join(option.choices)}"
            good = isinstance(value, Mapping) and all(
                isinstance(item, str) and re.fullmatch(PATH, item) for item in value.values()
            )
        case "free":
            good = isinstance(value, Mapping)
    says = f"one of {', '.join(option.choices)}" if option.type == "enum" else _SAYS[option.type]
    return "" if good else f"is not {says}"


def secrets(value: Any, path: str) -> Iterator[str]:
    """Where a table holds what is called or looks like a secret (:data:`HIDDEN_KEYS`)."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            place, name = f"{path}.{key}", str(key).lower()
            if (
                re.fullmatch(HIDDEN_KEYS, name)
                and not name.endswith(("_file", "_name"))
                and not isinstance(inner, (Mapping, list, tuple))
            ):
                yield place
            else:
                yield from secrets(inner, place)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from secrets(inner, path)
    elif isinstance(value, str) and any(
        re.fullmatch(pattern, value.replace("\n", " ")) for pattern in HIDDEN_TEXTS
    ):
        yield path


def _items(value: Any) -> list[str]:
    if isinstance(value, (list, tuple)):
        return [str(item) for item in value]
    return str(value).split("\n") if value is not None else []
