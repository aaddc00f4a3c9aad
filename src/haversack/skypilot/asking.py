"""Questions to programs of this machine, which answer in JSON, and what is said of answers that did not come."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from haversack.errors import ToolError
from haversack.model.finding import Finding, unknown
from haversack.ports import Run


@dataclass(frozen=True, slots=True)
class Refused:
    """A question that was not answered, and why: a code like ``NoSuchEntity``, or what a program said."""

    reason: str


def ask(run: Run, words: Sequence[str], env: Mapping[str, str] | None = None) -> Any:
    """What a program answers in JSON, a text where it is none, or :class:`Refused`; it has a minute."""
    said = say(run, words, env)
    if isinstance(said, Refused):
        return said
    try:
        return json.loads(said)
    except ValueError:
        return said


def say(run: Run, words: Sequence[str], env: Mapping[str, str] | None = None) -> str | Refused:
    """What a program answers as it stands, or :class:`Refused`; it has a minute."""
    try:
        done = run(["timeout", "60", *words], env=env)
    except ToolError as problem:
        return Refused(problem.message)
    if done.code:
        if done.code in {126, 127}:
            return Refused(f"{words[0]} is not on this machine")
        said = [line for line in done.err.splitlines() if line.strip()] or ["it does not answer"]
        return Refused(said[-1].strip()[:200])
    return done.out


def has(run: Run, program: str, word: str) -> bool:
    """Whether a program is on this machine and starts."""
    return not isinstance(ask(run, [program, word]), Refused)


def refused(subject: str, answer: Refused) -> Finding:
    """A question that was not answered."""
    return unknown(
        subject, f"is not known: {answer.reason}", "ask again as somebody who may, where SkyPilot runs"
    )
