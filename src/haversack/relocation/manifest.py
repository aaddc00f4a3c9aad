"""What a packed folder says of itself: where it stood, of which make it is, and which files know that.

``haversack-prefix.json`` is canonical JSON::

    {"haversack-prefix": "1.0", "flavour": "venv", "python": "3.11", "prefixes": ["/opt/env"],
     "files": [{"path": "bin/pip", "mode": "text"},
               {"path": "lib/libx.so", "mode": "binary", "room": 255, "everywhere": true}]}
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, cast, get_args

from haversack.errors import IntegrityError, PrefixError
from haversack.formats.canonical import Fields, canonical, check_version, parse
from haversack.model.finding import Finding
from haversack.relocation.spelling import Mode, Move, Occurrence
from haversack.relocation.tape import MANIFEST

Flavour: TypeAlias = Literal["conda", "venv", "folder"]
"""``conda``: has ``conda-meta``; ``venv``: has ``pyvenv.cfg`` and borrows its interpreter; any other folder."""

VERSION = "1.0"
_REMEDY = "lock and pack the environment again"
_HOME = re.compile(r"/[^\x00-\x1f\x7f\"'`$\\]+")


def fits(path: str) -> bool:
    """Whether a path is one that scripts of any shell can hold between quotes, and JSON and Python as it is.

    Where it is not, they spell it in other ways, which nobody finds again.
    """
    return _HOME.fullmatch(path) is not None and "//" not in path and not path.endswith("/")


@dataclass(frozen=True, slots=True)
class Manifest:
    """A packed folder.

    ``old`` are all spellings of the path that it had, ``python`` is the minor version (``"3.11"``) that a
    virtual environment borrows, ``occurrences`` are the files to rewrite, by path.
    """

    flavour: Flavour
    old: tuple[str, ...]
    python: str | None
    occurrences: tuple[Occurrence, ...]

    @property
    def room(self) -> int | None:
        """The length in bytes of the longest path that it can be put at; ``None`` if any will do."""
        return min((o.room for o in self.occurrences if o.room is not None), default=None)

    def move(self, home: str) -> Move:
        """The move to ``home``, an absolute path.

        Raises ``PrefixError``, with a finding ``prefix-long``, for a path that does not fit into the files, and
        for one that scripts cannot hold.
        """
        if not fits(home):
            raise PrefixError(
                "is not a path that scripts can hold",
                where=home if home.isprintable() else ascii(home),
                remedy="choose an absolute path without quotes, backslashes, $ and control characters",
            )
        new = home.encode()
        short = [o for o in self.occurrences if o.room is not None and o.room < len(new)]
        if short:
            worst = min(short, key=lambda o: (o.room or 0, o.path))
            others = f", and {len(short) - 1} other files" if len(short) > 1 else ""
            remedy = f"choose a path of at most {worst.room} bytes"
            message = f"has room for a path of {worst.room} bytes, not of {len(new)}{others}"
            raise PrefixError(
                f"is too long: {len(new)} bytes, where {worst.room} fit",
                where=home,
                remedy=remedy,
                findings=[Finding("prefix-long", worst.path, message, remedy)],
            )
        return Move(tuple(old.encode() for old in self.old), new)


def write(manifest: Manifest) -> bytes:
    """The bytes of a manifest."""
    files = []
    for o in manifest.occurrences:
        line: dict[str, Any] = {"path": o.path, "mode": o.mode}
        if o.room is not None:
            line["room"] = o.room
        if o.everywhere:
            line["everywhere"] = True
        files.append(line)
    value = {
        "haversack-prefix": VERSION,
        "flavour": manifest.flavour,
        "prefixes": list(manifest.old),
        "files": files,
    }
    if manifest.python is not None:
        value["python"] = manifest.python
    return canonical(value) + b"\n"


def read(data: bytes) -> Manifest:
    """A manifest.  Raises ``IntegrityError``, or ``FormatError`` for one of a newer major version."""
    fields = Fields(parse(data, MANIFEST), MANIFEST, IntegrityError, _REMEDY)
    check_version(fields.text("haversack-prefix"), VERSION, MANIFEST)
    flavour = fields.text("flavour")
    if flavour not in get_args(Flavour):
        raise fields.wrong(f"'flavour' is none of {', '.join(get_args(Flavour))}")
    old = fields.texts("prefixes")
    if not old or not all(map(fits, old)):
        raise fields.wrong("'prefixes' are not absolute paths")
    python = fields.text_or_none("python")
    if (python is None) == (flavour == "venv") or (python and not re.fullmatch(r"3\.\d+", python)):
        raise fields.wrong("'python' is not the version that a virtual environment borrows")
    found = tuple(_occurrence(item) for item in fields.items("files"))
    if any(a.path >= b.path for a, b in itertools.pairwise(found)):
        raise fields.wrong("'files' are not sorted, or one stands twice")
    return Manifest(cast(Flavour, flavour), old, python, found)


def _occurrence(item: Any) -> Occurrence:
    fields = Fields(item, f"{MANIFEST}: files", IntegrityError, _REMEDY)
    mode = fields.text("mode")
    room = fields.count_or_none("room")
    if mode not in get_args(Mode) or (room is not None) != (mode == "binary"):
        raise fields.wrong("'mode' and 'room' do not go together")
    everywhere = bool(item.get("everywhere", False))
    return Occurrence(fields.text("path"), cast(Mode, mode), room, everywhere)
