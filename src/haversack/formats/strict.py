"""Check TOML against tables of keys, and meet the files it names.

Errors are :class:`~haversack.errors.DeclarationError` with the place and a remedy.  A value is repeated in
one only where it cannot hold a secret.
"""

from __future__ import annotations

import difflib
import math
import posixpath
import re
import shlex
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, time
from pathlib import Path, PurePosixPath
from typing import Any

from haversack.errors import DeclarationError
from haversack.formats.schema import DATE, PATH, PATH_SAYS, Key, KindKeys, patterns_of, quoted
from haversack.model.artifact import Digest, digest_of

_TYPES: dict[type, str] = {
    bool: "a boolean", str: "a string", int: "an integer", float: "a float", list: "an array",
    dict: "a table", datetime: "a timestamp", date: "a date", time: "a time",
}  # fmt: skip


# What version control, Python and pixi make, and make again.
_MADE = {".git", ".pixi", "__pycache__", ".venv"}
_INCLUDE = re.compile(r"--(?:requirement|constraint)(?:=(?P<long>.+))?|-[rc]=?(?P<short>.+)?")


@dataclass(frozen=True, slots=True)
class Place:
    """A place in a file; ``seen`` collects the digest of every file read, by its path from ``root``."""

    root: Path
    file: str
    keys: str = ""
    seen: dict[str, Digest] = field(default_factory=dict)

    def at(self, key: str) -> Place:
        """A key of the table at this place."""
        return replace(self, keys=f"{self.keys}.{quoted(key)}" if self.keys else quoted(key))

    def item(self, number: int) -> Place:
        """An item of the array at this place, counted from 0."""
        return replace(self, keys=f"{self.keys}[{number}]")

    def error(self, message: str, remedy: str) -> DeclarationError:
        """What is wrong here."""
        where = f"{self.file}: {self.keys}" if self.keys else self.file
        return DeclarationError(message, where=where, remedy=remedy)


def includes(data: bytes, name: str) -> list[tuple[int, str]]:
    """Every file that a pip requirements file takes in with ``-r`` or ``-c``, after the number of its line.

    Paths are as written, relative to the file.  Raises ``DeclarationError`` naming ``name`` and the line.
    """
    place = Place(Path(), name)
    found: list[tuple[int, str]] = []
    for number, line in enumerate(decoded(data, place).splitlines(), 1):
        if not re.match(r"\s*(?:-[rc]|--(?:requirement|constraint)\b)", line):
            continue
        try:
            words = iter(shlex.split(re.sub(r"\s#.*", "", line).rstrip("\\")))
        except ValueError as problem:
            where = replace(place, keys=f"line {number}")
            raise where.error(f"cannot be read: {problem}", "close the quotation marks") from problem
        for word in words:
            if match := _INCLUDE.fullmatch(word):
                path = match["long"] or match["short"] or next(words, "")
                found.append((number, path))
    return found


def table_of(raw: Any, table: KindKeys, place: Place) -> dict[str, Any]:
    """The values of a table by their names in snake_case, checked against its keys."""
    raw = is_table(raw, place)
    only_known(raw, table.keys, place)
    for name, key in table.keys.items():
        if key.required and name not in raw:
            raise missing(name, key, place)
    if table.one_of:
        written = [name for name in table.one_of if name in raw]
        if not written:
            raise place.error(f"one of these keys is missing: {', '.join(table.one_of)}", "write one of them")
        if len(written) > 1:
            raise place.at(written[1]).error(f"excludes {written[0]}", "write only one of them")
    values: dict[str, Any] = {}
    for name, key in table.keys.items():
        if name in raw:
            if key.only_with and not any(other in raw for other in key.only_with):
                raise place.at(name).error(
                    f"belongs to {' or '.join(key.only_with)}", "remove it, or write that"
                )
            for need in key.needs:
                if need not in raw:
                    raise missing(need, table.keys[need], place)
            values[name.replace("-", "_")] = _value(key, raw[name], place.at(name))
        elif key.default is not None:
            values[name.replace("-", "_")] = key.default
    return values


def _value(key: Key, raw: Any, place: Place) -> Any:
    if isinstance(key.type, KindKeys):
        return table_of(raw, key.type, place)
    if key.type == "boolean":
        if not isinstance(raw, bool):
            raise _wrong("a boolean", raw, place, "write true or false, without quotes")
        return raw
    if key.type == "integer":
        return _integer(key, raw, place)
    if key.type == "table":
        return {name: _anything(value, place.at(name)) for name, value in is_table(raw, place).items()}
    if key.type == "date":
        return _date(raw, place)
    if key.type not in {"strings", "files", "folders"}:
        return string_of(key, raw, place)
    if not isinstance(raw, list):
        raise _wrong("an array of strings", raw, place, 'write it in brackets, as ["one", "two"]')
    if not raw:
        raise place.error("is an empty array", "put something into it, or remove the key")
    values = tuple(string_of(key, item, place.item(number)) for number, item in enumerate(raw))
    for number, value in enumerate(values):
        if value in values[:number]:
            raise place.item(number).error(f"{value!r} stands twice", "remove one of them")
    return values


