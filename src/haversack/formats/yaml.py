"""YAML as other people's files are written in it, read strictly, and written so that any reader takes it.

Plain data alone: texts, numbers, true and false, nothing, lists and tables.  Anchors are refused, since a
few lines of them can stand for more than any memory holds (values files of helm may have them, up to a
bound), and so are tags, which make objects in some readers.  Words are read as YAML 1.2 has them (``yes`` is a
text) but in values files of helm; what a reader of YAML 1.1 would take for something else is quoted when it is
written.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from haversack.errors import DeclarationError, HaversackError

_TAG = "tag:yaml.org,2002:"
# Letters and what stands within names, versions and paths; never a number, a date or a word like "no".
_PLAIN = re.compile(r"[A-Za-z_/.][A-Za-z0-9_./+-]*")
_MOST = 200_000
"""What a file may hold with all that its anchors stand for: several times the longest values files there are."""
_WORDS = re.compile(r"(?i:y|n|yes|no|on|off|true|false|null|\.inf|\.nan)|[.0-9eE_+-]*|---|\.\.\.")


_TRUTHS = {
    **dict.fromkeys(("y", "Y", "yes", "Yes", "YES", "on", "On", "ON"), True),
    **dict.fromkeys(("n", "N", "no", "No", "NO", "off", "Off", "OFF"), False),
}
"""What the library that helm and kubectl have takes for truths beside ``true`` and ``false``."""


def load(
    data: bytes, where: str, error: type[HaversackError] = DeclarationError, *, as_helm: bool = False
) -> Any:
    """The value of one document; a day or a moment is a text, ``3.10`` without quotes the number 3.1.

    ``as_helm`` takes what helm and kubectl take (``sigs.k8s.io/yaml``): anchors, keys that are numbers or truths,
    tables merged by ``<<``, which there wins over the keys that stand before it, ``yes`` and ``off`` as truths, and a
    number behind a 0 as octal.

    Raises ``error`` with ``where`` and the line.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        line = data.count(b"\n", 0, problem.start) + 1
        raise error(
            "is not UTF-8 text", where=f"{where}: line {line}", remedy="save the file as UTF-8"
        ) from problem
    try:
        node = YAML(typ="safe", pure=True).compose(text)
        return _Reader(where, error, as_helm=as_helm).value(node) if node is not None else None
    except MarkedYAMLError as problem:
        mark = problem.problem_mark or problem.context_mark
        at = f"{where}: line {mark.line + 1}" if mark is not None else where
        told = problem.problem or "it cannot be read"
        raise error(f"is not YAML: {told}", where=at, remedy="correct the line") from problem
    except YAMLError as problem:
        raise error(
            "is not YAML: it holds a character that no text has", where=where, remedy="write the file anew"
        ) from problem
    except RecursionError as problem:
        raise error("is nested too deeply", where=where, remedy="write the file anew") from problem


