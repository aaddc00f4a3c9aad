"""``haversack init``: a declaration for the project that lies in a folder."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from haversack.errors import DeclarationError, UsageError
from haversack.formats import environmentyml
from haversack.formats.declaration import FILENAME
from haversack.formats.schema import quoted
from haversack.formats.strict import Place, includes, load, toml
from haversack.model.artifact import is_safe_filename
from haversack.model.lock import TOOL
from haversack.model.snapshot import free_name
from haversack.model.target import Target

_PYTHONS = ("3.11", "3.12", "3.13", "3.14", "3.10", "3.9")


@dataclass(frozen=True, slots=True)
class InitReport:
    """The declaration written, the environments in it, and what a person should know about it."""

    path: Path
    environments: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Source:
    """An environment to declare: its name, the key that says what is in it, the file, comments to offer.

    ``more`` are further lines of its table.
    """

    name: str
    key: str
    file: str
    offers: tuple[str, ...] = ()
    kind: str = "pip"
    more: tuple[str, ...] = ()

    @property
    def value(self) -> str:
        """The value of the key, in TOML."""
        if self.key == "requirements":
            return _shown([self.file])
        return '"."' if self.key == "project" else _shown(self.file)


def init(folder: Path, *, force: bool = False, machine: Target | None = None) -> InitReport:
    """Write a commented ``haversack.toml`` for what lies in ``folder``; nothing else is touched.

    The most exact description wins: ``pixi.lock``, then ``conda-lock.yml``, ``uv.lock``, ``pylock*.toml``,
    ``environment.yml``, a ``pyproject.toml`` with a project, and ``requirements*.txt``.  ``machine`` becomes the target, under its name; without it the
    target is a common one to be corrected.  Raises ``UsageError`` when there is a declaration already and
    no ``force``, ``DeclarationError`` when a file cannot be read or the declaration not be written.
    """
    path = folder / FILENAME
    if not folder.is_dir():
        raise UsageError("there is no such folder", where=str(folder), remedy="make it, or name another")
    if path.exists() and not force:
        raise UsageError("is there already", where=str(path), remedy="edit it, or pass --force to replace it")
    notes: list[str] = []
    project = _project(folder)
    sources, rest = _sources(folder, project)
    if sources and rest:
        notes.append(f"{', '.join(rest)}: not declared, since {sources[0].file} is more exact")
    if (folder / "uv.lock").is_file() and not (folder / "pyproject.toml").is_file():
        notes.append("uv.lock: not declared, since the pyproject.toml that it locks is not beside it")
    if (folder / "pixi.toml").is_file() and not (folder / "pixi.lock").is_file():
        notes.append("pixi.toml: not declared, since there is no pixi.lock beside it; run: pixi lock")
    if not sources:
        notes.append("found nothing to lock: fill in the environment that is commented out")
    wishes = _wishes(folder, sources)
    target = machine or Target("inside", "linux-x86_64", _python(wishes))
    notes.append(
        f"the target {target.name} is "
        + ("this machine; change it if those inside differ" if machine else "a guess; correct it")
    )
    notes += [
        f"{file} wants Python {wish}, the target has {target.python}"
        for file, wish in wishes.items()
        if not wish.contains(target.python, prereleases=True)
    ]
    if any(source.key == "project" for source in sources) and "dependencies" in project.get("dynamic", ()):
        notes.append("pyproject.toml takes its dependencies from other files; a change there goes unnoticed")
    name = _word(folder.resolve().name) or "my-site"
    _write(path, _declaration(name, target, sources))
    return InitReport(path, tuple(source.name for source in sources), tuple(notes))


def _read(folder: Path, file: str) -> dict[str, Any]:
    place = Place(folder, file)
    return toml(load(file, place), place)


def _project(folder: Path) -> Mapping[str, Any]:
    """The ``[project]`` table, with ``dependency-groups`` put beside it under that name, or nothing."""
    if not (folder / "pyproject.toml").is_file():
        return {}
    data = _read(folder, "pyproject.toml")
    if not isinstance(data.get("project"), dict):
        return {}
    return {**data["project"], "dependency-groups": data.get("dependency-groups", {})}


def _sources(folder: Path, project: Mapping[str, Any]) -> tuple[list[_Source], list[str]]:
    """The environments to declare, and the files that were passed over for them."""
    files = sorted(
        entry.name for entry in folder.iterdir() if entry.is_file() and is_safe_filename(entry.name)
    )
    pylocks = [file for file in files if re.fullmatch(r"pylock(\.[^.]+)?\.toml", file)]
    lists = _roots(folder, [file for file in files if re.fullmatch(r"requirements.*\.txt", file)])
    main = _word(str(project.get("name", ""))) or _word(folder.resolve().name) or "main"
    offers = tuple(
        f"{key} = {_shown(sorted(project[table]))}"
        for key, table in (("extras", "optional-dependencies"), ("groups", "dependency-groups"))
        if isinstance(project.get(table), dict) and project[table]
    )
    families = [
        _pixi(folder, main) if "pixi.lock" in files else [],
        [_Source(main, "file", "conda-lock.yml", kind="conda")] if "conda-lock.yml" in files else [],
        # uv reads the project beside its lock to know what was locked.
        [_Source(main, "lock", "uv.lock", offers)] if {"uv.lock", "pyproject.toml"} <= set(files) else [],
        [_Source(name, "lock", file, offers) for name, file in _names(pylocks, "pylock", main)],
        _conda(folder, [file for file in files if re.fullmatch(r"environment.*\.ya?ml", file)], main),
        [_Source(main, "project", "pyproject.toml", offers)] if project else [],
        [_Source(name, "requirements", file) for name, file in _names(lists, "requirements", main)],
    ]
    best: list[_Source] = next((family for family in families if family), [])
    return best, [source.file for family in families if family is not best for source in family]


def _pixi(folder: Path, main: str) -> list[_Source]:
    """Every environment of the project's ``pixi.lock``."""
    from haversack.conda import pixilock

    found = []
    for name in pixilock.read(folder / "pixi.lock").environments:
        more = () if name == "default" else (f"environment = {_shown(name)}",)
        called = main if name == "default" else _word(name) or main
        offer = 'sources = ["src"]                # folders of the project that cross with it'
        found.append(_Source(called, "file", "pixi.lock", (offer,), "pixi", more))
    return found


