"""Where a file says the path of its environment, and what it says after a move.  Pure: bytes in, bytes out.

Conda replaces a placeholder that stands for nothing else (conda/core/portability.py).  An environment that
was made otherwise holds a real path, such as ``/opt/env``, and that may be part of another one: there
``/opt/env2``, ``/srv/opt/env`` and ``$HOME/opt/env`` stay what they are, while ``-I/opt/env/include`` and
``file:///opt/env`` are meant.  In a binary file a path ends at a NUL and nothing may change its place.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

Mode: TypeAlias = Literal["text", "binary", "shebang"]
"""``text``: replaced wherever it stands; ``binary``: within its NUL-terminated string, the size of the file
kept; ``shebang``: in the first line only, of a binary file (a zip archive with a program's first line)."""

# Linux before 5.1 reads 127 bytes of a first line; distlib and conda keep to that too.
_SHEBANG = 127
_NAME = rb"A-Za-z0-9_+~\-"
_BEYOND = rb"\x80-\xff"
_RUN = re.compile(rb"[" + _NAME + _BEYOND + rb".}]*\Z")
# What may stand right before a path without being of it: ${VAR:-/opt/env}, -I/opt/env, -isystem/opt/env.
_OPTION = re.compile(rb"[-+]|-[A-Za-z][A-Za-z-]*")
# What may not stand behind a path; in a binary file a byte that is not ASCII need not be of a name.
_AFTER = rb"(?![" + _NAME + rb"]|\.[A-Za-z0-9_])"
_AFTER_TEXT = rb"(?![" + _NAME + _BEYOND + rb"]|\.[A-Za-z0-9_])"
_CLEAN = re.compile(rb"[\t\n\r\x20-\x7e\x80-\xff]*")
_NULS = re.compile(rb"\0+")
_FIRST_LINE = re.compile(rb"#![ ]*(?P<program>[^\r\n]*)")


@dataclass(frozen=True, slots=True)
class Occurrence:
    """A file that holds the path of its environment.

    ``room`` is the length in bytes of the longest path that fits (binary files only).  ``everywhere`` says
    that a package vouches for every occurrence, so that none has to prove that it is one.
    """

    path: str
    mode: Mode
    room: int | None = None
    everywhere: bool = False


@dataclass(frozen=True, slots=True)
class Move:
    """From where to where: every spelling of the old path, and the new one."""

    old: tuple[bytes, ...]
    new: bytes


class _String(NamedTuple):
    """A NUL-terminated string that holds the path: from the first occurrence to its end, and that of its NULs."""

    start: int
    end: int
    stop: int
    spans: list[tuple[int, int]]
    clean: bool


@functools.lru_cache(maxsize=16)
def _pattern(old: tuple[bytes, ...], after: bytes) -> re.Pattern[bytes]:
    words = b"|".join(re.escape(word) for word in sorted(old, key=len, reverse=True))
    return re.compile(b"(?:" + words + b")" + after)


def spans(data: bytes, old: tuple[bytes, ...], everywhere: bool = False) -> list[tuple[int, int]]:
    """Where the path stands in a text: begin and end of each occurrence."""
    return _spans(data, old, b"" if everywhere else _AFTER_TEXT)


def _spans(data: bytes, old: tuple[bytes, ...], after: bytes) -> list[tuple[int, int]]:
    found = _pattern(old, after).finditer(data)
    return [match.span() for match in found if not after or _begins(data, match.start())]


def _begins(data: bytes, start: int) -> bool:
    """Whether a path begins here, and is not the end of a longer one."""
    before = data[max(0, start - 256) : start]
    match = _RUN.search(before)
    assert match is not None
    run = match[0]
    if not run or _OPTION.fullmatch(run):
        return True
    # "\n/opt/env" in the source of a program, where the backslash and the letter are one character.
    return run in (b"n", b"r", b"t") and before[: -len(run)].endswith(b"\\")


def _spliced(data: bytes, places: Iterable[tuple[int, int]], new: bytes, start: int, end: int) -> bytes:
    parts = []
    for begin, stop in places:
        parts += [data[start:begin], new]
        start = stop
    return b"".join([*parts, data[start:end]])


def _strings(piece: bytes, old: tuple[bytes, ...], everywhere: bool) -> Iterator[_String]:
    """Every string of ``piece`` that holds the path; one without a NUL after it is not clean."""
    rest = _spans(piece, old, b"" if everywhere else _AFTER)
    while rest:
        start = rest[0][0]
        end = piece.find(b"\0", rest[0][1])
        if end < 0:
            yield _String(start, len(piece), len(piece), rest, False)
            return
        nuls = _NULS.match(piece, end)
        assert nuls is not None
        mine = [span for span in rest if span[0] < end]
        rest = rest[len(mine) :]
        clean = everywhere
        if not everywhere and _is_text(piece[start:end]):
            # In a text a letter beyond ASCII belongs to a longer name.
            mine = [span for span in mine if piece[span[1]] < 0x80]
            clean = True
        if mine:
            yield _String(mine[0][0], end, nuls.end(), mine, clean)


def _is_text(string: bytes) -> bool:
    try:
        string.decode()
    except UnicodeDecodeError:
        return False
    return _CLEAN.fullmatch(string) is not None


def pieces(chunks: Iterable[bytes], mode: Mode) -> Iterator[bytes]:
    """The same bytes, cut only where no path can stand: after a line, or after the NULs that end a string.

    Memory is that of a chunk and of the longest line or string.
    """
    held = b""
    for chunk in chunks:
        held += chunk
        # Behind the last run of NULs that has an end: one at the end of the buffer may go on.
        cut = (held.rstrip(b"\0").rfind(b"\0") if mode == "binary" else held.rfind(b"\n")) + 1
        if cut:
            yield held[:cut]
            held = held[cut:]
    if held:
        yield held


@dataclass(frozen=True, slots=True)
class Reading:
    """What a binary file holds: the room of its strings (``None`` without one), and whether others are there."""

    room: int | None
    odd: bool


def measure(chunks: Iterable[bytes], old: tuple[bytes, ...], placeholder: int | None) -> Reading:
    """Read a binary file that holds the path.

    ``placeholder`` is the length in bytes of what a package had in its place: as many NULs as it was longer
    follow the string and are room too, if they are still there.  ``odd`` are occurrences in no plain string
    with a NUL at its end (archives, serialised objects): nobody can replace those.
    """
    room: int | None = None
    odd = False
    for piece in pieces(chunks, "binary"):
        for string in _strings(piece, old, placeholder is not None):
            if not string.clean:
                odd = True
                continue
            size = sum(end - start for start, end in string.spans)
            spare = string.stop - string.end - 1 if placeholder is not None else 0
            longest = (size + spare) // len(string.spans)
            longest = min(longest, max(placeholder or 0, size // len(string.spans)))
            room = longest if room is None else min(room, longest)
    return Reading(room, odd)


def rewritten(chunks: Iterable[bytes], occurrence: Occurrence, move: Move) -> Iterator[bytes]:
    """The bytes of a file after a move.  Raises ``ValueError`` where a path is too long for its place."""
    first = True
    for piece in pieces(chunks, occurrence.mode):
        if occurrence.mode == "binary":
            yield _in_strings(piece, occurrence, move)
        elif first:
            yield _from_first_line(piece, occurrence, move)
        elif occurrence.mode == "text":
            yield _in_text(piece, occurrence, move)
        else:
            yield piece
        first = False


def _in_text(piece: bytes, occurrence: Occurrence, move: Move) -> bytes:
    places = spans(piece, move.old, occurrence.everywhere)
    return _spliced(piece, places, move.new, 0, len(piece)) if places else piece


def _in_strings(piece: bytes, occurrence: Occurrence, move: Move) -> bytes:
    parts, done = [], 0
    for string in _strings(piece, move.old, occurrence.everywhere):
        if not string.clean:
            continue
        text = _spliced(piece, string.spans, move.new, string.start, string.end)
        left = string.stop - string.start - len(text)
        if left < 1:
            raise ValueError(f"{occurrence.path} has no room for a path of {len(move.new)} bytes")
        parts += [piece[done : string.start], text, b"\0" * left]
        done = string.stop
    return b"".join([*parts, piece[done:]]) if parts else piece


def _from_first_line(piece: bytes, occurrence: Occurrence, move: Move) -> bytes:
    """A piece from the beginning of a file, whose first line may name the program that runs it."""
    match = _FIRST_LINE.match(piece)
    if match is None:
        return _in_text(piece, occurrence, move) if occurrence.mode == "text" else piece
    rest = piece[match.end() :]
    line = _in_text(match[0], occurrence, move)
    if line != match[0]:
        line = _runnable(line, match["program"], occurrence, move)
    return line + (_in_text(rest, occurrence, move) if occurrence.mode == "text" else rest)


def _runnable(line: bytes, program: bytes, occurrence: Occurrence, move: Move) -> bytes:
    """A first line that the kernel understands: not too long, and no space in the path.

    For Python the shell starts the interpreter, as distlib has it; for others ``env`` looks for it on PATH,
    as conda has it.
    """
    if len(line) <= _SHEBANG and b" " not in move.new:
        return line
    places = spans(program, move.old, occurrence.everywhere)
    if not places or places[0][0] != 0:
        return line
    word, space, options = program.partition(b" ")
    path = _spliced(word, [places[0]], move.new, 0, len(word))
    name = path.rpartition(b"/")[2]
    if name.startswith((b"python", b"pypy")):
        return b"#!/bin/sh\n'''exec' \"" + path + b'"' + space + options + b" \"$0\" \"$@\"\n' '''"
    return b"#!/usr/bin/env " + name
