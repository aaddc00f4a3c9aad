"""Where a file says the path of its environment, and what it says after a move.  Pure: bytes in, bytes out.

Conda replaces a placeholder that stands for nothing else (conda/core/portability.py).  An environment that
was made otherwise holds a real path, such as ``/opt/env``, and that may be part of another one: there
``/opt/env2``, ``/srv/opt/env`` and ``$HOME/opt/env`` stay what they are, while ``-I/opt/env/include`` and
``file:///opt/env`` are meant.  In a binary file a path ends at a NUL and nothing may change its place.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

Mode: TypeAlias = Literal["text", "binary", "shebang"]
"""``text``: replaced wherever it stands; ``binary``: within its NUL-terminated string, the size of the file
kept; ``shebang``: in the first line only, of a binary file (a zip archive with a program's first line)."""

# Linux before 5.1 reads 127 bytes of a first line; distlib and conda keep to that too.
_SHEBANG = 127
# What goes on for longer than this is no first line.
_FIRST = 4096
# So many bytes before a path tell whether it is the end of a longer one.
_BEHIND = 256
# A string of a binary file may go on for so many bytes behind a path, and as many NULs may be its own: what is
# longer is data, and would have to be in memory.
_LONGEST = 4 << 20
_NAME = rb"A-Za-z0-9_+~\-"
_BEYOND = rb"\x80-\xff"
_RUN = re.compile(rb"[" + _NAME + _BEYOND + rb".}]*\Z")
# What may stand right before a path without being of it: ${VAR:-/opt/env}, -I/opt/env, -isystem/opt/env.
_OPTION = re.compile(rb"[-+]|-[A-Za-z][A-Za-z-]*")
# What may not stand behind a path; in a binary file a byte that is not ASCII need not be of a name.
_AFTER = rb"(?![" + _NAME + rb"]|\.[A-Za-z0-9_])"
_AFTER_TEXT = rb"(?![" + _NAME + _BEYOND + rb"]|\.[A-Za-z0-9_])"
_CLEAN = re.compile(rb"[\t\n\r\x20-\x7e\x80-\xff]*")
_NULS = re.compile(rb"\0{1,%d}" % _LONGEST)
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
    """A string of a binary file from its first path on, where the paths are in it, and the number of its NULs.

    One without places names the path in a way that nobody can replace.
    """

    text: bytes
    places: list[tuple[int, int]]
    nuls: int


_ODD = _String(b"", [], 0)


@functools.lru_cache(maxsize=16)
def _pattern(old: tuple[bytes, ...], after: bytes) -> re.Pattern[bytes]:
    words = b"|".join(re.escape(word) for word in sorted(old, key=len, reverse=True))
    return re.compile(b"(?:" + words + b")" + after)


def spans(data: bytes, old: tuple[bytes, ...], everywhere: bool = False) -> list[tuple[int, int]]:
    """Where the path stands in a text: begin and end of each occurrence."""
    return _spans(data, old, b"" if everywhere else _AFTER_TEXT, 0, len(data))[0]


def _spans(
    data: bytes, old: tuple[bytes, ...], after: bytes, start: int, end: int
) -> tuple[list[tuple[int, int]], int]:
    """The paths that begin from ``start`` to before ``end``, and up to where the bytes were looked at."""
    found = []
    for match in _pattern(old, after).finditer(data, start):
        if match.start() >= end:
            break
        start = match.end()
        if not after or _begins(data, match.start()):
            found.append(match.span())
    return found, max(start, end)


def _begins(data: bytes, start: int) -> bool:
    """Whether a path begins here, and is not the end of a longer one."""
    before = data[max(0, start - _BEHIND) : start]
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


def _rounds(chunks: Iterable[bytes]) -> Iterator[tuple[bytes, bool]]:
    """Every chunk, and one without bytes that is the last."""
    for chunk in chunks:
        yield chunk, False
    yield b"", True


def _sure(data: bytes, old: tuple[bytes, ...], last: bool) -> int:
    """Up to where it can be told that a path begins: behind that, what follows it is in the next chunk."""
    return len(data) if last else max(0, len(data) - max(map(len, old)) - 2)


def _strings(
    chunks: Iterable[bytes], old: tuple[bytes, ...], everywhere: bool
) -> Iterator[list[bytes | _String]]:
    """A binary file: the strings that hold the path, and the bytes between them, some at a time.

    They are the same however the file is cut into chunks.  Memory is that of a chunk and of a string.
    """
    pattern = _pattern(old, b"" if everywhere else _AFTER)
    # Told is what comes before ``at``, searched what comes before ``seek``; a lost string has its NUL too far away.
    data, at, seek, lost = b"", 0, 0, False
    for chunk, last in _rounds(chunks):
        data += chunk
        sure = _sure(data, old, last)
        parts: list[bytes | _String] = []
        while seek < sure:
            if lost:
                nul = data.find(b"\0", seek)
                lost, seek = nul < 0, nul + 1 or len(data)
                continue
            match = pattern.search(data, seek)
            if match is None or match.start() >= sure:
                seek = sure
                break
            start = match.start()
            if not everywhere and not _begins(data, start):
                seek = match.end()
                continue
            end = data.find(b"\0", match.end(), start + _LONGEST)
            if end < 0 and (last or len(data) >= start + _LONGEST):
                parts.append(_ODD)
                lost, seek = True, match.end()
                continue
            nuls = _NULS.match(data, end) if end >= 0 else None
            if nuls is None or (nuls.end() == len(data) < end + _LONGEST and not last):
                # Its end is in a chunk to come.
                seek = start
                break
            string = _string(data, start, end, nuls.end(), old, everywhere)
            seek = nuls.end()
            if string.places:
                parts += [data[at : end - len(string.text)], string]
                at = seek
            elif string is _ODD:
                parts.append(string)
        yield [*parts, data[at:seek]]
        at = min(seek, _BEHIND)
        data = data[seek - at :]
        seek = at


def _string(
    data: bytes, start: int, end: int, stop: int, old: tuple[bytes, ...], everywhere: bool
) -> _String:
    """The string from a path to its end, and to that of its NULs."""
    places, _ = _spans(data, old, b"" if everywhere else _AFTER, start, end)
    if not everywhere:
        if not _is_text(data[start:end]):
            return _ODD
        # In a text a letter beyond ASCII belongs to a longer name.
        places = [place for place in places if data[place[1]] < 0x80]
    first = places[0][0] if places else end
    return _String(data[first:end], [(a - first, b - first) for a, b in places], stop - end)


def _is_text(string: bytes) -> bool:
    try:
        string.decode()
    except UnicodeDecodeError:
        return False
    return _CLEAN.fullmatch(string) is not None


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
    for parts in _strings(chunks, old, placeholder is not None):
        for string in parts:
            if isinstance(string, bytes):
                continue
            if not string.places:
                odd = True
                continue
            size = sum(end - start for start, end in string.places)
            spare = string.nuls - 1 if placeholder is not None else 0
            longest = (size + spare) // len(string.places)
            longest = min(longest, max(placeholder or 0, size // len(string.places)))
            room = longest if room is None else min(room, longest)
    return Reading(room, odd)


def rewritten(chunks: Iterable[bytes], occurrence: Occurrence, move: Move) -> Iterator[bytes]:
    """The bytes of a file after a move.  Raises ``ValueError`` where a path is too long for its place."""
    if occurrence.mode == "binary":
        for parts in _strings(chunks, move.old, occurrence.everywhere):
            yield b"".join(
                part if isinstance(part, bytes) else _filled(part, occurrence, move) for part in parts
            )
        return
    chunks = iter(chunks)
    head = b""
    while len(head) < _FIRST and b"\n" not in head and (chunk := next(chunks, None)) is not None:
        head += chunk
    match = _FIRST_LINE.match(head, 0, _FIRST)
    if match is not None and match.end() < _FIRST:
        yield _first_line(match[0], match["program"], occurrence, move)
        head = head[match.end() :]
    chunks = itertools.chain((head,), chunks)
    yield from chunks if occurrence.mode == "shebang" else _in_text(chunks, occurrence, move)


def _in_text(chunks: Iterable[bytes], occurrence: Occurrence, move: Move) -> Iterator[bytes]:
    """A text, line or no line: of what was read there stays in memory what tells of a path across two chunks."""
    after = b"" if occurrence.everywhere else _AFTER_TEXT
    data, at = b"", 0
    for chunk, last in _rounds(chunks):
        data += chunk
        places, end = _spans(data, move.old, after, at, max(at, _sure(data, move.old, last)))
        yield _spliced(data, places, move.new, at, end)
        at = min(end, _BEHIND)
        data = data[end - at :]


def _filled(string: _String, occurrence: Occurrence, move: Move) -> bytes:
    """A string after the move, and NULs up to where it ended."""
    if not string.places:
        return b""
    text = _spliced(string.text, string.places, move.new, 0, len(string.text))
    left = len(string.text) + string.nuls - len(text)
    if left < 1:
        raise ValueError(f"{occurrence.path} has no room for a path of {len(move.new)} bytes")
    return text + b"\0" * left


def _first_line(line: bytes, program: bytes, occurrence: Occurrence, move: Move) -> bytes:
    """The first line of a file, which names the program that runs it."""
    places = spans(line, move.old, occurrence.everywhere)
    moved = _spliced(line, places, move.new, 0, len(line))
    return moved if moved == line else _runnable(moved, program, occurrence, move)


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
