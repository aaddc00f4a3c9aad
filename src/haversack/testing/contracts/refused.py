"""One assertion that the suites share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

_E = TypeVar("_E", bound=BaseException)


def refused(error: type[_E], act: Callable[[], object]) -> _E:
    """The error that an act raises; an act that raises none, or another, fails the test."""
    try:
        act()
    except error as problem:
        return problem
    raise AssertionError(f"{error.__name__} was not raised")
