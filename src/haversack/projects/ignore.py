"""What of a folder stays behind: patterns as gitignore(5) has them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

FILES = (".gitignore", ".haversackignore")
"""The files that hold patterns, the later one winning."""
MADE = frozenset(
    [
        *(".git", ".hg", ".svn", ".venv", ".pixi", ".tox", ".nox", "__pycache__", ".ipynb_checkpoints"),
        *(".mypy_cache", ".pytest_cache", ".ruff_cache", ".DS_Store", "Thumbs.db"),
    ]
)
"""What version control, Python and desktops make, and make again: it travels only where it is named itself."""

_CLASS = re.compile(r"\[([!^]?)(\]?[^\]]*)\]")


@dataclass(frozen=True, slots=True)
class Rule:
    """One pattern: it counts for paths below ``base`` (empty, or a path with ``/`` at its end).

    ``parts`` are what the names in a path must be, one after the other; ``None`` stands for names of any number.
    """

    base: str
    parts: tuple[re.Pattern[str] | None, ...]
    negated: bool
    folders_only: bool


def rules(lines: Iterable[str], base: str = "") -> list[Rule]:
    """The rules of a file's lines; a line that is no pattern says nothing, as in git."""
    found = []
    for line in lines:
        text = line.rstrip("\r\n").rstrip(" ")
        if text.endswith("\\") and line[len(text) : len(text) + 1] == " ":
            text += " "
        if not text or text.startswith("#"):
            continue
        negated = text.startswith("!")
        text = text.removeprefix("!")
        folders_only = text.endswith("/")
        text = text.rstrip("/")
        if not text:
            continue
        try:
            parts = _parts(text.lstrip("/"))
        except re.error:
            continue
        found.append(Rule(base, parts if "/" in text else (None, *parts), negated, folders_only))
    return found


def is_ignored(path: str, *, folder: bool, known: Sequence[Rule]) -> bool:
    """Whether a path stays behind: the last rule that matches decides, and nothing comes back below a folder."""
    for rule in reversed(known):
        if not path.startswith(rule.base) or (rule.folders_only and not folder):
            continue
        if _fits(rule.parts, path[len(rule.base) :].split("/")):
            return not rule.negated
    return False


def _fits(parts: Sequence[re.Pattern[str] | None], names: Sequence[str]) -> bool:
    """Whether the parts of a pattern are these names, in no more steps than parts times names."""
    reached = _skipping({0}, parts)
    for name in names:
        following = set()
        for at in reached - {len(parts)}:
            part = parts[at]
            if part is None:
                following |= {at, at + 1}
            elif part.fullmatch(name):
                following.add(at + 1)
        reached = _skipping(following, parts)
    return len(parts) in reached


def _skipping(reached: Iterable[int], parts: Sequence[re.Pattern[str] | None]) -> set[int]:
    """The places in a pattern that can be reached without a name: ``**`` may be none but at the end."""
    found = set(reached)
    for at in range(len(parts) - 1):
        if at in found and parts[at] is None:
            found.add(at + 1)
    return found


def _parts(glob: str) -> tuple[re.Pattern[str] | None, ...]:
    """The parts of a pattern of git, which ``/`` outside of brackets divides."""
    found: list[re.Pattern[str] | None] = []
    fixed: list[list[str]] = [[]]  # the pieces between stars, each of a length of its own
    place = begin = 0
    while place <= len(glob):
        if place == len(glob) or glob[place] == "/":
            found.append(None if glob[begin:place] == "**" else _expression(fixed))
            fixed, place = [[]], place + 1
            begin = place
        elif glob[place] == "*":
            fixed.append([])
            place += 1
        elif glob[place] == "?":
            fixed[-1].append(".")
            place += 1
        elif glob[place] == "[" and (match := _CLASS.match(glob, place)):
            inner = re.sub(r"([\\\[&~|])", r"\\\1", match[2])
            fixed[-1].append(f"[{'^' if match[1] else ''}{inner}]")
            place = match.end()
        elif glob[place] == "[":
            return (re.compile("(?!)"),)  # to git a class without its end is nothing
        elif glob.startswith("\\/", place):
            place += 1
        else:
            place += glob[place] == "\\" and place + 1 < len(glob)
            fixed[-1].append(re.escape(glob[place]))
            place += 1
    return tuple(found)


def _expression(fixed: Sequence[Sequence[str]]) -> re.Pattern[str]:
    """A name of these fixed pieces with anything between them.

    Each piece but the last is looked for once, from where the one before it ended, and never again: were each
    star free to take more, a name could be tried in more ways than there is time for.
    """
    first, *others = map("".join, fixed)
    text = first
    if others:
        text += "".join(f"(?>.*?{piece})" for piece in others[:-1] if piece) + f".*{others[-1]}"
    return re.compile(text, re.DOTALL)
