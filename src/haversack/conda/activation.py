"""Scripts that activate an environment in a person's shell where there is no conda.

They do what ``conda activate`` does: set ``PATH``, ``CONDA_PREFIX`` and the variables of the environment,
source ``etc/conda/activate.d``, and take all of it back on ``deactivate``.  Their texts are templates in
``haversack/data/activate``; what they say can be derived again, so that a changed one is found.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Collection, Mapping
from importlib import resources
from pathlib import Path

from haversack.conda.layout import Layout

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OURS = ("PATH", "CONDA_PREFIX", "CONDA_DEFAULT_ENV", "CONDA_PROMPT_MODIFIER", "CONDA_SHLVL")
# What conda puts before PATH on Windows; the prefix itself first.
_WINDOWS = ("", "Library/mingw-w64/bin", "Library/usr/bin", "Library/bin", "Scripts", "bin")


def posix_script(prefix: Path, layout: Layout) -> str:
    """The script that sh, bash and zsh source, relative to ``prefix``."""
    own = f"{layout.programs}/haversack-activate"
    return own if (prefix / own).is_file() else f"{layout.programs}/activate"


def write(prefix: Path, layout: Layout, home: Path, variables: Mapping[str, str]) -> None:
    """Write the scripts into ``prefix``, for use at ``home``, with the environment's own ``variables``.

    Where a package brought an ``activate`` (conda itself does), ours are called ``haversack-activate`` and so on.
    """
    taken = [path for path in _names(layout, "") if (prefix / path).exists()]
    for path, data in files(prefix, layout, home, variables, taken).items():
        place = prefix / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)


def files(
    prefix: Path, layout: Layout, home: Path, variables: Mapping[str, str], taken: Collection[str]
) -> dict[str, bytes]:
    """What :func:`write` writes, by path; ``taken`` are the paths that packages brought."""
    start = "haversack-" if any(path in taken for path in _names(layout, "")) else ""
    values = {**_of_packages(prefix), **variables}
    values = {name: value for name, value in values.items() if _NAME.fullmatch(name) and name not in _OURS}
    folder = resources.files("haversack") / "data" / "activate"
    return {
        path: _filled((folder / template).read_text(), template, values, layout, home, start).encode()
        for path, template in _names(layout, start).items()
    }


def _names(layout: Layout, start: str) -> dict[str, str]:
    """The scripts that a layout has, and the template of each."""
    found = {f"{layout.programs}/{start}Activate.ps1": "Activate.ps1"}
    if not layout.windows:
        found |= {
            f"bin/{start}activate": "activate.sh",
            f"bin/{start}activate.fish": "activate.fish",
            f"bin/{start}activate.csh": "activate.csh",
            f"bin/{start}deactivate.csh": "deactivate.csh",
        }
    return found


def _of_packages(prefix: Path) -> dict[str, str]:
    """The variables that packages set (conda's ``etc/conda/env_vars.d``), the last by file name winning."""
    found: dict[str, str] = {}
    for path in sorted((prefix / "etc" / "conda" / "env_vars.d").glob("*.json")):
        try:
            told = json.loads(path.read_bytes())
        except (OSError, ValueError, RecursionError):
            continue  # conda warns of it and goes on
        if isinstance(told, dict):
            found |= {
                name: value for name, value in told.items() if isinstance(value, str) and _is_text(value)
            }
    return found


def _is_text(value: str) -> bool:
    """Whether a string of JSON is one of whole characters, as a file can hold."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _filled(
    text: str, template: str, values: Mapping[str, str], layout: Layout, home: Path, start: str
) -> str:
    quote = {"sh": shlex.quote, "fish": _fish, "csh": _csh, "ps1": _powershell}[template.rpartition(".")[2]]
    line = {"sh": "_haversack_set", "fish": "_haversack_set", "csh": "setenv", "ps1": "_HaversackSet"}
    command = line[template.rpartition(".")[2]]
    names = [*_OURS, *values]
    folders = _WINDOWS if layout.windows else (layout.programs,)
    tokens = {
        "@NAMES@": " ".join(names),
        "@PROGRAMS@": layout.programs,
        "@DEACTIVATE@": f"{start}deactivate.csh",
        "@PROMPT@": quote(f"({home.name}) "),
        "@VARIABLES@": "\n".join(f"{command} {name} {quote(value)}" for name, value in values.items()),
        "@FOLDERS@": ", ".join(map(_powershell, folders)),
        "@SAVE@": "\n".join(map(_save_csh, names)),
        "@RESTORE@": "\n".join(map(_restore_csh, names)),
        "@HOME@": quote(str(home)),
    }
    return re.sub("|".join(tokens), lambda match: tokens[match[0]], text)


def _save_csh(name: str) -> str:
    # A block: csh reads the variable on a line of one ``if`` even where that is not true.
    return f'if ($?{name}) then\n    set _haversack_old_{name} = "${name}:q"\nendif'


def _restore_csh(name: str) -> str:
    old = f"_haversack_old_{name}"
    return f'unsetenv {name}\nif ($?{old}) then\n    setenv {name} "${old}:q"\n    unset {old}\nendif'


def _fish(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _csh(text: str) -> str:
    """In csh even single quotes keep neither ``!`` nor a new line from being read."""
    return "'" + text.replace("'", "'\\''").replace("!", "\\!").replace("\n", "\\\n") + "'"


def _powershell(text: str) -> str:
    """To PowerShell typographic quotes (U+2018 to U+201B) are quotes: any of them ends a string, doubled it does not."""
    return "'" + re.sub("(['\u2018-\u201b])", r"\1\1", text) + "'"
