"""How expressions of Nix are laid out: as nixfmt does it (RFC 166 of Nix), 100 columns wide."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence

WIDTH = 100
_BARE = re.compile(r"[A-Za-z_][A-Za-z0-9_'-]*")
# From the weakest on (the Nix manual, "Operators").
_OPERATORS = (" -> ", " || ", " && ", " // ", " ++ ")
_ASSIGNED = re.compile(r'( *)([A-Za-z0-9_."/\'-]+) = ((?!["\[{]).*;)')
_APPLIED = re.compile(r'( *)\(([A-Za-z.]+) \(([^()]*)\) ("[^"]*")\)')
_CHOSEN = re.compile(r"if (.*) then (.*) else (.*);")
_NEGATED = re.compile(r"((?:-> )?!)\((.*)\)(;?)")
_LAST = re.compile(r"(.*) \(([^()]*)\)(;?)")


def escaped(text: str) -> str:
    """A text as it stands between double quotes."""
    told = text.replace("\\", "\\\\").replace('"', '\\"').replace("${", "\\${")
    return told.replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")


def quoted(text: str) -> str:
    """A text as an expression."""
    return f'"{escaped(text)}"'


def prose(text: str, depth: int) -> str:
    """A text for people at a depth in spaces: between double quotes, or on lines of its own where it is long."""
    if depth + len(text) + 18 <= WIDTH:
        return quoted(text)
    told = text.replace("''", "'''").replace("${", "''${")
    return "''\n" + "".join(f"  {line}\n" for line in textwrap.wrap(told, WIDTH - depth - 2)) + "''"


def key(name: str) -> str:
    """A name of an attribute, in quotes where it needs them."""
    return name if _BARE.fullmatch(name) else quoted(name)


def indented(text: str, by: int = 2) -> str:
    """Every line further to the right; blank ones stay empty."""
    return "\n".join(f"{' ' * by}{line}" if line else line for line in text.split("\n"))


def binding(name: str, expression: str) -> str:
    """``name = expression;``; a name that stands for itself is inherited."""
    if name == expression:
        return f"inherit {name};"
    return f"{name} ={expression};" if expression.startswith("\n") else f"{name} = {expression};"


def block(attributes: Mapping[str, str] | Iterable[tuple[str, str]], apart: str = "\n") -> str:
    """A set of attributes, one a line; ``apart`` is what stands between two.  Pairs are taken with paths as names."""
    if isinstance(attributes, Mapping):
        attributes = [(key(name), said) for name, said in attributes.items()]
    return braced([binding(name, said) for name, said in attributes], apart)


def braced(bindings: Sequence[str], apart: str = "\n") -> str:
    """A set of bindings as they are."""
    return "{\n" + apart.join(indented(one) for one in bindings) + "\n}" if bindings else "{ }"


def lines(items: Sequence[str]) -> str:
    """A list: one item stays on its line, many have one each."""
    if not items:
        return "[ ]"
    if len(items) == 1 and "\n" not in items[0]:
        return f"[ {items[0]} ]"
    return "[\n" + "".join(f"{indented(item)}\n" for item in items) + "]"


def laid(text: str) -> str:
    """A text of Nix whose long lines are broken: after ``=``, before operators, at the words of ``if``, in parentheses."""
    together = re.sub(r"inherit (\w+);\n +inherit (\w+);", r"inherit \1 \2;", text)
    return "".join(f"{line}\n" for one in together.split("\n") for line in _broken(one)).rstrip("\n") + "\n"


def _broken(line: str) -> Iterator[str]:
    # nixfmt counts from where a line begins.
    if len(line.lstrip()) <= WIDTH:
        yield line
    elif found := _ASSIGNED.fullmatch(line):
        room, name, expression = found.groups()
        yield f"{room}{name} ="
        yield from (f"{room}  {part}" for part in _parts(expression))
    elif found := _APPLIED.fullmatch(line):
        room, function, condition, text = found.groups()
        yield from (f"{room}({function} (", f"{room}  {condition}", f"{room}) {text})")
    else:
        yield line


def _parts(expression: str) -> list[str]:
    if len(expression) <= WIDTH:
        return [expression]
    if chosen := _CHOSEN.fullmatch(expression):
        return [f"if {chosen[1]} then", f"  {chosen[2]}", "else", f"  {chosen[3]};"]
    return [line for part in _operands(expression) for line in _folded(part)]


def _operands(expression: str) -> list[str]:
    """The operands of the weakest operator, each but the first behind it."""
    for operator in _OPERATORS:
        if len(split := _split(expression, operator)) > 1:
            return [split[0], *(f"{operator.strip()} {part}" for part in split[1:])]
    return [expression]


def _folded(part: str) -> list[str]:
    """An operand that is too long: its parentheses on lines of their own, where what is in them ends it."""
    if len(part) <= WIDTH:
        return [part]
    if found := _NEGATED.fullmatch(part):
        sign, inner, end = found.groups()
        return [f"{sign}(", *(f"  {one}" for one in _operands(inner)), f"){end}"]
    if found := _LAST.fullmatch(part):
        return [f"{found[1]} (", f"  {found[2]}", f"){found[3]}"]
    return [part]


def _split(expression: str, operator: str) -> list[str]:
    """The operands of an operator that stands in no parentheses and in no quotes."""
    found, depth, within, start, at = [], 0, False, 0, 0
    while at < len(expression):
        sign = expression[at]
        if sign == "\\":
            at += 1
        elif sign == '"':
            within = not within
        elif not within:
            depth += (sign in "([{") - (sign in ")]}")
            if not depth and expression.startswith(operator, at):
                found.append(expression[start:at])
                start = at = at + len(operator)
                continue
        at += 1
    return [*found, expression[start:]]
