"""Terms, tests and values as expressions of Nix."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from haversack.services.description import Service
from haversack.services.layout import block, escaped, lines, quoted
from haversack.services.terms import (
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

_EMPTY = {"lines": '""', "words": "[ ]", "paths": "{ }", "free": "{ }"}
_NUMBERS = ("port", "positive")


@dataclass(frozen=True, slots=True)
class Words:
    """The terms and tests of one service as expressions; ``cfg`` is what its options are."""

    service: Service

    def test(self, test: Test) -> str:
        """A test, as an expression that is true or false."""
        match test:
            case On(path):
                return f"cfg.{path}"
            case Given(path):
                option = self.service.options[path]
                return f"cfg.{path} != {'null' if option.nullable else _EMPTY[option.type]}"
            case Has(path, key):
                return f"cfg.{path} ? {key}"
            case Same(one, other):
                return f"{self.expression(one)} == {self.expression(other)}"
            case Begins(one, other):
                return f"lib.hasPrefix {argument(self.expression(other))} {argument(self.expression(one))}"
            case Below(path, folder):
                within = f'lib.hasPrefix "${{cfg.{folder}}}/"'
                if self.service.options[path].type == "paths":
                    return f"lib.any ({within}) (lib.attrValues cfg.{path})"
                return f"{within} (toString cfg.{path})"
            case Matches(path, pattern, name):
                return self._matched("lib.all", path, name or quoted(pattern))
            case Holds(path, pattern, name):
                return self._matched("lib.any", path, name or quoted(pattern))
            case AtLeast(path, number):
                least = f"cfg.{path} >= {number}"
                return f"cfg.{path} != null -> {least}" if self.service.options[path].nullable else least
            case Clean(path):
                return f'!hides "" cfg.{path}'
            case Called(name, _):
                return name
            case Not(inner):
                return self._contrary(inner)
            case All(tests):
                return " && ".join(map(self._operand, tests))
            case Some((Not(when), then)):
                # "Unless this, that" is read more easily as "this implies that".
                return f"{self._premise(when)} -> {self.test(then)}"
            case Some(tests):
                return " || ".join(map(self._operand, tests))

    def _contrary(self, test: Test) -> str:
        said = self.test(test)
        match test:
            case Given():
                return said.replace(" != ", " == ")
            case Same():
                return said.replace(" == ", " != ")
            case Clean():
                return said.removeprefix("!")
            case Some() | All() | Has() | AtLeast() | Begins() | Below():
                return f"!({said})"
            case _:
                return f"!{said}"

    def _operand(self, test: Test) -> str:
        said = self.test(test)
        return f"({said})" if isinstance(test, (All, Some)) else said

    def _premise(self, test: Test) -> str:
        said = self.test(test)
        return f"({said})" if isinstance(test, Some) else said

    def _matched(self, over: str, path: str, pattern: str) -> str:
        match self.service.options[path].type:
            case "lines":
                return f"{over} (matches {pattern}) (lib.splitString {quoted(chr(10))} cfg.{path})"
            case "words":
                return f"{over} (matches {pattern}) cfg.{path}"
            case _:
                return f"matches {pattern} cfg.{path}"

    def piece(self, term: Term) -> str:
        """A term as it stands between the quotes of a text."""
        match term:
            case str() | int():
                return escaped(str(term))
            case Opt(path):
                number = self.service.options[path].type in _NUMBERS
                return f"${{toString cfg.{path}}}" if number else f"${{cfg.{path}}}"
            case Place("etc"):
                return f"/etc/{self.service.name}"
            case Place("package"):
                return "${cfg.package}"
            case Place("kill"):
                return "${pkgs.coreutils}/bin/kill"
            case Place(name) | Named(name, _):
                return f"${{{name}}}"
            case Join(parts):
                return "".join(map(self.piece, parts))
            case When(test, inner, None):
                said = f"{argument(self.test(test))} {argument(self.expression(inner))}"
                return f"${{lib.optionalString {said}}}"
            case When():
                return f"${{{self.expression(term)}}}"
            case Each():
                raise ValueError("a text for each entry is no part of a text")

    def expression(self, term: Term) -> str:
        """A term as an expression: a number, a text, null, or a list for :class:`Each`."""
        match term:
            case int():
                return str(term)
            case "yes":
                return "true"
            case Opt(path):
                return f"cfg.{path}"
            case Join((Opt(path),)):
                return f"toString cfg.{path}"
            case Place("python") | Named():
                return term.name
            case When(test, inner, other):
                otherwise = "null" if other is None else self.expression(other)
                return f"if {self.test(test)} then {self.expression(inner)} else {otherwise}"
            case Each(path, before, between, after):
                if self.service.options[path].type == "words":
                    return f"map (value: {_text(before, '${value}', after)}) cfg.{path}"
                shown = _text(before, "${name}", between, "${value}", after)
                return f"lib.mapAttrsToList (name: value: {shown}) cfg.{path}"
            case _:
                return f'"{self.piece(term)}"'

    def directive(self, term: Term | tuple[Term, ...]) -> str:
        """What a directive of a unit is: one value, or a list for one line each."""
        if isinstance(term, tuple):
            return self._listed(term)
        match term:
            case Join(parts) if any(isinstance(part, When) for part in parts):
                return f"lib.concatStrings {lines(list(self._pieces(parts)))}"
            case When(test, inner, None):
                return f"mkIf {argument(self.test(test))} {argument(self.expression(inner))}"
            case _:
                return self.expression(term)

    def variable(self, term: Term) -> str:
        """What a variable of a unit is: a text, or null where it is not set."""
        match term:
            case int():
                return quoted(str(term))
            case When(Given(path), Opt(same), None) if path == same:
                return f"cfg.{path}"
            case When(test, int(number), None):
                return self.expression(When(test, join_text(number)))
            case _:
                return self.expression(term)

    def _listed(self, terms: Sequence[Term]) -> str:
        """Texts: those that are always there in one list, and each under a condition in its own."""
        plain = [self.expression(term) for term in terms if not isinstance(term, (When, Each))]
        found = [lines(plain)] if plain else []
        for term in terms:
            if isinstance(term, When):
                said = f"{argument(self.test(term.test))} {argument(self.expression(term.term))}"
                found.append(f"lib.optional {said}")
            elif isinstance(term, Each):
                found.append(self.expression(term))
        return " ++ ".join(found)

    def _pieces(self, parts: Sequence[Term]) -> Iterator[str]:
        """Parts of a text: what is always there together, what has a condition for itself."""
        plain = ""
        for part in parts:
            if isinstance(part, When) and part.other is None:
                if plain:
                    yield f'"{plain}"'
                plain = ""
                said = f"{argument(self.test(part.test))} {argument(self.expression(part.term))}"
                yield f"(lib.optionalString {said})"
            else:
                plain += self.piece(part)
        if plain:
            yield f'"{plain}"'


def join_text(number: int) -> Term:
    """A number as a text."""
    return Join((str(number),))


def value(content: Any) -> str:
    """A value of Python (of JSON, or a tuple) as an expression."""
    match content:
        case None:
            return "null"
        case bool():
            return "true" if content else "false"
        case int() | float():
            return str(content)
        case Mapping():
            return block({name: value(inner) for name, inner in content.items()})
        case list() | tuple():
            return lines([value(inner) for inner in content])
        case _:
            return quoted(str(content))


def argument(expression: str) -> str:
    """An expression as a function takes it."""
    simple = re.fullmatch(r'[A-Za-z0-9_.\'-]+|"(\$\{[^}"]*\}|[^"])*"', expression)
    return expression if simple else f"({expression})"


def terms(service: Service) -> Iterator[Term]:
    """Every term of its units, however deep."""
    for unit in service.units:
        for told in (unit.environment, unit.service, unit.unit, unit.timer or {}):
            for given in told.values():
                for one in given if isinstance(given, tuple) else (given,):
                    yield from _within(one)


def tests(service: Service) -> Iterator[Test]:
    """Every test of its assertions, units and terms, however deep."""
    found: Iterable[Test] = (
        *(assertion.test for assertion in service.assertions),
        *(unit.when for unit in service.units),
        *(term.test for term in terms(service) if isinstance(term, When)),
    )
    for test in found:
        yield from _below(test)


def _within(term: Term) -> Iterator[Term]:
    match term:
        case Join(parts):
            for part in parts:
                yield from _within(part)
        case When(_, inner, other):
            yield from _within(inner)
            if other is not None:
                yield from _within(other)
        case Named(_, inner):
            yield from _within(inner)
    yield term


def _below(test: Test) -> Iterator[Test]:
    match test:
        case Not(inner) | Called(_, inner):
            yield from _below(inner)
        case All(inner_tests) | Some(inner_tests):
            for one in inner_tests:
                yield from _below(one)
    yield test


def _text(*parts: str) -> str:
    """Parts in quotes, where those with ``${`` are expressions."""
    return '"' + "".join(part if part.startswith("${") else escaped(part) for part in parts) + '"'
