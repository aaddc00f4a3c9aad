"""The options of a service with their values: types, defaults, and the terms that depend on them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from haversack.services.description import Option, OptionType, Service
from haversack.services.terms import (
    COUNTED,
    HIDDEN_KEYS,
    HIDDEN_TEXTS,
    HIDDEN_WORDS,
    All,
    AtLeast,
    Begins,
    Below,
    Called,
    Clean,
    Each,
    Given,
    Has,
    Holds,
    Join,
    Matches,
    Named,
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

# What needs no quotes in a unit, and means nothing to systemd: no blank, quote, %, $ or backslash.  No part of a
# path is empty, . or .., and it has no colon, which ends a path in PATH and passwd(5).  A word is no option.
PATH = r"(/\.{0,2}[A-Za-z0-9_@=,+-][A-Za-z0-9_@=,.+-]*)+"
WORD = r"[A-Za-z0-9_@:=,.+/~][A-Za-z0-9_@:=,.+/~-]*"
# A word in which an address of IPv6 may stand, in brackets.
URL = r"[A-Za-z0-9_@:=,.+/~][]A-Za-z0-9_@:=,.+/~[-]*"

SAYS: Mapping[OptionType, str] = {
    "bool": "true or false",
    "port": "a port, 1 to 65535",
    "positive": "a whole number, 1 to {most}",
    "word": "a word of letters, digits and _@:=,.+/~-",
    "url": "a URL of letters, digits and _@:=,.+/~[]-",
    "path": "an absolute path of letters, digits and _@=,.+- (no . or .. in it, no / at its end)",
    "package": "an absolute path of letters, digits and _@=,.+- (no . or .. in it, no / at its end)",
    "lines": "a text of lines, without control characters",
    "words": "a list of words",
    "paths": "a table of absolute paths",
    "free": "a table of texts, numbers, booleans, lists and tables",
}
"""What a value of each type is, in words."""


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
            case Begins(one, other):
                return self.text(one).startswith(self.text(other))
            case Below(path, folder):
                value = self.options[path]
                held = value.values() if isinstance(value, Mapping) else [value]
                return any(one is not None and one.startswith(f"{self.options[folder]}/") for one in held)
            case Matches(path, pattern, _):
                return all(re.fullmatch(pattern, item) for item in _items(self.options[path]))
            case Holds(path, pattern, _):
                return any(re.fullmatch(pattern, item) for item in _items(self.options[path]))
            case AtLeast(path, number):
                return self.options[path] is None or self.options[path] >= number
            case Clean(path):
                return not list(secrets(self.options[path], path))
            case Called(_, inner):
                return self.test(inner)
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
            case Named(_, inner):
                return self.texts(inner)
            case When(test, inner, other):
                if self.test(test):
                    return self.texts(inner)
                return () if other is None else self.texts(other)
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
            good = whole and 0 < value <= option.most
        case "lines":
            good = isinstance(value, str) and all(line.isprintable() for line in value.split("\n"))
        case "word":
            good = isinstance(value, str) and bool(re.fullmatch(WORD, value))
        case "url":
            good = isinstance(value, str) and bool(re.fullmatch(URL, value))
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
            good = isinstance(value, Mapping) and _is_json(value)
    says = (
        f"one of {', '.join(option.choices)}"
        if option.type == "enum"
        else SAYS[option.type].replace("{most}", str(option.most))
    )
    return "" if good else f"is not {says}"


def _is_json(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _is_json(inner) for key, inner in value.items())
    if isinstance(value, (list, tuple)):
        return all(map(_is_json, value))
    return value is None or isinstance(value, (str, int)) or (isinstance(value, float) and isfinite(value))


def secrets(value: Any, path: str, key: str = "") -> Iterator[str]:
    """Where a table holds what is called or looks like a secret (:data:`HIDDEN_KEYS`, :data:`HIDDEN_TEXTS` and so on).

    ``key`` is what ``value`` is called.  Of ``{name = "API_KEY", value = "…"}``, as Kubernetes writes variables, the
    name is the key.
    """
    if isinstance(value, Mapping):
        for inner_key, inner in value.items():
            named = value.get("name") if inner_key == "value" else None
            yield from secrets(
                inner, f"{path}.{inner_key}", named if isinstance(named, str) else str(inner_key)
            )
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from secrets(inner, path, key)
    elif value is not None and not isinstance(value, bool):
        one = re.sub("[\n\t]", " ", str(value))
        counted = re.fullmatch(COUNTED, f"{key.lower()}={one}")
        hidden = re.fullmatch(HIDDEN_KEYS, key.lower()) and one and not counted
        looks = any(re.fullmatch(pattern, one) for pattern in HIDDEN_TEXTS)
        if hidden or looks or any(re.fullmatch(pattern, one.lower()) for pattern in HIDDEN_WORDS):
            yield path


def _items(value: Any) -> list[str]:
    if isinstance(value, (list, tuple)):
        return [str(item) for item in value]
    return ("" if value is None else str(value)).split("\n")