class _Reader:
    """Makes values of nodes; errors name the line."""

    def __init__(self, where: str, error: type[HaversackError], *, as_helm: bool) -> None:
        self._where, self._error, self._as_helm = where, error, as_helm
        self._read = 0

    def _wrong(self, node: Node, message: str, remedy: str) -> HaversackError:
        return self._error(message, where=f"{self._where}: line {node.start_mark.line + 1}", remedy=remedy)

    def value(self, node: Node) -> Any:
        """The value of a node and of what is below it."""
        self._read += 1
        if node.anchor and not self._as_helm:
            raise self._wrong(node, "has an anchor (&)", "write the value out wherever it is meant")
        if node.anchor and self._read > _MOST:
            raise self._wrong(node, f"stands for more than {_MOST} values", "use fewer anchors (&)")
        tag = str(node.tag)
        if isinstance(node, MappingNode) and tag == f"{_TAG}map":
            return self._table(node)
        if isinstance(node, SequenceNode) and tag == f"{_TAG}seq":
            return [self.value(item) for item in node.value]
        if isinstance(node, ScalarNode):
            return self._scalar(node, tag.removeprefix(_TAG))
        raise self._wrong(node, "has a tag (!)", "remove the tag")

    def _table(self, node: MappingNode) -> dict[str, Any]:
        found: dict[str, Any] = {}
        seen: set[str] = set()
        for key, value in node.value:
            if self._as_helm and key.tag == f"{_TAG}merge":
                found.update(self._merged(value))
                continue
            name = self.value(key)
            if self._as_helm and isinstance(name, bool | int | float):
                name = json.dumps(name).removesuffix(".0")
            if not isinstance(name, str):
                raise self._wrong(key, "a key is not a text", "write it in quotes")
            if name in seen:
                raise self._wrong(key, f"key {name!r} stands twice", "remove one of them")
            seen.add(name)
            found[name] = self.value(value)
        return found

    def _merged(self, node: Node) -> dict[str, Any]:
        """What a table takes from another one, or from several, of which the first wins."""
        found: dict[str, Any] = {}
        for one in node.value if isinstance(node, SequenceNode) else [node]:
            table = self.value(one)
            if not isinstance(table, dict):
                raise self._wrong(one, "is merged (<<), and is no table", "name tables alone")
            found = {**table, **found}
        return found

    def _scalar(self, node: ScalarNode, tag: str) -> Any:
        text: str = node.value
        if self._as_helm and tag == "str" and _is_bare(node) and text in _TRUTHS:
            return _TRUTHS[text]
        if tag in {"str", "timestamp"}:
            return text
        if tag == "null":
            return None
        try:
            if tag == "bool":
                # A file may ask for YAML 1.1 in its first line.
                return {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}[
                    text.lower()
                ]
            if tag == "int":
                digits = text.replace("_", "")
                if self._as_helm and re.fullmatch(r"[-+]?0[0-7]+", digits):
                    return int(digits, 8)
                return int(digits, 0 if re.match(r"[-+]?0[xob]", text) else 10)
            if tag == "float":
                number = float(text.replace("_", ""))
                if math.isfinite(number):
                    return number
        except (KeyError, ValueError):
            pass
        if tag in {"bool", "int", "float"}:
            raise self._wrong(node, "is a number that cannot be read", "write it in quotes, if it is a text")
        raise self._wrong(node, "has a tag (!)", "remove the tag")


def _is_bare(node: ScalarNode) -> bool:
    """Whether a text stands there without quotes and without a tag that makes it one."""
    mark = node.start_mark
    return node.style is None and mark.buffer[mark.index] != "!"


def dump(value: Any) -> bytes:
    """A JSON value in block style, keys in the order they have; equal values give equal bytes."""
    return "".join(f"{line}\n" for line in _lines(value)).encode()


def _lines(value: Any) -> list[str]:
    if isinstance(value, Mapping) and value:
        found: list[str] = []
        for key, item in value.items():
            nested = isinstance(item, Mapping | list | tuple) and bool(item)
            inner = _lines(item)
            if nested:
                # A list may stand as far left as its key; readers of all ages take it so.
                shift = "" if isinstance(item, Sequence) else "  "
                found += [f"{_text(key)}:", *(shift + line for line in inner)]
            else:
                found.append(f"{_text(key)}: {inner[0]}")
        return found
    if isinstance(value, list | tuple) and value:
        return [
            ("- " if number == 0 else "  ") + line
            for item in value
            for number, line in enumerate(_lines(item))
        ]
    if isinstance(value, str):
        return [_text(value)]
    return [json.dumps(list(value) if isinstance(value, tuple) else value, allow_nan=False)]


def _text(text: str) -> str:
    """A text, in the quotes of JSON wherever it could be taken for anything else."""
    if _PLAIN.fullmatch(text) and not _WORDS.fullmatch(text):
        return text
    # YAML knows no pairs of half characters, and takes these few for the end of a line.
    quoted = json.dumps(text, ensure_ascii=False)
    return re.sub("[\x7f-\x9f\u2028\u2029\ufeff]", lambda found: f"\\u{ord(found[0]):04x}", quoted)
