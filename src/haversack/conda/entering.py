"""What entering an installed environment sets, for those who cannot source a script of a shell.

A script that a conda package brings to be sourced can set anything; so it is sourced once, in a bash that
has nothing of the person who asks, and what it changed is told.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from haversack.errors import ToolError
from haversack.formats.prefixes import META
from haversack.ports import Inside

_LISTS = ("PATH", "DIRS")
_OF_A_SHELL = {"PATH", "PS1", "SHLVL", "_", "PWD", "OLDPWD", "CONDA_PROMPT_MODIFIER"}
_BEFORE = "/usr/bin:/bin"
_SOURCED = 'env -0; printf "\\0"; . "$1" > /dev/null && exec env -0'


@dataclass(frozen=True, slots=True)
class Entered:
    """``paths`` are variables that list folders and a folder for the front of each, the last one first of all.

    ``behind`` are those for the end of each.
    """

    paths: tuple[tuple[str, str], ...]
    variables: dict[str, str]
    behind: tuple[tuple[str, str], ...] = ()


def entered(prefix: Path, inside: Inside) -> Entered:
    """What entering the environment at ``prefix`` sets.  Raises ``ToolError`` if its activation fails."""
    own = ("PATH", str(prefix / "bin"))
    if not (prefix / META).is_dir():
        return Entered((own,), {"VIRTUAL_ENV": str(prefix)} if (prefix / "pyvenv.cfg").is_file() else {})
    script = activation(prefix)
    if script is None:
        return Entered((own,), {"CONDA_PREFIX": str(prefix)})
    bash = ["bash", "--norc", "--noprofile", "-c", _SOURCED, "-", str(script)]
    done = inside.run(["env", "-i", f"PATH={_BEFORE}", "HOME=/", *bash])
    before, _, after = done.out.partition("\0\0")
    was, now = (dict(line.partition("=")[::2] for line in part.split("\0")) for part in (before, after))
    # A package may put folders of its own before or behind that of all programs.
    front, _, behind = f"{now.get('PATH', '')}:".partition(f":{_BEFORE}:")
    if done.code or own[1] not in front.split(":"):
        raise ToolError(
            f"does not activate: {done.err.strip()[-500:]}",
            where=str(prefix),
            remedy=f"see what it says: . {script}",
        )
    paths: list[tuple[str, str]] = []
    variables: dict[str, str] = {}
    for name, value in sorted(now.items()):
        if name == "PATH":
            value = front
        elif name in _OF_A_SHELL or was.get(name) == value or not name.isidentifier() or not name.isascii():
            continue
        if name.endswith(_LISTS):
            paths += [(name, part) for part in reversed(value.split(":")) if part]
        else:
            variables[name] = value
    return Entered(tuple(paths), variables, tuple(("PATH", folder) for folder in behind.split(":") if folder))


def activation(prefix: Path) -> Path | None:
    """What a shell sources to enter an environment, if it has such a file; conda's own would want conda."""
    for name in ("haversack-activate", "activate"):
        script = prefix / "bin" / name
        if script.is_file() and (name != "activate" or not _is_condas(script)):
            return script
    return None


def _is_condas(script: Path) -> bool:
    """Whether a script is the one that conda brings, or conda-pack put there."""
    is_conda = (script.parent.parent / META).is_dir()
    with script.open("rb") as file:
        return is_conda and b"haversack" not in file.read(200)
