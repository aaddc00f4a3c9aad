"""HOCON as ClearML's agents read it: tables, lists and JSON's scalars, written so that a person can read them.

Every value stands as JSON writes it, which is a subset of HOCON (its specification, "JSON"): nothing in a text is
substituted or joined.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")


def dump(value: Mapping[str, Any]) -> bytes:
    """A table as a file, keys in the order they have; equal values give equal bytes."""
    return "".join(f"{line}\n" for line in _table(value)).encode()


def _table(value: Mapping[str, Any]) -> list[str]:
    found: list[str] = []
    for key, item in value.items():
        name = key if _PLAIN.fullmatch(key) else json.dumps(key)
        if isinstance(item, Mapping):
            found += [f"{name} {{", *(f"    {line}" for line in _table(item)), "}"]
        elif isinstance(item, list | tuple) and item:
            items = [json.dumps(each, ensure_ascii=False) for each in item]
            found += [f"{name}: [", *(f"    {each}," for each in items[:-1]), f"    {items[-1]}", "]"]
        else:
            found.append(f"{name}: {json.dumps(item, ensure_ascii=False)}")
    return found
