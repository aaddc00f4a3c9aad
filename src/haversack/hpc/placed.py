"""Whether what was rendered still lies where people use it, and is what would be rendered now; only reads."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from haversack.formats import rendered
from haversack.formats.rendered import Kept
from haversack.hpc.installed import note
from haversack.model.artifact import digest_of
from haversack.model.finding import Finding


def left(folder: Path, files: Collection[str], by: str) -> dict[str, bool]:
    """What a renderer (``by``) once wrote below ``folder`` and would not write now, and whether its list has it.

    A file that came without the list is known by its first lines.
    """
    found = {}
    before = _listed(folder)
    for path in sorted(folder.glob("*/*")):
        name = path.relative_to(folder).as_posix()
        if name in files or not path.is_file():
            continue
        kept = before.get(name)
        lines = (_bytes(path) or b"").splitlines()[:3]
        written = any(f" haversack render {by}, ".encode() in line for line in lines)
        listed = kept is not None and kept.by == by
        if listed or (written and (kept is None or kept.by is None)):
            found[name] = listed
    return found


def _listed(folder: Path) -> dict[str, Kept]:
    """What was rendered into a folder, by name."""
    return rendered.read(_bytes(folder / rendered.MARKER))


def compared(folder: Path, files: Mapping[str, bytes], by: str, render: str) -> list[Finding]:
    """A finding for each of the ``files`` of a renderer (``by``) that does not lie in ``folder`` as it should.

    ``render`` is the command that writes them.
    """
    before = _listed(folder)
    findings = []
    for name, data in sorted(files.items()):
        path = folder / name
        held, kept = _bytes(path), before.get(name)
        if held is None:
            findings.append(note(str(path), "is not there", render))
        elif held != data and kept is not None and kept.by not in {None, by}:
            said = f"is what haversack render {kept.by} wrote, where one of {by} should be"
            findings.append(note(str(path), said, "render each into a folder of its own"))
        elif held != data and kept is not None and digest_of(held) == kept.digest:
            findings.append(note(str(path), "is not what would be rendered now", render))
        elif held != data:
            whose = "was edited since it was rendered" if kept else f"was not rendered; it is {owner(path)}'s"
            remedy = f"see how they differ: {render}, which replaces it only with --force"
            findings.append(note(str(path), whose, remedy))
    return findings


def owner(path: Path) -> str:
    """Who owns a file: a name, or the number of a user that has none here."""
    try:
        return path.owner()
    except (KeyError, OSError):
        return f"user {path.lstat().st_uid}"


def _bytes(path: Path) -> bytes | None:
    """What a file holds; nothing of what is none, or may not be read."""
    try:
        return path.read_bytes()
    except OSError:
        return None
