"""Modulefiles in Tcl, as Environment Modules and Lmod read them both (modulefile(4)).

Only commands that every version of either has are used: ``module-whatis``, ``conflict``, ``setenv``,
``prepend-path`` and ``append-path``, so that unloading takes back all that loading did.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

COOKIE = "#%Module1.0"
"""What the first line of a modulefile says; the program reads no file without it."""


def module(
    origin: str,
    whatis: str,
    *,
    conflicts: Sequence[str],
    paths: Sequence[tuple[str, str]],
    variables: Mapping[str, str],
    behind: Sequence[tuple[str, str]] = (),
) -> bytes:
    """A modulefile; of ``paths`` (variable, folder) the last one is found first, of ``behind`` the last one last.

    ``origin`` is one line that says where the file comes from.
    """
    return _file(
        origin,
        [
            f"module-whatis {quoted(whatis)}",
            f"conflict {' '.join(map(quoted, conflicts))}",
            *(f"setenv {name} {quoted(value)}" for name, value in sorted(variables.items())),
            *(f"prepend-path {name} {quoted(folder)}" for name, folder in paths),
            *(f"append-path {name} {quoted(folder)}" for name, folder in behind),
        ],
    )


def default(origin: str, version: str) -> bytes:
    """The ``.version`` beside the versions of a module: which of them is loaded where none is named."""
    return _file(origin, [f"set ModulesVersion {quoted(version)}"])


def quoted(text: str) -> str:
    """A word of Tcl that is this text: as it is where nothing in it means anything, else in quotes."""
    if re.fullmatch(r"[A-Za-z0-9_./:@%+,=-]+", text):
        return text
    escaped = re.sub(r'([\\"$\[\]{}])', r"\\\1", text).replace("\n", "\\n").replace("\r", "\\r")
    return f'"{escaped}"'


def _file(origin: str, lines: Sequence[str]) -> bytes:
    return "".join(f"{line}\n" for line in (COOKIE, f"# {origin}", *lines)).encode()
