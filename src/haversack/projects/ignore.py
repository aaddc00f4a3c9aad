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


@dataclass(frozen=True, slots=True)
class Rule:
    """One pattern: it counts for paths below ``base`` (empty, or a path with ``/`` at its end)."""

    base: str
    pattern: re.Pattern[str]
    negated: bool
    folders_only: bool


def rules(lines: Iterable[str], base: str = "") -> list[Rule]:
    """The rules of a file's lines; a line that is no pattern says nothing, as in git."""
    found = []
    for line in lines:
        text = re.sub(r"(?<!\\) +$", "", line.rstrip("\r\n"))
        if not text or text.startswith("#"):
            continue
        negated = text.startswith("!")
        text = text.removeprefix("!")
        folders_only = text.endswith("/")
        text = text.rstrip("/")
        if not text:
            continue
        anchored = "/" in text
        try:
            pattern = re.compile(("" if anchored else "(?:.*/)?") + _expression(text.lstrip("/")))
        except re.error:
            continue
        found.append(Rule(base, pattern, negated, folders_only))
    return found


def is_ignored(path: str, *, folder: bool, known: Sequence[Rule]) -> bool:
    """Whether a path stays behind: the last rule that matches decides, and nothing comes back below a folder."""
    for rule in reversed(known):
        if not path.startswith(rule.base) or (rule.folders_only and not folder):
            continue
        if rule.pattern.fullmatch(path[len(rule.base) :]):
            return not rule.negated
    return False


def _expression(glob: str) -> str:
    """A pattern of git as a regular expression."""
    found, place = "", 0
    while place < len(glob):
        if glob.startswith("**/", place) and (place == 0 or glob[place - 1] == "/"):
            found, place = found + "(?:.*/)?", place + 3
        elif glob[place:] == "**" and (place == 0 or glob[place - 1] == "/"):
            found, place = found + ".+", place + 2
        elif glob[place] == "*":
            found, place = found + "[^/]*", place + 1
        elif glob[place] == "?":
            found, place = found + "[^/]", place + 1
        elif glob[place] == "[" and (match := re.match(r"\[([!^]?)(\]?[^\]]*)\]", glob[place:])):
            inner = match[2].replace("\\", "\\\\").replace("[", "\\[")
            found, place = found + f"(?!/)[{'^' if match[1] else ''}{inner}]", place + match.end()
        elif glob[place] == "[":
            return "(?!)"  # to git a class without its end is nothing
        else:
            place += glob[place] == "\\" and place + 1 < len(glob)
            found, place = found + re.escape(glob[place]), place + 1
    return found
