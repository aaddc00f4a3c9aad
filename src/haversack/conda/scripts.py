"""Programs of wheels: the line that names their interpreter, made to name the one at home.

An installer writes the interpreter that it was given into the first line of each (PyPA *Entry points*), and
what it wrote into RECORD (*Recording installed projects*); both are made anew.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import os
import shlex
from collections.abc import Iterable
from pathlib import Path

from packaging.utils import canonicalize_name

LONGEST = 127
"""Bytes of a ``#!`` line that every Linux reads (``BINPRM_BUF_SIZE``, before 5.1)."""


def lead_home(site: Path, names: Iterable[str], prefix: Path, home: Path) -> None:
    """Let the programs of some distributions in ``site`` name the interpreter at ``home`` instead of ``prefix``."""
    wanted = {canonicalize_name(name) for name in names}
    for info in sorted(site.glob("*.dist-info")):
        if canonicalize_name(info.name.removesuffix(".dist-info").rpartition("-")[0]) in wanted:
            _mend(info / "RECORD", site, os.fsencode(str(prefix)), os.fsencode(str(home)))


def _mend(record: Path, site: Path, old: bytes, new: bytes) -> None:
    rows = list(csv.reader(io.StringIO(record.read_text(encoding="utf-8"), newline="")))
    changed = False
    for row in rows:
        # Programs lie beside lib/, never among the modules.
        path = site / row[0]
        if not row[0].startswith("../") or not path.is_file():
            continue
        data = path.read_bytes()
        mended = with_home(data, old, new)
        if mended is not None:
            _replace(path, mended)
            digest = base64.urlsafe_b64encode(hashlib.sha256(mended).digest()).rstrip(b"=").decode()
            row[1:] = [f"sha256={digest}", str(len(mended))]
            changed = True
    if changed:
        text = io.StringIO(newline="")
        csv.writer(text, lineterminator="\n").writerows(rows)
        _replace(record, text.getvalue().encode())


def with_home(script: bytes, old: bytes, new: bytes) -> bytes | None:
    """A script whose interpreter is under ``new`` instead of ``old``; ``None`` if it is not under ``old``.

    A line that would be too long, or that holds a blank, becomes the one that pip and uv write then: a shell
    replaces itself with the interpreter, which reads the same lines as a string.
    """
    first, _, rest = script.partition(b"\n")
    if first == b"#!/bin/sh" and rest.startswith(b"'''exec' "):
        line, _, rest = rest.partition(b"\n")
        try:
            words = shlex.split(os.fsdecode(line.removeprefix(b"'''exec' ")))
        except ValueError:
            return None
        interpreter, rest = os.fsencode(words[0] if words else ""), rest.partition(b"\n")[2]
    else:
        interpreter = first.removeprefix(b"#!")
    if not interpreter.startswith(old + b"/"):
        return None
    interpreter = new + interpreter.removeprefix(old)
    if len(interpreter) + 2 > LONGEST or b" " in interpreter:
        quoted = os.fsencode(shlex.quote(os.fsdecode(interpreter)))
        return b"#!/bin/sh\n'''exec' " + quoted + b' "$0" "$@"\n' + b"' '''\n" + rest
    return b"#!" + interpreter + b"\n" + rest


def _replace(path: Path, data: bytes) -> None:
    """Another file under that name: what uv's cache shares with it stays as it is."""
    mode = path.stat().st_mode
    path.unlink()
    path.write_bytes(data)
    path.chmod(mode)