def _conda(folder: Path, files: Sequence[str], main: str) -> list[_Source]:
    """An environment for each of conda's files; one without channels of its own gets a line to fill in."""
    found = []
    for name, file in _names(files, "environment", main):
        told = environmentyml.read((folder / file).read_bytes(), file)
        more = () if told.channels else ('channels = ["conda-forge"]',)
        found.append(_Source(name, "file", file, (), "conda", more))
    return found


def _roots(folder: Path, lists: Sequence[str]) -> list[str]:
    """The requirements files that are not merely part of another one."""
    parts = {
        path for file in lists for _, path in includes(load(file, Place(folder, file)), file) if path != file
    }
    return [file for file in lists if file == "requirements.txt" or file not in parts] or list(lists)


def _names(files: Iterable[str], prefix: str, main: str) -> list[tuple[str, str]]:
    """A name for the environment of each file: ``requirements-dev.txt`` is ``dev``; the plain file is first."""
    taken: list[tuple[str, str]] = []
    for file in sorted(files, key=len):
        wanted = _word(file.removeprefix(prefix).rpartition(".")[0]) or main
        taken.append((free_name(wanted, [name for name, _ in taken]), file))
    return taken


def _word(text: str) -> str:
    """The text as a name for a site or an environment, or nothing if none can be made of it."""
    word = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    return word if word and word != TOOL and is_safe_filename(word) else ""


def _wishes(folder: Path, sources: Iterable[_Source]) -> dict[str, SpecifierSet]:
    """Which Pythons the declared files allow, where they say so."""
    found: dict[str, SpecifierSet] = {}
    for source in sources:
        if source.key in {"requirements", "file"}:
            continue
        data = _read(folder, source.file)
        wish = (data["project"] if source.key == "project" else data).get("requires-python")
        if wish is None:
            continue
        try:
            found[source.file] = SpecifierSet(wish)
        except (InvalidSpecifier, TypeError, AttributeError) as problem:
            raise DeclarationError(
                "requires-python is no version specifier", where=source.file, remedy='write it like ">=3.11"'
            ) from problem
    return found


def _python(wishes: Mapping[str, SpecifierSet]) -> str:
    """The most common Python that all files allow, or the most common one."""
    for python in _PYTHONS:
        if all(wish.contains(python) for wish in wishes.values()):
            return python
    return _PYTHONS[0]


def _shown(value: str | Sequence[str]) -> str:
    """A text or an array of texts in TOML."""
    return json.dumps(value, ensure_ascii=False)


def _declaration(name: str, target: Target, sources: Sequence[_Source]) -> str:
    """The text of the declaration."""
    blocks = [
        "# What this site needs behind its air gap. `haversack lock` answers it exactly,\n"
        "# `haversack pack` makes the bundle that crosses.",
        f"[site]\nname = {_shown(name)}\n"
        "# The same answer next month: ignore what was uploaded after a day.\n"
        '# exclude-newer = "YYYY-MM-DD"',
        "# An index of your own. Its user name and password never stand here:\n"
        "# auth says where they are (none, env, netrc or keyring).\n"
        "# [index.internal]\n"
        '# url = "https://index.example/simple"\n'
        "# default = true                 # instead of PyPI\n"
        '# auth = "netrc"',
        "# A kind of machine inside; `haversack probe` finds out what one is.\n"
        f"[target.{quoted(target.name)}]\n"
        + "\n".join(f"{key} = {_shown(value)}" for key, value in target.to_json().items()),
    ]
    for source in sources:
        lines = [f"[env.{quoted(source.name)}]", f"kind = {_shown(source.kind)}"]
        lines += [f"{source.key} = {source.value}", *source.more]
        lines += [f"# {offer}" for offer in source.offers]
        lines += [f"targets = {_shown([target.name])}", *_OPTIONS]
        blocks.append("\n".join(lines))
    if not sources:
        example = ["[env.main]", 'kind = "pip"', 'requirements = ["requirements.txt"]']
        example.append(f"targets = {_shown([target.name])}")
        blocks.append("\n".join([f"# {line}" for line in example] + [*_OPTIONS]))
    return "\n\n".join(blocks) + "\n"


_OPTIONS = (
    "# check = \"python -c 'import something'\"   # what must succeed in a good installation",
    "# build = true                   # build a wheel here where a package has none",
)


def _write(path: Path, text: str) -> None:
    """Put the text under ``path`` in one step."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with aside.open("w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError as problem:
        aside.unlink(missing_ok=True)
        raise DeclarationError(
            f"cannot be written: {problem.strerror}",
            where=str(path),
            remedy="choose a folder you may write to",
        ) from problem