def _integer(key: Key, raw: Any, place: Place) -> int:
    says = f"a whole number from {key.least} to {key.most}"
    if not isinstance(raw, int) or isinstance(raw, bool):
        raise _wrong("an integer", raw, place, f"write {says}, without quotes")
    if not key.least <= raw <= key.most:
        raise place.error(f"{raw} is not {says}", f"write {says}: {key.description}")
    return raw


def _anything(raw: Any, place: Place) -> Any:
    """A value of a table that somebody else reads, as far as JSON has such values; arrays are tuples."""
    if isinstance(raw, dict):
        return {name: _anything(value, place.at(name)) for name, value in raw.items()}
    if isinstance(raw, list):
        return tuple(_anything(item, place.item(number)) for number, item in enumerate(raw))
    if isinstance(raw, (date, time)) or (isinstance(raw, float) and not math.isfinite(raw)):
        said = _TYPES[type(raw)] if not isinstance(raw, float) else "no number"
        raise place.error(f"is {said}, which JSON has not", "write it in quotes, as the text it is")
    return raw


def string_of(key: Key, raw: Any, place: Place) -> str:
    """The text under a key, or one item of its array; a file that it names is there and counted."""
    if not isinstance(raw, str):
        raise _wrong("a string", raw, place, "write it in quotes (3.10 without them is the number 3.1)")
    if not raw:
        raise place.error("is an empty string", "put something into it, or remove the key")
    if key.choices and raw not in key.choices:
        known = f"write one of {', '.join(key.choices)}"
        raise place.error(f"{raw!r} is unknown", near(raw, key.choices) or known)
    is_url = key.type == "url" or (key.type in {"location", "source"} and ":" in raw)
    if not all(re.fullmatch(pattern, raw) for pattern in patterns_of(key)):
        if is_url or "://" in raw:
            raise _bad_url(raw, key, place)
        says = key.expects or PATH_SAYS
        raise place.error(f"{raw!r} is not {says}", f"write {says}: {key.description}")
    if is_url:
        return raw
    if key.type in {"location", "source"}:
        _present(raw, place)
        return f"path:{posixpath.normpath(raw)}"
    if key.type in {"file", "files"}:
        _take(raw, place, key)
    if key.type == "folder":
        for name in key.holds:
            _take(f"{raw.rstrip('/')}/{name}", place)
    if key.type == "folders":
        for path in files_below(place.root, raw, place):
            _take(path, place)
    if key.type == "place" and not (place.root / raw).is_dir():
        raise place.error(f"there is no folder {raw}", "correct the path")
    return raw


def files_below(root: Path, folder: str, place: Place) -> list[str]:
    """Every file below a folder, relative to ``root``, sorted; what tools make again is left out.

    Raises ``DeclarationError`` for a folder that is not there, or holds a link that leads elsewhere.
    """
    top = root / folder
    if not top.is_dir():
        raise place.error(f"there is no folder {folder}", "correct the path")
    found: list[str] = []
    for path in sorted(top.rglob("*")):
        inner = path.relative_to(top)
        if _MADE.intersection(inner.parts):
            continue
        if path.is_symlink() and not path.resolve().is_relative_to(top.resolve()):
            raise place.error(f"{inner.as_posix()} is a link out of the folder", "put the file itself there")
        if path.is_file():
            found.append(path.relative_to(root).as_posix())
    return found


def _date(raw: Any, place: Place) -> str:
    if isinstance(raw, str) and re.fullmatch(DATE, raw):
        try:
            raw = datetime.fromisoformat(raw) if "T" in raw else date.fromisoformat(raw)
        except ValueError as problem:
            raise place.error(f"is no day of the calendar: {problem}", "correct it") from problem
    if isinstance(raw, datetime) and raw.tzinfo is not None:
        return raw.isoformat().replace("+00:00", "Z")
    if isinstance(raw, date) and not isinstance(raw, datetime):
        return raw.isoformat()
    raise place.error(
        "is neither a date nor a timestamp with its offset from UTC",
        "write it like 2026-11-01 or 2026-11-01T12:00:00Z",
    )


