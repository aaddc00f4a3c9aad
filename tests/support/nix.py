"""Modules of NixOS, evaluated with Debian's Nix: no store, no network, no nixpkgs."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from haversack.services.nixlang import value

ROOT = Path(__file__).parent.parent.parent
MODULES = ROOT / "nix"
MINILIB = Path(__file__).parent / "minilib.nix"
NIXOS = Path(__file__).parent / "nixos.nix"
FLAKE = Path(__file__).parent / "flake.nix"
_EVALUATE = ("nix-instantiate", "--eval", "--strict", "--json", "--readonly-mode", "--store", "dummy://")


@dataclass(frozen=True)
class Expression:
    """Something that only Nix can say: a path, a package."""

    text: str


def shown(given: Any) -> str:
    """A value as Nix writes it."""
    if isinstance(given, Expression):
        return f"({given.text})"
    if isinstance(given, Mapping):
        return f"{{ {' '.join(f'{json.dumps(key)} = {shown(inner)};' for key, inner in given.items())} }}"
    if isinstance(given, (list, tuple)):
        return f"[ {' '.join(f'({shown(inner)})' for inner in given)} ]"
    if isinstance(given, (int, float)) and not isinstance(given, bool) and given < 0:
        return f"({given})"
    return value(given)


def run(expression: str) -> Any:
    """What an expression evaluates to.  Raises ``CalledProcessError`` with Nix's words in ``stderr``."""
    words = [*_EVALUATE, "-"]
    done = subprocess.run(words, input=expression, capture_output=True, text=True, check=False)
    if done.returncode:
        raise subprocess.CalledProcessError(done.returncode, words, done.stdout, done.stderr)
    return json.loads(done.stdout)


def parse(file: Path) -> str:
    """What Nix says against a file; nothing if it can be read."""
    words = ("nix-instantiate", "--parse", "--readonly-mode", "--store", "dummy://", file)
    return subprocess.run(words, capture_output=True, text=True, check=False).stderr


def evaluate(
    sites: Sequence[tuple[str, Any]], lib: str = "", others: Mapping[str, Any] | None = None
) -> list[dict[str, Any]]:
    """What modules make of what was given, at once; with nixpkgs' ``lib`` where that or a folder with it is named.

    ``others`` are modules that are imported beside each, with what they were given.
    """
    beside = " ".join(
        f"{name} = {{ module = {MODULES / name}.nix; given = {shown(given)}; }};"
        for name, given in (others or {}).items()
    )
    told = "\n".join(
        f'{{ module = {MODULES / name}.nix; name = "{name}"; given = {shown(given)}; others = {{ {beside} }}; }}'
        for name, given in sites
    )
    folder = Path(lib) / "lib" if lib and (Path(lib) / "lib").is_dir() else lib
    library = f"import {NIXOS} {{ lib = import {folder}; }}" if lib else f"import {MINILIB}"
    found = run(f"let library = {library}; in map library.evaluate [ {told} ]")
    assert isinstance(found, list)
    return found
