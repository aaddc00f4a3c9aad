"""Canonical JSON and strict reading of it: the border where bytes become typed values.

Canonical means UTF-8, keys sorted by code point, no white space, no floating point, so that equal values
have equal digests on any machine (docs/spec/canonical.md).
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

from haversack.errors import FormatError, HaversackError, IntegrityError
from haversack.model.artifact import is_digest

# Only an escape can bring half a character; decoding refuses the bytes of one.
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_VERSION = re.compile(r"[0-9]{1,9}\.[0-9]{1,9}")
_LARGEST = 1 << 63
"""No file, offset or counter reaches it, and JSON readers elsewhere hold no more."""


def canonical(value: Any) -> bytes:
    """The canonical bytes of a JSON value."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def parse(data: bytes, where: str, error: type[HaversackError] = IntegrityError) -> Any:
    """Strict JSON: UTF-8, whole characters, no key twice, no NaN, nothing infinite.

    What it returns :func:`canonical` can write.  Raises ``error`` naming ``where``.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            twice = next(key for key, _ in pairs if [k for k, _ in pairs].count(key) > 1)
            raise ValueError(f"key {twice!r} stands twice")
        return found

    def no_constant(text: str) -> float:
        raise ValueError(f"{text} is not JSON")

    def finite(text: str) -> float:
        value = float(text)
        return value if math.isfinite(value) else no_constant(text)

    try:
        value = json.loads(
            data.decode(), object_pairs_hook=unique, parse_constant=no_constant, parse_float=finite
        )
        if _SURROGATE.search(data):
            canonical(value)
    except (ValueError, RecursionError) as problem:
        raise error(f"not readable as JSON: {problem}", where=where) from problem
    return value


def check_version(
    found: str, known: str, where: str, error: type[HaversackError] = IntegrityError
) -> str | None:
    """Compare a file's format version with ours (``major.minor``).

    A newer major version raises ``FormatError``; a newer minor one returns a sentence to warn with.
    """
    if not _VERSION.fullmatch(found):
        raise error(f"format version {found[:40]!r} is not like {known!r}", where=where)
    major, minor = map(int, found.split("."))
    our_major, our_minor = map(int, known.split("."))
    if major != our_major:
        raise FormatError(
            f"is of format {found}; this haversack reads {known}",
            where=where,
            remedy="use the haversack that the newest bundle brings (bootstrap.sh)",
        )
    if minor > our_minor:
        return f"is of format {found}, newer than {known}; what is new in it is ignored"
    return None


class Fields:
    """The fields of one JSON object, each taken once with its type; errors name the place."""

    def __init__(
        self, value: object, where: str, error: type[HaversackError] = IntegrityError, remedy: str = ""
    ) -> None:
        self.where = where
        self._error = error
        self._remedy = remedy
        if not isinstance(value, dict):
            raise self.wrong("is not an object")
        self._value: dict[str, Any] = value

    def wrong(self, message: str) -> HaversackError:
        """The error to raise about this object."""
        return self._error(message, where=self.where, remedy=self._remedy)

    def _take(self, key: str, kind: type | tuple[type, ...], named: str, optional: bool) -> Any:
        value = self._value.get(key)
        if value is None and optional:
            return None
        # bool is an int in Python, not in JSON.
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is int):
            raise self.wrong(f"{key!r} is absent" if value is None else f"{key!r} is not {named}")
        return value

    def text(self, key: str) -> str:
        """A string."""
        return str(self._take(key, str, "a string", optional=False))

    def text_or_none(self, key: str) -> str | None:
        """A string, or nothing."""
        value: str | None = self._take(key, str, "a string", optional=True)
        return value

    def count(self, key: str) -> int:
        """A whole number from 0."""
        value: int = self._take(key, int, "a number", optional=False)
        if not 0 <= value < _LARGEST:
            raise self.wrong(f"{key!r} is negative" if value < 0 else f"{key!r} is too large")
        return value

    def count_or_none(self, key: str) -> int | None:
        """A whole number from 0, or nothing."""
        return None if self._value.get(key) is None else self.count(key)

    def digest(self, key: str) -> str:
        """A digest."""
        value = self.text(key)
        if not is_digest(value):
            raise self.wrong(f"{key!r} is not a sha256 digest")
        return value

    def digest_or_none(self, key: str) -> str | None:
        """A digest, or nothing."""
        return None if self._value.get(key) is None else self.digest(key)

    def items(self, key: str) -> list[Any]:
        """A list."""
        value: list[Any] = self._take(key, list, "a list", optional=False)
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of strings."""
        values = self.items(key)
        if not all(isinstance(value, str) for value in values):
            raise self.wrong(f"{key!r} is not a list of strings")
        return tuple(values)

    def table(self, key: str) -> dict[str, Any]:
        """An object, empty when absent."""
        value: dict[str, Any] | None = self._take(key, dict, "an object", optional=True)
        return value or {}