def _bad_url(raw: str, key: Key, place: Place) -> DeclarationError:
    """Why a URL is refused, without a word of it: it may hold a password."""
    if "@" in raw:
        return place.error(
            "the URL holds a user name or a password",
            "remove it, change it where it was in use, and let haversack find it elsewhere "
            '(for an index: auth = "env", "netrc" or "keyring")',
        )
    bucket, like = (", s3", " or s3://bucket/key") if key.type == "source" else ("", "")
    return place.error(
        f"is not a plain URL of a known scheme (http, https, file{bucket})",
        f"write it like https://host/path{like}, with no query and no fragment, and %20 for a blank",
    )


def _take(text: str, place: Place, key: Key | None = None) -> None:
    """Read a file that counts: it, what it includes and what must lie beside it."""
    name = posixpath.normpath(text)
    if name in place.seen:
        return
    if key is not None and key.made_by and not (place.root / text).exists():
        raise place.error(f"there is no file {text}", f"run: {key.made_by}")
    data = load(text, place)
    place.seen[name] = digest_of(data)
    if key is None:
        return
    if beside := key.beside.get(PurePosixPath(name).name):
        _take(str(PurePosixPath(name).with_name(beside)), place)
    for keys, path in _included(data, text, key):
        line = replace(place, file=text, keys=keys)
        if not re.fullmatch(PATH, path) or ":" in path:
            # Not repeated: a URL may hold a password.
            raise line.error(
                f"does not name {PATH_SAYS}", "copy what it names beside this file and name the copy"
            )
        # Whatever names a requirements file, that one names others as all of them do.
        _take(str(PurePosixPath(name).parent / path), line, replace(key, includes=True))


def _included(data: bytes, name: str, key: Key) -> Sequence[tuple[str, str]]:
    """Every file that a file under this key takes in, after its place."""
    if callable(key.includes):
        return key.includes(data, name)
    return [(f"line {number}", path) for number, path in includes(data, name)] if key.includes else ()


def load(text: str, place: Place) -> bytes:
    """The bytes of a file that must be there."""
    path = _present(text, place)
    try:
        return path.read_bytes()
    except OSError as problem:
        raise place.error(f"{text} cannot be read: {problem.strerror}", "make it readable") from problem


def _present(text: str, place: Place) -> Path:
    """The path of a file that must be there."""
    path = place.root / text
    try:
        if path.is_file():
            return path
        found = path.exists()
        beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    except OSError as problem:
        raise place.error(f"{text} cannot be looked at: {problem.strerror}", "correct the name") from problem
    if found:
        raise place.error(f"{text} is not a file", "name a file")
    raise place.error(f"there is no file {text}", near(path.name, beside) or "write it, or correct the name")


def decoded(data: bytes, place: Place) -> str:
    """Bytes as text, without the mark that Windows editors put in front."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        number = data.count(b"\n", 0, problem.start) + 1
        line = replace(place, keys=f"line {number}")
        raise line.error("is not UTF-8 text", "save the file as UTF-8") from problem


def toml(data: bytes, place: Place) -> dict[str, Any]:
    """A TOML file; the error names line and column."""
    text = decoded(data, place)
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as problem:
        # The message ends in "(at line 3, column 5)" or "(at end of document)".
        message, _, at = str(problem).rpartition(" (at ")
        if not at.startswith("line"):
            lines = text.split("\n")
            at = f"line {len(lines)}, column {len(lines[-1]) + 1}"
        line = replace(place, keys=at.rstrip(")"))
        raise line.error(f"is not TOML: {message}", "correct the line; texts need quotes") from problem


def is_table(raw: Any, place: Place) -> dict[str, Any]:
    """The value, if it is a table."""
    if not isinstance(raw, dict):
        raise _wrong("a table", raw, place, f"write it under a line [{place.keys}]")
    return raw


def only_known(raw: Mapping[str, Any], keys: Iterable[str], place: Place) -> None:
    """Refuse a key that is not among ``keys``."""
    keys = list(keys)
    for name, value in raw.items():
        if name in keys:
            continue
        remedy = near(name, keys) or f"known here are {', '.join(keys)}"
        family, _, rest = place.keys.partition(".")
        if isinstance(value, dict) and rest:
            remedy += f'; a name with a dot needs quotes: [{family}."{rest}.{name}"]'
        raise place.at(name).error("is an unknown key", remedy)


def missing(name: str, key: Key, place: Place) -> DeclarationError:
    """That a key has to be written."""
    return place.error(f"the key {name} is missing", f"add it: {key.description}")


def _wrong(expected: str, raw: Any, place: Place, remedy: str) -> DeclarationError:
    return place.error(f"must be {expected}, not {_TYPES[type(raw)]}", remedy)


def near(word: str, known: Iterable[str]) -> str:
    """A remedy that names the nearest known word, or nothing."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"did you mean {close[0]}?" if close else ""
