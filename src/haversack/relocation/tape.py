"""The tar that carries a folder: one spelling for each content, and a reader that takes no other.

An uncompressed POSIX tar (ustar; pax records for a name that is long or not ASCII, or a size of 8 GiB and
more).  First comes ``haversack-prefix.json``, then the folder ``prefix/`` and all that is in it, sorted; no
owner, no date of a folder, permission bits alone.  The reader encodes what it understood and compares: what
differs in a single bit from what :func:`header` writes is refused, so nothing hides in a field.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator
from typing import BinaryIO, Literal, NamedTuple, TypeAlias

from haversack.errors import IntegrityError

MANIFEST = "haversack-prefix.json"
"""The first member."""
TOP = "prefix"
"""The folder that everything else is in."""
CHUNK = 1 << 20
"""A file up to this size is read whole; so much of a larger one is in memory at once (bytes)."""
END = b"\0" * 1024

_BLOCK = 512
_ZEROS = b"\0" * _BLOCK
_LARGEST_MANIFEST = 1 << 28
_LARGEST_HEADER = 1 << 16
_OCTAL = 1 << 33  # eleven octal digits
_REST = b"\0" * 247  # names of owners, numbers of devices, a prefix

MemberKind: TypeAlias = Literal["file", "folder", "symlink", "hardlink"]
_FLAGS: dict[MemberKind, bytes] = {"file": b"0", "hardlink": b"1", "symlink": b"2", "folder": b"5"}
_KINDS = {flag: kind for kind, flag in _FLAGS.items()}


class Member(NamedTuple):
    """A file, folder or link: its path below the folder (``""`` is the folder itself), size in bytes, date in
    seconds since the epoch (files alone have one), and what a link names.

    A symbolic link names a path relative to where it stands, a hard link one below the folder.
    """

    path: str
    kind: MemberKind
    mode: int
    size: int = 0
    mtime: int = 0
    target: str = ""


class Entry(NamedTuple):
    """A member with its bytes; those of a file up to :data:`CHUNK` are one chunk in a tuple.

    The chunks of a larger one are read from the archive, once, before the next entry.
    """

    member: Member
    chunks: Iterable[bytes]


def padding(size: int) -> bytes:
    """What follows a member of that size, up to the next block."""
    return _ZEROS[: -size % _BLOCK]


def header(member: Member) -> bytes:
    """The header of a member, with a pax header before it where it needs one."""
    name = f"{TOP}/{member.path}/" if member.kind == "folder" and member.path else f"{TOP}/{member.path}"
    target = f"{TOP}/{member.target}" if member.kind == "hardlink" else member.target
    return _header(name, target, member)


def manifest_header(size: int) -> bytes:
    """The header of the manifest."""
    return _header(MANIFEST, "", Member(MANIFEST, "file", 0o644, size))


def _header(name: str, target: str, member: Member) -> bytes:
    records = b""
    size = member.size
    if len(name) > 100 or not name.isascii():
        records += _record(b"path", name)
    if len(target) > 100 or not target.isascii():
        records += _record(b"linkpath", target)
    if size >= _OCTAL:
        records += _record(b"size", str(size))
        size = 0
    plain = _block(
        name.encode("ascii", "replace"),
        member.mode,
        size,
        member.mtime,
        _FLAGS[member.kind],
        target.encode("ascii", "replace"),
    )
    if not records:
        return plain
    return _block(b"././@PaxHeader", 0, len(records), 0, b"x", b"") + records + padding(len(records)) + plain


def _record(key: bytes, value: str) -> bytes:
    """A pax record: its own length, the digits of that included, and ``key=value``."""
    rest = b" " + key + b"=" + value.encode() + b"\n"
    length = len(rest) + 1
    while length != len(rest) + len(str(length)):
        length = len(rest) + len(str(length))
    return str(length).encode() + rest


def _block(name: bytes, mode: int, size: int, mtime: int, flag: bytes, target: bytes) -> bytes:
    head = b"%-100.100b%07o\0%07o\0%07o\0%011o\0%011o\0" % (name.ljust(100, b"\0"), mode, 0, 0, size, mtime)
    tail = b"%b%bustar\00000" % (flag, target[:100].ljust(100, b"\0"))
    # The check sum counts its own field as spaces.
    total = sum((head + tail).replace(b"\0", b"")) + 8 * 0x20
    return b"%b%06o\0 %b%b" % (head, total, tail, _REST)


def read(file: BinaryIO) -> tuple[bytes, Iterator[Entry]]:
    """The manifest, and every member after it in turn.  Raises ``IntegrityError``, the iterator as well.

    Names stay below the folder, no member is reached through a link, no link leads out of the folder, no two
    members have one name, and nothing follows the end.
    """
    member, raw = _next(file)
    if member is None or raw != manifest_header(member.size):
        raise IntegrityError(f"does not begin with {MANIFEST}")
    if not 0 <= member.size <= _LARGEST_MANIFEST:
        raise IntegrityError(f"has a {MANIFEST} of {member.size} bytes")
    return _exactly(file, member.size), _entries(file)


def _entries(file: BinaryIO) -> Iterator[Entry]:
    folders: set[str] = set()
    files: set[str] = set()
    before = None
    while True:
        member, raw = _next(file)
        if member is None:
            break
        name, slash, path = member.path.partition("/")
        if name != TOP or not slash:
            raise IntegrityError(f"{member.path!a} is not in {TOP}/")
        if member.kind == "folder" and path:
            path = path[:-1]
        target = member.target.removeprefix(f"{TOP}/") if member.kind == "hardlink" else member.target
        member = member._replace(path=path, target=target)
        if raw != header(member):
            raise IntegrityError(f"{path!a} has a header that haversack does not write")
        if before is not None and not before < path:
            raise IntegrityError(f"{path!a} stands twice, or out of order")
        before = path
        _stays(member, folders, files)
        if member.kind == "folder":
            folders.add(path)
        elif member.kind == "file":
            files.add(path)
        if member.size <= CHUNK:
            yield Entry(member, (_exactly(file, member.size),) if member.size else ())
        else:
            body = _Body(file, member.size)
            yield Entry(member, body.chunks())
            for _ in body.chunks():
                """What nobody wanted."""
    if before is None:
        raise IntegrityError("holds no folder")
    if file.read(1):
        raise IntegrityError("bytes follow its end")


def _stays(member: Member, folders: set[str], files: set[str]) -> None:
    """Raise ``IntegrityError`` for a member that is, or leads, elsewhere than below the folder."""
    path = member.path
    if member.mode & ~0o777 or member.size < 0 or member.mtime < 0:
        raise IntegrityError(f"{path!a} has a header that haversack does not write")
    if member.kind != "file" and (member.size or member.mtime):
        raise IntegrityError(f"{path!a} is no file and has a size or a date")
    if not path:
        if member.kind != "folder" or folders:
            raise IntegrityError("its folder is none")
        return
    if not {"", ".", ".."}.isdisjoint(path.split("/")) or "\0" in path:
        raise IntegrityError(f"{path!a} is not a plain path")
    if path.rpartition("/")[0] not in folders:
        raise IntegrityError(f"{path!a} is in no folder of the archive")
    if member.kind == "hardlink" and member.target not in files:
        raise IntegrityError(f"{path!a} is a link to {member.target!a}, which is no file before it")
    if member.kind == "symlink" and not stays(path, member.target):
        raise IntegrityError(f"{path!a} is a link to {member.target!a}, which leaves the folder")


def stays(path: str, target: str) -> bool:
    """Whether a symbolic link at ``path`` surely stays below the folder.

    ``..`` may stand only in front: there it climbs true folders, behind a name it could climb out of what a
    link names.
    """
    if not target or target.startswith("/") or "\0" in target or posixpath.normpath(target) != target:
        return False
    return target.split("/").count("..") <= path.count("/")


class _Body:
    """The bytes of the file that the archive stands at."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size, self._left = file, size, size

    def chunks(self) -> Iterator[bytes]:
        while self._left:
            chunk = self._file.read(min(self._left, CHUNK))
            if not chunk:
                raise IntegrityError("it ends within a file")
            self._left -= len(chunk)
            if not self._left and _read(self._file, -self._size % _BLOCK) != padding(self._size):
                raise IntegrityError("a file of it is not followed by zeros")
            yield chunk


