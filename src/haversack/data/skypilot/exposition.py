"""The text format of Prometheus, version 0.0.4: what is ours written, what is another's read strictly.

https://prometheus.io/docs/instrumenting/exposition_formats/ says what a line is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

_NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
_LABEL = r'[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\]|\\["\\n])*"'
# Nowhere two runs of spaces or digits side by side: a long one would be shared out in every way there is.
_LABELS = rf"\{{\s*(?:{_LABEL}\s*(?:,\s*{_LABEL}\s*)*(?:,\s*)?)?\}}"
_VALUE = r"[+-]?(?:[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?|\.[0-9]+(?:[eE][+-]?[0-9]+)?|Inf|inf|NaN|nan)"
_SAMPLE = re.compile(rf"({_NAME})(?:\s*{_LABELS}\s*|\s+){_VALUE}(?:\s+-?[0-9]+)?")
_ABOUT = re.compile(rf"# (HELP|TYPE) ({_NAME})(?: (.*))?")
_KINDS = {"counter", "gauge", "histogram", "summary", "untyped"}
_PARTS = {"histogram": ("_bucket", "_sum", "_count"), "summary": ("_sum", "_count")}


@dataclass(frozen=True)
class Family:
    """A gauge: its name, what it means, and its values by labels."""

    name: str
    about: str
    samples: tuple[tuple[Mapping[str, str], float], ...]


def written(families: Iterable[Family], but: frozenset[str] = frozenset()) -> str:
    """Families as text, without those whose names are in ``but`` and those without a value."""
    lines = []
    for family in families:
        if family.name in but or not family.samples:
            continue
        lines += [f"# HELP {family.name} {_escaped(family.about)}", f"# TYPE {family.name} gauge"]
        for labels, value in family.samples:
            told = ",".join(f'{name}="{_label(text)}"' for name, text in labels.items())
            lines.append(f"{family.name}{f'{{{told}}}' if told else ''} {value!r}")
    return "".join(f"{line}\n" for line in lines)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _label(text: str) -> str:
    return _escaped(text).replace('"', '\\"')


def names(text: str) -> frozenset[str]:
    """The names of the families of a text.

    Raises ``ValueError`` with one short reason where a line is none of the format, where a family is said twice, and
    where a family's lines do not stand together: Prometheus takes nothing of such a text.
    """
    kinds: dict[str, str] = {}
    done: set[str] = set()
    told: set[tuple[str, str]] = set()
    current = ""
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        if line.startswith("#"):
            about = _ABOUT.fullmatch(line.rstrip())
            if about is None:
                if re.match(r"#\s+(HELP|TYPE)\b", line):
                    raise ValueError(f"line {number} is no line of the format")
                continue
            what, name, rest = about.groups()
            if (what, name) in told:
                raise ValueError(f"line {number} says {what} of {name[:80]} again")
            told.add((what, name))
            if what == "TYPE":
                if rest not in _KINDS:
                    raise ValueError(f"line {number} has a type that there is not")
                kinds[name] = rest
        else:
            sample = _SAMPLE.fullmatch(line.strip())
            if sample is None:
                raise ValueError(f"line {number} is no line of the format")
            name = _family(sample[1], kinds)
        if name != current:
            if name in done:
                raise ValueError(f"line {number} is of {name[:80]}, whose lines stand elsewhere")
            done.add(name)
            current = name
    return frozenset(done)


def _family(sample: str, kinds: Mapping[str, str]) -> str:
    if sample in kinds:
        return sample
    for kind, ends in _PARTS.items():
        for end in ends:
            if sample.endswith(end) and kinds.get(sample.removesuffix(end)) == kind:
                return sample.removesuffix(end)
    return sample
