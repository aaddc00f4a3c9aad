"""Put users into the file that ``haversack serve --auth`` reads; what people wrote there stays as it is."""

from __future__ import annotations

from datetime import date
from pathlib import Path

from haversack.errors import DeclarationError
from haversack.serving import auth


def add(path: Path, name: str, stored: str, *, token: bool, expires: date | None) -> None:
    """Put a user at the end of a file, which is made for its owner alone if it is not there.

    Raises ``DeclarationError`` where the name is taken or the file is none.
    """
    table = auth.entry(name, stored, token=token, expires=expires)
    path.touch(mode=0o600)
    if name in auth.names_in(path):
        raise DeclarationError("is a user already", where=f"{path}: {name}", remedy="remove its table first")
    text = path.read_text(encoding="utf-8")
    blank = "\n" if text and not text.endswith("\n\n") else ""
    with path.open("a", encoding="utf-8") as file:
        file.write(("" if text.endswith("\n") or not text else "\n") + blank + table)