def _read(file: BinaryIO, size: int) -> bytes:
    data = file.read(size)
    # A pipe gives what it has.
    while len(data) < size and (more := file.read(size - len(data))):
        data += more
    return data


def _exactly(file: BinaryIO, size: int) -> bytes:
    data = _read(file, size + -size % _BLOCK)
    if len(data) < size + -size % _BLOCK:
        raise IntegrityError("it ends within a file")
    if data[size:].strip(b"\0"):
        raise IntegrityError("a file of it is not followed by zeros")
    return data[:size]


def _next(file: BinaryIO) -> tuple[Member | None, bytes]:
    """The next member as its header spells it, and the header; no member at the end mark."""
    raw = block = _read(file, _BLOCK)
    told: dict[str, str] = {}
    try:
        if block[156:157] == b"x":
            size = int(block[124:135], 8)
            if not 0 <= size <= _LARGEST_HEADER:
                raise IntegrityError(f"a header of it says that it goes on for {size} bytes")
            records = _exactly(file, size)
            raw += records + padding(size)
            told = _told(records)
            block = _read(file, _BLOCK)
            raw += block
        if len(block) < _BLOCK:
            raise IntegrityError("it ends within a header")
        if not block.strip(b"\0"):
            if told or _read(file, _BLOCK) != _ZEROS:
                raise IntegrityError("its end is none")
            return None, b""
        size = int(told.get("size") or block[124:135], 10 if "size" in told else 8)
        name = told.get("path") or block[:100].partition(b"\0")[0].decode("ascii")
        target = told.get("linkpath") or block[157:257].partition(b"\0")[0].decode("ascii")
        kind = _KINDS[block[156:157]]
        return Member(name, kind, int(block[100:107], 8), size, int(block[136:147], 8), target), raw
    except (ValueError, KeyError) as problem:
        raise IntegrityError("a header of it is damaged") from problem


def _told(data: bytes) -> dict[str, str]:
    """The records of a pax header."""
    records: dict[str, str] = {}
    while data:
        length = data.partition(b" ")[0]
        size = int(length)
        if size <= len(length) or size > len(data):
            raise ValueError("a record of no length")
        key, _, value = data[len(length) + 1 : size].partition(b"=")
        records[key.decode()] = value[:-1].decode()
        data = data[size:]
    return records
