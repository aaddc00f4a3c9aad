"""Lists the keys of the charts that ClearML's public charts bring along, for ``src/haversack/data/clearml/``.

    python scripts/chart_keys.py CHARTS FOLDER

``CHARTS`` is ``charts/`` of a checkout of clearml-helm-charts; each chart below it holds the archives of those that
it brings along.  A key is known that stands in the values of such a chart, or that its templates read, or the values
and templates of the chart that brings it.  What a template reads as a whole table is free below, except an image.
"""

from __future__ import annotations

import re
import sys
import tarfile
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from haversack.formats import yaml

FREE = "*"
READ = re.compile(r"\.Values((?:\.[A-Za-z0-9_]+)+)")


def of_values(value: Any) -> Any:
    """The keys of a values file; what is empty, a list, or a file by its name, is free."""
    if isinstance(value, dict) and value and not any("." in key for key in value):
        return {key: of_values(item) if "." not in key else FREE for key, item in value.items()}
    return FREE if isinstance(value, dict | list) or value is None else {}


def read_by(chart: Path) -> list[tuple[str, ...]]:
    """What the templates of a chart read, each as the path of its key, sorted."""
    found = set()
    for file in (chart / "templates").rglob("*"):
        if file.suffix in {".yaml", ".yml", ".tpl", ".txt"}:
            found |= {tuple(match[1][1:].split(".")) for match in READ.finditer(file.read_text())}
    return sorted(found)


def add(tree: dict[str, Any], path: tuple[str, ...]) -> None:
    """Take in a key that a template reads."""
    *above, last = path
    for part in above:
        tree = tree.setdefault(part, FREE)
        if not isinstance(tree, dict) or not tree:
            return
    there = tree.setdefault(last, FREE)
    if there and there != FREE and "repository" not in there:
        tree[last] = FREE


def both(one: Any, other: Any) -> Any:
    """The keys of two trees; free where one of them is."""
    if FREE in (one, other):
        return FREE
    return {
        key: both(one[key], other[key]) if key in one and key in other else one.get(key, other.get(key))
        for key in {**one, **other}
    }


def of_chart(chart: Path) -> dict[str, Any]:
    """The keys of a chart, with those of the charts that it brings along."""
    values = yaml.load((chart / "values.yaml").read_bytes(), str(chart)) or {}
    tree = {key: of_values(item) if "." not in key else FREE for key, item in values.items()}
    for path in read_by(chart):
        add(tree, path)
    below = chart / "charts"
    for folder in sorted(below.iterdir()) if below.is_dir() else ():
        if folder.is_dir() and folder.name != "common":
            tree[folder.name] = both(tree.get(folder.name, {}), {**of_chart(folder), "enabled": {}})
    return tree


def lines(tree: dict[str, Any], at: str = "") -> Iterator[str]:
    """A tree as lines, as :mod:`haversack.clearml.charts` reads them."""
    keys = [f"{key}*" if below == FREE else key for key, below in sorted(tree.items()) if below in (FREE, {})]
    for line in textwrap.wrap(" ".join(keys), 108 - len(at), break_long_words=False, break_on_hyphens=False):
        yield f"{at}: {line}"
    for key, below in sorted(tree.items()):
        if below not in (FREE, {}):
            yield from lines(below, f"{at}.{key}" if at else key)


def main(charts: Path, folder: Path) -> None:
    """Write a file for each chart that one of the public charts brings along."""
    for archive in sorted(charts.glob("*/charts/*.tgz")):
        name = archive.name.rpartition("-")[0]
        parent = of_chart(archive.parent.parent)
        with tempfile.TemporaryDirectory() as scratch:
            with tarfile.open(archive) as tar:
                tar.extractall(scratch, filter="data")
            tree = both(of_chart(Path(scratch) / name), parent.get(name, {}))
        (folder / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines(tree)))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
